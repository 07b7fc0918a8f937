"""How fast is dreaming many units at once, beside one after another, and beside the same loop in PyTorch?

The network is 784-200-10 of sigmoids with random weights, which are as fast as trained ones. A dream is 512
steps of Adam on pixels behind a sigmoid. The dreams of a hundred hidden units run all at once by `vmap`, or
as separate calls of the same compiled function; both plain and with random transforms. The dreams of the ten
outputs run at once, in a plain call and under an outer `jax.jit` that returns only the image and its value;
and in PyTorch, which runs eagerly, ten images per step, with the fastest of its settings (one or two threads,
Adam as a loop, foreach or fused). "Its products alone" are the two large matrix products of a step and
nothing else, each with the faster layout.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxnn
from experiments._common.dreams import PLAIN
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, awaited, torch_device
from jaxnn import dreaming

SIZES = (784, 200, 10)
SHAPE = (28, 28)
RATE = 0.05  # the default of `dream`
TRANSFORMED = {"parameterization": dreaming.fourier(), "transforms": dreaming.standard_transforms(SHAPE)}
TORCH = {
    f"PyTorch, {threads} thread{'s' * (threads > 1)}, {kind}": (threads, kind)
    for threads in (1, 2)
    for kind in ("loop", "foreach", "fused")
}


def cases(quick: bool) -> list[Case]:
    """Hidden units, plain and transformed, and ten digits."""
    units, steps = (10, 64) if quick else (100, 512)
    step = 4 * SIZES[0] * SIZES[1]  # forward and backward through the first layer, which dominates
    measured = []
    for name, transformed in (("plain", False), ("transformed", True)):
        builds: dict[str, Build] = {
            "jaxnn, at once": partial(at_once, units, steps, transformed),
            "in turn": partial(in_turn, units, steps, transformed),
        }
        row = f"{units} hidden units, {name}, {steps} steps"
        measured.append(Case("Dreams, at once and in turn", row, builds, Work(units * steps * step)))
    builds = {
        "jaxnn, outer jit": partial(ours, steps, True),
        "jaxnn without outer jit": partial(ours, steps, False),
        "its products alone": partial(products, steps),
    }
    builds |= {name: partial(torchs, steps, *setting) for name, setting in TORCH.items()}
    measured.append(Case("Dreams", f"ten digits, plain, {steps} steps", builds, Work(10 * steps * step)))
    return measured


def at_once(units: int, steps: int, transformed: bool) -> Call:
    """The dreams of all units in one call."""
    many = jax.vmap(partial(unit_dream, initial(), steps, transformed))
    return lambda: many(jnp.arange(units))


def in_turn(units: int, steps: int, transformed: bool) -> Call:
    """A loop over the units."""
    network = initial()
    return lambda: [unit_dream(network, steps, transformed, unit) for unit in range(units)]


def unit_dream(
    network: jaxnn.Network, steps: int, transformed: bool, unit: jax.typing.ArrayLike
) -> jax.Array:
    """The dream of one unit."""
    return jaxnn.dream(
        dreaming.flattened(network), dreaming.neuron("hidden_0_in", unit), key=jax.random.key(0), shape=SHAPE,
        steps=steps, **(TRANSFORMED if transformed else PLAIN),
    ).image  # fmt: skip


def ours(steps: int, compiled: bool) -> Call:
    """Ten digits at once by jaxnn; an outer jit removes unused results."""
    network = initial()

    def ten(network: jaxnn.Network) -> tuple[jax.Array, jax.Array]:
        def one(index: jax.Array) -> jaxnn.Dream:
            return jaxnn.dream(
                dreaming.flattened(network), dreaming.logit(index), key=jax.random.key(0), shape=SHAPE,
                steps=steps, **PLAIN,
            )  # fmt: skip

        dreams = jax.vmap(one)(jnp.arange(10))
        return dreams.image, dreams.value

    call = jax.jit(ten) if compiled else ten
    return lambda: call(network)


def products(steps: int) -> Call:
    """The products of ten images with the first kernel, forward and backward, and nothing else."""
    x = jax.random.uniform(jax.random.key(0), (10, SIZES[0]))
    kernel = initial().layers[0].kernel
    transposed = jnp.array(kernel.T)

    @jax.jit
    def dream(kernel: jax.Array, transposed: jax.Array, x: jax.Array) -> jax.Array:
        # The tiny factor makes each step depend on the last, so that the products are not hoisted.
        return lax.fori_loop(0, steps, lambda _, x: x + 1e-9 * ((x @ kernel) @ transposed), x)

    return lambda: dream(kernel, transposed, x)


def torchs(steps: int, threads: int, kind: str) -> Call:
    """The same by eager PyTorch: ten images per step, gradients with respect to the images only."""
    import torch

    device = torch_device(threads)
    first, second = (torch.from_numpy(np.array(layer.kernel)).to(device) for layer in initial().layers)

    def dream() -> Any:
        raw = (0.01 * torch.randn(10, SIZES[0], device=device)).requires_grad_()
        optimizer = torch.optim.Adam([raw], lr=RATE, foreach=kind == "foreach", fused=kind == "fused")
        for _ in range(steps):
            optimizer.zero_grad()
            logits = torch.sigmoid(torch.sigmoid(raw) @ first) @ second
            (-logits.diagonal().sum()).backward()
            optimizer.step()
        with torch.no_grad():
            image = torch.sigmoid(raw)
            return image, (torch.sigmoid(image @ first) @ second).diagonal()

    return awaited(dream)


def initial() -> jaxnn.Network:
    """The network of all alternatives."""
    return jaxnn.init(jax.random.key(0), SIZES, use_bias=False)
