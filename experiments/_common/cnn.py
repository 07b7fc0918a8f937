"""A small convolutional network on digits: the Flax module, its training, and its accuracy."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn
from experiments._common.digits import Digits, as_images

Model = Callable[[jax.Array], jax.Array]  # also a pytree, with the weights as leaves

ADAM = optax.adam(2e-3)


class CNN(nn.Module):
    """Two convolutions, each followed by a ReLU and a pool, and two dense layers; ten logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map one image `(h, w, 1)` to logits `(10,)`."""
        for features in (8, 16):
            x = pool(nn.relu(nn.Conv(features, (3, 3))(x)))
        x = nn.relu(nn.Dense(64)(x.reshape(-1)))
        return nn.Dense(10)(x)


def pool(x: jax.Array) -> jax.Array:
    """Max pooling over 2x2 blocks; by reshape, its gradient is several times as fast as `reduce_window`'s."""
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).max(axis=(1, 3))


def init_cnn(key: jax.Array, image: jax.Array) -> Model:
    """The network with initial weights, as a callable pytree of one image `(h, w, 1)`."""
    module = CNN()
    return jaxnn.from_linen(module, module.init(key, image))


def train_cnn(digits: Digits, *, epochs: int, seed: int, progress: bool = True) -> Model:
    """Train on softmax cross-entropy, batch size 50; returns a callable pytree of one image."""
    init_key, order_key = jax.random.split(jax.random.key(seed))
    images = as_images(digits.inputs, digits)
    return jaxnn.train(
        init_cnn(init_key, images[0]), images, jnp.asarray(digits.labels), key=order_key, epochs=epochs,
        batch_size=50, optimizer=ADAM, loss=jaxnn.losses.cross_entropy, progress=progress,
    )[0]  # fmt: skip


def cnn_accuracy(model: Model, digits: Digits) -> float:
    """The fraction of test images whose predicted class is their label."""
    logits = jaxnn.map_examples(model, as_images(digits.test_inputs, digits), batch_size=200)
    return float(np.mean(np.argmax(logits, axis=-1) == digits.test_labels))
