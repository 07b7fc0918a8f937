"""A case of a benchmark: the same work in several libraries, each with several settings."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from experiments.benchmarks._floor import Work, floor, rates
from experiments.benchmarks._measure import Build, Times, alternate, ratio

OURS = "jaxnn"


class Case(NamedTuple):
    """One row of one table.

    Attributes:
        table: its heading.
        row: what is done.
        builds: by setting: the library, and after a comma what is special.
        work: what a call must do at the least.
        finalists: how many settings of a library go on after one turn; 0 for all.
    """

    table: str
    row: str
    builds: dict[str, Build]
    work: Work
    finalists: int = 0


Row = dict[str, Any]  # what was measured of a case, as JSON holds it


def run(case: Case, rounds: int) -> Row:
    """Measure a case."""

    def quickest(seconds: dict[str, float]) -> list[str]:
        names = sorted(seconds, key=seconds.__getitem__)
        return [
            name
            for library in libraries(names)
            for name in [n for n in names if library_of(n) == library][: case.finalists]
        ]

    times = alternate(case.builds, rounds, quickest if case.finalists else None)
    best = {library: _best(times, library) for library in libraries(times)}
    return {
        "table": case.table,
        "row": case.row,
        "floor": floor(case.work, rates()),
        "operations": case.work.operations,
        "traffic": case.work.traffic,
        "libraries": {
            library: {
                "setting": name,
                **_told(times[name]),
                "times_ours": ratio(times[name], times[best[OURS]]),
            }
            for library, name in best.items()
        },
        "settings": {name: _told(found) for name, found in times.items()},
    }


def library_of(setting: str) -> str:
    """The library of a setting."""
    return setting.partition(",")[0]


def libraries(settings: Iterable[str]) -> Sequence[str]:
    """The libraries of some settings, ours first."""
    return sorted(dict.fromkeys(map(library_of, settings)), key=lambda name: name != OURS)


def _best(times: dict[str, Times], library: str) -> str:
    return min((n for n in times if library_of(n) == library), key=lambda name: times[name].median)


def _told(times: Times) -> dict[str, Any]:
    return {
        "seconds": times.median,
        "rounds": times.rounds.tolist(),
        "first": times.first,
        "memory": None if times.memory != times.memory else times.memory,
    }


def table_of(row: Row) -> Table:
    """What was measured of a case, for the terminal: a line a setting."""
    table = Table(
        "setting", "seconds", "first call", "MB", "times ours", title=f"{row['table']}: {row['row']}"
    )
    ours = row["libraries"][OURS]["seconds"]
    for name, told in sorted(row["settings"].items(), key=lambda item: item[1]["seconds"]):
        table.add_row(
            name, f"{told['seconds']:.4g}", f"{told['first']:.2f}", megabytes(told["memory"]),
            f"{told['seconds'] / ours:.2f}",
        )  # fmt: skip
    table.add_row("floor", f"{row['floor']:.3g}", "", "", f"{row['floor'] / ours:.2g}")
    return table


def megabytes(memory: float | None) -> str:
    """Bytes in megabytes, for people."""
    return "" if memory is None else f"{memory / 1e6:.0f}"


Cases = Callable[[bool], list[Case]]  # of a module: `cases(quick)`, smaller where quick
