"""Pictures that lie flat: a layer's activations as an image, a function over a plane."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize, to_rgba_array
from matplotlib.transforms import ScaledTranslation

from jaxnn._checks import check_image_shape, check_shape
from jaxnn.plot._common import MAX_MARKS, class_colors, classes, color_limits, concrete, new_axes, numbers

_MARKERS = "o^sDvPX*"


def activation_image(
    values: ArrayLike, shape: Sequence[int] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Draw the activations of a layer as an image; a unit's index is its row's label plus its column's.

    Values in [0, 1] are drawn from black (0) to white (1), other ones that are nowhere negative
    from black (0) to white (the highest), and the rest in red (negative) and blue (positive).

    Args:
        values: (n,), any finite numbers.
        shape: (rows, columns) of the image; by default a square.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes drawn in.

    Raises:
        TypeError: `values` are not numbers or are traced, `shape` not integers, or `ax` is not an Axes.
        ValueError: `values` are not finite or not (n,), or `shape` does not hold n, or is not
            given where n is no square number.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.activation_image([0.1, 0.9, 0.5, 0.0, 0.2, 1.0], (2, 3))
        >>> ax.images[0].get_array().shape, ax.images[0].get_clim()
        ((2, 3), (0.0, 1.0))
        >>> plt.close(ax.figure)
    """
    activations = numbers("values", values, "(n,)")
    shape = check_image_shape("shape", shape, activations.size, "the activations")
    if len(shape) != 2:
        raise ValueError(f"`shape` must be (rows, columns); got {shape}")
    rows, columns = shape
    ax = new_axes(ax)
    signed = activations.min() < 0
    low, high = color_limits(activations, signed, None)
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
    x1: ArrayLike,
    x2: ArrayLike,
    values: ArrayLike,
    *,
    points: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    limits: tuple[float, float] | None = None,
    name: str = "value",
    ax: Axes | None = None,
) -> Axes:
    """Draw a value, or a class, over the plane of two inputs, and the data on top.

    Integers are classes: a flat color each. Other numbers run from red (low) to blue (high), with
    a black line where they cross the middle: the decision.

    Args:
        x1: (n1,), the first input, rising: the horizontal axis.
        x2: (n2,), the second input, rising: the vertical axis.
        values: (n2, n1), `values[j, i]` at `(x1[i], x2[j])`: any finite numbers, or integers, classes from 0
            to 255.
        points: (N, 2), data to draw on top; what lies outside of the map is not shown.
        labels: (N,), the classes of the points, integers from 0 to 255: a color and a marker each, with a
            legend below the map, or on a map of classes the same colors as there.
        limits: (low, high) of the colors of values; by default (0, 1) where they all lie in it, else
            symmetric about zero. Classes have none.
        name: What the values are: the label of the color bar; for classes always "class".
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes drawn in.

    Raises:
        TypeError: An argument is not of numbers or is traced, `labels` are no integers, or `ax` is
            not an Axes.
        ValueError: They are not finite or of another shape, `x1` or `x2` does not rise, a class is
            not from 0 to 255, there are `labels` but no `points`, or `limits` of classes.

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
    across, up = _rising("x1", x1), _rising("x2", x2)
    array = concrete("values", values)
    check_shape("values", array, (up.size, across.size), "x2 by x1")
    data = None if points is None else _points(points, labels)
    if data is None and labels is not None:
        raise ValueError("`labels` must come with `points`; got None for those")
    of_classes = not jnp.issubdtype(array.dtype, jnp.inexact)
    if of_classes and limits is not None:
        raise ValueError(f"`limits` must be None where `values` are integers, classes; got {limits}")
    heights = classes("values", array, array.shape) if of_classes else numbers("values", array, "", ndim=2)
    colors = _class_colors(heights, data) if of_classes else value_colors(heights, limits)
    ax = new_axes(ax)
    mesh = ax.pcolormesh(across, up, heights, **colors, rasterized=True)
    # A part of the axes, so that it is as high as they are, whatever the figure around them.
    bar = ax.figure.colorbar(mesh, cax=ax.inset_axes((1.04, 0.0, 0.05, 1.0)))
    bar.set_label("class" if of_classes else name)
    if of_classes:
        count = colors["cmap"].N
        bar.set_ticks(range(0, count, -(-count // MAX_MARKS)))
        bar.minorticks_off()
    else:
        _draw_decision(ax, across, up, heights, sum(mesh.get_clim()) / 2)
    edges = ax.axis()
    if data is not None:
        _draw_points(ax, *data, legend=not of_classes)  # the color bar of classes says as much
    ax.axis(edges)
    ax.set_box_aspect(1)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def _rising(name: str, value: Any) -> npt.NDArray[Any]:
    places = numbers(name, value, "(n,)")
    if places.size < 2 or np.any(np.diff(places) <= 0):
        raise ValueError(f"`{name}` must rise, from two values on; got {places.size} that do not")
    return places


def _points(points: Any, labels: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    places = numbers("points", points, "(N, 2)", ndim=2)
    if places.shape[1] != 2:
        raise ValueError(f"`points` must have shape (N, 2); got {places.shape}")
    return places, None if labels is None else classes("labels", labels, (len(places),))


def _class_colors(heights: npt.NDArray[Any], data: Any) -> dict[str, Any]:
    """A flat color for each class."""
    kinds = heights if data is None or data[1] is None else np.append(heights, data[1])
    count = max(int(kinds.max()) + 1, 2)
    colors = ListedColormap(_pale(class_colors(count), 0.5))
    return {"norm": BoundaryNorm(np.arange(count + 1) - 0.5, count), "cmap": colors}


def value_colors(heights: npt.NDArray[Any], limits: Any) -> dict[str, Any]:
    """Colors from red (low) to blue (high), pale enough for lines and points on them."""
    if limits is None and heights.min() >= 0.0 and heights.max() <= 1.0:
        limits = (0.0, 1.0)
    colors = ListedColormap(_pale(plt.get_cmap("RdBu")(np.linspace(0, 1, 256)), 0.65))
    return {"norm": Normalize(*color_limits(heights, limits is None, limits)), "cmap": colors}


def _pale(colors: Any, share: float) -> npt.NDArray[Any]:
    """The colors mixed with white, so that points stand out from them."""
    return 1 - share * (1 - to_rgba_array(colors))


def _draw_decision(ax: Axes, x1: Any, x2: Any, heights: npt.NDArray[Any], middle: float) -> None:
    if heights.min() < middle < heights.max():  # else matplotlib warns that there is no line
        ax.contour(x1, x2, heights, levels=[middle], colors="black", linewidths=1.0)


def _draw_points(ax: Axes, points: Any, labels: npt.NDArray[Any] | None, legend: bool) -> None:
    style: dict[str, Any] = {"s": 16, "edgecolors": "black", "linewidths": 0.6, "zorder": 3}
    if labels is None:
        ax.scatter(*points.T, color="white", **style)
        return
    colors = class_colors(int(labels.max()) + 1)
    for kind in np.unique(labels):
        marker = _MARKERS[kind % len(_MARKERS)]
        ax.scatter(*points[labels == kind].T, color=[colors[kind]], marker=marker, label=str(kind), **style)
    if legend:
        # Below the label of the axis, where it covers no data.
        below = ax.transAxes + ScaledTranslation(0, -36 / 72, ax.figure.dpi_scale_trans)
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
        ax.legend(title="class", ncols=8, fontsize=8, title_fontsize=8, borderaxespad=0, **place)
