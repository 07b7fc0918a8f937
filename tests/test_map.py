"""A function over a data set: any batch size, any number of devices, one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxnn

X = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float32)
LABELS = np.arange(37) % 3
NETWORK = jaxnn.init(jax.random.key(0), (5, 4, 3))


def slopes(network, x, label):
    return {"slopes": jaxnn.attribution.saliency(network, x, label), "answer": jnp.argmax(network(x))}


FN = Partial(slopes, NETWORK)


def assert_same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), one, other)


def test_it_equals_a_loop_for_any_batch_size():
    looped = [FN(x, label) for x, label in zip(X, LABELS, strict=True)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *looped)
    for batch_size in (1, 8, 37, 100):
        answers = jaxnn.map_examples(FN, X, LABELS, batch_size=batch_size)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(answers))
        assert_same(answers, expected)


def test_data_may_lie_on_the_device_in_trees_or_in_a_file(tmp_path):
    fn = lambda tree, key: tree["x"] + tree["label"] + jax.random.normal(key)  # noqa: E731
    keys = jax.random.split(jax.random.key(1), 37)
    expected = jax.vmap(fn)({"x": X, "label": LABELS}, keys)
    np.save(tmp_path / "x.npy", X)
    for x in (jnp.asarray(X), np.load(tmp_path / "x.npy", mmap_mode="r")):
        found = jaxnn.map_examples(fn, {"x": x, "label": LABELS}, keys, batch_size=10)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_eight_devices_equal_one(kind):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    used = []

    def fn(network, x):
        jax.debug.inspect_array_sharding(x, callback=used.append)
        return network(x)

    spread = jaxnn.map_examples(Partial(fn, NETWORK), X, batch_size=16, mesh=mesh)
    assert_same(spread, jaxnn.map_examples(NETWORK, X, batch_size=16))
    assert len(used[0].device_set) == 8
    assert not used[0].is_fully_replicated


def test_it_compiles_once(caplog):
    fn = lambda x: jnp.tanh(x).sum()  # noqa: E731
    other = jax.tree.map(lambda leaf: leaf + 1, NETWORK)
    jaxnn.map_examples(fn, X, batch_size=8)
    jaxnn.map_examples(FN, X, LABELS, batch_size=8)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        jaxnn.map_examples(fn, X[:11], batch_size=8)
        jaxnn.map_examples(Partial(slopes, other), X, LABELS, batch_size=8)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


def test_it_is_traced_once_for_all_batches():
    traces = []

    def fn(x):
        traces.append(x)
        return x

    jaxnn.map_examples(fn, X, batch_size=4)
    assert len(traces) == 1


def test_it_composes_under_transformations():
    def total(network, x):
        return jaxnn.map_examples(network, x, batch_size=8).sum()

    expected = jax.grad(lambda network, x: jax.vmap(network)(x).sum())(NETWORK, X)
    assert_same(jax.jit(jax.grad(total))(NETWORK, X), expected)
    assert_same(jax.jit(lambda: total(NETWORK, X))(), total(NETWORK, X))


def test_it_draws_a_bar_where_asked(capsys):
    jaxnn.map_examples(NETWORK, X, batch_size=8, progress=True)
    assert "examples" in capsys.readouterr().out
    jaxnn.map_examples(NETWORK, X, batch_size=8)
    assert capsys.readouterr().out == ""


MESH = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.mark.parametrize(
    ("fn", "arrays", "change", "error", "match"),
    [
        (3, (X,), {}, TypeError, "`fn` must be callable.*got int"),
        (Partial(jnp.add, "a"), (X,), {}, TypeError, "`fn` must be a pytree of arrays"),
        (FN, (X, LABELS[:5]), {}, ValueError, r"same number of examples.*got \(37, 5\), \(5,\)"),
        (NETWORK, (X[:0],), {}, ValueError, r"at least 1, along a first axis; got \(0, 5\)"),
        (NETWORK, (), {}, ValueError, "`arrays` must hold at least one array"),
        (NETWORK, (1.0,), {}, ValueError, r"`arrays\[0\]` must have shape \(N, "),
        (NETWORK, (np.array(["a"]),), {}, TypeError, r"`arrays\[0\]` must be an array of numbers"),
        (NETWORK, (X,), {"batch_size": 0}, ValueError, "`batch_size` must be at least 1; got 0"),
        (NETWORK, (X,), {"batch_size": 2.5}, TypeError, "`batch_size` must be an integer"),
        (NETWORK, (X,), {"batch_size": 9, "mesh": MESH}, ValueError, "multiple of the 8 devices"),
        (NETWORK, (X,), {"mesh": "x"}, TypeError, "`mesh` must be a jax.sharding.Mesh; got str"),
    ],
)
def test_it_refuses_bad_input(fn, arrays, change, error, match):
    with pytest.raises(error, match=match):
        jaxnn.map_examples(fn, *arrays, **{"batch_size": 8, **change})


def test_it_refuses_a_mesh_under_tracing():
    with pytest.raises(ValueError, match="`mesh` must be None under tracing"):
        jax.jit(lambda x: jaxnn.map_examples(NETWORK, x, batch_size=8, mesh=MESH))(X)


def test_on_two_axes_the_arrays_of_the_function_are_divided_along_the_second():
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    used = []

    def fn(network, x):
        jax.debug.inspect_array_sharding(network.layers[0].kernel, callback=used.append)
        return network(x)

    spread = jaxnn.map_examples(Partial(fn, NETWORK), X, batch_size=16, mesh=mesh)
    assert_same(spread, jaxnn.map_examples(NETWORK, X, batch_size=16))
    assert used[0].shard_shape((5, 4)) == (5, 2)
