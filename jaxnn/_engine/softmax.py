"""Softmax patterns: shifts that the output provably does not depend on, and normalizations by a sum.

A softmax is computed as `exp(x - m) / sum(exp(x - m))`, with `m` the largest of `x`, so that nothing
overflows. The output is the same for any `m`. A method that compares the values of two runs must know that:
here it is proved from the operations between. Each value downstream of `m` is followed as one of

- `v + k m` (`"term"`), as after a subtraction,
- `v exp(k m)` (`"factor"`), as after the exponential of that,

`m` being repeated along some axes. The proof succeeds if no result depends on `m`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jax.extend import core

from jaxnn._checks import is_concrete
from jaxnn._engine.graph import Graph, Step
from jaxnn._engine.primitives import (
    ADDITIONS,
    IDENTITY,
    LAYOUT,
    MULTIPLICATIONS,
    RESHAPES,
    SHIFTS,
    is_integer,
    is_real,
    variables,
)


class Segments(NamedTuple):
    """An axis of segments, read for each element of another axis: `shift[..., indices[i], ...]`.

    Attributes:
        axis: of the segments.
        indices: of the segment of each element: the variable, or its values as bytes where they are known.
        wraps: whether negative ones count from the end.
    """

    axis: int
    indices: Any
    wraps: bool


Axis = int | Segments | None
Axes = tuple[Axis, ...]
"""For each axis of a value, the axis of another value that runs along it."""


class _Dependence(NamedTuple):
    """How a value depends on the shift.

    Attributes:
        kind: "term" or "factor".
        times: multiple of the shift.
        axes: for each axis of the value, the shift's axis along it, or None where the shift is repeated.
    """

    kind: Literal["term", "factor"]
    times: float
    axes: Axes


class ShiftInvariants(NamedTuple):
    """Values that the results do not depend on.

    Attributes:
        fixed: shifts, and values computed from them alone.
        carried: values that depend on a shift, between its use and its cancellation.
    """

    fixed: frozenset[Any]
    carried: frozenset[Any]


class _UnknownError(Exception):
    """The dependence of a value on the shift follows no known form."""


def shift_invariants(graph: Graph) -> ShiftInvariants:
    """Find maxima, stopped gradients and the like that the results provably do not depend on."""
    candidates: set[Any] = set()
    fixed: set[Any] = set()
    carried: set[Any] = set()
    for step in graph.steps:
        if all(v in fixed for v in step.inputs):
            fixed.update(step.outputs)
            continue
        derived = len(step.inputs) == 1 and step.inputs[0] in candidates and len(step.outputs) == 1
        if step.name not in SHIFTS and not derived:
            continue
        (v,) = step.outputs
        if is_real(v):
            candidates.add(v)
            dependences = _dependences(graph, v)
            if dependences is not None:
                fixed.add(v)
                carried.update(dependences)
    return ShiftInvariants(frozenset(fixed), frozenset(carried - fixed))


def _dependences(graph: Graph, v: Any) -> dict[Any, _Dependence] | None:
    """How the values downstream of one depend on it; None if that is unknown, or a result does."""
    dependences = {v: _Dependence("term", 1.0, own_axes(v))}
    try:
        for step in graph.steps:
            if v not in step.outputs and any(w in dependences for w in step.inputs):
                for eqn in step.equations:
                    _propagate(graph, eqn, dependences)
    except _UnknownError:
        return None
    return None if any(w in dependences for w in variables(graph.outputs)) else dependences


def own_axes(v: Any) -> Axes:
    """The axes of a value itself; along one of size 1 nothing runs."""
    return tuple(i if size > 1 else None for i, size in enumerate(v.aval.shape))


def _propagate(graph: Graph, eqn: core.JaxprEqn, dependences: dict[Any, _Dependence]) -> None:
    """Add the dependence of an equation's result, if it depends on the shift."""
    operands = [None if isinstance(v, core.Literal) else dependences.get(v) for v in eqn.invars]
    places = [i for i, d in enumerate(operands) if d is not None]
    if not places:
        return
    output: Any = eqn.outvars[0]
    if eqn.primitive.name in ADDITIONS | MULTIPLICATIONS | {"max"}:  # a scalar operand is repeated
        operands = [d and (d if d.axes else d._replace(axes=(None,) * output.aval.ndim)) for d in operands]
    (dependence, *others) = [d for d in operands if d is not None]
    if not others:
        result = _unary(graph, eqn, dependence, places[0])
    elif len(operands) == 2:
        result = _binary(eqn, dependence, *others)
    else:
        raise _UnknownError
    if result is not None and result.times != 0:
        if len(eqn.outvars) != 1:
            raise _UnknownError
        dependences[output] = result


def _sign(name: str, kind: str) -> int | None:
    """The sign of the second operand's dependence in the result, where the operation keeps its kind."""
    if name in (ADDITIONS if kind == "term" else MULTIPLICATIONS):
        return -1 if name == "sub" or name == "div" else 1
    return None


_FUNCTIONS: dict[tuple[str, str], Callable[[_Dependence, core.JaxprEqn], _Dependence | None]] = {
    ("exp", "term"): lambda d, _: d._replace(kind="factor"),
    ("log", "factor"): lambda d, _: d._replace(kind="term"),
    ("neg", "term"): lambda d, _: d._replace(times=-d.times),
    ("neg", "factor"): lambda d, _: d,
    ("abs", "factor"): lambda d, _: d,  # the factor is positive
    ("sign", "factor"): lambda d, _: None,
    ("square", "factor"): lambda d, _: d._replace(times=2 * d.times),
    ("integer_pow", "factor"): lambda d, eqn: d._replace(times=eqn.params["y"] * d.times),
}


def _unary(graph: Graph, eqn: core.JaxprEqn, dependence: _Dependence, place: int) -> _Dependence | None:
    """The dependence of a result of which the operand at `place` alone depends on the shift."""
    name = eqn.primitive.name
    kind, times, axes = dependence
    if name in IDENTITY or name == "stop_gradient":
        return dependence
    if name == "convert_element_type" and is_real(*eqn.outvars):
        return dependence
    if name in LAYOUT:
        moved = axes_after(eqn, axes)
        if moved is None:
            raise _UnknownError
        return dependence._replace(axes=moved)
    if name == "reduce_max" or (name == "reduce_sum" and kind == "factor"):
        if any(axes[i] is not None for i in eqn.params["axes"]):
            raise _UnknownError
        return dependence._replace(axes=tuple(a for i, a in enumerate(axes) if i not in eqn.params["axes"]))
    if name == "dot_general":
        return _product(eqn, dependence, place)
    if name == "gather" and place == 0:
        return _read_segments(graph, eqn, dependence)
    if name == "scatter-add" and place == 2 and kind == "factor":
        return _sum_segments(graph, eqn, dependence)
    sign = _sign(name, kind)
    if sign is not None:
        return dependence._replace(times=times * (sign if place == 1 else 1))
    if (name, kind) in _FUNCTIONS:
        return _FUNCTIONS[name, kind](dependence, eqn)
    others = [_constant(graph, v) for i, v in enumerate(eqn.invars) if i != place]
    match name, others:
        case "mul", [float(scale)]:
            return dependence._replace(times=times * scale)
        case "div", [float(scale)] if place == 0:
            return dependence._replace(times=times / scale)
    if name == "max" and others == [-np.inf]:
        return dependence
    # Zero times anything is zero: what is masked out has the form of all else.
    if name == "select_n" and kind == "factor" and place > 0 and all(other == 0 for other in others[1:]):
        return dependence
    raise _UnknownError


def axes_after(eqn: core.JaxprEqn, axes: Axes) -> Axes | None:
    """The axes that run along those of a value after it changes its layout; None where that is unknown."""
    name = eqn.primitive.name
    if name == "broadcast_in_dim":
        placed: list[Axis] = [None] * len(eqn.params["shape"])
        for i, to in enumerate(eqn.params["broadcast_dimensions"]):
            placed[to] = axes[i]
        return tuple(placed)
    if name == "transpose":
        return tuple(axes[i] for i in eqn.params["permutation"])
    if name not in RESHAPES:
        return axes
    operand, result = eqn.invars[0].aval, eqn.outvars[0].aval
    before, after = operand.shape, result.shape  # type: ignore[attr-defined]
    if [n for n in before if n > 1] != [n for n in after if n > 1]:
        return None
    longer = iter([axis for axis, n in zip(axes, before, strict=True) if n > 1])
    return tuple(next(longer) if n > 1 else None for n in after)


def _product(eqn: core.JaxprEqn, dependence: _Dependence, place: int) -> _Dependence:
    """The dependence of a matrix product: the sum runs over axes along which the shift is repeated."""
    contracted, batch = eqn.params["dimension_numbers"]
    kind, _, axes = dependence
    if kind != "factor" or any(axes[i] is not None for i in contracted[place]):
        raise _UnknownError
    shared = [axes[i] for i in batch[place]]
    own = [axis for i, axis in enumerate(axes) if i not in (*contracted[place], *batch[place])]
    output: Any = eqn.outvars[0]
    others: list[Axis] = [None] * (output.aval.ndim - len(shared) - len(own))
    free = [*own, *others] if place == 0 else [*others, *own]
    return dependence._replace(axes=(*shared, *free))


def _read_segments(graph: Graph, eqn: core.JaxprEqn, dependence: _Dependence) -> _Dependence:
    """The dependence of `value[indices]`."""
    numbers, axes = eqn.params["dimension_numbers"], dependence.axes
    indices = _segment_indices(graph, eqn.invars[1])
    sizes: Any = eqn.invars[0].aval
    (axis, *more) = numbers.start_index_map
    whole = all(i == axis or n == sizes.shape[i] for i, n in enumerate(eqn.params["slice_sizes"]))
    if indices is None or more or not whole or numbers.collapsed_slice_dims != (axis,):
        raise _UnknownError
    result: Any = eqn.outvars[0]
    rest = iter([a for i, a in enumerate(axes) if i != axis])
    read = axes[axis]
    if isinstance(read, Segments):
        raise _UnknownError
    own = None if read is None else Segments(read, *indices)
    ndim = result.aval.ndim
    return dependence._replace(
        axes=tuple(next(rest) if i in numbers.offset_dims else own for i in range(ndim))
    )


def _sum_segments(graph: Graph, eqn: core.JaxprEqn, dependence: _Dependence) -> _Dependence:
    """The dependence of the sums of the elements in each segment: they share its shift."""
    numbers, axes = eqn.params["dimension_numbers"], dependence.axes
    indices = _segment_indices(graph, eqn.invars[1])
    (axis, *more) = numbers.scatter_dims_to_operand_dims
    whole = numbers.inserted_window_dims == (axis,) and _constant(graph, eqn.invars[0]) == 0
    if indices is None or more or not whole:
        raise _UnknownError
    (along,) = (each for i, each in enumerate(axes) if i not in numbers.update_window_dims)
    rest = [axes[i] for i in numbers.update_window_dims]
    if along is None:
        return dependence._replace(axes=(*rest[:axis], None, *rest[axis:]))
    if not isinstance(along, Segments) or along.indices != indices[0] or along.wraps < indices[1]:
        raise _UnknownError
    return dependence._replace(axes=(*rest[:axis], along.axis, *rest[axis:]))


def _segment_indices(graph: Graph, v: Any) -> tuple[Any, bool] | None:
    """The constant integers `(elements,)` that an operand `(elements, 1)` of indices is, or None.

    And whether negative ones count from the end, as by `jnp`: `where(i < 0, i + n, i)`.
    """
    if isinstance(v, core.Literal) or v.aval.ndim != 2 or v.aval.shape[1] != 1:
        return None
    size, wraps = v.aval.size, False
    while v in graph.sources:
        eqn = graph.sources[v]
        source: Any = eqn.invars[0]
        if eqn.primitive.name in LAYOUT | IDENTITY | {"convert_element_type"} and source.aval.size == size:
            v = source
        elif _is_wrapped(graph, eqn):
            v, wraps = eqn.invars[1], True
        else:
            return None
    if v not in graph.constants or v.aval.ndim != 1 or not is_integer(v):
        return None
    value = graph.constants[v]
    # One array may be several variables.
    return (np.asarray(value).tobytes() if is_concrete(value) else v), wraps


def _is_wrapped(graph: Graph, eqn: core.JaxprEqn) -> bool:
    """Whether an operation adds a number to negative integers, and leaves all others."""
    if eqn.primitive.name != "select_n":
        return False
    condition, plain, moved = eqn.invars
    added, compared = graph.sources.get(moved), graph.sources.get(condition)
    if added is None or added.primitive.name != "add" or added.invars[0] is not plain:
        return False
    if compared is not None:
        below_zero = compared.primitive.name == "lt" and _constant(graph, compared.invars[1]) == 0
        return below_zero and compared.invars[0] is plain
    values = [graph.read(v, {}) for v in (condition, plain)]
    return is_concrete(values) and bool(np.array_equal(values[0], np.asarray(values[1]) < 0))


def _binary(eqn: core.JaxprEqn, a: _Dependence, b: _Dependence) -> _Dependence:
    """The dependence of a result of two values that both depend on the shift."""
    name = eqn.primitive.name
    if a.axes != b.axes or a.kind != b.kind:
        raise _UnknownError
    if name in ADDITIONS and a.kind == "factor" and a.times == b.times:
        return a
    sign = _sign(name, a.kind)
    if sign is None:
        raise _UnknownError
    return a._replace(times=a.times + sign * b.times)


def _constant(graph: Graph, v: Any) -> float | None:
    """The one number that a known constant repeats, or None."""
    if not isinstance(v, core.Literal) and v not in graph.known:
        return None
    value = np.ravel(np.asarray(graph.read(v, {})))
    return float(value[0]) if value.size and bool((value == value[0]).all()) else None


class Normalization(NamedTuple):
    """A step that divides values by their sum.

    Attributes:
        numerator: the values.
        axes: those of the values that are summed over.
        mask: the step from the values to the terms of the sum, some of them replaced by constants, such as 0;
            None where all are summed.
    """

    numerator: Any
    axes: tuple[int, ...]
    mask: Step | None


def normalization(graph: Graph, step: Step) -> Normalization | None:
    """Match `a / sum(a)`, or `a` times the reciprocal of its sum."""
    if step.name not in MULTIPLICATIONS or len(step.equations) != 1 or len(step.inputs) != 2:
        return None
    one, other = step.equations[0].invars
    reciprocal = step.name == "mul"
    for numerator, divisor in [(one, other), (other, one)] if reciprocal else [(one, other)]:
        denominator = _denominator(graph, divisor, reciprocal)
        if denominator is None:
            continue
        reduction, moves = denominator
        (terms,), axes = reduction.inputs, tuple(reduction.params["axes"])
        mask = None if terms is numerator else graph.made_by.get(terms)
        if terms is not numerator and (mask is None or not _masks(mask, numerator)):
            continue
        if _is_aligned(numerator, axes, moves, divisor):
            return Normalization(numerator, axes, mask)
    return None


def _denominator(graph: Graph, v: Any, reciprocal: bool) -> tuple[Step, list[core.JaxprEqn]] | None:
    """The sum that a value is, or is the reciprocal of, and the layout changes since."""
    moves: list[core.JaxprEqn] = []
    while v in graph.made_by:
        step = graph.made_by[v]
        if len(step.equations) != 1 or len(step.inputs) != 1:
            return None
        if step.name == "reduce_sum":
            return None if reciprocal else (step, moves[::-1])
        if reciprocal and _is_reciprocal(step):
            reciprocal = False
        elif step.name in LAYOUT | IDENTITY:
            moves += step.equations
        else:
            return None
        (v,) = step.inputs
    return None


def _is_reciprocal(step: Step) -> bool:
    if step.name == "div":
        dividend = step.equations[0].invars[0]
        return isinstance(dividend, core.Literal) and dividend.val == 1
    return step.name == "integer_pow" and step.params["y"] == -1


def _masks(step: Step, values: Any) -> bool:
    """Whether a step replaces some values by constants, and leaves the others unchanged."""
    return step.name == "select_n" and step.kind == "linear" and step.inputs == (values,)


def _is_aligned(values: Any, axes: tuple[int, ...], moves: Sequence[core.JaxprEqn], divisor: Any) -> bool:
    """Whether a sum over some axes of values is at the end aligned with those values."""
    own = own_axes(values)
    placed: Axes | None = tuple(axis for i, axis in enumerate(own) if i not in axes)
    for eqn in moves:
        placed = None if placed is None else axes_after(eqn, placed)
    if placed is None or len(placed) not in (0, len(own)):
        return False
    expected = tuple(None if i in axes else axis for i, axis in enumerate(own))
    return (placed or (None,) * len(own)) == expected and divisor.aval.ndim == len(placed)
