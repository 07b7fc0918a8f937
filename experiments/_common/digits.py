"""The handwritten digits, encoded as inputs and targets of a network."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn

DataName = Literal["mnist-5k", "mnist", "digits"]


class Digits(NamedTuple):
    """An encoded data set: inputs `(N, n_in)`, targets `(N, 10)` and labels `(N,)` of both splits."""

    inputs: jax.Array
    targets: jax.Array
    labels: np.ndarray
    test_inputs: jax.Array
    test_targets: jax.Array
    test_labels: np.ndarray
    image_shape: tuple[int, int]


def load_digits(name: DataName) -> Digits:
    """Load a data set and encode its images and labels."""
    train, test = jaxnn.datasets.load(name, progress=True)
    encode_images, encode_labels = jaxnn.datasets.encode_images, jaxnn.datasets.encode_labels
    return Digits(
        encode_images(train.images), encode_labels(train.labels), train.labels,
        encode_images(test.images), encode_labels(test.labels), test.labels,
        (train.images.shape[1], train.images.shape[2]),
    )  # fmt: skip


def as_images(inputs: jax.Array, digits: Digits) -> jax.Array:
    """Reshape encoded digits `(N, n_in)` to images with one channel, `(N, h, w, 1)`."""
    return inputs.reshape(-1, *digits.image_shape, 1)


def mean_image(digits: Digits) -> jax.Array:
    """The mean training image over all classes, `(h, w)`."""
    return digits.inputs.mean(axis=0).reshape(digits.image_shape)


def class_means(digits: Digits) -> jax.Array:
    """The mean training image of each class, `(n_classes, n_in)`."""
    classes = range(digits.targets.shape[1])
    return jnp.stack([digits.inputs[digits.labels == label].mean(axis=0) for label in classes])
