"""Kernels as images, and how rough images are."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxnn import _checks
from jaxnn._network import Layer, Network, layer_index
from jaxnn._precision import widen


def kernel_images(
    network: Network, shape: Sequence[int] | None = None, *, layer: Layer = 0
) -> Float[Array, "n_units ..."]:
    """Kernel images: the incoming weights of each unit of a layer, reshaped to an image.

    `images[k] = reshape(kernel[:, k], shape)`: positive where an input raises the unit's signal, negative
    where it lowers it. `jaxnn.plot.weight_grid` draws them.

    Args:
        network: a `Network`.
        shape: of one image, such as `(28, 28)`; None for a square.
        layer: whose units: an index from 0, negative from the end, or a name such as `"hidden_0"`.

    Returns:
        `(n_units, *shape)`, any real numbers.

    Raises:
        ValueError: there is no such layer, `shape` does not have the size of the layer's input, or that is
            not a square number and `shape` is None.
        TypeError: `network` is not a `Network`, or `shape` or `layer` is of another type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.weights.kernel_images(network).shape
        (30, 28, 28)
    """
    index = layer_index("layer", layer, network)
    inputs = f"the inputs of layer {network.layer_names[index]!r}"
    shape = _checks.check_image_shape("shape", shape, network.sizes[index], inputs)
    return jnp.reshape(network.layers[index].kernel.T, (-1, *shape))


def output_images(network: Network, shape: Sequence[int] | None = None) -> Float[Array, "n_out ..."]:
    """Output images: the weights from the last hidden layer to each output unit, reshaped to an image.

    `images[k] = reshape(kernel_output[:, k], shape)`: positive for the hidden units that raise output `k`.
    It is `kernel_images` of the layer `"output"`.

    Args:
        network: a `Network`.
        shape: of one image, such as `(5, 6)` for 30 hidden units; None for a square.

    Returns:
        `(n_out, *shape)`, any real numbers.

    Raises:
        ValueError: `shape` does not have the size of the last hidden layer, or that is not a square number
            and `shape` is None.
        TypeError: `network` is not a `Network`, or `shape` does not hold integers.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.weights.output_images(network, (5, 6)).shape
        (10, 5, 6)
    """
    return kernel_images(network, shape, layer=-1)


def roughness(images: Real[ArrayLike, "... h w"]) -> Float[Array, "..."]:
    """Roughness (Geary's ratio): about 1 for white noise, near 0 for a smooth image, at any scale.

    The mean squared difference of the `n` pairs of adjacent pixels over twice the variance of the `N` pixels:

    `r = sum_pairs (p_i - p_j)^2 / n / (2 * sum_i (p_i - mean)^2 / (N - 1))`.

    Independent pixels give 1 on average, alternating ones almost 2. `roughness(a * image + b)` equals
    `roughness(image)`: it measures the arrangement of the weights, not their size. A constant image has 0.

    Args:
        images: `(..., h, w)`, any finite numbers, with two pixels or more.

    Returns:
        `(...)`, not negative.

    Raises:
        ValueError: `images` are not `(..., h, w)`, or have less than two pixels each.
        TypeError: `images` does not hold real numbers.

    References:
        R. C. Geary, *The contiguity ratio and statistical mapping*, 1954.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> noise = jax.random.normal(jax.random.key(0), (28, 28))
        >>> ramp = jnp.linspace(0.0, 1.0, 28) * jnp.ones((28, 1))
        >>> images = jnp.stack([noise, ramp, 1 - 9 * ramp])
        >>> [round(float(r), 2) for r in jaxnn.weights.roughness(images)]
        [0.95, 0.0, 0.0]
    """
    pixels = _checks.check_float_array("images", images)
    if pixels.ndim < 2 or pixels.shape[-2] * pixels.shape[-1] < 2:
        raise ValueError(f"`images` must have shape (..., h, w), two pixels or more; got {pixels.shape}")
    return _roughness(pixels)


@jax.jit
def _roughness(pixels: Float[Array, "... h w"]) -> Float[Array, "..."]:
    values = _normalize(widen(pixels))  # otherwise the sum of the largest numbers would be infinite
    # Normalized again: otherwise the squares of small differences would vanish.
    centered = _normalize(values - jnp.mean(values, axis=(-2, -1), keepdims=True))
    down, across = jnp.diff(centered, axis=-2), jnp.diff(centered, axis=-1)
    pairs = math.prod(down.shape[-2:]) + math.prod(across.shape[-2:])
    count = math.prod(pixels.shape[-2:])
    differences = _sum_of_squares(down) + _sum_of_squares(across)
    squares = _sum_of_squares(centered)
    squares = jnp.where(squares == 0, 1, squares)  # of a constant image, whose differences are 0
    return (differences / pairs / (2 * squares / (count - 1))).astype(pixels.dtype)


def _normalize(images: Float[Array, "... h w"]) -> Float[Array, "... h w"]:
    """Divide each image by its largest absolute value, a constant: the ratio does not depend on the scale."""
    largest = _largest(images)
    images = images * jnp.where(largest > 1, 2.0**-64, 2.0**64)  # 1 / largest may underflow
    largest = _largest(images)
    return images / jnp.where(largest == 0, 1, largest)


def _largest(images: Float[Array, "... h w"]) -> Float[Array, "... 1 1"]:
    return jax.lax.stop_gradient(jnp.max(jnp.abs(images), axis=(-2, -1), keepdims=True))


def _sum_of_squares(images: Float[Array, "... h w"]) -> Float[Array, "..."]:
    return jnp.sum(images**2, axis=(-2, -1))
