"""Writing the results of an experiment; each file is written atomically."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from experiments._common.options import printable
from jaxnn._files import write_atomically


class Results(NamedTuple):
    """The tables, figures and metrics of one part of an experiment."""

    tables: list[Table]
    figures: dict[str, Figure]
    metrics: dict[str, Any]


def save_results(
    output: Path,
    *,
    settings: Mapping[str, Any],
    tables: Sequence[Table],
    figures: Mapping[str, Figure],
    metrics: Mapping[str, Any],
    animations: Mapping[str, tuple[np.ndarray, str]] | None = None,
    pages: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Print the tables; write the pictures, and a metrics.json from which the page of all results is built.

    Args:
        output: the folder.
        settings: the options of this run.
        tables: tables with titles, for people.
        figures: figures by file name, without suffix. Each has a title, its caption on the page.
        metrics: numbers, for programs.
        animations: by file name, frames `(n, h, w)` of gray bytes, and a title.
        pages: by file name, a title and the HTML.

    Raises:
        ValueError: If a figure has no title, or a number is not finite; then nothing is written.
    """
    titles = {name: figure.get_suptitle() for name, figure in figures.items()}
    if untitled := [name for name, title in titles.items() if not title]:
        raise ValueError(f"`figures` must have titles (suptitle); {untitled[0]!r} has none")
    if bad := next(_not_finite(metrics), None):
        hint = "; a smaller `rate` may help" if "rate" in settings else ""
        raise ValueError(f"`metrics` must be finite numbers; {bad[0]} is {bad[1]}{hint}")
    animations, pages = animations or {}, pages or {}
    pictures = {f"{name}.png": title for name, title in titles.items()}
    pictures |= {f"{name}.gif": title for name, (_, title) in animations.items()}
    record = {
        "settings": dict(settings),
        **metrics,
        "tables": [_cells(table) for table in tables],
        "pictures": pictures,
        "pages": {f"{name}.html": title for name, (title, _) in pages.items()},
    }
    text = _json(record)
    console = Console()
    for table in tables:
        console.print(table)
    output.mkdir(parents=True, exist_ok=True)
    # Old numbers are deleted first and new ones written last: new pictures never stand beside old numbers.
    (output / "metrics.json").unlink(missing_ok=True)
    for name, figure in figures.items():
        save_figure(figure, output / f"{name}.png")
    for name, (frames, _) in animations.items():
        save_animation(frames, output / f"{name}.gif")
    for name, (_, html) in pages.items():
        write_atomically(output / f"{name}.html", partial(Path.write_text, data=html, encoding="utf-8"))
    write_atomically(output / "metrics.json", lambda path: path.write_text(text))
    for name in pages:
        console.print(f"Open {printable(output)}/{name}.html in a browser", markup=False)
    written = "The pictures and metrics.json are" if pictures else "The numbers are"
    console.print(f"{written} in {printable(output)}/", markup=False)


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as a PNG file and close it."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    plt.close(figure)


def save_animation(frames: np.ndarray, path: Path) -> None:
    """Save frames `(n, h, w)` of gray bytes as a GIF file: ten per second, the last one for two seconds."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    durations = [100] * len(rest) + [2000]
    write_atomically(
        path,
        lambda temporary: first.save(
            temporary, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0
        ),
    )


def save_metrics(metrics: Mapping[str, Any], path: Path) -> None:
    """Save numbers as a JSON file; raises a ValueError if one is not finite, as JSON cannot express it."""
    text = _json(metrics)
    write_atomically(path, lambda temporary: temporary.write_text(text))


def _json(metrics: Mapping[str, Any]) -> str:
    return json.dumps(metrics, indent=2, allow_nan=False) + "\n"


def _not_finite(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The paths of numbers that are not finite, such as `accuracy.worst[3]`, with their values."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _not_finite(part, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield name, value


def _cells(table: Table) -> dict[str, Any]:
    """The title, the column names and the rows of a table as plain text."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return {
        "title": _plain(table.title or ""),
        "columns": [_plain(column.header) for column in table.columns],
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
