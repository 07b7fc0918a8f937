"""The experiment on rules: its numbers and its pictures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from experiments._parts import rules_digits, rules_tumors
from tests.experiments.test_main import run

pytestmark = pytest.mark.optimized


@pytest.mark.long
def test_rules_describes_three_networks(tmp_path):
    options = ("--data", "digits", "--splits", 2, "--epochs", 3, "--output", tmp_path)
    done = run("experiments.rules", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("tumors_tree", "tumors_list", "tumors_depth", "digits_tree", "digits_rules", "plane_2-8-2"):
        assert (tmp_path / f"{name}.png").stat().st_size > 15_000
    assert found["tumors"]["a tree of 5 questions"]["fidelity"] > 0.9
    assert found["tumors"]["tree_text"].startswith("if worst ")
    assert len(found["tumors"]["depth_curve"]) == rules_tumors.DEEPEST + 1
    for network in found["plane"].values():
        assert network["largest_difference"] < 1e-3
        assert network["same_class"] > 0.9999
    assert found["digits"]["8 questions"]["fidelity"] > found["digits"]["4 questions"]["fidelity"]


def test_the_ink_of_a_block_is_the_mean_of_its_pixels():
    image = np.random.default_rng(0).uniform(size=(28, 28)).astype(np.float32)
    expected = [image[7 * i : 7 * i + 7, 7 * j : 7 * j + 7].mean() for i in range(4) for j in range(4)]
    np.testing.assert_allclose(rules_digits.ink(jnp.asarray(image.ravel())), expected, rtol=1e-5)


def test_a_model_in_units_has_the_outputs_of_the_network_of_scaled_inputs():
    network = jaxnn.init(jax.random.key(0), (2, 3, 2))
    mean, deviation, x = jnp.array([10.0, -5.0]), jnp.array([2.0, 0.5]), jnp.array([12.0, -4.0])
    np.testing.assert_allclose(
        rules_tumors.in_units(network, mean, deviation, x), network(jnp.array([1.0, 2.0]))
    )
