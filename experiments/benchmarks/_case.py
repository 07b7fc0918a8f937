"""A benchmark case: the same work in several libraries, each with several settings."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from experiments.benchmarks._floor import Work, floor, rates
from experiments.benchmarks._measure import Build, Times, alternate, ratio

OURS = "jaxnn"


class Case(NamedTuple):
    """One row of one table.

    Attributes:
        table: its heading.
        row: a description of the work.
        builds: by setting: the name of the library, and after a comma the options.
        work: the minimal work of a call.
        finalists: number of settings per library that continue after one turn; 0 for all.
    """

    table: str
    row: str
    builds: dict[str, Build]
    work: Work
    finalists: int = 0


Row = dict[str, Any]  # the measurements of a case, as JSON


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
                **_record(times[name]),
                "times_ours": ratio(times[name], times[best[OURS]]),
            }
            for library, name in best.items()
        },
        "settings": {name: _record(each) for name, each in times.items()},
    }


def library_of(setting: str) -> str:
    """The library of a setting."""
    return setting.partition(",")[0]


def libraries(settings: Iterable[str]) -> Sequence[str]:
    """The libraries of some settings, ours first."""
    return sorted(dict.fromkeys(map(library_of, settings)), key=lambda name: name != OURS)


def _best(times: dict[str, Times], library: str) -> str:
    return min((n for n in times if library_of(n) == library), key=lambda name: times[name].median)


def _record(times: Times) -> dict[str, Any]:
    return {
        "seconds": times.median,
        "rounds": times.rounds.tolist(),
        "first": times.first,
        "memory": None if times.memory != times.memory else times.memory,
    }


def table_of(row: Row) -> Table:
    """The measurements of a case, for the terminal: one row per setting."""
    table = Table(
        "setting", "seconds", "first call", "MB", "times ours", title=f"{row['table']}: {row['row']}"
    )
    ours = row["libraries"][OURS]["seconds"]
    for name, each in sorted(row["settings"].items(), key=lambda item: item[1]["seconds"]):
        table.add_row(
            name, f"{each['seconds']:.4g}", f"{each['first']:.2f}", megabytes(each["memory"]),
            f"{each['seconds'] / ours:.2f}",
        )  # fmt: skip
    table.add_row("floor", f"{row['floor']:.3g}", "", "", f"{row['floor'] / ours:.2g}")
    return table


def megabytes(memory: float | None) -> str:
    """Format bytes as megabytes."""
    return "" if memory is None else f"{memory / 1e6:.0f}"
