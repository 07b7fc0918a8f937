"""LRP: the rules by their equations, what is kept, and what is a layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import attribution
from tests.conftest import in_precision, that_promotes
from tests.engine.test_graph import RELUS

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(6, 8)), RNG.normal(size=(8, 3))
B, C = RNG.normal(size=8), RNG.normal(size=3)
K = RNG.normal(size=(3, 3, 2, 4)) / 4
X = RNG.normal(size=6)
IMAGE = RNG.normal(size=(8, 8, 2))
relu = jax.nn.relu
RULES = ("epsilon", "gamma", "alpha_beta", "z_plus", "w_square", "flat")


def dense(x, bias=1.0, relu=relu):
    return relu(x @ W + bias * B) @ V + bias * C


def by_hand(rule, a, w, b, relevance, low=-2.0, high=2.5):
    """The rules of Bach et al. 2015 and Montavon et al. 2019, from the terms a_i w_ij of each sum."""

    def shared(terms, rest):
        z = terms.sum(0) + rest
        return (terms * relevance / (z + 1e-6 * np.where(z < 0, -1, 1))).sum(1)

    terms, zero = a[:, None] * w, np.zeros_like(b)
    up, down = shared(np.maximum(terms, 0), np.maximum(b, 0)), shared(np.minimum(terms, 0), np.minimum(b, 0))
    if rule == "gamma":
        above = (terms.sum(0) + b) > 0
        more = np.where(above, np.maximum(terms, 0), np.minimum(terms, 0))
        return shared(terms + 0.25 * more, b + 0.25 * np.where(above, np.maximum(b, 0), np.minimum(b, 0)))
    box = terms - low * np.maximum(w, 0) - high * np.minimum(w, 0)
    return {
        "epsilon": lambda: shared(terms, b),
        "z_plus": lambda: up,
        "alpha_beta": lambda: 2 * up - down,
        "w_square": lambda: shared(w**2, b**2),
        "flat": lambda: shared(np.ones_like(w), zero),
        "z_box": lambda: shared(box, zero),
    }[rule]()


@pytest.mark.parametrize("rule", [*RULES, "z_box"])
def test_the_rules_by_their_equations(rule):
    above = "epsilon" if rule == "z_box" else rule
    hidden = np.maximum(X @ W + B, 0)
    start = np.eye(3)[1] * (hidden @ V + C)
    expected = by_hand(rule, X, W, B, by_hand(above, hidden, V, C, start))
    asked = {"dense": above, "first": "z_box"} if rule == "z_box" else rule
    with in_precision("float64"):
        answer = attribution.lrp(dense, X, 1, rule=asked, low=-2.0, high=2.5)
        np.testing.assert_allclose(answer, expected, rtol=1e-10)


def convolved(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x[None], jnp.asarray(K, x.dtype), (1, 1), "SAME", dimension_numbers=numbers
    )[0]


def network(x):
    """A convolution, both pools, a skip connection and a dense layer; no bias."""
    h = nn.max_pool(relu(convolved(x)), (2, 2), (2, 2))
    h = h + jnp.tanh(h)
    return that_promotes(nn.avg_pool)(h, (2, 2), (2, 2)).reshape(-1) @ jnp.asarray(
        np.sin(np.arange(16 * 3)).reshape(16, 3), x.dtype
    )


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("rule", ["epsilon", "flat", "w_square", "gamma", "epsilon_plus_flat"])
def test_without_bias_it_adds_up_to_the_answer(rule):
    with in_precision("float64"):
        for function, x in ((network, IMAGE), (lambda x: dense(x, bias=0.0), X)):
            answer = attribution.lrp(function, x, 1, rule=rule, epsilon=0.0, stabilizer=1e-30)
            np.testing.assert_allclose(answer.sum(), function(x)[1], rtol=1e-9)


def test_z_plus_adds_up_where_something_raises_each_unit():
    with in_precision("float64"):
        answer = attribution.lrp(lambda x: relu(x @ W) @ abs(V), X, 1, rule="z_plus", stabilizer=1e-30)
        np.testing.assert_allclose(answer.sum(), (np.maximum(X @ W, 0) @ abs(V))[1], rtol=1e-9)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("rule", RULES)
def test_any_way_to_write_a_layer(rule):
    """One affine map: in one product, with its bias in the weights, scaled after, in a loop."""

    def scaled(x):
        s = np.array([1, -1, 2, -2, 0.5, -0.5, 1, 3])
        mean = np.arange(8.0) / 8
        return relu((x @ (W / s) + B / s + mean - mean) * s) @ V + C

    def transposed(x):
        h = jnp.einsum("i,ij->j", x, W).reshape(2, 4) + B.reshape(2, 4)
        return (V.T @ relu(h.ravel())).T + C

    def checkpointed(x):
        return jax.jit(jax.checkpoint(dense))(x)

    def batched(x):
        return jax.vmap(dense)(x[None])[0]

    with in_precision("float64"):
        first = attribution.lrp(dense, X, 1, rule=rule)
        ways = [transposed, checkpointed, batched]
        for way in [*ways, *([] if rule == "flat" else [scaled])]:
            np.testing.assert_allclose(attribution.lrp(way, X, 1, rule=rule), first, rtol=1e-8, atol=1e-12)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("rule", RULES)
def test_any_way_to_write_a_relu(rule):
    with in_precision("float64"):
        first = attribution.lrp(dense, X, 1, rule=rule)
        for name in ("maximum", "where", "mask", "clip", "jit"):
            other = attribution.lrp(lambda x, name=name: dense(x, relu=RELUS[name]), X, 1, rule=rule)
            np.testing.assert_allclose(other, first, rtol=1e-12)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("rule", RULES)
def test_batch_norm_after_a_convolution_is_part_of_it(rule):
    scale, mean, shift = np.array([1.5, -0.5, 2.0, -1.0]), np.arange(4) / 4, np.arange(4) / 8 - 0.2

    def apart(x):
        return relu((convolved(x) - mean) * scale + shift).mean((0, 1))

    def together(x):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel = jnp.asarray(K * scale)
        z = lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=numbers)[0]
        return relu(z + (shift - mean * scale)).mean((0, 1))

    with in_precision("float64"):
        one, other = (attribution.lrp(f, IMAGE, 1, rule=rule) for f in (apart, together))
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.long
def test_a_rule_for_each_kind_of_layer():
    def function(x):
        return relu(relu(convolved(x)).mean((0, 1)) @ jnp.asarray(V[:4])) @ jnp.asarray(V[:3])

    def asked(**rules):
        return np.asarray(attribution.lrp(function, IMAGE, 1, rule=rules, low=-3, high=3))

    with in_precision("float64"):
        base = asked(conv="z_plus", dense="epsilon")
        np.testing.assert_array_equal(base, attribution.lrp(function, IMAGE, 1, rule="epsilon_plus"))
        np.testing.assert_array_equal(base, asked(conv="z_plus"))
        np.testing.assert_array_equal(base, asked(first="z_plus", conv="gamma"))
        np.testing.assert_array_equal(base, asked(first_conv="z_plus", first="flat"))
        np.testing.assert_array_equal(base, asked(conv="z_plus", first_dense="flat"))
        assert not np.allclose(base, asked(conv="z_plus", dense="gamma"))
        assert not np.allclose(base, asked(first="z_box"))


def test_bounds_follow_the_input_to_the_first_layer():
    """Normalized and laid out anew, it still has its own bounds."""

    def normalized(x):
        return dense(((x - 0.5) / -0.25).reshape(2, 3).ravel())

    with in_precision("float64"):
        rule = {"first": "z_box"}
        one = attribution.lrp(normalized, X, 1, rule=rule, low=0.0, high=1.0)
        other = attribution.lrp(dense, (X - 0.5) / -0.25, 1, rule=rule, low=-2.0, high=2.0)
        np.testing.assert_allclose(one, other, rtol=1e-10)
        arrays = attribution.lrp(normalized, X, 1, rule=rule, low=np.zeros(6), high=np.ones(6))
        np.testing.assert_allclose(one, arrays, rtol=1e-10)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("norm", ["layer", "rms", "by hand", "gated", "skip"])
def test_normalization_and_gates_keep_the_relevance(norm):
    layer = {"layer": nn.LayerNorm(use_bias=False), "rms": nn.RMSNorm()}.get(norm)

    def function(x):
        if layer is not None:
            x = that_promotes(layer.apply)({"params": {"scale": jnp.arange(1.0, 7.0)}}, x)
        elif norm == "by hand":
            x = (x - x.mean()) / jnp.sqrt(jnp.var(x) + 1e-5)
        elif norm == "gated":
            return nn.glu(x @ W) @ V[:4]
        return relu(x @ W) @ V + (x[:3] if norm == "skip" else 0)

    with in_precision("float64"):
        answer = attribution.lrp(function, X, 1, epsilon=0.0, stabilizer=1e-30)
        np.testing.assert_allclose(answer.sum(), function(X)[1], rtol=1e-8)


NORMS = {
    "layer": lambda x, s, b: that_promotes(nn.LayerNorm().apply)({"params": {"scale": s, "bias": b}}, x),
    "twice the mean": lambda x, s, b: (x - x.mean()) / jnp.sqrt(((x - x.mean()) ** 2).mean() + 1e-6) * s + b,
    "inverse first": lambda x, s, b: (s * lax.rsqrt(jnp.var(x) + 1e-6)) * (x - x.mean()) + b,
    "expanded": lambda x, s, b: x * (i := s * lax.rsqrt(jnp.var(x) + 1e-6)) + (b - x.mean() * i),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("near", [0.5, 1e-3, 1e-9])
def test_a_normalization_with_a_bias_is_one_affine_map_with_a_constant_deviation(norm, near):
    """Ali et al. 2022, Achtibat et al. 2024; also where an element is near the mean."""
    with in_precision("float64"):
        scale, bias, x = np.arange(1.0, 5), np.full(4, 0.5), np.array([1.0, 3, 5, 3])
        x[3] += near
        deviation = np.sqrt(x.var() + 1e-6)
        z = (x - x.mean()) / deviation * scale + bias
        fraction = z * np.arange(1.0, 5) / z * scale / deviation  # relevance of z over z, times the weights
        expected = x * (fraction - fraction.mean())
        relevance = attribution.lrp(
            lambda x: jnp.vdot(NORMS[norm](x, scale, bias), jnp.arange(1.0, 5)),
            x,
            epsilon=0.0,
            stabilizer=1e-14,
        )
        np.testing.assert_allclose(relevance, expected, rtol=1e-6)


def test_a_batch_norm_before_its_layer_uses_epsilon_so_that_the_rule_is_input_times_gradient():
    """As in a pre-activation ResNet and a DenseNet: where a sum is near 0, its relevance is, too."""

    def function(x):
        h = x @ W[:, :6]
        for i in range(4):
            h = h + relu(h * (1 + 0.1 * i) + C[0] * (i + 1)) @ W[:, 2:]
        return relu(h * 1.5 - 0.5) @ W[:, 1]

    with in_precision("float64"):
        relevance = attribution.lrp(function, X, epsilon=0.0, stabilizer=1e-14)
        np.testing.assert_allclose(relevance, attribution.input_x_gradient(function, X), rtol=1e-8)


def test_a_standardization_of_the_input_passes_on_its_relevance():
    def network(x):
        return relu(x @ W + B) @ V

    with in_precision("float64"):
        raw = attribution.lrp(lambda x: network((x - 0.3) / 0.7), X * 0.7 + 0.3, 1)
        np.testing.assert_allclose(raw, attribution.lrp(network, X, 1), rtol=1e-9)


@pytest.mark.parametrize("rule", ["epsilon", "z_plus", "flat"])
def test_mixed_precision(rule):
    """A module of bfloat16 whose normalization computes in float32, against the same in float32."""

    def model(dtype):
        def function(x):
            h = x.astype(dtype) @ jnp.asarray(W, dtype)
            parameters = {"scale": jnp.arange(1.0, 9), "bias": B}
            h = that_promotes(nn.LayerNorm(dtype=dtype).apply)({"params": parameters}, h)
            return (relu(h) @ jnp.asarray(V, dtype)).astype(jnp.float32)

        return function

    low, high = (
        attribution.lrp(model(dtype), jnp.float32(X), 1, rule=rule) for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, high, atol=0.05 * np.abs(high).max())


def test_the_softmax_of_an_attention_is_linearized():
    """Achtibat et al. 2024: half to the values, half to the weights; through the softmax by its slope."""

    def function(x):
        return jax.nn.softmax(x[:3]) * x[3:]

    with in_precision("float64"):
        y = jax.nn.softmax(jnp.asarray(X[:3]))
        half = np.eye(3)[1] * float(y[1] * X[4]) / 2
        answer = attribution.lrp(function, X, 1, stabilizer=0.0)
        np.testing.assert_allclose(answer[3:], half, rtol=1e-10)
        np.testing.assert_allclose(answer[:3], X[:3] * (half - y * half.sum()), rtol=1e-10)
        attention = nn.MultiHeadDotProductAttention(num_heads=2, param_dtype=jnp.float64)
        x = RNG.normal(size=(5, 4))
        variables = attention.init(jax.random.key(0), jnp.asarray(x))
        relevance = attribution.lrp(lambda x: attention.apply(variables, x).mean(0), x, 1)
        assert np.all(np.isfinite(relevance))
        assert np.any(relevance)


SELECTIONS = {
    "sort": lambda x: jnp.sort(x),
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "cummax": lambda x: lax.cummax(x),
    "argsort": lambda x: x[jnp.argsort(x)],
    "argmax": lambda x: jax.nn.one_hot(jnp.argmax(x), 3) * x,
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_what_is_selected_takes_its_relevance_along(name):
    """Of a weighted sum of the selected values, that is input times gradient."""

    def function(x):
        y = SELECTIONS[name](x)
        return y @ jnp.arange(1.0, 4)[: len(y)]

    x = jnp.array([3.0, 1.0, 2.0])
    expected = {
        "sort": [9, 1, 4], "top_k": [3, 0, 4], "cummax": [18, 0, 0], "argsort": [9, 1, 4], "argmax": [3, 0, 0]
    }[name]  # fmt: skip
    np.testing.assert_allclose(attribution.lrp(function, x), expected, rtol=1e-5)


def test_a_mixture_of_experts_has_the_relevance_of_its_route():
    """The indices of the experts are constant at an input."""
    rng = np.random.default_rng(4)
    gates, experts, x = rng.normal(size=(6, 4)), rng.normal(size=(4, 6, 5)), rng.normal(size=6)

    def mixed(x, route=None):
        best, indices = lax.top_k(x @ gates, 2)
        if route is not None:
            best, indices = (x @ gates)[route], route
        return sum(
            g * relu(x @ jnp.asarray(experts)[i]) for g, i in zip(jax.nn.softmax(best), indices, strict=True)
        )

    with in_precision("float64"):
        route = np.argsort(-(x @ gates))[:2]
        expected = attribution.lrp(lambda x: mixed(x, route), x, 2)
        np.testing.assert_allclose(attribution.lrp(mixed, x, 2), expected, rtol=1e-9)
        np.testing.assert_allclose(jax.jit(lambda x: attribution.lrp(mixed, x, 2))(x), expected, rtol=1e-9)


REFUSED = {
    "abs": lambda x: jnp.abs(jnp.fft.fft(x)).sum(),
    "real": lambda x: (jnp.fft.fft(x) ** 2 * jnp.fft.fft(x)).real.sum(),
    "reduce_prod": jnp.prod,
    "while": lambda x: lax.while_loop(lambda h: h[0] < 3, lambda h: h + 1, x).sum(),
    "div": lambda x: x[0] / x[1],
    "pow": lambda x: x[0] ** x[1],
    "sub": lambda x: jax.nn.log_softmax(x)[0],
    "select_n": lambda x: jnp.where(x[0] > x[1], x[2], x[3]),
}


@pytest.mark.parametrize("primitive", REFUSED)
def test_what_has_no_rule_is_an_error_that_names_it(primitive):
    with pytest.raises(NotImplementedError, match=f"lrp.*{primitive}"):
        attribution.lrp(REFUSED[primitive], jnp.arange(5.0) + 0.5)


def test_a_sum_of_exactly_zero_counts_as_positive():
    even = lambda x: jnp.cos(x @ jnp.ones((2, 1)))  # noqa: E731
    found = attribution.lrp(even, jnp.array([1.0, -1.0]), epsilon=0.5)
    np.testing.assert_allclose(found, [2.0, -2.0])


def test_what_is_divided_by_the_sum_of_another_row_is_no_softmax():
    crossed = lambda x: (lambda raised: raised / raised.sum(1))(jnp.exp(x)).ravel()  # noqa: E731
    with pytest.raises(NotImplementedError, match="lrp.*div"):
        attribution.lrp(crossed, jnp.ones((3, 3)), 1)


def test_bad_input():
    x = jnp.asarray(X, jnp.float32)
    with pytest.raises(ValueError, match="`rule` must be one of 'epsilon'.*got 'zplus'"):
        attribution.lrp(dense, x, 1, rule="zplus")
    with pytest.raises(ValueError, match="`rule` must be one of 'dense', 'conv'.*got 'pool'"):
        attribution.lrp(dense, x, 1, rule={"pool": "epsilon"})
    with pytest.raises(ValueError, match=r"`rule\['dense'\]` must be one of"):
        attribution.lrp(dense, x, 1, rule={"dense": "epsilon_plus"})
    with pytest.raises(TypeError, match="`rule` must be a name, or a dictionary"):
        attribution.lrp(dense, x, 1, rule=3)
    with pytest.raises(ValueError, match="`low` must be given"):
        attribution.lrp(dense, x, 1, rule={"first": "z_box"})
    with pytest.raises(ValueError, match=r"`high` must have shape \(6,\)"):
        attribution.lrp(dense, x, 1, rule={"first": "z_box"}, low=0, high=np.ones(3))
    with pytest.raises(ValueError, match="`low` must nowhere be above `high`; got 1 and 0"):
        attribution.lrp(dense, x, 1, rule={"first": "z_box"}, low=1, high=0)
    with pytest.raises(ValueError, match="`rule` must name z_box for layers that read the input alone"):
        attribution.lrp(dense, x, 1, rule="z_box")
    with pytest.raises(ValueError, match="`rule` must not give z_box to 'dense' layers"):
        attribution.lrp(dense, x, 1, rule={"dense": "z_box"}, low=0, high=1)
    with pytest.raises(ValueError, match="`alpha` must be at least 1; got 0.5"):
        attribution.lrp(dense, x, 1, alpha=0.5)
    with pytest.raises(TypeError, match="`gamma`"):
        attribution.lrp(dense, x, 1, gamma="much")


def by_gradient(step, relevances, values):
    return jax.vjp(step.call, *values)[1](list(relevances))


def test_a_rule_of_the_caller_for_a_primitive():
    def product(x):
        return jnp.prod(jnp.exp(x @ W[:, :2]))

    def half(step, relevances, values):
        return [jnp.full(2, relevances[0] / 2)]

    with pytest.raises(
        NotImplementedError, match="no rule for the primitive 'reduce_prod'; .* div, dot_general"
    ):
        attribution.lrp(product, X)
    with in_precision("float64"):
        attributions = attribution.lrp(product, X, stabilizer=0.0, primitive_rules={"reduce_prod": half})
        expected = attribution.lrp(lambda x: jnp.exp(x @ W[:, 0]) * jnp.exp(x @ W[:, 1]), X, stabilizer=0.0)
        np.testing.assert_allclose(attributions, expected, rtol=1e-5)
        rules = {"reduce_max": lambda step, relevances, values: [relevances[0] * jnp.eye(6)[0]]}
        attributions = attribution.lrp(jnp.max, X, primitive_rules=rules)
        np.testing.assert_allclose(attributions, X.max() * np.eye(6)[0])


def test_a_rule_of_the_caller_leaves_the_shift_of_a_softmax_alone():
    def model(x):
        return jax.nn.softmax(x)[0]

    attributions = attribution.lrp(model, X, primitive_rules={"reduce_max": by_gradient})
    np.testing.assert_array_equal(attributions, attribution.lrp(model, X))


def test_what_is_no_rule_for_a_primitive_is_refused():
    with pytest.raises(TypeError, match=r"`primitive_rules\['sort'\]` must be callable; got int"):
        attribution.lrp(jnp.max, X, primitive_rules={"sort": 1})
    with pytest.raises(TypeError, match="`primitive_rules` must be a dictionary by primitive; got list"):
        attribution.deep_lift(jnp.max, X, primitive_rules=[])
    rules = {"sort": lambda step, relevances, values: [relevances[0][0]]}
    with pytest.raises(
        ValueError, match=r"\['sort'\]` must return arrays of shapes \[\(6,\)\]; got \[\(\)\]"
    ):
        attribution.lrp(lambda x: jnp.sort(x)[0], X, primitive_rules=rules)


@pytest.mark.parametrize(
    "summed",
    [
        lambda x: jax.ops.segment_sum(x, jnp.array([0, 0, 1, 1]), 2),
        lambda x: jnp.zeros(2).at[jnp.array([0, 0, 1, 1])].add(x),
        lambda x: -jnp.zeros(2).at[jnp.array([0, 0, 1, 1])].subtract(x),
        lambda x: jnp.array([5.0, -7.0]).at[jnp.array([0, 0, 1, 1])].add(x),  # a constant takes no relevance
    ],
)
def test_messages_that_are_added_at_one_place_share_its_relevance(summed):
    x = jnp.array([1.0, 2.0, 3.0, -1.0])
    attributions = attribution.lrp(
        lambda x: summed(x) @ jnp.array([1.0, 2.0]), x, epsilon=0.0, stabilizer=0.0
    )
    of_places = summed(x) * jnp.array([1.0, 2.0])
    terms = x / jnp.array([3.0, 3.0, 2.0, 2.0])
    np.testing.assert_allclose(attributions, terms * jnp.repeat(of_places, 2), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0.0}, {"rule": "z_plus", "stabilizer": 0.0}, {"rule": "alpha_beta", "stabilizer": 0.0}],
)
def test_without_epsilon_a_sum_of_no_terms_passes_on_nothing(options):
    weights = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    x = jnp.array([1.0, 0.0, 0.0, 0.0, 2.0, 0.0])

    def f(x):
        return jax.nn.relu(x @ weights).sum()

    np.testing.assert_array_equal(attribution.lrp(f, jnp.zeros(6), **options), 0)
    attributions = attribution.lrp(f, x, **options)
    np.testing.assert_array_equal(attributions[jnp.array([1, 2, 3, 5])], 0)
    assert np.isfinite(attributions).all()
    if options.get("rule") != "alpha_beta":  # a unit that nothing lowers gets alpha times its relevance
        np.testing.assert_allclose(attributions.sum(), f(x), rtol=1e-5)


def _circulant(kernel, weights):
    """A long convolution by Fourier transforms, by parts of complex numbers, and as a matrix product."""
    matrix = np.stack([np.roll(kernel, i) for i in range(len(kernel))])

    def by_fft(x):
        return jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(kernel), len(kernel))

    def by_parts(x):
        z = jnp.fft.fft(lax.complex(x, jnp.zeros_like(x))) * jnp.fft.fft(kernel)
        return jnp.fft.ifft(jnp.conj(jnp.conj(z))).real

    return [
        lambda x, f=f: jax.nn.relu(f(x) + 0.1) @ weights for f in (lambda x: x @ matrix, by_fft, by_parts)
    ]


def test_a_linear_map_by_complex_numbers_is_that_by_real_ones():
    rng = np.random.default_rng(3)
    x, kernel, weights = rng.normal(size=16), rng.normal(size=16), rng.normal(size=(16, 3))
    with in_precision("float64"):
        expected, *others = [attribution.lrp(f, x, 1) for f in _circulant(kernel, weights)]
        assert np.any(expected)
        for found in others:
            np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_complex_map_of_two_real_values_shares_by_their_terms():
    x, weights = np.random.default_rng(4).normal(size=(2, 8))

    def by_complex(x):
        z = jnp.fft.fft(lax.complex(jnp.tanh(x[:4]), jnp.sin(x[4:])))
        return (z.real * weights[:4] + z.imag * weights[4:]).sum()

    matrix = np.fft.fft(np.eye(4))
    map_real = np.concatenate([matrix.real, -matrix.imag])
    map_imag = np.concatenate([matrix.imag, matrix.real])

    def by_matrices(x):
        parts = jnp.concatenate([jnp.tanh(x[:4]), jnp.sin(x[4:])])
        return (parts @ map_real * weights[:4] + parts @ map_imag * weights[4:]).sum()

    with in_precision("float64"):
        expected, found = (
            attribution.lrp(f, x, epsilon=1e-12, stabilizer=1e-12) for f in (by_matrices, by_complex)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_straight_through_estimator_has_a_bias():
    """`z + stop_gradient(round(z) - z)` is `z + c` with a constant `c`."""
    rng = np.random.default_rng(5)
    x, first, second = rng.normal(size=6), rng.normal(size=(6, 4)), rng.normal(size=(4, 2))
    codes = np.eye(4)

    def rounded(z):
        return jnp.round(z)

    def quantized(z):
        return jnp.asarray(codes)[jnp.argmin(jnp.sum((z - codes) ** 2, axis=-1))]

    with in_precision("float64"):
        z = x @ first
        for function in (rounded, quantized):
            found = attribution.lrp(
                lambda x, f=function: (x @ first + lax.stop_gradient(f(x @ first) - x @ first)) @ second, x, 0
            )
            shift = np.asarray(function(z)) - z
            expected = attribution.lrp(lambda x, shift=shift: (x @ first + shift) @ second, x, 0)
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert not np.any(attribution.lrp(lambda x: lax.stop_gradient(x) @ first @ second, x, 0))


@pytest.mark.parametrize("kind", ["products", "scan"])
def test_a_factor_behind_stop_gradient_is_a_constant(kind):
    """All relevance goes to the other factor."""

    def products(x, stop):
        gate = jnp.tanh(stop(relu(x @ W)) * 2) + 1
        return gate * (jnp.outer(gate, gate) @ (x @ W)) @ V

    def scan(x, stop):
        around = jnp.tanh(stop(relu(x @ W))) + 1

        def body(h, _):
            return jnp.sin(around * h) * jnp.exp(-stop(relu(x @ W))), None

        return lax.scan(body, x @ W, length=100)[0] @ V

    model = {"products": products, "scan": scan}[kind]
    small = {"epsilon": 1e-12, "stabilizer": 1e-12}
    with in_precision("float64"):
        values = attribution.lrp(lambda x: model(x, lax.stop_gradient), X, 1, **small)
        expected = attribution.lrp(lambda x: model(x, lambda h: np.maximum(X @ W, 0)), X, 1, **small)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
