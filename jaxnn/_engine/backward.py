"""Walk a graph of steps backwards, from cotangents of the results to those of the inputs, by rules.

The rule at each step is a method's own (`gradient` is that of `jax.grad`): structural ones for steps, and a
registry by primitive. `with_rules` adds those of the caller.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn._engine.graph import Around, Graph, Run, Step
from jaxnn._engine.jaxpr import evaluate, trace, warn_unused
from jaxnn._engine.loops import scan as loop
from jaxnn._engine.primitives import CALLBACKS, NO_GRADIENT, is_inexact, is_primitive, is_real
from jaxnn._engine.scans import Scan

Rule = Callable[..., Sequence[Any]]
"""`rule(step, cotangents, *runs)`: one cotangent per input of the step, or None for zero."""

StaticRules = tuple[tuple[str, Rule], ...]
RuleT = TypeVar("RuleT", bound=Callable[..., Any])


class Plan(NamedTuple):
    """How a method walks a function back.

    Attributes:
        graph: the function, in the steps that the rule is for.
        rule: `rule(step, cotangents, *runs) -> cotangents of step.inputs`; None for zero.
        evaluate: `evaluate(*inputs) -> runs`, from the leaves of one input per run.
        make: `make(function, *args, around=...) -> Plan`, the method's plan of the body of a scan.
        fixed: values that the results do not depend on.
        units: values that are the input, up to units, if the method asks.
        plain: the function before the method joined steps, if it did.
    """

    graph: Graph
    rule: Rule
    evaluate: Callable[..., Sequence[Run]]
    make: Callable[..., "Plan"]
    fixed: frozenset[Any] = frozenset()
    units: frozenset[Any] = frozenset()
    plain: Graph | None = None


def backward(plan: Plan, cotangents: Sequence[Any], *runs: Run) -> list[Any]:
    """Propagate cotangents of the results back to the inputs, by a rule at each step.

    Args:
        plan: of the function.
        cotangents: one per result; None for zero.
        runs: the values that the rule may read, from `plan.evaluate`; at least one.
    """
    sums: Run = {}

    def add(atoms: Sequence[Any], cotangents: Sequence[Any]) -> None:
        for v, cotangent in zip(atoms, cotangents, strict=True):
            if cotangent is None or cotangent.dtype == jax.dtypes.float0 or isinstance(v, core.Literal):
                continue
            cotangent = cotangent.astype(v.aval.dtype)  # a rule may pass it on as it is, in mixed precision
            sums[v] = sums[v] + cotangent if v in sums else cotangent

    def total(v: Any) -> Any:
        if v in sums:
            return sums[v]
        return jnp.zeros_like(runs[0][v]) if is_inexact(v) else np.zeros(v.aval.shape, jax.dtypes.float0)

    add(plan.graph.outputs, cotangents)
    for step in reversed(plan.graph.steps):
        if not any(v in sums for v in step.outputs):
            continue
        if step.scan is None:
            add(step.inputs, plan.rule(step, [total(v) for v in step.outputs], *runs))
        elif not plan.fixed.issuperset(step.outputs):
            given = [sums.get(v) for v in step.scan.equation.outvars]
            add(step.scan.equation.invars, _through(step.scan, plan, given, runs))
    return [total(v) for v in plan.graph.inputs]


def _through(scan: Scan, plan: Plan, cotangents: Sequence[Any], runs: Sequence[Run]) -> list[Any]:
    """The cotangents of the operands of a scan, by a scan over the steps of its body in the other order.

    Args:
        scan: the scan.
        plan: of the function around it.
        cotangents: one per result of the scan; None for zero.
        runs: the values around it.
    """
    operands = [scan.parts([plan.graph.read(v, run) for v in scan.equation.invars]) for run in runs]
    inputs = [
        [*(run[v] for v in scan.saved), *rows] for run, (_, _, rows) in zip(runs, operands, strict=True)
    ]
    zeros = [
        jnp.zeros_like(v) if moves and jnp.issubdtype(v.dtype, jnp.inexact) else None
        for v, moves in zip(map(jnp.asarray, itertools.chain(*operands[0])), scan.moves, strict=True)
    ]
    sums, carry, _ = scan.parts(zeros)
    carry = [z if c is None or z is None else z + c for z, c in zip(carry, cotangents, strict=False)]
    of_outputs = [c if moved else None for c, moved in zip(cotangents, scan.moved, strict=True)][len(carry) :]

    def back(state: tuple[list[Any], list[Any]], row: tuple[list[list[Any]], list[Any]]) -> Any:
        (sums, carry), (inputs, of_outputs) = state, row
        values = [[*consts, *each] for (consts, _, _), each in zip(operands, inputs, strict=True)]
        found = _through_body(scan, plan, [*carry, *of_outputs], values)
        found = [None if zero is None else each for each, zero in zip(found, zeros, strict=True)]
        consts, carry, rows = scan.parts(found)
        return ([a if a is None else a + b for a, b in zip(sums, consts, strict=True)], carry), rows

    params = scan.equation.params
    (sums, carry), rows = loop(
        back, (sums, carry), (inputs, of_outputs), params["length"], reverse=not params["reverse"]
    )
    return [*sums, *carry, *rows]


def _through_body(
    scan: Scan, plan: Plan, cotangents: Sequence[Any], values: Sequence[Sequence[Any]]
) -> list[Any]:
    """The cotangents of the inputs of a scan's body, None for those that do not move.

    Args:
        scan: the scan.
        plan: of the function around it.
        cotangents: one per result of the body; None for zero.
        values: the inputs of the body, per run.
    """
    moving = [i for i, moves in enumerate(scan.moves) if moves]

    def function(*changed: Any) -> list[Any]:
        inputs = dict(enumerate(values[0])) | dict(zip(moving, changed, strict=True))
        return evaluate(scan.body.jaxpr, scan.body.consts, list(inputs.values()))

    consts, carry, rows = scan.parts(scan.equation.invars)
    origins = [*consts, *(None for _ in carry), *rows]
    outer = plan.graph if plan.plain is None else plan.plain
    around = [
        None if origins[i] is None else Around(outer, origins[i], origins[i] in plan.units) for i in moving
    ]
    inner = plan.make(function, *(values[0][i] for i in moving), around=around)
    runs = inner.evaluate(*([each[i] for i in moving] for each in values))
    found = dict(zip(moving, backward(inner, cotangents, *runs), strict=True))
    return [found.get(i) for i in range(len(scan.moves))]


def gradient(step: Step, cotangents: Sequence[Any], run: Run, *_: Run) -> Sequence[Any]:
    """The rule of `jax.grad`."""
    call: Callable[..., Any] = step.call
    _, pull = jax.vjp(call, *(run[v] for v in step.inputs))
    return pull(list(cotangents))


def refuse(method: str, step: Step, why: str = "", rules: Collection[str] = ()) -> NotImplementedError:
    """The error for a step that a method has no sound rule for; `rules` are the primitives that have one."""
    names = dict.fromkeys(eqn.primitive.name for eqn in step.equations)
    if not CALLBACKS.isdisjoint(names):
        return NotImplementedError(f"{method} needs a model that JAX can see; `model` {NO_GRADIENT}")
    reason = f": {why}" if why else ""
    supported = f"; other than affine and elementwise operations it has rules for {', '.join(sorted(rules))}"
    return NotImplementedError(
        f"{method} has no rule for the primitive {', '.join(map(repr, names))}{reason}"
        f"{supported if rules else ''}"
    )


def register(rules: dict[str, RuleT], *primitives: str) -> Callable[[RuleT], RuleT]:
    """A decorator that adds a rule for some primitives to a table."""

    def decorate(rule: RuleT) -> RuleT:
        rules.update(dict.fromkeys(primitives, rule))
        return rule

    return decorate


def check_rules(rules: Mapping[str, Rule] | None, function: Callable[..., Any], x: Any) -> StaticRules:
    """Return a caller's rules by primitive, for a function of `x`, as a static argument; or raise."""
    if rules is None:
        return ()
    if not isinstance(rules, Mapping):
        raise TypeError(f"`primitive_rules` must be a dictionary by primitive; got {type(rules).__name__}")
    for name, rule in rules.items():
        if not callable(rule):
            raise TypeError(f"`primitive_rules[{name!r}]` must be callable; got {type(rule).__name__}")
    if not all(map(is_primitive, rules)):
        warn_unused("primitive_rules", rules, trace(function, x).jaxpr.jaxpr, stacklevel=3)
    return tuple(rules.items())


def with_rules(method: str, rule: Rule, fixed: frozenset[Any], rules: StaticRules) -> Rule:
    """Extend a method's rule: fixed values get nothing, the caller's rules come first, unsound steps raise.

    A method that compares two runs has a chain rule of differences: it passes through linear operations on
    complex numbers.

    Args:
        method: its name, for errors.
        rule: for all steps of real numbers.
        fixed: values that the output does not depend on.
        rules: of the caller, `rule(step, cotangents, *values)` with one tuple of values per run.
    """
    table = dict(rules)

    def apply(step: Step, cotangents: Sequence[Any], *runs: Run) -> Sequence[Any]:
        if fixed.issuperset(step.outputs):
            return [None] * len(step.inputs)
        if len(step.equations) == 1 and step.name in table:
            values = (tuple(run[v] for v in step.inputs) for run in runs)
            results = table[step.name](step, tuple(cotangents), *values)
            shapes = [np.shape(each) for each in results] if isinstance(results, tuple | list) else results
            expected = [v.aval.shape for v in step.inputs]
            if shapes != expected:
                raise ValueError(
                    f"`primitive_rules[{step.name!r}]` must return arrays of shapes {expected}; got {shapes}"
                )
            return [jnp.asarray(each) if np.isscalar(each) else each for each in results]
        numbers = is_inexact if len(runs) == 2 and step.kind == "linear" else is_real
        # Of top_k the first result alone: its indices are held, or refused where they are used.
        if not numbers(*step.inputs, step.outputs[0]):
            why = "its operands or results that depend on the input are not real numbers"
            raise refuse(method, step, why)
        return rule(step, cotangents, *runs)

    return apply


def summed_to(value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum over the axes along which an operand of that shape was broadcast."""
    if not shape:
        return jnp.sum(value)
    repeated = [i for i, (n, size) in enumerate(zip(shape, value.shape, strict=True)) if n != size]
    return jnp.sum(value, axis=repeated, keepdims=True) if repeated else value
