"""Lesions: networks without some of their units or weights."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer

from jaxnn import _checks
from jaxnn._network import Dense, Layer, Network, layer_index
from jaxnn._precision import widen
from jaxnn._typing import Key, Scalar

_PARTS = 4096  # its square is an integer that float32 represents exactly


def lesion(
    network: Network,
    *,
    layer: Layer,
    units: Bool[ArrayLike, "n_units"] | Integer[ArrayLike, "..."] | None = None,
    weights: Bool[ArrayLike, "n_incoming n_units"] | None = None,
) -> Network:
    """Lesion: a copy of a network without some units or some weights of a layer.

    A unit is removed by zeroing its outgoing weights, row `u` of the next layer's kernel. Its bias and
    incoming weights stay. So it contributes exactly nothing under any activation, also one that does not map
    0 to 0, such as the sigmoid. Without any unit of the last hidden layer, the output is that of the output
    biases alone, for every input. Output units have no outgoing weights and cannot be removed. A weight is
    removed by setting it to 0.

    Args:
        network: a `Network`.
        layer: the damaged one: an index from 0, negative from the end, or a name such as `"hidden_0"`.
        units: the units to remove, as a mask `(n_units,)` of booleans (True for removed; it may be
            traced, so that one `jax.vmap` makes many lesions) or as indices, integers `(m,)`, where
            negative ones count from the end and a single integer is one unit.
        weights: the weights of that layer to remove, as a mask `(n_incoming, n_units)` of booleans.

    Returns:
        A `Network` of the same sizes.

    Raises:
        ValueError: there is no such layer; neither `units` nor `weights`, or one of another shape; an index
            out of range (for concrete values; a traced one removes nothing); units of the output layer.
        TypeError: `network` is not a `Network`, `units` are neither booleans nor integers, or `weights`
            are not booleans.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> damaged = jaxnn.weights.lesion(network, layer="hidden_0", units=range(30))
        >>> [round(float(y), 2) for y in damaged([0.5] * 784)[:3]]  # sigmoid of the biases, which are 0
        [0.5, 0.5, 0.5]
    """
    index = layer_index("layer", layer, network)
    name, layers = network.layer_names[index], list(network.layers)
    if units is None and weights is None:
        raise ValueError("`units` or `weights` must be given; got None for both")
    if units is not None:
        if index == len(layers) - 1:
            raise ValueError("`units` must be those of a hidden layer; got `layer` 'output'")
        removed = _units_mask(units, network.sizes[index + 1], name)
        layers[index + 1] = _without(layers[index + 1], removed[:, None])
    if weights is not None:
        weights = _checks.check_array("weights", weights)
        if weights.dtype != bool:
            raise TypeError(f"`weights` must be a mask of booleans; got dtype {weights.dtype}")
        meaning = f"that of the kernel of layer {name!r}"
        _checks.check_shape("weights", weights, layers[index].kernel.shape, meaning)
        layers[index] = _without(layers[index], weights)
    return Network(tuple(layers))


@jax.jit
def _without(layer: Dense, removed: Bool[Array, "#n_in #n_out"]) -> Dense:
    return Dense(jnp.where(removed, 0, layer.kernel), layer.bias, layer.activation)


def _units_mask(
    units: Bool[ArrayLike, "n"] | Integer[ArrayLike, "..."], n: int, name: str
) -> Bool[Array, "n"]:
    """The units to remove as a mask, from a mask or from indices."""
    given: Any = units
    if isinstance(given, range):
        given = list(given[: 2 * n + 1])  # one more than there are indices: one of them is refused
    array = _checks.check_array("units", given)
    if array.dtype == bool:
        _checks.check_shape("units", array, (n,), f"one element per unit of layer {name!r}")
        return array
    if array.size and not jnp.issubdtype(array.dtype, jnp.integer):  # an empty list is an array of floats
        raise TypeError(f"`units` must be a mask of booleans or integer indices; got dtype {array.dtype}")
    if array.ndim > 1:
        raise ValueError(f"`units` must have shape (m,), indices, or ({n},), a mask; got {array.shape}")
    if _checks.is_concrete(array):
        indices = np.asarray(array)
        if not np.all((indices >= -n) & (indices < n)):
            raise ValueError(
                f"`units` must lie from {-n} to {n - 1}, the {n} units of layer {name!r}; "
                f"got {indices.tolist()}"
            )
    if jnp.issubdtype(array.dtype, jnp.unsignedinteger):  # a signed type could make the largest negative
        array = jnp.minimum(array.astype(jax.dtypes.canonicalize_dtype(jnp.uint64)), n)
    # As int: a shorter type may not represent n.
    return jnp.zeros(n, bool).at[array.astype(int)].set(True, mode="drop")


def random_mask(key: Key, shape: int | Sequence[int], fraction: Scalar) -> Bool[Array, "..."]:
    """A random mask with a fraction of its elements True, such as the units or weights for `lesion`.

    Exactly `round(fraction * n)` of the `n` elements are True (half rounds to even; `fraction` has
    JAX's precision, about seven digits in float32), each subset of that size equally likely. With one key,
    the masks of increasing fractions are nested: an element that is True stays True.

    Args:
        key: a JAX random key.
        shape: of the mask: a number of units, or a tuple such as that of a kernel.
        fraction: a number in [0, 1]; it may be traced.

    Returns:
        Booleans of that shape.

    Raises:
        ValueError: `fraction` is outside [0, 1] (for concrete values) or not a single number, or a size is
            below 1.
        TypeError: `key` is not a key, a size is not an integer, or `fraction` is not a number.

    Example:
        >>> import jax, jaxnn
        >>> int(jaxnn.weights.random_mask(jax.random.key(0), 30, 0.2).sum())
        6
    """
    _checks.check_key("key", key)
    sizes = _checks.check_sizes("shape", shape if isinstance(shape, Sequence) else (shape,))
    _checks.check_bytes("shape", 8 * math.prod(sizes))
    return _random_mask(key, _checks.check_number("fraction", fraction, at_least=0, at_most=1), shape=sizes)


@jax.jit(static_argnames=("shape",))
def _random_mask(key: Key, fraction: Float[Array, ""], *, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    n = math.prod(shape)
    return (jax.random.permutation(key, n) < _count(fraction, n)).reshape(shape)


def _count(fraction: Float[Array, ""], n: int) -> Integer[Array, ""]:
    """`round(fraction * n)`, also where a float represents neither `n` nor the product."""
    fraction = widen(fraction)
    coarse = jnp.floor(fraction * _PARTS)  # the fraction in 4096ths, and a remainder of less than one
    remainder = fraction - coarse / _PARTS
    high, low = divmod(n, _PARTS)
    return coarse.astype(int) * high + jnp.round(coarse * low / _PARTS + remainder * n).astype(int)
