"""Class activation maps: at which positions of a convolutional layer the output depends on it."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._engine.channel_axis import LOST, channel_axis as channel_axis_of
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._model import prepare, select
from jaxnn._precision import wide_dtype
from jaxnn._rewrite import lengths_of
from jaxnn._typing import CamWeights, Layer, Model, PyTree, Target
from jaxnn.attribution._cam_weights import WEIGHTINGS, Maps
from jaxnn.attribution._guided import guided_backprop
from jaxnn.attribution._layer import LayerModel, check_layer

_ONE_AT_A_TIME = Batch(1)


def grad_cam(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    layer: Layer,
    weights: CamWeights = "gradcam",
    relu: bool = False,
    shape: Sequence[int] | None = None,
    channel_axis: int | None = None,
    grid: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Grad-CAM and its variants: a layer's channels, weighted and summed at each position.

    `a_ij = sum_k w_k A_ijk`; where `relu`, `max(a_ij, 0)`, as published. It is not normalized: its sign and
    size have a meaning. With the gradients `g = df / dA`, the weights are

    - `"gradcam"`: `w_k = mean_ij(g_ijk)`;
    - `"gradcam++"`: `w_k = sum_ij alpha_ijk max(g_ijk, 0)`, `alpha = g^2 / (2 g^2 + sum_ij(A_ijk) g^3)`;
    - `"xgradcam"`: `w_k = sum_ij g_ijk A_ijk / sum_ij A_ijk`;
    - `"layercam"`: `w_ijk = max(g_ijk, 0)`, by position;
    - `"hirescam"`: `w_ijk = g_ijk`, by position;
    - `"eigencam"`: `a` is the projection of the values, less the mean of each channel, to their first
      principal component, of the sign of the values; it does not depend on the target;
    - `"ablationcam"`: `w_k = (f - f_k) / f`, `f_k` being the output with channel `k` set to 0; NaN where `f`
      is 0;
    - `"scorecam"`: `w = softmax(f(x * M_k))`, `M_k` being channel `k` resized to `x` and scaled to [0, 1].

    `alpha` has a pole where values or gradients are negative: Grad-CAM++ is meant for the results of a ReLU.
    The maps of `"hirescam"` and `"xgradcam"` add up to the gradient times the values: of an output that is
    linear in the layer to the output itself, without its bias.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays; for `"scorecam"` an array, whose first axes are the
            positions, or whose last ones are, where the channels come first.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those in `jaxnn.capture`; of shape `(h, w, channels)` or
            `(channels, h, w)`, or with any other number of axes beside the channels.
        weights: one of those above.
        relu: whether to set negative values, which lower the output, to 0.
        shape: to resize the map to, linearly, such as the `(h, w)` of the image; None for that of the layer.
        channel_axis: the axis of the layer's channels. None is that of the convolution which the layer comes
            from, first in Equinox and last in Flax; the last where there is none.
        grid: the `(h, w)` of a layer of tokens, `(tokens, channels)`: the last `h * w` tokens are the
            positions, and those before them, such as a class token, are left out.
        batch_size: for `"ablationcam"` and `"scorecam"`, how many channels to evaluate at once; None for at
            most 16 within about 1 GiB.

    Returns:
        `(h, w)`, in units of the output; of `"gradcam++"`, `"xgradcam"`, `"ablationcam"` and `"scorecam"` in
        units of the layer times those of their weights, of `"eigencam"` in units of the layer.

    Raises:
        TypeError: as `saliency` raises.
        ValueError: the model has no intermediate of that name (the error lists the names), the layer has
            fewer than two axes or does not fit `grid`, `shape` has another number of them, `channel_axis` is
            none of the layer's or not known, `weights` is none of these, `x` is no array that `"scorecam"`
            can mask, or as `saliency` raises.

    References:
        Selvaraju et al., "Grad-CAM", 2016, arXiv:1610.02391, equations 1 and 2. Chattopadhay et al.,
        "Grad-CAM++", 2017, arXiv:1710.11063, equation 19. Fu et al., "Axiom-based Grad-CAM", 2020,
        arXiv:2008.02312. Jiang et al., "LayerCAM", 2021. Draelos and Carin, "HiResCAM", 2020,
        arXiv:2011.08891. Muhammad and Yeasin, "Eigen-CAM", 2020, arXiv:2008.00299. Desai and Ramaswamy,
        "Ablation-CAM", 2020. Wang et al., "Score-CAM", 2019, arXiv:1910.01279.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> model = lambda x: jaxnn.tap(x[..., None] * jax.numpy.array([1.0, 2.0]), "maps").sum()
        >>> attribution.grad_cam(model, jax.numpy.eye(2), layer="maps").tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """
    relu = _checks.check_flag("relu", relu)
    _checks.check_option("weights", weights, WEIGHTINGS)
    batch = check_batch_size(batch_size, 16)
    model, x, target = prepare(model, x, target)
    if grid is None:
        axes, channels = _check_maps(model, x, layer, channel_axis)
    else:
        grid = _checks.check_sizes("grid", grid)
        axes, channels = len(grid), _check_grid(model, x, layer, grid, channel_axis)
    if shape is not None:
        shape = _checks.check_sizes("shape", shape)
        if len(shape) != axes:
            raise ValueError(
                f"`shape` must have {axes} sizes, one per spatial axis of {layer!r}; got {shape}"
            )
        _checks.check_bytes("shape", 4 * math.prod(shape))
    if weights == "scorecam":
        _check_maskable(x, axes, grid)
    return _grad_cam(
        LayerModel(model, layer), x, target, weights=weights, relu=relu, shape=shape, channels=channels,
        grid=grid, batch=batch,
    )  # fmt: skip


def _check_maskable(x: PyTree, axes: int, grid: tuple[int, ...] | None) -> None:
    """Raise unless Score-CAM can multiply `x` by maps."""
    if not isinstance(x, jax.Array) or x.ndim < axes or not jnp.issubdtype(x.dtype, jnp.floating):
        shown = f"{x.dtype} of shape {x.shape}" if isinstance(x, jax.Array) else type(x).__name__
        raise ValueError(
            f"`x` must be an array of real numbers of at least {axes} axes, for 'scorecam'; got {shown}"
        )
    if grid is not None and x.ndim > axes:
        raise ValueError(
            f"`grid` must be None for 'scorecam', unless `x` has its {axes} axes alone: which of the others "
            f"are channels is not known; got {grid} for {x.shape}"
        )


def _check_grid(
    model: Model, x: PyTree, layer: Layer, grid: tuple[int, ...], channel_axis: int | None
) -> int:
    """The axis of the channels of a layer of tokens, or raise unless it has those of the grid."""
    axes, channels = _check_maps(model, x, layer, -1 if channel_axis is None else channel_axis)
    shape = check_layer(model, x, layer).shape
    tokens = shape[1 - channels] if axes == 1 and channels is not None else 0
    if tokens < math.prod(grid):
        raise ValueError(
            f"`grid` must have no more places than {layer!r} has tokens, (tokens, channels); got {grid} for "
            f"{shape}"
        )
    return channels or 0


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
    cut: LayerModel,
    x: PyTree,
    target: Target,
    channels: int | None,
    *,
    weights: str,
    grid: tuple[int, ...] | None = None,
    batch: Batch = _ONE_AT_A_TIME,
) -> tuple[jax.Array, int]:
    """The map, and the axis of the layer's channels."""
    value, gradient = cut.value_and_gradient(x, target)
    axis = (_channels(cut, x) if channels is None else channels) % value.ndim
    output = cut.rest(x, target)

    def arranged(value: jax.Array) -> jax.Array:
        """The values by position, the channels last, in at least float32."""
        value = jnp.moveaxis(value.astype(wide_dtype(value.dtype)), axis, -1)
        return value if grid is None else value[-math.prod(grid) :].reshape(*grid, -1)

    def restored(changed: jax.Array) -> jax.Array:
        changed = changed.astype(value.dtype)
        if grid is not None:
            last = changed.reshape(math.prod(grid), -1)
            changed = jnp.moveaxis(value, axis, -1).at[-len(last) :].set(last)
        return jnp.moveaxis(changed, -1, axis)

    def masked(mask: jax.Array) -> jax.Array:
        mask = _fitted(mask, x, first=axis == 0)
        low, high = mask.min(), mask.max()
        mask = jnp.where(high > low, (mask - low) / jnp.where(high > low, high - low, 1), 0)
        return select(cut.model(x * mask.astype(x.dtype)), target)

    maps = Maps(arranged(value), arranged(gradient), lambda v: output(restored(v)), masked, batch)
    return WEIGHTINGS[weights](maps).astype(value.dtype), axis


def _fitted(cam: jax.Array, x: jax.Array, *, first: bool) -> jax.Array:
    """A map, resized to the spatial axes of `x`, with axes of one for its others, which may come first."""
    others = range(x.ndim - cam.ndim) if first else range(cam.ndim, x.ndim)
    spatial = [size for i, size in enumerate(x.shape) if i not in others]
    return jnp.expand_dims(jax.image.resize(cam, spatial, "linear"), tuple(others))


@jax.jit(static_argnames=("weights", "relu", "shape", "channels", "grid", "batch"))
def _grad_cam(
    cut: LayerModel,
    x: PyTree,
    target: Target,
    *,
    weights: str,
    relu: bool,
    shape: tuple[int, ...] | None,
    channels: int | None,
    grid: tuple[int, ...] | None,
    batch: Batch,
) -> jax.Array:
    cam, _ = _cam(cut, x, target, channels, weights=weights, grid=grid, batch=batch)
    cam = jax.nn.relu(cam) if relu else cam
    return cam if shape is None else jax.image.resize(cam, shape, "linear")


@jax.jit(static_argnames=("channels",))
def _fitted_cam(cut: LayerModel, x: jax.Array, target: Target, *, channels: int | None) -> jax.Array:
    """The positive part of the map, resized to the spatial axes of `x`, with axes of one for its others."""
    cam, axis = _cam(cut, x, target, channels, weights="gradcam")
    return _fitted(jax.nn.relu(cam), x, first=axis == 0)


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
