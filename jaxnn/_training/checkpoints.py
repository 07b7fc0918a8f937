"""Checkpoints of training, by Orbax: a run continues from the last complete one.

A marker file holds a random number, the run. A checkpoint is written to the folder `unfinished-RUN`, sealed
with a record, the number of the run, its name and the SHA-256 of every file, and then moved to that name.
Folders with such a seal and the unfinished one are of this run; others are never read, and never deleted.
The same call continues; another is refused. A checkpoint that differs from its seal is damaged, and deleted.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._files import write_atomically
from jaxnn._keys import key_data, key_impl, wrap_key
from jaxnn._runs import lock
from jaxnn._training.history import History, stack_history, unstack_history
from jaxnn._training.identity import check_same
from jaxnn._training.steps import State, Sums
from jaxnn._typing import PyTree

_MAX_TO_KEEP = 2  # the last one, and the one before it
_MARKER, _SEAL, _ARRAYS = "checkpoints-of-jaxnn", "seal.json", "arrays"
_FORMAT = "jaxnn checkpoints 3"
_LIKE_ONE = re.compile(r"(checkpoint|unfinished)-.*|\d+|.*\.orbax-checkpoint-tmp.*", re.DOTALL)  # a name


class RunState(NamedTuple):
    """The state of a run between two calls of the compiled steps.

    Attributes:
        epoch: number of complete epochs.
        steps_in_epoch: number of steps taken in the epoch after them.
        steps: number of steps taken in all.
        epoch_start: the state at the end of the last complete epoch.
        current: the state now; None between two epochs, where it is `epoch_start`.
        sums: of the steps taken in this epoch; None between two.
        history: the records of the complete epochs.
    """

    epoch: int
    steps_in_epoch: int
    steps: int
    epoch_start: State
    current: State | None
    sums: Sums | None
    history: list[History]


class Folder(NamedTuple):
    """A folder of checkpoints, locked for a run.

    Attributes:
        path: of the folder.
        run: the number of the run.
        is_writable: whether it may be written to; the result of a finished run can be read from any.
    """

    path: Path
    run: str
    is_writable: bool

    @property
    def unfinished(self) -> Path:
        """Where a checkpoint is written, and moved to when it is deleted."""
        return self.path / f"unfinished-{self.run}"


class Checkpoint(NamedTuple):
    """A checkpoint of this run: its path, its record, and the SHA-256 of its files."""

    path: Path
    record: dict[str, Any]
    files: dict[str, str]

    @property
    def number(self) -> int:
        """The end of an epoch counts, too: it comes after the last of its steps."""
        return self.record["steps"] + self.record["epoch"]


@contextlib.contextmanager
def checkpoints(path: str | os.PathLike[str] | None) -> Iterator[Folder | None]:
    """A folder of checkpoints, locked; None for no path."""
    if path is None:
        yield None
        return
    folder = Path(path).absolute()
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"`checkpoint` must be a folder, or not there yet; {folder} is a file")
    if jax.process_index() > 0:
        yield Folder(folder, _share("0" * 32), os.access(folder, os.W_OK))
        return
    with _lock(folder) as marker:
        run = _share(_run_of(marker))
        yield Folder(folder, run, os.access(folder, os.W_OK))


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[BinaryIO]:
    """Create and lock the marker file: a concurrent run would delete checkpoints that are being written."""
    marker = folder / _MARKER
    _refuse_old(folder)
    is_new = not marker.exists()
    if is_new:
        folder.mkdir(parents=True, exist_ok=True)
    with lock(marker, "checkpoint", is_writable=is_new or os.access(folder, os.W_OK)) as file:
        yield file


def _refuse_old(folder: Path) -> None:
    """Raise for a folder that an older version wrote: its marker file is empty, if there is one."""
    marker = folder / _MARKER
    if marker.is_file() and marker.stat().st_size:
        return
    for path in sorted(folder.glob(f"*/{_SEAL}")):
        if path.parent.name.isdigit() and "record" in _read_seal(path.parent):
            raise ValueError(
                f"`checkpoint` must be a folder of `train`'s checkpoints, an empty one or not there yet; "
                f"{path.parent} is of jaxnn 0.1, which this version does not continue. Take another folder"
            )


def _run_of(marker: BinaryIO) -> str:
    """The number of the run in a marker file; a new one is written to an empty file."""
    marker.seek(0)
    text = marker.read()
    if not text and marker.writable():
        text = f"{_FORMAT} {uuid.uuid4().hex}\n".encode()
        marker.write(text)
        marker.flush()
        os.fsync(marker.fileno())
    found = re.fullmatch(rf"{_FORMAT} ([0-9a-f]{{32}})\n", text.decode(errors="replace"))
    if not found:
        raise ValueError(
            f"`checkpoint` must be a folder of `train`'s checkpoints, an empty one or not there yet; "
            f"{marker.name} is damaged, or not of this version"
        )
    return found[1]


def _share(run: str) -> str:
    """The number of the run on the first process, on all of them."""
    if jax.process_count() == 1:
        return run
    from jax.experimental import multihost_utils

    numbers = multihost_utils.broadcast_one_to_all(
        np.frombuffer(bytes.fromhex(run), np.uint8).astype(np.int32)
    )
    return np.asarray(numbers).astype(np.uint8).tobytes().hex()


def store(folder: Folder, run_state: RunState, settings: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before the last is deleted once it is complete."""
    import orbax.checkpoint as ocp  # here, as it takes a second

    history = stack_history(run_state.history) if run_state.history else None
    arrays = _flatten((run_state.epoch_start, run_state.current, run_state.sums, history))
    # Not in the background: the arrays are donated to the next step, which overwrites them.
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(folder.unfinished / _ARRAYS, args=ocp.args.StandardSave(arrays))
    if jax.process_index() > 0:
        return
    record = {
        "settings": settings,
        "epoch": run_state.epoch,
        "steps_in_epoch": run_state.steps_in_epoch,
        "steps": run_state.steps,
        "dtypes": jax.tree.map(lambda leaf: str(leaf.dtype), (run_state.sums, history)),
    }
    number = run_state.steps + run_state.epoch
    path = folder.path / f"checkpoint-{number:09}-{uuid.uuid4().hex[:8]}"
    seal = {"run": folder.run, "name": path.name, "record": record, "files": _digests(folder.unfinished)}
    content = json.dumps(seal, sort_keys=True)
    content = f"{_digest(content.encode())}\n{content}"
    write_atomically(folder.unfinished / _SEAL, partial(Path.write_text, data=content))
    folder.unfinished.rename(path)
    # One that the run comes to again was passed over, and left there.
    older = [one for one in _own(folder) if one.number < number]
    for one in older[_MAX_TO_KEEP - 1 :]:
        _remove(folder, one)


def restore(folder: Folder | None, start: State, settings: Mapping[str, Any], epochs: int) -> RunState:
    """The run at its last complete checkpoint; the start of a new run, where there is none.

    Args:
        folder: of the checkpoints; None for none.
        start: the initial state.
        settings: of this run, as a JSON object.
        epochs: number of epochs of this run.

    Raises:
        ValueError: the checkpoint is of a run with other settings, or of more epochs; or the run is not
            finished, and nothing can be written.

    Warns:
        RuntimeWarning: a checkpoint is damaged, and passed over; or a folder looks like one, and is not.
    """
    run_state = RunState(0, 0, 0, start, None, None, [])
    if folder is None:
        return run_state
    own = _own(folder)
    if others := _others(folder, own):
        text = f"{folder.path} holds {others} without a seal of this run: passed over, and left there"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    if folder.unfinished.exists():
        text = f"the checkpoint {folder.unfinished} was passed over: it is unfinished"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
        _delete(folder)
    for place, one in enumerate(own):
        if reason := _agree(_damage(one)):
            text = f"the checkpoint {one.path} was passed over: {reason}"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
            _remove(folder, one)
            continue
        check_same(folder.path, one.record["settings"], settings)
        if one.record["epoch"] > epochs:
            raise ValueError(
                f"`epochs` must be at least {one.record['epoch']}, as many as the checkpoint has gone; "
                f"got {epochs}"
            )
        run_state = _restore(one, start)
        older = [other for other in own[place:] if other.number < one.number]
        for other in older[_MAX_TO_KEEP - 1 :]:  # the run was killed before it deleted them
            _remove(folder, other)
        break
    if run_state.epoch < epochs and not folder.is_writable:
        raise ValueError(
            f"`checkpoint` must be a folder that can be written to, as {run_state.epoch} of {epochs} epochs "
            f"are done; {folder.path} is read-only"
        )
    return run_state


def _own(folder: Folder) -> list[Checkpoint]:
    """The checkpoints of this run, the newest first: they hold its seal under the name that it gave them."""
    own = []
    for path in folder.path.glob("checkpoint-*"):
        seal = _read_seal(path)
        if (seal.get("run"), seal.get("name")) == (folder.run, path.name) and not path.is_symlink():
            own.append(Checkpoint(path, seal["record"], seal["files"]))
    return sorted(own, key=lambda one: one.number, reverse=True)


def _others(folder: Folder, own: list[Checkpoint]) -> str:
    """The names of what looks like a checkpoint and is none of this run; empty if there are none."""
    known = {folder.unfinished, *(one.path for one in own)}
    names = sorted(p.name for p in folder.path.iterdir() if _LIKE_ONE.fullmatch(p.name) and p not in known)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _remove(folder: Folder, one: Checkpoint) -> None:
    """Delete a checkpoint of this run; one to which others added files is left there."""
    if others := sorted(_files(one.path) - one.files.keys()):
        text = f"the checkpoint {one.path} is left there: it holds {others[0]}, which `train` did not write"
        warnings.warn(text, RuntimeWarning, stacklevel=4)
    elif jax.process_index() == 0 and folder.is_writable:
        one.path.rename(folder.unfinished)  # if the run is killed now, no half of a checkpoint is left
        _delete(folder)


def _delete(folder: Folder) -> None:
    """Delete the unfinished checkpoint."""
    if jax.process_index() == 0 and folder.is_writable:
        shutil.rmtree(folder.unfinished)


def _read_seal(folder: Path) -> dict[str, Any]:
    """The seal of a folder; empty where there is none, or a damaged one."""
    seal = folder / _SEAL
    if not seal.is_file() or not os.access(seal, os.R_OK):
        return {}
    digest, _, content = seal.read_bytes().partition(b"\n")
    return json.loads(content) if digest == _digest(content).encode() else {}


def _damage(one: Checkpoint) -> str:
    """How the files of a checkpoint differ from its seal; empty if they do not."""
    digests = _digests(one.path)
    for name, expected in one.files.items():
        if digests.get(name) != expected:
            return f"its file {name} is {'damaged' if name in digests else 'missing'}"
    return ""


def _agree(damage: str) -> str:
    """Why all processes pass over a checkpoint, if any of them does; empty if none does."""
    if jax.process_count() == 1:
        return damage
    from jax.experimental import multihost_utils

    any_damage = multihost_utils.process_allgather(jnp.array(bool(damage))).any()
    return damage or ("another process found it damaged" if any_damage else "")


def _restore(one: Checkpoint, start: State) -> RunState:
    import orbax.checkpoint as ocp

    def like(kind: Any, dtypes: list[str | None] | None, shape: tuple[int, ...]) -> Any:
        """Arrays of one shape, placed as the scalar of the state."""
        struct = partial(jax.ShapeDtypeStruct, shape, sharding=start.finite.sharding)
        return None if dtypes is None else jax.tree.map(struct, kind(*dtypes))

    record = one.record
    epoch, (sums, history) = record["epoch"], record["dtypes"]
    sums, history = like(Sums, sums, ()), like(History, history, (epoch,))
    expected = (start, None if sums is None else start, sums, history)
    structs = jax.tree.map(ocp.utils.to_shape_dtype_struct, _flatten(expected))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        leaves = checkpointer.restore(one.path / _ARRAYS, args=ocp.args.StandardRestore(structs))
    before, current, sums, history = _unflatten(leaves, expected, committed=start.finite.committed)
    records = [] if history is None else unstack_history(history)
    return RunState(epoch, record["steps_in_epoch"], record["steps"], before, current, sums, records)


def _flatten(tree: PyTree) -> dict[str, Any]:
    """The leaves by their number, keys as integers: Orbax need not know the structure.

    Empty arrays are left out, as Orbax stores none.
    """
    return {str(i): key_data(leaf) for i, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}


def _unflatten(leaves: Mapping[str, Any], like: PyTree, *, committed: bool) -> Any:
    """The tree of the leaves, each a key or committed to its devices as the one of `like` is.

    Args:
        leaves: by their number.
        like: a tree of the same structure.
        committed: whether those are that have a shape in `like`, and no array.
    """

    def leaf_like(number: int, expected: Any) -> Any:
        if not expected.size:
            return expected
        leaf = leaves[str(number)]
        # Orbax commits all that it restores. What was free to follow the data to other devices is so again.
        if not getattr(key_data(expected), "committed", committed):
            leaf = jnp.array(np.asarray(leaf))
        return wrap_key(leaf, key_impl(expected))

    expected, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, [leaf_like(i, leaf) for i, leaf in enumerate(expected)])


def _files(folder: Path) -> set[str]:
    """The files of a checkpoint by their paths, except for its seal."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in paths} - {_SEAL}


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint by its path, except for its seal."""
    return {name: _digest_of(folder / name) for name in sorted(_files(folder)) if (folder / name).is_file()}


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:  # in parts: it may be larger than memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
