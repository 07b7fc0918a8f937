"""Pattern matching on graph steps: ReLUs in any spelling, and clamped variances."""

from collections.abc import Container, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._checks import is_concrete
from jaxnn._engine.graph import Graph, Step
from jaxnn._engine.primitives import AVERAGING, PERMUTATIONS, PIECEWISE_LINEAR, is_real

_PROBES = (-1e4, -3.0, -0.7, -1e-3, 0.0, 1e-3, 0.3, 5.9, 6.1, 1e4)


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

    def output(probe: float) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            return np.asarray(step.call(jnp.full(root.aval.shape, probe, root.aval.dtype))[0])

    factor = output(1.0).ravel()[0]
    if not factor > 0:
        return None
    for probe in _PROBES:
        expected = max(np.asarray(probe, root.aval.dtype), np.asarray(0, root.aval.dtype))
        if not np.all(output(probe) == factor * expected):
            return None
    return float(factor)


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
    v, total = _averaged(made_by, clamped)
    if total is not None and total > 0 and v is not clamped and _is_square(made_by.get(v)):
        return True
    difference = made_by.get(clamped)
    if difference is None or difference.name != "sub" or len(difference.inputs) != 2:
        return False
    first, second = difference.equations[-1].invars
    v, total = _averaged(made_by, first)
    if not _is_square(made_by.get(v)) or not _is_square(made_by.get(second)):
        return False
    squared = _permuted(made_by, made_by[v].inputs[0])
    mean_of, mean_total = _averaged(made_by, made_by[second].inputs[0], until=squared)
    return mean_of in squared and _is_one(total) and _is_one(mean_total)


def _permuted(made_by: Mapping[Any, Step], v: Any) -> list[Any]:
    """A variable, and those before it that hold the same values in another order."""
    variables = [v]
    while v in made_by and made_by[v].name in PERMUTATIONS and len(made_by[v].inputs) == 1:
        (v,) = made_by[v].inputs
        variables.append(v)
    return variables


def _is_one(total: float | None) -> bool:
    return total is not None and abs(total - 1) < 1e-2


def _averaged(made_by: Mapping[Any, Step], v: Any, until: Container[Any] = ()) -> tuple[Any, float | None]:
    """The variable that `v` is a weighted sum of, or `v` itself, and the sum of the weights if known.

    The first such variable of `until`, or else the farthest back.
    """
    steps: list[Step] = []
    while v not in until and v in made_by and made_by[v].name in AVERAGING and made_by[v].kind == "linear":
        if len(made_by[v].inputs) != 1:
            break
        steps.insert(0, made_by[v])
        (v,) = made_by[v].inputs
    if not steps:
        return v, None
    with jax.ensure_compile_time_eval():
        value = jnp.ones(v.aval.shape, v.aval.dtype)
        for step in steps:
            (value,) = step.call(value)
            # Traced weights are not known, and with a negative weight it is no average.
            if not is_concrete(value) or not bool(jnp.all(value >= 0)):
                return v, None
        return v, float(jnp.min(value))


def _is_square(step: Step | None) -> bool:
    if step is None or len(step.equations) != 1 or len(step.inputs) != 1:
        return False
    if step.name == "mul":
        (eqn,) = step.equations
        return eqn.invars[0] is eqn.invars[1]
    return step.name == "square" or (step.name == "integer_pow" and step.params["y"] == 2)
