"""Time alternatives against each other, turn by turn, so that a busy machine slows all of them alike."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np


class Times(NamedTuple):
    """Seconds of the first call, which may compile, and of each later round."""

    first: float
    rounds: np.ndarray

    @property
    def median(self) -> float:
        """The median round, in seconds."""
        return float(np.median(self.rounds))


def alternate(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Times]:
    """Call each once to warm up, then all in turn, `rounds` times."""
    first = {name: _seconds(call) for name, call in calls.items()}
    later = [{name: _seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: Times(first[name], np.array([turn[name] for turn in later])) for name in calls}


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


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
