"""How resilient is a network to damage?

A growing fraction of the hidden units, or of the weights, is removed from a trained network: at random, the
strongest first, and the weakest first. The strength of a hidden unit is the Euclidean norm of its outgoing
weights; that of a weight is its absolute value, and each layer loses the same fraction of its weights.
The random order is drawn many times: the line is the mean of the draws, the band covers 90 % of them.
With mnist-5k and eight seeds, removing the weaker half of the weights cost at most 0.006 of accuracy, and
removing the strongest tenth at least 0.3.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, load_digits
from experiments._common.figures import sizes_of
from experiments._common.networks import train_sigmoids
from experiments._common.options import check_at_least, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn.plot import BLUE, ORANGE
from jaxnn.weights import lesion, random_mask

FRACTIONS = np.linspace(0, 1, 21)
SHOWN = [0, 1, 2, 5, 10, 15, 18, 19, 20]  # of the fractions, in the tables
ORDERS = ("random", "strongest first", "weakest first")
AT_ONCE = 5  # draws: what fits into memory on all of MNIST
Mask = Callable[[int, jax.Array], jax.Array]  # (index of a layer, strengths) -> mask of the removed parts


def main(
    data: DataName = "mnist-5k",
    hidden: int = 100,
    epochs: int = 10,
    draws: int = 100,
    seed: int = 0,
    output: Path = Path("results/lesions"),
) -> None:
    """Damage a trained network increasingly, and measure its accuracy.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: number of hidden units.
        epochs: number of passes over the training images.
        draws: number of random orders.
        seed: of the training and of the random orders.
        output: the folder for pictures, numbers and the network.
    """
    check_seed(seed)
    check_at_least("hidden", hidden, 1)
    check_at_least("epochs", epochs, 1)
    check_at_least("draws", draws, 1)
    make_folder(output)
    digits = load_digits(data)
    train_key, lesion_key = jax.random.split(jax.random.key(seed))
    network = train_sigmoids(train_key, digits, hidden=(hidden,), epochs=epochs)
    # (draws, fractions) by what is removed and in which order
    results = {
        (kind, order): accuracies(network, digits, kind, order, lesion_key, draws)
        for kind in DAMAGES
        for order in ORDERS
    }
    jaxnn.save(output / "network.jaxnn", network)
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "draws": draws, "seed": seed},
        tables=[table_of(results, kind) for kind in DAMAGES],
        figures={"accuracy": figure_of(results, sizes_of(network.sizes))},
        metrics={
            "fractions": FRACTIONS.tolist(),
            "accuracy": {
                kind: {order: results[kind, order].mean(axis=0).tolist() for order in ORDERS}
                for kind in DAMAGES
            },
            "band": {kind: band(results[kind, "random"]).tolist() for kind in DAMAGES},
        },
    )


def without_units(network: jaxnn.Network, mask: Mask) -> jaxnn.Network:
    """Remove some of the hidden units."""
    strength = jnp.linalg.norm(network.layers[1].kernel, axis=1)
    return lesion(network, layer=0, units=mask(0, strength))


def without_weights(network: jaxnn.Network, mask: Mask) -> jaxnn.Network:
    """Remove some of the weights of each layer."""
    for index, layer in enumerate(network.layers):
        network = lesion(network, layer=index, weights=mask(index, jnp.abs(layer.kernel)))
    return network


DAMAGES = {"hidden units": without_units, "weights": without_weights}


def removed(order: str, key: jax.Array, fraction: jax.Array, layer: int, strength: jax.Array) -> jax.Array:
    """A mask that selects the given fraction of the parts, in one of the `ORDERS`."""
    if order == "random":
        return random_mask(jax.random.fold_in(key, layer), strength.shape, fraction)
    ranked = jnp.argsort(strength.ravel(), descending=order == "strongest first")
    ranks = jnp.argsort(ranked).reshape(strength.shape)
    return ranks < jnp.round(fraction * strength.size)  # as many as `random_mask` removes


@partial(jax.jit, static_argnames=("kind", "order"))
def accuracies_of(
    keys: jax.Array, network: jaxnn.Network, inputs: jax.Array, labels: jax.Array, *, kind: str, order: str
) -> jax.Array:
    """The accuracy of each damaged network, all at once, `(keys, fractions)`."""

    def one(key: jax.Array, fraction: jax.Array) -> jax.Array:
        damaged = DAMAGES[kind](network, partial(removed, order, key, fraction))
        return jnp.mean(jnp.argmax(damaged(inputs), axis=-1) == labels)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(keys, jnp.asarray(FRACTIONS))


def accuracies(
    network: jaxnn.Network, digits: Digits, kind: str, order: str, key: jax.Array, draws: int
) -> np.ndarray:
    """The accuracies, `(draws, fractions)`; the orders by strength have one draw."""
    keys = jax.random.split(key, draws if order == "random" else 1)
    parts = [keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE)]
    data = (network, digits.test_inputs, jnp.asarray(digits.test_labels))
    description = f"removing {kind}, {order}"
    return np.concatenate(
        [accuracies_of(part, *data, kind=kind, order=order) for part in track(parts, description)]
    )


def band(accuracies: np.ndarray) -> np.ndarray:
    """The 5 % and 95 % quantiles of the draws, `(2, fractions)`."""
    return np.quantile(accuracies, [0.05, 0.95], axis=0)


def table_of(results: dict[tuple[str, str], np.ndarray], kind: str) -> Table:
    """One row per fraction, one column per order; for the random one also the band."""
    headers = (f"{kind} removed", ORDERS[0], "90 % of the draws", *ORDERS[1:])
    table = Table(*headers, title=f"Accuracy without {kind}")
    low, high = band(results[kind, "random"])
    means = [results[kind, order].mean(axis=0) for order in ORDERS]
    for i in SHOWN:
        random, *others = (f"{mean[i]:.3f}" for mean in means)
        table.add_row(f"{FRACTIONS[i]:.0%}", random, f"{low[i]:.2f} to {high[i]:.2f}", *others)
    return table


def figure_of(results: dict[tuple[str, str], np.ndarray], name: str) -> Figure:
    """Accuracy against the fraction removed: units at the left, weights at the right."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    styles = dict(zip(ORDERS, [("black", "-", "o"), (ORANGE, "--", "v"), (BLUE, "-.", "^")], strict=True))
    for ax, kind in zip(axes, DAMAGES, strict=True):
        for order, (color, line, marker) in styles.items():
            mean = results[kind, order].mean(axis=0)
            ax.plot(100 * FRACTIONS, mean, line, color=color, marker=marker, markersize=4, label=order)
        ax.fill_between(
            100 * FRACTIONS, *band(results[kind, "random"]), color="black", alpha=0.2, linewidth=0,
            label="random: 90 % of the draws",
        )  # fmt: skip
        ax.axhline(0.1, color="gray", linewidth=0.8, linestyle=":", label="chance")
        ax.set(xlabel=f"{kind} removed (%)", ylim=(0, 1))
    axes[0].set_ylabel("accuracy on the test images")
    axes[0].legend(fontsize=8)
    figure.suptitle(f"Accuracy of {name} after removing hidden units or weights")
    return figure


if __name__ == "__main__":
    run_command(main)
