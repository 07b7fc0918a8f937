"""What the experiments on weights share: shapes of layers as images, titles."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import jaxnn


def sizes_of(network: jaxnn.Network) -> str:
    """Such as "784-30-10"."""
    return "-".join(map(str, network.sizes))


def near_square(size: int) -> tuple[int, int]:
    """(rows, columns) that hold a layer of that size, as near to a square as they come: 30 is (5, 6)."""
    rows = next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)
    return rows, size // rows


def titled(axes: Any, title: str) -> Figure:
    """The figure of an array of Axes, with a title, which becomes its caption on the page."""
    figure: Figure = axes.flat[0].figure
    figure.suptitle(title)
    return figure


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, with a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\u2212")


def color_limits(images: np.ndarray) -> tuple[float, float]:
    """(-high, high) that holds all weights but the largest 3 in 1,000, which would leave the others pale."""
    high = float(np.quantile(np.abs(images), 0.997))
    return -high, high
