"""Perturbation: the change of the output when parts of the example are replaced by a baseline."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map, vary_like
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._engine.window_changes import changed_in_windows
from jaxnn._engine.windows import cover, part
from jaxnn._model import broadcast_like, fast_scalar, prepare
from jaxnn._precision import widen
from jaxnn._typing import Model, PyTree, Target
from jaxnn.attribution._masks import Game, examples_at_once, like_floats, make_game

Windows = tuple[tuple[int, ...], ...]  # one per leaf of the example


def feature_ablation(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> PyTree:
    """Feature ablation: the drop of the output when one feature is replaced by the baseline.

    `a_g = f(x) - f(x with the elements of group g at the baseline)`, at every element of the group. It takes
    `n + 1` evaluations for `n` groups.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: the value of an ablated element: a number, or of the structure of `x`.
        groups: which elements are ablated together: integers from 0 to n - 1, of the structure and shape
            of `x` (or a shape that broadcasts: one superpixel for all channels). None: each element alone.
        n_groups: n; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `integrated_gradients`. The result does not depend on it.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: `model` is not callable, or an argument is of another type.
        ValueError: a shape, group, index or size that does not fit.

    References:
        Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014, arXiv:1311.2901.

    Example:
        >>> from jaxnn import attribution
        >>> model = lambda x: x[0] * x[1] + x[2]
        >>> attribution.feature_ablation(model, [2.0, 3.0, 1.0]).tolist()
        [6.0, 6.0, 1.0]
        >>> attribution.feature_ablation(model, [2.0, 3.0, 1.0], groups=[0, 1, 1]).tolist()
        [6.0, 7.0, 7.0]
    """
    batch = check_batch_size(batch_size, 64)
    game = make_game(model, x, target, baseline, groups, n_groups)
    if game.groups is not None:
        return _feature_ablation(game, batch)
    ones = tuple((1,) * leaf.ndim for leaf in jax.tree.leaves(game.x))  # windows of one element
    return _occlusion(game.model, game.x, game.target, game.baseline, windows=ones, strides=ones, batch=batch)


@jax.jit(static_argnames=("batch",))
def _feature_ablation(game: Game, batch: Batch) -> PyTree:
    n = game.n
    # No element is in a group n: its output is that of the whole example.
    outputs = chunked_map(lambda group: game(jnp.arange(n) != group), n + 1, game.batch_size(batch))
    outputs = widen(outputs)  # unsigned integers would wrap
    return game.spread(outputs[n] - outputs[:n])


def occlusion(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    window: PyTree,
    stride: PyTree = 1,
    baseline: PyTree = 0.0,
    batch_size: int | None = None,
) -> PyTree:
    """Occlusion: the mean drop of the output when a sliding window that covers an element hides it.

    `a_i = mean over the windows w that cover i of f(x) - f(x with w at the baseline)`. Windows start at
    multiples of the stride; the last along an axis may extend past the edge, so every element is covered.
    Only what a window can change is computed again: of a convolution, its field.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays; of a pytree, one array is hidden at a time.
        target: an output index, None, or a function; see `saliency`.
        window: the window's shape, one size per axis of `x`: `(3, 3, 1)` hides one channel at a time,
            `(3, 3, channels)` all of them. For a pytree, a tree of such tuples; that of an array without
            elements is ignored.
        stride: the step along each axis, likewise, at most the window's size; or one integer for all.
        baseline: the value of a hidden element: a number, or of the structure of `x`.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `integrated_gradients`. The result does not depend on it.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: `model` is not callable, or an argument is of another type.
        ValueError: a window larger than `x`, a stride larger than the window, or a shape that does not fit.

    References:
        Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014, arXiv:1311.2901.

    Example:
        >>> from jaxnn import attribution
        >>> attribution.occlusion(lambda x: x.sum(), [1.0, 2.0, 3.0], window=(2,)).tolist()
        [3.0, 4.0, 5.0]
    """
    batch = check_batch_size(batch_size, 64)
    model, x, target = prepare(model, x, target, differentiable=False)
    baseline = broadcast_like("baseline", baseline, x)
    windows, strides = _check_windows(window, stride, x)
    return _occlusion(model, x, target, baseline, windows=windows, strides=strides, batch=batch)


def _check_windows(window: PyTree, stride: PyTree, x: PyTree) -> tuple[Windows, Windows]:
    leaves = jax.tree.leaves(x)
    structure: PyTree = jax.tree.structure(x)
    # A tuple of sizes is a leaf here: the tree is flattened no further than `x`.
    try:
        windows = structure.flatten_up_to(window)
        strides = [stride] * len(leaves) if hasattr(stride, "__index__") else structure.flatten_up_to(stride)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`window` and `stride` must have the structure of `x`, {structure}, with a tuple of integers "
            f"for each array; got {window!r} and {stride!r}"
        ) from error
    checked = [_check_window(*each) for each in zip(windows, strides, leaves, strict=True)]
    return tuple(sizes for sizes, _ in checked), tuple(steps for _, steps in checked)


def _check_window(window: PyTree, stride: PyTree, leaf: jax.Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if leaf.size == 0:  # nothing to hide, and no window that fits
        return (), ()
    window = _checks.check_sizes("window", window)
    if len(window) != leaf.ndim or any(w > size for w, size in zip(window, leaf.shape, strict=True)):
        raise ValueError(
            f"`window` must have a size for each axis of `x`, at most its shape {leaf.shape}; got {window}"
        )
    steps = _checks.check_sizes("stride", stride if isinstance(stride, Sequence) else (stride,) * leaf.ndim)
    steps = tuple(min(s, w) if w == d else s for s, w, d in zip(steps, window, leaf.shape, strict=False))
    if len(steps) != leaf.ndim or any(s > w for s, w in zip(steps, window, strict=True)):
        raise ValueError(
            f"`stride` must be at most the `window`, {window}, along each axis, to leave no gaps; "
            f"got {stride!r}"
        )
    return window, steps


@jax.jit(static_argnames=("windows", "strides", "batch"))
def _occlusion(
    model: Model,
    x: PyTree,
    target: Target,
    baseline: PyTree,
    *,
    windows: Windows,
    strides: Windows,
    batch: Batch,
) -> PyTree:
    batch_size = examples_at_once(batch, model, x)
    x, baseline = vary_like(x, baseline), vary_like(baseline, x)
    leaves, structure = jax.tree.flatten(x)
    f, drops = fast_scalar(model, target, x), []
    for i, (leaf, empty) in enumerate(zip(leaves, jax.tree.leaves(baseline), strict=True)):
        if leaf.size == 0:
            drops.append(like_floats(jnp.zeros(leaf.shape), leaf))
            continue

        def of_leaf(changed: jax.Array, i: int = i) -> jax.Array:
            changed = changed.reshape(leaves[i].shape)
            return f(jax.tree.unflatten(structure, [*leaves[:i], changed, *leaves[i + 1 :]]))

        sizes = zip(leaf.shape or (1,), windows[i] or (1,), strides[i] or (1,), strict=True)
        axes = [_windows_along(*each) for each in sizes]
        flat, gone = (jnp.atleast_1d(each) for each in (leaf, empty))
        found = _mean_drops(_drops(of_leaf, flat, gone, axes, batch_size), axes, flat)
        drops.append(found.reshape(leaf.shape))
    return jax.tree.unflatten(structure, drops)


class _Axis(NamedTuple):
    """The windows along one axis: the first element of each, and the one behind its last."""

    first: np.ndarray
    end: np.ndarray


def _windows_along(size: int, window: int, stride: int) -> _Axis:
    first = stride * np.arange(math.ceil((size - window) / stride) + 1)
    return _Axis(first, np.minimum(first + window, size))


def _drops(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, empty: jax.Array, axes: list[_Axis], batch_size: int
) -> jax.Array:
    """The drop of the output where each window is hidden; one axis per axis of `x`."""
    counts = tuple(len(axis.first) for axis in axes)
    places = np.unravel_index(np.arange(math.prod(counts)), counts)
    first, end = ([axis[k][place] for axis, place in zip(axes, places, strict=True)] for k in range(2))
    box = tuple(map(cover, first, end, x.shape))
    output, changed = changed_in_windows(f, x, box)

    def hidden(index: jax.Array) -> jax.Array:
        mask = jnp.array(True)
        for span, low, high in zip(box, first, end, strict=True):
            elements = span.starts[:, None] + np.arange(span.size)
            inside = (elements >= low[:, None]) & (elements < high[:, None])
            mask = mask[..., None] & jnp.expand_dims(jnp.asarray(inside)[index], range(mask.ndim))
        shown = part(x, box, index)
        patch = jnp.where(mask, part(empty, box, index), shown)
        # Exactly, and not but for the rounding of other operations.
        return jnp.where(jnp.all(patch == shown), output, changed(index, patch))

    outputs = widen(chunked_map(hidden, len(places[0]), batch_size))
    return (widen(output) - outputs).reshape(counts)


def _mean_drops(drops: jax.Array, axes: list[_Axis], x: jax.Array) -> jax.Array:
    """The mean over the windows that cover each element."""
    for axis, size in zip(axes, x.shape, strict=True):
        if len(axis.first) == size:  # windows of one element
            drops = jnp.moveaxis(drops, 0, -1)
            continue
        elements = np.arange(size)
        covers = (elements >= axis.first[:, None]) & (elements < axis.end[:, None])
        mean = (covers / covers.sum(axis=0)).astype(drops.dtype)
        # Contracts the first axis and appends the elements': after all, in order again.
        drops = jnp.tensordot(drops, mean, axes=(0, 0), precision=lax.Precision.HIGHEST)
    return like_floats(drops, x)
