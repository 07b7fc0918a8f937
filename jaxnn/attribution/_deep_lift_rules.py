"""DeepLIFT's rules: structural ones for steps, and `RULES` by primitive.

Each rule computes, from the multiplier of a step's result, those of its inputs, so that the sum over the
inputs of multiplier times change is preserved. This is why the attributions add up.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxnn._engine.backward import Rule, gradient, refuse, register, summed_to
from jaxnn._engine.graph import Graph, Run, Step
from jaxnn._engine.jaxpr import bind
from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch
from jaxnn._engine.primitives import (
    ADDITIONS,
    CHAINED_PRODUCTS,
    EXTREMA,
    LAYOUT,
    MAXIMA,
    POWERS,
    PRODUCTS,
    SCALINGS,
    is_real,
    variables,
)
from jaxnn._engine.relu import relu_factor
from jaxnn._engine.softmax import Normalization, normalization
from jaxnn._precision import widen
from jaxnn.attribution._accumulate import weighted_sum
from jaxnn.attribution._deep_lift_order import rank_multipliers
from jaxnn.attribution._path import nodes

Multipliers = Sequence[jax.Array | None]
_BLOCK = 2**19  # elements of a normalization at a time
PrimitiveRule = Callable[[Graph, Step, jax.Array, Run, Run], Multipliers]
RULES: dict[str, PrimitiveRule] = {}
"""`rule(graph, step, multiplier, run, run0) -> multipliers of step.inputs`, by primitive."""

rule = functools.partial(register, RULES)


def run_both(graph: Graph, fixed: frozenset[Any], x: Sequence[Any], x0: Sequence[Any]) -> tuple[Run, Run]:
    """Run a function on an input and on a baseline, with the same shift in each softmax.

    The shift is the mean of the two, so that the runs may differ as far as possible before one of them
    overflows or vanishes.
    """

    def both(step: Step, *pairs: tuple[Any, Any]) -> list[Any]:
        outputs = list(zip(*(step.call(*values) for values in zip(*pairs, strict=True)), strict=True))
        if len(outputs) == 1 and step.outputs[0] in fixed:
            ((y, y0),) = outputs
            middle = (y + y0) / 2
            middle = lax.stop_gradient(jnp.where(jnp.isfinite(middle), middle, jnp.maximum(y, y0)))
            return [(middle, middle)]
        return outputs

    pairs = graph.run(*zip(x, x0, strict=True), apply=both)
    run, run0 = ({v: pair[i] for v, pair in pairs.items()} for i in (0, 1))
    return run, run0


def rescale_rule(graph: Graph) -> Rule:
    """The rule for `backward`: `rule(step, multipliers, run, run0)`."""

    def step_rule(step: Step, multipliers: Sequence[jax.Array], run: Run, run0: Run) -> Multipliers:
        if step.kind == "elementwise":
            return _elementwise(step, multipliers[0], run, run0)
        if step.kind == "linear":
            return gradient(step, multipliers, run)
        softmax = normalization(graph, step)
        if softmax is not None:
            multiplier = _normalization(softmax, multipliers[0], run, run0)
            return [multiplier if v is softmax.numerator else None for v in step.inputs]
        if step.name not in RULES:
            raise refuse("deep_lift", step, rules=RULES)
        return RULES[step.name](graph, step, multipliers[0], run, run0)

    return step_rule


def _quotient(
    change: jax.Array, rounding: jax.Array, r: jax.Array, r0: jax.Array, derivative: jax.Array
) -> jax.Array:
    """The change of a function over that of its argument; its derivative where they agree to rounding.

    No threshold on the size of the change: where the derivative is used, derivative times change differs from
    the function's change by no more than the function's own rounding.
    """
    equal = r == r0  # not a difference of zero: both may be infinite
    distance = jnp.where(equal, 1, r - r0)
    quotient = change / distance
    noise = 4 * jnp.finfo(r.dtype).eps * rounding / jnp.abs(distance)
    return jnp.where(equal | (jnp.abs(quotient - derivative) <= noise), derivative, quotient)


def _elementwise(step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    (v,), (w,) = step.inputs, step.outputs
    r, r0, y, y0 = run[v], run0[v], run[w], run0[w]
    factor = relu_factor(step)
    if factor is not None:  # at 0 the gradient of a ReLU depends on its spelling
        derivative = jnp.where(r > 0, jnp.asarray(factor, r.dtype), 0)
    else:
        (derivative,) = gradient(step, [jnp.ones_like(y)], run)
    return [multiplier * _quotient(y - y0, jnp.abs(y) + jnp.abs(y0), r, r0, derivative)]


def _operands(step: Step, *runs: Run) -> list[tuple[jax.Array, jax.Array]]:
    """The two operands in each run; both must depend on the input."""
    operands = step.equations[0].invars
    if len(operands) != 2 or any(v not in step.inputs for v in operands):
        raise refuse("deep_lift", step, "only one of its two operands depends on the input")
    return [(run[operands[0]], run[operands[1]]) for run in runs]


def _per_input(step: Step, multipliers: Sequence[jax.Array]) -> Multipliers:
    """Sum operand multipliers per distinct input: an input may be both operands."""
    operands: list[Any] = step.equations[0].invars
    fitting = [summed_to(m, v.aval.shape) for v, m in zip(operands, multipliers, strict=True)]
    zero = jnp.zeros((), fitting[0].dtype)
    return [sum((m for v, m in zip(operands, fitting, strict=True) if v is w), zero) for w in step.inputs]


@rule(*PRODUCTS)
def _product(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """The multiplier of each factor is the mean of the other: half of the change is due to each."""
    (a, b), (a0, b0) = _operands(step, run, run0)
    (eqn,) = step.equations
    _, pull = jax.vjp(lambda a, b: bind(eqn, [a, b])[0], (a + a0) / 2, (b + b0) / 2)
    return _per_input(step, pull(multiplier))


@rule("mul")
def _multiplication(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """The Shapley values of a product, `m_a = (b + b0) / 2`; by a reciprocal, the rule of the quotient.

    `y = a s`, with `s = 1 / b`: `m_a = 2 s s0 / (s + s0)` and `m_s = (y + y0) / (s + s0)`.
    """
    (a, b), (a0, b0) = _operands(step, run, run0)
    multipliers = [(b + b0) / 2, (a + a0) / 2]
    powers = [_is_negative_power(graph, v) for v in step.equations[0].invars]
    if any(powers):
        place = 1 if powers[1] else 0  # of `s`
        s, s0 = (b, b0) if place == 1 else (a, a0)
        y, y0 = run[step.outputs[0]], run0[step.outputs[0]]
        safe = _same_sign(s, s0)
        total = jnp.where(safe, s + s0, 1)
        multipliers[place] = jnp.where(safe, (y + y0) / total, multipliers[place])
        multipliers[1 - place] = jnp.where(safe, 2 * s * (s0 / total), multipliers[1 - place])
    return _per_input(step, [multiplier * m for m in multipliers])


@rule("div")
def _division(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """The Shapley values of the product `y b = a`, solved for `y`, where the divisor keeps its sign.

    `m_a = 2 / (b + b0)` and `m_b = -(y + y0) / (b + b0)`. They are bounded by the quotients themselves, while
    the Shapley values of the quotient, used elsewhere, grow as `a / b0`: without limit as a normalizer
    approaches 0.
    """
    (a, b), (a0, b0) = _operands(step, run, run0)
    y, y0 = run[step.outputs[0]], run0[step.outputs[0]]
    safe = _same_sign(b, b0)
    total = jnp.where(safe, b + b0, 1)
    inverse, inverse0 = 1 / jnp.where(safe, 1, b), 1 / jnp.where(safe, 1, b0)
    first = jnp.where(safe, 2 / total, (inverse + inverse0) / 2)
    second = jnp.where(safe, -(y + y0) / total, -(a + a0) / 2 * inverse * inverse0)
    return _per_input(step, [multiplier * first, multiplier * second])


def _same_sign(r: jax.Array, r0: jax.Array) -> jax.Array:
    return (jnp.sign(r) == jnp.sign(r0)) & (r != 0)


def _is_negative_power(graph: Graph, v: Any) -> bool:
    """Whether a value is a negative power of another, such as `rsqrt`, scaled and repeated or not."""
    for step in graph.chain(v, beyond=True):
        if len(step.inputs) != 1:
            return False
        if step.kind != "linear":
            powers = all(eqn.primitive.name in POWERS for eqn in step.equations)
            return powers and any(_inverts(eqn, step) for eqn in step.equations)
        if any(eqn.primitive.name not in (SCALINGS | LAYOUT) - ADDITIONS for eqn in step.equations):
            return False
    return False


def _inverts(eqn: core.JaxprEqn, step: Step) -> bool:
    """Whether an operation of a step takes a negative power of what depends on the input."""
    name, operands = eqn.primitive.name, eqn.invars
    if name == "integer_pow":
        return bool(eqn.params["y"] < 0)
    if name == "pow":
        return isinstance(operands[1], core.Literal) and bool(operands[1].val < 0)
    if name == "div":
        computed = {*step.inputs, *(v for other in step.equations for v in other.outvars)}
        return [not computed.isdisjoint(variables([v])) for v in operands] == [False, True]
    return name == "rsqrt"


@rule("stop_gradient")
def _identity(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """The value itself."""
    return [multiplier]


@rule("max", "min", "pow", "atan2")
def _binary(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """The Shapley values of the two operands as players."""
    (eqn,) = step.equations
    pair = _shapley_pair(lambda a, b: bind(eqn, [a, b])[0], *_operands(step, run, run0))
    return _per_input(step, [multiplier * m for m in pair])


def _shapley_pair(
    function: Callable[[Any, Any], Any], values: tuple[Any, Any], values0: tuple[Any, Any]
) -> list[jax.Array]:
    """The multiplier of each argument: its Shapley value over its change.

    `m_a (a - a0) = (f(a, b) - f(a0, b) + f(a, b0) - f(a0, b0)) / 2`.
    """

    def one(function: Callable[[Any, Any], Any], r: Any, r0: Any, others: tuple[Any, Any]) -> Any:
        total: Any = 0.0
        for other in others:
            (y, pull), y0 = jax.vjp(lambda r, other=other: function(r, other), r), function(r0, other)
            (derivative,) = pull(jnp.ones_like(y))
            total += _quotient(y - y0, jnp.abs(y) + jnp.abs(y0), r, r0, derivative) / 2
        return total

    (a, b), (a0, b0) = values, values0
    return [one(function, a, a0, (b, b0)), one(lambda r, other: function(other, r), b, b0, (a, a0))]


def _normalization(softmax: Normalization, multiplier: jax.Array, run: Run, run0: Run) -> jax.Array:
    """The multiplier of the numerator of a normalization.

    A large one is computed some rows at a time, as the rule computes some dozen arrays of its size. Without a
    loop XLA computes them for all softmaxes of a model before it needs them, and stores them.
    """
    a, a0 = run[softmax.numerator], run0[softmax.numerator]
    rows = next((axis for axis in range(a.ndim) if axis not in softmax.axes), None)
    size = 0 if rows is None else _BLOCK * a.shape[rows] // max(a.size, 1)
    if rows is None or softmax.mask is not None or size >= a.shape[rows]:
        call: Callable[..., list[Any]] = (lambda v: [v]) if softmax.mask is None else softmax.mask.call
        return _of_numerator(call, softmax.axes, multiplier, a, a0)
    axes = tuple(axis - (axis > rows) for axis in softmax.axes)
    parts = [jnp.moveaxis(part, rows, 0) for part in (multiplier, a, a0)]

    def of_row(row: jax.Array) -> jax.Array:
        return _of_numerator(lambda v: [v], axes, *(part[row] for part in parts))

    return jnp.moveaxis(chunked_map(of_row, a.shape[rows], max(size, 1)), 0, rows)


def _of_numerator(
    call: Callable[..., list[Any]],
    axes: tuple[int, ...],
    multiplier: jax.Array,
    a: jax.Array,
    a0: jax.Array,
) -> jax.Array:
    """Of `a / (a + r)`: the value `a` and the sum `r` of all others are the two players.

    As a quotient of `a` and the total, it would be the difference of two numbers as large as one total
    over the other: of confident softmaxes nothing but rounding would be left.
    """
    ((terms,), pull), (terms0,) = jax.vjp(call, a), call(a0)

    def fraction(value: jax.Array, rest: jax.Array) -> jax.Array:
        total = call(value)[0] + rest
        # Of nothing, each may count for half of the total; it need only be finite.
        return jnp.where(total == 0, 0.5, _ratio(value, jnp.where(total == 0, 1, total)))

    rest, rest0 = _others(terms, axes), _others(terms0, axes)
    of_own, of_rest = _shapley_pair(fraction, (a, rest), (a0, rest0))
    (of_others,) = pull([_others(multiplier * of_rest, axes)])
    return multiplier * of_own + of_others


@jax.custom_jvp
def _ratio(part: jax.Array, total: jax.Array) -> jax.Array:
    """`part / total`, with a derivative that does not square the total, which would overflow."""
    return part / total


@_ratio.defjvp
def _ratio_derivative(values: tuple[Any, Any], changes: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    (part, total), (of_part, of_total) = values, changes
    ratio = _ratio(part, total)
    return ratio, _ratio(of_part - ratio * of_total, total)


def _others(values: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """For each value the sum of all others along some axes, without cancellation: nothing is subtracted."""
    last = tuple(range(-len(axes), 0))
    moved = jnp.moveaxis(widen(values), axes, last)
    flat = moved.reshape(*moved.shape[: values.ndim - len(axes)], -1)
    zero, axis = jnp.zeros_like(flat[..., :1]), flat.ndim - 1
    before = jnp.concatenate([zero, lax.cumsum(flat[..., :-1], axis)], axis)
    after = jnp.concatenate([lax.cumsum(flat[..., 1:], axis, reverse=True), zero], axis)
    return jnp.moveaxis((before + after).reshape(moved.shape), last, axes).astype(values.dtype)


@rule(*EXTREMA)
def _extremum(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """The extremal elements of the two runs split the change, window by window.

    With `c = max(y, y0)`, the element that is the largest now gets `c - y0`, the one that was it at the
    baseline `y - c`. Where either is not zero, that element itself has changed, so that it has a multiplier.
    """
    (v,), (w,) = step.inputs, step.outputs
    x, x0, y, y0 = run[v], run0[v], run[w], run0[w]
    _, pull = jax.vjp(lambda x: step.call(x)[0], x)
    _, pull0 = jax.vjp(lambda x: step.call(x)[0], x0)
    crossed = (jnp.maximum if step.name in MAXIMA else jnp.minimum)(y, y0)
    (change,), (change0,) = pull(multiplier * (crossed - y0)), pull0(multiplier * (y - crossed))
    (plain,) = pull(multiplier)
    equal = x == x0
    return [jnp.where(equal, plain, (change + change0) / jnp.where(equal, 1, x - x0))]


@rule(*CHAINED_PRODUCTS)
def _chained_product(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """The Shapley values of the factors as players: of two, the mean of the other.

    A product is linear in each factor. So they are an integral of its gradient over the straight path between
    the two runs (Owen, 1972), which Gauss-Legendre quadrature computes exactly.
    """
    (v,) = step.inputs
    x, x0 = run[v], run0[v]

    def at(position: jax.Array) -> jax.Array:
        t = position.astype(x.dtype)
        (pulled,) = jax.vjp(lambda x: step.call(x)[0], (1 - t) * x0 + t * x)[1](multiplier)
        return pulled

    axes = step.params["axes"] if "axes" in step.params else (step.params["axis"],)
    factors = math.prod(x.shape[axis] for axis in axes)
    positions, weights = nodes("gauss_legendre", max(1, -(-factors // 2)))
    return [weighted_sum(at, positions, weights, Batch(1)).astype(x.dtype)]


@rule("sort")
def _sort(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """By the ranks of each element on the way between the two runs."""
    if any(map(is_real, step.outputs[1:])):
        raise refuse("deep_lift", step, "it moves other values, to different places in the two runs")
    (v,) = step.inputs
    return [rank_multipliers(multiplier, run[v], run0[v], step.params["dimension"])]


@rule("top_k")
def _top_k(graph: Graph, step: Step, multiplier: jax.Array, run: Run, run0: Run) -> Multipliers:
    """By the ranks of each element on the way between the two runs, from the largest."""
    (v,) = step.inputs
    axis = step.params.get("axis", v.aval.ndim - 1) % v.aval.ndim
    widths = [(0, size - kept) for size, kept in zip(v.aval.shape, multiplier.shape, strict=True)]
    # In descending order, the first of equal elements first.
    return [rank_multipliers(jnp.pad(multiplier, widths), -run[v], -run0[v], axis)]
