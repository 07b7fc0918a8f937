"""Folders of one run: locked while it lasts, and refused to any other."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_ACTIVE: set[Path] = set()  # folders of runs in this process, whose threads share its lock on a file
_GUARD = threading.Lock()


@contextlib.contextmanager
def lock(marker: Path, name: str, *, is_writable: bool = True) -> Iterator[BinaryIO]:
    """Open and lock a file in a folder: a concurrent run would overwrite what this one writes.

    The lock of a file belongs to the process, not to its children, and ends with it, or when the process
    closes any handle of the file.

    Args:
        marker: the file.
        name: of the argument, for errors.
        is_writable: whether the file may be written to; otherwise many may read.
    """
    refused = ValueError(f"`{name}` must be a folder of one run at a time; another is using {marker.parent}")
    place = marker.parent.resolve()
    with _GUARD:
        if place in _ACTIVE:
            raise refused
        _ACTIVE.add(place)
    try:
        with marker.open("a+b" if is_writable else "rb") as file:
            try:
                fcntl.lockf(file, (fcntl.LOCK_EX if is_writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise refused from error
            except (OSError, AttributeError):  # a file system, or a system, without locks
                pass
            yield file
    finally:
        _ACTIVE.discard(place)


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The settings by which two runs differ, as JSON holds them, each with what it was and is."""
    now = json.loads(json.dumps(now))  # tuples become lists, as in a record
    return {
        name: f"its {name} was {_short(then.get(name))}, and is {_short(now.get(name))} now"
        for name in {**now, **then}
        if then.get(name) != now.get(name)
    }


def other_run(name: str, folder: Path, change: str) -> ValueError:
    """The error for a folder of another run, which differs by a change."""
    return ValueError(f"`{name}` {folder} is of another run: {change}. Take another folder, or delete it")


def shapes(tree: Any) -> list[Any]:
    """The path, shape and dtype of each array of a pytree, for the settings of a run."""
    paths = jax.tree.leaves_with_path(tree)
    return [[jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype)] for path, leaf in paths]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
