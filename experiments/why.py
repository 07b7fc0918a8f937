"""Why did the network predict that, by every method side by side?

A dense network and a small convolutional one are trained on handwritten digits, and the logit of the
predicted class is explained for one test image by every method of attribution. Each map is drawn on its own
scale, as the units differ. Two numbers are reported for each: the completeness gap, the difference of the sum
of the attributions and the change of the logit from a black image (for methods that guarantee completeness),
and the drop of the logit when the tenth of the pixels with the highest attributions is made black.
"""

import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table

from experiments._common.attributions import BLACK, Method, logits_of, methods
from experiments._common.cnn import Model, cnn_accuracy, train_cnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, as_images, load_digits
from experiments._common.figures import true_minus
from experiments._common.networks import accuracy, train_by_the_book
from experiments._common.options import check_at_least, check_between, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn import attribution, plot

# Complete methods, with the number of pixels that repeat the value of one block.
COMPLETE = {"integrated gradients": 1, "deep_lift": 1, "shapley_sampling": 4, "kernel_shap": 4}
CLIP = 99.0  # the percentile at which the colors end
FRACTION = 0.1  # of the pixels, made black
NO_SIGN = {"var_grad"}  # a variance
COMPARED = {"rise"}  # a mean of outputs, of which the differences between pixels tell something


def main(
    data: DataName = "mnist-5k",
    index: int = 3,
    epochs: int = 4,
    seed: int = 0,
    output: Path = Path("results/why"),
) -> None:
    """Train two networks, and explain their predictions for one test image by every method.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        index: of the test image, from 0.
        epochs: number of passes over the training images.
        seed: of the initial weights, the order of the images and the samples.
        output: the folder for pictures and numbers.
    """
    make_folder(output)
    check_seed(seed)
    check_at_least("epochs", epochs, 1)
    digits = load_digits(data)
    check_between("index", index, 0, len(digits.test_labels) - 1)
    dense, _ = train_by_the_book(digits, hidden=(200,), epochs=epochs, rate=0.1, seed=seed)
    cnn = train_cnn(digits, epochs=epochs, seed=seed)
    networks: dict[str, tuple[Model, float]] = {
        "dense": (
            jax.tree_util.Partial(logits_of, dense),
            accuracy(dense, digits.test_inputs, digits.test_labels),
        ),
        "convolutional": (cnn, cnn_accuracy(cnn, digits)),
    }
    x = as_images(digits.test_inputs[index], digits)[0]
    keys = iter(jax.random.split(jax.random.key(seed), 2))
    tables, figures, metrics = [], {}, {}
    for name, (model, test_accuracy) in networks.items():
        prediction = int(jnp.argmax(model(x)))
        kinds = methods(digits, key=next(keys), convolutional=name == "convolutional")
        maps = {each: explain(method, model, x, prediction) for each, method in track(kinds.items(), name)}
        scores = {each: evaluate(each, values, model, x, prediction) for each, (values, _) in maps.items()}
        title = f"The {name} network (test accuracy {test_accuracy:.4f}): {prediction} for test image {index}"
        tables.append(table_of(maps, scores, f"{title}, a {digits.test_labels[index]}"))
        figures[name] = figure_of(
            {each: values for each, (values, _) in maps.items()}, np.asarray(x[..., 0]), title
        )
        metrics[name] = {"prediction": prediction, "test_accuracy": test_accuracy, "methods": scores}
    save_results(
        output,
        settings={"data": data, "index": index, "epochs": epochs, "seed": seed},
        tables=tables, figures=figures, metrics={"label": int(digits.test_labels[index]), **metrics},
    )  # fmt: skip


def explain(method: Method, model: Model, x: jax.Array, target: int) -> tuple[np.ndarray, float]:
    """The map `(h, w)`, and the seconds that it took, including compilation."""
    start = time.perf_counter()
    values = np.asarray(method(model, x, target))
    return values.reshape(x.shape[:2]), time.perf_counter() - start


def evaluate(
    method: str, values: np.ndarray, model: Model, x: jax.Array, target: int
) -> dict[str, float | None]:
    """The drop of the logit without the highest attributions, and the completeness gap, if defined."""
    gap = None
    if method in COMPLETE:
        parts, black = values[..., None] / COMPLETE[method], jnp.full_like(x, BLACK)
        gap = float(attribution.completeness_gap(model, x, target, parts, baseline=black))
    order = np.argsort(-values, axis=None, kind="stable")
    count = math.ceil(FRACTION * order.size)
    hidden = np.zeros(order.size, bool)
    hidden[order[:count]] = True
    hidden_image = jnp.where(jnp.asarray(hidden.reshape(x.shape)), BLACK, x)
    return {"gap": gap, "drop": float(model(x)[target] - model(hidden_image)[target])}


def table_of(
    maps: dict[str, tuple[np.ndarray, float]], scores: dict[str, dict[str, float | None]], title: str
) -> Table:
    """One row per method."""
    columns = ("method", "completeness gap", f"drop of the logit without the first {FRACTION:.0%}")
    table = Table(*columns, "first call, s", title=title)
    for name, (_, seconds) in maps.items():
        gap, drop = scores[name]["gap"], scores[name]["drop"]
        cell = "" if gap is None else f"{abs(gap):.1e}"
        table.add_row(name, cell, true_minus(f"{drop:.2f}"), f"{seconds:.1f}")
    return table


def figure_of(maps: dict[str, np.ndarray], image: np.ndarray, title: str) -> Figure:
    """Every map over the image, each on its own scale, whose end is in its title."""
    columns = 6
    rows = -(-len(maps) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.1 * columns, 2.35 * rows + 0.8), layout="constrained"
    )
    for ax, (name, values) in zip(axes.flat, maps.items(), strict=False):
        draw(ax, name, values, image)
    for ax in axes.flat[len(maps) :]:
        ax.set_axis_off()
    figure.suptitle(
        f"{title}\nblue: evidence for the prediction, red: against it; colors end at the 99th percentile, "
        "which the titles give"
    )
    return figure


def draw(ax: Axes, name: str, values: np.ndarray, image: np.ndarray) -> None:
    """One map: what has no sign in shades of gray, and RISE less its mean."""
    if name in NO_SIGN:
        end = float(np.percentile(values, CLIP))
        ax.imshow(values, cmap="Greys", vmin=0, vmax=end)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{name} (no sign)\n0 to {end:.2g}", fontsize=9)
        return
    shown = values - values.mean() if name in COMPARED else values
    end = float(np.percentile(np.abs(shown), CLIP))
    what = f"{name}, less its mean" if name in COMPARED else name
    plot.attribution(shown, image=image, title=f"{what}\n±{end:.2g}", clip=CLIP, colorbar=False, ax=ax)


if __name__ == "__main__":
    run_command(main)
