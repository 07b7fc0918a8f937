"""Checkpoints: a run that was stopped, however, goes on where it stood and ends as if it had not been."""

import os
import random
import shutil
import signal
import subprocess
import sys
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
from tests.helpers.params import long
from tests.training.test_train import blobs, identity_network

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
    return f"{path.relative_to(folder)} {how}"


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
        newest = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        _damage(newest, rng)
        with pytest.warns(
            RuntimeWarning, match=f"{newest} was passed over: its .* is (damaged|missing)|unfini"
        ):
            found = jaxnn.train(identity_network(), X, T, checkpoint=folder, **OPTIONS, **EVERY)
        assert_same(found, whole)


def test_unfinished_folders_are_passed_over(tmp_path, whole, stopped):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    newest = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    newest.rename(folder / f"{newest.name}.orbax-checkpoint-tmp")
    with pytest.warns(RuntimeWarning, match=f"{newest}.orbax.* was passed over: it is unfinished") as caught:
        found = jaxnn.train(identity_network(), X, T, checkpoint=folder, **OPTIONS, **EVERY)
    assert caught[0].filename == __file__
    assert_same(found, whole)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_others_put_into_a_folder_is_left_there(tmp_path, kind):
    for name in ("5", "6", "7", "8", "notes"):
        (tmp_path / name).mkdir() if kind == "folder" else (tmp_path / name).write_text("mine")
    with pytest.raises(
        ValueError, match=r"`checkpoint` must be .* holds 5, 6, 7, \.\.\., which `train` did not"
    ):
        jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "6", "7", "8", "notes"]


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


def test_other_files_do_not_matter(tmp_path, whole):
    (tmp_path / "notes").write_text("mine")
    jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS | {"epochs": 1})
    assert_same(jaxnn.train(identity_network(), X, T, checkpoint=tmp_path, **OPTIONS, **EVERY)[0], whole[0])
    assert (tmp_path / "notes").read_text() == "mine"


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


def test_without_its_seal_it_is_unfinished(tmp_path, whole, stopped):
    shutil.copytree(stopped, tmp_path / "run")
    for seal in tmp_path.rglob("seal.json"):
        seal.unlink()
    with pytest.warns(RuntimeWarning, match="was passed over: it is unfinished"):
        found = jaxnn.train(identity_network(), X, T, checkpoint=tmp_path / "run", **OPTIONS, **EVERY)
    assert_same(found, whole)


@pytest.mark.long
def test_killed_ten_times_and_resumed_it_is_the_same_to_the_bit(tmp_path):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def start(name):
        command = [
            sys.executable,
            "-m",
            "tests.helpers.resume_worker",
            tmp_path / name,
            tmp_path / f"{name}.npz",
        ]
        return subprocess.Popen(list(map(str, command)), env=environment)  # noqa: S603

    begun = time.monotonic()
    assert start("whole").wait() == 0
    length = time.monotonic() - begun
    rng, kills = random.Random(0), 0  # noqa: S311
    while kills < 10:
        if (
            tmp_path / "killed.npz"
        ).exists():  # it got to its end between two kills: once more, from the start
            shutil.rmtree(tmp_path / "killed")
            (tmp_path / "killed.npz").unlink()
        process = start("killed")
        try:
            process.wait(timeout=rng.uniform(0.1, 0.9) * length)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert start("killed").wait() == 0
    with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "killed.npz") as other:
        assert_same(dict(one), dict(other))


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
