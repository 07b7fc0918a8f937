"""Transforms: an image shaken a little at every step, so that a dream holds for more than one pixel grid.

A transform is called as `transform(key, image)` with an image `(h, w)` or `(h, w, c)`, and gives an image
whose shape depends on that of the first alone. A plain function of the two works as one.

Places between pixels are interpolated linearly. What lies outside of the image is `fill`, or, where that is
None, the nearest pixel of its edge: the modes "grid-constant" and "nearest" of `scipy.ndimage`, at `order=1`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn.dreaming._part import Part, number, ordered

Fill = ArrayLike | None


def jitter(pixels: int, *, fill: Fill = None) -> Part:
    """Shift by a whole number of pixels, drawn for each direction from `-pixels` to `pixels`.

    Args:
        pixels: the farthest shift, at least 0.
        fill: what lies outside of the image, in its units; None for the nearest pixel of its edge.

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
    return Part(_jitter, (_checks.check_integer("pixels", pixels, at_least=0),), (_fill(fill),))


def _jitter(key: jax.Array, image: jax.Array, pixels: int, fill: Any) -> jax.Array:
    height, width = _check_image(image)
    down, across = jnp.floor(jax.random.uniform(key, (2,)) * (2 * pixels + 1)) - pixels
    return _on_grid(image, jnp.arange(height) - down, jnp.arange(width) - across, fill)


def scale(low: ArrayLike = 0.9, high: ArrayLike = 1.1, *, fill: Fill = None) -> Part:
    """Enlarge about the middle, by a factor drawn from `low` to `high`; the shape stays.

    Args:
        low: the smallest factor, above 0; below 1 makes what is seen smaller.
        high: the largest factor.
        fill: what lies outside of the image; None for the nearest pixel of its edge.

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
    smallest, largest = ordered("low", low, "high", high)
    if _checks.known_false(smallest > 0):
        raise ValueError(f"`low` must be above 0; got {float(smallest):g}")
    return Part(_scale, (), (_fill(fill), smallest, largest))


def _scale(key: jax.Array, image: jax.Array, fill: Any, low: Any, high: Any) -> jax.Array:
    factor = _between(key, image, low, high)
    height, width = _check_image(image)
    return _on_grid(image, _centered(height, factor) / factor, _centered(width, factor) / factor, fill, True)


def rotate(low: ArrayLike = -10.0, high: ArrayLike = 10.0, *, fill: Fill = None) -> Part:
    """Turn about the middle, counterclockwise by an angle drawn from `low` to `high`; the shape stays.

    Args:
        low: the smallest angle, in degrees.
        high: the largest angle, in degrees.
        fill: what lies outside of the image; None for the nearest pixel of its edge.

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
    return Part(_rotate, (), (_fill(fill), *ordered("low", low, "high", high)))


def _rotate(key: jax.Array, image: jax.Array, fill: Any, low: Any, high: Any) -> jax.Array:
    angle = jnp.deg2rad(_between(key, image, low, high))
    height, width = _check_image(image)
    down, across = _centered(height, angle)[:, None], _centered(width, angle)[None]
    rows = jnp.cos(angle) * down + jnp.sin(angle) * across + (height - 1) / 2
    columns = jnp.cos(angle) * across - jnp.sin(angle) * down + (width - 1) / 2
    return _anywhere(image, rows, columns, fill)


def pad(pixels: int, *, fill: Fill = None) -> Part:
    """Add a border; `dream` cuts what is larger than the model's image back to its middle at the end.

    Put first, it lets the transforms after it move what they find at the border, and not invent it.

    Args:
        pixels: on each of the four sides, at least 0.
        fill: what the border is of; None for the nearest pixel of the edge.

    Returns:
        A transform that gives an image `2 * pixels` higher and wider.

    Raises:
        ValueError: `pixels` is below 0.
        TypeError: it is not an integer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> dreaming.pad(1, fill=0.5)(jax.random.key(0), jnp.ones((1, 1)))[0].tolist()
        [0.5, 0.5, 0.5]
    """
    return Part(_pad, (_checks.check_integer("pixels", pixels, at_least=0),), (_fill(fill),))


def _pad(key: jax.Array, image: jax.Array, pixels: int, fill: Any) -> jax.Array:
    _check_image(image)
    widths = ((pixels, pixels), (pixels, pixels), (0, 0))[: image.ndim]
    if fill is None:
        return jnp.pad(image, widths, mode="edge")
    return jnp.pad(image, widths, constant_values=fill.astype(image.dtype))


def blur(sigma: float) -> Part:
    """Blur by a Gaussian, cut off at four standard deviations, the edge continued outwards.

    Args:
        sigma: its standard deviation in pixels, above 0.

    Returns:
        A transform; it draws nothing.

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
    sigma = _checks.check_real("sigma", sigma)
    if sigma <= 0:
        raise ValueError(f"`sigma` must be above 0; got {sigma:g}")
    return Part(_blur, (sigma,), ())


def _blur(key: jax.Array, image: jax.Array, sigma: float) -> jax.Array:
    rows, columns = (jnp.asarray(_gaussian(size, sigma), image.dtype) for size in _check_image(image))
    return _both_ways(rows, image, columns)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """The matrix `(size, size)` that blurs a column of pixels."""
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((size, size))
    seen = np.clip(np.arange(size)[:, None] + offsets, 0, size - 1)
    np.add.at(matrix, (np.arange(size)[:, None], seen), kernel / kernel.sum())
    return matrix


def noise(std: ArrayLike = 0.05) -> Part:
    """Add noise from `N(0, std^2)` to each value.

    Args:
        std: its standard deviation, in the units of the image; at least 0.

    Returns:
        A transform; it takes an input of any shape.

    Raises:
        ValueError: `std` is below 0.
        TypeError: it is not a number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> bool(dreaming.noise(0.1)(jax.random.key(0), jnp.zeros((50, 50))).std() > 0.09)
        True
    """
    return Part(_noise, (), (number("std", std, at_least=0),))


def _noise(key: jax.Array, image: jax.Array, std: Any) -> jax.Array:
    return image + std.astype(image.dtype) * jax.random.normal(key, image.shape, image.dtype)


def standard_transforms(shape: tuple[int, ...]) -> tuple[Part, ...]:
    """The transforms that the field uses, in the size of the image: pad, jitter, scale, rotate, jitter.

    For 224 pixels a border of 12, shifts of up to 8, a factor from 0.9 to 1.1, up to 10 degrees, and shifts
    of up to 4; in proportion for others, and at least one pixel.

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
    if len(shape) not in (2, 3):
        raise ValueError(f"`shape` must be that of an image, (h, w) or (h, w, c); got {shape}")
    border, far, near = (max(1, math.ceil(share * min(shape[:2]) / 224)) for share in (12, 8, 4))
    return (pad(border), jitter(far), scale(), rotate(), jitter(near))


def _fill(fill: Fill) -> Any:
    return None if fill is None else number("fill", fill)


def _check_image(image: jax.Array) -> tuple[int, int]:
    if image.ndim not in (2, 3):
        raise ValueError(
            f"`shape` must be (h, w) or (h, w, c) for this transform of images; got {image.shape}"
        )
    return image.shape[0], image.shape[1]


def _between(key: jax.Array, image: jax.Array, low: Any, high: Any) -> jax.Array:
    """A number drawn evenly; at least in single precision, as places of pixels come of it."""
    dtype = jnp.promote_types(image.dtype, jnp.float32)
    drawn = jax.random.uniform(key, (), dtype)
    return low.astype(dtype) + (high - low).astype(dtype) * drawn


def _centered(size: int, like: jax.Array) -> jax.Array:
    return jnp.arange(size, dtype=like.dtype) - (size - 1) / 2


def _on_grid(image: jax.Array, rows: Any, columns: Any, fill: Any, centered: bool = False) -> jax.Array:
    """The image at every pair of a row and a column, which may lie between pixels."""
    height, width = image.shape[:2]
    if centered:
        rows, columns = rows + (height - 1) / 2, columns + (width - 1) / 2
    base = jnp.zeros((), image.dtype) if fill is None else fill.astype(image.dtype)
    by_row = _hats(rows, height, fill).astype(image.dtype)
    by_column = _hats(columns, width, fill).astype(image.dtype)
    return _both_ways(by_row, image - base, by_column) + base


def _hats(places: jax.Array, size: int, fill: Any) -> jax.Array:
    """What each pixel counts at each place, `(n_places, size)`: linear interpolation as a matrix."""
    inside = jnp.clip(places, 0, size - 1) if fill is None else places
    return jnp.maximum(1 - jnp.abs(inside[:, None] - jnp.arange(size)), 0)


def _both_ways(by_row: jax.Array, image: jax.Array, by_column: jax.Array) -> jax.Array:
    """A matrix along the rows, and one along the columns, of each channel."""
    # At full precision: some devices round the factors of a product to ten bits unasked.
    high = lax.Precision.HIGHEST
    return jnp.einsum("ah,hw...,bw->ab...", by_row, image, by_column, precision=high)


def _anywhere(image: jax.Array, rows: jax.Array, columns: jax.Array, fill: Any) -> jax.Array:
    """The image at any places, `rows` and `columns` being of one shape."""
    height, width = image.shape[:2]
    base = jnp.zeros((), image.dtype) if fill is None else fill.astype(image.dtype)
    far = 0 if fill is None else 1  # how far outside of the image it is told from its edge
    rows, columns = jnp.clip(rows, -far, height - 1 + far), jnp.clip(columns, -far, width - 1 + far)
    # A border of what lies outside. Of an odd width: where the images of a batch lie a power of two apart,
    # a processor's cache keeps few of their pixels at once, and reading them took eight times as long.
    border = ((1, 1), (1, 2 - width % 2), (0, 0))[: image.ndim]
    bordered = jnp.pad(image - base, border)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, across = (rows - top).astype(image.dtype), (columns - left).astype(image.dtype)
    total = jnp.broadcast_to(base, (*rows.shape, *image.shape[2:]))
    for i, by_row in enumerate((1 - down, down)):
        for j, by_column in enumerate((1 - across, across)):
            share = (by_row * by_column).reshape(*rows.shape, *(1,) * (image.ndim - 2))
            y, x = jnp.minimum(top + 1 + i, height + 1), jnp.minimum(left + 1 + j, width + 1)
            total += share * bordered[y.astype(int), x.astype(int)]
    return total
