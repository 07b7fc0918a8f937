"""Write what an experiment found; each file appears whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as a PNG file and close it."""
    _write(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    plt.close(figure)


def save_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Save numbers as a JSON file; one that is not finite is an error, as JSON has no word for it."""
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    _write(path, lambda temporary: temporary.write_text(text))


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
