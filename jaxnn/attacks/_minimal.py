"""Minimal adversarial distance: the smallest radius at which any of several attacks succeeds."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import fori_loop
from jaxnn._typing import Key, Model, Norm, PyTree, Scalar
from jaxnn.attacks._common import Attack, Bounds, Task, better, final_result, in_ball, prepare
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._ensemble import AttackFunction, check_attack, run, takes_epsilon
from jaxnn.attacks._search import farthest, has_range


def minimal_norm(
    model: Model,
    x: PyTree,
    label: Label,
    attack: AttackFunction | Sequence[AttackFunction],
    *,
    key: Key,
    norm: Norm = "linf",
    epsilon: Scalar | None = None,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    steps: int = 10,
) -> Attack:
    """Minimal-norm attack: the smallest change with which an attack, or any of several, succeeds.

    An attack in a ball, such as `pgd`, runs at the middle of the remaining interval of radii, `steps` times:
    a success bounds them from above, a failure from below. An attack that minimizes the distance itself, such
    as `fmn`, runs once. The nearest success of all is returned.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        attack: a function `attack(model, x, label, *, norm, bounds, targeted, key)`, with `epsilon` for one
            in a ball, or a list of them. It is compared by identity: create a `functools.partial` once.
        key: a JAX random key. Attack `i` uses `fold_in(key, i)`, and one in a ball `fold_in` of that and the
            number of the step.
        norm: the norm, which each of the attacks must support.
        epsilon: largest radius in that norm, at least 0; None for the farthest point within the bounds.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        steps: number of radii, at least 1: the smallest is exact to `epsilon * 2 ** -steps`.

    Returns:
        An `Attack`, its distance 0 if `x` itself is a success.

    Raises:
        TypeError: `attack` holds an element that is not callable, or as the attack raises.
        ValueError: `attack` is empty; `epsilon` is None for an attack in a ball, although the bounds are
            not finite; or as the attack raises.

    Example:
        >>> import functools, jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> several = [attacks.fmn, attacks.deepfool]
        >>> result = attacks.minimal_norm(model, [0.5, 0.5], 0, several, key=jax.random.key(0), norm="l2")
        >>> round(float(result.distance), 2)
        0.2
    """
    attacks: list[Any] = list(attack) if isinstance(attack, list | tuple) else [attack]
    if not attacks:
        raise ValueError("`attack` must hold at least one attack; got none")
    callables = tuple(map(check_attack, attacks))
    bisected = tuple(map(takes_epsilon, attacks))
    steps = _checks.check_integer("steps", steps, at_least=1)
    task = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted, key=key, needs_key=True
    )
    if epsilon is None and any(bisected) and not has_range(task):
        raise ValueError("`epsilon` must be given where `bounds` are not finite: the radii have no upper end")
    return _minimal_norm(task, callables, key, bisected=bisected, steps=steps)


@jax.jit(static_argnames=("bisected", "steps"))
def _minimal_norm(
    task: Task, attacks: tuple[AttackFunction, ...], key: Key, *, bisected: tuple[bool, ...], steps: int
) -> Attack:
    fixed = lax.stop_gradient(task)
    x = fixed.x
    call = {"norm": fixed.norm, "bounds": fixed.bounds, "targeted": fixed.targeted}
    already = fixed.succeeds(x)
    best = Attack(x, already, jnp.where(already, 0, jnp.inf).astype(x.dtype), jnp.int32(1))
    for number, (attack, is_bisected) in enumerate(zip(attacks, bisected, strict=True)):
        attack_key = jax.random.fold_in(key, number)
        if is_bisected:
            result = _bisect(fixed, attack, attack_key, steps, call)
        else:
            result = run(attack, fixed.model, x, fixed.label, key=attack_key, **call)
            result = in_ball(result, x, fixed.epsilon)
        best = better(best, result)
    return final_result(task, best.input, best.queries)


def _bisect(task: Task, attack: AttackFunction, key: Key, steps: int, call: dict[str, Any]) -> Attack:
    """The nearest success of an attack in a ball."""
    x = task.x

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array, Attack]) -> Any:
        low, high, best = carry
        radius = (low + high) / 2
        own_key = jax.random.fold_in(key, i)
        result = run(attack, task.model, x, task.label, epsilon=radius, key=own_key, **call)
        high = jnp.where(result.success, jnp.minimum(radius, result.distance), high)
        return jnp.where(result.success, low, radius), high, better(best, result)

    none = Attack(x, jnp.asarray(False), jnp.asarray(jnp.inf, x.dtype), jnp.int32(0))
    largest = jnp.minimum(task.epsilon, farthest(task).astype(x.dtype))
    return fori_loop(0, steps, step, (jnp.zeros((), x.dtype), largest, none))[2]
