"""What is known of JAX's primitives: which are affine, which elementwise."""

from collections.abc import Container, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr"}
CUSTOM = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}

# Affine in all operands together, whatever of them depends on the input.
_SUMS = {"add", "add_any", "sub", "concatenate", "stack", "pad", "optimization_barrier"}
# Affine in one operand, the others being constant.
_AFFINE_ELEMENTWISE = {
    "add", "add_any", "sub", "neg", "mul", "copy", "copy_p", "name", "reduce_precision", "pvary",
}  # fmt: skip
_AFFINE = _AFFINE_ELEMENTWISE | {
    "reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "rev", "reduce_sum",
    "cumsum", "dot_general", "conv_general_dilated", "reduce_window_sum", "split", "unstack", "tile",
    "sharding_constraint",
}  # fmt: skip
# Affine in the operands before this place, where those from it on are constant.
_AFFINE_BEFORE = {"gather": 1, "dynamic_slice": 1, "dynamic_update_slice": 2}
_ELEMENTWISE = _AFFINE_ELEMENTWISE | {
    "abs", "sign", "floor", "ceil", "round", "is_finite", "exp", "exp2", "log", "expm1", "log1p", "tanh",
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "logistic", "erf",
    "erfc", "erf_inv", "lgamma", "digamma", "rsqrt", "sqrt", "cbrt", "integer_pow", "pow", "square", "max",
    "min", "div", "rem", "atan2", "nextafter", "select_n", "clamp", "eq", "ne", "lt", "le", "gt", "ge", "and",
    "or", "not", "xor", "convert_element_type",
}  # fmt: skip


def is_real(v: Any) -> bool:
    """Whether a variable holds floating-point numbers, which a change of the input can change a little."""
    return bool(jnp.issubdtype(v.aval.dtype, jnp.floating))


def is_affine(eqn: core.JaxprEqn, depends: Container[Any]) -> bool:
    """Whether an operation is affine in all that depends on the input, taken together."""
    name = eqn.primitive.name
    moving = [not isinstance(v, core.Literal) and v in depends for v in eqn.invars]
    if not all(is_real(v) for v, moves in zip(eqn.invars, moving, strict=True) if moves):
        return False
    if name in _SUMS:
        return True
    if name in ("div", "scatter", "scatter-add", "scatter-sub"):
        return not moving[1]
    if name == "select_n":
        return not moving[0]
    if name == "convert_element_type":
        return all(is_real(v) for v in eqn.outvars)
    if name in _AFFINE_BEFORE:
        return not any(moving[_AFFINE_BEFORE[name] :])
    return sum(moving) == 1 and name in _AFFINE


def is_elementwise(eqn: core.JaxprEqn, read: Sequence[Any]) -> bool:
    """Whether an operation makes each entry of its result from those at the same place of what it reads.

    Args:
        eqn: the operation.
        read: the variables among its operands that depend on the input; constants may be of any shape.
    """
    if len(eqn.outvars) != 1:
        return False
    known = eqn.primitive.name in _ELEMENTWISE
    if eqn.primitive.name in CUSTOM:  # kept whole for the sake of its derivative
        known = len(read) == 1 and _all_elementwise(eqn.params["call_jaxpr"].jaxpr)
    made: Any = eqn.outvars[0]
    return known and all(v.aval.shape == made.aval.shape for v in read)


def _all_elementwise(jaxpr: core.Jaxpr) -> bool:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in CALLS | CUSTOM:
            held = eqn.params[(CALLS | CUSTOM)[eqn.primitive.name]]
            if not _all_elementwise(held.jaxpr if isinstance(held, core.ClosedJaxpr) else held):
                return False
        elif eqn.primitive.name not in _ELEMENTWISE | {"broadcast_in_dim"}:
            return False
    return True
