"""Where the outputs of a map go, batch by batch: arrays, or files with which the same call continues.

A folder has a file `0.npy`, `1.npy`, ... for each leaf of the outputs, and a record: the settings of the call
and the number of complete rows. Rows are on the disk before the record that counts them is moved into place.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn._files import write_atomically
from jaxnn._runs import changes, lock, other_run
from jaxnn._typing import PyTree

_RECORD = "record.json"
_MARKER = "outputs-of-map_examples"
_SECONDS = 1.0  # from one record to the next, at least: each waits for the disk


class Outputs(NamedTuple):
    """Outputs that are being written.

    Attributes:
        rows: number of rows that are complete already.
        write: `write(batch, rows)` adds the outputs of the next batch, up to a number of rows in all.
        result: `result() -> outputs`, when all are written.
    """

    rows: int
    write: Callable[[PyTree, int], None]
    result: Callable[[], PyTree]


@contextlib.contextmanager
def in_memory(count: int, outputs: PyTree | None) -> Iterator[Outputs]:
    """Outputs in arrays, or in new ones; an error carries the complete rows as `finished`."""
    complete = 0

    def write(batch: PyTree, rows: int) -> None:
        nonlocal outputs, complete
        if outputs is None:
            outputs = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), batch)

        def copy(output: np.ndarray, leaf: jax.Array) -> None:
            output[complete:rows] = np.asarray(leaf)[: rows - complete]

        jax.tree.map(copy, outputs, batch)
        complete = rows

    try:
        yield Outputs(0, write, lambda: outputs)
    except BaseException as error:
        if complete:
            error.finished = jax.tree.map(lambda leaf: leaf[:complete], outputs)  # type: ignore[attr-defined]
            error.add_note(
                f"The outputs of the first {complete} of {count} examples are in this error's `finished`"
            )
        raise


@contextlib.contextmanager
def in_files(path: str | os.PathLike[str], like: PyTree, settings: Mapping[str, Any]) -> Iterator[Outputs]:
    """Outputs in the files of a folder, after the rows that an interrupted call has left there.

    Args:
        path: of the folder.
        like: the shape and dtype of each output array.
        settings: what identifies the call, as a JSON object; its number of "examples" is that of rows.
    """
    folder, count = Path(path).absolute(), settings["examples"]
    _claim(folder)
    marker = lock(folder / _MARKER, "out", is_writable=os.access(folder, os.W_OK))
    with marker, contextlib.ExitStack() as stack:
        start = complete = recorded = _read_record(folder, settings)
        if start == 0:  # before the files: they are ours from now on
            _write_record(folder, settings, 0)
        leaves = enumerate(jax.tree.leaves(like))
        files = [stack.enter_context(_open(folder / f"{i}.npy", leaf, start)) for i, leaf in leaves]
        due = time.monotonic() + _SECONDS

        def record() -> None:
            nonlocal recorded, due
            for file in files:
                os.fsync(file.fileno())
            _write_record(folder, settings, complete)
            recorded, due = complete, time.monotonic() + _SECONDS

        def write(batch: PyTree, rows: int) -> None:
            nonlocal complete
            for file, leaf in zip(files, jax.tree.leaves(batch), strict=True):
                _write_all(file, np.asarray(leaf)[: rows - complete].tobytes())
            complete = rows
            if rows == count or time.monotonic() >= due:
                record()

        try:
            yield Outputs(start, write, lambda: _read(folder, like))
        except BaseException as error:
            with contextlib.suppress(OSError):  # of a full disk, which may be the error itself
                if recorded < complete:
                    record()
            error.add_note(f"{recorded} of {count} examples are in {folder}: the same call continues there")
            raise


def _claim(folder: Path) -> None:
    """Mark a folder as ours, or raise where it holds anything else."""
    if (folder / _MARKER).is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"`out` must be a folder that `map_examples` wrote, an empty one or not there yet; {folder} "
            + ("holds other files" if folder.is_dir() else "is a file")
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()


def _read_record(folder: Path, settings: Mapping[str, Any]) -> int:
    """The number of complete rows; 0 where there is no record. Raise where it is of another call."""
    path = folder / _RECORD
    if not path.is_file():
        return 0
    try:
        content = json.loads(path.read_bytes())
        digest, record = content["sha256"], content["record"]
        if digest != _digest(record):
            raise ValueError("another digest")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"`out` {folder} is damaged: {_RECORD} was altered. Delete the folder") from error
    for change in changes(record["settings"], settings).values():
        raise other_run("out", folder, change)
    rows: int = record["rows"]
    return rows


def _write_record(folder: Path, settings: Mapping[str, Any], rows: int) -> None:
    record = {"settings": settings, "rows": rows}
    content = json.dumps({"record": record, "sha256": _digest(record)}, indent=1)
    write_atomically(folder / _RECORD, partial(Path.write_text, data=content))


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _open(path: Path, leaf: Any, rows: int) -> io.FileIO:
    """The file of an array, to be written after its complete rows; raise where it has fewer."""
    header = _header(leaf)
    if rows == 0:
        file = path.open("wb", buffering=0)
        _write_all(file, header)
        return file
    end = len(header) + rows * math.prod(leaf.shape[1:]) * leaf.dtype.itemsize
    if path.is_file() and path.stat().st_size >= end:
        file = path.open("rb" if rows == leaf.shape[0] else "r+b", buffering=0)
        if file.read(len(header)) == header:
            file.seek(end)
            return file
        file.close()
    raise ValueError(f"`out` {path.parent} is damaged: {path.name} was cut off or altered. Delete the folder")


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Write all of it: a raw file may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _header(leaf: Any) -> bytes:
    """The start of a `.npy` file. A dtype that is not NumPy's own, such as bfloat16, is bytes in it."""
    dtype = leaf.dtype if leaf.dtype.isbuiltin == 1 else np.dtype(f"V{leaf.dtype.itemsize}")
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": leaf.shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def _read(folder: Path, like: PyTree) -> PyTree:
    """The arrays of the files as read-only memory maps."""
    leaves, structure = jax.tree.flatten(like)
    maps = [np.load(folder / f"{i}.npy", mmap_mode="r").view(leaf.dtype) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, maps)
