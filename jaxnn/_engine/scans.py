"""Long scans as one step of a graph: evaluated with the carry of each of its steps kept, to be walked back.

A short scan is unrolled, so that patterns are found across its steps. A long one would take minutes to
compile. It is walked back by a scan over the steps of its own body. Its first steps are unrolled, too: there
the carry may be a constant, such as zeros.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxnn._engine.jaxpr import evaluate, scan_parts, walk
from jaxnn._engine.primitives import CALLS, CUSTOM, REMAT, InnerJaxpr, inner_jaxprs

_MOST_UNROLLED = 200  # equations


class Saved:
    """A variable for all values of one carry, each before its step: `(length, *carry.shape)`."""

    def __init__(self, length: int, carry: Any):
        self.aval = jax.ShapeDtypeStruct((length, *carry.aval.shape), carry.aval.dtype)


class Scan(NamedTuple):
    """A scan that is not unrolled.

    Attributes:
        equation: the scan.
        body: its body, from `[*consts, *carry, *row]` to `[*carry, *output row]`.
        moves: for each of those inputs, whether it depends on the input of the function at some step.
        moved: for each result of the body, likewise.
        saved: a variable per carry.
    """

    equation: core.JaxprEqn
    body: InnerJaxpr
    moves: tuple[bool, ...]
    moved: tuple[bool, ...]
    saved: tuple[Saved, ...]

    def parts(self, operands: Sequence[Any]) -> list[list[Any]]:
        """The operands of the scan, or inputs of its body: constants, carry, and rows."""
        return scan_parts(self.equation.params, operands)

    def call(self, operands: Sequence[Any]) -> list[Any]:
        """The results of the scan, and of each carry its values before each step."""
        consts, carry, rows = self.parts(operands)
        carry, outputs = scan_of(
            self.equation, consts, carry, rows, self.equation.params["length"], save=True
        )
        return [*carry, *outputs]

    def fixed(self, read: Callable[[Any], Any]) -> dict[Any, Any]:
        """The results that do not depend on the function's input, such as a counter, by variable.

        Args:
            read: `read(v)`, the value of an operand that does not.
        """
        places = [i for i, moved in enumerate(self.moved) if not moved]
        if not places:
            return {}
        operands: Sequence[Any] = self.equation.invars
        # What depends on the input is replaced by zeros, and not used.
        consts, start, rows = self.parts(
            [
                jnp.zeros(v.aval.shape, v.aval.dtype) if moves else read(v)
                for v, moves in zip(operands, self.moves, strict=True)
            ]
        )
        carried = [i for i in places if i < len(start)]

        def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
            current = dict(enumerate(start)) | dict(zip(carried, carry, strict=True))
            found = evaluate(self.body.jaxpr, self.body.consts, [*consts, *current.values(), *row])
            return [found[i] for i in carried], [found[i] for i in places if i >= len(start)]

        likes: Sequence[Any] = self.body.jaxpr.invars[len(consts) :]  # a literal has a weak type
        first = [jnp.asarray(start[i], likes[i].aval.dtype) for i in carried]
        options = {key: self.equation.params[key] for key in ("length", "reverse", "unroll")}
        last, outputs = lax.scan(step, first, rows, **options)
        return {self.equation.outvars[i]: v for i, v in zip(places, [*last, *outputs], strict=True)}


def scan_of(
    eqn: core.JaxprEqn,
    consts: Sequence[Any],
    carry: Sequence[Any],
    rows: Sequence[Any],
    length: int,
    *,
    save: bool = False,
) -> tuple[list[Any], list[Any]]:
    """A scan over the body of another: the last carry, and the outputs.

    Args:
        eqn: the other.
        consts: constants of the body.
        carry: the initial carry.
        rows: arrays `(length, ...)`.
        length: number of steps.
        save: whether the outputs end with the values of each carry before each step.
    """
    (body,) = inner_jaxprs(eqn)

    def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        results = evaluate(body.jaxpr, body.consts, [*consts, *carry, *row])
        return results[: len(carry)], [*results[len(carry) :], *(carry if save else ())]

    likes: Sequence[Any] = body.jaxpr.invars[len(consts) :]  # a literal has a weak type
    start = [jnp.asarray(v, like.aval.dtype) for v, like in zip(carry, likes, strict=False)]
    options = {key: eqn.params[key] for key in ("reverse", "unroll")}
    last, outputs = lax.scan(step, start, list(rows), length, **options)
    return last, outputs


def steps_to_unroll(eqn: core.JaxprEqn) -> int:
    """The number of steps of a scan that are unrolled: all of a short one, a few of a long one.

    Those until every carry that ever depends on the rows does.
    """
    (body,), length = inner_jaxprs(eqn), eqn.params["length"]
    if length * sum(1 for _ in walk(body.jaxpr)) <= _MOST_UNROLLED:
        return int(length)
    consts, carry, rows = scan_parts(eqn.params, [True] * len(eqn.invars))
    start = [*consts, *(False for _ in carry), *rows]
    return min(_reach(body.jaxpr, start, len(consts), len(carry))[1], length)


def make_scan(eqn: core.JaxprEqn, depends: Callable[[Any], bool]) -> Scan:
    """A scan equation as a `Scan`; `depends(v)` tells whether an operand depends on the input."""
    (body,) = inner_jaxprs(eqn)
    consts, carry, _ = scan_parts(eqn.params, eqn.invars)
    moves, moved = _flow(eqn, depends)
    carried = body.jaxpr.invars[len(consts) : len(consts) + len(carry)]
    return Scan(eqn, body, tuple(moves), tuple(moved), tuple(Saved(eqn.params["length"], v) for v in carried))


def _flow(eqn: core.JaxprEqn, depends: Callable[[Any], bool]) -> tuple[list[bool], list[bool]]:
    """Which inputs and which results of a scan's body depend on the function's input at some step."""
    moves = [not isinstance(v, core.Literal) and depends(v) for v in eqn.invars]
    (body,) = inner_jaxprs(eqn)
    consts, carry, _ = scan_parts(eqn.params, moves)
    moves, _ = _reach(body.jaxpr, moves, len(consts), len(carry))
    return moves, _results_that_move(body.jaxpr, moves)


def _reach(jaxpr: core.Jaxpr, moves: Sequence[bool], first: int, count: int) -> tuple[list[bool], int]:
    """Which inputs of a body depend on the function's input at some step, and after how many steps they do.

    A carry that depends on it after a step does so before the next one.

    Args:
        jaxpr: the body.
        moves: which inputs do at the first step.
        first: the index of the first carry.
        count: the number of carries.
    """
    moves, steps = list(moves), 0
    while True:
        carry = moves[first : first + count]
        reached = [a or b for a, b in zip(carry, _results_that_move(jaxpr, moves), strict=False)]
        if reached == carry:
            return moves, steps
        moves[first : first + count] = reached
        steps += 1


def _results_that_move(jaxpr: core.Jaxpr, moves: Sequence[bool]) -> list[bool]:
    moving = {v for v, flag in zip(jaxpr.invars, moves, strict=True) if flag}
    for eqn in jaxpr.eqns:
        flags = [not isinstance(v, core.Literal) and v in moving for v in eqn.invars]
        moving.update(v for v, moves in zip(eqn.outvars, _results_of(eqn, flags), strict=True) if moves)
    return [not isinstance(v, core.Literal) and v in moving for v in jaxpr.outvars]


def _results_of(eqn: core.JaxprEqn, flags: list[bool]) -> list[bool]:
    """Which results of an equation move, where those operands do; looks into calls and scans."""
    if not any(flags):
        return [False] * len(eqn.outvars)
    if eqn.primitive.name == "scan":
        moving = {v for v, moves in zip(eqn.invars, flags, strict=True) if moves}
        return _flow(eqn, moving.__contains__)[1]
    if eqn.primitive.name in CALLS | REMAT | CUSTOM:
        (inner,) = inner_jaxprs(eqn)
        return _results_that_move(inner.jaxpr, flags)
    return [True] * len(eqn.outvars)
