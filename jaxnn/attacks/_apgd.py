"""Projected gradient ascent that finds its own step size."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._climb import best_of, keeper, random_input
from jaxnn.attacks._common import Attack, Bounds, Model, Task, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._geometry import confine, steepest
from jaxnn.attacks._gradient import check_starts
from jaxnn.attacks._loss import LOSSES, check_dlr, loss_of
from jaxnn.attacks._search import constant, finish

_KEPT = 0.75  # alpha of the paper: how much of a step is taken, the rest going on in the last direction
_RISES = 0.75  # rho: the share of steps that must raise the loss, for the step size to stay


def apgd(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array | None = None,
    steps: int = 100,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
) -> Attack:
    """Gradient ascent with momentum that halves its step where it stops rising, so that none must be chosen.

    `z = P(x_k + eta d_k)`, `x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}))`, with `d` as in `fgsm`
    and `P` as in `bim`. `eta` is `2 epsilon` at first. At checkpoints, which come ever closer, `eta` is
    halved and the ascent goes on from the best point so far, if fewer than three in four steps since the last
    checkpoint have raised the loss, or if neither `eta` nor the best loss has changed in that time.

    The losses, of the logits `z`: `"cross_entropy"`, `log(sum_k exp z_k) - z_label`; `"margin"`,
    `max_{k != label} z_k - z_label`; and `"dlr"`, the margin divided by `z_1st - z_3rd` (the largest logit
    and the third largest), which does not flatten out where a network is very sure. Where `targeted`, they
    ask for the label instead; `"dlr"` then divides by `z_1st - (z_3rd + z_4th) / 2`, and measures the label
    against the largest other logit (the paper: against the true label, which is not known here).

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"` or `"l2"`.
        epsilon: how far the input may be moved, in that norm, at least 0.
        bounds: `(low, high)` of the input.
        targeted: whether `label` is the wanted one.
        key: a JAX random key, needed for the random start. Restart `r` is drawn from
            `jax.random.fold_in(key, r)`.
        steps: how many, at least 1.
        restarts: how often to start anew; the successful run whose input is nearest is kept.
        random_start: whether to start at a random point of the ball, or at `x`.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`.

    Returns:
        An `Attack`: of all points on the way the successful one of the highest loss, or, where none is, the
        one of the highest loss.

    Raises:
        TypeError: as `pgd` raises.
        ValueError: `"dlr"` with fewer than 3 logits, or 4 where `targeted`, or as `pgd` raises.

    References:
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", 2020, arXiv:2003.01690.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1], 0.1])
        >>> found = attacks.apgd(model, [0.8, 0.2], 0, epsilon=0.31, key=jax.random.key(0))
        >>> bool(found.success)
        True
    """
    steps = _checks.check_integer("steps", steps, at_least=1)
    _checks.check_option("loss", loss, LOSSES)
    starts = check_starts(restarts, random_start)
    task, restored = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, needs_key=bool(random_start),
        targeted=targeted, needs_epsilon=True, norms=("linf", "l2"),
    )  # fmt: skip
    check_dlr(task, loss, targeted)
    return restored(_apgd(task, key, norm=norm, targeted=targeted, loss=loss, steps=steps, **starts))


def checkpoints(steps: int) -> np.ndarray:
    """The steps after which the step size is judged: ever closer, from 22 % of all on; see equation (2)."""
    shares, gap = [0.0, 0.22], 0.22
    while shares[-1] < 1:
        gap = max(gap - 0.03, 0.06)
        shares.append(shares[-1] + gap)
    return np.unique([math.ceil(share * steps - 1e-9) for share in shares if share <= 1][1:])


class _Point(NamedTuple):
    """An input, the loss there, and its slope."""

    x: jax.Array
    loss: jax.Array
    slope: jax.Array


class _State(NamedTuple):
    now: _Point
    last: jax.Array  # the input before
    best: _Point  # of the highest loss
    found: jax.Array  # what would be returned, with its loss and success
    found_loss: jax.Array
    found_success: jax.Array
    step: jax.Array  # eta, in units of epsilon
    rises: jax.Array  # steps since the last checkpoint that raised the loss
    judged_step: jax.Array  # eta at the last checkpoint, and the best loss
    judged_loss: jax.Array


@jax.jit(static_argnames=("norm", "targeted", "loss", "steps", "restarts", "random_start"))
def _apgd(
    task: Task,
    key: jax.Array | None,
    *,
    norm: str,
    targeted: bool,
    loss: str,
    steps: int,
    restarts: int,
    random_start: bool,
) -> Attack:
    fixed = constant(task)
    climbed, margin = loss_of(fixed, loss, targeted), margin_of(fixed.label, targeted)
    at = checkpoints(steps)
    judged = np.isin(np.arange(1, steps + 1), at)
    lengths = np.zeros(steps)
    lengths[at - 1] = np.diff(at, prepend=0)

    def value(y: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = fixed.model(y)
        return climbed(z), margin(z) > 0

    ascend = hoist_layouts(steps, jax.value_and_grad(value, has_aux=True), fixed.x)

    def look(y: jax.Array) -> tuple[_Point, jax.Array]:
        (height, success), slope = ascend(y)
        height = jnp.where(jnp.isnan(height), -jnp.inf, height)  # never the best
        return _Point(y, height, slope), success

    def one(restart: Any) -> Attack:
        start = fixed.x
        if random_start:
            assert key is not None  # noqa: S101 - checked by the caller
            start = random_input(fixed, jax.random.fold_in(key, restart), norm)
        first, success = look(start)
        two, none = jnp.full_like(first.loss, 2), jnp.zeros_like(first.loss)
        state = _State(first, start, first, start, first.loss, success, two, none, two, first.loss)
        keep = keeper(fixed, norm)
        state, _ = lax.scan(
            lambda state, plan: (_advance(fixed, state, plan, look, keep, norm), None),
            vary_like(state, task),
            (jnp.arange(steps), jnp.asarray(judged), jnp.asarray(lengths, first.loss.dtype)),
        )
        found = confine(fixed.x, state.found, norm, fixed.epsilon, fixed.bounds)
        return finish(task, found, margin_of(task.label, targeted), norm, steps + 1)

    return best_of(one, restarts, task)


def _advance(task: Task, state: _State, plan: Any, look: Any, keep: Any, norm: str) -> _State:
    number, is_judged, length = plan
    x = state.now.x
    eta = (state.step * task.epsilon).astype(x.dtype)
    z = keep(x + eta * steepest(state.now.slope, norm))
    share = jnp.where(number == 0, 1, _KEPT).astype(x.dtype)  # there is no last direction at first
    new, success = look(keep(x + share * (z - x) + (1 - share) * (x - state.last)))

    rises = state.rises + (new.loss > state.now.loss)
    best = _chosen(new.loss > state.best.loss, new, state.best)
    nearer = jnp.where(success == state.found_success, new.loss > state.found_loss, success)
    halved = is_judged & (
        (rises < _RISES * length) | ((state.judged_step == state.step) & (state.judged_loss == best.loss))
    )
    step = jnp.where(halved, state.step / 2, state.step)
    return _State(
        now=_chosen(halved, best, new),
        last=x,
        best=best,
        found=jnp.where(nearer, new.x, state.found),
        found_loss=jnp.where(nearer, new.loss, state.found_loss),
        found_success=state.found_success | success,
        step=step,
        rises=jnp.where(is_judged, 0, rises).astype(rises.dtype),
        judged_step=jnp.where(is_judged, state.step, state.judged_step),
        judged_loss=jnp.where(is_judged, best.loss, state.judged_loss),
    )


def _chosen(condition: jax.Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
