"""Balls of three norms, and the box of the bounds, of one array."""

from typing import Any

import jax
import jax.numpy as jnp
import optax.projections
from jax import lax

NORMS = ("linf", "l2", "l1")


def distance(delta: jax.Array, norm: str) -> jax.Array:
    """The norm of a change: the largest entry, the root of the sum of squares, or the sum of the sizes."""
    if norm == "linf":
        return jnp.max(jnp.abs(delta))
    wide = delta.astype(jnp.promote_types(delta.dtype, jnp.float32))
    if norm == "l1":
        return jnp.sum(jnp.abs(wide)).astype(delta.dtype)
    largest = jnp.max(jnp.abs(wide))
    # In units of the largest entry no square over- or underflows; the slope of a root at 0 is infinite.
    unit = lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    squares = jnp.sum(jnp.square(wide / unit))
    root = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), squares)
    return (root * unit).astype(delta.dtype)


def project(delta: jax.Array, norm: str, epsilon: Any) -> jax.Array:
    """The change of a size of at most `epsilon` that is nearest to this one (nearest in the l2 norm).

    It ends a few roundings inside of the ball, whose size and whose sum with an input are rounded, too.
    """
    room = 1 - 4 * float(jnp.finfo(jnp.promote_types(delta.dtype, jnp.float32)).eps)
    epsilon = room * jnp.asarray(epsilon, delta.dtype)
    if norm == "linf":
        return jnp.clip(delta, -epsilon, epsilon)
    if norm == "l1":
        delta = _project_l1(delta, epsilon)
    size = distance(delta, norm)
    outside = size > epsilon
    return jnp.where(outside, delta * jnp.where(outside, epsilon / jnp.where(outside, size, 1), 1), delta)


def _project_l1(delta: jax.Array, epsilon: jax.Array) -> jax.Array:
    usable = (epsilon > 0) & jnp.isfinite(epsilon)
    wide = delta.astype(jnp.promote_types(delta.dtype, jnp.float32)).ravel()
    radius = jnp.where(usable, epsilon, 1).astype(wide.dtype)
    nearest = optax.projections.projection_l1_sphere(wide, radius).reshape(delta.shape).astype(delta.dtype)
    return jnp.where(usable & (distance(delta, "l1") > epsilon), nearest, delta)


def confine(
    x: jax.Array, candidate: jax.Array, norm: str, epsilon: Any, bounds: tuple[Any, Any]
) -> jax.Array:
    """The candidate, brought into the ball around `x` and within the bounds.

    The change is projected onto the ball and the sum clipped to the bounds. As `x` lies within them, clipping
    only shrinks the change. A sum that was rounded away from `x` is moved back by one place, so that no
    entry is further from `x` than its change. Where the candidate is not finite, `x` stands in.
    """
    delta = project(jnp.where(jnp.isfinite(candidate), candidate - x, 0), norm, epsilon)
    moved = x + delta
    too_far = jnp.abs(lax.stop_gradient(moved) - x) > jnp.abs(delta)
    nearer = jnp.nextafter(lax.stop_gradient(moved), lax.stop_gradient(x))
    moved = jnp.where(too_far, moved + lax.stop_gradient(nearer - moved), moved)
    return jnp.clip(moved, *bounds)


def uniform_in_ball(
    key: jax.Array, shape: tuple[int, ...], norm: str, epsilon: Any, dtype: Any = jnp.float32
) -> jax.Array:
    """A change drawn uniformly from the ball.

    A direction of the norm's own law (normal for l2, Laplace for l1), brought to a size of
    `epsilon * u^(1/n)`.
    """
    epsilon = jnp.asarray(epsilon, dtype)
    if norm == "linf":
        return jax.random.uniform(key, shape, dtype, -1, 1) * epsilon
    of_direction, of_size = jax.random.split(key)
    draw = jax.random.normal if norm == "l2" else jax.random.laplace
    direction = draw(of_direction, shape, dtype)
    size = jax.random.uniform(of_size, (), dtype) ** (1 / direction.size)
    return direction * (epsilon * size.astype(dtype) / distance(direction, norm))


def steepest(slope: jax.Array, norm: str) -> jax.Array:
    """The step of size 1 along which a linear function of this slope grows the most; 0 for a slope of 0.

    The sign for linf, the slope's direction for l2 and for l1, where the steepest step would move one
    entry only.
    """
    slope = jnp.where(jnp.isfinite(slope), slope, 0)
    if norm == "linf":
        return jnp.sign(slope)
    size = distance(slope, norm)
    return jnp.where(size > 0, slope / jnp.where(size > 0, size, 1), 0)
