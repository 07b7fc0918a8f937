"""Parameterizations: the parameters of gradient ascent, and the image that they generate.

An optimizer takes equal steps in the parameters, not in the pixels: in frequencies the image changes in broad
strokes first, in pixels it changes in noise. Each generates a raw image without bounds; `dream` maps it into
its bounds by a sigmoid.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn import _checks
from jaxnn._precision import draw_wide, widen
from jaxnn._prior import Prior, check_prior
from jaxnn._typing import PyTree
from jaxnn.dreaming._part import check_is_image

Shape: TypeAlias = tuple[int, ...]
Layers: TypeAlias = list[tuple[jax.Array, jax.Array]]

# The square root of the covariance of the colors of photographs (ImageNet), as published with "Feature
# visualization", and scaled so that its longest column has length 1.
_COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLORS = _COLORS / np.linalg.norm(_COLORS, axis=0).max()


class Parameterization(NamedTuple):
    """Three pure functions of an image's parameters; compared by identity, so create your own once.

    Attributes:
        init: `(key, shape, dtype) -> params`, a pytree of arrays to start from.
        image: `(params, shape) -> raw`, an image of that shape, of any real numbers.
        invert: `raw -> params`, the parameters of a given raw image, or None if there is no inverse.
    """

    init: Callable[[jax.Array, Shape, DTypeLike], PyTree]
    image: Callable[[PyTree, Shape], jax.Array]
    invert: Callable[[jax.Array], PyTree] | None


def pixel(std: float = 0.01) -> Parameterization:
    """Pixels: each element of the image is a parameter, all in one vector.

    Args:
        std: the raw image starts from `N(0, std^2)`; at least 0.

    Returns:
        A parameterization, of an input of any shape.

    Raises:
        ValueError: `std` is below 0.
        TypeError: it is not a number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> dreaming.pixel().init(jax.random.key(0), (28, 28), jnp.float32).shape
        (784,)
    """
    return _pixel(_checks.check_real("std", std, at_least=0))


@functools.cache
def _pixel(std: float) -> Parameterization:
    def init(key: jax.Array, shape: Shape, dtype: DTypeLike) -> jax.Array:
        # One vector: a processor is several times as fast along one long axis as along many short ones.
        return std * draw_wide(jax.random.normal, key, (math.prod(shape),), dtype)

    return Parameterization(init, jnp.reshape, jnp.ravel)


def fourier(std: float = 0.01, *, decay: float = 1.0) -> Parameterization:
    """Fourier coefficients: the parameters are frequencies of the image, with more weight on low ones.

    A real and an imaginary number for each frequency `f`, in cycles per pixel, are multiplied by
    `1 / max(f, 1 / max(h, w))^decay` and transformed by the inverse real Fourier transform (orthonormal,
    times 1/4). The three channels of a color image are then mixed from ones that are uncorrelated in
    photographs.

    Args:
        std: the coefficients start from `N(0, std^2)`; at least 0.
        decay: exponent of the weights of frequencies; 1 is close to photographs, 0 is uniform.

    Returns:
        A parameterization, of an image `(h, w)` or `(h, w, c)`.

    Raises:
        ValueError: `std` is below 0.
        TypeError: one is not a number.

    References:
        Olah, Mordvintsev and Schubert, "Feature visualization", Distill, 2017, doi:10.23915/distill.00007.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> dreaming.fourier().init(jax.random.key(0), (28, 28), jnp.float32).shape
        (28, 15, 2)
    """
    return _fourier(_checks.check_real("std", std, at_least=0), _checks.check_real("decay", decay))


@functools.cache
def _fourier(std: float, decay: float) -> Parameterization:
    def init(key: jax.Array, shape: Shape, dtype: DTypeLike) -> jax.Array:
        check_is_image(shape, "the parameterization fourier")
        size = (shape[0], shape[1] // 2 + 1, *shape[2:], 2)
        return std * draw_wide(jax.random.normal, key, size, dtype)

    def image(params: jax.Array, shape: Shape) -> jax.Array:
        wide = widen(params)  # the Fourier transform has no half precision
        raw = _inverse_transform(wide * _weights(shape, decay, wide), shape)
        return _mix_colors(raw, _COLORS).astype(params.dtype)

    def invert(raw: jax.Array) -> jax.Array:
        check_is_image(raw.shape, "the parameterization fourier")
        parts = _transform(_mix_colors(widen(raw), np.linalg.inv(_COLORS)))
        return (parts / _weights(raw.shape, decay, parts)).astype(raw.dtype)

    return Parameterization(init, image, invert)


def _mix_colors(image: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Multiply the channels of a color image by a matrix; other images stay unchanged."""
    if image.shape[2:] != (3,):
        return image
    return jnp.matmul(image, jnp.asarray(matrix.T, image.dtype), precision="highest")


def _weights(shape: Shape, decay: float, like: jax.Array) -> jax.Array:
    """The weight of each frequency, `(h, w // 2 + 1, 1, ...)`."""
    height, width = shape[:2]
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    weights = 0.25 / np.maximum(frequencies, 1 / max(height, width)) ** decay
    return jnp.asarray(weights.reshape(*weights.shape, *(1,) * (like.ndim - 2)), like.dtype)


def _waves(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """The matrices of the orthonormal Fourier transform.

    A library's transform of images on several devices would run on each device for all of them.

    Returns:
        `(2, 2, h, h)`, from the frequencies of a complex column, as two parts, to its pixels; and
        `(2, w // 2 + 1, w)`, the cosines of a row's frequencies and their negative sines.
    """
    height, width = shape[:2]
    down = 2 * np.pi / height * np.outer(np.arange(height), np.arange(height))
    across = 2 * np.pi / width * np.outer(np.arange(width // 2 + 1), np.arange(width))
    rows = np.array([[np.cos(down), -np.sin(down)], [np.sin(down), np.cos(down)]])
    return rows / np.sqrt(height), np.array([np.cos(across), -np.sin(across)]) / np.sqrt(width)


def _transform(image: jax.Array) -> jax.Array:
    """The real and imaginary parts, `(h, w // 2 + 1, ..., 2)`, of an image's frequencies."""
    matrices = (jnp.asarray(matrix, image.dtype) for matrix in _waves(image.shape))
    return jnp.einsum("bakh,bfw,hw...->kf...a", *matrices, image, precision="highest")


def _inverse_transform(parts: jax.Array, shape: Shape) -> jax.Array:
    """The image of the frequencies that `_transform` returns."""
    rows, columns = _waves(shape)
    frequencies = np.arange(columns.shape[1])
    # Each stands for itself and its mirror image, except the first, and the last of an even width.
    counts = np.where((frequencies == 0) | (2 * frequencies == shape[1]), 1, 2)[:, None]
    matrices = (jnp.asarray(matrix, parts.dtype) for matrix in (rows, columns * counts))
    return jnp.einsum("abhk,afw,kf...b->hw...", *matrices, parts, precision="highest")


def cppn(width: int = 24, depth: int = 8) -> Parameterization:
    """CPPN: a compositional pattern-producing network from a pixel's position to its color.

    The parameters are its weights. From `(y, x)`, each in `[-3^(1/2), 3^(1/2)]`, through `depth` layers of
    `width` units; each layer outputs both `arctan(s) / 0.67` and `(arctan(s)^2 - 0.45) / 0.396` of its
    signals `s`, and a last linear layer outputs the channels. The image is smooth at any size. The weights
    need smaller steps than pixels: `optax.adam(0.005)`.

    Args:
        width: number of units per layer, at least 1.
        depth: number of layers, at least 1.

    Returns:
        A parameterization, of an image `(h, w)` or `(h, w, c)`; it cannot start from a given image.

    Raises:
        ValueError: one is below 1.
        TypeError: one is not an integer.

    References:
        Stanley, "Compositional pattern producing networks", 2007; Mordvintsev, Pezzotti, Schubert and Olah,
        "Differentiable image parameterizations", Distill, 2018, doi:10.23915/distill.00012.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> part = dreaming.cppn(8, 2)
        >>> params = part.init(jax.random.key(0), (5, 7), jnp.float32)
        >>> part.image(params, (5, 7)).shape, part.image(params, (50, 70)).shape
        ((5, 7), (50, 70))
    """
    width = _checks.check_integer("width", width, at_least=1)
    depth = _checks.check_integer("depth", depth, at_least=1)
    _checks.check_bytes("width", 8 * width**2)
    _checks.check_bytes("depth", depth * (8 * width**2 + 10_000))  # a layer is part of the program
    return _cppn(width, depth)


@functools.cache
def _cppn(width: int, depth: int) -> Parameterization:
    def init(key: jax.Array, shape: Shape, dtype: DTypeLike) -> Layers:
        check_is_image(shape, "the parameterization cppn")
        channels = math.prod(shape[2:])
        pairs = list(itertools.pairwise([2, *[width] * depth, channels]))
        layers = []
        for number, ((n_in, n_out), layer_key) in enumerate(
            zip(pairs, jax.random.split(key, len(pairs)), strict=True)
        ):
            n_in = n_in if number == 0 else 2 * n_in  # two values per unit
            std = math.sqrt(1 / n_in) if number < depth else 0.1 / math.sqrt(n_in)  # a gray start
            kernel = std * draw_wide(jax.random.normal, layer_key, (n_in, n_out), dtype)
            layers.append((kernel, jnp.zeros(n_out, dtype)))
        return layers

    def image(params: Layers, shape: Shape) -> jax.Array:
        dtype = params[0][0].dtype
        down, across = (math.sqrt(3) * np.linspace(-1, 1, size) for size in shape[:2])
        positions = np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)
        value = jnp.asarray(positions, dtype)
        for kernel, bias in params[:-1]:
            bent = jnp.arctan(value @ kernel + bias[None])
            value = jnp.concatenate([bent / 0.67, (bent**2 - 0.45) / 0.396], axis=-1)
        kernel, bias = params[-1]
        return (value @ kernel + bias[None]).reshape(shape)

    return Parameterization(init, image, None)


def from_prior(prior: Prior, std: float = 0.1) -> Parameterization:
    """Prior: the parameters are coordinates of the image along the principal components of a prior.

    `x = clip(mean + basis @ (scale * params), low, high)`, and the raw image is the logit of `x` in the
    range of the prior. `scale` is the standard deviation of the prior along each component, so that
    parameters of `N(0, 1)` give inputs with its mean and variances. Dream within `bounds=(prior.low,
    prior.high)`.

    Args:
        prior: of `jaxnn.prior`; its inputs have the shape of the dream, or as many elements.
        std: the parameters start from `N(0, std^2)`; at least 0.

    Returns:
        A parameterization; create it once, since it is compared by identity.

    Raises:
        ValueError: `std` is below 0; (when used) the dream has another number of elements.
        TypeError: `prior` is not a `Prior`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> x = jax.random.uniform(jax.random.key(0), (50, 6))
        >>> prior = jaxnn.prior(x, components=1, rank=3, key=jax.random.key(1))
        >>> parameterization = jaxnn.dreaming.from_prior(prior)
        >>> params = parameterization.init(jax.random.key(2), (2, 3), jnp.float32)
        >>> params.shape, parameterization.image(params, (2, 3)).shape
        ((3,), (2, 3))
    """
    check_prior(prior)
    std = _checks.check_real("std", std, at_least=0)
    scale = jnp.sqrt(prior.variances())
    width = prior.high - prior.low
    inset = 1e-3 * width  # the logit of the ends of the range is infinite

    def init(key: jax.Array, shape: Shape, dtype: DTypeLike) -> jax.Array:
        return std * draw_wide(jax.random.normal, key, scale.shape, dtype)

    def image(params: jax.Array, shape: Shape) -> jax.Array:
        if math.prod(shape) != prior.mean.size:
            raise ValueError(f"`prior` must be of inputs of shape {shape}; got {prior.mean.shape}")
        x = prior.input_at(scale.astype(params.dtype) * params)
        x = jnp.clip(x, prior.low + inset, prior.high - inset)
        return jax.scipy.special.logit((x - prior.low) / width).reshape(shape).astype(params.dtype)

    def invert(raw: jax.Array) -> jax.Array:
        x = prior.low + width * jax.nn.sigmoid(raw.reshape(prior.mean.shape))
        return jnp.tensordot(x - prior.mean, prior.basis, x.ndim) / scale

    return Parameterization(init, image, invert)
