"""How fast is dreaming many units at once, beside one after another, and beside the same loop in PyTorch?

The network is 784-200-10 of sigmoids with random weights, which are as fast as trained ones. A dream is 512
steps of Adam on pixels behind a sigmoid. Of a hundred hidden units it is made all at once by `vmap`, or
by as many calls of the same compiled function; both plain and shaken by transforms. Of the ten outputs it is
made at once here, as it comes and compiled once more around for the image and its value alone; and in
PyTorch, which runs eagerly, ten images a step, with the fastest of its settings (one or two threads, its Adam
in a loop, by foreach or fused). The floor is the two large products of a step alone, each in the order that
suits it. Needs the `peers` extra.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import lax
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._dreams import PLAIN
from experiments._results import save_metrics
from experiments.benchmarks._measure import Build, Call, Times, alternate, machine, ratio
from jaxnn import dreaming

SIZES = (784, 200, 10)
SHAPE = (28, 28)
RATE = 0.05  # the default of `dream`
SHAKEN = {"parameterization": dreaming.fourier(), "transforms": dreaming.standard_transforms(SHAPE)}
TORCH = {
    f"PyTorch, {threads} thread{'s' * (threads > 1)}, {kind}": (threads, kind)
    for threads in (1, 2)
    for kind in ("loop", "foreach", "fused")
}


def main(
    rounds: int = 7,
    units: int = 100,
    steps: int = 512,
    output: Path = Path("results/benchmarks/dreams.json"),
) -> None:
    """Measure, and print tables of ratios.

    Args:
        rounds: how often each takes its turn.
        units: hidden units to dream of, at most 200.
        steps: of each dream.
        output: where to write the numbers.
    """
    console = Console(width=110)
    console.print(machine())
    found: dict[str, Any] = {"machine": machine()}
    columns = ("", "at once, s", "in turn, s", "in turn / at once", "(rounds)", "first calls, s")
    table = Table(*columns, title=f"Dreams of {units} hidden units, {steps} steps each")
    for name, shaken in (("plain", False), ("shaken", True)):
        builds: dict[str, Build] = {
            "at once": partial(at_once, units, steps, shaken),
            "in turn": partial(in_turn, units, steps, shaken),
        }
        times = alternate(builds, rounds)
        together, apart = times["at once"], times["in turn"]
        low, middle, high = ratio(apart, together)
        table.add_row(
            name, f"{together.median:.2f}", f"{apart.median:.2f}", f"{middle:.2f}",
            f"{low:.2f} to {high:.2f}", f"{together.first:.1f}, {apart.first:.1f}",
        )  # fmt: skip
        found[f"units_{name}"] = summary(times, "at once")
    console.print(table)
    builds = {"jaxnn": partial(ours, steps, True), "jaxnn, as it comes": partial(ours, steps, False)}
    builds |= {"floor": partial(floor, steps)}
    builds |= {name: partial(torchs, steps, *setting) for name, setting in TORCH.items()}
    times = alternate(builds, rounds)
    console.print(table_of(times, steps))
    found["digits"] = summary(times, "jaxnn")
    save_metrics(found, output)


def at_once(units: int, steps: int, shaken: bool) -> Call:
    """The units' dreams in one call."""
    many = jax.vmap(partial(unit_dream, initial(), steps, shaken))
    return lambda: many(jnp.arange(units))


def in_turn(units: int, steps: int, shaken: bool) -> Call:
    """A loop over the units."""
    network = initial()
    return lambda: [unit_dream(network, steps, shaken, unit) for unit in range(units)]


def unit_dream(network: jaxnn.Network, steps: int, shaken: bool, unit: Any) -> jax.Array:
    """One unit's dream."""
    return jaxnn.dream(
        dreaming.flattened(network), dreaming.neuron("hidden_0_in", unit), key=jax.random.key(0), shape=SHAPE,
        steps=steps, **(SHAKEN if shaken else PLAIN),
    ).image  # fmt: skip


def ours(steps: int, compiled: bool) -> Call:
    """Ten digits at once by jaxnn; compiled once more around, what is not asked for is not computed."""
    network = initial()

    def ten(network: jaxnn.Network) -> tuple[jax.Array, jax.Array]:
        def one(index: jax.Array) -> jaxnn.Dream:
            return jaxnn.dream(
                dreaming.flattened(network), dreaming.logit(index), key=jax.random.key(0), shape=SHAPE,
                steps=steps, **PLAIN,
            )  # fmt: skip

        dreams = jax.vmap(one)(jnp.arange(10))
        return dreams.image, dreams.value

    asked = jax.jit(ten) if compiled else ten
    return lambda: asked(network)


def floor(steps: int) -> Call:
    """The products of ten images with the first kernel, there and back, and nothing else."""
    x = jax.random.uniform(jax.random.key(0), (10, SIZES[0]))
    kernel = initial().layers[0].kernel
    turned = jnp.array(kernel.T)

    @jax.jit
    def products(kernel: jax.Array, turned: jax.Array, x: jax.Array) -> jax.Array:
        # The tiny factor ties each step to the last, so that the loop cannot be hoisted out.
        return lax.fori_loop(0, steps, lambda _, x: x + 1e-9 * ((x @ kernel) @ turned), x)

    return lambda: products(kernel, turned, x)


def torchs(steps: int, threads: int, kind: str) -> Call:
    """The same by eager PyTorch: ten images a step, gradients of the images alone."""
    import torch

    torch.set_num_threads(threads)
    first, second = (torch.from_numpy(np.array(layer.kernel)) for layer in initial().layers)

    def dream() -> Any:
        raw = (0.01 * torch.randn(10, SIZES[0])).requires_grad_()
        optimizer = torch.optim.Adam([raw], lr=RATE, foreach=kind == "foreach", fused=kind == "fused")
        for _ in range(steps):
            optimizer.zero_grad()
            logits = torch.sigmoid(torch.sigmoid(raw) @ first) @ second
            (-logits.diagonal().sum()).backward()
            optimizer.step()
        with torch.no_grad():
            image = torch.sigmoid(raw)
            return image, (torch.sigmoid(image @ first) @ second).diagonal()

    return dream


def initial() -> jaxnn.Network:
    """The network that all ask."""
    return jaxnn.init(jax.random.key(0), SIZES, use_bias=False)


def table_of(times: dict[str, Times], steps: int) -> Table:
    """A row for jaxnn, one for the floor, and one for PyTorch at its fastest."""
    columns = ("", "seconds", "us / step", "first call, s", "times jaxnn", "(rounds)")
    table = Table(*columns, title=f"Ten digits, {steps} steps")
    quickest = min(TORCH, key=lambda name: times[name].median)
    for name in ("jaxnn", "jaxnn, as it comes", "floor", quickest):
        low, middle, high = ratio(times[name], times["jaxnn"])
        table.add_row(
            name, f"{times[name].median:.4f}", f"{times[name].median / steps * 1e6:.0f}",
            f"{times[name].first:.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}",
        )  # fmt: skip
    return table


def summary(times: dict[str, Times], to: str) -> dict[str, Any]:
    """Seconds and ratios for the file."""
    return {
        name: {
            "first_seconds": seconds.first,
            "seconds": seconds.rounds.tolist(),
            f"times_{to.replace(' ', '_')}_low_median_high": ratio(seconds, times[to]),
        }
        for name, seconds in times.items()
    }


if __name__ == "__main__":
    tyro.cli(main)
