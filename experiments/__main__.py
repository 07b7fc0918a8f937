"""List the experiments, each with the question it answers, or run them all into one page."""

import ast
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from experiments._page import write_page
from experiments._results import make_folder

NEEDS_A_PICTURE = "own_image"  # of the reader's: it cannot run unasked


def docstrings() -> dict[str, str]:
    """The docstring of each experiment by its module name, without importing any."""
    scripts = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    return {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in scripts}


def main(
    run_all: Annotated[bool, tyro.conf.arg(name="all")] = False,
    data: Literal["mnist-5k", "mnist"] = "mnist-5k",
    output: Path = Path("results"),
) -> None:
    """List the experiments, or run them all and write one page of every question, table and picture.

    Args:
        run_all: run them all, one after the other.
        data: for the experiments on digits; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        output: the folder for index.html, and a folder for each experiment.
    """
    console = Console()
    if run_all:
        raise SystemExit(run(console, data, output))
    table = Table("run", "to ask", title="Experiments", title_justify="left")
    for name, docstring in docstrings().items():
        table.add_row(f"python -m experiments.{name}", docstring.splitlines()[0])
    console.print(table)
    console.print("Each takes --help, and writes its pictures and numbers to a folder in results/.")
    console.print("python -m experiments --all runs them all and writes results/index.html.")


def run(console: Console, data: str, output: Path) -> int:
    """Run every experiment in a process of its own; the exit status is 1 if one failed."""
    make_folder(output)
    names = {name: text for name, text in docstrings().items() if name != NEEDS_A_PICTURE}
    for name in names:  # the page is to show what this run found, however far it comes
        (output / name / "metrics.json").unlink(missing_ok=True)
    table = Table("experiment", "seconds", "", title=f"All experiments on {data}")
    failures: dict[str, str] = {}
    for number, (name, docstring) in enumerate(names.items(), start=1):
        console.rule(f"{number} of {len(names)}: {name}")
        console.print(docstring.splitlines()[0])
        start = time.perf_counter()
        command = [sys.executable, "-m", f"experiments.{name}", "--output", str(output / name)]
        if takes_data(name):
            command += ["--data", data]
        done = subprocess.run(command, check=False)  # noqa: S603
        if done.returncode != 0:
            failures[name] = f"failed ({done.returncode})"
        table.add_row(name, f"{time.perf_counter() - start:.0f}", failures.get(name, ""))
        write_page(output, names, failures)  # after each: a run cut short has its page too
    console.print(table)
    console.print(f"One page of all: {output}/index.html", markup=False)
    return int(bool(failures))


def takes_data(name: str) -> bool:
    """Whether an experiment's main has the option, read without importing it."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    return any(argument.arg == "data" for argument in mains[0].args.args)


if __name__ == "__main__":
    tyro.cli(main)
