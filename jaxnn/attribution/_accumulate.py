"""Sums over quadrature nodes and random samples, a chunk at a time.

Sums are accumulated in at least float32, for any precision of the terms.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.loops import chunked_scan
from jaxnn._precision import wide_dtype, widen
from jaxnn._typing import Key, PyTree
from jaxnn.attribution._estimate import Estimate, Moments, merge, no_samples, standard_error

_canonical = jax.dtypes.canonicalize_dtype
Function = Callable[[PyTree], PyTree]  # from one row, or the index of one sample, to a pytree of arrays


class Sampling(NamedTuple):
    """The options of a Monte Carlo estimate; hashable, as a static argument.

    Attributes:
        n_samples: number of samples.
        batch_size: samples per chunk.
        with_error: whether to return an `Estimate`.
    """

    n_samples: int
    batch_size: int
    with_error: bool = False


def check_sampling(
    key: Key, n_samples: int, batch_size: int, *, with_error: bool = False, at_least: int = 1
) -> Sampling:
    """Check the key and the options of a Monte Carlo estimate; a standard error takes 2 samples."""
    _checks.check_key("key", key)
    return Sampling(
        _checks.check_integer("n_samples", n_samples, at_least=max(at_least, 2 if with_error else 1)),
        _checks.check_integer("batch_size", batch_size, at_least=1),
        bool(with_error),
    )


def weighted_sum(function: Function, rows: PyTree, weights: np.ndarray, batch_size: int) -> PyTree:
    """`sum_k weights_k * function(rows_k)`, `batch_size` rows at a time.

    Args:
        function: from one row to a pytree of arrays.
        rows: a pytree of NumPy arrays, `(n, ...)`.
        weights: `(n,)`.
        batch_size: rows per chunk.
    """
    # Copies: JAX caches the array of a NumPy array by identity, also after float64 has been enabled.
    rows, factors = jax.tree.map(lambda a: jnp.asarray(a.astype(_canonical(a.dtype))), (rows, weights))

    def step(sums: PyTree, indices: jax.Array, valid: jax.Array) -> tuple[PyTree, None]:
        values = jax.vmap(function)(jax.tree.map(lambda row: row[indices], rows))
        weight = jnp.where(valid, factors[indices], 0)
        # A product reads the values once. Multiplying and summing was four times as slow on a CPU.
        return jax.tree.map(
            lambda s, v: s + jnp.tensordot(weight.astype(s.dtype), widen(v), 1, precision="highest"),
            sums,
            values,
        ), None

    start = jax.tree.map(lambda s: jnp.zeros(s.shape, wide_dtype(s.dtype)), _shapes(function, rows))
    return chunked_scan(step, start, len(weights), batch_size)[0]


def moments(function: Function, sampling: Sampling) -> PyTree:
    """The `Moments` of each array of `function(s)`, for the samples `s` from 0 to `n_samples - 1`."""

    def step(current: PyTree, indices: jax.Array, valid: jax.Array) -> tuple[PyTree, None]:
        values = jax.vmap(function)(indices)
        return _map_moments(lambda m, v: merge(m, widen(v), valid), current, values), None

    shapes = _shapes(function, jnp.arange(sampling.n_samples))
    start = jax.tree.map(lambda s: no_samples(s.shape, wide_dtype(s.dtype)), shapes)
    return chunked_scan(step, start, sampling.n_samples, sampling.batch_size)[0]


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


def variance_of(total: PyTree, x: PyTree) -> PyTree:
    """The variance of the samples, divided by their number, in the dtypes of `x`."""
    return as_dtype_of(_map_moments(lambda m: m.squares / m.number, total), x)


def as_dtype_of(values: PyTree, x: PyTree) -> PyTree:
    """Cast each array to the dtype of that of `x`."""
    return jax.tree.map(lambda v, like: v.astype(like.dtype), values, x)


def _map_moments(function: Callable[..., PyTree], *trees: PyTree) -> PyTree:
    return jax.tree.map(function, *trees, is_leaf=lambda value: isinstance(value, Moments))


def _shapes(function: Function, rows: PyTree) -> PyTree:
    return jax.eval_shape(function, jax.tree.map(lambda row: row[0], rows))
