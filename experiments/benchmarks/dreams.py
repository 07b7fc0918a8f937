"""How fast is dreaming many units at once, beside one after another, and beside the same loop in PyTorch?

The network is 784-200-10 of sigmoids with random weights, which are as fast as trained ones. A dream is 512
steps of Adam on pixels behind a sigmoid. Of a hundred hidden units it is made all at once by `vmap`, or
by as many calls of the same compiled function; both plain and shaken by transforms. Of the ten outputs it is
made at once here, as it comes and compiled once more around for the image and its value alone; and in
PyTorch, which runs eagerly, ten images a step, with the fastest of its settings (one or two threads, its Adam
in a loop, by foreach or fused). "Its products alone" are the two large products of a step and nothing else,
each in the order that suits it.
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
SHAKEN = {"parameterization": dreaming.fourier(), "transforms": dreaming.standard_transforms(SHAPE)}
TORCH = {
    f"PyTorch, {threads} thread{'s' * (threads > 1)}, {kind}": (threads, kind)
    for threads in (1, 2)
    for kind in ("loop", "foreach", "fused")
}


def cases(quick: bool) -> list[Case]:
    """Hidden units, plain and shaken, and ten digits."""
    units, steps = (10, 64) if quick else (100, 512)
    step = 4 * SIZES[0] * SIZES[1]  # there and back through the first layer, which is nearly all
    found = []
    for name, shaken in (("plain", False), ("shaken", True)):
        builds: dict[str, Build] = {
            "jaxnn, at once": partial(at_once, units, steps, shaken),
            "in turn": partial(in_turn, units, steps, shaken),
        }
        row = f"{units} hidden units, {name}, {steps} steps"
        found.append(Case("Dreams, at once and in turn", row, builds, Work(units * steps * step)))
    builds = {
        "jaxnn, compiled around": partial(ours, steps, True),
        "jaxnn as it comes": partial(ours, steps, False),
        "its products alone": partial(products, steps),
    }
    builds |= {name: partial(torchs, steps, *setting) for name, setting in TORCH.items()}
    found.append(Case("Dreams", f"ten digits, plain, {steps} steps", builds, Work(10 * steps * step)))
    return found


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


def products(steps: int) -> Call:
    """The products of ten images with the first kernel, there and back, and nothing else."""
    x = jax.random.uniform(jax.random.key(0), (10, SIZES[0]))
    kernel = initial().layers[0].kernel
    turned = jnp.array(kernel.T)

    @jax.jit
    def dream(kernel: jax.Array, turned: jax.Array, x: jax.Array) -> jax.Array:
        # The tiny factor ties each step to the last, so that the loop cannot be hoisted out.
        return lax.fori_loop(0, steps, lambda _, x: x + 1e-9 * ((x @ kernel) @ turned), x)

    return lambda: dream(kernel, turned, x)


def torchs(steps: int, threads: int, kind: str) -> Call:
    """The same by eager PyTorch: ten images a step, gradients of the images alone."""
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
    """The network that all ask."""
    return jaxnn.init(jax.random.key(0), SIZES, use_bias=False)
