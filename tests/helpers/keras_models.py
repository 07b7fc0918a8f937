"""Keras models of the three styles, for the tests of `from_keras`."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

keras = pytest.importorskip("keras")
layers = keras.layers

X = jax.random.normal(jax.random.key(9), (4,), jnp.float32)
IMAGE = jax.random.normal(jax.random.key(8), (8, 8, 3), jnp.float32)


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), one, other)


def randomized(model, seed=0):
    """All weights at random: statistics other than 0 and 1 show the wrong mode.

    Not by `get_weights`, which NumPy 2 warns of: `Variable.__array__` of Keras has no parameter `copy`.
    """
    numbers = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(numbers.uniform(0.2, 0.9, variable.shape) - 0.4 * (len(variable.shape) > 1))
    return model


def sequential():
    return randomized(
        keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(5, activation="tanh", name="first"),
                layers.BatchNormalization(name="norm"),
                layers.Dropout(0.5, name="drop"),
                layers.Dense(3, name="last"),
            ]
        )
    )


def functional():
    """A model within a model, a shared layer, operations without a layer, several inputs and outputs."""
    encoder = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="dense"), layers.BatchNormalization(name="norm")],
        name="encoder",
    )
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    shared = layers.Dense(4, activation="relu", name="shared")
    h = keras.ops.tanh(shared(encoder(one))) + shared(two)
    h = layers.Dropout(0.5, name="drop")(h)
    outputs = {"a": layers.Dense(3, name="a")(h), "b": layers.Dense(2, name="b")(h)}
    return randomized(keras.Model({"one": one, "two": two}, outputs))


class Block(layers.Layer):
    def __init__(self, width, **options):
        super().__init__(**options)
        self.dense = layers.Dense(width, name="dense")
        self.drop = layers.Dropout(0.5, name="drop")

    def call(self, x, training=None):
        return self.drop(self.dense(x), training=training)


class Subclassed(keras.Model):
    """Lists of layers, a recurrent one, a random one; its `call` has no flag."""

    def __init__(self, fails=False):
        super().__init__()
        self.blocks = [Block(4, name="one"), Block(4, name="two")]
        self.cell = layers.LSTM(3, name="lstm")
        self.norm = layers.BatchNormalization(name="norm")
        self.fails = fails

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        if self.fails:
            raise RuntimeError("in the middle")
        return self.norm(self.cell(keras.ops.stack([x, 2 * x], axis=1)))


def subclassed():
    model = Subclassed()
    model(np.ones((2, 4), np.float32))
    return randomized(model)


def cnn():
    return randomized(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.MaxPooling2D(name="pool"),
                layers.Dropout(0.5, name="drop"),
                layers.Flatten(name="flat"),
                layers.Dense(3, name="dense"),
            ]
        )
    )
