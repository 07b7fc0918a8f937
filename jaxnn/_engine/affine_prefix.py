"""The affine prefix of a function, such as a network's first layer before its activation.

An affine map commutes with straight lines and with sums. Along a path from one input to another the prefix
is evaluated at the two ends only, and a sum of gradients is sent back through it only once. In a dense
network of many inputs that is nearly all of the arithmetic.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxnn._engine.inline import inline_calls
from jaxnn._engine.jaxpr import read, run
from jaxnn._engine.primitives import CALLS, is_affine, is_real, variables
from jaxnn._typing import PyTree

Values = list[jax.Array]


class AffineSplit(NamedTuple):
    """A function in two parts: `function(x) = suffix(prefix(x))`.

    Attributes:
        prefix: affine; from the input to the values that the suffix reads.
        suffix: from those values to the function's result.
    """

    prefix: Callable[[PyTree], Values]
    suffix: Callable[[Values], PyTree]


def split_affine_prefix(function: Callable[[Any], Any], x: PyTree) -> AffineSplit:
    """Split a function where it ceases to be affine.

    Where it never is affine, `prefix` returns the leaves of `x`. Calls are inlined.
    Recomputed calls, custom derivatives, loops and branches belong to the suffix.

    Args:
        function: of an array or a pytree of arrays.
        x: where to trace it, with floating-point leaves.
    """
    traced = inline_calls(function, [x], CALLS)
    jaxpr = traced.jaxpr.jaxpr
    constants = dict(zip(jaxpr.constvars, traced.jaxpr.consts, strict=True))
    depends, affine = set(jaxpr.invars), set(jaxpr.invars)
    head, tail = [], []
    for eqn in jaxpr.eqns:
        operands = [v for v in variables(eqn.invars) if v in depends]
        if not operands:
            run([eqn], constants)
            continue
        depends.update(eqn.outvars)
        if affine.issuperset(operands) and is_real(*eqn.outvars) and is_affine(eqn, depends):
            affine.update(eqn.outvars)
            head.append(eqn)
        else:
            tail.append(eqn)
    later = variables([*(v for eqn in tail for v in eqn.invars), *jaxpr.outvars])
    cut = [v for v in dict.fromkeys(later) if v in affine]

    def prefix(x: PyTree) -> Values:
        values = constants | dict(zip(jaxpr.invars, jax.tree.leaves(x), strict=True))
        run(head, values)
        return [values[v] for v in cut]

    def suffix(values: Values) -> PyTree:
        known = constants | dict(zip(cut, values, strict=True))
        run(tail, known)
        return jax.tree.unflatten(traced.structure, [read(v, known) for v in jaxpr.outvars])

    return AffineSplit(prefix, suffix)
