"""The parts of attacks, each beside its equation: what whole runs hide, as they correct themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import attacks
from jaxnn.attacks import _carlini_wagner, _hop_skip_jump, _loss, _square
from jaxnn.attacks._common import Task

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def task(label, targeted=False):
    numbers = [jnp.float32(v) for v in (0, 1, 1)]
    return Task(None, jnp.zeros(2), jnp.int32(label), *numbers, norm="linf", targeted=targeted)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("label", range(5))
def test_the_losses_are_those_of_the_paper(label):
    z = np.array([1.0, -2.0, 4.5, 3.0, 0.25])
    first, _, third, fourth, _ = np.sort(z)[::-1]
    other = np.delete(z, label).max()
    entropy = np.log(np.exp(z).sum()) - z[label]
    away = {
        "cross_entropy": entropy,
        "margin": other - z[label],
        "dlr": (other - z[label]) / (first - third),
    }
    towards = {
        "cross_entropy": -entropy,
        "margin": z[label] - other,
        "dlr": (z[label] - other) / (first - (third + fourth) / 2),
    }
    for targeted, expected in ((False, away), (True, towards)):
        for name, value in expected.items():
            found = _loss.loss_of(task(label, targeted), name)(jnp.asarray(z, jnp.float32))
            assert float(found) == pytest.approx(value, rel=1e-5)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_gaussian_noise_is_of_its_size_and_is_not_cut(norm):
    model = jax.tree_util.Partial(half_plane, jnp.zeros(40))
    options = {"norm": norm, "epsilon": 3.0, "kind": "gaussian", "bounds": (-9.0, 9.0)}
    change = np.asarray(attacks.noise(model, jnp.zeros(40), 0, key=jax.random.key(0), **options).input)
    assert np.linalg.norm(change, ORDER[norm]) == pytest.approx(3, rel=1e-5)
    sizes = np.sort(np.abs(change))
    assert sizes[-2] < 0.999 * sizes[-1]
    assert 0.1 < np.median(sizes) / np.sqrt(np.mean(sizes**2)) < 1.2  # 0.67 of a normal law


def half_plane(weights, x):
    """Class 0 up to a distance of 1 (in l2, for weights of length 1) from 0 on."""
    return jnp.stack([1 - weights @ x, 0.0])


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.5])
def test_deepfool_goes_beyond_by_its_overshoot(norm, overshoot):
    weights = jnp.array([0.6, -0.8, 0.0])
    model = jax.tree_util.Partial(half_plane, weights)
    found = attacks.deepfool(model, jnp.zeros(3), 0, norm=norm, overshoot=overshoot, bounds=(-9.0, 9.0))
    exact = 1 / np.linalg.norm(weights, DUAL[norm])
    assert bool(found.success)
    assert float(found.distance) == pytest.approx((1 + overshoot) * exact, rel=3e-4)  # and 1e-4 of a step


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_first_radius_of_fmn_ends_on_the_boundary(norm):
    weights = jnp.array([0.6, -0.8, 0.1])
    model = jax.tree_util.Partial(half_plane, weights)
    options = {"steps": 1, "step_size": 1000.0, "bounds": (-9.0, 9.0)}
    found = attacks.fmn(model, jnp.zeros(3), 0, norm=norm, **options)
    assert float(found.distance) == pytest.approx(1 / np.linalg.norm(weights, DUAL[norm]), rel=1e-5)


def test_the_constant_grows_until_it_is_enough_and_is_bisected_then():
    constant = _carlini_wagner._Constant(jnp.float32(1), jnp.float32(0), jnp.float32(jnp.inf))
    tried = []
    for enough in (False, False, True, False, True, True):
        tried.append(float(constant.value))
        constant = _carlini_wagner._next(constant, jnp.array(enough))
    np.testing.assert_allclose(tried, [1, 10, 100, 55, 77.5, 66.25])
    assert float(constant.value) == pytest.approx((55 + 66.25) / 2)
    at_once = _carlini_wagner._Constant(jnp.float32(1), jnp.float32(0), jnp.float32(jnp.inf))
    assert float(_carlini_wagner._next(at_once, jnp.array(True)).value) == 0.5


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("channels", [1, 3])
def test_what_square_moves_fills_the_ball(channels):
    """Algorithm 3: what two squares hold, and what the ball has left, go into one of them."""
    delta = jnp.asarray(np.random.default_rng(0).normal(size=(9, 8, channels)), jnp.float32)
    delta *= 0.5 / jnp.linalg.norm(delta)
    for seed in range(4):
        found = _square._move_norm(jax.random.key(seed), delta, jnp.int32(3), jnp.float32(2.0))
        assert float(jnp.linalg.norm(found)) == pytest.approx(2, rel=1e-5)
        changed = np.any(np.asarray(found != delta), axis=2)
        assert 9 <= changed.sum() <= 18


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_normal_is_that_of_equation_16(norm):
    key, point, radius, count = jax.random.key(3), jnp.full(5, 0.5), 0.2, 27

    def margin(z):  # positive for most of the small steps
        return z[0] + z[1] - 0.9

    numbers = [jnp.float32(v) for v in (0, 0.6, np.inf)]  # the bounds cut some of them
    half_space = Task(lambda z: z, point, jax.tree_util.Partial(margin), *numbers, norm=norm)
    found = _hop_skip_jump._normal(half_space, key, point, jnp.float32(radius), jnp.int32(count), 10)
    draw = functools.partial(jax.random.uniform, minval=-1, maxval=1) if norm == "linf" else jax.random.normal
    steps = np.array([draw(jax.random.fold_in(key, b), (5,)) for b in range(count)], np.float64)
    steps = radius * steps / np.linalg.norm(steps, axis=1, keepdims=True)
    steps = (np.clip(0.5 + steps, 0, 0.6) - 0.5) / radius
    signs = np.where(0.5 + radius * steps[:, 0] + 0.5 + radius * steps[:, 1] > 0.9, 1, -1)
    assert 0 < signs.mean() < 1
    normal = (signs - signs.mean()) @ steps
    expected = np.sign(normal) if norm == "linf" else normal / np.linalg.norm(normal)
    np.testing.assert_allclose(found, expected, atol=1e-5)
