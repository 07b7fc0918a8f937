"""Adapters from a model of flat inputs, or of images with channels first, to one of images."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._engine.channel_axis import input_channel_axis
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


class _Moved(NamedTuple):
    """Calls a model with the last axis of its input moved to another place."""

    axis: int

    def __call__(self, model: Model, x: jax.Array) -> PyTree:
        return model(jnp.moveaxis(x, -1, self.axis))


def channels_last(model: Model, axis: int) -> Model:
    """A model whose channels lie on an axis, as one with the channels last."""
    return Partial(_Moved(axis), model)


def check_channel_axis(channel_axis: int | None, model: Model, example: jax.ShapeDtypeStruct) -> int:
    """Return the axis of the channels in an input: the given one, that of the model, or the last."""
    ndim = len(example.shape)
    if channel_axis is not None:
        return _checks.check_axis("channel_axis", channel_axis, ndim, f"`shape`, {example.shape}")
    if ndim != 3:
        return ndim - 1
    found = jax.eval_shape(_channel_axis, model, example)
    return int(*found) if found else ndim - 1


# Jitted, to be traced once for all models of one structure: the key of the result is the axis.
@jax.jit
def _channel_axis(model: Model, x: jax.Array) -> dict[str, None]:
    axis = input_channel_axis(model, x)
    return {} if axis is None else {str(axis): None}
