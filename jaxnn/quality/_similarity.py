"""How alike two attributions are: rank correlation, and structural similarity of images."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._precision import widen
from jaxnn._typing import PyTree
from jaxnn.quality._common import flat

_WINDOW = 7  # pixels along each side
_K1, _K2 = 0.01, 0.03


class Similarity(NamedTuple):
    """How alike two attributions of the same shape are.

    Attributes:
        rank_correlation: Spearman's, in [-1, 1]; NaN where one is constant. Elements where both are
            exactly 0 are left out, unless asked for.
        ssim: the structural similarity, in [-1, 1], of two images `(h, w)` or `(h, w, channels)` of at least
            7 by 7 pixels; NaN of other shapes.
    """

    rank_correlation: jax.Array
    ssim: jax.Array


def ranks(values: jax.Array) -> jax.Array:
    """The ranks `(n,)` of a vector, from 1; equal values have the mean of their ranks."""
    # A CPU sorts integers in a quarter of the time of floating-point numbers.
    keys = _sortable(values)
    ordered = lax.sort(keys, is_stable=False)
    below = jnp.searchsorted(ordered, keys, side="left", method="scan_unrolled")
    up_to = jnp.searchsorted(ordered, keys, side="right", method="scan_unrolled")
    return (below + up_to + 1).astype(values.dtype) / 2


def places(values: jax.Array) -> jax.Array:
    """The place `(n,)` of each element of a vector from the smallest; equal ones in their own order."""
    order = stable_order(values)
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype), unique_indices=True)


def stable_order(values: jax.Array) -> jax.Array:
    """The indices of a vector from its smallest value, equal ones in their own order, as `jnp.argsort`.

    Of float32 by two sorts of integers, each of half of the bits and the place: on a CPU in half of the time.
    """
    n = values.size
    if values.dtype != jnp.float32 or n > 2**16:
        return jnp.argsort(values, stable=True)
    keys, index, half = _sortable(values), jnp.arange(n, dtype=jnp.uint32), jnp.uint32(0xFFFF)
    low = lax.sort((keys << 16) | index, is_stable=False) & half
    high = lax.sort((keys[low] & ~half) | index, is_stable=False) & half
    return low[high].astype(jnp.int32)


def _sortable(values: jax.Array) -> jax.Array:
    """Unsigned integers in the order of floating-point numbers of the same width, NaN last."""
    values = jnp.where(values == 0, jnp.zeros_like(values), values)  # -0.0 is 0.0
    values = jnp.where(jnp.isnan(values), jnp.asarray(jnp.nan, values.dtype), values)
    width = jnp.finfo(values.dtype).bits
    bits = lax.bitcast_convert_type(values, jnp.dtype(f"uint{width}"))
    sign = jnp.asarray(1 << (width - 1), bits.dtype)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def pearson(a: jax.Array, b: jax.Array, where: jax.Array | bool = True) -> jax.Array:
    """Pearson's correlation of two vectors, over some of their elements; NaN where one is constant."""
    where = jnp.broadcast_to(where, a.shape)
    count = jnp.maximum(jnp.sum(where), 1).astype(a.dtype)
    constant, centered = [], []
    for values in (a, b):
        low, high = (
            f(values, where=where, initial=end) for f, end in ((jnp.min, jnp.inf), (jnp.max, -jnp.inf))
        )
        constant.append(low >= high)  # also where there is none
        centered.append(jnp.where(where, values - jnp.sum(values, where=where) / count, 0))
    a, b = centered
    squares = jnp.sum(a * a) * jnp.sum(b * b)
    valid = ~constant[0] & ~constant[1] & (squares > 0)
    value = jnp.sum(a * b) / jnp.sqrt(jnp.where(valid, squares, 1))
    return jnp.where(valid, jnp.clip(value, -1, 1), jnp.nan)


def spearman(a: jax.Array, b: jax.Array, where: jax.Array | bool = True) -> jax.Array:
    """Spearman's rank correlation of two vectors, over some of their elements; NaN where one is constant."""
    # The others have the highest ranks, which no other depends on.
    ranks_a, ranks_b = (ranks(jnp.where(where, values, jnp.inf)) for values in (a, b))
    correlation = pearson(ranks_a, ranks_b, where)
    return jnp.where(jnp.any(jnp.isnan(a) | jnp.isnan(b)), jnp.nan, correlation)


def structural_similarity(a: jax.Array, b: jax.Array) -> jax.Array:
    """The mean structural similarity of two images; NaN unless they have 7 by 7 pixels or more.

    `((2 m_a m_b + c1) (2 s_ab + c2)) / ((m_a^2 + m_b^2 + c1) (s_a^2 + s_b^2 + c2))`, with the means,
    variances and the covariance of each window of 7 by 7 pixels, `c1 = (0.01 L)^2`, `c2 = (0.03 L)^2` and L
    the range of the values of both.
    """
    if a.ndim not in (2, 3) or min(a.shape[:2]) < _WINDOW:
        return jnp.full((), jnp.nan, widen(a).dtype)
    a, b = (jnp.atleast_3d(widen(each)) for each in (a, b))
    span = jnp.maximum(a.max(), b.max()) - jnp.minimum(a.min(), b.min())
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    # About a common mean: a difference of two large squares would lose the variance.
    middle = (jnp.mean(a) + jnp.mean(b)) / 2
    ua, ub = a - middle, b - middle
    ma, mb, maa, mbb, mab = (_window_means(each) for each in (ua, ub, ua * ua, ub * ub, ua * ub))
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    va, vb, cov = (unbiased * each for each in (maa - ma * ma, mbb - mb * mb, mab - ma * mb))
    ma, mb = ma + middle, mb + middle
    score = ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return jnp.where(span > 0, jnp.mean(score), jnp.nan)


def _window_means(image: jax.Array) -> jax.Array:
    window = (_WINDOW, _WINDOW, 1)
    return lax.reduce_window(image, 0.0, lax.add, window, (1, 1, 1), "valid") / _WINDOW**2


def scaled(values: PyTree) -> PyTree:
    """Attributions divided by the largest of their absolute values; unchanged where all are 0."""
    largest = jnp.max(jnp.abs(flat(values)))
    largest = jnp.where(largest > 0, largest, 1)
    return jax.tree.map(lambda leaf: (widen(leaf) / largest).astype(leaf.dtype), values)


class Comparison(NamedTuple):
    """The options of a comparison; hashable, as a static argument."""

    absolute: bool = False
    ignore_zeros: bool = True


def check_comparison(absolute: bool, ignore_zeros: bool) -> Comparison:
    """Return the options, or raise."""
    flags = {"absolute": absolute, "ignore_zeros": ignore_zeros}
    return Comparison(*(_checks.check_flag(name, flag) for name, flag in flags.items()))


def similarity(a: PyTree, b: PyTree, how: Comparison) -> Similarity:
    """How alike two attributions are, each divided by the largest of its absolute values."""
    a, b = scaled(a), scaled(b)
    if how.absolute:
        a, b = jax.tree.map(jnp.abs, (a, b))
    one, *others = jax.tree.leaves(a)
    image = jnp.nan if others else structural_similarity(one, jax.tree.leaves(b)[0])
    where = (flat(a) != 0) | (flat(b) != 0) if how.ignore_zeros else True
    return Similarity(spearman(flat(a), flat(b), where), jnp.asarray(image, flat(a).dtype))
