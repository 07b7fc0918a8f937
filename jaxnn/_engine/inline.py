"""Inline calls: a function's jaxpr as one flat list of equations, each value computed once."""

from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._checks import is_concrete
from jaxnn._engine.jaxpr import Apply, Traced, bind, evaluate, scan_parts, trace
from jaxnn._engine.primitives import inner_jaxprs


def inline_calls(function: Callable[..., Any], args: Sequence[Any], primitives: Container[str]) -> Traced:
    """Trace a function, with the jaxprs inside of some primitives in the place of their equations.

    Args:
        function: of arrays or pytrees; what it closes over is constant.
        args: where to trace it.
        primitives: names of those to inline: calls, `"scan"` (unrolled), or `"cond"` (where the branch is
            known while tracing).
    """
    traced = trace(function, *args)

    def apply(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
        kind = eqn.primitive.name
        if kind not in primitives or (kind == "cond" and not is_concrete(operands[0])):
            return bind(eqn, operands)
        if kind == "scan":
            return _unroll(eqn, operands, apply)
        inner = list(inner_jaxprs(eqn))
        branch = 0
        if kind == "cond":
            index, *operands = operands
            branch = min(max(int(index), 0), len(inner) - 1)
        return evaluate(inner[branch].jaxpr, inner[branch].consts, operands, apply)

    flat = jax.make_jaxpr(lambda *inputs: evaluate(traced.jaxpr.jaxpr, traced.jaxpr.consts, inputs, apply))(
        *traced.inputs
    )
    return traced._replace(jaxpr=core.ClosedJaxpr(_merge_equal(flat.jaxpr), flat.consts))


def _unroll(eqn: core.JaxprEqn, operands: Sequence[Any], apply: Apply) -> list[Any]:
    consts, carry, rows = scan_parts(eqn.params, operands)
    (body,), length, n_carry = inner_jaxprs(eqn), eqn.params["length"], len(carry)
    outputs: dict[int, list[Any]] = {}
    for i in range(length)[::-1] if eqn.params["reverse"] else range(length):
        inputs = [*consts, *carry, *(row[i] for row in rows)]
        results = evaluate(body.jaxpr, body.consts, inputs, apply)
        carry, outputs[i] = results[:n_carry], results[n_carry:]
    if length:
        return [*carry, *map(jnp.stack, zip(*(outputs[i] for i in range(length)), strict=True))]
    avals: list[Any] = [v.aval for v in body.jaxpr.outvars[n_carry:]]
    return [*carry, *(jnp.zeros((0, *aval.shape), aval.dtype) for aval in avals)]


def _merge_equal(jaxpr: core.Jaxpr) -> core.Jaxpr:
    """Merge equal equations on equal operands, so that equal values are one variable."""
    merged: dict[Any, Any] = {}
    first_outputs: dict[Any, list[Any]] = {}
    eqns = []

    def replaced(v: Any) -> Any:
        return v if isinstance(v, core.Literal) else merged.get(v, v)

    for eqn in jaxpr.eqns:
        invars = [replaced(v) for v in eqn.invars]
        operands = [(repr(v.val), str(v.aval)) if isinstance(v, core.Literal) else v for v in invars]
        key = (eqn.primitive, tuple(sorted(eqn.params.items())), *operands)
        try:
            first = None if eqn.effects else first_outputs.setdefault(key, eqn.outvars)
        except TypeError:  # a parameter that cannot be compared
            first = None
        if first is not None and first is not eqn.outvars:
            merged.update(zip(eqn.outvars, first, strict=True))
        else:
            eqns.append(eqn.replace(invars=invars))
    return jaxpr.replace(eqns=eqns, outvars=[replaced(v) for v in jaxpr.outvars])
