"""How little must change to flip a prediction?

A dense network and a convolutional one are attacked: by random noise, by one gradient step (fgsm), by many
(pgd), and by the strongest of several attacks, each within a bound on the change of every pixel.
Then the smallest change that flips the prediction is computed for each digit. Both are repeated with networks
after adversarial training against pgd, in which each image is replaced by the worst one near it.

What do the changes look like? A change from a 3 to an 8 is compared, pixel by pixel, with the network's own
back query of an 8 minus that of a 3, and with the mean 8 minus the mean 3. To estimate the correlation by
chance, each change is also compared with the pair of digits of another image. With mnist-5k and seed 0 the
correlation with the back queries was 0.87, by chance 0.01: what flips the dense network is its own image of
the two digits.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Column, Table

import jaxnn
from experiments._common.cnn import Model, init_cnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, as_images, class_means, load_digits
from experiments._common.figures import true_minus
from experiments._common.options import check_at_least, check_rate, check_seed, make_folder
from experiments._common.results import save_results
from experiments._parts.adversarial_figures import (
    RADII,
    Change,
    Curves,
    figure_of_changes,
    figure_of_curves,
    figure_of_meaning,
)
from jaxnn import attacks

PGD = partial(attacks.pgd, steps=20, relative_step_size=0.1)
ATTACKS: dict[str, Callable[..., attacks.Attack]] = {
    "noise": attacks.noise,
    "fgsm": attacks.fgsm,
    "pgd": PGD,
    "strongest": attacks.strongest(
        PGD,
        partial(attacks.apgd, steps=20, loss="dlr"),
        attacks.momentum_pgd,
    ),
}
ADAM = optax.adam(2e-3)
CHUNK = 64  # images at once
COMPARED = 64  # images whose changes are compared with back queries


def main(
    data: DataName = "mnist-5k",
    hidden: int = 100,
    epochs: int = 6,
    hardening: int = 3,
    examples: int = 128,
    epsilon: float = 0.1,
    seed: int = 0,
    output: Path = Path("results/adversarial"),
) -> None:
    """Attack two networks, train them against attacks, attack them again, and draw the changes.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: number of hidden units of the dense network.
        epochs: number of passes over the training images.
        hardening: number of further passes, under attack.
        examples: number of test images to attack.
        epsilon: largest change of each pixel in training; pixels range from 0.01 to 1.
        seed: of the training and of the attacks.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    check_at_least("hidden", hidden, 1)
    check_at_least("epochs", epochs, 1)
    check_at_least("hardening", hardening, 1)
    check_at_least("examples", examples, 1)
    check_rate("epsilon", epsilon)
    make_folder(output)
    digits = load_digits(data)
    networks = train(digits, hidden=hidden, epochs=epochs, hardening=hardening, epsilon=epsilon, seed=seed)
    images = np.asarray(as_images(digits.test_inputs[:examples], digits))
    labels = digits.test_labels[:examples]
    key = jax.random.key(seed)
    curves = {}
    for name, network in networks.items():
        with Console().status(f"attacking the {name} network"):
            curves[name] = {
                each: attacks.robust_accuracy(
                    network, images, labels, attack, RADII, batch_size=CHUNK, key=key
                ).tolist()
                for each, attack in ATTACKS.items()
            }
    # Only images that every network classifies correctly: otherwise there is nothing to flip.
    correct = np.all([predictions(network, images) == labels for network in networks.values()], axis=0)
    chosen = np.flatnonzero(correct)[:COMPARED]
    if len(chosen) == 0:
        raise SystemExit("no image is classified correctly by every network: increase `epochs` or `examples`")
    changes = {
        name: smallest_changes(network, images[chosen], labels[chosen]) for name, network in networks.items()
    }
    queries = {name: back_queries(network) for name, network in networks.items() if is_dense(network)}
    means = np.asarray(class_means(digits))
    similarity = {
        name: correlations_with(
            {"average digits": means} | ({"back query": queries[name]} if name in queries else {}),
            change, labels[chosen],
        )
        for name, change in changes.items()
    }  # fmt: skip
    rows = [int(np.flatnonzero(labels[chosen] == digit)[0]) for digit in np.unique(labels[chosen])]
    save_results(
        output,
        settings={
            "data": data, "hidden": hidden, "epochs": epochs, "hardening": hardening, "examples": examples,
            "epsilon": epsilon, "seed": seed,
        },
        tables=[table_of_curves(curves, examples), table_of_changes(changes, similarity)],
        figures={
            "accuracy": figure_of_curves(curves, epsilon, len(labels)),
            "smallest": figure_of_changes(images[chosen], labels[chosen], changes, rows),
            "meaning": figure_of_meaning(queries, images[chosen], labels[chosen], changes),
        },
        metrics={
            "radii": list(RADII),
            "robust_accuracy": curves,
            "smallest_change_l2": {name: np.median(each.size).item() for name, each in changes.items()},
            "correlations": similarity,
        },
    )  # fmt: skip


def train(
    digits: Digits, *, hidden: int, epochs: int, hardening: int, epsilon: float, seed: int
) -> dict[str, Model]:
    """Both networks, before and after adversarial training: callable pytrees of one image `(h, w, 1)`."""
    images, labels = as_images(digits.inputs, digits), jnp.asarray(digits.labels)
    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = (digits.inputs.shape[1], hidden, 10)
    start: dict[str, Model] = {
        "dense": jax.tree_util.Partial(of_image, jaxnn.init(keys[0], sizes, output_activation="identity")),
        "convolutional": init_cnn(keys[0], images[0]),
    }
    options: dict[str, Any] = {
        "key": keys[1], "batch_size": 50, "optimizer": ADAM, "loss": jaxnn.losses.cross_entropy,
        "progress": True,
    }  # fmt: skip
    attack = partial(attacks.pgd, epsilon=epsilon, steps=3, relative_step_size=0.6)
    networks = {}
    for name, network in start.items():
        networks[name], _ = jaxnn.train(network, images, labels, epochs=epochs, **options)
        # The attack is part of the trained model, so that the loss function is unchanged.
        attacked = attacks.under_attack(networks[name], attack, key=keys[2])
        trained, _ = jaxnn.train(attacked, (images, labels), labels, epochs=hardening, **options)
        networks[f"{name}, against pgd"] = trained.args[0]
    return networks


def of_image(network: jaxnn.Network, image: jax.Array) -> jax.Array:
    """The dense network's logits for an image `(h, w, 1)`."""
    return network(image.reshape(-1))


def predictions(network: Model, images: np.ndarray) -> np.ndarray:
    """The predicted class of each image."""
    return np.argmax(jaxnn.map_examples(network, images, batch_size=CHUNK), axis=1)


def smallest_changes(network: Model, images: np.ndarray, labels: np.ndarray) -> Change:
    """Minimum-norm attack: the smaller change (l2) of two attacks, for each image."""
    result = jaxnn.map_examples(
        jax.tree_util.Partial(_smallest_change, network, jax.random.key(0)), images, labels, batch_size=CHUNK
    )
    if not result.success.all():
        raise RuntimeError(f"no attack flips the prediction of {np.sum(~result.success)} images")
    return Change(result.input, result.input - images, predictions(network, result.input), result.distance)


def _smallest_change(network: Model, key: jax.Array, image: jax.Array, label: jax.Array) -> attacks.Attack:
    both: list[Callable[..., attacks.Attack]] = [attacks.fmn, attacks.deepfool]
    return attacks.minimal_norm(network, image, label, both, norm="l2", key=key)


def correlations_with(
    references: dict[str, np.ndarray], changes: Change, labels: np.ndarray
) -> dict[str, float]:
    """The mean correlation of the changes with the difference of two digits' reference images.

    Args:
        references: by name, an image of each digit, `(10, n_in)`.
        changes: of some images.
        labels: of these images.

    Returns:
        The mean correlation by name; and under "NAME, of others" that with the digits of other images.
    """
    means = {}
    for name, of_digit in references.items():
        difference = of_digit[changes.prediction] - of_digit[labels]
        means[name] = float(np.mean(correlations(changes.change, difference)))
        by_chance = [
            np.mean(correlations(changes.change, np.roll(difference, shift, axis=0)))
            for shift in range(1, min(20, len(difference)))
        ]
        means[f"{name}, of others"] = float(np.mean(by_chance)) if by_chance else 0.0
    return means


def is_dense(network: Model) -> bool:
    """Whether it is the dense network, for which back queries are defined."""
    return getattr(network, "func", None) is of_image


def back_queries(network: Model) -> np.ndarray:
    """The back query of each digit in the dense network, `(10, n_in)`."""
    assert isinstance(network, jax.tree_util.Partial), "see is_dense"
    return np.asarray(jaxnn.backquery(network.args[0], jaxnn.datasets.encode_labels(np.arange(10))))


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's correlation over the pixels of each pair of images; 0 if one is constant."""
    one, other = (
        a.reshape(len(a), -1) - a.reshape(len(a), -1).mean(axis=1, keepdims=True) for a in (one, other)
    )
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.where(sizes > 0, np.sum(one * other, axis=1) / np.maximum(sizes, 1e-12), 0)


def table_of_curves(curves: Curves, examples: int) -> Table:
    """One row per network and attack, one column per radius."""
    table = Table(Column("network", min_width=22), "attack", *(f"{radius:g}" for radius in RADII))
    table.title = f"Accuracy on {examples} images, in %, by the largest change of each pixel"
    for name, by_attack in curves.items():
        for i, (attack, accuracies) in enumerate(by_attack.items()):
            table.add_row("" if i else name, attack, *(f"{100 * value:.1f}" for value in accuracies))
    return table


def table_of_changes(changes: dict[str, Change], similarity: dict[str, dict[str, float]]) -> Table:
    """One row per network: the size of the smallest changes, and their correlations."""
    columns = ("back query", "back query, of others", "average digits", "average digits, of others")
    heads = ("back query", "of others", "averages", "of others")
    table = Table(Column("network", min_width=14), "median l2", *heads)
    table.title = (
        "The smallest changes, and their correlation with the difference of the two digits, or of others"
    )
    for name, each in changes.items():
        cells = [similarity[name].get(column) for column in columns]
        shown = ["" if value is None else true_minus(f"{value:.2f}") for value in cells]
        table.add_row(name, f"{np.median(each.size):.2f}", *shown)
    return table


if __name__ == "__main__":
    run_command(main)
