"""What the experiments on digits share: the data, encoded, networks trained on it, and their accuracy."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn

DataName = Literal["mnist-5k", "mnist", "digits"]

SGD = optax.sgd(3.0)  # made once: `train` recognizes an optimizer by identity
FAN_IN_NORMAL = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Digits(NamedTuple):
    """A data set as a network sees it: inputs `(N, n_in)`, targets `(N, 10)`, labels `(N,)`."""

    inputs: jax.Array
    targets: jax.Array
    labels: np.ndarray
    test_inputs: jax.Array
    test_targets: jax.Array
    test_labels: np.ndarray
    image_shape: tuple[int, int]


def load_digits(name: DataName) -> Digits:
    """Load a data set and encode it."""
    train, test = jaxnn.datasets.load(name, progress=True)
    encode_images, encode_labels = jaxnn.datasets.encode_images, jaxnn.datasets.encode_labels
    return Digits(
        encode_images(train.images), encode_labels(train.labels), train.labels,
        encode_images(test.images), encode_labels(test.labels), test.labels,
        (train.images.shape[1], train.images.shape[2]),
    )  # fmt: skip


def train_by_the_book(
    digits: Digits, *, hidden: tuple[int, ...], epochs: int, rate: float, seed: int
) -> tuple[jaxnn.Network, jaxnn.History]:
    """Sigmoids without biases, one example a step, plain gradient descent on the squared error."""
    sizes = (digits.inputs.shape[1], *hidden, 10)
    init_key, order_key = jax.random.split(jax.random.key(seed))
    network = jaxnn.init(init_key, sizes, use_bias=False)
    return jaxnn.train(
        network, digits.inputs, digits.targets, key=order_key, epochs=epochs, batch_size=1,
        optimizer=optax.sgd(rate), validation=(digits.test_inputs, digits.test_targets),
        progress=True,
    )  # fmt: skip


def train_sigmoids(
    key: jax.Array,
    digits: Digits,
    *,
    hidden: tuple[int, ...],
    epochs: int,
    optimizer: optax.GradientTransformation = SGD,
    kernel_init: Any = FAN_IN_NORMAL,
    progress: bool = True,
) -> jaxnn.Network:
    """Sigmoids with biases, ten examples a step; under `jax.vmap` over keys, many networks at once."""
    init_key, order_key = jax.random.split(key)
    sizes = (digits.inputs.shape[1], *hidden, digits.targets.shape[1])
    network = jaxnn.init(init_key, sizes, kernel_init=kernel_init)
    return jaxnn.train(
        network, digits.inputs, digits.targets, key=order_key, epochs=epochs, batch_size=10,
        optimizer=optimizer, progress=progress,
    )[0]  # fmt: skip


def train_many(
    count: int, seed: int, digits: Digits, *, hidden: tuple[int, ...], epochs: int, **options: Any
) -> jaxnn.Network:
    """A stack of networks that differ in their seed alone, trained at once; options of `train_sigmoids`."""

    def train(key: jax.Array) -> jaxnn.Network:
        return train_sigmoids(key, digits, hidden=hidden, epochs=epochs, progress=False, **options)

    return jax.vmap(train)(jax.random.split(jax.random.key(seed), count))


def accuracy(network: jaxnn.Network, inputs: jax.Array, labels: np.ndarray) -> float:
    """The share of inputs that the network answers with their label."""
    return float(jnp.mean(jnp.argmax(jaxnn.query(network, inputs), axis=-1) == labels))


def accuracies(stack: jaxnn.Network, inputs: jax.Array, labels: np.ndarray) -> np.ndarray:
    """The accuracy of each network of a stack, `(n_networks,)`."""
    outputs = jax.vmap(jaxnn.query, (0, None))(stack, inputs)
    return np.asarray(jnp.mean(jnp.argmax(outputs, axis=-1) == labels, axis=1))
