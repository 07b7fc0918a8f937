"""Evaluate a function of an array that changes within a window alone, by what the window can change.

The function is evaluated once at the unchanged array. For each window, every operation then computes the box
of its result that the window reaches: of a convolution that is a few positions more. Around the box the
result is what it was. Where a box would be most of the result, or an operation has no rule, all of it is
computed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._engine.inline import inline_calls
from jaxnn._engine.jaxpr import bind, read, run, trace
from jaxnn._engine.loops import vary_like
from jaxnn._engine.primitives import CALLS, NAMES, REMAT, variables
from jaxnn._engine.window_rules import RULES
from jaxnn._engine.windows import Box, Changed, Value, extended, put, sizes, whole

_MOST = 0.5  # of a result, up to which only its box is computed


def changed_in_windows(
    function: Callable[[jax.Array], Any], x: jax.Array, box: Box
) -> tuple[Any, Callable[[jax.Array, jax.Array], Any]]:
    """The result of a function, and a function of what a window has in place of the array.

    Args:
        function: of an array.
        x: the array, with at least one axis.
        box: where each window is.

    Returns:
        `(function(x), changed)`: `changed(at, patch)` is the result for `x` with `patch` at the box of the
        window with index `at`. What does not depend on the window is computed here, once.
    """
    traced = inline_calls(function, [x], CALLS | REMAT | NAMES)
    jaxpr = traced.jaxpr.jaxpr
    base = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.jaxpr.consts, x], strict=True))
    run(jaxpr.eqns, base)
    windows = len(box[0].starts)

    def changed(at: jax.Array, patch: jax.Array) -> list[jax.Array]:
        changes = {jaxpr.invars[0]: _sensible(x, Changed(box, patch), at)}
        for eqn in jaxpr.eqns:
            operands = [_value(v, base, changes) for v in eqn.invars]
            if any(v.box is not None for v in operands):
                results = _apply(eqn, operands, [base[v] for v in eqn.outvars], at, windows)
                changes.update(zip(eqn.outvars, results, strict=True))
        return [_all(_value(v, base, changes), at) for v in jaxpr.outvars]

    patch = vary_like(jnp.zeros(sizes(box), x.dtype), x)
    compute = _without_invariants(changed, jnp.zeros((), "int32"), patch)

    def result(at: jax.Array, patch: jax.Array) -> Any:
        return traced.structure.unflatten(compute(jnp.asarray(at, "int32"), patch))

    return traced.structure.unflatten([read(v, base) for v in jaxpr.outvars]), result


def _value(v: Any, base: Mapping[Any, Any], changes: Mapping[Any, Changed]) -> Value:
    unchanged = read(v, base)
    found = None if isinstance(v, core.Literal) else changes.get(v)
    return Value(unchanged) if found is None else Value(unchanged, *found)


def _all(value: Value, at: jax.Array) -> Any:
    """The whole array."""
    if value.box is None:
        return value.base
    return extended(value, whole(value.base.shape, 1), at)


def _apply(
    eqn: core.JaxprEqn, operands: Sequence[Value], base: Sequence[Any], at: jax.Array, windows: int
) -> Iterable[Changed]:
    rule = RULES.get(eqn.primitive.name)
    is_whole = all(v.box is None or sizes(v.box) == v.base.shape for v in operands)
    if rule is not None and not is_whole and min(v.size for v in base) > 0:
        found = rule(eqn, operands, base[0], at)
        if found is not None:
            return [_sensible(base[0], found, at)]
    results = bind(eqn, [_all(v, at) for v in operands])
    return [Changed(whole(result.shape, windows), result) for result in results]


def _sensible(base: jax.Array, found: Changed, at: jax.Array) -> Changed:
    """A change, or all of the array where most of it may change."""
    if found.patch.size <= _MOST * base.size or found.patch.shape == base.shape:
        return found
    around = whole(base.shape, len(found.box[0].starts))
    return Changed(around, put(found.patch, found.box, base, around, at))


def _without_invariants(function: Callable[..., list[Any]], *args: Any) -> Callable[..., list[Any]]:
    """A function of arrays, with what does not depend on them computed now, and not in every call."""
    traced = trace(function, *args)
    jaxpr = traced.jaxpr.jaxpr
    values = dict(zip(jaxpr.constvars, traced.jaxpr.consts, strict=True))
    later, depends = [], set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(v in depends for v in variables(eqn.invars)):
            later.append(eqn)
            depends.update(eqn.outvars)
        else:
            run([eqn], values)

    def compute(*args: Any) -> list[Any]:
        known = values | dict(zip(jaxpr.invars, args, strict=True))
        run(later, known)
        return [read(v, known) for v in jaxpr.outvars]

    return compute
