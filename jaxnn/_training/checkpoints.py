"""Checkpoints of training, by Orbax: a run continues from the last complete one.

A checkpoint is a folder that Orbax moves into place when its arrays are complete. Then its seal is written:
a record of the run, with the SHA-256 of every file. The same call continues; another is refused. A checkpoint
without a seal is unfinished, one that does not match its seal is damaged. Both are passed over, and deleted.
A marker file identifies our folders, so that nothing in any other folder is ever deleted.
"""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._files import lock, write_atomically
from jaxnn._keys import key_data, key_impl, wrap_key
from jaxnn._training.history import History, stack_history, unstack_history
from jaxnn._training.identity import check_same
from jaxnn._training.steps import State, Sums
from jaxnn._typing import PyTree

_MAX_TO_KEEP = 2  # the last one, and the one before it
_SEAL = "seal.json"
_MARKER = "checkpoints-of-jaxnn"
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax still writes


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


@contextlib.contextmanager
def checkpoints(path: str | os.PathLike[str] | None) -> Iterator[Any]:
    """Orbax's manager of a folder of checkpoints; None for no path."""
    if path is None:
        yield None
        return
    folder = Path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`checkpoint` must be a folder, or not there yet; {folder} is a file")
    _mark(folder)
    alone = lock(folder / _MARKER, "checkpoint") if jax.process_index() == 0 else contextlib.nullcontext()
    with alone, _manager(folder) as manager:
        yield manager


def _manager(folder: Path) -> Any:
    import orbax.checkpoint as ocp  # here, as it takes a second

    for unfinished in sorted(folder.glob(f"*{_UNFINISHED}*")):
        text = f"the checkpoint {unfinished} was passed over: it is unfinished"
        warnings.warn(text, RuntimeWarning, stacklevel=5)  # reported at the caller of `train`
    # Not in the background: the arrays are donated to the next step, which overwrites them.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=_MAX_TO_KEEP, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(folder, options=options)


def _mark(folder: Path) -> None:
    """Write the marker file, or raise where others' files would be taken for checkpoints."""
    if (folder / _MARKER).is_file():
        return
    names = sorted(path.name for path in folder.glob("*") if path.name.isdigit() or _UNFINISHED in path.name)
    if names and not any(folder.glob(f"*/{_SEAL}")):
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ValueError(
            f"`checkpoint` must be a folder of `train`'s checkpoints, an empty one or not there yet; "
            f"{folder} holds {listed}, which `train` did not write and would delete in time"
        )
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARKER).touch()


def store(manager: Any, run_state: RunState, settings: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before the last is deleted once it is complete."""
    import orbax.checkpoint as ocp

    history = stack_history(run_state.history) if run_state.history else None
    arrays = _flatten((run_state.epoch_start, run_state.current, run_state.sums, history))
    # The end of an epoch counts, too: it comes after the last of its steps.
    number = run_state.steps + run_state.epoch
    manager.save(number, args=ocp.args.StandardSave(arrays), force=True)
    record = {
        "settings": settings,
        "epoch": run_state.epoch,
        "steps_in_epoch": run_state.steps_in_epoch,
        "steps": run_state.steps,
        "dtypes": jax.tree.map(lambda leaf: str(leaf.dtype), (run_state.sums, history)),
    }
    if jax.process_index() == 0:
        folder = Path(manager.directory) / str(number)
        content = json.dumps({"record": record, "files": _digests(folder)}, sort_keys=True)
        write_atomically(folder / _SEAL, f"{_digest(content.encode())}\n{content}".encode())


def restore(manager: Any, start: State, settings: Mapping[str, Any], epochs: int) -> RunState:
    """The run at its last complete checkpoint; the start of a new run, where there is none.

    Args:
        manager: of the folder; None for no checkpoints.
        start: the initial state.
        settings: of this run, as a JSON object.
        epochs: number of epochs of this run.

    Raises:
        ValueError: the checkpoint is of a run with other settings, or of more epochs.

    Warns:
        RuntimeWarning: a checkpoint is damaged, and passed over.
    """
    numbers = [] if manager is None else manager.all_steps()
    for number in sorted(numbers, reverse=True):
        folder = Path(manager.directory) / str(number)
        record = _agree(_read_seal(folder))
        if isinstance(record, str):
            warnings.warn(f"the checkpoint {folder} was passed over: {record}", RuntimeWarning, stacklevel=3)
            manager.delete(number)  # this run may come to the same number, and write it again
            continue
        check_same(folder.parent, record["settings"], settings)
        if record["epoch"] > epochs:
            raise ValueError(
                f"`epochs` must be at least {record['epoch']}, as many as the checkpoint has gone; "
                f"got {epochs}"
            )
        return _restore(manager, number, record, start)
    return RunState(0, 0, 0, start, None, None, [])


def _read_seal(folder: Path) -> dict[str, Any] | str:
    """The record of a checkpoint whose files match its seal; otherwise the reason why not."""
    if not (folder / _SEAL).is_file():
        return "it is unfinished"
    digest, _, content = (folder / _SEAL).read_bytes().partition(b"\n")
    if digest != _digest(content).encode():
        return f"its {_SEAL} is damaged"
    sealed = json.loads(content)
    digests = _digests(folder)
    for name, expected in sealed["files"].items():
        if digests.get(name) != expected:
            return f"its file {name} is {'damaged' if name in digests else 'missing'}"
    record: dict[str, Any] = sealed["record"]
    return record


def _agree(record: dict[str, Any] | str) -> dict[str, Any] | str:
    """The record, or the reason why all processes pass over it: any of them may have one."""
    if jax.process_count() == 1:
        return record
    from jax.experimental import multihost_utils

    valid = multihost_utils.process_allgather(jnp.array(not isinstance(record, str)))
    return record if valid.all() or isinstance(record, str) else "another process found it damaged"


def _restore(manager: Any, number: int, record: Mapping[str, Any], start: State) -> RunState:
    import orbax.checkpoint as ocp

    def like(kind: Any, dtypes: list[str | None] | None, shape: tuple[int, ...]) -> Any:
        """Arrays of one shape, placed as the scalar of the state."""
        struct = partial(jax.ShapeDtypeStruct, shape, sharding=start.finite.sharding)
        return None if dtypes is None else jax.tree.map(struct, kind(*dtypes))

    epoch, (sums, history) = record["epoch"], record["dtypes"]
    sums, history = like(Sums, sums, ()), like(History, history, (epoch,))
    expected = (start, None if sums is None else start, sums, history)
    structs = jax.tree.map(ocp.utils.to_shape_dtype_struct, _flatten(expected))
    leaves = manager.restore(number, args=ocp.args.StandardRestore(structs))
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


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint by its path, except for its seal."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _SEAL)
    return {path.relative_to(folder).as_posix(): _digest_of(path) for path in paths}


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:  # in parts: it may be larger than memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
