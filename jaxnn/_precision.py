"""Precision of sums and random draws: at least float32.

A sum of many bfloat16 values stops growing, and a normal number drawn in bfloat16 is one of 128.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def wide_dtype(dtype: Any) -> Any:
    """The dtype to accumulate values of `dtype` in: float32, or float64 for float64."""
    # Not by `promote_types`, which strict promotion refuses.
    is_wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.dtype(dtype).itemsize >= 4
    return jnp.dtype(dtype) if is_wide else jnp.dtype(jnp.float32)


def float_dtype(dtype: Any) -> Any:
    """The dtype of floating-point numbers beside values of `dtype`: itself, or JAX's default for integers."""
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def widen(values: jax.Array) -> jax.Array:
    """Cast to at least float32."""
    return values.astype(wide_dtype(values.dtype))


def draw_wide(
    sample: Callable[..., jax.Array], key: jax.Array, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    """Draw random numbers in at least float32, and round them to `dtype`.

    `jax.random` draws only as many random bits as the dtype has digits. So half precision would have other,
    and far fewer, numbers than float32 for the same key.

    Args:
        sample: `sample(key, shape, dtype)`, such as `jax.random.normal`.
        key: a random key.
        shape: of the result.
        dtype: of the result.
    """
    return sample(key, shape, wide_dtype(dtype)).astype(dtype)
