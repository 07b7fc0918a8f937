"""Attributions along time: each feature's line over the colors of its attributions."""

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num
from matplotlib.axes import Axes

from jaxnn._checks import check_flag, check_text
from jaxnn.plot import _common
from jaxnn.plot._attribution import add_colorbar, color_scale
from jaxnn.plot._common import Labels, Numbers

_ROW, _LEAST = 0.7, 3.0  # inches: of a feature, and of the figure, for the label of the color bar
_MARGIN = 0.1  # of a row, above and below its line


def series(
    values: Num[ArrayLike, "steps *features"],
    *,
    series: Num[ArrayLike, "steps *features"] | None = None,
    times: Num[ArrayLike, " steps"] | None = None,
    names: Labels = None,
    clip: float = 99.0,
    limit: float | None = None,
    title: str = "",
    name: str = "attribution",
    xlabel: str = "time step",
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Time series attribution: draw the attributions of each feature along time, beneath its values.

    Each feature is a row. Its background is blue where the attribution is positive, and red where it is
    negative, as in `attribution`; all rows share one scale. Its line is scaled to its own range.

    Args:
        values: (steps,) or (steps, features), any finite numbers.
        series: The time series, of the same shape; None for no lines.
        times: The time of each step, (steps,), increasing; None for 0, 1, ...
        names: The name of each feature; None for "feature 0", ..., and for none where there is one feature.
        clip: The percentile of `|a|` at which the color scale ends, in (0, 100].
        limit: The value at which the color scale ends instead, above 0.
        title: The title.
        name: The name of the values: the label of the color bar.
        xlabel: The label of the time axis, with its unit.
        colorbar: Whether to draw a color bar.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `values`, `series` or `times` are not numbers, or `ax` is not an Axes.
        ValueError: They are not finite or have other shapes, `times` do not increase, there is another number
            of `names`, or `clip` or `limit` is out of range.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> t = np.linspace(0.0, 6.0, 50)
        >>> ax = plot.series(np.cos(t), series=np.sin(t), times=t, xlabel="time, s")
        >>> ax.get_xlabel(), len(ax.lines)
        ('time, s', 1)
        >>> plt.close(ax.figure)
    """
    check_flag("colorbar", colorbar)
    title, name, xlabel = check_text("title", title), check_text("name", name), check_text("xlabel", xlabel)
    heat = _by_feature("values", values)
    lines = None if series is None else _by_feature("series", series)
    if lines is not None and lines.shape != heat.shape:
        raise ValueError(f"`series` must have the shape of `values`, {heat.shape}; got {lines.shape}")
    steps, count = heat.shape
    places = np.arange(float(steps)) if times is None else _increasing("times", times, steps)
    labels = _common.check_labels("names", names, count, "feature {}" if count > 1 else "")
    norm = color_scale(heat, clip, limit)
    ax = _common.axes_or_new(ax, figsize=(7.0, max(_LEAST, 0.9 + _ROW * count)))
    # The first feature on top.
    ax.pcolormesh(_edges(places), np.arange(count + 1.0), heat.T[::-1], cmap="RdBu", norm=norm, alpha=0.8)
    for row, line in enumerate(() if lines is None else lines.T):
        ax.plot(places, count - 1 - row + _within(line), color="black", linewidth=1)
    ax.hlines(np.arange(1.0, count), *ax.get_xlim(), color="white", linewidth=2)
    ax.set(xlim=_edges(places)[[0, -1]], ylim=(0, count), xlabel=xlabel)
    ax.set_yticks(np.arange(count) + 0.5, labels[::-1])
    ax.tick_params(axis="y", length=0)
    ax.set_title(title, fontsize=9)
    if colorbar:
        add_colorbar(heat, norm, name, ax)
    return ax


def _by_feature(name: str, value: ArrayLike) -> Numbers:
    """Numbers `(steps, features)`; a series of one axis is one feature."""
    rank = _common.check_concrete(name, value).ndim
    array = _common.check_numbers(name, value, "(steps,) or (steps, features)", ndim=1 if rank == 1 else 2)
    return _in_doubles(value, array).reshape(len(array), -1)


def _increasing(name: str, value: ArrayLike, steps: int) -> Numbers:
    """The time of each step; seconds since 1970 need all digits of a double."""
    places = _in_doubles(value, _common.check_numbers(name, value, f"({steps},)", size=steps))
    if np.any(np.diff(places) <= 0):
        raise ValueError(f"`{name}` must increase; got {places}")
    return places


def _in_doubles(value: ArrayLike, checked: Numbers) -> Numbers:
    """The numbers of a value, of which the checked ones may be rounded to JAX's default precision."""
    return checked if isinstance(value, jax.Array) else np.asarray(value, np.float64)


def _edges(places: Numbers) -> Numbers:
    """The limits of the cells around some places: half-way between neighbors."""
    if len(places) == 1:
        return np.array([places[0] - 0.5, places[0] + 0.5])
    between = (places[1:] + places[:-1]) / 2
    return np.array([2 * places[0] - between[0], *between, 2 * places[-1] - between[-1]])


def _within(line: Numbers) -> Numbers:
    """A line scaled to the height of a row; a constant one in its middle."""
    low, high = line.min(), line.max()
    if low == high:
        return np.full(line.shape, 0.5)
    return _MARGIN + (1 - 2 * _MARGIN) * (line - low) / (high - low)
