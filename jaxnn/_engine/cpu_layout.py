"""Loops in which convolutions and products run as quickly as they can on a CPU.

Before XLA calls its quick convolution, the axes must be in order: images `(n, ..., channels)`, kernels
`(..., channels in, channels out)`. It brings them there itself, but not inside of a loop, where any other
order falls to a plain one that was 40 times as slow. The gradient of a convolution has its kernel in another
order, whatever that of the convolution.

A product of a few rows with weights wants these in order of the axis that is summed over. The gradient of
`x @ weights` sums over the other one, so it lays them out anew at each step: for ten rows that took twice as
long as the product itself. In a long loop they are laid out once, before it begins.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from jaxnn._engine.jaxpr import Path, Plan, scan_sizes, trace

# Custom derivatives are not entered, as they would be lost.
_ENTERED = {"jit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr", "scan": "jaxpr"}
_LONG = 16  # steps, from which on a second copy of the weights is worth its making


def hoist_layouts(steps: int, function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """The same function, to be called in a loop.

    Args:
        steps: of the loop.
        function: what it closes over is the same at each step.
        args: arguments as it will get them, to trace it with.
    """
    if jax.default_backend() != "cpu":
        return function
    traced = trace(function, *args)
    places = frozenset(_places(traced.jaxpr.jaxpr))
    turned: dict[Path, jax.Array] = {}
    if steps >= _LONG:
        known = dict(zip(traced.jaxpr.jaxpr.constvars, traced.jaxpr.consts, strict=True))
        turned = {path: _turn(eqn, known) for path, eqn, known in _products(traced.jaxpr.jaxpr, known)}
    if not places and not turned:
        return function
    plan = _plan(places, turned)
    return lambda *args: traced._replace(inputs=jax.tree.leaves(args)).evaluate(plan)[0]


def canonical_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, to be called inside of a loop, where its weights can no longer be laid out."""
    if jax.default_backend() != "cpu":
        return function

    def ordered(*args: Any) -> Any:
        traced = trace(function, *args)
        return traced.evaluate(_plan(frozenset(_places(traced.jaxpr.jaxpr)), {}))[0]

    return ordered


def _plan(places: frozenset[Path], turned: Mapping[Path, jax.Array]) -> Plan:
    def instead(eqn: core.JaxprEqn, path: Path, values: Sequence[Any]) -> Sequence[Any] | None:
        if path in places:
            return [_convolve(eqn, *values)]
        if path in turned:
            return [_multiply(eqn, values[0], turned[path])]
        return None

    return Plan(lambda eqn, path: path in places or path in turned, instead)


def _products(
    jaxpr: core.Jaxpr, known: Mapping[Any, Any], path: Path = ()
) -> Iterator[tuple[Path, core.JaxprEqn, Mapping[Any, Any]]]:
    """The products with weights, known values, that are summed over another axis than their first."""
    for index, eqn in enumerate(jaxpr.eqns):
        kind = eqn.primitive.name
        if kind == "dot_general":
            (_, summed), (batch, _) = eqn.params["dimension_numbers"]
            rows, weights = (not isinstance(v, core.Literal) and v in known for v in eqn.invars)
            if weights and not rows and not batch and summed != tuple(range(len(summed))):
                yield (*path, index), eqn, known
        elif kind in _ENTERED:
            inner, given = _held(eqn), list(eqn.invars)
            if kind == "scan":
                given = given[: scan_sizes(eqn.params)[0]]  # the rest changes from step to step
            inside = {
                v: known[outer]
                for v, outer in zip(inner.invars, given, strict=False)
                if not isinstance(outer, core.Literal) and outer in known
            }
            yield from _products(inner, inside, (*path, index, _ENTERED[kind], 0))


def _turn(eqn: core.JaxprEqn, known: Mapping[Any, Any]) -> jax.Array:
    """The weights of a product with what is summed over first."""
    (_, summed), _ = eqn.params["dimension_numbers"]
    weights = known[eqn.invars[1]]
    return lax.transpose(weights, (*summed, *(i for i in range(weights.ndim) if i not in summed)))


def _multiply(eqn: core.JaxprEqn, rows: Any, weights: jax.Array) -> Any:
    """The product, its weights turned."""
    (summed, _), batch = eqn.params["dimension_numbers"]
    numbers = ((summed, tuple(range(len(summed)))), batch)
    return eqn.primitive.bind(rows, weights, **{**eqn.params, "dimension_numbers": numbers})


def _held(eqn: core.JaxprEqn) -> core.Jaxpr:
    held = eqn.params[_ENTERED[eqn.primitive.name]]
    return held.jaxpr if isinstance(held, core.ClosedJaxpr) else held


def _places(jaxpr: core.Jaxpr, path: Path = ()) -> Iterator[Path]:
    """Where the convolutions stand whose axes are in another order."""
    for index, eqn in enumerate(jaxpr.eqns):
        kind = eqn.primitive.name
        if kind == "conv_general_dilated" and eqn.params["dimension_numbers"] != _order(eqn):
            yield (*path, index)
        elif kind in _ENTERED:
            yield from _places(_held(eqn), (*path, index, _ENTERED[kind], 0))


def _order(eqn: core.JaxprEqn) -> lax.ConvDimensionNumbers:
    last = len(eqn.params["dimension_numbers"].lhs_spec) - 1
    spatial = range(1, last)
    return lax.ConvDimensionNumbers(
        (0, last, *spatial), (last, last - 1, *range(last - 1)), (0, last, *spatial)
    )


def _convolve(eqn: core.JaxprEqn, images: Any, kernels: Any) -> Any:
    """The convolution, its axes in order."""
    given = eqn.params["dimension_numbers"]
    (n, c, *at), (o, i, *window), (n_out, c_out, *at_out) = given
    answer = eqn.primitive.bind(
        images.transpose(n, *at, c),
        kernels.transpose(*window, i, o),
        **{**eqn.params, "dimension_numbers": _order(eqn)},
    )
    made = (n_out, *at_out, c_out)  # the axis wanted at which each one made is
    return answer.transpose(*sorted(range(len(made)), key=made.__getitem__))
