"""Boxes of arrays, one for each of many windows, and values that may differ within a box alone."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Span(NamedTuple):
    """The elements of an axis that each window changes, at most.

    Attributes:
        starts: the first of them, `(windows,)` integers.
        size: how many.
    """

    starts: np.ndarray
    size: int


Box = tuple[Span, ...]  # one per axis


class Value(NamedTuple):
    """A value of the function.

    Attributes:
        base: what it is of the unchanged array.
        box: where it may differ; None if nowhere.
        patch: what it is there, of the box's sizes.
    """

    base: jax.Array
    box: Box | None = None
    patch: jax.Array | None = None


class Changed(NamedTuple):
    """A value that may differ; see `Value`."""

    box: Box
    patch: jax.Array


def cover(first: np.ndarray, end: np.ndarray, length: int) -> Span:
    """The span of an axis that holds the elements from `first` to `end - 1` of each window."""
    first, end = np.clip(first, 0, length), np.clip(end, 0, length)
    size = max(1, int(np.max(end - first)))
    return Span(np.minimum(first, length - size), size)


def whole(shape: Sequence[int], windows: int) -> Box:
    """The box that is all of an array."""
    return tuple(Span(np.zeros(windows, int), size) for size in shape)


def union(boxes: Sequence[Box], shape: Sequence[int]) -> Box:
    """The least box around some boxes of one shape."""
    return tuple(
        cover(np.min([s.starts for s in spans], 0), np.max([s.starts + s.size for s in spans], 0), length)
        for spans, length in zip(zip(*boxes, strict=True), shape, strict=True)
    )


def sizes(box: Box) -> tuple[int, ...]:
    """The shape of a box."""
    return tuple(span.size for span in box)


def part(array: jax.Array, box: Box, at: jax.Array) -> jax.Array:
    """The box of an array, for the window with index `at`."""
    return array if sizes(box) == array.shape else lax.dynamic_slice(array, _starts(box, at), sizes(box))


def _starts(box: Box, at: jax.Array) -> list[jax.Array]:
    return [jnp.asarray(span.starts, "int32")[at] for span in box]


def put(patch: jax.Array, box: Box, into: jax.Array, around: Box, at: jax.Array) -> jax.Array:
    """An array of the box `around`, with a patch at the box within it."""
    inside = tuple(Span(s.starts - t.starts, s.size) for s, t in zip(box, around, strict=True))
    return patch if patch.shape == into.shape else lax.dynamic_update_slice(into, patch, _starts(inside, at))


def extended(value: Value, box: Box, at: jax.Array) -> jax.Array:
    """A value at a box, which holds that where it may differ."""
    inside = part(value.base, box, at)
    if value.box is None or value.patch is None:
        return inside
    return put(value.patch, value.box, inside, box, at)
