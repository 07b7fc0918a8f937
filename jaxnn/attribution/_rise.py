"""Attribution by random masks."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import chunked_scan
from jaxnn._model import broadcast_like, prepare, scalar
from jaxnn.attribution._estimate import Estimate, merge, no_samples, standard_error, wide
from jaxnn.attribution._gradient import Model, Target


def rise(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    key: jax.Array,
    n_samples: int = 4000,
    grid: int | tuple[int, ...] = 7,
    probability: float = 0.5,
    axes: tuple[int, ...] | None = None,
    baseline: Any = 0.0,
    batch_size: int = 64,
    with_error: bool = False,
) -> Any:
    """How high the answer is while an entry is visible, on average over random masks.

    `a_i = 1 / (N p) * sum_k m_ki f(m_k * x + (1 - m_k) * baseline)`. A mask is a coarse grid of ones, with
    probability p, and zeros, enlarged by linear interpolation and shifted at random by less than a cell.

    Args:
        model: a callable of one example.
        x: the example, one array.
        target: an output index, None, or a function; see `saliency`. Best a probability: a mask counts
            as much as the answer is high.
        key: a random key; mask i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: N, the number of masks, at least 1.
        grid: cells along each masked axis, one integer or one an axis.
        probability: p, in (0, 1), that a cell is visible.
        axes: the axes of `x` that the masks lie over; all others are masked alike, such as the channels of an
            image. None: the first two, height and width, or the only one.
        baseline: what a masked entry becomes: a number, or of the shape of `x`.
        batch_size: how many masked examples are evaluated at once. The answer does not depend on it.
        with_error: whether to give the standard error too, which takes 2 samples.

    Returns:
        Of the shape of `x`, in units of the output; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` is not callable, `x` is no array, `key` is no key, or an argument is of another
            type.
        ValueError: an axis, index, number or size that does not fit.

    References:
        Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018,
        arXiv:1806.07421, equation 6.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> corner = lambda image: image[:4, :4].mean()
        >>> seen = attribution.rise(corner, jnp.ones((8, 8)), key=jax.random.key(0), grid=2, n_samples=500)
        >>> bool(seen[0, 0] > seen[7, 7])
        True
    """
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=2 if with_error else 1)
    _checks.check_key("key", key)
    probability = _checks.check_real("probability", probability)
    if not 0 < probability < 1:
        raise ValueError(f"`probability` must lie between 0 and 1; got {probability}")
    model, x, target = prepare(model, x, target, differentiable=False)
    if not isinstance(x, jax.Array) or x.ndim == 0:
        raise TypeError("`x` must be one array of at least one axis, for masks to lie over")
    axes, grid = _check_axes(axes, grid, x)
    baseline = broadcast_like("baseline", baseline, x)
    return _rise(
        model, x, target, baseline, key, probability,
        axes=axes, grid=grid, n_samples=n_samples, batch_size=batch_size, with_error=bool(with_error),
    )  # fmt: skip


def _check_axes(axes: Any, grid: Any, x: jax.Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if axes is None:
        axes = tuple(range(min(2, x.ndim)))
    if not isinstance(axes, Sequence) or not axes:
        raise TypeError(f"`axes` must be a tuple of integers; got {axes!r}")
    given = tuple(_checks.check_integer("axes", axis, at_least=-x.ndim) for axis in axes)
    axes = tuple(axis % x.ndim for axis in given)
    if any(axis >= x.ndim for axis in given) or len(set(axes)) < len(axes):
        raise ValueError(f"`axes` must be different axes of `x`, of shape {x.shape}; got {given}")
    cells = _checks.check_sizes("grid", grid if isinstance(grid, Sequence) else (grid,) * len(axes))
    if len(cells) != len(axes) or any(n > x.shape[axis] for n, axis in zip(cells, axes, strict=True)):
        raise ValueError(
            f"`grid` must have for each of the axes {axes} of `x`, of shape {x.shape}, at most its size; "
            f"got {grid!r}"
        )
    return axes, cells


@jax.jit(static_argnames=("axes", "grid", "n_samples", "batch_size", "with_error"))
def _rise(
    model: Any, x: jax.Array, target: Any, baseline: jax.Array, key: jax.Array, probability: float,
    *, axes: tuple[int, ...], grid: tuple[int, ...], n_samples: int, batch_size: int, with_error: bool,
) -> Any:  # fmt: skip
    f = scalar(model, target)
    sizes = tuple(x.shape[axis] for axis in axes)
    shape = tuple(size if axis in axes else 1 for axis, size in enumerate(x.shape))

    def sample(index: jax.Array) -> jax.Array:
        mask = _mask(jax.random.fold_in(key, index), sizes, grid, probability, x.dtype)
        mask = jnp.transpose(mask, sorted(range(len(axes)), key=axes.__getitem__)).reshape(shape)
        answer = wide(f(mask * x + (1 - mask) * baseline))
        return mask.astype(answer.dtype) * answer / probability

    def several(moments: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, None]:
        return merge(moments, jax.vmap(sample)(indices), valid), None

    start = no_samples(shape, wide(f(x)).dtype)
    moments, _ = chunked_scan(several, start, n_samples, batch_size)
    everywhere = lambda values: jnp.broadcast_to(values, x.shape).astype(x.dtype)  # noqa: E731
    if with_error:
        return Estimate(everywhere(moments.mean), everywhere(standard_error(moments)))
    return everywhere(moments.mean)


def _mask(
    key: jax.Array, sizes: tuple[int, ...], grid: tuple[int, ...], probability: float, dtype: Any
) -> jax.Array:
    """One mask, of shape `sizes`, with entries in [0, 1]."""
    for_cells, *for_shifts = jax.random.split(key, 1 + len(sizes))
    mask = jax.random.bernoulli(for_cells, probability, grid).astype(dtype)
    for size, cells, one in zip(sizes, grid, for_shifts, strict=True):
        cell = math.ceil(size / cells)
        shift = jax.random.randint(one, (), 0, cell)
        weights = lax.dynamic_slice_in_dim(jnp.asarray(_enlarging(cells, cell), dtype), shift, size)
        # Takes the first axis away and puts the enlarged one last: after all, they are in order again.
        mask = jnp.tensordot(mask, weights, axes=(0, 1), precision=lax.Precision.HIGHEST)
    return mask


def _enlarging(cells: int, cell: int) -> np.ndarray:
    """`((cells + 1) * cell, cells)`: linear interpolation between cells' middles, flat outside."""
    rows = (cells + 1) * cell
    middles = np.clip((np.arange(rows) + 0.5) * cells / rows - 0.5, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(middles[:, None] - np.arange(cells)))
