import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxnn import attribution, quality
from jaxnn.quality._faithfulness import random_set
from tests.conftest import in_precision

KEY = jax.random.key(1)
WEIGHTS = np.arange(1.0, 13.0) * np.where(np.arange(12) % 3, 1, -1)
X = np.random.default_rng(0).uniform(0.2, 1, 12)


def linear(x):
    return jnp.asarray(WEIGHTS, x.dtype) @ x + 3


def curved(x):
    return jnp.sum(jnp.tanh(x[:-1] * x[1:] * 3))


def sets(key, n, size, samples):
    return np.array([random_set(jax.random.fold_in(key, i), n, jnp.array(size)) for i in range(samples)])


def drops_and_sums(function, x, a, chosen, baseline=0.0):
    outputs = np.array([float(function(np.where(row, baseline, x))) for row in chosen])
    return float(function(x)) - outputs, chosen @ a


@pytest.mark.parametrize("size", [1, 4, 11])
def test_random_sets_have_their_size_and_are_uniform(size):
    chosen = jax.vmap(lambda i: random_set(jax.random.fold_in(KEY, i), 12, jnp.array(size)))(jnp.arange(4000))
    assert (chosen.sum(1) == size).all()
    counts = np.asarray(chosen.sum(0))
    expected = 4000 * size / 12
    assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected * (1 - size / 12))
    # Pairs, too.
    together = np.asarray(chosen[:, 0] & chosen[:, 7]).sum()
    pairs = 4000 * size * (size - 1) / 132
    assert abs(together - pairs) <= 4.5 * np.sqrt(pairs + 1)


def test_linear_models_have_the_best_score():
    with in_precision("float64"):
        a = WEIGHTS * X
        np.testing.assert_allclose(quality.faithfulness_correlation(linear, X, None, a, key=KEY), 1)
        np.testing.assert_allclose(quality.sensitivity_n(linear, X, None, a, key=KEY).correlations, 1)
        np.testing.assert_allclose(quality.mu_fidelity(linear, X, None, a, key=KEY, grid=6), 1)
        found = quality.infidelity(linear, X, None, a, key=KEY)
        np.testing.assert_allclose([found.value, found.scaled_value, (found.scale - 1) ** 2], 0, atol=1e-20)


def test_correlation_equals_numpy():
    a = np.random.default_rng(2).normal(size=12)
    with in_precision("float64"):
        drops, sums = drops_and_sums(curved, X, a, sets(KEY, 12, 2, 100), 0.5)
        found = quality.faithfulness_correlation(curved, X, None, a, key=KEY, baseline=0.5)
        np.testing.assert_allclose(found, scipy.stats.pearsonr(sums, drops)[0], rtol=1e-10)


def test_sensitivity_n_equals_numpy():
    a = np.random.default_rng(2).normal(size=12)
    with in_precision("float64"):
        found = quality.sensitivity_n(curved, X, None, a, key=KEY, sizes=(3, 7), n_samples=50)
        for i, size in enumerate((3, 7)):
            chosen = sets(jax.random.fold_in(KEY, i), 12, size, 50)
            drops, sums = drops_and_sums(curved, X, a, chosen)
            np.testing.assert_allclose(
                found.correlations[i], scipy.stats.pearsonr(sums, drops)[0], rtol=1e-10
            )


def test_mu_fidelity_equals_numpy():
    a = np.random.default_rng(2).normal(size=(4, 3, 2))
    x = np.random.default_rng(3).uniform(size=(4, 3, 2))
    model = lambda x: jnp.sum(jnp.sin(3 * x) * jnp.arange(24).reshape(4, 3, 2))  # noqa: E731
    cells = (np.arange(4) // 2)[:, None] * 3 + np.arange(3)
    with in_precision("float64"):
        found = quality.mu_fidelity(model, x, None, a, key=KEY, grid=(2, 3), fraction=0.4, n_samples=60)
        chosen = sets(KEY, 6, 2, 60)[:, cells][..., None] & np.ones(2, bool)
        drops = [float(model(x)) - float(model(np.where(row, 0, x))) for row in chosen]
        expected = scipy.stats.spearmanr([a[row].sum() for row in chosen], drops)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_constant_has_no_correlation():
    assert np.isnan(quality.faithfulness_correlation(linear, X, None, np.full(12, 0.1), key=KEY))
    assert np.isnan(quality.faithfulness_correlation(lambda x: 0 * x[0], X, None, X, key=KEY))


def test_infidelity_equals_its_equation():
    """Equation 1, by the samples of the key; for attributions of both units."""
    a = np.random.default_rng(2).normal(size=12)
    move = lambda key, x: x - 0.3 * jax.random.normal(key, x.shape, x.dtype)  # noqa: E731
    with in_precision("float64"):
        moved = np.array([move(jax.random.fold_in(KEY, i), X) for i in range(40)])
        drops = float(curved(X)) - np.array([float(curved(m)) for m in moved])
        for per_unit, weights in ((True, a), (False, a / (X - 0.1))):
            options = {"key": KEY, "n_samples": 40, "perturb": move, "baseline": 0.1, "per_unit": per_unit}
            found = quality.infidelity(curved, X, None, a, **options)
            sums = (X - moved) @ weights
            squares = (sums - drops) ** 2
            np.testing.assert_allclose(found.value, squares.mean(), rtol=1e-10)
            np.testing.assert_allclose(found.standard_error, squares.std(ddof=1) / np.sqrt(40), rtol=1e-10)
            scale = np.mean(sums * drops) / np.mean(sums**2)
            np.testing.assert_allclose(found.scale, scale, rtol=1e-10)
            np.testing.assert_allclose(found.scaled_value, np.mean((scale * sums - drops) ** 2), rtol=1e-10)
            np.testing.assert_allclose(found.null_value, np.mean(drops**2), rtol=1e-10)


def test_the_gradient_is_the_best_for_small_noise():
    move = lambda key, x: x + 1e-3 * jax.random.normal(key, x.shape, x.dtype)  # noqa: E731
    with in_precision("float64"):
        gradient = attribution.saliency(curved, X)
        options = {"key": KEY, "perturb": move, "per_unit": True}
        best, other = (quality.infidelity(curved, X, None, a, **options) for a in (gradient, gradient[::-1]))
        assert best.value < 1e-4 * best.null_value
        assert other.value > 0.1 * best.null_value


def test_samples_do_not_depend_on_how_many_there_are_at_once():
    for metric in (quality.faithfulness_correlation, quality.sensitivity_n, quality.infidelity):
        found = [metric(curved, X, None, WEIGHTS, key=KEY, batch_size=size) for size in (1, 7, 64)]
        for other in found[1:]:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found[0], other)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quality.faithfulness_correlation(linear, X, None, X, key=KEY, fraction=1.0), "`fraction`"),
        (
            lambda: quality.faithfulness_correlation(lambda x: x[0], X[:1], None, X[:1], key=KEY),
            "two features",
        ),
        (lambda: quality.sensitivity_n(linear, X, None, X, key=KEY, sizes=(12,)), "from 1 to 11"),
        (lambda: quality.mu_fidelity(linear, X, None, X, key=KEY, grid=13), "`grid`"),
        (lambda: quality.infidelity(linear, X, None, X, key=KEY, perturb=lambda k, x: x[:3]), "`perturb`"),
        (lambda: quality.infidelity(linear, X, None, X, key=KEY, perturb=3), "`perturb`"),
        (lambda: quality.infidelity(linear, X, None, X, key=KEY, per_unit=1), "`per_unit`"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
