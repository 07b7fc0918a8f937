"""How small can a network be and still read digits?

Networks with 2 to 100 hidden units, twenty of each size that differ in their seed alone, trained at once
by `vmap`. Beside them stand the published accuracies, of one network of each size, trained on MNIST (but
not beside networks trained on `digits`). The learning rate falls to 0 along half a cosine, so that the last
steps do not throw a network about, and the accuracy is that of the last epoch: no epoch is picked by its
accuracy.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table

from experiments._digits import DataName, accuracies, load_digits, train_many
from experiments._many import falling_sgd, quartiles
from experiments._options import check_at_least, check_rate, check_seed
from experiments._results import make_folder, save_results
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
    """Train networks of many sizes, and show how many digits each reads.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        sizes: how many hidden units, a size each.
        seeds: networks of each size.
        epochs: how often each training image is seen.
        rate: the learning rate at the start.
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
    found: dict[int, np.ndarray] = {}
    for size in track(sorted(set(sizes)), f"training {seeds} of each size"):
        stack = train_many(seeds, seed, digits, hidden=(size,), epochs=epochs, optimizer=optimizer)
        found[size] = accuracies(stack, digits.test_inputs, digits.test_labels)

    published = {} if data == "digits" else PUBLISHED
    inputs, outputs = digits.inputs.shape[1], digits.targets.shape[1]
    save_results(
        output,
        settings={"data": data, "seeds": seeds, "epochs": epochs, "rate": rate, "seed": seed},
        tables=[
            table_of(
                found, published, inputs, outputs, f"Test accuracy of {seeds} networks each, in %, on {data}"
            )
        ],
        figures={"accuracy": figure_of(found, published, f"How many hidden units does it take? ({data})")},
        metrics={"accuracies": {str(size): values.tolist() for size, values in found.items()}},
    )


def table_of(
    found: dict[int, np.ndarray], published: dict[int, float], inputs: int, outputs: int, title: str
) -> Table:
    """A row a size."""
    columns = ("hidden units", "weights", "worst", "median", "quartiles", "best", "published (MNIST)")
    table = Table(*columns, title=title)
    for size, values in found.items():
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


def figure_of(found: dict[int, np.ndarray], published: dict[int, float], title: str) -> Figure:
    """A point a network, with median and quartiles, over the sizes."""
    figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    style: dict[str, Any] = {"color": BLUE, "linestyle": "none"}
    for size, values in found.items():
        # Side by side, that points of equal accuracy are seen; the axis is logarithmic, so is the shift.
        places = size * np.geomspace(0.94, 1.06, len(values))
        first = size == min(found)
        ax.plot(places, 100 * values, ".", alpha=0.5, label="a network" if first else None, **style)
        low, middle, high = (100 * value for value in quartiles(values))
        errors = [[middle - low], [high - middle]]
        label = "median and quartiles" if first else None
        ax.errorbar(size, middle, errors, marker="_", markersize=22, capsize=9, label=label, **style)
    shown = [size for size in published if size in found]
    if shown:
        heights = [100 * published[size] for size in shown]
        ax.plot(
            shown, heights, "D", color=ORANGE, markerfacecolor="none", label="published (MNIST)", zorder=4
        )
    ax.axhline(10, color="gray", linestyle=":", label="guessing")
    ax.set_xscale("log")
    ax.set_xticks(list(found), [str(size) for size in found], minor=False)
    ax.minorticks_off()
    ax.set(xlabel="hidden units", ylabel="test accuracy, %", ylim=(0, 100))
    ax.legend(loc="lower right")
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    tyro.cli(main)
