"""Gradients, smoothed and along paths: what must hold of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution
from jaxnn.attribution._path import QUADRATURES, nodes
from tests.conftest import in_precision

NETWORK = jaxnn.init(jax.random.key(0), (12, 8, 3), activation="tanh")
RNG = np.random.default_rng(0)
X, BASELINE = (RNG.normal(size=12).astype(np.float32) for _ in range(2))
BASELINES = RNG.normal(size=(5, 12)).astype(np.float32)
KEY = jax.random.key(1)


def nested(x):
    return jnp.tanh(x["a"]).sum() * x["b"][0] + x["b"][1] ** 2


NESTED = {"a": np.ones((2, 2), np.float32), "b": [np.float32(2.0), np.float32(3.0)]}


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("steps", [2, 7])
def test_a_quadrature_is_exact_to_its_degree(quadrature, steps):
    positions, weights = nodes(quadrature, steps)
    assert positions.min() >= 0
    assert positions.max() <= 1
    degree = {"gauss_legendre": 2 * steps - 1, "riemann_middle": 1, "trapezoid": 1}.get(quadrature, 0)
    for power in range(degree + 1):
        np.testing.assert_allclose(weights @ positions**power, 1 / (power + 1), rtol=1e-13)
    assert abs(weights @ positions ** (degree + 1) - 1 / (degree + 2)) > 1e-9


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_integrated_gradients_are_the_sum_over_nodes(quadrature):
    positions, weights = nodes(quadrature, 9)
    gradients = [attribution.saliency(NETWORK, BASELINE + t * (X - BASELINE), 1) for t in positions]
    expected = (X - BASELINE) * np.einsum("k,ki->i", weights, np.array(gradients))
    for batch_size in (1, 4, 100):
        result = attribution.integrated_gradients(
            NETWORK, X, 1, baseline=BASELINE, steps=9, quadrature=quadrature, batch_size=batch_size
        )
        np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-13)])
def test_integrated_gradients_are_complete(dtype, bound):
    with in_precision(dtype):
        network = jax.tree.map(lambda a: jnp.asarray(np.array(a), dtype), NETWORK)
        x, baseline = X.astype(dtype), BASELINE.astype(dtype)
        result = attribution.integrated_gradients(network, x, 1, baseline=baseline, steps=200)
        assert abs(attribution.completeness_gap(network, x, 1, result, baseline=baseline)) < bound
        assert abs(attribution.completeness_gap(network, x, 1, result)) > 1e-2  # another baseline


@pytest.mark.long
def test_the_same_function_in_three_ways():
    first, second = NETWORK.layers

    def by_hand(x):
        return jnp.tanh(jnp.dot(jnp.tanh(x @ first.kernel + first.bias), second.kernel) + second.bias)

    def in_pieces(x):
        hidden = sum(x[i] * first.kernel[i] for i in range(12)) + first.bias
        return jnp.stack([jnp.tanh(jnp.vdot(jnp.tanh(hidden), second.kernel[:, k])) for k in range(3)])

    def explain(model):
        path = attribution.integrated_gradients(model, X, 2, steps=20)
        smooth = attribution.smooth_grad(model, X, 2, key=KEY)
        attributions = attribution.expected_gradients(model, X, 2, baselines=BASELINES, key=KEY, n_samples=30)
        return np.stack([path, smooth, attributions])

    for other in (by_hand, in_pieces):
        np.testing.assert_allclose(explain(other), explain(NETWORK), atol=1e-6)


def temporary_bytes(method, steps_name, number):
    network = jaxnn.init(jax.random.key(2), (784, 200, 10))
    jitted = jax.jit(functools.partial(method, **{steps_name: number}))
    return jitted.lower(network, jnp.ones(784), 1).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("method", "steps_name"),
    [
        (attribution.integrated_gradients, "steps"),
        (functools.partial(attribution.layer_conductance, layer="hidden_0"), "steps"),
        (functools.partial(attribution.smooth_grad, key=KEY, batch_size=10), "n_samples"),
        (functools.partial(attribution.var_grad, key=KEY, batch_size=10), "n_samples"),
    ],
)
@pytest.mark.optimized
def test_memory_does_not_grow_with_steps(method, steps_name):
    few, many = (temporary_bytes(method, steps_name, number) for number in (20, 2000))
    assert 0 < many < 1.1 * few


MASK = np.arange(8) < 5


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    "masked",
    [
        lambda h: jax.nn.softmax(h, where=MASK)[1],
        lambda h: jax.nn.softmax(jaxnn.tap(jnp.where(MASK, h, -jnp.inf), "masked"))[1],
    ],
)
@pytest.mark.long
def test_minus_infinity_in_a_mask_takes_no_part(masked):
    model = lambda x: masked(x @ NETWORK.layers[0].kernel)  # noqa: E731
    short = lambda x: jax.nn.softmax(x @ NETWORK.layers[0].kernel[:, :5])[1]  # noqa: E731
    for method in (attribution.integrated_gradients, attribution.deep_lift):
        result = method(model, X, baseline=BASELINE)
        np.testing.assert_allclose(result, method(short, X, baseline=BASELINE), atol=1e-6)
    gradients = jax.grad(lambda x: attribution.integrated_gradients(model, x).sum())(X)
    np.testing.assert_allclose(gradients, jax.grad(model)(X), atol=1e-5)


def test_minus_infinity_in_a_layer_takes_no_part():
    model = lambda x: jax.nn.softmax(jaxnn.tap(jnp.where(MASK, x[:8], -jnp.inf), "masked"))[1]  # noqa: E731
    result = attribution.layer_integrated_gradients(model, X, layer="masked", baseline=BASELINE)
    np.testing.assert_array_equal(result[5:], 0)
    assert abs(attribution.completeness_gap(model, X, None, result, baseline=BASELINE)) < 1e-6


def test_the_first_layer_is_computed_at_the_ends_only():
    network = jaxnn.init(jax.random.key(2), (784, 20, 3))

    def flops(steps):
        explain = functools.partial(attribution.integrated_gradients, steps=steps, batch_size=steps)
        return jax.jit(explain).lower(network, jnp.ones(784), 1).compile().cost_analysis()["flops"]

    assert flops(50) < 1.5 * flops(5)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("reference", [0.0, 1, NESTED | {"b": [np.float32(0), np.float32(0.5)]}])
def test_a_pytree_and_its_baseline(reference):
    result = attribution.integrated_gradients(nested, NESTED, baseline=reference)
    assert jax.tree.structure(result) == jax.tree.structure(NESTED)
    assert result["a"].shape == (2, 2)
    assert abs(attribution.completeness_gap(nested, NESTED, None, result, baseline=reference)) < 1e-5
    for method in (attribution.saliency, functools.partial(attribution.smooth_grad, key=KEY)):
        assert jax.tree.structure(method(nested, NESTED)) == jax.tree.structure(NESTED)


def noisy_gradients(count, sigma):
    """Gradients at the copies that `smooth_grad` draws, one after another."""

    def one(sample):
        key = jax.random.fold_in(jax.random.fold_in(KEY, sample), 0)
        return attribution.saliency(NETWORK, X + sigma * jax.random.normal(key, X.shape, X.dtype), 1)

    return np.stack([one(sample) for sample in range(count)]).astype(np.float64)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("batch_size", "bounds"), [(1, None), (4, (-1.0, 2.0)), (100, None)])
def test_smooth_grad_and_its_moments(batch_size, bounds):
    sigma = 0.1 * (np.ptp(X) if bounds is None else 3.0)
    gradients = noisy_gradients(10, sigma)
    options = {"key": KEY, "n_samples": 10, "noise": 0.1, "bounds": bounds, "batch_size": batch_size}
    smooth = functools.partial(attribution.smooth_grad, NETWORK, X, 1, **options)
    np.testing.assert_allclose(smooth(), gradients.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(smooth(squared=True), (gradients**2).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(
        attribution.var_grad(NETWORK, X, 1, **options), gradients.var(axis=0), rtol=1e-3, atol=1e-8
    )
    value, error = smooth(with_error=True)
    np.testing.assert_allclose(value, gradients.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(error, gradients.std(axis=0, ddof=1) / 10**0.5, rtol=1e-3)


def test_without_noise_smooth_grad_is_saliency():
    smooth = attribution.smooth_grad(NETWORK, X, 1, key=KEY, noise=0.0)
    np.testing.assert_allclose(smooth, attribution.saliency(NETWORK, X, 1), rtol=1e-5)


@pytest.mark.long
def test_expected_gradients_are_integrated_ones_over_the_baselines():
    path = np.mean([attribution.integrated_gradients(NETWORK, X, 1, baseline=b) for b in BASELINES], axis=0)
    value, error = attribution.expected_gradients(
        NETWORK, X, 1, baselines=BASELINES, key=KEY, n_samples=20_000, with_error=True
    )
    assert 0.5 < np.sqrt(np.mean(((value - path) / error) ** 2)) < 1.6
    gap = attribution.completeness_gap(NETWORK, X, 1, value, baselines=BASELINES)
    assert abs(gap) < 5 * np.linalg.norm(error)
    coarse = attribution.expected_gradients(
        NETWORK, X, 1, baselines=BASELINES, key=KEY, n_samples=200, with_error=True
    )
    np.testing.assert_allclose(np.mean(coarse.standard_error / error), 10, rtol=0.2)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    "method",
    [
        attribution.saliency,
        attribution.integrated_gradients,
        functools.partial(attribution.smooth_grad, key=KEY),
        functools.partial(attribution.expected_gradients, key=KEY, baselines=BASELINES, n_samples=30),
        functools.partial(attribution.layer_conductance, layer="hidden_0"),
        functools.partial(attribution.internal_influence, layer="hidden_0"),
        functools.partial(attribution.neuron_gradient, layer="hidden_0"),
    ],
)
def test_each_device_has_a_network_of_its_own_and_all_the_same_example(method):
    # In shard_map, the gradient with respect to a replicated value would be summed over the devices.
    networks = [jaxnn.init(jax.random.key(i), (12, 8, 3)) for i in range(8)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(
        lambda n, x: jax.vmap(method, (0, None, None))(n, x, 1),
        mesh=mesh, in_specs=(jax.P("data"), jax.P()), out_specs=jax.P("data"),
    )  # fmt: skip
    expected = jax.vmap(method, (0, None, None))(stacked, X, 1)
    np.testing.assert_allclose(jax.jit(mapped)(stacked, X), expected, atol=1e-6)


@pytest.mark.long
def test_an_empty_array_beside_others_takes_no_part():
    tree = {"none": np.zeros((0, 3), np.float32), "some": X}
    for method in (attribution.smooth_grad, attribution.var_grad):
        result = method(lambda x: jnp.sum(jnp.tanh(x["some"])) + jnp.sum(x["none"]), tree, key=KEY)
        assert result["none"].shape == (0, 3)
        assert np.all(np.isfinite(result["some"]))


@pytest.mark.parametrize("method", [attribution.smooth_grad, attribution.var_grad])
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_an_example_without_entries_raises(method, bounds):
    with pytest.raises(ValueError, match="`x` must have at least one element; all its arrays are empty"):
        method(jnp.sum, np.zeros((0, 3)), key=KEY, bounds=bounds)


WRONG = {
    "steps": (attribution.integrated_gradients, {"steps": 0}, ValueError, "`steps` must be at least 1"),
    "float steps": (attribution.integrated_gradients, {"steps": 2.5}, TypeError, "`steps` must be an int"),
    "trapezoid": (
        attribution.integrated_gradients,
        {"steps": 1, "quadrature": "trapezoid"},
        ValueError,
        "`steps` must be at least 2",
    ),
    "quadrature": (
        attribution.integrated_gradients,
        {"quadrature": "simpson"},
        ValueError,
        "`quadrature` must be one of 'gauss_legendre'",
    ),
    "batch_size": (attribution.integrated_gradients, {"batch_size": 0}, ValueError, "`batch_size`"),
    "baseline": (
        attribution.integrated_gradients,
        {"baseline": np.zeros(3)},
        ValueError,
        r"`baseline` must have shape \(12,\), that of `x`; got \(3,\)",
    ),
    "baseline's structure": (
        attribution.integrated_gradients,
        {"baseline": {"a": np.zeros(12)}},
        ValueError,
        "`baseline` must have the structure of `x`",
    ),
    "baseline of text": (attribution.integrated_gradients, {"baseline": "zero"}, TypeError, "`baseline`"),
    "key": (attribution.smooth_grad, {"key": 3}, TypeError, "`key` must be one random key"),
    "n_samples": (attribution.smooth_grad, {"key": KEY, "n_samples": 0}, ValueError, "`n_samples`"),
    "one sample": (
        attribution.smooth_grad,
        {"key": KEY, "n_samples": 1, "with_error": True},
        ValueError,
        "`n_samples` must be at least 2",
    ),
    "noise": (attribution.var_grad, {"key": KEY, "noise": -1.0}, ValueError, "`noise` must be at least 0"),
    "noises": (
        attribution.var_grad,
        {"key": KEY, "noise": [0.1]},
        ValueError,
        r"`noise` must have shape \(\)",
    ),
    "bounds": (attribution.smooth_grad, {"key": KEY, "bounds": (1, 0)}, ValueError, "`bounds` must be"),
    "baselines": (
        attribution.expected_gradients,
        {"key": KEY, "baselines": X},
        ValueError,
        r"`baselines` must have shape \(12, 12\), that of `x` behind a leading axis; got \(12,\)",
    ),
    "no baselines": (
        attribution.expected_gradients,
        {"key": KEY, "baselines": np.zeros((0, 12))},
        ValueError,
        "`baselines` must hold examples, at least 1",
    ),
}


@pytest.mark.parametrize(("method", "options", "error", "message"), WRONG.values(), ids=WRONG.keys())
def test_bad_options_raise(method, options, error, message):
    with pytest.raises(error, match=message):
        method(NETWORK, X, 1, **options)


class TestCompletenessWarning:
    """Of a step function's ramp between 0 and 1e-3, one node sees nothing."""

    @staticmethod
    def ramp(x):
        return jnp.sum(jnp.clip(x * 1000, 0, 1))

    def test_a_sum_that_is_not_the_change_warns_with_both_and_says_what_to_do(self):
        with pytest.warns(UserWarning, match=r"integrated_gradients sum to 0,.*changed by 2.*`steps` than 5"):
            attribution.integrated_gradients(self.ramp, [1.0, 1.0], steps=5)

    def test_what_is_not_finite_warns(self):
        with pytest.warns(UserWarning, match="inf"):
            attribution.integrated_gradients(lambda x: jnp.log(x[0]), [1.0])

    def test_an_option_turns_it_off(self):
        attribution.integrated_gradients(self.ramp, [1.0], steps=5, check_completeness=False)

    def test_nothing_is_checked_under_a_transformation(self):
        def one(x):
            return attribution.integrated_gradients(self.ramp, x, steps=5)

        jax.jit(one)(jnp.ones(2))
        jax.vmap(one)(jnp.ones((3, 2)))

    def test_a_change_near_zero_is_measured_by_the_attributions(self):
        """Their sizes are 200: beside them a gap of 0.05 is small, though the output changes by no more."""

        def function(x):
            return 100 * x[0] - 100 * x[1] + 0.05 * self.ramp(x[:1])

        attributions = attribution.integrated_gradients(function, [1.0, 1.0], steps=5)
        gap = attribution.completeness_gap(function, [1.0, 1.0], None, attributions)
        assert abs(gap + 0.05) < 1e-3

    def test_a_rule_that_is_not_complete_warns_in_deep_lift(self):
        rules = {"reduce_prod": lambda step, multipliers, values, baselines: [jnp.zeros(2)]}
        with pytest.warns(UserWarning, match=r"deep_lift sum to 0,.*by 6"):
            attribution.deep_lift(jnp.prod, [3.0, 2.0], primitive_rules=rules)
        with pytest.warns(UserWarning, match=r"deep_lift_shap sum to 0,.*by 6"):
            attribution.deep_lift_shap(
                jnp.prod, [3.0, 2.0], baselines=jnp.zeros((2, 2)), primitive_rules=rules
            )


def test_a_derivative_that_indexes_a_constant_in_a_loop():
    """As that of `jax.experimental.ode.odeint` does with its times."""

    @jax.custom_vjp
    def weighted(x, weights):
        return x * weights.sum()

    def backward(weights, cotangent):
        total, _ = jax.lax.scan(
            lambda sum_, i: (sum_ + weights[i] * cotangent, None), 0 * cotangent, jnp.arange(2)
        )
        return total, jnp.zeros_like(weights)

    weighted.defvjp(lambda x, weights: (weighted(x, weights), weights), backward)
    weights = jnp.array([0, 1], X.dtype)
    attributions = attribution.integrated_gradients(lambda x: weighted(x**2, weights).sum(), X)
    np.testing.assert_allclose(attributions, X**2, rtol=1e-5)
