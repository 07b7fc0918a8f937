"""Objectives of whole layers."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn._typing import PyTree
from jaxnn.dreaming._objective import Objective, Values, check_name, objective_of
from jaxnn.dreaming._part import check_axis, check_finite_array, with_channels_last


def layer(layer: str) -> Objective:
    """Layer: the mean of a named intermediate.

    Args:
        layer: a name that `jaxnn.capture` returns.

    Returns:
        An objective.

    Raises:
        TypeError: `layer` is not a string.
        ValueError: (when called) there is no such layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.layer("hidden_0")(None, {"hidden_0": jnp.array([1.0, 5.0])}))
        3.0
    """
    return objective_of(_layer, (check_name(layer),))


def _layer(output: PyTree, values: Values, layer: str) -> jax.Array:
    return jnp.mean(values[layer])


def deepdream(layer: str) -> Objective:
    """DeepDream: the mean square of a named intermediate, which amplifies every feature that is present.

    Args:
        layer: a name that `jaxnn.capture` returns.

    Returns:
        An objective.

    Raises:
        TypeError: `layer` is not a string.
        ValueError: (when called) there is no such layer.

    References:
        Mordvintsev, Olah and Tyka, "Inceptionism: going deeper into neural networks", 2015.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.deepdream("hidden_0")(None, {"hidden_0": jnp.array([1.0, -3.0])}))
        5.0
    """
    return objective_of(_deepdream, (check_name(layer),))


def _deepdream(output: PyTree, values: Values, layer: str) -> jax.Array:
    return jnp.mean(values[layer] ** 2)


def direction(layer: str, vector: ArrayLike, *, channel_axis: int = -1) -> Objective:
    """Direction: the mean projection of a named intermediate onto a vector of channels.

    `mean_p sum_c a[p, c] * v[c]`.

    Args:
        layer: a name that `jaxnn.capture` returns.
        vector: `(c,)`, one element per channel.
        channel_axis: the axis of the layer's channels, an integer: the last in Flax, 0 in Equinox.

    Returns:
        An objective.

    Raises:
        TypeError: `layer` is not a string, or `vector` not of numbers.
        ValueError: `vector` is not finite; (when called) there is no such layer, or it has another number of
            channels.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.direction("hidden_0", [1, -1])(None, {"hidden_0": jnp.array([1.0, 5.0])}))
        -4.0
    """
    options = check_name(layer), check_axis(channel_axis)
    return objective_of(_direction, options, check_finite_array("vector", vector))


def _direction(output: PyTree, values: Values, layer: str, channel_axis: int, vector: jax.Array) -> jax.Array:
    value = with_channels_last(values[layer], channel_axis, layer)
    _checks.check_shape("vector", vector, value.shape[-1:], f"one element per channel of {layer!r}")
    weights = jnp.broadcast_to(vector.astype(value.dtype), value.shape)
    return jnp.mean(jnp.sum(value * weights, axis=-1))


def matching(layer: str, activations: ArrayLike) -> Objective:
    """Feature inversion: minus the relative squared distance of a named intermediate from given activations.

    `-|a - t|^2 / |t|^2`, which is 0 where they are equal.

    Args:
        layer: a name that `jaxnn.capture` returns.
        activations: the target activations of the layer, such as `jaxnn.capture(model, image)[1][layer]`.

    Returns:
        An objective, at most 0.

    Raises:
        TypeError: `layer` is not a string, or `activations` not of numbers.
        ValueError: `activations` are not finite; (when called) there is no such layer, or it has another
            shape.

    References:
        Mahendran and Vedaldi, "Understanding deep image representations by inverting them", 2015.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.matching("hidden_0", [3.0, 4.0])(None, {"hidden_0": jnp.array([3.0, 9.0])}))
        -1.0
    """
    return objective_of(_matching, (check_name(layer),), check_finite_array("activations", activations))


def _matching(output: PyTree, values: Values, layer: str, activations: jax.Array) -> jax.Array:
    value = values[layer]
    _checks.check_shape("activations", activations, value.shape, f"that of {layer!r}")
    target = activations.astype(value.dtype)
    size = jnp.sum(target**2)
    return -jnp.sum((value - target) ** 2) / jnp.where(size == 0, 1, size)


def diversity(layer: str, axis: str, *, channel_axis: int = -1) -> Objective:
    """Diversity: negative mean cosine similarity to the other dreams of the batch.

    It compares a named intermediate of this dream with that of each other one. Of the maps of a convolution
    it compares the Gram matrices of the channels, summed over all positions, so that a feature counts as the
    same anywhere in the image.

    The batch is that of `jax.vmap(..., axis_name=axis)`:
    `jax.vmap(lambda key: jaxnn.dream(..., key=key), axis_name="dreams")(keys)`.

    Args:
        layer: a name that `jaxnn.capture` returns.
        axis: the name of the batch axis.
        channel_axis: the axis of the layer's channels, an integer: the last in Flax, 0 in Equinox.

    Returns:
        An objective, in [-1, 1]; 0 for a single dream. Each dream follows the gradient of the sum over all.

    Raises:
        TypeError: a name is not a string.
        ValueError: (when called) there is no such layer or axis.

    References:
        Olah, Mordvintsev and Schubert, "Feature visualization", Distill, 2017, doi:10.23915/distill.00007.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> objective = dreaming.diversity("hidden_0", "dreams")
        >>> seen = {"hidden_0": jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])}
        >>> jax.vmap(lambda values: objective(None, values), axis_name="dreams")(seen).tolist()
        [0.0, -0.5, -0.5]
    """
    return objective_of(_diversity, (check_name(layer), check_name(axis, "axis"), check_axis(channel_axis)))


def _diversity(output: PyTree, values: Values, layer: str, axis: str, channel_axis: int) -> jax.Array:
    value = with_channels_last(values[layer], channel_axis, layer)
    if value.ndim > 1:
        positions = value.reshape(-1, value.shape[-1])
        value = (positions.T @ positions).ravel()
    # The tiny summand keeps the gradient of a length of 0 finite.
    unit = value / jnp.sqrt(jnp.sum(value**2) + jnp.finfo(value.dtype).tiny)
    try:
        batch = lax.all_gather(unit, axis)
    except NameError as error:
        raise ValueError(
            f"`axis` must be the `axis_name` of a jax.vmap over dreams; there is no {axis!r}"
        ) from error
    cosines = jnp.sum(batch @ unit) - jnp.sum(unit * unit)
    return -cosines / max(len(batch) - 1, 1)
