"""The operators of exported PyTorch graphs (core ATen), as functions of JAX.

Each has the parameters of the operator, in its order and with its defaults, and returns what it returns: a
tuple where the graph takes elements of it. Two further values of a normalization or a pooling, which only
its derivative needs, are left out. Normalizations, softmax and activations are written as in Flax and
`jax.nn`, by which the methods that walk back recognize them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

OPERATORS: dict[str, Callable[..., Any]] = {}  # by name and overload, such as "add.Tensor"
_SPATIAL = "DHW"


def _operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype in JAX of that of the same name in PyTorch: of 64 bits where they are enabled."""
    return np.dtype(jax.dtypes.canonicalize_dtype(jnp.dtype(name)))


def _optional(name: str | None) -> np.dtype[Any] | None:
    return None if name is None else dtype_of(name)


# Elementwise. ---------------------------------------------------------------------------------------------


def _elementwise() -> dict[str, Callable[..., Any]]:
    unary = [
        "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "exp", "exp2",
        "expm1", "floor", "isinf", "isnan", "log", "log10", "log1p", "log2", "logical_not", "reciprocal",
        "round", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
    ]  # fmt: skip
    found: dict[str, Callable[..., Any]] = {f"{name}.default": getattr(jnp, name) for name in unary}
    others: dict[str, Callable[..., Any]] = {
        "neg": jnp.negative,
        "bitwise_not": jnp.invert,
        "rsqrt": lax.rsqrt,
        "erf": lax.erf,
        "relu": jax.nn.relu,
        "sigmoid": jax.nn.sigmoid,
        "silu": jax.nn.silu,
        "detach": lax.stop_gradient,
    }
    found |= {f"{name}.default": function for name, function in others.items()}
    binary: dict[str, Callable[..., Any]] = {
        "maximum.default": jnp.maximum,
        "minimum.default": jnp.minimum,
        "atan2.default": jnp.arctan2,
        "logical_and.default": jnp.logical_and,
        "logical_or.default": jnp.logical_or,
        "logical_xor.default": jnp.logical_xor,
    }
    by_kind: dict[str, Callable[..., Any]] = {
        "eq": jnp.equal,
        "ne": jnp.not_equal,
        "lt": jnp.less,
        "le": jnp.less_equal,
        "gt": jnp.greater,
        "ge": jnp.greater_equal,
        "mul": jnp.multiply,
        "bitwise_and": jnp.bitwise_and,
        "bitwise_or": jnp.bitwise_or,
        "bitwise_xor": jnp.bitwise_xor,
        "fmod": jnp.fmod,
        "remainder": jnp.remainder,
    }
    for name, function in by_kind.items():
        binary |= {f"{name}.Tensor": function, f"{name}.Scalar": function}
    return found | binary


OPERATORS |= _elementwise()


@_operator("clone.default", "alias.default", "lift_fresh_copy.default")
def _same(x: Any, **_: Any) -> Any:
    return x


@_operator("add.Tensor", "add.Scalar")
def _add(x: Any, y: Any, alpha: Any = 1) -> Any:
    return jnp.add(x, y if alpha == 1 else jnp.multiply(y, alpha))


@_operator("sub.Tensor", "sub.Scalar")
def _sub(x: Any, y: Any, alpha: Any = 1) -> Any:
    return jnp.subtract(x, y if alpha == 1 else jnp.multiply(y, alpha))


@_operator("div.Tensor", "div.Scalar", "div.Tensor_mode", "div.Scalar_mode")
def _div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    if rounding_mode == "trunc":
        if jnp.issubdtype(jnp.result_type(x, y), jnp.integer):
            return lax.div(*jnp.broadcast_arrays(x, jnp.asarray(y, x.dtype)))
        return jnp.trunc(jnp.true_divide(x, y))
    return jnp.true_divide(x, y)


@_operator("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar")
def _pow(x: Any, y: Any) -> Any:
    if isinstance(y, float) and y.is_integer() and abs(y) <= 8:
        y = int(y)  # a product, which has a rule in every method
    return jnp.power(x, y)


@_operator("where.self")
def _where(condition: Any, x: Any, y: Any) -> Any:
    return jnp.where(condition, x, y)


@_operator("clamp.default", "clamp.Tensor")
def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    return jnp.clip(x, low, high)


@_operator("hardtanh.default")
def _hardtanh(x: Any, low: float = -1.0, high: float = 1.0) -> Any:
    return jnp.clip(x, low, high)


@_operator("leaky_relu.default")
def _leaky_relu(x: Any, leak: float = 0.01) -> Any:
    return jax.nn.leaky_relu(x, leak)


@_operator("elu.default")
def _elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    positive = jnp.maximum(x, 0)
    return scale * (positive + alpha * jnp.expm1(input_scale * jnp.minimum(x, 0)))


@_operator("gelu.default")
def _gelu(x: Any, approximate: str = "none") -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@_operator("_to_copy.default")
def _to_copy(x: Any, *, dtype: Any = None, **_: Any) -> Any:
    return x if dtype is None else x.astype(dtype_of(dtype))


# Reductions. ----------------------------------------------------------------------------------------------


def _axes(dim: Any) -> Any:
    """Axes as in NumPy: PyTorch's empty list means all of them."""
    if dim is None or dim == ():
        return None
    return tuple(dim) if isinstance(dim, Sequence) else dim


@_operator("sum.default", "sum.dim_IntList")
def _sum(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return jnp.sum(x, _axes(dim), dtype=_optional(dtype), keepdims=keepdim)


@_operator("mean.default", "mean.dim")
def _mean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return jnp.mean(x, _axes(dim), dtype=_optional(dtype), keepdims=keepdim)


@_operator("var.correction")
def _var(x: Any, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    return jnp.var(x, _axes(dim), ddof=1 if correction is None else int(correction), keepdims=keepdim)


@_operator("prod.default", "prod.dim_int")
def _prod(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return jnp.prod(x, dim, dtype=_optional(dtype), keepdims=keepdim)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        return function(x, axis=_axes(dim), keepdims=keepdim)

    return reduce


OPERATORS |= {
    "amax.default": _reduction(jnp.max),
    "amin.default": _reduction(jnp.min),
    "max.default": _reduction(jnp.max),
    "min.default": _reduction(jnp.min),
    "any.default": _reduction(jnp.any),
    "any.dim": _reduction(jnp.any),
    "any.dims": _reduction(jnp.any),
    "argmax.default": _reduction(jnp.argmax),
    "argmin.default": _reduction(jnp.argmin),
}


@_operator("max.dim")
def _max_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    return jnp.max(x, dim, keepdims=keepdim), jnp.argmax(x, dim, keepdims=keepdim)


@_operator("min.dim")
def _min_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    return jnp.min(x, dim, keepdims=keepdim), jnp.argmin(x, dim, keepdims=keepdim)


@_operator("cumsum.default")
def _cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    return jnp.cumsum(x, dim, dtype=_optional(dtype))


@_operator("sort.default")
def _sort(x: Any, dim: int = -1, descending: bool = False) -> Any:
    order = jnp.argsort(x, dim, descending=descending, stable=True)
    return jnp.take_along_axis(x, order, dim), order


@_operator("topk.default")
def _topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:  # noqa: A002
    order = lax.slice_in_dim(jnp.argsort(x, dim, descending=largest, stable=True), 0, k, axis=dim)
    return jnp.take_along_axis(x, order, dim), order


# Products. ------------------------------------------------------------------------------------------------


@_operator("mm.default", "bmm.default")
def _matmul(x: Any, y: Any) -> Any:
    return jnp.matmul(x, y)


@_operator("addmm.default", "baddbmm.default")
def _addmm(z: Any, x: Any, y: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    product = jnp.matmul(x, y)
    return (product if alpha == 1 else alpha * product) + (z if beta == 1 else beta * z)


@_operator("convolution.default")
def _convolution(
    x: Any,
    kernel: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    axes = _SPATIAL[-(kernel.ndim - 2) :]
    n = len(axes)
    stride, padding, dilation, extra = (
        _each(value, n) for value in (stride, padding, dilation, output_padding)
    )
    if transposed:  # the gradient of a convolution: its kernel (in, out, ...), flipped
        kernel = _grouped_transpose(jnp.flip(kernel, tuple(range(2, n + 2))), groups)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
        pads = [(r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True)]
        strides, spread = (1,) * n, stride
    else:
        pads, strides, spread = [(p, p) for p in padding], stride, (1,) * n
    y = lax.conv_general_dilated(
        x, kernel, strides, pads, lhs_dilation=spread, rhs_dilation=dilation,
        dimension_numbers=(f"NC{axes}", f"OI{axes}", f"NC{axes}"), feature_group_count=groups,
    )  # fmt: skip
    return y if bias is None else y + bias.reshape(-1, *(1,) * n)


def _grouped_transpose(kernel: Any, groups: int) -> Any:
    """A kernel `(in, out / groups, ...)` as `(out, in / groups, ...)`."""
    inputs, outputs, *window = kernel.shape
    split = kernel.reshape(groups, inputs // groups, outputs, *window)
    return jnp.swapaxes(split, 1, 2).reshape(groups * outputs, inputs // groups, *window)


def _each(value: Any, n: int) -> tuple[int, ...]:
    """One number per axis, of a list that may have a single one for all."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * n if len(values) == 1 else values


# Pooling. -------------------------------------------------------------------------------------------------


def _windows(
    x: Any, size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, n: int
) -> dict[str, Any]:
    """Windows of the last n axes, and the padding: with `ceil_mode` the last may reach beyond it."""
    size = _each(size, n)
    stride = _each(stride, n) if stride not in (None, ()) else size
    padding, dilation = _each(padding, n), _each(dilation, n)
    pads = []
    for length, k, s, p, d in zip(x.shape[-n:], size, stride, padding, dilation, strict=True):
        rest = length + 2 * p - d * (k - 1) - 1
        steps = -(-rest // s) if ceil_mode else rest // s
        if steps * s >= length + p:  # a window may not start in the padding behind
            steps -= 1
        pads.append((p, max(steps * s + d * (k - 1) + 1 - length - p, 0)))
    none = x.ndim - n
    return {
        "window_dimensions": (1,) * none + size,
        "window_strides": (1,) * none + stride,
        "padding": [(0, 0)] * none + pads,
        "window_dilation": (1,) * none + dilation,
    }


@_operator("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")
def _max_pool(
    x: Any, size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    windows = _windows(x, size, stride, padding, dilation, ceil_mode, len(size))
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    # A number of NumPy, by which the reduction is known to have a derivative.
    return (lax.reduce_window(x, np.array(lowest, x.dtype), lax.max, **windows),)


def _avg_pool(
    x: Any, size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    n = len(size)
    windows = _windows(x, size, stride, padding, 1, ceil_mode, n)
    total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, **windows)
    if divisor_override is not None:
        return total / divisor_override
    # Padding in front counts or does not; what `ceil_mode` adds behind never does.
    shape, pads = x.shape[-n:], windows["padding"][-n:]
    own = [(p, p) if count_include_pad else (0, 0) for p in _each(padding, n)]
    counted = np.pad(np.ones(shape, np.dtype(x.dtype)), own, constant_values=1)
    rest = [(a - p, max(b - p, 0)) for (a, b), (p, _) in zip(pads, own, strict=True)]
    inner = {key: value[-n:] for key, value in windows.items()} | {"padding": rest}
    return total / lax.reduce_window(counted, np.array(0, x.dtype), lax.add, **inner)


OPERATORS |= dict.fromkeys(("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default"), _avg_pool)


@_operator("adaptive_avg_pool1d.default", "_adaptive_avg_pool2d.default", "_adaptive_avg_pool3d.default")
def _adaptive_avg_pool(x: Any, size: Any) -> Any:
    for axis, n in zip(range(x.ndim - len(size), x.ndim), size, strict=True):
        length = x.shape[axis]
        if length % n == 0:
            x = jnp.mean(x.reshape(*x.shape[:axis], n, length // n, *x.shape[axis + 1 :]), axis + 1)
        else:  # windows of different lengths: means as a product
            weights = np.zeros((n, length))
            for i in range(n):
                first, last = i * length // n, -(-(i + 1) * length // n)
                weights[i, first:last] = 1 / (last - first)
            product = jnp.tensordot(jnp.asarray(weights, x.dtype), x, (1, axis))
            x = jnp.moveaxis(product, 0, axis)
    return x


# Normalization and softmax. -------------------------------------------------------------------------------


@_operator("_native_batch_norm_legit_no_training.default")
def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, epsilon: float
) -> Any:
    mean, variance, weight, bias = (_as_channels(value, x) for value in (mean, variance, weight, bias))
    factor = lax.rsqrt(variance + epsilon)
    factor = factor if weight is None else factor * weight
    y = (x - mean) * factor
    return (y if bias is None else y + bias,)


@_operator("native_layer_norm.default")
def _layer_norm(x: Any, shape: Sequence[int], weight: Any, bias: Any, epsilon: float) -> Any:
    return (_scaled(_normalized(x, tuple(range(-len(shape), 0)), epsilon), weight, bias),)


@_operator("native_group_norm.default")
def _group_norm(
    x: Any, weight: Any, bias: Any, n: int, channels: int, size: int, groups: int, epsilon: float
) -> Any:
    grouped = x.reshape(n, groups, channels // groups, *x.shape[2:])
    y = _normalized(grouped, tuple(range(2, grouped.ndim)), epsilon).reshape(x.shape)
    return (_scaled(y, _as_channels(weight, x), _as_channels(bias, x)),)


@_operator("_native_batch_norm_legit.no_stats")
def _instance_norm(x: Any, weight: Any, bias: Any, training: bool, momentum: float, epsilon: float) -> Any:
    y = _normalized(x, (0, *range(2, x.ndim)), epsilon)
    return (_scaled(y, _as_channels(weight, x), _as_channels(bias, x)),)


def _as_channels(value: Any, x: Any) -> Any:
    """One number per channel, of the axes of x; None as it is."""
    return None if value is None else value.reshape(-1, *(1,) * (x.ndim - 2))


def _normalized(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    centered = x - jnp.mean(x, axes, keepdims=True)
    return centered * lax.rsqrt(jnp.mean(jnp.square(centered), axes, keepdims=True) + epsilon)


def _scaled(y: Any, weight: Any, bias: Any) -> Any:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@_operator("_softmax.default", "_safe_softmax.default")
def _softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return jax.nn.softmax(x.astype(jnp.float32) if half_to_float else x, dim)


@_operator("scaled_dot_product_attention.default")
def _attention(
    query: Any, key: Any, value: Any, mask: Any = None, dropout: float = 0.0, causal: bool = False, *,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Attention, whose decomposition tests each score for infinity; a query without keys gets 0."""
    if dropout:
        raise ValueError("`module` must not drop out in evaluation mode; attention has `dropout_p`")
    if enable_gqa:
        key, value = (jnp.repeat(each, query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2)) * (
        query.shape[-1] ** -0.5 if scale is None else scale
    )
    if causal:
        mask = jnp.tri(scores.shape[-2], scores.shape[-1], dtype=bool)
    if mask is None:
        return jnp.matmul(jax.nn.softmax(scores, -1), value)
    sees = jnp.broadcast_to(mask if mask.dtype == bool else mask > -jnp.inf, scores.shape)
    if mask.dtype != bool:
        scores = scores + jnp.where(mask > -jnp.inf, mask, 0)
    weights = jax.nn.softmax(jnp.where(sees, scores, jnp.finfo(scores.dtype).min), -1)
    return jnp.matmul(jnp.where(sees.any(-1, keepdims=True), weights, 0), value)


@_operator("_log_softmax.default")
def _log_softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return jax.nn.log_softmax(x.astype(jnp.float32) if half_to_float else x, dim)


# Shapes. --------------------------------------------------------------------------------------------------


@_operator("view.default", "_unsafe_view.default", "reshape.default")
def _view(x: Any, size: Sequence[int]) -> Any:
    return x.reshape(size)


@_operator("expand.default")
def _expand(x: Any, size: Sequence[int], *, implicit: bool = False) -> Any:
    new = len(size) - x.ndim
    return jnp.broadcast_to(x, [x.shape[i - new] if s == -1 else s for i, s in enumerate(size)])


@_operator("permute.default")
def _permute(x: Any, dims: Sequence[int]) -> Any:
    return jnp.transpose(x, dims)


@_operator("squeeze.dim", "squeeze.dims")
def _squeeze(x: Any, dim: Any) -> Any:
    dims = _each(dim, 1)
    return jnp.squeeze(x, tuple(d for d in dims if x.shape[d] == 1))


@_operator("unsqueeze.default")
def _unsqueeze(x: Any, dim: int) -> Any:
    return jnp.expand_dims(x, dim)


@_operator("cat.default")
def _cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    return jnp.concatenate([x for x in tensors if x.shape != (0,)], dim)


@_operator("stack.default")
def _stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    return jnp.stack(tensors, dim)


@_operator("split_with_sizes.default")
def _split(x: Any, sizes: Sequence[int], dim: int = 0) -> Any:
    return tuple(jnp.split(x, np.cumsum(sizes)[:-1].tolist(), dim))


@_operator("unbind.int")
def _unbind(x: Any, dim: int = 0) -> Any:
    return tuple(lax.index_in_dim(x, i, dim, keepdims=False) for i in range(x.shape[dim]))


@_operator("select.int")
def _select(x: Any, dim: int, index: int) -> Any:
    return lax.index_in_dim(x, index, dim, keepdims=False)


@_operator("slice.Tensor")
def _slice(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    start, end, step = slice(start, end, step).indices(x.shape[dim])
    return lax.slice_in_dim(x, start, max(start, end), step, dim)


@_operator("copy.default")
def _copy(x: Any, source: Any, non_blocking: bool = False) -> Any:
    return jnp.broadcast_to(source, x.shape).astype(x.dtype)


@_operator("slice_scatter.default")
def _slice_scatter(
    x: Any, source: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    return x.at[_along(x, dim, slice(start, end, step))].set(source)


@_operator("select_scatter.default")
def _select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    return x.at[_along(x, dim, index)].set(source)


def _along(x: Any, dim: int, place: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * (dim % x.ndim), place)


@_operator("flip.default")
def _flip(x: Any, dims: Sequence[int]) -> Any:
    return jnp.flip(x, dims)


@_operator("repeat.default")
def _repeat(x: Any, repeats: Sequence[int]) -> Any:
    return jnp.tile(x, repeats)


def _pad(mode: str) -> Callable[..., Any]:
    def pad(x: Any, padding: Sequence[int], value: Any = 0) -> Any:
        pairs = list(zip(padding[::2], padding[1::2], strict=True))[::-1]  # the last axis first
        pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs
        if mode == "constant":  # negative numbers cut off
            return lax.pad(x, jnp.asarray(value, x.dtype), [(a, b, 0) for a, b in pairs])
        return jnp.pad(x, pairs, mode=mode)

    return pad


OPERATORS["constant_pad_nd.default"] = _pad("constant")
for _n in (1, 2, 3):
    OPERATORS[f"reflection_pad{_n}d.default"] = _pad("reflect")
    OPERATORS[f"replication_pad{_n}d.default"] = _pad("edge")


@_operator("as_strided.default")
def _as_strided(x: Any, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Any:
    place = np.full((), offset or 0)
    for n, step in zip(size, stride, strict=True):
        place = place[..., None] + np.arange(n) * step
    return x.reshape(-1)[place]


@_operator("pixel_shuffle.default")
def _pixel_shuffle(x: Any, factor: int) -> Any:
    *batch, channels, height, width = x.shape
    split = x.reshape(*batch, channels // factor**2, factor, factor, height, width)
    n = len(batch)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return split.transpose(order).reshape(*batch, channels // factor**2, height * factor, width * factor)


# Indices. -------------------------------------------------------------------------------------------------


def _as_places(indices: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


@_operator("index.Tensor")
def _index(x: Any, indices: Sequence[Any]) -> Any:
    return x[_as_places(indices)]


@_operator("index_put.default")
def _index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    masks = [index for index in indices if index is not None and index.dtype == bool]
    if masks:
        if len(indices) > 1 or jnp.size(values) != 1 or accumulate:
            raise ValueError("`module` must not assign several values by a mask, whose number is not known")
        mask = masks[0].reshape(masks[0].shape + (1,) * (x.ndim - masks[0].ndim))
        return jnp.where(mask, jnp.reshape(values, ()).astype(x.dtype), x)
    places = x.at[_as_places(indices)]
    return places.add(values) if accumulate else places.set(values)


@_operator("index_select.default")
def _index_select(x: Any, dim: int, index: Any) -> Any:
    return jnp.take(x, index, dim)


@_operator("embedding.default")
def _embedding(weight: Any, index: Any, *_: Any, **__: Any) -> Any:
    return jnp.take(weight, index, 0)


@_operator("gather.default")
def _gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    return x[_scatter_places(x, dim, index)]


@_operator("scatter.src", "scatter.value")
def _scatter(x: Any, dim: int, index: Any, source: Any) -> Any:
    return x.at[_scatter_places(x, dim, index)].set(_source(source, index))


@_operator("scatter_add.default")
def _scatter_add(x: Any, dim: int, index: Any, source: Any) -> Any:
    return x.at[_scatter_places(x, dim, index)].add(_source(source, index))


def _scatter_places(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    places = list(jnp.indices(index.shape, sparse=True))
    places[dim] = index
    return tuple(places)


def _source(source: Any, index: Any) -> Any:
    return source[tuple(slice(n) for n in index.shape)] if jnp.ndim(source) else source


# New values. ----------------------------------------------------------------------------------------------


@_operator("full.default")
def _full(size: Sequence[int], value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.full(size, value, _optional(dtype))


@_operator("full_like.default")
def _full_like(x: Any, value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.full_like(x, value, dtype=_optional(dtype))


@_operator("scalar_tensor.default")
def _scalar_tensor(value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.asarray(value, _optional(dtype))


@_operator("arange.start_step")
def _arange(start: Any, end: Any, step: Any = 1, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.arange(start, end, step, dtype=_optional(dtype))


@_operator("empty.memory_format")
def _empty(size: Sequence[int], *, dtype: Any = None, **_: Any) -> Any:
    return jnp.zeros(size, _optional(dtype))


# Resizing. ------------------------------------------------------------------------------------------------


def _sizes(x: Any, size: Any, factors: Any) -> tuple[int, ...]:
    lengths = x.shape[2:]
    return (
        tuple(size) if size is not None else tuple(int(n * f) for n, f in zip(lengths, factors, strict=True))
    )


@_operator("upsample_bilinear2d.vec", "upsample_trilinear3d.vec", "upsample_linear1d.vec")
def _upsample_linear(x: Any, size: Any, align_corners: bool, factors: Any) -> Any:
    for i, n in enumerate(_sizes(x, size, factors)):
        length = x.shape[i + 2]
        if n == length:  # a copy, at any factor
            continue
        if align_corners:
            places = np.linspace(0, length - 1, n) if n > 1 else np.zeros(1)
        else:
            scale = length / n if factors is None else 1 / factors[i]
            places = np.maximum((np.arange(n) + 0.5) * scale - 0.5, 0)
        low = np.minimum(places.astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        weights = np.zeros((n, length))
        np.add.at(weights, (np.arange(n), low), 1 - (places - low))
        np.add.at(weights, (np.arange(n), high), places - low)
        x = jnp.moveaxis(jnp.tensordot(jnp.asarray(weights, x.dtype), x, (1, i + 2)), 0, i + 2)
    return x


@_operator("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def _upsample_nearest(x: Any, size: Any, factors: Any) -> Any:
    for i, n in enumerate(_sizes(x, size, factors)):
        length = x.shape[i + 2]
        # A copy, or each element twice, at any factor.
        exact = factors is None or n in (length, 2 * length)
        scale = length / n if exact else 1 / factors[i]
        places = np.minimum(np.floor(np.arange(n) * scale).astype(int), length - 1)
        x = jnp.take(x, places, i + 2)
    return x
