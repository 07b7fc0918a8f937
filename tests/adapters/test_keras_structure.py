"""Which Keras models share a compilation, and what a change of a model does to its adapted one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from tests.helpers.keras_models import (
    IMAGE,
    X,
    assert_close,
    cnn,
    keras,
    layers,
    randomized,
    sequential,
    subclassed,
)
from tests.helpers.methods import read


def with_weights(make, seed):
    keras.utils.clear_session(free_memory=False)  # names begin again
    return randomized(make(), seed)


def custom():
    class Scaled(layers.Layer):
        def __init__(self, scale=2.0, **options):
            super().__init__(**options)
            self.scale = scale

        def call(self, x):
            return self.scale * x

        def get_config(self):
            return super().get_config() | {"scale": self.scale}

    return lambda scale: keras.Sequential([keras.Input((4,)), Scaled(scale), layers.Dense(3)])


SCALED = custom()


@pytest.mark.without("check_tracer_leaks", "it turns off caches")
@pytest.mark.parametrize("make", [sequential, lambda: SCALED(2.0), cnn], ids=["plain", "get_config", "cnn"])
def test_new_weights_compile_nothing(make, caplog):
    models = [jaxnn.from_keras(with_weights(make, seed)) for seed in range(2)]
    assert jax.tree.structure(models[0]) == jax.tree.structure(models[1])
    x, layer = (IMAGE, "conv") if make is cnn else (X, list(jaxnn.capture(models[0], X)[1])[-1])
    first = read(models[0], x, layer)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        second = read(models[1], x, layer)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []
    assert np.all(first[0] != second[0])


def test_clones_share_a_compilation():
    one = keras.Input((4,))
    h = layers.Dense(4, activation="relu", name="h")(one)
    model = keras.Model(one, layers.Dense(3, name="y")(keras.ops.tanh(h) + h))
    clone = randomized(keras.models.clone_model(model))
    first, second = jaxnn.from_keras(model), jaxnn.from_keras(clone)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert_close(second(X), clone(X[None], training=False)[0])
    other = jaxnn.from_keras(keras.Model(one, model.get_layer("y")(keras.ops.sin(h) + h)))
    assert jax.tree.structure(first) != jax.tree.structure(other)


def test_which_variables_are_trained_is_part_of_the_structure():
    """Of equal shapes: the leaves would be taken for those of the other layer."""
    models = []
    for frozen in ("a", "b"):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4, name="b")])
        randomized(model).get_layer(frozen).trainable = False
        models.append(model)
    first, second = map(jaxnn.from_keras, models)
    assert jax.tree.structure(first) != jax.tree.structure(second)
    assert_close(read(first, X, "a"), read(second, X, "a"))
    np.testing.assert_array_equal(first.params[0], models[0].get_layer("b").kernel.value)


def test_inputs_are_distinguished_by_their_names():
    """A dictionary is passed to the inputs of its names."""

    def difference(names):
        one, two = (keras.Input((4,), name=name) for name in names)
        return keras.Model([one, two], layers.Subtract(name="difference")([one, two]))

    x = {"a": X, "b": 3 * X}
    models = [jaxnn.from_keras(difference(names)) for names in ("ab", "ba")]
    assert jax.tree.structure(models[0]) != jax.tree.structure(models[1])
    np.testing.assert_allclose(models[0](x), -2 * X, rtol=1e-6)
    np.testing.assert_allclose(models[1](x), 2 * X, rtol=1e-6)


def test_the_same_model_is_always_the_same():
    model = subclassed()
    first = jaxnn.from_keras(model)
    model.trainable = True
    model.compile("sgd", "mse")
    again = jaxnn.from_keras(randomized(model, 1))
    assert jax.tree.structure(first) == jax.tree.structure(again)
    assert not np.allclose(first(X), again(X))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: SCALED(2.0), lambda: SCALED(3.0)),
        (subclassed, subclassed),  # nothing says what their `call` reads
        *(
            (lambda k=k: keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=power(k))]),) * 2
            for k in (2, 3)
        ),
    ],
    ids=["configuration", "subclassed", "function", "function again"],
)
def test_models_that_may_differ_do_not_share(one, other):
    models = [jaxnn.from_keras(with_weights(make, 0)) for make in (one, other)]
    assert jax.tree.structure(models[0]) != jax.tree.structure(models[1])


def power(k):
    def activation(x):
        return x**k

    return activation


def test_a_change_after_adapting_is_an_error():
    model = sequential()
    adapted = jaxnn.from_keras(model)
    adapted(X)
    model.get_layer("first").activation = keras.activations.relu
    with pytest.raises(ValueError, match="`model` must be as it was when `from_keras` adapted it"):
        adapted(X)
    assert jax.tree.structure(jaxnn.from_keras(model)) != jax.tree.structure(adapted)


def test_freezing_and_fitting_do_not_reach_what_was_adapted():
    model = sequential()
    adapted = jaxnn.from_keras(model)
    before = adapted(X)
    model.get_layer("first").trainable = False
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4)), np.zeros((8, 3)), epochs=1, verbose=0)
    assert_close(adapted(X), before)
    again = jaxnn.from_keras(model)
    assert len(again.params) == len(adapted.params) - 2
    assert_close(again(X), model(X[None], training=False)[0])
    assert not np.allclose(again(X), before)


def normalized(data):
    layer = layers.Normalization(name="normal")
    layer.adapt(np.array(data))
    return keras.Sequential([keras.Input((1,)), layer])


def test_adapted_statistics_are_compared():
    """They are in no variable and in no configuration."""
    x = jnp.ones(1)
    for data in ([[0.0], [2.0]], [[10.0], [12.0]]):
        model = normalized(data)
        np.testing.assert_allclose(jaxnn.capture(jaxnn.from_keras(model), x)[0], model(x[None])[0], rtol=1e-6)
    adapted = jaxnn.from_keras(model)
    model.layers[0].adapt(np.array([[0.0], [2.0]]))
    with pytest.raises(ValueError, match="`model` must be as it was"):
        adapted(x)
    again = jaxnn.capture(jaxnn.from_keras(model), x)[0]
    np.testing.assert_allclose(again, model(x[None])[0], rtol=1e-6)


class Scaled(layers.Layer):
    factor = 1.0

    def __init__(self, factor=None, **options):
        super().__init__(**options)
        if factor is not None:
            self.factor = factor

    def call(self, x):
        self.last = x
        return self.factor * x

    def get_config(self):
        return super().get_config()


class Shifted(Scaled):
    """Without a configuration of its own."""

    def __init__(self, shift=0.0, **options):
        super().__init__(**options)
        self.shift = [shift]

    def call(self, x):
        return super().call(x) + self.shift[0]


@pytest.mark.without("check_tracer_leaks", "the layer keeps its input")
@pytest.mark.parametrize("layer", [Scaled, Shifted])
def test_attributes_of_layers_are_compared(layer):
    x = jnp.ones(2)
    for number in (1.0, 5.0):
        model = keras.Sequential([keras.Input((2,)), layer(number, name="own")])
        np.testing.assert_allclose(jaxnn.capture(jaxnn.from_keras(model), x)[0], model(x[None])[0])
    model.layers[0].factor = 7.0
    np.testing.assert_allclose(jaxnn.capture(jaxnn.from_keras(model), x)[0], model(x[None])[0])


@pytest.mark.without("check_tracer_leaks", "the layer keeps its input")
def test_what_a_layer_keeps_of_a_trace_is_put_back():
    model = keras.Sequential([keras.Input((2,)), Scaled(name="own")])
    last = model.layers[0].last
    jaxnn.capture(jaxnn.from_keras(model), jnp.ones(2))
    assert model.layers[0].last is last
