"""Dense networks as pytrees of parameters: initialization and evaluation."""

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Real

from jaxnn import _activation, _checks
from jaxnn._model import check_leaves
from jaxnn._precision import draw_wide
from jaxnn._repr import short_repr
from jaxnn._rewrite import tap
from jaxnn._typing import ActivationName, Key

Layer = int | str  # 0 to n - 1, negative from the end, or a name: "hidden_0", ..., "output"
Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array, as in jax.nn.initializers

_FAN_IN_NORMAL = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")


@flax.struct.dataclass
class Dense:
    """One layer: `activation(x @ kernel + bias)`.

    Attributes:
        kernel: `(n_in, n_out)`, column `k` holds the weights of unit `k`.
        bias: `(n_out,)`, or None for a layer without one.
        activation: the activation's name; static, not a leaf of the pytree.
    """

    kernel: Float[Array, "n_in n_out"]
    bias: Float[Array, "n_out"] | None
    activation: ActivationName = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def signal(self, x: Float[Array, "... n_in"]) -> Float[Array, "... n_out"]:
        """The signal before the activation: `(..., n_in) -> (..., n_out)`."""
        signal = x @ self.kernel
        return signal if self.bias is None else signal + jnp.broadcast_to(self.bias, signal.shape)

    def __call__(self, x: Float[Array, "... n_in"]) -> Float[Array, "... n_out"]:
        """The layer's output, `(..., n_in) -> (..., n_out)`."""
        return _activation.activation(self.activation).function(self.signal(x))


@flax.struct.dataclass
class Network:
    """A stack of dense layers: a callable pytree, `network(x)`.

    The arrays are its leaves, so a network is an argument of `jax.jit`, `jax.grad` and `jax.tree.map` like
    any other, and a change of the weights does not recompile. Its intermediates are named with
    `jaxnn.tap`: `hidden_0_in` and `hidden_0` (the signal before and after the first activation),
    `hidden_1_in`, ..., `output_in`, `output`.

    Attributes:
        layers: the `Dense` layers, from the input to the output.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (2, 3, 1))
        >>> network.sizes, network([0.5, 0.1]).shape
        ((2, 3, 1), (1,))
    """

    layers: tuple[Dense, ...]

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def sizes(self) -> tuple[int, ...]:
        """`(n_in, ..., n_out)`, the number of inputs, then of the units of each layer."""
        kernels = [layer.kernel for layer in self.layers]
        return (kernels[0].shape[-2], *(kernel.shape[-1] for kernel in kernels))

    def __call__(self, x: Real[ArrayLike, "... n_in"]) -> Float[Array, "... n_out"]:
        """The output, `(..., n_in) -> (..., n_out)`; see `query`."""
        check_network(self)
        value = check_input(self, x)
        for name, layer in zip(self.layer_names, self.layers, strict=True):
            signal = tap(layer.signal(value), f"{name}_in")
            value = tap(_activation.activation(layer.activation).function(signal), name)
        return value

    @property
    def layer_names(self) -> tuple[str, ...]:
        """`("hidden_0", "hidden_1", ..., "output")`, the names of the layers' outputs."""
        return (*(f"hidden_{i}" for i in range(len(self.layers) - 1)), "output")


def init(
    key: Key,
    sizes: Sequence[int],
    *,
    activation: ActivationName = "sigmoid",
    output_activation: ActivationName | None = None,
    use_bias: bool = True,
    kernel_init: Initializer = _FAN_IN_NORMAL,
    bias_init: Initializer = jax.nn.initializers.zeros,
    dtype: DTypeLike = jnp.float32,
) -> Network:
    """Initialize a dense network with random weights.

    By default each weight is drawn from `N(0, 1 / n_in)`, where `n_in` is the number of inputs of its layer,
    and each bias is 0.

    Args:
        key: a JAX random key.
        sizes: `(n_in, ..., n_out)`, the number of inputs, then of the units of each layer; any depth.
        activation: of the hidden layers, one of the names of `jaxnn.activation`.
        output_activation: of the last layer; None for the same as `activation`.
        use_bias: whether the layers have biases.
        kernel_init: an initializer such as those of `jax.nn.initializers`, for kernels `(n_in, n_out)`.
        bias_init: an initializer for biases `(n_out,)`.
        dtype: of the parameters, a floating-point type.

    Returns:
        A `Network`.

    Raises:
        ValueError: fewer than two sizes, one below 1, an unknown activation, a `dtype` of float64 without
            `jax_enable_x64`, or an initializer that returns another shape.
        TypeError: a size is not an integer, `key` is not a key, `dtype` is not floating-point, or an
            initializer returns no numbers.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 200, 10), use_bias=False)
        >>> [layer.kernel.shape for layer in network.layers]
        [(784, 200), (200, 10)]
    """
    _checks.check_key("key", key)
    if not isinstance(sizes, Sequence | np.ndarray) or isinstance(sizes, bytes) or len(sizes) < 2:
        raise ValueError(f"`sizes` must name at least the inputs and the outputs; got {sizes!r}")
    sizes = tuple(_checks.check_integer(f"sizes[{i}]", n, at_least=1) for i, n in enumerate(sizes))
    _checks.check_option("activation", activation, _activation.ACTIVATION_NAMES)
    output_activation = activation if output_activation is None else output_activation
    _checks.check_option("output_activation", output_activation, _activation.ACTIVATION_NAMES)
    dtype = _checks.check_float_dtype("dtype", dtype)
    use_bias = _checks.check_flag("use_bias", use_bias)
    activations = (activation,) * (len(sizes) - 2) + (output_activation,)
    if _checks.is_concrete((key, jnp.zeros(()))):  # otherwise it may be for other machines, or for its shapes
        elements = sum(n_in * n_out for n_in, n_out in itertools.pairwise(sizes))
        _checks.check_bytes("sizes", 4 * elements)
    for name, initializer in (("kernel_init", kernel_init), ("bias_init", bias_init)):
        if not callable(initializer):
            raise TypeError(f"`{name}` must be a function of (key, shape, dtype); got {initializer!r}")
    return _init(key, sizes, activations, use_bias, kernel_init, bias_init, dtype)


@jax.jit(static_argnums=(1, 2, 3, 4, 5, 6))
def _init(
    key: Key,
    sizes: tuple[int, ...],
    activations: tuple[ActivationName, ...],
    use_bias: bool,
    kernel_init: Initializer,
    bias_init: Initializer,
    dtype: DTypeLike,
) -> Network:
    layers = []
    keys = jax.random.split(key, (len(activations), 2))
    shapes = itertools.pairwise(sizes)
    for (kernel_key, bias_key), shape, activation in zip(keys, shapes, activations, strict=True):
        kernel = _draw("kernel_init", kernel_init, kernel_key, shape, dtype)
        bias = _draw("bias_init", bias_init, bias_key, shape[1:], dtype) if use_bias else None
        layers.append(Dense(kernel, bias, activation))
    return Network(tuple(layers))


def _draw(
    name: str, initializer: Initializer, key: Key, shape: tuple[int, ...], dtype: DTypeLike
) -> jax.Array:
    def checked(*args: Any) -> jax.Array:
        values = _checks.check_real_array(f"{name}(key, shape, dtype)", initializer(*args))
        _checks.check_shape(f"{name}(key, shape, dtype)", values, shape, "the one that it is called with")
        return values

    return draw_wide(checked, key, shape, dtype)


@jax.jit
def _query(network: Network, x: Real[Array, "... n_in"]) -> Float[Array, "... n_out"]:
    return network(x)


def query(network: Network, x: Real[ArrayLike, "... n_in"]) -> Float[Array, "... n_out"]:
    """Query a network forwards: `a_{i+1} = activation_i(a_i @ kernel_i + bias_i)`, from `a_0 = x`.

    It is `network(x)`, compiled. NaN and infinities propagate, as in JAX itself.

    Args:
        network: a `Network`.
        x: `(..., n_in)`, the inputs; the digits of `jaxnn.datasets` lie in [0.01, 1].

    Returns:
        `(..., n_out)`, the outputs, in the range of the output activation.

    Raises:
        ValueError: the last axis of `x` is not `n_in`, the layers of `network` do not fit each other, or
            it is a stack of networks.
        TypeError: `x` does not hold real numbers, or `network` is not a `Network`.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 200, 10))
        >>> jaxnn.query(network, [[0.5] * 784] * 5).shape
        (5, 10)
    """
    check_network(network)
    return _query(network, _checks.check_array("x", x))


def check_input(network: Network, x: Real[ArrayLike, "... n_in"]) -> Float[Array, "... n_in"]:
    """The inputs of a network as an array, or raise unless their last axis fits."""
    array = _checks.check_float_array("x", x, network.layers[0].kernel.dtype)
    _checks.check_last_axis("x", array, network.sizes[0], "one element per input of the network")
    return array


def check_network(network: Network) -> None:
    """Raise unless the argument is one `Network` whose layers fit each other."""
    if not isinstance(network, Network):
        raise TypeError(
            f"`network` must be a jaxnn.Network; got {type(network).__name__}. Any other model is a "
            "function of one example: call it, or jax.vmap of it"
        )
    check_leaves("network", network)
    if not network.layers:
        raise ValueError("`network` must have at least one layer; got none")
    n_in = np.shape(network.layers[0].kernel)[-2:-1]
    for name, layer in zip(network.layer_names, network.layers, strict=True):
        for array in (layer.kernel, *([] if layer.bias is None else [layer.bias])):
            if not isinstance(array, jax.Array | np.ndarray):
                raise TypeError(f"`network` must hold arrays; its layer {name!r} has {array!r}")
        shape = layer.kernel.shape
        if len(shape) > 2:
            raise ValueError(
                f"`network` must be one network, with kernels of shape (n_in, n_out); got a stack of shape "
                f"{shape[:-2]}: query each with jax.vmap, such as jax.vmap(jaxnn.query, (0, None))"
            )
        bias = shape[1:] if layer.bias is None else layer.bias.shape
        if len(shape) != 2 or shape[:1] != n_in or bias != shape[1:]:
            raise ValueError(
                f"`network` has layers that do not fit: {name!r} has a kernel of shape {shape} and a bias of "
                f"shape {bias}; expected ({n_in[0] if n_in else 'n_in'}, n_out) and (n_out,)"
            )
        n_in = shape[1:]


def layer_index(argument: str, layer: Layer, network: Network) -> int:
    """The index from 0 of a layer given by index or name."""
    check_network(network)
    names = network.layer_names
    if isinstance(layer, str):
        if layer in names:
            return names.index(layer)
    else:
        try:
            if isinstance(layer, bool):
                raise TypeError("a boolean")
            index = operator.index(layer)
        except TypeError as error:
            raise TypeError(
                f"`{argument}` must be a layer's index or name; got {type(layer).__name__} {layer!r}"
            ) from error
        if -len(names) <= index < len(names):
            return index % len(names)
    listed = ", ".join(f"{name!r} ({i})" for i, name in enumerate(names))
    raise ValueError(f"`{argument}` must be one of {listed}, or negative from the end; got {layer!r}")
