"""Frames around a picture: even lines along its four sides, of another gray level than what is inside."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_CONTRAST = 32.0  # gray levels, of 255, between a frame and what is inside
_MOST, _FEW = 0.9, 0.03  # of the pixels of a line
_INSIDE = 0.78  # of the pixels inside of a frame at the border, at least, differ from it: a bold 8 fills 0.75

Grays = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def inside_frame(gray: Grays) -> Grays | None:
    """The part of a picture inside of its frame; None if it has none.

    A frame is at the border, or behind a margin, and encloses at least half of the height and the width.
    The outline of a rectangular digit is one, too, but nothing stands out inside of it.
    """
    level = np.median(np.concatenate(_sides(gray)))
    other = np.abs(gray - level) > _CONTRAST
    if any(side.mean() > 1 - _MOST for side in _sides(other)):
        return None
    box = _peel(other, lambda fraction: fraction <= 1 - _MOST)
    part = other[box]
    if not _is_half(part, gray) or any(side.mean() < _MOST for side in _sides(part)):
        return None
    if part.mean() >= _INSIDE:  # the frame is what was peeled off
        return gray[box]
    inner = _peel(part, lambda fraction: fraction >= _MOST)  # that was a margin; the frame follows
    if not _is_half(part[inner], gray) or any(side.mean() > _FEW for side in _sides(part[inner])):
        return None
    return gray[box][inner]


def _is_half(part: Mask, gray: Grays) -> bool:
    return all(2 * inner >= outer for inner, outer in zip(part.shape, gray.shape, strict=True))


def _sides(array: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    """The first and last row, and the first and last column."""
    return [array[0], array[-1], array[:, 0], array[:, -1]]


def _peel(mask: Mask, is_peel: Callable[[float], bool]) -> tuple[slice, slice]:
    """The box without its outer lines, as long as `is_peel` of the fraction of True in one."""
    edges = [0, mask.shape[0], 0, mask.shape[1]]  # of the box, in the order of `_sides`
    while (box := mask[edges[0] : edges[1], edges[2] : edges[3]]).size:
        peels = [is_peel(float(side.mean())) for side in _sides(box)]
        if not any(peels):
            break
        side = peels.index(True)  # one at a time: it changes the others
        edges[side] += (1, -1, 1, -1)[side]
    return slice(edges[0], edges[1]), slice(edges[2], edges[3])
