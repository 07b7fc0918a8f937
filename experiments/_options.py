"""Options that are wrong are known before any training."""

import math


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise unless an option is large enough."""
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}; got {value}")


def check_rate(name: str, value: float) -> None:
    """Raise unless an option is finite, and above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"`{name}` must be above 0, and finite; got {value}")


def check_seed(seed: int) -> None:
    """Raise unless a seed is one that a random key holds: JAX would cut a longer one."""
    check_between("seed", seed, 0, 2**32 - 1)


def check_between(name: str, value: int, low: int, high: int) -> None:
    """Raise unless an option lies in a range, both ends included."""
    if not low <= value <= high:
        raise ValueError(f"`{name}` must lie from {low} to {high}; got {value}")
