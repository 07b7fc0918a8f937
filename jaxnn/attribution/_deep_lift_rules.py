"""DeepLIFT's table of rules: how a change between two runs is shared among what changed.

Each rule gives, for a multiplier of a step's result, those of its inputs, so that the sum over the inputs of
multiplier times change stays what it was: this is what makes the attributions add up.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxnn._engine.graph import Graph, Run, Step, gradient, refuse, summed_to
from jaxnn._engine.jaxpr import bind
from jaxnn._engine.primitives import is_real
from jaxnn._engine.relu import relu_factor
from jaxnn._engine.softmax import Shares, shares, shifts
from jaxnn._precision import widen as wide

_OF_TWO = {"mul", "div", "max", "min", "pow", "atan2"}
_PRODUCTS = {"dot_general", "conv_general_dilated"}
_LARGEST = {"reduce_max": jnp.maximum, "reduce_window_max": jnp.maximum}
_EXTREME = _LARGEST | {"reduce_min": jnp.minimum, "reduce_window_min": jnp.minimum}


def run_both(line: Graph, x: Sequence[Any], x0: Sequence[Any]) -> tuple[Run, Run]:
    """Run a function on an input and on a baseline, with the same shift in each softmax.

    The shift is the mean of the two, so that the runs may differ as far as possible before one of them
    overflows or comes to nothing.
    """
    same = shifts(line).fixed
    run, run0 = dict(zip(line.inputs, x, strict=True)), dict(zip(line.inputs, x0, strict=True))
    for step in line.steps:
        y = step.call(*(run[v] for v in step.inputs))
        y0 = step.call(*(run0[v] for v in step.inputs))
        if step.outputs[0] in same:
            middle = (y[0] + y0[0]) / 2
            middle = jnp.where(jnp.isfinite(middle), middle, jnp.maximum(y[0], y0[0]))
            y = y0 = [lax.stop_gradient(middle)]
        run.update(zip(step.outputs, y, strict=True))
        run0.update(zip(step.outputs, y0, strict=True))
    return run, run0


def rescale_rule(line: Graph) -> Callable[..., Sequence[Any]]:
    """The rule of each step of a function: `rule(step, multipliers, run, run0)`."""
    same, made_by = shifts(line).fixed, line.made_by()

    def rule(step: Step, multipliers: Sequence[Any], run: Run, run0: Run) -> Sequence[Any]:
        if all(v in same for v in step.outputs):
            return [None] * len(step.inputs)
        if step.kind == "elementwise":
            return _elementwise(step, multipliers[0], run, run0)
        if not all(is_real(v) for v in (*step.inputs, *step.outputs)):
            raise refuse("deep_lift", step, "what it works on, or makes of the input, are no real numbers")
        if step.kind == "linear":
            return gradient(step, multipliers, run)
        if step.name == "stop_gradient":
            raise refuse("deep_lift", step, "the answer may depend on the value whose gradient is stopped")
        if step.name in _EXTREME:
            return _extreme(step, multipliers[0], run, run0)
        found = shares(made_by, step)
        if found is not None:
            multiplier = _share(found, multipliers[0], run, run0)
            return [multiplier if v is found.of else None for v in step.inputs]
        operands = step.equations[0].invars
        if len(operands) == 2 and all(not isinstance(v, core.Literal) and v in run for v in operands):
            if step.name in _PRODUCTS:
                return _product(step, multipliers[0], run, run0)
            if step.name in _OF_TWO:
                return _of_two(step, multipliers[0], run, run0)
        raise refuse("deep_lift", step)

    return rule


def _quotient(change: jax.Array, rounding: jax.Array, r: jax.Array, r0: jax.Array, slope: jax.Array) -> Any:
    """The change of a function over that of its argument; its slope where they agree to within rounding.

    No threshold on the size of the change: where the slope is taken, slope times change differs from the
    function's change by no more than the function's own rounding.
    """
    equal = r == r0  # and not a difference of zero: both may be infinite
    apart = jnp.where(equal, 1, r - r0)
    quotient = change / apart
    noise = 4 * jnp.finfo(r.dtype).eps * rounding / jnp.abs(apart)
    return jnp.where(equal | (jnp.abs(quotient - slope) <= noise), slope, quotient)


def _elementwise(step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Sequence[Any]:
    (v,), (w,) = step.inputs, step.outputs
    if not (is_real(v) and is_real(w)):
        raise refuse("deep_lift", step, "what it works on, or makes of the input, are no real numbers")
    r, r0, y, y0 = run[v], run0[v], run[w], run0[w]
    factor = relu_factor(step)
    if factor is not None:  # at 0 the many ways to write a relu have many slopes
        slope = jnp.where(r > 0, jnp.asarray(factor, r.dtype), 0)
    else:
        (slope,) = gradient(step, [jnp.ones_like(y)], run)
    return [multiplier * _quotient(y - y0, jnp.abs(y) + jnp.abs(y0), r, r0, slope)]


def _gathered(step: Step, of_operands: Sequence[Any]) -> list[Any]:
    """What is given for each operand, for each input: an input may be both operands."""
    operands: list[Any] = step.equations[0].invars
    fitting = [summed_to(m, v.aval.shape) for v, m in zip(operands, of_operands, strict=True)]
    return [sum(m for v, m in zip(operands, fitting, strict=True) if v is w) for w in step.inputs]


def _product(step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Sequence[Any]:
    """Of a product, each operand's multiplier is the mean of the other: half of the change is each one's."""
    (eqn,) = step.equations
    means = [(run[v] + run0[v]) / 2 for v in eqn.invars]
    _, pull = jax.vjp(lambda a, b: bind(eqn, [a, b])[0], *means)
    return _gathered(step, pull(multiplier))


def _of_two(step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Sequence[Any]:
    """Of a function of two values, each one's share is its Shapley value in the game of the two.

    `m_a (a - a0) = (f(a, b) - f(a0, b) + f(a, b0) - f(a0, b0)) / 2`: for a product `m_a = (b + b0) / 2`,
    for a quotient `m_a = (1 / b + 1 / b0) / 2`.
    """
    (eqn,) = step.equations
    (a, b), (a0, b0) = ([each[v] for v in eqn.invars] for each in (run, run0))
    if step.name == "mul":
        return _gathered(step, [multiplier * (b + b0) / 2, multiplier * (a + a0) / 2])
    if step.name == "div":
        inverse, inverse0 = 1 / b, 1 / b0
        first, second = (inverse + inverse0) / 2, -(a + a0) / 2 * inverse * inverse0
        return _gathered(step, [multiplier * first, multiplier * second])

    of_both = _of_each(lambda r, other: bind(eqn, [r, other])[0], (a, b), (a0, b0))
    return _gathered(step, [multiplier * m for m in of_both])


def _of_each(
    function: Callable[[Any, Any], Any], values: tuple[Any, Any], values0: tuple[Any, Any]
) -> list[jax.Array]:
    """The multiplier of each of the two values of a function: its Shapley value over its change."""

    def one(function: Callable[[Any, Any], Any], r: Any, r0: Any, others: tuple[Any, Any]) -> Any:
        total = 0.0
        for other in others:
            (y, pull), y0 = jax.vjp(lambda r, other=other: function(r, other), r), function(r0, other)
            (slope,) = pull(jnp.ones_like(y))
            total += _quotient(y - y0, jnp.abs(y) + jnp.abs(y0), r, r0, slope) / 2
        return total

    (a, b), (a0, b0) = values, values0
    return [one(function, a, a0, (b, b0)), one(lambda r, other: function(other, r), b, b0, (a, a0))]


def _share(found: Shares, multiplier: jax.Array, run: Run, run0: Run) -> jax.Array:
    """Of a share in a sum, `a / (a + r)`: its own value and the sum `r` of all others are the two players.

    As a quotient, of `a` and the whole sum, it would come out as the difference of two numbers as large as
    one sum over the other: of softmaxes that are sure of themselves nothing would be left but rounding.
    """
    a, a0 = run[found.of], run0[found.of]
    mask = None if found.mask is None else found.mask.call
    (kept, pull) = (lambda v: v, None) if mask is None else (lambda v: mask(v)[0], jax.vjp(mask, a)[1])
    terms, terms0 = kept(a), kept(a0)

    def share(value: Any, rest: Any) -> Any:
        whole = kept(value) + rest
        # Where there is neither, each may count for half of the whole; all that counts is that it is finite.
        return jnp.where(whole == 0, 0.5, _ratio(value, jnp.where(whole == 0, 1, whole)))

    rest, rest0 = _others(terms, found.axes), _others(terms0, found.axes)
    of_own, of_rest = _of_each(share, (a, rest), (a0, rest0))
    to_others = _others(multiplier * of_rest, found.axes)
    return multiplier * of_own + (to_others if pull is None else pull([to_others])[0])


@jax.custom_jvp
def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """`part / whole`, with a slope that does not square the whole: an exponential's would overflow."""
    return part / whole


@_ratio.defjvp
def _ratio_slope(values: tuple[Any, Any], changes: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    (part, whole), (of_part, of_whole) = values, changes
    ratio = _ratio(part, whole)
    return ratio, _ratio(of_part - ratio * of_whole, whole)


def _others(values: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """For each value the sum of all others along some axes, added up: never a sum less one of its terms."""
    last = tuple(range(-len(axes), 0))
    moved = jnp.moveaxis(wide(values), axes, last)
    line = moved.reshape(*moved.shape[: values.ndim - len(axes)], -1)
    zero, axis = jnp.zeros_like(line[..., :1]), line.ndim - 1
    before = jnp.concatenate([zero, lax.cumsum(line[..., :-1], axis)], axis)
    after = jnp.concatenate([lax.cumsum(line[..., 1:], axis, reverse=True), zero], axis)
    return jnp.moveaxis((before + after).reshape(moved.shape), last, axes).astype(values.dtype)


def _extreme(step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Sequence[Any]:
    """Of a maximum, the two entries that were it in the two runs share the change, window by window.

    With `c = max(y, y0)`, the one that is the largest now gets `c - y0`, the one that was it then
    `y - c`. Where either is not zero, that entry itself has changed, so that the share has a multiplier.
    """
    (v,), (w,) = step.inputs, step.outputs
    x, x0, y, y0 = run[v], run0[v], run[w], run0[w]
    _, pull = jax.vjp(lambda x: step.call(x)[0], x)
    _, pull0 = jax.vjp(lambda x: step.call(x)[0], x0)
    crossed = _EXTREME[step.name](y, y0)
    (share,), (share0,), (plain,) = (
        pull(multiplier * (crossed - y0)),
        pull0(multiplier * (y - crossed)),
        pull(multiplier),
    )
    equal = x == x0
    return [jnp.where(equal, plain, (share + share0) / jnp.where(equal, 1, x - x0))]
