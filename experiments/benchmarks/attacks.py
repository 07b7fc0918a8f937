"""How long do attacks take beside Foolbox's, on the same networks and the same digits?

Two networks, trained on mnist-5k: 784-200-10, and a small one with two convolutions. Each library runs with
the best of its settings: for jaxnn the examples per call, and whether they are sharded over two devices, one
per core (a small matrix product uses one core only); for Foolbox the threads of PyTorch, and whether
gradients with respect to the weights, which an attack does not need, are disabled explicitly.
"""

import itertools
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn
from experiments._common.cnn import Model
from experiments.benchmarks import attribution
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, accelerated, awaited, torch_device
from jaxnn import attacks

EPSILON = 0.1
STEPS = 40
CHUNKS = (64, 256)  # examples per call
EXAMPLES = 256


class Method(NamedTuple):
    """An attack in both libraries.

    Attributes:
        ours: `ours(model, x, label, key)`, for one example.
        foolboxs: `foolboxs(foolbox.attacks)`, the attack.
        epsilon: of Foolbox's call; None for an attack without a radius.
        gradients: minimal number of gradients of the output per example.
    """

    ours: Callable[[Model, jax.Array, jax.Array, jax.Array], attacks.Attack]
    foolboxs: Callable[[Any], Any]
    epsilon: float | None
    gradients: int


METHODS = {
    "pgd": Method(
        lambda model, x, label, key: attacks.pgd(model, x, label, epsilon=EPSILON, steps=STEPS, key=key),
        lambda foolbox: foolbox.LinfPGD(steps=STEPS),
        EPSILON,
        STEPS,
    ),
    "deepfool": Method(
        lambda model, x, label, key: attacks.deepfool(model, x, label, norm="l2"),
        lambda foolbox: foolbox.L2DeepFoolAttack(),
        None,
        9 * 2,  # nine other classes, and two steps for nearly all digits
    ),
}


def cases(quick: bool) -> list[Case]:
    """Each attack on each network."""
    examples = 32 if quick else EXAMPLES
    return [
        Case(
            "Attacks",
            f"`{name}`, {model}, {examples} digits",
            settings(name, train(model, examples), examples),
            Work(examples * method.gradients * 2 * attribution.OPERATIONS[model].all),
        )
        for model, (name, method) in itertools.product(attribution.MODELS, METHODS.items())
    ]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()  # deleted when this process ends


@cache
def train(model: attribution.ModelName, examples: int) -> Path:
    """Train a network, and save its weights and the test images to a file."""
    data = jaxnn.datasets.load("mnist-5k")
    inputs, test = (jaxnn.datasets.encode_images(part.images) for part in (data.train, data.test))
    if model == "dense":
        start: jaxnn.Network | jax.tree_util.Partial = jaxnn.init(
            jax.random.key(0), (784, 200, 10), output_activation="identity"
        )
    else:
        inputs, test = inputs.reshape(-1, 28, 28, 1), test.reshape(-1, 28, 28, 1)
        start = our_model(attribution.weights())
    network, _ = jaxnn.train(
        start, inputs, jnp.asarray(data.train.labels), key=jax.random.key(1), epochs=4, batch_size=50,
        optimizer=optax.adam(2e-3), loss=jaxnn.losses.cross_entropy,
    )  # fmt: skip
    arrays: dict[str, Any]
    if isinstance(network, jaxnn.Network):
        arrays = {f"dense_{i}": layer.kernel for i, layer in enumerate(network.layers)}
        arrays |= {f"dense_bias_{i}": layer.bias for i, layer in enumerate(network.layers)}
    else:
        arrays = network.args[0]
    path = Path(_folder().name) / f"{model}.npz"
    np.savez(path, inputs=test[:examples], labels=data.test.labels[:examples], **arrays)
    return path


def settings(method: str, path: Path, examples: int) -> dict[str, Build]:
    """The settings of each library, by the name in the table."""
    builds: dict[str, Build] = {}
    several = (1,) if accelerated() else (1, 2)
    for n, devices in itertools.product(dict.fromkeys(min(n, examples) for n in CHUNKS), several):
        name = f"jaxnn, {devices} device{'s' * (devices > 1)}, {n} per call"
        builds[name] = partial(ours, method, path, n, devices)
    for threads, frozen in itertools.product(several, (False, True)):
        name = f"Foolbox, {threads} thread{'s' * (threads > 1)}" + ", weights frozen" * frozen
        builds[name] = partial(foolboxs, method, path, threads, frozen)
    return builds


def ours(method: str, path: Path, at_once: int, devices: int) -> Call:
    """An attack by jaxnn: one compiled call per `at_once` examples, sharded over the devices."""
    jax.config.update("jax_num_cpu_devices", devices)  # before the first call of this process
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded, replicated = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    arrays, inputs, labels = data(path)
    network = jax.device_put(our_model(arrays), replicated)
    keys = jax.random.split(jax.random.key(0), len(inputs))
    compiled = jax.jit(jax.vmap(METHODS[method].ours, (None, 0, 0, 0)))
    chunks = [slice(i, i + at_once) for i in range(0, len(inputs), at_once)]
    parts = [jax.device_put([a[chunk] for a in (inputs, labels, keys)], sharded) for chunk in chunks]
    return lambda: [compiled(network, *part) for part in parts]


def foolboxs(method: str, path: Path, threads: int, frozen: bool) -> Call:
    """An attack by Foolbox, on all examples at once."""
    import foolbox.attacks
    import torch
    from foolbox.models.pytorch import PyTorchModel

    device = torch_device(threads)
    arrays, inputs, labels = data(path)
    if inputs.ndim == 4:
        inputs = np.moveaxis(inputs, -1, 1).copy()
    network = their_model(arrays).to(device)
    network.requires_grad_(not frozen)
    wrapped = PyTorchModel(network, bounds=(0, 1), device=device)
    attack = METHODS[method].foolboxs(foolbox.attacks)
    batch = torch.from_numpy(inputs).to(device), torch.from_numpy(labels).long().to(device)
    return awaited(lambda: attack(wrapped, *batch, epsilons=METHODS[method].epsilon) and None)


def data(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The weights by name, the images and the labels."""
    with np.load(path) as file:
        arrays = dict(file)
    return arrays, arrays.pop("inputs"), arrays.pop("labels")


def our_model(arrays: dict[str, np.ndarray]) -> jax.tree_util.Partial:
    """The network in JAX."""
    function = dense if "dense_0" in arrays else attribution.convolve
    return jax.tree_util.Partial(function, {name: jnp.asarray(array) for name, array in arrays.items()})


def dense(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Logits of two layers, the first with a sigmoid."""
    hidden = jax.nn.sigmoid(x @ weights["dense_0"] + weights["dense_bias_0"])
    return hidden @ weights["dense_1"] + weights["dense_bias_1"]


def their_model(arrays: dict[str, np.ndarray]) -> Any:
    """The network in PyTorch, with the same weights."""
    import torch

    if "dense_0" not in arrays:
        return attribution.their_convolutional(arrays).eval()
    modules: list[Any] = []
    for i in range(2):
        linear = torch.nn.Linear(*arrays[f"dense_{i}"].shape)
        linear.weight.data = torch.from_numpy(arrays[f"dense_{i}"].T.copy())
        linear.bias.data = torch.from_numpy(arrays[f"dense_bias_{i}"])
        modules += [linear, torch.nn.Sigmoid()]
    return torch.nn.Sequential(*modules[:-1]).eval()
