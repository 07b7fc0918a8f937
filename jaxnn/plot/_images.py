"""Pictures of what a network learned: every function takes and returns matplotlib Axes."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from jaxnn._checks import check_integer
from jaxnn.plot._common import (
    BLUE,
    MAX_MARKS,
    ORANGE,
    Labels,
    color_limits,
    concrete,
    given_grid,
    listed,
    new_axes,
    new_grid,
    numbers,
    strings,
    true_minus,
)

_GRAY = "#B0B0B0"


def image_grid(
    images: ArrayLike,
    *,
    titles: Labels = None,
    columns: int | None = None,
    signed: bool = False,
    limits: tuple[float, float] | None = None,
    name: str = "",
    row_labels: Labels = None,
    colorbar: bool = True,
    axes: Any = None,
) -> npt.NDArray[np.object_]:
    """Draw a grid of images that share one color scale.

    Args:
        images: (N, h, w), any finite numbers: pixels, or weights with `signed=True`.
        titles: N strings, one above each image; None among them leaves that image bare.
        columns: Images in a row. By default what `axes` or `row_labels` imply, else at most 10.
        signed: False draws from black (lowest) to white (highest). True centers the colors on
            zero, which is white: red for negative (dislikes), blue for positive (likes).
        limits: (low, high) of the colors, low = -high where `signed`; by default the extremes.
        name: What the values are: the label of the color bar.
        row_labels: A string for each row, at its left.
        colorbar: Whether to draw the one color bar.
        axes: Array of at least N Axes to draw in, row by row; by default those of a new figure.

    Returns:
        (rows, columns) array of Axes; those past the N-th are switched off.

    Raises:
        TypeError: `images` or `limits` are not numbers or are traced, titles or labels are no strings,
            or `axes` are not Axes.
        ValueError: They are not finite or of another shape, `limits` are out of order, or the
            number of titles, row labels, columns or Axes does not fit.

    >>> images = np.linspace(-1.0, 0.5, 12).reshape(3, 2, 2)
    >>> axes = image_grid(images, titles=["a", "b", "c"], columns=2, signed=True)
    >>> axes.shape, axes[0, 1].get_title(), axes[0, 0].images[0].get_clim(), axes[1, 1].axison
    ((2, 2), 'b', (-1.0, 1.0), False)
    >>> plt.close(axes[0, 0].figure)
    """
    pixels = numbers("images", images, "(N, h, w)", ndim=3)
    n_images, height, width = pixels.shape
    low, high = color_limits(pixels, signed, limits)
    names = strings("titles", titles, n_images)
    row_labels = listed("row_labels", row_labels)
    if columns is None:
        columns = -(-n_images // len(row_labels)) if row_labels else min(n_images, 10)
        columns = columns if axes is None else max(1, np.atleast_2d(axes).shape[1])
    columns = check_integer("columns", columns, at_least=1)
    grid = None if axes is None else given_grid(axes, n_images, columns)
    rows = -(-n_images // columns) if grid is None else len(grid)
    row_names = strings("row_labels", row_labels, rows)
    if grid is None:
        grid = new_grid(rows, columns, height / width, names, row_names, name if colorbar else "")
    cells: list[Axes] = grid.ravel().tolist()
    norm = Normalize(low, high)
    sharp = "nearest" if width <= 64 else None  # larger ones are drawn smaller: left to matplotlib
    for ax, image, title in zip(cells, pixels, names, strict=False):
        mappable = ax.imshow(image, "RdBu" if signed else "gray", norm, interpolation=sharp)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=8, pad=3)
        ax.spines[:].set(color=_GRAY, linewidth=0.5)
    for ax in cells[n_images:]:
        ax.set_axis_off()
    for ax, label in zip(grid[:, 0], row_names if row_labels else [], strict=False):
        ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    if colorbar:
        below, above = pixels.min() < low, pixels.max() > high
        extend = ("both" if above else "min") if below else ("max" if above else "neither")
        bar = cells[0].figure.colorbar(mappable, ax=cells, extend=extend, aspect=12 * rows, pad=0.02)
        bar.set_label(name)
    return grid


def weight_grid(
    images: ArrayLike,
    *,
    titles: Labels = None,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    row_labels: Labels = None,
    axes: Any = None,
) -> npt.NDArray[np.object_]:
    """Draw weights as images: red for dislikes, blue for likes, white for zero, one scale for all.

    It is `image_grid` for weights, such as those of `jaxnn.weights.kernel_images`.

    Args:
        images: (N, h, w), any finite numbers.
        titles: N strings, one above each image; None among them leaves that image bare.
        columns: Images in a row; see `image_grid`.
        limits: (-high, high) of the colors; by default the largest weight of all images.
        row_labels: A string for each row, at its left.
        axes: Array of at least N Axes to draw in, row by row; by default those of a new figure.

    Returns:
        (rows, columns) array of Axes; those past the N-th are switched off.

    Raises:
        TypeError: `images` or `limits` are not numbers or are traced, titles or labels are no strings,
            or `axes` are not Axes.
        ValueError: They are not finite or of another shape, `limits` are not (-high, high), or
            the number of titles, row labels, columns or Axes does not fit.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> axes = plot.weight_grid(np.linspace(-1.0, 0.5, 12).reshape(3, 2, 2))
        >>> axes.shape, axes[0, 2].images[0].get_clim()
        ((1, 3), (-1.0, 1.0))
        >>> plt.close(axes[0, 0].figure)
    """
    return image_grid(
        images, titles=titles, columns=columns, signed=True, limits=limits, name="weight",
        row_labels=row_labels, axes=axes,
    )  # fmt: skip


def features_of_output(
    images: ArrayLike, weights: ArrayLike, k: int = 3, *, axes: Any = None
) -> npt.NDArray[np.object_]:
    """Draw what one output unit likes and dislikes most: hidden units, as images of their weights.

    The upper row holds the `k` units with the largest weights onto the output unit, the lower row
    those with the smallest, strongest first, in the order of `jaxnn.weights.top_features`. Above
    each image stand the unit's index and its weight.

    Args:
        images: (n_hidden, h, w), an image of each hidden unit, as of `jaxnn.weights.kernel_images`.
        weights: (n_hidden,), the output unit's weights onto them: a column of the output kernel.
        k: How many of each, at most n_hidden.
        axes: (2, k) array of Axes to draw in; by default those of a new figure.

    Returns:
        (2, k) array of Axes.

    Raises:
        TypeError: `images` or `weights` are not numbers or are traced, `k` is no integer, or `axes` no Axes.
        ValueError: They are not finite or of another shape, or `k` is not from 1 to n_hidden.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> axes = plot.features_of_output(np.ones((4, 2, 2)), [0.5, -2.0, 3.0, 1.0], k=2)
        >>> [ax.get_title() for ax in axes.flat]
        ['2: +3.00', '3: +1.00', '1: −2.00', '0: +0.500']
        >>> plt.close(axes[0, 0].figure)
    """
    pixels = numbers("images", images, "(n_hidden, h, w)", ndim=3)
    count = len(pixels)
    onto = numbers("weights", weights, f"({count},), one each image", size=count)
    k = check_integer("k", k, at_least=1)
    if k > count:
        raise ValueError(f"`k` must be at most {count}, of images; got {k}")
    liked, disliked = (np.argsort(order, kind="stable")[:k] for order in (-onto, onto))
    shown = np.concatenate([liked, disliked])
    titles = [true_minus(f"{unit}: {onto[unit]:+#.3g}") for unit in shown]
    rows = ["likes", "dislikes"]
    return weight_grid(pixels[shown], titles=titles, columns=k, row_labels=rows, axes=axes)


def training_curve(
    values: ArrayLike,
    *,
    validation: ArrayLike | None = None,
    name: str = "loss",
    ax: Axes | None = None,
) -> Axes:
    """Draw a value per epoch, such as the loss, against the epochs 1 to n.

    Args:
        values: (epochs,), any finite numbers.
        validation: (epochs,), the same on data held out: adds a second line and a legend.
        name: What the values are: the label of the y axis.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes drawn in.

    Raises:
        TypeError: `values` or `validation` are not numbers or are traced, or `ax` is not an Axes.
        ValueError: They are empty, not finite, not one-dimensional or not equally long.

    >>> ax = training_curve([0.9, 0.4, 0.3], name="squared error")
    >>> ax.get_ylabel(), ax.lines[0].get_xdata().tolist()
    ('squared error', [1, 2, 3])
    >>> plt.close(ax.figure)
    """
    curves = [numbers("values", values, "(epochs,)")]
    epochs = np.arange(1, curves[0].size + 1)
    if validation is not None:
        curves.append(numbers("validation", validation, f"{epochs.shape}", size=epochs.size))
    ax = new_axes(ax)
    styles = [("training", BLUE, "-", "o"), ("validation", ORANGE, "--", "s")]
    for curve, (label, color, line, marker) in zip(curves, styles, strict=False):
        shown = marker if epochs.size <= MAX_MARKS else "none"
        ax.plot(epochs, curve, line, color=color, marker=shown, markersize=4, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="epoch", ylabel=name)
    if validation is not None:
        ax.legend()
    return ax


def output_bars(
    outputs: ArrayLike, *, labels: Labels = None, answer: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a bar for each output node, the highest one in blue with its value.

    Args:
        outputs: (n_out,), any finite numbers; all in [0, 1] makes the axis run from 0 to 1.
        labels: n_out strings; by default 0 to n_out - 1.
        answer: The true class, an index below n_out: outlined, its label marked with a triangle.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes drawn in.

    Raises:
        TypeError: `outputs` are not numbers or are traced, `answer` is no integer, or `ax` is not an Axes.
        ValueError: They are not finite or not (n_out,), or `answer` or `labels` does not fit.

    >>> ax = output_bars([0.1, 0.8, 0.3], answer=2)
    >>> [text.get_text() for text in ax.texts], ax.get_xticklabels()[2].get_text()
    (['0.8'], '▲2')
    >>> plt.close(ax.figure)
    """
    heights = numbers("outputs", outputs, "(n_out,)")
    names = strings("labels", range(heights.size) if labels is None else labels, heights.size)
    if answer is not None:
        concrete("answer", answer)
        answer = check_integer("answer", np.asarray(answer)[()], at_least=0)
        if answer >= heights.size:
            raise ValueError(f"`answer` must be below {heights.size}, of outputs; got {answer}")
    ax = new_axes(ax)
    best = int(np.argmax(heights))
    bars = ax.bar(np.arange(heights.size), heights, color=_GRAY)
    bars[best].set_color(BLUE)
    step = -(-heights.size // MAX_MARKS)
    shown = list(range(0, heights.size, step))
    if answer is not None:
        shown = [i for i in shown if abs(i - answer) >= step] + [answer]
        names[answer] = f"▲{names[answer]}"
        bars[answer].set(edgecolor="black", linewidth=1.5)
    ax.set_xticks(shown, [names[i] for i in shown])
    if len(shown) * max(map(len, names)) >= 3 * MAX_MARKS:
        plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.set(xlabel="output" if answer is None else "output (▲ true class)", ylabel="value")
    bounded = heights.min() >= 0.0 and heights.max() <= 1.0
    ax.margins(y=0.15)
    ax.axhline(0.0, color="black", linewidth=0.8)
    if bounded:
        ax.set_ylim(0.0, 1.0)
    # Below the end of a bar that hangs, and of one that would push the value off the axis.
    below = heights[best] < 0.0 or (bounded and heights[best] > 0.9)
    text = ax.annotate(true_minus(f"{heights[best]:.3g}"), (best, heights[best]))
    text.set(position=(0, -7 if below else 4), anncoords="offset points", fontsize=8)
    text.set(ha="center", va="top" if below else "bottom")
    text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})
    return ax
