"""Attribution to a named intermediate of a model, and to the input of one of its units.

The model is cut at the name: what it computes there is read with `capture`, and what follows from another
value there is asked with `intervene`.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxnn._model import as_example, as_model, prepare, scalar, select
from jaxnn._rewrite import capture, check_names, intervene, names

Model = Callable[..., Any]
Target = Any  # an output index, a tuple of them, None, or a function from the output to a scalar


@flax.struct.dataclass
class LayerOf:
    """A model cut off after one of its intermediates, whose value is its answer."""

    model: Any
    layer: str = flax.struct.field(pytree_node=False)

    def __call__(self, x: Any) -> jax.Array:
        """The value of the intermediate; nothing after it is left once compiled."""
        return capture(self.model, x)[1][self.layer]


def check_layer(model: Any, x: Any, layer: Any) -> Any:
    """Check a layer's name; gives the shape and dtype of its value."""
    if not isinstance(layer, str):
        raise TypeError(f"`layer` must be the name of an intermediate; got {type(layer).__name__} {layer!r}")
    check_names("layer", [layer], names(model, x))
    try:
        value = jax.eval_shape(_cut, model, x, layer=layer)[0]
    except ValueError as error:
        raise ValueError(f"`layer` must name an intermediate outside of loops; got {layer!r}") from error
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"`layer` must name real numbers; {layer!r} has dtype {value.dtype}")
    return value


@jax.jit(static_argnames=("layer",))
def _cut(model: Any, x: Any, *, layer: str) -> Any:
    value = LayerOf(model, layer)(x)
    return value, intervene(model, {layer: value})(x)


def value_and_slope(model: Any, x: Any, target: Any, layer: str) -> tuple[jax.Array, jax.Array]:
    """A layer's value, and the derivative of what follows in it."""
    value = LayerOf(model, layer)(x)
    return value, jax.grad(after(model, x, target, layer))(value)


def after(model: Any, x: Any, target: Any, layer: str) -> Callable[[jax.Array], jax.Array]:
    """The target as a function of a layer's value, all else being as at `x`."""
    return lambda value: select(intervene(model, {layer: value})(x), target)


def prepare_layer(model: Any, x: Any, target: Any, layer: Any) -> tuple[Any, Any, Any]:
    """As `prepare`, the layer's name checked too."""
    model, x, target = prepare(model, x, target)
    check_layer(model, x, layer)
    return model, x, target


def layer_activation(model: Model, x: Any, *, layer: str) -> jax.Array:
    """What a model computes at a named intermediate.

    `a = h(x)`. Unlike `jaxnn.capture` it is compiled for one name, without what comes after.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        layer: the intermediate's name, one of those that `jaxnn.capture` gives.

    Returns:
        Of the layer's shape.

    Raises:
        TypeError: `model` is not callable, or `x` does not hold numbers.
        ValueError: the model has no such name; the error lists those that it has.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.layer_activation(network, [0.5] * 784, layer="hidden_0").shape
        (30,)
    """
    model, x = as_model(model), as_example("x", x)
    check_layer(model, x, layer)
    return _layer_activation(LayerOf(model, layer), x)


@jax.jit
def _layer_activation(cut_off: LayerOf, x: Any) -> jax.Array:
    return cut_off(x)


def layer_gradient_x_activation(
    model: Model, x: Any, target: Target = None, *, layer: str, multiply: bool = True
) -> jax.Array:
    """Each unit of a layer times the slope of the answer in it.

    `a_i = h_i * df / dh_i`; where not `multiply`, the slope alone.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those that `jaxnn.capture` gives.
        multiply: whether to multiply by the activation.

    Returns:
        Of the layer's shape, in units of the output.

    Raises:
        TypeError: as `saliency` raises.
        ValueError: the model has no such name; the error lists those that it has. Or as `saliency` raises.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.layer_gradient_x_activation(network, [0.5] * 784, 3, layer="hidden_0").shape
        (30,)
    """
    return _layer_gradient(*prepare_layer(model, x, target, layer), layer=layer, multiply=bool(multiply))


@jax.jit(static_argnames=("layer", "multiply"))
def _layer_gradient(model: Any, x: Any, target: Any, *, layer: str, multiply: bool) -> jax.Array:
    value, slope = value_and_slope(model, x, target, layer)
    return value * slope if multiply else slope


def neuron_gradient(model: Model, x: Any, unit: Target = None, *, layer: str) -> Any:
    """The slope of one unit's activation in each input.

    `a_i = dh_u / dx_i`. Any other method asks a unit in the same way, with
    `lambda x: layer_activation(model, x, layer=layer)` as its model, made once, and the unit as its target.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        unit: its index in the layer, a tuple of them for a layer of several axes, such as
            `(row, column, channel)`; None for a layer of one unit; or a function from the layer's value to
            a scalar, such as the mean of a channel.
        layer: the intermediate's name, one of those that `jaxnn.capture` gives.

    Returns:
        Of the structure of `x`, in units of the activation per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `unit` is of another type.
        ValueError: the model has no such name, which the error lists, or the layer no such unit.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.neuron_gradient(network, [0.5] * 784, 7, layer="hidden_0").shape
        (784,)
    """
    model, x = as_model(model), as_example("x", x)
    check_layer(model, x, layer)
    return _neuron_gradient(*prepare(LayerOf(model, layer), x, unit, name="unit"))


@jax.jit
def _neuron_gradient(cut_off: Any, x: Any, unit: Any) -> Any:
    return jax.grad(scalar(cut_off, unit))(x)
