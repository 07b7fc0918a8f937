"""The nearest adversarial input by a ball that shrinks and grows round the boundary."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._common import Attack, Bounds, Model, Task, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._geometry import confine, distance, steepest
from jaxnn.attacks._search import constant, finish, number

_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
_LAST_STEP = 0.01  # of the first
_LAST_GAMMA = 0.001


def fmn(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Any = None,
    steps: int = 100,
    step_size: Any = 1.0,
    gamma: Any = 0.05,
) -> Attack:
    """The nearest adversarial input, by gradient steps in a ball whose radius follows the boundary.

    With the margin `m`, above 0 where the attack succeeds, and its slope `g` at `x + d`, each step is
    `d <- project(d + a * g / ||g||_2, radius)`, clipped to the bounds. The radius becomes
    `min(radius * (1 - c), least distance found)` after a success, `radius * (1 + c)` after a failure, and
    before the first success `||d|| + |m| / ||g||_*` where that is larger still, `||g||_*` being the dual
    norm. Along half a cosine `a` falls from `step_size` to a hundredth of it, and `c` from `gamma` to 0.001.
    In the paper the radius before the first success is that estimate alone: it ends on the boundary of a
    piecewise linear model, not beyond it, and where bounds cut the change it may end before it at every
    step.

    Args:
        model: a callable of one example with logits `(n_out,)` for an answer.
        x: the example, within the bounds.
        label: its class, an integer in `[0, n_out)`; or a function from the output to a margin, above 0 where
            the attack has succeeded.
        norm: `"linf"`, `"l2"` or `"l1"`.
        bounds: `(low, high)`, each a number or of the shape of `x`.
        targeted: whether `label` is the class that is wanted.
        key: not used; here, so that all attacks are called alike.
        steps: how many, at least 1; one query each.
        step_size: the length of the first step in the l2 norm, in units of the input, at least 0.
        gamma: by which share the radius changes at first, from 0 up to 1.

    Returns:
        An `Attack`.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `label` or an option is of another
            type.
        ValueError: `x` is not finite or out of the bounds, there is no such label or norm, or an option is
            out of its range.

    References:
        Pintor, Roli, Brendel and Biggio, "Fast minimum-norm adversarial attacks through adaptive norm
        constraints", 2021, arXiv:2102.12827, algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> found = [attacks.fmn(model, [0.5, 0.5], 0, norm=norm) for norm in ("l2", "linf")]
        >>> [round(float(one.distance), 2) for one in found]
        [0.2, 0.14]
    """
    steps = _checks.check_integer("steps", steps, at_least=1)
    step_size, gamma = number("step_size", step_size, at_least=0), number("gamma", gamma, at_least=0)
    if _checks.known_false(gamma < 1):
        raise ValueError(f"`gamma` must be below 1; got {gamma}")
    task, restored = prepare(model, x, label, norm=norm, bounds=bounds, targeted=targeted, key=key)
    return restored(_fmn(task, step_size, gamma, norm=norm, targeted=targeted, steps=steps))


@jax.jit(static_argnames=("norm", "targeted", "steps"))
def _fmn(
    task: Task, step_size: jax.Array, gamma: jax.Array, *, norm: str, targeted: bool, steps: int
) -> Attack:
    fixed = constant(task)
    margin, x = margin_of(fixed.label, targeted), fixed.x
    ascend = hoist_layouts(steps, jax.value_and_grad(lambda z: margin(fixed.model(z))), x)
    # Radii in at least single precision: the last change of them is a thousandth.
    wide = jnp.promote_types(x.dtype, jnp.float32)
    farthest = distance(jnp.maximum(x - fixed.low, fixed.high - x).astype(wide), norm)

    def step(i: jax.Array, carry: Any) -> Any:
        candidate, radius, best, least, found = carry
        share = (1 + jnp.cos(jnp.pi * i / steps)) / 2
        change = (_LAST_GAMMA + (gamma - _LAST_GAMMA) * share).astype(wide)
        value, slope = ascend(candidate)
        success, size = value > 0, distance((candidate - x).astype(wide), norm)
        nearer = success & (size <= least)
        best, least = jnp.where(nearer, candidate, best), jnp.where(nearer, size, least)
        found = found | success
        to_go = jnp.abs(value).astype(wide) / jnp.maximum(distance(slope.astype(wide), _DUAL[norm]), 1e-12)
        to_go = jnp.where(jnp.isnan(to_go), 0, to_go)
        outwards = jnp.maximum(radius * (1 + change), jnp.where(found, 0, size + to_go))
        radius = jnp.where(success, jnp.minimum(radius * (1 - change), least), outwards)
        radius = jnp.minimum(radius, farthest)
        length = (step_size * (_LAST_STEP + (1 - _LAST_STEP) * share)).astype(x.dtype)
        moved = candidate + length * steepest(slope, "l2")
        return confine(x, moved, norm, radius.astype(x.dtype), fixed.bounds), radius, best, least, found

    start = (x, jnp.zeros((), wide), x, farthest, jnp.asarray(False))
    last, _, best, _, found = lax.fori_loop(0, steps, step, vary_like(start, x))
    return finish(task, jnp.where(found, best, last), margin_of(task.label, targeted), norm, steps)
