"""Sampling of new inputs around the data, within a region of the features."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxnn._engine.loops import scan
from jaxnn._map import map_examples
from jaxnn._precision import draw_wide, float_dtype, widen
from jaxnn._typing import Key, Model

_BATCH = 1024  # samples per call: one compiled program for any number of them
Interval = tuple[jax.Array, jax.Array]  # lower and upper ends, elementwise


class Region(NamedTuple):
    """A box of features, `low < features <= high`, and inputs `(n, ...)` that are known to lie in it."""

    low: Float[np.ndarray, "d"]
    high: Float[np.ndarray, "d"]
    inputs: Shaped[np.ndarray, "n ..."]


class Sampler(NamedTuple):
    """The distribution of new inputs.

    Attributes:
        features: a callable pytree from an input to its features.
        limits: the least and the largest value of each element of an input.
        root: `(r, size)`: turns `r` independent normal numbers into noise whose covariance is `spread^2`
            times that of the inputs, so that correlated elements move together.
    """

    features: Model
    limits: Interval
    root: Float[Array, "r size"]

    @classmethod
    def of(cls, features: Model, inputs: Shaped[Array, "n ..."], spread: float) -> "Sampler":
        """The sampler around the given inputs."""
        return cls(features, (inputs.min(axis=0), inputs.max(axis=0)), noise_root(inputs, spread))


@jax.jit
def noise_root(inputs: Shaped[Array, "n ..."], spread: float) -> Float[Array, "r size"]:
    """A root of the noise covariance: its transpose times itself is `spread^2` times that of the inputs."""
    dtype = float_dtype(inputs.dtype)
    rows = widen(inputs.reshape(len(inputs), -1).astype(dtype))
    deviations = rows - rows.mean(axis=0, keepdims=True)
    factor = jnp.asarray(spread / math.sqrt(max(len(rows) - 1, 1)), rows.dtype)
    if rows.shape[0] <= rows.shape[1]:
        return (factor * deviations).astype(dtype)
    # Equivalent, with fewer rows: from the eigenvectors of the correlations. With those of the covariance,
    # features in small units would vanish in the rounding of features in large ones.
    sizes = jnp.max(jnp.abs(deviations), axis=0, keepdims=True)
    deviations = deviations / jnp.where(sizes > 0, sizes, 1)
    scales = jnp.sqrt(jnp.mean(jnp.square(deviations), axis=0, keepdims=True))
    deviations = factor * deviations / jnp.where(sizes > 0, scales, 1)
    values, vectors = jnp.linalg.eigh(jnp.matmul(deviations.T, deviations, precision="highest"))
    return (jnp.sqrt(jnp.maximum(values, 0))[:, None] * vectors.T * scales * sizes).astype(dtype)


def draw(key: Key, sampler: Sampler, region: Region, count: int) -> Shaped[np.ndarray, "count ..."]:
    """Draw new inputs in a region; a smaller number of them is a prefix of a larger one.

    `z = r + t e` with `r` a random input of the region and `e` the noise; `t` is the first of 1, 1/2, ...,
    1/128 and 0 for which `z` stays in the region. Each element keeps to its limits.
    """
    if count == 0:
        return region.inputs[:0]
    draws = map_examples(Partial(draw_one, key, sampler.root), np.arange(count), batch_size=_BATCH)
    centers = region.inputs[(draws[0] * len(region.inputs)).astype(int)]
    bounds = jnp.asarray(region.low), jnp.asarray(region.high)
    moved: np.ndarray = map_examples(Partial(move, sampler, bounds), centers, draws[1], batch_size=_BATCH)
    return moved


def draw_one(
    key: Key, root: Float[Array, "r size"], number: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, "size"]]:
    """The random numbers of one sample: a uniform number in [0, 1) that selects an input, and the noise."""
    select_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
    noise = draw_wide(jax.random.normal, noise_key, root.shape[:1], root.dtype)
    return jax.random.uniform(select_key), noise @ root


def is_between(values: jax.Array, low: jax.Array, high: jax.Array) -> Bool[Array, "..."]:
    """Whether `low < value <= high`, elementwise; integers are compared with fractions."""
    with jax.numpy_dtype_promotion("standard"):
        return (low < values) & (values <= high)


def move(sampler: Sampler, bounds: Interval, center: jax.Array, noise: Float[Array, "size"]) -> jax.Array:
    """Add noise to an input, halved until its features stay within the bounds; clip to the limits.

    Integers and booleans are rounded.
    """
    noise = noise.reshape(center.shape)
    whole = not jnp.issubdtype(center.dtype, jnp.floating)
    limits = [limit.astype(noise.dtype) for limit in sampler.limits]

    def halve(
        state: tuple[jax.Array, jax.Array], size: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        accepted, done = state
        candidate = center.astype(noise.dtype) + size * noise
        if whole:
            candidate = jnp.rint(candidate)
        candidate = jnp.clip(candidate, *limits).astype(center.dtype)
        inside = jnp.all(is_between(sampler.features(candidate), *bounds))
        return (jnp.where(~done & inside, candidate, accepted), done | inside), None

    sizes = 0.5 ** jnp.arange(8, dtype=noise.dtype)
    moved: jax.Array = scan(halve, (center, jnp.array(False)), sizes, hoist=False)[0][0]
    return moved
