"""How fast is training 784-200-10, and asking it backwards, beside NumPy, PyTorch and scikit-learn?

An epoch is the 4,000 training images of mnist-5k in a new order. PyTorch runs eagerly, with the fastest of
its settings (one or two threads, its foreach optimizer or not). scikit-learn's classifier has the same
sizes, sigmoid, rate and batches, on its own loss. Needs the `peers` extra.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import lax
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments._digits import load_digits
from experiments._results import save_metrics
from experiments.benchmarks._measure import Build, Call, Times, alternate, machine, ratio
from tests import numpy_book

SIZES = (784, 200, 10)
RATE = 0.1
EPOCHS = 3  # a call, in every library
PRODUCTS = 200  # of the floor, in one compiled loop
TORCH = {
    f"PyTorch, {threads} thread{'s' * (threads > 1)}{', foreach' * foreach}": (threads, foreach)
    for threads in (1, 2)
    for foreach in (False, True)
}


def main(
    rounds: int = 7,
    batch_sizes: tuple[int, ...] = (1, 10, 100),
    targets: int = 10_000,
    output: Path = Path("results/benchmarks/training.json"),
) -> None:
    """Measure, and print tables of ratios.

    Args:
        rounds: how often each library takes its turn.
        batch_sizes: examples a step.
        targets: back queries; least squares solves a tenth of them.
        output: where to write the numbers.
    """
    console = Console(width=110)
    console.print(machine())
    steps = {batch_size: EPOCHS * 4000 // batch_size for batch_size in batch_sizes}
    found: dict[str, Any] = {"machine": machine()}
    for batch_size, count in steps.items():
        builds: dict[str, Build] = {"jaxnn": partial(ours, batch_size), "NumPy": partial(numpys, batch_size)}
        builds |= {name: partial(torchs, batch_size, *setting) for name, setting in TORCH.items()}
        builds |= {"scikit-learn": partial(sklearns, batch_size), "floor": partial(floor, batch_size)}
        times = alternate(builds, rounds)
        # The floor is of as many products as there are steps.
        scale = count / PRODUCTS
        times["floor"] = Times(times["floor"].first * scale, times["floor"].rounds * scale)
        title = f"Training, batches of {batch_size}: {EPOCHS} epochs, {count} steps"
        console.print(table_of(title, times, count, "us / step"))
        found[f"training_{batch_size}"] = summary(times)
    queries: dict[str, Build] = {
        "jaxnn": partial(our_back_queries, targets, "transpose"),
        "NumPy": partial(numpys_back_queries, targets),
    }
    solved: dict[str, Build] = {"jaxnn": partial(our_back_queries, targets // 10, "least_squares")}
    for title, builds, count in (
        (f"{targets:,} back queries, transposed weights", queries, targets),
        (f"{targets // 10:,} back queries, least squares", solved, targets // 10),
    ):
        times = alternate(builds, rounds)
        console.print(table_of(title, times, count, "us / query"))
        found[title] = summary(times)
    save_metrics(found, output)


def ours(batch_size: int) -> Call:
    """Training by jaxnn."""
    digits, network = load_digits("mnist-5k"), initial()
    optimizer = optax.sgd(RATE)
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return lambda: jaxnn.train(
        network, digits.inputs, digits.targets, key=next(keys), epochs=EPOCHS, batch_size=batch_size,
        optimizer=optimizer,
    )[0]  # fmt: skip


def numpys(batch_size: int) -> Call:
    """Training by the book's equations in NumPy."""
    x, t, _ = in_numpy()
    kernels = [np.array(layer.kernel) for layer in initial().layers]
    rng = np.random.default_rng(0)

    def epochs() -> None:
        order = np.concatenate([rng.permutation(len(x)) for _ in range(EPOCHS)])
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            numpy_book.train_step(kernels, x[rows], t[rows], RATE)

    return epochs


def torchs(batch_size: int, threads: int, foreach: bool) -> Call:
    """Training by eager PyTorch."""
    import torch

    torch.set_num_threads(threads)
    x, t, _ = in_numpy()
    inputs, targets = torch.from_numpy(x), torch.from_numpy(t)
    layers = [torch.nn.Linear(n, m, bias=False) for n, m in itertools.pairwise(SIZES)]
    for layer, ours_ in zip(layers, initial().layers, strict=True):
        layer.weight.data = torch.from_numpy(np.array(ours_.kernel).T.copy())
    model = torch.nn.Sequential(layers[0], torch.nn.Sigmoid(), layers[1], torch.nn.Sigmoid())
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, foreach=foreach)

    def epochs() -> None:
        order = torch.cat([torch.randperm(len(inputs)) for _ in range(EPOCHS)])
        for rows in order.split(batch_size):
            optimizer.zero_grad()
            error = model(inputs[rows]) - targets[rows]
            (0.5 * (error * error).sum(dim=1).mean()).backward()
            optimizer.step()

    return epochs


def sklearns(batch_size: int) -> Call:
    """Training by scikit-learn; `partial_fit` is one pass over the data."""
    from sklearn.neural_network import MLPClassifier

    x, _, labels = in_numpy()
    model = MLPClassifier(
        SIZES[1:-1], activation="logistic", solver="sgd", momentum=0.0, alpha=0.0,
        learning_rate_init=RATE, batch_size=batch_size, random_state=0,
    )  # fmt: skip
    return lambda: [model.partial_fit(x, labels, classes=np.arange(10)) for _ in range(EPOCHS)] and None


def floor(batch_size: int) -> Call:
    """The two large products of a step and nothing else, as JAX does them here."""
    x = jax.random.uniform(jax.random.key(0), (batch_size, SIZES[0]))
    weights = initial().layers[0].kernel

    @jax.jit
    def products(weights: jax.Array, x: jax.Array) -> jax.Array:
        # The tiny factor ties each step to the last, so that the loop cannot be hoisted out.
        return lax.fori_loop(0, PRODUCTS, lambda _, w: w - 1e-9 * (x.T @ (x @ w)), weights)

    return lambda: products(weights, x)


def our_back_queries(count: int, method: str) -> Call:
    """`count` back queries in one call."""
    network, y = initial(), jnp.asarray(asked(count))
    return lambda: jaxnn.backquery(network, y, method=method)


def numpys_back_queries(count: int) -> Call:
    """A loop of the book's equations."""
    kernels = [np.asarray(layer.kernel) for layer in initial().layers]
    return lambda: [numpy_book.backquery(kernels, row) for row in asked(count)]


def initial() -> jaxnn.Network:
    """The weights that all start from."""
    return jaxnn.init(jax.random.key(0), SIZES, use_bias=False)


def asked(count: int) -> np.ndarray:
    """Outputs to ask for."""
    return np.random.default_rng(1).uniform(0.01, 0.99, (count, 10)).astype(np.float32)


def in_numpy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and labels."""
    digits = load_digits("mnist-5k")
    return np.array(digits.inputs), np.array(digits.targets), digits.labels


def table_of(title: str, times: dict[str, Times], count: int, unit: str) -> Table:
    """A row a library: its time, and how many times as long as jaxnn it takes."""
    table = Table("", "seconds", unit, "first call, s", "times jaxnn", "(rounds)", title=title)
    quickest = min((n for n in times if n in TORCH), key=lambda n: times[n].median, default="")
    for name, seconds in times.items():
        if name in TORCH and name != quickest:
            continue
        low, middle, high = ratio(seconds, times["jaxnn"])
        table.add_row(
            name, f"{seconds.median:.4f}", f"{seconds.median / count * 1e6:.1f}", f"{seconds.first:.2f}",
            f"{middle:.2f}", f"{low:.2f} to {high:.2f}",
        )  # fmt: skip
    return table


def summary(times: dict[str, Times]) -> dict[str, Any]:
    """Seconds and ratios for the file."""
    return {
        name: {
            "first_seconds": seconds.first,
            "seconds": seconds.rounds.tolist(),
            "times_jaxnn_low_median_high": ratio(seconds, times["jaxnn"]),
        }
        for name, seconds in times.items()
    }


if __name__ == "__main__":
    tyro.cli(main)
