import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import attribution, quality
from tests.conftest import in_precision

WEIGHTS = np.array([0.3, -1.2, 2.0, 0.7, -0.1, 1.1])
X = np.array([1.0, 0.5, 0.8, -0.4, 0.9, 0.2])


def linear(x):
    return jnp.asarray(WEIGHTS, x.dtype) @ x


def curved(x):
    return jnp.sum(jnp.sin(x * jnp.arange(1, x.size + 1)))


def slow_curve(function, x, order, counts, baseline, inserts=False):
    outputs = []
    for count in counts:
        changed = np.isin(np.arange(x.size), order[:count])
        keeps = changed if inserts else ~changed
        outputs.append(float(function(np.where(keeps, x, baseline))))
    fractions = np.array(counts) / x.size
    return outputs, np.sum(np.diff(fractions) * (np.array(outputs)[1:] + outputs[:-1]) / 2)


def test_deletion_of_a_linear_model_is_the_optimum_over_all_orders():
    with in_precision("float64"):
        exact = attribution.integrated_gradients(linear, X)
        found = quality.deletion(linear, X, None, exact, steps=6)
        most = quality.insertion(linear, X, None, exact, steps=6)
        gain = quality.symmetric_relevance_gain(linear, X, None, exact, steps=6)
        areas = [slow_curve(linear, X, order, range(7), 0.0)[1] for order in itertools.permutations(range(6))]
        np.testing.assert_allclose(found.area, min(areas), rtol=1e-12)
        np.testing.assert_allclose(most.area, max(areas), rtol=1e-12)
        np.testing.assert_allclose(gain.area, max(areas) - min(areas), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 4, 6, 10])
@pytest.mark.parametrize("metric", ["deletion", "insertion"])
def test_equals_a_loop(metric, steps):
    values = np.array([1.0, 3.0, 3.0, -2.0, 0.0, 3.0])
    order = [1, 2, 5, 0, 4, 3]  # equal ones in their own order
    with in_precision("float64"):
        found = getattr(quality, metric)(curved, X, None, values, steps=steps, baseline=0.25)
        counts = [round(k * 6 / min(steps, 6)) for k in range(min(steps, 6) + 1)]
        outputs, area = slow_curve(curved, X, order, counts, 0.25, inserts=metric == "insertion")
        np.testing.assert_allclose(found.outputs, outputs, rtol=1e-12)
        np.testing.assert_allclose(found.area, area, rtol=1e-12)
        np.testing.assert_allclose(found.fractions, np.array(counts) / 6)
    assert np.isnan(found.random_mean)


def test_groups_are_removed_whole_by_their_sums():
    found = quality.deletion(linear, X, None, [1.0, 1.0, 3.0, -2.5, 0.0, 1.5], groups=[0, 0, 1, 1, 2, 2])
    whole = [[], [0, 1], [0, 1, 4, 5], [0, 1, 2, 3, 4, 5]]
    expected = [float(linear(jnp.where(np.isin(np.arange(6), gone), 0, X))) for gone in whole]
    np.testing.assert_allclose(found.outputs, expected, atol=1e-6)


def test_random_orders_are_those_of_their_keys():
    key = jax.random.key(3)
    found = quality.deletion(curved, X, None, X, key=key, n_random=4, steps=6)
    draws = [np.asarray(jax.random.permutation(jax.random.fold_in(key, i), 6)) for i in range(4)]
    curves = [slow_curve(curved, X.astype(np.float32), np.argsort(d), range(7), 0.0) for d in draws]
    np.testing.assert_allclose(found.random_mean, np.mean([area for _, area in curves]), rtol=1e-5)
    np.testing.assert_allclose(found.random_std, np.std([area for _, area in curves], ddof=1), rtol=1e-4)
    np.testing.assert_allclose(found.random_outputs, np.mean([o for o, _ in curves], 0), atol=1e-5)
    np.testing.assert_allclose(found.random_outputs_std, np.std([o for o, _ in curves], 0, ddof=1), atol=1e-5)


def test_a_pytree_is_one_set_of_features():
    model = lambda x: 3 * x["a"].sum() + x["b"].sum()  # noqa: E731
    x = {"a": np.ones(2, np.float32), "b": np.ones((2, 2), np.float32)}
    found = quality.deletion(model, x, None, {"a": np.ones(2), "b": np.zeros((2, 2))}, steps=6)
    assert found.outputs.tolist() == [10, 7, 4, 3, 2, 1, 0]


def test_integers_are_removed_as_integers():
    model = lambda tokens: jnp.sum(tokens * tokens)  # noqa: E731
    found = quality.deletion(model, np.array([1, 3, 2]), None, [1.0, 3.0, 2.0], steps=3)
    assert found.outputs.tolist() == [14, 5, 1, 0]


def test_attributions_of_nan_are_refused_or_show():
    wrong = np.array([1.0, np.nan, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="`attributions` must be finite"):
        quality.deletion(linear, X, None, wrong)
    traced = jax.jit(lambda a: quality.deletion(linear, X, None, a))(wrong)
    assert np.isnan(traced.area)
    assert np.isnan(traced.outputs).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"attributions": np.ones(5)}, "`attributions` must have shape"),
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"n_random": 1}, "`n_random` must be at least 2"),
        ({"key": 3}, "`key` must be one random key"),
        ({"baseline": np.ones(5)}, "`baseline` must have shape"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        quality.deletion(**{"model": linear, "x": X, "target": None, "attributions": X} | arguments)
