"""What does a trained network think each digit is?

The network is trained on handwritten digits the book's way and then queried backwards: each label is
propagated from the output nodes back through the weights, by their transpose (the book's way) and by
bounded least squares. The third row shows the mean image of each digit. Above each picture is the network's
prediction for it.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._common.digits import DataName, Digits, class_means, load_digits
from experiments._common.figures import sizes_of, titled
from experiments._common.networks import accuracy, train_by_the_book
from experiments._common.options import check_seed, make_folder
from experiments._common.results import save_results

ROWS = ("transposed weights", "least squares", "average digit")


def main(
    data: DataName = "mnist-5k",
    hidden: tuple[int, ...] = (200,),
    epochs: int = 20,
    rate: float = 0.1,
    seed: int = 0,
    output: Path = Path("results/back_query"),
) -> None:
    """Train a network on digits and draw the back query of each digit.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: units of each hidden layer.
        epochs: number of passes over the training images.
        rate: the learning rate.
        seed: of the initial weights and the order of the images.
        output: the folder for pictures, numbers and the network.
    """
    check_seed(seed)
    console = Console()
    make_folder(output)  # first: an error here costs no training
    start = time.perf_counter()
    digits = load_digits(data)
    network, history = train_by_the_book(digits, hidden=hidden, epochs=epochs, rate=rate, seed=seed)
    test_accuracy = accuracy(network, digits.test_inputs, digits.test_labels)
    name = sizes_of(network.sizes)
    console.print(f"{name} on {data}: test accuracy {test_accuracy:.4f} after {epochs} epochs")

    pictures = draw(network, digits)
    outputs = {row: np.asarray(jaxnn.query(network, x)) for row, x in pictures.items()}
    title = f"What {name} thinks each digit is, and (digit → prediction) the output for each picture"
    jaxnn.save(output / "network.jaxnn", network)
    metrics = {
        "test_accuracy": test_accuracy,
        "training_loss": np.asarray(history.loss).tolist(),
        "predictions": {row: y.argmax(axis=1).tolist() for row, y in outputs.items()},
        "outputs": {row: y.tolist() for row, y in outputs.items()},
        "recognized": {row: recognized(y) for row, y in outputs.items()},
        "largest_error": {row: largest_error(y) for row, y in outputs.items()},
        "seconds": time.perf_counter() - start,
    }
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "rate": rate, "seed": seed},
        tables=[table_of(outputs)],
        figures={
            "pictures": figure_of_pictures(pictures, outputs, digits.image_shape, title),
            "outputs": figure_of_outputs(outputs),
            "training": figure_of_training(history),
        },
        metrics=metrics,
    )
    console.print("The network is saved there as network.jaxnn")


def draw(network: jaxnn.Network, digits: Digits) -> dict[str, jax.Array]:
    """The pictures of the ten digits, by kind, `(10, n_in)`."""
    targets = jaxnn.datasets.encode_labels(np.arange(10))
    transposed = jaxnn.backquery(network, targets)
    solved = jaxnn.backquery(network, targets, method="least_squares")
    return dict(zip(ROWS, (transposed, solved, class_means(digits)), strict=True))


def recognized(outputs: np.ndarray) -> int:
    """The number of pictures whose prediction is their own digit."""
    return int(np.sum(outputs.argmax(axis=1) == np.arange(10)))


def largest_error(outputs: np.ndarray) -> float:
    """The largest absolute difference of any output from its target, 0.99 or 0.01."""
    return float(np.max(np.abs(outputs - jaxnn.datasets.encode_labels(np.arange(10)))))


def table_of(outputs: dict[str, np.ndarray]) -> Table:
    """One row per digit, one column per kind of picture."""
    table = Table("target digit", *outputs, title="Predictions for the network's own pictures")
    for digit in range(10):
        predictions = [(int(y[digit].argmax()), float(y[digit].max())) for y in outputs.values()]
        cells = [f"{a} ({p:.2f}){'' if a == digit else '  ✗'}" for a, p in predictions]
        table.add_row(str(digit), *cells)
    table.add_section()
    table.add_row("recognized", *(f"{recognized(y)} of 10" for y in outputs.values()))
    return table


def figure_of_pictures(
    pictures: dict[str, jax.Array],
    outputs: dict[str, np.ndarray],
    shape: tuple[int, int],
    title: str,
) -> Figure:
    """Three rows of ten pictures, each with its target digit and the prediction."""
    images = jnp.concatenate(list(pictures.values())).reshape(-1, *shape)
    titles = [
        f"{digit} → {y.argmax()} {'✓' if y.argmax() == digit else '✗'} {y.max():.2f}"
        for rows in outputs.values()
        for digit, y in enumerate(rows)
    ]
    axes = jaxnn.plot.image_grid(images, titles=titles, row_labels=ROWS, limits=(0, 1), name="input")
    return titled(axes, title)


def figure_of_outputs(outputs: dict[str, np.ndarray]) -> Figure:
    """All ten outputs for each kind of picture: one row per target digit, one column per output."""
    axes = jaxnn.plot.image_grid(
        np.stack(list(outputs.values())), titles=list(outputs), limits=(0, 1), name="output"
    )
    for ax in axes.ravel().tolist():
        ax.set(xticks=range(10), yticks=range(10), xlabel="output node")
    axes[0, 0].set_ylabel("target digit")
    return titled(axes, "All outputs for each picture")


def figure_of_training(history: jaxnn.History) -> Figure:
    """Loss and accuracy per epoch, on the training and the test images."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    jaxnn.plot.training_curve(history.loss, validation=history.validation_loss, ax=left)
    assert history.accuracy is not None, "ten outputs have an accuracy"
    jaxnn.plot.training_curve(
        history.accuracy, validation=history.validation_accuracy, name="accuracy", ax=right
    )
    figure.suptitle("Loss and accuracy per epoch")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
