"""What makes a function fast on a CPU: convolutions of ours, and weights in order before a loop.

See `convolution` for the former. A product of a few rows with weights needs these in order of the axis that
is summed over. The gradient of `x @ weights` sums over the other axis, so XLA transposes them again at each
step. In a long loop they are transposed once, before it begins. That gained a factor of 1.0 to 1.5 where it
was measured.

These are workarounds. `tests/engine/test_convolution.py` and `test_cpu_layout.py` measure whether XLA still
needs each; once that test is skipped on the oldest supported JAX, delete it.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from jaxnn._engine.jaxpr import Apply, Path, Traced, bind, scan_parts, trace, with_params
from jaxnn._engine.primitives import CALLS, MOVES, REMAT, inner_jaxprs

_TRAVERSED = CALLS | REMAT | {"scan"}  # not custom derivatives, which would be lost
_LONG = 16  # number of steps from which a second copy of the weights pays off


def fast_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a function's convolutions by those that a CPU computes fast; also for the body of a loop."""

    def fast(*args: Any) -> Any:
        return with_fast_convolutions(trace(function, *args))

    return fast


def with_fast_convolutions(traced: Traced) -> Any:
    """Evaluate a traced function, with fast convolutions inside of its calls, too."""
    return traced.evaluate(_convolutions(traced.jaxpr.jaxpr))[0]


def hoist_layouts(steps: int, function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """Replace the convolutions of a loop body, and on a CPU put its weights into order before the loop.

    Args:
        steps: of the loop.
        function: what it closes over is the same at each step.
        args: arguments of the shapes that it is called with, to trace it.
    """
    traced = trace(function, *args)
    handlers = hoisted(steps, traced)
    if not handlers:
        return function
    return lambda *args: traced._replace(inputs=jax.tree.leaves(args)).evaluate(handlers)[0]


def hoisted(steps: int, traced: Traced) -> dict[Path, Apply]:
    """What to evaluate in the body of a loop, by the path of the equation; call it before the loop."""
    jaxpr = traced.jaxpr.jaxpr
    if jax.default_backend() != "cpu":
        return _convolutions(jaxpr)
    handlers: dict[Path, Apply] = {}
    for path, eqn, known in _walk(jaxpr, dict(zip(jaxpr.constvars, traced.jaxpr.consts, strict=True))):
        if eqn.primitive.name == "conv_general_dilated":
            handlers[path] = _with_kernels_in_order(eqn, known)
        elif steps >= _LONG and _transposes_weights(eqn, known):
            handlers[path] = functools.partial(_multiply, _transpose_weights(eqn, known))
    return handlers


def _walk(
    jaxpr: core.Jaxpr, known: Mapping[Any, Any], path: Path = ()
) -> Iterator[tuple[Path, core.JaxprEqn, Mapping[Any, Any]]]:
    """Every equation in calls and scans, with its path and the variables known before the loop.

    Known values that are only moved, as a gradient reverses the kernels of a convolution, are known, too.
    """
    known = dict(known)
    for index, eqn in enumerate(jaxpr.eqns):
        yield (*path, index), eqn, known
        if eqn.primitive.name in MOVES and all(_is_known(v, known) for v in eqn.invars):
            known.update(zip(eqn.outvars, bind(eqn, [known[v] for v in eqn.invars]), strict=True))
        if eqn.primitive.name not in _TRAVERSED:
            continue
        (inner,) = inner_jaxprs(eqn)
        # Of a scan, carry and rows change from step to step.
        operands = scan_parts(eqn.params, eqn.invars)[0] if eqn.primitive.name == "scan" else eqn.invars
        inside = {
            v: known[outer]
            for v, outer in zip(inner.jaxpr.invars, operands, strict=False)
            if _is_known(outer, known)
        }
        yield from _walk(inner.jaxpr, inside, (*path, index, inner.parameter, inner.number))


def _is_known(v: Any, known: Mapping[Any, Any]) -> bool:
    return not isinstance(v, core.Literal) and v in known


def _transposes_weights(eqn: core.JaxprEqn, known: Mapping[Any, Any]) -> bool:
    """Whether an equation is a product with known weights that sums over another axis than their first."""
    if eqn.primitive.name != "dot_general":
        return False
    (_, summed), (batch, _) = eqn.params["dimension_numbers"]
    rows, weights = (_is_known(v, known) for v in eqn.invars)
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


def _with_kernels_in_order(eqn: core.JaxprEqn, known: Mapping[Any, Any]) -> Apply:
    """A convolution, with kernels that are known transposed before the loop, unless it is for nothing."""
    numbers = eqn.params["dimension_numbers"]
    o, i, *window = numbers.rhs_spec
    v: Any = eqn.invars[1]
    in_order = (len(window) + 1, len(window), *range(len(window)))
    if (
        not _is_known(v, known)
        or numbers.rhs_spec == in_order
        or all(v.aval.shape[axis] == 1 for axis in window)
    ):
        return bind
    kernels = lax.transpose(known[v], (*window, i, o))
    changed = with_params(eqn, dimension_numbers=numbers._replace(rhs_spec=in_order))
    return lambda _, operands: bind(changed, [operands[0], kernels])


def _convolutions(jaxpr: core.Jaxpr) -> dict[Path, Apply]:
    """`bind`, which evaluates ours, for each convolution."""
    return {path: bind for path, eqn, _ in _walk(jaxpr, {}) if eqn.primitive.name == "conv_general_dilated"}
