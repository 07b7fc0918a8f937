"""The outputs of a model on a scale without ends, where they are nearest to linear in the input."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._activation import INVERTIBLE_NAMES, activation
from jaxnn._network import Network


def signals(model: Any, x: jax.Array) -> jax.Array:
    """The output before its activation; of a softmax its log odds, and of any other model its output.

    `(...) -> (n_out,)`.
    """
    if not isinstance(model, Network):
        return model(x)
    for layer in model.layers[:-1]:
        x = layer(x)
    last = model.layers[-1]
    signal = last.signal(x)
    if last.activation in INVERTIBLE_NAMES:
        return signal
    if last.activation != "softmax":
        return activation(last.activation).function(signal)
    # log p_j - log (1 - p_j): by the logits of the others, as 1 - p_j may round to 0.
    others = jnp.where(jnp.eye(signal.size, dtype=bool), -jnp.inf, signal[None])
    return signal - jax.nn.logsumexp(others, axis=1)


def requested_signals(model: Any, y: jax.Array) -> jax.Array:
    """The signals of requested outputs, `(n_out,)`."""
    if not isinstance(model, Network):
        return y
    name = model.layers[-1].activation
    inverse = activation("sigmoid" if name == "softmax" else name).inverse
    return y if inverse is None else inverse(y)
