"""Grids of images, training curves and output bars."""

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from jaxnn._checks import check_bytes, check_flag, check_integer, check_text, check_values
from jaxnn.plot import _common
from jaxnn.plot._common import BLUE, GRAY, MAX_MARKS, ORANGE, AxesLike, Grid, Labels


def image_grid(
    images: Num[ArrayLike, "n height width"],
    *,
    titles: Labels = None,
    columns: int | None = None,
    signed: bool = False,
    limits: tuple[float, float] | None = None,
    name: str = "",
    row_labels: Labels = None,
    colorbar: bool = True,
    axes: AxesLike = None,
) -> Grid:
    """Image grid: draw images that share one color scale.

    Args:
        images: (N, h, w), any finite numbers: pixels, or weights with `signed=True`.
        titles: N strings, one above each image; None for no title.
        columns: The number of images per row. By default that of `axes` or `row_labels`, else at most 10.
        signed: False draws from black (lowest) to white (highest). True centers the colors on zero, which is
            white: red for negative values (dislikes), blue for positive ones (likes).
        limits: (low, high) of the color scale, low = -high if `signed`; by default the extremes.
        name: The name of the values: the label of the color bar.
        row_labels: One string per row, at its left.
        colorbar: Whether to draw the color bar.
        axes: Array of at least N Axes to draw in, row by row; by default those of a new figure.

    Returns:
        (rows, columns) array of Axes; those after the N-th are switched off.

    Raises:
        TypeError: `images` or `limits` are not numbers or are traced, titles or labels are not strings, or
            `axes` are not Axes.
        ValueError: They are not finite or have another shape, `limits` do not increase, or the number of
            titles, row labels, columns or Axes does not fit.

    Example:
        >>> import matplotlib.pyplot as plt, numpy as np
        >>> from jaxnn import plot
        >>> images = np.linspace(-1.0, 0.5, 12).reshape(3, 2, 2)
        >>> axes = plot.image_grid(images, titles=["a", "b", "c"], columns=2, signed=True)
        >>> axes.shape, axes[0, 1].get_title(), axes[0, 0].images[0].get_clim(), axes[1, 1].axison
        ((2, 2), 'b', (-1.0, 1.0), False)
        >>> plt.close(axes[0, 0].figure)
    """
    signed, colorbar = check_flag("signed", signed), check_flag("colorbar", colorbar)
    name = check_text("name", name)
    pixels = _common.check_numbers("images", images, "(N, h, w)", ndim=3)
    n_images, height, width = pixels.shape
    low, high = _common.color_limits(pixels, signed, limits)
    names = _common.check_labels("titles", titles, n_images)
    row_labels = None if row_labels is None else _common.check_list("row_labels", row_labels)
    if columns is None:
        columns = -(-n_images // len(row_labels)) if row_labels else min(n_images, 10)
        columns = columns if axes is None else max(1, np.atleast_2d(np.asarray(axes, object)).shape[1])
    columns = check_integer("columns", columns, at_least=1)
    grid = None if axes is None else _common.check_grid(axes, n_images, columns)
    rows = -(-n_images // columns) if grid is None else len(grid)
    row_names = _common.check_labels("row_labels", row_labels, rows)
    if grid is None:
        check_bytes("columns", 2**18 * rows * columns)  # of Axes
        grid = _common.new_grid(rows, columns, height / width, names, row_names, name if colorbar else "")
    cells: list[Axes] = grid.ravel().tolist()
    norm = Normalize(low, high)
    sharp = "nearest" if width <= 64 else None  # larger images are downsampled: matplotlib's default
    for ax, image, title in zip(cells, pixels, names, strict=False):
        mappable = ax.imshow(image, "RdBu" if signed else "gray", norm, interpolation=sharp)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=8, pad=3)
        ax.spines[:].set(color=GRAY, linewidth=0.5)
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
    images: Num[ArrayLike, "n height width"],
    *,
    titles: Labels = None,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    row_labels: Labels = None,
    axes: AxesLike = None,
) -> Grid:
    """Weight grid: draw weights as images on one scale, red for negative, blue for positive, white for zero.

    It is `image_grid` for weights, such as those of `jaxnn.weights.kernel_images`.

    Args:
        images: (N, h, w), any finite numbers.
        titles: N strings, one above each image; None for no title.
        columns: The number of images per row; see `image_grid`.
        limits: (-high, high) of the color scale; by default the largest weight of all images.
        row_labels: One string per row, at its left.
        axes: Array of at least N Axes to draw in, row by row; by default those of a new figure.

    Returns:
        (rows, columns) array of Axes; those after the N-th are switched off.

    Raises:
        TypeError: `images` or `limits` are not numbers or are traced, titles or labels are not strings, or
            `axes` are not Axes.
        ValueError: They are not finite or have another shape, `limits` are not (-high, high), or the number
            of titles, row labels, columns or Axes does not fit.

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
    images: Num[ArrayLike, "n_hidden height width"],
    weights: Num[ArrayLike, "n_hidden"],
    k: int = 3,
    *,
    axes: AxesLike = None,
) -> Grid:
    """Top features of one output unit: draw the hidden units with its largest and smallest weights.

    The upper row holds the `k` units with the largest weights to the output unit (likes), the lower row those
    with the smallest (dislikes), strongest first, in the order of `jaxnn.weights.top_features`. The title of
    each image is the index of the unit and its weight.

    Args:
        images: (n_hidden, h, w), an image of each hidden unit, such as from `jaxnn.weights.kernel_images`.
        weights: (n_hidden,), the weights of the output unit: a column of the output kernel.
        k: The number of units per row, at most n_hidden.
        axes: (2, k) array of Axes to draw in; by default those of a new figure.

    Returns:
        (2, k) array of Axes.

    Raises:
        TypeError: `images` or `weights` are not numbers or are traced, `k` is not an integer, or `axes` are
            not Axes.
        ValueError: They are not finite or have another shape, or `k` is not from 1 to n_hidden.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> axes = plot.features_of_output(np.ones((4, 2, 2)), [0.5, -2.0, 3.0, 1.0], k=2)
        >>> [ax.get_title() for ax in axes.flat]
        ['2: +3.00', '3: +1.00', '1: −2.00', '0: +0.500']
        >>> plt.close(axes[0, 0].figure)
    """
    pixels = _common.check_numbers("images", images, "(n_hidden, h, w)", ndim=3)
    count = len(pixels)
    output_weights = _common.check_numbers("weights", weights, f"({count},), one per image", size=count)
    k = check_integer("k", k, at_least=1)
    check_values("k", k, at_most=count)
    liked, disliked = (np.argsort(order, kind="stable")[:k] for order in (-output_weights, output_weights))
    shown = np.concatenate([liked, disliked])
    titles = [_common.true_minus(f"{unit}: {output_weights[unit]:+#.3g}") for unit in shown]
    rows = ["likes", "dislikes"]
    return weight_grid(pixels[shown], titles=titles, columns=k, row_labels=rows, axes=axes)


def training_curve(
    values: Num[ArrayLike, "epochs"],
    *,
    validation: Num[ArrayLike, "epochs"] | None = None,
    name: str = "loss",
    ax: Axes | None = None,
) -> Axes:
    """Training curve: draw one value per epoch, such as the loss, against the epochs 1 to n.

    Args:
        values: (epochs,), any finite numbers.
        validation: (epochs,), the same on held-out data: adds a second line and a legend.
        name: The name of the values: the label of the y axis.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `values` or `validation` are not numbers or are traced, or `ax` is not an Axes.
        ValueError: They are empty, not finite, not one-dimensional or of different lengths.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.training_curve([0.9, 0.4, 0.3], name="squared error")
        >>> ax.get_ylabel(), ax.lines[0].get_xdata().tolist()
        ('squared error', [1, 2, 3])
        >>> plt.close(ax.figure)
    """
    name = check_text("name", name)
    curves = [_common.check_numbers("values", values, "(epochs,)")]
    epochs = np.arange(1, curves[0].size + 1)
    if validation is not None:
        curves.append(_common.check_numbers("validation", validation, f"{epochs.shape}", size=epochs.size))
    ax = _common.axes_or_new(ax)
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
    outputs: Num[ArrayLike, "n_out"],
    *,
    labels: Labels = None,
    target: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Output bar chart: draw one bar per output, the largest one in blue with its value.

    Args:
        outputs: (n_out,), any finite numbers; if all lie in [0, 1], the ticks of the axis run from 0 to 1.
        labels: n_out strings; by default 0 to n_out - 1.
        target: The target class, an index below n_out: outlined, its label marked with a triangle.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `outputs` are not numbers or are traced, `target` is not an integer, or `ax` is not an
            Axes.
        ValueError: They are not finite or not (n_out,), or `target` or `labels` does not fit.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.output_bars([0.1, 0.8, 0.3], target=2)
        >>> [text.get_text() for text in ax.texts], ax.get_xticklabels()[2].get_text()
        (['0.8'], '▲2')
        >>> plt.close(ax.figure)
    """
    heights = _common.check_numbers("outputs", outputs, "(n_out,)")
    names = _common.check_labels("labels", labels, heights.size, "{}")
    if target is not None:
        _common.check_concrete("target", target)
        target = check_integer("target", np.asarray(target)[()], at_least=0)
        check_values("target", target, below=heights.size)
    ax = _common.axes_or_new(ax)
    best = int(np.argmax(heights))
    bars = ax.bar(np.arange(heights.size), heights, color=GRAY)
    bars[best].set_color(BLUE)
    step = -(-heights.size // MAX_MARKS)
    shown = list(range(0, heights.size, step))
    if target is not None:
        shown = [i for i in shown if abs(i - target) >= step] + [target]
        names[target] = f"▲{names[target]}"
        bars[target].set(edgecolor="black", linewidth=1.5)
    ax.set_xticks(shown, [names[i] for i in shown])
    if len(shown) * max(map(len, names)) >= 3 * MAX_MARKS:
        plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.set(xlabel="output" if target is None else "output (▲ true class)", ylabel="value")
    bounded = heights.min() >= 0.0 and heights.max() <= 1.0
    ax.margins(y=0.15)
    ax.axhline(0.0, color="black", linewidth=0.8)
    if bounded:
        ax.set_ylim(0.0, 1.15)  # with room for the value above a bar of 1
        ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
    below = heights[best] < 0.0
    text = ax.annotate(_common.true_minus(f"{heights[best]:.3g}"), (best, heights[best]))
    text.set(position=(0, -7 if below else 4), anncoords="offset points", fontsize=8)
    text.set(ha="center", va="top" if below else "bottom")
    return ax
