"""`for_cpu`: a model whose convolutions a CPU evaluates fast."""

from typing import Any

import jax

from jaxnn._engine.channels_last import evaluate_channels_last
from jaxnn._engine.jaxpr import trace
from jaxnn._model import as_model, tracing
from jaxnn._typing import Model


def for_cpu(model: Model) -> Model:
    """Rewrite a model's convolutions, so that a CPU evaluates it fast; the outputs are equal up to rounding.

    XLA's convolutions on a CPU are slow for some shapes: depthwise ones by a factor of 10 to 50, those of one
    channel, those of few places, and the gradients of strided ones. Each becomes a sum of shifted images, or
    a product of matrices, as was the fastest where it was measured. The choice is made when the program is
    compiled, from the final shapes, so that it suits `jax.vmap` and gradients, too. Images whose channels
    come first, as those of PyTorch and Equinox, are transposed at the first convolution, and not before and
    after each.
    Nothing changes for convolutions of integers, complex numbers or half precision, of several groups that
    are not depthwise, of most windows of more than 49 elements, in `cond` and `while`, or in a function with
    a custom derivative; and nothing at all on other devices, where the model is returned as it is.

    The methods of this library do so by themselves. This function is for loops of your own that evaluate the
    model, or differentiate it with respect to its input. The names of intermediates are left out: use
    `capture` and `intervene` before it.

    Args:
        model: a callable of one example, such as a convolutional network of any library.

    Returns:
        A callable pytree with the same arguments and results.

    Raises:
        TypeError: `model` is not callable.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxnn
        >>> module = nn.Conv(8, (3, 3), feature_group_count=8)  # depthwise
        >>> x = jnp.ones((32, 32, 8))
        >>> model = jaxnn.from_linen(module, module.init(jax.random.key(0), x))
        >>> bool(jnp.allclose(jaxnn.for_cpu(model)(x), model(x), atol=1e-5))
        True
    """
    model = as_model(model)
    return jax.tree_util.Partial(_fast, model) if jax.default_backend() == "cpu" else model


def _fast(model: Model, *args: Any, **kwargs: Any) -> Any:
    with tracing("model"):
        return evaluate_channels_last(trace(model, *args, **kwargs))
