"""Look at the weights themselves: as images, ranked, multiplied by an input, or taken away."""

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn._network import Dense, Network, check_network

__all__ = (
    "TopFeatures", "contributions", "kernel_images", "lesion", "output_images", "path_products",
    "random_mask", "roughness", "top_features",
)  # fmt: skip

_PARTS = 4096  # the square of it is a number that float32 holds
Layer = int | str  # 0 to n - 1, negative from the end, or a name: "hidden_0", ..., "output"
Shape = Sequence[int]


class TopFeatures(NamedTuple):
    """What each unit of a layer likes and dislikes most, strongest first; see `top_features`.

    Attributes:
        liked: `(n_units, k)`, integers: the incoming units with the largest weights.
        disliked: `(n_units, k)`, integers: the incoming units with the smallest weights.
        liked_weights: `(n_units, k)`, their weights, falling.
        disliked_weights: `(n_units, k)`, their weights, rising.
    """

    liked: jax.Array
    disliked: jax.Array
    liked_weights: jax.Array
    disliked_weights: jax.Array


def kernel_images(network: Network, shape: Shape | None = None, *, layer: Layer = 0) -> jax.Array:
    """The incoming weights of each unit of a layer, laid out as an image.

    `images[k] = reshape(kernel[:, k], shape)`: where the unit likes (positive) and dislikes (negative) what
    comes in. `jaxnn.plot.weight_grid` draws them.

    Args:
        network: a `Network`.
        shape: of one image, such as `(28, 28)`; None for a square.
        layer: whose units: an index from 0, negative from the end, or a name such as `"hidden_0"`.

    Returns:
        `(n_units, *shape)`, any real numbers.

    Raises:
        ValueError: no such layer, `shape` does not hold the inputs of the layer, or they make no square
            and `shape` is None.
        TypeError: `network` is not a `Network`, or `shape` or `layer` is of another type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.weights.kernel_images(network).shape
        (30, 28, 28)
    """
    index = _layer_index("layer", layer, network)
    inputs = f"the inputs of layer {network.layer_names[index]!r}"
    shape = _checks.check_image_shape("shape", shape, network.sizes[index], inputs)
    return _images(network.layers[index].kernel, shape=shape)


def output_images(network: Network, shape: Shape | None = None) -> jax.Array:
    """The weights of each output unit onto the last hidden layer, laid out as an image.

    `images[k] = reshape(kernel_output[:, k], shape)`: which hidden units speak for that answer. It is
    `kernel_images` of the layer `"output"`.

    Args:
        network: a `Network`.
        shape: of one image, such as `(5, 6)` for 30 hidden units; None for a square.

    Returns:
        `(n_out, *shape)`, any real numbers.

    Raises:
        ValueError: `shape` does not hold the last hidden layer, or that makes no square and `shape` is None.
        TypeError: `network` is not a `Network`, or `shape` does not hold integers.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.weights.output_images(network, (5, 6)).shape
        (10, 5, 6)
    """
    return kernel_images(network, shape, layer=-1)


@jax.jit(static_argnames=("shape",))
def _images(kernel: jax.Array, *, shape: tuple[int, ...]) -> jax.Array:
    return kernel.T.reshape(kernel.shape[1], *shape)


def top_features(network: Network, k: int, *, layer: Layer = "output") -> TopFeatures:
    """The incoming units that each unit of a layer likes most and dislikes most.

    Liked are the `k` largest weights, `argsort(-kernel[:, u])[:k]`, and disliked the `k` smallest,
    `argsort(kernel[:, u])[:k]`, with a stable sort: of equal weights the lower index comes first, and NaN
    comes last in both. Where fewer than `k` weights are negative, the last of the disliked are positive:
    the weights say so.

    Args:
        network: a `Network`.
        k: how many of each, from 1 to the number of units that come in.
        layer: whose units: an index from 0, negative from the end, or a name such as `"hidden_0"`.

    Returns:
        `TopFeatures(liked, disliked, liked_weights, disliked_weights)`, each `(n_units, k)`.

    Raises:
        ValueError: no such layer, or `k` is below 1 or more than come in.
        TypeError: `network` is not a `Network`, or `k` or `layer` is of another type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> top = jaxnn.weights.top_features(network, 3)
        >>> top.liked.shape, bool((top.liked_weights > top.disliked_weights).all())
        ((10, 3), True)
    """
    index = _layer_index("layer", layer, network)
    k = _checks.check_integer("k", k, at_least=1)
    if k > network.sizes[index]:
        raise ValueError(
            f"`k` must be at most {network.sizes[index]}, the units that come into layer "
            f"{network.layer_names[index]!r}; got {k}"
        )
    return _top_features(network.layers[index].kernel, k=k)


@jax.jit(static_argnames=("k",))
def _top_features(kernel: jax.Array, *, k: int) -> TopFeatures:
    incoming = kernel.T
    # Of the negated weights, not `descending=True`, which would put NaN first.
    liked = jnp.argsort(-incoming, axis=1, stable=True)[:, :k]
    disliked = jnp.argsort(incoming, axis=1, stable=True)[:, :k]
    liked_weights, disliked_weights = (jnp.take_along_axis(incoming, i, axis=1) for i in (liked, disliked))
    return TopFeatures(liked, disliked, liked_weights, disliked_weights)


def contributions(network: Network, x: ArrayLike, *, layer: Layer = -1) -> jax.Array:
    """How much each incoming unit pushes each unit of a layer: input times weight.

    `c[i, k] = a_i * kernel[i, k]`, `a` being what comes into the layer when the network is asked `x`. The
    sum over `i`, plus the bias, is the unit's signal before the activation.

    Args:
        network: a `Network`.
        x: `(..., n_in)`, the inputs of the network.
        layer: whose units: an index from 0, negative from the end, or a name such as `"hidden_0"`.

    Returns:
        `(..., n_incoming, n_units)`, `n_incoming` being the inputs of the layer, in units of its signal
        (logits, for the last layer of a classifier).

    Raises:
        ValueError: no such layer, or the last axis of `x` is not `n_in`.
        TypeError: `network` is not a `Network`, `x` does not hold real numbers, or `layer` is of another
            type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> jaxnn.weights.contributions(network, [0.5] * 784).shape
        (30, 10)
    """
    index = _layer_index("layer", layer, network)
    value = _checks.check_float_array("x", x, network.layers[0].kernel.dtype)
    _checks.check_last_axis("x", value, network.sizes[0], "one entry an input of the network")
    return _contributions(network.layers[: index + 1], value)


@jax.jit
def _contributions(layers: tuple[Dense, ...], x: jax.Array) -> jax.Array:
    *before, last = layers
    for layer in before:
        x = layer(x)
    # A product of elements, not a contraction: no matrix unit rounds it to fewer bits.
    return x[..., None] * jnp.broadcast_to(last.kernel, (*x.shape[:-1], *last.kernel.shape))


def path_products(network: Network, start: Layer = 0, stop: Layer = -1) -> jax.Array:
    """The weights from the inputs of one layer to the units of a later one, multiplied along all paths.

    `kernel_start @ ... @ kernel_stop`, both ends included: entry `(i, k)` sums, over every path from
    input `i` of layer `start` to unit `k` of layer `stop`, the product of the weights on it. It is what the
    network would compute without its activations and biases: a first look, not what it does.

    Args:
        network: a `Network`.
        start: the first layer: an index from 0, negative from the end, or a name such as `"hidden_0"`.
        stop: the last layer, `start` itself or a later one.

    Returns:
        `(n_incoming, n_units)`, the inputs of `start` by the units of `stop`; transposed and reshaped,
        an image for each unit.

    Raises:
        ValueError: no such layer, or `stop` comes before `start`.
        TypeError: `network` is not a `Network`, or a layer is of another type.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 16, 16, 10))
        >>> jaxnn.weights.path_products(network, 0, "hidden_1").shape
        (784, 16)
    """
    first, last = _layer_index("start", start, network), _layer_index("stop", stop, network)
    if last < first:
        raise ValueError(f"`stop` must be layer `start` or a later one; got {start!r} to {stop!r}")
    return _path_products([layer.kernel for layer in network.layers[first : last + 1]])


@jax.jit
def _path_products(kernels: list[jax.Array]) -> jax.Array:
    # From the last layer back: most networks narrow, so the product that is carried stays the smaller one.
    product = kernels[-1]
    for kernel in kernels[-2::-1]:
        product = kernel @ product
    return product


def lesion(
    network: Network, *, layer: Layer, units: ArrayLike | None = None, weights: ArrayLike | None = None
) -> Network:
    """Damage a network: a new one without some units or some weights of a layer.

    A unit is removed by what it says: its outgoing weights, row `u` of the next layer's kernel, become 0.
    Its bias and incoming weights stay. So it contributes exactly nothing whatever its activation, also
    one that does not map 0 to 0, such as the sigmoid; and without any unit of the last hidden layer the
    answer is that of the output biases alone, for every input. Output units say nothing to a next layer and
    cannot be removed. A weight is removed by becoming 0.

    Args:
        network: a `Network`.
        layer: the damaged one: an index from 0, negative from the end, or a name such as `"hidden_0"`.
        units: the units to remove, as a mask `(n_units,)` of booleans (True for removed; it may be
            traced, so that `jax.vmap` damages in many ways at once) or as indices, integers `(m,)`, where
            negative ones count from the end and a single integer is one unit.
        weights: the weights of that layer to remove, as a mask `(n_incoming, n_units)` of booleans.

    Returns:
        A `Network` of the same sizes.

    Raises:
        ValueError: no such layer; neither `units` nor `weights`, or one of another shape; an index out of
            range (where it is known, not traced; a traced one removes nothing); units of the output layer.
        TypeError: `network` is not a `Network`, `units` are neither booleans nor integers, or `weights`
            are no booleans.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> damaged = jaxnn.weights.lesion(network, layer="hidden_0", units=range(30))
        >>> [round(float(y), 2) for y in damaged([0.5] * 784)[:3]]  # sigmoid of the biases, which are 0
        [0.5, 0.5, 0.5]
    """
    index = _layer_index("layer", layer, network)
    name = network.layer_names[index]
    if units is None and weights is None:
        raise ValueError("`units` or `weights` must be given; got None for both")
    if units is not None:
        if index == len(network.layers) - 1:
            raise ValueError("`units` must be those of a hidden layer; got `layer` 'output'")
        units = _units_mask(units, network.sizes[index + 1], name)
    if weights is not None:
        weights = _checks.check_array("weights", weights)
        if weights.dtype != bool:
            raise TypeError(f"`weights` must be a mask of booleans; got dtype {weights.dtype}")
        shape = network.layers[index].kernel.shape
        _checks.check_shape("weights", weights, shape, f"that of the kernel of layer {name!r}")
    return _lesion(network, units, weights, index=index)


@jax.jit(static_argnames=("index",))
def _lesion(network: Network, units: jax.Array | None, weights: jax.Array | None, *, index: int) -> Network:
    layers = list(network.layers)
    if weights is not None:
        layers[index] = _without(layers[index], weights)
    if units is not None:
        layers[index + 1] = _without(layers[index + 1], units[:, None])
    return Network(tuple(layers))


def _without(layer: Dense, removed: jax.Array) -> Dense:
    return Dense(jnp.where(removed, 0, layer.kernel), layer.bias, layer.activation)


def roughness(images: ArrayLike) -> jax.Array:
    """How rough an image is: about 1 for white noise, near 0 for a smooth one, whatever its scale.

    Geary's ratio over the pixels that touch with an edge: the mean squared difference of the `n` pairs of
    neighbors over twice the variance of the `N` pixels,

    `r = sum_pairs (p_i - p_j)^2 / n / (2 * sum_i (p_i - mean)^2 / (N - 1))`.

    Independent pixels give 1 on average, alternating ones almost 2. `roughness(a * image + b)` is that of
    the image: it asks how the weights are laid out, and not how large they are. A constant image has 0.

    Args:
        images: `(..., h, w)`, any finite numbers, with two pixels or more.

    Returns:
        `(...)`, not negative.

    Raises:
        ValueError: `images` are not `(..., h, w)`, or have less than two pixels each.
        TypeError: `images` does not hold real numbers.

    References:
        R. C. Geary, *The contiguity ratio and statistical mapping*, 1954.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> noise = jax.random.normal(jax.random.key(0), (28, 28))
        >>> ramp = jnp.linspace(0.0, 1.0, 28) * jnp.ones((28, 1))
        >>> images = jnp.stack([noise, ramp, 1 - 9 * ramp])
        >>> [round(float(r), 2) for r in jaxnn.weights.roughness(images)]
        [0.95, 0.0, 0.0]
    """
    pixels = _checks.check_float_array("images", images)
    if pixels.ndim < 2 or pixels.shape[-2] * pixels.shape[-1] < 2:
        raise ValueError(f"`images` must have shape (..., h, w), two pixels or more; got {pixels.shape}")
    return _roughness(pixels)


@jax.jit
def _roughness(pixels: jax.Array) -> jax.Array:
    work = pixels.astype(jnp.promote_types(pixels.dtype, jnp.float32))  # sums of many squares
    work = _scaled(work)  # else the sum of the largest numbers would be infinite
    centered = _scaled(work - jnp.mean(work, axis=(-2, -1), keepdims=True))  # else tiny squares would vanish
    down, across = jnp.diff(centered, axis=-2), jnp.diff(centered, axis=-1)
    pairs = math.prod(down.shape[-2:]) + math.prod(across.shape[-2:])
    count = math.prod(pixels.shape[-2:])
    differences = _sum_of_squares(down) + _sum_of_squares(across)
    squares = _sum_of_squares(centered)
    squares = jnp.where(squares == 0, 1, squares)  # of a constant image, whose differences are 0
    return (differences / pairs / (2 * squares / (count - 1))).astype(pixels.dtype)


def _scaled(images: jax.Array) -> jax.Array:
    """Each image over its largest absolute value, which is constant: the ratio does not depend on it."""
    largest = _largest(images)
    images = images * jnp.where(largest > 1, 2.0**-64, 2.0**64)  # a float need not hold 1 / largest
    largest = _largest(images)
    return images / jnp.where(largest == 0, 1, largest)


def _largest(images: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.max(jnp.abs(images), axis=(-2, -1), keepdims=True))


def _sum_of_squares(images: jax.Array) -> jax.Array:
    return jnp.sum(images**2, axis=(-2, -1))


def random_mask(key: jax.Array, shape: int | Shape, share: ArrayLike) -> jax.Array:
    """A random mask with a share of its entries True, such as the units or weights for `lesion`.

    Exactly `round(share * n)` of the `n` entries are True (a half rounds to the even number; `share` is
    taken with the digits that JAX gives it, about seven in float32), each set of that size as likely as
    another. With one key the masks of growing shares hold each other: what is
    removed stays removed.

    Args:
        key: a JAX random key.
        shape: of the mask: a number of units, or a tuple such as that of a kernel.
        share: a number in [0, 1]; it may be traced.

    Returns:
        Booleans of that shape.

    Raises:
        ValueError: `share` is outside [0, 1] (where it is known, not traced) or no single number, or a
            size is below 1.
        TypeError: `key` is no key, a size is not an integer, or `share` is no number.

    Example:
        >>> import jax, jaxnn
        >>> int(jaxnn.weights.random_mask(jax.random.key(0), 30, 0.2).sum())
        6
    """
    _checks.check_key("key", key)
    sizes = _checks.check_sizes("shape", shape if isinstance(shape, Sequence) else (shape,))
    value = _checks.check_float_array("share", share)
    _checks.check_shape("share", value, (), "one number")
    if _checks.known_false((value >= 0) & (value <= 1)):
        raise ValueError(f"`share` must lie in [0, 1]; got {float(value)}")
    return _random_share(key, value, shape=sizes)


@jax.jit(static_argnames=("shape",))
def _random_share(key: jax.Array, share: jax.Array, *, shape: tuple[int, ...]) -> jax.Array:
    n = math.prod(shape)
    return (jax.random.permutation(key, n) < _share_of(share, n)).reshape(shape)


def _share_of(share: jax.Array, n: int) -> jax.Array:
    """`round(share * n)` as an integer, also where a float holds neither `n` nor the product."""
    share = share.astype(jnp.promote_types(share.dtype, jnp.float32))
    coarse = jnp.floor(share * _PARTS)  # the share in 4096ths, and a rest of less than one of them
    rest = share - coarse / _PARTS
    high, low = divmod(n, _PARTS)
    whole, left = coarse.astype(int) * high, coarse * low / _PARTS + rest * n
    return whole + jnp.round(left).astype(int)


def _layer_index(argument: str, layer: Any, network: Any) -> int:
    """The index from 0 of a layer given by index or name."""
    check_network(network)
    names = network.layer_names
    if isinstance(layer, str):
        if layer in names:
            return names.index(layer)
    else:
        try:
            if isinstance(layer, bool):
                raise TypeError("a truth value")
            index = operator.index(layer)
        except TypeError as error:
            raise TypeError(
                f"`{argument}` must be a layer's index or name; got {type(layer).__name__} {layer!r}"
            ) from error
        if -len(names) <= index < len(names):
            return index % len(names)
    listed = ", ".join(f"{name!r} ({i})" for i, name in enumerate(names))
    raise ValueError(f"`{argument}` must be one of {listed}, or negative from the end; got {layer!r}")


def _units_mask(units: Any, n: int, name: str) -> jax.Array:
    """The units to remove as a mask `(n,)`, from a mask or from indices."""
    units = list(units) if isinstance(units, range) else units
    array = _checks.check_array("units", units)
    if array.dtype == bool:
        _checks.check_shape("units", array, (n,), f"one entry a unit of layer {name!r}")
        return array
    # An empty list comes as floats, but is no mistake.
    if array.size and not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"`units` must be a mask of booleans or integer indices; got dtype {array.dtype}")
    if array.ndim > 1:
        raise ValueError(f"`units` must have shape (m,), indices, or ({n},), a mask; got {array.shape}")
    if _checks.is_concrete(units):
        given = np.asarray(units)  # as it came: JAX cuts integers of 64 bits to 32
        if not np.all((given >= -n) & (given < n)):
            raise ValueError(
                f"`units` must lie from {-n} to {n - 1}, the {n} units of layer {name!r}; "
                f"got {given.tolist()}"
            )
    if jnp.issubdtype(array.dtype, jnp.unsignedinteger):
        array = array.astype(jax.dtypes.canonicalize_dtype(jnp.uint64))
        array = jnp.minimum(array, n)  # else the largest would become negative
    array = array.astype(int)  # the bounds may not fit into a shorter integer
    return jnp.zeros(n, bool).at[array].set(True, mode="drop")
