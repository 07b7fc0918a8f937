"""Do networks with other seeds think of the same 5?

A hundred networks that differ only in their seed are trained at once by `vmap`. Each draws its 5 in four
ways: back queries by the transposed weights and by least squares, the products of the weights along all paths
from the pixels to the output of the 5, and a regularized dream. For each kind of picture five single networks
are shown, the mean of all, and the standard deviation of each pixel. The similarity of two pictures is their
correlation, over all pairs of networks; the similarity of two networks is the fraction of test images with
equal predictions, correct or not. The pictures by the weights are similar; least squares, which has a great
many solutions, finds a different one in each network.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, class_means, load_digits, mean_image
from experiments._common.dreams import regularized
from experiments._common.figures import sizes_of, true_minus
from experiments._common.networks import falling_sgd, predictions_of, train_many
from experiments._common.options import check_at_least, check_rate, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn import dreaming
from jaxnn.plot import BLUE, ORANGE

KINDS = ("transposed weights", "least squares", "path products", "dream")
PENALTIES = {"to_mean": 50.0, "smooth": 20.0}  # of a dream; see docs/dreams.md
STEPS = 256  # of a dream
SINGLE = 5  # networks that are shown individually


def main(
    data: DataName = "mnist-5k",
    digit: int = 5,
    networks: int = 100,
    hidden: tuple[int, ...] = (30,),
    epochs: int = 10,
    rate: float = 3.0,
    seed: int = 0,
    output: Path = Path("results/many_minds"),
) -> None:
    """Train many networks and compare their pictures of one digit.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        digit: the class of the pictures, 0 to 9.
        networks: number of networks, at least 2.
        hidden: units of each hidden layer.
        epochs: number of passes over the training images.
        rate: the initial learning rate; it decays to 0 along half a cosine.
        seed: of the seeds.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    make_folder(output)
    if not 0 <= digit <= 9:
        raise ValueError(f"`digit` must be from 0 to 9; got {digit}")
    check_at_least("networks", networks, 2)
    check_at_least("epochs", epochs, 1)
    for size in hidden:
        check_at_least("hidden", size, 1)
    check_rate("rate", rate)
    digits = load_digits(data)
    optimizer = falling_sgd(rate, epochs, digits)
    with Console().status(f"training {networks} networks at once"):
        stack = train_many(networks, seed, digits, hidden=hidden, epochs=epochs, optimizer=optimizer)
        jax.block_until_ready(stack)
    with Console().status("computing predictions and pictures"):
        predictions = predictions_of(stack, digits.test_inputs)
        pictures = pictures_of(stack, digit)
        pictures[KINDS[-1]] = dreams_of(stack, digit, digits)
    correct = predictions == digits.test_labels
    agreeing = agreement(predictions)
    real = np.asarray(class_means(digits)[digit])
    name = sizes_of((digits.inputs.shape[1], *hidden, 10))
    save_results(
        output,
        settings={
            "data": data, "digit": digit, "networks": networks, "hidden": hidden, "epochs": epochs,
            "rate": rate, "seed": seed,
        },
        tables=[
            table_of_pictures(pictures, real, digit, networks),
            table_of_agreement(predictions, digits.test_labels, digit, f"{networks} times {name} on {data}"),
        ],
        figures={
            "pictures": figure_of_pictures(pictures, digits, digit),
            "agreement": figure_of_agreement(correct.mean(axis=1), agreeing, correct.shape[1]),
        },
        metrics={
            "accuracies": correct.mean(axis=1).tolist(),
            "majority_accuracy": float(np.mean(majority(predictions) == digits.test_labels)),
            "agreement": agreeing.tolist(),
            "correlations": {kind: correlations(images).tolist() for kind, images in pictures.items()},
        },
    )  # fmt: skip


def pictures_of(stack: jaxnn.Network, digit: int) -> dict[str, np.ndarray]:
    """The picture of each network, `(n_networks, n_in)`, by kind except the last; one network at a time."""
    target = jaxnn.datasets.encode_labels(digit)

    def one(network: jaxnn.Network) -> tuple[jax.Array, ...]:
        backwards = [jaxnn.backquery(network, target, method=m) for m in ("transpose", "least_squares")]
        return (*backwards, jaxnn.weights.path_products(network)[:, digit])

    return dict(zip(KINDS[:-1], map(np.asarray, jax.lax.map(one, stack)), strict=True))


def dreams_of(stack: jaxnn.Network, digit: int, digits: Digits) -> np.ndarray:
    """The dream of each network, `(n_networks, n_in)`, with equal start and equal transforms."""
    options = regularized(mean_image(digits), **PENALTIES)

    def one(network: jaxnn.Network) -> jax.Array:
        return jaxnn.dream(
            dreaming.flattened(network), dreaming.logit(digit), key=jax.random.key(0),
            shape=digits.image_shape, steps=STEPS, **options,
        ).image  # fmt: skip

    return np.asarray(jax.vmap(one)(stack)).reshape(len(stack.layers[0].kernel), -1)


def correlations(images: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of pictures, `(n_pairs,)`."""
    return np.corrcoef(images)[np.triu_indices(len(images), 1)]


def agreement(predictions: np.ndarray) -> np.ndarray:
    """The fraction of images with equal predictions, by pair: `(n_networks, N) -> (n_pairs,)`."""
    # One network against all others at a time: all pairs at once would not fit into memory.
    equal = np.stack([np.mean(predictions == one, axis=1) for one in predictions])
    return equal[np.triu_indices(len(predictions), 1)]


def majority(predictions: np.ndarray) -> np.ndarray:
    """The most frequent prediction for each image; ties go to the smaller digit."""
    return np.argmax([np.sum(predictions == digit, axis=0) for digit in range(10)], axis=0)


def table_of_pictures(pictures: dict[str, np.ndarray], average: np.ndarray, digit: int, count: int) -> Table:
    """The similarity of the pictures: one row per kind."""
    title = f"Correlations of {count} networks' pictures of a {digit} (all: their mean)"
    columns = ("picture", "two networks", "lowest", "highest", "one and all")
    table = Table(*columns, f"all and real {digit}s", title=title)
    for kind, images in pictures.items():
        pairs, mean = correlations(images), images.mean(axis=0)
        to_mean = np.mean([np.corrcoef(image, mean)[0, 1] for image in images])
        to_real = np.corrcoef(mean, average)[0, 1]
        values = (pairs.mean(), pairs.min(), pairs.max(), to_mean, to_real)
        table.add_row(kind, *(true_minus(f"{value:.2f}") for value in values))
    return table


def table_of_agreement(predictions: np.ndarray, labels: np.ndarray, digit: int, title: str) -> Table:
    """Accuracy of the networks, and agreement of pairs and of all."""
    agreeing = agreement(predictions)
    accuracies = np.mean(predictions == labels, axis=1)
    p = accuracies.mean()
    independent = p**2 + (1 - p) ** 2 / 9  # both correct, or both wrong with the same of nine digits
    same = np.all(predictions == predictions[0], axis=0)
    correct = same & (predictions[0] == labels)
    of_digit = labels == digit
    table = Table("", "%", title=title)
    for name, value in (
        ("accuracy, mean", p),
        ("accuracy, worst network", accuracies.min()),
        ("accuracy, best network", accuracies.max()),
        ("accuracy of the majority", np.mean(majority(predictions) == labels)),
        ("agreement of two networks, mean over all pairs", agreeing.mean()),
        ("the same, if their errors were independent", independent),
        ("lowest agreement of two networks", agreeing.min()),
        ("highest agreement of two networks", agreeing.max()),
        ("test images on which all networks agree", same.mean()),
        ("test images that all classify correctly", correct.mean()),
        (f"images of a {digit} that all classify correctly", correct[of_digit].mean()),
    ):
        table.add_row(name, f"{100 * value:.1f}")
    return table


def figure_of_pictures(pictures: dict[str, np.ndarray], digits: Digits, digit: int) -> Figure:
    """One row per kind: single networks, the mean, and on its own scale the standard deviation."""
    single = min(SINGLE, len(pictures[KINDS[0]]))
    size = (1.7 * single + 4.5, 2 * len(pictures))
    figure, grid = plt.subplots(len(pictures), single + 2, figsize=size, layout="constrained")
    for axes, (kind, images) in zip(grid, pictures.items(), strict=True):
        signed = kind == "path products"
        shown = np.concatenate([images[:single], images.mean(axis=0, keepdims=True)])
        titles = [f"network {i}" for i in range(single)] + [f"mean of {len(images)}"]
        limit = float(np.abs(shown).max())
        jaxnn.plot.image_grid(
            shown.reshape(-1, *digits.image_shape), axes=axes[:-1], titles=titles, signed=signed,
            limits=(-limit, limit) if signed else (0, 1), name="sum of products" if signed else "input",
        )  # fmt: skip
        axes[0].set_ylabel(kind, fontsize=9)
        jaxnn.plot.image_grid(
            images.std(axis=0).reshape(1, *digits.image_shape), axes=[axes[-1]], titles=["deviation"],
            limits=(0, float(images.std(axis=0).max()) or 1.0), name="standard deviation",
        )  # fmt: skip
    figure.suptitle(f"What networks with other seeds think a {digit} is")
    return figure


def figure_of_agreement(accuracies: np.ndarray, agreeing: np.ndarray, images: int) -> Figure:
    """Histograms of the accuracies and of the agreement of pairs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.hist(100 * accuracies, bins=bins_of(accuracies, images), color=BLUE)
    left.set(xlabel="test accuracy of a network, %", ylabel="networks")
    right.hist(100 * agreeing, bins=bins_of(agreeing, images), color=BLUE)
    right.axvline(100 * agreeing.mean(), color=ORANGE, linestyle="--", label="mean")
    right.set(xlabel="test images with equal predictions of two networks, %", ylabel="pairs of networks")
    right.legend()
    figure.suptitle("The accuracy of the networks, and the agreement of pairs")
    return figure


def bins_of(fractions: np.ndarray, images: int) -> np.ndarray:
    """About twenty bins, in %, each of the same integer number of images, so that all have equal width."""
    low, high = np.round(fractions.min() * images), np.round(fractions.max() * images)
    width = max(1, round((high - low) / 20))
    return 100 * np.arange(low - 0.5, high + width, width) / images


if __name__ == "__main__":
    run_command(main)
