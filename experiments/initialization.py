"""What do a good initialization and regularization change?

Weights drawn from a normal distribution of standard deviation 1, independent of the size of the layer, are
compared with weights scaled by 1 / sqrt(n_in); each without and with weight decay. Unscaled weights saturate
the sigmoids, and the initial noise hides what training adds. `jaxnn.weights.roughness` measures a weight
image independent of its scale: about 1 for noise, near 0 for a smooth image. The decay pulls each weight, but
no bias, towards 0. On mnist-5k the initialization has the larger effect; on all of MNIST, with its many more
steps, the decay removes the noise as well.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, load_digits
from experiments._common.figures import quartiles
from experiments._common.networks import FAN_IN_NORMAL, accuracies, train_many
from experiments._common.options import check_at_least, check_rate, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn.plot import BLUE

UNSCALED = jax.nn.initializers.normal(1.0)
WORST, BEST = "unscaled, no decay", "scaled, decay"  # shown side by side
SHOWN = 30  # images of each


class Kind(NamedTuple):
    """Results of one way to train: `(seeds,)`, `(seeds,)`, `(seeds, hidden, h, w)`, `(seeds, hidden)`."""

    test_accuracy: np.ndarray
    training_accuracy: np.ndarray
    images: np.ndarray
    roughness: np.ndarray


def main(
    data: DataName = "mnist-5k",
    hidden: int = 30,
    seeds: int = 10,
    epochs: int = 10,
    rate: float = 3.0,
    decay: float = 1e-4,
    seed: int = 0,
    output: Path = Path("results/initialization"),
) -> None:
    """Train networks from unscaled and scaled weights, without and with decay, and draw the weights.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: number of hidden units.
        seeds: number of networks of each kind, trained at once.
        epochs: number of passes over the training images.
        rate: the learning rate.
        decay: the weight decay, relative to the learning rate; above 0.
        seed: of the seeds.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    make_folder(output)
    for name, value in (("hidden", hidden), ("seeds", seeds), ("epochs", epochs)):
        check_at_least(name, value, 1)
    check_rate("rate", rate)
    check_rate("decay", decay)
    digits = load_digits(data)
    plain = optax.sgd(rate)
    decaying = optax.chain(optax.add_decayed_weights(decay, mask=is_kernel), plain)
    kinds = {
        WORST: (UNSCALED, plain),
        "unscaled, decay": (UNSCALED, decaying),
        "scaled, no decay": (FAN_IN_NORMAL, plain),
        BEST: (FAN_IN_NORMAL, decaying),
    }
    kinds_trained = {}
    for name, (kernel_init, optimizer) in track(kinds.items(), f"training {seeds} of each kind"):
        stack = train_many(
            seeds, seed, digits, hidden=(hidden,), epochs=epochs, kernel_init=kernel_init, optimizer=optimizer
        )
        kinds_trained[name] = measure(stack, digits)
    save_results(
        output,
        settings={
            "data": data, "hidden": hidden, "seeds": seeds, "epochs": epochs, "rate": rate, "decay": decay,
            "seed": seed,
        },
        tables=[table_of(kinds_trained, f"{seeds} networks of each kind, {hidden} hidden units, on {data}")],
        figures={
            "weights": figure_of_weights(kinds_trained, own_scale=False),
            "weights_rescaled": figure_of_weights(kinds_trained, own_scale=True),
            "numbers": figure_of_numbers(kinds_trained),
        },
        metrics={
            name: {
                "test_accuracy": kind.test_accuracy.tolist(),
                "training_accuracy": kind.training_accuracy.tolist(),
                "roughness": kind.roughness.tolist(),
            }
            for name, kind in kinds_trained.items()
        },
    )  # fmt: skip


def is_kernel(parameters: optax.Params) -> optax.Params:
    """True for the matrices, False for the biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, parameters)


def measure(stack: jaxnn.Network, digits: Digits) -> Kind:
    """The accuracies, the weight images, and their roughness."""
    images = jax.vmap(lambda network: jaxnn.weights.kernel_images(network, digits.image_shape))(stack)
    return Kind(
        accuracies(stack, digits.test_inputs, digits.test_labels),
        accuracies(stack, digits.inputs, digits.labels),
        np.asarray(images),
        np.asarray(jaxnn.weights.roughness(images)),
    )


def table_of(kinds: dict[str, Kind], title: str) -> Table:
    """One row per kind."""
    columns = ("initial weights", "test (worst to best)", "training", "roughness (quartiles)")
    table = Table(*columns, "median |weight|", title=title)
    for name, kind in kinds.items():
        test, (low, middle, high) = kind.test_accuracy, quartiles(kind.roughness)
        table.add_row(
            name,
            f"{np.median(test):.3f} ({test.min():.3f} to {test.max():.3f})",
            f"{np.median(kind.training_accuracy):.3f}",
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
            f"{np.median(np.abs(kind.images)):.3f}",
        )
    return table


def figure_of_weights(kinds: dict[str, Kind], *, own_scale: bool) -> Figure:
    """The first network of the two extremes side by side, with the roughness of each unit."""
    images = {name: kinds[name].images[0][:SHOWN] for name in (WORST, BEST)}
    scales = {name: np.quantile(np.abs(image), 0.99) for name, image in images.items()}
    limit = 1.0 if own_scale else max(scales.values())
    count = len(images[WORST])
    columns = min(5, count)
    rows = -(-count // columns)
    figure = plt.figure(figsize=(11.5, max(1.05 * rows + 1.2, 3.6)), layout="constrained")
    halves: Any = figure.subfigures(1, 2, wspace=0.04)
    for half, (name, image) in zip(halves, images.items(), strict=True):
        axes = half.subplots(rows, columns, squeeze=False)
        scale = scales[name] if own_scale else 1.0
        titles = [f"{value:.2f}" for value in kinds[name].roughness[0][:SHOWN]]
        jaxnn.plot.image_grid(
            image / scale, signed=True, limits=(-limit, limit), titles=titles, axes=axes,
            name="weight / 99th percentile" if own_scale else "weight",
        )  # fmt: skip
        half.suptitle(f"{name}\n99 % of the weights within ±{scales[name]:.2f}", fontsize=11)
    scale_text = "each network on its own scale" if own_scale else "on one scale"
    shown = f"the first {SHOWN} hidden units" if kinds[WORST].images.shape[1] > SHOWN else "the hidden units"
    figure.suptitle(f"The weights of {shown}, {scale_text}, and their roughness (noise: 1)")
    return figure


def figure_of_numbers(kinds: dict[str, Kind]) -> Figure:
    """The accuracies of all networks, and the roughness of all images."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    draw_points(left, {name: kind.test_accuracy for name, kind in kinds.items()})
    left.set(xlabel="test accuracy", ylabel="initial weights")
    draw_points(right, {name: kind.roughness.ravel() for name, kind in kinds.items()})
    right.set(xlabel="roughness of a weight image (noise: 1)", yticklabels=[], xlim=(0, None))
    figure.suptitle("The accuracy of each network, and the roughness of each hidden unit (lines: quartiles)")
    return figure


def draw_points(ax: Axes, rows: dict[str, np.ndarray]) -> None:
    """One row of points per name, with median and quartiles."""
    for height, values in enumerate(rows.values()):
        # Spread vertically, so that equal values do not hide each other.
        ax.plot(values, height + np.linspace(-0.2, 0.2, values.size), ".", color=BLUE, alpha=0.4)
        ax.plot(quartiles(values), [height + 0.32] * 3, "|-", color="black", markersize=10)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()


if __name__ == "__main__":
    run_command(main)
