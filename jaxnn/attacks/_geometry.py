"""Norm balls and box bounds of one array: distance, projection, sampling, steepest direction."""

from typing import TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax.projections
from jax import lax
from jax.typing import DTypeLike

from jaxnn._precision import draw_wide, wide_dtype, widen
from jaxnn._typing import Norm

NORMS = get_args(Norm)

Number: TypeAlias = jax.Array | float


def distance(delta: jax.Array, norm: Norm) -> jax.Array:
    """The norm of a perturbation."""
    if norm == "linf":
        return jnp.max(jnp.abs(delta))
    wide = widen(delta)
    if norm == "l1":
        return jnp.sum(jnp.abs(wide)).astype(delta.dtype)
    largest = jnp.max(jnp.abs(wide))
    # In units of the largest element no square over- or underflows; the gradient of a root at 0 is infinite.
    unit = lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    squares = jnp.sum(jnp.square(wide / unit))
    root = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), squares)
    return (root * unit).astype(delta.dtype)


def project(delta: jax.Array, norm: Norm, epsilon: Number) -> jax.Array:
    """Euclidean projection of a perturbation onto the ball of radius `epsilon`.

    It ends a few roundings inside of the ball, since its norm and its sum with an input are rounded, too.
    """
    shrink = 1 - 4 * float(jnp.finfo(wide_dtype(delta.dtype)).eps)
    epsilon = shrink * jnp.asarray(epsilon, delta.dtype)
    if norm == "linf":
        return jnp.clip(delta, -epsilon, epsilon)
    if norm == "l1":
        delta = _project_l1(delta, epsilon)
    size = distance(delta, norm)
    outside = size > epsilon
    return jnp.where(outside, delta * jnp.where(outside, epsilon / jnp.where(outside, size, 1), 1), delta)


def _project_l1(delta: jax.Array, epsilon: jax.Array) -> jax.Array:
    usable = (epsilon > 0) & jnp.isfinite(epsilon)
    wide = widen(delta).ravel()
    radius = jnp.where(usable, epsilon, 1).astype(wide.dtype)
    nearest = optax.projections.projection_l1_sphere(wide, radius).reshape(delta.shape).astype(delta.dtype)
    return jnp.where(usable & (distance(delta, "l1") > epsilon), nearest, delta)


def confine(
    x: jax.Array, candidate: jax.Array, norm: Norm, epsilon: Number, bounds: tuple[Number, Number]
) -> jax.Array:
    """Project a candidate onto the ball around `x` and clip it to the bounds.

    As `x` lies within the bounds, clipping only shrinks the perturbation. A sum that was rounded away from
    `x` is moved back by one unit in the last place, so that no element is further from `x` than its
    perturbation. Elements that are not finite are replaced by those of `x`.
    """
    delta = project(jnp.where(jnp.isfinite(candidate), candidate - x, 0), norm, epsilon)
    moved = x + delta
    too_far = jnp.abs(lax.stop_gradient(moved) - x) > jnp.abs(delta)
    nearer = jnp.nextafter(lax.stop_gradient(moved), lax.stop_gradient(x))
    moved = jnp.where(too_far, moved + lax.stop_gradient(nearer - moved), moved)
    return jnp.clip(moved, *bounds)


def uniform_in_ball(
    key: jax.Array, shape: tuple[int, ...], norm: Norm, epsilon: Number, dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """A perturbation drawn uniformly from the ball.

    A direction of the norm's own law (normal for l2, Laplace for l1), scaled to a size of
    `epsilon * u^(1/n)`.
    """
    epsilon = jnp.asarray(epsilon, dtype)
    if norm == "linf":
        return draw_wide(symmetric, key, shape, dtype) * epsilon
    direction_key, size_key = jax.random.split(key)
    law = jax.random.normal if norm == "l2" else jax.random.laplace
    direction = draw_wide(law, direction_key, shape, dtype)
    size = jax.random.uniform(size_key, (), wide_dtype(dtype)) ** (1 / direction.size)
    return direction * (epsilon * size.astype(dtype) / distance(direction, norm))


def symmetric(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Numbers drawn uniformly from -1 to 1."""
    return jax.random.uniform(key, shape, dtype, -1, 1)


def steepest(gradient: jax.Array, norm: Norm) -> jax.Array:
    """Direction of steepest ascent of size 1 in the norm; 0 for a gradient of 0.

    The sign for linf, the normalized gradient for l2, and also for l1, where the steepest step would move a
    single element.
    """
    gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
    if norm == "linf":
        return jnp.sign(gradient)
    size = distance(gradient, norm)
    return jnp.where(size > 0, gradient / jnp.where(size > 0, size, 1), 0)
