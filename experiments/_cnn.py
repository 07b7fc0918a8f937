"""What the experiments on a convolutional network share: the Flax model, and how it is trained."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn
from experiments._digits import Digits

Model = Callable[[jax.Array], jax.Array]  # a pytree, too: weights are its leaves

ADAM = optax.adam(2e-3)


class CNN(nn.Module):
    """Two convolutions, each followed by a relu and a pool, and two dense layers; ten logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """One image `(h, w, 1)` to logits `(10,)`."""
        for features in (8, 16):
            x = pool(nn.relu(nn.Conv(features, (3, 3))(x)))
        x = nn.relu(nn.Dense(64)(x.reshape(-1)))
        return nn.Dense(10)(x)


def pool(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 block; by reshape, whose gradient is several times as fast as a window's."""
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).max(axis=(1, 3))


def as_images(inputs: jax.Array, digits: Digits) -> jax.Array:
    """Encoded digits `(N, n_in)` as images with one channel, `(N, h, w, 1)`."""
    return inputs.reshape(-1, *digits.image_shape, 1)


def train_cnn(digits: Digits, *, epochs: int, seed: int, progress: bool = True) -> Model:
    """Train on softmax cross-entropy, 50 images a step; a callable pytree of one image."""
    init_key, order_key = jax.random.split(jax.random.key(seed))
    images = as_images(digits.inputs, digits)
    module = CNN()
    model = jaxnn.from_linen(module, module.init(init_key, images[0]))
    return jaxnn.train(
        model, images, jnp.asarray(digits.labels), key=order_key, epochs=epochs, batch_size=50,
        optimizer=ADAM, loss=jaxnn.losses.cross_entropy, progress=progress,
    )[0]  # fmt: skip


def cnn_accuracy(model: Model, digits: Digits) -> float:
    """The share of test images that the network answers with their label."""
    logits = jaxnn.map_examples(model, as_images(digits.test_inputs, digits), batch_size=200)
    return float(np.mean(np.argmax(logits, axis=-1) == digits.test_labels))
