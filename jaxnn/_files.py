"""Atomic writes: under its own name a file is complete, or what it was before."""

import contextlib
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name in the same folder, then move it into place.

    A link is followed. An existing file keeps its mode and owner; the umask decides those of a new one.

    Args:
        path: of the file; its folder must exist.
        write: `write(temporary)` writes the content.
    """
    old = _check_target(path)
    target = Path(os.path.realpath(path))  # the file that a link names
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`path` must be in a folder that exists; there is no {target.parent}")
    mode = 0o666 if old is None else 0o600
    with temporary_beside(target, partial(Path.touch, mode=mode, exist_ok=False)) as temporary:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if old is not None:
            with contextlib.suppress(OSError, AttributeError):  # not allowed; not on Windows
                os.chown(temporary, old.st_uid, old.st_gid)
            temporary.chmod(stat.S_IMODE(old.st_mode))
        temporary.replace(target)


def _check_target(path: Path) -> os.stat_result | None:
    """The status of the file to replace, or None; raise unless a regular file may be written there."""
    try:
        old = path.stat()
    except FileNotFoundError:  # nothing, or a link to nothing
        return None
    if not stat.S_ISREG(old.st_mode):
        kind = "a folder" if stat.S_ISDIR(old.st_mode) else "a device, a pipe or a socket"
        raise ValueError(f"`path` must be a regular file, or not there yet; {path} is {kind}")
    if not os.access(path, os.W_OK):  # a move does not ask
        raise PermissionError(f"`path` must be a file that may be written to; {path} is read-only")
    return old


@contextlib.contextmanager
def temporary_beside(target: Path, create: Callable[[Path], object]) -> Iterator[Path]:
    """A temporary file or folder beside `target`, deleted at the end unless it was moved.

    What a killed process left there for the same target is deleted first: its name begins in the same way,
    and nobody locks it.

    Args:
        target: the path to move it to; names of any length have a temporary one.
        create: `create(temporary)` creates the file or folder.
    """
    prefix = f".jaxnn-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"
    for left in target.parent.glob(f"{prefix}*"):
        with _lock(left, wait=False) as locked:
            if locked:
                _delete(left)
    while True:
        temporary = target.with_name(prefix + uuid.uuid4().hex)
        create(temporary)
        with _lock(temporary, wait=True):
            if not temporary.exists():  # deleted by another, between these two lines
                continue
            try:
                yield temporary
            finally:
                _delete(temporary)
            return


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Lock a file or folder, against other threads, too; False where that fails, as on some file systems."""
    with contextlib.ExitStack() as stack:
        locked = False
        with contextlib.suppress(OSError):  # it is gone or in use, or there are no locks
            if fcntl is not None:
                handle = os.open(path, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                locked = True
        yield locked


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
