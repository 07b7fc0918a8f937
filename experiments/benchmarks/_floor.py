"""Roofline model: the minimal time of a computation on a machine, by arithmetic or memory traffic."""

import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

_SIDE, _LARGE_SIDE = 2048, 8192  # of a compute-bound matrix product; on an accelerator
_COPIED = 256 * 2**20  # bytes, more than any cache


class Work(NamedTuple):
    """The minimal work of a computation.

    Attributes:
        operations: floating-point additions and multiplications.
        traffic: bytes read or written that do not fit into a cache.
    """

    operations: float
    traffic: float = 0.0


class Rates(NamedTuple):
    """The rates of the machine, per second: operations of a large matrix product, and bytes of a copy."""

    operations: float
    traffic: float


@cache
def rates() -> Rates:
    """Measure the rates once, in the default precision of float32, on all cores of the device."""
    side = _SIDE if jax.default_backend() == "cpu" else _LARGE_SIDE
    a = jax.random.normal(jax.random.key(0), (side, side))
    product = _quickest(jax.jit(lambda a: a @ a), a)
    numbers = jnp.ones(_COPIED // 4)
    copy = _quickest(jax.jit(lambda numbers: numbers + 1), numbers)
    return Rates(2 * side**3 / product, 2 * _COPIED / copy)  # a copy reads and writes


def floor(work: Work, rates: Rates) -> float:
    """The minimal time in seconds."""
    return max(work.operations / rates.operations, work.traffic / rates.traffic)


def _quickest(function: Callable[[jax.Array], jax.Array], argument: jax.Array) -> float:
    jax.block_until_ready(function(argument))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - start)
    return min(seconds)
