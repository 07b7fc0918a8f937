"""Evaluate a function with the channels of its images last, in any order that it has them in itself.

XLA:CPU convolves images of the order `(n, ..., c)`, and transposes all others before and after each
convolution. Here the result of a convolution stays in that order, and so do the results of the operations
after it, such as activations, normalizations and pools, as long as they only need their axes renumbered. It
is put into the order of the function where another operation reads it, and at the end. Since this happens
while the function is traced, its gradient is in that order, too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxnn._engine.backward import register
from jaxnn._engine.jaxpr import Traced, bind, read, run_scan, with_params
from jaxnn._engine.primitives import CALLS, CUSTOM, ELEMENTWISE, NAMES, ONE_TO_ONE, REMAT, inner_jaxprs
from jaxnn._engine.relu import is_jaxs_relu

_PER_AXIS = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")


class _Moved(NamedTuple):
    """A value whose axes are in another order.

    Attributes:
        stored: the array.
        order: for each of its axes, the axis of the value that it is.
    """

    stored: jax.Array
    order: tuple[int, ...]


Value = Any  # an array or `_Moved`
Rule = Callable[[core.JaxprEqn, Sequence[Value], tuple[int, ...]], Value]
_RULES: dict[str, Rule] = {}


def evaluate_channels_last(traced: Traced) -> Any:
    """Evaluate a traced function, with fast convolutions; names of values are left out."""
    outputs = _evaluate(traced.jaxpr.jaxpr, traced.jaxpr.consts, traced.inputs)
    return jax.tree.unflatten(traced.structure, [_in_order(v) for v in outputs])


def _evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    values: dict[Any, Value] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
    for eqn in jaxpr.eqns:
        results = _apply(eqn, [read(v, values) for v in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v, values) for v in jaxpr.outvars]


def _apply(eqn: core.JaxprEqn, operands: Sequence[Value]) -> Sequence[Value]:
    kind = eqn.primitive.name
    if kind in NAMES:
        return operands
    if kind == "conv_general_dilated":
        return [_convolve(eqn, *operands)]
    if kind in CALLS:
        (inner,) = inner_jaxprs(eqn)
        return _evaluate(inner.jaxpr, inner.consts, operands)
    moved = [v for v in operands if isinstance(v, _Moved)]
    if moved and kind in CUSTOM and is_jaxs_relu(eqn):
        # Not `bind`, which takes the shape of the function alone. A reshape before and after it would do,
        # but XLA then compiles a deep network for minutes.
        return [_Moved(jax.nn.relu(moved[0].stored), moved[0].order)]
    if moved and kind in ELEMENTWISE | ONE_TO_ONE and _has_same_axes(eqn):
        order = moved[0].order
        return [_Moved(bind(eqn, [_to(v, order) for v in operands])[0], order)]
    if moved and kind in _RULES:
        return [_plain(_RULES[kind](eqn, operands, moved[0].order))]
    plain = [_in_order(v) for v in operands]
    if kind in REMAT or kind == "scan":
        return _with_body(eqn, plain)
    return bind(eqn, plain)


def _with_body(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    """A scan or a recomputed call, its body evaluated likewise."""
    (inner,) = inner_jaxprs(eqn)

    def body(*inputs: Any) -> list[Any]:
        return [_in_order(v) for v in _evaluate(inner.jaxpr, inner.consts, inputs)]

    if eqn.primitive.name == "scan":
        return run_scan(eqn.params, lambda *inputs, rows: (body(*inputs), {}), operands, {})[0]
    options = {key: eqn.params[key] for key in ("policy", "prevent_cse")}
    return jax.checkpoint(body, **options)(*operands)


def _in_order(v: Value) -> Any:
    """The value, with its axes in its own order."""
    return lax.transpose(v.stored, _inverse(v.order)) if isinstance(v, _Moved) else v


def _to(v: Value, order: tuple[int, ...]) -> Any:
    """The array of a value with its axes in some order; a number as it is."""
    if isinstance(v, _Moved) and v.order == order:
        return v.stored
    return v if jnp.ndim(_in_order(v)) == 0 else lax.transpose(_in_order(v), order)


def _plain(v: _Moved) -> Value:
    return v.stored if v.order == tuple(range(len(v.order))) else v


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _has_same_axes(eqn: core.JaxprEqn) -> bool:
    """Whether all operands have the axes of the only result, if only in size 1, or are numbers."""
    (result, *others), operands = eqn.outvars, eqn.invars
    return not others and all(_rank(v) in (0, _rank(result)) for v in operands)


def _shape(v: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = v.aval.shape
    return shape


def _rank(v: Any) -> int:
    return len(_shape(v))


def _convolve(eqn: core.JaxprEqn, images: Value, kernels: Value) -> Value:
    numbers = eqn.params["dimension_numbers"]
    n, c, *spatial = numbers.out_spec
    lhs = numbers.lhs_spec
    if isinstance(images, _Moved):
        images, lhs = images.stored, tuple(images.order.index(axis) for axis in lhs)
    last = len(lhs) - 1
    changed = lax.ConvDimensionNumbers(lhs, numbers.rhs_spec, (0, last, *range(1, last)))
    (result,) = bind(with_params(eqn, dimension_numbers=changed), [images, _in_order(kernels)])
    return _plain(_Moved(result, (n, *spatial, c)))


def _without(order: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    """The order of the axes that remain without some, renumbered."""
    left = [axis for axis in order if axis not in axes]
    return tuple(sorted(left).index(axis) for axis in left)


@register(_RULES, "transpose")
def _transpose(eqn: core.JaxprEqn, operands: Sequence[Value], order: tuple[int, ...]) -> _Moved:
    return _Moved(operands[0].stored, tuple(eqn.params["permutation"].index(axis) for axis in order))


@register(_RULES, "reduce_sum", "reduce_max", "reduce_min")
def _reduce(eqn: core.JaxprEqn, operands: Sequence[Value], order: tuple[int, ...]) -> _Moved:
    axes = eqn.params["axes"]
    stored = tuple(sorted(order.index(axis) for axis in axes))
    return _Moved(bind(with_params(eqn, axes=stored), [operands[0].stored])[0], _without(order, axes))


@register(_RULES, "squeeze")
def _squeeze(eqn: core.JaxprEqn, operands: Sequence[Value], order: tuple[int, ...]) -> _Moved:
    axes = eqn.params["dimensions"]
    stored = tuple(sorted(order.index(axis) for axis in axes))
    return _Moved(bind(with_params(eqn, dimensions=stored), [operands[0].stored])[0], _without(order, axes))


@register(_RULES, "reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _reduce_window(eqn: core.JaxprEqn, operands: Sequence[Value], order: tuple[int, ...]) -> _Moved:
    params = {name: tuple(eqn.params[name][axis] for axis in order) for name in _PER_AXIS}
    return _Moved(bind(with_params(eqn, **params), [operands[0].stored])[0], order)


@register(_RULES, "pad")
def _pad(eqn: core.JaxprEqn, operands: Sequence[Value], order: tuple[int, ...]) -> _Moved:
    config = tuple(eqn.params["padding_config"][axis] for axis in order)
    value, fill = operands
    return _Moved(
        bind(with_params(eqn, padding_config=config), [_to(value, order), _in_order(fill)])[0], order
    )


@register(_RULES, "concatenate")
def _concatenate(eqn: core.JaxprEqn, operands: Sequence[Value], order: tuple[int, ...]) -> _Moved:
    stored = order.index(eqn.params["dimension"])
    return _Moved(bind(with_params(eqn, dimension=stored), [_to(v, order) for v in operands])[0], order)
