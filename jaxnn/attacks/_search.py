"""What the searches for a nearest input share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._common import Attack, Task, judge
from jaxnn.attacks._geometry import distance

Succeeds = Callable[[jax.Array], jax.Array]  # from an input to whether the attack has succeeded there


def number(name: str, value: Any, at_least: float) -> jax.Array:
    """One real number, which may be traced, or an error."""
    found = _checks.check_float_array(name, value)
    _checks.check_shape(name, found, (), "one number")
    if _checks.known_false((found >= at_least) & jnp.isfinite(found)):
        raise ValueError(f"`{name}` must be at least {at_least}, and finite; got {value!r}")
    return found


def constant(task: Task) -> Task:
    """The task with a slope of 0 in everything: a search is no function to be differentiated."""
    return lax.stop_gradient(task)


def extent(task: Task) -> jax.Array:
    """How wide the bounds are; where they are infinite, how far the input is from 0, and at least 1."""
    wide = task.high - task.low
    return jnp.max(jnp.where(jnp.isfinite(wide), wide, jnp.maximum(jnp.abs(task.x), 1)))


def finish(task: Task, candidate: jax.Array, margin: Callable[..., Any], norm: str, queries: Any) -> Attack:
    """The result, whose input follows `x` with a slope of 1, as if the change were a constant."""
    candidate = lax.stop_gradient(candidate) + (task.x - lax.stop_gradient(task.x))
    return judge(task.model, task.x, candidate, margin, norm, queries)


def between(x: jax.Array, other: jax.Array, share: Any, norm: str, bounds: tuple[Any, Any]) -> jax.Array:
    """On the way from `x` to another input, at this share of their distance.

    For linf the change is cut to a size, else made shorter: either is nearest to `other` in its norm.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)  # a share of few digits would not end where it should
    delta = (other - x).astype(wide)
    if norm == "linf":
        size = share * distance(delta, norm)
        delta = jnp.clip(delta, -size, size)
    else:
        delta = share * delta
    return jnp.clip(x + delta.astype(x.dtype), *bounds)


def to_boundary(
    succeeds: Succeeds, x: jax.Array, found: jax.Array, norm: str, bounds: tuple[Any, Any], steps: int
) -> jax.Array:
    """The nearest success on the way from `x` to one that was found, by bisection.

    Args:
        succeeds: whether the attack has succeeded at an input; asked `steps` times.
        x: the example, at which it has not.
        found: an input at which it has.
        norm: see `between`.
        bounds: see `between`.
        steps: the share of the way is exact to `2 ** -steps`.
    """

    def step(_: Any, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        low, high, nearest = carry
        middle = (low + high) / 2
        candidate = between(x, found, middle, norm, bounds)
        inside = succeeds(candidate)
        nearest = jnp.where(inside, candidate, nearest)
        return jnp.where(inside, low, middle), jnp.where(inside, middle, high), nearest

    wide = jnp.promote_types(x.dtype, jnp.float32)
    start = vary_like((jnp.zeros((), wide), jnp.ones((), wide), found), x)
    return lax.fori_loop(0, steps, step, start)[2]
