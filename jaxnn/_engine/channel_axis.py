"""Which axis of a value holds the channels: that of the convolution that it comes from, or goes to."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core

from jaxnn._engine.inline import inline_calls
from jaxnn._engine.primitives import (
    CALLS,
    CUSTOM,
    LAYOUT,
    PRODUCTS,
    REMAT,
    RESHAPES,
    SAME_AXES,
    is_elementwise,
    variables,
)
from jaxnn._engine.softmax import Axes, axes_after

LOST = -1  # a convolution's, but no longer known which axis


def channel_axis(function: Callable[..., Any], *args: Any) -> int | None:
    """The axis of the channels in the result of a function, from the convolutions in its jaxpr.

    Each convolution names the axis of its channels. From there it is followed through the operations after
    it, such as activations, pools, sums, transpositions and the removal of a batch axis.

    Returns:
        The axis; `LOST` where it cannot be followed; None where the result is that of no convolution.
    """
    jaxpr = inline_calls(function, args, CALLS | REMAT | CUSTOM).jaxpr.jaxpr
    axes: dict[Any, int] = {}
    for eqn in jaxpr.eqns:
        axis = _follow(eqn, axes)
        if axis is not None:
            shapes: dict[Any, Any] = {v: v.aval for v in eqn.outvars}
            axes.update((v, axis if axis < len(aval.shape) else LOST) for v, aval in shapes.items())
    (result,) = jaxpr.outvars
    return None if isinstance(result, core.Literal) else axes.get(result)


def _follow(eqn: core.JaxprEqn, axes: dict[Any, int]) -> int | None:
    """The axis of the channels in an operation's results."""
    name, params = eqn.primitive.name, eqn.params
    if PRODUCTS.get(name) == "conv":
        return int(params["dimension_numbers"].out_spec[1])
    tracked: list[Any] = [v for v in variables(eqn.invars) if v in axes]
    if not tracked:
        return None
    known = [v for v in tracked if axes[v] != LOST]
    if len({axes[v] for v in known}) != 1:
        return LOST
    operand, axis = known[0], axes[known[0]]
    result: Any = eqn.outvars[0]
    before, after = operand.aval.shape, result.aval.shape
    if name == "transpose":
        return int(params["permutation"].index(axis))
    if name == "broadcast_in_dim":
        return int(params["broadcast_dimensions"][axis])
    if name in RESHAPES:
        return _reshaped(before, after, axis)
    if PRODUCTS.get(name) == "dense":  # the weights have the new channels
        contracted, _ = params["dimension_numbers"]
        first = eqn.invars[0] is operand
        mixed = tuple(contracted[0 if first else 1]) == (axis,)
        return (len(after) - 1 if first else 0) if mixed else LOST
    if len(before) == len(after):
        return axis
    removed = params.get("axes", (axis,))  # of a reduction
    return LOST if axis in removed else axis - sum(each < axis for each in removed)


def _reshaped(before: Sequence[int], after: Sequence[int], axis: int) -> int:
    """The axis of the same size, with as many elements before it, if there is one."""
    places = [
        i
        for i, size in enumerate(after)
        if size == before[axis] and math.prod(after[:i]) == math.prod(before[:axis])
    ]
    return places[0] if len(places) == 1 else LOST


def input_channel_axis(function: Callable[..., Any], x: Any) -> int | None:
    """The axis of the channels in a function's only argument, from the first convolution of it.

    Returns:
        The axis that is none of the convolution's spatial ones; None where there is no convolution of the
        argument, but for elementwise operations, padding and changes of its layout.
    """
    jaxpr = inline_calls(function, [x], CALLS | REMAT | CUSTOM).jaxpr.jaxpr
    (argument,) = jaxpr.invars
    axes: dict[Any, Axes] = {argument: tuple(range(len(x.shape)))}
    for eqn in jaxpr.eqns:
        operands: list[Any] = [v for v in variables(eqn.invars) if v in axes]
        if not operands:
            continue
        along = axes[operands[0]]
        if PRODUCTS.get(eqn.primitive.name) == "conv" and eqn.invars[0] is operands[0]:
            spatial = {along[i] for i in eqn.params["dimension_numbers"].lhs_spec[2:]}
            rest = [axis for axis in range(len(x.shape)) if axis not in spatial]
            return rest[0] if len(rest) == 1 and None not in spatial else None
        after = _axes_after(eqn, operands, along)
        if after is not None:
            axes.update((v, after) for v in eqn.outvars)
    return None


def _axes_after(eqn: core.JaxprEqn, operands: Sequence[Any], axes: Axes) -> Axes | None:
    """The axes of the argument along those of a result; None where they are mixed."""
    if eqn.primitive.name in LAYOUT:
        return axes_after(eqn, axes)
    same = is_elementwise(eqn, operands) or eqn.primitive.name in SAME_AXES
    return axes if same else None
