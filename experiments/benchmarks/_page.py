"""Insert measurements into a page of documentation, between its marks.

The text between `<!-- begin: NAME -->` and `<!-- end: NAME -->` is replaced; the text around them is
unchanged.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.benchmarks._case import OURS, Row, megabytes
from jaxnn._files import write_atomically


def fill(page: Path, parts: Mapping[str, str]) -> list[str]:
    """Write parts into a page by name; returns the names for which it has no marks."""
    text, missing = page.read_text(encoding="utf-8"), []
    for name, part in parts.items():
        before, after = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        start, end = text.find(before), text.find(after)
        if not 0 <= start < end:
            missing.append(name)
            continue
        text = f"{text[:start]}{before}\n\n{part}\n\n{text[end:]}"
    write_atomically(page, partial(Path.write_text, data=text, encoding="utf-8"))
    return missing


def tables(rows: Iterable[Row]) -> dict[str, str]:
    """The rows as Markdown, one table per heading."""
    by_table: dict[str, list[Row]] = {}
    for row in rows:
        by_table.setdefault(row["table"], []).append(row)
    return {name: _table(rows_) for name, rows_ in by_table.items()}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _table(rows: list[Row]) -> str:
    others = list(dict.fromkeys(name for row in rows for name in row["libraries"] if name != OURS))
    head = ["", "jaxnn", *(f"{name} / jaxnn" for name in others), "floor", "first calls", "memory, MB"]
    table = []
    for row in rows:
        cells = [row["row"], _time(row["libraries"][OURS]["seconds"])]
        cells += [_ratio(row["libraries"].get(name)) for name in others]
        cells.append(f"{_time(row['floor'])} ({_short(row['libraries'][OURS]['seconds'] / row['floor'])} x)")
        named = [(name, row["libraries"][name]) for name in (OURS, *others) if name in row["libraries"]]
        cells.append(", ".join(_time(each["first"]) for _, each in named))
        cells.append(", ".join(megabytes(each["memory"]) or "?" for _, each in named))
        table.append(cells)
    return markdown(head, table)


def _ratio(library: Mapping[str, Any] | None) -> str:
    if library is None:
        return ""
    low, middle, high = library["times_ours"]
    return f"**{_short(middle)}** ({_short(low)} to {_short(high)})"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{_short(seconds / size)} {unit}"
    raise AssertionError


def _short(number: float) -> str:
    """Format with two significant digits, or all before the decimal point."""
    if number <= 0 or not math.isfinite(number):
        return f"{number}"
    return f"{number:.{max(0, 1 - math.floor(math.log10(number)))}f}"
