"""A model from one of its layers on: `split_at`, by which every method explains a layer."""

import flax.struct
import jax

from jaxnn._checks import check_array
from jaxnn._model import Frozen, as_arrays, as_model
from jaxnn._rewrite import capture, check_layer_name, intervene, split_layer
from jaxnn._typing import Layer, Model, PyTree


@flax.struct.dataclass
class Rest:
    """A model from a layer on; returned by `split_at`.

    Attributes:
        model: the whole model.
        frozen: the example, whose other effects on the output stay as they are.
        layer: the name of the layer, or `(name, step, ...)`.
    """

    model: Model
    frozen: Frozen
    layer: Layer = flax.struct.field(pytree_node=False)

    def __call__(self, value: jax.Array) -> PyTree:
        """The output of the model, with this value of the layer."""
        return intervene(self.model, {self.layer: check_array("value", value)})(self.frozen.value)


def split_at(model: Model, x: PyTree, layer: Layer) -> tuple[Rest, jax.Array]:
    """Split a model at a layer: the model from there on, and the layer's value.

    `model(x) == rest(value)`. The rest is a model of the value, so every method explains the layer by it: the
    embedding of tokens, which themselves have no gradient, the activations of a hidden layer, or the softmax
    of an attention (`tap_operations`). Everything else that the model computes from `x`, such as a mask or
    the positions of tokens, stays as it is. The value for other inputs, such as padding, is a baseline:
    `split_at(model, padding, layer)[1]`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        layer: the intermediate's name, one of those in `jaxnn.capture`; or `(name, step)`, its value at one
            step of a scan.

    Returns:
        `(rest, value)`: a callable pytree, and the array that the model computes for `x` at that layer.

    Raises:
        TypeError: `model` is not callable, or `layer` is not such a name.
        ValueError: the model has no intermediate of that name (the error lists the names), or no such step.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> rest, hidden = jaxnn.split_at(network, [0.5] * 784, "hidden_0")
        >>> hidden.shape, attribution.deep_lift(rest, hidden, 3).shape
        ((30,), (30,))
    """
    model, x = as_model(model), as_arrays(x)
    check_layer_name(model, x, layer)
    name, steps = split_layer(layer)
    return Rest(model, Frozen(x), layer), capture(model, x)[1][name][steps]
