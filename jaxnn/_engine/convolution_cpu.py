"""Ways to compute a convolution on a CPU, and the measured rule that chooses one by shapes.

All take images `(n, ..., c)` and kernels `(..., c / groups, o)`. XLA's own convolution needs the same order
to be fast: it transposes other orders itself, but not inside of a loop, where they fall back to a plain
implementation that was 40 times as slow.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_FEW_POSITIONS = 64  # of the result, up to which columns beat XLA's convolution
_MANY_CHANNELS = 32  # on both sides, from which the gradient of a strided convolution is better scattered
_MOST_SHIFTS = 49  # of the images: each is an operation, which takes time to compile
_MOST_COLUMNS = 2**22  # numbers of a product of columns, which are computed and stored at once
_FEW_RESULTS = 32  # channels of all phases together, up to which one convolution for them is faster


class Convolution(NamedTuple):
    """The parameters of a convolution over some spatial axes, and the sizes of its arrays.

    Attributes:
        images: the sizes of the images along the spatial axes.
        window: those of the kernels.
        out: those of the result.
        strides: of the window.
        padding: of the images, before and behind; negative where they are cut.
        spread: `lhs_dilation`, the distance between the images' elements.
        dilation: `rhs_dilation`, the distance between the window's elements.
        groups: of channels.
        swapped: whether the last axis of the kernels is that of the images' channels.
        params: all others of `jax.lax.conv_general_dilated`.
    """

    images: tuple[int, ...]
    window: tuple[int, ...]
    out: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    swapped: bool
    params: dict[str, Any]


def convolve(images: jax.Array, kernels: jax.Array, **params: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated`, of its primitive's parameters, as a CPU computes it the fastest."""
    if not all(isinstance(size, int) for size in (*images.shape, *kernels.shape)):  # symbolic, for jax.export
        return lax.conv_general_dilated_p.bind(images, kernels, **params)
    (n, c, *at), (o, i, *window), (n_out, c_out, *at_out) = params["dimension_numbers"]
    axes = (n_out, *at_out, c_out)  # the requested position of each axis
    out = jax.eval_shape(lambda x, w: lax.conv_general_dilated_p.bind(x, w, **params), images, kernels).shape
    sizes = tuple(kernels.shape[axis] for axis in window)
    # The axes of a window of one element may go anywhere: then the channels need no transposition.
    swapped = math.prod(sizes) == 1 and o < i
    channels = (o, i) if swapped else (i, o)
    images, kernels = images.transpose(n, *at, c), kernels.transpose(*window, *channels)
    shape = Convolution(
        images.shape[1:-1],
        sizes,
        tuple(out[axis] for axis in at_out),
        tuple(params["window_strides"]),
        tuple(params["padding"]),
        tuple(params["lhs_dilation"]),
        tuple(params["rhs_dilation"]),
        params["feature_group_count"],
        swapped,
        params,
    )
    result = _way(shape, images, kernels)(images, kernels, shape)
    return result.transpose(*sorted(range(len(axes)), key=axes.__getitem__))


def _way(shape: Convolution, images: jax.Array, kernels: jax.Array) -> Any:
    """The fastest way that was measured."""
    per_group, features = kernels.shape[-2:][:: -1 if shape.swapped else 1]
    spread, positions = math.prod(shape.spread) > 1, math.prod(shape.out)
    many = min(per_group, features) >= _MANY_CHANNELS
    if not _is_simple(shape, images.dtype) or min(images.size, kernels.size, positions) == 0:
        return _original
    if shape.groups == 1 and _is_tiled_gradient(shape):
        return _tiles
    if math.prod(shape.window) > _MOST_SHIFTS:
        return _original
    if per_group == 1 and features >= shape.groups:
        return _sums_by_phase if spread and _has_phases(shape) else _sum_of_shifted
    if shape.groups > 1:
        return _original
    if spread and set(shape.strides) == {1} and many:
        return _scattered
    if spread:
        few = features * math.prod(shape.spread) <= _FEW_RESULTS and per_group >= _MANY_CHANNELS
        return _joined_phases if few and _has_phases(shape) else _original
    if math.prod(shape.window) == 1:
        return _product_of_columns
    columns = len(images) * positions * per_group * math.prod(shape.window)
    if positions <= _FEW_POSITIONS and per_group >= _MANY_CHANNELS and columns <= _MOST_COLUMNS:
        return _product_of_columns
    return _original


def _is_simple(shape: Convolution, dtype: Any) -> bool:
    """Whether the sums are in the precision of the result, and of all images."""
    wanted = shape.params["preferred_element_type"]
    same = wanted is None or jnp.dtype(wanted) == dtype
    return dtype in (jnp.float32, jnp.float64) and same and shape.params["batch_group_count"] == 1


def _original(images: jax.Array, kernels: jax.Array, shape: Convolution) -> jax.Array:
    """XLA's convolution."""
    last = images.ndim - 1
    spatial = range(1, last)
    numbers = lax.ConvDimensionNumbers(
        (0, last, *spatial), (last, last - 1, *range(last - 1)), (0, last, *spatial)
    )
    own = {"padding": shape.padding, "lhs_dilation": shape.spread, "dimension_numbers": numbers}
    params = {**shape.params, **own}
    return lax.conv_general_dilated_p.bind(images, _in_order(kernels, shape), **params)


def _in_order(kernels: jax.Array, shape: Convolution) -> jax.Array:
    return jnp.swapaxes(kernels, -1, -2) if shape.swapped else kernels


def _sum_of_shifted(images: jax.Array, kernels: jax.Array, shape: Convolution) -> jax.Array:
    """The sum of the images, shifted, times one element of each kernel; of kernels of one channel."""
    kernels = _in_order(kernels, shape)
    times = kernels.shape[-1] // shape.groups  # results per channel
    if times > 1:
        images = jnp.repeat(images, times, axis=-1)
    total: Any = 0.0
    for place, shifted in _shifted(images, shape):
        total = total + shifted * kernels[place][0]
    return total


def _product_of_columns(images: jax.Array, kernels: jax.Array, shape: Convolution) -> jax.Array:
    """One product of what lies in the window at each place with all kernels."""
    columns = [shifted for _, shifted in _shifted(images, shape)]
    joined = columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
    if shape.swapped:
        return _product(joined, kernels.reshape(kernels.shape[-2:]), axis=1)
    return _product(joined, kernels.reshape(-1, kernels.shape[-1]))


def _scattered(images: jax.Array, kernels: jax.Array, shape: Convolution) -> jax.Array:
    """A product per element of the kernels, before the images are spread; each is shifted to its place."""
    zero = jnp.zeros((), images.dtype)
    total: Any = 0.0
    sizes = zip(shape.images, shape.out, shape.padding, shape.spread, shape.dilation, strict=True)
    along = list(sizes)
    for place in _places(shape.window):
        config = [(0, 0, 0)]
        for at, (size, out, (before, _), spread, dilation) in zip(place, along, strict=True):
            start = before - at * dilation
            config.append((start, out - start - ((size - 1) * spread + 1), spread - 1))
        product = _product(images, kernels[place], axis=int(shape.swapped))
        total = total + lax.pad(product, zero, [*config, (0, 0, 0)])
    return total


class _Phase(NamedTuple):
    """The results at every `spread`-th place, which see the same elements of the window.

    Attributes:
        kernel: those elements, a slice per spatial axis.
        window: how many they are.
        start: of the images' elements that they meet at the first place.
    """

    kernel: tuple[slice, ...]
    window: tuple[int, ...]
    start: tuple[int, ...]


def _has_phases(shape: Convolution) -> bool:
    """Whether every phase of a convolution of spread images is one of the images as they are."""
    whole = all(w >= spread for w, spread in zip(shape.window, shape.spread, strict=True))
    return whole and set(shape.strides) == set(shape.dilation) == {1}


def _phases(shape: Convolution) -> list[_Phase]:
    """The phases, in the order of their places: the last axis changes first."""
    before = [pad for pad, _ in shape.padding]
    phases = []
    for place in _places(shape.spread):
        along = list(zip(place, shape.spread, before, shape.window, strict=True))
        first = [(pad - at) % spread for at, spread, pad, _ in along]
        phases.append(
            _Phase(
                tuple(slice(k, None, spread) for k, spread in zip(first, shape.spread, strict=True)),
                tuple(len(range(k, w, spread)) for k, (_, spread, _, w) in zip(first, along, strict=True)),
                tuple((at + k - pad) // spread for k, (at, spread, pad, _) in zip(first, along, strict=True)),
            )
        )
    return phases


def _of_phase(shape: Convolution, window: tuple[int, ...], start: tuple[int, ...]) -> Convolution:
    """The convolution of the images as they are, from a place on."""
    out = tuple(-(-size // spread) for size, spread in zip(shape.out, shape.spread, strict=True))
    ends = zip(start, window, out, shape.images, strict=True)
    padding = tuple((-first, first + w - 1 + size - image) for first, w, size, image in ends)
    return shape._replace(window=window, out=out, padding=padding, spread=(1,) * len(out))


def _sums_by_phase(images: jax.Array, kernels: jax.Array, shape: Convolution) -> jax.Array:
    """Sums of shifted images, one per phase: without the zeros between the elements of spread images."""
    results = [
        _sum_of_shifted(images, kernels[phase.kernel], _of_phase(shape, phase.window, phase.start))
        for phase in _phases(shape)
    ]
    return _interleaved(jnp.stack(results, -2), shape)


def _joined_phases(images: jax.Array, kernels: jax.Array, shape: Convolution) -> jax.Array:
    """One convolution of the images as they are, whose channels are those of all phases."""
    phases = _phases(shape)
    start = tuple(map(min, zip(*(phase.start for phase in phases), strict=True)))
    ends = ([a + b for a, b in zip(p.start, p.window, strict=True)] for p in phases)
    window = tuple(end - first for end, first in zip(map(max, zip(*ends, strict=True)), start, strict=True))
    padded = []
    for phase in phases:
        before = [own - first for own, first in zip(phase.start, start, strict=True)]
        along = zip(before, window, phase.window, strict=True)
        zeros = [(skipped, whole - size - skipped) for skipped, whole, size in along]
        padded.append(jnp.pad(kernels[phase.kernel], [*zeros, (0, 0), (0, 0)]))
    result = _original(images, jnp.concatenate(padded, -1), _of_phase(shape, window, start))
    return _interleaved(result.reshape(*result.shape[:-1], len(phases), -1), shape)


def _interleaved(phases: jax.Array, shape: Convolution) -> jax.Array:
    """The results `(n, ..., phases, o)` of all phases at their places."""
    n, *sizes, _, o = phases.shape
    tiles = phases.reshape(n, *sizes, *shape.spread, o)
    return _untiled(tiles)[(slice(None), *map(slice, shape.out))]


def _untiled(tiles: jax.Array) -> jax.Array:
    """Tiles `(n, places..., sizes..., o)` side by side: `(n, places * sizes..., o)`."""
    n, *sizes, o = tiles.shape
    d = len(sizes) // 2
    order = [0, *itertools.chain.from_iterable((1 + k, 1 + d + k) for k in range(d)), 1 + 2 * d]
    out = [places * size for places, size in zip(sizes[:d], sizes[d:], strict=True)]
    return tiles.transpose(order).reshape(n, *out, o)


def _is_tiled_gradient(shape: Convolution) -> bool:
    """Whether the results at the windows of one input element are a tile, next to those of the others.

    It is the gradient of a convolution whose stride is its window, such as that of the patches of an image.
    """
    return (
        math.prod(shape.window) > 1
        and shape.spread == shape.window
        and set(shape.strides) == set(shape.dilation) == {1}
        and all(pad == (w - 1, w - 1) for pad, w in zip(shape.padding, shape.window, strict=True))
    )


def _tiles(images: jax.Array, kernels: jax.Array, shape: Convolution) -> jax.Array:
    """One product of each element with all of the kernels, in reverse order, laid out as tiles."""
    n, *sizes, _ = images.shape
    flipped = jnp.flip(kernels, range(len(sizes)))
    *window, c, o = flipped.shape
    by_channel = jnp.moveaxis(flipped, -2, 0).reshape(c, -1)
    return _untiled(_product(images, by_channel).reshape(n, *sizes, *window, o))


def _shifted(images: jax.Array, shape: Convolution) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """The images as each element of the window sees them, with its place in the window."""
    spatial = [(*pad, spread - 1) for pad, spread in zip(shape.padding, shape.spread, strict=True)]
    if any(map(any, spatial)):
        images = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *spatial, (0, 0, 0)])
    if math.prod(shape.window) > 1:  # or XLA computes what they come from again for each shift
        images = lax.optimization_barrier(images)
    for place in _places(shape.window):
        start = [at * dilation for at, dilation in zip(place, shape.dilation, strict=True)]
        end = [
            at + (out - 1) * stride + 1
            for at, out, stride in zip(start, shape.out, shape.strides, strict=True)
        ]
        n, c = images.shape[0], images.shape[-1]
        yield place, lax.slice(images, (0, *start, 0), (n, *end, c), (1, *shape.strides, 1))


def _places(window: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, window))


def _product(images: jax.Array, weights: jax.Array, axis: int = 0) -> jax.Array:
    """The product over the channels of the images and an axis of the weights."""
    return lax.dot_general(images, weights, (((images.ndim - 1,), (axis,)), ((), ())))
