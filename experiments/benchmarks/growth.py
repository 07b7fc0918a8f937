"""How does the cost grow with the inputs, the steps, the units, and the networks in a stack?

Integrated gradients of a hundred images, of networks n-200-10 and 784-n-10, with n steps, and of n networks
at once. The exponent is the steepness of a line fit to the larger half of the points, in logarithms.
"""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._common.results import save_figure
from experiments.benchmarks._page import markdown
from jaxnn import attribution

Measured = dict[str, tuple[list[int], list[float]]]
EXAMPLES = 100
ROUNDS = 7


def measure(console: Console, quick: bool, picture: Path) -> str:
    """Measure, print a table, draw the plots, and return the exponents as Markdown."""
    sizes: dict[str, tuple[Callable[[int], Callable[[], jax.Array]], list[int]]] = {
        "inputs": (lambda n: explain(sizes=(n, 200, 10)), _powers(6, 13)),
        "steps": (lambda n: explain(steps=n), _powers(3, 11)),
        "hidden units": (lambda n: explain(sizes=(784, n, 10)), _powers(3, 12)),
        "networks in a stack": (lambda n: explain(networks=n), _powers(0, 7)),
    }
    measured: Measured = {}
    for name, (of, counts) in sizes.items():
        counts = counts[:3] if quick else counts
        measured[name] = counts, [_seconds(of(n)) for n in counts]
    exponents = {name: exponent(*points) for name, points in measured.items()}
    head = ("growing", "from", "to", "seconds", "exponent")
    table, rows = Table(*head, title="Growth of the cost"), []
    for name, (counts, seconds) in measured.items():
        ends = f"{seconds[0]:.2g} to {seconds[-1]:.2g}"
        rows.append((name, f"{counts[0]}", f"{counts[-1]:,}", ends, f"{exponents[name]:.2f}"))
        table.add_row(*rows[-1])
    console.print(table)
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained", sharey=True)
    for ax, (name, points) in zip(axes.flat, measured.items(), strict=True):
        draw(ax, name, *points, exponents[name])
    figure.suptitle(f"Integrated gradients of {EXAMPLES} images: how the cost grows")
    save_figure(figure, picture)
    return markdown(head, rows)


def explain(
    *, sizes: tuple[int, ...] = (784, 200, 10), steps: int = 50, networks: int = 1
) -> Callable[[], jax.Array]:
    """Integrated gradients of a hundred random images, by each of a stack of networks."""
    keys = jax.random.split(jax.random.key(0), networks)
    stack = jax.vmap(lambda key: jaxnn.init(key, sizes))(keys)
    x = jax.random.uniform(jax.random.key(1), (EXAMPLES, sizes[0]))

    def one(network: jaxnn.Network, x: jax.Array) -> jax.Array:
        return attribution.integrated_gradients(network, x, 1, steps=steps, batch_size=1)

    compiled = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    return lambda: compiled(stack, x)


def exponent(counts: list[int], seconds: list[float]) -> float:
    """The steepness of a line fit to the larger half of the points, in logarithms."""
    half = len(counts) // 2
    return float(np.polyfit(np.log(counts[half:]), np.log(seconds[half:]), 1)[0])


def draw(ax: Axes, name: str, counts: list[int], seconds: list[float], power: float) -> None:
    """Draw the points, and the line fit to the larger half of them."""
    half = len(counts) // 2
    middle = np.exp(np.mean(np.log(seconds[half:])) - power * np.mean(np.log(counts[half:])))
    ax.loglog(counts, np.array(seconds) * 1000, "o", color="#0072b2", label="measured")
    ax.loglog(
        counts[half:], middle * np.array(counts[half:], float) ** power * 1000, color="#d55e00",
        label=f"exponent {power:.2f}",
    )  # fmt: skip
    ax.set(
        xlabel=name, ylabel="milliseconds", xticks=counts[::2], xticklabels=[f"{n:,}" for n in counts[::2]]
    )
    ax.minorticks_off()
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)


def _powers(first: int, last: int) -> list[int]:
    return [2**i for i in range(first, last + 1)]


def _seconds(call: Callable[[], jax.Array]) -> float:
    jax.block_until_ready(call())
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        rounds.append(time.perf_counter() - start)
    return float(np.median(rounds))
