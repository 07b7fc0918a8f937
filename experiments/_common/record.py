"""Reading the results of an experiment, which may come from elsewhere: what is damaged is refused."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote


class Table(NamedTuple):
    """A table of texts."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Record(NamedTuple):
    """What `save_results` writes for the page of all results.

    Attributes:
        settings: the options of the run.
        tables: the tables.
        pictures: the titles of the pictures by their file names.
        pages: those of the pages.
    """

    settings: dict[str, Any]
    tables: list[Table]
    pictures: dict[str, str]
    pages: dict[str, str]


def read_record(folder: Path) -> Record:
    """Read the `metrics.json` of a folder.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is damaged.
    """
    content = (folder / "metrics.json").read_bytes()
    try:
        record = json.loads(content)
        tables = [Table(**table) for table in record.get("tables", [])]
        parts = (record.get(name, {}) for name in ("settings", "pictures", "pages"))
        settings, pictures, pages = (dict(part.items()) for part in parts)
        texts = [*pictures.values(), *pages.values()]
        for table in tables:
            texts += [table.title, *table.columns, *(cell for row in table.rows for cell in row)]
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"metrics.json is damaged: {error}") from error
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("metrics.json is damaged: a title or a cell of a table is no text")
    return Record(settings, tables, pictures, pages)


def file_inside(folder: Path, name: str) -> Path:
    """A file in a folder; raise a ValueError if it is none, or leads out of the folder."""
    root = folder.resolve()
    path = (root / name).resolve()
    if not (path.is_relative_to(root) and path.is_file()):
        raise ValueError(f"{name!r} is no file in {folder.name}/")
    return path


def address(folder: Path, name: str) -> str:
    """The address of a file in a folder, from a page beside the folder; raises as `file_inside`."""
    path = folder.name / file_inside(folder, name).relative_to(folder.resolve())
    return quote(os.fsencode(path.as_posix()))
