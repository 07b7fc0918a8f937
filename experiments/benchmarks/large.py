"""What fraction of the peak rate of an accelerator does a large network reach?

784-4096-4096-10 of ReLUs: integrated gradients of 256 images in 50 steps, and training in batches of 1,024.
Single precision is the default of each library, and for PyTorch also TF32 products, which are JAX's default
on a GPU; in half precision (bfloat16) the model and the images are cast. The floor is that of single
precision.
"""

import itertools
import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, awaited, torch_device
from jaxnn import attribution

SIZES = (784, 4096, 4096, 10)
STEPS = 50
BATCH = 1024
UPDATES = 20  # per call


def cases(quick: bool) -> list[Case]:
    """Explaining and training."""
    examples = 32 if quick else 256
    first, *rest = (2 * n * m for n, m in itertools.pairwise(SIZES))
    explain: dict[str, Build] = {}
    for dtype, name in (("float32", "jaxnn"), ("bfloat16", "jaxnn in bfloat16")):
        for rows in (1, STEPS):
            explain[f"{name}, {rows} steps at a time"] = partial(ours, examples, rows, dtype)
    for precision, rows in itertools.product(("highest", "high"), (256, 2560)):
        explain[f"Captum, {precision}, {rows} rows at a time"] = partial(captums, examples, rows, precision)
    updates = 2 if quick else UPDATES
    train: dict[str, Build] = {
        "jaxnn": partial(our_training, updates, "float32"),
        "jaxnn in bfloat16": partial(our_training, updates, "bfloat16"),
    }
    train |= {f"PyTorch, {p}": partial(torchs_training, updates, p) for p in ("highest", "high")}
    return [
        Case(
            "A large network",
            f"`integrated_gradients`, {examples} examples",
            explain,
            Work(examples * (3 * first + 2 * STEPS * sum(rest))),
        ),
        Case(
            "A large network",
            f"training, {updates} batches of {BATCH:,}",
            train,
            Work(updates * BATCH * (2 * first + 3 * sum(rest))),
        ),
    ]


def network(dtype: str = "float32") -> jaxnn.Network:
    """The network of all alternatives."""
    return jaxnn.init(
        jax.random.key(0), SIZES, activation="relu", output_activation="identity", dtype=jnp.dtype(dtype)
    )


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images in [0, 1], and labels."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (count, SIZES[0])).astype(np.float32), rng.integers(0, 10, count)


def ours(examples: int, rows: int, dtype: str) -> Call:
    """Integrated gradients by jaxnn."""
    inputs, targets = images(examples)

    def one(model: jaxnn.Network, x: jax.Array, target: jax.Array) -> jax.Array:
        return attribution.integrated_gradients(model, x, target, steps=STEPS, batch_size=rows)

    compiled = jax.jit(jax.vmap(one, (None, 0, 0)))
    arguments = network(dtype), jnp.asarray(inputs, dtype), jnp.asarray(targets)
    return lambda: compiled(*arguments)


def captums(examples: int, rows: int, precision: str) -> Call:
    """Integrated gradients by Captum."""
    import captum.attr
    import torch

    device = torch_device()
    torch.set_float32_matmul_precision(precision)
    warnings.simplefilter("ignore")
    method = captum.attr.IntegratedGradients(their_network().to(device))
    x, t = (torch.from_numpy(a).to(device) for a in images(examples))
    return awaited(lambda: method.attribute(x, target=t, n_steps=STEPS, internal_batch_size=rows))


def our_training(updates: int, dtype: str) -> Call:
    """Training by jaxnn."""
    inputs, labels = images(updates * BATCH)
    start, optimizer = network(dtype), optax.adam(1e-3)
    x, t = jnp.asarray(inputs, dtype), jnp.asarray(labels)
    return lambda: jaxnn.train(
        start, x, t, epochs=1, batch_size=BATCH, shuffle=False, optimizer=optimizer,
        loss=jaxnn.losses.cross_entropy,
    )[0]  # fmt: skip


def torchs_training(updates: int, precision: str) -> Call:
    """Training by eager PyTorch."""
    import torch

    device = torch_device()
    torch.set_float32_matmul_precision(precision)
    model = their_network().to(device)
    x, t = (torch.from_numpy(a).to(device) for a in images(updates * BATCH))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=device == "cuda")

    def train() -> None:
        for inputs, labels in zip(x.split(BATCH), t.split(BATCH), strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    return awaited(train)


def their_network() -> Any:
    """The network in PyTorch, with the same weights."""
    import torch

    modules: list[Any] = []
    for layer in network().layers:
        linear = torch.nn.Linear(*layer.kernel.shape)
        linear.weight.data = torch.from_numpy(np.array(layer.kernel).T.copy())
        linear.bias.data = torch.from_numpy(np.array(layer.bias))
        modules += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])
