"""Objectives of single units and channels.

An objective is called as `objective(output, values)`: the model's output and its named intermediates, as
`jaxnn.capture` returns them. Objectives add, subtract and scale, as in
`neuron("hidden_0", 3) - 0.5 * layer("hidden_0")`; a plain function of the two arguments is one, too. An index
may be traced, and `jax.vmap` may map over it.
"""

from typing import Any, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn._typing import ProbabilityActivation, PyTree
from jaxnn.dreaming._objective import Objective, Values, check_name, objective_of
from jaxnn.dreaming._part import check_axis, with_channels_last

Index: TypeAlias = ArrayLike
Indices: TypeAlias = tuple[jax.Array, ...]

_SIGNAL = "output_in"  # the name of the signal before the last activation in a `jaxnn.Network`


def logit(index: Index | tuple[Index, ...]) -> Objective:
    """Logit: an element of the output, before its last activation where that has a name.

    It reads the signal `"output_in"` of a `jaxnn.Network`, and the output itself of any model without an
    intermediate of that name and of the output's shape. Such a model should return logits.

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
    return objective_of(_logit, (), _check_indices(index))


def _logit(output: PyTree, values: Values, index: Indices) -> jax.Array:
    return _element(_signals(output, values), index, "output")


def probability(
    index: Index | tuple[Index, ...], *, activation: ProbabilityActivation = "softmax"
) -> Objective:
    """Probability: the probability that the model assigns to an element of its output.

    The softmax over all elements, or the sigmoid of this one, of the signals that `logit` reads.

    Args:
        index: of the output; an integer, traced or not.
        activation: `"softmax"` for mutually exclusive classes, `"sigmoid"` for independent outputs.

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
    _checks.check_option("activation", activation, get_args(ProbabilityActivation))
    return objective_of(_probability, (activation,), _check_indices(index))


def _probability(
    output: PyTree, values: Values, activation: ProbabilityActivation, index: Indices
) -> jax.Array:
    function = jax.nn.softmax if activation == "softmax" else jax.nn.sigmoid
    return _element(function(_signals(output, values)), index, "output")


def neuron(layer: str, index: Index | tuple[Index, ...]) -> Objective:
    """Neuron: one unit, an element of a named intermediate.

    Args:
        layer: a name that `jaxnn.capture` returns.
        index: an integer, or a tuple of one per axis; traced or not.

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
    return objective_of(_neuron, (check_name(layer),), _check_indices(index))


def _neuron(output: PyTree, values: Values, layer: str, index: Indices) -> jax.Array:
    return _element(values[layer], index, layer)


def channel(layer: str, index: Index, *, channel_axis: int = -1) -> Objective:
    """Channel: the mean of one channel of a named intermediate over all positions.

    Args:
        layer: a name that `jaxnn.capture` returns.
        index: of the channel; an integer, traced or not.
        channel_axis: the axis of the layer's channels, an integer: the last in Flax, 0 in Equinox.

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
    return objective_of(_channel, (check_name(layer), check_axis(channel_axis)), _check_indices(index))


def _channel(output: PyTree, values: Values, layer: str, channel_axis: int, index: Indices) -> jax.Array:
    value = with_channels_last(values[layer], channel_axis, layer)
    means = jnp.mean(value, axis=tuple(range(value.ndim - 1)))
    return _element(means, index, layer)


@jax.ensure_compile_time_eval()
def _check_indices(index: Any) -> Indices:
    indices = tuple(
        _checks.check_array("index", axis_index)
        for axis_index in (index if isinstance(index, tuple) else (index,))
    )
    for axis_index in indices:
        if not jnp.issubdtype(axis_index.dtype, jnp.integer) or axis_index.ndim != 0:
            raise TypeError(
                f"`index` must be an integer or a tuple of integers; got {index!r}. "
                "For many, jax.vmap over it"
            )
        if _checks.is_concrete(axis_index) and abs(int(axis_index)) > jnp.iinfo(jnp.int32).max:
            raise ValueError(f"`index` must be that of an element; got {index!r}")
    return tuple(axis_index.astype(jnp.int32) for axis_index in indices)  # 3 and jnp.array(3) compile alike


def _signals(output: PyTree, values: Values) -> jax.Array:
    # An intermediate of another shape belongs to a network inside of the model.
    if _SIGNAL in values and values[_SIGNAL].shape == getattr(output, "shape", None):
        return values[_SIGNAL]
    if not hasattr(output, "shape"):
        raise ValueError(f"`objective` needs a model whose output is an array; got a {type(output).__name__}")
    return output


def _element(value: jax.Array, index: Indices, name: str) -> jax.Array:
    if len(index) != value.ndim:
        raise ValueError(
            f"`index` must hold {value.ndim} integers, for {name!r} of shape {value.shape}; got {len(index)}"
        )
    for axis_index, size in zip(index, value.shape, strict=True):
        # As a Python integer: under tracing, an operation on a concrete array gives a traced one.
        if _checks.is_concrete(axis_index) and not -size <= int(axis_index) < size:
            raise ValueError(
                f"`index` must lie from {-size} to {size - 1}, for {name!r} of shape {value.shape}; "
                f"got {axis_index}"
            )
    value = _checks.check_float_array("objective", value)  # also of counts: an integer cannot be NaN
    return value.at[index].get(mode="fill", fill_value=jnp.nan)
