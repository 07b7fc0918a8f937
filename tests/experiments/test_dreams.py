"""The experiment dreams: its measures, its pictures, and what it shows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnn
from experiments._common import dreams as common
from experiments._common.digits import load_digits, mean_image
from experiments._common.readings import nearest
from experiments._common.results import save_animation
from jaxnn import dreaming
from tests.experiments.test_main import run

pytestmark = pytest.mark.optimized

needs_adapters = pytest.mark.skipif(
    not (hasattr(jaxnn, "from_linen") and hasattr(jaxnn, "map_examples")), reason="needs the adapters"
)


def test_distance_and_smoothness_equal_numpy():
    digits = load_digits("digits")
    images = np.random.default_rng(0).uniform(0, 1, (4, 8, 8)).astype(np.float32)
    inputs = np.asarray(digits.inputs, np.float64)
    far = [min(np.linalg.norm(inputs - image.ravel(), axis=1)) for image in images]
    np.testing.assert_allclose(nearest(images, digits)[1], far, rtol=1e-4)
    rough = [(np.abs(np.diff(i, axis=0)).sum() + np.abs(np.diff(i, axis=1)).sum()) / 64 for i in images]
    np.testing.assert_allclose(common.smoothness(jnp.asarray(images)), rough, rtol=1e-5)
    np.testing.assert_allclose(mean_image(digits).ravel(), inputs.mean(axis=0), rtol=1e-5)


def test_surely_is_the_logit_plus_the_log_probability():
    signals = jnp.array([0.5, -1.0, 2.0])
    softmax = np.exp(signals) / np.exp(signals).sum()
    sigmoid = 1 / (1 + np.exp(1.0))
    objective = common.surely(jnp.array(1))
    np.testing.assert_allclose(objective(signals, {}), -1 + 5 * np.log(softmax[1]), rtol=1e-5)
    found = objective(jax.nn.sigmoid(signals), {"output_in": signals})
    np.testing.assert_allclose(found, -1 + 5 * np.log(sigmoid), rtol=1e-5)


@pytest.mark.long
def test_each_output_dreams_and_the_regularized_dream_is_smoother():
    digits = load_digits("digits")
    model = dreaming.flattened(jaxnn.init(jax.random.key(0), (64, 20, 10)))
    options = common.regularized(mean_image(digits), to_mean=5.0, smooth=2.0)
    plain, smooth = (
        common.dream_each(model, 3, jax.random.key(0), (8, 8), steps=100, **kind)
        for kind in (common.PLAIN, options)
    )
    assert np.argmax(jax.vmap(model)(plain.image)[:, :3], axis=1).tolist() == [0, 1, 2]
    assert common.smoothness(smooth.image).mean() < common.smoothness(plain.image).mean() / 3


def test_an_animation_holds_every_frame(tmp_path):
    frames = np.arange(5, dtype=np.uint8)[:, None, None] * 50 + np.zeros((5, 8, 12), np.uint8)
    save_animation(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 5
        assert picture.size == (12, 8)
        for i in range(5):
            picture.seek(i)
            assert abs(int(np.asarray(picture.convert("L")).mean()) - 50 * i) < 3


@pytest.mark.long
@needs_adapters
def test_dreams_are_classified_and_beat_the_training_images(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = run("experiments.dreams", "--epochs", 5, "--cnn-epochs", 2, "--hidden", 30, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "…" not in done.stdout  # the tables fit into a terminal
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["pictures"]) == {
        "pictures.png", "hidden_units.png", "appearing.png", "deep.png", "appearing.gif"
    }  # fmt: skip
    for name in metrics["pictures"]:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 100
    for name in ("dense", "CNN"):
        plain, smooth, prior = (
            metrics["rows"][f"{name}, {kind} dream"] for kind in ("plain", "regularized", "prior")
        )
        assert prior["predictions"] == list(range(10))
        assert np.mean(prior["distance_to_nearest"]) < np.mean(plain["distance_to_nearest"]) / 1.5
        assert plain["predictions"] == list(range(10))
        assert min(plain["probability"]) > 0.99
        assert sum(a == b for a, b in enumerate(smooth["predictions"])) >= 9  # trained so shortly
        assert np.mean(smooth["total_variation"]) < np.mean(plain["total_variation"]) / 3
        assert np.all(np.array(metrics["logits"][f"{name}, plain"]) > metrics["logits"][f"{name}, best real"])
    with Image.open(tmp_path / "appearing.gif") as picture:
        assert picture.n_frames == 33


@needs_adapters
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digit": 10}, "`digit` must lie from 0 to 9; got 10"),
        ({"seed": -1}, "`seed` must lie from 0 to 4294967295; got -1"),
        ({"steps": 4}, "`steps` must be at least 8; got 4"),
        ({"hidden": 0}, "`hidden` must be at least 1; got 0"),
        ({"cnn_epochs": 0}, "`cnn_epochs` must be at least 1; got 0"),
    ],
)
def test_a_bad_option_is_named_before_any_training(options, message, tmp_path, monkeypatch):
    from experiments import dreams  # not before: it needs the adapters

    def never(*_, **__):
        raise AssertionError("the data were loaded first")

    monkeypatch.setattr(dreams, "load_digits", never)
    with pytest.raises(ValueError, match=message):
        dreams.main(**options, output=tmp_path)
