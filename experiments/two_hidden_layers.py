"""Do the hidden layers of a network see edges and loops?

A common hope is a first layer of edge detectors and a second of loop detectors built from them. A network
with two hidden layers of 16 is trained on handwritten digits, and both layers are drawn as images: the first
by its weights, the second by the products of the weights along all paths from the input to a unit. An edge is
small: an edge detector would have most of its squared weights in a small window. A loop is part of 0, 6, 8
and 9: a loop detector would be active for these four and inactive for 1, 2, 3, 5 and 7 (a 4 may be open or
closed). Its gap, the difference of the mean activations, would be near 1 or -1, and larger than for other
groups of four digits.

On ten seeds of mnist-5k there are neither: the weights spread about as widely as the ink of the mean digit,
and the best unit for loops has a gap of 0.4 to 0.6, like that for many groups of four. The gap is larger in
the second layer than in the first on nine of the ten seeds.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, load_digits, mean_image
from experiments._common.figures import color_limits, sizes_of, titled
from experiments._common.networks import accuracy, train_sigmoids
from experiments._common.options import check_between, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn.plot import ORANGE

LOOPS, ALL = (0, 6, 8, 9), (0, 1, 2, 3, 5, 6, 7, 8, 9)
GROUPS = list(itertools.combinations(ALL, len(LOOPS)))
MAX_TICKS = 20
LAYERS = ("first layer", "second layer")


def main(
    data: DataName = "mnist-5k",
    hidden: tuple[int, int] = (16, 16),
    epochs: int = 20,
    seed: int = 0,
    output: Path = Path("results/two_hidden_layers"),
) -> None:
    """Train a network with two hidden layers and search them for detectors of edges and loops.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: number of units of the two hidden layers.
        epochs: number of passes over the training images.
        seed: of the initial weights and the order of the images.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    for units in hidden:
        check_between("hidden", units, 1, 100)
    make_folder(output)
    digits = load_digits(data)
    network = train_sigmoids(jax.random.key(seed), digits, hidden=hidden, epochs=epochs)
    test_accuracy = accuracy(network, digits.test_inputs, digits.test_labels)
    through = jaxnn.weights.path_products(network, 0, "hidden_1").T
    images = [
        np.asarray(jaxnn.weights.kernel_images(network, digits.image_shape)),
        np.reshape(through, (-1, *digits.image_shape)),
    ]
    means = mean_activations(network, digits.test_inputs, digits.test_labels)
    measures = {
        layer: {"window": in_window(pictures).tolist(), "gap": gaps(mean, LOOPS).tolist(), **loops(mean)}
        for layer, pictures, mean in zip(LAYERS, images, means, strict=True)
    }
    ink = float(in_window(np.asarray(mean_image(digits))[None])[0])
    name = f"{sizes_of(network.sizes)}, test accuracy {test_accuracy:.4f}"
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "seed": seed},
        tables=[
            table_of_layers(measures, ink, window_fraction(digits.image_shape), f"Edges and loops in {name}")
        ],
        figures={
            "first_layer": titled(
                jaxnn.plot.weight_grid(
                    images[0],
                    titles=range(hidden[0]),
                    columns=min(8, hidden[0]),
                    limits=color_limits(images[0]),
                ),
                f"The first hidden layer of {name}: its weights",
            ),
            "second_layer": titled(
                jaxnn.plot.image_grid(
                    images[1],
                    titles=range(hidden[1]),
                    columns=min(8, hidden[1]),
                    signed=True,
                    limits=color_limits(images[1]),
                    name="product of weights",
                ),
                "The second hidden layer: the products of the weights along all paths from the input",
            ),
            "activity": figure_of_activity(means),
        },
        metrics={
            "test_accuracy": test_accuracy,
            "layers": measures,
            "ink": ink,
            "means": [m.tolist() for m in means],
        },
    )


def mean_activations(network: jaxnn.Network, inputs: jax.Array, labels: np.ndarray) -> list[np.ndarray]:
    """The mean activation of each unit for each digit, by hidden layer, `(n_units, 10)`."""
    first = network.layers[0](inputs)
    both = [np.asarray(first), np.asarray(network.layers[1](first))]
    return [np.stack([values[labels == d].mean(axis=0) for d in range(10)], axis=1) for values in both]


def window_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A third of the height and width of an image, in whole pixels."""
    return tuple(max(1, round(side / 3)) for side in shape)


def window_fraction(shape: tuple[int, ...]) -> float:
    """The fraction of an image that a window covers: 0.10 of 28 x 28, 0.14 of 8 x 8."""
    return math.prod(window_of(shape)) / math.prod(shape)


def in_window(images: np.ndarray) -> np.ndarray:
    """The largest fraction of the squared weights of each image in one window."""
    sides = window_of(images.shape[1:])
    windows = np.lib.stride_tricks.sliding_window_view(images**2, sides, axis=(1, 2))
    return windows.sum(axis=(3, 4)).max(axis=(1, 2)) / np.sum(images**2, axis=(1, 2))


def gaps(mean: np.ndarray, group: tuple[int, ...]) -> np.ndarray:
    """The mean activation of each unit for a group of digits, minus that for the others except 4."""
    others = [d for d in ALL if d not in group]
    return mean[:, group].mean(axis=1) - mean[:, others].mean(axis=1)


def loops(mean: np.ndarray) -> dict[str, float]:
    """The gap of the best unit for loops, and of the best units for all groups of four digits."""
    best = {group: float(np.abs(gaps(mean, group)).max()) for group in GROUPS}
    larger = sum(value > best[LOOPS] for value in best.values())
    return {"best": best[LOOPS], "median_group": float(np.median([*best.values()])), "rank": larger + 1}


def table_of_layers(measures: dict[str, dict[str, Any]], ink: float, fraction: float, title: str) -> Table:
    """One row per layer: the concentration of the weights, and the gap of the best unit for loops."""
    columns = (f"squared weights in the best {fraction:.0%} of the image", "gap for loops, best unit")
    others = ("gap for the median group of four digits", "rank of loops among the groups")
    table = Table("", *columns, *others, title=title)
    for layer, row in measures.items():
        window = f"{np.median(row['window']):.0%} (max {max(row['window']):.0%})"
        rank = f"{row['rank']} of {len(GROUPS)}"
        table.add_row(layer, window, f"{row['best']:.2f}", f"{row['median_group']:.2f}", rank)
    table.add_row("mean digit", f"{ink:.0%}", "", "", "")
    return table


def figure_of_activity(means: list[np.ndarray]) -> Figure:
    """Mean activations by layer: one row per unit, one column per digit, those with loops at the left."""
    order = [*LOOPS, 4, *(d for d in ALL if d not in LOOPS)]
    height = min(2.5 + 0.25 * max(map(len, means)), 6.5)
    figure, axes = plt.subplots(1, 2, figsize=(8.5, height), layout="constrained")
    for ax, mean, layer in zip(axes, means, LAYERS, strict=True):
        jaxnn.plot.image_grid(mean[None, :, order], titles=[layer], limits=(0, 1), colorbar=False, axes=[ax])
        ax.vlines([3.5, 4.5], -0.5, len(mean) - 0.5, color=ORANGE, linewidth=2)
        ax.set_xticks(range(10), order)
        ax.set(xlabel="digit (with loops | 4 | without)", ylabel="unit", aspect="auto")
        ax.set_yticks(range(0, len(mean), -(-len(mean) // MAX_TICKS)))
    figure.colorbar(axes[0].images[0], ax=axes, label="mean activation", aspect=30)
    figure.suptitle("The mean activation of each unit for each digit, over the test images")
    return figure


if __name__ == "__main__":
    run_command(main)
