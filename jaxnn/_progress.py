"""An optional progress bar."""

import contextlib
from collections.abc import Callable, Iterator

from jaxnn._checks import check_flag


@contextlib.contextmanager
def progress_bar(title: str, total: int, *, enabled: bool) -> Iterator[Callable[..., None]]:
    """Yield `advance(note, steps=1)`, to be called after each step; it does nothing unless `enabled`."""
    if not check_flag("progress", enabled):
        yield lambda note, steps=1: None
        return
    try:
        from rich import progress
    except ImportError as error:
        raise ImportError(
            "`progress=True` draws its bar with rich; install it, or the extra `experiments`"
        ) from error
    columns = (*progress.Progress.get_default_columns(), progress.TextColumn("{task.fields[note]}"))
    with progress.Progress(*columns) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda note, steps=1: bar.update(task, advance=steps, note=note)
