"""Evaluate a jaxpr equation by equation, with handlers in the place of some equations.

A jaxpr is a list of equations over primitives, some of which hold further jaxprs: jit, custom derivatives,
remat, scan, cond and while. They are traced into where a handler or a value to read is inside, and evaluated
unchanged otherwise.
"""

import itertools
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from jaxnn._engine.convolution import fast_on_cpu
from jaxnn._engine.primitives import (
    CALLS,
    CONTROL,
    CUSTOM,
    NAMES,
    REMAT,
    inner_jaxprs,
    is_primitive,
    standard,
)
from jaxnn._typing import PyTree

Path = tuple[int | str, ...]
"""The place of an equation: its index, after `(index, parameter, number)` of each equation around it."""

Apply = Callable[[core.JaxprEqn, Sequence[Any]], Sequence[Any]]
"""`apply(equation, operands) -> results`."""

Captured = dict[Path, jax.Array]
Rows = Mapping[Path, PyTree]
Body = Callable[..., tuple[list[Any], Captured]]


class Traced(NamedTuple):
    """A function's jaxpr on the leaves of its arguments, and the structure of its result."""

    jaxpr: core.ClosedJaxpr
    inputs: list[Any]
    structure: Any

    def evaluate(
        self,
        handlers: Mapping[Path, Callable[..., Sequence[Any]]] | None = None,
        reads: Collection[Path] = (),
        rows: Rows | None = None,
    ) -> tuple[PyTree, Captured]:
        """Evaluate the function with handlers in the place of some equations.

        Args:
            handlers: by the path of the equation, what to evaluate there. Custom derivatives around it are
                lost.
            reads: paths of equations whose first result to return. Inside of `cond` and `while` a value may
                not exist, and is not returned.
            rows: by the path of an equation inside of scans, a pytree of arrays with an axis per scan. Its
                handler gets the row of each step as a third argument.
        """
        handlers = handlers or {}
        around = {path[:end] for path in (*handlers, *reads) for end in range(1, len(path), 3)}
        plan = _Plan(handlers, frozenset(reads), frozenset(around), rows or {})
        outputs, captured = plan.evaluate(self.jaxpr.jaxpr, self.jaxpr.consts, self.inputs, ())
        return jax.tree.unflatten(self.structure, outputs), captured


def trace(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Traced:
    """Trace a function; what it closes over becomes constants of the jaxpr."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
    jaxpr = core.ClosedJaxpr(standard(jaxpr.jaxpr), jaxpr.consts)
    return Traced(jaxpr, jax.tree.leaves((args, kwargs)), jax.tree.structure(shapes))


def read(v: Any, values: Mapping[Any, Any]) -> Any:
    """The value of an operand: a variable or a literal."""
    return v.val if isinstance(v, core.Literal) else values[v]


def bind(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[jax.Array]:
    """Evaluate an equation on other operands; a sequence of results, also of one.

    A convolution is evaluated as that of `convolution`, which a CPU computes fast.
    """
    eqn = fast_on_cpu(eqn)
    if eqn.primitive.name in CUSTOM:  # whose derivative may index them by tracers, unlike NumPy's
        operands = [jnp.asarray(v) if isinstance(v, np.ndarray) else v for v in operands]
    with eqn.ctx.manager:
        result = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return result if eqn.primitive.multiple_results else [result]


def with_params(eqn: core.JaxprEqn, **params: Any) -> core.JaxprEqn:
    """An equation with some parameters changed."""
    return eqn.replace(params={**eqn.params, **params})


def run(equations: Iterable[core.JaxprEqn], values: MutableMapping[Any, Any], apply: Apply = bind) -> None:
    """Evaluate equations in order, and add their results to `values`."""
    for eqn in equations:
        results = apply(eqn, [read(v, values) for v in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))


def evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any], apply: Apply = bind
) -> list[Any]:
    """Evaluate a jaxpr, with `apply` at each equation."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
    run(jaxpr.eqns, values, apply)
    return [read(v, values) for v in jaxpr.outvars]


def called(eqn: core.JaxprEqn) -> tuple[str, ...]:
    """The names of an equation: that of the function it calls, if any, and its primitive's."""
    kind = eqn.primitive.name
    if kind == "jit":
        return (str(eqn.params["name"]), kind)
    if kind in CUSTOM:
        return (str(next(inner_jaxprs(eqn)).jaxpr.debug_info.func_name), kind)
    return (kind,)


def warn_unused(
    argument: str, rules: Iterable[Any], jaxpr: core.Jaxpr, stacklevel: int, *, functions: bool = False
) -> None:
    """Warn of rules for an operation that a function does not have, and JAX neither.

    Args:
        argument: the name of the argument.
        rules: the names of the operations.
        jaxpr: of the function.
        stacklevel: that of the caller's caller.
        functions: whether rules may also be of functions that JAX records as a call.
    """
    others = [name for name in rules if not is_primitive(name)]
    found = (
        {name for _, eqn in walk(jaxpr) for name in called(eqn)[0 if functions else -1 :]} if others else ()
    )
    for name in others:
        if name not in found and not (functions and any(hasattr(m, str(name)) for m in (jax.nn, jnp))):
            kind = "operation" if functions else "primitive"
            warnings.warn(
                f"`{argument}[{name!r}]` changes nothing: JAX has no {kind} of that name, and neither has "
                f"the function: {', '.join(sorted(found))}",
                stacklevel=stacklevel + 1,
            )


def walk(jaxpr: core.Jaxpr, path: Path = ()) -> Iterator[tuple[Path, core.JaxprEqn]]:
    """Every equation with its path, in the order of evaluation."""
    for index, eqn in enumerate(jaxpr.eqns):
        yield (*path, index), eqn
        yield from _walk_inside(eqn, (*path, index))


def scan_lengths(jaxpr: core.Jaxpr, path: Path) -> tuple[int, ...]:
    """The lengths of the scans around the equation at a path, the outermost first."""
    lengths = []
    for i in range(0, len(path) - 1, 3):
        eqn = jaxpr.eqns[int(path[i])]
        if eqn.primitive.name == "scan":
            lengths.append(eqn.params["length"])
        inside = {(inner.parameter, inner.number): inner.jaxpr for inner in inner_jaxprs(eqn)}
        jaxpr = inside[str(path[i + 1]), int(path[i + 2])]
    return tuple(lengths)


def _walk_inside(eqn: core.JaxprEqn, path: Path) -> Iterator[tuple[Path, core.JaxprEqn]]:
    for inner in inner_jaxprs(eqn):
        yield from walk(inner.jaxpr, (*path, inner.parameter, inner.number))


class _Plan(NamedTuple):
    """Handlers, values to read and rows by path, and the paths of all equations around one of them."""

    handlers: Mapping[Path, Callable[..., Sequence[Any]]]
    reads: frozenset[Path]
    around: frozenset[Path]
    rows: Rows

    def evaluate(
        self, jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any], path: Path
    ) -> tuple[list[Any], Captured]:
        """The results of a jaxpr at a path, and the values to read inside."""
        captured: Captured = {}
        indices = itertools.count()

        def apply(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
            place = (*path, next(indices))
            if place in self.handlers:
                row = (self.rows[place],) if place in self.rows else ()
                results = self.handlers[place](eqn, operands, *row)
            elif place in self.around:
                results, inside = self._enter(eqn, operands, place)
                captured.update(inside)
            else:
                results = bind(eqn, operands)
            if place in self.reads:
                captured[place] = results[0]
            return results

        return evaluate(jaxpr, consts, inputs, apply), captured

    def _enter(
        self, eqn: core.JaxprEqn, operands: Sequence[Any], place: Path
    ) -> tuple[Sequence[Any], Captured]:
        kind, params = eqn.primitive.name, eqn.params
        bodies: dict[tuple[str, int], Body] = {
            (inner.parameter, inner.number): lambda *inputs, inner=inner, rows=self.rows: self._replace(
                rows=rows
            ).evaluate(inner.jaxpr, inner.consts, inputs, (*place, inner.parameter, inner.number))
            for inner in inner_jaxprs(eqn)
        }
        body = next(iter(bodies.values()))
        if kind in CALLS:
            return body(*operands)
        if kind in CUSTOM:
            outputs, captured = body(*operands)
            # Where nothing changes, the custom derivative stays; the compiler removes the duplicate work.
            return (outputs if self.handlers else bind(eqn, operands)), captured
        if kind in REMAT:
            options = {key: params[key] for key in ("policy", "prevent_cse")}
            return jax.checkpoint(body, **options)(*operands)
        if kind == "scan":
            inside = {path: row for path, row in self.rows.items() if path[: len(place)] == place}
            return run_scan(params, body, operands, inside)
        if kind in CONTROL:
            if not self.handlers:  # no value leaves a branch or a loop of unknown length
                return bind(eqn, operands), {}
            if kind == "cond":
                return _cond(list(bodies.values()), operands), {}
            return _while(params, bodies["cond_jaxpr", 0], bodies["body_jaxpr", 0], operands), {}
        names = {_label(e) for path, e in _walk_inside(eqn, place) if path in {*self.handlers, *self.reads}}
        raise NotImplementedError(
            f"the primitive {kind!r} cannot be traced into, and contains {', '.join(sorted(names))}"
        )


def _label(eqn: core.JaxprEqn) -> str:
    return repr(eqn.params["name"] if eqn.primitive.name in NAMES else called(eqn)[0])


def scan_parts(params: Mapping[str, Any], operands: Sequence[Any]) -> list[list[Any]]:
    """The operands of a scan: constants, initial carry, and rows."""
    if "num_consts" in params:  # JAX before 0.11
        n_consts, n_carry = params["num_consts"], params["num_carry"]
    else:
        n_consts, n_carry = (len(list(part)) for part in params["ft_in"].unpack()[:2])
    end = n_consts + n_carry
    return [list(operands[:n_consts]), list(operands[n_consts:end]), list(operands[end:])]


def run_scan(
    params: Mapping[str, Any], body: Body, operands: Sequence[Any], inside: Rows
) -> tuple[list[Any], Captured]:
    """A scan with another body, which also gets the row of each value of `inside`."""
    consts, carry, rows = scan_parts(params, operands)

    def step(carry: list[Any], row: tuple[list[Any], Rows]) -> tuple[list[Any], Any]:
        outputs, captured = body(*consts, *carry, *row[0], rows=row[1])
        return outputs[: len(carry)], (outputs[len(carry) :], captured)

    options = {key: params[key] for key in ("length", "reverse", "unroll")}
    carry, (outputs, captured) = lax.scan(step, carry, (rows, inside), **options)
    return [*carry, *outputs], captured


def _cond(branches: Sequence[Body], operands: Sequence[Any]) -> list[Any]:
    index, *values = operands
    return lax.switch(index, [lambda *args, b=branch: b(*args)[0] for branch in branches], *values)


def _while(params: Mapping[str, Any], condition: Body, body: Body, operands: Sequence[Any]) -> list[Any]:
    start, end = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, carry = operands[:start], operands[start:end], operands[end:]
    return lax.while_loop(
        lambda carry: condition(*of_condition, *carry)[0][0],
        lambda carry: body(*of_body, *carry)[0],
        list(carry),
    )
