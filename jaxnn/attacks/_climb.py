"""Projected gradient ascent: the loop of FGSM, BIM, PGD and momentum PGD, and its restarts."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import scan
from jaxnn._typing import AttackLoss
from jaxnn.attacks._common import Attack, Task, better, final_result
from jaxnn.attacks._criteria import Margin
from jaxnn.attacks._geometry import project, steepest, uniform_in_ball
from jaxnn.attacks._loss import loss_of


class Pace(NamedTuple):
    """The step size as a fraction of epsilon, and the decay of the momentum, or None without momentum."""

    relative_step_size: jax.Array
    decay: jax.Array | None


_Carry: TypeAlias = tuple[jax.Array, jax.Array | None]  # the iterate, and its velocity


def check_steps(steps: int, name: str = "steps") -> int:
    """Return a number of steps, each a row of a loop, or raise."""
    steps = _checks.check_integer(name, steps, at_least=1)
    _checks.check_bytes(name, 32 * steps)
    return steps


def check_restarts(restarts: int, random_start: bool) -> int:
    """Return the number of runs, or raise where several of them would be the same."""
    restarts = check_steps(restarts, "restarts")
    if not _checks.check_flag("random_start", random_start) and restarts > 1:
        raise ValueError(f"`restarts` must be 1 without a random start; got {restarts}")
    return restarts


def projection(task: Task) -> Callable[[jax.Array], jax.Array]:
    """The projection of an iterate onto the ball and the bounds, up to rounding: `confine` for hot loops."""
    x, (low, high) = task.x, task.bounds
    if task.norm == "linf":
        low, high = jnp.maximum(low, x - task.epsilon), jnp.minimum(high, x + task.epsilon)
        return lambda y: jnp.clip(y, low, high)
    return lambda y: jnp.clip(x + project(y - x, task.norm, task.epsilon), low, high)


def start_of(task: Task, key: jax.Array | None, restart: jax.Array | int) -> jax.Array:
    """A random point of the ball within the bounds, or `x` without a key."""
    if key is None:
        return task.x
    change_key, x = jax.random.fold_in(key, restart), task.x
    return task.confine(x + uniform_in_ball(change_key, x.shape, task.norm, task.epsilon, x.dtype))


@jax.jit(static_argnames=("loss", "steps", "restarts"))
def climb(
    task: Task, pace: Pace, key: jax.Array | None, *, loss: AttackLoss, steps: int, restarts: int
) -> Attack:
    """Take steps of one size along the steepest direction, from a random point if there is a key."""
    fixed = lax.stop_gradient(task)

    def run(restart: jax.Array | int) -> Attack:
        last = _ascend(fixed, pace, start_of(fixed, key, restart), loss_of(fixed, loss), steps)
        return final_result(task, fixed.confine(last), steps)

    return best_of(run, restarts)


def best_of(run: Callable[[jax.Array | int], Attack], restarts: int) -> Attack:
    """The best of several runs, one after the other: memory does not grow with their number."""
    first = run(0)
    if restarts == 1:
        return first
    return scan(lambda best, i: (better(best, run(i)), None), first, jnp.arange(1, restarts), hoist=False)[0]


def _ascend(task: Task, pace: Pace, start: jax.Array, loss: Margin, steps: int) -> jax.Array:
    norm, project = task.norm, projection(task)
    step_size, decay = (pace.relative_step_size * task.epsilon).astype(start.dtype), pace.decay
    gradient_at = hoist_layouts(steps, jax.grad(lambda y: loss(task.model(y))), start)

    def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
        y, velocity = carry
        direction = gradient_at(y)
        if decay is not None and velocity is not None:
            mean = steepest(direction, "l1")  # of size 1 in the l1 norm, for each norm of the attack
            direction = velocity = decay.astype(y.dtype) * velocity + mean
        return (project(y + step_size * steepest(direction, norm)), velocity), None

    carry = start, None if decay is None else jnp.zeros_like(start)
    if steps == 1:  # a loop costs compilation
        return step(carry, None)[0][0]
    return scan(step, carry, length=steps, hoist=False)[0][0]
