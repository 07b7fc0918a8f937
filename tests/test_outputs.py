"""Outputs of a map in files and in given arrays: what is complete is not lost, and nothing is mixed."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxnn
from jaxnn import _map, _outputs
from jaxnn._checks import is_concrete
from tests.helpers import map_worker
from tests.helpers.params import long

pytestmark = pytest.mark.optimized  # compared with scripts, to the bit

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float32)
LABELS = np.arange(37) % 3
NETWORK = jaxnn.init(jax.random.key(0), (5, 4, 3))


def explain(network, x, label):
    return {"map": jaxnn.attribution.saliency(network, x, label), "class": jnp.argmax(network(x))}


FN = Partial(explain, NETWORK)


def mapped(out=None, fn=FN, x=X, labels=LABELS, batch_size=8, **options):
    return jaxnn.map_examples(fn, x, labels, batch_size=batch_size, out=out, **options)


@pytest.fixture(scope="module")
def whole():
    """The outputs of a call that nothing stops."""
    return mapped()


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


class Counted:
    """`_run`, which counts the batches, and raises at one of them."""

    def __init__(self, stop=None, error=None):
        self.calls, self.stop, self.error, self.run = 0, stop, error, _map._run

    def __call__(self, *args):
        if not is_concrete(args):  # the call is only compared
            return self.run(*args)
        if self.calls == self.stop:
            raise self.error
        self.calls += 1
        return self.run(*args)


def stopped(monkeypatch, error, batches=3, **options):
    """The error of a call that stops after some batches."""
    with monkeypatch.context() as patch:
        patch.setattr(_map, "_run", Counted(batches, error))
        with pytest.raises(type(error)) as raised:
            mapped(**options)
    return raised.value


ERRORS = [ValueError, KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_carries_the_complete_outputs(monkeypatch, whole, kind):
    error = kind("no")
    raised = stopped(monkeypatch, error)
    assert raised is error
    assert_same(raised.finished, jax.tree.map(lambda leaf: leaf[:24], whole))
    assert "first 24 of 37 examples" in raised.__notes__[0]


def test_an_error_before_the_first_batch_is_complete_carries_nothing(monkeypatch):
    assert not hasattr(stopped(monkeypatch, ValueError("no"), batches=0), "finished")


def test_an_error_in_the_function_loses_its_own_batch_alone(whole):
    def fail(x):
        if np.any(x == X[20]):
            raise ValueError("of the callback")
        return x

    def fn(x):
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((5,), np.float32), x, vmap_method="expand_dims")

    with pytest.raises(Exception, match="of the callback") as raised:
        jaxnn.map_examples(fn, X, batch_size=8)
    np.testing.assert_array_equal(raised.value.finished, X[:16])


@pytest.mark.parametrize("kind", ERRORS)
def test_files_of_a_call_that_stopped_are_continued(monkeypatch, tmp_path, whole, kind):
    error = kind("no")
    raised = stopped(monkeypatch, error, out=tmp_path / "maps")
    assert raised is error
    assert raised.__notes__ == [f"24 of 37 examples are in {tmp_path}/maps: the same call continues there"]
    counted = Counted()
    monkeypatch.setattr(_map, "_run", counted)
    maps = mapped(tmp_path / "maps")
    assert counted.calls == 2
    assert_same(maps, whole)
    assert all(isinstance(leaf, np.memmap) and not leaf.flags.writeable for leaf in jax.tree.leaves(maps))
    assert_same(mapped(str(tmp_path / "maps")), whole)
    assert counted.calls == 2  # complete: nothing is computed


def test_complete_files_are_returned_from_a_folder_that_is_read_only(monkeypatch, tmp_path, whole):
    mapped(tmp_path)
    opened = Path.open

    def open_to_read(path, mode="r", *args, **kwargs):
        assert "r" in mode and "+" not in mode  # noqa: PT018
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(_outputs.os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "open", open_to_read)
    assert_same(mapped(tmp_path), whole)


@pytest.mark.parametrize("batches", [0, 1, 2, 4])
def test_it_continues_behind_any_batch(monkeypatch, tmp_path, whole, batches):
    stopped(monkeypatch, ValueError("no"), batches, out=tmp_path)
    stopped(monkeypatch, ValueError("no"), 0, out=tmp_path)
    assert_same(mapped(tmp_path), whole)


def test_the_files_are_arrays_of_numpy_in_the_order_of_the_leaves(tmp_path, whole):
    mapped(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.npy", "1.npy", "outputs-of-map_examples", "record.json",
    ]  # fmt: skip
    assert_same([np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy")], jax.tree.leaves(whole))
    assert json.loads((tmp_path / "record.json").read_text())["record"]["rows"] == 37


def test_it_starts_where_a_kill_left_an_unfinished_folder(tmp_path, whole):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    for name in ("b", "c"):
        (tmp_path / name / "outputs-of-map_examples").touch()
    mapped(tmp_path / "whole")
    record = (tmp_path / "whole" / "record.json").read_text()
    (tmp_path / "c" / ".record.json.0123").write_text(record[:99])
    (tmp_path / "c" / "0.npy").write_bytes(b"half of a header")
    for name in ("a", "b", "c"):
        assert_same(mapped(tmp_path / name), whole)


def test_a_file_that_is_not_complete_is_no_array(monkeypatch, tmp_path):
    stopped(monkeypatch, ValueError("no"), out=tmp_path)
    with pytest.raises(ValueError, match="not fully written|cannot reshape"):  # by the version of NumPy
        np.load(tmp_path / "0.npy")


DTYPES = [
    "bfloat16",
    "float16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int4",
    "uint8",
    "bool",
    "complex64",
    "int32",
]


def test_every_dtype_comes_back(tmp_path, monkeypatch):
    def fn(x, label):
        return [jnp.abs(x).astype(dtype) for dtype in DTYPES] + [x[:0], label]

    expected = mapped(fn=fn)
    stopped(monkeypatch, ValueError("no"), fn=fn, out=tmp_path)
    found = mapped(tmp_path, fn=fn)
    assert [leaf.dtype for leaf in found[: len(DTYPES)]] == [jnp.dtype(dtype) for dtype in DTYPES]
    assert_same(found, expected)
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy").view(jnp.bfloat16), expected[0])
    assert np.load(tmp_path / "0.npy").dtype == "V2"  # bytes: as integers they would be wrong without a word


def test_arrays_are_filled(tmp_path, whole):
    out = jax.tree.map(np.zeros_like, whole)
    out["map"] = np.lib.format.open_memmap(tmp_path / "map.npy", "w+", np.float32, (37, 5))
    assert mapped(out) is out
    assert_same(out, whole)
    assert_same(np.load(tmp_path / "map.npy"), whole["map"])


def test_an_error_leaves_filled_arrays(monkeypatch, whole):
    out = jax.tree.map(np.zeros_like, whole)
    raised = stopped(monkeypatch, KeyboardInterrupt(), out=out)
    assert np.shares_memory(raised.finished["map"], out["map"])
    assert_same(out["map"], np.append(whole["map"][:24], np.zeros((13, 5), np.float32), axis=0))


READ_ONLY = np.broadcast_to(np.float32(0), (37, 5))
CLASS = np.zeros(37, np.int32)


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        (b"maps", ValueError, r"`out` must have the structure of `fn\(...\)`"),
        ({"map": X}, ValueError, r"`out` must have the structure of `fn\(...\)`"),
        ({"map": X, "class": 3}, TypeError, r"`out\['class'\]` must be a path or a NumPy array .*; got int"),
        ({"map": jnp.zeros((37, 5)), "class": CLASS}, TypeError, "to fill; got ArrayImpl"),
        (
            {"map": X[1:], "class": CLASS},
            ValueError,
            r"`out\['map'\]` must have shape \(37, 5\) .*\(36, 5\)",
        ),
        ({"map": X.astype(float), "class": CLASS}, ValueError, "and dtype float32, .* and dtype float64"),
        ({"map": READ_ONLY, "class": CLASS}, ValueError, "one that is read-only"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_any_work(monkeypatch, out, error, match):
    monkeypatch.setattr(_map, "_run", Counted(0, AssertionError("it was computed")))
    with pytest.raises(error, match=match):
        mapped(out)


def test_it_is_refused_under_tracing(tmp_path):
    with pytest.raises(ValueError, match="`out` must be None under tracing"):
        jax.jit(lambda x: mapped(tmp_path / "maps", x=x))(X)
    assert not (tmp_path / "maps").exists()


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """The folder of a complete call."""
    folder = tmp_path_factory.mktemp("another")
    mapped(folder)
    return folder


OTHER = jax.tree.map(lambda leaf: leaf + 1, NETWORK)


def other(network, x, label):
    return {"map": x, "class": label}


CLOSED = np.ones(5, np.float32)


def closing(constant):
    return lambda x, label: {"map": x * constant, "class": label}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_size": 16}, "`out` .* is of another run: its batch_size was 8, and is 16 now"),
        ({"x": X[:36], "labels": LABELS[:36]}, "its examples was 37, and is 36 now"),
        ({"x": X.astype(np.float16)}, r"its arrays was .*float32.*float16"),
        ({"x": X + 1}, r"its arrays \(by checksum\) was"),
        ({"labels": np.append(LABELS[:-1], 5)}, r"its arrays \(by checksum\) was"),
        (
            {"fn": Partial(explain, jax.tree.map(lambda leaf: leaf + 1, NETWORK))},
            r"arrays in fn \(by checksum\)",
        ),
        ({"fn": lambda x, label: {"map": x, "class": label[None]}}, "its outputs was"),
        (
            {"fn": Partial(lambda _, x, label: {"map": x, "class": label}, NETWORK)},
            r"its fn \(by its jaxpr\) was",
        ),
        ({"mesh": jax.make_mesh((8,), ("data",))}, r"its devices was \['cpu', None\], .*'data': 8"),
    ],
)
def test_the_folder_of_another_call_is_refused(another, change, match):
    content = {path: path.read_bytes() for path in another.iterdir()}
    with pytest.raises(ValueError, match=match) as raised:
        mapped(another, **change)
    assert str(raised.value).endswith("Take another folder, or delete it")
    assert {path: path.read_bytes() for path in another.iterdir()} == content


def test_a_constant_of_the_function_is_part_of_the_call(tmp_path):
    mapped(tmp_path, fn=closing(CLOSED))
    mapped(tmp_path, fn=closing(CLOSED.copy()))  # another object, the same function
    with pytest.raises(ValueError, match=r"its fn \(by its jaxpr\)"):
        mapped(tmp_path, fn=closing(2 * CLOSED))


def test_of_a_large_array_some_rows_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(_map, "_HASHED", 150)  # of 740 bytes: every fifth row, and the last
    monkeypatch.setattr(_map, "_BLOCK", 60)
    mapped(tmp_path)
    for row, seen in ((0, True), (1, False), (5, True), (36, True)):
        changed = X.copy()
        changed[row] += 1
        if seen:
            with pytest.raises(ValueError, match=r"its arrays \(by checksum\)"):
                mapped(tmp_path, x=changed)
        else:
            mapped(tmp_path, x=changed)


def test_keys_arrays_on_the_device_and_memory_maps_are_compared(tmp_path):
    np.save(tmp_path / "x.npy", X)
    keys = jax.random.split(jax.random.key(1), 37)
    fn = lambda x, key: x + jax.random.normal(key)  # noqa: E731
    expected = mapped(fn=fn, labels=keys)
    for x in (X, jnp.asarray(X), np.load(tmp_path / "x.npy", mmap_mode="r")):
        assert_same(mapped(tmp_path / "maps", fn=fn, x=x, labels=keys), expected)
    with pytest.raises(ValueError, match=r"its arrays \(by checksum\)"):
        mapped(tmp_path / "maps", fn=fn, labels=jax.random.split(jax.random.key(2), 37))


def test_what_is_not_ours_is_not_touched(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ValueError, match=r"`out` must be a folder that `map_examples` wrote.* other files"):
        mapped(tmp_path)
    with pytest.raises(ValueError, match=r"notes is a file"):
        mapped(tmp_path / "notes")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize("damage", ["rows", "text", "short", "gone", "header"])
def test_a_damaged_folder_is_refused(tmp_path, monkeypatch, damage):
    stopped(monkeypatch, ValueError("no"), out=tmp_path)
    record, array = tmp_path / "record.json", tmp_path / "1.npy"
    if damage == "rows":
        record.write_text(record.read_text().replace('"rows": 24', '"rows": 32'))
    elif damage == "text":
        record.write_bytes(record.read_bytes()[:-9])
    elif damage == "short":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "gone":
        array.unlink()
    else:
        array.write_bytes(array.read_bytes().replace(b"float32", b"int32").replace(b"<f4", b"<i4"))
    name = "record.json" if damage in ("rows", "text") else "1.npy"
    with pytest.raises(ValueError, match=rf"`out` .* is damaged: {name} was .*altered. Delete the folder"):
        mapped(tmp_path)


def test_a_second_call_at_the_same_time_is_refused(tmp_path):
    mapped(tmp_path)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); input(print())"
    command = [sys.executable, "-c", hold, str(tmp_path / "outputs-of-map_examples")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: S603
        other.stdout.readline()
        with pytest.raises(ValueError, match="`out` must be .* one run at a time; another is using"):
            mapped(tmp_path)
        other.kill()


def test_rows_are_on_the_disk_before_the_record_counts_them(tmp_path, monkeypatch):
    events = []
    fsync, record = os.fsync, _outputs._write_record
    monkeypatch.setattr(_outputs, "_SECONDS", 0.0)
    monkeypatch.setattr(_outputs.os, "fsync", lambda file: events.append("rows") or fsync(file))

    def write_record(*args):
        events.append(args[-1])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            record(*args)

    monkeypatch.setattr(_outputs, "_write_record", write_record)
    mapped(tmp_path)
    assert events == [0] + [event for rows in (8, 16, 24, 32, 37) for event in ("rows", "rows", rows)]


@pytest.mark.parametrize("rows", [16, 0], ids=["room for a record", "no room"])
def test_a_full_disk_is_the_error(tmp_path, monkeypatch, whole, rows):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    written, write_all = iter(range(7)), _outputs._write_all  # two headers, two batches of two files, and one

    def write(file, content):
        if next(written, None) is None:
            write_all(file, content[:5])
            if rows == 0:
                monkeypatch.setattr(_outputs.os, "fsync", fail)
            fail()
        write_all(file, content)

    monkeypatch.setattr(_outputs, "_write_all", write)
    with pytest.raises(OSError, match="No space left") as raised:
        mapped(tmp_path)
    assert raised.value.__notes__[0].startswith(f"{rows} of 37 examples")
    monkeypatch.undo()
    assert_same(mapped(tmp_path), whole)


def test_on_a_mesh_and_with_a_bar(tmp_path, monkeypatch, capsys):
    options = {"mesh": jax.make_mesh((4, 2), ("data", "model")), "progress": True}
    whole = mapped(**options)
    stopped(monkeypatch, ValueError("no"), out=tmp_path, **options)
    capsys.readouterr()
    assert_same(mapped(tmp_path, **options), whole)
    assert "100%" in capsys.readouterr().out


def recorded(folder):
    """The number of complete rows."""
    path = folder / "record.json"
    return json.loads(path.read_text())["record"]["rows"] if path.exists() else 0


def kill(folder, delay):
    """Start a process that continues the call, and kill it some time after its first new record."""
    before = recorded(folder)
    command = [sys.executable, "-m", "tests.helpers.map_worker", str(folder)]
    with subprocess.Popen(command, cwd=ROOT) as process:  # noqa: S603
        while process.poll() is None and recorded(folder) == before:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("kills", [1, *long(10)])
def test_a_call_that_was_killed_continues(tmp_path, kills):
    rng = random.Random(kills)  # noqa: S311
    for _ in range(kills):
        kill(tmp_path / "maps", rng.uniform(0.0, 0.2))
    assert 0 < recorded(tmp_path / "maps") < 8 * map_worker.BATCHES - 3
    assert_same(map_worker.call(tmp_path / "maps"), map_worker.call(None))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory from /proc")
def test_memory_does_not_grow_with_the_number_of_outputs(tmp_path):
    def growth(*arguments):
        command = [sys.executable, "-m", "tests.helpers.map_memory", "200000", *arguments]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)  # noqa: S603
        return json.loads(ran.stdout)["growth"]

    assert growth() > 600  # megabytes: 200,000 saliency maps of 784 pixels
    assert growth(tmp_path / "maps") < 300
