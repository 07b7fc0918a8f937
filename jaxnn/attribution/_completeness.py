"""Completeness: whether attributions sum to the change of the output that they explain."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.cpu_layout import fast_convolutions
from jaxnn._model import as_example, broadcast_like, check_batch_like, output_shape, prepare, scalar
from jaxnn._rewrite import capture, lengths_of
from jaxnn._typing import Model, PyTree, Target


def completeness_gap(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    baseline: PyTree = 0.0,
    baselines: PyTree = None,
) -> jax.Array:
    """Convergence delta: the sum of the attributions minus `f(x) - f(baseline)`.

    `gap = sum_i a_i - (f(x) - f(x0))`: 0 for a complete method.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        attributions: of any method, at the inputs or at a layer: of the structure and shapes of `x`, or of
            the shape of a named intermediate.
        baseline: that of the attributions, as in `integrated_gradients`. Integers and booleans that the
            method held must be in it as they are in `x`.
        baselines: a set of them in its place, as in `expected_gradients`: `f(x0)` is the mean over them.

    Returns:
        A scalar in units of the output; negative where the attributions sum to less than the difference.

    Raises:
        TypeError: `attributions` does not hold numbers, or as `saliency` raises.
        ValueError: `attributions` or a baseline is of another shape, or as `saliency` raises.

    Example:
        >>> from jaxnn import attribution
        >>> square, x = lambda x: x[0] ** 2, [3.0]
        >>> attributions = attribution.input_x_gradient(square, x)
        >>> float(attribution.completeness_gap(square, x, None, attributions))
        9.0
    """
    return gap_and_change(model, x, target, attributions, baseline, baselines)[0]


def gap_and_change(
    model: Model, x: PyTree, target: Target, attributions: PyTree, baseline: PyTree, baselines: PyTree
) -> tuple[jax.Array, jax.Array]:
    """The gap of `completeness_gap`, and the change of the output."""
    model, x, target = prepare(model, x, target, differentiable=False)
    if baselines is None:
        baselines = jax.tree.map(lambda leaf: leaf[None], broadcast_like("baseline", baseline, x))
    else:
        baselines = check_batch_like("baselines", baselines, x)
    attributions = as_example("attributions", attributions)
    _check_shapes(model, x, attributions)
    return _gap_and_change(model, x, target, attributions, baselines)


def _check_shapes(model: Model, x: PyTree, attributions: PyTree) -> None:
    """Raise unless attributions have the shapes of `x`, or of a layer; inside of scans also of one step."""
    shapes = jax.tree.map(jnp.shape, attributions)
    if shapes == jax.tree.map(jnp.shape, x):
        return
    layers = {
        name: value.shape for name, value in output_shape(jax.tree_util.Partial(capture), model, x)[1].items()
    }
    for name, scans in lengths_of(model, x).items():
        if shapes in (layers.get(name), layers.get(name, ())[len(scans) :]):
            return
    listed = "".join(f", {shape} of {name!r}" for name, shape in layers.items())
    raise ValueError(
        f"`attributions` must have the structure and shapes of `x`, {jax.tree.map(jnp.shape, x)}, or the "
        f"shape of an intermediate{listed}; got {shapes}"
    )


@jax.jit
def _gap_and_change(
    model: Model, x: PyTree, target: Target, attributions: PyTree, baselines: PyTree
) -> tuple[jax.Array, jax.Array]:
    function = fast_convolutions(scalar(model, target))
    output, output0 = function(x), jnp.mean(jax.vmap(function)(baselines))
    return _difference(attributions, output, output0), output - output0


def _difference(attributions: PyTree, output: jax.Array, output0: jax.Array) -> jax.Array:
    change = output - output0
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(attributions))
    return (total - change).astype(change.dtype)


def gap_of(attributions: PyTree, output: jax.Array, output0: jax.Array, *, within: float) -> jax.Array:
    """The completeness gap of a method, the change of the output, and the largest gap without a warning.

    One array `(3,)`, since each transfer from the device costs time.

    Args:
        attributions: a pytree of arrays.
        output: the explained scalar.
        output0: that at the baseline.
        within: the allowed fraction of the change, or of a hundredth of the sum of sizes where that is
            more; rounding in the dtype is allowed, too.
    """
    size = sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(attributions))
    change = output - output0
    rounding = 16 * jnp.finfo(change.dtype).eps * (size + jnp.abs(output) + jnp.abs(output0))
    allowed = jnp.maximum(within * jnp.maximum(jnp.abs(change), 0.01 * size), rounding)
    return jnp.stack([_difference(attributions, output, output0), change, allowed.astype(change.dtype)])


def warn_if_incomplete(method: str, gap: jax.Array | None, advice: str) -> None:
    """Warn, in the name of the caller's caller, where the values are known and the gap is too large.

    Args:
        method: its name.
        gap: of `gap_of`; None where it was not asked for.
        advice: what to do.
    """
    if gap is None or not _checks.is_concrete(gap) or not gap.is_fully_addressable:
        return
    difference, change, allowed = np.asarray(gap, np.float64).tolist()
    if not (math.isfinite(difference) and abs(difference) <= allowed):
        warnings.warn(
            f"the attributions of {method} sum to {change + difference:.6g}, and the output changed by "
            f"{change:.6g}, a gap of {difference:.3g}: {advice}; `check_completeness=False` turns this off",
            stacklevel=3,
        )
