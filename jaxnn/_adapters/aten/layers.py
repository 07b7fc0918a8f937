"""Products, normalizations, softmax and attention, as in Flax and `jax.nn`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._adapters.aten.registry import operator


@operator("mm.default", "bmm.default")
def _matmul(x: Any, y: Any) -> Any:
    return jnp.matmul(x, y)


@operator("addmm.default", "baddbmm.default")
def _addmm(z: Any, x: Any, y: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    product = jnp.matmul(x, y)
    return (product if alpha == 1 else alpha * product) + (z if beta == 1 else beta * z)


@operator("_native_batch_norm_legit_no_training.default")
def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, epsilon: float
) -> Any:
    mean, variance, weight, bias = (_as_channels(value, x) for value in (mean, variance, weight, bias))
    factor = lax.rsqrt(variance + epsilon)
    factor = factor if weight is None else factor * weight
    y = (x - mean) * factor
    return (y if bias is None else y + bias,)


@operator("native_layer_norm.default")
def _layer_norm(x: Any, shape: Sequence[int], weight: Any, bias: Any, epsilon: float) -> Any:
    return (_scaled(_normalized(x, tuple(range(-len(shape), 0)), epsilon), weight, bias),)


@operator("native_group_norm.default")
def _group_norm(
    x: Any, weight: Any, bias: Any, n: int, channels: int, size: int, groups: int, epsilon: float
) -> Any:
    grouped = x.reshape(n, groups, channels // groups, *x.shape[2:])
    y = _normalized(grouped, tuple(range(2, grouped.ndim)), epsilon).reshape(x.shape)
    return (_scaled(y, _as_channels(weight, x), _as_channels(bias, x)),)


@operator("_native_batch_norm_legit.no_stats")
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


@operator("_softmax.default", "_safe_softmax.default")
def _softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return jax.nn.softmax(x.astype(jnp.float32) if half_to_float else x, dim)


@operator("scaled_dot_product_attention.default")
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


@operator("_log_softmax.default")
def _log_softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return jax.nn.log_softmax(x.astype(jnp.float32) if half_to_float else x, dim)
