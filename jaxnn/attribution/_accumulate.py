"""Sums over steps and samples, a few at a time.

Totals are held at least in float32, whatever the precision of what is added.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._engine.loops import chunked_scan
from jaxnn.attribution._estimate import Estimate, Moments, merge, no_samples, standard_error, wide

_canonical = jax.dtypes.canonicalize_dtype
Function = Callable[[Any], Any]  # from one row, or the number of one sample, to a pytree of arrays


def weighted_sum(function: Function, rows: Any, weights: np.ndarray, batch_size: int) -> Any:
    """`sum_k weights_k * function(rows_k)`, `batch_size` rows at a time.

    Args:
        function: what is summed.
        rows: a pytree of NumPy arrays, `(n, ...)`.
        weights: `(n,)`.
        batch_size: rows at a time.
    """
    # Copies: JAX remembers by its identity what a NumPy array became, also where float64 is on since.
    rows, factors = jax.tree.map(lambda a: jnp.asarray(a.astype(_canonical(a.dtype))), (rows, weights))

    def step(sums: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, None]:
        values = jax.vmap(function)(jax.tree.map(lambda row: row[indices], rows))
        weight = jnp.where(valid, factors[indices], 0)
        # As a product, which reads the values once; products and sums were four times as slow on a CPU.
        return jax.tree.map(
            lambda s, v: s + jnp.tensordot(weight.astype(_wide(v)), wide(v), 1, precision="highest"),
            sums,
            values,
        ), None

    start = jax.tree.map(lambda s: jnp.zeros(s.shape, _wide(s)), _shapes(function, rows))
    return chunked_scan(step, start, len(weights), batch_size)[0]


def moments(function: Function, n_samples: int, batch_size: int) -> Any:
    """The `Moments` of each array of `function(s)`, for `s` from 0 to `n_samples - 1`.

    Args:
        function: what is sampled, by the number of the sample.
        n_samples: how many.
        batch_size: samples at a time.
    """

    def step(held: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, None]:
        values = jax.vmap(function)(indices)
        return jax.tree.map(lambda m, v: merge(m, wide(v), valid), held, values, is_leaf=_is_moments), None

    start = jax.tree.map(lambda s: no_samples(s.shape, _wide(s)), _shapes(function, jnp.arange(n_samples)))
    return chunked_scan(step, start, n_samples, batch_size)[0]


def mean_of(held: Any, x: Any, *, with_error: bool = False) -> Any:
    """What was estimated, in the precision of `x`; an `Estimate` where its errors are asked for."""
    mean = as_dtype_of(jax.tree.map(lambda m: m.mean, held, is_leaf=_is_moments), x)
    if not with_error:
        return mean
    return Estimate(mean, as_dtype_of(jax.tree.map(standard_error, held, is_leaf=_is_moments), x))


def variance_of(held: Any, x: Any) -> Any:
    """The variance of the samples themselves, their number being the divisor."""
    return as_dtype_of(jax.tree.map(lambda m: m.squares / m.number, held, is_leaf=_is_moments), x)


def as_dtype_of(values: Any, x: Any) -> Any:
    """Totals in the precision of what they belong to."""
    return jax.tree.map(lambda v, like: v.astype(like.dtype), values, x)


def _is_moments(value: Any) -> bool:
    return isinstance(value, Moments)


def _shapes(function: Function, rows: Any) -> Any:
    return jax.eval_shape(function, jax.tree.map(lambda row: row[0], rows))


def _wide(values: Any) -> Any:
    return jnp.promote_types(values.dtype, jnp.float32)
