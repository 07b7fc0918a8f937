"""What the experiments on weights share: shapes of layers as images, titles."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments._results import true_minus


def near_square(size: int) -> tuple[int, int]:
    """(rows, columns) for a layer of that size: 30 is (5, 6); 31, a prime, has places to spare in (6, 6)."""
    rows = next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)
    if size <= 3 * rows**2:
        return rows, size // rows
    columns = math.isqrt(size - 1) + 1
    return -(-size // columns), columns


def padded(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The last axis laid out in that shape, the places that are too many 0; `hatch` marks those."""
    missing = math.prod(shape) - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]).reshape(*values.shape[:-1], *shape)


def hatch(ax: Axes, shape: tuple[int, int], size: int) -> None:
    """Mark the places of an image past the units of a layer as empty."""
    for place in range(size, math.prod(shape)):
        row, column = divmod(place, shape[1])
        corner = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="gray", hatch="////", linewidth=0))


def hatched(shape: tuple[int, int], size: int) -> str:
    """What to say of hatched places, where there are any."""
    return ", hatched: no unit" if math.prod(shape) > size else ""


def titled(axes: Any, title: str) -> Figure:
    """The figure of an array of Axes, with a title, which becomes its caption on the page."""
    figure: Figure = axes.flat[0].figure
    text = figure.suptitle(title)
    width, height = figure.get_size_inches()
    needed = text.get_window_extent().width / figure.dpi + 0.4
    figure.set_size_inches(max(width, needed), height)  # else the title of a few images is cut off
    return figure


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign."""
    return true_minus(f"{value:+.{digits}f}")


def color_limits(images: np.ndarray) -> tuple[float, float]:
    """(-high, high) that holds all weights but the largest 3 in 1,000, which would leave the others pale."""
    high = float(np.quantile(np.abs(images), 0.997))
    return -high, high
