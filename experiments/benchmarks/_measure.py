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


class Times(NamedTuple):
    """Seconds of the first call, which may compile, and of each later round."""

    first: float
    rounds: np.ndarray

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

        first, names = turn(builds, 0.0), list(builds)
        if finalists is not None:
            names = list(finalists(turn(names, _LEAST)))
        turns = [turn(names, _LEAST) for _ in range(rounds)]
    return {name: Times(first[name], np.array([turn[name] for turn in turns])) for name in names}


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
    return f"{processor}, {os.cpu_count()} cores; JAX {jax.__version__} on {jax.devices()[0]}"


def _seconds(build: Build, least: float) -> float:
    """Seconds a call, the mean of as many as fit into `least` seconds, or of one.

    Runs in the process of one alternative, which builds its call once and keeps it.
    """
    call = _keep(build)
    time.sleep(_PAUSE)
    start, calls, passed = time.perf_counter(), 0, 0.0
    while calls == 0 or passed < least:
        jax.block_until_ready(call())
        calls, passed = calls + 1, time.perf_counter() - start
    return passed / calls


@functools.cache
def _only() -> list[Call]:
    return []


def _keep(build: Build) -> Call:
    kept = _only()
    if not kept:
        kept.append(build())
    return kept[0]
