"""Evaluate a jaxpr equation by equation, asking at each whether something else is to stand there.

A jaxpr is a list of equations over primitives, some of which hold further jaxprs: jit, custom derivatives,
remat, scan, cond and while. Those are entered where something inside is asked for, and left alone otherwise,
so that all else stays as it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
from jax import lax
from jax.extend import core

Path = tuple[Any, ...]  # where an equation stands: its index, and that of each equation around it
Captured = dict[Path, jax.Array]
Evaluated = tuple[list[Any], Captured]


class Traced(NamedTuple):
    """A function's jaxpr on the leaves of its arguments, and the structure of its result."""

    jaxpr: core.ClosedJaxpr
    inputs: list[Any]
    structure: Any

    def evaluate(self, plan: "Plan") -> tuple[Any, Captured]:
        """The result, and the value at each name that the plan wants."""
        outputs, captured = _evaluate(self.jaxpr.jaxpr, self.jaxpr.consts, self.inputs, plan, ())
        return jax.tree.unflatten(self.structure, outputs), captured


def trace(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Traced:
    """Trace a function; what it closes over becomes constants of the jaxpr."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
    return Traced(jaxpr, jax.tree.leaves((args, kwargs)), jax.tree.structure(shapes))


class Plan(NamedTuple):
    """What an evaluation does otherwise than the function.

    Attributes:
        wanted: `wanted(equation, path)`, whether this one is meant; whatever holds such a one is entered.
        handler: `handler(equation, path, values)`, the results that are to stand there, or None for the
            equation's own. None where nothing is changed, and values are only read.
    """

    wanted: Callable[[core.JaxprEqn, Path], bool]
    handler: Callable[[core.JaxprEqn, Path, Sequence[Any]], Sequence[Any] | None] | None = None


def called(eqn: core.JaxprEqn) -> tuple[str, ...]:
    """The names that an equation goes by: that of the function it calls, if any, and its primitive's."""
    kind = eqn.primitive.name
    if kind == "jit":
        return (str(eqn.params["name"]), kind)
    if kind in ("custom_jvp_call", "custom_vjp_call"):
        return (str(eqn.params["call_jaxpr"].jaxpr.debug_info.func_name), kind)
    return (kind,)


def walk(jaxpr: core.Jaxpr, path: Path = ()) -> Iterator[tuple[Path, core.JaxprEqn]]:
    """Every equation with its place, in the order of evaluation."""
    for index, eqn in enumerate(jaxpr.eqns):
        yield (*path, index), eqn
        yield from _walk_inside(eqn, (*path, index))


def _walk_inside(eqn: core.JaxprEqn, path: Path) -> Iterator[tuple[Path, core.JaxprEqn]]:
    for key, value in eqn.params.items():
        for i, each in enumerate(value if isinstance(value, tuple | list) else (value,)):
            if isinstance(each, core.ClosedJaxpr):
                yield from walk(each.jaxpr, (*path, key, i))
            elif isinstance(each, core.Jaxpr):
                yield from walk(each, (*path, key, i))


def bind(eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Do what an equation does, with other values; a sequence of results, also of one."""
    with eqn.ctx.manager:
        answer = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return answer if eqn.primitive.multiple_results else [answer]


def _evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any], plan: Plan, path: Path
) -> Evaluated:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
    captured: Captured = {}
    for index, eqn in enumerate(jaxpr.eqns):
        place = (*path, index)
        read = [v.val if isinstance(v, core.Literal) else values[v] for v in eqn.invars]
        answers = None if plan.handler is None else plan.handler(eqn, place, read)
        if answers is None:
            if any(plan.wanted(inner, where) for where, inner in _walk_inside(eqn, place)):
                answers, more = _enter(eqn, read, plan, place)
                captured |= more
            else:
                answers = bind(eqn, read)
        if eqn.primitive.name == "name" and plan.wanted(eqn, place):
            captured[place] = answers[0]
        values.update(zip(eqn.outvars, answers, strict=True))
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars], captured


_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr"}
_CUSTOM = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def _enter(eqn: core.JaxprEqn, values: Sequence[Any], plan: Plan, path: Path) -> Evaluated:
    """Evaluate an equation that holds others."""
    kind, params = eqn.primitive.name, eqn.params

    def inside(key: str, number: int = 0) -> Callable[..., Evaluated]:
        held = params[key][number] if isinstance(params[key], tuple | list) else params[key]
        jaxpr, consts = (held.jaxpr, held.consts) if isinstance(held, core.ClosedJaxpr) else (held, ())
        return lambda *inputs: _evaluate(jaxpr, consts, inputs, plan, (*path, key, number))

    if kind in _CALLS:
        return inside(_CALLS[kind])(*values)
    if kind in _CUSTOM:
        outputs, captured = inside(_CUSTOM[kind])(*values)
        # Where nothing is changed the custom derivative holds; the compiler sees the same work done twice.
        return (outputs if plan.handler else list(bind(eqn, values))), captured
    if kind in ("remat2", "remat", "checkpoint"):
        return _again(params, inside("jaxpr"), values)
    if kind == "scan":
        return _scan(params, inside("jaxpr"), values)
    if kind in ("cond", "while"):
        if plan.handler is None:  # nothing that is made in there gets out
            return list(bind(eqn, values)), {}
        enter = _cond if kind == "cond" else _while
        return enter(params, inside, values), {}
    held = {_shown(e) for where, e in _walk_inside(eqn, path) if plan.wanted(e, where)}
    raise NotImplementedError(
        f"the primitive {kind!r} cannot be entered, and holds {', '.join(sorted(held))}"
    )


def _shown(eqn: core.JaxprEqn) -> str:
    return repr(eqn.params["name"] if eqn.primitive.name == "name" else called(eqn)[0])


def _again(params: Mapping[str, Any], body: Callable[..., Evaluated], values: Sequence[Any]) -> Evaluated:
    def keyed(*values: Any) -> tuple[list[Any], StaticKeyDict]:
        outputs, captured = body(*values)
        return outputs, StaticKeyDict.from_dict(captured)

    options = {key: params[key] for key in ("policy", "prevent_cse")}
    outputs, captured = jax.checkpoint(keyed, **options)(*values)
    return outputs, captured.to_dict()


def scan_sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many constants a scan has, and how many values it carries: they come first, in this order."""
    if "num_consts" in params:  # JAX before 0.11
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(list(consts)), len(list(carry))


def _scan(params: Mapping[str, Any], body: Callable[..., Evaluated], values: Sequence[Any]) -> Evaluated:
    n_consts, n_carry = scan_sizes(params)
    consts, carry = values[:n_consts], values[n_consts : n_consts + n_carry]
    rows = values[n_consts + n_carry :]

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        outputs, captured = body(*consts, *carry, *row)
        return outputs[:n_carry], (outputs[n_carry:], StaticKeyDict.from_dict(captured))

    options = {key: params[key] for key in ("length", "reverse", "unroll")}
    carry, (outputs, captured) = lax.scan(step, list(carry), list(rows), **options)
    return [*carry, *outputs], captured.to_dict()


def _cond(params: Mapping[str, Any], inside: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
    index, *operands = values
    branches = [inside("branches", i) for i in range(len(params["branches"]))]
    return lax.switch(index, [lambda *args, b=branch: b(*args)[0] for branch in branches], *operands)


def _while(params: Mapping[str, Any], inside: Callable[..., Any], values: Sequence[Any]) -> list[Any]:
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    asked, done, carry = values[:n_cond], values[n_cond : n_cond + n_body], values[n_cond + n_body :]
    condition, body = inside("cond_jaxpr"), inside("body_jaxpr")
    return lax.while_loop(
        lambda carry: condition(*asked, *carry)[0][0], lambda carry: body(*done, *carry)[0], list(carry)
    )


@flax.struct.dataclass
class StaticKeyDict:
    """A dictionary as a pytree that keeps its order, with keys of any kind: for scan and jit."""

    values: tuple[Any, ...]
    keys: tuple[Any, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def from_dict(cls, entries: dict[Any, Any]) -> "StaticKeyDict":
        """Its entries, to be read back with `to_dict`."""
        return cls(tuple(entries.values()), tuple(entries))

    def to_dict(self) -> dict[Any, Any]:
        """The dictionary."""
        return dict(zip(self.keys, self.values, strict=True))
