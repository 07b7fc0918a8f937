"""How much accuracy is lost in half precision?

784-200-10 is trained in single precision and in bfloat16, with three seeds; and networks trained in single
precision explain test images in both.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._common.digits import load_digits
from experiments._common.networks import accuracy
from experiments.benchmarks._page import markdown
from jaxnn import attribution

ADAM = optax.adam(1e-3)
SEEDS = (0, 1, 2)
DTYPES = ("float32", "bfloat16")


def measure(console: Console, quick: bool) -> str:
    """Measure, print a table, and return it as Markdown."""
    digits = load_digits("mnist-5k")
    labels = jnp.asarray(digits.labels)
    images = digits.test_inputs[: 20 if quick else 200]
    accuracies: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    differences: list[float] = []
    for seed in SEEDS:
        for dtype in DTYPES:
            network = jaxnn.init(
                jax.random.key(seed), (784, 200, 10), activation="relu", output_activation="identity",
                dtype=jnp.dtype(dtype),
            )  # fmt: skip
            network, _ = jaxnn.train(
                network, digits.inputs.astype(dtype), labels, key=jax.random.key(10 + seed),
                epochs=2 if quick else 8, batch_size=50, optimizer=ADAM, loss=jaxnn.losses.cross_entropy,
            )  # fmt: skip
            accuracies[dtype].append(accuracy(network, digits.test_inputs.astype(dtype), digits.test_labels))
            if dtype == "float32":
                differences += relative_differences(network, images)
    table = Table(
        "precision", *(f"accuracy, seed {seed}" for seed in SEEDS), title="Training in half precision"
    )
    rows = [(dtype, *(f"{value:.3f}" for value in values)) for dtype, values in accuracies.items()]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    middle, high = np.quantile(differences, [0.5, 0.99])
    text = (
        f"Integrated gradients of {len(images)} test images by each network, computed in bfloat16, differ "
        f"from those in float32 by {middle:.1%} of their norm (median; 1 % by more than {high:.1%})."
    )
    console.print(text)
    return f"{markdown(('trained in', *(f'seed {seed}' for seed in SEEDS)), rows)}\n\n{text}"


def relative_differences(network: jaxnn.Network, images: jax.Array) -> list[float]:
    """The relative l2 difference of the attributions in half and single precision, for each image."""

    def explain(network: jaxnn.Network, x: jax.Array, target: jax.Array) -> jax.Array:
        return attribution.integrated_gradients(network, x, target, steps=50)

    predictions = jaxnn.query(network, images).argmax(axis=1)
    both = []
    for dtype in DTYPES:
        model, x = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), (network, images))
        both.append(np.asarray(jax.vmap(explain, (None, 0, 0))(model, x, predictions), np.float64))
    lengths = np.linalg.norm(both[0], axis=1)
    return [float(d) for d in np.linalg.norm(both[1] - both[0], axis=1) / lengths]
