"""What the experiments with dreams share: two ways to dream of digits, and what is measured of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn
from experiments._digits import Digits
from jaxnn import dreaming

PLAIN: dict[str, Any] = {"parameterization": dreaming.pixel(), "transforms": ()}
BLACK = 0.0  # beyond the edge of a digit


def regularized(mean: jax.Array, *, to_mean: float, smooth: float) -> dict[str, Any]:
    """Options of `jaxnn.dream`: frequencies, shaken, near the average training image, and smooth.

    Args:
        mean: the average training image, `(h, w)`.
        to_mean: what the mean squared distance from it costs.
        smooth: what the total variation costs.
    """
    return {
        "parameterization": dreaming.fourier(),
        "transforms": (
            dreaming.pad(2, fill=BLACK), dreaming.jitter(2, fill=BLACK), dreaming.scale(fill=BLACK),
            dreaming.rotate(fill=BLACK), dreaming.jitter(1, fill=BLACK),
        ),
        "penalties": (dreaming.distance(mean, to_mean), dreaming.total_variation(smooth)),
    }  # fmt: skip


def average(digits: Digits) -> jax.Array:
    """The average training image of all digits, `(h, w)`."""
    return digits.inputs.mean(axis=0).reshape(digits.image_shape)


def smoothness(images: jax.Array) -> np.ndarray:
    """The total variation of each image, `(N, h, w) -> (N,)`; the lower, the smoother."""
    return np.asarray(jax.vmap(dreaming.total_variation())(images))


def distance_to_nearest(images: jax.Array, digits: Digits) -> np.ndarray:
    """How far each image is from the nearest of all training images, by the root of the summed squares."""
    flat = images.reshape(len(images), -1)
    nearest = jax.lax.map(lambda x: jnp.min(jnp.sum((digits.inputs - x) ** 2, axis=1)), flat)
    return np.sqrt(np.asarray(nearest))


def surely(index: jax.Array) -> dreaming.Objective:
    """The logit of a digit, and five times the logarithm of its probability.

    Of a digit that is not answered yet, the second part outweighs what the penalties ask for; of one that
    is, it has no slope left.
    """
    return dreaming.logit(index) + jax.tree_util.Partial(_log_probability, index)


def _log_probability(index: jax.Array, output: jax.Array, values: dict[str, jax.Array]) -> jax.Array:
    if "output_in" in values:  # the dense network, whose outputs are sigmoids
        return 5.0 * jax.nn.log_sigmoid(values["output_in"][index])
    return 5.0 * jax.nn.log_softmax(output)[index]


def dream_each(
    model: Any,
    count: int,
    key: jax.Array,
    shape: tuple[int, ...],
    *,
    objective: Any = dreaming.logit,
    **options: Any,
) -> jaxnn.Dream:
    """A dream of each output, all at once; `objective` gives that of an index."""

    def one(index: jax.Array) -> jaxnn.Dream:
        return jaxnn.dream(model, objective(index), key=key, shape=shape, **options)

    return jax.vmap(one)(jnp.arange(count))
