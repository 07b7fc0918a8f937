"""Sums over quadrature nodes and Monte Carlo estimates over random samples, a chunk at a time.

Sums are accumulated in at least float32, for any precision of the terms.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.typing import DTypeLike

from jaxnn import _checks
from jaxnn._engine.cpu_layout import hoisted
from jaxnn._engine.jaxpr import trace
from jaxnn._engine.loops import chunked_scan
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._precision import wide_dtype, widen
from jaxnn._typing import Key, PyTree

_canonical = jax.dtypes.canonicalize_dtype
Function = Callable[[PyTree], PyTree]  # from one row, or the index of one sample, to a pytree of arrays


class Estimate(NamedTuple):
    """A value estimated from samples.

    Attributes:
        value: of the structure of the example.
        standard_error: of the same structure: the standard deviation of `value` over random keys, estimated
            from the samples of the one key.
    """

    value: PyTree
    standard_error: PyTree


class Moments(NamedTuple):
    """Running moments: the number of samples, their mean, and the sum of squared distances to it."""

    number: jax.Array
    mean: jax.Array
    squares: jax.Array


class Sampling(NamedTuple):
    """The options of a Monte Carlo estimate; hashable, as a static argument.

    Attributes:
        n_samples: number of samples.
        batch_size: how many samples per chunk.
        with_error: whether to return an `Estimate`.
    """

    n_samples: int
    batch_size: Batch
    with_error: bool = False


def check_sampling(
    key: Key,
    n_samples: int,
    batch_size: int | None,
    most: int,
    *,
    with_error: bool = False,
    at_least: int = 1,
) -> Sampling:
    """Check the key and the options of a Monte Carlo estimate; a standard error takes 2 samples.

    `most` is the largest number of samples at a time where `batch_size` is None.
    """
    _checks.check_key("key", key)
    with_error = _checks.check_flag("with_error", with_error)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=max(at_least, 2 if with_error else 1))
    _checks.check_bytes("n_samples", 48 * n_samples)
    return Sampling(n_samples, check_batch_size(batch_size, most), with_error)


def weighted_sum(function: Function, rows: PyTree, weights: np.ndarray, batch_size: Batch) -> PyTree:
    """`sum_k weights_k * function(rows_k)`, a chunk of rows at a time.

    Args:
        function: from one row to a pytree of arrays.
        rows: a pytree of NumPy arrays, `(n, ...)`.
        weights: `(n,)`.
        batch_size: how many rows per chunk.
    """
    # Copies: JAX caches the array of a NumPy array by identity, also after float64 has been enabled.
    rows, factors = jax.tree.map(lambda a: jnp.asarray(a.astype(_canonical(a.dtype))), (rows, weights))

    evaluate, one, shapes = _trace_once(function, jax.tree.map(lambda row: row[0], rows))

    def step(sums: PyTree, indices: jax.Array, valid: jax.Array) -> tuple[PyTree, None]:
        values = jax.vmap(evaluate)(jax.tree.map(lambda row: row[indices], rows))
        weight = jnp.where(valid, factors[indices], 0)
        # A product reads the values once. Multiplying and summing was four times as slow on a CPU.
        return jax.tree.map(
            lambda s, v: s + jnp.tensordot(weight.astype(s.dtype), widen(v), 1, precision="highest"),
            sums,
            values,
        ), None

    start = jax.tree.map(lambda s: jnp.zeros(s.shape, wide_dtype(s.dtype)), shapes)
    return chunked_scan(step, start, len(weights), batch_size.size(one), hoist=False)[0]


def _trace_once(function: Function, row: PyTree) -> tuple[Function, core.ClosedJaxpr, PyTree]:
    """A function of a row as its jaxpr, for a loop; the jaxpr; and the shapes of the results."""
    traced = trace(function, row)
    handlers = hoisted(1, traced)
    shapes = jax.tree.unflatten(traced.structure, traced.jaxpr.out_avals)
    return (
        lambda row: traced._replace(inputs=jax.tree.leaves(row)).evaluate(handlers)[0],
        traced.jaxpr,
        shapes,
    )


def moments(function: Function, sampling: Sampling) -> PyTree:
    """The `Moments` of each array of `function(s)`, for the samples `s` from 0 to `n_samples - 1`."""
    evaluate, one, shapes = _trace_once(function, jnp.array(0))

    def step(current: PyTree, indices: jax.Array, valid: jax.Array) -> tuple[PyTree, None]:
        values = jax.vmap(evaluate)(indices)
        return _map_moments(lambda m, v: merge(m, widen(v), valid), current, values), None

    start = jax.tree.map(lambda s: no_samples(s.shape, wide_dtype(s.dtype)), shapes)
    return chunked_scan(step, start, sampling.n_samples, sampling.batch_size.size(one), hoist=False)[0]


def estimate(function: Function, sampling: Sampling, finish: Function) -> PyTree:
    """The mean of `function(s)` over the samples, or an `Estimate` where `sampling.with_error`.

    Args:
        function: from the index of one sample to a pytree of arrays.
        sampling: its options.
        finish: from the mean, or its standard error, to the result: to the shape and dtype of the example.
    """
    total = moments(function, sampling)
    mean = finish(_map_moments(lambda m: m.mean, total))
    return Estimate(mean, finish(_map_moments(standard_error, total))) if sampling.with_error else mean


def variance(function: Function, sampling: Sampling, finish: Function) -> PyTree:
    """The variance of `function(s)` over the samples, divided by their number; see `estimate`."""
    return finish(_map_moments(lambda m: m.squares / m.number, moments(function, sampling)))


def as_dtype_of(values: PyTree, x: PyTree) -> PyTree:
    """Cast each array to the dtype of that of `x`."""
    return jax.tree.map(lambda v, like: v.astype(like.dtype), values, x)


def _map_moments(function: Callable[..., PyTree], *trees: PyTree) -> PyTree:
    return jax.tree.map(function, *trees, is_leaf=lambda value: isinstance(value, Moments))


def no_samples(shape: tuple[int, ...], dtype: DTypeLike) -> Moments:
    """The moments before the first sample."""
    return Moments(jnp.zeros((), dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def merge(moments: Moments, samples: jax.Array, valid: jax.Array) -> Moments:
    """Update moments by the `valid` `(b,)` ones of `samples` `(b, ...)`.

    The squares of a chunk are about its own mean: the difference of two large sums would lose them.

    References:
        Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
        1979, equation 2.1.
    """
    weights = valid.astype(moments.mean.dtype)
    shaped = weights.reshape(-1, *(1,) * (samples.ndim - 1))
    added = jnp.sum(weights)
    mean = jnp.sum(shaped * samples, axis=0) / jnp.maximum(added, 1)
    squares = jnp.sum(shaped * jnp.square(samples - mean[None]), axis=0)
    number, shift = moments.number + added, mean - moments.mean
    fraction = added / jnp.maximum(number, 1)
    return Moments(
        number,
        moments.mean + shift * fraction,
        moments.squares + squares + jnp.square(shift) * moments.number * fraction,
    )


def standard_error(moments: Moments) -> jax.Array:
    """The standard error of the mean: `sqrt(sum of squares / (n - 1) / n)`."""
    return safe_sqrt(moments.squares / (moments.number - 1) / moments.number)


def safe_sqrt(values: jax.Array) -> jax.Array:
    """The square root of positive values, with gradient 0 (not infinity) at 0; others are unchanged."""
    return jnp.where(values > 0, jnp.sqrt(jnp.where(values > 0, values, 1)), values)
