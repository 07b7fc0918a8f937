"""Processor time of a compiled function, to see whether a workaround is still needed."""

import math
import time

import jax


def seconds(function, *args):
    """Processor time, which other processes do not change; the least of a few runs, without compilation."""
    compiled = jax.jit(function).lower(*args).compile()
    least = math.inf
    for _ in range(7):
        start = time.process_time()
        jax.block_until_ready(compiled(*args))
        least = min(least, time.process_time() - start)
    return least
