"""Attribution figures: positive attributions in blue, negative ones in red."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.pyplot import get_cmap

from jaxnn._checks import check_flag, check_integer, check_real, check_text, check_values
from jaxnn.plot import _common
from jaxnn.plot._common import BLUE, ORANGE, Labels, Numbers

_INK = 0.4  # darkness of the image where the attribution is zero


def attribution(
    values: Num[ArrayLike, "height width *channels"],
    *,
    image: Num[ArrayLike, "height width *channels"] | None = None,
    clip: float = 99.0,
    limit: float | None = None,
    title: str = "",
    name: str = "attribution",
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Attribution heat map: draw an attribution over the image that it explains.

    Positive attributions are blue, negative ones red. The color strength grows with `|a|` up to a limit, the
    `clip`-th percentile of `|a|`, so that a few extreme pixels do not make all others pale. The color bar
    states how many pixels exceed it. Where the attribution is zero, the image shows through in gray.

    Args:
        values: (h, w), any finite numbers; or (h, w, c), whose channels are added.
        image: (h, w) or (h, w, c), drawn beneath from white (lowest) to gray (highest).
        clip: The percentile of `|a|` at which the color scale ends, in (0, 100].
        limit: The value at which the color scale ends instead, above 0: to draw several figures on one scale.
        title: The title.
        name: The name of the values: the label of the color bar.
        colorbar: Whether to draw a color bar.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `values` or `image` are not numbers, or `ax` is not an Axes.
        ValueError: They are not finite or have another shape, or `clip` or `limit` is out of range.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.attribution(np.linspace(-1.0, 0.5, 12).reshape(3, 4), clip=100)
        >>> bar = ax.figure.axes[1]
        >>> bar.get_ylabel(), bool(bar.get_ylim() == (-1.0, 1.0))
        ('attribution', True)
        >>> plt.close(ax.figure)
    """
    check_flag("colorbar", colorbar)
    title, name = check_text("title", title), check_text("name", name)
    heat = _sum_channels("values", values)
    beneath = np.zeros(heat.shape) if image is None else _sum_channels("image", image)
    if beneath.shape != heat.shape:
        raise ValueError(
            f"`image` must have shape {heat.shape}, that of `values` without channels; got {beneath.shape}"
        )
    norm = color_scale(heat, clip, limit)
    end = norm.vmax
    ax = _common.axes_or_new(ax)
    strength = np.clip(np.abs(heat) / end, 0, 1)[..., None]
    ink = 1 - _INK * _scaled(beneath)[..., None]
    color = get_cmap("RdBu")(norm(heat))[..., :3]
    # Full color where the attribution is at its limit, the image where it is 0.
    ax.imshow(strength * color + (1 - strength) * ink, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    if colorbar:
        add_colorbar(heat, norm, name, ax)
    return ax


def color_scale(heat: Numbers, clip: float, limit: float | None) -> Normalize:
    """The scale of colors, symmetric about 0, to a limit or a percentile of the sizes."""
    clip = check_real("clip", clip, above=0, at_most=100)
    end = _percentile(heat, clip) if limit is None else check_real("limit", limit, above=0)
    return Normalize(-end, end)


def add_colorbar(heat: Numbers, norm: Normalize, name: str, ax: Axes) -> None:
    """A color bar that says how many values exceed it."""
    cut = int(np.sum(np.abs(heat) > norm.vmax))
    note = f"\n({cut} of {heat.size} beyond)" if cut else ""
    extend = "both" if cut else "neither"
    ax.figure.colorbar(ScalarMappable(norm, "RdBu"), ax=ax, extend=extend).set_label(name + note)


def _sum_channels(name: str, value: ArrayLike) -> Numbers:
    """The image, summed over its channels if it has any."""
    rank = _common.check_concrete(name, value).ndim
    array = _common.check_numbers(name, value, "(h, w) or (h, w, c)", ndim=3 if rank == 3 else 2)
    return array.sum(axis=2) if rank == 3 else array


def _percentile(heat: Numbers, clip: float) -> float:
    size = np.abs(heat)
    # The percentile of a map that is 0 nearly everywhere is 0: then the largest value ends the color scale.
    return float(np.percentile(size, clip)) or float(size.max()) or 1.0


def _scaled(image: Numbers) -> Numbers:
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros(image.shape)


def feature_bars(
    values: Num[ArrayLike, "n"],
    names: Labels,
    *,
    errors: Num[ArrayLike, "n"] | None = None,
    k: int | None = None,
    title: str = "",
    name: str = "attribution",
    ax: Axes | None = None,
) -> Axes:
    """Attribution bar chart: one bar per named feature, the largest on top, positive blue, negative orange.

    Args:
        values: (n,), any finite numbers.
        names: n strings.
        errors: (n,), at least 0: the error of each bar, drawn as a line to both sides.
        k: The number of features to draw, those with the largest `|values|`; by default all.
        title: The title.
        name: The name of the values, with their unit.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `values` or `errors` are not numbers, `k` is not an integer, or `ax` is not an Axes.
        ValueError: They are not finite or have another shape, an error is negative, the number of names does
            not fit, or `k` is not from 1 to n.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.feature_bars([0.5, -2.0, 1.0], ["area", "radius", "texture"], k=2)
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['radius', 'texture']
        >>> plt.close(ax.figure)
    """
    title, name = check_text("title", title), check_text("name", name)
    heights = _common.check_numbers("values", values, "(n,)")
    n = heights.size
    labels = _common.check_labels("names", names, n)
    widths = None if errors is None else _common.check_numbers("errors", errors, f"({n},)", size=n)
    if widths is not None:
        check_values("errors", widths, at_least=0)
    count = n if k is None else check_integer("k", k, at_least=1)
    check_values("k", count, at_most=n)
    order = np.argsort(-np.abs(heights), kind="stable")[:count]
    ax = _common.axes_or_new(ax)
    ax.barh(
        np.arange(count), heights[order], xerr=None if widths is None else widths[order],
        color=[BLUE if height >= 0 else ORANGE for height in heights[order]], ecolor="black", capsize=2,
    )  # fmt: skip
    ax.set_yticks(np.arange(count), [labels[i] for i in order], fontsize=8)
    ax.invert_yaxis()
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set(xlabel=name, title=title)
    return ax
