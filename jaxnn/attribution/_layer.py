"""Attribution to a named intermediate of a model, and to the input of one of its units.

The model is cut at the name: `capture` reads its value there, and `intervene` evaluates the rest from another
value.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from jaxnn._checks import check_flag
from jaxnn._engine.held import zeros_for_held
from jaxnn._model import as_example, as_model, differentiable, gradient, prepare, select
from jaxnn._rewrite import (
    Added,
    Intervened,
    capture,
    check_layer_name,
    intervene,
    split_layer,
)
from jaxnn._typing import Layer, Model, PyTree, Target


@flax.struct.dataclass
class LayerModel:
    """A model truncated after one of its intermediates, whose value is the output.

    Attributes:
        model: the whole model.
        layer: the intermediate's name, or `(name, step)`.
    """

    model: Model
    layer: Layer = flax.struct.field(pytree_node=False)

    def __call__(self, x: PyTree) -> jax.Array:
        """The value of the intermediate; the compiler drops everything after it."""
        name, steps = split_layer(self.layer)
        return capture(self.model, x)[1][name][steps]

    def rest(self, x: PyTree, target: Target) -> Callable[[jax.Array], jax.Array]:
        """The target output as a function of the layer's value, all other values as at `x`."""
        return lambda value: select(intervene(self.model, {self.layer: value})(x), target)

    def value_and_gradient(self, x: PyTree, target: Target) -> tuple[jax.Array, jax.Array]:
        """The layer's value, and the gradient of the target output with respect to it."""
        value = self(x)

        def output(added: jax.Array) -> jax.Array:
            # Of all steps of a scan, each with its effect on the later ones.
            return select(Intervened(self.model, (Added(added),), (self.layer,))(x), target)

        return value, gradient(output, jnp.zeros_like(value))


def check_layer(model: Model, x: PyTree, layer: Layer) -> jax.ShapeDtypeStruct:
    """Check the name of a layer, and return the shape and dtype of its value."""
    check_layer_name(model, x, layer)
    value: jax.ShapeDtypeStruct = jax.eval_shape(_layer_activation, LayerModel(model, layer), x)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"`layer` must name real numbers; {layer!r} has dtype {value.dtype}")
    return value


def prepare_layer(
    model: Model, x: PyTree, target: Target, layer: Layer, *, holds: bool = False
) -> tuple[LayerModel, PyTree, Target]:
    """`prepare`, with the model cut at a layer whose name is checked too."""
    model, x, target = prepare(model, x, target, holds=holds)
    check_layer(model, x, layer)
    return LayerModel(model, layer), x, target


def layer_activation(model: Model, x: PyTree, *, layer: Layer) -> jax.Array:
    """Layer activation: the value of a named intermediate.

    `a = h(x)`. Unlike `jaxnn.capture`, it is compiled for one name, without the computation after it.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        layer: the intermediate's name, one of those in `jaxnn.capture`; or `(name, step)`, its value at one
            step of a scan.

    Returns:
        Of the layer's shape.

    Raises:
        TypeError: `model` is not callable, or `x` does not hold numbers.
        ValueError: the model has no intermediate of that name; the error lists the names.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.layer_activation(network, [0.5] * 784, layer="hidden_0").shape
        (30,)
    """
    return _layer_activation(*_cut(model, x, layer))


def _cut(model: Model, x: PyTree, layer: Layer) -> tuple[LayerModel, PyTree]:
    model, x = as_model(model), as_example("x", x)
    check_layer(model, x, layer)
    return LayerModel(model, layer), x


@jax.jit
def _layer_activation(cut: LayerModel, x: PyTree) -> jax.Array:
    return cut(x)


def layer_gradient_x_activation(
    model: Model, x: PyTree, target: Target = None, *, layer: Layer, multiply: bool = True
) -> jax.Array:
    """Layer gradient times activation: each unit's value times the gradient with respect to it.

    `a_i = h_i * df / dh_i`; where not `multiply`, the gradient alone.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those in `jaxnn.capture`; or `(name, step)`, its value at one
            step of a scan. Of all steps, each gradient includes the effect on the later ones.
        multiply: whether to multiply by the activation.

    Returns:
        Of the layer's shape, in units of the output (per unit of the layer where not `multiply`).

    Raises:
        TypeError: as `saliency` raises.
        ValueError: the model has no intermediate of that name; the error lists the names. Or as `saliency`
            raises.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.layer_gradient_x_activation(network, [0.5] * 784, 3, layer="hidden_0").shape
        (30,)
    """
    multiply = check_flag("multiply", multiply)
    return _layer_gradient(*prepare_layer(model, x, target, layer), multiply=multiply)


@jax.jit(static_argnames=("multiply",))
def _layer_gradient(cut: LayerModel, x: PyTree, target: Target, *, multiply: bool) -> jax.Array:
    value, derivative = cut.value_and_gradient(x, target)
    return value * derivative if multiply else derivative


def neuron_gradient(model: Model, x: PyTree, unit: Target = None, *, layer: Layer) -> PyTree:
    """Neuron gradient: the gradient of one unit's activation with respect to each input.

    `a_i = dh_u / dx_i`. Any other method explains a unit in the same way: its model is
    `lambda x: layer_activation(model, x, layer=layer)`, created once, and its target the unit.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        unit: its index in the layer, a tuple of them for a layer of several axes, such as
            `(row, column, channel)`; None for a layer of one unit; or a function from the layer's value to
            a scalar, such as the mean of a channel.
        layer: the intermediate's name, one of those in `jaxnn.capture`; or `(name, step)`, its value at one
            step of a scan.

    Returns:
        Of the structure of `x`, in units of the activation per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `unit` is of another type.
        ValueError: the model has no intermediate of that name, or the layer no such unit; the error lists
            the names.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.neuron_gradient(network, [0.5] * 784, 7, layer="hidden_0").shape
        (784,)
    """
    return zeros_for_held(_neuron_gradient(*prepare(*_cut(model, x, layer), unit, name="unit", holds=True)))


@jax.jit
def _neuron_gradient(cut: LayerModel, x: PyTree, unit: Target) -> PyTree:
    return gradient(differentiable(cut, unit, x), x)
