"""Encoding of images and labels as the inputs and targets of a network."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int, UInt8

from jaxnn._checks import check_array, check_bytes, check_integer, check_values

# A table, not arithmetic: the result is bitwise the same on every device, jitted or not.
_ENCODED = (np.arange(256) / 255 * 0.99 + 0.01).astype(np.float32)


def encode_images(images: UInt8[ArrayLike, "... height width"]) -> Float32[Array, "... n_in"]:
    """Encode images: flatten them and scale their pixels to inputs in [0.01, 1].

    input = pixel / 255 · 0.99 + 0.01. No input is zero, because the gradient of the weights of a zero input
    is zero (Rashid, Make Your Own Neural Network, 2016).

    Args:
        images: uint8, shape (..., h, w), gray.

    Returns:
        float32, shape (..., h * w).

    Raises:
        TypeError: If the images are not uint8.
        ValueError: If they have fewer than two axes, or a last axis of 1 to 4 channels.

    Example:
        >>> import numpy as np
        >>> from jaxnn import datasets
        >>> datasets.encode_images(np.array([[0, 255]], dtype=np.uint8))
        Array([0.01, 1.  ], dtype=float32)
    """
    array = check_array("images", images)
    if array.dtype != jnp.uint8:
        raise TypeError(
            f"`images` must have dtype uint8, pixels from 0 to 255; got {array.dtype} (pixels "
            "that are already scaled, to [0, 1] for example, would silently be scaled twice)"
        )
    if array.ndim < 2:
        raise ValueError(f"`images` must have shape (..., h, w); got {array.shape}")
    if array.ndim > 2 and 0 < array.shape[-1] <= 4 < array.shape[-2]:
        raise ValueError(
            f"`images` must be gray, of shape (..., h, w); got {array.shape}, with channels last. Select "
            "one, or convert colors to gray levels by a mean of the channels"
        )
    return _scale_and_flatten(array)


def encode_labels(labels: Int[ArrayLike, "..."], classes: int = 10) -> Float32[Array, "... classes"]:
    """Encode class labels as one-hot targets: 0.99 at the label and 0.01 elsewhere.

    The targets are not 0 and 1 because a sigmoid never reaches these values.

    Args:
        labels: Integers in [0, classes), shape (...). Values are not checked under tracing.
        classes: The number of classes, at least 1.

    Returns:
        float32, shape (..., classes).

    Raises:
        TypeError: If the labels or `classes` are not integers.
        ValueError: If a label is outside [0, classes), or `classes` is less than 1.

    Example:
        >>> from jaxnn import datasets
        >>> datasets.encode_labels([2, 0], classes=3)
        Array([[0.01, 0.01, 0.99],
               [0.99, 0.01, 0.01]], dtype=float32)
    """
    classes = check_integer("classes", classes, at_least=1)
    array = check_array("labels", labels)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"`labels` must be integers; got dtype {array.dtype}")
    check_values("labels", array, at_least=0, below=classes)
    check_bytes("classes", 4 * array.size * classes)
    return _one_hot(array, classes)


@jax.jit
def _scale_and_flatten(images: jax.Array) -> jax.Array:
    *leading, height, width = images.shape
    flat = images.reshape(*leading, height * width)
    return jnp.asarray(_ENCODED).at[flat].get(mode="promise_in_bounds")


@jax.jit(static_argnames="classes")
def _one_hot(labels: jax.Array, classes: int) -> jax.Array:
    at_label = jax.nn.one_hot(labels, classes, dtype=bool)
    return jnp.where(at_label, np.float32(0.99), np.float32(0.01))
