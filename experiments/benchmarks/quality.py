"""How long do metrics of explanation quality take beside Quantus's, for the same networks, digits and work?

Two networks: 784-100-10, and a small one with two convolutions. Explanations are gradients: in Quantus by
PyTorch's differentiation alone, which is faster than a library of explanations. Each library runs with the
best of its settings: examples per batch and threads for Quantus; examples per call, changed copies of each at
a time, and one or two devices of the same processor for jaxnn, as a sort uses only one core. All settings run
once; the two fastest of each library then take turns.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn
from experiments._common.cnn import Model
from experiments.benchmarks import attribution as networks
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, accelerated, awaited, torch_device
from jaxnn import attribution, quality

STEPS = 28  # of deletion, of 28 pixels each
SAMPLES = 10  # of the sensitivity
RADIUS = 0.02
SIZES = (784, 100, 10)
EXAMPLES = 256
CHUNKS = (64, 256)  # examples per batch of Quantus

# Of one forward pass; and layers with parameters.
OPERATIONS = {
    "dense": 2 * (SIZES[0] * SIZES[1] + SIZES[1] * SIZES[2]),
    "convolutional": networks.OPERATIONS["convolutional"].all,
}
LAYERS = {"dense": 2, "convolutional": 3}


class Metric(NamedTuple):
    """A metric in both libraries.

    Attributes:
        ours: `ours(model, x, target, attributions, key, copies)`, for a batch, `copies` of each example at a
            time.
        quantuss: `quantuss(quantus)`, the metric.
        passes: the minimal number of forward passes per example, from the number of layers. A gradient takes
            as long as two.
        settings: of ours, the examples per call, and the copies of each, or examples, at a time.
    """

    ours: Callable[[Model, jax.Array, jax.Array, jax.Array, jax.Array, int], Any]
    quantuss: Callable[[Any], Any]
    passes: Callable[[int], int]
    settings: Sequence[tuple[int, int]]


def _deletion(model: Model, x: Any, targets: Any, attributions: Any, key: Any, copies: int) -> jax.Array:
    one = partial(quality.deletion, steps=STEPS, batch_size=copies)
    return jax.vmap(lambda x, t, a: one(model, x, t, a).outputs)(x, targets, attributions)


def _max_sensitivity(model: Model, x: Any, targets: Any, attributions: Any, key: Any, copies: int) -> Any:
    one = partial(quality.max_sensitivity, radius=RADIUS, n_samples=SAMPLES, batch_size=copies)
    keys = jax.random.split(key, len(x))
    return jax.vmap(lambda x, t, key: one(model, x, t, attribution.saliency, key=key))(x, targets, keys)


def _parameter_randomization(
    model: Model, x: Any, targets: Any, attributions: Any, key: Any, copies: int
) -> jax.Array:
    return quality.parameter_randomization(
        model, x, targets, attribution.saliency, key=key, n_seeds=1, ignore_zeros=False, batch_size=copies
    ).rank_correlation


METRICS = {
    "deletion": Metric(
        _deletion,
        lambda quantus: quantus.PixelFlipping(
            features_in_step=28, perturb_baseline=0.0, normalise=False, abs=False
        ),
        lambda layers: STEPS + 1,
        ((8, 4), (32, 1), (256, 1)),
    ),
    "max_sensitivity": Metric(
        _max_sensitivity,
        lambda quantus: quantus.MaxSensitivity(nr_samples=SAMPLES, lower_bound=RADIUS),
        lambda layers: 2 * (SAMPLES + 1),
        ((8, 1), (32, 1), (256, SAMPLES)),
    ),
    "parameter_randomization": Metric(
        _parameter_randomization,
        lambda quantus: quantus.MPRT(layer_order="top_down"),
        lambda layers: 2 * (layers + 1),
        ((256, 8), (256, 32)),  # all examples at once, of which some are explained at a time
    ),
}


def cases(quick: bool) -> list[Case]:
    """Each metric on each network."""
    examples = 32 if quick else EXAMPLES
    return [
        Case(
            "Explanation quality",
            f"`{name}`, {model}, {examples} digits",
            settings(name, model, examples),
            Work(examples * metric.passes(LAYERS[model]) * OPERATIONS[model]),
            finalists=2,
        )
        for (name, metric), model in itertools.product(METRICS.items(), networks.MODELS)
    ]


def settings(metric: str, model: networks.ModelName, examples: int) -> dict[str, Build]:
    """The settings of each library, by the name in the table."""
    builds: dict[str, Build] = {}
    several = (1,) if accelerated() else (1, 2)
    tried = ((256, EXAMPLES),) if accelerated() else METRICS[metric].settings
    for (size, copies), devices in itertools.product(tried, several):
        n = min(size, examples)
        name = f"jaxnn, {devices} device{'s' * (devices > 1)}, {n} x {copies} per call"
        builds[name] = partial(ours, metric, model, examples, n, copies, devices)
    for threads, size in itertools.product(several, CHUNKS):
        n = min(size, examples)
        name = f"Quantus, {threads} thread{'s' * (threads > 1)}, {n} per batch"
        builds[name] = partial(quantuss, metric, model, examples, threads, n)
    return builds


def ours(metric: str, model: str, examples: int, at_once: int, copies: int, devices: int) -> Call:
    """A metric by jaxnn: one compiled call per `at_once` examples, which are shared among the devices."""
    jax.config.update("jax_num_cpu_devices", devices)  # before the first call of this process
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded, replicated = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    network, key = jax.device_put((our_model(model), jax.random.key(0)), replicated)
    measure = METRICS[metric].ours

    def of_device(network: Model, x: jax.Array, targets: jax.Array, given: jax.Array, key: jax.Array) -> Any:
        return measure(network, x, targets, given, key, copies)

    compiled = jax.jit(jax.vmap(of_device, (None, 0, 0, 0, None)))
    chunks = [
        jax.device_put([a[i : i + at_once].reshape(devices, -1, *a.shape[1:]) for a in arrays], sharded)
        for arrays in [data(model, examples)]
        for i in range(0, examples, at_once)
    ]
    return lambda: [compiled(network, *chunk, key) for chunk in chunks]


def quantuss(metric: str, model: str, examples: int, threads: int, at_once: int) -> Call:
    """A metric by Quantus, in batches of `at_once` examples."""
    import quantus
    import torch

    device = torch_device(threads)
    warnings.simplefilter("ignore")
    network = their_model(model).to(device).eval()
    x, targets, attributions = data(model, examples)
    if model == "convolutional":
        x, attributions = (np.moveaxis(a, -1, 1).copy() for a in (x, attributions))
    else:
        x, attributions = x[:, None], attributions[:, None]

    def explain(model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        batch = torch.from_numpy(np.asarray(inputs, np.float32)).to(device).requires_grad_()
        output = model(batch).gather(1, torch.from_numpy(targets).to(device)[:, None]).sum()
        return torch.autograd.grad(output, batch)[0].cpu().numpy()

    measure = METRICS[metric].quantuss(quantus)
    given = {"a_batch": attributions} if metric == "deletion" else {"a_batch": None, "explain_func": explain}
    return awaited(
        lambda: measure(
            model=network, x_batch=x, y_batch=targets, channel_first=True, batch_size=at_once, device=device,
            **given,
        ) and None
    )  # fmt: skip


def data(model: str, examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits, their labels, and attributions: random ones, as the time does not depend on the values."""
    test = jaxnn.datasets.load("mnist-5k").test
    x = np.asarray(jaxnn.datasets.encode_images(test.images[:examples]))
    x = x.reshape(examples, *((784,) if model == "dense" else (28, 28, 1)))
    attributions = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    return x, np.asarray(test.labels[:examples], np.int64), attributions


def our_model(model: str) -> jaxnn.Network | jax.tree_util.Partial:
    """The network in JAX, whose pytree says which arrays are a layer."""
    if model == "dense":
        return jaxnn.init(jax.random.key(0), SIZES)
    arrays = {name: jnp.asarray(array) for name, array in networks.weights().items()}
    convolutions = [{"kernel": arrays[f"kernel_{i}"], "bias": arrays[f"bias_{i}"]} for i in range(2)]
    return jax.tree_util.Partial(_convolve, [*convolutions, {"kernel": arrays["last"]}])


def _convolve(layers: Sequence[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    *convolutions, last = layers
    weights = {f"{name}_{i}": array for i, layer in enumerate(convolutions) for name, array in layer.items()}
    return networks.convolve({**weights, "last": last["kernel"]}, x)


def their_model(model: str) -> Any:
    """The network in PyTorch, with the same weights."""
    import torch

    if model == "convolutional":
        return networks.their_model(model)
    modules: list[Any] = [torch.nn.Flatten()]
    for layer in jaxnn.init(jax.random.key(0), SIZES).layers:
        linear = torch.nn.Linear(*layer.kernel.shape)
        linear.weight.data = torch.from_numpy(np.array(layer.kernel).T.copy())
        linear.bias.data = torch.from_numpy(np.array(layer.bias))
        modules += [linear, torch.nn.Sigmoid()]
    return torch.nn.Sequential(*modules)
