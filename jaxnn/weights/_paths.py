"""Products of inputs and weights: contributions to a unit, and products of kernels along paths."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxnn._network import Dense, Network, check_input
from jaxnn.weights._layers import Layer, layer_index


def contributions(
    network: Network, x: Real[ArrayLike, "... n_in"], *, layer: Layer = -1
) -> Float[Array, "... n_incoming n_units"]:
    """Contributions: input times weight, for each incoming unit and each unit of a layer.

    `c[i, k] = a_i * kernel[i, k]`, where `a` is the input of the layer when the input of the network is `x`.
    The sum over `i`, plus the bias, is the unit's signal before the activation.

    Args:
        network: a `Network`.
        x: `(..., n_in)`, the inputs of the network.
        layer: whose units: an index from 0, negative from the end, or a name such as `"hidden_0"`.

    Returns:
        `(..., n_incoming, n_units)`, where `n_incoming` is the number of inputs of the layer, in units of its
        signal (logits, for the last layer of a classifier).

    Raises:
        ValueError: there is no such layer, or the last axis of `x` is not `n_in`.
        TypeError: `network` is not a `Network`, `x` does not hold real numbers, or `layer` is of another
            type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.weights.contributions(network, [0.5] * 784).shape
        (30, 10)
    """
    index = layer_index("layer", layer, network)
    return _contributions(network.layers[: index + 1], check_input(network, x))


@jax.jit
def _contributions(
    layers: tuple[Dense, ...], x: Float[Array, "... n_in"]
) -> Float[Array, "... n_incoming n_units"]:
    *before, last = layers
    for layer in before:
        x = layer(x)
    # An elementwise product, not a contraction: no matrix unit rounds it to fewer bits.
    return x[..., None] * jnp.broadcast_to(last.kernel, (*x.shape[:-1], *last.kernel.shape))


def path_products(network: Network, start: Layer = 0, stop: Layer = -1) -> Float[Array, "n_incoming n_units"]:
    """Path products: the weights between two layers, multiplied along each path and summed over all paths.

    `kernel_start @ ... @ kernel_stop`, both ends included: element `(i, k)` sums, over every path from
    input `i` of layer `start` to unit `k` of layer `stop`, the product of the weights on it. It is the
    linear map of the network without its activations and biases, a first approximation of its function.

    Args:
        network: a `Network`.
        start: the first layer: an index from 0, negative from the end, or a name such as `"hidden_0"`.
        stop: the last layer, `start` itself or a later one.

    Returns:
        `(n_incoming, n_units)`, the inputs of `start` by the units of `stop`; transposed and reshaped,
        one image per unit.

    Raises:
        ValueError: there is no such layer, or `stop` comes before `start`.
        TypeError: `network` is not a `Network`, or a layer is of another type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 16, 16, 10))
        >>> jaxnn.weights.path_products(network, 0, "hidden_1").shape
        (784, 16)
    """
    first, last = layer_index("start", start, network), layer_index("stop", stop, network)
    if last < first:
        raise ValueError(f"`stop` must be layer `start` or a later one; got {start!r} to {stop!r}")
    return _path_products([layer.kernel for layer in network.layers[first : last + 1]])


@jax.jit
def _path_products(kernels: list[jax.Array]) -> Float[Array, "n_incoming n_units"]:
    # From the last layer back: most networks narrow, so the running product stays smaller.
    product = kernels[-1]
    for kernel in kernels[-2::-1]:
        product = kernel @ product
    return product
