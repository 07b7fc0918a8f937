"""The affine first part of a function, such as a network's first layer before its activation.

What is affine commutes with straight lines and with sums. Along a path from one input to another the first
layer need be computed at the two ends only, and a sum of gradients need be sent back through it only once.
In a dense network of many inputs that is nearly all of the arithmetic.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._engine.jaxpr import bind, trace
from jaxnn._engine.primitives import is_affine

Values = list[jax.Array]

_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr"}


class AffineSplit(NamedTuple):
    """A function in two parts: `function(x) = suffix(prefix(x))`.

    Attributes:
        prefix: affine; from the input to the values that the rest reads of it.
        suffix: from those values to the function's result.
    """

    prefix: Callable[[Any], Values]
    suffix: Callable[[Values], Any]


def split_affine_prefix(function: Callable[[Any], Any], x: Any) -> AffineSplit:
    """Cut a function where it stops to be affine; where it never is, `prefix` gives the input's leaves.

    Calls are entered; custom derivatives, loops and branches are not, and belong to the rest.

    Args:
        function: of an array or a pytree of arrays.
        x: where to trace it, with floating-point leaves.
    """
    traced = trace(function, x)
    flat = jax.make_jaxpr(lambda *inputs: _inline(traced.jaxpr, inputs))(*traced.inputs)
    jaxpr = flat.jaxpr
    constants = dict(zip(jaxpr.constvars, flat.consts, strict=True))
    moving, affine = set(jaxpr.invars), set(jaxpr.invars)
    head, tail = [], []
    for eqn in jaxpr.eqns:
        read = [v for v in _variables(eqn.invars) if v in moving]
        if not read:
            constants.update(zip(eqn.outvars, bind(eqn, _read(eqn.invars, constants)), strict=True))
            continue
        moving.update(eqn.outvars)
        if affine.issuperset(read) and _is_real(eqn) and is_affine(eqn, moving):
            affine.update(eqn.outvars)
            head.append(eqn)
        else:
            tail.append(eqn)
    read_later = [v for eqn in tail for v in _variables(eqn.invars)] + _variables(jaxpr.outvars)
    cut = [v for v in dict.fromkeys(read_later) if v in affine]

    def prefix(x: Any) -> Values:
        start = constants | dict(zip(jaxpr.invars, jax.tree.leaves(x), strict=True))
        return _read(cut, _run(head, start))

    def suffix(values: Values) -> Any:
        answer = _read(jaxpr.outvars, _run(tail, constants | dict(zip(cut, values, strict=True))))
        return jax.tree.unflatten(traced.structure, answer)

    return AffineSplit(prefix, suffix)


def _inline(closed: core.ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    """Evaluate with the calls entered, so that the equations inside of them can be told apart."""
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *inputs], strict=True))
    for eqn in jaxpr.eqns:
        read = _read(eqn.invars, values)
        held = _CALLS.get(eqn.primitive.name)
        answers = _inline(eqn.params[held], read) if held else bind(eqn, read)
        values.update(zip(eqn.outvars, answers, strict=True))
    return _read(jaxpr.outvars, values)


def _run(equations: Sequence[core.JaxprEqn], start: dict[Any, Any]) -> dict[Any, Any]:
    values = dict(start)
    for eqn in equations:
        values.update(zip(eqn.outvars, bind(eqn, _read(eqn.invars, values)), strict=True))
    return values


def _read(variables: Sequence[Any], values: dict[Any, Any]) -> list[Any]:
    return [v.val if isinstance(v, core.Literal) else values[v] for v in variables]


def _variables(read: Sequence[Any]) -> list[Any]:
    return [v for v in read if not isinstance(v, core.Literal)]


def _is_real(eqn: core.JaxprEqn) -> bool:
    made: list[Any] = list(eqn.outvars)
    return all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in made)
