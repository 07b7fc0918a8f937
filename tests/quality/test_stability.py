import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import attribution, quality
from jaxnn.quality._stability import changed
from tests.conftest import in_precision

KEY = jax.random.key(1)
X = np.random.default_rng(0).uniform(0.2, 1, 6)


def model(x):
    return jnp.stack([jnp.sum(jnp.sin(2 * x)), jnp.sum(x**3), x[0] * x[1]])


def gradient(x):
    return np.asarray(attribution.saliency(model, x, 1))


def samples(noise, size, count):
    x = jnp.asarray(X)
    return [np.asarray(changed(jax.random.fold_in(KEY, i), x, noise, size)) for i in range(count)]


def test_sensitivities_equal_numpy():
    with in_precision("float64"):
        a = gradient(X)
        ratios = [np.linalg.norm(gradient(m) - a) / np.linalg.norm(a) for m in samples("uniform", 0.1, 7)]
        options = {"key": KEY, "radius": 0.1, "n_samples": 7}
        found = [
            metric(model, X, 1, attribution.saliency, **options)
            for metric in (quality.max_sensitivity, quality.average_sensitivity)
        ]
        np.testing.assert_allclose(found, [max(ratios), np.mean(ratios)], rtol=1e-12)


def test_samples_lie_in_their_range():
    drawn = np.array(samples("uniform", 0.1, 50)) - X
    assert 0.09 < np.abs(drawn).max() <= 0.1 + 1e-6
    drawn = np.array(samples("normal", 0.1, 300)) - X
    np.testing.assert_allclose(drawn.std(), 0.1, rtol=0.05)


def test_lipschitz_equals_numpy():
    with in_precision("float64"):
        a = gradient(X)
        ratios = [np.linalg.norm(gradient(m) - a) / np.linalg.norm(m - X) for m in samples("normal", 0.2, 9)]
        found = quality.local_lipschitz(
            model, X, 1, attribution.saliency, key=KEY, noise=0.2, n_samples=9, batch_size=4
        )
        np.testing.assert_allclose(found, max(ratios), rtol=1e-12)


def test_relative_input_stability_equals_numpy_and_leaves_out_other_predictions():
    near = lambda x: jnp.stack([x[0] + x[1] ** 2, x[1] + x[0] ** 2])  # noqa: E731
    x = np.array([0.5, 0.52, 0.0])
    explain = lambda model, x, target: x**2 * jnp.array([1.0, 1.0, 0.0])  # noqa: E731
    with in_precision("float64"):
        moved = [np.asarray(changed(jax.random.fold_in(KEY, i), x, "uniform", 0.1)) for i in range(20)]
        a = np.array(explain(None, x, 0))
        values, same = [], []
        for m in moved:
            top = np.linalg.norm((a - np.array(explain(None, m, 0))) / np.where(a == 0, 1e-6, a))
            values.append(top / max(np.linalg.norm((x - m) / np.where(x == 0, 1e-6, x)), 1e-6))
            same.append(np.argmax(near(m)) == np.argmax(near(x)))
        assert 0 < sum(same) < 20
        options = {"key": KEY, "radius": 0.1, "n_samples": 20}
        found = quality.relative_input_stability(near, x, 0, explain, **options)
        np.testing.assert_allclose(found, max(np.array(values)[same]), rtol=1e-10)
        every = quality.relative_input_stability(near, x, 0, explain, same_prediction=False, **options)
        np.testing.assert_allclose(every, max(values), rtol=1e-10)


@pytest.mark.parametrize("metric", ["max_sensitivity", "local_lipschitz", "relative_input_stability"])
def test_ascent_finds_more_than_samples(metric):
    function = getattr(quality, metric)
    values = [
        float(function(model, X, 1, attribution.saliency, key=KEY, n_samples=5, ascent_steps=steps))
        for steps in (0, 1, 10)
    ]
    assert values[0] <= values[1]
    assert values[0] < values[2]


def test_ascent_reaches_the_maximum_where_it_is_known():
    """The gradient of a quadratic form is linear: the largest change is at a corner."""
    matrix = np.random.default_rng(1).normal(size=(5, 5))
    matrix = matrix @ matrix.T
    x = np.ones(5)
    with in_precision("float64"):
        form = lambda x: x @ jnp.asarray(matrix) @ x / 2  # noqa: E731
        corners = np.array(np.meshgrid(*[[-0.1, 0.1]] * 5)).reshape(5, -1).T
        expected = max(np.linalg.norm(corners @ matrix, axis=1)) / np.linalg.norm(matrix @ x)
        options = {"key": KEY, "radius": 0.1}
        found = quality.max_sensitivity(form, x, None, attribution.saliency, ascent_steps=20, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        sampled = quality.max_sensitivity(form, x, None, attribution.saliency, n_samples=500, **options)
        assert sampled < 0.98 * expected


def test_ascent_through_a_method_without_a_gradient_keeps_the_samples():
    kinks = lambda x: jnp.sum(jax.nn.relu(jnp.outer(x, x)))  # noqa: E731
    sign = lambda model, x, target: jnp.sign(attribution.saliency(model, x, target) - 2.5)  # noqa: E731
    options = {"key": KEY, "radius": 0.1}
    values = [
        quality.max_sensitivity(kinks, X, None, sign, ascent_steps=steps, **options) for steps in (0, 5)
    ]
    assert values[0] == values[1]


def test_attributions_of_zero_have_no_relative_change():
    assert np.isnan(quality.max_sensitivity(lambda x: 0 * x[0], X, None, attribution.saliency, key=KEY))


def test_samples_do_not_depend_on_how_many_there_are_at_once():
    for metric in (quality.max_sensitivity, quality.average_sensitivity, quality.local_lipschitz):
        found = [
            metric(model, X, 1, attribution.saliency, key=KEY, n_samples=9, batch_size=size)
            for size in (1, 4, 64)
        ]
        np.testing.assert_allclose(found, found[0], rtol=1e-5)


def test_pytrees():
    both = lambda x: jnp.sum(x["a"] ** 2) * x["b"]  # noqa: E731
    x = {"a": jnp.ones(3), "b": jnp.array(2.0)}
    assert float(quality.max_sensitivity(both, x, None, attribution.saliency, key=KEY)) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"explain": 3}, "`explain` must be callable"),
        ({"explain": lambda model, x, target: x[:2]}, "`explain` must return attributions"),
        ({"x": np.arange(6)}, "`x` must hold floating-point numbers"),
        ({"radius": 0.0}, "`radius` must be above 0"),
        ({"ascent_steps": -1}, "`ascent_steps` must be at least 0"),
        ({"n_samples": 0}, "`n_samples` must be at least 1"),
        ({"x": np.full(6, np.nan)}, "`x` must be finite"),
    ],
)
def test_bad_arguments(arguments, words):
    known = {"model": model, "x": X, "target": 1, "explain": attribution.saliency, "key": KEY}
    with pytest.raises((TypeError, ValueError), match=words):
        quality.max_sensitivity(**known | arguments)
