"""Helpers of the searches for a nearest adversarial input."""

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._engine.loops import fori_loop
from jaxnn._precision import wide_dtype
from jaxnn.attacks._common import Task
from jaxnn.attacks._geometry import distance


def search_radius(task: Task) -> jax.Array:
    """The width of the bounds; where they are infinite, the size of the input, or 1 for one of zeros."""
    width = task.high - task.low
    size = jnp.max(jnp.abs(task.x))
    return jnp.max(jnp.where(jnp.isfinite(width), width, jnp.where(size > 0, size, 1)))


@jax.ensure_compile_time_eval()
def has_range(task: Task) -> bool:
    """Whether the bounds are finite, as far as is known."""
    return not _checks.known_false(jnp.all(jnp.isfinite(task.high - task.low)))


def farthest(task: Task) -> jax.Array:
    """The distance from `x` to the farthest point within the bounds, at least in float32."""
    change = jnp.maximum(task.x - task.low, task.high - task.x)
    return distance(change.astype(wide_dtype(change.dtype)), task.norm)


def interpolate(task: Task, other: jax.Array, fraction: jax.Array | float) -> jax.Array:
    """The point at this fraction of the distance from `x` to another input.

    For linf the perturbation is clipped, else scaled: either point is nearest to `other` in its norm.
    """
    x = task.x
    # A fraction in half precision would end elsewhere.
    delta: jax.Array = (other - x).astype(wide_dtype(x.dtype))
    if task.norm == "linf":
        size = fraction * distance(delta, task.norm)
        delta = jnp.clip(delta, -size, size)
    else:
        delta = fraction * delta
    return jnp.clip(x + delta.astype(x.dtype), *task.bounds)


def to_boundary(task: Task, adversarial: jax.Array, steps: int) -> jax.Array:
    """The nearest success on the way from `x` to an adversarial input, by bisection.

    Args:
        task: with an example `x` at which the attack has not succeeded.
        adversarial: an input at which it has.
        steps: number of queries; the fraction of the way is exact to `2 ** -steps`.
    """

    def step(_: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        low, high, nearest = carry
        middle = (low + high) / 2
        candidate = interpolate(task, adversarial, middle)
        success = task.succeeds(candidate)
        nearest = jnp.where(success, candidate, nearest)
        return jnp.where(success, low, middle), jnp.where(success, middle, high), nearest

    wide = wide_dtype(task.x.dtype)
    return fori_loop(0, steps, step, (jnp.zeros((), wide), jnp.ones((), wide), adversarial))[2]
