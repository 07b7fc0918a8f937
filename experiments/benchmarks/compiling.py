"""How long does the first call of each method take? Most of it is compilation.

Every method, with its defaults, on 784-200-10 and one image: the first call in a new process, and a later
one. And the main experiment from the shell, with an empty and with a filled compilation cache.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxnn
from experiments.benchmarks._page import markdown
from jaxnn import attacks, attribution, dreaming, rules, weights

SIDE = 28
BLOCKS = attribution.blocks((SIDE, SIDE), 7)  # 16 superpixels
Method = Callable[[jaxnn.Network, jax.Array], Any]


def measure(console: Console) -> str:
    """Measure, print a table, and return it as Markdown."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        seconds = {name: pool.submit(first_and_later, name).result() for name in methods()}
    job = [main_job(cached=cached) for cached in (False, True)]
    slowest_first = sorted(seconds.items(), key=lambda item: -item[1][0])
    table = Table("method", "first call, s", "later call, ms", title="Compiling, 784-200-10, one image")
    for name, (first, later) in slowest_first:
        table.add_row(name, f"{first:.2f}", f"{1000 * later:.2f}")
    console.print(table)
    cells = [
        (f"`{n}`", f"{first:.2f} s", f"{1000 * later:.2f} ms") for n, (first, later) in slowest_first[:12]
    ]
    quick = sum(first < 1 for first, _ in seconds.values())
    return (
        f"{markdown(('method', 'first call', 'later call'), cells)}\n\n"
        f"The slowest twelve of {len(seconds)}; {quick} take less than a second.\n"
        f"`python -m experiments.back_query` takes {job[0]:.1f} s from the shell with an empty compilation "
        f"cache, and {job[1]:.1f} s with that of an earlier run."
    )


def first_and_later(name: str) -> tuple[float, float]:
    """Seconds of the first call, and of a later one; to be run in a new process."""
    jax.config.update("jax_enable_compilation_cache", False)
    network = jaxnn.init(jax.random.key(0), (784, 200, 10), activation="relu", output_activation="identity")
    x = jnp.asarray(np.random.default_rng(0).uniform(0.05, 0.95, 784), "float32")
    jax.block_until_ready((network, x, jax.random.split(jax.random.key(1))))
    method, seconds = methods()[name], []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(method(network, x)))
        seconds.append(time.perf_counter() - start)
    return seconds[0], min(seconds[1:])


def main_job(*, cached: bool) -> float:
    """Seconds of the README's command in a new process, with or without the cache of a first run."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        command = [sys.executable, "-m", "experiments.back_query", "--output", f"{folder}/results"]
        for _ in range(1 + cached):
            start = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        return time.perf_counter() - start


def methods() -> dict[str, Method]:
    """Every method that compiles, with its default options."""
    key, image = jax.random.key(1), np.zeros((4, 784), np.float32)
    keyed: dict[str, Any] = {"key": key}
    layered, ball = {"layer": "hidden_0"}, {"epsilon": 0.1, "key": key}

    def of(family: Any, names: str, *args: Any, **options: Any) -> dict[str, Method]:
        def method(name: str) -> Method:
            return lambda network, x: getattr(family, name)(network, x, *args, **options)

        return {name: method(name) for name in names.split()}

    return {
        **of(attribution, "saliency input_x_gradient integrated_gradients guided_backprop deconvnet", 1),
        **of(attribution, "deep_lift lrp feature_ablation", 1),
        **of(attribution, "smooth_grad var_grad shapley_sampling kernel_shap lime rise", 1, **keyed),
        **of(attribution, "expected_gradients", 1, baselines=image, **keyed),
        **of(attribution, "deep_lift_shap", 1, baselines=image),
        **of(attribution, "occlusion", 1, window=(28,), stride=4),
        **of(attribution, "shapley_values", 1, groups=BLOCKS.ravel()),
        **of(attribution, "layer_gradient_x_activation layer_integrated_gradients", 1, **layered),
        **of(attribution, "layer_conductance internal_influence neuron_gradient", 1, **layered),
        **of(attribution, "layer_activation", **layered),
        **of(attacks, "fgsm bim pgd momentum_pgd apgd noise square", 1, **ball),
        **of(attacks, "deepfool carlini_wagner fmn hop_skip_jump blur contrast", 1, **keyed),
        **of(rules, "linear_region"),
        "dream": lambda network, x: jaxnn.dream(
            dreaming.flattened(network), dreaming.logit(1), shape=(SIDE, SIDE), **keyed
        ),
        "query": jaxnn.query,
        "capture": jaxnn.capture,
        "backquery, transpose": lambda network, x: jaxnn.backquery(_sigmoids(network), np.full(10, 0.5)),
        "backquery, least_squares": lambda network, x: jaxnn.backquery(
            _sigmoids(network), np.full(10, 0.5), method="least_squares"
        ),
        "init": lambda network, x: jaxnn.init(key, (784, 200, 10)),
        "train": lambda network, x: jaxnn.train(
            _sigmoids(network), image, np.full((4, 10), 0.5), epochs=1, batch_size=1, **keyed
        ),
        "map_examples": lambda network, x: jaxnn.map_examples(network, image, batch_size=4),
        "weights.contributions": weights.contributions,
        "weights.path_products": lambda network, x: weights.path_products(network),
    }


def _sigmoids(network: jaxnn.Network) -> jaxnn.Network:
    return jaxnn.Network(tuple(jaxnn.Dense(layer.kernel, layer.bias, "sigmoid") for layer in network.layers))
