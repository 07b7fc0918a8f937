"""Dense networks on digits: training, one or many at once, and accuracy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn
from experiments._common.digits import Digits

SGD = optax.sgd(3.0)  # one object: `train` compares a static optimizer by identity
ADAM = optax.adam(1e-3)
FAN_IN_NORMAL = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def train_by_the_book(
    digits: Digits, *, hidden: tuple[int, ...], epochs: int, rate: float, seed: int
) -> tuple[jaxnn.Network, jaxnn.History]:
    """Train sigmoid layers without biases: batch size 1, plain gradient descent, squared error."""
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
    kernel_init: jax.nn.initializers.Initializer = FAN_IN_NORMAL,
    progress: bool = True,
) -> jaxnn.Network:
    """Train sigmoid layers with biases, batch size 10; `jax.vmap` over keys trains many networks at once."""
    init_key, order_key = jax.random.split(key)
    sizes = (digits.inputs.shape[1], *hidden, digits.targets.shape[1])
    network = jaxnn.init(init_key, sizes, kernel_init=kernel_init)
    return jaxnn.train(
        network, digits.inputs, digits.targets, key=order_key, epochs=epochs, batch_size=10,
        optimizer=optimizer, progress=progress,
    )[0]  # fmt: skip


def train_judge(digits: Digits, seed: int) -> jaxnn.Network:
    """A network of another shape, trained in another way from another seed."""
    init_key, order_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    sizes = (digits.inputs.shape[1], 128, 64, 10)
    judge = jaxnn.init(init_key, sizes, activation="relu", output_activation="identity")
    return jaxnn.train(
        judge, digits.inputs, digits.labels, key=order_key, epochs=5, batch_size=50,
        optimizer=ADAM, loss=jaxnn.losses.cross_entropy,
    )[0]  # fmt: skip


def train_many(
    count: int, seed: int, digits: Digits, *, hidden: tuple[int, ...], epochs: int, **options: Any
) -> jaxnn.Network:
    """Train a stack of networks that differ only in their seed; `options` of `train_sigmoids`."""

    def train(key: jax.Array) -> jaxnn.Network:
        return train_sigmoids(key, digits, hidden=hidden, epochs=epochs, progress=False, **options)

    return jax.vmap(train)(jax.random.split(jax.random.key(seed), count))


def falling_sgd(rate: float, epochs: int, digits: Digits) -> optax.GradientTransformation:
    """Gradient descent with cosine decay of the learning rate to 0, for batches of ten."""
    steps = epochs * -(-len(digits.inputs) // 10)
    return optax.sgd(optax.cosine_decay_schedule(rate, steps))


def accuracy(network: jaxnn.Network, inputs: jax.Array, labels: np.ndarray) -> float:
    """The fraction of inputs whose predicted class is their label."""
    return float(jnp.mean(jnp.argmax(jaxnn.query(network, inputs), axis=-1) == labels))


def accuracies(stack: jaxnn.Network, inputs: jax.Array, labels: np.ndarray) -> np.ndarray:
    """The accuracy of each network of a stack, `(n_networks,)`."""
    outputs = jax.vmap(jaxnn.query, (0, None))(stack, inputs)
    return np.asarray(jnp.mean(jnp.argmax(outputs, axis=-1) == labels, axis=1))


def predictions_of(stack: jaxnn.Network, inputs: jax.Array) -> np.ndarray:
    """The predicted class of each network of a stack, `(n_networks, N)`; one network at a time."""
    return np.asarray(jax.lax.map(lambda network: jnp.argmax(jaxnn.query(network, inputs), axis=1), stack))
