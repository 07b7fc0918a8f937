"""What does a network say while you draw?

One HTML file, made of trained networks, that needs no server and nothing from outside: draw a digit, and see
the outputs, the hidden units, the back query of the answer and the slopes of the answer change with each
stroke. Its arithmetic is that of `query`, `backquery` and `saliency`, written again in the page's own
language.
"""

import base64
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.table import Table

import jaxnn
from experiments._digits import DataName, Digits, accuracy, load_digits, train_by_the_book, train_sigmoids
from experiments._options import check_at_least, check_seed
from experiments._results import make_folder, save_results, sizes_of

_PARTS = Path(__file__).parent / "page"
_SPOKEN = ("sigmoid", "tanh", "identity")  # the activations that the page knows
_SIDE = 28


def main(
    data: DataName = "mnist-5k",
    networks: tuple[Path, ...] = (),
    epochs: int = 10,
    seed: int = 0,
    output: Path = Path("results/draw"),
) -> None:
    """Train networks, or take yours, and write the page.

    Args:
        data: what to train on, and what the accuracy is of; images of 28 x 28.
        networks: files that jaxnn.save wrote, of 784 inputs, 10 outputs, and sigmoid, tanh or identity
            layers, the last one of sigmoids; instead of training.
        epochs: how often each image is seen in training.
        seed: of the weights and the order.
        output: the folder for index.html and the numbers.
    """
    check_seed(seed)
    check_at_least("epochs", epochs, 1)
    make_folder(output)
    digits = load_digits(data)
    if digits.image_shape != (_SIDE, _SIDE):
        raise ValueError(f"`data` must hold images of {_SIDE} x {_SIDE}, as the page draws; got {data!r}")
    names = [path.stem for path in networks]
    if len(set(names)) < len(names):
        raise ValueError(f"`networks` must have names of their own, for the page; got {', '.join(names)}")
    shown = {path.stem: checked(path) for path in networks} or train(digits, epochs, seed)
    found = {name: accuracy(n, digits.test_inputs, digits.test_labels) for name, n in shown.items()}
    told = {
        name: f"{sizes_of(network.sizes)}, right on {found[name]:.1%} of the test images of {data}."
        for name, network in shown.items()
    }
    table = Table("network", "sizes", "test accuracy", title="The networks on the page")
    for name, network in shown.items():
        table.add_row(name, sizes_of(network.sizes), f"{found[name]:.4f}")
    save_results(
        output,
        settings={"data": data, "epochs": epochs, "seed": seed},
        tables=[table],
        figures={},
        metrics={"test_accuracy": found},
        pages={"index": ("Draw a digit, and see a network think", page(shown, told))},
    )


def train(digits: Digits, epochs: int, seed: int) -> dict[str, jaxnn.Network]:
    """Three networks that think alike, and look different."""
    return {
        "30 hidden units": train_by_the_book(digits, hidden=(30,), epochs=epochs, rate=0.1, seed=seed)[0],
        "200 hidden units": train_by_the_book(digits, hidden=(200,), epochs=epochs, rate=0.1, seed=seed)[0],
        "two hidden layers": train_sigmoids(jax.random.key(seed), digits, hidden=(40, 20), epochs=2 * epochs),
    }


def checked(path: Path) -> jaxnn.Network:
    """A saved network that the page can ask."""
    network: jaxnn.Network = jaxnn.load(path)
    activations = [layer.activation for layer in network.layers]
    if (network.sizes[0], network.sizes[-1]) != (_SIDE**2, 10):
        raise ValueError(f"`networks` must have 784 inputs and 10 outputs; {path} has {network.sizes}")
    if activations[-1] != "sigmoid" or not set(activations) <= set(_SPOKEN):
        raise ValueError(
            f"`networks` must end in sigmoids, after layers of {', '.join(_SPOKEN)}; {path} has {activations}"
        )
    return network


def page(networks: dict[str, jaxnn.Network], told: dict[str, str]) -> str:
    """The page with these networks in it, and what is told of each."""
    written = [written_out(name, told[name], network) for name, network in networks.items()]
    html = (_PARTS / "page.html").read_text(encoding="utf-8")
    for mark, text in {
        "/*STYLE*/": (_PARTS / "page.css").read_text(encoding="utf-8"),
        "/*NETWORKS*/[]": json.dumps(written).replace("<", "\\u003c"),
        "/*NETWORK_SCRIPT*/": (_PARTS / "network.js").read_text(encoding="utf-8"),
        "/*PAGE_SCRIPT*/": (_PARTS / "page.js").read_text(encoding="utf-8"),
    }.items():
        html = html.replace(mark, text)
    return html


def written_out(name: str, told: str, network: jaxnn.Network) -> dict[str, Any]:
    """A network as `decode` in network.js reads it."""
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
    return {"name": name, "about": told, "layers": layers}


def in_base64(array: jax.Array) -> str:
    """Its numbers in single precision, little-endian, row by row."""
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode("ascii")


if __name__ == "__main__":
    tyro.cli(main)
