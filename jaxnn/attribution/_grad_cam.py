"""Class activation maps: at which positions of a convolutional layer the output depends on it."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._engine.channel_axis import LOST, channel_axis as channel_axis_of
from jaxnn._model import prepare
from jaxnn._rewrite import lengths_of
from jaxnn._typing import Layer, Model, PyTree, Target
from jaxnn.attribution._guided import guided_backprop
from jaxnn.attribution._layer import LayerModel, check_layer


def grad_cam(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    layer: Layer,
    relu: bool = False,
    shape: Sequence[int] | None = None,
    channel_axis: int | None = None,
) -> jax.Array:
    """Grad-CAM: a layer's channels, weighted by their mean gradients and summed at each position.

    `a_hw = sum_k mean_hw(df / dA_k) * A_hwk`; where `relu`, `max(a_hw, 0)`, as published. It is
    not normalized: its sign and size have a meaning.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those in `jaxnn.capture`; of shape `(h, w, channels)` or
            `(channels, h, w)`, or with any other number of axes beside the channels.
        relu: whether to set negative values, which lower the output, to 0.
        shape: to resize the map to, linearly, such as the `(h, w)` of the image; None for that of the layer.
        channel_axis: the axis of the layer's channels. None is that of the convolution which the layer comes
            from, first in Equinox and last in Flax; the last where there is none.

    Returns:
        `(h, w)`, in units of the output.

    Raises:
        TypeError: as `saliency` raises.
        ValueError: the model has no intermediate of that name (the error lists the names), the layer has
            fewer than two axes, `shape` has another number of them, `channel_axis` is none of the layer's or
            not known, or as `saliency` raises.

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
    relu = _checks.check_flag("relu", relu)
    model, x, target = prepare(model, x, target)
    axes, channels = _check_maps(model, x, layer, channel_axis)
    if shape is not None:
        shape = _checks.check_sizes("shape", shape)
        if len(shape) != axes:
            raise ValueError(
                f"`shape` must have {axes} sizes, one per spatial axis of {layer!r}; got {shape}"
            )
        _checks.check_bytes("shape", 4 * math.prod(shape))
    return _grad_cam(LayerModel(model, layer), x, target, relu=relu, shape=shape, channels=channels)


def _check_maps(model: Model, x: PyTree, layer: Layer, channel_axis: int | None) -> tuple[int, int | None]:
    """The number of a layer's axes beside its channels, and the axis of these where it was given."""
    value = check_layer(model, x, layer)
    ndim = len(value.shape)
    if isinstance(layer, str) and lengths_of(model, x)[layer]:
        raise ValueError(f"`layer` must name one step of the scan, as in `({layer!r}, 0)`; got {layer!r}")
    if ndim < 2:
        raise ValueError(f"`layer` must have shape (h, w, channels); {layer!r} has {value.shape}")
    if channel_axis is None:
        return ndim - 1, None
    of = f"{layer!r}, of shape {value.shape}"
    return ndim - 1, _checks.check_axis("channel_axis", channel_axis, ndim, of)


def _channels(cut: LayerModel, x: PyTree) -> int:
    axis = channel_axis_of(cut, x)
    if axis == LOST:
        raise ValueError(
            f"`channel_axis` must be given: which axis of {cut.layer!r} holds the channels does not follow "
            "from the convolutions before it"
        )
    return -1 if axis is None else axis


def _cam(
    cut: LayerModel, x: PyTree, target: Target, channels: int | None, *, relu: bool
) -> tuple[jax.Array, int]:
    """The map, and the axis of the layer's channels."""
    value, gradient = cut.value_and_gradient(x, target)
    channels = (_channels(cut, x) if channels is None else channels) % value.ndim
    weights = jnp.mean(gradient, axis=[i for i in range(value.ndim) if i != channels], keepdims=True)
    cam = jnp.sum(weights * value, axis=channels)
    return jax.nn.relu(cam) if relu else cam, channels


@jax.jit(static_argnames=("relu", "shape", "channels"))
def _grad_cam(
    cut: LayerModel,
    x: PyTree,
    target: Target,
    *,
    relu: bool,
    shape: tuple[int, ...] | None,
    channels: int | None,
) -> jax.Array:
    cam, _ = _cam(cut, x, target, channels, relu=relu)
    return cam if shape is None else jax.image.resize(cam, shape, "linear")


@jax.jit(static_argnames=("channels",))
def _fitted_cam(cut: LayerModel, x: jax.Array, target: Target, *, channels: int | None) -> jax.Array:
    """The positive part of the map, resized to the spatial axes of `x`, with axes of one for its others."""
    cam, axis = _cam(cut, x, target, channels, relu=True)
    others = range(x.ndim - cam.ndim) if axis == 0 else range(cam.ndim, x.ndim)
    spatial = [size for i, size in enumerate(x.shape) if i not in others]
    return jnp.expand_dims(jax.image.resize(cam, spatial, "linear"), tuple(others))


def guided_grad_cam(
    model: Model, x: jax.Array, target: Target = None, *, layer: Layer, channel_axis: int | None = None
) -> jax.Array:
    """Guided Grad-CAM: guided backpropagation times the resized class activation map.

    `a = guided_backprop(x) * resize(max(grad_cam, 0))`: of the resolution of the first, and as specific to
    the target as the second.

    Args:
        model: a callable of one example.
        x: the example, an array `(h, w)` or `(h, w, channels)`: the spatial axes of the layer, then any
            others; or, if the layer's channels come first, `(channels, h, w)`.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, of shape `(h, w, channels)` or `(channels, h, w)`; see `grad_cam`.
        channel_axis: the axis of the layer's channels; see `grad_cam`.

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
    axes, channels = _check_maps(prepared, x, layer, channel_axis)
    if not isinstance(x, jax.Array) or x.ndim < axes:
        shown = x.shape if isinstance(x, jax.Array) else type(x).__name__
        raise ValueError(
            f"`x` must be an array of at least {axes} axes, the spatial ones of {layer!r}; got {shown}"
        )
    guided = guided_backprop(model, x, target)
    return guided * _fitted_cam(LayerModel(prepared, layer), x, prepared_target, channels=channels)
