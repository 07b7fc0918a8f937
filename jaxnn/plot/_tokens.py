"""Tokens: text whose background shows the attribution of each token, as a figure and as HTML."""

import html
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from jaxnn._checks import check_flag, check_real, check_text
from jaxnn.plot import _common
from jaxnn.plot._common import Labels, Numbers

_SIZE = 11.0  # of letters, in points
_GAP = 4.0  # between tokens, in points
_LINE = 1.9 * _SIZE


def tokens(
    texts: Labels,
    values: Num[ArrayLike, "n"],
    *,
    limit: float | None = None,
    width: float = 7.0,
    title: str = "",
    name: str = "attribution",
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Token attributions: draw text on a background of blue (positive) or red (negative) per token.

    Args:
        texts: n strings, the tokens in order.
        values: (n,), any finite numbers, one per token.
        limit: The value at which the color scale ends, above 0; by default the largest `|value|`.
        width: The largest of a line of text, in inches.
        title: The title.
        name: The name of the values: the label of the color bar.
        colorbar: Whether to draw a color bar.
        ax: The Axes to draw in, as wide as the longest line or the backgrounds do not fit the letters; by
            default those of a new figure of the size needed.

    Returns:
        The Axes.

    Raises:
        TypeError: `values` are not numbers, or `ax` is not an Axes.
        ValueError: They are not finite, the number of tokens does not fit, or `limit` or `width` is not
            above 0.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.tokens(["not", "bad", "at", "all"], [-0.5, 1.5, 0.0, 0.2])
        >>> [text.get_text() for text in ax.texts]
        ['not', 'bad', 'at', 'all']
        >>> plt.close(ax.figure)
    """
    numbers, labels, norm = _check(texts, values, limit)
    width = check_real("width", width, above=0)
    title, name = check_text("title", title), check_text("name", name)
    check_flag("colorbar", colorbar)
    places, longest, height = _places(labels, 72 * width)
    if ax is None:
        ax = plt.subplots(figsize=_size(longest, height, colorbar), layout="constrained")[1]
    ax = _common.check_axes("ax", ax)
    for label, number, (x, y, size) in zip(labels, numbers, places, strict=True):
        color, ink = _colors(norm, number)
        ax.add_patch(Rectangle((x, y - _LINE / 2), size, 0.8 * _LINE, color=color, linewidth=0))
        ax.text(
            x + size / 2, y - 0.1 * _LINE, label, color=ink, fontsize=_SIZE, ha="center",
            va="center_baseline", parse_math=False,
        )  # fmt: skip
    ax.set(xlim=(0, longest), ylim=(-height, _LINE / 2), aspect="equal", anchor="W")
    ax.set_axis_off()
    ax.set_title(title, fontsize=9, loc="left")
    if colorbar:
        bar = ax.figure.colorbar(ScalarMappable(norm, "RdBu"), ax=ax, extend=_extend(numbers, norm))
        bar.set_label(name)
    return ax


def tokens_html(
    texts: Labels, values: Num[ArrayLike, "n"], *, limit: float | None = None, title: str = ""
) -> str:
    """Token attributions as HTML: a paragraph with a colored background per token, without scripts.

    Args:
        texts: n strings, the tokens in order. They are escaped.
        values: (n,), any finite numbers, one per token; a tooltip shows each.
        limit: The value at which the color scale ends, above 0; by default the largest `|value|`.
        title: A heading in front of the text.

    Returns:
        The HTML.

    Raises:
        TypeError: `values` are not numbers.
        ValueError: They are not finite, the number of tokens does not fit, or `limit` is not above 0.

    Example:
        >>> from jaxnn import plot
        >>> text = plot.tokens_html(["a", "<b>"], [1.0, 0.0])
        >>> "&lt;b&gt;" in text, 'title="1"' in text
        (True, True)
    """
    numbers, labels, norm = _check(texts, values, limit)
    spans = []
    for label, number in zip(labels, numbers, strict=True):
        color, ink = _colors(norm, number)
        style = f"background:{color};color:{ink};padding:0.15em 0.25em;margin:0.1em;border-radius:0.2em"
        spans.append(
            f'<span style="{style};display:inline-block" title="{number:.3g}">{html.escape(label)}</span>'
        )
    heading = f"<strong>{html.escape(check_text('title', title))}</strong> " if title else ""
    return f'<p style="line-height:1.8">{heading}{"".join(spans)}</p>'


def _check(
    texts: Labels, values: Num[ArrayLike, "n"], limit: float | None
) -> tuple[Numbers, list[str], Normalize]:
    numbers = _common.check_numbers("values", values, "(n,)")
    labels = _common.check_labels("texts", texts, numbers.size)
    end = np.abs(numbers).max() or 1.0 if limit is None else check_real("limit", limit, above=0)
    return numbers, labels, Normalize(-end, end)


def _colors(norm: Normalize, number: float) -> tuple[str, str]:
    """The background, and black or white for letters on it."""
    color = plt.get_cmap("RdBu")(norm(number))
    luminance = float(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))
    return to_hex(color), "#000000" if luminance > 0.4 else "#ffffff"


def _extend(numbers: Numbers, norm: Normalize) -> str:
    return "both" if np.abs(numbers).max() > float(norm.vmax or 0) else "neither"


def figure_size(labels: Iterable[str], width: float = 7.0) -> tuple[float, float]:
    """Width and height in inches of a figure of these tokens with a color bar."""
    _, longest, height = _places(list(labels), 72 * width)
    return _size(longest, height, colorbar=True)


def _size(longest: float, height: float, colorbar: bool) -> tuple[float, float]:
    return longest / 72 + (1.2 if colorbar else 0.2), max(height / 72, 0.8 if colorbar else 0.3) + 0.4


def _places(labels: list[str], width: float) -> tuple[list[tuple[float, float, float]], float, float]:
    """Left edge, height and width of each token, the longest line, and the height of all; in points."""
    places, x, y, longest = [], 0.0, 0.0, 0.0
    for label in labels:
        size = _width(label)
        if x and x + size > width:
            x, y = 0.0, y - _LINE
        places.append((x, y, size))
        longest = max(longest, x + size)
        x += size + _GAP
    return places, longest, -y + _LINE / 2


def _width(label: str) -> float:
    """The width of a token in points, with a margin; a blank one has that of a letter."""
    if not label.strip():
        return _SIZE / 2 + _GAP
    try:
        path = TextPath((0, 0), label.replace("$", r"\$"), size=_SIZE)
        return float(path.get_extents().width) + _GAP
    except AttributeError:  # what matplotlib raises for letters without a shape, such as a space of no width
        return _SIZE / 2 + _GAP
