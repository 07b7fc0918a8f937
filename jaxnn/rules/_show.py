"""How trees and rule lists are printed, and drawn in a notebook."""

import importlib.util
import io
from html import escape
from typing import Any


def measured(fidelity: float, accuracy: float | None) -> str:
    """The measures on held-out data, in words."""
    labels = "" if accuracy is None else f", accuracy {accuracy:.0%}"
    return f"fidelity {fidelity:.0%}{labels}, on held-out inputs"


def drawn(function: str, value: Any, text: str, **options: Any) -> str:
    """A picture by a function of `jaxnn.plot` as SVG; without Matplotlib, the text."""
    if importlib.util.find_spec("matplotlib") is None:
        return f"<pre>{escape(text)}</pre>"
    import matplotlib.pyplot as plt

    from jaxnn import plot

    file = io.StringIO()
    figure = getattr(plot, function)(value, **options).figure
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return file.getvalue().partition("<!DOCTYPE")[2].partition(">")[2]
