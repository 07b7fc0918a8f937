"""The units of inputs and logits do not matter: no threshold, step or tolerance of an attack is absolute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import attacks

KEY = np.array([0, 3], np.uint32)
EPSILON, BOUNDS = 0.3, (-2.0, 2.0)
RNG = np.random.default_rng(0)
FIRST = (RNG.normal(size=(16, 8)) / 4).astype(np.float32)
SECOND = RNG.normal(size=(8, 4)).astype(np.float32)
X = RNG.uniform(-0.5, 0.5, 16).astype(np.float32)
CLASS = int(np.argmax(np.tanh(X @ FIRST) @ SECOND))


def model(unit, size):
    """A classifier of inputs in these units, with logits of this size."""
    return jax.tree_util.Partial(
        lambda unit, size, x: size * (jnp.tanh(x / unit @ FIRST) @ SECOND), unit, size
    )


def in_ball(method, **options):
    return lambda unit: functools.partial(method, epsilon=EPSILON * unit, **options)


def nearest(method, **options):
    return lambda unit: functools.partial(method, **options)


MARGIN = {
    "fgsm": in_ball(attacks.fgsm, norm="l2", loss="margin"),
    "bim": in_ball(attacks.bim, norm="linf", loss="dlr"),
    "pgd": in_ball(attacks.pgd, norm="l2", loss="dlr", steps=5),
    "pgd l1": in_ball(attacks.pgd, norm="l1", loss="margin", steps=5),
    "momentum_pgd": in_ball(attacks.momentum_pgd, loss="margin", steps=5),
    "apgd": in_ball(attacks.apgd, loss="dlr", steps=10),
    "deepfool": nearest(attacks.deepfool, norm="l2"),
    "deepfool linf": nearest(attacks.deepfool, norm="linf"),
    "fmn": lambda unit: functools.partial(attacks.fmn, norm="l2", steps=20, step_size=unit),
    "square": in_ball(attacks.square, queries=50),
    "square l2": in_ball(attacks.square, norm="l2", queries=50),
    "hop_skip_jump": nearest(attacks.hop_skip_jump, queries=300),
    "noise": in_ball(attacks.noise, n_samples=5),
    "noise gaussian": in_ball(attacks.noise, norm="l1", kind="gaussian", n_samples=5),
    "contrast": nearest(attacks.contrast),
    "blur": nearest(attacks.blur, shape=(4, 4)),
    "minimal_norm": nearest(attacks.minimal_norm, attack=(attacks.contrast, attacks.deepfool)),
}
OTHERS = {
    "pgd cross_entropy": in_ball(attacks.pgd, steps=5),
    "apgd cross_entropy": in_ball(attacks.apgd, steps=10),
    "carlini_wagner": nearest(attacks.carlini_wagner, steps=50, search_steps=6),
}


def attacked(attack, unit=1.0, size=1.0, bounds=BOUNDS):
    bounds = tuple(end * unit for end in bounds)
    return attack(unit)(
        model(np.float32(unit), np.float32(size)), X * np.float32(unit), CLASS, bounds=bounds, key=KEY
    )


def assert_same(one, other, unit):
    np.testing.assert_allclose(other.input / np.float32(unit), one.input, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.distance / np.float32(unit), one.distance, rtol=1e-4)
    assert bool(one.success) == bool(other.success)
    assert int(one.queries) == int(other.queries)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", MARGIN | OTHERS)
def test_the_unit_of_the_input_does_not_matter(name):
    attack = (MARGIN | OTHERS)[name]
    one = attacked(attack)
    assert np.any(one.input != X)
    for unit in (2.0**-30, 2.0**30):  # powers of two: rounding is the same
        assert_same(one, attacked(attack, unit), unit)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", MARGIN)
def test_the_size_of_the_logits_does_not_matter(name):
    one = attacked(MARGIN[name])
    for size in (2.0**-30, 2.0**30):
        assert_same(one, attacked(MARGIN[name], size=size), 1)


@pytest.mark.long
@pytest.mark.parametrize("name", ["deepfool", "fmn"])
def test_the_unit_does_not_matter_without_bounds(name):
    infinite = (-np.inf, np.inf)
    one = attacked(MARGIN[name], bounds=infinite)
    for unit in (2.0**-30, 2.0**30):
        assert_same(one, attacked(MARGIN[name], unit, bounds=infinite), unit)
