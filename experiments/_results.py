"""Write what an experiment found; each file appears whole or not at all."""

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text


def make_folder(output: Path) -> None:
    """Make the folder of results, or end the program with a sentence where it cannot be had or written to."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        told = f"`output` must be a folder that can be made and written to; {output} is not: {error.strerror}"
        raise SystemExit(told) from error


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
    """Print the tables, and write the pictures and a metrics.json that the page of all results is made from.

    Args:
        output: the folder.
        settings: what the experiment was run with.
        tables: for people, with titles.
        figures: by the names of their files, without ending. Each has a title, its text on the page.
        metrics: the numbers, for programs.
        animations: by the names of their files, `(frames, h, w)` of gray bytes, and a title.
        pages: by the names of their files, a title and the HTML.

    Raises:
        ValueError: a figure has no title, or a number is not finite; then nothing is written.
    """
    titles = {name: figure.get_suptitle() for name, figure in figures.items()}
    if untitled := [name for name, title in titles.items() if not title]:
        raise ValueError(f"`figures` must have titles (suptitle); {untitled[0]!r} has none")
    if bad := next(_not_finite(metrics), None):
        hint = "; a smaller `rate` may help" if "rate" in settings else ""
        raise ValueError(f"`metrics` must be finite numbers; {bad[0]} is {bad[1]}{hint}")
    moving, pages = animations or {}, pages or {}
    pictures = {f"{name}.png": title for name, title in titles.items()}
    pictures |= {f"{name}.gif": title for name, (_, title) in moving.items()}
    found = {
        "settings": dict(settings),
        **metrics,
        "tables": [_cells(table) for table in tables],
        "pictures": pictures,
        "pages": {f"{name}.html": title for name, (title, _) in pages.items()},
    }
    text = _json(found)
    console = Console()
    for table in tables:
        console.print(table)
    # New pictures never stand beside old numbers: those go first, and the new ones come last.
    (output / "metrics.json").unlink(missing_ok=True)
    for name, figure in figures.items():
        save_figure(figure, output / f"{name}.png")
    for name, (frames, _) in moving.items():
        save_animation(frames, output / f"{name}.gif")
    for name, (_, html) in pages.items():
        write_whole(output / f"{name}.html", partial(Path.write_text, data=html, encoding="utf-8"))
    write_whole(output / "metrics.json", lambda path: path.write_text(text))
    for name in pages:
        console.print(f"Open {output}/{name}.html in a browser", markup=False)
    found_in = "The pictures and metrics.json are" if pictures else "The numbers are"
    console.print(f"{found_in} in {output}/", markup=False)


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
    text = _json(metrics)
    write_whole(path, lambda temporary: temporary.write_text(text))


def _json(metrics: Mapping[str, Any]) -> str:
    return json.dumps(metrics, indent=2, allow_nan=False) + "\n"


def _not_finite(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Where a number is not finite, such as `accuracy.worst[3]`, and what it is."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _not_finite(part, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield name, value


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sizes_of(sizes: Iterable[Any]) -> str:
    """The sizes of layers as people write them, such as "784-30-10"."""
    return "-".join(map(str, sizes))


def true_minus(number: str) -> str:
    """A number with a true minus for its hyphen."""
    return number.replace("-", "\u2212")


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
