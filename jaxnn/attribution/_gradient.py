"""Attribution by the gradient at the input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._model import prepare, scalar

Model = Callable[..., Any]
Target = Any  # an output index, a tuple of them, None, or a function from the output to a scalar


def saliency(model: Model, x: Any, target: Target = None, *, absolute: bool = False) -> Any:
    """The slope of the answer in each input.

    `a_i = df / dx_i`, `f` being the output that `target` names; its size `|df / dx_i|` where `absolute`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index (a tuple of them for an output of several axes), None for an output of one
            entry, or a function from the output to a scalar. A function is recognized by identity: make it
            once.
        absolute: whether to give the sizes of the slopes.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such entry, or `target` is None and it has more than one.

    References:
        Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2013, arXiv:1312.6034.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> model = lambda x: jnp.stack([x[0] * x[1], x[0] + x[1]])
        >>> attribution.saliency(model, [2.0, 3.0], 0).tolist()
        [3.0, 2.0]
    """
    return _saliency(*prepare(model, x, target), absolute=absolute)


@jax.jit(static_argnames=("absolute",))
def _saliency(model: Any, x: Any, target: Any, *, absolute: bool) -> Any:
    slopes = jax.grad(scalar(model, target))(x)
    return jax.tree.map(jnp.abs, slopes) if absolute else slopes


def input_x_gradient(model: Model, x: Any, target: Target = None) -> Any:
    """Each input times the slope of the answer in it.

    `a_i = x_i * df / dx_i`: what the input would add to a linear function with that slope.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such entry, or `target` is None and it has more than one.

    References:
        Shrikumar, Greenside, Shcherbina and Kundaje, "Not just a black box", 2016, arXiv:1605.01713.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> attribution.input_x_gradient(lambda x: x[0] * x[1], [2.0, 3.0]).tolist()
        [6.0, 6.0]
    """
    return _input_x_gradient(*prepare(model, x, target))


@jax.jit
def _input_x_gradient(model: Any, x: Any, target: Any) -> Any:
    return jax.tree.map(jnp.multiply, x, jax.grad(scalar(model, target))(x))
