"""List the experiments with their questions, or run them all and write one page of results."""

import ast
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from experiments._common.command import run_command
from experiments._common.options import make_folder, printable
from experiments._common.page import write_page

# They need a picture, or networks of the extra "trained".
NOT_IN_ALL = {"own_image", "letters", "photograph", "speech"}
# From the first question to the harder ones; those that are not listed follow.
_ORDER = (
    "back_query", "same_prior", "hidden_layer", "mistakes", "two_digits", "lego_blocks", "two_hidden_layers",
    "small_networks", "initialization", "lesions", "many_minds", "convolution", "dreams", "why", "trust",
    "adversarial", "playground", "rules", "medical", "distributed", "draw",
)  # fmt: skip


def docstrings() -> dict[str, str]:
    """The docstring of each experiment by its module name, in the order of the list; nothing is imported."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    texts = {name: (Path(__file__).parent / f"{name}.py").read_text() for name in names}
    ordered = sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    return {name: ast.get_docstring(ast.parse(texts[name])) or "" for name in ordered}


def main(
    run_all: Annotated[bool, tyro.conf.arg(name="all")] = False,
    data: Literal["mnist-5k", "mnist"] = "mnist-5k",
    output: Path = Path("results"),
) -> None:
    """List the experiments, or run them all and write one page of every question, table and picture.

    Args:
        run_all: run them all, one after the other.
        data: for the experiments on digits; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        output: the folder for index.html, and for one folder per experiment.
    """
    console = Console()
    if run_all:
        raise SystemExit(run(console, data, output))
    table = Table("run", "question", title="Experiments", title_justify="left")
    for name, docstring in docstrings().items():
        table.add_row(f"python -m experiments.{name}", docstring.splitlines()[0])
    console.print(table)
    console.print("Each takes --help, and writes its pictures and numbers to a folder in results/.")
    console.print("python -m experiments --all runs them all and writes results/index.html.")


def run(console: Console, data: str, output: Path) -> int:
    """Run each experiment in its own process; the exit status is 1 if one failed."""
    make_folder(output)
    names = {name: text for name, text in docstrings().items() if name not in NOT_IN_ALL}
    for name in names:  # the page must not show results of an earlier run
        (output / name / "metrics.json").unlink(missing_ok=True)
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    for number, (name, docstring) in enumerate(names.items(), start=1):
        console.rule(f"{number} of {len(names)}: {name}")
        console.print(docstring.splitlines()[0])
        start = time.perf_counter()
        command = [sys.executable, "-m", f"experiments.{name}", "--output", str(output / name)]
        if takes_data(name):
            command += ["--data", data]
        process = subprocess.run(command, check=False)  # noqa: S603
        if process.returncode != 0:
            failures[name] = f"failed ({process.returncode})"
        seconds[name] = time.perf_counter() - start
        write_page(output, names, failures, seconds)  # after each one, in case the run is interrupted
    table = Table("experiment", "seconds", *["problem"] * bool(failures), title=f"All experiments on {data}")
    for name, each in seconds.items():
        table.add_row(name, f"{each:.0f}", *[failures.get(name, "")] * bool(failures))
    console.print(table)
    console.print(f"The page of all results: {printable(output)}/index.html", markup=False)
    return int(bool(failures))


def takes_data(name: str) -> bool:
    """Whether an experiment's main has the option `data`; nothing is imported."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    return any(argument.arg == "data" for argument in mains[0].args.args)


if __name__ == "__main__":
    run_command(main)
