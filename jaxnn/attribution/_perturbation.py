"""Attribution by taking parts of the example away, one after another."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map
from jaxnn._model import broadcast_like, prepare, scalar
from jaxnn.attribution._estimate import wide
from jaxnn.attribution._gradient import Model, Target
from jaxnn.attribution._masks import check_groups, mix, spread

Windows = tuple[tuple[int, ...], ...]  # a leaf of the example each


def feature_ablation(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    baseline: Any = 0.0,
    groups: Any = None,
    n_groups: int | None = None,
    batch_size: int = 64,
) -> Any:
    """How much the answer falls when one feature is taken away.

    `a_g = f(x) - f(x with the entries of group g at the baseline)`, at every entry of the group. It takes
    `n + 1` evaluations for `n` groups.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: what an entry that is taken away becomes: a number, or of the structure of `x`.
        groups: which entries are taken away together: integers from 0 to n - 1, of the structure and shape
            of `x` (or a shape that broadcasts: one superpixel for all channels). None: each entry alone.
        n_groups: n; needed only where `groups` is traced, or where a group may be empty.
        batch_size: how many changed examples are evaluated at once. The answer does not depend on it.

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
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    model, x, target = prepare(model, x, target, differentiable=False)
    baseline, (groups, n) = broadcast_like("baseline", baseline, x), check_groups(groups, n_groups, x)
    return _feature_ablation(model, x, target, baseline, groups, n=n, batch_size=batch_size)


@jax.jit(static_argnames=("n", "batch_size"))
def _feature_ablation(
    model: Any, x: Any, target: Any, baseline: Any, groups: Any, *, n: int, batch_size: int
) -> Any:
    f = scalar(model, target)

    def without(group: jax.Array) -> jax.Array:  # without the n-th, which no entry is in: the whole example
        return f(mix(x, baseline, groups, jnp.arange(n) != group))

    answers = wide(chunked_map(without, n + 1, batch_size))  # counts without a sign would wrap
    return spread(answers[n] - answers[:n], groups, x)


def occlusion(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    window: Any,
    stride: Any = 1,
    baseline: Any = 0.0,
    batch_size: int = 64,
) -> Any:
    """How much the answer falls when a window that slides over the example hides what is under it.

    `a_i = mean over the windows w that cover i of f(x) - f(x with w at the baseline)`. Windows start at
    the multiples of the stride; the last along an axis may reach over the edge, so that all is covered.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays; of a pytree, one array is hidden at a time.
        target: an output index, None, or a function; see `saliency`.
        window: the window's shape, a size for each axis of `x`: `(3, 3, 1)` hides one channel at a time,
            `(3, 3, channels)` all of them. For a pytree, a tree of such tuples.
        stride: the steps that the window takes, likewise, at most the window's size; or one integer for all.
        baseline: what a hidden entry becomes: a number, or of the structure of `x`.
        batch_size: how many changed examples are evaluated at once. The answer does not depend on it.

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
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    model, x, target = prepare(model, x, target, differentiable=False)
    baseline = broadcast_like("baseline", baseline, x)
    windows, strides = _check_windows(window, stride, x)
    return _occlusion(model, x, target, baseline, windows=windows, strides=strides, batch_size=batch_size)


def _check_windows(window: Any, stride: Any, x: Any) -> tuple[Windows, Windows]:
    leaves = jax.tree.leaves(x)
    structure: Any = jax.tree.structure(x)
    # A tuple of sizes is a leaf here, so the tree is taken apart no further than `x` is.
    try:
        windows = structure.flatten_up_to(window)
        strides = [stride] * len(leaves) if hasattr(stride, "__index__") else structure.flatten_up_to(stride)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`window` and `stride` must have the structure of `x`, {structure}, with a tuple of integers "
            f"for each array; got {window!r} and {stride!r}"
        ) from error
    checked = [_check_window(*one) for one in zip(windows, strides, leaves, strict=True)]
    return tuple(one for one, _ in checked), tuple(one for _, one in checked)


def _check_window(window: Any, stride: Any, leaf: jax.Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    window = _checks.check_sizes("window", window)
    if len(window) != leaf.ndim or any(size > whole for size, whole in zip(window, leaf.shape, strict=True)):
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


@jax.jit(static_argnames=("windows", "strides", "batch_size"))
def _occlusion(
    model: Any, x: Any, target: Any, baseline: Any, *, windows: Windows, strides: Windows, batch_size: int
) -> Any:
    f = scalar(model, target)
    leaves, structure = jax.tree.flatten(x)
    falls = []
    for i, (leaf, empty) in enumerate(zip(leaves, jax.tree.leaves(baseline), strict=True)):

        def of_leaf(changed: jax.Array, i: int = i) -> jax.Array:
            return f(jax.tree.unflatten(structure, [*leaves[:i], changed, *leaves[i + 1 :]]))

        covers = [_covers(*axis) for axis in zip(leaf.shape, windows[i], strides[i], strict=True)]
        falls.append(_falls(of_leaf, leaf, empty, covers, batch_size))
    return jax.tree.unflatten(structure, falls)


def _falls(
    f: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    empty: jax.Array,
    covers: list[np.ndarray],
    batch_size: int,
) -> jax.Array:
    counts = tuple(len(cover) for cover in covers)
    count = math.prod(counts)

    def hidden(index: jax.Array) -> jax.Array:
        mask = index < count  # under the last index nothing is hidden
        for cover, place in zip(covers, jnp.unravel_index(index % count, counts), strict=True):
            mask = mask[..., None] & jnp.asarray(cover)[place]
        return f(jnp.where(mask, empty, x))

    answers = wide(chunked_map(hidden, count + 1, batch_size))
    falls = (answers[count] - answers[:count]).reshape(counts)
    for cover in covers:  # takes the first axis away and puts the entries last: after all, in order again
        mean = (cover / cover.sum(axis=0)).astype(falls.dtype)  # over the windows that cover each entry
        falls = jnp.tensordot(falls, mean, axes=(0, 0), precision=lax.Precision.HIGHEST)
    return falls.astype(x.dtype)


def _covers(size: int, window: int, stride: int) -> np.ndarray:
    """`(windows, size)`: which entries of an axis each window covers."""
    starts = stride * np.arange(math.ceil((size - window) / stride) + 1)
    entries = np.arange(size)
    return (entries >= starts[:, None]) & (entries < starts[:, None] + window)
