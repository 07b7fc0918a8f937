"""Time alternatives against each other, each in a process of its own, turn by turn.

A process each, because thread pools that wait by spinning slow down whatever runs beside them; turn by turn,
so that a busy machine slows all of them alike.
"""

import contextlib
import functools
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

Call = Callable[[], Any]
Build = Callable[[], Call]  # a `functools.partial` of a module's function: it travels to the process

_PAUSE = 0.2  # seconds between two turns, for the last one's threads to come to rest
_LEAST = 0.2  # seconds of a turn, so that waking the processor up does not count
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux only


class Times(NamedTuple):
    """What one alternative took.

    Attributes:
        first: seconds of the first call, which may compile.
        rounds: seconds a call in each later round.
        memory: bytes, by how much the memory grew at its peak from before the first call; NaN if unknown.
    """

    first: float
    rounds: np.ndarray
    memory: float

    @property
    def median(self) -> float:
        """The median round, in seconds."""
        return float(np.median(self.rounds))


def alternate(
    builds: Mapping[str, Build],
    rounds: int,
    finalists: Callable[[dict[str, float]], Iterable[str]] | None = None,
) -> dict[str, Times]:
    """Build each call in its process, run it once to warm up, then all in turn, `rounds` times.

    Args:
        builds: by name.
        rounds: how many turns each takes.
        finalists: chosen from the seconds of a turn of all; only those go on.
    """
    spawn = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(ProcessPoolExecutor(max_workers=1, mp_context=spawn)) for name in builds
        }

        def turn(names: Iterable[str], least: float) -> dict[str, float]:
            return {name: workers[name].submit(_seconds, builds[name], least).result() for name in names}

        for prepared in [workers[name].submit(_prepare, build) for name, build in builds.items()]:
            prepared.result()  # all at once: what comes before the first call is not timed
        first, names = turn(builds, 0.0), list(builds)
        if finalists is not None:
            names = list(finalists(turn(names, _LEAST)))
        turns = [turn(names, _LEAST) for _ in range(rounds)]
        memory = {name: workers[name].submit(_grown).result() for name in names}
    return {
        name: Times(first[name], np.array([turn[name] for turn in turns]), memory[name]) for name in names
    }


def ratio(times: Times, to: Times) -> tuple[float, float, float]:
    """How many times as long as `to` it takes: the lowest, the median and the highest round."""
    ratios = times.rounds / to.rounds
    return float(ratios.min()), float(np.median(ratios)), float(ratios.max())


def machine() -> str:
    """The machine in words: processor, cores, and JAX's device."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    device = jax.devices()[0]
    accelerator = "" if device.platform == "cpu" else f"; {device.device_kind}"
    return f"{processor}, {os.cpu_count()} cores{accelerator}; JAX {jax.__version__}"


def accelerated() -> bool:
    """Whether JAX computes on an accelerator, where neither a processor's threads nor its devices count."""
    return jax.default_backend() != "cpu"


def torch_device(threads: int | None = None) -> str:
    """The device of PyTorch that JAX computes on, too, set up alike.

    Args:
        threads: of the processor.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if jax.default_backend() != "gpu":
        return "cpu"
    torch.set_float32_matmul_precision("high")  # products of rounded numbers, which JAX takes by default
    return "cuda"


def awaited(call: Call) -> Call:
    """A call of PyTorch that returns when it is done: on a GPU it would return before."""
    if not accelerated():
        return call
    import torch

    def done() -> Any:
        answer = call()
        torch.cuda.synchronize()
        return answer

    return done


class _Kept(NamedTuple):
    call: Call
    memory: float  # before the first call


def _seconds(build: Build, least: float) -> float:
    """Seconds a call, the mean of as many as fit into `least` seconds, or of one.

    Runs in the process of one alternative, which builds its call once and keeps it.
    """
    call = _keep(build).call
    time.sleep(_PAUSE)
    start, calls, passed = time.perf_counter(), 0, 0.0
    while calls == 0 or passed < least:
        jax.block_until_ready(call())
        calls, passed = calls + 1, time.perf_counter() - start
    return passed / calls


def _prepare(build: Build) -> None:
    _keep(build)


@functools.cache
def _only() -> list[_Kept]:
    return []


def _keep(build: Build) -> _Kept:
    kept = _only()
    if not kept:
        jax.config.update("jax_enable_compilation_cache", False)  # a first call is to be one
        call = build()
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # the peak starts from here
        kept.append(_Kept(call, _memory("VmRSS")))
    return kept[0]


def _grown() -> float:
    """Bytes by which the memory had grown at its peak: of the accelerator, where there is one."""
    if jax.default_backend() == "cpu":
        return _memory("VmHWM") - _only()[0].memory
    statistics = jax.devices()[0].memory_stats() or {}
    used = float(statistics.get("peak_bytes_in_use", np.nan))
    import sys

    if "torch" in sys.modules:
        import torch

        used = max(used, float(torch.cuda.max_memory_allocated()))
    return used


def _memory(name: str) -> float:
    if not _STATUS.exists():
        return float("nan")
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith(name)]
    return 1024.0 * float(lines[0].split()[1])
