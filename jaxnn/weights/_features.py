"""The strongest weights of each unit, their contributions to its signal, and their products along paths."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Real

from jaxnn import _checks
from jaxnn._network import Dense, Layer, Network, check_input, layer_index
from jaxnn._repr import short_repr


class TopFeatures(NamedTuple):
    """The largest and the smallest incoming weights of each unit of a layer; see `top_features`.

    Attributes:
        liked: `(n_units, k)`, integers: the incoming units with the largest weights.
        disliked: `(n_units, k)`, integers: the incoming units with the smallest weights.
        liked_weights: `(n_units, k)`, their weights, in descending order.
        disliked_weights: `(n_units, k)`, their weights, in ascending order.
    """

    liked: Int[Array, "n_units k"]
    disliked: Int[Array, "n_units k"]
    liked_weights: Float[Array, "n_units k"]
    disliked_weights: Float[Array, "n_units k"]

    def __repr__(self) -> str:
        return short_repr(self)


def top_features(network: Network, k: int, *, layer: Layer = "output") -> TopFeatures:
    """Top features: the `k` largest and the `k` smallest incoming weights of each unit of a layer.

    Liked are the `k` largest weights, `argsort(-kernel[:, u])[:k]`, and disliked the `k` smallest,
    `argsort(kernel[:, u])[:k]`, with a stable sort: of equal weights the lower index comes first, and NaN
    comes last in both. Where fewer than `k` weights are negative, the last of the disliked are positive;
    the returned weights show it.

    Args:
        network: a `Network`.
        k: the number of each, from 1 to the number of incoming units.
        layer: whose units: an index from 0, negative from the end, or a name such as `"hidden_0"`.

    Returns:
        `TopFeatures(liked, disliked, liked_weights, disliked_weights)`, each `(n_units, k)`.

    Raises:
        ValueError: there is no such layer, or `k` is below 1 or above the number of incoming units.
        TypeError: `network` is not a `Network`, or `k` or `layer` is of another type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> top = jaxnn.weights.top_features(network, 3)
        >>> top.liked.shape, bool((top.liked_weights > top.disliked_weights).all())
        ((10, 3), True)
    """
    index = layer_index("layer", layer, network)
    k = _checks.check_integer("k", k, at_least=1)
    if k > network.sizes[index]:
        raise ValueError(
            f"`k` must be at most {network.sizes[index]}, the number of inputs of layer "
            f"{network.layer_names[index]!r}; got {k}"
        )
    return _top_features(network.layers[index].kernel, k=k)


@jax.jit(static_argnames=("k",))
def _top_features(kernel: Float[Array, "n_in n_units"], *, k: int) -> TopFeatures:
    incoming = kernel.T
    # Of the negated weights: `descending=True` would put NaN first.
    liked = jnp.argsort(-incoming, axis=1, stable=True)[:, :k]
    disliked = jnp.argsort(incoming, axis=1, stable=True)[:, :k]
    liked_weights, disliked_weights = (jnp.take_along_axis(incoming, i, axis=1) for i in (liked, disliked))
    return TopFeatures(liked, disliked, liked_weights, disliked_weights)


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
    return functools.reduce(lambda product, kernel: kernel @ product, kernels[::-1])
