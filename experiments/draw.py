"""What does a network say while you draw?

One self-contained HTML file with trained networks, which needs no server: draw a digit, and see the outputs,
the hidden units, the back query and the saliency of the predicted class change with each stroke. The page
reimplements `query`, `backquery` by transposed weights and `saliency` in JavaScript. It holds the typical
image of each digit and network, which has a prior over training images.
"""

import base64
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, load_digits
from experiments._common.figures import sizes_of
from experiments._common.networks import accuracy, train_by_the_book, train_sigmoids
from experiments._common.options import check_at_least, check_seed, make_folder, printable
from experiments._common.policy import with_policy
from experiments._common.readings import DIGITS
from experiments._common.results import save_results

_PARTS = Path(__file__).parent / "page"
_SPOKEN = ("sigmoid", "tanh", "identity")  # the activations that the page implements
_SIDE = 28


def main(
    data: DataName = "mnist-5k",
    networks: tuple[Path, ...] = (),
    epochs: int = 10,
    seed: int = 0,
    output: Path = Path("results/draw"),
) -> None:
    """Train networks, or load saved ones, and write the page.

    Args:
        data: the data set for training and accuracy; images of 28 x 28.
        networks: files written by jaxnn.save, of 784 inputs, 10 outputs, and sigmoid, tanh or identity
            layers, the last one of sigmoids; by default networks are trained.
        epochs: number of passes over the images in training.
        seed: of the weights and the order.
        output: the folder for index.html and the numbers.
    """
    check_seed(seed)
    check_at_least("epochs", epochs, 1)
    make_folder(output)
    digits = load_digits(data)
    if digits.image_shape != (_SIDE, _SIDE):
        raise ValueError(f"`data` must hold images of {_SIDE} x {_SIDE}, as the page draws; got {data!r}")
    names = [printable(path.stem) for path in networks]
    if len(set(names)) < len(names):
        raise ValueError(f"`networks` must have distinct file names, for the page; got {', '.join(names)}")
    shown = dict(zip(names, map(load_network, networks), strict=True)) or train(digits, epochs, seed)
    prior = jaxnn.prior(digits.inputs, key=jax.random.key(seed))
    accuracies = {name: accuracy(n, digits.test_inputs, digits.test_labels) for name, n in shown.items()}
    descriptions = {
        name: f"{sizes_of(network.sizes)}, test accuracy {accuracies[name]:.1%} on {data}."
        for name, network in shown.items()
    }
    table = Table("network", "sizes", "test accuracy", title="The networks on the page")
    for name, network in shown.items():
        table.add_row(name, sizes_of(network.sizes), f"{accuracies[name]:.4f}")
    save_results(
        output,
        settings={"data": data, "epochs": epochs, "seed": seed},
        tables=[table],
        figures={},
        metrics={"test_accuracy": accuracies},
        pages={"index": ("Draw a digit, and see a network think", page(shown, descriptions, prior))},
    )


def train(digits: Digits, epochs: int, seed: int) -> dict[str, jaxnn.Network]:
    """Train three networks of different sizes."""
    return {
        "30 hidden units": train_by_the_book(digits, hidden=(30,), epochs=epochs, rate=0.1, seed=seed)[0],
        "200 hidden units": train_by_the_book(digits, hidden=(200,), epochs=epochs, rate=0.1, seed=seed)[0],
        "two hidden layers": train_sigmoids(jax.random.key(seed), digits, hidden=(40, 20), epochs=2 * epochs),
    }


def load_network(path: Path) -> jaxnn.Network:
    """Load a network; raise a ValueError unless the page can evaluate it."""
    network: jaxnn.Network = jaxnn.load(path)
    activations = [layer.activation for layer in network.layers]
    if (network.sizes[0], network.sizes[-1]) != (_SIDE**2, 10):
        raise ValueError(f"`networks` must have 784 inputs and 10 outputs; {path} has {network.sizes}")
    if activations[-1] != "sigmoid" or not set(activations) <= set(_SPOKEN):
        raise ValueError(
            f"`networks` must end in sigmoids, after layers of {', '.join(_SPOKEN)}; {path} has {activations}"
        )
    return network


def page(networks: dict[str, jaxnn.Network], descriptions: dict[str, str], prior: jaxnn.Prior) -> str:
    """The HTML of the page with these networks, their descriptions and their typical images."""
    written = [serialized(name, descriptions[name], network, prior) for name, network in networks.items()]
    html = (_PARTS / "page.html").read_text(encoding="utf-8")
    for mark, text in {
        "/*STYLE*/": (_PARTS / "page.css").read_text(encoding="utf-8"),
        "/*NETWORKS*/[]": json.dumps(written).replace("<", "\\u003c"),
        "/*NETWORK_SCRIPT*/": (_PARTS / "network.js").read_text(encoding="utf-8"),
        "/*PAGE_SCRIPT*/": (_PARTS / "page.js").read_text(encoding="utf-8"),
    }.items():
        html = html.replace(mark, text)
    return with_policy(html)


def serialized(name: str, description: str, network: jaxnn.Network, prior: jaxnn.Prior) -> dict[str, Any]:
    """A network in the format of `decode` in network.js."""
    targets = jaxnn.datasets.encode_labels(DIGITS)
    typical = jaxnn.backquery(network, targets, method="typical", prior=prior).x
    layers = [
        {
            "inputs": layer.kernel.shape[0],
            "outputs": layer.kernel.shape[1],
            "activation": layer.activation,
            "kernel": in_base64(layer.kernel),
            "bias": None if layer.bias is None else in_base64(layer.bias),
        }
        for layer in network.layers
    ]
    return {"name": name, "about": description, "layers": layers, "typical": in_base64(typical)}


def in_base64(array: jax.Array) -> str:
    """The elements in single precision, little-endian, in row-major order, as base64."""
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode("ascii")


if __name__ == "__main__":
    run_command(main)
