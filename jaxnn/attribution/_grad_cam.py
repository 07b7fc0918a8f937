"""Class activation maps: where a convolutional layer sees what the answer rests on."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import prepare
from jaxnn.attribution._guided import guided_backprop
from jaxnn.attribution._layer import check_layer, value_and_slope

Model = Callable[..., Any]
Target = Any  # an output index, a tuple of them, None, or a function from the output to a scalar


def grad_cam(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    layer: str,
    relu: bool = False,
    shape: Sequence[int] | None = None,
) -> jax.Array:
    """The map of a layer's places, each by how much its channels raise the answer.

    `a_hw = sum_k mean_hw(df / dA_k) * A_hwk`; where `relu`, `max(a_hw, 0)`, which is what is published. It is
    not normalized: its sign and size mean something.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those that `jaxnn.capture` gives; of shape `(h, w, channels)`,
            or of any other number of axes before the channels.
        relu: whether to leave out what lowers the answer.
        shape: to resize the map to, linearly, such as the `(h, w)` of the image; None for that of the layer.

    Returns:
        `(h, w)`, in units of the output.

    Raises:
        TypeError: as `saliency` raises.
        ValueError: the model has no such name, which the error lists; the layer has fewer than two axes;
            `shape` has another number of them; or as `saliency` raises.

    References:
        Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM", 2016, arXiv:1610.02391, equations
        1 and 2.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> model = lambda x: jaxnn.tap(x[..., None] * jax.numpy.array([1.0, 2.0]), "maps").sum()
        >>> attribution.grad_cam(model, jax.numpy.eye(2), layer="maps").tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """
    model, x, target = prepare(model, x, target)
    axes = _check_maps(model, x, layer)
    if shape is not None:
        shape = _checks.check_sizes("shape", shape)
        if len(shape) != axes:
            raise ValueError(
                f"`shape` must have {axes} entries, as {layer!r} before its channels; got {shape}"
            )
    return _grad_cam(model, x, target, layer=layer, relu=bool(relu), shape=shape)


def _check_maps(model: Any, x: Any, layer: Any) -> int:
    """How many axes a layer has before its channels."""
    value = check_layer(model, x, layer)
    if len(value.shape) < 2:
        raise ValueError(f"`layer` must have shape (h, w, channels); {layer!r} has {value.shape}")
    return len(value.shape) - 1


@jax.jit(static_argnames=("layer", "relu", "shape"))
def _grad_cam(
    model: Any, x: Any, target: Any, *, layer: str, relu: bool, shape: tuple[int, ...] | None
) -> jax.Array:
    value, slope = value_and_slope(model, x, target, layer)
    places = tuple(range(value.ndim - 1))
    weights = jnp.mean(slope, axis=places, keepdims=True)
    cam = jnp.sum(weights * value, axis=-1)
    cam = jax.nn.relu(cam) if relu else cam
    return cam if shape is None else jax.image.resize(cam, shape, "linear")


def guided_grad_cam(model: Model, x: Any, target: Target = None, *, layer: str) -> jax.Array:
    """Guided backpropagation, where the class activation map says that it matters.

    `a = guided_backprop(x) * resize(max(grad_cam, 0))`: as fine as the first, and about the target as the
    second.

    Args:
        model: a callable of one example.
        x: the example, an array `(h, w)` or `(h, w, channels)`; as many axes as the layer's maps have, then
            any others.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, of shape `(h, w, channels)`; see `grad_cam`.

    Returns:
        Of the shape of `x`.

    Raises:
        TypeError: as `guided_backprop` raises.
        ValueError: `x` is no such array, or as `grad_cam` and `guided_backprop` raise.
        NotImplementedError: as `guided_backprop` raises.

    References:
        Selvaraju et al., "Grad-CAM", 2016, arXiv:1610.02391, section 3.2.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> model = lambda x: jax.nn.relu(jaxnn.tap(x[..., None] * jax.numpy.array([1.0, 2.0]), "maps")).sum()
        >>> attribution.guided_grad_cam(model, jax.numpy.eye(2), layer="maps").tolist()
        [[4.5, 0.0], [0.0, 4.5]]
    """
    prepared, x, prepared_target = prepare(model, x, target)
    axes = _check_maps(prepared, x, layer)
    if not isinstance(x, jax.Array) or x.ndim < axes:
        found = x.shape if isinstance(x, jax.Array) else type(x).__name__
        raise ValueError(
            f"`x` must be an array of at least {axes} axes, as {layer!r} has places; got {found}"
        )
    guided = guided_backprop(model, x, target)
    cam = _grad_cam(prepared, x, prepared_target, layer=layer, relu=True, shape=x.shape[:axes])
    return guided * cam.reshape(*cam.shape, *(1,) * (x.ndim - axes))
