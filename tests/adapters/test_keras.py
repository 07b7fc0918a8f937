"""Keras' own output, every layer's output by its path, the model left as it was."""

import os
import subprocess
import sys
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn
from jaxnn import attribution
from tests.helpers.keras_models import (
    IMAGE,
    Subclassed,
    X,
    assert_close,
    cnn,
    functional,
    keras,
    layers,
    randomized,
    sequential,
    subclassed,
)
from tests.helpers.methods import read

STEPS = jax.random.normal(jax.random.key(7), (5, 4), jnp.float32)


STYLES = {
    "sequential": (sequential, X),
    "functional": (functional, {"one": X, "two": 2 * X}),
    "subclassed": (subclassed, X),
}
every_style = pytest.mark.parametrize("style", STYLES)


def of_style(style):
    make, x = STYLES[style]
    return make(), x


def batch_of(x):
    return jax.tree.map(lambda a: a[None], x)


def snapshot(model):
    """The attributes of all layers, and the values of all variables."""
    attributes = [(layer, dict(vars(layer))) for layer in model._flatten_layers()]
    return attributes, [np.asarray(v.value) for v in model.variables]


def assert_unchanged(model, before):
    attributes, values = before
    for layer, old in attributes:
        new = vars(layer)
        assert new.keys() == old.keys(), layer.name
        assert all(new[name] is old[name] for name in new), layer.name
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(variable.value, value)


@pytest.mark.long("all but the first")  # the others are compared with their names
@every_style
def test_the_output_is_that_of_keras_in_evaluation_mode(style):
    model, x = of_style(style)
    expected = jax.tree.map(lambda y: y[0], model(batch_of(x), training=False))
    adapted = jaxnn.from_keras(model)
    assert_close(adapted(x), expected)


def test_keywords_of_the_call():
    model = sequential()
    assert not np.allclose(jaxnn.from_keras(model, training=True)(X), jaxnn.from_keras(model)(X))


def test_a_sequential_names_its_layers():
    model = sequential()
    expected, h = {}, X[None]
    for layer in model.layers:
        h = layer(h, training=False)
        expected[layer.name] = h[0]
    y, values = jaxnn.capture(jaxnn.from_keras(model), X)
    assert list(values) == ["first", "norm", "drop", "last"]
    assert_close(values, expected)
    assert_close(y, expected["last"])


def test_a_functional_model_names_its_layers():
    model, x = of_style("functional")
    _, values = jaxnn.capture(jaxnn.from_keras(model), x)
    encoder = model.get_layer("encoder")
    dense = encoder.get_layer("dense")(X[None])[0]
    normed = encoder(X[None], training=False)[0]
    shared = model.get_layer("shared")
    expected = {"encoder/dense": dense, "encoder/norm": normed, "encoder": normed}
    expected |= {"shared@1": shared(normed[None])[0], "shared@2": shared(2 * X[None])[0]}
    expected["drop"] = jnp.tanh(expected["shared@1"]) + expected["shared@2"]
    expected |= {name: model.get_layer(name)(expected["drop"][None])[0] for name in ("a", "b")}
    assert_close(values, expected)


def test_a_subclassed_model_names_its_layers():
    model, x = of_style("subclassed")
    y, values = jaxnn.capture(jaxnn.from_keras(model), x)
    first = model.blocks[0](x[None], training=False)
    assert_close(values["one/dense"], first[0])
    assert_close(values["two"], model.blocks[1](first, training=False)[0])
    assert_close(values["norm"], y)
    assert set(values) >= {"one/dense", "one/drop", "one", "two/dense", "two/drop", "two", "lstm", "norm"}
    assert values["lstm/lstm_cell[0]"].shape == (2, 3)  # of each step
    np.testing.assert_allclose(values["lstm/lstm_cell[0]"][-1], values["lstm"], rtol=1e-6)


@pytest.mark.long("all but the first")
@every_style
def test_the_model_is_left_as_it_was(style):
    model, x = of_style(style)
    before = snapshot(model)
    adapted = jaxnn.from_keras(model)
    jaxnn.capture(adapted, x)
    jax.jit(lambda model, x: model(x))(adapted, x)
    jax.grad(lambda x: sum(leaf.sum() for leaf in jax.tree.leaves(adapted(x))))(x)
    assert_unchanged(model, before)
    assert jaxnn.capture(lambda x: jax.tree.map(jnp.sum, x), x)[1] == {}


def test_an_error_in_the_middle_leaves_nothing_behind():
    model, x = of_style("subclassed")
    jaxnn.from_keras(model)(x)
    model.fails = True
    adapted = jaxnn.from_keras(model)
    before = snapshot(model)
    for trace in (adapted, jax.jit(lambda x: adapted(x)), lambda x: jax.vmap(adapted)(x[None])):
        with pytest.raises(RuntimeError, match="in the middle"):
            trace(x)
    assert_unchanged(model, before)
    with pytest.raises(RuntimeError, match="in the middle"):
        jaxnn.capture(adapted, x)
    assert_unchanged(model, before)
    model.fails = False
    assert list(jaxnn.capture(jaxnn.from_keras(model), x)[1])[-1] == "norm"
    with pytest.raises(ValueError, match="`model` must be as it was when `from_keras` adapted it"):
        adapted(x)


def test_threads_do_not_disturb_each_other():
    """Neither two traces, nor the model's own calls in the middle of a trace."""
    inside, go = threading.Event(), threading.Event()

    def gate(x):
        if not inside.is_set():
            inside.set()
            assert go.wait(60)
        return x

    first = layers.Dense(4, name="first")
    model = keras.Sequential([keras.Input((4,)), first, layers.Lambda(gate, (4,), name="gate")])
    inside.clear()
    adapted, found = jaxnn.from_keras(model), []

    def work(dtype):  # JAX itself has a thread wait for the same trace in another
        found.append(list(jaxnn.capture(adapted, X.astype(dtype))[1]))

    threads = [threading.Thread(target=work, args=(dtype,)) for dtype in ("float32", "bfloat16")]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    try:
        assert "tap" not in str(jax.make_jaxpr(lambda x: first(x))(X[None]))
        threads[1].join(0.1)
        assert found == []  # both are under way
    finally:
        go.set()
        for thread in threads:
            thread.join()
    assert found == [["first", "gate"]] * 2


def test_masks_pass_the_names():
    """An embedding's mask reaches the layers behind, also out of a model within the model."""
    inner = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(7, 4, mask_zero=True, name="table")], name="inner"
    )
    tokens = keras.Input((5,), dtype="int32")
    model = randomized(keras.Model(tokens, layers.LSTM(3, name="lstm")(inner(tokens))))
    x = jnp.array([3, 1, 2, 0, 0], jnp.int32)
    y, values = jaxnn.capture(jaxnn.from_keras(model), x)
    assert_close(y, model(x[None], training=False)[0])
    assert not np.allclose(y, model(x[None].at[0, 3:].set(1), training=False)[0])
    assert values["inner/table"].shape == (5, 4)


def test_several_inputs_in_a_tuple():
    one, two = keras.Input((4,)), keras.Input((4,))
    model = randomized(keras.Model([one, two], [layers.Add(name="sum")([one, two]), layers.Dense(2)(two)]))
    found = jaxnn.from_keras(model)((X, 2 * X))
    expected = model([X[None], 2 * X[None]], training=False)
    assert_close(found, [y[0] for y in expected])


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.TimeDistributed(layers.Dense(3)),
        lambda: layers.Bidirectional(layers.GRU(3)),
        lambda: layers.MultiHeadAttention(2, 3),
        lambda: layers.Conv1D(3, 2),
        lambda: layers.LayerNormalization(),
        lambda: layers.Lambda(lambda x: x**2),
    ],
)
def test_other_layers(make):
    x = keras.Input((5, 4))
    layer = make()
    model = keras.Model(x, layer(x, x) if isinstance(layer, layers.MultiHeadAttention) else layer(x))
    y, values = jaxnn.capture(jaxnn.from_keras(model), STEPS)
    assert_close(y, model(STEPS[None], training=False)[0])
    assert_close(values[layer.name], y)


def in_int8():
    model = sequential()
    with pytest.warns(UserWarning, match="does not have a `quantize` method"):  # of layers without weights
        model.quantize("int8")
    return model


def in_bfloat16():
    options = {"dtype": "mixed_bfloat16"}
    last = layers.Dense(3, dtype="float32", name="last")
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, name="first", **options), last])


def with_remat():
    with keras.RematScope(mode="full"):
        return keras.Sequential(
            [keras.Input((4,)), layers.Dense(5, name="first"), layers.Dense(3, name="last")]
        )


# `quantize` reads variables by `Variable.__array__`, which has no parameter `copy`, as NumPy 2 requires.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.long("all but the first")
@pytest.mark.parametrize("make", [in_bfloat16, in_int8, with_remat])
def test_policies_of_a_model(make):
    model = make()
    y, values = jaxnn.capture(jaxnn.from_keras(model), X)
    np.testing.assert_allclose(y, model(X[None], training=False)[0], rtol=1e-6)
    assert values["first"].dtype == (jnp.bfloat16 if make is in_bfloat16 else jnp.float32)
    np.testing.assert_array_equal(values["last"], y)


class Noise(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def test_a_layer_that_draws_has_the_same_numbers_at_each_call():
    model = keras.Sequential([keras.Input((4,)), Noise()])
    adapted = jaxnn.from_keras(model)
    expected, _ = model.stateless_call([], [v.value for v in model.non_trainable_variables], X[None])
    for _ in range(2):
        np.testing.assert_allclose(adapted(X), expected[0], rtol=1e-6)
    assert not np.allclose(expected[0], X)


def test_training_lowers_the_loss_and_leaves_the_other_variables():
    model = sequential()
    adapted = jaxnn.from_keras(model)
    before = snapshot(model)
    batch = jax.random.normal(jax.random.key(3), (32, 4))
    after, history = jaxnn.train(
        adapted, batch, jnp.zeros((32, 3)), epochs=4, batch_size=8, key=jax.random.key(1),
        optimizer=optax.adam(0.05),
    )  # fmt: skip
    assert history.loss[-1] < 0.5 * history.loss[0]
    jax.tree.map(np.testing.assert_array_equal, after.frozen.value, adapted.frozen.value)
    assert len(after.frozen.value) == 3  # two averages and the state of the generator
    assert all(np.any(a != b) for a, b in zip(after.params, adapted.params, strict=True))
    assert_unchanged(model, before)
    for variable, value in zip(model.trainable_variables, after.params, strict=True):
        variable.assign(value)
    assert_close(model(X[None], training=False)[0], after(X))


def test_transformations():
    model = sequential()
    adapted = jaxnn.from_keras(model)
    batch = jax.random.normal(jax.random.key(3), (6, 4))
    assert_close(jax.vmap(adapted)(batch), model(batch, training=False))
    np.testing.assert_allclose(read(adapted, X, "first")[0], adapted(X), rtol=1e-6)
    gradients = jax.grad(lambda x: adapted(x)[1])(X)
    expected = jax.grad(lambda x: model(x[None], training=False)[0, 1])(X)
    np.testing.assert_allclose(gradients, expected, rtol=1e-6)
    models = [adapted, jax.tree.map(lambda a: a + a.dtype.type(1), adapted)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    found = jax.vmap(lambda model, x: model(x), (0, None))(stacked, X)
    np.testing.assert_allclose(found, [each(X) for each in models], rtol=1e-5)
    cut = jaxnn.intervene(adapted, {"first": jnp.ones(5)})
    assert attribution.saliency(cut, X, 0).tolist() == [0] * 4


def test_the_model_can_be_saved(tmp_path):
    model = sequential()
    jaxnn.save(tmp_path / "model", jaxnn.from_keras(model))
    like = jaxnn.from_keras(randomized(model, 1))
    again = jaxnn.load(tmp_path / "model", like=like)
    assert not np.allclose(again(X), like(X))
    assert_close(again(X), jaxnn.from_keras(randomized(model))(X))


class Twin(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3, name="dense")(x.reshape(x.shape[0], -1))


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    "method", ["saliency", "integrated_gradients", "deep_lift", "lrp", "input_x_gradient"]
)
def test_equal_weights_in_linen_have_equal_attributions(method):
    model = cnn()
    conv, norm, dense = (model.get_layer(name) for name in ("conv", "norm", "dense"))
    params = {
        name: {"kernel": each.kernel.value, "bias": each.bias.value}
        for name, each in (("conv", conv), ("dense", dense))
    }
    params["norm"] = {"scale": norm.gamma.value, "bias": norm.beta.value}
    statistics = {"norm": {"mean": norm.moving_mean.value, "var": norm.moving_variance.value}}
    twin = jaxnn.from_linen(Twin(), {"params": params, "batch_stats": statistics}, batched=True)
    function = getattr(attribution, method)
    one, other = (function(each, IMAGE, 1) for each in (jaxnn.from_keras(model), twin))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def unbuilt_part():
    class Late(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.never = layers.Dense(2, name="one"), layers.Dense(2, name="never")

        def call(self, x):
            return self.one(x)

    model = Late()
    with pytest.warns(UserWarning, match="it looks like it has unbuilt state"):
        model(np.ones((1, 4)))
    return model


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxnn.from_keras(lambda x: x), TypeError, "`model` must be a Keras model; got function"),
        (lambda: jaxnn.from_keras(Subclassed), TypeError, "the class Subclassed, not made yet"),
        (lambda: jaxnn.from_keras(Subclassed()), ValueError, "`model` must be built, but it is not"),
        (lambda: jaxnn.from_keras(keras.Sequential([layers.Dense(2)])), ValueError, "`model` must be built"),
        (lambda: jaxnn.from_keras(unbuilt_part()), ValueError, "but its layer 'never' is not"),
        (lambda: jaxnn.from_keras(sequential(), mask={1}), TypeError, "`kwargs` must hold arrays"),
        (
            lambda: jaxnn.from_keras(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x[0])]))(X),
            ValueError,
            r"`model` must be one whose output has the batch axis.* shape \(4,\)",
        ),
        (lambda: attribution.saliency(sequential(), X, 1), TypeError, r"jaxnn.from_keras\(model\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_another_backend_is_an_error(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="got the backend torch: set the environment variable KERAS_BACKEND"):
        jaxnn.from_keras(sequential())


def test_a_backend_that_is_not_installed_is_an_error(tmp_path):
    code = "import jaxnn\ntry: jaxnn.from_keras(None)\nexcept ImportError as error: print(error)"
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    assert "it looks for tensorflow: set the environment variable KERAS_BACKEND" in done.stdout
