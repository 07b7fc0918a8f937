"""Run a function as a command: its options by their types, and its errors in one line."""

import os
import sys
from collections.abc import Callable

import tyro

TRACEBACK = "JAXNN_TRACEBACK"  # an environment variable: whether errors are shown with their traceback


def run_command(main: Callable[..., None]) -> None:
    """Call `main` with the options of the command line; an error in them ends the program with a message."""
    spec = sys.modules["__main__"].__spec__
    # Run by the name of its file, it has no name of a module.
    command = f"python {sys.argv[0]}" if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"
    try:
        tyro.cli(main, prog=command)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get(TRACEBACK) or isinstance(error, BrokenPipeError):
            raise
        raise SystemExit(f"{command}: {error}\n(with {TRACEBACK}=1, a traceback)") from error
