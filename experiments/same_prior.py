"""How much of a typical picture is the network's, and how much the prior's?

A back query with a prior knows what images look like, so its pictures could look like digits for any network.
The same prior is therefore asked of several networks of one shape: two that differ only in their seed, one
that was trained adversarially, networks that were trained on shuffled labels, and untrained ones. A picture
that belongs to the network changes with it. The table gives the distance to the pictures of the first
network, relative to the mean distance between that network's pictures of two digits, and what a second
network, the nearest training images and the nearest class mean say. For networks with shuffled labels and for
untrained ones they must read digits no better than by chance.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, class_means, load_digits
from experiments._common.figures import sizes_of, titled
from experiments._common.networks import falling_sgd, predictions_of, train_judge, train_sigmoids
from experiments._common.options import check_at_least, check_rate, check_seed, make_folder
from experiments._common.readings import DIGITS, nearest
from experiments._common.results import save_results
from jaxnn import attacks

METHODS = ("typical", "surer", "pattern")
TRAINED, OTHER, HARDENED = "trained", "other seed", "adversarial"
SHUFFLED, UNTRAINED = "shuffled", "untrained"
EPSILON = 0.1  # of adversarial training, l-inf


class Reading(NamedTuple):
    """Fractions of pictures that are read as the requested digit, and a distance."""

    own: float  # by the network itself
    judged: float  # by the second network
    nearest: float  # by the nearest training images
    mean: float  # by the nearest class mean
    difference: float  # from the pictures of the first network, relative to that between its digits


def main(
    data: DataName = "mnist-5k",
    controls: int = 10,
    hidden: int = 200,
    epochs: int = 10,
    rate: float = 1.0,
    seed: int = 0,
    output: Path = Path("results/same_prior"),
) -> None:
    """Ask networks that were trained in different ways for typical pictures, with one prior.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        controls: number of networks with shuffled labels, and of untrained ones.
        hidden: hidden units of each network.
        epochs: number of passes over the training images.
        rate: the initial learning rate; it decays to 0 along half a cosine.
        seed: of all networks, and of the prior.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    for name, count in (("controls", controls), ("hidden", hidden), ("epochs", epochs)):
        check_at_least(name, count, 1)
    check_rate("rate", rate)
    make_folder(output)
    digits = load_digits(data)
    with Console().status("training the networks"):
        stacks = train_all(digits, controls=controls, hidden=hidden, epochs=epochs, rate=rate, seed=seed)
        judge = train_judge(digits, seed)
    prior = jaxnn.prior(digits.inputs, key=jax.random.key(seed))
    with Console().status("drawing the pictures"):
        pictures = {name: pictures_of(stack, prior, digits) for name, stack in stacks.items()}
    accuracy = {
        name: float(np.mean(predictions_of(stack, digits.test_inputs) == digits.test_labels))
        for name, stack in stacks.items()
    }
    readings = {
        name: {
            method: read(x, pictures[TRAINED][method][0], stacks[name], judge, digits)
            for method, x in each.items()
        }
        for name, each in pictures.items()
    }
    shape = sizes_of((digits.inputs.shape[1], hidden, 10))
    save_results(
        output,
        settings={
            "data": data, "controls": controls, "hidden": hidden, "epochs": epochs, "rate": rate,
            "seed": seed,
        },
        tables=[table_of_readings(readings, accuracy, controls, f"{shape} on {data}")],
        figures={method: figure_of(method, pictures, digits, shape) for method in METHODS},
        metrics={
            "accuracy": accuracy,
            "readings": {
                name: {method: reading._asdict() for method, reading in each.items()}
                for name, each in readings.items()
            },
        },
    )  # fmt: skip


def train_all(
    digits: Digits, *, controls: int, hidden: int, epochs: int, rate: float, seed: int
) -> dict[str, jaxnn.Network]:
    """Stacks of networks by how they were trained: one network each, and `controls` of the last two."""
    keys = jax.random.split(jax.random.key(seed), 6)
    optimizer = falling_sgd(rate, epochs, digits)
    train = partial(train_sigmoids, hidden=(hidden,), epochs=epochs, optimizer=optimizer, progress=False)
    trained, other = train(keys[0], digits), train(keys[1], digits)
    attack = partial(attacks.pgd, epsilon=EPSILON, steps=3, relative_step_size=0.6)
    attacked = attacks.under_attack(trained, attack, key=keys[2])
    hardened = jaxnn.train(
        attacked, (digits.inputs, jnp.asarray(digits.labels)), digits.targets, key=keys[3], epochs=epochs,
        batch_size=10, optimizer=optimizer,
    )[0].args[0]  # fmt: skip

    def with_shuffled_labels(key: jax.Array) -> jaxnn.Network:
        order_key, key = jax.random.split(key)
        return train(key, digits._replace(targets=jax.random.permutation(order_key, digits.targets)))

    sizes = (digits.inputs.shape[1], hidden, 10)
    single = {TRAINED: trained, OTHER: other, HARDENED: hardened}
    return {name: jax.tree.map(lambda leaf: leaf[None], network) for name, network in single.items()} | {
        SHUFFLED: jax.vmap(with_shuffled_labels)(jax.random.split(keys[4], controls)),
        UNTRAINED: jax.vmap(lambda key: jaxnn.init(key, sizes))(jax.random.split(keys[5], controls)),
    }


def pictures_of(stack: jaxnn.Network, prior: jaxnn.Prior, digits: Digits) -> dict[str, np.ndarray]:
    """The pictures of the ten digits by method, `(n_networks, 10, n_in)`."""
    targets = jaxnn.datasets.encode_labels(DIGITS)

    def one(network: jaxnn.Network) -> tuple[jax.Array, ...]:
        typical = jaxnn.backquery(network, targets, method="typical", prior=prior)
        return (
            typical.x,
            typical.surer,
            jaxnn.backquery(network, targets, method="pattern", prior=digits.inputs),
        )

    return dict(zip(METHODS, map(np.asarray, jax.lax.map(one, stack)), strict=True))


def read(
    pictures: np.ndarray, first: np.ndarray, stack: jaxnn.Network, judge: jaxnn.Network, digits: Digits
) -> Reading:
    """What is read in the pictures `(n_networks, 10, n_in)`, and their distance from the first network's."""
    flat = pictures.reshape(-1, pictures.shape[-1])
    means = np.asarray(class_means(digits))
    to_means = np.linalg.norm(flat[:, None] - means, axis=-1)
    labels = (
        np.asarray(jax.vmap(jaxnn.query)(stack, pictures)).argmax(axis=-1),
        np.asarray(jaxnn.query(judge, flat)).argmax(axis=-1),
        nearest(flat, digits)[0],
        to_means.argmin(axis=-1),
    )
    between = np.linalg.norm(first[:, None] - first, axis=-1)[~np.eye(10, dtype=bool)].mean()
    difference = np.linalg.norm(pictures - first, axis=-1).mean() / between
    own, judged, close, mean = (float(np.mean(each.reshape(-1, 10) == DIGITS)) for each in labels)
    return Reading(own, judged, close, mean, float(difference))


def table_of_readings(
    readings: dict[str, dict[str, Reading]], accuracy: dict[str, float], controls: int, title: str
) -> Table:
    """One row per kind of network and method."""
    table = Table(
        "network", "accuracy", "picture", "itself", "judge", "nearest", "mean", "differs",
        title=f"{title}: pictures read as the requested digit, in %, and their difference from the first "
        f"network's; {controls} networks each with shuffled labels and untrained, by chance "
        f"10 ± {100 * np.sqrt(0.09 / (10 * controls)):.0f} %",
    )  # fmt: skip
    for name, each in readings.items():
        for i, (method, reading) in enumerate(each.items()):
            head = ("", "") if i else (name, f"{100 * accuracy[name]:.1f} %")
            shares = (f"{100 * share:.0f}" for share in reading[:4])
            table.add_row(*head, method, *shares, f"{reading.difference:.2f}")
    return table


def figure_of(method: str, pictures: dict[str, dict[str, np.ndarray]], digits: Digits, shape: str) -> Figure:
    """One row per kind of network, of its first network; at last the class means."""
    rows = {name: each[method][0] for name, each in pictures.items()}
    rows["average digit"] = np.asarray(class_means(digits))
    images = np.concatenate(list(rows.values())).reshape(-1, *digits.image_shape)
    titles = [str(digit) for digit in DIGITS] + [""] * (10 * (len(rows) - 1))
    axes = jaxnn.plot.image_grid(images, titles=titles, row_labels=list(rows), limits=(0, 1), name="input")
    return titled(axes, f"One prior, and networks {shape} that were trained in different ways: {method}")


if __name__ == "__main__":
    run_command(main)
