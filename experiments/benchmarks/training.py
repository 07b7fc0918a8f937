"""How fast is training 784-200-10, and asking it backwards, beside NumPy, PyTorch and scikit-learn?

An epoch is the 4,000 training images of mnist-5k in a new order. PyTorch runs eagerly, with the fastest of
its settings (one or two threads, its foreach optimizer or not). scikit-learn's classifier has the same
sizes, sigmoid, rate and batches, on its own loss. Needs the `peers` extra.
"""

from collections.abc import Callable
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
from experiments._digits import Digits, load_digits
from experiments._results import save_metrics
from experiments.benchmarks._measure import Times, alternate, machine, ratio
from tests import numpy_book

SIZES = (784, 200, 10)
RATE = 0.1
TORCH_SETTINGS = [(threads, foreach) for threads in (1, 2) for foreach in (False, True)]
Call = Callable[[], Any]


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
        targets: back queries.
        output: where to write the numbers.
    """
    console = Console(width=110)
    console.print(machine())
    digits = load_digits("mnist-5k")
    found: dict[str, Any] = {"machine": machine()}
    for batch_size in batch_sizes:
        times = alternate(training_calls(digits, batch_size), rounds)
        steps = len(digits.inputs) // batch_size
        title = f"Training, batches of {batch_size}: an epoch of {steps} steps"
        floor = product_seconds(batch_size) * steps
        console.print(table_of(title, times, steps, "us / step", floor))
        found[f"training_{batch_size}"] = summary(times) | {"floor_seconds": floor}
    times = alternate(back_query_calls(targets), rounds)
    console.print(table_of(f"{targets:,} back queries", times, targets, "us / query"))
    found["back_query"] = summary(times)
    save_metrics(found, output)


def training_calls(digits: Digits, batch_size: int) -> dict[str, Call]:
    """One epoch of training by each library, from the same weights."""
    network = jaxnn.init(jax.random.key(0), SIZES, use_bias=False)
    optimizer = optax.sgd(RATE)
    keys = iter(jax.random.split(jax.random.key(1), 1000))

    def ours() -> Any:
        return jaxnn.train(
            network, digits.inputs, digits.targets, key=next(keys), epochs=1,
            batch_size=batch_size, optimizer=optimizer,
        )[0]  # fmt: skip

    x, t = np.asarray(digits.inputs), np.asarray(digits.targets)
    rng = np.random.default_rng(0)
    kernels = [np.array(layer.kernel) for layer in network.layers]

    def in_numpy() -> None:
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            numpy_book.train_step(kernels, x[rows], t[rows], RATE)

    calls: dict[str, Call] = {"jaxnn": ours, "NumPy": in_numpy}
    for threads, foreach in TORCH_SETTINGS:
        name = f"PyTorch, {threads} threads{', foreach' if foreach else ''}"
        calls[name] = torch_call(kernels, x, t, batch_size, threads, foreach)
    return calls | {"scikit-learn": sklearn_call(x, digits.labels, batch_size)}


def torch_call(
    kernels: list[np.ndarray],
    x: np.ndarray,
    t: np.ndarray,
    batch_size: int,
    threads: int,
    foreach: bool,
) -> Call:
    """An epoch of eager PyTorch."""
    import torch

    inputs, targets = torch.from_numpy(x.copy()), torch.from_numpy(t.copy())
    layers = [torch.nn.Linear(*kernel.shape, bias=False) for kernel in kernels]
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.weight.data = torch.from_numpy(kernel.T.copy())
    model = torch.nn.Sequential(layers[0], torch.nn.Sigmoid(), layers[1], torch.nn.Sigmoid())
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, foreach=foreach)

    def epoch() -> None:
        torch.set_num_threads(threads)
        for rows in torch.randperm(len(inputs)).split(batch_size):
            optimizer.zero_grad()
            error = model(inputs[rows]) - targets[rows]
            (0.5 * (error * error).sum(dim=1).mean()).backward()
            optimizer.step()

    return epoch


def sklearn_call(x: np.ndarray, labels: np.ndarray, batch_size: int) -> Call:
    """An epoch of scikit-learn's multi-layer perceptron; `partial_fit` is one pass over the data."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        SIZES[1:-1], activation="logistic", solver="sgd", momentum=0.0, alpha=0.0,
        learning_rate_init=RATE, batch_size=batch_size, random_state=0,
    )  # fmt: skip
    return lambda: model.partial_fit(x, labels, classes=np.arange(10)) and None


def back_query_calls(count: int) -> dict[str, Call]:
    """`count` pictures by each way of asking a network backwards."""
    network = jaxnn.init(jax.random.key(0), SIZES, use_bias=False)
    asked = jax.random.uniform(jax.random.key(1), (count, 10), minval=0.01, maxval=0.99)
    kernels, rows = [np.asarray(layer.kernel) for layer in network.layers], np.asarray(asked)
    return {
        "jaxnn": lambda: jaxnn.backquery(network, asked),
        "NumPy": lambda: [numpy_book.backquery(kernels, row) for row in rows],
        "jaxnn, least squares": lambda: jaxnn.backquery(network, asked, method="least_squares"),
    }


def product_seconds(batch_size: int) -> float:
    """The floor of a step: its two large products alone, at the rate that JAX reaches here."""
    x = jax.random.uniform(jax.random.key(0), (batch_size, SIZES[0]))
    w = jax.random.normal(jax.random.key(1), SIZES[:2])
    steps = 200

    @jax.jit
    def products(w: jax.Array, x: jax.Array) -> jax.Array:
        def step(w: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x.T @ (x @ w), None

        return lax.scan(step, w / jnp.linalg.norm(x) ** 2, length=steps)[0]

    return alternate({"products": lambda: products(w, x)}, 7)["products"].median / steps


def table_of(
    title: str, times: dict[str, Times], count: int, unit: str, floor: float | None = None
) -> Table:
    """A row a library: its time, and how many times as long as jaxnn it takes."""
    table = Table("", "seconds", unit, "first call, s", "times jaxnn", "(rounds)", title=title)
    quickest = min((n for n in times if "PyTorch" in n), key=lambda n: times[n].median, default="")
    for name, seconds in times.items():
        if "PyTorch" in name and name != quickest:
            continue
        low, middle, high = ratio(seconds, times["jaxnn"])
        per = seconds.median / count * 1e6
        table.add_row(
            name, f"{seconds.median:.4f}", f"{per:.1f}", f"{seconds.first:.2f}",
            f"{middle:.2f}", f"{low:.2f} to {high:.2f}",
        )  # fmt: skip
    if floor:
        share = floor / times["jaxnn"].median
        name = "floor: the two large products alone"
        table.add_row(name, f"{floor:.4f}", f"{floor / count * 1e6:.1f}", "", f"{share:.2f}", "")
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
