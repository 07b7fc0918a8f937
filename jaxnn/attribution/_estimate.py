"""Monte Carlo estimates: the mean of samples with its standard error, updated chunk by chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._typing import PyTree


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
    squares = jnp.sum(shaped * jnp.square(samples - mean), axis=0)
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
