"""Trees over the ink in blocks of an image that imitate a network on digits."""

import math
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.digits import DataName, load_digits
from experiments._common.figures import titled
from experiments._common.networks import train_sigmoids
from experiments._common.results import Results
from jaxnn import plot, rules

BLOCKS = 4  # per side of an image
IMAGES = 4000  # to which a tree is fit


def ink(image: jax.Array) -> jax.Array:
    """The mean of each of 16 blocks of one square image, in [0.01, 1]."""
    block = math.isqrt(image.size) // BLOCKS
    return image.reshape(BLOCKS, block, BLOCKS, block).mean(axis=(1, 3)).ravel()


def describe_digits(key: jax.Array, data: DataName, epochs: int) -> Results:
    """Train a network, and distill it into trees over the ink in blocks."""
    digits = load_digits(data)
    train_key, tree_key = jax.random.split(key)
    network = train_sigmoids(train_key, digits, hidden=(100,), epochs=epochs)
    names = [f"row {i + 1}, column {j + 1}" for i in range(BLOCKS) for j in range(BLOCKS)]
    options: dict[str, Any] = {
        "held_out": digits.test_inputs, "held_out_labels": digits.test_labels, "key": tree_key,
        "features": ink, "names": names, "classes": [str(k) for k in range(10)],
    }  # fmt: skip
    inputs = digits.inputs[:IMAGES]
    trees = {
        "4 questions": rules.distill_tree(network, inputs, max_depth=4, **options),
        "8 questions": rules.distill_tree(network, inputs, max_depth=8, **options),
        "8 questions, trepan": rules.trepan(network, inputs, max_depth=8, max_leaves=100, **options),
    }
    table = Table("tree", "fidelity", "accuracy", "leaves", title=f"Digits ({data}): trees over 16 blocks")
    for kind, tree in trees.items():
        table.add_row(kind, f"{tree.fidelity:.3f}", f"{tree.accuracy:.3f}", str(len(tree.rules)))
    small, large = trees["4 questions"], trees["8 questions"]
    figures = {
        "digits_tree": titled(
            plot.decision_tree(small.tree, names=names, classes=[f"{k}:" for k in range(10)]),
            "Digits: four questions about the ink in 16 blocks, "
            f"fidelity {small.fidelity:.0%} on the test images",
        ),
        "digits_rules": figure_of_rules(network, large, digits.test_inputs, digits.image_shape[0]),
    }
    metrics = {
        kind: {"fidelity": tree.fidelity, "accuracy": tree.accuracy, "curve": tree.curve.tolist()}
        for kind, tree in trees.items()
    }
    return Results([table], figures, {"digits": metrics})


def figure_of_rules(network: jaxnn.Network, tree: rules.TreeRules, inputs: jax.Array, side: int) -> Figure:
    """For each class the rule with the most correct predictions: its bounds on the ink of each block."""
    predictions = np.asarray(jaxnn.query(network, inputs)).argmax(axis=1)
    best = {}
    for rule in sorted(tree.rules, key=lambda rule: rule.coverage * np.nan_to_num(rule.precision)):
        best[rule.prediction] = rule
    classes = sorted(best)
    low, high = np.stack([best[k].low for k in classes]), np.stack([best[k].high for k in classes])
    blocks = (-1, BLOCKS, BLOCKS)
    means = np.stack([np.asarray(inputs)[predictions == k].mean(axis=0) for k in classes])
    figure, cells = plt.subplots(
        3, len(classes), figsize=(1.15 * len(classes) + 1.6, 4.6), squeeze=False, layout="constrained"
    )
    titles = [f"{k}: {best[k].coverage:.0%}, {best[k].precision:.0%}" for k in classes]
    options: dict[str, Any] = {"limits": (0, 1), "colorbar": False}
    plot.image_grid(
        means.reshape(-1, side, side), titles=titles, row_labels=["mean image"], axes=cells[:1], **options
    )
    least = np.where(np.isfinite(low), low, 0.0).reshape(blocks)
    most = np.where(np.isfinite(high), high, 1.0).reshape(blocks)
    plot.image_grid(least, row_labels=["ink at least"], axes=cells[1:2], **options)
    plot.image_grid(most, row_labels=["ink at most"], axes=cells[2:], **options)
    figure.colorbar(cells[0, 0].images[0], ax=cells, label="ink, the mean of a block or pixel", shrink=0.8)
    return titled(figure, "Digits: the most important rule of each class (coverage, precision)")
