"""Atomic writes, and folders of one run: locked while it lasts, and refused to any other."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name in the same folder, then move into place."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(marker: Path, name: str) -> Iterator[None]:
    """Lock a folder by a file in it: a concurrent run would overwrite what this one writes.

    The lock belongs to the process, not to its children, and ends with it.

    Args:
        marker: the file.
        name: of the argument, for errors.
    """
    with marker.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(
                f"`{name}` must be a folder of one run at a time; another is using {marker.parent}"
            ) from error
        except (OSError, AttributeError):  # a file system, or a system, without locks
            pass
        yield


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
