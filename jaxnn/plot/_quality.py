"""Explanation quality: deletion curves with the random band, randomized layers, and a table of metrics."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxnn._checks import check_text
from jaxnn.plot import _common
from jaxnn.plot._common import GRAY, PALETTE, Labels

_GOOD, _BAD, _UNKNOWN = "#BFE3D8", "#F5C6A5", "#EEEEEE"
_STYLES = ["-", "--", "-.", ":"]  # so that more lines than colors differ


def _check_named(name: str, found: Any, fields: Sequence[str]) -> dict[str, Any]:
    """Return results by the name of their method, or raise."""
    if not isinstance(found, Mapping):
        raise TypeError(f"`{name}` must be a mapping of names to results; got {type(found).__name__}")
    if not found:
        raise ValueError(f"`{name}` must hold at least one result; got none")
    for method, each in found.items():
        if not all(hasattr(each, field) for field in fields):
            raise TypeError(
                f"`{name}[{method!r}]` must be a result with {', '.join(fields)}; got {type(each).__name__}"
            )
    return {check_text(name, method): each for method, each in found.items()}


def _shown(name: str) -> str:
    """A name for a legend, which would leave out one that begins with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name


def _style(number: int) -> dict[str, Any]:
    colors = [color for color in PALETTE if color != "#F0E442"]  # yellow is too light for a line
    return {"color": colors[number % len(colors)], "ls": _STYLES[number // len(colors) % len(_STYLES)]}


def deletion_curves(
    curves: Mapping[str, Any],
    *,
    title: str = "",
    xlabel: str = "share of the features removed",
    ylabel: str = "output",
    ax: Axes | None = None,
) -> Axes:
    """Deletion curves: draw the output along the order of each method, and the band of random orders.

    The band is the mean of the random orders plus and minus one standard deviation, where they were asked
    for; random orders do not depend on the method, so that of the first curve is drawn.

    Args:
        curves: By the name of a method, a `jaxnn.quality.Curve` of one example, or its means over examples.
        title: The title.
        xlabel: The label of the horizontal axis.
        ylabel: The label of the vertical axis, with its unit.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `curves` is no mapping of curves, or `ax` is not an Axes.
        ValueError: There are no curves, or they are of several examples or not finite.

    Example:
        >>> import jax, matplotlib.pyplot as plt
        >>> from jaxnn import plot, quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1] + x[2]
        >>> options = {"steps": 3, "key": jax.random.key(0)}
        >>> curve = quality.deletion(model, [1.0] * 3, None, [4.0, 2.0, 1.0], **options)
        >>> ax = plot.deletion_curves({"exact": curve})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['exact (area 2.5)', 'random orders (area 3.3)']
        >>> plt.close(ax.figure)
    """
    named = _check_named("curves", curves, ("fractions", "outputs", "area", "random_outputs"))
    texts = {"title": title, "xlabel": xlabel, "ylabel": ylabel}
    texts = {key: check_text(key, text) for key, text in texts.items()}
    ax = _common.axes_or_new(ax, figsize=(5.6, 3.6))
    for number, (name, curve) in enumerate(named.items()):
        x = _common.check_numbers("fractions", curve.fractions, "(steps + 1,)")
        y = _common.check_numbers("outputs", curve.outputs, "(steps + 1,)", size=x.size)
        ax.plot(x, y, label=f"{_shown(name)} (area {float(curve.area):.3g})", **_style(number))
    first = next(iter(named.values()))
    middle = np.asarray(first.random_outputs, np.float64)
    if np.isfinite(middle).all():
        x, band = np.asarray(first.fractions, float), np.asarray(first.random_outputs_std, np.float64)
        label = f"random orders (area {float(first.random_mean):.3g})"
        ax.fill_between(x, middle - band, middle + band, color=GRAY, alpha=0.5, lw=0)
        ax.plot(x, middle, color="#666666", lw=1, label=label)
    ax.set(**texts)
    ax.legend(fontsize="small")
    return ax


def randomization(
    results: Mapping[str, Any],
    steps: Labels = None,
    *,
    measure: str = "rank_correlation",
    title: str = "",
    xlabel: str = "parameters drawn again, from the last layer down",
    ax: Axes | None = None,
) -> Axes:
    """Randomized parameters: draw how alike a method's attributions stay, layer by layer.

    A line per method, with the standard error over the examples, of the mean over the seeds of each. The
    dotted line in its color is its yardstick: the similarity for two different inputs. A method that depends
    on the parameters falls to it.

    Args:
        results: By the name of a method, a `jaxnn.quality.ParameterRandomization`.
        steps: The name of each step, such as `jaxnn.quality.parameter_layers(model, x)[::-1]`; by default
            "step 1", ....
        measure: "rank_correlation" or "ssim".
        title: The title.
        xlabel: The label of the horizontal axis.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `results` is no mapping of results, or `ax` is not an Axes.
        ValueError: There are none, or their shapes or the number of names do not fit, or another measure.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn, matplotlib.pyplot as plt
        >>> from jaxnn import attribution, plot, quality
        >>> network = jaxnn.init(jax.random.key(0), (20, 5, 3))
        >>> x, y = jax.random.uniform(jax.random.key(1), (4, 20)), jnp.array([0, 1, 2, 0])
        >>> options = {"key": jax.random.key(2)}
        >>> found = quality.parameter_randomization(network, x, y, attribution.saliency, **options)
        >>> ax = plot.randomization({"saliency": found}, ["output", "hidden"])
        >>> [text.get_text() for text in ax.get_xticklabels()]
        ['none', 'output', 'hidden']
        >>> plt.close(ax.figure)
    """
    if measure not in ("rank_correlation", "ssim"):
        raise ValueError(f"`measure` must be one of 'rank_correlation', 'ssim'; got {measure!r}")
    fields = ("rank_correlation", "ssim", "yardstick", "yardstick_ssim")
    named = _check_named("results", results, fields)
    title, xlabel = check_text("title", title), check_text("xlabel", xlabel)
    count = np.shape(next(iter(named.values())).rank_correlation)[0]
    labels = _common.check_labels("steps", steps, count, "step {}")
    ax = _common.axes_or_new(ax, figsize=(max(4.0, 1.2 + 1.1 * count), 3.6))
    places = np.arange(count + 1)
    for number, (name, found) in enumerate(named.items()):
        values = np.asarray(getattr(found, measure), np.float64)
        if values.ndim != 3 or len(values) != count:
            raise ValueError(f"`results` must have shape ({count}, seeds, N); got {values.shape} of {name!r}")
        by_example = np.nanmean(values, axis=1) if np.isfinite(values).any() else values[:, 0]
        mean = np.append(1, np.nanmean(by_example, axis=1)) if np.isfinite(by_example).any() else None
        if mean is None:
            raise ValueError(f"`results` must have finite values of {measure!r}; {name!r} has none")
        error = np.append(0, np.nanstd(by_example, axis=1) / np.sqrt(by_example.shape[1]))
        style = _style(number)
        ax.errorbar(places, mean, error, label=_shown(name), marker="o", ms=4, capsize=2, **style)
        yardstick = found.yardstick if measure == "rank_correlation" else found.yardstick_ssim
        ax.axhline(float(np.nanmean(np.asarray(yardstick))), color=style["color"], ls=":", lw=1)
    ax.set_xticks(places, ["none", *labels])
    if max(map(len, labels)) > 8:
        plt.setp(ax.get_xticklabels(), rotation=20, ha="right")
    ylabel = "rank correlation" if measure == "rank_correlation" else "structural similarity"
    ax.set(title=title, xlabel=xlabel, ylabel=f"{ylabel} with the trained network")
    ax.axhline(0, color="black", lw=0.5)
    ax.legend(fontsize="small", title="dotted: two different inputs", title_fontsize="small")
    return ax


def quality_table(found: Any, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Quality table: draw the verdicts of a report, a row per method and a column per claim.

    Green and "yes" where the claim holds, orange and "no" where it does not, with the number.

    Args:
        found: The result of `jaxnn.quality.report`.
        title: The title.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: `found` is no report, or `ax` is not an Axes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn, matplotlib.pyplot as plt
        >>> from jaxnn import attribution, plot, quality
        >>> network = jaxnn.init(jax.random.key(0), (6, 5, 3))
        >>> x, y = jax.random.uniform(jax.random.key(1), (3, 6)), jnp.array([0, 1, 2])
        >>> methods = {"saliency": attribution.saliency}
        >>> ax = plot.quality_table(quality.report(network, x, y, methods, key=jax.random.key(2)))
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['saliency']
        >>> plt.close(ax.figure)
    """
    used = _used(found)
    claims = list(next(iter(used.values())).verdicts)
    size = (1.4 * len(claims) + 2.0, 0.42 * len(used) + 0.9)
    ax = _common.axes_or_new(ax, figsize=size)
    title = check_text("title", title)
    colors = {True: _GOOD, False: _BAD, None: _UNKNOWN}
    words = {True: "yes", False: "no", None: "-"}
    for row, part in enumerate(used.values()):
        for column, verdict in enumerate(part.verdicts.values()):
            rectangle = Rectangle((column, row), 1, 1, fc=colors[verdict.passed], ec="white", lw=2)
            ax.add_patch(rectangle)
            value = f" ({verdict.value:.2g})" if np.isfinite(verdict.value) else ""
            text = words[verdict.passed] + _common.true_minus(value)
            ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize="small")
    ax.set(xlim=(0, len(claims)), ylim=(len(used), 0), title=title)
    ax.set_xticks(np.arange(len(claims)) + 0.5, [claim.replace(" ", "\n", 1) for claim in claims])
    ax.set_yticks(np.arange(len(used)) + 0.5, list(used))
    ax.tick_params(length=0, labelsize="small")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _used(found: Any) -> dict[str, Any]:
    """The methods of a report that did not refuse the model, or raise."""
    if not hasattr(found, "methods") or not hasattr(found, "metrics"):
        raise TypeError(f"`found` must be the result of jaxnn.quality.report; got {type(found).__name__}")
    return {name: part for name, part in found.methods.items() if not part.refused}


def figure(found: Any) -> Figure:
    """All parts of a report: the verdicts, the curves, and the randomized layers."""
    used = _used(found)
    results = {
        name: part.randomization
        for name, part in used.items()
        if part.randomization is not None and np.isfinite(part.randomization.rank_correlation).any()
    }
    is_randomized = bool(results)
    rows = 3 if is_randomized else 2
    heights = [0.42 * len(used) + 0.9, 4.0, 4.0][:rows]
    drawn, axes = plt.subplots(
        rows, 1, figsize=(8.5, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    quality_table(found, title=f"Can it be trusted? {found.n_examples} examples", ax=axes[0, 0])
    curves = {
        name: part.curves["deletion"]
        for name, part in used.items()
        if np.isfinite(part.curves["deletion"].outputs).all()
    }
    deletion_curves(curves, title="Deletion: the lower, the better", ax=axes[1, 0])
    if is_randomized:
        randomization(results, found.steps, title="Do the attributions depend on the weights?", ax=axes[2, 0])
    for ax in axes[1:, 0]:
        legend = ax.get_legend()
        title = legend.get_title().get_text()
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", title=title)
    return drawn


def page(found: Any) -> str:
    """One page of HTML: the verdicts, the figure, and every metric, with what failed in red."""
    shown, file = figure(found), io.BytesIO()
    shown.savefig(file, format="png", dpi=110)
    plt.close(shown)
    data = base64.b64encode(file.getvalue()).decode()
    used = _used(found)
    claims = list(next(iter(used.values())).verdicts)
    title = f"Quality of {len(found.methods)} methods on {found.n_examples} examples"
    verdicts = [_row("th", ["method", *claims])]
    for name, part in found.methods.items():
        if part.refused:
            verdicts.append(_row("td", [name, f"refused: {part.refused.splitlines()[0]}"]))
            continue
        marks = {True: "good", False: "bad", None: ""}
        words = {True: "yes", False: "NO", None: "-"}
        cells = [(f"{words[v.passed]}: {v.text}", marks[v.passed]) for v in part.verdicts.values()]
        verdicts.append(_row("td", [name, *cells]))
    metrics = [_row("th", ["metric", *used])]
    for metric in found.metrics:
        means = [found.mean(name, metric) for name in used]
        metrics.append(_row("td", [metric, *(f"{mean:.3g} ± {error:.1g}" for mean, error in means)]))
    style = (
        "body{font-family:sans-serif;max-width:75em;margin:1em auto;padding:0 .5em}"
        "table{border-collapse:collapse;display:block;overflow-x:auto;margin:1em 0}"
        "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;font-size:.85em}"
        ".bad{background:#f9d6d5;color:#8b0000;font-weight:bold}.good{background:#e2f2ec}"
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head><body>'
        f'<h1 style="font-size:1.3em">{title}</h1><table>{"".join(verdicts)}</table>'
        f'<img alt="{title}" style="max-width:100%" src="data:image/png;base64,{data}">'
        f"<h2>Mean over the examples, and its standard error</h2><table>{''.join(metrics)}</table>"
        "</body></html>"
    )


def _row(tag: str, cells: Sequence[str | tuple[str, str]]) -> str:
    texts = []
    for cell in cells:
        text, mark = cell if isinstance(cell, tuple) else (cell, "")
        texts.append(f"<{tag}{f' class={mark}' if mark else ''}>{html.escape(text)}</{tag}>")
    return f"<tr>{''.join(texts)}</tr>"
