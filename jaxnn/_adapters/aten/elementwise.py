"""Operators of each element, and reductions over axes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._adapters.aten.registry import OPERATORS, dtype_of, operator, optional


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


@operator("clone.default", "alias.default", "lift_fresh_copy.default")
def _same(x: Any, **_: Any) -> Any:
    return x


@operator("add.Tensor", "add.Scalar")
def _add(x: Any, y: Any, alpha: Any = 1) -> Any:
    return jnp.add(x, y if alpha == 1 else jnp.multiply(y, alpha))


@operator("sub.Tensor", "sub.Scalar")
def _sub(x: Any, y: Any, alpha: Any = 1) -> Any:
    return jnp.subtract(x, y if alpha == 1 else jnp.multiply(y, alpha))


@operator("div.Tensor", "div.Scalar", "div.Tensor_mode", "div.Scalar_mode")
def _div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    if rounding_mode == "trunc":
        if jnp.issubdtype(jnp.result_type(x, y), jnp.integer):
            return lax.div(*jnp.broadcast_arrays(x, jnp.asarray(y, x.dtype)))
        return jnp.trunc(jnp.true_divide(x, y))
    return jnp.true_divide(x, y)


@operator("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar")
def _pow(x: Any, y: Any) -> Any:
    if isinstance(y, float) and y.is_integer() and abs(y) <= 8:
        y = int(y)  # a product, which has a rule in every method
    return jnp.power(x, y)


@operator("where.self")
def _where(condition: Any, x: Any, y: Any) -> Any:
    return jnp.where(condition, x, y)


@operator("clamp.default", "clamp.Tensor")
def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    return jnp.clip(x, low, high)


@operator("hardtanh.default")
def _hardtanh(x: Any, low: float = -1.0, high: float = 1.0) -> Any:
    return jnp.clip(x, low, high)


@operator("leaky_relu.default")
def _leaky_relu(x: Any, leak: float = 0.01) -> Any:
    return jax.nn.leaky_relu(x, leak)


@operator("elu.default")
def _elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    positive = jnp.maximum(x, 0)
    return scale * (positive + alpha * jnp.expm1(input_scale * jnp.minimum(x, 0)))


@operator("gelu.default")
def _gelu(x: Any, approximate: str = "none") -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@operator("_to_copy.default")
def _to_copy(x: Any, *, dtype: Any = None, **_: Any) -> Any:
    return x if dtype is None else x.astype(dtype_of(dtype))


def _axes(dim: Any) -> Any:
    """Axes as in NumPy: PyTorch's empty list means all of them."""
    if dim is None or dim == ():
        return None
    return tuple(dim) if isinstance(dim, Sequence) else dim


@operator("sum.default", "sum.dim_IntList")
def _sum(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return jnp.sum(x, _axes(dim), dtype=optional(dtype), keepdims=keepdim)


@operator("mean.default", "mean.dim")
def _mean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return jnp.mean(x, _axes(dim), dtype=optional(dtype), keepdims=keepdim)


@operator("var.correction")
def _var(x: Any, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    return jnp.var(x, _axes(dim), ddof=1 if correction is None else int(correction), keepdims=keepdim)


@operator("prod.default", "prod.dim_int")
def _prod(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return jnp.prod(x, dim, dtype=optional(dtype), keepdims=keepdim)


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


@operator("max.dim")
def _max_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    return jnp.max(x, dim, keepdims=keepdim), jnp.argmax(x, dim, keepdims=keepdim)


@operator("min.dim")
def _min_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    return jnp.min(x, dim, keepdims=keepdim), jnp.argmin(x, dim, keepdims=keepdim)


@operator("cumsum.default")
def _cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    return jnp.cumsum(x, dim, dtype=optional(dtype))


@operator("sort.default")
def _sort(x: Any, dim: int = -1, descending: bool = False) -> Any:
    order = jnp.argsort(x, dim, descending=descending, stable=True)
    return jnp.take_along_axis(x, order, dim), order


@operator("topk.default")
def _topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:  # noqa: A002
    order = lax.slice_in_dim(jnp.argsort(x, dim, descending=largest, stable=True), 0, k, axis=dim)
    return jnp.take_along_axis(x, order, dim), order
