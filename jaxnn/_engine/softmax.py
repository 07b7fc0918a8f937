"""Values that a function uses and yet does not depend on: the shift of a softmax.

A softmax is computed as `exp(x - m) / sum(exp(x - m))`, with `m` the largest of `x`, so that nothing
overflows. Whatever `m` is, the answer is the same. A method that compares the values of two runs must know
that: here it is proved from the operations between. Each value downstream of `m` is followed as one of

- `v + k m` (`"add"`), as after a subtraction,
- `v exp(k m)` (`"mul"`), as after the exponential of that,

`m` being repeated along some axes; and in the end no value must depend on it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from jaxnn._engine.graph import Graph, Step
from jaxnn._engine.primitives import is_real

_SAME = {"stop_gradient", "name", "copy", "copy_p", "reduce_precision", "pvary"}
_OF_TWO = {"add", "sub", "mul", "div", "max"}  # a scalar operand is repeated
_RESHAPES = {"reshape", "squeeze", "expand_dims"}
LAYS_OUT = _RESHAPES | {"broadcast_in_dim", "transpose"}

Axes = tuple[int | None, ...]  # for each axis of a value, which of another one's runs along it


class _Trace(NamedTuple):
    """How a value depends on the shift.

    Attributes:
        kind: "add" or "mul".
        times: how often the shift is in it.
        axes: for each axis of the value, the shift's axis along it, or None where the shift is repeated.
    """

    kind: str
    times: float
    axes: Axes


class Shifts(NamedTuple):
    """What the results do not depend on.

    Attributes:
        fixed: shifts, and what is made of them alone.
        carried: the values that a shift is in, between its use and where it falls out again.
    """

    fixed: frozenset[Any]
    carried: frozenset[Any]


class _UnknownError(Exception):
    """The dependence of a value on the shift follows no known form."""


def shifts(line: Graph) -> Shifts:
    """Find, among maxima, stopped gradients and their like, what the results provably do not depend on."""
    candidates: set[Any] = set()
    fixed: set[Any] = set()
    carried: set[Any] = set()
    for step in line.steps:
        if all(v in fixed for v in step.inputs):
            fixed.update(step.outputs)
            continue
        derived = len(step.inputs) == 1 and step.inputs[0] in candidates and len(step.outputs) == 1
        if step.name not in ("reduce_max", "stop_gradient") and not derived:
            continue
        (v,) = step.outputs
        if is_real(v):
            candidates.add(v)
            traces = _followed(line, v)
            if traces is not None:
                fixed.add(v)
                carried.update(traces)
    return Shifts(frozenset(fixed), frozenset(carried - fixed))


def _followed(line: Graph, v: Any) -> dict[Any, _Trace] | None:
    """How the values downstream of one depend on it; None if that is unknown, or a result does."""
    traces = {v: _Trace("add", 1.0, own_axes(v))}
    try:
        for step in line.steps:
            if v not in step.outputs:
                _follow(line, step, traces)
    except _UnknownError:
        return None
    return None if any(out in traces for out in line.outputs if not isinstance(out, core.Literal)) else traces


def own_axes(v: Any) -> Axes:
    """Its own axes; along one of a single entry nothing runs."""
    return tuple(i if size > 1 else None for i, size in enumerate(v.aval.shape))


def _follow(line: Graph, step: Step, traces: dict[Any, _Trace]) -> None:
    if not any(v in traces for v in step.inputs):
        return
    for eqn in step.equations:
        found = [None if isinstance(v, core.Literal) else traces.get(v) for v in eqn.invars]
        if eqn.primitive.name in _OF_TWO:
            found = [t and _widened(t, eqn.outvars[0]) for t in found]
        if not any(found):
            continue
        trace = _of_one(line, eqn, found) if sum(t is not None for t in found) == 1 else _of_two(eqn, found)
        if trace is not None and trace.times != 0:
            if len(eqn.outvars) != 1:
                raise _UnknownError
            traces[eqn.outvars[0]] = trace


def _widened(trace: _Trace, made: Any) -> _Trace:
    return trace if trace.axes else trace._replace(axes=(None,) * made.aval.ndim)


def _of_one(line: Graph, eqn: core.JaxprEqn, found: list[_Trace | None]) -> _Trace | None:
    """The trace of a result of which one operand depends on the shift."""
    name = eqn.primitive.name
    place = next(i for i, t in enumerate(found) if t is not None)
    trace = found[place]
    assert trace is not None  # noqa: S101
    if name in _SAME or (name == "convert_element_type" and is_real(eqn.outvars[0])):
        return trace
    moved = _moved(eqn, trace)
    if moved is not None:
        return moved
    if name in ("exp", "exp2", "log", "integer_pow", "abs", "sign", "neg", "square"):
        return _of_function(eqn, trace)
    if name in ("mul", "div") and trace.kind == "mul":
        return trace._replace(times=-trace.times if name == "div" and place == 1 else trace.times)
    if name in ("add", "sub") and trace.kind == "add":
        return trace._replace(times=-trace.times if name == "sub" and place == 1 else trace.times)
    other = _number(line, eqn.invars[1 - place]) if len(eqn.invars) == 2 else None
    if name == "mul" and other is not None:
        return trace._replace(times=trace.times * other)
    if name == "div" and other is not None and place == 0:
        return trace._replace(times=trace.times / other)
    if name == "max" and other == -np.inf:
        return trace
    if name == "select_n" and place > 0 and trace.kind == "mul":
        # Zero times anything is zero: what is left out has the form of what is left in.
        rest = [v for i, v in enumerate(eqn.invars) if i not in (0, place)]
        if all(_number(line, v) == 0 for v in rest):
            return trace
    if name == "dot_general":
        return _of_product(eqn, trace, place)
    raise _UnknownError


def _of_function(eqn: core.JaxprEqn, trace: _Trace) -> _Trace | None:
    name, kind = eqn.primitive.name, trace.kind
    if name == "exp" and kind == "add":
        return trace._replace(kind="mul")
    if name == "log" and kind == "mul":
        return trace._replace(kind="add")
    if name == "neg":
        return trace._replace(times=-trace.times) if kind == "add" else trace
    if kind == "mul" and name in ("abs", "sign"):  # the factor is positive
        return trace if name == "abs" else None
    if kind == "mul" and name in ("integer_pow", "square"):
        return trace._replace(times=trace.times * eqn.params.get("y", 2))
    raise _UnknownError


def _moved(eqn: core.JaxprEqn, trace: _Trace) -> _Trace | None:
    """The trace after an operation that moves values, repeats them or sums what has the same factor."""
    name, axes = eqn.primitive.name, trace.axes
    if name in LAYS_OUT:
        laid = axes_after(eqn, axes)
        if laid is None:
            raise _UnknownError
        return trace._replace(axes=laid)
    if name == "reduce_max" or (name == "reduce_sum" and trace.kind == "mul"):
        if any(axes[i] is not None for i in eqn.params["axes"]):
            raise _UnknownError
        return trace._replace(axes=tuple(a for i, a in enumerate(axes) if i not in eqn.params["axes"]))
    return None


def axes_after(eqn: core.JaxprEqn, axes: Axes) -> Axes | None:
    """What runs along the axes of a value after it was laid out anew; None where that cannot be said."""
    name = eqn.primitive.name
    if name == "broadcast_in_dim":
        placed: list[int | None] = [None] * len(eqn.params["shape"])
        for i, to in enumerate(eqn.params["broadcast_dimensions"]):
            placed[to] = axes[i]
        return tuple(placed)
    if name == "transpose":
        return tuple(axes[i] for i in eqn.params["permutation"])
    if name not in _RESHAPES:
        return axes
    read, made = _variables(eqn)
    before, after = read.aval.shape, made.aval.shape
    if [n for n in before if n > 1] != [n for n in after if n > 1]:
        return None
    longer = iter([axis for axis, n in zip(axes, before, strict=True) if n > 1])
    return tuple(next(longer) if n > 1 else None for n in after)


def _variables(eqn: core.JaxprEqn) -> tuple[Any, Any]:
    return eqn.invars[0], eqn.outvars[0]


def _of_product(eqn: core.JaxprEqn, trace: _Trace, place: int) -> _Trace:
    """The trace of a matrix product: the sum runs over axes along which the shift is repeated."""
    contracted, batch = eqn.params["dimension_numbers"]
    if trace.kind != "mul" or any(trace.axes[i] is not None for i in contracted[place]):
        raise _UnknownError
    kept = [i for i in range(len(trace.axes)) if i not in (*contracted[place], *batch[place])]
    shared = [trace.axes[i] for i in batch[place]]
    own = [trace.axes[i] for i in kept]
    others: list[int | None] = [None] * (_variables(eqn)[1].aval.ndim - len(shared) - len(own))
    free = [*own, *others] if place == 0 else [*others, *own]
    return trace._replace(axes=(*shared, *free))


def _of_two(eqn: core.JaxprEqn, found: list[_Trace | None]) -> _Trace | None:
    """The trace of a result of two values that both depend on the shift."""
    name = eqn.primitive.name
    if len(found) != 2 or None in found:
        raise _UnknownError
    a, b = found
    assert a is not None and b is not None  # noqa: S101, PT018
    if a.axes != b.axes or a.kind != b.kind:
        raise _UnknownError
    if name in ("add", "add_any", "sub") and a.kind == "mul" and a.times == b.times:
        return a
    signs = {
        "add": ("add", 1),
        "add_any": ("add", 1),
        "sub": ("add", -1),
        "mul": ("mul", 1),
        "div": ("mul", -1),
    }
    if name not in signs or signs[name][0] != a.kind:
        raise _UnknownError
    return a._replace(times=a.times + signs[name][1] * b.times)


def _number(line: Graph, v: Any) -> float | None:
    """The one number that a known constant holds, or None."""
    if not isinstance(v, core.Literal) and v not in line.known:
        return None
    value = np.ravel(np.asarray(line.read(v, {})))
    if value.size == 0 or not bool((value == value[0]).all()):
        return None
    return float(value[0])


_MOVES = LAYS_OUT | {"name", "copy"}


class Shares(NamedTuple):
    """A step that gives each value's share in a sum of them.

    Attributes:
        of: the values.
        axes: those of the values that are summed over.
        mask: the step from the values to what is summed, some of them replaced by constants, such as 0;
            None where all are summed as they are.
    """

    of: Any
    axes: tuple[int, ...]
    mask: Step | None


def shares(made_by: Mapping[Any, Step], step: Step) -> Shares | None:
    """What a step gives the shares of, or None: `a / sum(a)`, or `a` times the reciprocal of its sum.

    Args:
        made_by: the steps of a function by what they make.
        step: one of them.
    """
    if step.name not in ("div", "mul") or len(step.equations) != 1 or len(step.inputs) != 2:
        return None
    one, other = step.equations[0].invars
    for values, divisor in ((one, other),) if step.name == "div" else ((one, other), (other, one)):
        found = _sum_behind(made_by, divisor, reciprocal=step.name == "mul")
        if found is None:
            continue
        summing, moves = found
        (terms,), axes = summing.inputs, tuple(summing.equations[0].params["axes"])
        mask = None if terms is values else made_by.get(terms)
        if mask is not None and not _replaces_some(mask, values):
            continue
        if (terms is values or mask is not None) and _comes_back(values, axes, moves, divisor):
            return Shares(values, axes, mask)
    return None


def _sum_behind(
    made_by: Mapping[Any, Step], v: Any, *, reciprocal: bool
) -> tuple[Step, list[core.JaxprEqn]] | None:
    """The sum that a value is, or is the reciprocal of, and how it was laid out since."""
    moves: list[core.JaxprEqn] = []
    while v in made_by and len(made_by[v].equations) == len(made_by[v].inputs) == 1:
        step = made_by[v]
        if step.name == "reduce_sum":
            return None if reciprocal else (step, moves[::-1])
        if reciprocal and _is_reciprocal(step):
            reciprocal = False
        elif step.name in _MOVES:
            moves.append(step.equations[0])
        else:
            return None
        (v,) = step.inputs
    return None


def _is_reciprocal(step: Step) -> bool:
    (eqn,) = step.equations
    if step.name == "div":
        return isinstance(eqn.invars[0], core.Literal) and eqn.invars[0].val == 1
    return step.name == "integer_pow" and eqn.params["y"] == -1


def _replaces_some(step: Step, values: Any) -> bool:
    """Whether a step puts constants in the place of some values, and leaves the others as they are."""
    return step.name == "select_n" and step.kind == "linear" and step.inputs == (values,)


def _comes_back(values: Any, axes: tuple[int, ...], moves: list[core.JaxprEqn], divisor: Any) -> bool:
    """Whether a sum over some axes stands, in the end, beside the values that are in it."""
    own = own_axes(values)
    placed: Axes | None = tuple(axis for i, axis in enumerate(own) if i not in axes)
    for eqn in moves:
        placed = None if placed is None else axes_after(eqn, placed)
    if placed is None or len(placed) not in (0, len(own)):
        return False
    wanted = tuple(None if i in axes else axis for i, axis in enumerate(own))
    return (placed or (None,) * len(own)) == wanted and divisor.aval.ndim == len(placed)
