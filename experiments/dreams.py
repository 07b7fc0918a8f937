"""What would a network most like to see?

Asked backwards, a network shows what its weights associate with an answer. Here it is asked forwards: a
picture is changed, step by step, until the network is as sure of a digit as it can be. A plain dream does
nothing else, and comes out as noise that convinces the network more than any real digit. A regularized one
is shaken at every step, has to be smooth, and pays for its distance from the average training image: a person
begins to see what the network sees. Both are made for a dense network and for a convolutional one.
Then every unit of a hidden layer dreams at once, a dream is watched as it appears, and real digits are
changed until a layer of the convolutional network sees more of whatever it sees in them.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._cnn import cnn_accuracy, train_cnn
from experiments._digits import DataName, Digits, accuracy, load_digits, train_by_the_book
from experiments._dreams import (
    PLAIN,
    average,
    distance_to_nearest,
    dream_each,
    regularized,
    smoothness,
)
from experiments._options import check_at_least
from experiments._results import make_folder, save_results
from jaxnn import dreaming, plot

# What nearness to the average image and smoothness cost, in units of the logit; see docs/dreams.md.
COSTS = {"dense": (50.0, 20.0), "convolutional": (100.0, 40.0)}
STRIP = (0, 8, 16, 32, 64, 128, 256, 512)  # steps shown of a dream
DEEP = (0, 16, 32, 64, 128, 256)  # steps shown of a real digit
LAYERS = ("Conv_0", "Conv_1")
EVERY = 8  # steps between two frames


class Row(NamedTuple):
    """Ten pictures of a kind, and what is known of them."""

    images: jax.Array  # (10, h, w)
    probabilities: np.ndarray  # (10, 10): for each picture the network's answer
    smoothness: np.ndarray  # (10,)
    distance: np.ndarray  # (10,)


def main(
    data: DataName = "mnist-5k",
    hidden: int = 200,
    epochs: int = 20,
    cnn_epochs: int = 6,
    steps: int = 512,
    digit: int = 5,
    seed: int = 0,
    output: Path = Path("results/dreams"),
) -> None:
    """Train two networks and let them dream.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: hidden units of the dense network.
        epochs: how often each training image is seen by the dense network.
        cnn_epochs: how often by the convolutional one.
        steps: of each dream.
        digit: whose dream is watched as it appears, 0 to 9.
        seed: of the networks and the dreams.
        output: the folder for pictures and numbers.
    """
    make_folder(output)
    for name, value in (("hidden", hidden), ("epochs", epochs), ("cnn_epochs", cnn_epochs)):
        check_at_least(name, value, 1)
    check_at_least("steps", steps, EVERY)
    if not 0 <= digit <= 9:
        raise ValueError(f"`digit` must be from 0 to 9; got {digit}")
    console = Console()
    digits = load_digits(data)
    dense, _ = train_by_the_book(digits, hidden=(hidden,), epochs=epochs, rate=0.1, seed=seed)
    cnn = train_cnn(digits, epochs=cnn_epochs, seed=seed)
    models = {
        "dense": dreaming.flattened(dense),
        "convolutional": jax.tree_util.Partial(with_a_channel, cnn),
    }
    key, mean = jax.random.key(seed), average(digits)
    options = {name: regularized(mean, to_mean=a, smooth=b) for name, (a, b) in COSTS.items()}
    with console.status("dreaming"):
        dreams = {
            (name, kind): dream_each(
                model, 10, key, digits.image_shape, steps=steps,
                record_every=EVERY, **(PLAIN if kind == "plain" else options[name]),
            )
            for name, model in models.items()
            for kind in ("plain", "regularized")
        }  # fmt: skip
        rows = rows_of(dense, models, dreams, digits)
        units = dreams_of_units(models["dense"], hidden, digits, steps=steps, **options["dense"])
        seen = digits.test_inputs.reshape(-1, *digits.image_shape)
        chosen = [int(np.flatnonzero(digits.test_labels == d)[0]) for d in (2, 4, 7)]
        deep = {
            layer: deepened(models["convolutional"], layer, seen[jnp.array(chosen)], key) for layer in LAYERS
        }
    best = best_of_training(models, digits)
    values = {f"{name}, {kind}": np.asarray(found.value) for (name, kind), found in dreams.items()}
    save_results(
        output,
        settings={
            "data": data, "hidden": hidden, "epochs": epochs, "cnn_epochs": cnn_epochs, "steps": steps,
            "digit": digit, "seed": seed,
        },
        tables=[
            table_of_rows(
                rows, accuracy(dense, digits.test_inputs, digits.test_labels), cnn_accuracy(cnn, digits)
            ),
            table_of_values(values, best),
        ],
        figures={
            "pictures": figure_of_rows(rows),
            "hidden_units": figure_of_units(units),
            "appearing": figure_of_strips(dreams, digit, steps),
            "deep": figure_of_deep(deep),
        },
        animations={
            "appearing": (
                frames_of(dreams["convolutional", "regularized"]),
                "Ten dreams of the convolutional network as they appear",
            )
        },
        metrics={
            "rows": {
                name: {
                    "probability": np.diag(row.probabilities).tolist(),
                    "answers": row.probabilities.argmax(axis=1).tolist(),
                    "total_variation": row.smoothness.tolist(),
                    "distance_to_nearest": row.distance.tolist(),
                }
                for name, row in rows.items()
            },
            "objective": {name: value.tolist() for name, value in values.items()},
            "objective_of_the_best_training_image": {name: b.tolist() for name, b in best.items()},
            "units_alive": int(units.alive.sum()),
        },
    )  # fmt: skip


def with_a_channel(model: Any, x: jax.Array) -> jax.Array:
    """A model of images `(h, w, 1)`, asked in images `(h, w)`."""
    return model(x[..., None])


def probabilities_of(name: str, model: Any, images: jax.Array) -> np.ndarray:
    """What a network answers, as probabilities: the dense one's outputs are ten of them as they are."""
    outputs = jax.lax.map(model, images, batch_size=100)
    return np.asarray(outputs if name == "dense" else jax.nn.softmax(outputs))


def rows_of(
    network: jaxnn.Network,
    models: dict[str, Any],
    dreams: dict[tuple[str, str], jaxnn.Dream],
    digits: Digits,
) -> dict[str, Row]:
    """The ten pictures of each kind, for each network."""
    asked = jaxnn.datasets.encode_labels(np.arange(10))
    back = {
        kind: jaxnn.backquery(network, asked, method=method).reshape(-1, *digits.image_shape)
        for kind, method in (("transposed weights", "transpose"), ("least squares", "least_squares"))
    }
    means = [digits.inputs[digits.labels == d].mean(axis=0).reshape(digits.image_shape) for d in range(10)]
    rows = {}
    for name, model in models.items():
        pictures = back if name == "dense" else {}
        pictures = pictures | {f"{k} dream": dreams[name, k].image for k in ("plain", "regularized")}
        pictures["average digit"] = jnp.stack(means)
        for kind, images in pictures.items():
            answers = probabilities_of(name, model, images)
            rows[f"{name}, {kind}"] = Row(
                images, answers, smoothness(images), distance_to_nearest(images, digits)
            )
    return rows


def best_of_training(models: dict[str, Any], digits: Digits) -> dict[str, np.ndarray]:
    """For each network and digit, the largest objective of any training image."""
    images = digits.inputs.reshape(-1, *digits.image_shape)

    def logits(model: Any, image: jax.Array) -> jax.Array:
        output, values = jaxnn.capture(model, image)
        return jax.vmap(lambda index: dreaming.logit(index)(output, values))(jnp.arange(10))

    return {
        name: np.asarray(jax.lax.map(lambda x, m=model: logits(m, x), images, batch_size=100).max(axis=0))
        for name, model in models.items()
    }


def dreams_of_units(model: Any, count: int, digits: Digits, **options: Any) -> jaxnn.Dream:
    """A dream of the signal into every hidden unit, all at once."""

    def one(unit: jax.Array) -> jaxnn.Dream:
        objective = dreaming.neuron("hidden_0_in", unit)
        return jaxnn.dream(model, objective, key=jax.random.key(1), shape=digits.image_shape, **options)

    return jax.vmap(one)(jnp.arange(count))


def deepened(model: Any, layer: str, images: jax.Array, key: jax.Array) -> np.ndarray:
    """Real digits, changed until a layer sees more in them: `(n, frames, h, w)`."""

    def one(image: jax.Array) -> jaxnn.Dream:
        return jaxnn.dream(
            model, dreaming.deepdream(layer), key=key, shape=image.shape, start=image, steps=DEEP[-1],
            record_every=EVERY, transforms=(dreaming.jitter(1, fill=0.0),),
            penalties=(dreaming.total_variation(1.0),),
        )  # fmt: skip

    frames = jax.vmap(one)(images).frames
    assert frames is not None, "they were asked for"
    return np.asarray(frames[:, [step // EVERY for step in DEEP]])


def table_of_rows(rows: dict[str, Row], dense: float, cnn: float) -> Table:
    """A row a kind of picture: how it is answered, how smooth it is, how far from what was seen."""
    accuracies = f"test accuracy: dense {dense:.3f}, convolutional {cnn:.3f}"
    title = f"What the networks answer to their pictures ({accuracies})"
    columns = ("picture", "recognized", "probability, lowest", "total variation", "to the nearest real digit")
    table = Table(*columns, title=title)
    for name, row in rows.items():
        right = np.sum(row.probabilities.argmax(axis=1) == np.arange(10))
        table.add_row(
            name, f"{right} of 10", f"{np.diag(row.probabilities).min():.4f}",
            f"{row.smoothness.mean():.3f}", f"{row.distance.mean():.1f}",
        )  # fmt: skip
    return table


def table_of_values(values: dict[str, np.ndarray], best: dict[str, np.ndarray]) -> Table:
    """The objective of each dream beside that of the best training image."""
    table = Table(
        "",
        *map(str, range(10)),
        title="The logit of each digit: of its dream, and of the best of all training images",
    )
    for name, images in best.items():
        table.add_row(f"{name}, training", *(f"{value:.1f}" for value in images))
        for kind in ("plain", "regularized"):
            table.add_row(f"{name}, {kind}", *(f"{value:.1f}" for value in values[f"{name}, {kind}"]))
    return table


def figure_of_rows(rows: dict[str, Row]) -> Figure:
    """A row a kind; above each picture the answer, its roughness and its distance to the nearest real one."""
    titles = [
        f"{d} → {p.argmax()} {'✓' if p.argmax() == d else '✗'} {p.max():.2f}\nrough {s:.2f}, far {far:.1f}"
        for row in rows.values()
        for d, (p, s, far) in enumerate(zip(row.probabilities, row.smoothness, row.distance, strict=True))
    ]
    figure, axes = plt.subplots(len(rows), 10, figsize=(15, 1.85 * len(rows) + 0.5), layout="constrained")
    images = jnp.concatenate([row.images for row in rows.values()])
    plot.image_grid(images, axes=axes, titles=titles, limits=(0, 1), name="input")
    for ax, name in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(name.replace(", ", "\n"), fontsize=9)
    for ax in axes.ravel().tolist():
        ax.title.set_fontsize(8)
    figure.suptitle(
        "Back queries, dreams and averages: what the network answers, the total variation, "
        "and how far the nearest training image is"
    )
    return figure


def figure_of_units(units: jaxnn.Dream) -> Figure:
    """All hidden units, on one scale."""
    count, columns = len(units.image), 20
    figure, axes = plt.subplots(
        -(-count // columns), columns, figsize=(14, 0.72 * -(-count // columns) + 0.6), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    plot.image_grid(units.image, axes=axes, limits=(0, 1), name="input")
    figure.suptitle(f"What each of the {count} hidden units of the dense network would most like to see")
    return figure


def figure_of_strips(dreams: dict[tuple[str, str], jaxnn.Dream], digit: int, steps: int) -> Figure:
    """A row a dream: how it appears."""
    shown = [step for step in STRIP if step <= steps]
    images = []
    for found in dreams.values():
        assert found.frames is not None, "they were asked for"
        images += [found.frames[digit, step // EVERY] for step in shown]
    titles = [f"step {step}" for step in shown] + [None] * (len(images) - len(shown))
    labels = [f"{name}\n{kind}" for name, kind in dreams]
    axes = plot.image_grid(jnp.stack(images), titles=titles, row_labels=labels, limits=(0, 1), name="input")
    figure: Figure = axes[0, 0].figure
    figure.suptitle(f"A {digit} appears")
    return figure


def figure_of_deep(deep: dict[str, np.ndarray]) -> Figure:
    """For each layer and real digit, a row of frames."""
    images = np.concatenate([frames.reshape(-1, *frames.shape[2:]) for frames in deep.values()])
    titles = [f"step {step}" for step in DEEP] + [None] * (len(images) - len(DEEP))
    labels = [layer for layer, frames in deep.items() for _ in frames]
    axes = plot.image_grid(images, titles=titles, row_labels=labels, limits=(0, 1), name="input")
    figure: Figure = axes[0, 0].figure
    figure.suptitle("Real digits, changed so that a layer sees more of what it sees in them")
    return figure


def frames_of(found: jaxnn.Dream) -> np.ndarray:
    """Every other frame of ten dreams, in two rows of five, as bytes, each pixel three wide."""
    assert found.frames is not None, "they were asked for"
    every_other = np.asarray(found.frames)[:, ::-2][:, ::-1]  # the last one among them
    frames = np.pad(every_other, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.3)
    count, height, width = frames.shape[1:]
    sheet = frames.reshape(2, 5, count, height, width).transpose(2, 0, 3, 1, 4)
    sheet = sheet.reshape(count, 2 * height, 5 * width)
    return np.kron(np.uint8(255 * sheet), np.ones((1, 3, 3), np.uint8))


if __name__ == "__main__":
    tyro.cli(main)
