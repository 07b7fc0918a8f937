"""The experiments on attribution: their numbers are those of the library, and the pictures are there."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import convolution, medical, why
from experiments._common.cnn import CNN, pool
from jaxnn import attribution
from tests.experiments.test_main import run

pytestmark = pytest.mark.optimized


def read(folder, *names):
    for name in names:
        assert (folder / name).stat().st_size > 20_000
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.long
def test_medical_measures_importance(tmp_path):
    done = run("experiments.medical", "--epochs", 30, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path, "patients.png", "overall.png")
    assert found["test_accuracy"] > 0.93
    assert len(found["mean_size"]) == len(found["accuracy_lost"]) == 30
    assert max(found["accuracy_lost"].values()) > 0.005


@pytest.mark.long
def test_the_attributions_of_a_patient_add_up_to_the_log_odds():
    patients = medical.load_patients(jax.random.key(0))
    np.testing.assert_allclose(patients.inputs.mean(axis=0), 0, atol=1e-5)
    network = medical.jaxnn.init(
        jax.random.key(1), (30, 4, 2), activation="tanh", output_activation="identity"
    )
    x = patients.test_inputs[0]
    difference = medical.malignancy(network(x)) - medical.malignancy(network(jnp.zeros(30)))
    np.testing.assert_allclose(medical.explain(network, x).sum(), difference, rtol=1e-4, atol=1e-5)


def test_the_patients_shown_are_the_most_and_the_least_confident():
    logits = np.array([[3.0, 0.0], [9.0, 0.0], [0.0, 2.0], [0.1, 0.0], [8.0, 0.0]])
    labels = np.array([0, 1, 1, 0, 0])  # the second is misclassified with confidence
    assert medical.patients_to_show(logits, labels) == {
        "surely malignant": 4, "surely benign": 2, "in doubt": 3
    }  # fmt: skip


@pytest.mark.long
def test_convolution_draws_every_channel_of_the_model(tmp_path):
    done = run("experiments.convolution", "--epochs", 1, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path, "channels.png", "class_activation.png")
    assert found["test_accuracy"] > 0.8
    np.testing.assert_allclose(sum(found["probabilities"]), 1, rtol=1e-5)
    (table,) = found["tables"]
    assert [row[:3] for row in table["rows"]] == [["Conv_0", "8", "28 x 28"], ["Conv_1", "16", "14 x 14"]]


def test_the_channels_are_drawn_under_their_own_names():
    rng = np.random.default_rng(0)
    channels = {"Conv_0": rng.uniform(size=(8, 4, 4)), "Conv_1": rng.uniform(size=(16, 2, 2))}
    figure = convolution.figure_of_channels(np.ones((4, 4)), channels)
    shown = {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.get_title()}
    assert len(shown) == 25
    np.testing.assert_allclose(shown["Conv_1 · 9"], channels["Conv_1"][9], rtol=1e-6)


@pytest.mark.long
def test_the_pool_is_that_of_a_window():
    x = jax.random.normal(jax.random.key(0), (6, 4, 3))
    window = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")
    np.testing.assert_array_equal(pool(x), window)
    shape = CNN().init_with_output(jax.random.key(0), jnp.ones((8, 8, 1)))[0].shape
    assert shape == (10,)


def test_the_evaluation_removes_the_highest_attributions():
    weights = jnp.arange(100.0).reshape(10, 10, 1)
    x = jnp.ones((10, 10, 1))

    def model(x):
        return jnp.stack([jnp.sum(weights * x), 0.0])

    values = np.asarray(attribution.integrated_gradients(model, x, 0, baseline=why.BLACK))[..., 0]
    found = why.evaluate("integrated gradients", values, model, x, 0)
    assert found["drop"] == pytest.approx((1 - why.BLACK) * sum(range(90, 100)), rel=1e-5)
    assert abs(found["gap"]) < 1e-2
    assert why.evaluate("saliency", values, model, x, 0)["gap"] is None


@pytest.mark.long
def test_every_method_gives_a_map_of_the_image(tmp_path):
    done = run("experiments.why", "--epochs", 1, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path, "dense.png", "convolutional.png")
    for name, count in (("dense", 15), ("convolutional", 20)):
        methods = found[name]["methods"]
        assert len(methods) == count
        assert abs(methods["deep_lift"]["gap"]) < 1e-4
        assert abs(methods["shapley_sampling"]["gap"]) < 1e-3
        assert methods["integrated gradients"]["drop"] > methods["var_grad"]["drop"]


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("experiment", "option", "value", "message"),
    [
        ("why", "--index", 5000, "`index` must lie from 0 to 999"),
        ("convolution", "--epochs", 0, "`epochs` must be at least 1"),
        ("medical", "--hidden", 0, "`hidden` must be at least 1"),
    ],
)
def test_bad_options_are_named_before_training(tmp_path, experiment, option, value, message):
    done = run(f"experiments.{experiment}", option, value, "--output", tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "training" not in done.stdout
