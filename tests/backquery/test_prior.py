"""Back queries that know what inputs look like: against closed forms, NumPy and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.tree_util import Partial

import jaxnn
from tests.conftest import in_precision

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(6, 6))
INPUTS = RNG.normal(size=(300, 6)) @ MIXING + RNG.integers(0, 2, (300, 1)) * 4
KEY = jax.random.key(3)
WEIGHTS = RNG.normal(size=(6, 3))
WIDE = {"low": np.array(-1e9), "high": np.array(1e9)}


@jax.jit
def linear(weights, x):
    return x @ weights


def smooth(weights, x):
    return jnp.tanh(x @ weights / 10)


def expected_pattern(inputs, signals, chosen, change):
    """The best linear estimate, by NumPy's covariances."""
    joint = np.cov(np.concatenate([inputs, signals[:, chosen]], axis=1).T, bias=True)
    n = inputs.shape[1]
    return inputs.mean(axis=0) + joint[:n, n:] @ np.linalg.solve(joint[n:, n:], change)


@pytest.mark.parametrize("chosen", [[1], [0, 2]])
def test_the_pattern_is_the_conditional_mean_of_the_closed_form(chosen):
    with in_precision(np.float64):
        network = jaxnn.init(jax.random.key(1), (6, 5, 3), dtype=np.float64)
        y = np.full(3, 0.2)
        y[chosen] = [0.9, 0.7][: len(chosen)]
        hidden = network.layers[0](INPUTS)
        signals = np.asarray(network.layers[1].signal(hidden))
        change = np.log(y / (1 - y))[chosen] - signals.mean(axis=0)[chosen]
        found = jaxnn.backquery(network, y, method="pattern", prior=INPUTS)
        np.testing.assert_allclose(found, expected_pattern(INPUTS, signals, chosen, change), rtol=1e-10)
        free = np.isin(np.arange(3), chosen, invert=True)
        np.testing.assert_array_equal(
            found, jaxnn.backquery(network, y, method="pattern", prior=INPUTS, free=free)
        )


def test_stein_joins_the_pattern_to_the_gradient():
    """Of a Gaussian: cov(x, s) is the covariance of x times the mean gradient of s."""
    with in_precision(np.float64):
        prior = jaxnn.prior(INPUTS, components=1, key=KEY)
        draws = jax.vmap(prior._replace(low=-np.inf, high=np.inf).input_at)(prior.draws)
        model = Partial(smooth, WEIGHTS)
        gradient = jax.vmap(jax.grad(lambda x: model(x)[0]))(draws).mean(axis=0)
        covariance = prior.basis @ prior.factors[0] @ prior.factors[0].T @ prior.basis.T
        found = jaxnn.backquery(model, np.array([1.0, 0.0, 0.0]), method="pattern", prior=draws)
        signals = np.asarray(jax.vmap(model)(draws))[:, 0]
        scale = (1 - signals.mean()) / signals.var()
        expected = np.asarray(covariance @ gradient) * scale
        error = np.abs(np.asarray(found - draws.mean(axis=0)) - expected).max()
        assert error < 0.1 * np.abs(expected).max()  # 2,048 draws


def test_an_output_that_is_constant_changes_nothing():
    def model(x):
        return jnp.stack([x[0], jnp.ones_like(x[0])])

    found = jaxnn.backquery(model, [0.0, 5.0], method="pattern", prior=INPUTS, free=[True, False])
    np.testing.assert_allclose(found, INPUTS.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("components", [1, 3])
def test_the_typical_input_of_a_linear_model_solves_the_quadratic_program(components):
    """With equality: the least Mahalanobis distance over the components, by NumPy."""
    with in_precision(np.float64):
        prior = jaxnn.prior(INPUTS, components=components, key=KEY)
        prior = prior._replace(**WIDE)
        y = np.array([3.0, -2.0, 1.0])
        found = jaxnn.backquery(Partial(linear, WEIGHTS), y, method="typical", prior=prior, exact=True)
        best = []
        for center, factor in zip(*map(np.asarray, (prior.centers, prior.factors)), strict=True):
            basis = np.asarray(prior.basis)
            rows = WEIGHTS.T @ basis @ factor
            rest = y - (np.asarray(prior.mean) + basis @ center) @ WEIGHTS
            u = rows.T @ np.linalg.solve(rows @ rows.T, rest)
            best.append((u @ u, np.asarray(prior.mean) + basis @ (center + factor @ u)))
        distance, x = min(best, key=lambda pair: pair[0])
        np.testing.assert_allclose(found.x, x, atol=1e-6)
        np.testing.assert_allclose(found.distance, distance, rtol=1e-6)
        assert found.shortfall < 1e-6


def test_with_inequalities_it_is_that_of_scipy():
    with in_precision(np.float64):
        prior = jaxnn.prior(INPUTS, components=1, rank=6, key=KEY)._replace(
            low=jnp.array(-1e9), high=jnp.array(1e9)
        )
        model, y = Partial(smooth, WEIGHTS), np.array([0.5, 0.2, -0.3])
        found = jaxnn.backquery(model, y, method="typical", prior=prior)
        signs = np.array([1, 1, -1])  # the middle of the requests is 0.1

        def slack(u):
            x = prior.mean + prior.basis @ (prior.centers[0] + prior.factors[0] @ u)
            return np.asarray(signs * (model(x) - y), np.float64)

        options = {"method": "SLSQP", "constraints": {"type": "ineq", "fun": slack}}
        starts = [np.zeros(6), *RNG.normal(size=(4, 6))]
        solved = [scipy.optimize.minimize(lambda u: u @ u, start, **options) for start in starts]
        least = min(result.fun for result in solved if result.success)
        assert found.shortfall < 1e-4
        np.testing.assert_allclose(found.distance, least, rtol=1e-3, atol=1e-6)


def test_a_mean_that_meets_the_request_is_the_answer_of_least_distance():
    prior = jaxnn.prior(INPUTS, components=2, key=KEY)
    model = Partial(linear, WEIGHTS)
    means = prior.mean + prior.centers @ prior.basis.T
    outputs = np.asarray(means @ WEIGHTS)
    middle = (outputs[1].max() + outputs[1].min()) / 2
    y = middle + 0.8 * (outputs[1] - middle)
    found = jaxnn.backquery(model, y, method="typical", prior=prior)
    assert found.distance < 1e-3
    assert found.shortfall == 0


def test_what_cannot_be_met_is_said():
    found = jaxnn.backquery(
        Partial(smooth, WEIGHTS), [2.0, 0.0, 0.0], method="typical", prior=jaxnn.prior(INPUTS, key=KEY)
    )
    assert 1.0 < found.shortfall < 2.0  # of a tanh, and all inputs are bounded


def test_inputs_stay_in_the_range_of_the_data():
    prior = jaxnn.prior(np.clip(INPUTS, -1, 1), key=KEY)
    found = jaxnn.backquery(Partial(linear, WEIGHTS), [50.0, 0.0, 0.0], method="typical", prior=prior)
    for x in (found.x, found.surer):
        assert prior.low <= x.min()
        assert x.max() <= prior.high


def test_surer_is_surer():
    network = jaxnn.init(jax.random.key(1), (6, 5, 3))
    y = np.array([0.55, 0.5, 0.5], np.float32)
    found = jaxnn.backquery(network, y, method="typical", prior=jaxnn.prior(INPUTS, key=KEY, components=4))
    assert network(found.x)[0] >= 0.549
    assert network(found.surer)[0] > network(found.x)[0]


def test_surer_than_a_signal_below_zero_is_above_it():
    prior = jaxnn.prior(INPUTS, key=KEY, components=2)._replace(**WIDE)
    found = jaxnn.backquery(
        Partial(linear, WEIGHTS), np.array([-1.0, -9.0, -9.0], np.float32), method="typical", prior=prior
    )
    assert found.surer @ WEIGHTS[:, 0] > 0.49  # -1 and 1.5 times its size


def test_the_answer_rotates_with_the_data():
    with in_precision(np.float64):
        rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
        model, turned = Partial(smooth, WEIGHTS), Partial(smooth, rotation.T @ WEIGHTS)
        priors = [jaxnn.prior(x, components=2, key=KEY)._replace(**WIDE) for x in (INPUTS, INPUTS @ rotation)]
        y = np.array([0.6, -0.1, -0.1])
        one = jaxnn.backquery(model, y, method="typical", prior=priors[0])
        other = jaxnn.backquery(turned, y, method="typical", prior=priors[1])
        np.testing.assert_allclose(one.x @ rotation, other.x, atol=1e-6)
        one = jaxnn.backquery(model, y, method="pattern", prior=INPUTS)
        other = jaxnn.backquery(turned, y, method="pattern", prior=INPUTS @ rotation)
        np.testing.assert_allclose(one @ rotation, other, atol=1e-9)


def test_a_softmax_is_asked_by_its_log_odds():
    with in_precision(np.float64):
        network = jaxnn.init(jax.random.key(2), (6, 4, 3), output_activation="softmax", dtype=np.float64)
        signals = np.asarray(network(INPUTS))
        signals = np.log(signals) - np.log1p(-signals)
        change = np.log(0.9 / 0.1) - signals.mean(axis=0)[[2]]
        found = jaxnn.backquery(network, [0.05, 0.05, 0.9], method="pattern", prior=INPUTS)
        np.testing.assert_allclose(found, expected_pattern(INPUTS, signals, [2], change), rtol=1e-8)


def test_requests_of_any_shape_and_inputs_of_any_shape():
    def model(image):
        return image.reshape(6) @ WEIGHTS.astype(image.dtype)

    images = INPUTS.reshape(-1, 2, 3).astype(np.float32)
    prior = jaxnn.prior(images, components=2, key=KEY)
    y = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    found = jaxnn.backquery(model, y, method="typical", prior=prior)
    assert found.x.shape == found.surer.shape == (2, 4, 2, 3)
    assert found.distance.shape == found.shortfall.shape == found.component.shape == (2, 4)
    alone = jaxnn.backquery(model, y[1, 2], method="typical", prior=prior)
    np.testing.assert_allclose(found.x[1, 2], alone.x, atol=1e-3)
    assert jaxnn.backquery(model, y, method="pattern", prior=images).shape == (2, 4, 2, 3)


typical = functools.partial(jaxnn.backquery, method="typical")
pattern = functools.partial(jaxnn.backquery, method="pattern")
MODEL, NETWORK = Partial(linear, WEIGHTS), jaxnn.init(jax.random.key(7), (6, 3))
Y = np.array([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: typical(MODEL, Y), TypeError, "`prior` must be a prior of jaxnn"),
        (lambda p: pattern(MODEL, Y), TypeError, "`prior` .* or inputs"),
        (lambda p: typical(MODEL, Y, prior=INPUTS), TypeError, "`prior` must be a"),
        (lambda p: typical(MODEL, Y[:2], prior=p), ValueError, "`y` must have shape"),
        (lambda p: typical(MODEL, Y * np.nan, prior=p), ValueError, "`y` must be fin"),
        (lambda p: pattern(MODEL, Y, prior=INPUTS[:1]), ValueError, "`prior` .*N at le"),
        (lambda p: pattern(MODEL, Y, prior=INPUTS * np.inf), ValueError, "`prior` must"),
        (lambda p: typical(MODEL, Y, prior=p, free=[True] * 3), ValueError, "`free`"),
        (lambda p: typical(MODEL, Y, prior=p, free=[0, 1, 1]), ValueError, "`free`"),
        (lambda p: typical(MODEL, Y, prior=p, exact="no"), TypeError, "`exact`"),
        (lambda p: typical(jnp.sum, 1.0, prior=p), ValueError, "`network` must return"),
        (lambda p: typical(NETWORK, Y, prior=p), ValueError, "`y` must lie strictly between 0"),
        (
            lambda p: pattern(jaxnn.init(jax.random.key(8), (5, 3)), Y / 2 + 0.1, prior=p),
            ValueError,
            "`prior` must be of inputs that the network takes",
        ),
        (
            lambda p: jaxnn.backquery(NETWORK, Y / 2 + 0.1, prior=p),
            ValueError,
            "`prior` must be None for the method 'transpose'",
        ),
        (lambda p: jaxnn.prior(INPUTS[:1], key=KEY), ValueError, "`inputs` .* at least 2"),
        (lambda p: jaxnn.prior(INPUTS * np.nan, key=KEY), ValueError, "`inputs` must be finite"),
        (lambda p: jaxnn.prior(np.ones((9, 2)), key=KEY), ValueError, "`inputs` must differ"),
        (lambda p: jaxnn.prior(INPUTS, rank=7, key=KEY), ValueError, "`rank` must be at most 6"),
        (lambda p: jaxnn.prior(INPUTS, rank=0, key=KEY), ValueError, "`rank` must be at least 1"),
        (lambda p: jaxnn.prior(INPUTS, components=151, key=KEY), ValueError, "`components` must be at most"),
        (lambda p: jaxnn.prior(INPUTS, key=3), TypeError, "`key`"),
        (lambda p: jax.jit(lambda x: jaxnn.prior(x, key=KEY))(INPUTS), TypeError, "`inputs` and `key` must"),
        (lambda p: jaxnn.dreaming.typicality(3), TypeError, "`prior` must be a prior"),
        (lambda p: jaxnn.dreaming.from_prior(INPUTS), TypeError, "`prior` must be a prior"),
    ],
)  # fmt: skip
def test_what_is_refused(prior, call, error, message):
    with pytest.raises(error, match=message):
        call(prior)


@pytest.fixture(scope="module")
def prior():
    return jaxnn.prior(INPUTS, components=2, rank=6, key=KEY)


def test_the_prior_holds_the_moments_of_the_data():
    with in_precision(np.float64):
        prior = jaxnn.prior(INPUTS, components=5, rank=6, key=KEY)
        np.testing.assert_allclose(prior.weights @ prior.centers, 0, atol=1e-12)
        np.testing.assert_allclose(prior.basis.T @ prior.basis, np.eye(6), atol=1e-12)
        assert prior.weights.sum() == pytest.approx(1)
        whole = jaxnn.prior(INPUTS, components=1, rank=6, key=KEY)
        spread = np.asarray(whole.factors[0] @ whole.factors[0].T)
        sample = np.cov(((INPUTS - INPUTS.mean(0)) @ np.asarray(whole.basis)).T, bias=True)
        assert np.trace(spread) == pytest.approx(np.trace(sample), rel=1e-4)  # shrinkage keeps the trace
        np.testing.assert_allclose(whole.variances(), np.diag(spread))


def test_distances_are_those_of_the_inverse_covariance(prior):
    x = INPUTS[7]
    z = np.asarray(prior.basis).T @ (x - np.asarray(prior.mean))
    for k, distance in enumerate(prior.distances(x)):
        covariance = np.asarray(prior.factors[k] @ prior.factors[k].T, np.float64)
        difference = z - np.asarray(prior.centers[k])
        assert distance == pytest.approx(difference @ np.linalg.solve(covariance, difference), rel=1e-3)


def test_the_same_key_gives_the_same_prior(prior):
    again = jaxnn.prior(INPUTS, components=2, rank=6, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, prior, again)
    other = jaxnn.prior(INPUTS, components=2, rank=6, key=jax.random.key(4))
    assert not np.array_equal(prior.draws, other.draws)


def test_a_dream_in_a_prior_stays_typical():
    prior = jaxnn.prior(INPUTS / 20 + 0.5, components=2, rank=3, key=KEY)
    bounds = (float(prior.low), float(prior.high))
    dreamed = jaxnn.dream(
        Partial(linear, WEIGHTS), jaxnn.dreaming.logit(0), key=jax.random.key(5), shape=(6,), bounds=bounds,
        parameterization=jaxnn.dreaming.from_prior(prior), penalties=[jaxnn.dreaming.typicality(prior, 5.0)],
        steps=60,
    )  # fmt: skip
    free = jaxnn.dream(
        Partial(linear, WEIGHTS), jaxnn.dreaming.logit(0), key=jax.random.key(5), shape=(6,), bounds=bounds,
        steps=60,
    )  # fmt: skip
    assert prior.distances(dreamed.image).min() < prior.distances(free.image).min() / 10
