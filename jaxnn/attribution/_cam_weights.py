"""The weightings of class activation maps: from a layer's values and gradients to one map.

Values and gradients have the channels last, `(positions..., channels)`, and so have products of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch

_SMALL = 1e-7  # relative to the largest sum of a channel: what a quotient by a sum is stabilized by


class Maps(NamedTuple):
    """A layer at one example.

    Attributes:
        value: `(positions..., channels)`, in at least float32, for its sums.
        gradient: of the target output, of the same shape.
        output: the target output for another value of the layer, of the same shape.
        masked: the target output for the example times a mask, `(positions...)`, resized to it and scaled to
            [0, 1].
        batch: how many channels to evaluate at once.
    """

    value: jax.Array
    gradient: jax.Array
    output: Callable[[jax.Array], jax.Array]
    masked: Callable[[jax.Array], jax.Array]
    batch: Batch

    def over_positions(self, reduce: Callable[..., jax.Array], values: jax.Array) -> jax.Array:
        """A sum or a mean over all positions, `(channels,)`."""
        return reduce(values, axis=tuple(range(values.ndim - 1)))


def gradcam(maps: Maps) -> jax.Array:
    """`sum_k mean(g_k) A_k`."""
    return maps.value @ maps.over_positions(jnp.mean, maps.gradient)


def gradcam_plus_plus(maps: Maps) -> jax.Array:
    """`sum_k (sum_ij alpha_ijk max(g_ijk, 0)) A_k`, with `alpha = g^2 / (2 g^2 + sum(A_k) g^3)`.

    Divided by `g^2`, so that no power of a small gradient underflows.
    """
    g = maps.gradient
    divisor = 2 + maps.over_positions(jnp.sum, maps.value) * g
    alpha = jnp.where(g != 0, 1 / jnp.where(divisor == 0, 1, divisor), 0)
    return maps.value @ maps.over_positions(jnp.sum, alpha * jax.nn.relu(g))


def xgradcam(maps: Maps) -> jax.Array:
    """`sum_k (sum_ij g_ijk A_ijk / sum(A_k)) A_k`: the values of a channel weight its gradients."""
    sums = maps.over_positions(jnp.sum, maps.value)
    sizes = maps.over_positions(jnp.sum, jnp.abs(maps.value))
    weighted = maps.over_positions(jnp.sum, maps.gradient * maps.value)
    known = jnp.abs(sums) > _SMALL * jnp.max(sizes)
    return maps.value @ jnp.where(known, weighted / jnp.where(known, sums, 1), 0)


def layercam(maps: Maps) -> jax.Array:
    """`sum_k max(g_k, 0) A_k`, by position."""
    return jnp.sum(jax.nn.relu(maps.gradient) * maps.value, axis=-1)


def hirescam(maps: Maps) -> jax.Array:
    """`sum_k g_k A_k`, by position."""
    return jnp.sum(maps.gradient * maps.value, axis=-1)


def eigencam(maps: Maps) -> jax.Array:
    """The projection of the values, less the mean of each channel, to their first principal component."""
    rows = maps.value.reshape(-1, maps.value.shape[-1])
    mean = rows.mean(axis=0)
    *_, components = jnp.linalg.svd(rows - mean, full_matrices=False)
    map_ = (rows - mean) @ components[0]
    # Its sign is arbitrary: high where the channels are.
    sign = jnp.where(jnp.sum(map_ * rows.sum(axis=1)) < 0, -1, 1)
    return (sign * map_).reshape(maps.value.shape[:-1])


def ablationcam(maps: Maps) -> jax.Array:
    """`sum_k ((f - f_k) / f) A_k`, where `f_k` is the output with channel `k` set to 0."""
    output = maps.output(maps.value)

    def without(channel: jax.Array) -> jax.Array:
        return maps.output(jnp.where(jnp.arange(maps.value.shape[-1]) == channel, 0, maps.value))

    return maps.value @ ((output - _by_channel(without, maps)) / output)


def scorecam(maps: Maps) -> jax.Array:
    """`sum_k softmax_k(f(x * M_k)) A_k`, where `M_k` is channel `k` resized to `x` and scaled to [0, 1]."""
    scores = _by_channel(lambda channel: maps.masked(maps.value[..., channel]), maps)
    return maps.value @ jax.nn.softmax(scores)


def _by_channel(function: Callable[[jax.Array], jax.Array], maps: Maps) -> jax.Array:
    """A function of the index of a channel, for all of them, `(channels,)`."""
    size = maps.batch.size(jax.make_jaxpr(function)(jnp.array(0)))
    found: jax.Array = chunked_map(function, maps.value.shape[-1], size)
    return found


WEIGHTINGS: dict[str, Callable[[Maps], jax.Array]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "hirescam": hirescam,
    "eigencam": eigencam,
    "ablationcam": ablationcam,
    "scorecam": scorecam,
}
