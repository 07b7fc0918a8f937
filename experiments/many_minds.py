"""Do networks with other seeds think of the same 5?

A hundred networks that differ in their seed alone are trained at once by `vmap`. Each is asked what it
thinks a 5 is: backwards, by the transposed weights and by least squares, and forwards, by its weights
multiplied along all paths from the pixels to the output of the 5, and by a dream, the smooth picture that it
is surest of. For each kind of picture stand five single networks, the average of all and their spread, the
standard deviation of each pixel. How alike two
pictures are says their correlation, over all pairs of networks; how alike two networks are, the share of
test images that they answer alike, whether rightly or not. The pictures by the weights are much alike;
least squares, with a great many inputs to choose from, ends at another one in each network.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._digits import DataName, Digits, load_digits, train_many
from experiments._dreams import average, regularized
from experiments._many import answers_of, falling_sgd
from experiments._options import check_at_least, check_rate, check_seed
from experiments._results import make_folder, save_results, sizes_of, true_minus
from jaxnn import dreaming
from jaxnn.plot import BLUE, ORANGE

KINDS = ("transposed weights", "least squares", "path products", "dream")
COSTS = {"to_mean": 50.0, "smooth": 20.0}  # of a dream; see docs/dreams.md
STEPS = 256  # of a dream
SINGLE = 5  # networks shown one by one


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
    """Train many networks and compare what they think of one digit.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        digit: what they are asked for, 0 to 9.
        networks: how many, at least 2.
        hidden: units of each hidden layer.
        epochs: how often each training image is seen.
        rate: the learning rate at the start; it falls to 0 along half a cosine.
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
    with Console().status("asking them"):
        answers = answers_of(stack, digits.test_inputs)
        pictures = pictures_of(stack, digit)
        pictures[KINDS[-1]] = dreams_of(stack, digit, digits)
    right = answers == digits.test_labels
    shares = agreement(answers)
    real = np.asarray(digits.inputs)[digits.labels == digit].mean(axis=0)
    name = sizes_of((digits.inputs.shape[1], *hidden, 10))
    save_results(
        output,
        settings={
            "data": data, "digit": digit, "networks": networks, "hidden": hidden, "epochs": epochs,
            "rate": rate, "seed": seed,
        },
        tables=[
            table_of_pictures(pictures, real, digit, networks),
            table_of_agreement(answers, digits.test_labels, digit, f"{networks} times {name} on {data}"),
        ],
        figures={
            "pictures": figure_of_pictures(pictures, digits, digit),
            "agreement": figure_of_agreement(right.mean(axis=1), shares, right.shape[1]),
        },
        metrics={
            "accuracies": right.mean(axis=1).tolist(),
            "majority_accuracy": float(np.mean(majority(answers) == digits.test_labels)),
            "agreement": shares.tolist(),
            "correlations": {kind: correlations(images).tolist() for kind, images in pictures.items()},
        },
    )  # fmt: skip


def pictures_of(stack: jaxnn.Network, digit: int) -> dict[str, np.ndarray]:
    """For each kind but the last, each network's picture, `(n_networks, n_in)`; one network at a time."""
    asked = jaxnn.datasets.encode_labels(digit)

    def one(network: jaxnn.Network) -> tuple[jax.Array, ...]:
        backwards = [jaxnn.backquery(network, asked, method=m) for m in ("transpose", "least_squares")]
        return (*backwards, jaxnn.weights.path_products(network)[:, digit])

    return dict(zip(KINDS[:-1], map(np.asarray, jax.lax.map(one, stack)), strict=True))


def dreams_of(stack: jaxnn.Network, digit: int, digits: Digits) -> np.ndarray:
    """The dream of each network, all at once, from the same start and shaken alike: `(n_networks, n_in)`."""
    options = regularized(average(digits), **COSTS)

    def one(network: jaxnn.Network) -> jax.Array:
        return jaxnn.dream(
            dreaming.flattened(network), dreaming.logit(digit), key=jax.random.key(0),
            shape=digits.image_shape, steps=STEPS, **options,
        ).image  # fmt: skip

    return np.asarray(jax.vmap(one)(stack)).reshape(len(stack.layers[0].kernel), -1)


def correlations(images: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of pictures, `(n_pairs,)`."""
    return np.corrcoef(images)[np.triu_indices(len(images), 1)]


def agreement(answers: np.ndarray) -> np.ndarray:
    """The share of images that each pair of networks answers alike, `(n_pairs,)`, of `(n_networks, N)`."""
    # One network against all others at a time: all pairs of answers at once would not fit in memory.
    shares = np.stack([np.mean(answers == one, axis=1) for one in answers])
    return shares[np.triu_indices(len(answers), 1)]


def majority(answers: np.ndarray) -> np.ndarray:
    """What most networks answer to each image; of equal votes the smaller digit."""
    return np.argmax([np.sum(answers == digit, axis=0) for digit in range(10)], axis=0)


def table_of_pictures(pictures: dict[str, np.ndarray], average: np.ndarray, digit: int, count: int) -> Table:
    """How alike the pictures are: a row a kind."""
    title = f"How alike are {count} networks' pictures of a {digit}? (correlations; all: the average)"
    columns = ("picture", "two networks", "lowest", "highest", "one and all")
    table = Table(*columns, f"all and real {digit}s", title=title)
    for kind, images in pictures.items():
        pairs, mean = correlations(images), images.mean(axis=0)
        to_mean = np.mean([np.corrcoef(image, mean)[0, 1] for image in images])
        to_real = np.corrcoef(mean, average)[0, 1]
        values = (pairs.mean(), pairs.min(), pairs.max(), to_mean, to_real)
        table.add_row(kind, *(true_minus(f"{value:.2f}") for value in values))
    return table


def table_of_agreement(answers: np.ndarray, labels: np.ndarray, digit: int, title: str) -> Table:
    """What the networks answer: rightly, alike, and all of them."""
    shares = agreement(answers)
    accuracies = np.mean(answers == labels, axis=1)
    p = accuracies.mean()
    alone = p**2 + (1 - p) ** 2 / 9  # both right, or both wrong with the same of nine digits
    same = np.all(answers == answers[0], axis=0)
    right = same & (answers[0] == labels)
    of_digit = labels == digit
    table = Table("", "%", title=title)
    for name, value in (
        ("accuracy, mean", p),
        ("accuracy, worst network", accuracies.min()),
        ("accuracy, best network", accuracies.max()),
        ("accuracy of the majority", np.mean(majority(answers) == labels)),
        ("two networks answer alike, mean over all pairs", shares.mean()),
        ("the same, if their mistakes had nothing in common", alone),
        ("the two that differ most answer alike", shares.min()),
        ("the two that differ least answer alike", shares.max()),
        ("test images that all answer alike", same.mean()),
        ("test images that all answer rightly", right.mean()),
        (f"images of a {digit} that all answer rightly", right[of_digit].mean()),
    ):
        table.add_row(name, f"{100 * value:.1f}")
    return table


def figure_of_pictures(pictures: dict[str, np.ndarray], digits: Digits, digit: int) -> Figure:
    """A row a kind: single networks, the average, and, on a scale of its own, the spread."""
    single = min(SINGLE, len(pictures[KINDS[0]]))
    size = (1.7 * single + 4.5, 2 * len(pictures))
    figure, grid = plt.subplots(len(pictures), single + 2, figsize=size, layout="constrained")
    for axes, (kind, images) in zip(grid, pictures.items(), strict=True):
        signed = kind == "path products"
        shown = np.concatenate([images[:single], images.mean(axis=0, keepdims=True)])
        titles = [f"network {i}" for i in range(single)] + [f"average of {len(images)}"]
        limit = float(np.abs(shown).max())
        jaxnn.plot.image_grid(
            shown.reshape(-1, *digits.image_shape), axes=axes[:-1], titles=titles, signed=signed,
            limits=(-limit, limit) if signed else (0, 1), name="sum of products" if signed else "input",
        )  # fmt: skip
        axes[0].set_ylabel(kind, fontsize=9)
        jaxnn.plot.image_grid(
            images.std(axis=0).reshape(1, *digits.image_shape), axes=[axes[-1]], titles=["spread"],
            limits=(0, float(images.std(axis=0).max()) or 1.0), name="standard deviation",
        )  # fmt: skip
    figure.suptitle(f"What networks with other seeds think a {digit} is")
    return figure


def figure_of_agreement(accuracies: np.ndarray, shares: np.ndarray, images: int) -> Figure:
    """How the accuracies and the pairs' agreement are spread."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.hist(100 * accuracies, bins=bins_of(accuracies, images), color=BLUE)
    left.set(xlabel="test accuracy of a network, %", ylabel="networks")
    right.hist(100 * shares, bins=bins_of(shares, images), color=BLUE)
    right.axvline(100 * shares.mean(), color=ORANGE, linestyle="--", label="mean")
    right.set(xlabel="test images that two networks answer alike, %", ylabel="pairs of networks")
    right.legend()
    figure.suptitle("How good the networks are, and how often two of them agree")
    return figure


def bins_of(shares: np.ndarray, images: int) -> np.ndarray:
    """About twenty bins, in %, each as wide as the same whole number of images: else some catch more."""
    low, high = np.round(shares.min() * images), np.round(shares.max() * images)
    width = max(1, round((high - low) / 20))
    return 100 * np.arange(low - 0.5, high + width, width) / images


if __name__ == "__main__":
    tyro.cli(main)
