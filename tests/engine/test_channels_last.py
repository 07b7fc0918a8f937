"""Evaluated with the channels last, a function and its derivatives are what they were."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxnn
from jaxnn import attribution
from jaxnn._engine.channels_last import evaluate_channels_last
from jaxnn._engine.jaxpr import trace
from tests.conftest import in_precision

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 8, 6))
FIRST, SECOND, DEPTHWISE = (
    0.3 * RNG.normal(size=size) for size in ((4, 3, 3, 3), (4, 4, 2, 2), (4, 1, 3, 3))
)
SCALE = RNG.normal(size=4)
NCHW = ("NCHW", "OIHW", "NCHW")


def conv(x, w, stride=1, padding="SAME", order=NCHW, **options):
    w = jnp.asarray(w, x.dtype)
    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=order, **options)


def first(x):
    return conv(x[None], FIRST)


def normed(h):
    scale = jnp.asarray(SCALE, h.dtype)[:, None, None]
    return (h - scale) * jax.lax.rsqrt(1 + scale**2) + scale


def pooled(h, kind):
    window, strides = (1, 1, 2, 2), (1, 1, 2, 2)
    if kind == "max":
        return lax.reduce_window(h, -jnp.inf, lax.max, window, strides, "SAME")
    return lax.reduce_window(h, 0.0, lax.add, window, strides, ((0, 0), (0, 0), (1, 0), (0, 1)))


def squeezed(h):
    """Squeeze and excitation: each channel scaled by a function of the means."""
    means = jnp.mean(h, (2, 3), keepdims=True)
    return h * jax.nn.sigmoid(conv(means, SECOND[:, :, :1, :1], padding="VALID"))


def scanned(h):
    step = lambda h, s: (jnp.tanh(s * conv(h, DEPTHWISE, feature_group_count=4)), jnp.sum(h))  # noqa: E731
    h, sums = lax.scan(step, h, jnp.arange(1.0, 3.0, dtype=h.dtype))
    return h * jnp.sum(sums)


def in_nhwc(x):
    order = ("NHWC", "HWIO", "NHWC")
    return conv(jnp.sin(conv(x.T[None], FIRST.T, order=order)), SECOND.T, order=order)


MODELS = {
    "two convolutions": lambda x: conv(jnp.tanh(first(x)), SECOND, 2),
    "a batch norm and a ReLU": lambda x: conv(jax.nn.relu(normed(first(x))), SECOND),
    "pools": lambda x: jnp.concatenate([pooled(first(x), "max"), pooled(first(x), "sum")], 1),
    "a residual": lambda x: first(x) + conv(jnp.sin(first(x)), DEPTHWISE, feature_group_count=4),
    "padding": lambda x: conv(jnp.pad(first(x), ((0, 0), (0, 0), (1, 0), (0, 2))), SECOND, padding="VALID"),
    "squeeze and excitation": lambda x: squeezed(first(x)),
    "a mean": lambda x: jnp.mean(first(x), (2, 3)) ** 2,
    "a maximum of the channels": lambda x: jnp.max(first(x), 1),
    "flattened": lambda x: first(x).reshape(-1)[::5],
    "transposed": lambda x: jnp.exp(jnp.transpose(first(x), (2, 0, 3, 1))),
    "squeezed": lambda x: jnp.cos(jnp.squeeze(first(x), 0)),
    "a chosen value": lambda x: jnp.where(first(x) > 0, first(x), 0.1),
    "a called function": lambda x: conv(jax.jit(normed)(first(x)), SECOND),
    "recomputed": lambda x: conv(jax.checkpoint(normed)(first(x)), SECOND),
    "a scan": lambda x: scanned(first(x)),
    "a softmax of the channels": lambda x: jax.nn.softmax(first(x), axis=1),
    "an integer": lambda x: first(x) * (jnp.argmax(first(x), 1, keepdims=True) + 1),
    "channels last": in_nhwc,
    "another order": lambda x: conv(
        jnp.sin(conv(x[:, None], FIRST, order=("CNHW", "OIHW", "HWNC"))),
        SECOND,
        order=("HWNC", "OIHW", "WCNH"),
    ),
    "one axis": lambda x: lax.conv_general_dilated(
        x[None, :, 0],
        jnp.asarray(FIRST[..., 0], x.dtype),
        (1,),
        "SAME",
        dimension_numbers=("NCW", "OIW", "NCW"),
    ),
    "no convolution": lambda x: jnp.tanh(x) * 2,
}


def channels_last(function):
    return lambda x: evaluate_channels_last(trace(function, x))


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_what_they_were(name):
    function = MODELS[name]

    def loss(function):
        return lambda x: jnp.sum(jnp.sin(function(x)))

    with in_precision("float64"):
        x = jnp.asarray(X)
        many = jnp.stack([x, 2 * x, -x])
        for of, point in (
            (lambda f: f, x),
            (lambda f: jax.grad(loss(f)), x),
            (lambda f: jax.vmap(jax.grad(loss(f))), many),
        ):
            found, right = (jax.jit(of(f))(point) for f in (channels_last(function), function))
            assert found.shape == right.shape
            np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-12)


def test_a_chain_is_transposed_at_its_ends_alone():
    """The weights of a normalization are transposed, too, whose axes are of one element but for one."""

    def model(x):
        for _ in range(4):
            x = pooled(jax.nn.relu(normed(conv(x, SECOND))), "max") + 1
        return x

    jaxpr = jax.make_jaxpr(channels_last(model))(jnp.ones((1, 4, 32, 32)))
    sizes = collections.Counter(
        min(v.aval.size for v in eqn.invars) > 4
        for eqn in jaxpr.jaxpr.eqns
        if eqn.primitive.name == "transpose"
    )
    assert sizes[True] == 1


def test_a_derivative_of_ones_own_stays_also_where_the_function_is_called_relu():
    @jax.custom_jvp
    def relu(h):
        return jnp.maximum(h, 0)

    relu.defjvp(lambda primals, tangents: (relu(*primals), 7 * tangents[0]))
    model = lambda x: jnp.sum(relu(first(x)))  # noqa: E731
    x = jnp.asarray(X, "float32")
    found, right = (jax.grad(f)(x) for f in (channels_last(model), model))
    np.testing.assert_allclose(found, right, rtol=1e-5)
    np.testing.assert_allclose(right, jax.grad(lambda x: 7 * jnp.sum(first(x)))(x), rtol=1e-5)


def _straight_through(by_operand):
    straight = jax.custom_jvp(jax.nn.relu.fun)
    if by_operand:
        straight.defjvps(lambda tangent, result, h: tangent)
    else:
        straight.defjvp(lambda primals, tangents: (jax.nn.relu(*primals), tangents[0]))
    return straight


@pytest.mark.parametrize("by_operand", [False, True])
def test_a_derivative_of_ones_own_of_jaxs_relu_stays(by_operand):
    relu = _straight_through(by_operand)
    model = lambda x: jnp.sum(jnp.sin(relu(first(x))))  # noqa: E731
    x = jnp.asarray(X, "float32")
    found, right = (jax.grad(f)(x) for f in (channels_last(model), model))
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(found - jax.grad(lambda x: jnp.sum(jnp.sin(jax.nn.relu(first(x)))))(x))) > 0.1


def test_the_derivative_of_another_function_is_not_asked_for():
    @jax.custom_jvp
    def without(h):
        return jnp.maximum(h, 0) * 2

    @without.defjvp
    def refuse(primals, tangents):
        raise TypeError("no derivative")

    x = jnp.asarray(X, "float32")
    model = lambda x: without(first(x))  # noqa: E731
    np.testing.assert_allclose(channels_last(model)(x), model(x), rtol=1e-5, atol=1e-5)
    assert attribution.occlusion(lambda x: jnp.sum(model(x)), x, window=(3, 4, 6)).shape == x.shape


def test_relu_of_integers():
    kernels = np.asarray(10 * FIRST, "int32")
    model = lambda x: jax.nn.relu(conv(x[None], kernels))  # noqa: E731
    x = jnp.asarray(10 * X, "int32")
    np.testing.assert_array_equal(channels_last(model)(x), model(x))


def test_relu_is_of_the_stored_order_without_a_reshape():
    """With a reshape before and after each, XLA 0.10 compiles DeepLIFT of ResNet-50 for minutes."""

    def model(x):
        for _ in range(4):
            x = jax.nn.relu(conv(x, SECOND))
        return x

    text = str(jax.make_jaxpr(channels_last(model))(jnp.ones((1, 4, 16, 16))))
    assert text.count("custom_jvp_call[") == 4
    assert "reshape" not in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_methods_explain_models_of_either_order_alike(dtype):
    kernels = jnp.asarray(FIRST, dtype)

    def channels_first(x):
        return jnp.mean(jax.nn.relu(conv(x[None], kernels)), (0, 2, 3))

    def last(x):
        order = ("NHWC", "HWIO", "NHWC")
        h = conv(x[None], kernels.transpose(2, 3, 1, 0), order=order)
        return jnp.mean(jax.nn.relu(h), (0, 1, 2))

    x = jnp.asarray(X, dtype)
    one = attribution.saliency(channels_first, x, 2)
    other = attribution.saliency(last, x.transpose(1, 2, 0), 2).transpose(2, 0, 1)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(np.float64(one), np.float64(other), rtol=tolerance, atol=0.01 * tolerance)


def test_for_cpu_takes_several_arguments_and_leaves_names_out():
    model = jaxnn.for_cpu(lambda x, s: {"y": jaxnn.tap(s * first(x), "maps"), "x": x})
    x = jnp.asarray(X, "float32")
    y = model(x, s=2.0)
    np.testing.assert_allclose(y["y"], 2 * first(x), rtol=1e-5, atol=1e-5)
    assert jaxnn.capture(jaxnn.for_cpu(lambda x: jaxnn.tap(first(x), "maps")), x)[1] == {}
