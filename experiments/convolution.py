"""What do the layers of a convolutional network see?

A small Flax network is trained on handwritten digits. For one test image every channel of both
convolutions is drawn as an image, after its ReLU, and the class activation map (Grad-CAM): the channels of
the last convolution, weighted by their mean gradient. One map is of the predicted class and one of the
runner-up: where they differ, the network distinguishes the two digits.
"""

from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.cnn import cnn_accuracy, train_cnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, as_images, load_digits
from experiments._common.options import check_at_least, check_between, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn import attribution, plot

LAYERS = ("Conv_0", "Conv_1")


def main(
    data: DataName = "mnist-5k",
    index: int = 3,
    epochs: int = 4,
    seed: int = 0,
    output: Path = Path("results/convolution"),
) -> None:
    """Train a convolutional network, and draw its layers for one test image.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        index: of the test image, from 0.
        epochs: number of passes over the training images.
        seed: of the initial weights and the order of the images.
        output: the folder for pictures and numbers.
    """
    make_folder(output)
    check_seed(seed)
    check_at_least("epochs", epochs, 1)
    digits = load_digits(data)
    check_between("index", index, 0, len(digits.test_labels) - 1)
    model = train_cnn(digits, epochs=epochs, seed=seed)
    test_accuracy = cnn_accuracy(model, digits)
    image = as_images(digits.test_inputs[index], digits)[0]
    logits, values = jaxnn.capture(model, image)
    channels = {name: np.maximum(np.moveaxis(np.asarray(values[name]), -1, 0), 0) for name in LAYERS}
    probabilities = np.asarray(jax.nn.softmax(logits))
    classes = [int(target) for target in np.argsort(-probabilities)[:2]]
    maps = [
        np.asarray(attribution.grad_cam(model, image, target, layer=LAYERS[1], relu=False))
        for target in classes
    ]
    save_results(
        output,
        settings={"data": data, "index": index, "epochs": epochs, "seed": seed},
        tables=[
            table_of_channels(channels, f"Test image {index}, a {digits.test_labels[index]}: "
                              f"test accuracy {test_accuracy:.4f}")
        ],
        figures={
            "channels": figure_of_channels(np.asarray(image[..., 0]), channels),
            "class_activation": figure_of_maps(np.asarray(image[..., 0]), maps, classes, probabilities),
        },
        metrics={
            "test_accuracy": test_accuracy,
            "label": int(digits.test_labels[index]),
            "probabilities": probabilities.tolist(),
            "silent": {name: int(np.sum(maps_.max(axis=(1, 2)) == 0)) for name, maps_ in channels.items()},
        },
    )  # fmt: skip


def table_of_channels(channels: dict[str, np.ndarray], title: str) -> Table:
    """One row per layer: its channels, and how many are active for the image."""
    table = Table("layer", "channels", "size", "silent", "mean active area", "strongest", title=title)
    for name, images in channels.items():
        count, height, width = images.shape
        table.add_row(
            name, str(count), f"{height} x {width}", str(int(np.sum(images.max(axis=(1, 2)) == 0))),
            f"{100 * np.mean(images > 0):.0f} %", f"channel {int(images.max(axis=(1, 2)).argmax())}",
        )  # fmt: skip
    return table


def figure_of_channels(image: np.ndarray, channels: dict[str, np.ndarray]) -> Figure:
    """The image, and below it the channels of each layer, each layer on one scale."""
    rows = sum(-(-len(images) // 8) for images in channels.values())
    figure = plt.figure(figsize=(10.5, 1.5 * rows + 2.1), layout="constrained")
    parts: Any = figure.subfigures(len(channels) + 1, 1, height_ratios=[1, *map(_rows, channels.values())])
    first, *rest = parts[0].subplots(1, 8).tolist()  # as large as a channel, and above the first one
    plot.image_grid(image[None], axes=[first], titles=["the image"], name="pixel", limits=(0, 1))
    for ax in rest:
        ax.set_axis_off()
    for part, (name, images) in zip(parts[1:], channels.items(), strict=True):
        axes = part.subplots(_rows(images), 8, squeeze=False)
        titles = [f"{name} · {i}" for i in range(len(images))]
        plot.image_grid(images, axes=axes, titles=titles, name="activation")
    figure.suptitle("The activation of every channel for this image, after the ReLU")
    return figure


def _rows(images: np.ndarray) -> int:
    return -(-len(images) // 8)


def figure_of_maps(
    image: np.ndarray, maps: list[np.ndarray], classes: list[int], probabilities: np.ndarray
) -> Figure:
    """The class activation maps of the prediction and of the runner-up, over the image, on one scale."""
    figure, axes = plt.subplots(1, len(maps), figsize=(9, 4.2), layout="constrained")
    limit = max(float(np.abs(each).max()) for each in maps) or 1.0
    repeats = (image.shape[0] // maps[0].shape[0], image.shape[1] // maps[0].shape[1])
    for ax, each, target in zip(axes, maps, classes, strict=True):
        large = np.kron(each, np.ones(repeats))  # one position of the layer covers a block of pixels
        plot.attribution(
            large, image=image, limit=limit, ax=ax, name="class activation",
            title=f"for {target} (probability {probabilities[target]:.3f})",
        )  # fmt: skip
    figure.suptitle(
        "Class activation maps of the prediction and of the runner-up (Grad-CAM, last convolution)"
    )
    return figure


if __name__ == "__main__":
    run_command(main)
