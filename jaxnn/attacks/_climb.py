"""Steps up a loss inside the ball: the loop under the attacks by the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._common import Attack, Task, better
from jaxnn.attacks._criteria import margin_of
from jaxnn.attacks._geometry import confine, project, steepest, uniform_in_ball
from jaxnn.attacks._loss import loss_of
from jaxnn.attacks._search import constant, finish


class Pace(NamedTuple):
    """How far a step goes, as a share of epsilon, and how much of the last direction it keeps."""

    step: jax.Array
    decay: jax.Array | None = None


def keeper(task: Task, norm: str) -> Callable[[jax.Array], jax.Array]:
    """What brings an iterate back into the ball and the bounds, up to rounding: `confine`, in a hot loop."""
    x, (low, high) = task.x, task.bounds
    if norm == "linf":
        low, high = jnp.maximum(low, x - task.epsilon), jnp.minimum(high, x + task.epsilon)
        return lambda y: jnp.clip(y, low, high)
    return lambda y: jnp.clip(x + project(y - x, norm, task.epsilon), low, high)


def random_input(task: Task, key: jax.Array, norm: str) -> jax.Array:
    """A point of the ball, clipped to the bounds."""
    x = task.x
    return confine(x, x + uniform_in_ball(key, x.shape, norm, task.epsilon, x.dtype), norm, task.epsilon,
                   task.bounds)  # fmt: skip


@jax.jit(static_argnames=("norm", "targeted", "loss", "steps", "restarts", "random_start"))
def climb(
    task: Task,
    pace: Pace,
    key: jax.Array | None,
    *,
    norm: str,
    targeted: bool,
    loss: str,
    steps: int,
    restarts: int = 1,
    random_start: bool,
) -> Attack:
    """Take steps of one size along the steepest direction, from `x` or from a random point of the ball."""
    fixed = constant(task)

    def one(restart: Any) -> Attack:
        start = fixed.x
        if random_start:
            assert key is not None  # noqa: S101 - checked by the caller
            start = random_input(fixed, jax.random.fold_in(key, restart), norm)
        found = _steps(fixed, pace, start, norm, loss_of(fixed, loss, targeted), steps)
        found = confine(fixed.x, found, norm, fixed.epsilon, fixed.bounds)
        return finish(task, found, margin_of(task.label, targeted), norm, steps)

    return best_of(one, restarts, task)


def best_of(one: Callable[[Any], Attack], restarts: int, task: Task) -> Attack:
    """The best of several runs, one after the other: memory does not grow with them."""
    first = one(0)
    if restarts == 1:
        return first
    first = vary_like(first, task)
    return lax.scan(lambda best, i: (better(best, one(i)), None), first, jnp.arange(1, restarts))[0]


def _steps(task: Task, pace: Pace, start: jax.Array, norm: str, loss: Any, steps: int) -> jax.Array:
    keep = keeper(task, norm)
    slope = hoist_layouts(steps, jax.grad(lambda y: loss(task.model(y))), start)
    size = (pace.step * task.epsilon).astype(start.dtype)

    def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], None]:
        y, velocity = carry
        direction = slope(y)
        if pace.decay is not None:
            mean = steepest(direction, "l1")  # of size 1 in the l1 norm, whatever the attack's
            direction = velocity = pace.decay.astype(y.dtype) * velocity + mean
        return (keep(y + size * steepest(direction, norm)), velocity), None

    velocity = None if pace.decay is None else jnp.zeros_like(start)
    carry = vary_like((start, velocity), (task, pace))
    if steps == 1:  # a loop costs compilation
        return step(carry, None)[0][0]
    return lax.scan(step, carry, length=steps)[0][0]
