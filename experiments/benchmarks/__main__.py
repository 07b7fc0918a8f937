"""Run every benchmark against its peers, and write the numbers, the plots and the page.

Each ratio is the median over rounds in which the alternatives take turns, each in its own process. The first
call, which may compile, is timed separately. Needs the `peers` extra.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from experiments._common.command import run_command
from experiments._common.options import make_folder
from experiments._common.results import save_metrics
from experiments.benchmarks import _page, compiling, growth, precision
from experiments.benchmarks._against import compare
from experiments.benchmarks._case import Row, run, table_of
from experiments.benchmarks._floor import rates
from experiments.benchmarks._measure import accelerated, machine

Name = Literal[
    "training", "networks", "attribution", "quality", "architectures", "dreams", "attacks", "large",
    "precision", "compiling", "growth",
]  # fmt: skip


NOT_CASES = {"precision", "compiling", "growth"}


def main(
    only: tuple[Name, ...] = get_args(Name),
    rounds: int = 5,
    quick: bool = False,
    page: Path | None = None,
    against: str | None = None,
    output: Path = Path("results/benchmarks"),
) -> None:
    """Measure, print tables, and write the numbers; with `--page`, also a page of documentation.

    Args:
        only: which benchmarks.
        rounds: number of turns per alternative.
        quick: a small version, to test that everything runs.
        page: a page whose marked parts are replaced, such as docs/benchmarks.md; by the numbers of this run
            and of earlier ones in the folder.
        against: a revision of this repository, such as a commit: only compare the calls of this library with
            those of the revision, in turns, and print the ratios of the times.
        output: the folder for the numbers and the plots.
    """
    console = Console(width=120)
    if against is not None:
        compare(console, against, [name for name in only if name not in NOT_CASES], rounds, quick)
        return
    make_folder(output)
    for name in only:
        console.rule(name)
        for measured in _measured(console, name, rounds, quick, output):
            about = {"machine": machine(), "accelerated": accelerated(), "rounds": rounds}
            save_metrics({**about, **measured}, output / f"{name}.json")
    if page is not None:
        missing = _page.fill(page, _parts(output))
        for part in missing:
            console.print(f"{page} has no marks for {part!r}", markup=False)


def _measured(
    console: Console, name: Name, rounds: int, quick: bool, output: Path
) -> Iterator[dict[str, Any]]:
    """Yield all measurements so far after each case, so that an interrupted run keeps them."""
    if name == "compiling":
        yield {"parts": {"Compiling": compiling.measure(console)}}
        return
    if name == "precision":
        yield {"parts": {"Half precision": precision.measure(console, quick)}}
        return
    if name == "growth":
        yield {"parts": {"Growth": growth.measure(console, quick, output / "growth.png")}}
        return
    rows: list[Row] = []
    for case in importlib.import_module(f"experiments.benchmarks.{name}").cases(quick):
        rows.append(run(case, rounds))
        console.print(table_of(rows[-1]))
        yield {"rates": rates()._asdict(), "rows": rows}


def _parts(folder: Path) -> dict[str, str]:
    """The parts of the page, by name, from the numbers in a folder."""
    parts: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        of_file = (
            record.get("parts", {}) | _page.tables(record.get("rows", [])) | {"Machine": record["machine"]}
        )
        suffix = " on an accelerator" if record["accelerated"] else ""
        parts |= {f"{name}{suffix}": part for name, part in of_file.items()}
    return parts


if __name__ == "__main__":
    run_command(main)
