"""What is a hidden layer doing to this image?

A network with 100 hidden units is trained on handwritten digits and shown one test image: the input, what
each hidden unit makes of it, and the outputs. Then the few units that push most towards the answer: their
contribution is their activation times their weight onto the answer, and the contributions of all units and
the bias add up to its signal. Each is drawn as its weights, and as the input times its weights: where
in this image it finds what it likes (blue) and dislikes (red). That and its bias add up to its own signal.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._digits import DataName, accuracy, load_digits, train_sigmoids
from experiments._options import check_between, check_seed
from experiments._results import make_folder, save_results, sizes_of
from experiments._weights import hatch, hatched, near_square, padded, signed, titled


def main(
    data: DataName = "mnist-5k",
    index: int = 0,
    top: int = 5,
    hidden: int = 100,
    epochs: int = 20,
    seed: int = 0,
    output: Path = Path("results/hidden_layer"),
) -> None:
    """Train a network and show what its hidden layer does to one test image.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        index: of the image among the test images, from 0.
        top: how many units to show, of those that push most towards the answer; at most 10, and fewer
            where fewer push towards it.
        hidden: hidden units.
        epochs: how often each training image is seen.
        seed: of the initial weights and the order of the images.
        output: the folder for pictures and numbers.
    """
    check_seed(seed)
    check_between("hidden", hidden, 1, 1000)
    check_between("top", top, 1, min(hidden, 10))
    make_folder(output)
    digits = load_digits(data)
    check_between("index", index, 0, len(digits.test_labels) - 1)
    network = train_sigmoids(jax.random.key(seed), digits, hidden=(hidden,), epochs=epochs)
    test_accuracy = accuracy(network, digits.test_inputs, digits.test_labels)

    x, label = digits.test_inputs[index], int(digits.test_labels[index])
    activations, outputs = np.asarray(network.layers[0](x)), np.asarray(jaxnn.query(network, x))
    answer = int(outputs.argmax())
    pushes = np.asarray(jaxnn.weights.contributions(network, x)[:, answer])
    units = pushing(pushes, top)
    units_drawn = figure_of_units(network, x, units, answer, digits.image_shape) if units.size else None
    said = f"test image {index}, a {label}, answered {answer} ({outputs[answer]:.2f})"
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "seed": seed, "index": index},
        tables=[table_of_units(network, x, units, answer, f"What pushes towards {answer}: {said}")],
        figures={
            "layers": figure_of_layers(
                np.reshape(x, digits.image_shape), activations, outputs, label,
                f"{sizes_of(network.sizes)}, accuracy {test_accuracy:.4f}: {said}",
            ),
            **({"units": units_drawn} if units_drawn else {}),
        },
        metrics={
            "test_accuracy": test_accuracy, "label": label, "answer": answer, "outputs": outputs.tolist(),
            "activations": activations.tolist(), "contributions": pushes.tolist(), "units": units.tolist(),
            "signal": float(network.layers[1].signal(network.layers[0](x))[answer]),
        },
    )  # fmt: skip


def pushing(pushes: np.ndarray, top: int) -> np.ndarray:
    """The units with the largest contributions, of those above 0: there may be fewer than `top`."""
    largest = np.argsort(-pushes, kind="stable")[:top]
    return largest[pushes[largest] > 0]


def table_of_units(network: jaxnn.Network, x: jax.Array, units: np.ndarray, answer: int, title: str) -> Table:
    """A row a unit, and what the other ones add, up to the signal of the answer."""
    hidden, last = network.layers
    pushes = np.asarray(jaxnn.weights.contributions(network, x)[:, answer])
    table = Table("unit", "activation", "weight onto the answer", "contribution", title=title)
    for unit in units:
        weight = signed(float(last.kernel[unit, answer]))
        table.add_row(str(unit), f"{hidden(x)[unit]:.2f}", weight, signed(pushes[unit]))
    others = np.delete(pushes, units)
    assert last.bias is not None, "train_sigmoids gives every layer one"
    rows = {
        f"{np.sum(others > 0)} others for it": others[others > 0].sum(),
        f"{np.sum(others <= 0)} others against it": others[others <= 0].sum(),
        "bias": float(last.bias[answer]),
        "the answer's signal": float(last.signal(hidden(x))[answer]),
    }
    table.add_section()
    for row, value in rows.items():
        table.add_row(row, "", "", signed(value))
    return table


def figure_of_layers(
    image: np.ndarray, activations: np.ndarray, outputs: np.ndarray, label: int, title: str
) -> Figure:
    """The input, the activations of the hidden layer as an image, and the outputs."""
    _, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", width_ratios=(1, 1.2, 1.3))
    jaxnn.plot.image_grid(image[None], limits=(0, 1), name="input", axes=axes[:1])
    shape = near_square(activations.size)
    jaxnn.plot.activation_image(padded(activations, shape).ravel(), shape, ax=axes[1])
    hatch(axes[1], shape, activations.size)
    jaxnn.plot.output_bars(outputs, answer=label, ax=axes[2])
    for ax, name in zip(
        axes, ("the image", f"the hidden layer{hatched(shape, activations.size)}", "the outputs"), strict=True
    ):
        ax.set_title(name, fontsize=10)
    return titled(axes, title)


def figure_of_units(
    network: jaxnn.Network, x: jax.Array, units: np.ndarray, answer: int, shape: tuple[int, int]
) -> Figure:
    """Above the weights of each unit, below the input times them, on one scale."""
    hidden = network.layers[0]
    kernels = jaxnn.weights.kernel_images(network, shape)[units]
    seen = jaxnn.weights.contributions(network, x, layer=0)[:, units].T.reshape(-1, *shape)
    pushes = jaxnn.weights.contributions(network, x)[units, answer]
    above = [f"unit {u}\ncontribution {signed(push)}" for u, push in zip(units, pushes, strict=True)]
    below = [
        f"signal {signed(signal)}\nactivation {activation:.2f}"
        for signal, activation in zip(hidden.signal(x)[units], hidden(x)[units], strict=True)
    ]
    axes = jaxnn.plot.image_grid(
        np.concatenate([kernels, seen]), titles=above + below, row_labels=("weights", "input times weights"),
        signed=True, name="weight, input times weight",
    )  # fmt: skip
    return titled(axes, f"The units that push most towards {answer}, and what they find in this image")


if __name__ == "__main__":
    tyro.cli(main)
