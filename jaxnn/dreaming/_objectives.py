"""Objectives: what of a network is to respond as much as it can.

An objective is called as `objective(output, values)`: the model's output and its named intermediates, as
`jaxnn.capture` gives them. Objectives add, subtract and scale, as in
`neuron("hidden_0", 3) - 0.5 * layer("hidden_0")`; a plain function of the two works as one. An index may be
traced, and `jax.vmap` may run over it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn.dreaming._objective import Objective, Values
from jaxnn.dreaming._part import Part, finite

_SIGNAL = "output_in"  # what a `jaxnn.Network` calls the signal before its last activation


def _objective(function: Callable[..., Any], options: tuple[Any, ...] = (), *values: Any) -> Objective:
    return Objective((Part(function, options, values),), (jnp.asarray(1.0),))


def logit(index: Any) -> Objective:
    """An entry of the output, before its last activation where that has a name.

    The signal `"output_in"` of a `jaxnn.Network`, and the output itself of any model without a value of that
    name and of the output's shape: let that one answer in logits.

    Args:
        index: of the output; an integer, or a tuple of them, traced or not. A traced one that is out of
            range gives NaN.

    Returns:
        An objective.

    Raises:
        TypeError: it is not an integer.
        ValueError: (when called) it is out of range.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import dreaming
        >>> network = jaxnn.init(jax.random.key(0), (4, 3, 2))
        >>> dream = jaxnn.dream(network, dreaming.logit(1), key=jax.random.key(1), shape=(4,), steps=20)
        >>> bool(dream.trace[-1] > dream.trace[0])
        True
    """
    return _objective(_logit, (), _indices(index))


def _logit(output: Any, values: Values, index: Any) -> jax.Array:
    return _entry(_signals(output, values), index, "output")


def probability(index: Any, *, activation: str = "softmax") -> Objective:
    """The probability that the model gives to an entry of its output.

    The softmax over all entries, or the sigmoid of this one, of the signals that `logit` reads.

    Args:
        index: of the output; an integer, traced or not.
        activation: `"softmax"` for classes that exclude each other, `"sigmoid"` for outputs that are
            probabilities each by itself.

    Returns:
        An objective, in [0, 1].

    Raises:
        TypeError: `index` is not an integer.
        ValueError: `activation` is another one; (when called) the index is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.probability(0)(jnp.zeros(4), {}))
        0.25
    """
    _checks.check_option("activation", activation, ("softmax", "sigmoid"))
    return _objective(_probability, (activation,), _indices(index))


def _probability(output: Any, values: Values, activation: str, index: Any) -> jax.Array:
    signals = _signals(output, values)
    shares = jax.nn.softmax(signals) if activation == "softmax" else jax.nn.sigmoid(signals)
    return _entry(shares, index, "output")


def neuron(layer: str, index: Any) -> Objective:
    """One unit: an entry of a named intermediate.

    Args:
        layer: a name that `jaxnn.capture` gives.
        index: an integer, or a tuple of one an axis; traced or not.

    Returns:
        An objective.

    Raises:
        TypeError: `layer` is not a string, or the index not of integers.
        ValueError: (when called) there is no such layer, or the index does not fit it.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.neuron("map", (0, 1))(None, {"map": jnp.arange(4.0).reshape(2, 2)}))
        1.0
    """
    return _objective(_neuron, (_name(layer),), _indices(index))


def _neuron(output: Any, values: Values, layer: str, index: Any) -> jax.Array:
    return _entry(values[layer], index, layer)


def channel(layer: str, index: Any) -> Objective:
    """The mean of one channel, the last axis of a named intermediate, over all its places.

    Args:
        layer: a name that `jaxnn.capture` gives.
        index: of the last axis; an integer, traced or not.

    Returns:
        An objective.

    Raises:
        TypeError: `layer` is not a string, or the index not an integer.
        ValueError: (when called) there is no such layer, or the index does not fit it.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.channel("map", 1)(None, {"map": jnp.arange(8.0).reshape(2, 2, 2)}))
        4.0
    """
    return _objective(_channel, (_name(layer),), _indices(index))


def _channel(output: Any, values: Values, layer: str, index: Any) -> jax.Array:
    means = jnp.mean(values[layer], axis=tuple(range(values[layer].ndim - 1)))
    return _entry(means, index, layer)


def layer(layer: str) -> Objective:
    """The mean of a named intermediate.

    Args:
        layer: a name that `jaxnn.capture` gives.

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
    return _objective(_layer, (_name(layer),))


def _layer(output: Any, values: Values, layer: str) -> jax.Array:
    return jnp.mean(values[layer])


def deepdream(layer: str) -> Objective:
    """The mean of the squares of a named intermediate: whatever the layer sees, it is to see more of it.

    Args:
        layer: a name that `jaxnn.capture` gives.

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
    return _objective(_deepdream, (_name(layer),))


def _deepdream(output: Any, values: Values, layer: str) -> jax.Array:
    return jnp.mean(values[layer] ** 2)


def direction(layer: str, vector: ArrayLike) -> Objective:
    """A named intermediate along a direction of its last axis, the mean over its places.

    `mean_p sum_c a[p, c] * v[c]`.

    Args:
        layer: a name that `jaxnn.capture` gives.
        vector: `(c,)`, an entry a channel.

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
    return _objective(_direction, (_name(layer),), finite("vector", vector))


def _direction(output: Any, values: Values, layer: str, vector: jax.Array) -> jax.Array:
    value = values[layer]
    _checks.check_shape("vector", vector, value.shape[-1:], f"one entry a channel of {layer!r}")
    return jnp.mean(jnp.sum(value * vector.astype(value.dtype), axis=-1))


def matching(layer: str, activations: ArrayLike) -> Objective:
    """How near a named intermediate is to that of another input: feature inversion.

    `-|a - t|^2 / |t|^2`, which is 0 where they are the same.

    Args:
        layer: a name that `jaxnn.capture` gives.
        activations: what the layer is to be, such as `jaxnn.capture(model, image)[1][layer]`.

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
    return _objective(_matching, (_name(layer),), finite("activations", activations))


def _matching(output: Any, values: Values, layer: str, activations: jax.Array) -> jax.Array:
    value = values[layer]
    _checks.check_shape("activations", activations, value.shape, f"that of {layer!r}")
    wanted = activations.astype(value.dtype)
    size = jnp.sum(wanted**2)
    return -jnp.sum((value - wanted) ** 2) / jnp.where(size == 0, 1, size)


def diversity(layer: str, axis: str) -> Objective:
    """How unlike a dream is to those beside it: many ways to please the same unit.

    Minus the mean cosine between a named intermediate of this dream and of each other one. Of a
    convolution's maps the matrices of products of two channels are compared, summed over all places, so
    that the same thing elsewhere in the image is the same.

    The others are those of `jax.vmap(..., axis_name=axis)`:
    `jax.vmap(lambda key: jaxnn.dream(..., key=key), axis_name="dreams")(keys)`.

    Args:
        layer: a name that `jaxnn.capture` gives.
        axis: the name of the axis of dreams.

    Returns:
        An objective, in [-1, 1]; 0 for a single dream. Each dream follows the slope of the sum over all.

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
    return _objective(_diversity, (_name(layer), _name(axis, "axis")))


def _diversity(output: Any, values: Values, layer: str, axis: str) -> jax.Array:
    value = values[layer]
    if value.ndim > 1:
        places = value.reshape(-1, value.shape[-1])
        value = (places.T @ places).ravel()
    # The tiny summand keeps the slope of a length of 0 from being infinite.
    unit = value / jnp.sqrt(jnp.sum(value**2) + jnp.finfo(value.dtype).tiny)
    try:
        everyone = lax.all_gather(unit, axis)
    except NameError as error:
        raise ValueError(
            f"`axis` must be the `axis_name` of a jax.vmap over dreams; there is no {axis!r}"
        ) from error
    cosines = jnp.sum(everyone @ unit) - jnp.sum(unit * unit)
    return -cosines / max(len(everyone) - 1, 1)


def _name(layer: Any, argument: str = "layer") -> str:
    if not isinstance(layer, str):
        raise TypeError(f"`{argument}` must be a string; got {type(layer).__name__} {layer!r}")
    return layer


def _indices(index: Any) -> tuple[jax.Array, ...]:
    given = index if isinstance(index, tuple) else (index,)
    indices = tuple(_checks.check_array("index", each) for each in given)
    for each in indices:
        if not jnp.issubdtype(each.dtype, jnp.integer) or each.ndim != 0:
            raise TypeError(
                f"`index` must be an integer or a tuple of integers; got {index!r}. "
                "For many, jax.vmap over it"
            )
        if _checks.is_concrete(each) and abs(int(each)) > jnp.iinfo(jnp.int32).max:
            raise ValueError(f"`index` must be that of an entry; got {index!r}")
    return tuple(each.astype(jnp.int32) for each in indices)  # 3 and jnp.array(3) compile the same


def _signals(output: Any, values: Values) -> jax.Array:
    # Of another shape, it belongs to a network inside of the model.
    if _SIGNAL in values and values[_SIGNAL].shape == getattr(output, "shape", None):
        return values[_SIGNAL]
    if not hasattr(output, "shape"):
        raise ValueError(f"`objective` needs a model whose output is an array; got a {type(output).__name__}")
    return output


def _entry(value: jax.Array, index: tuple[jax.Array, ...], name: str) -> jax.Array:
    if len(index) != value.ndim:
        raise ValueError(
            f"`index` must hold {value.ndim} integers, for {name!r} of shape {value.shape}; got {len(index)}"
        )
    for each, size in zip(index, value.shape, strict=True):
        # As a Python integer: under tracing, what is computed of a known array is not known.
        if _checks.is_concrete(each) and not -size <= int(each) < size:
            raise ValueError(
                f"`index` must lie from {-size} to {size - 1}, for {name!r} of shape {value.shape}; "
                f"got {each}"
            )
    value = _checks.check_float_array("objective", value)  # of counts, too, as NaN is none
    return value.at[index].get(mode="fill", fill_value=jnp.nan)
