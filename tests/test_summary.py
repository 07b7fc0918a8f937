"""The summary of a model: names, shapes, parameters and operations, counted by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn


def test_a_network_is_counted_by_hand():
    network = jaxnn.init(jax.random.key(0), (20, 7, 3))
    rows = jaxnn.summary(network, jnp.ones(20, jnp.float32))
    assert [tuple(row) for row in rows] == [
        ("hidden_0_in", (7,), "float32", 20 * 7 + 7, 2 * 20 * 7 + 7),
        ("hidden_0", (7,), "float32", 0, 7),
        ("output_in", (3,), "float32", 7 * 3 + 3, 2 * 7 * 3 + 3),
        ("output", (3,), "float32", 0, 3),
    ]
    assert rows == jaxnn.summary(network, jax.ShapeDtypeStruct((20,), jnp.float32))


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.Conv(6, (3, 3), strides=2, use_bias=False, feature_group_count=2)(nn.relu(x))
        return nn.Dense(5)(x.reshape(-1)) * 2


def test_convolutions_and_what_follows_the_last_name():
    module, x = Convolutions(), jnp.ones((8, 8, 3))
    model = jaxnn.from_linen(module, module.init(jax.random.key(0), x))
    rows = {row.name: row for row in jaxnn.summary(model, x)}
    assert list(rows) == ["Conv_0", "Conv_1", "Dense_0", ""]
    assert rows["Conv_0"].operations == 2 * 27 * 8 * 8 * 4 + 8 * 8 * 4
    assert rows["Conv_1"].operations == 8 * 8 * 4 + 2 * 18 * 4 * 4 * 6  # the relu before is counted here
    assert rows["Dense_0"].operations == 2 * 96 * 5 + 5
    assert rows[""].operations == 5
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert sum(row.parameters for row in rows.values()) == parameters


def test_a_scan_counts_once_per_step_and_its_parameters_once():
    weights = jnp.ones((4, 4), jnp.float32), jnp.ones((6, 4), jnp.float32)

    def model(weights, x):
        def step(carry, bias):
            return jaxnn.tap(carry @ weights[0] + bias, "step"), None

        return jax.lax.scan(step, x, weights[1])[0]

    (row,) = jaxnn.summary(jax.tree_util.Partial(model, weights), jnp.ones(4, jnp.float32))
    assert tuple(row) == ("step", (4,), "float32", 16 + 24, 6 * (2 * 16 + 4))


def test_a_branch_is_that_of_the_most_operations_and_shared_arrays_count_once():
    w = jnp.ones((4, 4))

    def model(w, x):
        x = jaxnn.tap(x @ w, "first")
        x = jax.lax.cond(x.sum() > 0, lambda x: jaxnn.tap(x @ w @ w, "inside"), lambda x: x, x)
        return jaxnn.tap(x @ w, "last")

    rows = jaxnn.summary(jax.tree_util.Partial(model, w), jnp.ones(4))
    assert [row.name for row in rows] == ["first", "last"]
    assert [row.parameters for row in rows] == [16, 0]
    assert rows[1].operations >= 3 * 32


def test_it_adds_the_rows_of_tapped_operations():
    network = jaxnn.init(jax.random.key(0), (20, 7, 3))
    rows = jaxnn.summary(jaxnn.tap_operations(network, "dot_general"), jnp.ones(20))
    assert [row.name for row in rows][:2] == ["dot_general@0", "hidden_0_in"]
    assert rows[0].operations == 2 * 20 * 7
    whole = jaxnn.summary(network, jnp.ones(20))
    assert sum(row.operations for row in rows) == sum(row.operations for row in whole)


def test_it_prints_a_table():
    text = str(jaxnn.summary(jaxnn.init(jax.random.key(0), (784, 30, 10)), jnp.ones(784)))
    assert "hidden_0_in" in text
    assert "23,550" in text
    assert "98.6%" in text
    assert "23,860" in text


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="`model` must be callable"):
        jaxnn.summary(3, jnp.ones(3))


class Returned(nn.Module):
    """Its array is its result."""

    @nn.compact
    def __call__(self, n):
        return self.param("positions", nn.initializers.ones, (n, 4))


class WithPositions(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x + Returned()(len(x)))


def test_arrays_count_where_they_are_first_used_whatever_lies_between():
    module, x = WithPositions(), jnp.ones((5, 4))
    model = jaxnn.from_linen(module, module.init(jax.random.key(0), x))
    assert sum(row.parameters for row in jaxnn.summary(model, x)) == 20 + 10
    cast = jax.jit(lambda p: jax.tree.map(lambda a: a.astype(jnp.bfloat16), p))
    model = jax.tree_util.Partial(lambda w, x: x @ jaxnn.tap(jax.checkpoint(jnp.transpose)(cast(w)), "w"))
    (first, last) = jaxnn.summary(jax.tree_util.Partial(model.func, jnp.ones((3, 4))), x)
    assert (first.parameters, last.parameters) == (0, 12)


@pytest.mark.parametrize(
    ("function", "shape", "operations"),
    [
        (lambda x: jnp.take(x, 3, axis=0), (500, 8), None),  # of the index alone
        (lambda x: jnp.concatenate([x[:1], x[::-1]]), (500,), 0),
        (lambda x: jax.lax.reduce(x, 0.0, lambda a, b: a + 2 * b, (0,)), (1000,), 2000),
        (lambda x: jax.ops.segment_sum(x, np.arange(1000) % 10, 10), (1000,), 1000),
        (lambda x: jax.lax.conv_transpose(x, jnp.ones((2, 2, 3, 4)), (2, 2), "SAME"), (1, 8, 8, 3), 6144),
        (lambda x: jax.lax.while_loop(lambda c: c[0] < 9, jnp.tanh, x), (7,), None),
    ],
)
def test_operations_are_arithmetic(function, shape, operations):
    rows = jaxnn.summary(function, jnp.ones(shape))
    found = sum(row.operations for row in rows)
    if operations is None:
        assert found <= 10
    elif operations == 1000:  # and its indices
        assert found >= 1000
    else:
        assert found == operations


def test_names_are_no_markup():
    text = str(jaxnn.summary(lambda x: jaxnn.tap(jaxnn.tap(x + 1, "a[/b]"), "[red]a:x:"), 1.0))
    assert "a[/b]" in text
    assert "[red]a:x:" in text
