"""What would a network most like to see?

A back query shows what the weights of a network associate with a class. A dream goes forward: an image is
optimized, step by step, to maximize the logit of a class. A plain dream does nothing else, and is noise with
a higher logit than any real digit. A regularized dream is transformed at random at every step, and penalized
for its total variation and its distance from the mean training image: it begins to resemble a digit. A dream
in a prior, which knows from the training images what inputs look like but not their labels, resembles one
more. All are computed for a dense network and for a convolutional one (CNN). Then all units of a hidden layer
dream at once, a dream is shown step by step, and real digits are changed to increase the activity of a layer
of the convolutional network (DeepDream).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._common.cnn import Model, cnn_accuracy, train_cnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, class_means, load_digits, mean_image
from experiments._common.dreams import PLAIN, dream_each, regularized, smoothness, surely
from experiments._common.networks import accuracy, train_by_the_book
from experiments._common.options import check_at_least, check_between, check_seed, make_folder
from experiments._common.readings import nearest
from experiments._common.results import save_results
from experiments._parts.dreams_figures import (
    EVERY,
    Deepened,
    Row,
    figure_of_deep,
    figure_of_rows,
    figure_of_strips,
    figure_of_units,
    frames_of,
)
from jaxnn import dreaming

# The weights of distance to the mean image and of total variation, in units of the logit; see docs/dreams.md.
COSTS = {"dense": (50.0, 20.0), "CNN": (100.0, 40.0)}
DEEP = (0, 16, 32, 64, 128, 256)  # the steps shown of a real digit
TYPICAL = 30.0  # the weight of typicality, in the same units
LAYERS = ("Conv_0", "Conv_1")
KINDS = ("plain", "regularized", "prior")
Dreams = dict[tuple[str, str], jaxnn.Dream]  # by network and kind


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
    """Train two networks and compute their dreams.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        hidden: number of hidden units of the dense network.
        epochs: number of passes over the training images, for the dense network.
        cnn_epochs: likewise for the convolutional one.
        steps: number of steps of each dream.
        digit: whose dream is shown step by step, 0 to 9.
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
    models: dict[str, Model] = {
        "dense": dreaming.flattened(dense),
        "CNN": jax.tree_util.Partial(with_a_channel, cnn),
    }
    accuracies = {
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
        tables=[table_of_rows(rows, accuracies), *(table_of_values(name, logits) for name in models)],
        figures={
            "pictures": figure_of_rows(rows),
            "hidden_units": figure_of_units(units),
            "appearing": figure_of_strips(dreams, digit, steps),
            "deep": figure_of_deep(deep, DEEP),
        },
        animations={
            "appearing": (frames_of(dreams["CNN", "regularized"]), "Ten dreams of the CNN, step by step")
        },
        metrics=metrics_of(rows, logits)
        | {"accuracy": accuracies, "units_with_gradient": int(units.has_gradient.sum())},
    )  # fmt: skip


def with_a_channel(model: Model, x: jax.Array) -> jax.Array:
    """Apply a model of images `(h, w, 1)` to an image `(h, w)`."""
    return model(x[..., None])


def options_of(name: str, digits: Digits, prior: jaxnn.Prior) -> dict[str, dict[str, Any]]:
    """Options of each kind of dream of a network."""
    to_mean, smooth = COSTS[name]
    return {
        "plain": {"objective": dreaming.logit} | PLAIN,
        "regularized": {"objective": surely}
        | regularized(mean_image(digits), to_mean=to_mean, smooth=smooth),
        "prior": {
            "objective": surely,
            "parameterization": dreaming.from_prior(prior),
            "penalties": (dreaming.typicality(prior, TYPICAL),),
            "transforms": (),
            "bounds": (prior.low, prior.high),
        },
    }


def dreams_of(models: dict[str, Model], digits: Digits, key: jax.Array, steps: int) -> Dreams:
    """The dreams of each digit, by network and kind."""
    prior = jaxnn.prior(digits.inputs.reshape(-1, *digits.image_shape), key=key)
    return {
        (name, kind): dream_each(
            model, 10, key, digits.image_shape, steps=steps, record_every=EVERY, **options,
        )
        for name, model in models.items()
        for kind, options in options_of(name, digits, prior).items()
    }  # fmt: skip


def probabilities_of(name: str, model: Model, images: jax.Array) -> np.ndarray:
    """The outputs as probabilities; those of the dense network are sigmoids, and used unchanged."""
    outputs = jax.vmap(model)(images)
    return np.asarray(outputs if name == "dense" else jax.nn.softmax(outputs))


def rows_of(
    network: jaxnn.Network, models: dict[str, Model], dreams: Dreams, digits: Digits
) -> dict[str, Row]:
    """The ten pictures of each kind, for each network."""
    targets = jaxnn.datasets.encode_labels(np.arange(10))
    back = {
        "transposed weights": jaxnn.backquery(network, targets),
        "least squares": jaxnn.backquery(network, targets, method="least_squares"),
    }
    back = {kind: images.reshape(-1, *digits.image_shape) for kind, images in back.items()}
    pictures: dict[tuple[str, str], jax.Array] = {}
    for name in models:
        kinds = back if name == "dense" else {}
        kinds = kinds | {f"{kind} dream": dreams[name, kind].image for kind in KINDS}
        pictures |= {(name, kind): images for kind, images in kinds.items()}
        pictures[name, "average digit"] = class_means(digits).reshape(-1, *digits.image_shape)
    everything = jnp.concatenate(list(pictures.values()))
    rough, far = (of.reshape(-1, 10) for of in (smoothness(everything), nearest(everything, digits)[1]))
    return {
        f"{name}, {kind}": Row(images, probabilities_of(name, models[name], images), rough[i], far[i])
        for i, ((name, kind), images) in enumerate(pictures.items())
    }


def logits_of(models: dict[str, Model], dreams: Dreams, digits: Digits) -> dict[str, np.ndarray]:
    """The logits of each digit, by network: the largest of any training image, and those of its dreams."""
    training = digits.inputs.reshape(-1, *digits.image_shape)

    def all_logits(model: Model, images: jax.Array) -> np.ndarray:
        def of(image: jax.Array) -> jax.Array:
            output, values = jaxnn.capture(model, image)
            return jax.vmap(lambda index: dreaming.logit(index)(output, values))(jnp.arange(10))

        return np.asarray(jax.lax.map(of, images, batch_size=100))

    logits = {}
    for name, model in models.items():
        logits[f"{name}, best real"] = all_logits(model, training).max(axis=0)
        for kind in KINDS:
            logits[f"{name}, {kind}"] = np.diag(all_logits(model, dreams[name, kind].image))
    return logits


def dreams_of_units(model: Model, count: int, digits: Digits, steps: int) -> jaxnn.Dream:
    """The dreams of all hidden units of the dense network, each of the signal into the unit."""
    to_mean, smooth = COSTS["dense"]
    options = regularized(mean_image(digits), to_mean=to_mean, smooth=smooth)

    def one(unit: jax.Array) -> jaxnn.Dream:
        return jaxnn.dream(
            model, dreaming.neuron("hidden_0_in", unit), key=jax.random.key(1), shape=digits.image_shape,
            steps=steps, **options,
        )  # fmt: skip

    return jax.vmap(one)(jnp.arange(count))


def deepened(model: Model, layer: str, digits: Digits, key: jax.Array) -> Deepened:
    """DeepDream from three real digits: the frames, and the prediction for each."""
    chosen = [int(np.flatnonzero(digits.test_labels == d)[0]) for d in (2, 4, 7)]
    images = digits.test_inputs[jnp.array(chosen)].reshape(-1, *digits.image_shape)

    def one(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        frames = jaxnn.dream(
            model, dreaming.deepdream(layer), key=key, shape=image.shape, start=image, steps=DEEP[-1],
            record_every=EVERY, transforms=(dreaming.jitter(1, fill=0.0),),
            penalties=(dreaming.total_variation(1.0),),
        ).frames  # fmt: skip
        assert frames is not None, "they were requested"
        shown = frames[np.array(DEEP) // EVERY]
        return shown, jnp.argmax(jax.vmap(model)(shown), axis=1)

    return Deepened(*map(np.asarray, jax.vmap(one)(images)))


def table_of_rows(rows: dict[str, Row], accuracies: dict[str, float]) -> Table:
    """One row per kind of picture: predictions, smoothness, distance to the training images."""
    networks = ", ".join(f"{name} {value:.3f}" for name, value in accuracies.items())
    columns = ("picture", "correct", "lowest\nprobability", "total\nvariation", "nearest\nreal digit")
    table = Table(*columns, title=f"Predictions for the networks' own pictures\n(test accuracy: {networks})")
    for name, row in rows.items():
        correct = np.sum(row.probabilities.argmax(axis=1) == np.arange(10))
        table.add_row(
            name, f"{correct} of 10", f"{np.diag(row.probabilities).min():.4f}",
            f"{row.smoothness.mean():.3f}", f"{row.distance.mean():.1f}",
        )  # fmt: skip
    return table


def table_of_values(network: str, logits: dict[str, np.ndarray]) -> Table:
    """One row per digit: the logit of the best training image, and that of each dream of a network."""
    own = {name.split(", ")[1]: values for name, values in logits.items() if name.startswith(f"{network}, ")}
    table = Table("digit", *own, title=f"{network}: the logit of the best training image, and of its dreams")
    for digit in range(10):
        table.add_row(str(digit), *(f"{values[digit]:.1f}" for values in own.values()))
    return table


def metrics_of(rows: dict[str, Row], logits: dict[str, np.ndarray]) -> dict[str, Any]:
    """The metrics of all pictures."""
    return {
        "rows": {
            name: {
                "probability": np.diag(row.probabilities).tolist(),
                "predictions": row.probabilities.argmax(axis=1).tolist(),
                "total_variation": row.smoothness.tolist(),
                "distance_to_nearest": row.distance.tolist(),
            }
            for name, row in rows.items()
        },
        "logits": {name: values.tolist() for name, values in logits.items()},
    }


if __name__ == "__main__":
    run_command(main)
