"""The Carlini-Wagner L2 attack."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._engine.cpu_layout import hoist_layouts
from jaxnn._engine.loops import fori_loop, vary_like, while_loop
from jaxnn._precision import wide_dtype
from jaxnn._typing import Key, Model, PyTree, Scalar
from jaxnn.attacks._common import Attack, Bounds, Task, final_result, prepare, select
from jaxnn.attacks._criteria import Label, Margin
from jaxnn.attacks._search import to_boundary

_INSIDE = 0.999999  # an input on a bound would be infinitely far away in the space of the search
_CHECKS = 10  # number of checks whether the objective still decreases
_GROWTH = 10  # factor of the constant, until it is large enough
_LAST_STEPS = 16  # of bisection


def carlini_wagner(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Literal["l2"] = "l2",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int = 10_000,
    search_steps: int = 9,
    learning_rate: Scalar = 0.01,
    initial_constant: Scalar = 1e-3,
    confidence: Scalar = 0.0,
    abort_early: bool = True,
) -> Attack:
    """Carlini-Wagner L2 attack: minimize squared distance plus a weighted margin loss.

    Minimizes `||x(w) - x||_2^2 + c * max(confidence - margin(model(x(w))), 0)` over `w` with Adam, distances
    being in units of the widest range of the bounds, where
    `x(w) = low + (high - low) * (tanh(w) + 1) / 2` lies within the bounds for every `w`. The constant `c`
    grows tenfold until the attack succeeds, and is then bisected. The nearest success of all steps is moved
    towards `x` by a final bisection.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"l2"`.
        bounds: `(low, high)` of the input, finite; see `fgsm`.
        targeted: whether `label` is the target class.
        key: unused; accepted so that all attacks can be called alike.
        steps: number of steps of Adam per constant, at least 1.
        search_steps: number of constants, at least 1.
        learning_rate: of Adam, above 0.
        initial_constant: the first `c`, above 0, per unit of the margin: more for logits of smaller size.
        confidence: the margin to reach, in units of the margin, at least 0.
        abort_early: whether to stop a constant when the objective has not decreased by 0.01 % within a tenth
            of the steps.

    Returns:
        An `Attack`; with a `confidence` above 0, `success` means that it was reached.

    Raises:
        TypeError: an argument of another type.
        ValueError: the bounds are not finite, an option is out of its range, or as `fgsm` raises.

    References:
        Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, arXiv:1608.04644,
        section VI.A.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> result = attacks.carlini_wagner(model, [0.5, 0.5], 0, steps=100)
        >>> bool(result.success), round(float(result.distance), 2)
        (True, 0.2)
    """
    task = prepare(model, x, label, norm=norm, norms=("l2",), bounds=bounds, targeted=targeted, key=key)
    _checks.check_finite("bounds", jnp.stack([jnp.max(jnp.abs(bound)) for bound in task.bounds]))
    confidence = _checks.check_number("confidence", confidence, at_least=0)
    return _carlini_wagner(
        dataclasses.replace(task, label=Partial(_surplus, task.margin, confidence)),
        _checks.check_number("learning_rate", learning_rate, above=0),
        _checks.check_number("initial_constant", initial_constant, above=0),
        abort_early=_checks.check_flag("abort_early", abort_early),
        steps=_checks.check_integer("steps", steps, at_least=1),
        search_steps=_checks.check_integer("search_steps", search_steps, at_least=1),
    )


def _surplus(margin: Margin, confidence: jax.Array, output: PyTree) -> jax.Array:
    value = margin(output)
    return value - confidence.astype(value.dtype)


class _Nearest(NamedTuple):
    """The nearest success so far: its input and squared distance, and whether there is any."""

    input: jax.Array
    square: jax.Array
    any: jax.Array


class _Constant(NamedTuple):
    """The current weight, the largest that was too small, the smallest that was large enough."""

    value: jax.Array
    low: jax.Array
    high: jax.Array


@jax.jit(static_argnames=("abort_early", "steps", "search_steps"))
def _carlini_wagner(
    task: Task,
    learning_rate: jax.Array,
    initial_constant: jax.Array,
    *,
    abort_early: bool,
    steps: int,
    search_steps: int,
) -> Attack:
    fixed = lax.stop_gradient(task)
    x, wide = fixed.x, wide_dtype(fixed.x.dtype)
    adam = optax.adam(learning_rate.astype(wide))

    def search(_: jax.Array, carry: Any) -> Any:
        best, weight, _, queries = carry
        nearest, last, count = _descend(fixed, adam, weight.value, steps, abort_early)
        best = select(nearest.square < best.square, nearest, best)
        return best, _next(weight, nearest.any), last, queries + count

    already = fixed.succeeds(x)
    best = _Nearest(x, jnp.where(already, 0.0, jnp.inf).astype(wide), already)
    first = _Constant(initial_constant.astype(wide), jnp.zeros((), wide), jnp.full((), jnp.inf, wide))
    best, _, last, queries = fori_loop(0, search_steps, search, (best, first, x, jnp.int32(1)))
    nearest = to_boundary(fixed, best.input, _LAST_STEPS)
    candidate = jnp.where(best.any, jnp.where(already, x, nearest), last)
    return final_result(task, candidate, queries + _LAST_STEPS)


def _next(constant: _Constant, enough: jax.Array) -> _Constant:
    high = jnp.where(enough, constant.value, constant.high)
    low = jnp.where(enough, constant.low, constant.value)
    return _Constant(jnp.where(jnp.isinf(high), constant.value * _GROWTH, (low + high) / 2), low, high)


def _descend(
    task: Task, adam: optax.GradientTransformation, weight: jax.Array, steps: int, abort: bool
) -> tuple[_Nearest, jax.Array, jax.Array]:
    """Minimize for one constant: the nearest success on the way, the last input, and the queries."""
    x, wide = task.x, weight.dtype
    low, high = (bound.astype(wide) for bound in task.bounds)
    center, half = (low + high) / 2, (high - low) / 2
    width = jnp.max(high - low)  # the unit of distances: the weight is for any unit of the input

    def loss(w: jax.Array) -> tuple[jax.Array, _Nearest]:
        moved = jnp.clip((center + half * jnp.tanh(w)).astype(x.dtype), *task.bounds)
        square = jnp.sum(jnp.square((moved.astype(wide) - x.astype(wide)) / width))
        margin = task.margin_at(moved).astype(wide)
        return square + weight * jnp.maximum(-margin, 0), _Nearest(moved, square, margin > 0)

    def step(_: jax.Array, carry: Any) -> Any:
        w, state, nearest, _, _ = carry
        (value, candidate), gradient = evaluate(w)
        with jax.numpy_dtype_promotion("standard"):  # Optax itself mixes dtypes
            change, state = adam.update(jnp.where(jnp.isfinite(gradient), gradient, 0), state)
        is_nearer = candidate.any & (candidate.square < nearest.square)
        nearest = select(is_nearer, candidate, nearest)._replace(any=nearest.any | candidate.any)
        return w + change, state, nearest, value, candidate.input

    def interval(carry: Any) -> Any:
        number, before, _, inner = carry
        inner = fori_loop(0, jnp.minimum(length, steps - number * length), step, inner)
        value = inner[3]
        falling = (value <= 0.9999 * before) | (not abort)
        return number + 1, value, falling, inner

    length = -(-steps // _CHECKS)
    w = vary_like(jnp.arctanh((x.astype(wide) - center) / half * _INSIDE), (task, weight))
    evaluate: Callable[..., Any] = hoist_layouts(steps, jax.value_and_grad(loss, has_aux=True), w)
    infinite = jnp.full((), jnp.inf, wide)
    inner = (w, adam.init(w), _Nearest(x, infinite, jnp.asarray(False)), infinite, x)
    count, *_, (_, _, nearest, _, last) = while_loop(
        lambda carry: (carry[0] < -(-steps // length)) & carry[2],
        interval,
        (jnp.int32(0), infinite, jnp.asarray(True), inner),
    )
    return nearest, last, jnp.minimum(count * length, steps)
