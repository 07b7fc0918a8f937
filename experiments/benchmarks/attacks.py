"""How long do attacks take beside Foolbox's, on the same networks and the same digits?

Two networks, trained on mnist-5k: 784-200-10, and a small one with two convolutions. Each library runs with
the best of its settings: for jaxnn examples a call, and whether they are spread over two devices, one a core
(a product of matrices keeps to one core); for Foolbox the threads of PyTorch, and whether the slopes of the
weights, which an attack does not need, are switched off by hand. Needs the `peers` extra.
"""

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console

import jaxnn
from experiments._results import save_metrics
from experiments.benchmarks import attribution
from experiments.benchmarks._measure import Build, Call, alternate, machine, ratio
from jaxnn import attacks

EPSILON = 0.1
STEPS = 40
CHUNKS = (64, 256)  # examples a call
ModelName = Literal["dense", "convolutional"]


class Method(NamedTuple):
    """An attack in both libraries.

    Attributes:
        ours: `ours(model, x, label, key)` of one example.
        foolboxs: `foolboxs(foolbox.attacks)`, the attack.
        epsilon: of Foolbox's call; None for an attack that has no ball.
    """

    ours: Callable[[Any, Any, Any, Any], Any]
    foolboxs: Callable[[Any], Any]
    epsilon: float | None


METHODS = {
    "pgd": Method(
        lambda model, x, label, key: attacks.pgd(model, x, label, epsilon=EPSILON, steps=STEPS, key=key),
        lambda foolbox: foolbox.LinfPGD(steps=STEPS),
        EPSILON,
    ),
    "deepfool": Method(
        lambda model, x, label, key: attacks.deepfool(model, x, label, norm="l2"),
        lambda foolbox: foolbox.L2DeepFoolAttack(),
        None,
    ),
}


def main(
    methods: tuple[str, ...] = tuple(METHODS),
    models: tuple[ModelName, ...] = ("dense", "convolutional"),
    examples: int = 256,
    rounds: int = 7,
    output: Path = Path("results/benchmarks/attacks.json"),
) -> None:
    """Measure, and print tables of ratios.

    Args:
        methods: which attacks.
        models: which networks.
        examples: how many test images are attacked.
        rounds: how often each setting takes its turn.
        output: where to write the numbers.
    """
    console = Console(width=110)
    console.print(machine())
    found: dict[str, Any] = {"machine": machine(), "examples": examples}
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            path = Path(folder) / f"{model}.npz"
            train(model, path, examples)
            for method in methods:
                times = alternate(settings(method, path, examples), rounds)
                title = f"{method}, {model} network, {examples} digits"
                console.print(attribution.table_of(title, times, examples))
                quickest = attribution.best(times, "jaxnn")
                theirs = attribution.best(times, "Foolbox")
                found[f"{method}, {model}"] = {
                    "foolbox_times_jaxnn_low_median_high": ratio(times[theirs], times[quickest]),
                    "best": [quickest, theirs],
                    "settings": {
                        name: {"first_seconds": seconds.first, "seconds": seconds.rounds.tolist()}
                        for name, seconds in times.items()
                    },
                }
    save_metrics(found, output)


def train(model: ModelName, path: Path, examples: int) -> None:
    """Train a network, and write its weights and the test images to a file."""
    data = jaxnn.datasets.load("mnist-5k")
    inputs, test = (jaxnn.datasets.encode_images(part.images) for part in (data.train, data.test))
    if model == "dense":
        start: Any = jaxnn.init(jax.random.key(0), (784, 200, 10), output_activation="identity")
    else:
        inputs, test = inputs.reshape(-1, 28, 28, 1), test.reshape(-1, 28, 28, 1)
        start = our_model(attribution.weights())
    network, _ = jaxnn.train(
        start, inputs, jnp.asarray(data.train.labels), key=jax.random.key(1), epochs=4, batch_size=50,
        optimizer=optax.adam(2e-3), loss=jaxnn.losses.cross_entropy,
    )  # fmt: skip
    arrays = network.args[0] if model == "convolutional" else {}
    if model == "dense":
        for i, layer in enumerate(network.layers):
            arrays |= {f"dense_{i}": layer.kernel, f"dense_bias_{i}": layer.bias}
    np.savez(path, inputs=test[:examples], labels=data.test.labels[:examples], **arrays)


def settings(method: str, path: Path, examples: int) -> dict[str, Build]:
    """Each library's settings, by what is printed for them."""
    chunks = dict.fromkeys(min(n, examples) for n in CHUNKS)
    builds: dict[str, Build] = {}
    for n, devices in itertools.product(chunks, (1, 2)):
        name = f"jaxnn, {devices} device{'s' * (devices > 1)}, {n} a call"
        builds[name] = partial(ours, method, path, n, devices)
    for threads, frozen in itertools.product((1, 2), (False, True)):
        name = f"Foolbox, {threads} thread{'s' * (threads > 1)}" + ", weights frozen" * frozen
        builds[name] = partial(foolboxs, method, path, threads, frozen)
    return builds


def ours(method: str, path: Path, at_once: int, devices: int) -> Call:
    """An attack by jaxnn: one compiled call an `at_once` examples, spread over the devices."""
    jax.config.update("jax_num_cpu_devices", devices)  # before the first call of this process
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread, everywhere = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    arrays, inputs, labels = data(path)
    network = jax.device_put(our_model(arrays), everywhere)
    keys = jax.random.split(jax.random.key(0), len(inputs))
    compiled = jax.jit(jax.vmap(METHODS[method].ours, (None, 0, 0, 0)))
    chunks = [slice(i, i + at_once) for i in range(0, len(inputs), at_once)]
    parts = [jax.device_put([a[chunk] for a in (inputs, labels, keys)], spread) for chunk in chunks]
    return lambda: [compiled(network, *part) for part in parts]


def foolboxs(method: str, path: Path, threads: int, frozen: bool) -> Call:
    """An attack by Foolbox, on all examples at once."""
    import foolbox.attacks
    import torch
    from foolbox.models.pytorch import PyTorchModel

    torch.set_num_threads(threads)
    arrays, inputs, labels = data(path)
    if inputs.ndim == 4:
        inputs = np.moveaxis(inputs, -1, 1).copy()
    network = their_model(arrays)
    network.requires_grad_(not frozen)
    model = PyTorchModel(network, bounds=(0, 1), device="cpu")
    attack = METHODS[method].foolboxs(foolbox.attacks)
    given = torch.from_numpy(inputs), torch.from_numpy(labels).long()
    return lambda: attack(model, *given, epsilons=METHODS[method].epsilon) and None


def data(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The weights by name, the images and the labels."""
    with np.load(path) as file:
        arrays = dict(file)
    return arrays, arrays.pop("inputs"), arrays.pop("labels")


def our_model(arrays: dict[str, np.ndarray]) -> Any:
    """The network in JAX."""
    function = dense if "dense_0" in arrays else attribution.convolve
    return jax.tree_util.Partial(function, {name: jnp.asarray(array) for name, array in arrays.items()})


def dense(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Two layers, the first with a sigmoid."""
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


if __name__ == "__main__":
    tyro.cli(main)
