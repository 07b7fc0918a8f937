"""Training: exact gradients, every example once an epoch, and an error where it diverges."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.tree_util import Partial

import jaxnn
from jaxnn._model import combine, partition
from jaxnn._sharding import model_sharding
from jaxnn._training import steps
from tests.conftest import in_precision
from tests.helpers import numpy_book

pytestmark = pytest.mark.optimized

_ADAM = optax.adam(0.01)
KEY = jax.random.key(0)


def blobs(count=90, classes=3):
    """Three separated clouds of points in four dimensions; targets one-hot and labels."""
    labels = np.arange(count) % classes
    rng = np.random.default_rng(5)
    points = rng.normal(size=(count, 4)) * 0.3 + 2 * np.eye(classes, 4)[labels]
    return points.astype(np.float32), np.eye(classes, dtype=np.float32)[labels], labels


def identity_network(key=0):
    return jaxnn.init(jax.random.key(key), (4, 6, 3), output_activation="identity")


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-3), (np.float64, 1e-9)])
def test_a_thousand_steps_agree_with_numpys_exact_gradient(dtype, tolerance):
    with in_precision(dtype):
        network = jaxnn.init(jax.random.key(0), (784, 200, 10), use_bias=False, dtype=dtype)
        rng = np.random.default_rng(0)
        x = rng.uniform(0.01, 1, (1000, 784)).astype(dtype)
        t = np.where(np.eye(10)[rng.integers(10, size=1000)] > 0, 0.99, 0.01).astype(dtype)
        kernels = [np.array(layer.kernel, np.float64) for layer in network.layers]
        for row, target in zip(x.astype(np.float64), t.astype(np.float64), strict=True):
            numpy_book.train_step(kernels, row[None], target[None], 0.1)
        trained, _ = jaxnn.train(network, x, t, epochs=1, batch_size=1, shuffle=False)
        for layer, kernel in zip(trained.layers, kernels, strict=True):
            assert layer.kernel.dtype == dtype
            np.testing.assert_allclose(layer.kernel, kernel, rtol=0, atol=tolerance)


def test_batches_and_the_rest_agree_with_numpy_too():
    with in_precision(np.float64):
        network = jaxnn.init(jax.random.key(0), (4, 5, 3), use_bias=False, dtype=np.float64)
        x, t, _ = blobs(23)
        x, t = x.astype(np.float64), t.astype(np.float64)
        kernels = [np.array(layer.kernel) for layer in network.layers]
        for _ in range(3):
            for start in range(0, 23, 5):  # the last batch holds 3
                numpy_book.train_step(kernels, x[start : start + 5], t[start : start + 5], 0.1)
        trained, _ = jaxnn.train(network, x, t, epochs=3, batch_size=5, shuffle=False)
        for layer, kernel in zip(trained.layers, kernels, strict=True):
            np.testing.assert_allclose(layer.kernel, kernel, rtol=0, atol=1e-14)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("batch_size", [1, 7, 10, 64])
def test_every_example_is_seen_once_an_epoch(batch_size):
    # A model of one weight whose loss is linear: with plain descent it moves by the sum of what it saw.
    model = Partial(lambda w, x: w * x, jnp.zeros(()))
    x = 2.0 ** np.arange(12)  # every subset has its own sum
    model, _ = jaxnn.train(
        model, x, np.zeros(12), epochs=1, batch_size=1 if batch_size == 1 else batch_size,
        key=jax.random.key(0), optimizer=optax.sgd(1.0),
        loss=lambda y, t: y - t,
    )  # fmt: skip
    w = float(model.args[0])
    if batch_size == 1:
        assert w == -x.sum()
    elif batch_size >= 12:
        assert w == pytest.approx(-x.mean())
    else:
        # Full batches count a `batch_size`-th each, the rest as its own mean.
        weights = {1 / batch_size, 1 / (12 % batch_size)}
        total = -sum(x)
        assert total * max(weights) <= w <= total * min(weights)


def test_shuffling_draws_a_new_order_from_the_key():
    x, t, _ = blobs()
    first, _ = jaxnn.train(identity_network(), x, t, epochs=2, batch_size=1, key=jax.random.key(1))
    again, _ = jaxnn.train(identity_network(), x, t, epochs=2, batch_size=1, key=jax.random.key(1))
    other, _ = jaxnn.train(identity_network(), x, t, epochs=2, batch_size=1, key=jax.random.key(2))
    for a, b, c in zip(*map(jax.tree.leaves, (first, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_the_callers_arrays_survive_and_numpy_ones_are_taken():
    x, t, _ = blobs()
    network = identity_network()
    before = [np.array(leaf) for leaf in jax.tree.leaves(network)]
    in_numpy = jax.tree.map(np.asarray, network)
    trained, _ = jaxnn.train(network, x, t, epochs=1, batch_size=9, shuffle=False)
    also, _ = jaxnn.train(in_numpy, x, t, epochs=1, batch_size=9, shuffle=False)
    for leaf, old in zip(jax.tree.leaves(network), before, strict=True):
        np.testing.assert_array_equal(leaf, old)
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(also), strict=True):
        np.testing.assert_array_equal(a, b)


def test_history_counts_what_it_says():
    x, t, labels = blobs()
    network = identity_network()
    _, history = jaxnn.train(
        network, x, t, epochs=1, batch_size=90, shuffle=False, validation=(x[:10], labels[:10]),
        loss=jaxnn.losses.cross_entropy,
    )  # fmt: skip
    answers = jaxnn.query(network, x)  # one batch of all: judged before the only step
    assert history.loss.shape == history.validation_loss.shape == (1,)
    np.testing.assert_allclose(history.loss[0], optax.softmax_cross_entropy(answers, t).mean(), rtol=1e-5)
    assert float(history.accuracy[0]) == pytest.approx(np.mean(np.argmax(answers, -1) == labels))


def test_validation_is_judged_after_the_epoch_over_all_its_examples():
    x, t, labels = blobs(700)  # more than one chunk of the evaluation, and not a multiple of it
    trained, history = jaxnn.train(
        identity_network(), x, labels, epochs=3, batch_size=10, key=jax.random.key(0),
        optimizer=_ADAM, loss=jaxnn.losses.cross_entropy, validation=(x, labels),
    )  # fmt: skip
    answers = jaxnn.query(trained, x)
    np.testing.assert_allclose(
        history.validation_loss[-1], optax.softmax_cross_entropy(answers, t).mean(), rtol=1e-5
    )
    right = np.mean(np.argmax(answers, -1) == labels)
    assert float(history.validation_accuracy[-1]) == pytest.approx(right)
    assert right > 0.95
    assert history.loss[-1] < history.loss[0]


def test_accuracy_has_no_meaning_for_one_output():
    model = jaxnn.init(jax.random.key(0), (4, 1))
    x, _, labels = blobs()
    _, history = jaxnn.train(model, x, labels[:, None] / 2, epochs=2, batch_size=9, shuffle=False)
    assert history.accuracy is None
    assert np.all(np.isfinite(history.loss))


class _Classifier(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(16)(x["points"])))


@pytest.mark.long
def test_a_flax_module_with_a_dict_for_its_input_is_trained_as_a_partial():
    x, _, labels = blobs()
    module = _Classifier()
    model = Partial(module.apply, module.init(jax.random.key(0), {"points": x[0]}))
    model, history = jaxnn.train(
        model, {"points": x}, labels, epochs=20, batch_size=8, key=jax.random.key(1),
        optimizer=_ADAM, loss=jaxnn.losses.cross_entropy,
    )  # fmt: skip
    assert history.accuracy[-1] > 0.95
    assert isinstance(model, Partial)
    assert model({"points": x[0]}).shape == (3,)


def test_integer_leaves_ride_along_untrained():
    model = Partial(lambda p, x: p["scale"] * x + p["shift"], {"scale": jnp.ones(3), "shift": jnp.arange(3)})
    x, t, _ = blobs()
    trained, _ = jaxnn.train(model, x[:, :3], t, epochs=1, batch_size=9, shuffle=False)
    np.testing.assert_array_equal(trained.args[0]["shift"], jnp.arange(3))
    assert trained.args[0]["shift"].dtype == jnp.int32
    assert not np.allclose(trained.args[0]["scale"], 1)


def test_weight_decay_is_a_part_of_the_optimizer():
    x, t, _ = blobs()
    decay = optax.chain(
        optax.add_decayed_weights(0.1, mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p)),
        optax.sgd(0.1),
    )
    zero = jax.tree.map(jnp.zeros_like, jnp.asarray(t))
    network = jaxnn.init(
        jax.random.key(0), (4, 3), output_activation="identity", bias_init=jax.nn.initializers.ones
    )
    # A loss without a gradient leaves only the decay, and the mask leaves only the kernels.
    trained, _ = jaxnn.train(
        network, x, zero, epochs=1, batch_size=90, shuffle=False, optimizer=decay,
        loss=lambda y, t: 0 * jnp.sum(y),
    )  # fmt: skip
    np.testing.assert_allclose(trained.layers[0].kernel, 0.99 * network.layers[0].kernel, rtol=1e-6)
    np.testing.assert_array_equal(trained.layers[0].bias, 1)


def test_divergence_names_the_epoch_and_gives_back_the_last_good_model():
    x, t, _ = blobs()
    settings = {"batch_size": 9, "shuffle": False, "optimizer": optax.sgd(3.0)}
    with pytest.raises(jaxnn.TrainingDivergedError, match=r"diverged in epoch (\d+)") as caught:
        jaxnn.train(identity_network(), x, t, epochs=50, **settings)
    error = caught.value
    assert 2 <= error.epoch < 50
    assert f"epoch {error.epoch}:" in str(error)
    assert error.history.loss.shape == (error.epoch - 1,)
    assert np.all(np.isfinite(error.history.loss))
    good, _ = jaxnn.train(identity_network(), x, t, epochs=error.epoch - 1, **settings)
    for a, b in zip(jax.tree.leaves(error.model), jax.tree.leaves(good), strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_array_equal(a, b)


def test_divergence_in_the_first_epoch_gives_back_the_initial_model():
    x, t, _ = blobs()
    network = identity_network()
    with pytest.raises(jaxnn.TrainingDivergedError, match="epoch 1") as caught:
        jaxnn.train(network, x, t, epochs=5, batch_size=1, shuffle=False, optimizer=optax.sgd(1e9))
    for a, b in zip(jax.tree.leaves(caught.value.model), jax.tree.leaves(network), strict=True):
        np.testing.assert_array_equal(a, b)
    assert caught.value.history.loss.shape == (0,)


@pytest.mark.long
def test_under_vmap_the_model_that_diverges_keeps_its_last_good_state():
    x, t, _ = blobs()
    both = jax.tree.map(lambda a: jnp.stack([a, 1e30 * a]), identity_network())
    trained, history = jax.vmap(lambda n: jaxnn.train(n, x, t, epochs=2, batch_size=9, shuffle=False))(both)
    alone, _ = jaxnn.train(identity_network(), x, t, epochs=2, batch_size=9, shuffle=False)
    for stacked, single, start in zip(*map(jax.tree.leaves, (trained, alone, both)), strict=True):
        np.testing.assert_allclose(stacked[0], single, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(stacked[1], start[1])
    assert np.all(np.isfinite(history.loss[0]))
    assert not np.any(np.isfinite(history.loss[1]))


def test_under_jit_divergence_shows_in_the_history_and_nothing_moves_after_it():
    network = jaxnn.init(jax.random.key(0), (1, 1), activation="identity", use_bias=False)
    one = jnp.ones((1, 1))
    # The first step leaves float32, though the loss before it is finite.
    optimizer = optax.chain(optax.scale(1e30), optax.sgd(1e30))
    train = jax.jit(
        lambda n: jaxnn.train(n, one, one, epochs=3, batch_size=1, shuffle=False, optimizer=optimizer)
    )
    trained, history = train(network)
    assert np.all(np.isnan(history.loss))
    np.testing.assert_array_equal(trained.layers[0].kernel, network.layers[0].kernel)


def test_the_error_of_divergence_travels_between_processes():
    import pickle

    error = jaxnn.TrainingDivergedError(3, np.ones(2), jaxnn.History(np.zeros(2)))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.epoch, str(again)) == (3, str(error))


def test_targets_may_be_a_pytree_and_data_plain_lists():
    x, t, _ = blobs()
    model = Partial(lambda w, x: x @ w, jnp.ones((4, 3)))
    settings = {"epochs": 1, "batch_size": 9, "shuffle": False}
    loss = lambda y, t: jnp.sum((y - t["a"]) ** 2) / 2  # noqa: E731
    as_tree, history = jaxnn.train(model, x, {"a": t}, loss=loss, **settings)
    as_lists, _ = jaxnn.train(model, x.tolist(), t.tolist(), **settings)
    assert history.accuracy is None
    np.testing.assert_allclose(as_tree.args[0], as_lists.args[0], rtol=1e-6)


@pytest.mark.long
def test_optimizers_that_ask_for_the_loss_get_it():
    x, t, _ = blobs()
    network = jaxnn.init(jax.random.key(0), (4, 3), output_activation="identity")
    settings = {"epochs": 15, "batch_size": 90, "shuffle": False}
    _, plain = jaxnn.train(network, x, t, **settings)
    _, quick = jaxnn.train(network, x, t, optimizer=optax.lbfgs(), **settings)
    best = np.linalg.lstsq(np.c_[x, np.ones(90)], t, rcond=None)[1].sum() / 2 / 90
    assert quick.loss[-1] < plain.loss[-1]
    np.testing.assert_allclose(quick.loss[-1], best, rtol=1e-2)


@pytest.mark.long
def test_learning_rates_are_swept_by_vmap():
    x, t, _ = blobs()

    def last_loss(rate):
        optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
        settings = {"epochs": 2, "batch_size": 9, "shuffle": False, "optimizer": optimizer}
        return jaxnn.train(identity_network(), x, t, **settings)[1].loss[-1]

    rates = jnp.array([0.01, 0.1])
    np.testing.assert_allclose(jax.vmap(last_loss)(rates), [last_loss(r) for r in rates], rtol=1e-5)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.adam(0.01)], ids=["sgd", "adam"])
def test_an_epoch_on_a_mesh_compiles_once(optimizer):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x, t, _ = blobs(32)
    before = steps.advance._cache_size()
    jaxnn.train(identity_network(), x, t, epochs=3, batch_size=8, key=KEY, mesh=mesh, optimizer=optimizer)
    assert steps.advance._cache_size() == before + 1


@pytest.mark.long
def test_data_on_an_explicit_mesh_is_taken():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    x, t, _ = blobs(64)
    spread = jax.device_put((x, t), jax.NamedSharding(mesh, jax.P("d")))
    settings = {"epochs": 2, "batch_size": 8, "key": KEY}
    many, _ = jaxnn.train(identity_network(), *spread, **settings)
    one, _ = jaxnn.train(identity_network(), x, t, **settings)
    for a, b in zip(*map(jax.tree.leaves, (many, one)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_second_network_of_the_same_sizes_compiles_nothing(caplog):
    x, t, _ = blobs()
    settings = {"epochs": 3, "batch_size": 7, "key": jax.random.key(0)}
    jaxnn.train(identity_network(0), x, t, **settings)
    other = identity_network(1)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        jaxnn.train(other, x, t, **settings)
    assert not [r.message for r in caplog.records if "_epoch" in r.message]


@pytest.mark.long
def test_grad_goes_through_training():
    """The gradient of the last loss with respect to the initial weights, by finite differences."""
    x, t, _ = blobs(12)
    with in_precision(np.float64):
        network = jaxnn.init(jax.random.key(0), (4, 2, 3), dtype=np.float64)

        def last_loss(kernel):
            layers = (network.layers[0].replace(kernel=kernel), network.layers[1])
            start = network.replace(layers=layers)
            _, history = jaxnn.train(
                start, x.astype(float), t.astype(float), epochs=2, batch_size=5, shuffle=False
            )
            return history.loss[-1]

        jax.test_util.check_grads(
            last_loss, (network.layers[0].kernel,), order=1, modes=["rev"], atol=1e-6, rtol=1e-5
        )


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("axes", [(8,), (4, 2)])
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_a_mesh_gives_the_steps_of_one_device(axes, kind):
    names = ("data", "model")[: len(axes)]
    types = (jax.sharding.AxisType[kind],) * len(axes)
    mesh = jax.make_mesh(axes, names, axis_types=types)
    x, t, _ = blobs(45)  # the last batch, of 5, does not divide
    settings = {"epochs": 3, "batch_size": 8, "key": jax.random.key(0)}
    one, history = jaxnn.train(identity_network(), x, t, validation=(x, t), **settings)
    many, spread = jaxnn.train(identity_network(), x, t, validation=(x, t), mesh=mesh, **settings)
    for a, b in zip(jax.tree.leaves((one, history)), jax.tree.leaves((many, spread)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert len(jax.tree.leaves(many)[0].sharding.device_set) == 8


def _compiled_steps(mesh):
    """The program of four steps, each on 16 examples, as it is compiled for a mesh."""
    x, t, _ = blobs(64)
    trainable, rest = partition(identity_network())
    optimizer = optax.sgd(0.1)
    state = steps.State(trainable, optimizer.init(trainable), jnp.array(True))
    state = jax.device_put(state, model_sharding(state, mesh))
    data = jax.device_put((jnp.asarray(x), jnp.asarray(t)), jax.sharding.NamedSharding(mesh, jax.P()))
    rebuild = Partial(combine, rest=rest)
    return steps.advance.lower(
        state, None, rebuild, data, jnp.arange(64).reshape(4, 16), loss=jaxnn.losses.squared_error,
        optimizer=optimizer, mesh=mesh,
    ).compile().as_text()  # fmt: skip


def _collectives(text):
    kinds = r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
    return set(re.findall(kinds, text))


def test_the_devices_of_a_mesh_share_the_work():
    """In the compiled epoch each device multiplies its part of the batch, and gradients are summed."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    text = _compiled_steps(mesh)
    assert _collectives(text) == {"all-reduce"}
    assert "f32[2,4]" in text  # 16 examples over 8 devices, not f32[16,4]
    assert "f32[16,4]" not in text


@pytest.mark.long
def test_on_two_axes_the_parameters_are_divided_along_the_second():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    x, t, _ = blobs(64)
    network, _ = jaxnn.train(
        identity_network(), x, t, epochs=1, batch_size=16, key=KEY, mesh=mesh, optimizer=_ADAM
    )
    # (4, 6) by its 6; (6,) by its 6; (6, 3) by its 6; (3,) not at all.
    shards = [leaf.addressable_shards[0].data.shape for leaf in jax.tree.leaves(network)]
    assert shards == [(4, 3), (3,), (3, 3), (3,)]
    text = _compiled_steps(mesh)
    assert _collectives(text) == {"all-reduce"}
    assert "f32[4,4]" in text  # 16 examples over 4 devices


def test_what_the_optimizer_makes_is_divided_from_the_start():
    places = []
    sgd = optax.sgd(0.1)

    def init(params):
        places.extend(leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(params))
        return sgd.init(params)

    mesh = jax.make_mesh((4, 2), ("data", "model"))
    optimizer = optax.GradientTransformation(init, sgd.update)
    x, t, _ = blobs(16)
    jaxnn.train(identity_network(), x, t, epochs=1, batch_size=16, key=KEY, mesh=mesh, optimizer=optimizer)
    assert places == [(4, 3), (3,), (3, 3), (3,)]


@pytest.mark.long
def test_examples_may_hold_random_keys():
    def noisy(kernel, x):
        return x["x"] @ kernel + 0.1 * jax.random.normal(x["key"], (3,))

    x, t, _ = blobs(16)
    settings = {"epochs": 1, "batch_size": 16, "shuffle": False}
    with jax.debug_key_reuse(False):
        inputs = {"x": x, "key": jax.random.split(KEY, 16)}
        _, history = jaxnn.train(Partial(noisy, jnp.ones((4, 3))), inputs, t, **settings)
        answers = jax.vmap(Partial(noisy, jnp.ones((4, 3))))(inputs)
    expected = jax.vmap(jaxnn.losses.squared_error)(answers, t).mean()
    np.testing.assert_allclose(history.loss[0], expected, rtol=1e-6)


def test_what_is_no_array_is_not_trained_on_a_mesh_either():
    model = Partial(lambda p, x: p["scale"] * (x @ p["w"]), {"w": jnp.ones((4, 3)), "scale": 2.5})
    mesh = jax.make_mesh((8,), ("data",))
    settings = {"epochs": 2, "batch_size": 8, "key": KEY}
    x, t, _ = blobs(16)
    one, _ = jaxnn.train(model, x, t, **settings)
    many, _ = jaxnn.train(model, x, t, mesh=mesh, **settings)
    assert float(many.args[0]["scale"]) == one.args[0]["scale"] == 2.5
    np.testing.assert_allclose(many.args[0]["w"], one.args[0]["w"], atol=1e-5)


class _Loader:
    """Batches in another order each time that they are gone through."""

    def __init__(self):
        self.times = 0

    def __iter__(self):
        self.times += 1
        yield from _pairs(np.random.default_rng(self.times).permutation(40))


def _pairs(rows):
    x, t, _ = blobs(40)
    return [(x[rows[i : i + 8]], t[rows[i : i + 8]]) for i in range(0, 40, 8)]


def test_batches_are_gone_through_once_an_epoch_and_none_is_lost():
    loader = _Loader()
    found, _ = jaxnn.train(identity_network(), loader, epochs=2)
    assert loader.times == 2
    expected = identity_network()
    for epoch in (1, 2):
        order = np.random.default_rng(epoch).permutation(40)
        expected, _ = jaxnn.train(expected, _pairs(order), epochs=1)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_array_equal(a, b)


class _OneBuffer:
    """Refills the same arrays with each batch, as a loader that reads into memory of its own does."""

    def __iter__(self):
        x, labels = np.empty((10, 4), np.float32), np.empty(10, np.int32)
        for start in range(0, 90, 10):
            x[:], labels[:] = (part[start : start + 10] for part in blobs()[::2])
            yield x, labels


def test_a_loader_may_refill_its_arrays():
    x, _, labels = blobs()
    copies = [(x[start : start + 10], labels[start : start + 10]) for start in range(0, 90, 10)]
    options = {"epochs": 2, "loss": jaxnn.losses.cross_entropy}
    expected, _ = jaxnn.train(identity_network(), copies, **options)
    for _ in range(5):
        model, _ = jaxnn.train(identity_network(), _OneBuffer(), **options)
        jax.tree.map(np.testing.assert_array_equal, model, expected)


@pytest.mark.long
def test_batches_on_an_explicit_mesh_are_taken():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    pairs = _pairs(np.arange(40))
    spread = [jax.device_put(pair, jax.NamedSharding(mesh, jax.P("d"))) for pair in pairs]
    one, _ = jaxnn.train(identity_network(), pairs, epochs=2)
    for given in (None, mesh):
        many, _ = jaxnn.train(identity_network(), spread, epochs=2, mesh=given)
        for a, b in zip(*map(jax.tree.leaves, (many, one)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "error", "match"),
    [
        (
            (np.ones((0, 4)), np.ones((0, 3))),
            ValueError,
            r"`inputs of batch 3` .*at least 1.*\(0, 4\)",
        ),
        (
            (np.ones((2, 4)), np.ones((3, 3))),
            ValueError,
            r"`targets of batch 3` .*same.*\(2, 4\), \(3, 3\)",
        ),
        ((np.ones((2, 4)),), TypeError, "must give pairs.*; batch 3 is a tuple of 1"),
        (np.ones((2, 4)), TypeError, "must give pairs.*; batch 3 is a ndarray"),
    ],
)
def test_a_bad_batch_is_named_by_its_number(batch, error, match):
    with pytest.raises(error, match=match):
        jaxnn.train(identity_network(), [*_pairs(np.arange(40))[:2], batch], epochs=1)


def test_the_progress_bar_shows_epochs_and_loss(capsys):
    x, t, _ = blobs()
    jaxnn.train(identity_network(), x, t, epochs=2, batch_size=9, shuffle=False, progress=True)
    shown = capsys.readouterr().out
    assert "training" in shown
    assert "loss 0." in shown
    jaxnn.train(identity_network(), x, t, epochs=2, batch_size=9, shuffle=False)
    assert capsys.readouterr().out == ""


X, T, LABELS = blobs()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"model": 3}, TypeError, "`model` must be callable.*got int"),
        ({"model": lambda x: x}, TypeError, "`model` must be a pytree of arrays|has no floating"),
        ({"model": Partial(jnp.dot, "ab")}, TypeError, r"its leaf .* is a str"),
        ({"model": Partial(jnp.add, jnp.arange(3))}, TypeError, "no floating-point array to train"),
        ({"inputs": X[:5]}, ValueError, r"`inputs` and `targets` must hold the same number.*got \(5, .*\(90"),
        ({"inputs": X[:0], "targets": T[:0]}, ValueError, r"examples, at least 1,.*got \(0, 4\), \(0, 3\)"),
        ({"inputs": 1.0}, ValueError, r"`inputs` must have shape \(N, \.\.\.\)"),
        ({"inputs": np.where(X > 2, np.nan, X)}, ValueError, r"`inputs` must be finite; \d+ of its 360"),
        ({"targets": np.where(T > 0, np.inf, T)}, ValueError, "`targets` must be finite"),
        ({"epochs": 0}, ValueError, "`epochs` must be at least 1; got 0"),
        ({"epochs": 1.5}, TypeError, "`epochs` must be an integer; got float 1.5"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1; got 0"),
        ({"batch_size": True}, TypeError, "`batch_size` must be an integer"),
        ({"key": None}, ValueError, "`key` is needed to shuffle"),
        ({"optimizer": 0.1}, TypeError, "`optimizer` must be an Optax optimizer; got float"),
        ({"loss": "mse"}, TypeError, "`loss` must be a function"),
        ({"loss": lambda y, t: (y - t) ** 2}, ValueError, r"`loss` must give a real scalar.*of shape \(3,\)"),
        ({"loss": lambda y, t: jnp.argmax(y)}, ValueError, "`loss` must give a real scalar.*got int32"),
        ({"loss": lambda y, t: None}, TypeError, "`loss` must return an array.*got None"),
        (
            {"targets": LABELS + 1, "loss": jaxnn.losses.cross_entropy},
            ValueError,
            r"`targets` must hold labels in \[0, 3\).*from 1 to 3",
        ),
        ({"key": 0}, TypeError, "`key` must be one random key"),
        ({"mesh": "x"}, TypeError, "`mesh` must be a jax.sharding.Mesh; got str"),
        ({"mesh": Mesh(np.array(jax.devices()[0]), ())}, ValueError, "`mesh` must have at least one axis"),
        ({"inputs": None}, ValueError, "`inputs` must hold at least one array"),
        ({"validation": X}, TypeError, "`validation` must be a pair"),
        ({"validation": (X, T[:3])}, ValueError, r"`validation\[0\]` and `validation\[1\]`"),
        ({"targets": T[:, :2]}, ValueError, r"`target` must have shape \(3,\)"),
    ],
)
def test_train_refuses_bad_input(change, error, match):
    arguments = {
        "model": identity_network(), "inputs": X, "targets": T, "epochs": 1, "batch_size": 9,
        "key": KEY,
    }  # fmt: skip
    with pytest.raises(error, match=match):
        jaxnn.train(**{**arguments, **change})


@pytest.mark.parametrize(
    ("validation", "match"),
    [
        ((X[:, :3], LABELS), r"`x` must have shape \(\.\.\., 4\)"),
        ((X, T[:, :2]), r"`target` must have shape \(3,\)"),
        ((X, LABELS + 1), r"`validation\[1\]` must hold labels in \[0, 3\).*from 1 to 3"),
    ],
)
def test_a_wrong_validation_set_is_known_before_any_work(validation, match):
    idle = optax.GradientTransformation(lambda params: pytest.fail("work began"), lambda *args: None)
    with pytest.raises(ValueError, match=match):
        jaxnn.train(
            identity_network(), X, LABELS, epochs=1, batch_size=9, key=KEY, optimizer=idle,
            validation=validation, loss=jaxnn.losses.cross_entropy,
        )  # fmt: skip


def test_logits_are_asked_for_where_a_softmax_would_be_taken_twice():
    network = jaxnn.init(jax.random.key(0), (4, 3), output_activation="softmax")
    with pytest.raises(ValueError, match="takes logits, but the `model` ends in 'softmax'"):
        jaxnn.train(network, X, LABELS, epochs=1, batch_size=9, key=KEY, loss=jaxnn.losses.cross_entropy)


def test_a_batch_that_the_mesh_cannot_divide_is_refused():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of the 8 devices.*got 9"):
        jaxnn.train(identity_network(), X, T, epochs=1, batch_size=9, key=KEY, mesh=mesh)
