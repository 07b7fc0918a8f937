"""Axis orders that XLA:CPU needs for fast convolutions and products inside of loops.

Before XLA calls its fast convolution, the axes must be in order: images `(n, ..., channels)`, kernels
`(..., channels in, channels out)`. It transposes them itself, but not inside of a loop, where any other
order falls back to a plain implementation that was 40 times as slow. The gradient of a convolution has its
kernel in another order, in any order of the convolution itself.

A product of a few rows with weights needs these in order of the axis that is summed over. The gradient of
`x @ weights` sums over the other axis, so XLA transposes them again at each step. In a long loop they are
transposed once, before it begins. That gained a factor of 1.0 to 1.5 where it was measured.

This is a workaround. `tests/engine/test_cpu_layout.py::test_xla_still_needs_the_workaround` measures whether
XLA still needs it; once that test is skipped on the oldest supported JAX, delete this module.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from jaxnn._engine.jaxpr import Apply, Path, scan_parts, trace
from jaxnn._engine.primitives import CALLS, REMAT, inner_jaxprs

_TRAVERSED = CALLS | REMAT | {"scan"}  # not custom derivatives, which would be lost
_LONG = 16  # number of steps from which a second copy of the weights pays off


def hoist_layouts(steps: int, function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """Rewrite a loop body to XLA:CPU's fast layout, with the weights transposed before the loop.

    Args:
        steps: of the loop.
        function: what it closes over is the same at each step.
        args: arguments of the shapes that it is called with, to trace it.
    """
    if jax.default_backend() != "cpu":
        return function
    traced = trace(function, *args)
    jaxpr = traced.jaxpr.jaxpr
    handlers = _convolutions(jaxpr)
    if steps >= _LONG:
        known = dict(zip(jaxpr.constvars, traced.jaxpr.consts, strict=True))
        for path, eqn, weights in _walk(jaxpr, known):
            if _transposes_weights(eqn, weights):
                handlers[path] = functools.partial(_multiply, _transpose_weights(eqn, weights))
    if not handlers:
        return function
    return lambda *args: traced._replace(inputs=jax.tree.leaves(args)).evaluate(handlers)[0]


def canonical_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Rewrite convolutions to XLA:CPU's fast layout; for code already inside a loop body."""
    if jax.default_backend() != "cpu":
        return function

    def canonical(*args: Any) -> Any:
        traced = trace(function, *args)
        return traced.evaluate(_convolutions(traced.jaxpr.jaxpr))[0]

    return canonical


def _walk(
    jaxpr: core.Jaxpr, known: Mapping[Any, Any], path: Path = ()
) -> Iterator[tuple[Path, core.JaxprEqn, Mapping[Any, Any]]]:
    """Every equation in calls and scans, with its path and the variables known before the loop."""
    for index, eqn in enumerate(jaxpr.eqns):
        yield (*path, index), eqn, known
        if eqn.primitive.name not in _TRAVERSED:
            continue
        (inner,) = inner_jaxprs(eqn)
        # Of a scan, carry and rows change from step to step.
        operands = scan_parts(eqn.params, eqn.invars)[0] if eqn.primitive.name == "scan" else eqn.invars
        inside = {
            v: known[outer]
            for v, outer in zip(inner.jaxpr.invars, operands, strict=False)
            if not isinstance(outer, core.Literal) and outer in known
        }
        yield from _walk(inner.jaxpr, inside, (*path, index, inner.parameter, inner.number))


def _transposes_weights(eqn: core.JaxprEqn, known: Mapping[Any, Any]) -> bool:
    """Whether an equation is a product with known weights that sums over another axis than their first."""
    if eqn.primitive.name != "dot_general":
        return False
    (_, summed), (batch, _) = eqn.params["dimension_numbers"]
    rows, weights = (not isinstance(v, core.Literal) and v in known for v in eqn.invars)
    return weights and not rows and not batch and summed != tuple(range(len(summed)))


def _transpose_weights(eqn: core.JaxprEqn, known: Mapping[Any, Any]) -> jax.Array:
    """The weights of a product, with the axes that are summed over first."""
    (_, summed), _ = eqn.params["dimension_numbers"]
    weights = known[eqn.invars[1]]
    return lax.transpose(weights, (*summed, *(i for i in range(weights.ndim) if i not in summed)))


def _multiply(weights: jax.Array, eqn: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The product with transposed weights."""
    (summed, _), batch = eqn.params["dimension_numbers"]
    numbers = ((summed, tuple(range(len(summed)))), batch)
    return [eqn.primitive.bind(operands[0], weights, **{**eqn.params, "dimension_numbers": numbers})]


def _convolutions(jaxpr: core.Jaxpr) -> dict[Path, Apply]:
    """`_convolve` for each convolution whose axes are in another order."""
    return {
        path: _convolve
        for path, eqn, _ in _walk(jaxpr, {})
        if eqn.primitive.name == "conv_general_dilated" and eqn.params["dimension_numbers"] != _order(eqn)
    }


def _order(eqn: core.JaxprEqn) -> lax.ConvDimensionNumbers:
    last = len(eqn.params["dimension_numbers"].lhs_spec) - 1
    spatial = range(1, last)
    return lax.ConvDimensionNumbers(
        (0, last, *spatial), (last, last - 1, *range(last - 1)), (0, last, *spatial)
    )


def _convolve(eqn: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The convolution, with its axes in order."""
    images, kernels = operands
    (n, c, *at), (o, i, *window), (n_out, c_out, *at_out) = eqn.params["dimension_numbers"]
    output = eqn.primitive.bind(
        images.transpose(n, *at, c),
        kernels.transpose(*window, i, o),
        **{**eqn.params, "dimension_numbers": _order(eqn)},
    )
    axes = (n_out, *at_out, c_out)  # the requested position of each axis
    return [output.transpose(*sorted(range(len(axes)), key=axes.__getitem__))]
