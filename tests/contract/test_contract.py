"""What every public function promises: one table, one generic test a promise.

A row calls its function with a network and one example, both of which may be traced. `train` is a row
too: its example is a whole set of inputs, its answer the trained network and the history.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnn
from jaxnn import attribution, rules, weights
from tests.conftest import in_precision
from tests.contract import rows_attacks, rows_attacks_minimal

SIZES = (100, 20, 3)
OLD_KEY = np.array([0, 3], np.uint32)
TARGETS = np.where(np.eye(3)[np.arange(10) % 3] > 0, 0.99, 0.01)


class Row(NamedTuple):
    call: Callable[[jaxnn.Network, jax.Array], Any]
    shape: tuple[int, ...]  # of one example, with entries in (0.4, 0.6)


def _train(network, inputs):
    targets = jnp.asarray(TARGETS, network.layers[0].kernel.dtype)
    return jaxnn.train(network, inputs, targets, epochs=2, batch_size=4, key=jax.random.key(3))


def _top_weights(network):
    top = weights.top_features(network, 5)
    return top.liked_weights - top.disliked_weights


def _seen(network, x):
    """A network that looks at its input as a map of 5 x 5 places, of 4 channels each."""
    return network(jaxnn.tap(x.reshape(5, 5, 4), "seen").reshape(100))


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
    "lrp": Row(lambda n, x: attribution.lrp(n, x, 1, rule="epsilon_gamma_box", low=0, high=1), (100,)),
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


def _halved(h):
    return h / 2


ROWS |= {
    "capture": Row(_read, (100,)),
    "intervene": Row(lambda n, x: jaxnn.intervene(n, {"hidden_0": _halved})(x), (100,)),
    "rewrite": Row(
        lambda n, x: jaxnn.rewrite(lambda x: n(x), {"logistic": lambda operation, x: operation(x) / 2})(x),
        (100,),
    ),
    "from_linen": Row(lambda n, x: _read(_linen(n), x), (100,)),
    "from_nnx": Row(lambda n, x: _read(_nnx(n), x), (100,)),
    "from_equinox": Row(lambda n, x: _read(_equinox(n), x), (100,)),
}
ROWS |= {"dream": Row(_dream, (10, 10))}
ROWS["linear_region"] = Row(lambda n, x: rules.linear_region(_with_relus(n), x)._asdict(), (100,))

for table in (rows_attacks.ROWS, rows_attacks_minimal.ROWS):
    ROWS |= {name: Row(*row) for name, row in table.items()}

# The rows of the core are asked every time; of the families' tests a third (all with `pytest --long`).
CORE = 30
# What asks for decisions alone: a rounding turns one over, and all that follows is another search.
BY_DECISIONS = {"hop_skip_jump"}


def _rows(names):
    marked = [
        pytest.param(row, id=name, marks=[pytest.mark.long] * (i >= CORE))
        for i, (name, row) in enumerate(ROWS.items())
        if name in names
    ]
    return pytest.mark.parametrize("row", marked)


every_row = _rows(ROWS)


BIAS = jax.nn.initializers.normal(0.1)
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"


def network(key=0, dtype=jnp.float32):
    return jaxnn.init(jax.random.key(key), SIZES, dtype=dtype, bias_init=BIAS)


def example(row, *batch, dtype=jnp.float32):
    values = np.random.default_rng(1).uniform(0.4, 0.6, (*batch, *row.shape))
    return jnp.asarray(values, dtype)


def assert_close(one, other, tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance
        )


def stack(answers):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *answers)


@every_row
def test_jit_equals_no_jit(row):
    compiled = jax.jit(row.call)(network(), example(row))
    with jax.disable_jit():
        plain = row.call(network(), example(row))
    assert_close(compiled, plain, 1e-5)


@every_row
def test_vmap_over_examples_equals_a_loop(row):
    batch = example(row, 4)
    mapped = jax.vmap(row.call, (None, 0))(network(), batch)
    assert_close(mapped, stack([row.call(network(), one) for one in batch]), 1e-5)


@every_row
def test_vmap_over_a_stack_of_16_networks_equals_a_loop(row):
    networks = [network(key) for key in range(16)]
    mapped = jax.vmap(row.call, (0, None))(stack(networks), example(row))
    looped = stack([row.call(one, example(row)) for one in networks])
    assert_close(mapped, looped, 1e-5)


@every_row
def test_the_gradient_is_finite_and_not_zero(row):
    def total(network, x):
        answers = jax.tree.leaves(row.call(network, x))
        return sum(jnp.sum(jnp.cos(jnp.arange(a.size)) * a.ravel()) for a in answers)

    of_network, of_x = jax.grad(total, argnums=(0, 1))(network(), example(row))
    for leaf in jax.tree.leaves((of_network, of_x)):
        assert np.all(np.isfinite(leaf))
    assert np.any(of_x != 0)


@every_row
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_dtype_is_kept(row, dtype):
    with in_precision(dtype):
        answer = row.call(network(dtype=dtype), example(row, dtype=dtype))
        # Sums over an epoch are held at least in float32, and counts in float32.
        summed = {jnp.promote_types(dtype, jnp.float32), jnp.dtype(jnp.float32)}
        model, history = answer if isinstance(answer, tuple) else (answer, ())
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(dtype)}
        assert {leaf.dtype for leaf in jax.tree.leaves(history)} <= summed


@_rows(ROWS.keys() - BY_DECISIONS)
def test_half_precision_is_near_single(row):
    exact = row.call(network(), example(row))
    half = row.call(
        jax.tree.map(lambda a: a.astype(jnp.bfloat16), network()), example(row, dtype=jnp.bfloat16)
    )
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(exact), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=0.1 * max(1, np.abs(b).max()))


@every_row
def test_a_second_network_of_the_same_sizes_compiles_nothing(row, caplog):
    first, second, x = network(0), network(1), example(row)
    row.call(first, x)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        row.call(second, x)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


@every_row
def test_eight_devices_equal_one(row):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = example(row, 16)
    one = jax.jit(jax.vmap(row.call, (None, 0)))(network(), batch)
    spread = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
    everywhere = jax.device_put(network(), jax.NamedSharding(mesh, jax.P()))
    compiled = jax.jit(jax.vmap(row.call, (None, 0))).lower(everywhere, spread).compile()
    many = compiled(everywhere, spread)
    assert_close(many, one, 1e-5)
    # Each device works by itself, but that all go on until the last of them has found what it looks for.
    for line in re.findall(rf".*? (?:{COLLECTIVES})\(.*", compiled.as_text()):
        assert re.search(r"= pred\[\] all-reduce\(", line), line
    for leaf in jax.tree.leaves(many):
        assert len(leaf.sharding.device_set) == 8
        assert leaf.addressable_shards[0].data.shape[0] == 2  # each device did its part


@every_row
def test_shard_map_equals_one_device(row):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch, many = example(row, 16), jax.vmap(row.call, (None, 0))
    mapped = jax.shard_map(many, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data"))
    assert_close(jax.jit(mapped)(network(), batch), jax.jit(many)(network(), batch), 1e-5)
