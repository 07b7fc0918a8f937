"""The strongest incoming weights of each unit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnn import _checks
from jaxnn._network import Network
from jaxnn.weights._layers import Layer, layer_index


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
