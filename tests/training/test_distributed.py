"""Two processes on one machine give what one gives."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxnn
from jaxnn._training.data import _check_rows_of_processes
from tests.helpers.processes_worker import trained

pytestmark = pytest.mark.optimized


def _free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def _run(folder, epochs, processes):
    """The experiment on all processes at once, four devices among them."""
    command = [sys.executable, "-m", "experiments.distributed", "--data", "digits", "--output", str(folder)]
    command += ["--epochs", str(epochs), "--processes", str(processes)]
    command += ["--coordinator", f"localhost:{_free_port()}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(4 // processes), "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen([*command, "--index", str(i)], env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
        for i in range(processes)
    ]
    assert [process.wait(timeout=300) for process in started] == [0] * processes
    return json.loads((folder / "metrics.json").read_text()), jaxnn.load(folder / "network.jaxnn")


@pytest.mark.long
def test_two_processes_give_what_one_gives_and_go_on_where_they_stood(tmp_path):
    one, network = _run(tmp_path / "one", 3, 1)
    _run(tmp_path / "two", 2, 2)
    two, other = _run(tmp_path / "two", 3, 2)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["devices"] == two["devices"] == 4
    for name in ("loss", "test_accuracy", "sum_of_attribution_sizes"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5)
    assert one["loss"][-1] < one["loss"][0]
    for a, b in zip(*map(jax.tree.leaves, (network, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.long
def test_examples_in_memory_are_shared_by_processes_too(tmp_path):
    command = [sys.executable, "-m", "tests.helpers.processes_worker"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    port = str(_free_port())
    started = [
        subprocess.Popen([*command, str(i), port, str(tmp_path)], env=environment)  # noqa: S603
        for i in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    with np.load(tmp_path / "found.npz") as found:
        for a, b in zip(found.values(), jax.tree.leaves(trained(epochs=2)), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.long
def test_another_batch_size_in_the_same_folder_is_another_run(tmp_path):
    from experiments import distributed

    losses = []
    for batch_size in (64, 128):
        distributed.main(data="digits", epochs=1, batch_size=batch_size, output=tmp_path)
        losses.append(json.loads((tmp_path / "metrics.json").read_text())["loss"])
    assert losses[0] != losses[1]


def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path):
    from experiments import distributed

    with pytest.raises(ValueError, match="`batch_size` must be a multiple of the 8 devices; got 60"):
        distributed.main(data="digits", batch_size=60, output=tmp_path)


def test_devices_that_hold_the_same_rows_must_be_of_one_process():
    devices = np.array([[SimpleNamespace(process_index=i // 2) for i in range(4)]])
    mesh = SimpleNamespace(axis_names=("data", "model"), devices=devices.reshape(2, 2))
    _check_rows_of_processes(mesh)
    mesh.devices = devices
    with pytest.raises(ValueError, match=r"`mesh` must have devices of one process.*at 0 .* \[0, 1\]"):
        _check_rows_of_processes(mesh)


@pytest.mark.parametrize("index", [-1, 2])
def test_wrong_options_are_named(index):
    from experiments import distributed

    with pytest.raises(ValueError, match=f"`index` must lie from 0 to 1; got {index}"):
        distributed.main(processes=2, index=index)
