"""Time alternatives against each other, each in its own process, in turns.

Separate processes, because thread pools that spin while waiting slow down everything beside them; in turns,
so that a busy machine slows all of them equally.
"""

import contextlib
import functools
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

Call = Callable[[], Any]
Build = Callable[[], Call]  # picklable, such as a `functools.partial` of a function of a module

_PAUSE = 0.2  # seconds between two turns, until the threads of the last one are idle
_LEAST = 0.2  # seconds of a turn, so that the warm-up of the processor is negligible
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux only


class Times(NamedTuple):
    """Time and memory of one alternative.

    Attributes:
        first: seconds of the first call, which may compile.
        rounds: seconds per call in each later round.
        memory: growth of the peak memory since before the first call, in bytes; NaN if unknown.
    """

    first: float
    rounds: np.ndarray
    memory: float

    @property
    def median(self) -> float:
        """The median over the rounds, in seconds."""
        return float(np.median(self.rounds))


def alternate(
    builds: Mapping[str, Build],
    rounds: int,
    finalists: Callable[[dict[str, float]], Iterable[str]] | None = None,
    folders: Mapping[str, Path] | None = None,
) -> dict[str, Times]:
    """Build each call in its own process, run it once to warm up, then run all in turns.

    Args:
        builds: by name.
        rounds: number of turns of each.
        finalists: selects the names that continue, from the seconds of one turn of all.
        folders: by name, the folder from which its process imports; others import what this one does.
    """
    spawn = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(ProcessPoolExecutor(max_workers=1, mp_context=spawn)) for name in builds
        }

        def turn(names: Iterable[str], least: float) -> dict[str, float]:
            return {name: workers[name].submit(_seconds, builds[name], least).result() for name in names}

        waiting = []
        for name, build in builds.items():
            with _importing_from((folders or {}).get(name)):  # the process starts here
                waiting.append(workers[name].submit(_prepare, build))
        for prepared in waiting:
            prepared.result()  # concurrently, as this is not timed
        first, names = turn(builds, 0.0), list(builds)
        if finalists is not None:
            names = list(finalists(turn(names, _LEAST)))
        turns = [turn(names, _LEAST) for _ in range(rounds)]
        memory = {name: workers[name].submit(_grown).result() for name in names}
    return {
        name: Times(first[name], np.array([turn[name] for turn in turns]), memory[name]) for name in names
    }


@contextlib.contextmanager
def _importing_from(folder: Path | None) -> Iterator[None]:
    """Let a process that starts meanwhile import from a folder first: it gets the path of this one."""
    path = list(sys.path)
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path


def ratio(times: Times, to: Times) -> tuple[float, float, float]:
    """The ratio of the times to those of `to`: the lowest, the median and the highest over the rounds."""
    ratios = times.rounds / to.rounds
    return float(ratios.min()), float(np.median(ratios)), float(ratios.max())


def machine() -> str:
    """A description of the machine: processor, cores, and JAX's device."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    device = jax.devices()[0]
    accelerator = "" if device.platform == "cpu" else f"; {device.device_kind}"
    return f"{processor}, {os.cpu_count()} cores{accelerator}; JAX {jax.__version__}"


def accelerated() -> bool:
    """Whether JAX runs on an accelerator, where the threads of the processor do not matter."""
    return jax.default_backend() != "cpu"


def torch_device(threads: int | None = None) -> str:
    """The PyTorch device that corresponds to that of JAX, with equal settings.

    Args:
        threads: number of threads of the processor.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if jax.default_backend() != "gpu":
        return "cpu"
    torch.set_float32_matmul_precision("high")  # TF32 products, as in JAX by default
    return "cuda"


def awaited(call: Call) -> Call:
    """Wrap a call of PyTorch to wait for its result: on a GPU it would return earlier."""
    if not accelerated():
        return call
    import torch

    def synchronized() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return synchronized


class _Cached(NamedTuple):
    call: Call
    memory: float  # before the first call


def _seconds(build: Build, least: float) -> float:
    """Mean seconds per call, over as many calls as fit into `least` seconds, or one.

    Runs in the process of one alternative, which builds its call once and caches it.
    """
    call = _cached(build).call
    time.sleep(_PAUSE)
    start, calls, passed = time.perf_counter(), 0, 0.0
    while calls == 0 or passed < least:
        jax.block_until_ready(call())
        calls, passed = calls + 1, time.perf_counter() - start
    return passed / calls


def _prepare(build: Build) -> None:
    _cached(build)


@functools.cache
def _only() -> list[_Cached]:
    return []


def _cached(build: Build) -> _Cached:
    cache = _only()
    if not cache:
        jax.config.update("jax_enable_compilation_cache", False)  # the first call must compile
        call = build()
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # reset the peak
        cache.append(_Cached(call, _memory("VmRSS")))
    return cache[0]


def _grown() -> float:
    """Growth of the peak memory in bytes, of the accelerator if there is one."""
    if jax.default_backend() == "cpu":
        return _memory("VmHWM") - _only()[0].memory
    statistics = jax.devices()[0].memory_stats() or {}
    used = float(statistics.get("peak_bytes_in_use", np.nan))
    if "torch" in sys.modules:
        import torch

        used = max(used, float(torch.cuda.max_memory_allocated()))
    return used


def _memory(name: str) -> float:
    if not _STATUS.exists():
        return float("nan")
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith(name)]
    return 1024.0 * float(lines[0].split()[1])
