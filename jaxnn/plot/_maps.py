"""Activation images, and decision maps: a value or a class over the plane of two inputs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int, Num
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize, to_rgba_array
from matplotlib.transforms import ScaledTranslation

from jaxnn._checks import check_image_shape, check_shape, check_text
from jaxnn.plot import _common
from jaxnn.plot._common import MAX_MARKS, Classes, Numbers

if TYPE_CHECKING:
    from matplotlib.typing import ColorType

_MARKERS = "o^sDvPX*"
Data: TypeAlias = tuple[Numbers, Classes | None]  # points (N, 2), and their labels (N,)


def activation_image(
    values: Num[ArrayLike, "n"], shape: Sequence[int] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Activation image: draw the activations of a layer; row label plus column label is the index of a unit.

    Values in [0, 1] are drawn from black (0) to white (1), other nonnegative values from black (0) to white
    (the largest), and all others in red (negative) and blue (positive).

    Args:
        values: (n,), any finite numbers.
        shape: (rows, columns) of the image; by default a square.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `values` are not numbers or are traced, `shape` not integers, or `ax` is not an Axes.
        ValueError: `values` are not finite or not (n,), `shape` does not have n elements, or it is None and n
            is not a square number.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.activation_image([0.1, 0.9, 0.5, 0.0, 0.2, 1.0], (2, 3))
        >>> ax.images[0].get_array().shape, ax.images[0].get_clim()
        ((2, 3), (0.0, 1.0))
        >>> plt.close(ax.figure)
    """
    activations = _common.check_numbers("values", values, "(n,)")
    shape = check_image_shape("shape", shape, activations.size, "the activations")
    if len(shape) != 2:
        raise ValueError(f"`shape` must be (rows, columns); got {shape}")
    rows, columns = shape
    ax = _common.axes_or_new(ax)
    signed = activations.min() < 0
    low, high = _common.color_limits(activations, signed, None)
    norm = Normalize(low if signed else 0.0, high if signed else max(high, 1.0))
    cmap = "RdBu" if signed else "gray"
    mappable = ax.imshow(activations.reshape(shape), cmap, norm, interpolation="nearest")
    across, down = (range(0, n, -(-n // 10)) for n in (columns, rows))
    ax.set_xticks(across, [f"+{i}" for i in across], fontsize=8)
    ax.set_yticks(down, [str(i * columns) for i in down], fontsize=8)
    ax.set(xlabel="+ column", ylabel="unit")
    ax.figure.colorbar(mappable, ax=ax).set_label("activation")
    return ax


def decision_map(
    x1: Num[ArrayLike, "n1"],
    x2: Num[ArrayLike, "n2"],
    values: Num[ArrayLike, "n2 n1"],
    *,
    points: Num[ArrayLike, "n 2"] | None = None,
    labels: Int[ArrayLike, "n"] | None = None,
    limits: tuple[float, float] | None = None,
    name: str = "value",
    ax: Axes | None = None,
) -> Axes:
    """Decision map: draw a value, or a class, over the plane of two inputs, and data points on top.

    Integers are classes, one flat color each. Other numbers are colored from red (low) to blue (high), with a
    black line where they cross the middle: the decision boundary.

    Args:
        x1: (n1,), the first input, increasing: the horizontal axis.
        x2: (n2,), the second input, increasing: the vertical axis.
        values: (n2, n1), `values[j, i]` at `(x1[i], x2[j])`: any finite numbers, or integers, classes from 0
            to 255.
        points: (N, 2), data to draw on top; points outside the map are not shown.
        labels: (N,), the classes of the points, integers from 0 to 255: one color and marker each, with a
            legend below the map; on a map of classes, in the colors of the map.
        limits: (low, high) of the color scale of values; by default (0, 1) if all lie in it, else symmetric
            about zero. Not for classes.
        name: The name of the values: the label of the color bar; for classes always "class".
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: An argument does not hold numbers or is traced, `labels` are not integers, or `ax` is not
            an Axes.
        ValueError: They are not finite or have another shape, `x1` or `x2` does not increase, a class is not
            from 0 to 255, there are `labels` but no `points`, or `limits` for classes.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> x = np.linspace(-1.0, 1.0, 5)
        >>> ax = plot.decision_map(x, x, np.outer(x, x), points=[[0.5, 0.5], [-0.5, 0.5]], labels=[1, 0])
        >>> ax.collections[0].get_clim(), [text.get_text() for text in ax.get_legend().get_texts()]
        ((-1.0, 1.0), ['0', '1'])
        >>> plt.close(ax.figure)
    """
    name = check_text("name", name)
    across, up = _check_increasing("x1", x1), _check_increasing("x2", x2)
    array = _common.check_concrete("values", values)
    check_shape("values", array, (up.size, across.size), "x2 by x1")
    data = None if points is None else _check_points(points, labels)
    if data is None and labels is not None:
        raise ValueError("`labels` must come with `points`; got None for those")
    of_classes = not jnp.issubdtype(array.dtype, jnp.inexact)
    heights: Numbers | Classes
    if of_classes:
        if limits is not None:
            raise ValueError(f"`limits` must be None if `values` are integers, classes; got {limits}")
        heights = _common.check_classes("values", array, array.shape)
        colors = _class_colors(heights, data)
    else:
        heights = _common.check_numbers("values", array, "", ndim=2)
        colors = value_colors(heights, limits)
    ax = _common.axes_or_new(ax)
    mesh = ax.pcolormesh(across, up, heights, **colors, rasterized=True)
    # An inset of the Axes, so that it has their height in any figure.
    bar = ax.figure.colorbar(mesh, cax=ax.inset_axes((1.04, 0.0, 0.05, 1.0)))
    bar.set_label("class" if of_classes else name)
    if of_classes:
        count = colors["cmap"].N
        bar.set_ticks(range(0, count, -(-count // MAX_MARKS)))
        bar.minorticks_off()
    else:
        _draw_decision(ax, across, up, np.asarray(heights, float), sum(mesh.get_clim()) / 2)
    edges = ax.axis()
    if data is not None:
        _draw_points(ax, *data, legend=not of_classes)  # the color bar of classes is a legend
    ax.axis(edges)
    ax.set_box_aspect(1)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def _check_increasing(name: str, value: ArrayLike) -> Numbers:
    places = _common.check_numbers(name, value, "(n,)")
    if places.size < 2 or np.any(np.diff(places) <= 0):
        raise ValueError(f"`{name}` must increase, with at least two values; got {places.size} that do not")
    return places


def _check_points(points: ArrayLike, labels: ArrayLike | None) -> Data:
    places = _common.check_numbers("points", points, "(N, 2)", ndim=2)
    if places.shape[1] != 2:
        raise ValueError(f"`points` must have shape (N, 2); got {places.shape}")
    return places, None if labels is None else _common.check_classes("labels", labels, (len(places),))


def _class_colors(heights: Classes, data: Data | None) -> dict[str, Any]:
    """One flat color per class, as arguments of `pcolormesh`."""
    kinds = heights if data is None or data[1] is None else np.append(heights, data[1])
    count = max(int(kinds.max()) + 1, 2)
    colors = ListedColormap(_blend_with_white(_common.class_colors(count), 0.5))
    return {"norm": BoundaryNorm(np.arange(count + 1) - 0.5, count), "cmap": colors}


def value_colors(heights: Numbers, limits: tuple[float, float] | None) -> dict[str, Any]:
    """Colors from red (low) to blue (high), pale enough for lines and points on them."""
    if limits is None and heights.min() >= 0.0 and heights.max() <= 1.0:
        limits = (0.0, 1.0)
    colors = ListedColormap(_blend_with_white(plt.get_cmap("RdBu")(np.linspace(0, 1, 256)), 0.65))
    return {"norm": Normalize(*_common.color_limits(heights, limits is None, limits)), "cmap": colors}


def _blend_with_white(colors: "Sequence[ColorType] | Numbers", opacity: float) -> Numbers:
    """Mix colors with white, so that points stand out from them."""
    return 1 - opacity * (1 - to_rgba_array(colors))


def _draw_decision(ax: Axes, x1: Numbers, x2: Numbers, heights: Numbers, middle: float) -> None:
    if heights.min() < middle < heights.max():  # otherwise matplotlib warns that there is no line
        ax.contour(x1, x2, heights, levels=[middle], colors="black", linewidths=1.0)


def _draw_points(ax: Axes, points: Numbers, labels: Classes | None, legend: bool) -> None:
    style: dict[str, Any] = {"s": 16, "edgecolors": "black", "linewidths": 0.6, "zorder": 3}
    if labels is None:
        ax.scatter(*points.T, color="white", **style)
        return
    colors = _common.class_colors(int(labels.max()) + 1)
    for kind in np.unique(labels):
        marker = _MARKERS[kind % len(_MARKERS)]
        ax.scatter(*points[labels == kind].T, color=[colors[kind]], marker=marker, label=str(kind), **style)
    if legend:
        # Below the axis label, where it covers no data.
        below = ax.transAxes + ScaledTranslation(0, -36 / 72, ax.figure.dpi_scale_trans)
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
        ax.legend(title="class", ncols=8, fontsize=8, title_fontsize=8, borderaxespad=0, **place)
