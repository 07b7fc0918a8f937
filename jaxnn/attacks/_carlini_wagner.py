"""The nearest adversarial input as the minimum of a sum of two terms, after Carlini and Wagner."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._common import Attack, Bounds, Model, Task, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._search import constant, finish, number, to_boundary

_INSIDE = 0.999999  # an input on a bound would be infinitely far away in the space of the search
_CHECKS = 10  # so often a search is asked whether it still gets on
_GROWTH = 10  # of the constant, until it is large enough
_LAST_STEPS = 16  # of bisection


def carlini_wagner(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "l2",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Any = None,
    steps: int = 10_000,
    search_steps: int = 9,
    learning_rate: Any = 0.01,
    initial_constant: Any = 1e-3,
    confidence: Any = 0.0,
    abort_early: bool = True,
) -> Attack:
    """The nearest adversarial input by minimizing its squared distance and what it lacks of success.

    Minimizes `||x(w) - x||_2^2 + c * max(confidence - margin(model(x(w))), 0)` over `w` with Adam, where
    `x(w) = low + (high - low) * (tanh(w) + 1) / 2` lies within the bounds for every `w`. The constant `c`
    grows tenfold until the attack succeeds, then it is bisected between what was too small and what was
    enough. The nearest success of all steps is taken, and moved towards `x` by bisection as far as it stays
    one.

    Args:
        model: a callable of one example with logits `(n_out,)` for an answer.
        x: the example, within the bounds.
        label: its class, an integer in `[0, n_out)`; or a function from the output to a margin, above 0 where
            the attack has succeeded.
        norm: `"l2"`.
        bounds: `(low, high)`, each a number or of the shape of `x`.
        targeted: whether `label` is the class that is wanted.
        key: not used; here, so that all attacks are called alike.
        steps: of Adam for each constant, at least 1.
        search_steps: how many constants are tried, at least 1.
        learning_rate: of Adam, at least 0.
        initial_constant: the first `c`, at least 0.
        confidence: how large the margin has to be, in units of it, at least 0.
        abort_early: whether to leave a constant when the sum has not fallen by 0.01 % in a tenth of the
            steps.

    Returns:
        An `Attack`; where `confidence` is above 0, `success` means that it was reached.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `label` or an option is of another
            type.
        ValueError: `x` is not finite or out of the bounds, the bounds are not finite, there is no such
            label or norm, or an option is out of its range.

    References:
        Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, arXiv:1608.04644,
        section VI.A.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> found = attacks.carlini_wagner(model, [0.5, 0.5], 0, steps=100)
        >>> bool(found.success), round(float(found.distance), 2)
        (True, 0.2)
    """
    numbers = (
        number("learning_rate", learning_rate, at_least=0),
        number("initial_constant", initial_constant, at_least=0),
        number("confidence", confidence, at_least=0),
    )
    sizes = {
        "steps": _checks.check_integer("steps", steps, at_least=1),
        "search_steps": _checks.check_integer("search_steps", search_steps, at_least=1),
    }
    if not isinstance(abort_early, bool):
        raise TypeError(f"`abort_early` must be True or False; got {abort_early!r}")
    task, restored = prepare(
        model, x, label, norm=norm, norms=("l2",), bounds=bounds, targeted=targeted, key=key
    )
    _checks.check_finite("bounds", jnp.stack([jnp.max(jnp.abs(bound)) for bound in task.bounds]))
    return restored(_carlini_wagner(task, *numbers, targeted=targeted, abort_early=abort_early, **sizes))


class _Found(NamedTuple):
    """The nearest success so far: where, its squared distance, and whether there is any."""

    input: jax.Array
    square: jax.Array
    any: jax.Array


class _Constant(NamedTuple):
    """The weight that is tried, the largest that was too small, the smallest that was enough."""

    value: jax.Array
    low: jax.Array
    high: jax.Array


@jax.jit(static_argnames=("targeted", "abort_early", "steps", "search_steps"))
def _carlini_wagner(
    task: Task,
    learning_rate: jax.Array,
    initial_constant: jax.Array,
    confidence: jax.Array,
    *,
    targeted: bool,
    abort_early: bool,
    steps: int,
    search_steps: int,
) -> Attack:
    fixed = constant(task)
    margin = _surplus(margin_of(fixed.label, targeted), confidence)
    wide = jnp.promote_types(fixed.x.dtype, jnp.float32)
    adam = optax.adam(learning_rate.astype(wide))

    def search(_: Any, carry: Any) -> Any:
        best, weight, _, queries = carry
        found, last, count = _descend(fixed, margin, adam, weight.value, steps, abort_early)
        nearer = found.square < best.square
        best = jax.tree.map(lambda new, old: jnp.where(nearer, new, old), found, best)
        return best, _next(weight, found.any), last, queries + count

    already = margin(fixed.model(fixed.x)) > 0
    best = _Found(fixed.x, jnp.where(already, 0.0, jnp.inf).astype(wide), already)
    first = _Constant(initial_constant.astype(wide), jnp.zeros((), wide), jnp.full((), jnp.inf, wide))
    start = vary_like((best, first, fixed.x, jnp.int32(1)), fixed.x)
    best, _, last, queries = lax.fori_loop(0, search_steps, search, start)
    nearest = to_boundary(
        lambda z: margin(fixed.model(z)) > 0, fixed.x, best.input, "l2", fixed.bounds, _LAST_STEPS
    )
    wanted = _surplus(margin_of(task.label, targeted), confidence)
    chosen = jnp.where(best.any, jnp.where(already, fixed.x, nearest), last)
    return finish(task, chosen, wanted, "l2", queries + _LAST_STEPS)


def _surplus(margin: Callable[[Any], jax.Array], confidence: jax.Array) -> Callable[[Any], jax.Array]:
    def surplus(output: Any) -> jax.Array:
        value = margin(output)
        return value - confidence.astype(value.dtype)

    return surplus


def _next(constant: _Constant, enough: jax.Array) -> _Constant:
    high = jnp.where(enough, constant.value, constant.high)
    low = jnp.where(enough, constant.low, constant.value)
    return _Constant(jnp.where(jnp.isinf(high), constant.value * _GROWTH, (low + high) / 2), low, high)


def _descend(
    task: Task, margin: Callable[[Any], jax.Array], adam: Any, weight: jax.Array, steps: int, abort: bool
) -> tuple[_Found, jax.Array, jax.Array]:
    """Minimize for one constant: the nearest success on the way, the last input, and the queries."""
    x, wide = task.x, weight.dtype
    low, high = (bound.astype(wide) for bound in task.bounds)
    center, half = (low + high) / 2, (high - low) / 2

    def loss(w: jax.Array) -> Any:
        moved = jnp.clip((center + half * jnp.tanh(w)).astype(x.dtype), *task.bounds)
        square = jnp.sum(jnp.square(moved.astype(wide) - x.astype(wide)))
        surplus = margin(task.model(moved)).astype(wide)
        return square + weight * jnp.maximum(-surplus, 0), (moved, square, surplus > 0)

    def step(_: Any, carry: Any) -> Any:
        w, state, found, _, _ = carry
        (value, (moved, square, success)), slope = look(w)
        change, state = adam.update(jnp.where(jnp.isfinite(slope), slope, 0), state)
        nearer = success & (square < found.square)
        found = _Found(
            jnp.where(nearer, moved, found.input),
            jnp.where(nearer, square, found.square),
            found.any | success,
        )
        return w + change, state, found, value, moved

    def part(carry: Any) -> Any:
        number, before, _, inner = carry
        inner = lax.fori_loop(0, jnp.minimum(length, steps - number * length), step, inner)
        value = inner[3]
        falling = (value <= 0.9999 * before) | (not abort)
        return number + 1, value, falling, inner

    length = -(-steps // _CHECKS)
    w = jnp.arctanh((x.astype(wide) - center) / half * _INSIDE)
    look = hoist_layouts(steps, jax.value_and_grad(loss, has_aux=True), w)
    infinite = jnp.full((), jnp.inf, wide)
    inner = (w, adam.init(w), _Found(x, infinite, jnp.asarray(False)), infinite, x)
    start = vary_like((jnp.int32(0), infinite, jnp.asarray(True), inner), x)
    count, *_, (_, _, found, _, last) = lax.while_loop(
        lambda carry: (carry[0] < -(-steps // length)) & carry[2], part, start
    )
    return found, last, jnp.minimum(count * length, steps)
