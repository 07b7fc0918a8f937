"""What every public function promises: one table, one generic test a promise.

A row calls its function with a network and one example, both of which may be traced. `train` is a row
too: its example is a whole set of inputs, its answer the trained network and the history.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import rules, weights
from tests.conftest import in_precision

SIZES = (100, 20, 3)
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


def _damaged(network):
    removed = jnp.arange(100)[:, None] < jnp.arange(20)
    return weights.lesion(network, layer="hidden_0", units=[0, 7], weights=removed)


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
    "random_share": Row(lambda n, x: x * weights.random_share(jax.random.key(4), 100, 0.5), (100,)),
} | {
    f"activation {name}": Row(lambda n, x, name=name: jaxnn.activation(name).function(x), (100,))
    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "softplus", "elu", "gelu", "softmax")
} | {
    f"inverse {name}": Row(lambda n, x, name=name: jaxnn.activation(name).inverse(x), (100,))
    for name in ("sigmoid", "tanh", "softplus", "elu", "leaky_relu")
}  # fmt: skip
ROWS["linear_region"] = Row(lambda n, x: rules.linear_region(_with_relus(n), x)._asdict(), (100,))

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


BIAS = jax.nn.initializers.normal(0.1)


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


@every_row
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
    many = jax.jit(jax.vmap(row.call, (None, 0)))(everywhere, spread)
    assert_close(many, one, 1e-5)
    for leaf in jax.tree.leaves(many):
        assert len(leaf.sharding.device_set) == 8
        assert leaf.addressable_shards[0].data.shape[0] == 2  # each device did its part


@every_row
def test_shard_map_equals_one_device(row):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch, many = example(row, 16), jax.vmap(row.call, (None, 0))
    mapped = jax.shard_map(many, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data"))
    assert_close(jax.jit(mapped)(network(), batch), jax.jit(many)(network(), batch), 1e-5)
