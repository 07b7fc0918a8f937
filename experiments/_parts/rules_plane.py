"""The linear regions of a ReLU network of two inputs, as an exact tree."""

from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.figures import sizes_of, titled
from experiments._common.results import Results
from jaxnn import plot, rules
from jaxnn.datasets import Points

ADAM = optax.adam(0.01)  # one object: `train` compares a static optimizer by identity
HALF_SIDE = 1.1  # of the part of the plane that is drawn
PointsName = Literal["circles", "exclusive-or", "gaussians", "spiral"]


def describe_plane(key: jax.Array, name: PointsName) -> Results:
    """Train two ReLU networks, and compare each with the tree of its linear regions."""
    point_key, init_key, order_key, test_key = jax.random.split(key, 4)
    points = jaxnn.datasets.point_set(name, key=point_key, n=500)
    figures, metrics = {}, {}
    for sizes in ((2, 8, 2), (2, 10, 10, 2)):
        network = jaxnn.init(
            init_key, sizes, activation="relu", output_activation="identity",
            kernel_init=jax.nn.initializers.he_normal(), bias_init=jax.nn.initializers.normal(0.1),
        )  # fmt: skip
        network, _ = jaxnn.train(
            network, points.inputs, points.labels, key=order_key, epochs=100, batch_size=10,
            optimizer=ADAM, loss=jaxnn.losses.cross_entropy,
        )  # fmt: skip
        regions = rules.linear_regions(network, bounds=(-HALF_SIDE, HALF_SIDE))
        x = jax.random.uniform(test_key, (100_000, 2), minval=-HALF_SIDE, maxval=HALF_SIDE)
        by_tree, outputs = jax.jit(jax.vmap(regions.tree.__call__))(x), jaxnn.query(network, x)
        correct = jnp.argmax(jaxnn.query(network, points.inputs), axis=-1) == points.labels
        metrics[sizes_of(sizes)] = {
            "regions": len(regions.polygons),
            "accuracy": float(jnp.mean(correct)),
            "largest_difference": float(jnp.max(jnp.abs(by_tree - outputs))),
            "same_class": float(jnp.mean(by_tree.argmax(axis=-1) == outputs.argmax(axis=-1))),
        }
        figures[f"plane_{sizes_of(sizes)}"] = titled(
            figure_of_plane(network, regions, points),
            f"{name}, {sizes_of(sizes)}: {len(regions.polygons)} regions, on each of which the network is "
            "affine",
        )
    table = Table("network", "accuracy", "regions", "largest difference", "same class")
    table.title = f"The plane ({name}): the exact tree and the network at 100,000 points"
    for shown, row in metrics.items():
        table.add_row(
            shown, f"{row['accuracy']:.1%}", str(row["regions"]), f"{row['largest_difference']:.1e}",
            f"{row['same_class']:.3%}",
        )  # fmt: skip
    return Results([table], figures, {"plane": metrics})


def figure_of_plane(network: jaxnn.Network, regions: rules.LinearRegions, points: Points) -> Figure:
    """The difference of the two outputs over the plane, and the linear regions."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.8), layout="constrained")
    side = np.linspace(-HALF_SIDE, HALF_SIDE, 301)
    outputs = jaxnn.query(network, jnp.stack(jnp.meshgrid(side, side), axis=-1))
    difference = outputs[..., 1] - outputs[..., 0]
    high = float(jnp.quantile(jnp.abs(difference), 0.95))
    plot.decision_map(
        side, side, difference, points=points.inputs[:150], labels=points.labels[:150], limits=(-high, high),
        name="logit of class 1 minus class 0", ax=left,
    )  # fmt: skip
    left.set_title("the network", fontsize=10)
    middles = np.stack([polygon.mean(axis=0) for polygon in regions.polygons])
    values = np.asarray(jaxnn.query(network, middles)) @ np.array([-1.0, 1.0])
    plot.regions(regions.polygons, values=values, limits=(-high, high), ax=right)
    right.set(xlim=(-HALF_SIDE, HALF_SIDE), ylim=(-HALF_SIDE, HALF_SIDE), xlabel="$x_1$", ylabel="$x_2$")
    right.set_box_aspect(1)
    right.set_title("its linear regions, each with the value at its center", fontsize=10)
    return figure
