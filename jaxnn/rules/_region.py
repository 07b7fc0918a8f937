"""Linear region of one input: the affine map of a piecewise linear model there, and where it holds.

The graph of the model is evaluated forwards. At each operation with a kink (`max`, `abs`, a comparison, a
pool) the side on which the input lies is taken, and the distance from the kink is recorded: its gap. On the
region where no gap changes its sign, all values and gaps are affine in the input.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxnn import _checks
from jaxnn._engine.graph import Graph, graph
from jaxnn._engine.held import hold
from jaxnn._engine.jaxpr import bind
from jaxnn._engine.loops import ChunkStep, chunked_scan, vary_like
from jaxnn._engine.memory import BUDGET, Batch
from jaxnn._engine.primitives import CALLBACKS, NO_GRADIENT, is_affine, is_real
from jaxnn._model import as_example, as_model, output_shape
from jaxnn._precision import wide_dtype, widen
from jaxnn._repr import short_repr
from jaxnn._typing import Model, PyTree

_CHUNK = 2**25  # bytes of a chunk of derivatives: larger chunks were no faster


class LinearRegion(NamedTuple):
    """A linear region: the polytope around an input on which a model is one affine map.

    `n_in` and `n_out` count the elements of all arrays of the input and the output.

    Attributes:
        kernel: `(n_in, n_out)`: the output of the model at `z` is `z @ kernel + bias`.
        bias: `(n_out,)`.
        normals: `(m, n_in)`: the region is the polytope of all `z` with `normals @ z <= offsets`. Zeros for a
            kink that the input does not move. None where they were left out.
        offsets: `(m,)`; None without the normals.
        radius: a scalar: half the side of the largest cube around the input inside the region, in units of
            the input.
        distance: a scalar: the Euclidean distance from the input to the nearest face of the region.
    """

    kernel: Float[Array, "n_in n_out"]
    bias: Float[Array, "n_out"]
    normals: Float[Array, "m n_in"] | None
    offsets: Float[Array, "m"] | None
    radius: Float[Array, ""]
    distance: Float[Array, ""]

    def __repr__(self) -> str:
        return short_repr(self)


def linear_region(model: Model, x: PyTree, *, normals: bool | None = None) -> LinearRegion:
    """Linear region: the exact affine map of a piecewise linear model around an input, and where it holds.

    `model(z) = z @ kernel + bias` for every `z` with `normals @ z <= offsets`: there each unit is on the same
    side of its kink as at `x`. Models may be built from affine operations (dense layers, convolutions,
    normalization by stored statistics), `max`, `min`, `abs`, `clamp`, maxima over axes and windows, and
    selection by comparisons: ReLU, leaky ReLU, ReLU6, hard tanh, maxout, max-pooling. An input with a unit
    exactly on its kink belongs to the region that the comparison in the model selects; the radius is then 0.
    The region is that of one activation pattern: a neighbor may have the same map.

    A unit with a kink has one normal of `n_in` elements, and more of them in pools and maxima: a small
    convolutional network has gigabytes of normals. The map, the radius and the distance are computed from a
    few normals at a time, in memory that grows with `m` and with `n_in`, but not with their product. The time
    is that of `n_in` derivatives, or of `m + n_out` gradients if these are fewer.

    Args:
        model: a callable of one example, piecewise linear. For a network that ends in a sigmoid or a softmax,
            use the signal before it: `lambda x: jaxnn.capture(network, x)[1]["output_in"]`.
        x: the example, an array or a pytree of arrays; flattened, its floating-point arrays have `n_in`
            elements. Integers and booleans are held.
        normals: whether the result has the normals and offsets. None: it has them, and is refused before any
            computation where they take more than 1 GiB.

    Returns:
        A `LinearRegion`. Without any kink the region is the whole space, `m` is 0 and the radius infinite.

    Raises:
        TypeError: `model` is not callable, or `x` does not hold numbers.
        ValueError: `normals` is None, and they take more than 1 GiB.
        NotImplementedError: the model has an operation that is not piecewise linear; the message names it.

    References:
        Montufar, Pascanu, Cho and Bengio, "On the number of linear regions of deep neural networks",
        2014, arXiv:1402.1869. Croce and Hein, "A randomized gradient-free attack on ReLU networks", 2018,
        arXiv:1811.11493, for the distances.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import rules
        >>> region = rules.linear_region(lambda x: jnp.abs(x[0]) + jnp.maximum(x[1], 0.0), [-2.0, 1.0])
        >>> region.kernel.tolist(), region.bias.tolist(), float(region.radius)
        ([[-1.0], [1.0]], [0.0], 1.0)
        >>> bool((region.normals @ jnp.array([-5.0, 0.1]) <= region.offsets).all())  # x_0 <= 0 and x_1 >= 0
        True
    """
    keep = None if normals is None else _checks.check_flag("normals", normals)
    model, x = as_model(model), as_example("x", x)
    output_shape(model, x)
    return _linear_region(*hold(model, x), keep=keep)


@jax.jit(static_argnames=("keep",))
def _linear_region(model: Model, x: PyTree, *, keep: bool | None) -> LinearRegion:
    flat, unravel = ravel_pytree(x)

    def output_of(values: jax.Array) -> jax.Array:
        return ravel_pytree(model(unravel(values)))[0]

    line = graph(output_of, flat)

    def parts(values: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
        output, gaps, differences = _follow(line, values)
        return (output, gaps), (output, gaps, differences)

    n_out, m = (part.size for part in jax.eval_shape(parts, flat)[0])
    if keep is None:
        _check_bytes(m, flat.size, flat.dtype.itemsize)
    derivatives = _by_columns if flat.size <= n_out + m else _by_rows
    found, (output, gaps, differences) = derivatives(parts, flat, keep=keep is not False)
    kernel, normals, sizes, squares = found
    # Each gap is at least 0 here: 0 <= gap + normals @ (z - x).
    # Gradients that cancel, as between two maxima of the same value, leave rounding errors. Beside a constant
    # none cancel: the gradient of a unit may be of any size.
    rounding = 8 * jnp.finfo(flat.dtype).eps * jnp.max(sizes, initial=0)
    face = sizes > jnp.where(differences, rounding, 0)
    # The gradient of a root at 0 is not finite, so the norm of no face is replaced by 1.
    radius = _nearest(gaps / jnp.where(face, sizes, 1), face)
    distance = _nearest(gaps / jnp.sqrt(jnp.where(face, squares, 1)), face)
    if normals is not None:
        normals = jnp.where(face[:, None], normals, 0)
    return LinearRegion(
        kernel=kernel,
        bias=output - flat @ kernel,
        normals=None if normals is None else -normals,
        offsets=None if normals is None else gaps - normals @ flat,
        radius=radius.astype(gaps.dtype),
        distance=distance.astype(gaps.dtype),
    )


def _check_bytes(kinks: int, inputs: int, itemsize: int) -> None:
    size = kinks * inputs * itemsize
    if size > BUDGET:
        raise ValueError(
            f"`normals` would take {size / 2**30:,.1f} GiB, for {kinks:,} kinks and {inputs:,} inputs; "
            "`normals=False` leaves them out of the result, and `normals=True` computes them anyway"
        )


class _Derivatives(NamedTuple):
    """The kernel, and of the gradient of each gap: itself, where it is kept, and its two squared norms.

    Attributes:
        kernel: `(n_in, n_out)`.
        normals: `(m, n_in)`, or None.
        sizes: `(m,)`: the sum of the absolute values of each gradient.
        squares: `(m,)`: that of their squares.
    """

    kernel: jax.Array
    normals: jax.Array | None
    sizes: jax.Array
    squares: jax.Array


Parts = Callable[[jax.Array], tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]]


def _by_columns(parts: Parts, flat: jax.Array, *, keep: bool) -> tuple[_Derivatives, tuple[jax.Array, ...]]:
    """The derivative in each input, a chunk of inputs at a time."""
    (_, gaps), push, values = jax.linearize(parts, flat, has_aux=True)

    def step(sums: tuple[jax.Array, ...], indices: jax.Array, valid: jax.Array) -> tuple[Any, Any]:
        directions = _basis(indices, flat) * valid[:, None].astype(flat.dtype)
        kernel, normals = jax.vmap(push)(directions)
        sums = tuple(a + b for a, b in zip(sums, _norms(normals, 0), strict=True))
        return sums, (kernel, normals if keep else None)

    zeros = jnp.zeros(gaps.shape, wide_dtype(gaps.dtype))
    sums, (kernel, normals) = _chunks(step, (zeros, zeros), flat.size, jax.make_jaxpr(push)(flat))
    return _Derivatives(kernel, None if normals is None else normals.T, *sums), values


def _by_rows(parts: Parts, flat: jax.Array, *, keep: bool) -> tuple[_Derivatives, tuple[jax.Array, ...]]:
    """The gradient of each output and each gap, a chunk of them at a time."""
    (output, gaps), pull, values = jax.vjp(parts, flat, has_aux=True)

    def of_outputs(_: None, indices: jax.Array, valid: jax.Array) -> tuple[None, jax.Array]:
        rows = jax.vmap(lambda row: pull((row, jnp.zeros_like(gaps)))[0])(_basis(indices, output))
        return None, rows

    def of_gaps(_: None, indices: jax.Array, valid: jax.Array) -> tuple[None, Any]:
        rows = jax.vmap(lambda row: pull((jnp.zeros_like(output), row))[0])(_basis(indices, gaps))
        return None, (rows if keep else None, *_norms(rows, 1))

    work = jax.make_jaxpr(pull)((output, gaps))
    kernel = _chunks(of_outputs, None, output.size, work)[1].T
    return _Derivatives(kernel, *_chunks(of_gaps, None, gaps.size, work)[1]), values


def _basis(indices: jax.Array, like: jax.Array) -> jax.Array:
    """Unit vectors `(n, size)`."""
    return vary_like(jax.nn.one_hot(indices, like.size, dtype=like.dtype), like)


def _norms(normals: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Along one axis, the sums of the absolute values and of the squares."""
    wide = widen(normals)
    return jnp.sum(jnp.abs(wide), axis), jnp.sum(jnp.square(wide), axis)


def _chunks(step: ChunkStep, carry: Any, count: int, work: core.ClosedJaxpr) -> tuple[Any, Any]:
    """`chunked_scan` in chunks of `_CHUNK` bytes, also over no index; `work` is that of one index."""
    if count == 0:
        return step(carry, jnp.arange(0), jnp.zeros(0, bool))
    return chunked_scan(step, carry, count, Batch(count, bounded=True).size(work, _CHUNK))


def _nearest(lengths: Float[Array, "m"], face: Bool[Array, "m"]) -> Float[Array, ""]:
    """The distance to the nearest face; a gap that does not depend on the input is no face."""
    return jnp.min(jnp.where(face, lengths, jnp.inf), initial=jnp.inf)


Kink = tuple[jax.Array, list[jax.Array]]  # the output of the operation, and gaps of at least 0
Operands = Sequence[jax.Array]
KinkRule = Callable[[Operands, core.JaxprEqn], Kink]


def _follow(function: Graph, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The output and all gaps, as affine functions of the input on the sides that it lies on.

    And whether each gap is the difference of two values that depend on the input.
    """
    values: dict[Any, Any] = dict(zip(function.inputs, [x], strict=True))
    affine = set(function.inputs)  # everything else is constant on the region
    gaps: list[jax.Array] = []
    differences: list[np.ndarray] = []
    for step in function.steps:
        for eqn in step.equations:
            if eqn.outvars[0] in values:  # part of two steps
                continue
            operands = [function.read(v, values) for v in eqn.invars]
            moving = [not isinstance(v, core.Literal) and v in affine for v in eqn.invars]
            if not any(moving) or (is_real(*eqn.outvars) and is_affine(eqn, affine)):
                values.update(zip(eqn.outvars, bind(eqn, operands), strict=True))
                if any(moving):
                    affine.update(eqn.outvars)
            else:
                output, kinks = _kink(eqn, operands, moving)
                values[eqn.outvars[0]] = output
                gaps += kinks
                difference = eqn.primitive.name in _REDUCTIONS or sum(moving) > 1
                differences += [np.full(gap.size, difference) for gap in kinks]
                if jnp.issubdtype(output.dtype, jnp.inexact):
                    affine.update(eqn.outvars)
    (output,) = function.results(values)
    flat = [jnp.ravel(gap) for gap in gaps]
    if not flat:
        return output, jnp.zeros(0, x.dtype), jnp.zeros(0, bool)
    return output, jnp.concatenate(flat), jnp.asarray(np.concatenate(differences))


def _kink(eqn: core.JaxprEqn, read: Sequence[Any], moving: Sequence[bool]) -> Kink:
    name = eqn.primitive.name
    aval: Any = eqn.outvars[0].aval
    operands = [jnp.broadcast_to(value, aval.shape) for value in read] if name in _ELEMENTWISE else list(read)
    known = name in _ELEMENTWISE or (name in _REDUCTIONS and moving == [True])
    if known and (name != "clamp" or moving == [False, True, False]):
        output, gaps = (_ELEMENTWISE | _REDUCTIONS)[name](operands, eqn)
        return output.astype(aval.dtype), gaps
    if name in CALLBACKS:
        raise NotImplementedError(f"`model` {NO_GRADIENT}")
    raise NotImplementedError(
        f"the model has the operation {name!r} on values that depend on its input, which is not known to be "
        "piecewise linear, as ReLU and leaky ReLU are; for a network that ends in a sigmoid or a softmax, "
        'use the signal before it: jaxnn.capture(network, x)[1]["output_in"]'
    )


def _side(positive: jax.Array, gap: jax.Array) -> jax.Array:
    """The gap with the sign that makes it at least 0 on this side of the kink."""
    return jnp.where(positive, gap, -gap)


def _max(operands: Operands, _: core.JaxprEqn) -> Kink:
    a, b = operands
    return jnp.where(a > b, a, b), [_side(a > b, a - b)]


def _min(operands: Operands, _: core.JaxprEqn) -> Kink:
    a, b = operands
    return jnp.where(a < b, a, b), [_side(a < b, b - a)]


def _abs(operands: Operands, _: core.JaxprEqn) -> Kink:
    (a,) = operands
    size = _side(a >= 0, a)
    return size, [size]


def _clamp(operands: Operands, _: core.JaxprEqn) -> Kink:
    low, x, high = operands
    below, above = x < low, x > high
    clamped = jnp.where(below, low, jnp.where(above, high, x))
    return clamped, [_side(~below, x - low), _side(~above, high - x)]


def _compare(compare: Callable[[jax.Array, jax.Array], jax.Array], above: bool) -> KinkRule:
    """A comparison that is true above (or below) its kink."""

    def kink(operands: Operands, _: core.JaxprEqn) -> Kink:
        a, b = operands
        result = compare(a, b)
        return result, [_side(result == above, a - b)]

    return kink


def _extremum(sign: int) -> KinkRule:
    """The largest (`sign` 1) or smallest (-1) element over some axes; the first of several equal ones."""

    def kink(operands: Operands, eqn: core.JaxprEqn) -> Kink:
        (x,) = operands
        axes = tuple(eqn.params["axes"])
        rest = [axis for axis in range(x.ndim) if axis not in axes]
        rows = jnp.transpose(x, (*rest, *axes)).reshape(*(x.shape[axis] for axis in rest), -1)
        best, gaps = _first_largest(sign * rows)
        return sign * best, [gaps]

    return kink


def _first_largest(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest element of the last axis, the first of equal ones, and its difference to each."""
    place = jnp.argmax(rows, axis=-1, keepdims=True)
    best = jnp.take_along_axis(rows, place, axis=-1)
    itself = lax.broadcasted_iota(place.dtype, rows.shape, rows.ndim - 1) == place
    return best[..., 0], jnp.where(itself, 0, best - rows)


def _pool(operands: Operands, eqn: core.JaxprEqn) -> Kink:
    """The largest element of each window, with one gap per position in the window."""
    (x,) = operands
    params = eqn.params
    strides, window = params["window_strides"], params["window_dimensions"]
    if any(size != 1 for size in (*params["base_dilation"], *params["window_dilation"])):
        raise NotImplementedError("the model has a dilated 'reduce_window_max', for which there is no rule")
    aval: Any = eqn.outvars[0].aval
    # Far below any value in a window, and finite: a difference of infinities has no gradient.
    outside = jnp.finfo(x.dtype).min / 4
    padded = jnp.pad(x, params["padding"], constant_values=outside)
    parts = []
    for place in np.ndindex(*window):
        ends = [p + s * (n - 1) + 1 for p, s, n in zip(place, strides, aval.shape, strict=True)]
        parts.append(lax.slice(padded, place, ends, strides))
    best, gaps = _first_largest(jnp.stack(parts, axis=-1))
    return best, [gaps]


_ELEMENTWISE: dict[str, KinkRule] = {
    "max": _max,
    "min": _min,
    "abs": _abs,
    "clamp": _clamp,
    "gt": _compare(jnp.greater, above=True),
    "ge": _compare(jnp.greater_equal, above=True),
    "lt": _compare(jnp.less, above=False),
    "le": _compare(jnp.less_equal, above=False),
}
_REDUCTIONS: dict[str, KinkRule] = {
    "reduce_max": _extremum(1),
    "reduce_min": _extremum(-1),
    "reduce_window_max": _pool,
}
