"""Files are written whole, through links, with their modes, and nothing is left behind."""

import os
import random
import stat
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import jaxnn
from jaxnn import _files
from tests.helpers.forked import forked
from tests.helpers.params import long

ONE, TWO = {"w": np.ones(3, np.float32)}, {"w": np.full(3, 2, np.float32)}
needs_locks = pytest.mark.skipif(_files.fcntl is None, reason="without locks nothing is known to be left")


def value(path):
    """The number that the array of a saved model is full of."""
    (found,) = set(jaxnn.load(path, like={"w": np.zeros(len(ONE["w"]), np.float32)})["w"].tolist())
    return found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_link_is_followed(tmp_path):
    (tmp_path / "far").mkdir()
    jaxnn.save(tmp_path / "far" / "model", ONE)
    (tmp_path / "link").symlink_to("far/model")
    (tmp_path / "link_to_link").symlink_to(tmp_path / "link")
    jaxnn.save(tmp_path / "link_to_link", TWO)
    assert value(tmp_path / "far" / "model") == value(tmp_path / "link") == 2
    (tmp_path / "to_nothing").symlink_to("far/new")
    jaxnn.save(tmp_path / "to_nothing", ONE)
    assert value(tmp_path / "far" / "new") == 1
    assert all((tmp_path / name).is_symlink() for name in ("link", "link_to_link", "to_nothing"))
    assert (names(tmp_path), names(tmp_path / "far")) == (
        ["far", "link", "link_to_link", "to_nothing"],
        ["model", "new"],
    )


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o666, 0o755])
def test_an_existing_file_keeps_its_mode_and_its_owner(tmp_path, mode):
    path = tmp_path / "model"
    path.write_text("")
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    jaxnn.save(path, ONE)
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == mode
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_private_file_is_private_while_it_is_written(tmp_path):
    path, seen = tmp_path / "model", []
    path.write_text("")
    path.chmod(0o600)
    _files.write_atomically(path, lambda temporary: seen.append(stat.S_IMODE(temporary.stat().st_mode)))
    assert seen == [0o600]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_new_file_has_the_mode_of_any_other(tmp_path):
    (tmp_path / "other").write_text("")
    jaxnn.save(tmp_path / "model", ONE)
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes of POSIX")
def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`path` must be a regular file, or not there yet; .* is a folder"):
        jaxnn.save(tmp_path, ONE)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "link", os.devnull):
        with pytest.raises(ValueError, match=f"`path` must be .*; {path} is a device, a pipe or a socket"):
            jaxnn.save(path, ONE)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)  # noqa: PTH116
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links"):
        jaxnn.save(tmp_path / "circle", ONE)
    with pytest.raises(FileNotFoundError, match="`path` must be in a folder that exists; there is no .*none"):
        jaxnn.save(tmp_path / "none" / "model", ONE)
    with pytest.raises(NotADirectoryError):
        jaxnn.save(tmp_path / "pipe" / "model", ONE)
    assert names(tmp_path) == ["circle", "link", "pipe"]


def test_a_read_only_file_is_not_replaced(tmp_path, monkeypatch):
    jaxnn.save(tmp_path / "model", ONE)
    (tmp_path / "model").chmod(0o444)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode != os.W_OK and access(path, mode)
    )  # also to root
    with pytest.raises(
        PermissionError, match="`path` must be a file that may be written to; .* is read-only"
    ):
        jaxnn.save(tmp_path / "model", TWO)
    assert value(tmp_path / "model") == 1


@pytest.mark.parametrize("name", ["n" * 255, "[a-c]*?", "ü" * 127, " ", "\udcff\n"])
def test_names_of_any_length_and_kind(tmp_path, name):
    for model in (ONE, TWO):
        jaxnn.save(tmp_path / name, model)
    assert value(tmp_path / name) == 2
    assert names(tmp_path) == [name]


@needs_locks
def test_what_a_killed_save_left_goes_with_the_next_one_and_nothing_else(tmp_path):
    for name in ("model", "other"):
        with _files.temporary_beside(tmp_path / name, Path.touch) as left:
            pass
        left.write_text("half")
    mine = [
        ".model.tmp",
        ".jaxnn",
        ".jaxnn-model",
        "model.part",
        f".model.{'0' * 32}",
        ".jaxnn-0123456789ab-",
    ]
    for name in mine:
        (tmp_path / name).write_text("mine")
    jaxnn.save(tmp_path / "model", ONE)
    assert set(names(tmp_path)) == {"model", left.name, *mine}
    jaxnn.save(tmp_path / "other", ONE)
    assert set(names(tmp_path)) == {"model", "other", *mine}


def test_a_save_that_is_under_way_is_left_alone(tmp_path):
    path, begun, go = tmp_path / "model", threading.Event(), threading.Event()

    def slowly(temporary):
        temporary.write_text("slow")
        begun.set()
        assert go.wait(60)

    slow = threading.Thread(target=_files.write_atomically, args=(path, slowly))
    slow.start()
    assert begun.wait(60)
    jaxnn.save(path, ONE)
    go.set()
    slow.join()
    assert (path.read_text(), names(tmp_path)) == ("slow", ["model"])


@needs_locks
def test_a_temporary_file_that_another_process_deletes_before_it_is_locked_is_made_again(tmp_path):
    made = []

    def create(path):
        made.append(path)
        if len(made) > 1:
            path.touch()

    with _files.temporary_beside(tmp_path / "model", create) as temporary:
        assert temporary == made[1]
    assert names(tmp_path) == []


def test_many_threads_may_save_to_one_file(tmp_path):
    path, errors = tmp_path / "model", []

    def save_often():
        try:
            for number in range(10):
                jaxnn.save(path, {"w": np.full(3, number, np.float32)})
                value(path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (value(path), names(tmp_path)) == (9, ["model"])


@needs_locks
@pytest.mark.long("all but the first")
@pytest.mark.parametrize("kills", [5, *long(200)])
def test_killed_while_it_saves_nothing_is_lost_and_nothing_is_left(tmp_path, kills):
    path, rng, left = tmp_path / "model", random.Random(0), 0  # noqa: S311
    zeros = {"w": np.zeros(300_000, np.float32)}
    jaxnn.save(path, zeros)
    with forked("tests.helpers.save_worker") as run:
        for _ in range(kills):
            assert run(rng.uniform(0, 0.05), path) == -9
            array = np.asarray(jaxnn.load(path, like=zeros)["w"])
            assert np.all(array == array[0])
            assert len(names(tmp_path)) <= 2
            left += len(names(tmp_path)) == 2
    print(f"{kills} kills, {left} of them while a file was being written")
    jaxnn.save(path, ONE)
    assert names(tmp_path) == ["model"]


def test_a_path_is_a_path(tmp_path):
    for call in (partial(jaxnn.save, model=ONE), partial(jaxnn.load, like=ONE)):
        for path in (bytes(tmp_path / "model"), 3, None, [tmp_path]):
            with pytest.raises(TypeError, match=f"`path` must be a path .*; got {type(path).__name__}"):
                call(path)
        with pytest.raises(ValueError, match="`path` must be a path to a file; got an empty one"):
            call("")
    assert names(Path(tmp_path)) == []
