"""The summary at the top of the page of benchmarks: one picture, drawn from the page's own tables.

`python -m experiments.benchmarks._summary` draws it again.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from experiments._common.command import run_command
from experiments._common.results import save_figure

# What is no peer, but a part of the work, or the same library used in another way.
NO_PEERS = {"its products alone", "in turn", "plain JAX"}
BLUE, ORANGE = "#0072b2", "#d55e00"

_TABLE = re.compile(r"<!-- begin: ([^>]*?) -->\n\n(.*?)\n\n<!-- end", re.DOTALL)
_RATIO = re.compile(r"\*\*([\d.]+)\*\*")
# The line of the picture for a row of a table: by the table, or by the network that the row names.
_GROUPS = {
    "Training 784-200-10": "training, 784-200-10",
    "Back queries": "back queries",
    "Attributions": "attributions, {network}",
    "Attacks": "attacks, {network}",
    "Common architectures": "{architecture}",
}


def main(page: Path = Path("docs/benchmarks.md"), picture: Path = Path("docs/images/benchmarks.png")) -> None:
    """Draw the ratios of a page's tables.

    Args:
        page: the page.
        picture: where to write it.
    """
    save_figure(figure_of(groups_of(page.read_text(encoding="utf-8"))), picture)


def groups_of(text: str) -> dict[str, dict[str, float]]:
    """For each line of the picture, the ratio of the best peer's time to jaxnn's, by row."""
    groups: dict[str, dict[str, float]] = {}
    for table, lines in _TABLE.findall(text):
        if table not in _GROUPS:
            continue
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines.split("\n"))
        peers = [i for i, name in enumerate(head) if name.endswith(" / jaxnn") and name[:-8] not in NO_PEERS]
        for name, *cells in rows:
            ratios = [float(found[1]) for i in peers if (found := _RATIO.match(cells[i - 1]))]
            if ratios:
                groups.setdefault(_group(table, name), {})[name] = min(ratios)
    return groups


def _group(table: str, row: str) -> str:
    network = "convolutional" if "convolutional" in row else "dense"
    return _GROUPS[table].format(network=network, architecture=row.partition(", `")[0])


def figure_of(groups: Mapping[str, Mapping[str, float]]) -> Figure:
    """One line per kind of work, and on it one point per row of its table."""
    figure, ax = plt.subplots(figsize=(7.5, 0.36 * len(groups) + 1.5), layout="constrained")
    for height, ratios in enumerate(groups.values()):
        values = list(ratios.values())
        ax.hlines(height, min(values), max(values), "0.85", zorder=0)
        for value in values:
            ax.plot(value, height, "o", color=BLUE if value >= 1 else ORANGE, alpha=0.75, markersize=6)
    ax.axvline(1, color="black", linewidth=1)
    ax.set(
        xscale="log",
        xlabel="time of the fastest peer / time of jaxnn",
        title="Each point is one measurement: right of 1 (blue) jaxnn is faster",
        ylim=(len(groups) - 0.5, -0.5),
    )
    ax.set_yticks(range(len(groups)), list(groups))
    ticks = [0.5, 1, 2, 5, 10, 20, 40]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    return figure


if __name__ == "__main__":
    run_command(main)
