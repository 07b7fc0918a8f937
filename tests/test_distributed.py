"""Two processes on one machine give what one gives."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxnn


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


@pytest.mark.parametrize("index", [-1, 2])
def test_wrong_options_are_named(index):
    from experiments import distributed

    with pytest.raises(ValueError, match=f"`index` must lie from 0 to 1; got {index}"):
        distributed.main(processes=2, index=index)
