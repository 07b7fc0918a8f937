"""Compare two revisions of this repository: the same calls, in turns, each in its own process.

A revision is checked out beside the working tree, and a process of it imports `jaxnn` and `experiments` from
there. So a benchmark that the revision does not have cannot be compared.
"""

import contextlib
import importlib
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from experiments.benchmarks._case import OURS, Case, library_of
from experiments.benchmarks._measure import alternate, ratio

REPOSITORY = Path(__file__).parents[2]
NOISE = 0.05  # relative: what is less in every round is called no change


class Change(NamedTuple):
    """How a call changed.

    Attributes:
        row: a description of the work.
        setting: of the call.
        low: the lowest ratio of the time now to that of the revision, over the rounds.
        middle: the median.
        high: the highest.
    """

    row: str
    setting: str
    low: float
    middle: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether every round was slower, or faster, by more than the noise."""
        if self.low > 1 + NOISE:
            return "slower"
        return "faster" if self.high < 1 - NOISE else "no change"


def compare(
    console: Console, revision: str, modules: Iterable[str], rounds: int, quick: bool
) -> list[Change]:
    """Measure the benchmarks of some modules in this working tree and in a revision, and print a table."""
    changes = []
    with checked_out(revision) as folder:
        for module in modules:
            for case in importlib.import_module(f"experiments.benchmarks.{module}").cases(quick):
                changes += changes_of(case, folder, rounds)
                console.print(table_of(changes[-1:], revision))
    console.print(table_of(changes, revision))
    return changes


@contextlib.contextmanager
def checked_out(revision: str, repository: Path = REPOSITORY) -> Iterator[Path]:
    """A folder with the files of a revision; removed afterwards."""
    git = ["git", "-C", str(repository), "worktree"]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "revision"
        found = subprocess.run(  # noqa: S603
            [*git, "add", "--quiet", "--detach", str(folder), revision], capture_output=True, text=True
        )
        if found.returncode:
            raise ValueError(
                f"`against` must be a revision of {repository}; got {revision!r}: {found.stderr}"
            )
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)  # noqa: S603


def changes_of(case: Case, folder: Path, rounds: int) -> list[Change]:
    """The change of each call of this library."""
    changes = []
    for setting, build in case.builds.items():
        if library_of(setting) == OURS:
            times = alternate({"now": build, "before": build}, rounds, folders={"before": folder})
            changes.append(Change(case.row, setting, *ratio(times["now"], times["before"])))
    return changes


def table_of(changes: Sequence[Change], revision: str) -> Table:
    """The changes, for the terminal."""
    table = Table(
        "work", "setting", "time now / before", "lowest", "highest", "", title=f"Against {revision}"
    )
    for each in changes:
        cells = (f"{number:.2f}" for number in (each.middle, each.low, each.high))
        table.add_row(each.row, each.setting, *cells, each.verdict)
    return table
