"""How fast are training and back queries of 784-200-10, beside NumPy, PyTorch and scikit-learn?

An epoch is the 4,000 training images of mnist-5k in a new order. PyTorch runs eagerly, with the fastest of
its settings (one or two threads, its foreach optimizer or not). scikit-learn's classifier has the same
sizes, sigmoid, rate and batches, on its own loss. "Its products alone" are the two large matrix products of a
step and nothing else, in one compiled loop.
"""

import itertools
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxnn
from experiments._common.digits import load_digits
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, awaited, torch_device
from tests.helpers import numpy_book

SIZES = (784, 200, 10)
RATE = 0.1
EPOCHS = 3  # per call, in every library
EXAMPLES = 4000
WEIGHTS = SIZES[0] * SIZES[1] + SIZES[1] * SIZES[2]


def cases(quick: bool) -> list[Case]:
    """Training with three batch sizes, and back queries."""
    epochs = 1 if quick else EPOCHS
    measured = []
    for size in (1, 10, 100):
        builds: dict[str, Build] = {
            "jaxnn": partial(ours, size, epochs),
            "NumPy": partial(numpys, size, epochs),
        }
        for threads, foreach in itertools.product((1, 2), (False, True)):
            name = f"PyTorch, {threads} thread{'s' * (threads > 1)}{', foreach' * foreach}"
            builds[name] = partial(torchs, size, epochs, threads, foreach)
        builds |= {
            "scikit-learn": partial(sklearns, size, epochs),
            "its products alone": partial(products, size, epochs),
        }
        # The forward pass and the gradient with respect to the weights: two operations per weight each.
        work = Work(epochs * EXAMPLES * (4 * WEIGHTS + 2 * SIZES[1] * SIZES[2]))
        row = f"batches of {size}, {epochs * EXAMPLES // size:,} steps"
        measured.append(Case("Training 784-200-10", row, builds, work))
    count = 1_000 if quick else 10_000
    queries: dict[str, Build] = {
        "jaxnn": partial(our_back_queries, count, "transpose"),
        "NumPy": partial(numpys_back_queries, count),
    }
    table = "Back queries"
    traffic = count * 4 * (SIZES[0] + SIZES[-1])
    measured.append(
        Case(table, f"{count:,}, transposed weights", queries, Work(2 * count * WEIGHTS, traffic))
    )
    solved: dict[str, Build] = {"jaxnn": partial(our_back_queries, count // 10, "least_squares")}
    # Three sweeps of 100 steps, each forward and backward through the weights of each layer.
    work = Work(3 * 100 * 4 * WEIGHTS * count // 10)
    measured.append(Case(table, f"{count // 10:,}, least squares", solved, work))
    return measured


def ours(batch_size: int, epochs: int) -> Call:
    """Training by jaxnn."""
    digits, network = load_digits("mnist-5k"), initial()
    optimizer = optax.sgd(RATE)
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return lambda: jaxnn.train(
        network, digits.inputs, digits.targets, key=next(keys), epochs=epochs, batch_size=batch_size,
        optimizer=optimizer,
    )[0]  # fmt: skip


def numpys(batch_size: int, epochs: int) -> Call:
    """Training by the book's equations in NumPy."""
    x, t, _ = in_numpy()
    kernels = [np.array(layer.kernel) for layer in initial().layers]
    rng = np.random.default_rng(0)

    def train() -> None:
        order = np.concatenate([rng.permutation(len(x)) for _ in range(epochs)])
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            numpy_book.train_step(kernels, x[rows], t[rows], RATE)

    return train


def torchs(batch_size: int, epochs: int, threads: int, foreach: bool) -> Call:
    """Training by eager PyTorch."""
    import torch

    device = torch_device(threads)
    x, t, _ = in_numpy()
    inputs, targets = (torch.from_numpy(a).to(device) for a in (x, t))
    layers = [torch.nn.Linear(n, m, bias=False) for n, m in itertools.pairwise(SIZES)]
    for layer, dense in zip(layers, initial().layers, strict=True):
        layer.weight.data = torch.from_numpy(np.array(dense.kernel).T.copy())
    model = torch.nn.Sequential(layers[0], torch.nn.Sigmoid(), layers[1], torch.nn.Sigmoid()).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, foreach=foreach)

    def train() -> None:
        order = torch.cat([torch.randperm(len(inputs), device=device) for _ in range(epochs)])
        for rows in order.split(batch_size):
            optimizer.zero_grad()
            error = model(inputs[rows]) - targets[rows]
            (0.5 * (error * error).sum(dim=1).mean()).backward()
            optimizer.step()

    return awaited(train)


def sklearns(batch_size: int, epochs: int) -> Call:
    """Training by scikit-learn; `partial_fit` is one pass over the data."""
    from sklearn.neural_network import MLPClassifier

    x, _, labels = in_numpy()
    model = MLPClassifier(
        SIZES[1:-1], activation="logistic", solver="sgd", momentum=0.0, alpha=0.0,
        learning_rate_init=RATE, batch_size=batch_size, random_state=0,
    )  # fmt: skip
    return lambda: [model.partial_fit(x, labels, classes=np.arange(10)) for _ in range(epochs)] and None


def products(batch_size: int, epochs: int) -> Call:
    """The two large products of each step and nothing else, in JAX."""
    x = jax.random.uniform(jax.random.key(0), (batch_size, SIZES[0]))
    weights = initial().layers[0].kernel

    @jax.jit
    def train(weights: jax.Array, x: jax.Array) -> jax.Array:
        # The tiny factor makes each step depend on the last, so that the products are not hoisted.
        steps = epochs * EXAMPLES // batch_size
        return lax.fori_loop(0, steps, lambda _, w: w - 1e-9 * (x.T @ (x @ w)), weights)

    return lambda: train(weights, x)


def our_back_queries(count: int, method: Literal["transpose", "least_squares"]) -> Call:
    """`count` back queries in one call."""
    network, y = initial(), jnp.asarray(outputs(count))
    return lambda: jaxnn.backquery(network, y, method=method)


def numpys_back_queries(count: int) -> Call:
    """A loop of the book's equations."""
    kernels = [np.asarray(layer.kernel) for layer in initial().layers]
    return lambda: [numpy_book.backquery(kernels, row) for row in outputs(count)]


def initial() -> jaxnn.Network:
    """The initial network of all alternatives."""
    return jaxnn.init(jax.random.key(0), SIZES, use_bias=False)


def outputs(count: int) -> np.ndarray:
    """Random outputs to query backwards."""
    return np.random.default_rng(1).uniform(0.01, 0.99, (count, 10)).astype(np.float32)


def in_numpy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and labels."""
    digits = load_digits("mnist-5k")
    return np.array(digits.inputs), np.array(digits.targets), digits.labels
