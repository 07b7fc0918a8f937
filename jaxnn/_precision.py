"""Precision of sums: at least float32, since a sum of many bfloat16 values stops growing."""

from typing import Any

import jax
import jax.numpy as jnp


def wide_dtype(dtype: Any) -> Any:
    """The dtype to accumulate values of `dtype` in: float32, or float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def float_dtype(dtype: Any) -> Any:
    """The dtype of floating-point numbers beside values of `dtype`: itself, or JAX's default for integers."""
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def widen(values: jax.Array) -> jax.Array:
    """Cast to at least float32."""
    return values.astype(wide_dtype(values.dtype))
