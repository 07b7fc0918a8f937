"""What several methods say of one prediction, as one figure and as one page."""

import base64
import html
import io
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from jaxnn.plot._attribution import attribution, feature_bars
from jaxnn.plot._series import series
from jaxnn.plot._tokens import figure_size, tokens, tokens_html

_BARS = 12


def explanation(found: Any) -> Figure:
    """Explanation: draw what each method says, side by side.

    An image or a series is a map per method, with the input beneath; a table's row is a bar chart of the
    twelve largest features; tokens are lines of text. Methods that refused the model are left out.

    Args:
        found: The result of `jaxnn.explain`.

    Returns:
        The figure.

    Raises:
        TypeError: `found` is no explanation.
        ValueError: All methods refused the model.

    Example:
        >>> import jax, jaxnn, matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> network = jaxnn.init(jax.random.key(0), (4, 8, 3))
        >>> figure = plot.explanation(jaxnn.explain(network, [0.1, 0.9, 0.4, 0.3]))
        >>> [ax.get_title() for ax in figure.axes][:2]
        ['integrated_gradients', 'deep_lift']
        >>> plt.close(figure)
    """
    if not hasattr(found, "parts"):
        raise TypeError(f"`found` must be the result of jaxnn.explain; got {type(found).__name__}")
    methods = [name for name, part in found.parts.items() if part.attributions is not None]
    if not methods:
        raise ValueError("`found` must have attributions; all methods refused the model")
    rows, columns = (len(methods), 1) if found.kind == "tokens" else (1, len(methods))
    size = (3.4 * columns, 3.6)
    if found.kind == "tokens":
        width, height = figure_size(found.names)
        size = (width, height * rows + 0.3)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for name, ax in zip(methods, grid.flat, strict=True):
        _draw(found, name, ax)
    figure.suptitle(_title(found))
    return figure


def _draw(found: Any, name: str, ax: Any) -> None:
    values = found.values(name)
    if found.kind == "tokens":
        tokens(found.names, values, title=name, ax=ax)
    elif found.kind == "table":
        feature_bars(values, found.names, k=min(_BARS, values.size), title=name, ax=ax)
    elif found.kind == "image":
        attribution(values, image=found.shown(), title=name, ax=ax)
    else:
        series(values, series=found.shown(), title=name, ax=ax)


def _title(found: Any) -> str:
    target = "output" if found.target is None else f"output {found.shown_target()}"
    return f"{target}: {found.baseline_output:.3g} at the baseline, {found.output:.3g} for this input"


def page(found: Any) -> str:
    """One page of HTML: the figure, or colored text, and the tables."""
    title = html.escape(_title(found))
    if found.kind == "tokens":
        shown = "".join(
            tokens_html(found.names, found.values(name), title=name)
            for name, part in found.parts.items()
            if part.attributions is not None
        )
    else:
        figure, file = explanation(found), io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        plt.close(figure)
        data = base64.b64encode(file.getvalue()).decode()
        shown = f'<img alt="{title}" style="max-width:100%" src="data:image/png;base64,{data}">'
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f'<body style="font-family:sans-serif;max-width:75em;margin:1em auto">'
        f'<h1 style="font-size:1.2em">{title}</h1>{shown}<pre>{html.escape(str(found))}</pre></body></html>'
    )
