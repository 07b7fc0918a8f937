"""Linear interpolation between pixels, and separable linear maps of an image.

Outside of the image lies `fill`, or, if that is None, the nearest pixel of its edge: the modes
"grid-constant" and "nearest" of `scipy.ndimage`, at `order=1`.
"""

import jax
import jax.numpy as jnp
from jax import lax


def centered(size: int, like: jax.Array) -> jax.Array:
    """Pixel positions along an axis, relative to its middle."""
    return jnp.arange(size, dtype=like.dtype) - (size - 1) / 2


def sample_grid(image: jax.Array, rows: jax.Array, columns: jax.Array, fill: jax.Array | None) -> jax.Array:
    """The image at every pair of a row and a column, which may lie between pixels."""
    height, width = image.shape[:2]
    base = _fill_value(image, fill)
    by_row = _hats(rows, height, fill).astype(image.dtype)
    by_column = _hats(columns, width, fill).astype(image.dtype)
    return apply_separable(by_row, image - base, by_column) + base


def _fill_value(image: jax.Array, fill: jax.Array | None) -> jax.Array:
    return jnp.zeros((), image.dtype) if fill is None else fill.astype(image.dtype)


def _hats(positions: jax.Array, size: int, fill: jax.Array | None) -> jax.Array:
    """Weights of each pixel at each position, `(n_positions, size)`: linear interpolation as a matrix."""
    inside = jnp.clip(positions, 0, size - 1) if fill is None else positions
    places = jnp.arange(size, dtype=inside.dtype)[None]
    return jnp.maximum(1 - jnp.abs(inside[:, None] - places), 0)


def apply_separable(by_row: jax.Array, image: jax.Array, by_column: jax.Array) -> jax.Array:
    """Apply one matrix along the rows, and one along the columns, of each channel."""
    # At full precision: some devices round the factors of a product to ten bits by default.
    high = lax.Precision.HIGHEST
    return jnp.einsum("ah,hw...,bw->ab...", by_row, image, by_column, precision=high)


def sample_points(image: jax.Array, rows: jax.Array, columns: jax.Array, fill: jax.Array | None) -> jax.Array:
    """The image at arbitrary points; `rows` and `columns` have one shape."""
    height, width = image.shape[:2]
    base = _fill_value(image, fill)
    reach = 0 if fill is None else 1  # how far outside of the image a point differs from its edge
    rows, columns = jnp.clip(rows, -reach, height - 1 + reach), jnp.clip(columns, -reach, width - 1 + reach)
    # A border for points outside. Of an odd width: where the images of a batch lie a power of two apart, a
    # processor's cache holds few of their pixels at once, and reading them took eight times as long.
    border = ((1, 1), (1, 2 - width % 2), (0, 0))[: image.ndim]
    bordered = jnp.pad(image - base, border)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, across = (rows - top).astype(image.dtype), (columns - left).astype(image.dtype)
    total = jnp.broadcast_to(base, (*rows.shape, *image.shape[2:]))
    for i, by_row in enumerate((1 - down, down)):
        for j, by_column in enumerate((1 - across, across)):
            weight = (by_row * by_column).reshape(*rows.shape, *(1,) * (image.ndim - 2))
            y, x = jnp.minimum(top + 1 + i, height + 1), jnp.minimum(left + 1 + j, width + 1)
            total += weight * bordered[y.astype(int), x.astype(int)]
    return total
