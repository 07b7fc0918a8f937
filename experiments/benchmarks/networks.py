"""How fast is training 20 networks at once by `vmap`, beside one after another?

Networks 784-10-10 and 784-100-10, batches of ten, an epoch being the 4,000 training images of mnist-5k in a
new order. The loop calls the same `train` twenty times, compiled once; both start from new weights.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._digits import load_digits, train_sigmoids
from experiments._results import save_metrics
from experiments.benchmarks._measure import Build, Call, Times, alternate, machine, ratio

EPOCHS = 2  # a call


def main(
    rounds: int = 7,
    networks: int = 20,
    hidden: tuple[int, ...] = (10, 100),
    output: Path = Path("results/benchmarks/networks.json"),
) -> None:
    """Measure, and print a table of ratios.

    Args:
        rounds: how often each takes its turn.
        networks: how many to train.
        hidden: hidden units, a row each.
        output: where to write the numbers.
    """
    console = Console(width=110)
    console.print(machine())
    title = f"Training {networks} networks for {EPOCHS} epochs, batches of 10"
    columns = ("hidden units", "at once, s", "in turn, s", "in turn / at once", "(rounds)")
    table = Table(*columns, "first calls, s", title=title)
    found: dict[str, Any] = {"machine": machine()}
    for size in hidden:
        builds: dict[str, Build] = {
            "at once": partial(at_once, networks, size), "in turn": partial(in_turn, networks, size)
        }  # fmt: skip
        times = alternate(builds, rounds)
        table.add_row(str(size), *cells(times["at once"], times["in turn"]))
        found[f"hidden_{size}"] = {
            "in_turn_times_at_once_low_median_high": ratio(times["in turn"], times["at once"]),
            **{name: {"first_seconds": t.first, "seconds": t.rounds.tolist()} for name, t in times.items()},
        }
    console.print(table)
    save_metrics(found, output)


def at_once(count: int, hidden: int) -> Call:
    """All networks in one call, by `vmap` over their keys."""
    digits, turns = load_digits("mnist-5k"), iter(range(1000))

    def train(key: jax.Array) -> jaxnn.Network:
        return train_sigmoids(key, digits, hidden=(hidden,), epochs=EPOCHS, progress=False)

    return lambda: jax.vmap(train)(jax.random.split(jax.random.key(next(turns)), count))


def in_turn(count: int, hidden: int) -> Call:
    """A loop over the same keys."""
    digits, turns = load_digits("mnist-5k"), iter(range(1000))

    def train(key: jax.Array) -> jaxnn.Network:
        return train_sigmoids(key, digits, hidden=(hidden,), epochs=EPOCHS, progress=False)

    return lambda: [train(key) for key in jax.random.split(jax.random.key(next(turns)), count)]


def cells(together: Times, apart: Times) -> tuple[str, ...]:
    """The numbers of a row."""
    low, middle, high = ratio(apart, together)
    return (
        f"{together.median:.2f}", f"{apart.median:.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}",
        f"{together.first:.1f}, {apart.first:.1f}",
    )  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main)
