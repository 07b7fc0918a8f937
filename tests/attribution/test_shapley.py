"""Shapley values: the axioms, a loop over all orders, and the two estimates within their errors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxnn
from jaxnn import attribution
from jaxnn._engine.jaxpr import walk
from tests.conftest import in_precision

N = 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=N).astype(np.float32)
HIDDEN, OUT = RNG.normal(size=(N, 8)).astype(np.float32), RNG.normal(size=8).astype(np.float32)
BASELINE = np.full(N, 0.2, np.float32)


def function(hidden, x):
    return jnp.tanh(x @ hidden.astype(x.dtype)) @ OUT.astype(x.dtype)


MODEL = Partial(function, HIDDEN)
VALUES = attribution.shapley_values(MODEL, X, baseline=BASELINE)


def key(number=0):
    return jax.random.key(number)


def over_all_orders():
    """The definition: the mean gain of each feature over all 720 orders."""
    gains = np.zeros(N)
    value = lambda x: np.tanh(x @ HIDDEN) @ OUT  # noqa: E731
    orders = list(itertools.permutations(range(N)))
    for order in orders:
        x = BASELINE.astype(np.float64)
        for feature in order:
            before = value(x)
            x[feature] = X[feature]
            gains[feature] += value(x) - before
    return gains / len(orders)


def test_exact_values_are_the_mean_over_all_orders():
    np.testing.assert_allclose(VALUES, over_all_orders(), atol=1e-6)


def test_exact_values_add_up_in_float64():
    with in_precision("float64"):
        x = X.astype(np.float64)
        total = attribution.shapley_values(MODEL, x).sum()
        np.testing.assert_allclose(total, MODEL(x) - MODEL(0 * x), rtol=1e-13)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_symmetric_features_share_and_a_dummy_gets_nothing(batch_size):
    fn = lambda x: jnp.sin(x[0] + x[1]) * x[3] + x[4] ** 2  # noqa: E731
    result = attribution.shapley_values(fn, [0.7, 0.7, 3.0, 2.0, 1.5], batch_size=batch_size)
    assert result[2] == 0
    np.testing.assert_allclose(result[0], result[1], rtol=1e-6)
    np.testing.assert_allclose(result[4], 1.5**2, rtol=1e-6)


def test_a_group_is_one_feature():
    pairs = attribution.shapley_values(MODEL, X, groups=[0, 0, 1, 1, 2, 2])
    assert pairs[0] == pairs[1]
    np.testing.assert_allclose(pairs[::2].sum(), MODEL(X) - MODEL(0 * X), rtol=1e-5)
    one = np.zeros(N, int)
    total = attribution.shapley_values(MODEL, X, groups=one)
    np.testing.assert_allclose(total, np.full(N, MODEL(X) - MODEL(0 * X)), rtol=1e-6)
    for method in (attribution.kernel_shap, attribution.shapley_sampling):
        np.testing.assert_allclose(method(MODEL, X, groups=one, key=key()), total, rtol=1e-6)


@pytest.mark.long
def test_sampling_follows_its_orders():
    gains = np.zeros((4, N))
    for i in range(4):
        ranks = np.asarray(jax.random.permutation(jax.random.fold_in(key(), i), N))
        for feature in range(N):
            after, before = (np.where(ranks <= ranks[feature] - k, X, BASELINE) for k in (0, 1))
            gains[i, feature] = MODEL(after) - MODEL(before)
    for batch_size in (4, 15, 1000):
        result = attribution.shapley_sampling(
            MODEL, X, key=key(), n_samples=4, baseline=BASELINE, batch_size=batch_size, with_error=True
        )
        np.testing.assert_allclose(result.value, gains.mean(0), atol=1e-6)
        np.testing.assert_allclose(result.standard_error, gains.std(0, ddof=1) / 2, atol=1e-6)


WIDE = RNG.normal(0, 0.6, size=(10, 8)).astype(np.float32)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    # Few sets of few features vary in which of them decide, and the error's own error shows.
    ("method", "hidden", "n_samples"),
    [(attribution.shapley_sampling, HIDDEN, 25), (attribution.kernel_shap, WIDE, 120)],
)
def test_estimates_lie_within_their_standard_errors(method, hidden, n_samples):
    model, x = Partial(function, hidden), jnp.linspace(-1, 1.3, len(hidden))
    draw = lambda key: method(model, x, key=key, n_samples=n_samples, with_error=True)  # noqa: E731
    result = jax.jit(jax.vmap(draw))(jax.random.split(key(), 300))
    exact = attribution.shapley_values(model, x)
    # 300 keys: no bias, errors of the size that is claimed, and nearly all values within two of them.
    assert np.all(np.abs(result.value.mean(0) - exact) < 4 * result.value.std(0) / np.sqrt(300))
    ratio = np.sqrt((result.standard_error**2).mean(0)) / result.value.std(0)
    assert np.all((ratio > 0.8) & (ratio < 1.25))
    assert np.mean(np.abs(result.value - exact) < 2 * result.standard_error) > 0.9
    total = np.full(300, model(x) - model(0 * x))
    np.testing.assert_allclose(result.value.sum(1), total, rtol=1e-4, atol=1e-5)


def test_kernel_shap_with_all_sets_is_exact():
    for n_samples in (None, 62):
        result = attribution.kernel_shap(
            MODEL, X, key=key(), n_samples=n_samples, baseline=BASELINE, with_error=True
        )
        np.testing.assert_allclose(result.value, VALUES, atol=1e-5)
        np.testing.assert_array_equal(result.standard_error, 0)
    sampled = attribution.kernel_shap(MODEL, X, key=key(), n_samples=61, baseline=BASELINE)
    assert np.abs(sampled - VALUES).max() > 1e-3


@pytest.mark.long
def test_kernel_shap_does_not_depend_on_chunks_and_is_finite_with_the_least_samples():
    for options in ({"n_samples": 2 * N}, {"n_samples": 44, "with_error": True}):
        first, *others = [
            attribution.kernel_shap(MODEL, X, key=key(1), batch_size=size, **options) for size in (1, 7, 64)
        ]
        for other in others:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), other, first)
        assert np.all(np.isfinite(jax.tree.leaves(first)))


@pytest.mark.long
@pytest.mark.parametrize("method", [attribution.kernel_shap, attribution.lime])
@pytest.mark.parametrize("count", [7, 12, 30])
def test_an_error_from_the_fewest_samples_is_of_the_right_size(method, count):
    draws = np.random.default_rng(count)
    model = Partial(function, draws.normal(0, 0.6, size=(count, 8)).astype(np.float32))
    x, options = jnp.linspace(-1, 1.3, count), {} if method is attribution.kernel_shap else {"ridge": 0.01}
    least = 2 * count + 32 if method is attribution.kernel_shap else count + 16
    draw = lambda key: method(model, x, key=key, n_samples=least, with_error=True, **options)  # noqa: E731
    value, error = jax.jit(jax.vmap(draw))(jax.random.split(key(), 400))
    ratio = np.sqrt((error**2).mean(0)) / value.std(0)
    assert 0.9 < ratio.mean() < 1.2
    assert np.all((ratio > 0.7) & (ratio < 1.4))
    # No key is so unlucky that an error comes out as a rounding.
    assert np.all(error > 0.02 * np.median(error, axis=0))
    with pytest.raises(ValueError, match=f"`n_samples` must be at least {least}; got {least - 2}"):
        method(model, x, key=key(), n_samples=least - 2, with_error=True, **options)


@pytest.mark.long
def test_many_features_are_exact_for_a_linear_function():
    # 100 features: every set is fitted without a residual, and so is any order's gain.
    gradients = np.linspace(-1, 1, 100).astype(np.float32)
    linear = lambda x: x @ gradients  # noqa: E731
    x = jnp.ones(100)
    for method in (attribution.kernel_shap, attribution.shapley_sampling):
        result = method(linear, x, key=key(2), n_samples=400, with_error=True)
        np.testing.assert_allclose(result.value, gradients, atol=2e-4)
        assert result.standard_error.max() < 1e-4


@pytest.mark.long
def test_a_tree_is_explained_as_a_tree():
    x = {"a": jnp.ones(2), "b": jnp.asarray(3.0)}
    fn = lambda x: x["a"].sum() * x["b"]  # noqa: E731
    for method, options in (
        (attribution.shapley_values, {}),
        (attribution.kernel_shap, {"key": key()}),
        (attribution.shapley_sampling, {"key": key(), "n_samples": 500}),
    ):
        result = method(fn, x, **options)
        np.testing.assert_allclose(result["a"], [1.5, 1.5], atol=0.3)
        np.testing.assert_allclose(result["b"], 3, atol=0.3)


@pytest.mark.parametrize(
    ("method", "change", "error", "match"),
    [
        ("shapley_values", {"x": np.ones(21)}, ValueError, "`groups` must be at most 20.*got 21"),
        ("shapley_values", {"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ("shapley_sampling", {"key": 3}, TypeError, "`key` must be one random key"),
        ("shapley_sampling", {"key": key(), "n_samples": 0}, ValueError, "`n_samples` must be at least 1"),
        (
            "shapley_sampling",
            {"key": key(), "n_samples": 1, "with_error": True},
            ValueError,
            "`n_samples` must be at least 2",
        ),
        ("kernel_shap", {"key": key(), "n_samples": 11}, ValueError, "`n_samples` must be at least 12"),
        ("kernel_shap", {"key": None}, TypeError, "`key` must be one random key"),
    ],
)
def test_bad_input_is_refused(method, change, error, match):
    with pytest.raises(error, match=match):
        getattr(attribution, method)(**{"model": lambda x: x.sum(), "x": X, **change})


@pytest.mark.parametrize("n", [4, 13, 50])
def test_kernel_shap_of_few_samples_sums_to_the_change(n):
    """As many samples as allowed at least: the sets leave some directions open."""

    def function(x):
        return jnp.sin(x).sum() + x[0] * x[1] * x[-1]

    x, keys = jnp.arange(1.0, n + 1) / n, jax.random.split(jax.random.key(0), 20)
    values = jax.vmap(lambda key: attribution.kernel_shap(function, x, key=key, n_samples=2 * n))(keys)
    np.testing.assert_allclose(values.sum(1), function(x), rtol=1e-5)
    assert np.abs(values).max() < 5


@pytest.mark.parametrize("method", ["kernel_shap", "lime"])
def test_matrices_are_decomposed_one_after_the_other(method):
    """XLA:CPU waits for a batch of decompositions on the threads that compute it, and may wait forever."""
    network = jaxnn.init(jax.random.key(0), (5, 4, 3))
    explain = functools.partial(getattr(attribution, method), network, jnp.ones(5), 1, n_samples=20)
    keys = jax.random.split(jax.random.key(1), 3)
    jaxpr = jax.make_jaxpr(jax.vmap(lambda key: explain(key=key)))(keys)
    ranks = [
        eqn.invars[0].aval.ndim
        for _, eqn in walk(jaxpr.jaxpr)
        if eqn.primitive.name in ("cholesky", "eigh", "triangular_solve")
    ]
    assert len(ranks) >= 3
    assert set(ranks) == {2}
    one_by_one = jnp.stack([explain(key=key) for key in keys])
    np.testing.assert_allclose(jax.vmap(lambda key: explain(key=key))(keys), one_by_one, rtol=1e-4, atol=1e-6)
