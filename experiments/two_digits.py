"""What is the simplest mind: can a single unit distinguish 0 from 1?

The two outputs depend on the image only through the activation of one hidden unit. Its weights are one image:
blue along the stroke of the ones and red in the ring of the zeros, or the other way around, depending on the
initial weights (18 of 25 seeds like the ones). The input times these weights, and a bias, add up to its
signal; the activation is below 0.5 if the signal is negative, and above if it is positive.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, class_means, load_digits
from experiments._common.figures import signed, sizes_of, titled
from experiments._common.networks import accuracy, train_sigmoids
from experiments._common.options import check_between, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn.plot import BLUE, ORANGE


def main(
    data: DataName = "mnist-5k",
    pair: tuple[int, int] = (0, 1),
    epochs: int = 10,
    seed: int = 0,
    output: Path = Path("results/two_digits"),
) -> None:
    """Train a network with one hidden unit to distinguish two digits, and draw its weights.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        pair: the two digits.
        epochs: number of passes over the training images.
        seed: of the initial weights and the order of the images.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    for digit in pair:
        check_between("pair", digit, 0, 9)
    if pair[0] == pair[1]:
        raise ValueError(f"`pair` must be two digits; got {pair}")
    make_folder(output)
    digits = only(load_digits(data), pair)
    network = train_sigmoids(jax.random.key(seed), digits, hidden=(1,), epochs=epochs)
    test_accuracy = accuracy(network, digits.test_inputs, digits.test_labels)
    predictions = np.asarray(jaxnn.query(network, digits.test_inputs)).argmax(axis=1)
    signals = np.asarray(network.layers[0].signal(digits.test_inputs))[:, 0]
    by_digit = [signals[digits.test_labels == k] for k in (0, 1)]
    correct = [int(np.sum(predictions[digits.test_labels == k] == k)) for k in (0, 1)]
    summary = (
        f"{sizes_of(network.sizes)} distinguishes {pair[0]} from {pair[1]}: test accuracy {test_accuracy:.4f}"
    )
    save_results(
        output,
        settings={"data": data, "pair": pair, "sizes": network.sizes, "epochs": epochs, "seed": seed},
        tables=[table_of_digits(pair, by_digit, correct, summary)],
        figures={
            "unit": figure_of_unit(network, digits, pair),
            "signals": figure_of_signals(pair, by_digit, summary),
        },
        metrics={
            "test_accuracy": test_accuracy,
            "correct": correct,
            "signals": [values.tolist() for values in by_digit],
            "weights": np.asarray(network.layers[0].kernel)[:, 0].tolist(),
        },
    )


def only(digits: Digits, pair: tuple[int, int]) -> Digits:
    """The images of two digits, labeled 0 and 1."""

    def select(inputs: jax.Array, labels: np.ndarray) -> tuple[jax.Array, jax.Array, np.ndarray]:
        indices = np.flatnonzero(np.isin(labels, pair))
        new_labels = (labels[indices] == pair[1]).astype(int)
        return inputs[indices], jaxnn.datasets.encode_labels(new_labels, 2), new_labels

    return Digits(
        *select(digits.inputs, digits.labels),
        *select(digits.test_inputs, digits.test_labels),
        digits.image_shape,
    )


def table_of_digits(
    pair: tuple[int, int], by_digit: list[np.ndarray], correct: list[int], title: str
) -> Table:
    """One row per digit: correct predictions, and the signal of the unit."""
    table = Table(
        "digit", "test images", "correct", "signal of the unit: median (lowest to highest)", title=title
    )
    for digit, values, count in zip(pair, by_digit, correct, strict=True):
        middle, low, high = (signed(f(values), 1) for f in (np.median, np.min, np.max))
        table.add_row(str(digit), str(len(values)), str(count), f"{middle} ({low} to {high})")
    return table


def figure_of_unit(network: jaxnn.Network, digits: Digits, pair: tuple[int, int]) -> Figure:
    """The weights of the unit, and the mean image of each digit times them, on one scale."""
    means = class_means(digits)
    products = [jaxnn.weights.contributions(network, x, layer=0)[:, 0] for x in means]
    images = np.stack([network.layers[0].kernel[:, 0], *products]).reshape(-1, *digits.image_shape)
    signals = [float(network.layers[0].signal(x)[0]) for x in means]
    titles = [f"mean {d} times weights\nsignal {signed(s, 1)}" for d, s in zip(pair, signals, strict=True)]
    axes = jaxnn.plot.image_grid(
        images, titles=["weights\n", *titles], signed=True, name="weight, input times weight"
    )
    return titled(axes, "The weights of the hidden unit, and the mean image of each digit times them")


def figure_of_signals(pair: tuple[int, int], by_digit: list[np.ndarray], title: str) -> Figure:
    """Histograms of the signal of the unit, one per digit."""
    figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
    edges = np.histogram_bin_edges(np.concatenate(by_digit), 40).tolist()
    for digit, values, color, hatch in zip(pair, by_digit, (ORANGE, BLUE), ("//", ""), strict=True):
        ax.hist(values, edges, color=color, alpha=0.7, hatch=hatch, edgecolor="white", label=f"digit {digit}")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(xlabel="signal of the unit, before the activation", ylabel="test images")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    run_command(main)
