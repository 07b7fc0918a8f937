"""An attribution as a picture: what spoke for the answer in blue, what spoke against it in red."""

import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.pyplot import get_cmap

from jaxnn._checks import check_real
from jaxnn.plot._common import BLUE, ORANGE, Labels, check_axes, new_axes, numbers, strings

_INK = 0.4  # how dark the image shows through where nothing was attributed


def attribution(
    values: ArrayLike,
    *,
    image: ArrayLike | None = None,
    clip: float = 99.0,
    limit: float | None = None,
    title: str = "",
    name: str = "attribution",
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw an attribution as a heat map over the image that was explained.

    Blue spoke for the answer, red against it, and the color grows with `|a|` up to a limit: the `clip`-th
    percentile of `|a|`, so that a few extreme pixels do not make all others pale. The color bar says
    how many were cut. Where nothing was attributed, the image shows through in gray.

    Args:
        values: (h, w), any finite numbers; or (h, w, c), whose channels are added.
        image: (h, w) or (h, w, c), drawn beneath from white (lowest) to gray (highest).
        clip: The percentile of `|a|` at which the colors end, in (0, 100].
        limit: The value at which they end instead, above 0: to draw several on one scale.
        title: What stands above.
        name: What the values are: the label of the color bar.
        colorbar: Whether to draw one.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes drawn in.

    Raises:
        TypeError: `values` or `image` are not numbers, or `ax` is not an Axes.
        ValueError: They are not finite or of another shape, or `clip` or `limit` is out of range.

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
    heat = _flat("values", values)
    beneath = np.zeros(heat.shape) if image is None else _flat("image", image)
    if beneath.shape != heat.shape:
        raise ValueError(
            f"`image` must have shape {heat.shape}, that of `values` without channels; got {beneath.shape}"
        )
    clip = check_real("clip", clip)
    if not 0 < clip <= 100:
        raise ValueError(f"`clip` must lie in (0, 100], a percentile; got {clip}")
    end = _limit(heat, clip) if limit is None else check_real("limit", limit)
    if end <= 0:
        raise ValueError(f"`limit` must be above 0; got {limit}")
    ax = new_axes(ax)
    norm = Normalize(-end, end)
    strength = np.clip(np.abs(heat) / end, 0, 1)[..., None]
    ink = 1 - _INK * _scaled(beneath)[..., None]
    color = get_cmap("RdBu")(norm(heat))[..., :3]
    # The full color where the attribution is at its limit, the image where it is 0.
    ax.imshow(strength * color + (1 - strength) * ink, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    if colorbar:
        cut = int(np.sum(np.abs(heat) > end))
        note = f"\n({cut} of {heat.size} past the ends: clipped at {end:.3g})" if cut else ""
        extend = "both" if cut else "neither"
        ax.figure.colorbar(ScalarMappable(norm, "RdBu"), ax=ax, extend=extend).set_label(name + note)
    return ax


def _flat(name: str, value: ArrayLike) -> npt.NDArray[np.float64]:
    """An image without its channels, which are added."""
    rank = np.ndim(value)
    array = numbers(name, value, "(h, w) or (h, w, c)", ndim=3 if rank == 3 else 2)
    return array.sum(axis=2) if rank == 3 else array


def _limit(heat: npt.NDArray[np.float64], clip: float) -> float:
    size = np.abs(heat)
    # A map that is 0 nearly everywhere has a percentile of 0: its largest value then ends the colors.
    return float(np.percentile(size, clip)) or float(size.max()) or 1.0


def _scaled(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros(image.shape)


def feature_bars(
    values: ArrayLike,
    names: Labels,
    *,
    errors: ArrayLike | None = None,
    k: int | None = None,
    title: str = "",
    name: str = "attribution",
    ax: Axes | None = None,
) -> Axes:
    """Draw a bar for each named feature, the strongest on top: blue for the answer, orange against it.

    Args:
        values: (n,), any finite numbers.
        names: n strings.
        errors: (n,), at least 0: how far each bar may be off, drawn as a line to both sides.
        k: Draw only the k strongest; by default all.
        title: What stands above.
        name: What the values are, with their unit.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes drawn in.

    Raises:
        TypeError: `values` or `errors` are not numbers, or `ax` is not an Axes.
        ValueError: They are not finite or of another shape, an error is negative, the number of names
            does not fit, or `k` is not from 1 to n.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.feature_bars([0.5, -2.0, 1.0], ["area", "radius", "texture"], k=2)
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['radius', 'texture']
        >>> plt.close(ax.figure)
    """
    heights = numbers("values", values, "(n,)")
    labels = strings("names", names, heights.size)
    spread = None if errors is None else numbers("errors", errors, f"({heights.size},)", size=heights.size)
    if spread is not None and spread.min() < 0:
        raise ValueError(f"`errors` must be at least 0; got {spread.min()}")
    count = heights.size if k is None else k
    if not 1 <= count <= heights.size:
        raise ValueError(f"`k` must lie from 1 to {heights.size}, of values; got {k}")
    order = np.argsort(-np.abs(heights), kind="stable")[:count]
    ax = new_axes(ax) if ax is None else check_axes("ax", ax)
    ax.barh(
        np.arange(count), heights[order], xerr=None if spread is None else spread[order],
        color=[BLUE if height >= 0 else ORANGE for height in heights[order]], ecolor="black", capsize=2,
    )  # fmt: skip
    ax.set_yticks(np.arange(count), [labels[i] for i in order], fontsize=8)
    ax.invert_yaxis()
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set(xlabel=name, title=title)
    return ax
