"""LIME against a weighted ridge in NumPy, RISE against its definition; both within their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxnn import attribution

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype(np.float32)
HIDDEN, OUT = RNG.normal(size=(12, 8)).astype(np.float32), RNG.normal(size=8).astype(np.float32)
GROUPS = np.arange(12).reshape(3, 4) // 2
IMAGE = RNG.uniform(size=(13, 10)).astype(np.float32)


def key():
    return jax.random.key(0)


def keys():
    return jax.random.split(key(), 300)


def function(hidden, x):
    return jnp.tanh(x.ravel() @ hidden) @ OUT


MODEL = Partial(function, HIDDEN)


def ridge(sets, outputs, width, penalty):
    """Equation 2 of the paper: weights by the distance from all ones, an intercept that costs nothing."""
    distances = 1 - np.sqrt(sets.mean(1))
    weights = np.exp(-(distances**2) / (2 * width**2))
    design = np.append(sets, np.ones((len(sets), 1)), axis=1)
    gram = design.T @ (weights[:, None] * design) + penalty * np.diag([1.0] * sets.shape[1] + [0.0])
    return np.linalg.solve(gram, design.T @ (weights * outputs))[:-1]


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("width", "penalty"), [(0.25, 1.0), (0.7, 0.01)])
def test_lime_is_a_weighted_ridge(width, penalty):
    toss = lambda i: jax.random.bernoulli(jax.random.fold_in(key(), i), 0.5, (6,))  # noqa: E731
    sets = np.array(jax.vmap(toss)(jnp.arange(80)), np.float64)
    sets[0] = 1
    outputs = [np.tanh((sets[i][GROUPS] * X).ravel() @ HIDDEN) @ OUT for i in range(80)]
    expected = ridge(sets, np.array(outputs), width, penalty)[GROUPS]
    for batch_size in (7, 64):
        result = attribution.lime(
            MODEL, X, key=key(), n_samples=80, kernel_width=width, ridge=penalty, groups=GROUPS,
            batch_size=batch_size,
        )  # fmt: skip
        np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.long
def test_lime_lies_within_its_standard_errors():
    draw = lambda one, n: attribution.lime(  # noqa: E731
        MODEL, X, key=one, n_samples=n, groups=GROUPS, ridge=0.1, with_error=True
    )
    result = jax.jit(jax.vmap(lambda one: draw(one, 100)))(keys())
    ratio = np.sqrt((result.standard_error**2).mean(0)) / result.value.std(0)
    assert np.all((ratio > 0.85) & (ratio < 1.15))


@pytest.mark.long
def test_rise_of_a_constant_is_the_constant():
    result = attribution.rise(lambda x: 2.0 + 0 * x.sum(), IMAGE, key=key(), n_samples=2000, with_error=True)
    apart = (result.value - 2) / result.standard_error
    assert np.abs(apart).max() < 4.5  # masks have a mean of p at each of 130 pixels
    assert 0.5 < np.sqrt((apart**2).mean()) < 1.5


def test_rise_masks_are_enlarged_grids():
    """Of one sample, `a = m f / p`: an output of p gives the mask itself."""
    constant = lambda x: 0.5 + 0 * x.sum()  # noqa: E731
    draw = lambda one: attribution.rise(constant, IMAGE, key=one, n_samples=1, grid=(3, 2))  # noqa: E731
    masks = np.asarray(jax.vmap(draw)(keys()))
    assert masks.min() == 0
    assert masks.max() == 1
    # Cells of 5 by 5, 3 by 2 of them enlarged to 20 by 15: derivatives are at most 3/20 and 2/15.
    assert np.abs(np.diff(masks, axis=1)).max() <= 3 / 20 + 1e-6
    assert np.abs(np.diff(masks, axis=2)).max() <= 2 / 15 + 1e-6
    # Straight lines between the middles of cells: the second differences are 0 almost everywhere.
    assert (np.abs(np.diff(masks, n=2, axis=1)) > 1e-6).mean() < 0.3
    assert len(np.unique(masks.round(4), axis=0)) > 200


@pytest.mark.long
def test_rise_does_not_depend_on_chunks_and_knows_its_error():
    corner = lambda x: x[:6, :5].mean()  # noqa: E731
    draw = lambda one, size: attribution.rise(  # noqa: E731
        corner, IMAGE, key=one, n_samples=50, grid=4, batch_size=size, with_error=True
    )
    one, other = draw(key(), 50), draw(key(), 7)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-5)
    np.testing.assert_allclose(one.standard_error, other.standard_error, rtol=1e-4)
    result = jax.jit(jax.vmap(lambda one: draw(one, 50)))(keys())
    ratio = np.sqrt((result.standard_error**2).mean(0)) / result.value.std(0)
    assert np.all((ratio > 0.8) & (ratio < 1.25))
    assert result.value[:, :6, :5].mean() > 1.1 * result.value[:, 8:, 7:].mean()


@pytest.mark.long
def test_rise_masks_channels_alike_over_any_axes():
    seen = lambda x: x[..., 2].mean()  # noqa: E731
    x = jnp.ones((13, 10, 3))
    first = attribution.rise(seen, x, key=key(), n_samples=30, grid=(4, 3))
    np.testing.assert_array_equal(first[..., 0], first[..., 2])
    swapped = attribution.rise(seen, x, key=key(), n_samples=30, grid=(4, 3), axes=(0, 1))
    np.testing.assert_array_equal(first, swapped)
    turned = lambda x: x[2].mean()  # noqa: E731
    moved = attribution.rise(turned, x.transpose(2, 1, 0), key=key(), n_samples=30, grid=(4, 3), axes=(-1, 1))
    np.testing.assert_allclose(moved, first.transpose(2, 1, 0), rtol=1e-5)


@pytest.mark.long
@pytest.mark.optimized
def test_memory_does_not_grow_with_the_masks():
    def peak(n_samples):
        call = lambda x: attribution.rise(lambda x: x.sum(), x, key=key(), n_samples=n_samples)  # noqa: E731
        return jax.jit(call).lower(IMAGE).compile().memory_analysis().temp_size_in_bytes

    assert peak(6400) < 1.1 * peak(128)


@pytest.mark.parametrize(
    ("method", "change", "error", "match"),
    [
        ("lime", {"kernel_width": 0.0}, ValueError, "`kernel_width` must be above 0; got 0.0"),
        ("lime", {"ridge": -1}, ValueError, "`ridge` must be above 0; got -1.0"),
        ("lime", {"ridge": "a"}, TypeError, "`ridge` must be a number"),
        ("lime", {"n_samples": 1}, ValueError, "`n_samples` must be at least 2"),
        ("lime", {"key": 0}, TypeError, "`key` must be one random key"),
        ("rise", {"probability": 1.0}, ValueError, r"`probability` must lie in \(0, 1\); got 1"),
        ("rise", {"grid": 5}, ValueError, r"`grid` must have for each of the axes \(0, 1\)"),
        ("rise", {"grid": (2, 2, 2)}, ValueError, "`grid` must have for each"),
        ("rise", {"grid": 0}, ValueError, r"`grid\[0\]` must be at least 1"),
        ("rise", {"axes": (0, 2)}, ValueError, "`axes` must be different axes of `x`"),
        ("rise", {"axes": (0, -2)}, ValueError, "`axes` must be different axes of `x`"),
        ("rise", {"axes": 1}, TypeError, "`axes` must be a tuple"),
        ("rise", {"x": {"a": X}}, TypeError, "`x` must be one array"),
        ("rise", {"n_samples": 1, "with_error": True}, ValueError, "`n_samples` must be at least 2"),
        ("rise", {"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
    ],
)
def test_bad_input_is_refused(method, change, error, match):
    summed = lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(x))  # noqa: E731
    with pytest.raises(error, match=match):
        getattr(attribution, method)(**{"model": summed, "x": X, "key": key(), **change})


@pytest.mark.parametrize(("n", "samples"), [(50, 10), pytest.param(200, 100, marks=pytest.mark.long)])
@pytest.mark.parametrize("ridge", [1.0, 1e-2, 1e-4, 1e-6])
def test_fewer_samples_than_features_and_any_ridge(n, samples, ridge):
    """The normal equations in float64; in float32 their matrix is singular to rounding."""

    def function(x):
        return jnp.sin(x).sum() + x[0] * x[1]

    key, x = jax.random.key(0), np.arange(1.0, n + 1) / n
    present = np.stack(
        [jax.random.bernoulli(jax.random.fold_in(key, i), 0.5, (n,)) | (i == 0) for i in range(samples)]
    ).astype(float)
    y = np.array([float(np.sin(row).sum() + row[0] * row[1]) for row in x * present])
    weights = np.exp(-(((1 - np.sqrt(present.mean(1))) / 0.25) ** 2) / 2)
    columns = np.c_[present, np.ones(samples)]
    gram = columns.T @ (weights[:, None] * columns) + ridge * np.diag([1.0] * n + [0])
    expected = np.linalg.solve(gram, columns.T @ (weights * y))[:n]
    coefficients = attribution.lime(function, jnp.float32(x), key=key, n_samples=samples, ridge=ridge)
    np.testing.assert_allclose(coefficients, expected, atol=3e-4)
