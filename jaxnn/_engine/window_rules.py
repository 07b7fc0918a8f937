"""What a window of the input can change of the result of each operation; see `windows`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from jaxnn._engine.backward import register
from jaxnn._engine.jaxpr import bind, with_params
from jaxnn._engine.loops import scan
from jaxnn._engine.primitives import CUMULATIVE, CUSTOM, ELEMENTWISE, ONE_TO_ONE
from jaxnn._engine.relu import is_jaxs_relu
from jaxnn._engine.windows import Box, Changed, Span, Value, cover, extended, part, put, sizes, union, whole

Index = jax.Array
Rule = Callable[[core.JaxprEqn, Sequence[Value], jax.Array, Index], Changed | None]
"""`rule(equation, operands, base of the result, index of the window)`; None for all of the result."""
OneRule = Callable[[core.JaxprEqn, Value, Box, jax.Array, Index], Changed | None]
"""Likewise, of the first operand and its box, where no other operand may differ."""

RULES: dict[str, Rule] = {}
_FILL = {"reduce_window_sum": 0.0, "reduce_window_max": -np.inf, "reduce_window_min": np.inf}
_MOST_GATHERED = 2**17  # weights of a product that are copied for each window
_MOST_SUMS = 2**21  # numbers of a product that are stored for all windows


def _of_first(*primitives: str) -> Callable[[OneRule], OneRule]:
    """A decorator that adds a rule for operations whose first operand alone may differ."""

    def decorate(rule: OneRule) -> OneRule:
        def of_all(eqn: core.JaxprEqn, operands: Sequence[Value], base: jax.Array, at: Index) -> Any:
            first, *others = operands
            if first.box is None or any(v.box is not None for v in others):
                return None
            return rule(eqn, first, first.box, base, at)

        register(RULES, *primitives)(of_all)
        return rule

    return decorate


def _windows(box: Box) -> int:
    return len(box[0].starts)


def _wholly(box: Box, axes: Sequence[int], shape: Sequence[int]) -> Box:
    """A box, with all of some axes."""
    all_of = whole(shape, _windows(box))
    return tuple(all_of[i] if i in axes else span for i, span in enumerate(box))


@register(RULES, *ELEMENTWISE, *ONE_TO_ONE)
def _elementwise(eqn: core.JaxprEqn, operands: Sequence[Value], base: jax.Array, at: Index) -> Changed | None:
    if any(np.ndim(v.base) != base.ndim for v in operands if np.ndim(v.base) > 0 or v.box is not None):
        return None
    repeated = [  # axes of size 1, along which an operand is the same for all of the result
        [i for i, size in enumerate(np.shape(v.base)) if size != base.shape[i]] for v in operands
    ]
    boxes = [
        _wholly(v.box, axes, base.shape)
        for v, axes in zip(operands, repeated, strict=True)
        if v.box is not None
    ]
    box = union(boxes, base.shape)
    parts = [
        extended(v, _wholly(box, axes, v.base.shape), at) if np.ndim(v.base) else v.base
        for v, axes in zip(operands, repeated, strict=True)
    ]
    return Changed(box, bind(eqn, parts)[0])


@_of_first(*CUSTOM)
def _custom(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed | None:
    return Changed(box, jax.nn.relu(extended(value, box, at))) if is_jaxs_relu(eqn) else None


@_of_first("transpose")
def _transpose(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed:
    axes = eqn.params["permutation"]
    return Changed(tuple(box[axis] for axis in axes), lax.transpose(extended(value, box, at), axes))


@_of_first("broadcast_in_dim")
def _broadcast(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed:
    axes, spans = eqn.params["broadcast_dimensions"], list(whole(base.shape, _windows(box)))
    for axis, span, length in zip(axes, box, value.base.shape, strict=True):
        if base.shape[axis] == length:
            spans[axis] = span
    result = tuple(spans)
    return Changed(result, lax.broadcast_in_dim(extended(value, box, at), sizes(result), axes))


@_of_first("squeeze", "reshape")
def _reshape(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed | None:
    if eqn.primitive.name == "reshape" and eqn.params["dimensions"] is not None:  # transposed before
        return None
    before, after = (list(whole(shape, _windows(box))) for shape in (value.base.shape, base.shape))
    for old, new in _groups(value.base.shape, base.shape):
        span, row = box[old[0]], math.prod(base.shape[i] for i in new[1:])
        if len(old) == 1:  # split: whole rows, of elements along all but the first of the new axes
            rows = cover(span.starts // row, -(-(span.starts + span.size) // row), base.shape[new[0]])
            before[old[0]], after[new[0]] = Span(rows.starts * row, rows.size * row), rows
        elif len(new) == 1:  # joined: whole rows, likewise
            row = math.prod(value.base.shape[i] for i in old[1:])
            before[old[0]], after[new[0]] = span, Span(span.starts * row, span.size * row)
    result = tuple(after)
    return Changed(result, extended(value, tuple(before), at).reshape(sizes(result)))


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The least groups of axes of two shapes that hold equally many elements; without those of size 1."""
    olds, news = ([i for i, size in enumerate(shape) if size != 1] for shape in (old, new))
    groups = []
    while olds and news:
        these, those = [olds.pop(0)], [news.pop(0)]
        while (left := math.prod(old[i] for i in these)) != (right := math.prod(new[i] for i in those)):
            group, rest = (these, olds) if left < right else (those, news)
            group.append(rest.pop(0))
        groups.append((these, those))
    return groups


@_of_first(
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin"
)
def _reduce(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed | None:
    axes = eqn.params["axes"]
    around = _wholly(box, axes, value.base.shape)
    left = tuple(span for i, span in enumerate(around) if i not in axes)
    return Changed(left, bind(eqn, [extended(value, around, at)])[0]) if left else None


@_of_first(*CUMULATIVE)
def _cumulate(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed:
    around = _wholly(box, (eqn.params["axis"],), value.base.shape)
    return Changed(around, bind(eqn, [extended(value, around, at)])[0])


@register(RULES, "concatenate")
def _concatenate(eqn: core.JaxprEqn, operands: Sequence[Value], base: jax.Array, at: Index) -> Changed:
    axis, start = eqn.params["dimension"], 0
    moved: list[tuple[Value, Span, Box]] = []  # the operand, its span along the axis, its box in the result
    for value in operands:
        if value.box is not None:
            span = value.box[axis]
            shifted = Span(span.starts + start, span.size)
            moved.append((value, span, (*value.box[:axis], shifted, *value.box[axis + 1 :])))
        start += value.base.shape[axis]
    around = union([box for *_, box in moved], base.shape)
    patch = part(base, around, at)
    for value, span, box in moved:
        inside = extended(value, (*around[:axis], span, *around[axis + 1 :]), at)
        patch = put(inside, (*around[:axis], box[axis], *around[axis + 1 :]), patch, around, at)
    return Changed(around, patch)


@_of_first("pad")
def _pad(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed | None:
    config = eqn.params["padding_config"]
    if any(before < 0 or behind < 0 or between for before, behind, between in config):
        return None
    moved = tuple(Span(s.starts + before, s.size) for s, (before, _, _) in zip(box, config, strict=True))
    return Changed(moved, extended(value, box, at))


def _field(
    value: jax.Array,
    changed: Changed,
    out: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    fill: Any,
    at: Index,
) -> tuple[Box, jax.Array]:
    """What an operation with a sliding window reads, where its results may change.

    Args:
        value: what it slides over, unchanged.
        changed: what may differ of it.
        out: the shape of the results.
        window: how many elements it spans along each axis.
        strides: between results.
        padding: before and behind; negative where elements are left out.
        fill: the value of padding.
        at: the index of the window of the input.

    Returns:
        `(box, field)`: the box of the results, and what they are computed from, without further padding.
    """
    results, fields, places, around, pads = [], [], [], [], []
    for i, span in enumerate(changed.box):
        before, behind = padding[i]
        first = span.starts + before
        end = first + span.size
        result = cover(-((window[i] - 1 - first) // strides[i]), (end - 1) // strides[i] + 1, out[i])
        begin, length = result.starts * strides[i], (result.size - 1) * strides[i] + window[i]
        both = np.minimum(begin, first)  # where strides skip elements, these may be outside of the field
        size = int(np.max(np.maximum(begin + length, end) - both))
        margin = max(0, -int(np.min(both)))
        more = max(0, int(np.max(both)) + size - (value.shape[i] + before + behind))
        pads.append((before + margin, behind + more, 0))
        results.append(result)
        fields.append(Span(begin - both, length))
        places.append(Span(first + margin, span.size))
        around.append(Span(both + margin, size))
    padded = lax.pad(value, jnp.asarray(fill, value.dtype), pads) if np.any(pads) else value
    larger = part(padded, tuple(around), at)
    larger = put(changed.patch, tuple(places), larger, tuple(around), at)
    return tuple(results), part(larger, tuple(fields), at)


@register(RULES, "conv_general_dilated")
def _convolve(eqn: core.JaxprEqn, operands: Sequence[Value], base: jax.Array, at: Index) -> Changed | None:
    (images, kernels), params = operands, eqn.params
    if images.box is None or kernels.box is not None:
        return None
    if math.prod(params["lhs_dilation"]) > 1 or params["batch_group_count"] > 1:
        return None
    (n, c, *places), (_, _, *sides), (n_out, _, *places_out) = params["dimension_numbers"]
    # For each axis of the images; each of the channels' may differ in each of the results'.
    shape = images.base.shape
    out, window, strides, padding = list(shape), [1] * len(shape), [1] * len(shape), [(0, 0)] * len(shape)
    for k, axis in enumerate(places):
        out[axis], strides[axis] = base.shape[places_out[k]], params["window_strides"][k]
        window[axis] = (kernels.base.shape[sides[k]] - 1) * params["rhs_dilation"][k] + 1
        padding[axis] = params["padding"][k]
    around = _wholly(images.box, (c,), shape)
    changed = Changed(around, extended(images, around, at))
    spans, field = _field(images.base, changed, out, window, strides, padding, 0, at)
    result = list(whole(base.shape, _windows(spans)))
    for axis, axis_out in zip((n, *places), (n_out, *places_out), strict=True):
        result[axis_out] = spans[axis]
    unpadded = with_params(eqn, padding=((0, 0),) * len(places))
    return Changed(tuple(result), bind(unpadded, [field, kernels.base])[0])


@_of_first(*_FILL)
def _reduce_window(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed | None:
    params, fill = eqn.params, _FILL[eqn.primitive.name]
    if math.prod(params["base_dilation"]) > 1:
        return None
    if base.dtype == bool:
        fill = fill > 0
    elif jnp.issubdtype(base.dtype, jnp.integer) and fill:
        fill = jnp.iinfo(base.dtype).min if fill < 0 else jnp.iinfo(base.dtype).max
    windows, dilation = params["window_dimensions"], params["window_dilation"]
    spans = [(size - 1) * apart + 1 for size, apart in zip(windows, dilation, strict=True)]
    changed = Changed(box, extended(value, box, at))
    result, field = _field(
        value.base, changed, base.shape, spans, params["window_strides"], params["padding"], fill, at
    )
    return Changed(result, bind(with_params(eqn, padding=((0, 0),) * base.ndim), [field])[0])


@_of_first("slice")
def _slice(eqn: core.JaxprEqn, value: Value, box: Box, base: jax.Array, at: Index) -> Changed:
    params, ones = eqn.params, (1,) * base.ndim
    strides, limits = params["strides"] or ones, zip(params["limit_indices"], value.base.shape, strict=True)
    padding = [
        (-start, end - size) for start, (end, size) in zip(params["start_indices"], limits, strict=True)
    ]
    changed = Changed(box, extended(value, box, at))
    result, field = _field(value.base, changed, base.shape, ones, strides, padding, 0, at)
    return Changed(result, lax.slice(field, (0,) * base.ndim, field.shape, strides))


@register(RULES, "dot_general")
def _product(eqn: core.JaxprEqn, operands: Sequence[Value], base: jax.Array, at: Index) -> Changed | None:
    summed, batch = eqn.params["dimension_numbers"]
    differ = [v.box is not None for v in operands]
    if not all(differ) and _is_within_sum(operands, differ.index(True), summed, batch, base.size):
        return _sum_around(eqn, operands, differ.index(True), base, at)
    windows = next(_windows(v.box) for v in operands if v.box)
    free = [
        [i for i in range(v.base.ndim) if i not in (*summed[k], *batch[k])] for k, v in enumerate(operands)
    ]
    # Of two that differ, each row of one meets each of the other: all of the result may differ.
    boxes = [
        _wholly(
            v.box or whole(v.base.shape, windows),
            [*summed[k], *(free[k] if all(differ) else ())],
            v.base.shape,
        )
        for k, v in enumerate(operands)
    ]
    shared = union(
        [tuple(boxes[k][i] for i in batch[k]) for k in range(2) if differ[k]],
        [operands[0].base.shape[i] for i in batch[0]],
    )
    places = [dict(zip(axes, shared, strict=True)) for axes in batch]
    boxes = [tuple(places[k].get(i, s) for i, s in enumerate(box)) for k, box in enumerate(boxes)]
    result = (*shared, *(boxes[k][i] for k in range(2) for i in free[k]))
    parts = [extended(v, box, at) for v, box in zip(operands, boxes, strict=True)]
    return Changed(result, bind(eqn, parts)[0]) if result else None


def _is_within_sum(
    operands: Sequence[Value],
    side: int,
    summed: Sequence[Sequence[int]],
    batch: Sequence[Sequence[int]],
    results: int,
) -> bool:
    """Whether a product sums over one axis, and its operand differs within a part of that axis alone.

    And neither the weights of each window nor the sums up to each are large.
    """
    value, weights = operands[side], operands[1 - side].base
    boxed = [i for i, span in enumerate(value.box or ()) if span.size < value.base.shape[i]]
    if batch[0] or len(summed[0]) != 1 or boxed != list(summed[side]) or value.box is None:
        return False
    span, length = value.box[boxed[0]], value.base.shape[boxed[0]]
    sums = 2 * len(np.unique(span.starts)) * results
    return bool(weights.size // length * span.size <= _MOST_GATHERED and sums <= _MOST_SUMS)


def _sum_around(
    eqn: core.JaxprEqn, operands: Sequence[Value], side: int, base: jax.Array, at: Index
) -> Changed:
    """A product whose sum changes in a part: the sums before it, in it, and behind it.

    The difference would take as few operations, but where the part is large beside the rest, nothing would be
    left of the rest.
    """
    ((lhs,), (rhs,)), _ = eqn.params["dimension_numbers"]
    axes, box = (lhs, rhs), operands[side].box or ()
    span, length = box[axes[side]], operands[side].base.shape[axes[side]]
    ends = span.starts + span.size
    edges = np.unique([0, *span.starts, *ends, length])
    sums = _sums_between(eqn, [v.base for v in operands], axes, edges)
    # On a CPU a scan takes an eighth of the time of `cumsum`.
    zero, add = jnp.zeros_like(sums[0]), lambda total, row: (total + row, (total, total + row))
    _, (before, _) = scan(add, zero, sums, hoist=False)
    _, (_, behind) = scan(add, zero, sums, hoist=False, reverse=True)

    boxes = [whole(v.base.shape, len(ends)) for v in operands]
    boxes = [(*b[:axis], span, *b[axis + 1 :]) for b, axis in zip(boxes, axes, strict=True)]
    inside = bind(eqn, [extended(v, b, at) for v, b in zip(operands, boxes, strict=True)])[0]
    first, last = (jnp.asarray(np.searchsorted(edges, each))[at] for each in (span.starts, ends))
    result = (before[first] + inside + behind[last]).astype(base.dtype)
    return Changed(whole(base.shape, len(ends)), result)


def _sums_between(
    eqn: core.JaxprEqn, arrays: Sequence[jax.Array], axes: Sequence[int], edges: np.ndarray
) -> jax.Array:
    """The product that sums over the elements from each edge to the next, `(edges, ...)`; 0 from the last."""
    ends = np.append(edges[1:], edges[-1])
    places = edges[:, None] + np.arange(np.max(ends - edges))
    is_inside = places < ends[:, None]
    segments = []  # (edges, elements, ...)
    for array, axis in zip(arrays, axes, strict=True):
        values = jnp.moveaxis(array, axis, 0)[np.minimum(places, array.shape[axis] - 1)]
        mask = is_inside.reshape(*is_inside.shape, *(1,) * (array.ndim - 1))
        segments.append(jnp.where(mask, values, jnp.zeros((), array.dtype)))
    options = {name: eqn.params[name] for name in ("precision", "preferred_element_type")}
    sums: jax.Array = lax.dot_general(segments[0], segments[1], (((1,), (1,)), ((0,), (0,))), **options)
    is_float = jnp.issubdtype(sums.dtype, jnp.inexact)
    return sums.astype(jnp.promote_types(sums.dtype, "float32")) if is_float else sums
