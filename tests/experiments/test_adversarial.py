"""The experiment on attacks: its numbers hang together, and the pictures are there."""

import json

import jax
import numpy as np
import pytest

from experiments import adversarial
from tests.experiments.test_main import run

pytestmark = pytest.mark.optimized


@pytest.mark.long
def test_adversarial_attacks_four_networks(tmp_path):
    options = (
        "--data",
        "digits",
        "--hidden",
        16,
        "--epochs",
        2,
        "--hardening",
        1,
        "--examples",
        64,
        "--output",
        tmp_path,
    )
    done = run("experiments.adversarial", *options)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("accuracy", "smallest", "meaning"):
        assert (tmp_path / f"{name}.png").stat().st_size > 15_000
    for name, curves in metrics["robust_accuracy"].items():
        for attack, accuracies in curves.items():
            assert (np.diff(accuracies) <= 0).all(), (name, attack)
        assert (np.array(curves["strongest"]) <= np.array(curves["pgd"]) + 0.05).all()
        assert curves["noise"][2] >= curves["pgd"][2]
    assert set(metrics["correlations"]["dense"]) > set(metrics["correlations"]["convolutional"])
    assert metrics["smallest_change_l2"]["dense"] > 0


def test_correlations_are_numpys():
    one, other = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(adversarial.correlations(one, other), expected)
    assert adversarial.correlations(one, 0 * other).tolist() == [0, 0, 0]


def test_an_image_has_the_output_of_its_row():
    network = adversarial.jaxnn.init(jax.random.key(0), (12, 3))
    image = jax.random.uniform(jax.random.key(1), (3, 4, 1))
    np.testing.assert_allclose(adversarial.of_image(network, image), network(image.ravel()))
