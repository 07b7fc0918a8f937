"""How small can a network be and still read digits?

Networks with 2 to 100 hidden units, twenty of each size that differ only in their seed, are trained at once
by `vmap`. They are compared with published accuracies of one network of each size, trained on MNIST (except
for networks trained on `digits`). The learning rate decays to 0 along half a cosine, so that the last steps
are small, and the accuracy is that of the last epoch: no epoch is selected by its accuracy.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table

from experiments._common.command import run_command
from experiments._common.digits import DataName, load_digits
from experiments._common.figures import quartiles
from experiments._common.networks import accuracies, falling_sgd, train_many
from experiments._common.options import check_at_least, check_rate, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn.plot import BLUE, ORANGE

PUBLISHED = {2: 0.2280, 3: 0.5875, 4: 0.8373, 5: 0.8665, 10: 0.9343}


def main(
    data: DataName = "mnist-5k",
    sizes: tuple[int, ...] = (2, 3, 4, 5, 10, 30, 100),
    seeds: int = 20,
    epochs: int = 10,
    rate: float = 2.0,
    seed: int = 0,
    output: Path = Path("results/small_networks"),
) -> None:
    """Train networks of many sizes, and compare their accuracy.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        sizes: numbers of hidden units.
        seeds: number of networks of each size.
        epochs: number of passes over the training images.
        rate: the initial learning rate.
        seed: of the seeds.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    make_folder(output)
    for name, value in (("sizes", min(sizes, default=0)), ("seeds", seeds), ("epochs", epochs)):
        check_at_least(name, value, 1)
    check_rate("rate", rate)
    digits = load_digits(data)
    optimizer = falling_sgd(rate, epochs, digits)
    accuracy: dict[int, np.ndarray] = {}
    for size in track(sorted(set(sizes)), f"training {seeds} of each size"):
        stack = train_many(seeds, seed, digits, hidden=(size,), epochs=epochs, optimizer=optimizer)
        accuracy[size] = accuracies(stack, digits.test_inputs, digits.test_labels)

    published = {} if data == "digits" else PUBLISHED
    inputs, outputs = digits.inputs.shape[1], digits.targets.shape[1]
    save_results(
        output,
        settings={"data": data, "seeds": seeds, "epochs": epochs, "rate": rate, "seed": seed},
        tables=[
            table_of(
                accuracy,
                published,
                inputs,
                outputs,
                f"Test accuracy of {seeds} networks each, in %, on {data}",
            )
        ],
        figures={"accuracy": figure_of(accuracy, published, f"How many hidden units does it take? ({data})")},
        metrics={"accuracies": {str(size): values.tolist() for size, values in accuracy.items()}},
    )


def table_of(
    accuracy: dict[int, np.ndarray], published: dict[int, float], inputs: int, outputs: int, title: str
) -> Table:
    """One row per size."""
    columns = ("hidden units", "weights", "worst", "median", "quartiles", "best", "published (MNIST)")
    table = Table(*columns, title=title)
    for size, values in accuracy.items():
        low, middle, high = quartiles(values)
        table.add_row(
            str(size),
            f"{(inputs + outputs) * size:,}",
            f"{100 * values.min():.1f}",
            f"{100 * middle:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * values.max():.1f}",
            f"{100 * published[size]:.2f}" if size in published else "",
        )
    return table


def figure_of(accuracy: dict[int, np.ndarray], published: dict[int, float], title: str) -> Figure:
    """One point per network, with median and quartiles, against the size."""
    figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    style: dict[str, Any] = {"color": BLUE, "linestyle": "none"}
    for size, values in accuracy.items():
        # Spread horizontally, so that equal values do not hide each other; the axis is logarithmic.
        places = size * np.geomspace(0.94, 1.06, len(values))
        first = size == min(accuracy)
        ax.plot(places, 100 * values, ".", alpha=0.5, label="one network" if first else None, **style)
        low, middle, high = (100 * value for value in quartiles(values))
        errors = [[middle - low], [high - middle]]
        label = "median and quartiles" if first else None
        ax.errorbar(size, middle, errors, marker="_", markersize=22, capsize=9, label=label, **style)
    shown = [size for size in published if size in accuracy]
    if shown:
        heights = [100 * published[size] for size in shown]
        ax.plot(
            shown, heights, "D", color=ORANGE, markerfacecolor="none", label="published (MNIST)", zorder=4
        )
    ax.axhline(10, color="gray", linestyle=":", label="chance")
    ax.set_xscale("log")
    ax.set_xticks(list(accuracy), [str(size) for size in accuracy], minor=False)
    ax.minorticks_off()
    ax.set(xlabel="hidden units", ylabel="test accuracy, %", ylim=(0, 100))
    ax.legend(loc="lower right")
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    run_command(main)
