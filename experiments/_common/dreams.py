"""Dreams of digits: plain and regularized options, an objective, and measures of the images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn
from jaxnn import dreaming

PLAIN: dict[str, Any] = {"parameterization": dreaming.pixel(), "transforms": ()}
BLACK = 0.0  # beyond the edge of a digit


def regularized(mean: jax.Array, *, to_mean: float, smooth: float) -> dict[str, Any]:
    """Options of `jaxnn.dream`: Fourier parameterization, random transforms, and two penalties.

    Args:
        mean: the mean training image, `(h, w)`.
        to_mean: the weight of the mean squared distance from it.
        smooth: the weight of the total variation.
    """
    return {
        "parameterization": dreaming.fourier(),
        "transforms": (
            dreaming.pad(2, fill=BLACK), dreaming.jitter(2, fill=BLACK), dreaming.scale(fill=BLACK),
            dreaming.rotate(fill=BLACK), dreaming.jitter(1, fill=BLACK),
        ),
        "penalties": (dreaming.distance(mean, to_mean), dreaming.total_variation(smooth)),
    }  # fmt: skip


def smoothness(images: jax.Array) -> np.ndarray:
    """The total variation of each image, `(N, h, w) -> (N,)`; lower is smoother."""
    return np.asarray(jax.vmap(dreaming.total_variation())(images))


def surely(index: jax.Array) -> dreaming.Objective:
    """The logit of a class plus five times its log-probability.

    While the class is not predicted, the second term outweighs the penalties. Once it is, the gradient of
    that term vanishes.
    """
    return dreaming.logit(index) + jax.tree_util.Partial(_log_probability, index)


def _log_probability(index: jax.Array, output: jax.Array, values: dict[str, jax.Array]) -> jax.Array:
    if "output_in" in values:  # the dense network, whose outputs are sigmoids
        return 5.0 * jax.nn.log_sigmoid(values["output_in"][index])
    return 5.0 * jax.nn.log_softmax(output)[index]


def dream_each(
    model: Callable[[jax.Array], jax.Array],
    count: int,
    key: jax.Array,
    shape: tuple[int, ...],
    *,
    objective: Callable[[jax.Array], dreaming.Objective] = dreaming.logit,
    **options: Any,
) -> jaxnn.Dream:
    """Dream of `count` outputs at once; `objective` maps an index to its objective."""

    def one(index: jax.Array) -> jaxnn.Dream:
        return jaxnn.dream(model, objective(index), key=key, shape=shape, **options)

    return jax.vmap(one)(jnp.arange(count))
