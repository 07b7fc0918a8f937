"""JAX's primitives by their names: the one table that a new release of JAX may change.

A jaxpr names an operation by its primitive. Everything that the engine and its rules know of a primitive,
beyond the rule itself, is in the sets below; the functions decide from them what one equation does.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core import primitives as public

from jaxnn._engine.convolution import CONVOLUTION, original

# Primitives that hold one jaxpr and are that function: calls, calls to recompute in a gradient (by version
# of JAX), and functions with a derivative of their own, which is lost where they are inlined.
CALLS = {"jit", "closed_call", "eval_jaxpr"}
REMAT = {"remat2", "remat", "checkpoint"}
CUSTOM = {"custom_jvp_call", "custom_vjp_call"}
# Branches and loops of unknown length: what is computed inside may not exist, or exist many times.
CONTROL = {"cond", "while"}
# Loops of known length, and branches that may be known while tracing.
UNROLLED = {"scan", "cond"}
# Primitives whose jaxpr only combines two values.
COMBINERS = {
    "reduce", "reduce_window", "scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min",
    "scatter-max",
}  # fmt: skip
# Calls to Python on the host, and why no method sees through them.
CALLBACKS = {"pure_callback", "io_callback"}
NO_GRADIENT = (
    "calls a function on the host, as by `jaxnn.from_numpy`, and has no gradient. Use a method that only "
    "evaluates the model: `feature_ablation`, `occlusion`, `shapley_values`, `kernel_shap`, `lime`, `rise`, "
    "`permutation_importance`, the learned rules, or the attacks `square` and `hop_skip_jump`"
)

# The same value: up to its precision, and on more devices.
NAMES = {"tap", "name"}
IDENTITY = NAMES | {"copy", "copy_p", "reduce_precision", "pvary"}
# The same value at each place: up to its precision, or without a gradient.
ONE_TO_ONE = (IDENTITY - NAMES) | {"convert_element_type", "stop_gradient"}
# The same values in another shape or order; `LAYOUT` may also repeat them, `MOVES` leave some out.
RESHAPES = {"reshape", "squeeze", "expand_dims"}
PERMUTATIONS = RESHAPES | IDENTITY | {"transpose"}
LAYOUT = RESHAPES | {"transpose", "broadcast_in_dim"}
MOVES = LAYOUT | {"rev", "slice", "split"}
# The same values in another shape, repeated, in another precision or without a gradient.
SAME_VALUES = LAYOUT | IDENTITY | {"convert_element_type", "stop_gradient"}
# The same axes, in another number of places or another precision.
SAME_AXES = MOVES | {"pad", "convert_element_type"}
JOINS = {"concatenate", "stack"}
# No arithmetic at all.
MOVING = SAME_AXES | SAME_VALUES | JOINS | {
    "gather", "dynamic_slice", "dynamic_update_slice", "scatter", "iota", "select_n", "unstack", "tile",
    "bitcast_convert_type", "optimization_barrier", "sharding_constraint",
}  # fmt: skip

ADDITIONS = {"add", "add_any", "sub"}
SCATTERED_ADDITIONS = {"scatter-add", "scatter-sub"}
CUMULATIVE = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
SUMS = {"reduce_sum", "reduce_window_sum", "cumsum"}
# Products with weights, by the kind of layer that they make.
PRODUCTS = {"dot_general": "dense", "conv_general_dilated": "conv"}
MAXIMA = {"reduce_max", "reduce_window_max", "cummax"}
EXTREMA = MAXIMA | {"reduce_min", "reduce_window_min", "cummin"}
# Results are operands in another order, a different one for other values.
SELECTIONS = {"sort", "top_k"}
# Products of many elements.
CHAINED_PRODUCTS = {"reduce_prod", "cumprod"}
MULTIPLICATIONS = {"mul", "div"}
ROOTS = {"sqrt", "rsqrt"}
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
LOGIC = {"and", "or", "not", "xor"}
# Operations whose result may not change with the value that is subtracted in a softmax.
SHIFTS = {"reduce_max", "scatter-max", "stop_gradient"}

# Affine, element by element, in one operand, the others being constant; `SCALINGS` under a further condition.
_AFFINE_ELEMENTWISE = ADDITIONS | IDENTITY | {"neg", "mul"}
SCALINGS = _AFFINE_ELEMENTWISE | {"div", "convert_element_type"}
AFFINE = _AFFINE_ELEMENTWISE | MOVES | SUMS | set(PRODUCTS) | {"unstack", "tile", "sharding_constraint"}
# Affine in all operands together.
JOINTLY_AFFINE = ADDITIONS | JOINS | {"pad", "optimization_barrier"}
# Linear between real and complex numbers.
COMPLEX = {"fft", "complex", "real", "imag", "conj"}
# Affine in the operands before this index, those from it on being constant.
_AFFINE_BEFORE = {"gather": 1, "dynamic_slice": 1, "dynamic_update_slice": 2}
# Affine where the operand at this index is constant.
_AFFINE_UNLESS = {"div": 1, "scatter": 1, "select_n": 0} | dict.fromkeys(SCATTERED_ADDITIONS, 1)

# What a ReLU may be written with, and an average.
PIECEWISE_LINEAR = (
    SCALINGS | CUSTOM | COMPARISONS | LOGIC | {"max", "min", "select_n", "abs", "sign", "clamp"}
)
AVERAGING = LAYOUT | IDENTITY | {"reduce_sum", "div", "mul", "convert_element_type", "select_n"}
# What a norm or its reciprocal may be written with.
POWERS = PIECEWISE_LINEAR | ROOTS | {"integer_pow", "pow", "square"}
ELEMENTWISE = PIECEWISE_LINEAR - CUSTOM | ROOTS | {
    "floor", "ceil", "round", "is_finite", "exp", "exp2", "log", "expm1", "log1p", "tanh", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "logistic", "erf", "erfc",
    "erf_inv", "lgamma", "digamma", "cbrt", "integer_pow", "pow", "square", "rem", "atan2", "nextafter",
}  # fmt: skip


_KNOWN = {each.name for each in vars(public).values() if isinstance(each, core.Primitive)}.union(
    CALLS,
    REMAT,
    CUSTOM,
    CONTROL,
    COMBINERS,
    CALLBACKS,
    NAMES,
    AFFINE,
    JOINTLY_AFFINE,
    ELEMENTWISE,
    SELECTIONS,
)


def is_primitive(name: object) -> bool:
    """Whether JAX has a primitive of this name; a library may have others."""
    return name in _KNOWN


# The classes of "high" primitives, which JAX may use in the place of others by its configuration.
_HIGH = {
    "CheckpointName": "name",
    "CheckpointNameFwd": "name",
    "RematTraced": "remat",
    "CustomVJPTraced": "custom_vjp_call",
    "CustomJVPTraced": "custom_jvp_call",
}


class InnerJaxpr(NamedTuple):
    """A jaxpr inside of an equation: its parameter, its number there (0 if alone), and its constants."""

    parameter: str
    number: int
    jaxpr: core.Jaxpr
    consts: Sequence[Any]


def inner_jaxprs(eqn: core.JaxprEqn) -> Iterator[InnerJaxpr]:
    """The jaxprs inside of an equation, in the order of its parameters, with `standard` equations."""
    for parameter, value in eqn.params.items():
        for number, each in enumerate(value if isinstance(value, tuple | list) else (value,)):
            if isinstance(each, core.ClosedJaxpr):
                yield InnerJaxpr(parameter, number, standard(each.jaxpr), each.consts)
            elif isinstance(each, core.Jaxpr):
                yield InnerJaxpr(parameter, number, standard(each), ())


class _High:
    """A high primitive by the name of the one in whose place it is; bound without parameters."""

    multiple_results = True

    def __init__(self, eqn: core.JaxprEqn):
        self._primitive, self._params = eqn.primitive, eqn.params
        self.name = _HIGH[_class_name(eqn)]

    def get_bind_params(self, _: dict[str, Any]) -> dict[str, Any]:
        return {}

    def bind(self, *operands: Any) -> Sequence[Any]:
        """Evaluate the high primitive."""
        results: Sequence[Any] = self._primitive.bind(*operands, **self._params)
        return results


def standard(jaxpr: core.Jaxpr) -> core.Jaxpr:
    """A jaxpr whose own equations have the names and parameters that do not depend on JAX's configuration.

    The jaxprs inside of them are as they were; `inner_jaxprs` returns them likewise.
    """
    if not any(_class_name(eqn) in _HIGH or eqn.primitive is CONVOLUTION for eqn in jaxpr.eqns):
        return jaxpr
    return jaxpr.replace(eqns=[_standard(original(eqn)) for eqn in jaxpr.eqns])


def _class_name(eqn: core.JaxprEqn) -> str:
    """The class of a high primitive; nothing of another."""
    return type(eqn.params["_prim"]).__name__ if eqn.primitive.name == "call_hi_primitive" else ""


def _standard(eqn: core.JaxprEqn) -> core.JaxprEqn:
    if _class_name(eqn) not in _HIGH:
        return eqn
    high, named = eqn.params["_prim"], _High(eqn)
    params = {key: high.params[key] for key in ("name", "policy", "prevent_cse") if key in high.params}
    if named.name not in NAMES:
        params["call_jaxpr"] = _expanded(high)
    return eqn.replace(primitive=named, params=params)  # type: ignore[arg-type]


def _expanded(high: Any) -> core.ClosedJaxpr:
    """The jaxpr of a high primitive, of its flat operands."""
    if hasattr(high, "jaxpr"):
        jaxpr = high.jaxpr
        return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())

    def expand(*flat: Any) -> list[Any]:
        return jax.tree.leaves(high.expand(*jax.tree.unflatten(high.in_tree, flat)))

    expand.__name__ = getattr(getattr(high, "traced", None), "fun_name", "expand")
    return jax.make_jaxpr(expand)(*high.in_avals_flat)


def variables(atoms: Sequence[Any]) -> list[core.Var]:
    """The variables among operands, without the literals."""
    return [v for v in atoms if not isinstance(v, core.Literal)]


def is_real(*atoms: Any) -> bool:
    """Whether all variables hold floating-point numbers, so that they have a gradient."""
    return all(bool(jnp.issubdtype(v.aval.dtype, jnp.floating)) for v in atoms)


def is_inexact(*atoms: Any) -> bool:
    """Whether all variables hold floating-point or complex numbers."""
    return all(bool(jnp.issubdtype(v.aval.dtype, jnp.inexact)) for v in atoms)


def is_number(v: Any) -> bool:
    """Whether an array holds numbers: not random keys."""
    return bool(jnp.issubdtype(v.aval.dtype, jnp.number))


def is_integer(v: Any) -> bool:
    """Whether a variable holds integers, such as indices."""
    return bool(jnp.issubdtype(v.aval.dtype, jnp.integer))


def is_affine(eqn: core.JaxprEqn, depends: Container[Any]) -> bool:
    """Whether an operation is affine in all operands that depend on the input, taken together.

    Of complex operands: affine over the real numbers.
    """
    name = eqn.primitive.name
    moving = [not isinstance(v, core.Literal) and v in depends for v in eqn.invars]
    if not is_inexact(*(v for v, moves in zip(eqn.invars, moving, strict=True) if moves)):
        return False
    if name in JOINTLY_AFFINE | COMPLEX:
        return True
    if name in _AFFINE_UNLESS:
        return not moving[_AFFINE_UNLESS[name]]
    if name in _AFFINE_BEFORE:
        return not any(moving[_AFFINE_BEFORE[name] :])
    if name == "convert_element_type":
        return is_inexact(*eqn.outvars)
    return sum(moving) == 1 and name in AFFINE


def is_elementwise(eqn: core.JaxprEqn, operands: Sequence[Any]) -> bool:
    """Whether each element of an operation's result depends on the operands' elements at the same place only.

    Args:
        eqn: the operation.
        operands: its operands that depend on the input; constants may have any shape.
    """
    results: list[Any] = eqn.outvars
    if len(results) != 1 or any(v.aval.shape != results[0].aval.shape for v in operands):
        return False
    if eqn.primitive.name in CUSTOM:  # not inlined, to keep its derivative
        return len(operands) == 1 and _all_elementwise(eqn)
    return eqn.primitive.name in ELEMENTWISE


def _all_elementwise(eqn: core.JaxprEqn) -> bool:
    if eqn.primitive.name in CALLS | REMAT | CUSTOM:
        return all(_all_elementwise(each) for inner in inner_jaxprs(eqn) for each in inner.jaxpr.eqns)
    return eqn.primitive.name in ELEMENTWISE or eqn.primitive.name == "broadcast_in_dim"
