import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxnn import quality
from jaxnn.quality._similarity import places, ranks, spearman, stable_order, structural_similarity
from tests.conftest import in_precision

A = np.random.default_rng(0).normal(size=(5, 7))


def test_sparseness_is_the_mean_difference():
    """The Gini coefficient: half the mean absolute difference of two of them, relative to the mean."""
    values = np.abs(A).ravel() + 1e-7
    with in_precision("float64"):
        expected = np.abs(values[:, None] - values).mean() / (2 * values.mean())
        np.testing.assert_allclose(quality.sparseness(A), expected, rtol=1e-12)
    assert float(quality.sparseness(np.zeros(4))) == 0


def test_complexity_is_an_entropy():
    shares = np.abs(A).ravel() / np.abs(A).sum()
    with in_precision("float64"):
        np.testing.assert_allclose(quality.complexity(A), -np.sum(shares * np.log(shares)), rtol=1e-12)
    assert np.isnan(quality.complexity(np.zeros(3)))


def test_effective_complexity():
    assert float(quality.effective_complexity(A, threshold=0.5)) == (np.abs(A) > 0.5).sum()
    assert float(quality.effective_complexity({"a": [0.0, 2.0], "b": np.ones(3)})) == 4


def test_normalize():
    np.testing.assert_allclose(quality.normalize(A), A / np.abs(A).max(), rtol=1e-6)
    np.testing.assert_allclose(quality.normalize(A, absolute=True), np.abs(A) / np.abs(A).max(), rtol=1e-6)
    assert quality.normalize(np.zeros(3)).tolist() == [0, 0, 0]
    assert quality.normalize(np.array([2, -4])).tolist() == [0.5, -1]


def test_localization_equals_definitions():
    mask = np.random.default_rng(1).uniform(size=A.shape) < 0.3
    positive, size = np.maximum(A, 0), mask.sum()
    with in_precision("float64"):
        np.testing.assert_allclose(quality.relevance_mass(A, mask), positive[mask].sum() / positive.sum())
        top = np.argsort(-A.ravel(), kind="stable")[:size]
        np.testing.assert_allclose(quality.relevance_rank(A, mask), mask.ravel()[top].mean())
        np.testing.assert_allclose(quality.pointing_game(A, mask), mask.ravel()[np.argmax(A)])
        np.testing.assert_allclose(quality.relevance_auc(A, mask), roc_auc_score(mask.ravel(), A.ravel()))
        tied = np.round(A)
        np.testing.assert_allclose(
            quality.relevance_auc(tied, mask), roc_auc_score(mask.ravel(), tied.ravel())
        )
        assert float(quality.pointing_game([1.0, 1.0, 0.0, 1.0], [True, False, True, False])) == 1 / 3


def test_masks_broadcast_over_channels():
    a = np.stack([A, 2 * A], axis=-1)
    mask = A > 1
    one, other = (quality.relevance_mass(a, m) for m in (mask[..., None], np.stack([mask, mask], -1)))
    assert one == other


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quality.pointing_game(A, np.zeros(A.shape, bool)), "at least one element"),
        (lambda: quality.relevance_mass(A, np.ones(A.shape)), "must hold booleans"),
        (lambda: quality.relevance_rank(A, np.ones((7, 5), bool)), "`mask` must have shape"),
        (lambda: quality.relevance_auc("a", np.ones(1, bool)), "`attributions`"),
        (lambda: quality.sparseness(np.full(3, np.inf)), "`attributions` must be finite"),
        (lambda: quality.complexity(np.zeros(0)), "at least one element"),
        (lambda: quality.effective_complexity(A, threshold=-1.0), "`threshold`"),
        (lambda: quality.normalize(A, absolute=1), "`absolute`"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_nan_under_jit_shows():
    for metric in (quality.sparseness, quality.complexity, quality.effective_complexity):
        assert np.isnan(jax.jit(metric)(jnp.array([1.0, np.nan])))
    mask = np.array([True, False])
    for metric in (
        quality.pointing_game, quality.relevance_mass, quality.relevance_rank, quality.relevance_auc
    ):  # fmt: skip
        assert np.isnan(jax.jit(metric)(jnp.array([1.0, np.nan]), mask))


def test_rank_correlation_equals_scipy():
    import scipy.stats

    a, b = np.round(A[:4].ravel(), 1), np.round(A[1:].ravel(), 1)
    with in_precision("float64"):
        np.testing.assert_array_equal(ranks(jnp.asarray(a)), scipy.stats.rankdata(a))
        expected = scipy.stats.spearmanr(a, b)[0]
        np.testing.assert_allclose(spearman(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-12)
        where = A[:4].ravel() > -0.5
        expected = scipy.stats.spearmanr(a[where], b[where])[0]
        np.testing.assert_allclose(spearman(jnp.asarray(a), jnp.asarray(b), where), expected, rtol=1e-12)
    assert np.isnan(spearman(jnp.ones(5), jnp.arange(5.0)))
    assert np.isnan(spearman(jnp.arange(3.0), jnp.arange(3.0), np.zeros(3, bool)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_orders_are_those_of_numpy(dtype):
    """With ties, zeros of both signs, infinities, and NaN last."""
    values = np.round(np.random.default_rng(0).normal(size=3000), 2).astype(dtype)
    values[:6] = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan]
    with in_precision(dtype):
        order = np.argsort(values, kind="stable")
        np.testing.assert_array_equal(stable_order(jnp.asarray(values)), order)
        np.testing.assert_array_equal(np.argsort(places(jnp.asarray(values))), order)


def test_structural_similarity_equals_its_equation():
    """By each window of 7 by 7 pixels, with unbiased variances."""
    a, b = np.random.default_rng(2).uniform(size=(2, 10, 9))
    span = max(a.max(), b.max()) - min(a.min(), b.min())
    c1, c2, scores = (0.01 * span) ** 2, (0.03 * span) ** 2, []
    for i in range(4):
        for j in range(3):
            u, v = a[i : i + 7, j : j + 7].ravel(), b[i : i + 7, j : j + 7].ravel()
            (va, cov), (_, vb) = np.cov(u, v)
            top = (2 * u.mean() * v.mean() + c1) * (2 * cov + c2)
            scores.append(top / ((u.mean() ** 2 + v.mean() ** 2 + c1) * (va + vb + c2)))
    with in_precision("float64"):
        found = structural_similarity(jnp.asarray(a), jnp.asarray(b))
        np.testing.assert_allclose(found, np.mean(scores), rtol=1e-10)
        np.testing.assert_allclose(structural_similarity(jnp.asarray(a), jnp.asarray(a)), 1)
    assert np.isnan(structural_similarity(jnp.ones((6, 9)), jnp.ones((6, 9))))
