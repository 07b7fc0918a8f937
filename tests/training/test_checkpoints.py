"""Checkpoints: a run that was stopped, however, goes on where it stood and ends as if it had not been."""

import collections
import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import jaxnn
from jaxnn._training import checkpoints, train as training
from jaxnn._training.data import fingerprint
from tests.conftest import in_precision
from tests.helpers.forked import forked
from tests.helpers.others import contents, others_in
from tests.helpers.params import long
from tests.training.test_train import blobs, identity_network

pytestmark = pytest.mark.optimized

X, T, LABELS = blobs(45)
ADAM = optax.adam(0.01)
OPTIONS = {"epochs": 3, "batch_size": 8, "key": jax.random.key(0), "optimizer": ADAM, "validation": (X, T)}
EVERY = {"checkpoint_every": 2}  # of six steps an epoch, the last of five examples


class StopError(Exception):
    pass


def squared_error(output, target):
    """Of the library's name, and another: its factor is 1, not 1/2."""
    return jnp.sum((output - target) ** 2)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def stop_after(monkeypatch, writes, what="store"):
    """Raise in place of writing one checkpoint more."""
    written = iter(range(writes))

    def store(*args):
        if next(written, None) is None:
            raise StopError
        return checkpoints.store(*args)

    monkeypatch.setattr(training, what, store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run gives that nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    return jaxnn.train(identity_network(), X, T, checkpoint=folder, **OPTIONS, **EVERY)


@pytest.mark.long
def test_checkpoints_change_nothing(whole):
    model, history = jaxnn.train(identity_network(), X, T, **OPTIONS)
    assert_same(model, whole[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), history, whole[1])


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("writes", [1, 7, *long(0, 2, 3, 4, 11)])
def test_a_run_that_stopped_goes_on(tmp_path, monkeypatch, whole, writes):
    stop_after(monkeypatch, writes)
    with pytest.raises(StopError):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY)
    monkeypatch.undo()
    taken = []
    monkeypatch.setattr(training, "advance", lambda *a, **k: taken.append(1) or _advance(*a, **k))
    monkeypatch.setattr(training, "advance_in_place", lambda *a, **k: taken.append(1) or _in_place(*a, **k))
    assert_same(jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY), whole)
    # An epoch's parts end after 2, 4, 5 and 6 steps; it writes after 2, 4 and 6, and at its end.
    assert len(taken) == 12 - (4 * (writes // 4) + (0, 1, 2, 4)[writes % 4])


_advance, _in_place = training.advance, training.advance_in_place


def test_a_run_that_ended_is_there_and_can_be_made_longer(tmp_path, whole):
    (tmp_path / "notes").write_text("mine")  # no reason for a warning
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY)
    assert_same(jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS), whole)
    longer = OPTIONS | {"epochs": 5}
    found = jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **longer)
    assert_same(found[0], jaxnn.train(identity_network(), X, T, **longer)[0])
    assert found[1].loss.shape == found[1].validation_accuracy.shape == (5,)


@pytest.mark.long
@pytest.mark.parametrize("axes", [(4, 2), *long((8,))])
def test_batches_on_a_mesh_go_on(tmp_path, axes):
    mesh = jax.make_mesh(axes, ("data", "model")[: len(axes)])
    pairs = [(X[i : i + 8], LABELS[i : i + 8]) for i in range(0, 45, 8)]
    options = {"epochs": 2, "mesh": mesh, "loss": jaxnn.losses.cross_entropy, **EVERY}
    whole = jaxnn.train(identity_network(), pairs, checkpoint=tmp_path / "whole", **options)

    def stopping():
        yield from pairs[:3]
        raise StopError

    with pytest.raises(StopError):
        jaxnn.train(identity_network(), stopping(), checkpoint=tmp_path / "part", **options | {"epochs": 1})
    found = jaxnn.train(identity_network(), pairs, checkpoint=tmp_path / "part", **options)
    assert_same(found, whole)
    for leaf in jax.tree.leaves(found[0]):
        assert len(leaf.sharding.device_set) == 8


@pytest.mark.long
def test_keys_in_an_optimizer_and_half_precision_come_back(tmp_path, monkeypatch):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(7)), optax.sgd(0.1))
    network = jax.tree.map(lambda a: a.astype(jnp.bfloat16), identity_network())
    options = OPTIONS | {"optimizer": noisy, "validation": None}
    with jax.debug_key_reuse(False):  # the optimizer begins with the same key each time
        whole = jaxnn.train(network, X, T, checkpoint=tmp_path / "whole", **options, **EVERY)
        stop_after(monkeypatch, 5)
        with pytest.raises(StopError):
            jaxnn.train(network, X, T, checkpoint=tmp_path / "part", **options, **EVERY)
        monkeypatch.undo()
        assert_same(jaxnn.train(network, X, T, checkpoint=tmp_path / "part", **options, **EVERY), whole)


def _damage(folder: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    content = bytearray(path.read_bytes())
    how = rng.choice(["cut", "flipped", "gone", "empty"])
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty" or not content:
        path.write_bytes(b"")
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    return path.relative_to(folder).as_posix()


def newest_of(folder):
    return max(folder.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with two checkpoints of a run that was stopped."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(StopError):
            jaxnn.train(identity_network(), X, T, checkpoint=folder, **OPTIONS, **EVERY)
    return folder


@pytest.mark.parametrize("seed", [0, *long(1, 2, 3)])
def test_what_is_damaged_is_passed_over(tmp_path, whole, stopped, seed):
    rng = random.Random(seed)  # noqa: S311
    for number in range(6):
        folder = tmp_path / str(number)
        shutil.copytree(stopped, folder)
        newest = newest_of(folder)
        damaged = _damage(newest, rng)
        match = f"{newest} was passed over: its file .* is (damaged|missing)"
        if damaged == "seal.json":  # it cannot be known whose it is
            match = f"holds {newest.name} without a seal of this run: passed over, and left there"
        with pytest.warns(RuntimeWarning, match=match):
            found = jaxnn.train(identity_network(), X, T, checkpoint=folder, **OPTIONS, **EVERY)
        assert_same(found, whole)
        assert newest.exists() == (damaged == "seal.json")


def test_what_a_killed_run_left_unfinished_is_deleted(tmp_path, monkeypatch, whole):
    def killed(_):
        raise StopError

    monkeypatch.setattr(checkpoints, "_digests", killed)
    with pytest.raises(StopError):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY)
    monkeypatch.undo()
    (left,) = tmp_path.glob("unfinished-*")
    assert (left / "arrays").is_dir()
    with pytest.warns(RuntimeWarning, match=f"{left} was passed over: it is unfinished") as caught:
        found = jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY)
    assert caught[0].filename == __file__
    assert_same(found, whole)
    assert not left.exists()


def quietly(*args, **options):
    """`train` where others' files, and what a killed run left, are warned of."""
    with pytest.warns(RuntimeWarning, match=" was passed over: it is unfinished| without a seal of this run"):
        return jaxnn.train(*args, **OPTIONS | options, **EVERY)


def test_what_a_run_did_not_delete_before_it_was_killed_is_deleted(tmp_path, monkeypatch, whole):
    """Killed between its last checkpoint and the deletion of an old one."""
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_remove", lambda folder, one: None)
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY)
    number = len(list(tmp_path.glob("checkpoint-*")))
    assert number > 2
    newest = newest_of(tmp_path)
    assert_same(jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY), whole)
    assert newest_of(tmp_path) == newest
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


@pytest.mark.parametrize("seed", [0, *long(1, 2, 3)])
def test_what_others_put_into_a_folder_stays_there(tmp_path, monkeypatch, whole, seed):
    """Before the run, while it is stopped between two checkpoints, while one is written, and after it."""
    rng, theirs, args = random.Random(seed), {}, (identity_network(), X, T)  # noqa: S311
    for what, writes in ((None, 0), ("store", 3), ("_digests", 2)):
        theirs |= others_in(tmp_path, rng, 34)
        if what is not None:
            stop_after(monkeypatch, writes) if what == "store" else stop_while(monkeypatch, writes)
            with pytest.raises(StopError):
                quietly(*args, checkpoint=tmp_path)
            monkeypatch.undo()
            assert theirs.items() <= contents(tmp_path).items()
    assert any(tmp_path.glob("unfinished-*/arrays"))
    theirs |= others_in(tmp_path, rng, 34)
    assert_same(quietly(*args, checkpoint=tmp_path), whole)
    assert_same(quietly(*args, checkpoint=tmp_path), whole)
    now = contents(tmp_path)
    assert theirs.items() <= now.items()
    own = {name.split("/")[0] for name in now.keys() - theirs.keys()}
    assert sorted(name.partition("-")[0] for name in own) == ["checkpoint", "checkpoint", "checkpoints"]


def stop_while(monkeypatch, writes):
    """Raise while a checkpoint is written, as if the run were killed, after some complete ones."""
    written, digests = iter(range(writes)), checkpoints._digests

    def stop(folder):
        if folder.name.startswith("unfinished") and next(written, None) is None:
            raise StopError
        return digests(folder)

    monkeypatch.setattr(checkpoints, "_digests", stop)


def test_a_checkpoint_to_which_others_added_files_is_left_there(tmp_path, monkeypatch, stopped, whole):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    before, noted = sorted(folder.glob("checkpoint-*"))
    (noted / "arrays" / "notes").write_text("mine")
    (noted / "arrays" / "_METADATA").write_text("damaged")

    def again():
        with pytest.warns(RuntimeWarning, match=f"{noted} (was passed over|is left there)") as caught:
            found = jaxnn.train(identity_network(), X, T, checkpoint=folder, **OPTIONS, **EVERY)
        text = f"the checkpoint {noted} is left there: it holds arrays/notes, which `train` did not write"
        assert text in {str(warning.message) for warning in caught}
        assert {warning.filename for warning in caught} == {__file__}
        return found

    stop_while(monkeypatch, 1)
    with pytest.raises(StopError):
        again()
    monkeypatch.undo()
    assert {before, noted} < {*folder.glob("checkpoint-*")}  # it is none of the two that are kept
    shutil.rmtree(*folder.glob("unfinished-*"))
    assert_same(again(), whole)
    assert (noted / "arrays" / "notes").read_text() == "mine"
    assert len([*folder.glob("checkpoint-*")]) == 3


def test_a_checkpoint_of_another_run_is_passed_over_and_left_there(tmp_path, stopped, whole):
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS | {"epochs": 1})
    copy = tmp_path / newest_of(stopped).name
    shutil.copytree(newest_of(stopped), copy)
    before = contents(copy)
    with pytest.warns(RuntimeWarning, match=f"holds {copy.name} without a seal of this run: passed over"):
        assert_same(
            jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY)[0], whole[0]
        )
    assert contents(copy) == before


@pytest.mark.parametrize("marker", [True, False])
def test_a_folder_of_the_version_before_is_refused_and_left_as_it_is(tmp_path, marker):
    content = b'{"record": {"epoch": 1}, "files": {}}'
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "seal.json").write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    if marker:
        (tmp_path / "checkpoints-of-jaxnn").touch()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="`checkpoint` must be .*; .*/7 is of jaxnn 0.1, which this version"):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS)
    assert contents(tmp_path) == before


def test_a_marker_file_of_others_is_refused(tmp_path):
    (tmp_path / "checkpoints-of-jaxnn").write_text("mine")
    with pytest.raises(
        ValueError, match="`checkpoint` must be .*/checkpoints-of-jaxnn is damaged, or not of"
    ):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS)
    assert contents(tmp_path) == {"checkpoints-of-jaxnn": b"mine"}


def test_a_second_run_in_a_folder_is_refused(tmp_path):
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS | {"epochs": 1})
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); input(print())"
    command = [sys.executable, "-c", hold, str(tmp_path / "checkpoints-of-jaxnn")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: S603
        other.stdout.readline()
        with pytest.raises(ValueError, match="`checkpoint` must be .* one run at a time; another is"):
            jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS)
        other.kill()
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS)


def test_a_second_run_in_another_thread_is_refused(tmp_path):
    pairs, errors = [(X[i : i + 8], T[i : i + 8]) for i in range(0, 40, 8)], []

    def second():
        try:
            jaxnn.train(identity_network(), X, T, checkpoint=tmp_path / "." / "run", **OPTIONS)
        except ValueError as error:
            errors.append(str(error))

    def loader():
        for number, pair in enumerate(pairs):
            if number:
                thread = threading.Thread(target=second)
                thread.start()
                thread.join()
            yield pair

    jaxnn.train(identity_network(), loader(), epochs=1, checkpoint=tmp_path / "run")
    assert errors == [
        f"`checkpoint` must be a folder of one run at a time; another is using {tmp_path}/run"
    ] * (len(pairs) - 1)
    jaxnn.train(identity_network(), pairs, epochs=1, checkpoint=tmp_path / "run")


@pytest.fixture
def read_only(tmp_path, monkeypatch, stopped):
    """A folder of a finished run, and one of a run that was stopped, that may not be written to."""
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path / "done", **OPTIONS, **EVERY)
    shutil.copytree(stopped, tmp_path / "stopped")
    paths = [tmp_path, *tmp_path.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & 0o555)
    access, opened = os.access, Path.open

    def refuse(path, mode="r", *args, **options):
        if path.is_relative_to(tmp_path) and set(mode) & set("wax+"):
            raise PermissionError(path)
        return opened(path, mode, *args, **options)

    # As for anyone else, for root.
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    yield tmp_path
    for path, mode in modes.items():
        path.chmod(mode)


def test_a_finished_run_is_read_from_a_read_only_folder(read_only, whole):
    before = {path: path.stat() for path in read_only.rglob("*")}
    before = {path: (status.st_mtime_ns, status.st_ino) for path, status in before.items()}
    assert_same(jaxnn.train(identity_network(), X, T, checkpoint=read_only / "done", **OPTIONS), whole)
    match = "`checkpoint` must be a folder that can be written to, as 1 of 3 epochs are done; .* is read-only"
    with pytest.raises(ValueError, match=match):
        jaxnn.train(identity_network(), X, T, checkpoint=read_only / "stopped", **OPTIONS)
    after = {path: path.stat() for path in read_only.rglob("*")}
    assert {path: (status.st_mtime_ns, status.st_ino) for path, status in after.items()} == before


def stopped_and_on_again(folder, writes, *args, **options):
    """A run that stopped and went on, and what it must equal."""
    whole = jaxnn.train(*args, checkpoint=folder / "whole", **options, **EVERY)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, writes)
        with pytest.raises(StopError):
            jaxnn.train(*args, checkpoint=folder / "part", **options, **EVERY)
    return jaxnn.train(*args, checkpoint=folder / "part", **options, **EVERY), whole


@pytest.mark.long
@pytest.mark.parametrize("writes", [4, *long(1)])
@pytest.mark.parametrize("what", ["model", "data"])
def test_a_run_goes_on_where_the_arrays_that_it_is_given_live(tmp_path, what, writes):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    arrays = {"model": identity_network(), "data": (X[:40], T[:40])}
    arrays[what] = jax.device_put(arrays[what], jax.NamedSharding(mesh, jax.P()))
    found, whole = stopped_and_on_again(tmp_path, writes, arrays["model"], *arrays["data"], **OPTIONS)
    assert_same(found, whole)


@pytest.mark.long
def test_arrays_without_an_entry_come_back(tmp_path):
    model = Partial(lambda p, x: x @ p["w"], {"w": jnp.ones((4, 3)), "none": jnp.ones((0, 3))})
    assert_same(*stopped_and_on_again(tmp_path, 3, model, X, T, **OPTIONS))


@pytest.mark.long
def test_it_may_go_on_with_checkpoints_at_other_steps(tmp_path, monkeypatch):
    options = OPTIONS | {"batch_size": 2, "epochs": 1}  # 22 steps, and one of the rest
    stop_after(monkeypatch, 2)
    with pytest.raises(StopError):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, checkpoint_every=2, **options)
    seen = []
    monkeypatch.setattr(
        training, "store", lambda m, at, s: seen.append(at.steps_in_epoch) or checkpoints.store(m, at, s)
    )
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, checkpoint_every=5, **options)
    assert seen == [5, 10, 15, 20, 0]


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("kills", "epochs"), [(1, 1), pytest.param(20, 6, marks=pytest.mark.long)])
def test_killed_many_times_and_resumed_it_is_the_same_to_the_bit(tmp_path, kills, epochs):
    """One run after the other, each killed and resumed until it ends."""
    folder, rng, counts = tmp_path / "killed", random.Random(0), collections.Counter()  # noqa: S311
    with forked("tests.helpers.resume_worker") as run:
        begun = time.monotonic()
        assert run(600, tmp_path / "whole", tmp_path / "whole.npz", epochs) == 0
        length = time.monotonic() - begun
        while counts["kills"] < kills:
            theirs, status = others_in(folder, rng, 20), -9
            while status == -9:
                seconds = rng.uniform(0.1, 0.9) * length if counts["kills"] < kills else 600
                status = run(seconds, folder, tmp_path / "killed.npz", epochs)
                counts["kills"] += status == -9
                counts["kills while writing"] += _unfinished(folder)
            assert status == 0
            counts["runs"] += 1
            with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "killed.npz") as other:
                assert_same(dict(one), dict(other))
            assert theirs.items() <= contents(folder).items()
            own = {name.split("/")[0] for name in contents(folder).keys() - theirs.keys()}
            assert sorted(name.partition("-")[0] for name in own) == [
                "checkpoint",
                "checkpoint",
                "checkpoints",
            ]
            shutil.rmtree(folder)
            (tmp_path / "killed.npz").unlink()
    print(counts)


def _unfinished(folder):
    """Whether a run left an unfinished checkpoint."""
    marker = folder / "checkpoints-of-jaxnn"
    return marker.exists() and (folder / f"unfinished-{marker.read_text().split()[-1]}").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epochs": 1}, "`epochs` must be at least 2, as many as the checkpoint has gone; got 1"),
        ({"batch_size": 9}, "`checkpoint` .* is of another run: its batch_size was 8, and is 9 now"),
        ({"key": jax.random.key(1)}, r"its key \(by checksum\) was"),
        ({"shuffle": False}, "its shuffle was True, and is False now"),
        ({"validation": None}, r"its validation \(by checksum\) was .*, and is None now"),
        ({"validation": (X[:9], T[:9])}, r"its validation \(by checksum\) was"),
        ({"loss": jaxnn.losses.cross_entropy}, r"its loss \(by name\) was squared_error, and is cross_ent"),
        ({"optimizer": optax.sgd(0.1)}, "its optimizer was"),
        ({"optimizer": optax.adam(0.1)}, r"its optimizer \(by its jaxpr\) was"),
        ({"optimizer": optax.nadam(0.01)}, r"its optimizer \(by its jaxpr\) was"),
        ({"optimizer": optax.adamw(0.01)}, r"its optimizer \(by its jaxpr\) was"),
        ({"loss": squared_error}, r"its loss of the model \(by its jaxpr\) was"),
        ({"inputs": X + 1}, r"its data \(by checksum\) was"),
        ({"targets": 2 * T}, r"its data \(by checksum\) was"),
        ({"model": identity_network(1)}, r"its initial model \(by checksum\) was"),
        ({"model": jaxnn.init(jax.random.key(0), (4, 3))}, "its model was"),
        ({"model": jaxnn.init(jax.random.key(0), (4, 6, 3))}, "its activation by layer was .*'identity'"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path_factory, another, change, match):
    options = OPTIONS | {"model": identity_network(), "inputs": X, "targets": T, "epochs": 3}
    with pytest.raises(ValueError, match=match):
        jaxnn.train(checkpoint=another, **options | change)


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    folder = tmp_path_factory.mktemp("another")
    jaxnn.train(identity_network(), X, T, checkpoint=folder, **OPTIONS | {"epochs": 2})
    return folder


def test_functions_that_are_built_anew_are_the_same(another, monkeypatch):
    options = OPTIONS | {"epochs": 2, "optimizer": optax.adam(0.01)}
    options["loss"] = lambda output, target: jaxnn.losses.squared_error(output, target)
    options["loss"].__name__ = "squared_error"
    jaxnn.train(identity_network(), X, T, checkpoint=another, **options)
    # Another JAX may trace the same functions to another jaxpr: they are not compared.
    monkeypatch.setattr(jax, "__version__", "0.9.9")
    with pytest.warns(RuntimeWarning, match=r"JAX and shapes .* is \['0.9.9', .* are not compared"):
        jaxnn.train(identity_network(), X, T, checkpoint=another, **options | {"optimizer": optax.adam(0.1)})


def test_a_hyperparameter_in_the_state_is_compared(tmp_path):
    options = OPTIONS | {"epochs": 1, "optimizer": optax.inject_hyperparams(optax.sgd)(0.1)}
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **options)
    options["optimizer"] = optax.inject_hyperparams(optax.sgd)(0.2)
    with pytest.raises(ValueError, match=r"its initial state of the optimizer \(by checksum\) was"):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **options)


def test_other_batches_are_named_in_a_warning(tmp_path):
    options = {"epochs": 1, "checkpoint": tmp_path}
    batches = [(X[:8], T[:8]), (X[8:16], T[8:16])]
    jaxnn.train(identity_network(), batches, **options)
    jaxnn.train(identity_network(), batches, **options)
    with pytest.warns(
        RuntimeWarning, match=r"its first batch \(by checksum\) was .* may be other data"
    ) as found:
        jaxnn.train(identity_network(), batches[1:], **options)
    assert len(found) == 1
    assert found[0].filename == __file__


def test_wrong_options_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`checkpoint` must be a folder, or not there yet; .*file is a file"):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path / "file", **OPTIONS)
    for nothing in ("", b"folder"):
        with pytest.raises((TypeError, ValueError), match="`checkpoint` must be a path to a folder; got"):
            jaxnn.train(identity_network(), X, T, checkpoint=nothing, **OPTIONS)
    with pytest.raises(TypeError, match="`checkpoint` must be a path to a folder; got int"):
        jaxnn.train(identity_network(), X, T, checkpoint=3, **OPTIONS)
    with pytest.raises(ValueError, match="`checkpoint_every` must be None without `checkpoint`"):
        jaxnn.train(identity_network(), X, T, checkpoint_every=3, **OPTIONS)
    with pytest.raises(ValueError, match="`checkpoint_every` must be at least 1; got 0"):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, checkpoint_every=0, **OPTIONS)
    with pytest.raises(ValueError, match="`checkpoint` must be None under tracing"):
        jax.jit(lambda n: jaxnn.train(n, X, T, checkpoint=tmp_path / "x", **OPTIONS))(identity_network())
    for traced in ("key", "validation"):
        with pytest.raises(ValueError, match="`checkpoint` must be None under tracing"):
            jax.vmap(
                lambda value, traced=traced: jaxnn.train(
                    identity_network(), X, T, checkpoint=tmp_path / "x", **OPTIONS | {traced: value}
                )
            )(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), OPTIONS[traced]))
    assert not (tmp_path / "x").exists()


def test_the_checksum_takes_entries_smaller_than_a_byte():
    first, second = (np.asarray(fingerprint(jnp.array([1, 2, value], jnp.int4))) for value in (-8, 7))
    assert np.any(first != second)


DTYPES = ["float32", "bfloat16", "float16", "int32", "int8", "uint8", "bool", "complex64", "float64"]


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_checksum_sees_every_bit_and_no_placement(dtype):
    with in_precision("float64" if dtype == "float64" else "float32"):
        values = jnp.arange(64).astype(dtype)
        first = np.asarray(fingerprint({"a": values, "b": jnp.ones(3)}))
        mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.device_put(values, jax.NamedSharding(mesh, jax.P("d")))
        np.testing.assert_array_equal(fingerprint({"a": spread, "b": jnp.ones(3)}), first)
        raw = np.asarray(values)
        for place in (0, 7, raw.nbytes - 1):
            changed = raw.copy()
            changed.view(np.uint8)[place] ^= 1
            assert np.any(np.asarray(fingerprint({"a": jnp.asarray(changed), "b": jnp.ones(3)})) != first)
        swapped = raw.copy()
        swapped[[1, 0]] = raw[[0, 1]]
        assert np.any(np.asarray(fingerprint({"a": jnp.asarray(swapped), "b": jnp.ones(3)})) != first)
