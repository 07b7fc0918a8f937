"""What features does a network with one hidden layer use, and what is each digit built from?

A network with 30 hidden units is trained on handwritten digits. Each hidden unit is drawn as the image of
its weights: ink on blue excites it (it likes that), ink on red inhibits it (it dislikes that). A digit is
then built from these blocks: the largest weights of its output unit name the three that it likes most, and
the smallest the three that it dislikes most. The digits share the blocks: about half of all blocks are liked
by one digit and disliked by another.
"""

from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, load_digits
from experiments._common.figures import (
    color_limits,
    hatch,
    hatched,
    near_square,
    padded,
    signed,
    sizes_of,
    titled,
)
from experiments._common.networks import accuracy, train_sigmoids
from experiments._common.options import check_between, check_seed, make_folder
from experiments._common.results import save_results

K = 3  # features of each kind per digit


def main(
    data: DataName = "mnist-5k",
    hidden: int = 30,
    epochs: int = 30,
    seed: int = 0,
    output: Path = Path("results/lego_blocks"),
) -> None:
    """Train a network with one hidden layer and show the features that each digit is built from.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: number of hidden units.
        epochs: number of passes over the training images.
        seed: of the initial weights and the order of the images.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    check_between("hidden", hidden, 2 * K, 1000)
    make_folder(output)
    digits = load_digits(data)
    network = train_sigmoids(jax.random.key(seed), digits, hidden=(hidden,), epochs=epochs)
    test_accuracy = accuracy(network, digits.test_inputs, digits.test_labels)
    images = np.asarray(jaxnn.weights.kernel_images(network, digits.image_shape))
    top = jax.tree.map(np.asarray, jaxnn.weights.top_features(network, K))
    name = sizes_of(network.sizes)
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "seed": seed},
        tables=[
            table_of_features(
                top, f"What each digit is built from: {name}, test accuracy {test_accuracy:.4f}"
            ),
            table_of_sharing(top, hidden),
        ],
        figures={
            "hidden_units": titled(
                jaxnn.plot.weight_grid(images, titles=range(hidden), limits=color_limits(images)),
                f"The {hidden} blocks: the weights of the hidden units of {name}",
            ),
            "outputs": figure_of_outputs(network),
            "features": figure_of_features(images, top),
        },
        metrics={
            "test_accuracy": test_accuracy,
            **{field: values.tolist() for field, values in top._asdict().items()},
        },
    )


def table_of_features(top: jaxnn.weights.TopFeatures, title: str) -> Table:
    """One row per digit: the indices of its features, with their weights."""
    table = Table("digit", "likes units (weight)", "dislikes units (weight)", title=title)
    for digit, (liked, disliked, liked_weights, disliked_weights) in enumerate(zip(*top, strict=True)):
        table.add_row(str(digit), _listed(liked, liked_weights), _listed(disliked, disliked_weights))
    return table


def _listed(units: np.ndarray, weights: np.ndarray) -> str:
    return ", ".join(f"{unit} ({signed(weight, 1)})" for unit, weight in zip(units, weights, strict=True))


def table_of_sharing(top: jaxnn.weights.TopFeatures, hidden: int) -> Table:
    """The number of blocks by the number of digits that use them."""
    liked, disliked = (np.bincount(units.ravel(), minlength=hidden) for units in top[:2])
    digits = liked + disliked  # no digit both likes and dislikes a block, as there are 6 units or more
    table = Table(
        "blocks in the lists of", f"of {hidden}", title=f"Blocks that the digits share ({K} + {K} per digit)"
    )
    table.add_row("no digit", str(np.sum(digits == 0)))
    table.add_row("one digit", str(np.sum(digits == 1)))
    table.add_row("two or more", str(np.sum(digits > 1)))
    table.add_row("one that likes it and one that dislikes it", str(np.sum((liked > 0) & (disliked > 0))))
    return table


def figure_of_outputs(network: jaxnn.Network) -> Figure:
    """The weights from the hidden units to each digit, laid out as an image."""
    size = network.sizes[1]
    rows, columns = shape = near_square(size)
    images = padded(np.asarray(network.layers[1].kernel).T, shape)
    axes = jaxnn.plot.weight_grid(images, titles=[f"digit {d}" for d in range(10)], columns=5)
    for ax in axes.ravel().tolist():
        hatch(ax, shape, size)
        across, down = (range(0, n, -(-n // 6)) for n in (columns, rows))
        ax.set_xticks(across, [f"+{i}" for i in across], fontsize=7)
        ax.set_yticks(down, [str(i * columns) for i in down], fontsize=7)
    note = f"a unit's index: its row plus its column{hatched(shape, size)}"
    return titled(axes, f"The weights from the hidden units to each digit ({note})")


def figure_of_features(images: np.ndarray, top: jaxnn.weights.TopFeatures) -> Figure:
    """One row per digit: the images of the units that it likes and dislikes most, on one scale."""
    figure = plt.figure(figsize=(9, 14.5), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.12))  # at the right, the color bar
    left, right = halves
    for half, kind, units, weights in zip(
        (left, right), ("likes", "dislikes"), top[:2], top[2:], strict=True
    ):
        labels = [f"{u}: {signed(w, 1)}" for u, w in zip(units.ravel(), weights.ravel(), strict=True)]
        half.suptitle(kind, fontsize=11)
        jaxnn.plot.image_grid(
            images[units.ravel()], titles=labels, signed=True, limits=color_limits(images), name="weight",
            row_labels=[f"digit {d}" for d in range(10)] if half is left else None,
            colorbar=half is right, axes=half.subplots(10, K),
        )  # fmt: skip
    figure.suptitle("The units that each digit likes and dislikes most (index: weight to the digit)")
    return figure


if __name__ == "__main__":
    run_command(main)
