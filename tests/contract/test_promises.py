"""What every public function promises: one generic test per promise, for each row of the table.

`pytest tests/contract --row NAME` tests all promises of one function.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from tests.conftest import in_precision
from tests.contract.rows import FULL, INDIRECT, ROWS, SIZES
from tests.helpers.params import some

# Searches that accept or reject candidates: one rounding changes a decision, and all that follows is another
# search.
BY_DECISIONS = {"hop_skip_jump", "square"}


def _rows(names, *, basic, every=1):
    """The rows, as parameters.

    A promise that is not basic is a long test except for the rows of `FULL`, and a basic one for a second row
    of the same function, with other options. Of all others one in `every` is tested by default.
    """

    def marks(number, name):
        first = next(other for other in ROWS if other.split()[0] == name.split()[0])
        by_default = name in FULL or (basic and name == first)
        sampled = number % every == 0 or (basic and name in FULL)
        return [] if by_default and sampled else [pytest.mark.long]

    chosen = [name for name in ROWS if name in names]
    order = sorted(chosen, key=lambda name: name not in FULL)  # so that `every` counts within each kind
    parameters = [
        pytest.param(ROWS[name], id=name, marks=marks(number, name)) for number, name in enumerate(order)
    ]
    return pytest.mark.parametrize("row", parameters)


basic_promise = _rows(ROWS.keys(), basic=True)
promise = _rows(ROWS.keys(), basic=False)

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


def stack(outputs):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


@basic_promise
def test_jit_of_vmap_over_examples_equals_a_loop(row):
    batch = example(row, 3)
    mapped = jax.jit(jax.vmap(row.call, (None, 0)))(network(), batch)
    assert_close(mapped, stack([row.call(network(), one) for one in batch]), 1e-5)


@promise
def test_jit_of_the_caller_changes_nothing(row):
    assert_close(jax.jit(row.call)(network(), example(row)), row.call(network(), example(row)), 1e-5)


@_rows(ROWS.keys(), basic=False, every=3)
def test_jit_equals_no_jit(row):
    compiled = jax.jit(row.call)(network(), example(row))
    with jax.disable_jit():
        plain = row.call(network(), example(row))
    assert_close(compiled, plain, 1e-5)


@promise
def test_vmap_over_examples_equals_a_loop(row):
    batch = example(row, 4)
    mapped = jax.vmap(row.call, (None, 0))(network(), batch)
    assert_close(mapped, stack([row.call(network(), one) for one in batch]), 1e-5)


@promise
def test_vmap_over_a_stack_of_16_networks_equals_a_loop(row):
    networks = [network(key) for key in range(16)]
    mapped = jax.vmap(row.call, (0, None))(stack(networks), example(row))
    looped = stack([row.call(one, example(row)) for one in networks])
    assert_close(mapped, looped, 1e-5)


@promise
def test_the_gradient_is_finite_and_not_zero(row):
    def total(network, x):
        outputs = jax.tree.leaves(row.call(network, x))
        return sum(jnp.sum(jnp.cos(jnp.arange(a.size)) * a.ravel()) for a in outputs)

    of_network, of_x = jax.grad(total, argnums=(0, 1))(network(), example(row))
    for leaf in jax.tree.leaves((of_network, of_x)):
        assert np.all(np.isfinite(leaf))
    assert np.any(of_x != 0)


@basic_promise
@pytest.mark.parametrize("dtype", some(["bfloat16", "float16", "float32", "float64"], "bfloat16"))
def test_the_dtype_is_kept(row, dtype):
    with in_precision(dtype):
        output = jax.eval_shape(row.call, network(dtype=dtype), example(row, dtype=dtype))
        # Sums over an epoch are held at least in float32, and counts in float32.
        summed = {jnp.promote_types(dtype, jnp.float32), jnp.dtype(jnp.float32)}
        model, history = output if isinstance(output, tuple) else (output, ())
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(dtype)}
        assert {leaf.dtype for leaf in jax.tree.leaves(history)} <= summed


@_rows(ROWS.keys() - INDIRECT, basic=True)
@pytest.mark.parametrize("bad", ["text", "complex"])
def test_bad_input_is_refused_by_name(row, bad):
    values = {"text": np.full(row.shape, "a"), "complex": np.full(row.shape, 1j, np.complex64)}
    with pytest.raises((TypeError, ValueError), match=r"`[a-z_]+"):
        jax.block_until_ready(row.call(network(), values[bad]))


@promise
def test_doubles_run(row):
    with in_precision("float64"):
        for leaf in jax.tree.leaves(row.call(network(dtype="float64"), example(row, dtype="float64"))):
            assert np.all(np.isfinite(leaf))


@_rows(ROWS.keys() - BY_DECISIONS, basic=False)
@pytest.mark.parametrize("dtype", some(["bfloat16", "float16"], "bfloat16"))
def test_half_precision_is_near_single(row, dtype):
    exact = row.call(network(), example(row))
    half = row.call(jax.tree.map(lambda a: a.astype(dtype), network()), example(row, dtype=dtype))
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(exact), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=0.1 * max(1, np.abs(b).max()))


@_rows(ROWS.keys(), basic=True, every=3)
def test_a_second_network_of_the_same_sizes_compiles_nothing(row, caplog):
    first, second, x = network(0), network(1), example(row)
    row.call(first, x)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        row.call(second, x)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


@promise
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


@promise
def test_shard_map_equals_one_device(row):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch, many = example(row, 16), jax.vmap(row.call, (None, 0))
    mapped = jax.shard_map(many, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data"))
    assert_close(jax.jit(mapped)(network(), batch), jax.jit(many)(network(), batch), 1e-5)
