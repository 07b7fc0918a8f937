"""The units of inputs and outputs do not matter: no threshold of a rule learner is absolute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import rules
from tests.rules.test_edges import GROW, KEY, uniform

UNITS = [2.0**-30, 2.0**30]  # powers of two: rounding is the same


def _in_units(net, units, size, x):
    return size * net(x / units)


def scaled(net, units, size=1.0):
    return jax.tree_util.Partial(_in_units, net, jnp.asarray(units), jnp.asarray(size))


def rectified():
    return jaxnn.init(
        jax.random.key(0), (2, 6, 2), activation="relu", output_activation="identity",
        bias_init=jax.nn.initializers.normal(0.3),
    )  # fmt: skip


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("size", [1e-14, 1.0, 1e14])
@pytest.mark.parametrize("units", [(1e-9, 1e9), (1e9, 1e9), (1.0, 1e-30)])
def test_linear_regions_in_any_units(units, size):
    with jax.enable_x64(True):
        net = jax.tree.map(lambda a: a.astype(np.float64), rectified())
        bounds = -np.array(units), np.array(units)
        one = rules.linear_regions(net)
        other = rules.linear_regions(scaled(net, np.array(units), size), bounds=bounds)
        assert len(other.polygons) == len(one.polygons)
        for polygon, expected in zip(other.polygons, one.polygons, strict=True):
            np.testing.assert_allclose(polygon / np.array(units), expected, atol=1e-9)
        # Each line of text has the same terms.
        terms = [[line.count("x_") for line in found.text.splitlines()] for found in (one, other)]
        assert terms[0] == terms[1]
        assert [line.count(" + ") for line in one.text.splitlines() if "y_" in line] == [
            line.count(" + ") for line in other.text.splitlines() if "y_" in line
        ]


def test_the_bounds_of_linear_regions_are_not_rounded_to_float32():
    found = rules.linear_regions(lambda x: x, bounds=(0.1, 0.7))
    np.testing.assert_array_equal(np.unique(found.polygons[0]), [0.1, 0.7])


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("size", [1.0, *UNITS])
def test_the_radius_of_a_region_is_in_units_of_the_input(unit, size):
    x = jnp.array([0.3, -0.2])
    one = rules.linear_region(rectified(), x)
    other = rules.linear_region(scaled(rectified(), np.float32(unit), np.float32(size)), x * np.float32(unit))
    np.testing.assert_allclose(other.radius / unit, one.radius, rtol=1e-5)
    np.testing.assert_allclose(other.distance / unit, one.distance, rtol=1e-5)
    np.testing.assert_allclose(other.kernel * unit / size, one.kernel, rtol=1e-5)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("size", [1.0, *UNITS])
@pytest.mark.parametrize("grow", GROW)
def test_learned_rules_in_any_units(grow, size, unit):
    net = jaxnn.init(jax.random.key(3), (3, 8, 3), kernel_init=jax.nn.initializers.normal(3.0))
    inputs, held_out = uniform(200), uniform(500, key=2)
    options = {"n_samples": 300, "key": KEY}
    one = grow(net, inputs, held_out=held_out, **options)
    model, unit = scaled(net, np.float32(unit), np.float32(size)), np.float32(unit)
    other = grow(model, inputs * unit, held_out=held_out * unit, **options)
    assert other.fidelity == pytest.approx(one.fidelity, abs=0.02)  # thresholds have other digits
    assert abs(len(other.rules) - len(one.rules)) <= 2


@pytest.mark.long
@pytest.mark.parametrize("unit", UNITS)
def test_an_anchor_in_any_units(unit):
    net = jaxnn.init(jax.random.key(3), (3, 8, 3), kernel_init=jax.nn.initializers.normal(3.0))
    inputs, unit = uniform(200), np.float32(unit)
    one = rules.anchor(net, inputs[0], inputs, key=KEY, n_samples=500)
    other = rules.anchor(scaled(net, unit), inputs[0] * unit, inputs * unit, key=KEY, n_samples=500)
    assert other.rule.coverage == pytest.approx(one.rule.coverage, abs=0.05)
    assert other.bound == pytest.approx(one.bound, abs=0.05)
