"""Operators that move elements, index them, or make new ones."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn._adapters.aten.registry import OPERATORS, each, operator, optional


@operator("view.default", "_unsafe_view.default", "reshape.default")
def _view(x: Any, size: Sequence[int]) -> Any:
    return x.reshape(size)


@operator("expand.default")
def _expand(x: Any, size: Sequence[int], *, implicit: bool = False) -> Any:
    new = len(size) - x.ndim
    return jnp.broadcast_to(x, [x.shape[i - new] if s == -1 else s for i, s in enumerate(size)])


@operator("permute.default")
def _permute(x: Any, dims: Sequence[int]) -> Any:
    return jnp.transpose(x, dims)


@operator("squeeze.dim", "squeeze.dims")
def _squeeze(x: Any, dim: Any) -> Any:
    dims = each(dim, 1)
    return jnp.squeeze(x, tuple(d for d in dims if x.shape[d] == 1))


@operator("unsqueeze.default")
def _unsqueeze(x: Any, dim: int) -> Any:
    return jnp.expand_dims(x, dim)


@operator("cat.default")
def _cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    return jnp.concatenate([x for x in tensors if x.shape != (0,)], dim)


@operator("stack.default")
def _stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    return jnp.stack(tensors, dim)


@operator("split_with_sizes.default")
def _split(x: Any, sizes: Sequence[int], dim: int = 0) -> Any:
    return tuple(jnp.split(x, np.cumsum(sizes)[:-1].tolist(), dim))


@operator("unbind.int")
def _unbind(x: Any, dim: int = 0) -> Any:
    return tuple(lax.index_in_dim(x, i, dim, keepdims=False) for i in range(x.shape[dim]))


@operator("select.int")
def _select(x: Any, dim: int, index: int) -> Any:
    return lax.index_in_dim(x, index, dim, keepdims=False)


@operator("slice.Tensor")
def _slice(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    start, end, step = slice(start, end, step).indices(x.shape[dim])
    return lax.slice_in_dim(x, start, max(start, end), step, dim)


@operator("copy.default")
def _copy(x: Any, source: Any, non_blocking: bool = False) -> Any:
    return jnp.broadcast_to(source, x.shape).astype(x.dtype)


@operator("slice_scatter.default")
def _slice_scatter(
    x: Any, source: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    return x.at[_along(x, dim, slice(start, end, step))].set(source)


@operator("select_scatter.default")
def _select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    return x.at[_along(x, dim, index)].set(source)


def _along(x: Any, dim: int, place: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * (dim % x.ndim), place)


@operator("flip.default")
def _flip(x: Any, dims: Sequence[int]) -> Any:
    return jnp.flip(x, dims)


@operator("repeat.default")
def _repeat(x: Any, repeats: Sequence[int]) -> Any:
    return jnp.tile(x, repeats)


def _pad(mode: str) -> Callable[..., Any]:
    def pad(x: Any, padding: Sequence[int], value: Any = 0) -> Any:
        pairs = list(zip(padding[::2], padding[1::2], strict=True))[::-1]  # the last axis first
        pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs
        if mode == "constant":  # negative numbers cut off
            return lax.pad(x, jnp.asarray(value, x.dtype), [(a, b, 0) for a, b in pairs])
        return jnp.pad(x, pairs, mode=mode)

    return pad


OPERATORS["constant_pad_nd.default"] = _pad("constant")
for _n in (1, 2, 3):
    OPERATORS[f"reflection_pad{_n}d.default"] = _pad("reflect")
    OPERATORS[f"replication_pad{_n}d.default"] = _pad("edge")


@operator("as_strided.default")
def _as_strided(x: Any, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Any:
    place = np.full((), offset or 0)
    for n, step in zip(size, stride, strict=True):
        place = place[..., None] + np.arange(n) * step
    return x.reshape(-1)[place]


@operator("pixel_shuffle.default")
def _pixel_shuffle(x: Any, factor: int) -> Any:
    *batch, channels, height, width = x.shape
    split = x.reshape(*batch, channels // factor**2, factor, factor, height, width)
    n = len(batch)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return split.transpose(order).reshape(*batch, channels // factor**2, height * factor, width * factor)


def _as_places(indices: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


@operator("index.Tensor")
def _index(x: Any, indices: Sequence[Any]) -> Any:
    return x[_as_places(indices)]


@operator("index_put.default")
def _index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    masks = [index for index in indices if index is not None and index.dtype == bool]
    if masks:
        if len(indices) > 1 or jnp.size(values) != 1 or accumulate:
            raise ValueError("`module` must not assign several values by a mask, whose number is not known")
        mask = masks[0].reshape(masks[0].shape + (1,) * (x.ndim - masks[0].ndim))
        return jnp.where(mask, jnp.reshape(values, ()).astype(x.dtype), x)
    places = x.at[_as_places(indices)]
    return places.add(values) if accumulate else places.set(values)


@operator("index_select.default")
def _index_select(x: Any, dim: int, index: Any) -> Any:
    return jnp.take(x, index, dim)


@operator("embedding.default")
def _embedding(weight: Any, index: Any, *_: Any, **__: Any) -> Any:
    return jnp.take(weight, index, 0)


@operator("gather.default")
def _gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    return x[_scatter_places(x, dim, index)]


@operator("scatter.src", "scatter.value")
def _scatter(x: Any, dim: int, index: Any, source: Any) -> Any:
    return x.at[_scatter_places(x, dim, index)].set(_source(source, index))


@operator("scatter_add.default")
def _scatter_add(x: Any, dim: int, index: Any, source: Any) -> Any:
    return x.at[_scatter_places(x, dim, index)].add(_source(source, index))


def _scatter_places(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    places = list(jnp.indices(index.shape, sparse=True))
    places[dim] = index
    return tuple(places)


def _source(source: Any, index: Any) -> Any:
    return source[tuple(slice(n) for n in index.shape)] if jnp.ndim(source) else source


@operator("full.default")
def _full(size: Sequence[int], value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.full(size, value, optional(dtype))


@operator("full_like.default")
def _full_like(x: Any, value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.full_like(x, value, dtype=optional(dtype))


@operator("scalar_tensor.default")
def _scalar_tensor(value: Any, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.asarray(value, optional(dtype))


@operator("arange.start_step")
def _arange(start: Any, end: Any, step: Any = 1, *, dtype: Any = None, **_: Any) -> Any:
    return jnp.arange(start, end, step, dtype=optional(dtype))


@operator("empty.memory_format")
def _empty(size: Sequence[int], *, dtype: Any = None, **_: Any) -> Any:
    return jnp.zeros(size, optional(dtype))
