"""The data sets of two inputs are where they say, in the classes that they say."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.datasets import POINT_SETS, point_set

every_name = pytest.mark.parametrize("name", POINT_SETS)


def draw(name, n=4001, seed=0, **options):
    points = point_set(name, key=jax.random.key(seed), n=n, **options)
    return np.asarray(points.inputs, np.float64), np.asarray(points.labels)


@every_name
def test_shape_type_and_balance(name):
    points = point_set(name, key=jax.random.key(0), n=7)
    assert points.inputs.shape == (7, 2)
    assert points.inputs.dtype == jnp.float32
    assert points.labels.dtype == jnp.int32
    assert points.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


@pytest.mark.long("all but the first")
@every_name
def test_the_points_fill_their_plane(name):
    x, labels = draw(name)
    assert np.mean(np.abs(x) <= 1) > 0.999
    for kind in (0, 1):
        assert np.all(np.ptp(x[labels == kind], axis=0) > 0.8)


def test_circles_are_a_disc_in_a_ring():
    x, labels = draw("circles")
    radius, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    for kind, (low, high) in enumerate([(0.7, 1.0), (0.0, 0.5)]):
        mine = radius[labels == kind]
        assert low - 1e-6 <= mine.min() < low + 0.01
        assert high - 0.01 < mine.max() <= high + 1e-6
        assert mine.mean() == pytest.approx((low + high) / 2, abs=0.01)
        turns = np.histogram(angle[labels == kind], 8, (-np.pi, np.pi))[0]
        assert turns.min() > 200  # of 250


def test_exclusive_or_is_one_where_just_one_input_is_positive():
    x, labels = draw("exclusive-or")
    np.testing.assert_array_equal((x > 0).sum(axis=1) == 1, labels == 1)
    assert 0.05 <= np.abs(x).min() < 0.06
    quarters = 2 * (x[:, 0] > 0) + (x[:, 1] > 0)
    assert np.bincount(quarters).min() > 900  # of 1000
    assert abs(np.corrcoef(np.abs(x).T)[0, 1]) < 0.05


def test_gaussians_have_their_means_and_deviations():
    x, labels = draw("gaussians")
    for kind, mean in enumerate([-0.4, 0.4]):
        mine = x[labels == kind]
        np.testing.assert_allclose(mine.mean(axis=0), mean, atol=0.012)
        np.testing.assert_allclose(np.cov(mine.T), 0.0225 * np.eye(2), atol=0.002)


def test_the_spirals_angle_grows_with_its_radius():
    x, labels = draw("spiral")
    radius, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    past = (angle - 3.5 * math.pi * radius - math.pi * labels) / (2 * math.pi)
    np.testing.assert_allclose(past, np.round(past), atol=1e-5)
    assert 0.1 <= radius.min() < 0.11
    assert 0.99 < radius.max() <= 1.0


@every_name
def test_a_key_gives_its_points_and_another_gives_others(name):
    same = [draw(name, 20)[0] for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.any(np.isclose(same[0], draw(name, 20, seed=1)[0], atol=1e-6))


@every_name
def test_noise_is_added_to_the_same_points(name):
    clean, noisy = draw(name)[0], draw(name, noise=0.1)[0]
    moved = noisy - clean
    np.testing.assert_allclose(np.cov(moved.T), 0.01 * np.eye(2), atol=0.001)
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=0.01)


@pytest.mark.long
def test_it_composes():
    def one(seed, noise):
        return point_set("spiral", key=jax.random.key(seed), n=10, noise=noise).inputs

    mapped = jax.jit(jax.vmap(one, (0, None)))(jnp.arange(5), 0.2)
    np.testing.assert_allclose(mapped, jnp.stack([one(seed, 0.2) for seed in range(5)]), atol=1e-6)
    slope = jax.jacobian(one, 1)(0, 0.2)
    np.testing.assert_allclose(slope, one(0, 1.0) - one(0, 0.0), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "moons"}, ValueError, "`name` must be one of 'circles', .*; got 'moons'"),
        ({"n": 0}, ValueError, "`n` must be at least 1; got 0"),
        ({"n": 2.5}, TypeError, "`n` must be an integer"),
        ({"key": 3}, TypeError, "`key` must be one random key"),
        ({"noise": -0.1}, ValueError, "`noise` must be at least 0; got -0.1"),
        ({"noise": math.nan}, ValueError, "`noise` must be finite"),
        ({"noise": [0.1, 0.2]}, ValueError, r"`noise` must have shape \(\)"),
        ({"noise": "much"}, TypeError, "`noise`"),
    ],
)
def test_bad_input_says_what_was_expected(options, error, message):
    good = {"name": "spiral", "key": jax.random.key(0), "n": 4}
    with pytest.raises(error, match=message):
        point_set(**(good | options))
