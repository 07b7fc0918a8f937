"""Pattern matching: ReLUs in any spelling, and clamped variances."""

import functools
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn._checks import is_concrete
from jaxnn._engine.graph import Graph, Step
from jaxnn._engine.jaxpr import bind, evaluate, run, trace
from jaxnn._engine.primitives import (
    AVERAGING,
    CALLS,
    CUSTOM,
    PERMUTATIONS,
    PIECEWISE_LINEAR,
    inner_jaxprs,
    is_real,
)

_PROBES = (1.0, -1e4, -3.0, -0.7, -1e-3, 0.0, 1e-3, 0.3, 5.9, 6.1, 1e4)


def relu_factor(step: Step) -> float | None:
    """The positive `c` of a step that is `c max(x, 0)` in any spelling, or None.

    Found by evaluating it at probes while tracing: it must return `c x` for positive numbers, and 0 for all
    others. Its gradient at 0 is not checked.
    """
    if step.kind != "elementwise" or not step.closed:
        return None
    if any(eqn.primitive.name not in PIECEWISE_LINEAR for eqn in step.equations):
        return None
    (root,) = step.inputs
    if root.aval.size == 0 or not is_real(root, *step.outputs):
        return None

    probes = np.asarray(_PROBES, root.aval.dtype)
    with jax.ensure_compile_time_eval():
        if _is_of_numbers(step.equations, root):  # which does not depend on the shape
            values = {root: jnp.asarray(probes)}
            run(step.equations, values, _apply)
            found = np.asarray(values[step.outputs[0]])
        else:
            found = np.asarray(jax.vmap(lambda p: step.call(jnp.full(root.aval.shape, p))[0])(probes))
    factor = found[0].ravel()[0]
    expected = factor * np.maximum(probes, probes.dtype.type(0))
    is_equal = np.all(found.reshape(len(probes), -1) == expected[:, None])
    return float(factor) if factor > 0 and is_equal else None


def _is_of_numbers(equations: Sequence[core.JaxprEqn], *inputs: Any) -> bool:
    """Whether equations read their inputs and numbers alone, and no array that has a shape of its own."""
    made = set(inputs)
    for eqn in equations:
        for v in eqn.invars:
            if np.ndim(v.val) > 0 if isinstance(v, core.Literal) else v not in made:
                return False
        if eqn.primitive.name == "broadcast_in_dim":
            return False
        for inner in inner_jaxprs(eqn):
            if len(inner.consts) > 0 or not _is_of_numbers(inner.jaxpr.eqns, *inner.jaxpr.invars):
                return False
        made.update(eqn.outvars)
    return True


def _apply(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    """Evaluate an equation on operands of another shape: what is inside is of theirs, too."""
    inner = next(inner_jaxprs(eqn), None)
    return bind(eqn, operands) if inner is None else evaluate(inner.jaxpr, inner.consts, operands, _apply)


def is_jaxs_relu(eqn: core.JaxprEqn) -> bool:
    """Whether an equation is `jax.nn.relu`, and so is its derivative."""
    inner = next(inner_jaxprs(eqn), None)
    if inner is None or len(inner.jaxpr.eqns) != 1 or len(eqn.invars) != 1 or not is_real(*eqn.invars):
        return False
    aval: Any = eqn.invars[0].aval
    relu = _jaxs_relu(aval.shape, aval.dtype)
    # The derivative of another function may be anything, even an error.
    return relu is not None and str(inner.jaxpr) == relu.function and _derivative(eqn) == relu.derivative


class _Text(NamedTuple):
    """The equations of a function, and those of its derivative."""

    function: str
    derivative: str


@functools.lru_cache
def _jaxs_relu(shape: tuple[int, ...], dtype: np.dtype) -> _Text | None:
    eqns = trace(jax.nn.relu, jax.ShapeDtypeStruct(shape, dtype)).jaxpr.jaxpr.eqns
    while eqns and eqns[0].primitive.name in CALLS:
        eqns = next(inner_jaxprs(eqns[0])).jaxpr.eqns
    if len(eqns) != 1 or eqns[0].primitive.name not in CUSTOM:
        return None
    return _Text(str(next(inner_jaxprs(eqns[0])).jaxpr), _derivative(eqns[0]))


def _derivative(eqn: core.JaxprEqn) -> str:
    """The equations of a function of one array, and those of its derivative."""
    aval: Any = eqn.invars[0].aval
    x = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    function = lambda x: bind(eqn, [x])  # noqa: E731
    return str(jax.make_jaxpr(lambda x, tangent: jax.jvp(function, (x,), (tangent,)))(x, x))


def is_relu(step: Step) -> bool:
    """Whether a step is `max(x, 0)`, or a positive multiple of it."""
    return relu_factor(step) is not None


def is_clamped_variance(graph: Graph, step: Step) -> bool:
    """Whether a step only keeps a variance from falling below zero by rounding.

    Normalization layers clamp the mean of squares, or the mean of squares minus the squared mean, at zero.
    This is no activation: but for rounding, the value is never negative.
    """
    made_by = graph.made_by
    (clamped,) = step.inputs
    v, steps = _averaged(made_by, clamped)
    if steps and _is_square(made_by.get(v)) and (_total(v, steps) or 0) > 0:
        return True
    difference = made_by.get(clamped)
    if difference is None or difference.name != "sub" or len(difference.inputs) != 2:
        return False
    first, second = difference.equations[-1].invars
    v, steps = _averaged(made_by, first)
    if not _is_square(made_by.get(v)) or not _is_square(made_by.get(second)):
        return False
    squared = _permuted(made_by, made_by[v].inputs[0])
    mean_of, mean_steps = _averaged(made_by, made_by[second].inputs[0], until=squared)
    return mean_of in squared and _is_one(_total(v, steps)) and _is_one(_total(mean_of, mean_steps))


def _permuted(made_by: Mapping[Any, Step], v: Any) -> list[Any]:
    """A variable, and those before it that hold the same values in another order."""
    variables = [v]
    while v in made_by and made_by[v].name in PERMUTATIONS and len(made_by[v].inputs) == 1:
        (v,) = made_by[v].inputs
        variables.append(v)
    return variables


def _is_one(total: float | None) -> bool:
    return total is not None and abs(total - 1) < 1e-2


def _averaged(made_by: Mapping[Any, Step], v: Any, until: Container[Any] = ()) -> tuple[Any, list[Step]]:
    """The variable that `v` may be a weighted sum of, or `v` itself, and the steps from it to `v`.

    The first such variable of `until`, or else the farthest back.
    """
    steps: list[Step] = []
    while v not in until and v in made_by and made_by[v].name in AVERAGING and made_by[v].kind == "linear":
        if len(made_by[v].inputs) != 1:
            break
        steps.insert(0, made_by[v])
        (v,) = made_by[v].inputs
    return v, steps


def _total(v: Any, steps: list[Step]) -> float | None:
    """The least sum of the weights of a variable in the result of some steps, if it is known."""
    if not steps:
        return None
    with jax.ensure_compile_time_eval():
        value = jnp.ones(v.aval.shape, v.aval.dtype)
        for step in steps:
            (value,) = step.call(value)
            # Traced weights are not known, and with a negative weight it is no average.
            if not is_concrete(value) or not bool(jnp.all(value >= 0)):
                return None
        return float(jnp.min(value))


def _is_square(step: Step | None) -> bool:
    if step is None or len(step.equations) != 1 or len(step.inputs) != 1:
        return False
    if step.name == "mul":
        (eqn,) = step.equations
        return eqn.invars[0] is eqn.invars[1]
    return step.name == "square" or (step.name == "integer_pow" and step.params["y"] == 2)
