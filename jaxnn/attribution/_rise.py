"""RISE: attribution by random masks."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxnn import _checks
from jaxnn._model import broadcast_like, prepare, scalar
from jaxnn._precision import float_dtype, widen
from jaxnn._typing import Key, Model, PyTree, Target
from jaxnn.attribution._accumulate import Sampling, check_sampling, estimate
from jaxnn.attribution._masks import like_floats


def rise(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    key: Key,
    n_samples: int = 4000,
    grid: int | tuple[int, ...] = 7,
    probability: float = 0.5,
    axes: tuple[int, ...] | None = None,
    baseline: PyTree = 0.0,
    batch_size: int | None = None,
    with_error: bool = False,
) -> PyTree:
    """RISE: the mean output while an element is visible, over random masks.

    `a_i = 1 / (N p) * sum_k m_ki f(m_k * x + (1 - m_k) * baseline)`. A mask is a coarse grid of ones, with
    probability p, and zeros, upsampled by linear interpolation and shifted at random by less than a cell.
    For integers and booleans each element takes the value of its cell, without interpolation.

    Args:
        model: a callable of one example.
        x: the example, one array.
        target: an output index, None, or a function; see `saliency`. Preferably a probability: the output is
            the weight of the mask.
        key: a random key; mask i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: N, the number of masks, at least 1.
        grid: cells along each masked axis: one integer, or one per axis.
        probability: p, in (0, 1), that a cell is visible.
        axes: the axes of `x` that the masks extend over; along all others a mask is constant, such as the
            channels of an image. None: the first two, height and width, or the only one.
        baseline: the value of a masked element: a number, or of the shape of `x`.
        batch_size: how many masked examples are evaluated at once. None: at most 64, as in
            `integrated_gradients`. The result does not depend on it.
        with_error: whether to return the standard error too, which takes 2 samples.

    Returns:
        Of the shape of `x`, in units of the output; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` is not callable, `x` is not an array, `key` is not a key, or an argument is of
            another type.
        ValueError: an axis, index, number or size that does not fit.

    References:
        Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018,
        arXiv:1806.07421, equation 6.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> corner = lambda image: image[:4, :4].mean()
        >>> values = attribution.rise(corner, jnp.ones((8, 8)), key=jax.random.key(0), grid=2, n_samples=500)
        >>> bool(values[0, 0] > values[7, 7])
        True
    """
    sampling = check_sampling(key, n_samples, batch_size, 64, with_error=with_error)
    probability = _checks.check_real("probability", probability, above=0, below=1)
    model, x, target = prepare(model, x, target, differentiable=False)
    if not isinstance(x, jax.Array) or x.ndim == 0:
        raise TypeError("`x` must be one array of at least one axis, for masks to extend over")
    axes, grid = check_grid(axes, grid, x)
    baseline = broadcast_like("baseline", baseline, x)
    return _rise(model, x, target, baseline, key, probability, axes=axes, grid=grid, sampling=sampling)


def check_grid(
    axes: tuple[int, ...] | None, grid: int | tuple[int, ...], x: jax.Array
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of `x` that a grid divides, and its number of cells along each; or raise."""
    axes = tuple(range(min(2, x.ndim))) if axes is None else axes
    if not isinstance(axes, Sequence) or not axes:
        raise TypeError(f"`axes` must be a tuple of integers; got {axes!r}")
    signed = tuple(_checks.check_integer("axes", axis, at_least=-x.ndim) for axis in axes)
    axes = tuple(axis % x.ndim for axis in signed)
    if any(axis >= x.ndim for axis in signed) or len(set(axes)) < len(axes):
        raise ValueError(f"`axes` must be different axes of `x`, of shape {x.shape}; got {signed}")
    cells = _checks.check_sizes("grid", grid if isinstance(grid, Sequence) else (grid,) * len(axes))
    if len(cells) != len(axes) or any(n > x.shape[axis] for n, axis in zip(cells, axes, strict=True)):
        raise ValueError(
            f"`grid` must have for each of the axes {axes} of `x`, of shape {x.shape}, at most its size; "
            f"got {grid!r}"
        )
    return axes, cells


@jax.jit(static_argnames=("axes", "grid", "sampling"))
def _rise(
    model: Model, x: jax.Array, target: Target, baseline: jax.Array, key: Key, probability: float,
    *, axes: tuple[int, ...], grid: tuple[int, ...], sampling: Sampling,
) -> PyTree:  # fmt: skip
    f = scalar(model, target)
    smooth = jnp.issubdtype(x.dtype, jnp.floating)
    dtype = float_dtype(x.dtype)
    sizes = tuple(x.shape[axis] for axis in axes)
    shape = tuple(size if axis in axes else 1 for axis, size in enumerate(x.shape))

    def sample(index: jax.Array) -> jax.Array:
        mask = _mask(jax.random.fold_in(key, index), sizes, grid, probability, dtype, smooth=smooth)
        mask = jnp.transpose(mask, sorted(range(len(axes)), key=axes.__getitem__)).reshape(shape)
        masked = mask * x + (1 - mask) * baseline if smooth else jnp.where(mask > 0, x, baseline)
        output = widen(f(masked))
        return mask.astype(output.dtype) * output / probability

    return estimate(sample, sampling, lambda values: jnp.broadcast_to(like_floats(values, x), x.shape))


def _mask(
    key: Key,
    sizes: tuple[int, ...],
    grid: tuple[int, ...],
    probability: float,
    dtype: DTypeLike,
    *,
    smooth: bool,
) -> jax.Array:
    """One mask, of shape `sizes`, with elements in [0, 1]; where not `smooth`, 0 or 1."""
    cells_key, *shift_keys = jax.random.split(key, 1 + len(sizes))
    mask = jax.random.bernoulli(cells_key, probability, grid).astype(dtype)
    for size, cells, shift_key in zip(sizes, grid, shift_keys, strict=True):
        cell = math.ceil(size / cells)
        shift = jax.random.randint(shift_key, (), 0, cell)
        upsampling = _upsampling(cells, cell) if smooth else _nearest(cells, cell)
        weights = lax.dynamic_slice_in_dim(jnp.asarray(upsampling, dtype), shift, size)
        # Contracts the first axis and appends the upsampled one: after all axes, the order is restored.
        mask = jnp.tensordot(mask, weights, axes=(0, 1), precision=lax.Precision.HIGHEST)
    return mask


def _upsampling(cells: int, cell: int) -> np.ndarray:
    """`((cells + 1) * cell, cells)`: linear interpolation between the centers of cells, constant outside."""
    rows = (cells + 1) * cell
    centers = np.clip((np.arange(rows) + 0.5) * cells / rows - 0.5, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(centers[:, None] - np.arange(cells)))


def _nearest(cells: int, cell: int) -> np.ndarray:
    """`((cells + 1) * cell, cells)`: 1 at the cell of each row; past the last cell, the first again."""
    return np.eye(cells)[np.arange((cells + 1) * cell) // cell % cells]
