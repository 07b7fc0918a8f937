"""List the experiments, each with the question it answers."""

import ast
from pathlib import Path

from rich.console import Console
from rich.table import Table


def questions() -> dict[str, str]:
    """The first docstring line of each experiment by its module name, without importing any."""
    scripts = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    docstrings = {path.stem: ast.get_docstring(ast.parse(path.read_text())) for path in scripts}
    return {name: (text or "").splitlines()[0] for name, text in docstrings.items()}


def main() -> None:
    """Print the list."""
    table = Table("run", "to ask", title="Experiments", title_justify="left")
    for name, question in questions().items():
        table.add_row(f"python -m experiments.{name}", question)
    console = Console()
    console.print(table)
    console.print("Each takes --help, and writes its pictures and numbers to a folder in results/.")


if __name__ == "__main__":
    main()
