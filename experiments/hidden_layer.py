"""What is a hidden layer doing to this image?

A network with 100 hidden units is trained on handwritten digits. For one test image the input, the
activations of the hidden layer, and the outputs are drawn. Then the few units that contribute most to the
prediction: the contribution of a unit is its activation times its weight to the predicted class, and all
contributions and the bias add up to the signal of that output. Each of these units is drawn as its weights,
and as the input times its weights: where the image excites it (blue) and inhibits it (red). That and its bias
add up to its own signal.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, load_digits
from experiments._common.figures import hatch, hatched, near_square, padded, signed, sizes_of, titled
from experiments._common.networks import accuracy, train_sigmoids
from experiments._common.options import check_between, check_seed, make_folder
from experiments._common.results import save_results


def main(
    data: DataName = "mnist-5k",
    index: int = 0,
    top: int = 5,
    hidden: int = 100,
    epochs: int = 20,
    seed: int = 0,
    output: Path = Path("results/hidden_layer"),
) -> None:
    """Train a network and draw its hidden layer for one test image.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        index: of the test image, from 0.
        top: number of units to show, those with the largest contributions to the prediction; at most 10,
            and fewer if fewer contributions are positive.
        hidden: number of hidden units.
        epochs: number of passes over the training images.
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
    prediction = int(outputs.argmax())
    contributions = np.asarray(jaxnn.weights.contributions(network, x)[:, prediction])
    units = largest_positive(contributions, top)
    drawn = figure_of_units(network, x, units, prediction, digits.image_shape) if units.size else None
    summary = f"test image {index}, a {label}, prediction {prediction} ({outputs[prediction]:.2f})"
    save_results(
        output,
        settings={"data": data, "sizes": network.sizes, "epochs": epochs, "seed": seed, "index": index},
        tables=[table_of_units(network, x, units, prediction, f"Contributions to {prediction}: {summary}")],
        figures={
            "layers": figure_of_layers(
                np.reshape(x, digits.image_shape), activations, outputs, label,
                f"{sizes_of(network.sizes)}, accuracy {test_accuracy:.4f}: {summary}",
            ),
            **({"units": drawn} if drawn else {}),
        },
        metrics={
            "test_accuracy": test_accuracy, "label": label, "prediction": prediction,
            "outputs": outputs.tolist(), "activations": activations.tolist(),
            "contributions": contributions.tolist(), "units": units.tolist(),
            "signal": float(network.layers[1].signal(network.layers[0](x))[prediction]),
        },
    )  # fmt: skip


def largest_positive(contributions: np.ndarray, top: int) -> np.ndarray:
    """The units with the `top` largest contributions; fewer if fewer are positive."""
    largest = np.argsort(-contributions, kind="stable")[:top]
    return largest[contributions[largest] > 0]


def table_of_units(
    network: jaxnn.Network, x: jax.Array, units: np.ndarray, prediction: int, title: str
) -> Table:
    """One row per unit, and the sum of the others, up to the signal of the prediction."""
    hidden, last = network.layers
    contributions = np.asarray(jaxnn.weights.contributions(network, x)[:, prediction])
    table = Table("unit", "activation", "weight to the prediction", "contribution", title=title)
    for unit in units:
        weight = signed(float(last.kernel[unit, prediction]))
        table.add_row(str(unit), f"{hidden(x)[unit]:.2f}", weight, signed(contributions[unit]))
    others = np.delete(contributions, units)
    assert last.bias is not None, "train_sigmoids gives every layer one"
    rows = {
        f"{np.sum(others > 0)} positive others": others[others > 0].sum(),
        f"{np.sum(others <= 0)} negative others": others[others <= 0].sum(),
        "bias": float(last.bias[prediction]),
        "signal of the prediction": float(last.signal(hidden(x))[prediction]),
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
    jaxnn.plot.output_bars(outputs, target=label, ax=axes[2])
    for ax, name in zip(
        axes, ("the image", f"the hidden layer{hatched(shape, activations.size)}", "the outputs"), strict=True
    ):
        ax.set_title(name, fontsize=10)
    return titled(axes, title)


def figure_of_units(
    network: jaxnn.Network, x: jax.Array, units: np.ndarray, prediction: int, shape: tuple[int, int]
) -> Figure:
    """The weights of each unit, and below the input times its weights, on one scale."""
    hidden = network.layers[0]
    kernels = jaxnn.weights.kernel_images(network, shape)[units]
    products = jaxnn.weights.contributions(network, x, layer=0)[:, units].T.reshape(-1, *shape)
    contributions = jaxnn.weights.contributions(network, x)[units, prediction]
    above = [f"unit {u}\ncontribution {signed(c)}" for u, c in zip(units, contributions, strict=True)]
    below = [
        f"signal {signed(signal)}\nactivation {activation:.2f}"
        for signal, activation in zip(hidden.signal(x)[units], hidden(x)[units], strict=True)
    ]
    axes = jaxnn.plot.image_grid(
        np.concatenate([kernels, products]), titles=above + below,
        row_labels=("weights", "input times weights"), signed=True, name="weight, input times weight",
    )  # fmt: skip
    return titled(
        axes, f"The units with the largest contributions to {prediction}, and the input times their weights"
    )


if __name__ == "__main__":
    run_command(main)
