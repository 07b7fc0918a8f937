"""Auto-PGD (APGD): projected gradient ascent with an adaptive step size."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import scan
from jaxnn._typing import AttackLoss, Key, Model, PyTree, Scalar
from jaxnn.attacks._climb import best_of, check_restarts, check_steps, projection, start_of
from jaxnn.attacks._common import Attack, Bounds, Task, final_result, prepare, select
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._geometry import steepest
from jaxnn.attacks._loss import check_loss, loss_of

_MOMENTUM = 0.75  # alpha of the paper: weight of the new step; the rest repeats the last change
_RISES = 0.75  # rho: the fraction of steps that must raise the loss, for the step size to stay


def apgd(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Literal["linf", "l2"] = "linf",
    epsilon: Scalar,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int = 100,
    restarts: int = 1,
    random_start: bool = True,
    loss: AttackLoss = "cross_entropy",
) -> Attack:
    """Auto-PGD (APGD): gradient ascent with momentum, which halves its step size when progress stalls.

    `z = P(x_k + eta d_k)`, `x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}))`, with the direction `d`
    of `fgsm` and the projection `P` of `bim`. The step size `eta` starts at `2 epsilon`. At checkpoints,
    which come at ever shorter intervals, `eta` is halved and the ascent restarts from the best point so far,
    if fewer than three in four steps since the last checkpoint have raised the loss, or if neither `eta` nor
    the best loss has changed since then.

    The losses, of the logits `z`: `"cross_entropy"`, `log(sum_k exp z_k) - z_label`; `"margin"`,
    `max_{k != label} z_k - z_label`; and `"dlr"`, the margin divided by `z_1st - z_3rd` (the largest logit
    and the third largest), which does not saturate where a network is very confident. If `targeted`, the
    signs are those of raising the label; `"dlr"` then divides by `z_1st - (z_3rd + z_4th) / 2`, and compares
    the label with the largest other logit (the paper: with the true label, which is not known here).

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"` or `"l2"`.
        epsilon: radius of the ball around `x` in that norm, at least 0.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: a JAX random key, required for a random start. Restart `r` uses `jax.random.fold_in(key, r)`.
        steps: number of steps, at least 1.
        restarts: number of runs; the successful one with the nearest input is returned.
        random_start: whether to start at a random point of the ball, or at `x`.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`.

    Returns:
        An `Attack`: of all iterates, the successful one with the highest loss; after a failure, the one with
        the highest loss.

    Raises:
        TypeError: as `pgd` raises.
        ValueError: `"dlr"` with fewer than 3 logits, or 4 if `targeted`, or as `pgd` raises.

    References:
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", 2020, arXiv:2003.01690.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1], 0.1])
        >>> result = attacks.apgd(model, [0.8, 0.2], 0, epsilon=0.31, key=jax.random.key(0))
        >>> bool(result.success)
        True
    """
    steps = check_steps(steps)
    restarts = check_restarts(restarts, random_start)
    task = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, needs_key=random_start,
        targeted=targeted, needs_epsilon=True, norms=("linf", "l2"),
    )  # fmt: skip
    check_loss(task, loss)
    return _apgd(task, key if random_start else None, loss=loss, steps=steps, restarts=restarts)


def checkpoints(steps: int) -> np.ndarray:
    """The steps after which the step size is reconsidered, the first at 22 % of all; see equation (2)."""
    fractions, gap = [0.0, 0.22], 0.22
    while fractions[-1] < 1:
        gap = max(gap - 0.03, 0.06)
        fractions.append(fractions[-1] + gap)
    return np.unique([math.ceil(fraction * steps - 1e-9) for fraction in fractions if fraction <= 1][1:])


class _Point(NamedTuple):
    """An input, the loss there, its gradient, and whether the attack has succeeded."""

    x: jax.Array
    loss: jax.Array
    gradient: jax.Array
    success: jax.Array


class _State(NamedTuple):
    point: _Point
    previous: jax.Array  # the input before
    best: _Point  # of the highest loss
    result: _Point  # of the highest loss among the successful ones, if there are any
    eta: jax.Array  # in units of epsilon
    rises: jax.Array  # steps since the last checkpoint that raised the loss
    checkpoint_eta: jax.Array  # at the last checkpoint
    checkpoint_loss: jax.Array  # the best loss at the last checkpoint


@jax.jit(static_argnames=("loss", "steps", "restarts"))
def _apgd(task: Task, key: Key | None, *, loss: AttackLoss, steps: int, restarts: int) -> Attack:
    fixed = lax.stop_gradient(task)
    loss_function, project = loss_of(fixed, loss), projection(fixed)
    at = checkpoints(steps)
    lengths = np.zeros(steps)  # of the interval that ends at each step; 0 where none does
    lengths[at - 1] = np.diff(at, prepend=0)

    def value(y: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = fixed.model(y)
        return loss_function(z), fixed.margin(z) > 0

    ascend = hoist_layouts(steps, jax.value_and_grad(value, has_aux=True), fixed.x)

    def evaluate(y: jax.Array) -> _Point:
        (height, success), gradient = ascend(y)
        height = jnp.where(jnp.isnan(height), -jnp.inf, height)  # never the best
        return _Point(y, height, gradient, success)

    def run(restart: jax.Array | int) -> Attack:
        first = evaluate(start_of(fixed, key, restart))
        two, zero = jnp.full_like(first.loss, 2), jnp.zeros_like(first.loss)
        state = _State(first, first.x, first, first, two, zero, two, first.loss)
        rows = jnp.arange(steps), jnp.asarray(lengths, first.loss.dtype)
        step = lambda state, row: (_advance(fixed, state, row, evaluate, project), None)  # noqa: E731
        state, _ = scan(step, state, rows, hoist=False)
        return final_result(task, fixed.confine(state.result.x), steps + 1)

    return best_of(run, restarts)


def _advance(
    task: Task,
    state: _State,
    row: tuple[jax.Array, jax.Array],
    evaluate: Callable[[jax.Array], _Point],
    project: Callable[[jax.Array], jax.Array],
) -> _State:
    """The step of a row: its number, and the steps since the last checkpoint, 0 away from checkpoints."""
    (number, length), x = row, state.point.x
    size = (state.eta * task.epsilon).astype(x.dtype)
    z = project(x + size * steepest(state.point.gradient, task.norm))
    weight = jnp.where(number == 0, 1, _MOMENTUM).astype(x.dtype)  # there is no last change at first
    new = evaluate(project(x + weight * (z - x) + (1 - weight) * (x - state.previous)))

    rises = state.rises + (new.loss > state.point.loss).astype(state.rises.dtype)
    best = select(new.loss > state.best.loss, new, state.best)
    result = state.result
    is_better = jnp.where(new.success == result.success, new.loss > result.loss, new.success)
    stalled = (rises < _RISES * length) | (
        (state.checkpoint_eta == state.eta) & (state.checkpoint_loss == best.loss)
    )
    is_checkpoint = length > 0
    halve = is_checkpoint & stalled
    checkpoint_eta, checkpoint_loss = select(
        is_checkpoint, (state.eta, best.loss), (state.checkpoint_eta, state.checkpoint_loss)
    )
    return _State(
        point=select(halve, best, new),
        previous=x,
        best=best,
        result=select(is_better, new, result),
        eta=jnp.where(halve, state.eta / 2, state.eta),
        rises=jnp.where(is_checkpoint, 0, rises).astype(rises.dtype),
        checkpoint_eta=checkpoint_eta,
        checkpoint_loss=checkpoint_loss,
    )
