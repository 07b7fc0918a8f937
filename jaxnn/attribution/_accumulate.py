"""Sums over steps and samples in chunks: memory grows with a chunk, not with their number.

Totals are held at least in float32, whatever the precision of what is added.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._model import vary_like


class Estimate(NamedTuple):
    """An attribution that was estimated from samples.

    Attributes:
        values: the attribution.
        standard_error: of `values`, of the same structure. Four times the samples halve it.
    """

    values: Any
    standard_error: Any


def weighted_sum(function: Callable[[Any], Any], rows: Any, weights: Any, batch_size: int) -> Any:
    """`sum_k weights_k * function(rows_k)`, so many rows at a time.

    Args:
        function: from one row to a pytree of arrays.
        rows: a pytree of arrays with a first axis of `n`.
        weights: `(n,)`, in NumPy.
        batch_size: rows at a time.
    """
    (rows, weights), chunks = _chunks((rows, weights), len(weights), batch_size)

    def total(chunk: Any) -> Any:
        rows, weights = chunk
        values = jax.vmap(function)(rows)
        return jax.tree.map(lambda v: jnp.sum(_column(weights, v) * v.astype(_wide(v)), axis=0), values)

    if chunks == 1:
        return total(_first((rows, weights)))
    start = _zeros(total, (rows, weights))
    add = lambda sums, chunk: (jax.tree.map(jnp.add, sums, total(chunk)), None)  # noqa: E731
    return lax.scan(add, start, (rows, weights))[0]


class Moments(NamedTuple):
    """Of samples: their number, and in each entry their mean and the sum of squared deviations from it."""

    count: jax.Array
    mean: Any
    squares: Any

    def variance(self) -> Any:
        """Of the samples themselves, with their number as the divisor."""
        return jax.tree.map(lambda s: s / self.count, self.squares)

    def standard_error(self) -> Any:
        """Of the mean; the variance of what was sampled is estimated with `n - 1` as the divisor."""
        return jax.tree.map(lambda s: jnp.sqrt(s / (self.count - 1) / self.count), self.squares)


def moments(function: Callable[[jax.Array], Any], samples: int, batch_size: int) -> Moments:
    """Mean and variance of `function(i)` for `i` from 0, so many samples at a time.

    Chunks are merged by their means and squared deviations, as the mean of squares less the squared mean
    loses all digits where the mean is large (Chan, Golub and LeVeque 1979).

    Args:
        function: from the number of a sample to a pytree of arrays.
        samples: how many.
        batch_size: samples at a time.
    """
    chunked, chunks = _chunks((np.arange(samples), np.ones(samples)), samples, batch_size)

    def of_chunk(chunk: Any) -> Moments:
        rows, present = chunk
        values = jax.tree.map(lambda v: v.astype(_wide(v)), jax.vmap(function)(rows))
        count = jnp.sum(present)
        mean = jax.tree.map(lambda v: jnp.sum(_column(present, v) * v, axis=0) / count, values)
        squares = jax.tree.map(lambda v, m: jnp.sum(_column(present, v) * (v - m) ** 2, axis=0), values, mean)
        return Moments(count, mean, squares)

    def merge(held: Moments, chunk: Any) -> tuple[Moments, None]:
        new = of_chunk(chunk)
        count = held.count + new.count
        share = new.count / count
        apart = jax.tree.map(jnp.subtract, new.mean, held.mean)
        mean = jax.tree.map(lambda m, a: m + a * share, held.mean, apart)
        squares = jax.tree.map(
            lambda s, t, a: s + t + a**2 * share * held.count, held.squares, new.squares, apart
        )
        return Moments(count, mean, squares), None

    if chunks == 1:
        return of_chunk(_first(chunked))
    return lax.scan(merge, _zeros(of_chunk, chunked), chunked)[0]


def as_dtype_of(values: Any, x: Any) -> Any:
    """Totals in the precision of what they belong to."""
    return jax.tree.map(lambda v, like: v.astype(like.dtype), values, x)


def _chunks(rows: Any, count: int, batch_size: int) -> tuple[Any, int]:
    """Rows and their weights as `(chunks, batch_size, ...)`, filled up with the last row at no weight."""
    rows, weights = rows
    size = min(batch_size, count)
    chunks = -(-count // size)
    place = np.arange(chunks * size)
    row = np.minimum(place, count - 1)
    rows = jax.tree.map(lambda a: a[row].reshape(chunks, size, *a.shape[1:]), rows)
    weights = np.where(place < count, np.asarray(weights)[row], 0.0).reshape(chunks, size)
    return (rows, weights.astype(jnp.result_type(float))), chunks


def _first(chunked: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a[0]), chunked)


def _zeros(function: Callable[[Any], Any], chunked: Any) -> Any:
    """Zeros as the function would give; a loop must begin with what it goes on with, also in `shard_map`."""
    shapes = jax.eval_shape(function, _first(chunked))
    return jax.tree.map(lambda s: vary_like(jnp.zeros(s.shape, s.dtype), s), shapes)


def _column(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Weights that multiply along the first axis."""
    return weights.astype(_wide(values)).reshape(-1, *(1,) * (values.ndim - 1))


def _wide(values: Any) -> Any:
    return jnp.promote_types(values.dtype, jnp.float32)
