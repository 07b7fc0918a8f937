"""DeepLIFT: it adds up, whatever the function, and does not depend on how the function is written."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import attribution
from jaxnn.attribution import _deep_lift_rules
from tests.conftest import in_precision, that_promotes
from tests.engine.test_graph import RELUS
from tests.helpers.params import some

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.normal(size=shape) / np.sqrt(shape[0])


W, V, U, K = drawn(12, 10), drawn(10, 5), drawn(10, 10), drawn(3, 3, 2, 4)
relu = jax.nn.relu


def convolved(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x[None], K.astype(x.dtype), (1, 1), "SAME", dimension_numbers=numbers)[0]


def typed(function):
    """Weights in the precision of the example."""
    return lambda x: function(x, *(w.astype(x.dtype) for w in (W, V, U)))


def of_module(module, *shape):
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    values = jax.tree.map(lambda leaf: rng.uniform(0.2, 0.7, leaf.shape), shapes)
    return lambda x: module.apply(jax.tree.map(lambda v: v.astype(x.dtype), values), x)


def smallest(x):
    return lax.reduce_window(x, np.inf, lax.min, (3, 3, 1), (2, 2, 1), "SAME")


attention = of_module(nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8, dtype=None), 6, 4)
layer_norm = that_promotes(of_module(nn.LayerNorm(), 12))
batch_norm = of_module(nn.BatchNorm(use_running_average=True), 12)
ACTIVATIONS = {
    "relu": relu, "gelu": jax.nn.gelu, "exact gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu, "elu": jax.nn.elu, "leaky_relu": jax.nn.leaky_relu, "softplus": jax.nn.softplus,
    "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "maximum": lambda z: jnp.maximum(z, 0), "abs": jnp.abs,
    "square": jnp.square, "step": lambda z: jnp.where(z > 0, 1.0, -1.0).astype(z.dtype), "sine": jnp.sin,
}  # fmt: skip
VECTORS = {name: typed(lambda x, W, V, U, f=f: f(x @ W) @ V) for name, f in ACTIVATIONS.items()} | {
    "the same relu again": typed(lambda x, W, V, U: relu(relu(x @ W) @ U) @ V),
    "relu then tanh": typed(lambda x, W, V, U: jnp.tanh(relu(x @ W)) @ V),
    "tanh then sigmoid": typed(lambda x, W, V, U: jax.nn.sigmoid(jnp.tanh(x @ W)) @ V),
    "softmax": typed(lambda x, W, V, U: jax.nn.softmax(relu(x @ W) @ V)),
    "log_softmax": typed(lambda x, W, V, U: jax.nn.log_softmax(relu(x @ W) @ V)),
    "masked softmax": typed(lambda x, W, V, U: jax.nn.softmax(x @ W, where=jnp.arange(10) % 3 > 0)[:5]),
    "shares of what is partly replaced": typed(
        lambda x, W, V, U: jnp.exp(x @ W) / jnp.where(jnp.arange(10) % 3 > 0, jnp.exp(x @ W), 2.0).sum()
    ),
    "shares of another row": typed(
        lambda x, W, V, U: (lambda r: (r / r.sum(1)).ravel())(jnp.exp((x @ W)[:9].reshape(3, 3)))
    ),
    "skip": typed(lambda x, W, V, U: (relu(x @ W) + relu(relu(x @ W) @ U)) @ V),
    "concatenated": typed(lambda x, W, V, U: jnp.concatenate([relu(x @ W), x]).reshape(2, 11).T.ravel()[4:9]),
    "batch norm": typed(lambda x, W, V, U: relu(batch_norm(x)) @ W),
    "layer norm": typed(lambda x, W, V, U: relu(layer_norm(x)) @ W),
    "larger of two": typed(lambda x, W, V, U: jnp.maximum(x @ W, x[:10])),
    "power": typed(lambda x, W, V, U: (jnp.abs(x[:5]) + 0.5) ** x[5:10]),
    "gate": typed(lambda x, W, V, U: nn.glu(x @ W)),
    "quotient": typed(lambda x, W, V, U: x[:5] / (1 + x[5:10] ** 2)),
    "norm": typed(lambda x, W, V, U: (x / jnp.linalg.norm(x)) @ W),
    "quadratic form": typed(lambda x, W, V, U: jnp.stack([x @ x, (x @ W) @ (x @ W)] * 3)),
    "largest": typed(lambda x, W, V, U: (x @ W).reshape(5, 2).max(1)),
    "recurrent": typed(lambda x, W, V, U: lax.scan(lambda h, t: (jnp.tanh(h @ U + t), 0), x @ W, x)[0]),
}
IMAGES = {
    "convolution": lambda x: relu(convolved(x)).mean((0, 1)),
    "relu then max-pool": lambda x: nn.max_pool(relu(convolved(x)), (2, 2), (2, 2)).mean((0, 1)),
    "overlapping max-pool": lambda x: nn.max_pool(relu(convolved(x)), (3, 3), (1, 1), "SAME").mean((0, 1)),
    "strided max-pool": lambda x: nn.max_pool(jax.nn.gelu(convolved(x)), (3, 3), (2, 2)).mean((0, 1)),
    "min-pool": lambda x: smallest(convolved(x)).mean((0, 1)),
    "average pool": lambda x: jnp.tanh(that_promotes(nn.avg_pool)(convolved(x), (2, 2), (2, 2))).mean((0, 1)),
    "softmax of an image": lambda x: jax.nn.softmax(convolved(x), axis=(0, 1))[3, 3],
}
SEQUENCES = {"attention": lambda x: attention(x).mean(0)}
CASES = (
    {name: (f, (12,)) for name, f in VECTORS.items()}
    | {name: (f, (8, 8, 2)) for name, f in IMAGES.items()}
    | {name: (f, (6, 4)) for name, f in SEQUENCES.items()}
)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), pytest.param("float32", 1e-5, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", CASES)
def test_it_adds_up(name, dtype, tolerance):
    function, shape = CASES[name]
    rng = np.random.default_rng(5)
    with in_precision(dtype):
        x, baseline = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
        attributions = attribution.deep_lift(function, x, 1, baseline=baseline)
        change = function(x)[1] - function(baseline)[1]
        assert attributions.dtype == dtype
        assert np.any(attributions)
        assert abs(attributions.sum() - change) < tolerance


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_it_adds_up_for_inputs_that_hardly_change(dtype, tolerance):
    with in_precision(dtype):
        baseline = jnp.asarray(np.random.default_rng(5).normal(size=12), dtype)
        for size in (0.0, 1e-14, 1e-9, 1e-6, 1e-3):
            x = baseline.at[::2].add(size)
            for name in ("gelu", "softplus", "layer norm", "softmax"):
                attributions = attribution.deep_lift(VECTORS[name], x, 1, baseline=baseline)
                assert np.all(np.isfinite(attributions))
                assert (
                    abs(attributions.sum() - (VECTORS[name](x)[1] - VECTORS[name](baseline)[1])) < tolerance
                )


def test_batches_of_different_size_give_the_same():
    rng = np.random.default_rng(6)
    batch = rng.normal(size=(7, 12)).astype(np.float32)
    many = jax.vmap(lambda x: attribution.deep_lift(VECTORS["softmax"], x, 2))
    np.testing.assert_allclose(many(batch)[:3], many(batch[:3]), rtol=1e-5, atol=1e-7)


def assert_same(functions, **options):
    x, baseline = np.random.default_rng(7).normal(size=(2, 12)).astype(np.float32)
    first, *others = [attribution.deep_lift(f, x, 1, baseline=baseline, **options) for f in functions]
    assert np.any(first)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_any_way_to_write_a_relu():
    ways = [r for name, r in RELUS.items() if name != "two thirds"]
    assert_same([typed(lambda x, W, V, U, r=r: r(r(x @ W) @ U) @ V) for r in ways])


def test_any_way_to_write_a_softmax():
    def plain(z):
        return jnp.exp(z) / jnp.exp(z).sum()

    def times(z):
        raised = jnp.exp(z - z.max())
        return raised * (1 / raised.sum())

    def shifted(z):
        raised = jnp.exp(z - lax.stop_gradient(z.mean()))
        return raised / raised.sum()

    def to_a_power(z):
        raised = jnp.exp(z - z.max())
        return raised.sum() ** -1 * raised

    def in_rows(z):
        return jax.nn.softmax(z.reshape(5, 1), axis=(0, 1)).ravel()

    ways = [jax.nn.softmax, plain, times, shifted, to_a_power, in_rows]
    assert_same([typed(lambda x, W, V, U, s=s: s(3 * jnp.tanh(x @ W) @ V)) for s in ways])


def test_a_share_is_that_of_the_value_and_of_all_others():
    x, baseline = np.random.default_rng(9).normal(0, 2, size=(2, 6))
    raised, raised0 = np.exp(x), np.exp(baseline)
    rest, rest0 = raised.sum() - raised[2], raised0.sum() - raised0[2]
    own = [a / (a + r) for a, r in itertools.product((raised[2], raised0[2]), (rest, rest0))]
    expected = (raised - raised0) / (rest - rest0) * (own[0] - own[1] + own[2] - own[3]) / 2
    expected[2] = (own[0] - own[2] + own[1] - own[3]) / 2
    with in_precision("float64"):
        found = attribution.deep_lift(jax.nn.softmax, x, 2, baseline=baseline)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


MASKED = np.array([False, True, True, True, False, True])


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("size", [1.0, 10.0, 40.0, 70.0])
@pytest.mark.parametrize(
    "softmax",
    [
        jax.nn.softmax,
        functools.partial(jax.nn.softmax, where=MASKED),
        lambda z: jax.nn.softmax(jnp.where(MASKED, z, jnp.finfo(z.dtype).min)),
        lambda z: jax.nn.softmax(z.reshape(2, 3), axis=0).ravel(),
    ],
)
def test_a_softmax_that_is_sure_of_itself_adds_up(softmax, size):
    one, rest = np.eye(6)[1], np.linspace(0, 0.1, 6)
    for x, baseline in ((size * one, 0 * one), (rest + size, rest), (size * one, size * np.eye(6)[3])):
        x, baseline = np.float32(x), np.float32(baseline)
        attributions = attribution.deep_lift(softmax, x, 1, baseline=baseline)
        change = softmax(jnp.asarray(x))[1] - softmax(jnp.asarray(baseline))[1]
        assert abs(attributions.sum() - change) < 1e-6
        assert np.abs(attributions).max() <= 1


def test_any_way_to_write_a_gelu_a_layer_norm_and_a_pool():
    def gelu(z):
        return z * (0.5 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * z * (1 + 0.044715 * z**2))))

    assert_same([typed(lambda x, W, V, U, g=g: g(x @ W) @ V) for g in (jax.nn.gelu, gelu)])

    def by_windows(x):
        return relu(convolved(x)).reshape(4, 2, 4, 2, 4).max((1, 3)).mean((0, 1))

    def pooled_first(x):
        return relu(nn.max_pool(convolved(x), (2, 2), (2, 2))).mean((0, 1))

    x, baseline = np.random.default_rng(7).normal(size=(2, 8, 8, 2)).astype(np.float32)
    first = attribution.deep_lift(IMAGES["relu then max-pool"], x, 1, baseline=baseline)
    for way in (by_windows, pooled_first):
        other = attribution.deep_lift(way, x, 1, baseline=baseline)
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-6)


def test_a_large_baseline_does_not_overflow():
    attributions = attribution.deep_lift(
        lambda x: jax.nn.logsumexp(x), jnp.zeros(3), baseline=jnp.full(3, 120.0)
    )
    np.testing.assert_allclose(attributions.sum(), -120.0, rtol=1e-6)


def test_a_constant_and_an_input_itself():
    x = jnp.array([3.0, 2.0])
    assert attribution.deep_lift(lambda x: jnp.ones(()), x).tolist() == [0, 0]
    assert attribution.deep_lift(lambda x: x, x, 1, baseline=1.0).tolist() == [0, 1]


def test_the_shapley_values_of_two_players():
    """Of a function of two values the rule is exact: the mean over both orders."""
    functions = [lambda a, b: a**b, jnp.maximum, jnp.arctan2, lambda a, b: a * b]
    a, b, a0, b0 = 2.0, 3.0, 1.5, 0.5
    for f in functions:
        expected = [
            (f(a, b) - f(a0, b) + f(a, b0) - f(a0, b0)) / 2,
            (f(a, b) - f(a, b0) + f(a0, b) - f(a0, b0)) / 2,
        ]
        answer = attribution.deep_lift(lambda x, f=f: f(x[0], x[1]), [a, b], baseline=[a0, b0])
        np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_a_pytree():
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    answer = attribution.deep_lift(
        lambda x: x["a"] @ x["a"] * x["b"], x, baseline=jax.tree.map(jnp.ones_like, x)
    )
    np.testing.assert_allclose(answer["a"].sum() + answer["b"], 15 - 2, rtol=1e-6)
    assert answer["a"].shape == (2,)


def test_a_linear_function_by_complex_numbers_is_that_by_real_ones():
    """A long convolution, by the Fourier transform and as a matrix product."""
    rng = np.random.default_rng(3)
    x, kernel, weights = rng.normal(size=16), rng.normal(size=16), rng.normal(size=(16, 3))
    matrix = np.stack([np.roll(kernel, i) for i in range(16)])

    def by_fft(x):
        return jnp.tanh(jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(kernel), 16) @ weights)

    def by_parts(x):
        z = jnp.fft.fft(lax.complex(x, jnp.zeros_like(x))) * jnp.fft.fft(kernel)
        return jnp.tanh(jnp.fft.ifft(jnp.conj(jnp.conj(z))).real @ weights)

    with in_precision("float64"):
        expected = attribution.deep_lift(lambda x: jnp.tanh(x @ matrix @ weights), x, 1)
        for function in (by_fft, by_parts):
            np.testing.assert_allclose(attribution.deep_lift(function, x, 1), expected, rtol=1e-9)


def test_a_straight_through_rounding_is_the_rounding():
    """`stop_gradient` is the identity on values."""
    x = jnp.array([0.8, -2.3, 1.4])

    def function(x):
        return jnp.tanh((x + lax.stop_gradient(jnp.round(x) - x)).sum())

    expected = attribution.deep_lift(lambda x: jnp.tanh(jnp.round(x).sum()), x)
    np.testing.assert_allclose(attribution.deep_lift(function, x), expected, rtol=1e-5)


REFUSED = {
    "sort": lambda x: lax.sort((x, jnp.sin(x)))[1][0],
    "gather": lambda x: x[jnp.argsort(x)] @ jnp.arange(5.0),
    "cumlogsumexp": lambda x: lax.cumlogsumexp(x)[-1],
    "while": lambda x: lax.while_loop(lambda h: h[0] < 3, lambda h: h + 1, x).sum(),
    "cond": lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x).sum(),
    "dynamic_slice": lambda x: x[jnp.argmax(x)],
    "select_n": lambda x: jnp.where(x[0] > x[1], x[2], x[3]),
    "convert_element_type": lambda x: jnp.sum(x > 0).astype(x.dtype),
    "abs": lambda x: jnp.abs(jnp.fft.fft(x)).sum(),
    "mul": lambda x: (jnp.fft.fft(x) ** 2 * jnp.fft.fft(x)).real.sum(),
}


@pytest.mark.parametrize("primitive", REFUSED)
def test_what_has_no_rule_is_an_error_that_names_it(primitive):
    with pytest.raises(NotImplementedError, match=f"deep_lift.*{primitive}"):
        attribution.deep_lift(REFUSED[primitive], jnp.arange(5.0) + 0.5)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("batch_size", [None, 1, 3, 8, 50])
def test_the_mean_over_baselines(batch_size):
    rng = np.random.default_rng(8)
    x, baselines = rng.normal(size=12).astype(np.float32), rng.normal(size=(8, 12)).astype(np.float32)
    function = VECTORS["gelu"]
    answer = attribution.deep_lift_shap(function, x, 1, baselines=baselines, batch_size=batch_size)
    each = [attribution.deep_lift(function, x, 1, baseline=b) for b in baselines]
    np.testing.assert_allclose(answer, np.mean(each, 0), rtol=1e-5, atol=1e-6)
    assert abs(answer.sum() - (function(x)[1] - jax.vmap(function)(baselines)[:, 1].mean())) < 1e-5


def test_bad_input():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match=r"`baseline` must have shape \(3,\), that of `x`; got \(4,\)"):
        attribution.deep_lift(jnp.sum, x, baseline=jnp.zeros(4))
    with pytest.raises(ValueError, match="`baseline` must have the structure of `x`"):
        attribution.deep_lift(jnp.sum, x, baseline={"a": x})
    with pytest.raises(TypeError, match="`baseline`"):
        attribution.deep_lift(jnp.sum, x, baseline="black")
    with pytest.raises(ValueError, match=r"`baselines` must have shape \(2, 3\)"):
        attribution.deep_lift_shap(jnp.sum, x, baselines=jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match="`baselines` must hold examples, at least 1"):
        attribution.deep_lift_shap(jnp.sum, x, baselines=jnp.zeros((0, 3)))
    with pytest.raises(ValueError, match="`batch_size`"):
        attribution.deep_lift_shap(jnp.sum, x, baselines=jnp.zeros((2, 3)), batch_size=0)


def test_near_the_baseline_the_multiplier_is_the_slope_and_no_quotient_of_rounding():
    x = np.float32(0.3)
    for near in (np.nextafter(x, np.float32(1)), np.nextafter(x, np.float32(0))):
        share = attribution.deep_lift(jnp.tanh, x, baseline=near)
        np.testing.assert_allclose(share / (x - near), 1 - np.tanh(0.3) ** 2, rtol=1e-3)


def test_a_softmax_of_huge_numbers():
    x, baseline = np.float32([3e38, -3e38]), np.float32([3e38, -2e38])
    np.testing.assert_array_equal(attribution.deep_lift(jax.nn.softmax, x, 0, baseline=baseline), [0, 0])


def test_a_rule_of_the_caller_for_a_primitive():
    def pair(step, multipliers, values, baseline_values):
        (m,), (x,), (x0,) = multipliers, values, baseline_values
        return (m * jnp.stack([x0[1], x[0]]),)  # the first factor changes first

    def model(x):
        return jnp.prod(jnp.tanh(2 * x))

    x, baselines = jnp.array([0.5, -1.0]), jnp.array([[0.1, 0.2], [1.0, 0.0]])
    with pytest.raises(NotImplementedError, match="no rule for the primitive 'cumlogsumexp'; .* atan2, conv"):
        attribution.deep_lift(lambda x: lax.cumlogsumexp(x)[-1], x)
    rules = {"reduce_prod": pair}
    expected = []
    for baseline in baselines:
        found = attribution.deep_lift(model, x, baseline=baseline, primitive_rules=rules)
        (a, b), (a0, b0) = np.tanh(2 * x), np.tanh(2 * baseline)
        expected.append([(a - a0) * b0, a * (b - b0)])
        np.testing.assert_allclose(found, expected[-1], rtol=1e-5)
    found = attribution.deep_lift_shap(model, x, baselines=baselines, primitive_rules=rules)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-5)


def rms_norm(x, epsilon=1e-6):
    return x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + epsilon)


def llama_block(x):
    for w in BLOCK:
        x = x + jax.nn.silu(rms_norm(x) @ w.astype(x.dtype))
    return rms_norm(x).mean(0)


def l2_normalized(x):
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x**2, -1, keepdims=True)), 1e-6)


def cosine(x):
    a, b = x[:4], x[4:]
    return jnp.sum(l2_normalized(a) * l2_normalized(b), -1)


def instance_norm(x):
    centered = x - x.mean(0)
    return centered / jnp.sqrt((centered**2).mean(0) + 1e-5)


BLOCK = np.random.default_rng(5).normal(0, 0.3, (4, 32, 32))
NORMALIZERS = {
    "a block with RMS norms": llama_block,
    "an RMS norm": rms_norm,
    "an RMS norm with a power": lambda x: x * (jnp.mean(x**2, -1, keepdims=True) + 1e-6) ** -0.5,
    "an RMS norm with a reciprocal": lambda x: x * (1 / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)),
    "layer norm": of_module(nn.LayerNorm(), 8, 32),
    "instance norm": instance_norm,
    "L2": l2_normalized,
    "cosine": cosine,
}


@pytest.mark.parametrize("start", some([0.0, 1e-3, "random"], 0.0))
@pytest.mark.parametrize("name", NORMALIZERS)
def test_a_normalizer_near_0_at_the_baseline_does_not_blow_up(name, start):
    rng = np.random.default_rng(11)
    x, other = rng.normal(size=(2, 8, 32)).astype(np.float32)
    baseline = other if start == "random" else start * other
    weights = rng.normal(size=jax.eval_shape(NORMALIZERS[name], x).shape).astype(np.float32)

    def f(x):
        return jnp.sum(NORMALIZERS[name](x) * weights)

    attributions = attribution.deep_lift(f, x, baseline=baseline)
    change = f(x) - f(baseline)
    size = jnp.abs(attributions).sum()
    assert abs(attributions.sum() - change) <= 1e-4 * max(abs(change), 1)
    assert size < 1000 * max(abs(change), 1)


def test_any_way_to_divide():
    ways = [
        lambda x, n: x / n,
        lambda x, n: x * (1 / n),
        lambda x, n: x * n**-1,
        lambda x, n: (1 / n) * x,
        lambda x, n: x * lax.rsqrt(n * n),
        lambda x, n: x * (3 / n) / 3,
    ]
    assert_same(
        [lambda x, w=w: jnp.stack([x[0], w(x[4:], jnp.exp(x[0]) + jnp.sum(x[:4] ** 2)).sum()]) for w in ways]
    )


def test_a_quotient_shares_the_product_of_its_divisor_and_its_result():
    x, n, x0, n0 = 3.0, 2.0, -1.0, 0.5
    y, y0 = x / n, x0 / n0
    expected = [2 * (x - x0) / (n + n0), -(y + y0) * (n - n0) / (n + n0)]
    found = attribution.deep_lift(lambda x: x[0] / x[1], [x, n], baseline=jnp.array([x0, n0]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert sum(expected) == pytest.approx(y - y0)


def test_a_divisor_that_changes_its_sign_adds_up_too():
    x, x0 = jnp.array([3.0, 2.0, 0.0]), jnp.array([-1.0, -0.5, 1.0])
    found = attribution.deep_lift(lambda x: x[0] / x[1] + x[2] * (1 / x[1]), x, baseline=x0)
    np.testing.assert_allclose(found.sum(), 1.5 - 2 + 2, rtol=1e-5)


# --- memory


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("block", [100, 1])
def test_a_large_softmax_by_rows(axis, block, monkeypatch):
    """In blocks of a few rows, the last one shorter, as all at once; so are its derivative and a batch."""

    def values(block):
        def model(x):  # a new one, which is traced anew
            return jnp.sum(jax.nn.softmax(x @ x.swapaxes(1, 2), axis=axis) * jnp.arange(7.0))

        monkeypatch.setattr(_deep_lift_rules, "_BLOCK", block)
        explain = functools.partial(attribution.deep_lift, model, baseline=0.1)
        return [*jax.vmap(explain)(jnp.stack([x, 2 * x])), jax.grad(lambda x: explain(x)[0, 0, 0])(x)]

    x = jax.random.normal(jax.random.key(0), (5, 7, 3))
    for by_rows, whole in zip(values(block), values(10**6), strict=True):
        np.testing.assert_allclose(by_rows, whole, rtol=1e-4, atol=1e-5)


def attend(layers, x):
    for _ in range(layers):
        scores = jax.nn.softmax(jnp.einsum("shd,thd->hst", x, x), axis=-1)
        x = x + jnp.einsum("hst,thd->shd", scores, x)
    return x.sum()


@pytest.mark.optimized
def test_memory_of_attention_grows_by_few_matrices_per_layer():
    peak = []
    for layers in (2, 4):
        explain = jax.jit(functools.partial(attribution.deep_lift, functools.partial(attend, layers)))
        compiled = explain.lower(jnp.ones((512, 8, 4), jnp.float32)).compile()
        peak.append(compiled.memory_analysis().temp_size_in_bytes)
    matrix = 8 * 512 * 512 * 4
    assert (peak[1] - peak[0]) / 2 < 9 * matrix  # 24 without blocks


def shapley_values_of(function, x, baseline):
    """By all coalitions of the elements."""
    n, values = len(x), np.zeros(len(x))
    for inside in itertools.product([False, True], repeat=n):
        size = sum(inside)
        weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n) if size < n else 0
        point = np.where(inside, x, baseline)
        for i in range(n):
            if not inside[i]:
                values[i] += weight * (function(np.where(np.arange(n) == i, x, point)) - function(point))
    return values


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_factors_of_a_product_get_their_shapley_values(n):
    x, baseline = np.random.default_rng(n).normal(size=(2, n))
    x[n // 2] = 0  # a product by logarithms would fail
    with in_precision("float64"):
        product = attribution.deep_lift(jnp.prod, x, baseline=baseline)
        np.testing.assert_allclose(product, shapley_values_of(np.prod, x, baseline), atol=1e-14)
        cumulative = attribution.deep_lift(lambda x: jnp.cumprod(x)[-1], x, baseline=baseline)
        np.testing.assert_allclose(cumulative, product, atol=1e-14)


def rank_integral(x, baseline, rank, steps=20_000):
    """Integrated gradients of one sorted value, by the midpoint rule."""
    t = (np.arange(steps)[:, None] + 0.5) / steps
    places = np.argsort(baseline + t * (x - baseline), axis=1)[:, rank]
    return (x - baseline) * np.bincount(places, minlength=len(x)) / steps


ORDERS = {
    "sort": lambda x: jnp.sort(x),
    "descending": lambda x: jnp.sort(x, descending=True)[::-1],
    "top_k": lambda x: lax.top_k(x, 6)[0][::-1],
    "of another axis": lambda x: jnp.sort(jnp.stack([x, 2 * x], 1), axis=0)[:, 0],
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_sorted_value_is_shared_by_the_ranks_on_the_way(name):
    x, baseline = np.random.default_rng(2).normal(size=(2, 6))
    x[2] = baseline[2]
    with in_precision("float64"):
        f = jax.jit(lambda rank, x, x0: attribution.deep_lift(ORDERS[name], x, rank, baseline=x0))
        for rank in range(6):
            found = f(rank, x, baseline)
            np.testing.assert_allclose(found, rank_integral(x, baseline, rank), atol=2e-3)
            np.testing.assert_allclose(found.sum(), np.sort(x)[rank] - np.sort(baseline)[rank], atol=1e-14)
            np.testing.assert_allclose(f(rank, baseline, x), -found, atol=1e-14)


def test_an_order_that_stays_is_a_permutation_also_of_equal_elements():
    x = jnp.array([2.0, -1.0, 2.0, 0.0, 0.5])
    weights = jnp.array([1.0, 10.0, 100.0, 1000.0])
    for f in (lambda x: jnp.sort(x)[1:] @ weights, lambda x: lax.top_k(x, 4)[0] @ weights):
        found = attribution.deep_lift(lambda x, f=f: f(x.at[3].set(-jnp.inf)), x, baseline=x - 1)
        expected = jax.grad(f)(x.at[3].set(-jnp.inf)).at[3].set(0)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


CUMULATIVE = {
    "cummax": (lambda x: lax.cummax(x), lambda x, k: x[: k + 1].max()),
    "cummin": (lambda x: lax.cummin(x, reverse=True), lambda x, k: x[k:].min()),
}


@pytest.mark.parametrize("name", CUMULATIVE)
def test_a_cumulative_extremum_is_that_of_each_part(name):
    cumulative, of_a_part = CUMULATIVE[name]
    x, baseline = np.random.default_rng(4).normal(size=(2, 6))
    with in_precision("float64"):
        for k in range(6):
            found = attribution.deep_lift(cumulative, x, k, baseline=baseline)
            expected = attribution.deep_lift(lambda x, k=k: of_a_part(x, k), x, baseline=baseline)
            np.testing.assert_allclose(found, expected, atol=1e-14)


NODES = 4
FROM, TO = np.int32([0, 1, 2, 3, 1, 2, 0, 3]), np.int32([0, 0, 0, 1, 1, 2, 2, 2])


def segment_softmax(z, segments):
    raised = jnp.exp(z - jax.ops.segment_max(z, segments, NODES)[segments])
    return raised / jax.ops.segment_sum(raised, segments, NODES)[segments]


def same_by_a_matrix(z, segments):
    """Without a shift, and with a product for the sums."""
    same = (segments[:, None] == segments).astype(z.dtype)
    return jnp.exp(z) / (same @ jnp.exp(z))


def graph_attention(x, softmax, segments=TO):
    values = x @ W[:4].astype(x.dtype)
    attention = softmax(jax.nn.leaky_relu(values[FROM] + 2 * values[segments]), segments)
    return jnp.tanh(jax.ops.segment_sum(attention * values[FROM], segments, NODES)).sum()


def test_a_softmax_over_segments_does_not_depend_on_its_shift():
    with in_precision("float64"):
        x, baseline = np.random.default_rng(6).normal(size=(2, NODES, 4))
        expected = attribution.deep_lift(lambda x: graph_attention(x, same_by_a_matrix), x, baseline=baseline)
        found = attribution.deep_lift(lambda x: graph_attention(x, segment_softmax), x, baseline=baseline)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        edges = attribution.deep_lift(
            lambda x: graph_attention(x["nodes"], segment_softmax, x["to"]),
            {"nodes": x, "to": TO},
            baseline={"nodes": baseline, "to": TO},
        )
        np.testing.assert_allclose(edges["nodes"], expected, atol=1e-12)


def test_a_largest_element_of_a_segment_that_is_no_shift_is_refused():
    def of_other_segments(x):
        raised = jnp.exp(x[FROM] - jax.ops.segment_max(x[FROM], TO, NODES)[TO])
        return (raised / jax.ops.segment_sum(raised, FROM, NODES)[FROM]).sum()

    for f in (of_other_segments, lambda x: jax.ops.segment_max(x[FROM], TO, NODES).sum()):
        with pytest.raises(
            NotImplementedError, match="deep_lift has no rule for the primitive 'scatter-max'"
        ):
            attribution.deep_lift(f, jnp.arange(4.0))
