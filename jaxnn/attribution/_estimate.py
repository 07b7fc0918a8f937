"""What a sampled answer is: a mean of samples, and how far from the truth it may be."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Estimate(NamedTuple):
    """A value estimated from samples.

    Attributes:
        value: of the structure of the example.
        standard_error: of the same structure: the standard deviation of `value` over the keys that it might
            have been drawn with, estimated from the samples of this one.
    """

    value: Any
    standard_error: Any


class Moments(NamedTuple):
    """The mean of samples seen so far, and the sum of squared distances to it: `merge` adds samples."""

    number: jax.Array
    mean: jax.Array
    squares: jax.Array


def no_samples(shape: tuple[int, ...], dtype: Any) -> Moments:
    """The moments before the first sample."""
    return Moments(jnp.zeros((), dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def merge(moments: Moments, samples: jax.Array, valid: jax.Array) -> Moments:
    """The moments with those of `samples` `(b, ...)` that are `valid` `(b,)` added.

    Each chunk's squares are about its own mean: the difference of two large sums would lose them.

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
    share = added / jnp.maximum(number, 1)
    return Moments(
        number,
        moments.mean + shift * share,
        moments.squares + squares + jnp.square(shift) * moments.number * share,
    )


def standard_error(moments: Moments) -> jax.Array:
    """The standard error of the mean: `sqrt(sum of squares / (n - 1) / n)`."""
    variance = moments.squares / (moments.number - 1) / moments.number
    # The slope of a root at 0 is infinite: where nothing varies, the error is a plain 0.
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), variance)


def wide(values: jax.Array) -> jax.Array:
    """In at least float32, to be summed: sums of many bfloat16 values would stop growing."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
