"""How little must change for another answer?

A dense network and a convolutional one are attacked: by noise, by one step along the gradient (fgsm), by
many (pgd), and by the strongest of several attacks, each allowed to move every pixel by so much and no more.
Then the smallest change that flips the answer is looked for, digit by digit. Both are done again with
networks that were trained on against pgd, each image being replaced by the worst one near it.

What do the changes look like? A change from a 3 to an 8 is compared, pixel by pixel, with the network's own
back query of an 8 less that of a 3, and with the average 8 less the average 3. To know what of it is mere
chance, each change is also compared with the pair of digits of another image. With mnist-5k and seed 0 the
correlation with the back queries was 0.87, by chance 0.01: what flips the dense network is what it thinks of
the two digits.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Column, Table

import jaxnn
from experiments._cnn import CNN, as_images
from experiments._digits import DataName, Digits, load_digits
from experiments._options import check_at_least, check_rate, check_seed
from experiments._results import make_folder, save_results, true_minus
from jaxnn import attacks
from jaxnn.plot import BLUE, ORANGE

RADII = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
PGD = partial(attacks.pgd, steps=20, step=0.1)
ATTACKS: dict[str, Any] = {
    "noise": attacks.noise,
    "fgsm": attacks.fgsm,
    "pgd": PGD,
    "strongest": attacks.strongest(
        PGD,
        partial(attacks.apgd, steps=20, loss="dlr"),
        attacks.momentum_pgd,
    ),
}
COLORS = {"noise": "#009E73", "fgsm": ORANGE, "pgd": BLUE, "strongest": "#000000"}
MARKERS = {"noise": "s", "fgsm": "^", "pgd": "o", "strongest": "D"}
ADAM = optax.adam(2e-3)
CHUNK = 64  # images at once
COMPARED = 64  # images, of which the changes are compared with back queries
SHOWN = 5  # of these, in the picture
LIMIT = 0.3  # of the colors of a change: nearly all pixels change by less


class Change(NamedTuple):
    """The smallest changes of some images: the inputs found, less the images, the answers, the sizes (l2)."""

    found: np.ndarray
    change: np.ndarray
    answer: np.ndarray
    size: np.ndarray


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
    """Attack two networks, train them against attacks, attack them again, and look at the changes.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: hidden units of the dense network.
        epochs: how often each training image is seen.
        hardening: how often it is seen once more, under attack.
        examples: how many test images are attacked.
        epsilon: how far training moves each pixel, which goes from 0.01 to 1.
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
    # Images that every network answers rightly: else there is nothing to flip.
    right = np.all([answers(network, images) == labels for network in networks.values()], axis=0)
    chosen = np.flatnonzero(right)[:COMPARED]
    if len(chosen) == 0:
        raise SystemExit("no image is answered rightly by every network: try more `epochs` or `examples`")
    changes = {name: smallest(network, images[chosen], labels[chosen]) for name, network in networks.items()}
    alike = {
        name: likeness(network, changes[name], labels[chosen], digits) for name, network in networks.items()
    }
    rows = [int(np.flatnonzero(labels[chosen] == digit)[0]) for digit in np.unique(labels[chosen])]
    save_results(
        output,
        settings={
            "data": data, "hidden": hidden, "epochs": epochs, "hardening": hardening, "examples": examples,
            "epsilon": epsilon, "seed": seed,
        },
        tables=[
            table_of_curves(curves, examples),
            table_of_changes(changes, alike),
        ],
        figures={
            "accuracy": figure_of_curves(curves, epsilon, len(labels)),
            "smallest": figure_of_changes(images[chosen], labels[chosen], changes, rows),
            "meaning": figure_of_meaning(networks, images[chosen], labels[chosen], changes, digits),
        },
        metrics={
            "radii": list(RADII),
            "robust_accuracy": curves,
            "smallest_change_l2": {name: np.median(found.size).item() for name, found in changes.items()},
            "correlations": alike,
        },
    )  # fmt: skip


def train(
    digits: Digits, *, hidden: int, epochs: int, hardening: int, epsilon: float, seed: int
) -> dict[str, Any]:
    """Both networks, and both trained on against pgd: callable pytrees of one image `(h, w, 1)`."""
    images, labels = as_images(digits.inputs, digits), jnp.asarray(digits.labels)
    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = (digits.inputs.shape[1], hidden, 10)
    module = CNN()
    start: dict[str, Any] = {
        "dense": jax.tree_util.Partial(of_image, jaxnn.init(keys[0], sizes, output_activation="identity")),
        "convolutional": jaxnn.from_linen(module, module.init(keys[0], images[0])),
    }
    options: dict[str, Any] = {
        "key": keys[1], "batch_size": 50, "optimizer": ADAM, "loss": jaxnn.losses.cross_entropy,
        "progress": True,
    }  # fmt: skip
    attack = partial(attacks.pgd, epsilon=epsilon, steps=3, step=0.6)
    networks = {}
    for name, network in start.items():
        networks[name], _ = jaxnn.train(network, images, labels, epochs=epochs, **options)
        # The attack is part of the model that is trained: the loss stays what it was.
        attacked = attacks.under_attack(networks[name], attack, key=keys[2])
        trained, _ = jaxnn.train(attacked, (images, labels), labels, epochs=hardening, **options)
        networks[f"{name}, against pgd"] = trained.args[0]
    return networks


def of_image(network: jaxnn.Network, image: jax.Array) -> jax.Array:
    """The dense network's logits for an image `(h, w, 1)`."""
    return network(image.reshape(-1))


def answers(network: Any, images: np.ndarray) -> np.ndarray:
    """The digit that is answered to each image."""
    return np.argmax(jaxnn.map_examples(network, images, batch_size=CHUNK), axis=1)


def smallest(network: Any, images: np.ndarray, labels: np.ndarray) -> Change:
    """The smallest change of each image, in the l2 norm, that any of two attacks finds."""
    found = jaxnn.map_examples(
        jax.tree_util.Partial(_smallest, network, jax.random.key(0)), images, labels, batch_size=CHUNK
    )
    if not found.success.all():
        raise RuntimeError(f"{np.sum(~found.success)} images could not be changed to another answer")
    return Change(found.input, found.input - images, answers(network, found.input), found.distance)


def _smallest(network: Any, key: jax.Array, image: jax.Array, label: jax.Array) -> attacks.Attack:
    both: list[Any] = [attacks.fmn, attacks.deepfool]
    return attacks.minimal_norm(network, image, label, both, norm="l2", key=key)


def likeness(network: Any, changes: Change, labels: np.ndarray, digits: Digits) -> dict[str, float]:
    """The mean correlation of the changes with what tells the two digits apart, by two accounts."""
    pictures = {"average digits": averages(digits)}
    if is_dense(network):
        pictures["back query"] = back_queries(network)
    found = {}
    for name, of_digit in pictures.items():
        wanted = of_digit[changes.answer] - of_digit[labels]
        found[name] = float(np.mean(correlations(changes.change, wanted)))
        by_chance = [
            np.mean(correlations(changes.change, np.roll(wanted, shift, axis=0)))
            for shift in range(1, min(20, len(wanted)))
        ]
        found[f"{name}, of others"] = float(np.mean(by_chance)) if by_chance else 0.0
    return found


def is_dense(network: Any) -> bool:
    """Whether it is the network that can be asked backwards."""
    return getattr(network, "func", None) is of_image


def back_queries(network: Any) -> np.ndarray:
    """What the dense network associates with each digit, `(10, n_in)`."""
    asked = jaxnn.datasets.encode_labels(np.arange(10))
    return np.asarray(jaxnn.backquery(network.args[0], asked))


def averages(digits: Digits) -> np.ndarray:
    """The average training image of each digit, `(10, n_in)`."""
    inputs = np.asarray(digits.inputs)
    return np.stack([inputs[digits.labels == digit].mean(axis=0) for digit in range(10)])


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The correlation over the pixels of each pair of pictures; 0 where one is constant."""
    one, other = (
        a.reshape(len(a), -1) - a.reshape(len(a), -1).mean(axis=1, keepdims=True) for a in (one, other)
    )
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.where(sizes > 0, np.sum(one * other, axis=1) / np.maximum(sizes, 1e-12), 0)


def table_of_curves(curves: dict[str, dict[str, list[float]]], examples: int) -> Table:
    """A row a network and attack, a column a radius."""
    table = Table(Column("network", min_width=22), "attack", *(f"{radius:g}" for radius in RADII))
    table.title = f"Right answers of {examples}, in %, with each pixel moved by at most"
    for name, found in curves.items():
        for i, (attack, shares) in enumerate(found.items()):
            table.add_row("" if i else name, attack, *(f"{100 * share:.1f}" for share in shares))
    return table


def table_of_changes(changes: dict[str, Change], alike: dict[str, dict[str, float]]) -> Table:
    """A row a network: how small a change flips it, and what the change looks like."""
    columns = ("back query", "back query, of others", "average digits", "average digits, of others")
    heads = ("back query", "of others", "averages", "of others")
    table = Table(Column("network", min_width=14), "median l2", *heads)
    table.title = (
        "The smallest changes, and their correlation with the difference of the two digits, or of others"
    )
    for name, found in changes.items():
        cells = [alike[name].get(column) for column in columns]
        shown = ["" if value is None else true_minus(f"{value:.2f}") for value in cells]
        table.add_row(name, f"{np.median(found.size):.2f}", *shown)
    return table


def figure_of_curves(curves: dict[str, dict[str, list[float]]], epsilon: float, examples: int) -> Figure:
    """Right answers against the radius, a panel a network."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
    for ax, (name, found) in zip(axes.T.flat, curves.items(), strict=True):
        for attack, shares in found.items():
            ax.plot(RADII, 100 * np.array(shares), color=COLORS[attack], marker=MARKERS[attack],
                    markersize=4, label=attack)  # fmt: skip
        ax.set_title(name.replace("against", "trained against"))
        ax.grid(color="#E0E0E0")
        if "against" in name:
            ax.axvline(epsilon, color="#808080", linestyle=":", label="radius in training")
            ax.set_xlabel("most that a pixel is moved (full range: 1)")
    for ax in axes[:, 0]:
        ax.set_ylabel("right answers, %")
        ax.set_ylim(-3, 103)
    axes[1, 1].legend()
    figure.suptitle(f"Right answers to {examples} test images under attack; 'strongest' is the best of three")
    return figure


def figure_of_changes(
    images: np.ndarray, labels: np.ndarray, changes: dict[str, Change], rows: list[int]
) -> Figure:
    """The images on top; below, for each network, what flips it, and the change magnified."""
    height = 1 + 2 * len(changes)
    figure, axes = plt.subplots(
        height, len(rows), figsize=(1.05 * len(rows) + 1.4, 1.22 * height + 0.8), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, row in enumerate(rows):
        show(axes[0, column], images[row], f"{labels[row]}")
        for i, found in enumerate(changes.values()):
            show(axes[1 + 2 * i, column], found.found[row], f"{found.answer[row]}, by {found.size[row]:.1f}")
            shades = show_change(axes[2 + 2 * i, column], found.change[row], LIMIT)
    names = ["digit", *(text for name in changes for text in (name.replace(", ", ",\n"), "its change"))]
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.colorbar(shades, ax=axes[1:], shrink=0.4, extend="both", label="change of a pixel (full range: 1)")
    figure.suptitle("The smallest change found that flips each digit: the answer to it, and its size (l2)")
    return figure


def figure_of_meaning(
    networks: dict[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    changes: dict[str, Change],
    digits: Digits,
) -> Figure:
    """Changes of the dense networks beside the difference of the two back queries, each on its own scale."""
    dense = {name: network for name, network in networks.items() if is_dense(network)}
    shown = range(min(SHOWN, len(labels)))
    height = 1 + 2 * len(dense)
    figure, axes = plt.subplots(
        height, len(shown) + 1, figsize=(1.5 * len(shown) + 2.5, 1.6 * height + 0.8), squeeze=False,
        layout="constrained", gridspec_kw={"width_ratios": [0.9, *[1] * len(shown)]},
    )  # fmt: skip
    texts = ["digit", *(text for name in dense for text in (f"{name}:\nthe change", "the two\nback queries"))]
    for ax, text in zip(axes[:, 0], texts, strict=True):
        ax.set_axis_off()
        ax.text(1, 0.5, text, ha="right", va="center", transform=ax.transAxes)
    for column, row in enumerate(shown, start=1):
        show(axes[0, column], images[row], f"{labels[row]}")
        for i, (name, network) in enumerate(dense.items()):
            found, queries = changes[name], back_queries(network)
            apart = queries[found.answer[row]] - queries[labels[row]]
            for ax, picture in zip(axes[1 + 2 * i :, column], (found.change[row], apart), strict=False):
                picture = picture.reshape(digits.image_shape)
                show_change(ax, picture, np.abs(picture).max())
            axes[1 + 2 * i, column].set_title(f"{labels[row]} to {found.answer[row]}", fontsize=9)
    figure.suptitle(
        "The change from one digit to another, and the back query of the new less that of the old\n"
        "blue: more ink, red: less; each picture to its largest value"
    )
    return figure


def show(ax: Any, image: np.ndarray, title: str) -> None:
    """An image, black on white."""
    ax.imshow(image.squeeze(-1), cmap="gray_r", vmin=0, vmax=1)
    bare(ax)
    ax.set_title(title, fontsize=9)


def show_change(ax: Any, change: np.ndarray, limit: float) -> Any:
    """A change: blue for more ink, red for less."""
    shades = ax.imshow(np.squeeze(change), cmap="RdBu", vmin=-limit, vmax=limit)
    bare(ax)
    return shades


def bare(ax: Any) -> None:
    """No ticks."""
    ax.set_xticks([])
    ax.set_yticks([])


if __name__ == "__main__":
    tyro.cli(main)
