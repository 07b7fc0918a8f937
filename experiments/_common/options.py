"""Validation of an experiment's options, before any training starts."""

import math
import tempfile
from pathlib import Path


def make_folder(output: Path) -> None:
    """Create the output folder; exit with a message if it cannot be created or written to."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        message = f"`output` must be a writable folder; {printable(output)} is not: {error.strerror}"
        raise SystemExit(message) from error


def printable(text: object) -> str:
    """A text, such as a path, on one line that any terminal and file takes.

    Control characters, and bytes of a file name that are not UTF-8, are escaped.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise a ValueError if an option is below `least`."""
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}; got {value}")


def check_rate(name: str, value: float) -> None:
    """Raise a ValueError unless an option is positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"`{name}` must be above 0, and finite; got {value}")


def check_seed(seed: int) -> None:
    """Raise a ValueError unless a seed fits into 32 bits; JAX would truncate a longer one."""
    check_between("seed", seed, 0, 2**32 - 1)


def check_between(name: str, value: int, low: int, high: int) -> None:
    """Raise a ValueError unless `low <= value <= high`."""
    if not low <= value <= high:
        raise ValueError(f"`{name}` must lie from {low} to {high}; got {value}")
