"""The fast minimum-norm attack (FMN)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import fori_loop
from jaxnn._precision import wide_dtype
from jaxnn._typing import Key, Model, Norm, PyTree, Scalar
from jaxnn.attacks._common import Attack, Bounds, Task, final_result, prepare
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._geometry import confine, distance, steepest
from jaxnn.attacks._search import farthest

_DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
_LAST_STEP = 0.01  # of the first
_LAST_GAMMA = 0.001


def fmn(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int = 100,
    step_size: Scalar = 1.0,
    gamma: Scalar = 0.05,
) -> Attack:
    """Fast minimum-norm attack (FMN): gradient steps in a ball whose radius follows the decision boundary.

    With the margin `m`, above 0 where the attack succeeds, and its gradient `g` at `x + d`, each step is
    `d <- project(d + a * g / ||g||_2, radius)`, clipped to the bounds. The radius becomes
    `min(radius * (1 - c), least distance so far)` after a success, `radius * (1 + c)` after a failure, and
    before the first success `||d|| + |m| / ||g||_*` if that is larger, `||g||_*` being the dual norm. On a
    cosine schedule `a` falls from `step_size` to a hundredth of it, and `c` from `gamma` to 0.001. In the
    paper the radius before the first success is that estimate alone. It then ends on the boundary of a
    piecewise linear model, not beyond it, and if the bounds clip the change it may end before it at every
    step.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: unused; accepted so that all attacks can be called alike.
        steps: number of steps, at least 1; one query each.
        step_size: the length of the first step in the l2 norm, in units of the input, above 0.
        gamma: the first relative change of the radius, in `[0, 1)`.

    Returns:
        An `Attack`.

    Raises:
        TypeError: an argument of another type.
        ValueError: an option is out of its range, or as `fgsm` raises.

    References:
        Pintor, Roli, Brendel and Biggio, "Fast minimum-norm adversarial attacks through adaptive norm
        constraints", 2021, arXiv:2102.12827, algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> results = [attacks.fmn(model, [0.5, 0.5], 0, norm=norm) for norm in ("l2", "linf")]
        >>> [round(float(result.distance), 2) for result in results]
        [0.2, 0.14]
    """
    steps = _checks.check_integer("steps", steps, at_least=1)
    step_size = _checks.check_number("step_size", step_size, above=0)
    gamma = _checks.check_number("gamma", gamma, at_least=0, below=1)
    task = prepare(model, x, label, norm=norm, bounds=bounds, targeted=targeted, key=key)
    return _fmn(task, step_size, gamma, steps=steps)


@jax.jit(static_argnames="steps")
def _fmn(task: Task, step_size: jax.Array, gamma: jax.Array, *, steps: int) -> Attack:
    fixed = lax.stop_gradient(task)
    x, norm = fixed.x, fixed.norm
    ascend = hoist_layouts(steps, jax.value_and_grad(fixed.margin_at), x)
    wide = wide_dtype(x.dtype)  # of radii: the last change of them is a thousandth
    largest = farthest(fixed)

    def step(i: jax.Array, carry: Any) -> Any:
        candidate, radius, best, least, succeeded = carry
        schedule = (1 + jnp.cos(jnp.pi * i / steps)) / 2
        change = (_LAST_GAMMA + (gamma - _LAST_GAMMA) * schedule).astype(wide)
        value, gradient = ascend(candidate)
        success, size = value > 0, distance((candidate - x).astype(wide), norm)
        nearer = success & (size <= least)
        best, least = jnp.where(nearer, candidate, best), jnp.where(nearer, size, least)
        succeeded = succeeded | success
        dual = distance(gradient.astype(wide), _DUAL[norm])
        to_boundary = jnp.where(dual > 0, jnp.abs(value).astype(wide) / jnp.where(dual > 0, dual, 1), largest)
        to_boundary = jnp.where(jnp.isnan(to_boundary), 0, to_boundary)
        outwards = jnp.maximum(radius * (1 + change), jnp.where(succeeded, 0, size + to_boundary))
        radius = jnp.where(success, jnp.minimum(radius * (1 - change), least), outwards)
        radius = jnp.minimum(radius, largest)
        length = (step_size * (_LAST_STEP + (1 - _LAST_STEP) * schedule)).astype(x.dtype)
        moved = candidate + length * steepest(gradient, "l2")
        candidate = confine(x, moved, norm, radius.astype(x.dtype), fixed.bounds)
        return candidate, radius, best, least, succeeded

    start = (x, jnp.zeros((), wide), x, largest, jnp.asarray(False))
    last, _, best, _, succeeded = fori_loop(0, steps, step, start)
    return final_result(task, jnp.where(succeeded, best, last), steps)
