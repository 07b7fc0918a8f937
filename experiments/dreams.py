"""What would a network most like to see?

Asked backwards, a network shows what its weights associate with an answer. Here it is asked forwards: a
picture is changed, step by step, until the network is as sure of a digit as it can be. A plain dream does
nothing else, and comes out as noise that convinces the network more than any real digit. A regularized one
is shaken at every step, has to be smooth, and pays for its distance from the average training image: a person
begins to see what the network sees. Both are made for a dense network and for a convolutional one (CNN).
Then every unit of a hidden layer dreams at once, a dream is watched as it appears, and real digits are
changed until a layer of the convolutional network sees more of whatever it sees in them.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._cnn import cnn_accuracy, train_cnn
from experiments._digits import DataName, Digits, accuracy, load_digits, train_by_the_book
from experiments._dream_figures import (
    EVERY,
    Deepened,
    Row,
    figure_of_deep,
    figure_of_rows,
    figure_of_strips,
    figure_of_units,
    frames_of,
)
from experiments._dreams import (
    PLAIN,
    average,
    distance_to_nearest,
    dream_each,
    regularized,
    smoothness,
    surely,
)
from experiments._options import check_at_least, check_between, check_seed
from experiments._results import make_folder, save_results
from jaxnn import dreaming

# What nearness to the average image and smoothness cost, in units of the logit; see docs/dreams.md.
COSTS = {"dense": (50.0, 20.0), "CNN": (100.0, 40.0)}
DEEP = (0, 16, 32, 64, 128, 256)  # steps shown of a real digit
LAYERS = ("Conv_0", "Conv_1")
Dreams = dict[tuple[str, str], jaxnn.Dream]  # by network, and "plain" or "regularized": one a digit


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
    check_seed(seed)
    for name, value in (("hidden", hidden), ("epochs", epochs), ("cnn_epochs", cnn_epochs)):
        check_at_least(name, value, 1)
    check_at_least("steps", steps, EVERY)
    check_between("digit", digit, 0, 9)
    make_folder(output)
    digits = load_digits(data)
    dense, _ = train_by_the_book(digits, hidden=(hidden,), epochs=epochs, rate=0.1, seed=seed)
    cnn = train_cnn(digits, epochs=cnn_epochs, seed=seed)
    models = {"dense": dreaming.flattened(dense), "CNN": jax.tree_util.Partial(with_a_channel, cnn)}
    right = {
        "dense": accuracy(dense, digits.test_inputs, digits.test_labels), "CNN": cnn_accuracy(cnn, digits)
    }  # fmt: skip
    key = jax.random.key(seed)
    with Console().status("dreaming"):
        dreams = dreams_of(models, digits, key, steps)
        rows = rows_of(dense, models, dreams, digits)
        units = dreams_of_units(models["dense"], hidden, digits, steps // 2)
        deep = {layer: deepened(models["CNN"], layer, digits, key) for layer in LAYERS}
        logits = logits_of(models, dreams, digits)
    save_results(
        output,
        settings={
            "data": data, "hidden": hidden, "epochs": epochs, "cnn_epochs": cnn_epochs, "steps": steps,
            "digit": digit, "seed": seed,
        },
        tables=[table_of_rows(rows, right), table_of_values(logits)],
        figures={
            "pictures": figure_of_rows(rows),
            "hidden_units": figure_of_units(units),
            "appearing": figure_of_strips(dreams, digit, steps),
            "deep": figure_of_deep(deep, DEEP),
        },
        animations={
            "appearing": (frames_of(dreams["CNN", "regularized"]), "Ten dreams of the CNN as they appear")
        },
        metrics=metrics_of(rows, logits) | {"accuracy": right, "units_alive": int(units.alive.sum())},
    )  # fmt: skip


def with_a_channel(model: Any, x: jax.Array) -> jax.Array:
    """A model of images `(h, w, 1)`, asked in images `(h, w)`."""
    return model(x[..., None])


def options_of(name: str, digits: Digits) -> dict[str, Any]:
    """The regularized dream of a network."""
    to_mean, smooth = COSTS[name]
    return {"objective": surely} | regularized(average(digits), to_mean=to_mean, smooth=smooth)


def dreams_of(models: dict[str, Any], digits: Digits, key: jax.Array, steps: int) -> Dreams:
    """Each network's dreams of each digit, of each kind."""
    return {
        (name, kind): dream_each(
            model, 10, key, digits.image_shape, steps=steps, record_every=EVERY,
            **({"objective": dreaming.logit} | PLAIN if kind == "plain" else options_of(name, digits)),
        )
        for name, model in models.items()
        for kind in ("plain", "regularized")
    }  # fmt: skip


def probabilities_of(name: str, model: Any, images: jax.Array) -> np.ndarray:
    """What a network answers, as probabilities: the dense one's outputs are ten of them as they are."""
    outputs = jax.vmap(model)(images)
    return np.asarray(outputs if name == "dense" else jax.nn.softmax(outputs))


def rows_of(network: jaxnn.Network, models: dict[str, Any], dreams: Dreams, digits: Digits) -> dict[str, Row]:
    """The ten pictures of each kind, for each network."""
    asked = jaxnn.datasets.encode_labels(np.arange(10))
    back = {
        kind: jaxnn.backquery(network, asked, method=method).reshape(-1, *digits.image_shape)
        for kind, method in (("transposed weights", "transpose"), ("least squares", "least_squares"))
    }
    means = [digits.inputs[digits.labels == d].mean(axis=0).reshape(digits.image_shape) for d in range(10)]
    pictures: dict[tuple[str, str], jax.Array] = {}
    for name in models:
        kinds = back if name == "dense" else {}
        kinds = kinds | {f"{kind} dream": dreams[name, kind].image for kind in ("plain", "regularized")}
        pictures |= {(name, kind): images for kind, images in kinds.items()}
        pictures[name, "average digit"] = jnp.stack(means)
    everything = jnp.concatenate(list(pictures.values()))
    rough, far = (
        of.reshape(-1, 10) for of in (smoothness(everything), distance_to_nearest(everything, digits))
    )
    return {
        f"{name}, {kind}": Row(images, probabilities_of(name, models[name], images), rough[i], far[i])
        for i, ((name, kind), images) in enumerate(pictures.items())
    }


def logits_of(models: dict[str, Any], dreams: Dreams, digits: Digits) -> dict[str, np.ndarray]:
    """For each network the logit of each digit: the largest of any training image, and of its dreams."""
    training = digits.inputs.reshape(-1, *digits.image_shape)

    def answers(model: Any, images: jax.Array) -> np.ndarray:
        def of(image: jax.Array) -> jax.Array:
            output, values = jaxnn.capture(model, image)
            return jax.vmap(lambda index: dreaming.logit(index)(output, values))(jnp.arange(10))

        return np.asarray(jax.lax.map(of, images, batch_size=100))

    found = {}
    for name, model in models.items():
        found[f"{name}, best real"] = answers(model, training).max(axis=0)
        for kind in ("plain", "regularized"):
            found[f"{name}, {kind}"] = np.diag(answers(model, dreams[name, kind].image))
    return found


def dreams_of_units(model: Any, count: int, digits: Digits, steps: int) -> jaxnn.Dream:
    """A dream of the signal into every hidden unit of the dense network, all at once."""
    to_mean, smooth = COSTS["dense"]
    options = regularized(average(digits), to_mean=to_mean, smooth=smooth)

    def one(unit: jax.Array) -> jaxnn.Dream:
        return jaxnn.dream(
            model, dreaming.neuron("hidden_0_in", unit), key=jax.random.key(1), shape=digits.image_shape,
            steps=steps, **options,
        )  # fmt: skip

    return jax.vmap(one)(jnp.arange(count))


def deepened(model: Any, layer: str, digits: Digits, key: jax.Array) -> Deepened:
    """Three real digits, changed until a layer sees more in them, and what the network says to each frame."""
    chosen = [int(np.flatnonzero(digits.test_labels == d)[0]) for d in (2, 4, 7)]
    images = digits.test_inputs[jnp.array(chosen)].reshape(-1, *digits.image_shape)

    def one(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        frames = jaxnn.dream(
            model, dreaming.deepdream(layer), key=key, shape=image.shape, start=image, steps=DEEP[-1],
            record_every=EVERY, transforms=(dreaming.jitter(1, fill=0.0),),
            penalties=(dreaming.total_variation(1.0),),
        ).frames  # fmt: skip
        assert frames is not None, "they were asked for"
        shown = frames[np.array(DEEP) // EVERY]
        return shown, jnp.argmax(jax.vmap(model)(shown), axis=1)

    return Deepened(*map(np.asarray, jax.vmap(one)(images)))


def table_of_rows(rows: dict[str, Row], right: dict[str, float]) -> Table:
    """A row a kind of picture: how it is answered, how smooth it is, how far from what was seen."""
    accuracies = ", ".join(f"{name} {share:.3f}" for name, share in right.items())
    columns = ("picture", "right", "lowest\nprobability", "total\nvariation", "nearest\nreal digit")
    table = Table(*columns, title=f"What the networks say to their pictures\n(test accuracy: {accuracies})")
    for name, row in rows.items():
        answered = np.sum(row.probabilities.argmax(axis=1) == np.arange(10))
        table.add_row(
            name, f"{answered} of 10", f"{np.diag(row.probabilities).min():.4f}",
            f"{row.smoothness.mean():.3f}", f"{row.distance.mean():.1f}",
        )  # fmt: skip
    return table


def table_of_values(logits: dict[str, np.ndarray]) -> Table:
    """A row a digit: the logit of the best training image beside that of each dream."""
    headers = (name.replace(", ", ",\n") for name in logits)
    table = Table(
        "digit", *headers, title="The logit of a digit: of its dreams, and of the best training image"
    )
    for digit in range(10):
        table.add_row(str(digit), *(f"{values[digit]:.1f}" for values in logits.values()))
    return table


def metrics_of(rows: dict[str, Row], logits: dict[str, np.ndarray]) -> dict[str, Any]:
    """The numbers, for programs."""
    return {
        "rows": {
            name: {
                "probability": np.diag(row.probabilities).tolist(),
                "answers": row.probabilities.argmax(axis=1).tolist(),
                "total_variation": row.smoothness.tolist(),
                "distance_to_nearest": row.distance.tolist(),
            }
            for name, row in rows.items()
        },
        "logits": {name: values.tolist() for name, values in logits.items()},
    }


if __name__ == "__main__":
    tyro.cli(main)
