"""The affine map that a piecewise linear model is around one input, and where it holds.

The model's graph is walked forwards. What is affine in the input stays so; at each operation with a kink
(`max`, `abs`, a comparison, a pool) one side is taken, the one on which the input lies, and how far the input
is on that side is kept: its gap. On the region where no gap changes its sign all of them are affine.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.flatten_util import ravel_pytree

from jaxnn._engine.graph import Graph, graph
from jaxnn._engine.jaxpr import bind
from jaxnn._engine.primitives import is_affine
from jaxnn._model import as_example, as_model


class LinearRegion(NamedTuple):
    """The region of an input on which a model is one affine map; `n_in` and `n_out` count all entries.

    Attributes:
        kernel: `(n_in, n_out)`: the model's answer at `z` is `z @ kernel + bias`.
        bias: `(n_out,)`.
        normals: `(m, n_in)`: the region is the polytope of all `z` with `normals @ z <= offsets`.
        offsets: `(m,)`.
        radius: a scalar: the half side of the largest cube around the input inside of the region, in units of
            the input.
        distance: a scalar: the Euclidean distance from the input to the nearest face of the region.
    """

    kernel: jax.Array
    bias: jax.Array
    normals: jax.Array
    offsets: jax.Array
    radius: jax.Array
    distance: jax.Array


def linear_region(model: Callable[..., Any], x: Any) -> LinearRegion:
    """The exact affine map that a piecewise linear model is around an input, and the region where it is.

    `model(z) = z @ kernel + bias` for every `z` with `normals @ z <= offsets`: there each unit is on
    the side of its kink on which it is at `x`. It holds for what is made of affine operations (dense layers,
    convolutions, normalization by stored statistics), `max`, `min`, `abs`, `clamp`, maxima over axes and
    windows, and choices by comparisons: relu, leaky relu, relu6, hard tanh, maxout, max-pooling. An input
    with a unit exactly on its kink belongs to the region that the model's own comparison puts it in; the
    radius is then 0. The region is that of one pattern of units: a neighbor may have the same map.

    Args:
        model: a callable of one example, piecewise linear. Of a network with a sigmoid or a softmax at its
            end, take the signal that comes into it: `lambda x: jaxnn.capture(network, x)[1]["output_in"]`.
        x: the example, an array or a pytree of arrays; flattened, it has `n_in` entries.

    Returns:
        A `LinearRegion`. Without a kink anywhere the region is everything, `m` is 0 and the radius infinite.

    Raises:
        TypeError: `model` is not callable, or `x` does not hold numbers.
        NotImplementedError: the model has an operation that is not piecewise linear; it is named.

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
    return _linear_region(as_model(model), as_example("x", x))


@jax.jit
def _linear_region(model: Any, x: Any) -> LinearRegion:
    flat, unravel = ravel_pytree(x)

    def answer(values: jax.Array) -> Any:
        return ravel_pytree(model(unravel(values)))[0]

    line = graph(answer, flat)

    def parts(values: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        output, gaps = _follow(line, values)
        return (output, gaps), (output, gaps)

    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(parts, flat)[0]))
    jacobian = jax.jacfwd if flat.size <= size else jax.jacrev
    (slopes, normals), (output, gaps) = jacobian(parts, has_aux=True)(flat)
    kernel = slopes.T
    # Each gap is at least 0 here: 0 <= gap + normals @ (z - x).
    # Slopes that cancel, as between two maxima of one and the same value, leave their rounding.
    sizes = jnp.abs(normals).sum(axis=1)
    face = sizes > 8 * jnp.finfo(flat.dtype).eps * jnp.max(sizes, initial=0)
    # A root has no slope at 0, so that what is no face is made of ones first.
    steep = jnp.where(face[:, None], normals, 1)
    return LinearRegion(
        kernel=kernel,
        bias=output - flat @ kernel,
        normals=-normals,
        offsets=gaps - normals @ flat,
        radius=_nearest(gaps / jnp.abs(steep).sum(axis=1), face),
        distance=_nearest(gaps / jnp.linalg.norm(steep, axis=1), face),
    )


def _nearest(lengths: jax.Array, face: jax.Array) -> jax.Array:
    """The length to the nearest face; a gap that does not change with the input is none."""
    return jnp.min(jnp.where(face, lengths, jnp.inf), initial=jnp.inf)


Kink = tuple[jax.Array, list[jax.Array]]  # what the operation gives, and gaps of at least 0


def _follow(line: Graph, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output, and all gaps, as affine functions of the input by the sides that are taken."""
    values: dict[Any, Any] = dict(zip(line.inputs, [x], strict=True))
    affine = set(line.inputs)  # all else is constant on the region
    gaps: list[jax.Array] = []
    for step in line.steps:
        for eqn in step.equations:
            if eqn.outvars[0] in values:  # a part of two steps
                continue
            read = [line.read(v, values) for v in eqn.invars]
            moving = [not isinstance(v, core.Literal) and v in affine for v in eqn.invars]
            if not any(moving):
                values.update(zip(eqn.outvars, bind(eqn, read), strict=True))
            elif is_affine(eqn, affine):
                values.update(zip(eqn.outvars, bind(eqn, read), strict=True))
                affine.update(eqn.outvars)
            else:
                answer, found = _kink(eqn, read, moving)
                values[eqn.outvars[0]] = answer
                gaps += found
                if jnp.issubdtype(answer.dtype, jnp.inexact):
                    affine.update(eqn.outvars)
    (output,) = line.results(values)
    flat = [jnp.ravel(gap) for gap in gaps]
    return output, jnp.concatenate(flat) if flat else jnp.zeros(0, x.dtype)


def _kink(eqn: core.JaxprEqn, read: Sequence[Any], moving: Sequence[bool]) -> Kink:
    name = eqn.primitive.name
    made: Any = eqn.outvars[0].aval
    operands = [jnp.broadcast_to(value, made.shape) for value in read] if name in _ELEMENTWISE else list(read)
    known = name in _ELEMENTWISE or (name in _REDUCTIONS and moving == [True])
    if known and (name != "clamp" or moving == [False, True, False]):
        answer, gaps = (_ELEMENTWISE | _REDUCTIONS)[name](operands, eqn)
        return answer.astype(made.dtype), gaps
    raise NotImplementedError(
        f"the model has the operation {name!r} of what depends on its input, for which it is not known to be "
        "piecewise linear, as relu and leaky relu are; of a network with a sigmoid or a softmax at its end, "
        'take the signal before it: jaxnn.capture(network, x)[1]["output_in"]'
    )


def _side(positive: jax.Array, gap: jax.Array) -> jax.Array:
    """A gap with the sign that makes it at least 0 on the side that is taken."""
    return jnp.where(positive, gap, -gap)


def _max(operands: Sequence[jax.Array], _: Any) -> Kink:
    a, b = operands
    return jnp.where(a > b, a, b), [_side(a > b, a - b)]


def _min(operands: Sequence[jax.Array], _: Any) -> Kink:
    a, b = operands
    return jnp.where(a < b, a, b), [_side(a < b, b - a)]


def _abs(operands: Sequence[jax.Array], _: Any) -> Kink:
    (a,) = operands
    size = _side(a >= 0, a)
    return size, [size]


def _clamp(operands: Sequence[jax.Array], _: Any) -> Kink:
    low, x, high = operands
    below, above = x < low, x > high
    answer = jnp.where(below, low, jnp.where(above, high, x))
    return answer, [_side(~below, x - low), _side(~above, high - x)]


def _compare(compare: Callable[..., jax.Array], above: bool) -> Callable[..., Kink]:
    """A comparison, true above or below."""

    def kink(operands: Sequence[jax.Array], _: Any) -> Kink:
        a, b = operands
        answer = compare(a, b)
        return answer, [_side(answer == above, a - b)]

    return kink


def _extremum(sign: int) -> Callable[..., Kink]:
    """The largest (`sign` 1) or smallest (-1) entry over some axes: one entry, the first such."""

    def kink(operands: Sequence[jax.Array], eqn: core.JaxprEqn) -> Kink:
        (x,) = operands
        axes = tuple(eqn.params["axes"])
        rest = [axis for axis in range(x.ndim) if axis not in axes]
        rows = jnp.transpose(x, (*rest, *axes)).reshape(*(x.shape[axis] for axis in rest), -1)
        best, gaps = _first_largest(sign * rows)
        return sign * best, [gaps]

    return kink


def _first_largest(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest entry of the last axis, the first such, and how far it is above each."""
    place = jnp.argmax(rows, axis=-1, keepdims=True)
    best = jnp.take_along_axis(rows, place, axis=-1)
    itself = jnp.arange(rows.shape[-1]) == place
    return best[..., 0], jnp.where(itself, 0, best - rows)


def _pool(operands: Sequence[jax.Array], eqn: core.JaxprEqn) -> Kink:
    """The largest entry of each window; a gap for each place in the window."""
    (x,) = operands
    params = eqn.params
    strides, window = params["window_strides"], params["window_dimensions"]
    if any(size != 1 for size in (*params["base_dilation"], *params["window_dilation"])):
        raise NotImplementedError("the model has a dilated 'reduce_window_max', for which there is no rule")
    made: Any = eqn.outvars[0].aval
    # Far below what is in any window, and finite: a difference of infinities has no slope.
    outside = jnp.finfo(x.dtype).min / 4
    padded = jnp.pad(x, params["padding"], constant_values=outside)
    parts = []
    for place in np.ndindex(*window):
        ends = [p + s * (n - 1) + 1 for p, s, n in zip(place, strides, made.shape, strict=True)]
        parts.append(lax.slice(padded, place, ends, strides))
    best, gaps = _first_largest(jnp.stack(parts, axis=-1))
    return best, [gaps]


_ELEMENTWISE: dict[str, Callable[..., Kink]] = {
    "max": _max,
    "min": _min,
    "abs": _abs,
    "clamp": _clamp,
    "gt": _compare(jnp.greater, above=True),
    "ge": _compare(jnp.greater_equal, above=True),
    "lt": _compare(jnp.less, above=False),
    "le": _compare(jnp.less_equal, above=False),
}
_REDUCTIONS: dict[str, Callable[..., Kink]] = {
    "reduce_max": _extremum(1),
    "reduce_min": _extremum(-1),
    "reduce_window_max": _pool,
}
