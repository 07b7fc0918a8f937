"""Helpers for figures and tables: layers as images, titles, color limits, and numbers as text."""

import math
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def near_square(size: int) -> tuple[int, int]:
    """(rows, columns) of an image of `size` units: 30 gives (5, 6); the prime 31 gives (6, 6), not full."""
    rows = next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)
    if size <= 3 * rows**2:
        return rows, size // rows
    columns = math.isqrt(size - 1) + 1
    return -(-size // columns), columns


def padded(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Reshape the last axis to `shape`, padded with zeros; `hatch` marks the padding."""
    missing = math.prod(shape) - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]).reshape(*values.shape[:-1], *shape)


def hatch(ax: Axes, shape: tuple[int, int], size: int) -> None:
    """Hatch the padding of an image of `size` units."""
    for place in range(size, math.prod(shape)):
        row, column = divmod(place, shape[1])
        corner = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="gray", hatch="////", linewidth=0))


def hatched(shape: tuple[int, int], size: int) -> str:
    """The note on hatched cells for a title; empty if there are none."""
    return ", hatched: no unit" if math.prod(shape) > size else ""


def titled(drawn: np.ndarray | Axes | Figure, title: str) -> Figure:
    """Add a title to a figure, or to the figure of (an array of) Axes; widen the figure to fit it.

    The title is also the caption on the page of results.
    """
    ax = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
    figure = ax.get_figure()
    assert isinstance(figure, Figure), "drawn on a figure"
    text = figure.suptitle(title)
    width, height = figure.get_size_inches()
    needed = text.get_window_extent().width / figure.dpi + 0.4
    figure.set_size_inches(max(width, needed), height)  # else the title over a few images is cut off
    return figure


def image_table(
    images: np.ndarray,
    titles: Sequence[str],
    rows: Sequence[str],
    *,
    limits: tuple[float, float],
    name: str,
    signed: bool = False,
    cell: float = 0.85,
) -> Axes:
    """Rows of images in one Axes: thirty Axes of their own take some ten times as long to draw.

    Args:
        images: `(n_rows * n_columns, h, w)`.
        titles: one above each image.
        rows: a label for each row, at its left.
        limits: of the color scale.
        name: of the values, at the color bar.
        signed: whether zero is white, negative values red and positive ones blue.
        cell: width of an image, in inches.
    """
    (count, h, w), n_rows = images.shape, len(rows)
    columns = count // n_rows
    per_inch = w / cell
    gap = 0.06 * per_inch
    top = (0.05 + 0.14 * max(title.count("\n") + 1 for title in titles)) * per_inch
    size = n_rows * (h + top), columns * (w + gap) - gap
    figure, ax = plt.subplots(
        figsize=(size[1] / per_inch + 2.4, size[0] / per_inch + 0.5), layout="constrained"
    )
    cmap, norm = "RdBu" if signed else "gray", Normalize(*limits)
    for place, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(place, columns)
        left, upper = column * (w + gap), row * (h + top) + top
        extent = (left, left + w, upper + h, upper)
        drawn = ax.imshow(image, cmap, norm, extent=extent, interpolation="nearest")
        ax.add_patch(Rectangle((left, upper), w, h, fill=False, edgecolor="gray", linewidth=0.4))
        ax.text(left + w / 2, upper - 0.03 * per_inch, title, fontsize=8, ha="center", va="bottom")
    for row, label in enumerate(rows):
        ax.text(-gap, row * (h + top) + top + h / 2, label, fontsize=9, ha="right", va="center")
    ax.set(xlim=(-0.3, size[1] + 0.3), ylim=(size[0] + 0.3, 0), aspect="equal")  # with the frames
    ax.set_axis_off()
    below, above = images.min() < limits[0], images.max() > limits[1]
    extend = ("both" if above else "min") if below else ("max" if above else "neither")
    figure.colorbar(drawn, ax=ax, extend=extend, pad=0.02).set_label(name)
    return ax


def color_limits(images: np.ndarray) -> tuple[float, float]:
    """(-high, high) that covers all weights except the largest 3 in 1,000, which would wash out the rest."""
    high = float(np.quantile(np.abs(images), 0.997))
    return -high, high


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def sizes_of(sizes: Iterable[int]) -> str:
    """Layer sizes joined by hyphens, such as "784-30-10"."""
    return "-".join(map(str, sizes))


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign."""
    return true_minus(f"{value:+.{digits}f}")


def true_minus(number: str) -> str:
    """Replace hyphens by minus signs."""
    return number.replace("-", "\u2212")
