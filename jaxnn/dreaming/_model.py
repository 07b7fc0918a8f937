"""A model of flat inputs as one of images."""

from typing import Any

import jax

from jaxnn._model import as_model


def flattened(model: Any) -> jax.tree_util.Partial:
    """A model of inputs `(n_in,)` as one of images, laid flat row by row.

    Transforms, total variation and frequencies ask what is beside what: dream for a dense network in the
    shape of its images.

    Args:
        model: a callable of one example `(n_in,)`, such as a `jaxnn.Network`.

    Returns:
        A callable pytree of one example of any shape with `n_in` entries, with the same named intermediates.

    Raises:
        TypeError: `model` is not callable.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.dreaming.flattened(network)(jnp.zeros((28, 28))).shape
        (10,)
    """
    return jax.tree_util.Partial(_on_flat, as_model(model))


def _on_flat(model: Any, x: jax.Array) -> Any:
    return model(x.reshape(-1))
