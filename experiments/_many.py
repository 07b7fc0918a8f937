"""What the experiments with many networks share: a falling rate, their answers, quartiles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn
from experiments._digits import Digits


def falling_sgd(rate: float, epochs: int, digits: Digits) -> optax.GradientTransformation:
    """Gradient descent whose rate falls to 0 along half a cosine, for batches of ten."""
    steps = epochs * -(-len(digits.inputs) // 10)
    return optax.sgd(optax.cosine_decay_schedule(rate, steps))


def answers_of(stack: jaxnn.Network, inputs: jax.Array) -> np.ndarray:
    """What each network of a stack answers to each input, `(n_networks, N)`; one network at a time."""
    return np.asarray(jax.lax.map(lambda network: jnp.argmax(jaxnn.query(network, inputs), axis=1), stack))


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
