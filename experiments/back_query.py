"""What does a trained network think each digit is?

The network is trained on handwritten digits the book's way and then asked backwards: each label goes
into the output nodes and travels back through the weights, by their transpose (the book's way) and by
bounded least squares. Beside the two pictures stands the average real digit; under each, what the
network answers when it is shown that picture.
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
from experiments._digits import DataName, Digits, accuracy, load_digits, train_by_the_book
from experiments._options import check_seed
from experiments._results import make_folder, save_results, sizes_of

ROWS = ("transposed weights", "least squares", "average digit")


def main(
    data: DataName = "mnist-5k",
    hidden: tuple[int, ...] = (200,),
    epochs: int = 20,
    rate: float = 0.1,
    seed: int = 0,
    output: Path = Path("results/back_query"),
) -> None:
    """Train a network on digits and show what it thinks each digit is.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: units of each hidden layer.
        epochs: how often each training image is seen.
        rate: the learning rate.
        seed: of the initial weights and the order of the images.
        output: the folder for pictures, numbers and the network.
    """
    check_seed(seed)
    console = Console()
    make_folder(output)  # first: a folder that cannot be had is known at once
    start = time.perf_counter()
    digits = load_digits(data)
    network, history = train_by_the_book(digits, hidden=hidden, epochs=epochs, rate=rate, seed=seed)
    test_accuracy = accuracy(network, digits.test_inputs, digits.test_labels)
    name = sizes_of(network.sizes)
    console.print(f"{name} on {data}: test accuracy {test_accuracy:.4f} after {epochs} epochs")

    pictures = draw(network, digits)
    answers = {row: np.asarray(jaxnn.query(network, x)) for row, x in pictures.items()}
    title = f"What {name} thinks each digit is, and (asked → answered) what it says to the picture"
    jaxnn.save(output / "network.jaxnn", network)
    metrics = {
        "test_accuracy": test_accuracy,
        "training_loss": np.asarray(history.loss).tolist(),
        "answers": {row: y.argmax(axis=1).tolist() for row, y in answers.items()},
        "outputs": {row: y.tolist() for row, y in answers.items()},
        "recognized": {row: recognized(y) for row, y in answers.items()},
        "largest_error": {row: largest_error(y) for row, y in answers.items()},
        "seconds": time.perf_counter() - start,
    }
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "rate": rate, "seed": seed},
        tables=[table_of(answers)],
        figures={
            "pictures": figure_of_pictures(pictures, answers, digits.image_shape, title),
            "answers": figure_of_answers(answers),
            "training": figure_of_training(history),
        },
        metrics=metrics,
    )
    console.print("The network is saved there, too: network.jaxnn")


def draw(network: jaxnn.Network, digits: Digits) -> dict[str, jax.Array]:
    """For each kind of picture the ten digits, `(10, n_in)`."""
    asked = jaxnn.datasets.encode_labels(np.arange(10))
    averages = [jnp.mean(digits.inputs[digits.labels == d], axis=0) for d in range(10)]
    transposed = jaxnn.backquery(network, asked)
    solved = jaxnn.backquery(network, asked, method="least_squares")
    return dict(zip(ROWS, (transposed, solved, jnp.stack(averages)), strict=True))


def recognized(outputs: np.ndarray) -> int:
    """How many of the ten pictures are answered with their own digit."""
    return int(np.sum(outputs.argmax(axis=1) == np.arange(10)))


def largest_error(outputs: np.ndarray) -> float:
    """The largest distance of any output from the 0.99 or 0.01 that was asked for."""
    return float(np.max(np.abs(outputs - jaxnn.datasets.encode_labels(np.arange(10)))))


def table_of(answers: dict[str, np.ndarray]) -> Table:
    """A row a digit, a column a kind of picture."""
    table = Table("asked for", *answers, title="What the network answers to its own pictures")
    for digit in range(10):
        says = [(int(y[digit].argmax()), float(y[digit].max())) for y in answers.values()]
        cells = [f"{a} ({p:.2f}){'' if a == digit else '  ✗'}" for a, p in says]
        table.add_row(str(digit), *cells)
    table.add_section()
    table.add_row("recognized", *(f"{recognized(y)} of 10" for y in answers.values()))
    return table


def figure_of_pictures(
    pictures: dict[str, jax.Array],
    answers: dict[str, np.ndarray],
    shape: tuple[int, int],
    title: str,
) -> Figure:
    """Three rows of ten pictures, each with the digit asked for and what the network says to it."""
    images = jnp.concatenate(list(pictures.values())).reshape(-1, *shape)
    titles = [
        f"{digit} → {y.argmax()} {'✓' if y.argmax() == digit else '✗'} {y.max():.2f}"
        for outputs in answers.values()
        for digit, y in enumerate(outputs)
    ]
    axes = jaxnn.plot.image_grid(images, titles=titles, row_labels=ROWS, limits=(0, 1), name="input")
    figure: Figure = axes[0, 0].figure
    figure.suptitle(title)
    return figure


def figure_of_answers(answers: dict[str, np.ndarray]) -> Figure:
    """For each kind of picture all ten outputs: a row a digit asked for, a column an output."""
    axes = jaxnn.plot.image_grid(
        np.stack(list(answers.values())), titles=list(answers), limits=(0, 1), name="output"
    )
    for ax in axes.ravel().tolist():
        ax.set(xticks=range(10), yticks=range(10), xlabel="output node")
    axes[0, 0].set_ylabel("digit asked for")
    figure: Figure = axes[0, 0].figure
    figure.suptitle("All outputs for each picture")
    return figure


def figure_of_training(history: jaxnn.History) -> Figure:
    """Loss and accuracy, on the training and the test images, epoch by epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    jaxnn.plot.training_curve(history.loss, validation=history.validation_loss, ax=left)
    assert history.accuracy is not None, "ten outputs have an accuracy"
    jaxnn.plot.training_curve(
        history.accuracy, validation=history.validation_accuracy, name="accuracy", ax=right
    )
    figure.suptitle("Training, epoch by epoch")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
