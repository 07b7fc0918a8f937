"""Class activation maps: at which positions of a convolutional layer the output depends on it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import prepare
from jaxnn._typing import Model, PyTree, Target
from jaxnn.attribution._guided import guided_backprop
from jaxnn.attribution._layer import LayerModel, check_layer


def grad_cam(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    layer: str,
    relu: bool = False,
    shape: Sequence[int] | None = None,
) -> jax.Array:
    """Grad-CAM: a layer's channels, weighted by their mean gradients and summed at each position.

    `a_hw = sum_k mean_hw(df / dA_k) * A_hwk`; where `relu`, `max(a_hw, 0)`, as published. It is
    not normalized: its sign and size have a meaning.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those in `jaxnn.capture`; of shape `(h, w, channels)`,
            or any other number of axes before the channels.
        relu: whether to set negative values, which lower the output, to 0.
        shape: to resize the map to, linearly, such as the `(h, w)` of the image; None for that of the layer.

    Returns:
        `(h, w)`, in units of the output.

    Raises:
        TypeError: as `saliency` raises.
        ValueError: the model has no intermediate of that name (the error lists the names), the layer has
            fewer than two axes, `shape` has another number of them, or as `saliency` raises.

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
                f"`shape` must have {axes} sizes, one per spatial axis of {layer!r}; got {shape}"
            )
    return _grad_cam(LayerModel(model, layer), x, target, relu=bool(relu), shape=shape)


def _check_maps(model: Model, x: PyTree, layer: str) -> int:
    """The number of axes of a layer before its channels."""
    value = check_layer(model, x, layer)
    if len(value.shape) < 2:
        raise ValueError(f"`layer` must have shape (h, w, channels); {layer!r} has {value.shape}")
    return len(value.shape) - 1


@jax.jit(static_argnames=("relu", "shape"))
def _grad_cam(
    cut: LayerModel, x: PyTree, target: Target, *, relu: bool, shape: tuple[int, ...] | None
) -> jax.Array:
    value, gradient = cut.value_and_gradient(x, target)
    weights = jnp.mean(gradient, axis=tuple(range(value.ndim - 1)), keepdims=True)
    cam = jnp.sum(weights * value, axis=-1)
    cam = jax.nn.relu(cam) if relu else cam
    return cam if shape is None else jax.image.resize(cam, shape, "linear")


def guided_grad_cam(model: Model, x: jax.Array, target: Target = None, *, layer: str) -> jax.Array:
    """Guided Grad-CAM: guided backpropagation times the resized class activation map.

    `a = guided_backprop(x) * resize(max(grad_cam, 0))`: of the resolution of the first, and as specific to
    the target as the second.

    Args:
        model: a callable of one example.
        x: the example, an array `(h, w)` or `(h, w, channels)`: the spatial axes of the layer, then any
            others.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, of shape `(h, w, channels)`; see `grad_cam`.

    Returns:
        Of the shape of `x`.

    Raises:
        TypeError: as `guided_backprop` raises.
        ValueError: `x` is not such an array, or as `grad_cam` and `guided_backprop` raise.
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
        shown = x.shape if isinstance(x, jax.Array) else type(x).__name__
        raise ValueError(
            f"`x` must be an array of at least {axes} axes, the spatial ones of {layer!r}; got {shown}"
        )
    guided = guided_backprop(model, x, target)
    cam = _grad_cam(LayerModel(prepared, layer), x, prepared_target, relu=True, shape=x.shape[:axes])
    return guided * cam.reshape(*cam.shape, *(1,) * (x.ndim - axes))
