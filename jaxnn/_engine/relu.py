"""What the steps of a function amount to, however they are written."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._checks import is_concrete
from jaxnn._engine.graph import Graph, Step
from jaxnn._engine.primitives import CUSTOM, is_real

# What a relu may be written with; anything else is no relu, and need not be tried.
_OF_RELU = set(CUSTOM) | {
    "max", "min", "select_n", "gt", "ge", "lt", "le", "eq", "ne", "mul", "div", "add", "sub", "neg", "abs",
    "sign", "clamp", "convert_element_type", "not", "and", "or",
}  # fmt: skip
_PROBES = (-1e4, -3.0, -0.7, -1e-3, 0.0, 1e-3, 0.3, 5.9, 6.1, 1e4)
_AVERAGING = {
    "reduce_sum", "div", "mul", "reshape", "broadcast_in_dim", "squeeze", "expand_dims", "transpose",
    "convert_element_type", "name", "select_n",
}  # fmt: skip
_LAYS_OUT = {"reshape", "squeeze", "expand_dims", "transpose", "name"}


def relu_factor(step: Step) -> float | None:
    """The `c` of a step that is `c max(x, 0)`, however it is written, or None; `c` is positive.

    Found by trying it, while tracing. At 0 it may have either slope; all that counts is that it gives back
    what is positive, and 0 for the rest.
    """
    if step.kind != "elementwise" or not step.closed:
        return None
    if any(eqn.primitive.name not in _OF_RELU for eqn in step.equations):
        return None
    (root,) = step.inputs
    if root.aval.size == 0 or not is_real(root) or not is_real(step.outputs[0]):
        return None

    def answer(probe: float) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            return np.asarray(step.call(jnp.full(root.aval.shape, probe, root.aval.dtype))[0])

    factor = answer(1.0).ravel()[0]
    if not factor > 0:
        return None
    for probe in _PROBES:
        given = max(np.asarray(probe, root.aval.dtype), np.asarray(0, root.aval.dtype))
        if not np.all(answer(probe) == factor * given):
            return None
    return float(factor)


def is_relu(step: Step) -> bool:
    """Whether a step is `max(x, 0)`, or a positive multiple of it."""
    return relu_factor(step) is not None


def is_clamped_variance(line: Graph, step: Step) -> bool:
    """Whether a step only keeps a variance from falling below zero by rounding.

    Normalization layers clamp the mean of squares, or that less the square of the mean, at zero. This is no
    activation: but for rounding, the value never is negative.
    """
    made_by = line.made_by()
    (clamped,) = step.inputs
    of, share = _averaged(made_by, clamped)
    if share is not None and share > 0 and of is not clamped and _is_square(made_by.get(of)):
        return True
    difference = made_by.get(clamped)
    if difference is None or difference.name != "sub" or len(difference.inputs) != 2:
        return False
    first, second = difference.equations[-1].invars
    of, share = _averaged(made_by, first)
    if not _is_square(made_by.get(of)) or not _is_square(made_by.get(second)):
        return False
    squared = _laid_out(made_by, made_by[of].inputs[0])
    mean_of, mean_share = _averaged(made_by, made_by[second].inputs[0], until=squared)
    return mean_of in squared and _is_one(share) and _is_one(mean_share)


def _laid_out(made_by: dict[Any, Step], v: Any) -> list[Any]:
    """A variable, and those before it that hold the same values laid out otherwise."""
    found = [v]
    while v in made_by and made_by[v].name in _LAYS_OUT and len(made_by[v].inputs) == 1:
        (v,) = made_by[v].inputs
        found.append(v)
    return found


def _is_one(share: float | None) -> bool:
    return share is not None and abs(share - 1) < 1e-2


def _averaged(made_by: dict[Any, Step], v: Any, until: Sequence[Any] = ()) -> tuple[Any, float | None]:
    """The variable that another is an average of, or is itself, and what it would be of ones if known.

    The first such variable of `until`, or else the one that is farthest back.
    """
    steps = []
    while v not in until and v in made_by and made_by[v].name in _AVERAGING and made_by[v].kind == "linear":
        if len(made_by[v].inputs) != 1:
            break
        steps.append(made_by[v])
        (v,) = made_by[v].inputs
    if not steps:
        return v, None
    with jax.ensure_compile_time_eval():
        value = jnp.ones(v.aval.shape, v.aval.dtype)
        for step in reversed(steps):
            (value,) = step.call(value)
            # Weights that are traced are not known, and with some below zero it is no average.
            if not is_concrete(value) or not bool(jnp.all(value >= 0)):
                return v, None
        return v, float(jnp.min(value))


def _is_square(step: Step | None) -> bool:
    if step is None or len(step.equations) != 1 or len(step.inputs) != 1:
        return False
    (eqn,) = step.equations
    if step.name == "mul":
        return eqn.invars[0] is eqn.invars[1]
    return step.name == "square" or (step.name == "integer_pow" and eqn.params["y"] == 2)
