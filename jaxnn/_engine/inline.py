"""A function's jaxpr laid flat: calls entered, scans unrolled, and each value computed once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._checks import is_concrete
from jaxnn._engine.jaxpr import Traced, bind, scan_sizes, trace
from jaxnn._engine.primitives import CALLS, CUSTOM


def flat(function: Callable[..., Any], args: Sequence[Any], keep_custom: bool) -> Traced:
    """Trace a function of the leaves of its arguments, with one level of operations; see `_graph.graph`."""
    first = trace(function, *args)
    entered = CALLS if keep_custom else CALLS | CUSTOM

    def evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
        for eqn in jaxpr.eqns:
            read = [read_in(v, values) for v in eqn.invars]
            kind = eqn.primitive.name
            if kind in entered:
                answers = inner(eqn.params[entered[kind]], read)
            elif kind == "cond" and is_concrete(read[0]):
                branches = eqn.params["branches"]
                answers = inner(branches[min(max(int(read[0]), 0), len(branches) - 1)], read[1:])
            elif kind == "scan":
                answers = unrolled(eqn.params, read)
            else:
                answers = list(bind(eqn, read))
            values.update(zip(eqn.outvars, answers, strict=True))
        return [read_in(v, values) for v in jaxpr.outvars]

    def inner(held: Any, values: Sequence[Any]) -> list[Any]:
        closed = isinstance(held, core.ClosedJaxpr)
        return evaluate(held.jaxpr if closed else held, held.consts if closed else (), values)

    def unrolled(params: Any, values: Sequence[Any]) -> list[Any]:
        (n_consts, n_carry), length = scan_sizes(params), params["length"]
        consts, carry, rows = (
            values[:n_consts],
            values[n_consts : n_consts + n_carry],
            values[n_consts + n_carry :],
        )
        written: dict[int, Any] = {}
        for i in range(length)[::-1] if params["reverse"] else range(length):
            answers = inner(params["jaxpr"], [*consts, *carry, *(row[i] for row in rows)])
            carry, written[i] = answers[:n_carry], answers[n_carry:]
        if not length:
            shapes = [v.aval for v in params["jaxpr"].jaxpr.outvars[n_carry:]]
            return [*carry, *(jnp.zeros((0, *each.shape), each.dtype) for each in shapes)]
        stacked = [jnp.stack(column) for column in zip(*(written[i] for i in range(length)), strict=True)]
        return [*carry, *stacked]

    laid = jax.make_jaxpr(lambda *inputs: inner(first.jaxpr, inputs))(*first.inputs)
    once = core.ClosedJaxpr(_merged(laid.jaxpr), laid.consts)
    return Traced(once, first.inputs, first.structure)


def _merged(jaxpr: core.Jaxpr) -> core.Jaxpr:
    """The same with each value computed once, so that what is written twice is known to be the same."""
    same: dict[Any, Any] = {}
    seen: dict[Any, list[Any]] = {}
    eqns = []

    def replaced(v: Any) -> Any:
        return v if isinstance(v, core.Literal) else same.get(v, v)

    for eqn in jaxpr.eqns:
        read = [replaced(v) for v in eqn.invars]
        operands = [(repr(v.val), str(v.aval)) if isinstance(v, core.Literal) else v for v in read]
        key = (eqn.primitive, tuple(sorted(eqn.params.items())), *operands)
        try:
            first = None if eqn.effects else seen.setdefault(key, eqn.outvars)
        except TypeError:  # a parameter that cannot be compared
            first = None
        if first is not None and first is not eqn.outvars:
            same.update(zip(eqn.outvars, first, strict=True))
        else:
            eqns.append(eqn.replace(invars=read))
    return jaxpr.replace(eqns=eqns, outvars=[replaced(v) for v in jaxpr.outvars])


def read_in(v: Any, *runs: Mapping[Any, Any]) -> Any:
    """What an equation reads there, from the first of the runs that has it."""
    return v.val if isinstance(v, core.Literal) else next(run[v] for run in runs if v in run)
