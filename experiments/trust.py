"""Which explanations can be trusted here?

A dense network and a small convolutional one are trained on handwritten digits, and every attribution method
is asked by every metric of `jaxnn.quality` on test images: whether it sums up, finds the pixels whose removal
lowers the logit, changes when the weights are drawn at random, depends on the class, and is stable. A third
network is built by hand, so that the pixels on which it depends are known: a planted rule, beside pairs of
units that cancel out.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.attributions import BLACK, Method, logits_of, methods
from experiments._common.cnn import Model, cnn_accuracy, train_cnn
from experiments._common.command import run_command
from experiments._common.digits import DataName, Digits, as_images, load_digits
from experiments._common.networks import accuracy, train_by_the_book
from experiments._common.options import check_at_least, check_between, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn import plot, quality

# Each in place of others that say nearly the same here, or that take a thousand evaluations per map.
SHOWN = (
    "saliency", "input x gradient", "integrated gradients", "smooth_grad", "deep_lift", "lrp, epsilon",
    "occlusion", "feature_ablation",
)  # fmt: skip
OF_RELUS = ("guided_backprop", "deconvnet", "lrp, epsilon-plus", "grad_cam")
REGION = (slice(4, 12), slice(14, 22))  # of the planted rule: rows and columns
LOCALIZATION = ("pointing_game", "relevance_mass", "relevance_rank", "relevance_auc")


def main(
    data: DataName = "mnist-5k",
    examples: int = 40,
    index: int = 3,
    epochs: int = 4,
    seed: int = 0,
    output: Path = Path("results/trust"),
) -> None:
    """Train two networks, build a third, and ask which attributions can be trusted.

    Args:
        data: the data set; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        examples: number of test images, from 2.
        index: of the test image whose attributions are drawn, from 0.
        epochs: number of passes over the training images.
        seed: of the initial weights, the order of the images and the samples.
        output: the folder for pictures, pages and numbers.
    """
    make_folder(output)
    check_seed(seed)
    check_at_least("epochs", epochs, 1)
    digits = load_digits(data)
    check_between("examples", examples, 2, len(digits.test_labels))
    check_between("index", index, 0, len(digits.test_labels) - 1)
    images = as_images(digits.test_inputs, digits)
    keys = jax.random.split(jax.random.key(seed), 4)
    tables, figures, pages, metrics = [], {}, {}, {}
    for name, (model, test_accuracy), key in zip(
        ("dense", "convolutional"), train(digits, epochs, seed), keys, strict=False
    ):
        chosen = methods_of(digits, keys[2], convolutional=name == "convolutional")
        targets = jnp.argmax(jax.vmap(model)(images[:examples]), axis=-1)
        report = quality.report(
            model, images[:examples], targets, chosen, key=key, baseline=BLACK, n_samples=5, progress=True
        )
        title = f"The {name} network (test accuracy {test_accuracy:.4f}), {examples} test images"
        tables.append(table_of_verdicts(report, title))
        figures[name] = figure_of(report, chosen, model, images[index], title)
        pages[name] = f"Every metric: {title}", report.html()
        metrics[name] = {"test_accuracy": test_accuracy, "methods": numbers_of(report)}
    table, metrics["planted"] = planted(digits, images[:examples], keys[3])
    save_results(
        output,
        settings={"data": data, "examples": examples, "index": index, "epochs": epochs, "seed": seed},
        tables=[*tables, table], figures=figures, metrics=metrics, pages=pages,
    )  # fmt: skip


def train(digits: Digits, epochs: int, seed: int) -> list[tuple[Model, float]]:
    """The two networks, and their accuracies."""
    dense, _ = train_by_the_book(digits, hidden=(200,), epochs=epochs, rate=0.1, seed=seed)
    cnn = train_cnn(digits, epochs=epochs, seed=seed)
    return [
        (jax.tree_util.Partial(logits_of, dense), accuracy(dense, digits.test_inputs, digits.test_labels)),
        (cnn, cnn_accuracy(cnn, digits)),
    ]


def methods_of(digits: Digits, key: jax.Array, *, convolutional: bool) -> dict[str, Method]:
    """The methods that are asked, and attributions at random to compare with; maps `(h, w, 1)`."""
    known = methods(digits, key=key, convolutional=convolutional)
    names = SHOWN + OF_RELUS if convolutional else SHOWN
    chosen: dict[str, Method] = {name: _Map(known[name]) for name in names}
    return chosen | {"at random": jax.tree_util.Partial(at_random, key)}


class _Map:
    """A method whose map has the axes of the image."""

    def __init__(self, method: Method):
        self.method = method

    def __call__(self, model: Model, x: jax.Array, target: int) -> jax.Array:
        options = getattr(self.method, "keywords", {})
        unchecked = {"check_completeness": False} if "baseline" in options and _checks(self.method) else {}
        return self.method(model, x, target, **unchecked).reshape(x.shape)


def _checks(method: Any) -> bool:
    return "check_completeness" in getattr(method.func, "__annotations__", {})


def at_random(key: jax.Array, model: Model, x: jax.Array, target: int) -> jax.Array:
    """Attributions that say nothing: the same normal numbers for every image, network and class."""
    return jax.random.normal(key, x.shape)


def numbers_of(report: quality.Report) -> dict[str, Any]:
    """The mean of each metric where it is finite, and which claims hold."""
    return {
        name: {
            "claims": {claim: verdict.passed for claim, verdict in part.verdicts.items()},
            "metrics": {
                metric: mean for metric in report.metrics if np.isfinite(mean := report.mean(name, metric)[0])
            },
        }
        for name, part in report.methods.items()
        if not part.refused
    }


def table_of_verdicts(report: quality.Report, title: str) -> Table:
    """One row per method, one column per claim."""
    first = next(part for part in report.methods.values() if not part.refused)
    table = Table("method", *first.verdicts, title=title)
    words = {True: "yes", False: "no", None: "-"}
    for name, part in report.methods.items():
        cells = [f"{words[verdict.passed]} ({verdict.value:.2g})" for verdict in part.verdicts.values()]
        table.add_row(name, *(cells or [f"refused: {part.refused}"]))
    return table


def figure_of(
    report: quality.Report, chosen: dict[str, Method], model: Model, image: jax.Array, title: str
) -> Figure:
    """The maps of one image, the verdicts, the deletion curves and the randomized layers."""
    used = {name: part for name, part in report.methods.items() if not part.refused}
    columns = 7
    rows = -(-len(used) // columns)
    heights = [1.75 * rows, 0.36 * len(used) + 0.6, 3.4, 3.4]
    figure = plt.figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
    parts: Any = figure.subfigures(4, 1, height_ratios=heights)
    target = int(jnp.argmax(model(image)))
    grid = parts[0].subplots(rows, columns, squeeze=False)
    for ax in grid.flat[len(used) :]:
        ax.set_axis_off()
    for ax, name in zip(grid.flat, used, strict=False):
        values = np.asarray(chosen[name](model, image, target))[..., 0]
        plot.attribution(values, image=np.asarray(image[..., 0]), title=name, colorbar=False, ax=ax)
    plot.quality_table(report, ax=parts[1].subplots())
    curves = {name: part.curves["deletion"] for name, part in used.items()}
    ax = parts[2].subplots()
    plot.deletion_curves(
        curves, title="Removal of the pixels with the largest attributions first: the lower, the better",
        xlabel="share of the pixels made black", ylabel="logit of the prediction, mean", ax=ax,
    )  # fmt: skip
    _legend_beside(ax)
    results = {name: part.randomization for name, part in used.items() if part.randomization is not None}
    ax = parts[3].subplots()
    plot.randomization(results, report.steps, title="Attributions of networks with random layers", ax=ax)
    _legend_beside(ax)
    figure.suptitle(title)
    return figure


def _legend_beside(ax: Any) -> None:
    title = ax.get_legend().get_title().get_text()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", title=title)


def planted(digits: Digits, images: jax.Array, key: jax.Array) -> tuple[Table, dict[str, Any]]:
    """How well each method finds the pixels of a rule that is known: a table, and numbers."""
    network, mask = planted_network(digits.image_shape, key)
    model = jax.tree_util.Partial(logits_of, network)
    noisy = jnp.clip(images + 0.3 * jax.random.uniform(key, images.shape), 0, 1)  # no pixel is black
    chosen = methods_of(digits, key, convolutional=True)
    names = ("method", *(name.replace("_", " ") for name in LOCALIZATION))
    title = f"A planted rule: {mask.mean():.1%} of the pixels decide, pairs of units on the others cancel out"
    table, numbers = Table(*names, title=title), {}
    for name, method in chosen.items():
        if name == "grad_cam":  # of a convolution
            continue
        one = jax.tree_util.Partial(method, model)
        maps = jaxnn.map_examples(one, noisy, jnp.zeros(len(noisy), int), batch_size=20)
        found = {
            metric: float(jax.vmap(lambda a, metric=metric: getattr(quality, metric)(a, mask))(maps).mean())
            for metric in LOCALIZATION
        }
        numbers[name] = {metric: value for metric, value in found.items() if np.isfinite(value)}
        table.add_row(name, *(f"{value:.2f}" for value in found.values()))
    return table, {"share": float(mask.mean()), "methods": numbers}


def planted_network(shape: tuple[int, int], key: jax.Array) -> tuple[jaxnn.Network, np.ndarray]:
    """A network whose first output depends on a region alone, and the region `(h, w, 1)`.

    Its units are of two kinds: 8 see the region, and raise the first output; 16 see the rest, in pairs of
    equal weights, of which one raises and one lowers it.
    """
    mask = np.zeros(shape, bool)
    mask[REGION] = True
    inside = mask.reshape(-1)
    kernel_key, pair_key, top_key = jax.random.split(key, 3)
    size = inside.size
    seen = jax.random.uniform(kernel_key, (size, 8), minval=0.1, maxval=1) * inside[:, None]
    pairs = jnp.abs(jax.random.normal(pair_key, (size, 8))) * ~inside[:, None] / 3
    top = jnp.concatenate([jax.random.uniform(top_key, (8,), minval=0.5), jnp.ones(8), -jnp.ones(8)])
    first = jaxnn.Dense(jnp.concatenate([seen, pairs, pairs], axis=1), jnp.zeros(24), "relu")
    last = jaxnn.Dense(jnp.stack([top, -top], axis=1), jnp.zeros(2), "identity")
    return jaxnn.Network((first, last)), mask[..., None]


if __name__ == "__main__":
    run_command(main)
