"""Transforms: random augmentations of the image at each step, so that a dream is robust to small changes.

A transform is called as `transform(key, image)` with an image `(h, w)` or `(h, w, c)`, and returns an image
whose shape depends only on the shape of its argument. A plain function of the two arguments is one, too.

Positions between pixels are interpolated linearly; see `_interpolation`.
"""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._precision import draw_wide, wide_dtype
from jaxnn._typing import Scalar
from jaxnn.dreaming._interpolation import apply_separable, centered, sample_grid, sample_points
from jaxnn.dreaming._part import Part, check_is_image

Fill: TypeAlias = jax.Array | None


def jitter(pixels: int, *, fill: Scalar | None = None) -> Part:
    """Jitter: shift by a random whole number of pixels, along each axis from `-pixels` to `pixels`.

    Args:
        pixels: largest shift, at least 0.
        fill: value outside of the image; None for the nearest pixel of its edge.

    Returns:
        A transform.

    Raises:
        ValueError: `pixels` is below 0.
        TypeError: it is not an integer.

    References:
        Mordvintsev, Olah and Tyka, "Inceptionism: going deeper into neural networks", 2015.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> dreaming.jitter(1)(jax.random.key(1), jnp.arange(16.0).reshape(4, 4)).shape
        (4, 4)
    """
    return Part(_jitter, (_checks.check_integer("pixels", pixels, at_least=0),), (_check_fill(fill),))


def _jitter(key: jax.Array, image: jax.Array, pixels: int, fill: Fill) -> jax.Array:
    height, width = _image_shape(image)
    down, across = jnp.floor(jax.random.uniform(key, (2,)) * (2 * pixels + 1)) - pixels
    rows, columns = (jnp.arange(size, dtype=down.dtype) for size in (height, width))
    return sample_grid(image, rows - down, columns - across, fill)


def scale(low: Scalar = 0.9, high: Scalar = 1.1, *, fill: Scalar | None = None) -> Part:
    """Scale: enlarge about the center by a random factor from `low` to `high`; the shape stays.

    Args:
        low: the smallest factor, above 0; a factor below 1 shrinks the image.
        high: the largest factor.
        fill: value outside of the image; None for the nearest pixel of its edge.

    Returns:
        A transform.

    Raises:
        ValueError: `low` is not above 0, or above `high`.
        TypeError: they are not numbers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> image = jnp.zeros((5, 5)).at[2, 2].set(1.0)
        >>> float(dreaming.scale(2.0, 2.0)(jax.random.key(0), image)[2, 1])
        0.5
    """
    return Part(_scale, (), (_check_fill(fill), *_check_range(low, high, above=0)))


def _scale(key: jax.Array, image: jax.Array, fill: Fill, low: jax.Array, high: jax.Array) -> jax.Array:
    factor = _uniform(key, image, low, high)
    rows, columns = (centered(n, factor) / factor + (n - 1) / 2 for n in _image_shape(image))
    return sample_grid(image, rows, columns, fill)


def rotate(low: Scalar = -10.0, high: Scalar = 10.0, *, fill: Scalar | None = None) -> Part:
    """Rotate: turn about the center, counterclockwise by a random angle of `low` to `high`; the shape stays.

    Args:
        low: the smallest angle, in degrees.
        high: the largest angle, in degrees.
        fill: value outside of the image; None for the nearest pixel of its edge.

    Returns:
        A transform.

    Raises:
        ValueError: `low` is above `high`.
        TypeError: they are not numbers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> image = jnp.arange(9.0).reshape(3, 3)
        >>> jnp.round(dreaming.rotate(90, 90)(jax.random.key(0), image)).astype(int).tolist()
        [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
    """
    return Part(_rotate, (), (_check_fill(fill), *_check_range(low, high)))


def _rotate(key: jax.Array, image: jax.Array, fill: Fill, low: jax.Array, high: jax.Array) -> jax.Array:
    angle = jnp.deg2rad(_uniform(key, image, low, high))
    height, width = _image_shape(image)
    down, across = centered(height, angle)[:, None], centered(width, angle)[None]
    rows = jnp.cos(angle) * down + jnp.sin(angle) * across + (height - 1) / 2
    columns = jnp.cos(angle) * across - jnp.sin(angle) * down + (width - 1) / 2
    return sample_points(image, rows, columns, fill)


def pad(pixels: int, *, fill: Scalar | None = None) -> Part:
    """Pad: add a border; `dream` crops an image larger than the model's to its center at the end.

    As the first transform, it gives those after it a border to move into the image.

    Args:
        pixels: width of the border on each of the four sides, at least 0.
        fill: value of the border; None for the nearest pixel of the edge.

    Returns:
        A transform that returns an image `2 * pixels` higher and wider.

    Raises:
        ValueError: `pixels` is below 0.
        TypeError: it is not an integer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> dreaming.pad(1, fill=0.5)(jax.random.key(0), jnp.ones((1, 1)))[0].tolist()
        [0.5, 0.5, 0.5]
    """
    pixels = _checks.check_integer("pixels", pixels, at_least=0)
    _checks.check_bytes("pixels", 16 * pixels**2)
    return Part(_pad, (pixels,), (_check_fill(fill),))


def _pad(key: jax.Array, image: jax.Array, pixels: int, fill: Fill) -> jax.Array:
    _image_shape(image)
    widths = ((pixels, pixels), (pixels, pixels), (0, 0))[: image.ndim]
    if fill is None:
        return jnp.pad(image, widths, mode="edge")
    return jnp.pad(image, widths, constant_values=fill.astype(image.dtype))


def blur(sigma: float) -> Part:
    """Gaussian blur, truncated at four standard deviations, with the edge continued outwards.

    Args:
        sigma: its standard deviation in pixels, above 0.

    Returns:
        A transform, which is deterministic.

    Raises:
        ValueError: `sigma` is not above 0.
        TypeError: it is not a number, or is traced.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> image = jnp.zeros((9, 9)).at[4, 4].set(1.0)
        >>> round(float(dreaming.blur(1.0)(jax.random.key(0), image)[4, 4]), 3)
        0.159
    """
    sigma = _checks.check_real("sigma", sigma, above=0)
    _checks.check_bytes("sigma", 64 * sigma)
    return Part(_blur, (sigma,), ())


def _blur(key: jax.Array, image: jax.Array, sigma: float) -> jax.Array:
    rows, columns = (jnp.asarray(_gaussian(size, sigma), image.dtype) for size in _image_shape(image))
    return apply_separable(rows, image, columns)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """The matrix `(size, size)` that blurs a column of pixels."""
    reach = int(4 * sigma + 0.5)
    _checks.check_bytes("sigma", 32.0 * reach * size)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((size, size))
    sources = np.clip(np.arange(size)[:, None] + offsets, 0, size - 1)
    np.add.at(matrix, (np.arange(size)[:, None], sources), kernel / kernel.sum())
    return matrix


def noise(std: Scalar = 0.05) -> Part:
    """Gaussian noise: add `N(0, std^2)` to each element.

    Args:
        std: its standard deviation, in the units of the image; at least 0.

    Returns:
        A transform, of an input of any shape.

    Raises:
        ValueError: `std` is below 0.
        TypeError: it is not a number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> bool(dreaming.noise(0.1)(jax.random.key(0), jnp.zeros((50, 50))).std() > 0.09)
        True
    """
    return Part(_noise, (), (_checks.check_number("std", std, at_least=0),))


def _noise(key: jax.Array, image: jax.Array, std: jax.Array) -> jax.Array:
    return image + std.astype(image.dtype) * draw_wide(jax.random.normal, key, image.shape, image.dtype)


def standard_transforms(shape: tuple[int, ...]) -> tuple[Part, ...]:
    """Standard transforms of feature visualization: pad, jitter, scale, rotate, jitter.

    For 224 pixels: a border of 12, shifts of up to 8, a factor from 0.9 to 1.1, up to 10 degrees, and shifts
    of up to 4. For other sizes in proportion, at least one pixel.

    Args:
        shape: `(h, w)` or `(h, w, c)`.

    Returns:
        A tuple of five transforms.

    Raises:
        ValueError: it is not the shape of an image.

    References:
        Olah, Mordvintsev and Schubert, "Feature visualization", Distill, 2017, doi:10.23915/distill.00007.

    Example:
        >>> from jaxnn import dreaming
        >>> len(dreaming.standard_transforms((28, 28)))
        5
    """
    shape = _checks.check_sizes("shape", shape)
    check_is_image(shape, "the standard transforms")
    border, far, near = (max(1, math.ceil(pixels * min(shape[:2]) / 224)) for pixels in (12, 8, 4))
    return (pad(border), jitter(far), scale(), rotate(), jitter(near))


def _check_fill(fill: Scalar | None) -> Fill:
    return None if fill is None else _checks.check_number("fill", fill)


@jax.ensure_compile_time_eval()
def _check_range(low: Scalar, high: Scalar, *, above: float | None = None) -> tuple[jax.Array, jax.Array]:
    least, most = _checks.check_number("low", low, above=above), _checks.check_number("high", high)
    if _checks.known_false(least <= most):
        raise ValueError(f"`low` must not be above `high`; got {float(least):g} and {float(most):g}")
    return least, most


def _image_shape(image: jax.Array) -> tuple[int, int]:
    check_is_image(image.shape, "this transform of images")
    return image.shape[0], image.shape[1]


def _uniform(key: jax.Array, image: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """A uniform random number, at least in float32, since pixel positions are computed from it."""
    dtype = wide_dtype(image.dtype)
    low, high = low.astype(dtype), high.astype(dtype)
    return low + (high - low) * jax.random.uniform(key, (), dtype)
