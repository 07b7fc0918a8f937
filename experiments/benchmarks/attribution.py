"""How long do attributions take beside Captum's, for the same weights and the same results?

Two networks: 784-200-10, and a small one with two convolutions. Each library runs with the best of its
settings: threads and rows at a time for Captum, examples and steps at a time for jaxnn. All settings run
once; the two fastest of each library then take turns.
"""

import itertools
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn
from experiments._common.cnn import Model
from experiments.benchmarks import _attribution_perturbation as perturbation
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, accelerated, awaited, torch_device
from jaxnn import attribution

STEPS = 50
SAMPLES = 25
SIGMA = 0.15
CHANNELS = (1, 16, 32)  # of the convolutional network, on images of 28 x 28
EXAMPLES = 256

ModelName = Literal["dense", "convolutional"]
MODELS: tuple[ModelName, ...] = ("dense", "convolutional")


class Layers(NamedTuple):
    """Operations of one forward pass: of the first layer, which is affine, and of the rest."""

    first: int
    rest: int

    @property
    def all(self) -> int:
        """The sum of both."""
        return self.first + self.rest


OPERATIONS = {
    "dense": Layers(2 * 784 * 200, 2 * 200 * 10),
    "convolutional": Layers(
        2 * 28 * 28 * 9 * CHANNELS[0] * CHANNELS[1],
        2 * 14 * 14 * 9 * CHANNELS[1] * CHANNELS[2] + 2 * 7 * 7 * CHANNELS[2] * 10,
    ),
}


class Method(NamedTuple):
    """A method in both libraries.

    Attributes:
        ours: `ours(model, x, target, key, rows)`, for one example, `rows` steps or samples at a time.
        captums: `captums(captum.attr, model, x, target, rows)`, for a batch, `rows` rows at a time.
        work: the minimal number of operations per example, from those of one forward pass. A gradient takes
            twice as many. The affine first layer is needed only at the two ends of a path, and once for the
            sum of the gradients.
        size: steps or samples per example; 1 if there are none.
    """

    ours: Callable[[Model, jax.Array, jax.Array, jax.Array, int], jax.Array]
    captums: Callable[[Any, Any, Any, Any, int], Any]
    work: Callable[[Layers], int]
    size: int = 1


METHODS = {
    "saliency": Method(
        lambda model, x, t, key, rows: attribution.saliency(model, x, t),
        lambda captum, model, x, t, rows: captum.Saliency(model).attribute(x, target=t, abs=False),
        lambda forward: 2 * forward.all,
    ),
    "integrated_gradients": Method(
        lambda model, x, t, key, rows: attribution.integrated_gradients(
            model, x, t, steps=STEPS, batch_size=rows
        ),
        lambda captum, model, x, t, rows: captum.IntegratedGradients(model).attribute(
            x, target=t, n_steps=STEPS, internal_batch_size=rows
        ),
        lambda forward: 3 * forward.first + 2 * STEPS * forward.rest,
        STEPS,
    ),
    "smooth_grad": Method(
        lambda model, x, t, key, rows: attribution.smooth_grad(
            model, x, t, key=key, n_samples=SAMPLES, noise=SIGMA, bounds=(0.0, 1.0), batch_size=rows
        ),
        lambda captum, model, x, t, rows: captum.NoiseTunnel(captum.Saliency(model)).attribute(
            x, nt_type="smoothgrad", nt_samples=SAMPLES, stdevs=SIGMA, target=t, abs=False,
            nt_samples_batch_size=max(1, rows // len(x)),
        ),
        lambda forward: (SAMPLES + 1) * forward.first + 2 * SAMPLES * forward.rest,
        SAMPLES,
    ),
    "deep_lift": Method(
        lambda model, x, t, key, rows: attribution.deep_lift(model, x, t),
        lambda captum, model, x, t, rows: captum.DeepLift(model).attribute(x, target=t),
        lambda forward: 3 * forward.all,
    ),
    "occlusion": Method(
        perturbation.ours_occlusion, perturbation.captums_occlusion,
        lambda forward: perturbation.OCCLUSION_SIZE * forward.all, perturbation.OCCLUSION_SIZE,
    ),
    "kernel_shap": Method(
        perturbation.ours_kernel_shap, perturbation.captums_kernel_shap,
        lambda forward: perturbation.KERNEL_SHAP_SIZE * forward.all, perturbation.KERNEL_SHAP_SIZE,
    ),
}  # fmt: skip


def cases(quick: bool) -> list[Case]:
    """Each method on each network."""
    examples = 32 if quick else EXAMPLES
    return [
        Case(
            "Attributions",
            f"`{name}`, {model}, {examples} examples",
            settings(name, model, examples),
            Work(examples * method.work(OPERATIONS[model])),
            finalists=2,
        )
        for (name, method), model in itertools.product(METHODS.items(), MODELS)
    ]


def settings(method: str, model: ModelName, examples: int) -> dict[str, Build]:
    """The settings of each library, by the name in the table: the best of longer searches."""
    size = METHODS[method].size
    builds: dict[str, Build] = {}
    # On an accelerator, all at once is fastest.
    ours_at = ((256, 1), (256, size)) if accelerated() else ((1, size), (32, 1), (64, 1), (256, 1))
    captums_at = ((256, 1024), (256, 256 * size)) if accelerated() else ((32, 128), (256, 256), (256, 1024))
    for at_once, rows in dict.fromkeys((min(n, examples), m) for n, m in ours_at):
        builds[f"jaxnn, {at_once} x {rows} per call"] = partial(ours, method, model, examples, at_once, rows)
    batches = dict.fromkeys((min(n, examples), m) for n, m in captums_at)
    for threads, (at_once, rows) in itertools.product((1,) if accelerated() else (1, 2), batches):
        name = f"Captum, {threads} thread{'s' * (threads > 1)}, {at_once} per call, {rows} rows at a time"
        builds[name] = partial(captums, method, model, examples, threads, at_once, rows)
    return builds


def ours(method: str, model: str, examples: int, at_once: int, rows: int) -> Call:
    """A method by jaxnn: one compiled call per `at_once` examples."""
    network, (inputs, targets) = our_model(model), data(model, examples)
    keys = jax.random.split(jax.random.key(0), examples)
    explain = METHODS[method].ours
    compiled = jax.jit(
        jax.vmap(lambda network, x, t, key: explain(network, x, t, key, rows), (None, 0, 0, 0))
    )
    chunks = [slice(i, i + at_once) for i in range(0, examples, at_once)]
    arrays = [tuple(jnp.asarray(a)[chunk] for a in (inputs, targets, keys)) for chunk in chunks]
    return lambda: [compiled(network, *chunk) for chunk in arrays]


def captums(method: str, model: str, examples: int, threads: int, at_once: int, rows: int) -> Call:
    """A method by Captum, in a loop over batches of `at_once` examples."""
    import captum.attr
    import torch

    device = torch_device(threads)
    warnings.simplefilter("ignore")  # Captum's, at each call
    network, (inputs, targets) = their_model(model).to(device), data(model, examples)
    if model == "convolutional":
        inputs = np.moveaxis(inputs, -1, 1).copy()
    x, t = (torch.from_numpy(a).to(device) for a in (inputs, targets))
    batches = list(zip(x.split(at_once), t.split(at_once), strict=True))
    explain = METHODS[method].captums
    return awaited(lambda: [explain(captum.attr, network, x, t, rows) for x, t in batches])


def data(model: str, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images in [0, 1] and targets: the time does not depend on the values."""
    rng = np.random.default_rng(0)
    shape = (784,) if model == "dense" else (28, 28, 1)
    return rng.uniform(0, 1, (examples, *shape)).astype(np.float32), rng.integers(0, 10, examples)


@cache
def weights() -> dict[str, np.ndarray]:
    """Weights of the convolutional network: kernels `(3, 3, n_in, n_out)`, biases, and the last layer."""
    rng = np.random.default_rng(1)
    shapes = [(3, 3, n, m) for n, m in itertools.pairwise(CHANNELS)]
    last = (7 * 7 * CHANNELS[-1], 10)
    arrays = {f"kernel_{i}": rng.normal(0, (9 * s[2]) ** -0.5, s) for i, s in enumerate(shapes)}
    arrays |= {f"bias_{i}": rng.normal(0, 0.1, s[3]) for i, s in enumerate(shapes)}
    arrays["last"] = rng.normal(0, last[0] ** -0.5, last)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def dense() -> jaxnn.Network:
    """The dense network in JAX."""
    return jaxnn.init(jax.random.key(0), (784, 200, 10))


def our_model(model: str) -> jaxnn.Network | jax.tree_util.Partial:
    """The network in JAX."""
    if model == "dense":
        return dense()
    return jax.tree_util.Partial(convolve, {name: jnp.asarray(array) for name, array in weights().items()})


def convolve(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Two convolutions, each with ReLU and 2x2 max pooling, and a dense layer."""
    for i in range(2):
        x = jax.lax.conv_general_dilated(
            x[None], weights[f"kernel_{i}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]
        x = jax.nn.relu(x + weights[f"bias_{i}"])
        h, w, channels = x.shape
        # The gradient of this form is six times as fast as that of `lax.reduce_window`.
        x = x.reshape(h // 2, 2, w // 2, 2, channels).max(axis=(1, 3))
    return x.reshape(-1) @ weights["last"]


def their_model(model: str) -> Any:
    """The network in PyTorch, with the same weights."""
    import torch

    if model == "dense":
        modules: list[Any] = []
        for layer in dense().layers:
            linear = torch.nn.Linear(*layer.kernel.shape)
            linear.weight.data = torch.from_numpy(np.array(layer.kernel).T.copy())
            linear.bias.data = torch.from_numpy(np.array(layer.bias))
            modules += [linear, torch.nn.Sigmoid()]
        return torch.nn.Sequential(*modules)
    return their_convolutional(weights())


def their_convolutional(arrays: dict[str, np.ndarray]) -> Any:
    """The convolutional network in PyTorch."""
    import torch

    modules: list[Any] = []
    for i in range(2):
        convolution = torch.nn.Conv2d(CHANNELS[i], CHANNELS[i + 1], 3, padding=1)
        convolution.weight.data = torch.from_numpy(arrays[f"kernel_{i}"].transpose(3, 2, 0, 1).copy())
        convolution.bias = torch.nn.Parameter(torch.from_numpy(arrays[f"bias_{i}"]))
        modules += [convolution, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    last = torch.nn.Linear(7 * 7 * CHANNELS[-1], 10, bias=False)
    by_channel = arrays["last"].reshape(7, 7, CHANNELS[-1], 10).transpose(3, 2, 0, 1)
    last.weight.data = torch.from_numpy(by_channel.reshape(10, -1).copy())
    return torch.nn.Sequential(*modules, torch.nn.Flatten(), last)
