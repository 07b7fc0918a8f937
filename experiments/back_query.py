"""What does a trained network think each digit is?

The network is trained on handwritten digits the book's way and then queried backwards, in four ways. Two
propagate each label from the output nodes back through the weights: by their transpose (the book's way) and
by bounded least squares. Two have a prior, which knows from the training images what inputs look like, but
not their labels: the best linear estimate (pattern) and the most typical input (typical; "surer" asks for
2.5 times the signal). The last row shows the mean image of each digit. A second network of another shape and
another seed judges each picture, and so do the five nearest training images.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, class_means, load_digits
from experiments._common.figures import image_table, sizes_of, titled
from experiments._common.networks import accuracy, train_by_the_book, train_judge
from experiments._common.options import check_seed, make_folder
from experiments._common.readings import DIGITS, N_NEAREST, nearest
from experiments._common.results import save_results

ROWS = ("transposed weights", "least squares", "pattern", "typical", "surer", "average digit")
FIRST = ("typical", "surer", "transposed weights")  # rows of the first figure


class Reading(NamedTuple):
    """What is read in ten pictures, by the network and by others."""

    outputs: np.ndarray  # (10, 10), of the network itself
    judged: np.ndarray  # (10,), the prediction of the second network
    nearest: np.ndarray  # (10,), the most frequent label of the nearest training images
    distance: np.ndarray  # (10,), to the nearest training image
    typicality: np.ndarray  # (10,), the squared Mahalanobis distance to the nearest component of the prior


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
    with ThreadPoolExecutor() as pool:  # the network is trained on one core
        judge_of = pool.submit(train_judge, digits, seed)
        prior_of = pool.submit(jaxnn.prior, digits.inputs, key=jax.random.key(seed))
        network, history = train_by_the_book(digits, hidden=hidden, epochs=epochs, rate=rate, seed=seed)
    judge, prior = judge_of.result(), prior_of.result()
    test_accuracy = accuracy(network, digits.test_inputs, digits.test_labels)
    name = sizes_of(network.sizes)
    console.print(f"{name} on {data}: test accuracy {test_accuracy:.4f} after {epochs} epochs")
    judge_accuracy = accuracy(judge, digits.test_inputs, digits.test_labels)
    console.print(f"{sizes_of(judge.sizes)}, the judge: test accuracy {judge_accuracy:.4f}")

    pictures, shortfall = draw(network, prior, digits)
    readings = {row: read(x, network, judge, prior, digits) for row, x in pictures.items()}
    tests = digits.test_inputs[:100]
    jaxnn.save(output / "network.jaxnn", network)
    metrics = {
        "test_accuracy": test_accuracy,
        "judge_accuracy": judge_accuracy,
        "training_loss": np.asarray(history.loss).tolist(),
        "predictions": {row: r.outputs.argmax(axis=1).tolist() for row, r in readings.items()},
        "outputs": {row: r.outputs.tolist() for row, r in readings.items()},
        "recognized": {row: count(r.outputs.argmax(axis=1)) for row, r in readings.items()},
        "judged": {row: count(r.judged) for row, r in readings.items()},
        "nearest": {row: count(r.nearest) for row, r in readings.items()},
        "distance": {row: r.distance.tolist() for row, r in readings.items()},
        "typicality": {row: r.typicality.tolist() for row, r in readings.items()},
        "largest_error": {row: largest_error(r.outputs) for row, r in readings.items()},
        "shortfall": shortfall.tolist(),
        "seconds": time.perf_counter() - start,
    }
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "rate": rate, "seed": seed},
        tables=[
            table_of_predictions(readings),
            table_of_readings(readings, nearest(tests, digits)[1], typicality(tests, prior)),
        ],
        figures={
            "pictures": figure_of_pictures(FIRST, pictures, readings, digits.image_shape, name),
            "deviations": figure_of_deviations(pictures, digits),
            "others": figure_of_pictures(
                [row for row in ROWS if row not in FIRST], pictures, readings, digits.image_shape, name
            ),
            "outputs": figure_of_outputs(readings),
            "training": figure_of_training(history),
        },
        metrics=metrics,
    )
    console.print("The network is saved there as network.jaxnn")


def draw(
    network: jaxnn.Network, prior: jaxnn.Prior, digits: Digits
) -> tuple[dict[str, jax.Array], np.ndarray]:
    """The pictures of the ten digits by kind, `(10, n_in)`, and how far typical ones miss their requests."""
    targets = jaxnn.datasets.encode_labels(DIGITS)
    with ThreadPoolExecutor() as pool:  # each compiles on one core
        typical_of = pool.submit(jaxnn.backquery, network, targets, method="typical", prior=prior)
        others = (
            jaxnn.backquery(network, targets),
            jaxnn.backquery(network, targets, method="least_squares"),
            jaxnn.backquery(network, targets, method="pattern", prior=digits.inputs),
        )
    typical = typical_of.result()
    pictures = (*others, typical.x, typical.surer, class_means(digits))
    return dict(zip(ROWS, pictures, strict=True)), np.asarray(typical.shortfall)


def read(
    x: jax.Array, network: jaxnn.Network, judge: jaxnn.Network, prior: jaxnn.Prior, digits: Digits
) -> Reading:
    """What the network, the judge, the nearest training images and the prior say of ten pictures."""
    outputs = np.asarray(jaxnn.query(network, x))
    judged = np.asarray(jaxnn.query(judge, x)).argmax(axis=1)
    return Reading(outputs, judged, *nearest(x, digits), typicality(x, prior))


def typicality(x: jax.Array, prior: jaxnn.Prior) -> np.ndarray:
    """The squared Mahalanobis distance to the nearest component of the prior, `(n,)`."""
    return np.asarray(_typicality(x, prior))


@jax.jit
def _typicality(x: jax.Array, prior: jaxnn.Prior) -> jax.Array:
    return jnp.min(jax.vmap(prior.distances)(x), axis=1)


def count(predictions: np.ndarray) -> int:
    """The number of pictures whose prediction is their own digit."""
    return int(np.sum(predictions == DIGITS))


def largest_error(outputs: np.ndarray) -> float:
    """The largest absolute difference of any output from its target, 0.99 or 0.01."""
    return float(np.max(np.abs(outputs - jaxnn.datasets.encode_labels(DIGITS))))


def table_of_predictions(readings: dict[str, Reading]) -> Table:
    """One row per digit, one column per kind of picture."""
    columns = [row.replace("transposed weights", "transpose") for row in readings]  # fits 80 columns
    table = Table("digit", *columns, title="The network's predictions for its own pictures")
    for digit in range(10):
        outputs = [r.outputs[digit] for r in readings.values()]
        predictions = [(int(y.argmax()), float(y.max())) for y in outputs]
        cells = [f"{a} {p:.2f}{'' if a == digit else ' ✗'}" for a, p in predictions]
        table.add_row(str(digit), *cells)
    table.add_section()
    recognized = [count(r.outputs.argmax(axis=1)) for r in readings.values()]
    table.add_row("correct", *(f"{number} of 10" for number in recognized))
    return table


def table_of_readings(readings: dict[str, Reading], distance: np.ndarray, typical: np.ndarray) -> Table:
    """One row per kind of picture: who reads its digit, and how far it is from data; at last, test images."""
    table = Table(
        "picture", "network itself", "judge", f"{N_NEAREST} nearest", "distance to the nearest", "typicality",
        title="Who reads the requested digit (of 10), and medians of distances: small is near to the data",
    )  # fmt: skip
    for row, r in readings.items():
        counts = [str(count(labels)) for labels in (r.outputs.argmax(axis=1), r.judged, r.nearest)]
        table.add_row(row, *counts, f"{np.median(r.distance):.1f}", f"{np.median(r.typicality):.0f}")
    table.add_section()
    table.add_row("test images", "", "", "", f"{np.median(distance):.1f}", f"{np.median(typical):.0f}")
    return table


def figure_of_pictures(
    rows: Sequence[str],
    pictures: dict[str, jax.Array],
    readings: dict[str, Reading],
    shape: tuple[int, int],
    name: str,
) -> Figure:
    """Rows of ten pictures, each with its target digit, the prediction, and that of the judge."""
    images = np.concatenate([np.asarray(pictures[row]) for row in rows]).reshape(-1, *shape)
    titles = [
        f"{digit} → {y.argmax()} {mark(y.argmax() == digit)} {y.max():.2f}\n"
        f"judge: {judged} {mark(judged == digit)}"
        for row in rows
        for digit, y, judged in zip(DIGITS, readings[row].outputs, readings[row].judged, strict=True)
    ]
    drawn = image_table(images, titles, rows, limits=(0, 1), name="input")
    return titled(drawn, f"What {name} thinks each digit is: digit → its output; what a second network reads")


def mark(right: bool | np.bool_) -> str:
    """Whether a prediction is right."""
    return "✓" if right else "✗"


def figure_of_deviations(pictures: dict[str, jax.Array], digits: Digits) -> Figure:
    """Three rows of ten differences: what the network adds to the look of the data."""
    drawn = {row: np.asarray(x) for row, x in pictures.items()}
    differences = {
        "pattern less the mean image": drawn["pattern"] - np.asarray(digits.inputs).mean(axis=0),
        "typical less the average digit": drawn["typical"] - drawn["average digit"],
        "surer less typical": drawn["surer"] - drawn["typical"],
    }
    images = np.concatenate(list(differences.values())).reshape(-1, *digits.image_shape)
    table = image_table(
        images, [str(digit) for digit in DIGITS] * len(differences), list(differences),
        signed=True, limits=(-1, 1), name="difference of inputs",
    )  # fmt: skip
    return titled(table, "What differs: what goes with each digit (blue), and against it (red)")


def figure_of_outputs(readings: dict[str, Reading]) -> Figure:
    """All ten outputs for each kind of picture: a row per target digit, a column per output."""
    outputs = np.stack([r.outputs for r in readings.values()])
    axes = ["down: target digit 0 to 9\nacross: output 0 to 9"]
    drawn = image_table(outputs, list(readings), axes, limits=(0, 1), name="output", cell=1.4)
    return titled(drawn, "All outputs for each picture")


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
    run_command(main)
