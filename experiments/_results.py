"""Write what an experiment found; each file appears whole or not at all."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text


def save_results(
    output: Path,
    *,
    settings: Mapping[str, Any],
    tables: Sequence[Table],
    figures: Mapping[str, Figure],
    metrics: Mapping[str, Any],
    animations: Mapping[str, tuple[np.ndarray, str]] | None = None,
) -> None:
    """Print the tables, and write the pictures and a metrics.json that the page of all results is made from.

    Args:
        output: the folder.
        settings: what the experiment was run with.
        tables: for people, with titles.
        figures: by the names of their files, without ending. Each has a title, its text on the page.
        metrics: the numbers, for programs.
        animations: by the names of their files, `(frames, h, w)` of gray bytes, and a title.
    """
    console = Console()
    for table in tables:
        console.print(table)
    pictures = {}
    for name, figure in figures.items():
        title = figure.get_suptitle()
        if not title:
            raise ValueError(f"`figures` must have titles (suptitle); {name!r} has none")
        pictures[f"{name}.png"] = title
        save_figure(figure, output / f"{name}.png")
    for name, (frames, title) in (animations or {}).items():
        pictures[f"{name}.gif"] = title
        save_animation(frames, output / f"{name}.gif")
    found = {
        "settings": dict(settings),
        **metrics,
        "tables": [_cells(table) for table in tables],
        "pictures": pictures,
    }
    save_metrics(found, output / "metrics.json")
    console.print(f"The pictures and metrics.json are in {output}/")


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as a PNG file and close it."""
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    plt.close(figure)


def save_animation(frames: np.ndarray, path: Path) -> None:
    """Save frames `(n, h, w)` of gray bytes as a GIF file, ten a second, the last one held for two."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    durations = [100] * len(rest) + [2000]
    write_whole(
        path,
        lambda temporary: first.save(
            temporary, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0
        ),
    )


def save_metrics(metrics: Mapping[str, Any], path: Path) -> None:
    """Save numbers as a JSON file; one that is not finite is an error, as JSON has no word for it."""
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text))


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _cells(table: Table) -> dict[str, Any]:
    """A table's title, column names and rows as plain text."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return {
        "title": _plain(table.title or ""),
        "columns": [_plain(column.header) for column in table.columns],
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
