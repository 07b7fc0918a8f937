"""When the network is wrong, why?

Of the test images that it answers wrongly, those with the highest output come first: the most confident
mistakes. What pushes towards an answer is a sum of contributions, a hidden unit's activation times its
weight, so the difference of two answers' contributions says which units decided between them. The three that
spoke most for the wrong answer, and the three that spoke most for the right one, are drawn as the input times
their weights: blue where the image excites the unit, red where it holds it back. Whether the first three
decided is put to the test: they are removed, and the network is asked again. With mnist-5k and eight seeds it
then answered 57 to 69 % of its mistakes rightly, and without three units drawn by lot 2 to 7 %.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._digits import DataName, Digits, accuracy, load_digits, train_sigmoids
from experiments._options import check_at_least, check_between, check_seed
from experiments._results import make_folder, save_results
from experiments._weights import signed
from jaxnn.weights import contributions, lesion

K = 3  # units that are shown for each of the two answers


class Mistakes(NamedTuple):
    """Images that are answered wrongly.

    Attributes:
        image: `(n,)`, their indices among the test images.
        right: `(n,)`, the labels.
        wrong: `(n,)`, the answers.
        outputs: `(n, 10)`, all outputs.
        lead: `(n, n_hidden)`, each hidden unit's contribution to the wrong answer less that to the right one.
    """

    image: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    outputs: np.ndarray
    lead: np.ndarray


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
        hidden: hidden units, at least 6.
        epochs: how often each training image is seen.
        count: how many mistakes to show, at most 20; fewer if it makes fewer.
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
    found = mistakes_of(network, digits)
    inputs = digits.test_inputs[found.image]
    # The units that decided are removed, and for comparison as many by lot.
    removed = {
        "the three units that decided": np.argsort(-found.lead)[:, :K],
        "three by lot": by_lot(random_key, found.lead),
    }
    answers = {what: answers_without(network, inputs, units) for what, units in removed.items()}

    shown = Mistakes(*(values[:count] for values in found))
    jaxnn.save(output / "network.jaxnn", network)
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "count": count, "seed": seed},
        tables=[table_of(shown, answers), table_of_all(found, answers)],
        figures={
            "answers": figure_of_answers(shown, inputs[:count].reshape(-1, *digits.image_shape)),
            "units": figure_of_units(network, shown, inputs[:count], digits.image_shape),
        },
        metrics={
            "test_accuracy": accuracy(network, digits.test_inputs, digits.test_labels),
            "mistakes": len(found.image),
            "mended": {what: float(np.mean(given == found.right)) for what, given in answers.items()},
            **{name: values.tolist() for name, values in shown._asdict().items()},
        },
    )


def mistakes_of(network: jaxnn.Network, digits: Digits) -> Mistakes:
    """The test images that are answered wrongly, the most confident answer first."""
    outputs = np.asarray(jaxnn.query(network, digits.test_inputs))
    wrong = np.flatnonzero(outputs.argmax(axis=1) != digits.test_labels)
    if wrong.size == 0:
        raise ValueError("`epochs` must leave a mistake to explain; every test image is answered rightly")
    image = wrong[np.argsort(-outputs[wrong].max(axis=1), stable=True)]
    right, answer = digits.test_labels[image], outputs[image].argmax(axis=1)
    pushes = np.asarray(contributions(network, digits.test_inputs[image]))  # (n, n_hidden, 10)
    each = np.arange(len(image))
    lead = pushes[each, :, answer] - pushes[each, :, right]
    return Mistakes(image, right, answer, outputs[image], lead)


def by_lot(key: jax.Array, lead: np.ndarray) -> np.ndarray:
    """For each mistake some hidden units at random, `(n, K)`."""
    return np.asarray(jnp.argsort(jax.random.uniform(key, lead.shape)))[:, :K]


def answers_without(network: jaxnn.Network, inputs: jax.Array, units: np.ndarray) -> np.ndarray:
    """What the network answers to each input without the units that are named for it, `(n,)`."""

    def answer(x: jax.Array, removed: jax.Array) -> jax.Array:
        return jnp.argmax(lesion(network, layer="hidden_0", units=removed)(x))

    return np.asarray(jax.vmap(answer)(inputs, jnp.asarray(units)))


def deciding_units(lead: np.ndarray) -> np.ndarray:
    """The units that spoke most for the wrong answer, then those most for the right one, `(2 K,)`."""
    order = np.argsort(-lead)
    return np.concatenate([order[:K], order[: -K - 1 : -1]])


def table_of(shown: Mistakes, answers: dict[str, np.ndarray]) -> Table:
    """A row a mistake."""
    table = Table(
        "image", "is a (output)", "says (output)", "units that decided, by how much", "without them"
    )
    table.title = "The most confident mistakes"
    without = next(iter(answers.values()))
    for (image, right, wrong, outputs, lead), after in zip(zip(*shown, strict=True), without, strict=False):
        units = ", ".join(f"{unit}: {signed(lead[unit], 1)}" for unit in deciding_units(lead)[:K])
        values = (f"{digit} ({outputs[digit]:.2f})" for digit in (right, wrong))
        table.add_row(str(image), *values, units, f"{after}{' ✓' if after == right else ''}")
    return table


def table_of_all(found: Mistakes, answers: dict[str, np.ndarray]) -> Table:
    """A row for each kind of units removed."""
    table = Table("removed, for each image", "now right", "as wrong as before", "wrong in another way")
    table.title = f"All {len(found.image)} mistakes, asked again"
    for what, given in answers.items():
        right, same = np.mean(given == found.right), np.mean(given == found.wrong)
        table.add_row(what, *(f"{share:.0%}" for share in (right, same, 1 - right - same)))
    return table


def figure_of_answers(shown: Mistakes, images: jax.Array) -> Figure:
    """Each image, and under it all outputs."""
    columns = min(len(images), 4)
    rows = -(-len(images) // columns)
    figure, cells = plt.subplots(
        2 * rows, columns, figsize=(max(2.9 * columns + 0.4, 5.0), 3.9 * rows), squeeze=False,
        height_ratios=[1.2, 1] * rows, layout="constrained",
    )  # fmt: skip
    titles = [f"test image {n}" for n in shown.image]
    titles = [
        f"{t}: a {r}, taken for a {w}" for t, r, w in zip(titles, shown.right, shown.wrong, strict=True)
    ]
    jaxnn.plot.image_grid(images, titles=titles, limits=(0, 1), colorbar=False, axes=cells[::2])
    for ax, right, outputs in zip(cells[1::2].flat, shown.right, shown.outputs, strict=False):
        jaxnn.plot.output_bars(outputs, answer=right, ax=ax)
    for ax in list(cells[1::2].flat)[len(images) :]:
        ax.set_axis_off()
    figure.suptitle("The most confident mistakes, and all outputs")
    return figure


def figure_of_units(
    network: jaxnn.Network, shown: Mistakes, inputs: jax.Array, shape: tuple[int, int]
) -> Figure:
    """A row a mistake: the image, and the input times weights of the units that decided."""
    units = np.stack([deciding_units(lead) for lead in shown.lead])
    pushes = np.asarray(contributions(network, inputs, layer="hidden_0"))  # (n, n_in, n_hidden)
    maps = np.take_along_axis(pushes, units[:, None, :], axis=2).transpose(0, 2, 1)
    titles = [
        f"unit {unit}: {abs(lead[unit]):.1f} for {wrong if lead[unit] > 0 else right}"
        for row, lead, right, wrong in zip(units, shown.lead, shown.right, shown.wrong, strict=True)
        for unit in row
    ]
    rows = [
        f"a {right},\ntaken\nfor a {wrong}" for right, wrong in zip(shown.right, shown.wrong, strict=True)
    ]
    figure, cells = plt.subplots(
        len(units), 1 + 2 * K, figsize=(1.55 * (1 + 2 * K) + 1, 1.75 * len(units) + 0.5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    jaxnn.plot.image_grid(
        inputs.reshape(-1, *shape), row_labels=rows, limits=(0, 1), colorbar=False, axes=cells[:, :1]
    )  # fmt: skip
    high = float(np.quantile(np.abs(maps), 0.995))  # a few pixels would make all others pale
    jaxnn.plot.image_grid(
        maps.reshape(-1, *shape), titles=titles, signed=True, limits=(-high, high),
        name="input times weight", axes=cells[:, 1:],
    )  # fmt: skip
    figure.suptitle(
        "Units that spoke most for the wrong answer (left three) and for the right one (right three)"
    )
    return figure


if __name__ == "__main__":
    tyro.cli(main)
