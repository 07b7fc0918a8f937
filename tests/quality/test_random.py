"""Random attributions score as random on every metric: within two standard errors of what chance gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import quality

SIDE, N = 10, 80
SIZE = SIDE * SIDE
NETWORK = jaxnn.init(
    jax.random.key(0), (SIZE, 20, 4), activation="tanh", output_activation="identity",
    bias_init=jax.nn.initializers.normal(0.1),
)  # fmt: skip
X = np.random.default_rng(0).uniform(0.2, 1, (N, SIDE, SIDE)).astype(np.float32)
Y = np.arange(N) % 4
ATTRIBUTIONS = np.random.default_rng(1).normal(size=(N, SIDE, SIDE)).astype(np.float32)
KEYS = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2), np.arange(N))
MASKS = np.random.default_rng(3).uniform(size=(N, SIDE, SIDE)) < 0.3


def image_network(network, x):
    return network(x.reshape(-1))


MODEL = jax.tree_util.Partial(image_network, NETWORK)


def _bits(tree):
    """A number that any change of any array changes."""
    values = jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(tree)])
    words = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return jnp.sum(words * (2 * jnp.arange(words.size, dtype=jnp.uint32) + 1))


def noise(model, x, target):
    """Attributions of which nothing is true: independent for each input, target and network."""
    key = jax.random.key(7)
    for part in (_bits(model), _bits(x), jnp.asarray(jax.tree.leaves(target)[0], jnp.uint32)):
        key = jax.random.fold_in(key, part)
    return jax.random.normal(key, x.shape)


def assert_by_chance(values, expected=0.0):
    values = np.asarray(values, np.float64)
    assert np.isfinite(values).all()
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert error > 0
    assert abs(values.mean() - expected) <= 2 * error, (values.mean(), expected, error)


def over_examples(metric, *trees):
    return jax.jit(jax.vmap(metric))(X, Y, *trees)


@pytest.mark.parametrize("metric", ["deletion", "insertion", "symmetric_relevance_gain"])
def test_curves(metric):
    function = getattr(quality, metric)
    curve = over_examples(lambda x, y, a, k: function(MODEL, x, y, a, key=k), ATTRIBUTIONS, KEYS)
    assert_by_chance(curve.area - curve.random_mean)
    # `random_std` is that of one order: the standardized areas vary by 1, and by the error of the mean.
    standardized = (curve.area - curve.random_mean) / curve.random_std
    assert 0.8 < np.std(standardized) < 1.5


@pytest.mark.parametrize("metric", ["faithfulness_correlation", "mu_fidelity"])
def test_correlations(metric):
    function = getattr(quality, metric)
    assert_by_chance(over_examples(lambda x, y, a, k: function(MODEL, x, y, a, key=k), ATTRIBUTIONS, KEYS))


def test_sensitivity_n():
    def mean(x, y, a, k):
        return quality.sensitivity_n(MODEL, x, y, a, key=k).correlations.mean()

    assert_by_chance(over_examples(mean, ATTRIBUTIONS, KEYS))


def test_infidelity():
    found = over_examples(lambda x, y, a, k: quality.infidelity(MODEL, x, y, a, key=k), ATTRIBUTIONS, KEYS)
    assert_by_chance(found.scale)
    assert np.median(found.scaled_value / found.null_value) > 0.9


def test_road():
    def accuracy(x, y, a, k):
        return quality.road(MODEL, x, jnp.argmax(MODEL(x)), a, key=k, fractions=(0.2, 0.5)).correct.mean()

    one, other = (over_examples(accuracy, a, KEYS) for a in (ATTRIBUTIONS, ATTRIBUTIONS[::-1]))
    assert_by_chance(one - other)


def test_completeness():
    """Random attributions sum to 0 on average, and so miss all of the change."""

    def signed(x, y, a):
        gap = quality.completeness(MODEL, x, y, a)
        change = MODEL(x)[y] - MODEL(jnp.zeros_like(x))[y]
        return (gap * jnp.sign(jnp.sum(a) - change) * jnp.abs(change) + change) / SIDE

    assert_by_chance(over_examples(signed, ATTRIBUTIONS))


def test_non_sensitivity():
    """They are nowhere 0: wrong at each element on which the output does not depend."""
    seen = jnp.arange(SIZE).reshape(SIDE, SIDE) % 3 > 0
    model = lambda x: MODEL(jnp.where(seen, x, 0))  # noqa: E731
    found = over_examples(lambda x, y, a: quality.non_sensitivity(model, x, y, a), ATTRIBUTIONS)
    hidden = SIZE - int(seen.sum())
    assert np.all((found >= hidden) & (found <= hidden + 2))


@pytest.mark.parametrize("metric", ["max_sensitivity", "average_sensitivity"])
def test_sensitivity(metric):
    """The relative change of one random map to another is that of independent normal numbers."""
    function = getattr(quality, metric)
    values = over_examples(lambda x, y, k: function(MODEL, x, y, noise, key=k, n_samples=1), KEYS)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000, SIZE))
    assert_by_chance(values, np.mean(np.linalg.norm(b - a, axis=1) / np.linalg.norm(a, axis=1)))


def test_local_lipschitz():
    values = over_examples(
        lambda x, y, k: quality.local_lipschitz(MODEL, x, y, noise, key=k, noise=0.1, n_samples=1), KEYS
    )
    a, b, e = np.random.default_rng(0).normal(size=(3, 20_000, SIZE))
    assert_by_chance(values, np.mean(np.linalg.norm(b - a, axis=1) / np.linalg.norm(0.1 * e, axis=1)))


def test_relative_input_stability():
    """Ratios of normal numbers have no mean: their logarithm has."""
    ones = np.ones_like(X)

    def value(x, y, one, k):
        options = {"key": k, "n_samples": 1, "radius": 0.1, "same_prediction": False}
        return jnp.log(quality.relative_input_stability(MODEL, one, y, noise, **options))

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000, SIZE))
    e = rng.uniform(-0.1, 0.1, (20_000, SIZE))
    expected = np.log(np.linalg.norm((a - b) / a, axis=1) / np.linalg.norm(e, axis=1))
    assert_by_chance(over_examples(value, ones, KEYS), expected.mean())


def test_input_invariance():
    values = over_examples(lambda x, y: quality.input_invariance(MODEL, x, y, noise))
    a, b = np.random.default_rng(0).normal(size=(2, 20_000, SIZE))
    assert_by_chance(values, np.mean(np.linalg.norm(b - a, axis=1) / np.linalg.norm(a, axis=1)))


def test_parameter_randomization():
    found = quality.parameter_randomization(MODEL, X, Y, noise, key=jax.random.key(14), n_seeds=1)
    for values in (*found.rank_correlation[:, 0], found.yardstick):
        assert_by_chance(values)
    for values in found.ssim[:, 0]:
        assert_by_chance(values - found.yardstick_ssim)


def test_parameter_randomization_of_what_does_not_see_the_network():
    blind = lambda model, x, target: noise(0.0, x, target)  # noqa: E731
    found = quality.parameter_randomization(MODEL, X[:4], Y[:4], blind, key=jax.random.key(4), n_seeds=1)
    np.testing.assert_allclose(found.rank_correlation, 1, rtol=1e-5)


def test_efficient_parameter_randomization():
    def value(x, y, k):
        return quality.efficient_parameter_randomization(MODEL, x, y, noise, key=k)

    assert_by_chance(over_examples(value, KEYS))


def test_random_logit():
    found = over_examples(lambda x, y, k: quality.random_logit(MODEL, x, y, noise, key=k), KEYS)
    assert_by_chance(found.rank_correlation)
    assert_by_chance(found.ssim)


def test_data_randomization():
    other = quality.randomize_parameters(MODEL, jax.random.key(15))
    found = over_examples(lambda x, y: quality.data_randomization(MODEL, other, x, y, noise))
    assert_by_chance(found.rank_correlation)


def test_mege_and_reco():
    """Distances of independent maps are 1 - |r|, the same whether networks agree or not."""
    others = [quality.randomize_parameters(MODEL, jax.random.key(key)) for key in range(3)]
    models = jax.tree.map(lambda *leaves: jnp.stack(leaves), MODEL, *others)
    labels = np.asarray(jnp.argmax(jax.vmap(MODEL)(X), -1))  # the first network is always right
    parts = np.arange(N) % 4
    rng = np.random.default_rng(0)
    ranks = np.argsort(rng.normal(size=(2000, 2, SIZE)), -1)
    correlations = [abs(np.corrcoef(*pair)[0, 1]) for pair in ranks]
    expected = 1 / (2 - np.mean(correlations))
    error = np.std(correlations) / np.sqrt(N) / 2
    assert abs(float(quality.mege(models, X, labels, parts, noise)) - expected) < 2 * error
    # Of two samples of one distribution, of some 100 pairs, the largest difference of the shares is small.
    assert float(quality.reco(models, X, labels, parts, noise)) < 0.35


def test_sparseness_of_normal_attributions():
    """The Gini coefficient of |N(0, 1)| is sqrt(2) - 1; of a sample of n it is (n - 1) / n as much."""
    values = jax.vmap(quality.sparseness)(ATTRIBUTIONS)
    assert_by_chance(values, (np.sqrt(2) - 1) * (SIZE - 1) / SIZE)


def test_complexity_of_normal_attributions():
    samples = np.abs(np.random.default_rng(5).normal(size=(20_000, SIZE)))
    shares = samples / samples.sum(1, keepdims=True)
    assert_by_chance(jax.vmap(quality.complexity)(ATTRIBUTIONS), -np.mean(np.sum(shares * np.log(shares), 1)))


def test_effective_complexity_of_normal_attributions():
    values = jax.vmap(lambda a: quality.effective_complexity(a, threshold=0.6745))(ATTRIBUTIONS)
    assert_by_chance(values, SIZE / 2)  # the quartiles


@pytest.mark.parametrize("metric", ["pointing_game", "relevance_mass", "relevance_rank", "relevance_auc"])
def test_localization(metric):
    share = MASKS.reshape(N, -1).mean(1)
    expected = 0.5 if metric == "relevance_auc" else share
    assert_by_chance(jax.vmap(getattr(quality, metric))(ATTRIBUTIONS, MASKS) - expected)
