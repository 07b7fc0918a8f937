"""Inline calls: a function's jaxpr as one flat list of equations, each value computed once."""

from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._checks import is_concrete
from jaxnn._engine.jaxpr import Apply, Traced, bind, evaluate, scan_parts, trace
from jaxnn._engine.primitives import NAMES, inner_jaxprs, standard
from jaxnn._engine.scans import scan_of, steps_to_unroll


def inline_calls(
    function: Callable[..., Any],
    args: Sequence[Any],
    primitives: Container[str],
    *,
    keep_long: Callable[[core.JaxprEqn], bool] | None = None,
) -> Traced:
    """Trace a function, with the jaxprs inside of some primitives in the place of their equations.

    Args:
        function: of arrays or pytrees; what it closes over is constant.
        args: where to trace it.
        primitives: names of those to inline: calls, `"scan"` (unrolled), `"cond"` (where the branch is known
            while tracing), or taps, which are left out.
        keep_long: `keep_long(equation)` tells whether a long scan is not unrolled; None to unroll all.
    """
    traced = trace(function, *args)

    def apply(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
        kind = eqn.primitive.name
        if kind not in primitives or (kind == "cond" and not is_concrete(operands[0])):
            return bind(eqn, operands)
        if kind in NAMES:
            return operands
        if kind == "scan":
            keeps = keep_long is not None and keep_long(eqn)
            return _unroll(eqn, operands, apply, steps_to_unroll(eqn) if keeps else None)
        inner = list(inner_jaxprs(eqn))
        branch = 0
        if kind == "cond":
            index, *operands = operands
            branch = min(max(int(index), 0), len(inner) - 1)
        return evaluate(inner[branch].jaxpr, inner[branch].consts, operands, apply)

    flat = jax.make_jaxpr(lambda *inputs: evaluate(traced.jaxpr.jaxpr, traced.jaxpr.consts, inputs, apply))(
        *traced.inputs
    )
    return traced._replace(jaxpr=core.ClosedJaxpr(_merge_equal(standard(flat.jaxpr)), flat.consts))


def _unroll(eqn: core.JaxprEqn, operands: Sequence[Any], apply: Apply, steps: int | None = None) -> list[Any]:
    """A scan with its first steps as equations of their own, and a scan of the others; None for all."""
    consts, carry, rows = scan_parts(eqn.params, operands)
    (body,), length, reverse = inner_jaxprs(eqn), eqn.params["length"], eqn.params["reverse"]
    order = range(length)[::-1] if reverse else range(length)
    outputs: dict[int, list[Any]] = {}
    for i in order[:steps]:
        inputs = [*consts, *carry, *(row[i] for row in rows)]
        results = evaluate(body.jaxpr, body.consts, inputs, apply)
        carry, outputs[i] = results[: len(carry)], results[len(carry) :]
    if not outputs:
        return list(bind(eqn, operands))
    first = [jnp.stack(each) for each in zip(*(outputs[i] for i in sorted(outputs)), strict=True)]
    if len(outputs) == length:
        return [*carry, *first]
    others = slice(None, -len(outputs)) if reverse else slice(len(outputs), None)
    carry, rest = scan_of(eqn, consts, carry, [row[others] for row in rows], length - len(outputs))
    joined = [[b, a] if reverse else [a, b] for a, b in zip(first, rest, strict=True)]
    return [*carry, *map(jnp.concatenate, joined)]


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
