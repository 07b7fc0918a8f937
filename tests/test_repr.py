"""Models and results print what a person wants to know, in a few lines."""

import importlib.util

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attacks, rules
from tests.helpers.calls import calls

NETWORK = jaxnn.init(jax.random.key(0), (784, 200, 10))
RNG = np.random.default_rng(0)
INPUTS = RNG.uniform(-1, 1, (400, 2)).astype(np.float32)


def model(x):
    return jnp.stack([3 * x[0], x[1]])


@pytest.fixture(scope="module")
def learned():
    options = {"held_out": INPUTS, "key": jax.random.key(0), "classes": ["down", "up"]}
    tree = rules.distill_tree(model, INPUTS, max_depth=2, **options)
    return tree, rules.rule_list(model, INPUTS, **options)


def test_a_network():
    assert (
        repr(NETWORK)
        == """Network(
  layers=(
    Dense(kernel=float32[784,200], bias=float32[200], activation='sigmoid'),
    Dense(kernel=float32[200,10], bias=float32[10], activation='sigmoid'),
  ),
)"""
    )


def test_adapted_modules():
    module = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
    linen = jaxnn.from_linen(module, module.init(jax.random.key(0), jnp.ones(30)))
    for each in (linen, jaxnn.from_nnx(nnx.Linear(30, 4, rngs=nnx.Rngs(0)))):
        assert "float32[30,4]" in repr(each)
        assert len(repr(each).splitlines()) < 25


RESULTS = [
    "attacks.fgsm", "attacks.universal", "backquery", "datasets.load", "dream", "explain", "from_linen",
    "init", "intervene", "prior", "rules.anchor", "rules.linear_region", "rules.linear_regions",
    "rules.rule_list", "rules.trepan", "tap_operations", "weights.top_features",
]  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_short(name):
    """No more than forty lines, and no array in full."""
    result = calls()[name]()
    lines = repr(result).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines), default=0) < 400


def test_under_tracing():
    seen = []

    @jax.jit
    def traced(x):
        attack = attacks.fgsm(NETWORK, x, 1, epsilon=0.1)
        seen.append(repr(attack))
        return attack.input

    traced(jnp.full(784, 0.5))
    assert "input=float32[784]" in seen[0]
    assert "distance=float32[]" in seen[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_small_arrays_show_their_numbers(dtype):
    points = jaxnn.attacks.fgsm(jaxnn.init(jax.random.key(0), (2, 2)), [0.5, 0.5], 1, epsilon=0.1)
    shown = repr(points._replace(input=jnp.asarray([1, 0], dtype)))
    assert ("[ True, False]" if dtype == "bool" else "[1, 0]") in shown


def test_arrays_that_are_gone():
    layer = jaxnn.init(jax.random.key(0), (2, 2)).layers[0]
    layer.bias.delete()
    assert "bias=float32[2]" in repr(layer)


def test_trees_and_rule_lists(learned):
    tree, rule_list = learned
    assert str(tree).splitlines()[-1] == f"fidelity {tree.fidelity:.0%}, on held-out inputs"
    assert str(rule_list).startswith(rule_list.text.rstrip())
    assert "coverage" in str(rule_list.rules[0])
    for each in learned:
        assert each._repr_html_().startswith("\n<svg")
        assert "up" in each._repr_html_()


def test_trees_without_matplotlib(learned, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tree = learned[0]
    assert tree._repr_html_().startswith("<pre>if x_0 &lt;= ")


def test_an_anchor():
    found = rules.anchor(model, INPUTS[0], INPUTS, key=jax.random.key(0))
    assert f"precision at least {found.bound:.0%}" in str(found)
    assert str(found).startswith(found.rule.text)
