"""The rows of the contract: one call per public function, with a network and one example.

Both may be traced. `train` is a row too: its example is a whole set of inputs, its output the trained network
and the history. A row is named after its function, with a variant behind a space where there are several.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxnn
from jaxnn import attribution, rules, weights
from jaxnn._adapters.torch import TorchModel
from jaxnn._adapters.torch_program import Program, Step, Value
from jaxnn._model import Frozen
from tests.contract import rows_attacks, rows_attacks_minimal, rows_dreaming, rows_quality

SIZES = (100, 20, 3)
OLD_KEY = np.array([0, 3], np.uint32)
TARGETS = np.where(np.eye(3)[np.arange(10) % 3] > 0, 0.99, 0.01)


class Row(NamedTuple):
    call: Callable[[jaxnn.Network, jax.Array], Any]
    shape: tuple[int, ...]  # of one example, with elements in (0.4, 0.6)


PRIOR = jaxnn.prior(rows_dreaming.INPUTS.reshape(40, 100), components=2, rank=8, key=jax.random.key(9))


def _change(network, mean, x):
    """By how much an input changes the outputs for the mean input, sharply."""
    return network(20 * (x - 0.5)) - network(20 * (mean - 0.5))


def _by_prior(network, y, method):
    dtype = y.dtype if jnp.issubdtype(y.dtype, jnp.floating) else jnp.float32
    prior = jax.tree.map(lambda leaf: leaf.astype(dtype), PRIOR)
    # Of small changes, which each network can make: the search for what is out of reach ends anywhere.
    y = (y - 0.5) / 10 if jnp.issubdtype(y.dtype, jnp.floating) else y
    model = jax.tree_util.Partial(_change, network, prior.mean)
    found = jaxnn.backquery(model, y, method=method, prior=prior)
    return found if method == "pattern" else [found.x, found.distance, found.shortfall, found.surer]


def _train(network, inputs):
    targets = jnp.asarray(TARGETS, network.layers[0].kernel.dtype)
    return jaxnn.train(network, inputs, targets, epochs=2, batch_size=4, key=jax.random.key(3))


def _top_weights(network):
    top = weights.top_features(network, 5)
    return top.liked_weights - top.disliked_weights


def _seen(network, x):
    """A network that looks at its input as a map of 5 x 5 places, of 4 channels each."""
    return network(jaxnn.tap(x.reshape(5, 5, 4), "seen").reshape(100))


def _from_hidden(network, x):
    rest, value = jaxnn.split_at(network, x, "hidden_0")
    return rest(value / 2)


def _of_a_map(network, x):
    return network(jaxnn.tap(x, "map").reshape(100))


def _weighted_map(network, x, weights):
    return attribution.grad_cam(jax.tree_util.Partial(_of_a_map, network), x, 1, layer="map", weights=weights)


def _total(network, x):
    return jnp.sum(jax.nn.relu(network(x) + x[:3]))


def _relu_after(network):
    """Something with a relu in it, of which a second one compiles nothing."""
    return jax.tree_util.Partial(_total, network)


def _damaged(network):
    removed = jnp.arange(100)[:, None] < jnp.arange(20)
    return weights.lesion(network, layer="hidden_0", units=[0, 7], weights=removed)


def _dream(network, start):
    # The key is of the old kind, which the check of keys used twice lets be used by every call.
    found = jaxnn.dream(
        jaxnn.dreaming.flattened(network), jaxnn.dreaming.logit(1), start=start, shape=(10, 10), key=OLD_KEY,
        steps=2, record_every=1,
    )  # fmt: skip
    return [found.image, found.value, found.trace, found.frames]


def _with_relus(network):
    """The network of the table, made piecewise linear."""
    layers = [layer.replace(activation="relu") for layer in network.layers]
    return jaxnn.Network((*layers[:-1], layers[-1].replace(activation="leaky_relu")))


ROWS = {
    "query": Row(jaxnn.query, (100,)),
    "Network.__call__": Row(lambda network, x: network(x), (100,)),
    "backquery transpose": Row(jaxnn.backquery, (3,)),
    "backquery least_squares": Row(
        lambda network, y: jaxnn.backquery(network, y, method="least_squares", sweeps=2, steps=10), (3,)
    ),
    "backquery pattern": Row(functools.partial(_by_prior, method="pattern"), (3,)),
    "backquery typical": Row(functools.partial(_by_prior, method="typical"), (3,)),
    "train": Row(_train, (10, 100)),
    "rescale": Row(lambda network, x: jaxnn.rescale(x), (100,)),
    "tap": Row(lambda network, x: jaxnn.tap(network(x), "answer"), (100,)),
    "squared_error": Row(lambda n, x: jaxnn.losses.squared_error(n(x), jnp.ones(3, x.dtype)), (100,)),
    "cross_entropy": Row(lambda n, x: jaxnn.losses.cross_entropy(n(x), 2), (100,)),
    # What asks for no example is multiplied by one, so that every promise can be asked of it.
    "kernel_images": Row(lambda n, x: weights.kernel_images(n) * x.reshape(1, 10, 10), (100,)),
    "output_images": Row(lambda n, x: weights.output_images(n, (4, 5)) * x, (4, 5)),
    "top_features": Row(lambda n, x: _top_weights(n) * x, (3, 5)),
    "contributions": Row(weights.contributions, (100,)),
    "path_products": Row(lambda n, x: x @ weights.path_products(n), (100,)),
    "lesion": Row(lambda n, x: _damaged(n)(x), (100,)),
    "roughness": Row(lambda n, x: weights.roughness(weights.kernel_images(n) * x.reshape(10, 10)), (100,)),
    "random_mask": Row(lambda n, x: x * weights.random_mask(jax.random.key(4), 100, 0.5), (100,)),
} | {
    f"activation {name}": Row(lambda n, x, name=name: jaxnn.activation(name).function(x), (100,))
    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "softplus", "elu", "gelu", "softmax")
} | {
    f"inverse {name}": Row(lambda n, x, name=name: jaxnn.activation(name).inverse(x), (100,))
    for name in ("sigmoid", "tanh", "softplus", "elu", "leaky_relu")
} | {
    "guided_backprop": Row(lambda n, x: attribution.guided_backprop(_relu_after(n), x), (100,)),
    "deconvnet": Row(lambda n, x: attribution.deconvnet(_relu_after(n), x), (100,)),
    "deep_lift": Row(lambda n, x: attribution.deep_lift(n, x, 1), (100,)),
    "deep_lift_shap": Row(
        lambda n, x: attribution.deep_lift_shap(n, x, 1, baselines=np.eye(5, 100), batch_size=2), (100,)
    ),
    # With an epsilon that matters: without one, a sum near 0 makes relevances that rounding changes.
    "lrp": Row(
        lambda n, x: attribution.lrp(n, x, 1, rule="epsilon_gamma_box", low=0, high=1, epsilon=0.1), (100,)
    ),
    "lrp alpha_beta": Row(lambda n, x: attribution.lrp(n, x, 1, rule="alpha_beta"), (100,)),
}  # fmt: skip

# Perturbations of ten entries at a time, or twenty.
TENS, TWENTIES = np.arange(100) // 10, np.arange(100) // 20
DRAWN = {"key": jax.random.key(5), "batch_size": 16}
ROWS |= {
    "feature_ablation": Row(lambda n, x: attribution.feature_ablation(n, x, 1, groups=TENS), (100,)),
    "occlusion": Row(lambda n, x: attribution.occlusion(n, x, 1, window=(10,), stride=4), (100,)),
    "permutation_importance": Row(
        lambda n, x: attribution.permutation_importance(
            n, x, TARGETS.astype(x.dtype), groups=TWENTIES, n_samples=2, **DRAWN
        ),
        (10, 100),
    ),
    "shapley_values": Row(lambda n, x: attribution.shapley_values(n, x, 1, groups=TWENTIES), (100,)),
    "shapley_sampling": Row(
        lambda n, x: attribution.shapley_sampling(n, x, 1, groups=TENS, n_samples=4, **DRAWN), (100,)
    ),
    "kernel_shap": Row(
        lambda n, x: sum(
            attribution.kernel_shap(n, x, 1, groups=TENS, n_samples=60, with_error=True, **DRAWN)
        ),
        (100,),
    ),
    "lime": Row(lambda n, x: attribution.lime(n, x, 1, groups=TENS, n_samples=40, **DRAWN), (100,)),
    "rise": Row(lambda n, x: attribution.rise(n, x, 1, grid=5, n_samples=20, **DRAWN), (100,)),
}
KEY = jax.random.key(6)
STEPS = {"steps": 6, "batch_size": 4}
SAMPLES = {"key": KEY, "n_samples": 6, "batch_size": 4}
ROWS |= {
    "saliency": Row(lambda n, x: attribution.saliency(n, x, 1), (100,)),
    "input_x_gradient": Row(lambda n, x: attribution.input_x_gradient(n, x, 1), (100,)),
    "integrated_gradients": Row(lambda n, x: attribution.integrated_gradients(n, x, 1, **STEPS), (100,)),
    "smooth_grad": Row(lambda n, x: attribution.smooth_grad(n, x, 1, noise=0.5, **SAMPLES), (100,)),
    "smooth_grad with_error": Row(
        lambda n, x: list(attribution.smooth_grad(n, x, 1, squared=True, with_error=True, **SAMPLES)), (100,)
    ),
    "var_grad": Row(lambda n, x: 1e3 * attribution.var_grad(n, x, 1, **SAMPLES), (100,)),
    "expected_gradients": Row(
        lambda n, x: attribution.expected_gradients(n, x, 1, baselines=np.eye(4, 100), **SAMPLES), (100,)
    ),
    "completeness_gap": Row(lambda n, x: attribution.completeness_gap(n, x, 1, 2 * x), (100,)),
    "layer_activation": Row(lambda n, x: attribution.layer_activation(n, x, layer="hidden_0"), (100,)),
    "layer_gradient_x_activation": Row(
        lambda n, x: attribution.layer_gradient_x_activation(n, x, 1, layer="hidden_0"), (100,)
    ),
    "layer_integrated_gradients": Row(
        lambda n, x: attribution.layer_integrated_gradients(n, x, 1, layer="hidden_0", **STEPS), (100,)
    ),
    "layer_conductance": Row(
        lambda n, x: attribution.layer_conductance(n, x, 1, layer="hidden_0", **STEPS), (100,)
    ),
    "internal_influence": Row(
        lambda n, x: attribution.internal_influence(n, x, 1, layer="hidden_0", **STEPS), (100,)
    ),
    "neuron_gradient": Row(lambda n, x: attribution.neuron_gradient(n, x, 1, layer="hidden_0"), (100,)),
    # Of an output that the map speaks for somewhere: elsewhere the product is 0.
    "guided_grad_cam": Row(
        lambda n, x: attribution.guided_grad_cam(jax.tree_util.Partial(_seen, n), x, 2, layer="seen"),
        (10, 10),
    ),
    "grad_cam": Row(
        lambda n, x: attribution.grad_cam(jax.tree_util.Partial(_seen, n), x, 1, layer="seen", shape=(7, 7)),
        (100,),
    ),
    **{
        f"grad_cam {weights}": Row(functools.partial(_weighted_map, weights=weights), (5, 5, 4))
        for weights in ("ablationcam", "scorecam")
    },
}


# The engine, and the adapters with the network's own arrays in another framework's module.
def _read(model, x):
    y, values = jaxnn.capture(model, x)
    return values | {"y": y}


def _linen(network):
    module = nn.Sequential([nn.Dense(20), nn.sigmoid, nn.Dense(3), nn.sigmoid])
    layers = zip(("layers_0", "layers_2"), network.layers, strict=True)
    params = {name: {"kernel": layer.kernel, "bias": layer.bias} for name, layer in layers}
    return jaxnn.from_linen(module, {"params": params}, batched=True)


def _nnx(network):
    layers = [nnx.Linear(*sizes, rngs=nnx.Rngs(0)) for sizes in ((100, 20), (20, 3))]
    for linear, layer in zip(layers, network.layers, strict=True):
        linear.kernel, linear.bias = nnx.Param(layer.kernel), nnx.Param(layer.bias)
    return jaxnn.from_nnx(nnx.Sequential(layers[0], nnx.sigmoid, layers[1], nnx.sigmoid))


def _equinox(network):
    eqx = pytest.importorskip("equinox")
    mlp = eqx.nn.MLP(100, 3, 20, 1, jax.nn.sigmoid, jax.nn.sigmoid, key=jax.random.key(0))
    arrays = [array for layer in network.layers for array in (layer.kernel.T, layer.bias)]
    mlp = eqx.tree_at(lambda m: [a for layer in m.layers for a in (layer.weight, layer.bias)], mlp, arrays)
    return jaxnn.from_equinox(mlp)


@functools.cache
def _transformed():
    hk = pytest.importorskip("haiku")
    layers = lambda: [hk.Linear(20), jax.nn.sigmoid, hk.Linear(3), jax.nn.sigmoid]  # noqa: E731
    return hk.transform(lambda x: hk.Sequential(layers())(x))


def _haiku(network):
    layers = zip(("linear", "linear_1"), network.layers, strict=True)
    params = {name: {"w": layer.kernel, "b": layer.bias} for name, layer in layers}
    return jaxnn.from_haiku(_transformed(), params)


@functools.cache
def _adapted(dtype):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    options = {"activation": "sigmoid", "kernel_initializer": "zeros", "dtype": dtype}
    with jax.ensure_compile_time_eval():  # its first caller may be traced
        layers = [keras.layers.Dense(20, **options), keras.layers.Dense(3, **options)]
        return jaxnn.from_keras(keras.Sequential([keras.Input((100,), dtype=dtype), *layers]))


def _keras(network):
    params = [array for layer in network.layers for array in (layer.kernel, layer.bias)]
    return _adapted(params[0].dtype.name).replace(params=params)


def _torch(network):
    """The graph of two layers as PyTorch exports it, written by hand: PyTorch is not installed."""
    first, last = network.layers
    params = {"0.kernel": first.kernel, "0.bias": first.bias, "2.kernel": last.kernel, "2.bias": last.bias}
    x, y, dtype = Value(4), Value(9), first.kernel.dtype.name
    steps = (
        Step("addmm.default", (Value(1), x, Value(0)), (), (1, 20), dtype, "0"),
        Step("tap.default", (Value(5), "0"), (), (1, 20), dtype, ""),
        Step("sigmoid.default", (Value(6),), (), (1, 20), dtype, ""),
        Step("addmm.default", (Value(3), Value(7), Value(2)), (), (1, 3), dtype, "2"),
        Step("sigmoid.default", (Value(8),), (), (1, 3), dtype, ""),
    )
    given = (*(("params", name) for name in params), ("inputs", 0))
    inputs = (((1, 100), dtype),)
    program = Program(given, inputs, steps, jax.tree.structure(0), (y,))
    return TorchModel(params, Frozen(({}, [])), program, batched=True)


def _halved(h):
    return h / 2


def _convolved(network, x):
    """A convolution of one channel, and a depthwise one, before the network."""
    kernels = network.layers[0].kernel[:9, :4].reshape(3, 3, 1, 4)
    spec = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    maps = lax.conv_general_dilated(x.reshape(1, 10, 10, 1), kernels, (1, 1), **spec)
    maps = lax.conv_general_dilated(jnp.tanh(maps), kernels, (1, 1), feature_group_count=4, **spec)
    return network(jnp.mean(maps, -1).ravel())


ROWS |= {
    "capture": Row(_read, (100,)),
    "intervene": Row(lambda n, x: jaxnn.intervene(n, {"hidden_0": _halved})(x), (100,)),
    "tap_operations": Row(lambda n, x: _read(jaxnn.tap_operations(n, "logistic"), x), (100,)),
    "split_at": Row(_from_hidden, (100,)),
    "rewrite": Row(
        lambda n, x: jaxnn.rewrite(lambda x: n(x), {"logistic": lambda operation, x: operation(x) / 2})(x),
        (100,),
    ),
    "for_cpu": Row(lambda n, x: jaxnn.for_cpu(jax.tree_util.Partial(_convolved, n))(x), (100,)),
    "from_linen": Row(lambda n, x: _read(_linen(n), x), (100,)),
    "from_nnx": Row(lambda n, x: _read(_nnx(n), x), (100,)),
    "from_equinox": Row(lambda n, x: _read(_equinox(n), x), (100,)),
    "from_haiku": Row(lambda n, x: _read(_haiku(n), x), (100,)),
    "from_keras": Row(lambda n, x: _read(_keras(n), x), (100,)),
    "from_torch": Row(lambda n, x: _read(_torch(n), x), (100,)),
}
ROWS |= {"dream": Row(_dream, (10, 10))}
ROWS["linear_region"] = Row(lambda n, x: rules.linear_region(_with_relus(n), x)._asdict(), (100,))


def _map_saliency(network, inputs):
    explain = jax.tree_util.Partial(_saliency, network)
    return jnp.asarray(jaxnn.map_examples(explain, inputs, batch_size=4))


def _saliency(network, x):
    return attribution.saliency(network, x, 1)


def _fresh(x):
    """The output of a new network, made in the precision of the example."""
    return jaxnn.init(jax.random.key(8), SIZES, dtype=x.dtype)(x)


ROWS |= {
    "init": Row(lambda n, x: _fresh(x), (100,)),
    "map_examples": Row(_map_saliency, (10, 100)),
    "encode_labels": Row(
        lambda n, x: x * jaxnn.datasets.encode_labels(np.arange(3), 3).astype(x.dtype), (3, 3)
    ),
}
ROWS |= {
    "misclassified": Row(lambda n, x: jaxnn.attacks.misclassified(1)(n(x)), (100,)),
    "classified_as": Row(lambda n, x: jaxnn.attacks.classified_as(1)(n(x)), (100,)),
    "confident": Row(lambda n, x: jaxnn.attacks.confident(1, 0.5)(n(x)), (100,)),
}
for table in (rows_attacks.ROWS, rows_attacks_minimal.ROWS, rows_dreaming.ROWS, rows_quality.ROWS):
    ROWS |= {name: Row(*row) for name, row in table.items()}

# Rows for which every promise is tested by default: one per kind of implementation, with that kind, where it
# takes seconds. For all other rows the promises past the basic ones (jit, vmap, one trace, dtype, bad input)
# are long tests.
FULL = {
    "query": "a plain function",
    "backquery least_squares": "a scan with early stopping, over inverses of activations",
    "activation softmax": "an activation over an axis",
    "intervene": "an evaluation of the jaxpr, with replacements",
    "saliency": "a gradient",
    "integrated_gradients": "a chunked sum along a path",
    "grad_cam": "a map at a layer",
    "lrp": "propagation by rules",
    "pgd": "an attack by a scan",
}
# Rows whose example reaches the function changed, or as an array that the model computed: no input to check.
INDIRECT = {
    name for name in ROWS if name.startswith(("activation ", "inverse ", "from_"))
} | set(rows_dreaming.ROWS) - {"flattened"} | {
    "kernel_images", "output_images", "top_features", "path_products", "roughness", "random_mask", "rewrite",
    "for_cpu", "completeness_gap", "encode_labels", "robust_accuracy", *rows_quality.INDIRECT,
}  # fmt: skip
