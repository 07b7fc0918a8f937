"""Values divided by their own sum, as a softmax does with its exponentials, however that is written."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax.extend import core

from jaxnn._graph import Step
from jaxnn._shift import LAYS_OUT, Axes, axes_after, own_axes

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
