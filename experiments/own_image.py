"""What does the network predict for a digit of your own?

A picture of one handwritten digit (PNG, JPEG, GIF, BMP, TIFF or WebP; up to 50 million pixels; dark on light
or light on dark, on a transparent layer, in a frame) is preprocessed as MNIST preprocesses its digits, and
classified by a network.
"""

from pathlib import Path
from typing import Annotated, Literal

import matplotlib.pyplot as plt
import numpy as np
import tyro
from rich.console import Console

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, load_digits
from experiments._common.image_file import read_digit
from experiments._common.networks import accuracy, train_by_the_book
from experiments._common.options import check_seed, make_folder, printable
from experiments._common.results import save_figure, save_metrics


def main(
    image: Annotated[Path, tyro.conf.Positional],
    network: Path | None = None,
    invert: bool | None = None,
    data: Literal["mnist-5k", "mnist"] = "mnist-5k",
    epochs: int = 20,
    seed: int = 0,
    output: Path = Path("results/own_image"),
) -> None:
    """Classify a picture of a digit.

    Args:
        image: the picture.
        network: a saved network, such as results/back_query/network.jaxnn; by default one is trained.
        invert: True for dark ink on light paper, False for light on dark; by default detected.
        data: the training data, if no network is given.
        epochs: number of passes over it, if no network is given.
        seed: of that training.
        output: the folder for the picture and the numbers.
    """
    check_seed(seed)
    console = Console()
    make_folder(output)
    try:
        pixels = read_digit(image, invert=invert)  # first: an error here costs no training
    except (OSError, ValueError) as error:
        raise SystemExit(printable(error)) from error
    classifier = jaxnn.load(network) if network else trained(console, data, epochs, seed)
    if (classifier.sizes[0], classifier.sizes[-1]) != (pixels.size, 10):
        raise ValueError(
            f"`network` must have {pixels.size} inputs, one per pixel, and 10 outputs; got {classifier.sizes}"
        )
    outputs = np.asarray(jaxnn.query(classifier, jaxnn.datasets.encode_images(pixels)))
    prediction, value = int(outputs.argmax()), float(outputs.max())
    console.print(f"{printable(image)} is a {prediction} (output {value:.2f})", markup=False)

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    jaxnn.plot.image_grid(
        pixels[None], limits=(0, 255), axes=[left], titles=["the input of the network"], name="pixel"
    )
    jaxnn.plot.output_bars(outputs, ax=right)
    figure.suptitle(f"{printable(image.name)}: prediction {prediction}", parse_math=False)
    save_figure(figure, output / f"{image.stem}_answer.png")
    metrics = {"image": printable(image), "prediction": prediction, "outputs": outputs.tolist()}
    save_metrics(metrics, output / f"{image.stem}_answer.json")
    picture = printable(output / f"{image.stem}_answer.png")
    console.print(f"The picture with all outputs is {picture}", markup=False)


def trained(console: Console, data: DataName, epochs: int, seed: int) -> jaxnn.Network:
    """Train the book's network."""
    digits = load_digits(data)
    network, _ = train_by_the_book(digits, hidden=(200,), epochs=epochs, rate=0.1, seed=seed)
    score = accuracy(network, digits.test_inputs, digits.test_labels)
    console.print(f"trained 784-200-10 on {data}: test accuracy {score:.4f}")
    return network


if __name__ == "__main__":
    run_command(main)
