"""The smallest distance at which any attack succeeds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._common import Attack, Bounds, Model, Task, better, check_attack, in_ball, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._geometry import distance
from jaxnn.attacks._robust import takes_epsilon
from jaxnn.attacks._search import constant, finish


def minimal_norm(
    model: Model,
    x: Any,
    label: Label,
    attack: Callable[..., Attack] | Sequence[Callable[..., Attack]],
    *,
    key: jax.Array,
    norm: str = "linf",
    epsilon: Any = None,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    steps: int = 10,
) -> Attack:
    """The smallest change with which an attack, or any of several, succeeds.

    An attack in a ball, such as `pgd`, is tried at the middle of the radii that are left, `steps` times: what
    it finds bounds them from above, a failure from below. An attack that looks for the nearest success by
    itself, such as `fmn`, is asked once. The nearest success of all is the answer.

    Args:
        model: a callable of one example with logits `(n_out,)` for an answer.
        x: the example, within the bounds.
        label: its class, an integer in `[0, n_out)`; or a function from the output to a margin, above 0 where
            the attack has succeeded.
        attack: a function `attack(model, x, label, *, norm, bounds, targeted, key)`, with `epsilon` for one
            in a ball, or a list of them. It is recognized by identity: make a `functools.partial` once.
        key: a JAX random key. Attack `i` gets `fold_in(key, i)`, and one in a ball `fold_in` of that and the
            number of the step.
        norm: which every one of the attacks must know.
        epsilon: the largest radius, at least 0, in units of the input; None for as far as the bounds reach.
        bounds: `(low, high)`, each a number or of the shape of `x`.
        targeted: whether `label` is the class that is wanted.
        steps: how many radii, at least 1: the smallest is known to `epsilon * 2 ** -steps`.

    Returns:
        An `Attack`, its distance 0 where the attack has succeeded with `x` itself.

    Raises:
        TypeError: `attack` holds what is not callable, or as the attack raises.
        ValueError: `attack` holds nothing; `epsilon` is None for an attack in a ball, although the bounds are
            not finite; or as the attack raises.

    Example:
        >>> import functools, jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> several = [attacks.fmn, attacks.deepfool]
        >>> found = attacks.minimal_norm(model, [0.5, 0.5], 0, several, key=jax.random.key(0), norm="l2")
        >>> round(float(found.distance), 2)
        0.2
    """
    given: list[Any] = list(attack) if isinstance(attack, list | tuple) else [attack]
    if not given:
        raise ValueError("`attack` must hold at least one attack; got none")
    attacks = tuple(check_attack(one) for one in given)
    bisected = tuple(takes_epsilon(one) for one in given)
    steps = _checks.check_integer("steps", steps, at_least=1)
    task, restored = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted, key=key, needs_key=True
    )
    if epsilon is None and any(bisected) and _checks.known_false(jnp.all(jnp.isfinite(task.high - task.low))):
        raise ValueError("`epsilon` must be given where `bounds` are not finite: how far is an attack to go?")
    return restored(
        _minimal_norm(task, attacks, key, bisected=bisected, norm=norm, targeted=targeted, steps=steps)
    )


@jax.jit(static_argnames=("bisected", "norm", "targeted", "steps"))
def _minimal_norm(
    task: Task,
    attacks: tuple[Any, ...],
    key: jax.Array,
    *,
    bisected: tuple[bool, ...],
    norm: str,
    targeted: bool,
    steps: int,
) -> Attack:
    fixed = constant(task)
    margin = margin_of(fixed.label, targeted)
    call = {"norm": norm, "bounds": fixed.bounds, "targeted": targeted}
    already = margin(fixed.model(fixed.x)) > 0
    best = Attack(fixed.x, already, jnp.where(already, 0, jnp.inf).astype(fixed.x.dtype), jnp.int32(1))
    best = vary_like(best, fixed.x)
    for number, (attack, halved) in enumerate(zip(attacks, bisected, strict=True)):
        own_key = jax.random.fold_in(key, number)
        if halved:
            found = _bisect(fixed, attack, own_key, steps, call)
        else:
            found = attack(fixed.model, fixed.x, fixed.label, key=own_key, **call)
            found = in_ball(found, fixed.x, fixed.epsilon)
        best = better(best, found)
    return finish(task, best.input, margin_of(task.label, targeted), norm, best.queries)


def _bisect(task: Task, attack: Any, key: jax.Array, steps: int, call: dict[str, Any]) -> Attack:
    """The nearest success of an attack in a ball."""
    x = task.x
    farthest = distance(jnp.maximum(x - task.low, task.high - x), call["norm"])

    def step(i: jax.Array, carry: Any) -> Any:
        low, high, best = carry
        radius = (low + high) / 2
        found = attack(task.model, x, task.label, epsilon=radius, key=jax.random.fold_in(key, i), **call)
        high = jnp.where(found.success, jnp.minimum(radius, found.distance), high)
        return jnp.where(found.success, low, radius), high, better(best, found)

    none = Attack(x, jnp.asarray(False), jnp.asarray(jnp.inf, x.dtype), jnp.int32(0))
    start = (jnp.zeros((), x.dtype), jnp.minimum(task.epsilon, farthest), none)
    return lax.fori_loop(0, steps, step, vary_like(start, (x, key)))[2]
