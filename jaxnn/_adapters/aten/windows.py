"""Operators of neighboring elements: convolution, pooling and resizing."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._adapters.aten.registry import OPERATORS, along_axis, each, operator

_SPATIAL = "DHW"


@operator("convolution.default")
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
        each(value, n) for value in (stride, padding, dilation, output_padding)
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


def _windows(
    x: Any, size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, n: int
) -> dict[str, Any]:
    """Windows of the last n axes, and the padding: with `ceil_mode` the last may reach beyond it."""
    size = each(size, n)
    stride = each(stride, n) if stride not in (None, ()) else size
    padding, dilation = each(padding, n), each(dilation, n)
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


@operator("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")
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
    own = [(p, p) if count_include_pad else (0, 0) for p in each(padding, n)]
    counted = np.pad(np.ones(shape, np.dtype(x.dtype)), own, constant_values=1)
    rest = [(a - p, max(b - p, 0)) for (a, b), (p, _) in zip(pads, own, strict=True)]
    inner = {key: value[-n:] for key, value in windows.items()} | {"padding": rest}
    return total / lax.reduce_window(counted, np.array(0, x.dtype), lax.add, **inner)


OPERATORS |= dict.fromkeys(("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default"), _avg_pool)


@operator("adaptive_avg_pool1d.default", "_adaptive_avg_pool2d.default", "_adaptive_avg_pool3d.default")
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
            x = along_axis(weights, x, axis)
    return x


def _sizes(x: Any, size: Any, factors: Any) -> tuple[int, ...]:
    if size is not None:
        return tuple(size)
    return tuple(int(n * factor) for n, factor in zip(x.shape[2:], factors, strict=True))


@operator("upsample_bilinear2d.vec", "upsample_trilinear3d.vec", "upsample_linear1d.vec")
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
        x = along_axis(weights, x, i + 2)
    return x


@operator("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def _upsample_nearest(x: Any, size: Any, factors: Any) -> Any:
    for i, n in enumerate(_sizes(x, size, factors)):
        length = x.shape[i + 2]
        # A copy, or each element twice, at any factor.
        exact = factors is None or n in (length, 2 * length)
        scale = length / n if exact else 1 / factors[i]
        places = np.minimum(np.floor(np.arange(n) * scale).astype(int), length - 1)
        x = jnp.take(x, places, i + 2)
    return x
