"""When the network is wrong, why?

The misclassified test images are sorted by their largest output: the most confident mistakes come first. The
signal of an output is a sum of contributions, a hidden unit's activation times its weight, so the difference
of the contributions to two outputs shows which units decided between them. The three that contributed most to
the wrong class, and the three that contributed most to the correct one, are drawn as the input times their
weights: blue where the image excites the unit, red where it inhibits it. To test whether the first three
decided, they are removed, and the network is evaluated again. With mnist-5k and eight seeds, 57 to 69 % of
the mistakes were then classified correctly, and 2 to 7 % without three units drawn at random.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, load_digits
from experiments._common.figures import signed
from experiments._common.networks import accuracy, train_sigmoids
from experiments._common.options import check_at_least, check_between, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn.weights import contributions, lesion

K = 3  # units that are shown for each of the two classes


class Mistakes(NamedTuple):
    """Misclassified images.

    Attributes:
        image: `(n,)`, indices of the test images.
        label: `(n,)`.
        prediction: `(n,)`.
        outputs: `(n, 10)`, all outputs.
        difference: `(n, n_hidden)`, the contributions to the predicted class minus those to the correct one.
    """

    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    outputs: np.ndarray
    difference: np.ndarray


def main(
    data: DataName = "mnist-5k",
    hidden: int = 100,
    epochs: int = 10,
    count: int = 8,
    seed: int = 0,
    output: Path = Path("results/mistakes"),
) -> None:
    """Train a network and explain its most confident mistakes.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: number of hidden units, at least 6.
        epochs: number of passes over the training images.
        count: number of mistakes to show, at most 20; fewer if there are fewer.
        seed: of the training.
        output: the folder for pictures, numbers and the network.
    """
    check_seed(seed)
    check_at_least("hidden", hidden, 2 * K)
    check_at_least("epochs", epochs, 1)
    check_between("count", count, 1, 20)
    make_folder(output)
    digits = load_digits(data)
    train_key, random_key = jax.random.split(jax.random.key(seed))
    network = train_sigmoids(train_key, digits, hidden=(hidden,), epochs=epochs)
    mistakes = mistakes_of(network, digits)
    inputs = digits.test_inputs[mistakes.image]
    # The deciding units are removed, and for comparison as many at random.
    removed = {
        "the three deciding units": np.argsort(-mistakes.difference)[:, :K],
        "three at random": random_units(random_key, mistakes.difference),
    }
    repeated = {what: predictions_without(network, inputs, units) for what, units in removed.items()}

    shown = Mistakes(*(values[:count] for values in mistakes))
    jaxnn.save(output / "network.jaxnn", network)
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "count": count, "seed": seed},
        tables=[table_of(shown, repeated), table_of_all(mistakes, repeated)],
        figures={
            "outputs": figure_of_outputs(shown, inputs[:count].reshape(-1, *digits.image_shape)),
            "units": figure_of_units(network, shown, inputs[:count], digits.image_shape),
        },
        metrics={
            "test_accuracy": accuracy(network, digits.test_inputs, digits.test_labels),
            "mistakes": len(mistakes.image),
            "corrected": {what: float(np.mean(p == mistakes.label)) for what, p in repeated.items()},
            **{name: values.tolist() for name, values in shown._asdict().items()},
        },
    )


def mistakes_of(network: jaxnn.Network, digits: Digits) -> Mistakes:
    """The misclassified test images, the most confident prediction first."""
    outputs = np.asarray(jaxnn.query(network, digits.test_inputs))
    wrong = np.flatnonzero(outputs.argmax(axis=1) != digits.test_labels)
    if wrong.size == 0:
        raise ValueError("`epochs` must leave a mistake to explain; every test image is classified correctly")
    image = wrong[np.argsort(-outputs[wrong].max(axis=1), stable=True)]
    label, prediction = digits.test_labels[image], outputs[image].argmax(axis=1)
    to_classes = np.asarray(contributions(network, digits.test_inputs[image]))  # (n, n_hidden, 10)
    each = np.arange(len(image))
    difference = to_classes[each, :, prediction] - to_classes[each, :, label]
    return Mistakes(image, label, prediction, outputs[image], difference)


def random_units(key: jax.Array, difference: np.ndarray) -> np.ndarray:
    """Random hidden units for each mistake, `(n, K)`."""
    return np.asarray(jnp.argsort(jax.random.uniform(key, difference.shape)))[:, :K]


def predictions_without(network: jaxnn.Network, inputs: jax.Array, units: np.ndarray) -> np.ndarray:
    """The predicted class of each input after its units are removed, `(n,)`."""

    def predict(x: jax.Array, removed: jax.Array) -> jax.Array:
        return jnp.argmax(lesion(network, layer="hidden_0", units=removed)(x))

    return np.asarray(jax.vmap(predict)(inputs, jnp.asarray(units)))


def deciding_units(difference: np.ndarray) -> np.ndarray:
    """The top units for the predicted class, then those for the correct class, `(2 K,)`."""
    order = np.argsort(-difference)
    return np.concatenate([order[:K], order[: -K - 1 : -1]])


def table_of(shown: Mistakes, repeated: dict[str, np.ndarray]) -> Table:
    """One row per mistake."""
    table = Table(
        "image", "label (output)", "prediction (output)", "deciding units, differences", "without them"
    )
    table.title = "The most confident mistakes"
    without = next(iter(repeated.values()))
    for (image, label, prediction, outputs, difference), after in zip(
        zip(*shown, strict=True), without, strict=False
    ):
        units = ", ".join(f"{unit}: {signed(difference[unit], 1)}" for unit in deciding_units(difference)[:K])
        values = (f"{digit} ({outputs[digit]:.2f})" for digit in (label, prediction))
        table.add_row(str(image), *values, units, f"{after}{' ✓' if after == label else ''}")
    return table


def table_of_all(mistakes: Mistakes, repeated: dict[str, np.ndarray]) -> Table:
    """One row per kind of removed units."""
    table = Table("removed, for each image", "now correct", "unchanged", "wrong in another way")
    table.title = f"All {len(mistakes.image)} mistakes, evaluated again"
    for what, predictions in repeated.items():
        correct = np.mean(predictions == mistakes.label)
        same = np.mean(predictions == mistakes.prediction)
        table.add_row(what, *(f"{fraction:.0%}" for fraction in (correct, same, 1 - correct - same)))
    return table


def figure_of_outputs(shown: Mistakes, images: jax.Array) -> Figure:
    """Each image, and below it all outputs."""
    columns = min(len(images), 4)
    rows = -(-len(images) // columns)
    figure, cells = plt.subplots(
        2 * rows, columns, figsize=(max(2.9 * columns + 0.4, 5.0), 3.9 * rows), squeeze=False,
        height_ratios=[1.2, 1] * rows, layout="constrained",
    )  # fmt: skip
    titles = [
        f"test image {image}: label {label}, prediction {prediction}"
        for image, label, prediction in zip(shown.image, shown.label, shown.prediction, strict=True)
    ]
    jaxnn.plot.image_grid(images, titles=titles, limits=(0, 1), colorbar=False, axes=cells[::2])
    for ax, label, outputs in zip(cells[1::2].flat, shown.label, shown.outputs, strict=False):
        jaxnn.plot.output_bars(outputs, target=label, ax=ax)
    for ax in list(cells[1::2].flat)[len(images) :]:
        ax.set_axis_off()
    figure.suptitle("The most confident mistakes, and all outputs")
    return figure


def figure_of_units(
    network: jaxnn.Network, shown: Mistakes, inputs: jax.Array, shape: tuple[int, int]
) -> Figure:
    """One row per mistake: the image, and the input times the weights of the deciding units."""
    units = np.stack([deciding_units(each) for each in shown.difference])
    products = np.asarray(contributions(network, inputs, layer="hidden_0"))  # (n, n_in, n_hidden)
    maps = np.take_along_axis(products, units[:, None, :], axis=2).transpose(0, 2, 1)
    titles = [
        f"unit {unit}: {abs(each[unit]):.1f} for {prediction if each[unit] > 0 else label}"
        for row, each, label, prediction in zip(
            units, shown.difference, shown.label, shown.prediction, strict=True
        )
        for unit in row
    ]
    rows = [
        f"label {label},\nprediction\n{prediction}"
        for label, prediction in zip(shown.label, shown.prediction, strict=True)
    ]
    figure, cells = plt.subplots(
        len(units), 1 + 2 * K, figsize=(1.55 * (1 + 2 * K) + 1, 1.75 * len(units) + 0.5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    jaxnn.plot.image_grid(
        inputs.reshape(-1, *shape), row_labels=rows, limits=(0, 1), colorbar=False, axes=cells[:, :1]
    )  # fmt: skip
    high = float(np.quantile(np.abs(maps), 0.995))  # a few large values would wash out the rest
    jaxnn.plot.image_grid(
        maps.reshape(-1, *shape), titles=titles, signed=True, limits=(-high, high),
        name="input times weight", axes=cells[:, 1:],
    )  # fmt: skip
    figure.suptitle(
        "Units that contributed most to the wrong class (left three) and to the correct one (right three)"
    )
    return figure


if __name__ == "__main__":
    run_command(main)
