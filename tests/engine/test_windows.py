"""What a window changes is what evaluation of the changed array gives, in every operation."""

import collections
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import attribution
from jaxnn._engine.window_changes import changed_in_windows
from jaxnn._engine.windows import Span, cover, part, put, sizes, union
from tests.conftest import in_precision

RNG = np.random.default_rng(0)
X = RNG.normal(size=(14, 12, 3))
K = RNG.normal(size=(3, 3, 3, 4))
SECOND, SQUARE = RNG.normal(size=(2, 4, 3, 3)), RNG.normal(size=(3, 3, 3, 3))
DEPTHWISE = RNG.normal(size=(3, 3, 1, 6))
W, V = RNG.normal(size=(504, 5)), RNG.normal(size=(12, 12))
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


def conv(x, w=K, stride=(1, 1), padding="SAME", order=NHWC, **options):
    w = jnp.asarray(w, x.dtype)
    return lax.conv_general_dilated(x[None], w, stride, padding, dimension_numbers=order, **options)[0]


def channels_first(x):
    return conv(jnp.transpose(x, (2, 0, 1)), K.transpose(3, 2, 0, 1), order=NCHW)


def pool(x, kind, size=2, stride=2, padding="VALID"):
    start, operation = {"max": (-jnp.inf, lax.max), "min": (jnp.inf, lax.min), "sum": (0.0, lax.add)}[kind]
    return lax.reduce_window(x, start, operation, (size, size, 1), (stride, stride, 1), padding)


def by_reshape(x):
    return x.reshape(7, 2, 6, 2, 3).max((1, 3))


def attention(x):
    h = x.reshape(14, 36)
    scores = jax.nn.softmax(h @ h.T / 6)
    return scores @ h


@jax.custom_jvp
def own(x):
    return jnp.tanh(x)


own.defjvp(lambda primals, tangents: (own(*primals), tangents[0]))


def norm(x):
    mean, square = jnp.mean(x, -1, keepdims=True), jnp.mean(x**2, -1, keepdims=True)
    return (x - mean) * lax.rsqrt(square - mean**2 + 0.1)


def scanned(x):
    return lax.scan(lambda h, row: (jnp.tanh(h + row), h), jnp.zeros((12, 3), x.dtype), x)[1]


FUNCTIONS = {
    "sin": jnp.sin,
    "relu": lambda x: jax.nn.relu(x) * 2 + x,
    "a derivative of ones own": own,
    "where": lambda x: jnp.where(x > 0.2, x, -1.0),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "conv": conv,
    "conv, valid": lambda x: conv(x, padding="VALID"),
    "conv, strides": lambda x: conv(x, stride=(2, 3)),
    "conv, strides beyond the kernel": lambda x: conv(x, K[:1, :2], stride=(3, 4), padding="VALID"),
    "conv, dilated": lambda x: conv(x, rhs_dilation=(2, 3)),
    "conv, transposed": lambda x: conv(x, padding=((1, 1), (0, 2)), lhs_dilation=(2, 2)),
    "conv, padding": lambda x: conv(x, padding=((3, 0), (1, 4))),
    "conv, cut": lambda x: conv(x, padding=((-2, 1), (0, -3))),
    "conv, channels first": channels_first,
    "conv, channels first, twice": lambda x: conv(jnp.tanh(channels_first(x)), SECOND, order=NCHW),
    "conv, depthwise": lambda x: conv(x, DEPTHWISE, feature_group_count=3),
    "conv, 1 x 1": lambda x: conv(x, K[:1, :1], stride=(2, 2)),
    "conv, even": lambda x: conv(x, K[:2, :2]),
    "conv of rows in a batch": lambda x: lax.conv_general_dilated(
        x, jnp.asarray(K[:, 0], x.dtype), (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    ),
    "kernels that differ": lambda x: conv(x, x[:3, :3, :, None] + K[..., :2].astype(x.dtype)),
    "max pool": lambda x: pool(x, "max"),
    "max pool, overlapping": lambda x: pool(x, "max", 3, 2, "SAME"),
    "min pool": lambda x: pool(x, "min", 2, 3, "SAME"),
    "sum pool": lambda x: pool(x, "sum", 3, 1, "SAME"),
    "pool of integers": lambda x: lax.reduce_window(
        (10 * x).astype("int32"), jnp.int32(-(2**31)), lax.max, (2, 2, 1), (2, 2, 1), "SAME"
    ),
    "pool by reshape": by_reshape,
    "two layers": lambda x: conv(by_reshape(jax.nn.relu(conv(x)[..., :3]))),
    "flattened and multiplied": lambda x: jnp.tanh(by_reshape(x)).reshape(-1) @ jnp.asarray(W[:126], x.dtype),
    "multiplied": lambda x: x.reshape(-1) @ jnp.asarray(W, x.dtype),
    "multiplied from the left": lambda x: jnp.asarray(W.T, x.dtype) @ x.reshape(-1),
    "one axis multiplied": lambda x: jnp.einsum("hwc,wv->hvc", x, jnp.asarray(V, x.dtype)),
    "channels multiplied": lambda x: x @ jnp.asarray(K[0, 0], x.dtype),
    "a batch of products": lambda x: jnp.einsum("hwc,hwd->hcd", x, jnp.asarray(X, x.dtype)),
    "a batch of products of two": lambda x: jnp.einsum("hwc,hwd->hcd", x, jnp.sin(x)),
    "a product of two": lambda x: jnp.einsum("hwc,vwc->hv", x, jnp.sin(x)),
    "a product to a number": lambda x: x.reshape(-1) @ jnp.asarray(W[:, 0], x.dtype),
    "attention": attention,
    "layer norm": norm,
    "softmax": jax.nn.softmax,
    "residual": lambda x: x + conv(jnp.sin(x), SQUARE),
    "scaled by the mean": lambda x: x * jnp.mean(x) + jnp.max(x),
    "channels of size 1": lambda x: x * jnp.mean(x, -1, keepdims=True) + jnp.sum(x, 0, keepdims=True),
    "global mean": lambda x: jnp.mean(x, (0, 1)),
    "argmax": lambda x: jnp.argmax(x, -1) * 1.5,
    "cumulative": lambda x: jnp.cumsum(x, 1),
    "transposed": lambda x: jnp.transpose(x, (2, 1, 0)) * 2,
    "padded": lambda x: jnp.sin(jnp.pad(x, ((1, 0), (2, 3), (0, 1)), constant_values=0.5)),
    "cut": lambda x: lax.pad(x, jnp.zeros((), x.dtype), ((-1, 0, 0), (0, 2, 1), (0, 0, 0))),
    "sliced": lambda x: x[2:11:2, 1:],
    "reversed": lambda x: x[::-1] * jnp.asarray(X, x.dtype),
    "joined": lambda x: jnp.concatenate([x, 2 * x[:, :5], jnp.ones_like(x)], 1),
    "joined, of two fields": lambda x: jnp.concatenate([jnp.sin(x), conv(x)], 2),
    "stacked": lambda x: jnp.stack([x, x**2], 1),
    "split": lambda x: jnp.split(x, 2, 0)[1] * 2,
    "gathered": lambda x: x[jnp.array([3, 1, 7])],
    "with axes of size 1": lambda x: jnp.squeeze(x[:, None, :, None], 3).reshape(14, 1, 12, 3, 1) * 2,
    "reshaped after a transposition": lambda x: jnp.sin(lax.reshape(x, (12, 42), (1, 0, 2))),
    "max pool of booleans": lambda x: lax.reduce_window(
        x > 0.5, False, lax.max, (2, 2, 1), (1, 1, 1), "SAME"
    ).astype(x.dtype),
    "min pool of booleans": lambda x: lax.reduce_window(
        x > 0.5, True, lax.min, (2, 2, 1), (1, 1, 1), "SAME"
    ).astype(x.dtype),
    "reshaped oddly": lambda x: jnp.sin(x.reshape(21, 24).reshape(7, 3, 24)),
    "sorted": lambda x: jnp.sort(x, 0),
    "a scan": scanned,
    "a call": jax.jit(lambda x: jax.checkpoint(jnp.cos)(x) * 2),
    "several results": lambda x: {"a": x * 2, "b": [jnp.sum(x), jnp.ones(3)]},
}
SIZES = [(3, 4, 1), (1, 2, 3)]


def changes(function, x, box, patches):
    """Of each window, what `changed_in_windows` gives, and what evaluation of all gives."""
    output, changed = changed_in_windows(function, x, box)
    index = jnp.arange(len(box[0].starts))
    indices = [np.stack([s.starts[i] for s in box]) for i in range(len(index))]
    full = jnp.stack(
        [lax.dynamic_update_slice(x, p, tuple(i)) for p, i in zip(patches, indices, strict=True)]
    )
    return output, jax.vmap(changed)(index, patches), jax.vmap(function)(full)


def some_box(size, windows=6, seed=0, shape=X.shape):
    rng = np.random.default_rng(seed)
    return tuple(
        Span(rng.integers(0, length - k + 1, windows), k) for length, k in zip(shape, size, strict=True)
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_change_is_that_of_the_whole_array(name):
    function, rng = FUNCTIONS[name], np.random.default_rng(0)
    boxes = [some_box(size, seed=seed) for seed, size in enumerate(SIZES)]
    with in_precision("float64"):
        patches = [jnp.asarray(rng.normal(size=(6, *size))) for size in SIZES]

        @jax.jit
        def found(x, patches):
            each = zip(boxes, patches, strict=True)
            return function(x), [changes(function, x, box, patch) for box, patch in each]

        unchanged, of_sizes = found(jnp.asarray(X), patches)
    for output, changed, right in of_sizes:
        for one, other in ((changed, right), (output, unchanged)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), one, other)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=6, deadline=None)
def test_convolutions_and_pools_of_any_shape(data):
    size, kernel, stride, dilation, low, high = (
        data.draw(st.integers(a, b)) for a, b in ((7, 12), (1, 4), (1, 4), (1, 2), (0, 3), (0, 3))
    )
    width = data.draw(st.integers(1, 4))
    first, second = (st.integers(0, size - width) for _ in range(2))
    starts = data.draw(st.lists(st.tuples(first, second), min_size=1, max_size=4))
    channel = Span(np.zeros(len(starts), int), 1)
    box = (*(Span(np.array(each), width) for each in zip(*starts, strict=True)), channel)
    w = np.random.default_rng(1).normal(size=(kernel, kernel, 1, 2))

    def function(x):
        h = conv(x, w, (stride, stride), ((low, high), (high, low)), rhs_dilation=(dilation, dilation))
        return h if min(h.shape[:2]) < 2 else pool(h, "max", 2, data_stride, "SAME")

    data_stride = data.draw(st.integers(1, 3))
    hypothesis.assume((kernel - 1) * dilation + 1 <= size + low + high)
    with in_precision("float64"):
        x = jnp.asarray(np.random.default_rng(2).normal(size=(size, size, 1)))
        patches = jnp.asarray(np.random.default_rng(3).normal(size=(len(starts), width, width, 1)))
        _, changed, right = changes(function, x, box, patches)
    np.testing.assert_allclose(changed, right, rtol=1e-10, atol=1e-10)


def operations(function, size):
    """The sizes of the results of each primitive, of one window."""
    box = some_box(size)
    changed = changed_in_windows(function, jnp.asarray(X), box)[1]
    jaxpr = jax.make_jaxpr(changed)(0, jnp.zeros(size))
    found = collections.defaultdict(list)
    for eqn in jaxpr.jaxpr.eqns:
        found[eqn.primitive.name].append(max(v.aval.size for v in eqn.outvars))
    return found


def test_a_convolution_is_of_the_windows_field_alone():
    found = operations(lambda x: jnp.sin(conv(x)), (2, 1, 3))
    (conv_size,) = found.get("conv_of_cpu", found.get("conv_general_dilated"))
    assert conv_size == 4 * 3 * 4
    assert found["sin"] == [48]


def test_most_of_a_result_is_all_of_it():
    assert operations(jnp.sin, (8, 12, 3))["sin"] == [X.size]
    assert operations(jnp.sin, (7, 12, 3))["sin"] == [X.size // 2]


def test_a_large_part_of_a_sum_leaves_the_rest():
    """1 beside 1e9: of the difference of two sums, nothing would be left of it."""
    x = jnp.ones(64).at[3].set(1e9)
    output, changed = changed_in_windows(lambda x: x @ jnp.ones((64, 2)), x, (Span(np.array([0, 3]), 2),))
    np.testing.assert_array_equal(changed(1, jnp.zeros(2)), [62, 62])
    np.testing.assert_allclose(changed(0, jnp.zeros(2)), [1e9 + 61] * 2)
    np.testing.assert_allclose(output, [1e9 + 63] * 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_around_a_window_are_as_precise_as_a_product(dtype):
    x, w = jnp.asarray(RNG.uniform(size=512), dtype), jnp.asarray(RNG.uniform(size=(512, 3)), dtype)
    box = (Span(np.arange(0, 500, 7), 5),)
    _, changed = changed_in_windows(lambda x: x @ w, x, box)
    found = jax.vmap(changed)(jnp.arange(len(box[0].starts)), jnp.zeros((len(box[0].starts), 5), dtype))
    right = [np.delete(x, range(s, s + 5)).astype(float) @ np.delete(w, range(s, s + 5), 0).astype(float)
             for s in box[0].starts]  # fmt: skip
    assert found.dtype == dtype
    np.testing.assert_allclose(np.float64(found), right, rtol=0.01)


def test_large_weights_are_not_copied_for_each_window():
    w = jnp.ones((504, 4096))
    found = operations(lambda x: x.reshape(-1) @ w, (1, 12, 3))
    assert max(max(each) for each in found.values()) < w.size // 8


def test_gradients_and_batches_of_what_a_window_changes():
    weights = jnp.asarray(SQUARE, "float32")

    def model(x):
        return jnp.sum(jnp.tanh(by_reshape(conv(x, weights))[..., 0] ** 2))

    def drops(x):
        return jnp.sum(attribution.occlusion(model, x, window=(3, 3, 3), stride=2) ** 2)

    def plain(x):
        starts = [(i, j) for i in (0, 2, 4, 6, 8, 10, 12) for j in (0, 2, 4, 6, 8, 10)]
        masks = np.zeros((len(starts), *X.shape), bool)
        for mask, (i, j) in zip(masks, starts, strict=True):
            mask[i : i + 3, j : j + 3] = True
        drop = model(x) - jax.vmap(lambda mask: model(jnp.where(mask, 0, x)))(masks)
        return jnp.sum((jnp.tensordot(drop, masks / masks.sum(0), 1)) ** 2)

    xs = jnp.asarray(np.stack([X, -X]), "float32")
    for of in (lambda f: f, jax.grad):
        found, right = (jax.vmap(of(f))(xs) for f in (drops, plain))
        np.testing.assert_allclose(found, right, rtol=2e-4, atol=2e-4 * float(jnp.max(jnp.abs(right))))


def test_boxes():
    span = cover(np.array([-2, 3, 9]), np.array([1, 5, 12]), 10)
    assert span.size == 2
    assert span.starts.tolist() == [0, 3, 8]
    both = union([(Span(np.array([0, 4]), 2),), (Span(np.array([3, 3]), 1),)], (9,))
    assert sizes(both) == (4,)
    assert both[0].starts.tolist() == [0, 3]
    box = (Span(np.array([1, 3]), 2),)
    array = jnp.arange(6)
    assert part(array, box, 1).tolist() == [3, 4]
    assert put(jnp.array([7]), (Span(np.array([2, 4]), 1),), part(array, box, 1), box, 1).tolist() == [3, 7]
    assert math.prod(sizes(box)) == 2


def test_the_sums_up_to_each_window_are_not_large():
    """Of a feature of all tokens, they would take the cube of the numbers."""
    w = jnp.ones((512, 512))

    def model(x):
        return jnp.sum(jnp.tanh(x @ w))

    explain = lambda x: attribution.occlusion(model, x, window=(512, 1), batch_size=4)  # noqa: E731
    compiled = jax.jit(explain).lower(jnp.ones((512, 512))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 40e6


@pytest.mark.parametrize("window", [(2, 3), (6, 2), (1, 1)])
@pytest.mark.parametrize("sharded", ["x", "weights", "baseline"])
def test_on_a_mesh(window, sharded):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    shapes = {"x": (6, 7), "weights": (7, 4), "baseline": (6, 7)}
    arrays = {name: jnp.asarray(RNG.normal(size=shape), "float32") for name, shape in shapes.items()}
    many = jnp.stack([(k + 1) * arrays[sharded] for k in range(4)])

    def explain(values):
        x, weights, baseline = (arrays | {sharded: values}).values()
        model = jax.tree_util.Partial(lambda w, x: jnp.sum(jnp.tanh(x @ w)), weights)
        return attribution.occlusion(model, x, window=window, baseline=baseline)

    spread = jax.shard_map(jax.vmap(explain), mesh=mesh, in_specs=jax.P("d"), out_specs=jax.P("d"))
    np.testing.assert_allclose(jax.jit(spread)(many), jax.vmap(explain)(many), rtol=1e-4, atol=1e-5)
