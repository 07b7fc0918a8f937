import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import trust
from experiments._common.attributions import logits_of
from jaxnn import attribution
from tests.experiments.test_main import run


def test_the_planted_network_depends_on_its_region_alone_and_has_units_elsewhere():
    network, mask = trust.planted_network((28, 28), jax.random.key(0))
    assert mask.shape == (28, 28, 1)
    assert mask.sum() == 64
    x = jax.random.uniform(jax.random.key(1), (28, 28, 1))
    other = jnp.where(mask, x, 1 - x)
    np.testing.assert_allclose(logits_of(network, other), logits_of(network, x), rtol=1e-5)
    assert np.all(network.layers[0](other.ravel())[8:] != network.layers[0](x.ravel())[8:])
    model = jax.tree_util.Partial(logits_of, network)
    assert np.all((attribution.saliency(model, x, 0) > 0.01) == mask)


def test_a_map_has_the_axes_of_the_image():
    flat = lambda model, x, target: x[..., 0]  # noqa: E731
    assert trust._Map(flat)(None, jnp.ones((4, 4, 1)), 0).shape == (4, 4, 1)


@pytest.mark.long
def test_it_runs(tmp_path):
    done = run("experiments.trust", "--epochs", 1, "--examples", 4, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    methods = metrics["convolutional"]["methods"]
    assert methods["deep_lift"]["claims"]["sums up"]
    assert not methods["at random"]["claims"]["depends on the weights"]
    assert metrics["planted"]["methods"]["saliency"]["relevance_mass"] > 0.99
    assert metrics["planted"]["methods"]["guided_backprop"]["relevance_mass"] < 0.5
    assert (tmp_path / "dense.html").read_text().count("<table>") == 2
