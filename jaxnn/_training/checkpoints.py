"""Checkpoints of training, by Orbax: where a run stood, whole and checked, so that it can go on from there.

A checkpoint is a folder that Orbax moves into place when its arrays are complete. Then comes its seal: a
record of the run that made it, with the SHA-256 of every file. The same call goes on, another is refused.
What has no seal is unfinished, what does not fit its seal is damaged; either is passed over, and deleted. So
a folder gets a mark of ours before any checkpoint: what lies in one without is not ours to delete.
"""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from jaxnn._checks import is_key
from jaxnn._files import write_atomically
from jaxnn._training.history import History, apart, together
from jaxnn._training.steps import State, Sums

_KEPT = 2  # the last one, and the one before it
_SEAL = "seal.json"
_MARK = "checkpoints-of-jaxnn"
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax still writes


class Standing(NamedTuple):
    """Where a run stands.

    Attributes:
        epoch: how many epochs are complete.
        done: how many steps of the next one are taken.
        steps: how many steps are taken in all.
        before: the state at the end of the last complete epoch.
        after: the state now; None between two epochs, where it is that.
        sums: of the steps taken in this epoch; None between two.
        records: of the complete epochs.
    """

    epoch: int
    done: int
    steps: int
    before: State
    after: State | None
    sums: Sums | None
    records: list[History]


def beginning(start: State) -> Standing:
    """Where a new run stands."""
    return Standing(0, 0, 0, start, None, None, [])


@contextlib.contextmanager
def checkpoints(path: str | os.PathLike[str] | None) -> Iterator[Any]:
    """Orbax's manager of a folder of checkpoints; None for no path."""
    if path is None:
        yield None
        return
    folder = Path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`checkpoint` must be a folder, or not there yet; {folder} is a file")
    _claim(folder)
    with _alone(folder), _manager(folder) as manager:
        yield manager


def _manager(folder: Path) -> Any:
    import orbax.checkpoint as ocp  # here, as it takes a second

    for unfinished in sorted(folder.glob(f"*{_UNFINISHED}*")):
        text = f"the checkpoint {unfinished} was passed over: it is unfinished"
        warnings.warn(text, RuntimeWarning, stacklevel=5)  # of the caller of `train`
    # Not in the background: the arrays are given away to the next step, which computes in their memory.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=_KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(folder, options=options)


def _claim(folder: Path) -> None:
    """Mark a folder as one of checkpoints, or raise where it holds what would be taken for some."""
    if (folder / _MARK).is_file():
        return
    names = sorted(path.name for path in folder.glob("*") if path.name.isdigit() or _UNFINISHED in path.name)
    if names and not any(folder.glob(f"*/{_SEAL}")):
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ValueError(
            f"`checkpoint` must be a folder of `train`'s checkpoints, an empty one or not there yet; in "
            f"{folder} are {listed} of another make, which would be deleted in time"
        )
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder: each would take what the other writes for unfinished, and delete it.

    The lock is the process's own, not its children's, and goes with it, however it ends.
    """
    if fcntl is None or jax.process_index() > 0:
        yield
        return
    with (folder / _MARK).open("ab") as mark:
        try:
            fcntl.lockf(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(
                f"`checkpoint` must be a folder of one run at a time; another is at work in {folder}"
            ) from error
        except OSError:  # a file system that knows no locks
            pass
        yield


def store(manager: Any, standing: Standing, settings: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before the last goes once it is whole."""
    import orbax.checkpoint as ocp

    history = together(standing.records) if standing.records else None
    arrays = _flat((standing.before, standing.after, standing.sums, history))
    # The end of an epoch counts, too: it comes after the last of its steps.
    number = standing.steps + standing.epoch
    manager.save(number, args=ocp.args.StandardSave(arrays), force=True)
    record = {
        "settings": settings,
        "epoch": standing.epoch,
        "done": standing.done,
        "steps": standing.steps,
        "sums": _dtypes(standing.sums),
        "history": _dtypes(history),
    }
    if jax.process_index() == 0:
        folder = Path(manager.directory) / str(number)
        content = json.dumps({"record": record, "files": _digests(folder)}, sort_keys=True)
        write_atomically(folder / _SEAL, f"{_digest(content.encode())}\n{content}".encode())


def last(manager: Any, start: State, settings: Mapping[str, Any]) -> Standing:
    """Where the last whole checkpoint stands; the start, where there is none.

    Args:
        manager: of the folder.
        start: the state of a new run.
        settings: of this run, as a JSON object.

    Raises:
        ValueError: the checkpoint is of a run with other settings.

    Warns:
        RuntimeWarning: a checkpoint is damaged, and passed over.
    """
    for number in sorted(manager.all_steps(), reverse=True):
        folder = Path(manager.directory) / str(number)
        record = _agreed(_unsealed(folder))
        if isinstance(record, str):
            warnings.warn(f"the checkpoint {folder} was passed over: {record}", RuntimeWarning, stacklevel=3)
            manager.delete(number)  # this run may come to the same number, and write it again
            continue
        _check_settings(folder.parent, record["settings"], settings)
        return _standing(manager, number, record, start)
    return beginning(start)


def _unsealed(folder: Path) -> dict[str, Any] | str:
    """The record of a checkpoint whose files are what they were; or what is wrong with it."""
    if not (folder / _SEAL).is_file():
        return "it is unfinished"
    digest, _, content = (folder / _SEAL).read_bytes().partition(b"\n")
    if digest != _digest(content).encode():
        return f"its {_SEAL} is damaged"
    sealed = json.loads(content)
    found = _digests(folder)
    for name, expected in sealed["files"].items():
        if found.get(name) != expected:
            return f"its file {name} is {'damaged' if name in found else 'missing'}"
    record: dict[str, Any] = sealed["record"]
    return record


def _agreed(record: dict[str, Any] | str) -> dict[str, Any] | str:
    """The record, or why all processes pass over it: what one of them found."""
    if jax.process_count() == 1:
        return record
    from jax.experimental import multihost_utils

    whole = multihost_utils.process_allgather(jnp.array(not isinstance(record, str)))
    return record if whole.all() or isinstance(record, str) else "another process found it damaged"


def _standing(manager: Any, number: int, record: Mapping[str, Any], start: State) -> Standing:
    import orbax.checkpoint as ocp

    def scalars(kind: Any, dtypes: Mapping[str, str] | None, shape: tuple[int, ...]) -> Any:
        made = {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=start.alive.sharding)
            for name, dtype in (dtypes or {}).items()
        }
        return None if dtypes is None else kind(**{field: made.get(field) for field in kind._fields})

    sums, history = scalars(Sums, record["sums"], ()), scalars(History, record["history"], (record["epoch"],))
    like = (start, None if sums is None else start, sums, history)
    wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, _flat(like))
    found = manager.restore(number, args=ocp.args.StandardRestore(wanted))
    before, after, sums, history = _unflat(found, like, bound=start.alive.committed)
    records = [] if history is None else apart(history)
    return Standing(record["epoch"], record["done"], record["steps"], before, after, sums, records)


def _check_settings(folder: Any, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(now))  # with lists for tuples, as JSON has them
    for name in {**now, **then}:
        if then.get(name) != now.get(name):
            raise ValueError(
                f"`checkpoint` {folder} is of another run: its {name} was {_short(then.get(name))}, and is "
                f"{_short(now.get(name))} now. Take another folder, or delete it"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _flat(tree: Any) -> dict[str, Any]:
    """The leaves by their number, keys as the numbers they are made of: Orbax need know no structure.

    Those without an entry are left out, as it stores none.
    """
    return {str(i): _as_numbers(leaf) for i, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}


def _unflat(leaves: Mapping[str, Any], like: Any, *, bound: bool) -> Any:
    """The tree of the leaves, each as the one of `like` is: a key, or bound to its devices.

    Args:
        leaves: by their number.
        like: a tree of the same structure.
        bound: whether those are that have no array in `like`, but a shape.
    """

    def leaf_like(number: int, expected: Any) -> Any:
        if not expected.size:
            return expected
        found = leaves[str(number)]
        # Orbax binds all it restores. What was free to follow the data to other devices has to be so again.
        if not getattr(_as_numbers(expected), "committed", bound):
            found = jnp.array(np.asarray(found))
        if is_key(expected):
            return jax.random.wrap_key_data(found, impl=jax.random.key_impl(expected))
        return found

    expected, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, [leaf_like(i, leaf) for i, leaf in enumerate(expected)])


def _as_numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _dtypes(scalars: Any) -> dict[str, str] | None:
    if scalars is None:
        return None
    return {name: str(leaf.dtype) for name, leaf in scalars._asdict().items() if leaf is not None}


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint, by its path; without its seal."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _SEAL)
    return {path.relative_to(folder).as_posix(): _digest_of(path) for path in paths}


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:  # a part at a time: it may be larger than memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@jax.jit
def fingerprint(tree: Any) -> jax.Array:
    """Two numbers of 32 bits that tell arrays from others, wherever they lie: sums do not depend on it.

    Each word is multiplied by an odd number, its own, so that no change of a single one goes unseen.
    """
    total = jnp.zeros(2, jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        words = _words(_as_numbers(leaf)).ravel()
        place = lax.iota(jnp.uint32, words.size)
        factors = jnp.stack([2 * place + 1, (2 * place + 1) * jnp.uint32(0x9E3779B1) ^ (place << 7)])
        total = total * jnp.uint32(0x85EBCA6B) + jnp.sum(words * (factors | 1), axis=1, dtype=jnp.uint32)
        total += jnp.uint32(words.size)
    return total


def _words(leaf: jax.Array) -> jax.Array:
    """The bits of an array in words of 32, or of fewer where an entry has fewer."""
    if jnp.iscomplexobj(leaf):
        leaf = jnp.stack([leaf.real, leaf.imag])
    if leaf.dtype in (jnp.bool_, jnp.int4, jnp.uint4):  # smaller than a byte
        return leaf.astype(jnp.uint32)
    bits = jnp.dtype(leaf.dtype).itemsize * 8
    word = {8: jnp.uint8, 16: jnp.uint16}.get(bits, jnp.uint32)
    return lax.bitcast_convert_type(leaf, word).astype(jnp.uint32)
