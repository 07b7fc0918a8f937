"""An adapter from a model of flat inputs to one of images."""

import jax

from jaxnn._model import as_model
from jaxnn._typing import Model, PyTree


def flattened(model: Model) -> jax.tree_util.Partial:
    """Flatten the input: a model of `(n_in,)` as a model of images, flattened row by row.

    Transforms, total variation and frequencies use the neighborhood of pixels: dream for a dense network in
    the shape of its images.

    Args:
        model: a callable of one example `(n_in,)`, such as a `jaxnn.Network`.

    Returns:
        A callable pytree of one example of any shape with `n_in` elements, with the same named intermediates.

    Raises:
        TypeError: `model` is not callable.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.dreaming.flattened(network)(jnp.zeros((28, 28))).shape
        (10,)
    """
    return jax.tree_util.Partial(_call_flat, as_model(model))


def _call_flat(model: Model, x: jax.Array) -> PyTree:
    return model(x.reshape(-1))
