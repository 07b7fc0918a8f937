"""An optional progress bar."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(title: str, total: int, *, enabled: bool, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Yield `advance(note)`, to be called once a step from `done` on; it does nothing unless `enabled`."""
    if not enabled:
        yield lambda note: None
        return
    try:
        from rich import progress
    except ImportError as error:
        raise ImportError(
            "`progress=True` draws its bar with rich; install it, or the extra `experiments`"
        ) from error
    columns = (*progress.Progress.get_default_columns(), progress.TextColumn("{task.fields[note]}"))
    with progress.Progress(*columns) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")
        yield lambda note: bar.update(task, advance=1, note=note)
