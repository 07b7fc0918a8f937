"""The most typical input whose outputs are at least as sure as requested.

Sequential quadratic programming in the coordinates `u` of one component of the prior, where
`z = center + factor u` and the squared Mahalanobis distance is `|u|^2`: the outputs are linearized at the
current point, the quadratic program with linear constraints is solved by its dual, which has one variable per
output, and a line search follows. For a linear model each step is exact, up to the proximity of the dual
variables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnn._backquery._signals import requested_signals, signals
from jaxnn._engine.loops import scan, vary_like
from jaxnn._precision import wide_dtype
from jaxnn._prior import Prior
from jaxnn._repr import short_repr

_NEAREST = 4  # components in which the problem is solved
_STEPS = 20
_SWEEPS = 30  # of coordinate ascent in the dual
_LENGTHS = (1.0, 0.6, 0.3, 0.1, 0.03, 0.0)  # of the line search
_PROXIMITY = 1e-3  # of the dual variables to those of the step before, which bounds them
_SURER = 2.5
_TOLERANCE = 1e-3  # of a signal, relative to the largest that is requested


class TypicalInput(NamedTuple):
    """The most typical input that a model calls at least as surely as requested.

    Attributes:
        x: `(...)`, the input.
        distance: scalar, its squared Mahalanobis distance to its component; the mean over inputs drawn from
            the component is the rank of the prior.
        shortfall: scalar, the largest difference by which an output misses its request; 0 if none does.
        component: scalar, the number of the component of the prior.
        surer: `(...)`, the same with 2.5 times the signals (logits) of the outputs that are to be at least
            as requested, and of negative ones 1.5 times their size more. What differs from `x` is what the
            model looks at.
    """

    x: Float[Array, "..."]
    distance: Float[Array, ""]
    shortfall: Float[Array, ""]
    component: Int[Array, ""]
    surer: Float[Array, "..."]

    def __repr__(self) -> str:
        return short_repr(self)


class _Request(NamedTuple):
    """Constraints `sign * (signal - value) >= 0`; `= 0` where `exact`. The sign of a free output is 0."""

    value: jax.Array
    sign: jax.Array


class _Point(NamedTuple):
    """A point `u`, the dual variables there, and the weight of the constraints in the line search."""

    u: jax.Array
    dual: jax.Array
    weight: jax.Array


@jax.jit(static_argnames=("exact",))
def typical(model: Any, prior: Prior, y: jax.Array, free: jax.Array, *, exact: bool) -> TypicalInput:
    """The most typical input for the outputs `y`, `(n_out,)`."""
    dtype = jnp.result_type(y, prior.mean)
    work = wide_dtype(dtype)
    prior, y = jax.tree.map(lambda leaf: leaf.astype(work), (prior, y))
    above = y > (y.max() + y.min()) / 2
    sign = jnp.where(free, 0, jnp.where(above | (y.max() == y.min()), 1, -1)).astype(work)
    request = _Request(requested_signals(model, y), sign)
    more = request.value + jnp.where(sign > 0, (_SURER - 1) * jnp.abs(request.value), 0)

    def solve(value: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return _nearest(model, prior, request._replace(value=value), exact=exact)

    # Both at once: the search is compiled once.
    component, u, x = jax.vmap(solve)(jnp.stack([request.value, more]))
    missed = sign * (y - model(x[0]).astype(work))
    shortfall = jnp.max(jnp.abs(missed) if exact else jnp.maximum(missed, 0))
    found = TypicalInput(x[0], jnp.sum(u[0] ** 2), shortfall, component[0], x[1])
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.dtype == work else leaf, found)


def _nearest(
    model: Any, prior: Prior, request: _Request, *, exact: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The component, the point in it, and the input, of the least distance that meets the request."""
    components, rank = prior.centers.shape
    start = vary_like(jnp.zeros(rank, prior.mean.dtype), (model, prior, request))

    def input_at(component: jax.Array, u: jax.Array) -> jax.Array:
        return prior.input_at(prior.centers[component] + prior.factors[component] @ u)

    def outputs(component: jax.Array) -> Callable[[jax.Array], jax.Array]:
        return lambda u: signals(model, input_at(component, u)).astype(u.dtype)

    def estimate(component: jax.Array) -> jax.Array:
        return jnp.sum(
            _step_end(outputs(component), start, request, jnp.zeros_like(request.value), exact)[0] ** 2
        )

    def solve(component: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _solve(outputs(component), start, request, exact=exact)

    estimates = jax.vmap(estimate)(jnp.arange(components))
    candidates = jnp.argsort(estimates)[: min(_NEAREST, components)]
    points, missed = jax.vmap(solve)(candidates)
    tolerance = _TOLERANCE * (1 + jnp.max(jnp.abs(request.value)))
    distances = jnp.sum(points**2, axis=1)
    # First those that meet the request, by their distance; else the one that misses it least.
    best = jnp.where(
        jnp.any(missed <= tolerance),
        jnp.argmin(jnp.where(missed <= tolerance, distances, jnp.inf)),
        jnp.argmin(missed),
    )
    return candidates[best], points[best], input_at(candidates[best], points[best])


def _solve(
    outputs: Callable[[jax.Array], jax.Array], start: jax.Array, request: _Request, *, exact: bool
) -> tuple[jax.Array, jax.Array]:
    """The point of the least norm that meets the request, and the largest signal missed there."""
    lengths = jnp.array(_LENGTHS, start.dtype)

    def missed(u: jax.Array) -> jax.Array:
        difference = request.sign * (request.value - outputs(u))
        return jnp.abs(difference) if exact else jnp.maximum(difference, 0)

    def step(point: _Point, _: None) -> tuple[_Point, None]:
        end, dual = _step_end(outputs, point.u, request, point.dual, exact)
        weight = jnp.maximum(point.weight, 2 * jnp.max(jnp.abs(dual)))
        tried = point.u + lengths[:, None] * (end - point.u)
        merits = jnp.sum(tried**2, axis=1) / 2 + weight * jnp.sum(jax.vmap(missed)(tried), axis=1)
        # The longest of those that rounding cannot distinguish: near the end that is the whole step.
        least = jnp.min(merits)
        alike = merits <= least + 16 * jnp.finfo(merits.dtype).eps * (1 + jnp.abs(least))
        return _Point(tried[jnp.argmax(alike)], dual, weight), None

    first = _Point(start, jnp.zeros_like(request.value), jnp.zeros((), start.dtype))
    last = scan(step, first, length=_STEPS, hoist=False)[0].u
    return last, jnp.max(missed(last))


def _step_end(
    outputs: Callable[[jax.Array], jax.Array],
    u: jax.Array,
    request: _Request,
    previous: jax.Array,
    exact: bool,
) -> tuple[jax.Array, jax.Array]:
    """The point of the least norm that meets the request for linear outputs, and its dual variables."""
    value, pull = jax.vjp(outputs, u)
    jacobian = jax.vmap(lambda row: pull(row)[0])(vary_like(jnp.eye(value.size, dtype=u.dtype), value))
    rows = request.sign[:, None] * jacobian
    bound = request.sign * (request.value - value) + rows @ u  # rows @ v >= bound
    products = rows @ rows.T
    near = _PROXIMITY * jnp.trace(products) / value.size
    near = jnp.where(near > 0, near, 1)
    matrix, vector = products + near * jnp.eye(value.size, dtype=u.dtype), bound + near * previous
    dual = jnp.linalg.solve(matrix, vector) if exact else _nonnegative(matrix, vector, previous)
    return rows.T @ dual, dual


def _nonnegative(matrix: jax.Array, vector: jax.Array, start: jax.Array) -> jax.Array:
    """Minimize `d' matrix d / 2 - d' vector` over `d >= 0` from `start`, one coordinate at a time."""

    def coordinate(dual: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        change = (vector[i] - matrix[i] @ dual) / matrix[i, i]
        return dual.at[i].set(jnp.maximum(dual[i] + change, 0)), None

    order = jnp.tile(jnp.arange(vector.size), _SWEEPS)
    return scan(coordinate, start, order, hoist=False)[0]
