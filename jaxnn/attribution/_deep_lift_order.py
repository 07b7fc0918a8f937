"""DeepLIFT's multipliers of sorted values: by the ranks of each element on the way between the two runs.

On the straight path from `x0` to `x` an element has one rank after another. It receives the multiplier of
each rank for the fraction of the path on which it has that rank. These add up, since each sorted value is a
continuous, piecewise linear function of the position on the path. They are symmetric in the two runs, and the
gradient where the order is the same.
"""

import jax
import jax.numpy as jnp

from jaxnn._engine.loops import chunked_map
from jaxnn._precision import widen

_PAIRS = 1 << 20  # compared at once, which bounds the memory


def rank_multipliers(multipliers: jax.Array, x: jax.Array, x0: jax.Array, axis: int) -> jax.Array:
    """The multiplier of each element, from those of the sorted values.

    Args:
        multipliers: of the values in ascending order along the axis, equal ones in their own order.
        x: the values in one run.
        x0: those in the other.
        axis: that is sorted.
    """
    rows = [jnp.moveaxis(widen(a), axis, -1).reshape(-1, a.shape[axis]) for a in (multipliers, x, x0)]
    n = x.shape[axis]
    size = max(1, _PAIRS // max(1, x.size))
    by_element = chunked_map(lambda i: jax.vmap(lambda m, v, v0: _multiplier(i, m, v, v0))(*rows), n, size)
    last = jnp.moveaxis(x, axis, -1).shape
    return jnp.moveaxis(by_element.T.reshape(last), -1, axis).astype(multipliers.dtype)


def _multiplier(i: jax.Array, multipliers: jax.Array, x: jax.Array, x0: jax.Array) -> jax.Array:
    """The mean multiplier of the ranks of element `i` of a row, over the path."""
    earlier = jnp.arange(x.size) < i
    below0, below = ((a < a[i]) | ((a == a[i]) & earlier) for a in (x0, x))
    # A difference keeps its sign on the path, or changes it once. One of 0 has the sign of the other run.
    falls, rises = (x0 > x0[i]) & (x < x[i]), (x0 < x0[i]) & (x > x[i])
    passes = falls | rises
    start = jnp.where(x0 == x0[i], below, below0)
    ahead, ahead0 = jnp.where(passes, x - x[i], 1), jnp.where(passes, x0 - x0[i], 0)
    # The halves do not overflow.
    crossing = jnp.where(passes, (ahead0 / 2) / (ahead0 / 2 - ahead / 2), 1)
    order = jnp.argsort(crossing)
    times = jnp.concatenate([jnp.zeros(1, x.dtype), crossing[order], jnp.ones(1, x.dtype)])
    changes = (falls.astype(int) - rises.astype(int))[order]
    ranks = jnp.sum(start) + jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(changes)])
    return jnp.sum(jnp.diff(times) * multipliers[jnp.clip(ranks, 0, x.size - 1)])
