"""A function as a straight line of steps, to be walked backwards by a table of rules.

`jax.grad` has one rule for each operation. Guided backpropagation, DeepLIFT and LRP have others. Here a
function's jaxpr is laid flat (calls entered, scans unrolled) and cut into steps: what depends on the input,
an operation a step, but for elementwise functions of one value, which are one step however they are
written: a GELU is some eight operations and one function. `backward` then walks the steps from the output to
the input, and asks a rule at each.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._rewrite import Traced, bind, trace

Run = dict[Any, Any]  # the value of each variable

# Of one operand that depends on the input, all others being constant.
_LINEAR_ELEMENTWISE = {
    "add",
    "add_any",
    "sub",
    "neg",
    "mul",
    "copy",
    "copy_p",
    "name",
    "reduce_precision",
    "real",
}
_LINEAR = {
    "reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "dynamic_slice",
    "concatenate", "stack", "unstack", "pad", "rev", "reduce_sum", "cumsum", "gather", "scatter",
    "scatter-add", "dot_general", "conv_general_dilated", "reduce_window_sum", "dynamic_update_slice",
    "split", "select_and_gather_add", "sharding_constraint", "optimization_barrier",
}  # fmt: skip
_ELEMENTWISE = _LINEAR_ELEMENTWISE | {
    "abs", "sign", "floor", "ceil", "round", "is_finite", "exp", "exp2", "log", "expm1", "log1p", "tanh",
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "logistic", "erf",
    "erfc", "erf_inv", "lgamma", "digamma", "rsqrt", "sqrt", "cbrt", "integer_pow", "pow", "square", "max",
    "min", "div", "rem", "atan2", "nextafter", "select_n", "clamp", "eq", "ne", "lt", "le", "gt", "ge", "and",
    "or", "not", "xor", "convert_element_type",
}  # fmt: skip
_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr"}
_CUSTOM = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


class Step(NamedTuple):
    """A step from some values that depend on the input to others.

    Attributes:
        name: of the primitive; of the last one, where the step is an elementwise function of several.
        kind: "linear" (affine in its inputs), "elementwise" (of one input, not affine), or "other".
        inputs: variables that depend on the function's input, each once.
        outputs: variables.
        equations: what it does; `params` of the first say how.
        call: `call(*inputs) -> list of outputs`, its constants bound.
        closed: whether its constants are literals, so that it is known while tracing.
    """

    name: str
    kind: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    equations: tuple[core.JaxprEqn, ...]
    call: Callable[..., list[Any]]
    closed: bool


class Graph(NamedTuple):
    """A function of the leaves of its arguments, in steps.

    Attributes:
        steps: in the order of computation; only those that lead to a result.
        inputs: a variable a leaf.
        outputs: a variable a leaf of the result, or a literal.
        constants: the values that do not depend on the input.
        structure: of the result.
    """

    steps: tuple[Step, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    constants: Run
    structure: Any

    def run(self, *inputs: Any) -> Run:
        """The value of each variable, from the leaves of an input."""
        values = dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            values.update(zip(step.outputs, step.call(*(values[v] for v in step.inputs)), strict=True))
        return values

    def results(self, run: Run) -> list[Any]:
        """The leaves of the result, from a run."""
        return [_read(v, self.constants, run) for v in self.outputs]


def graph(function: Callable[..., Any], *args: Any, keep_custom: bool = False) -> Graph:
    """Lay a function flat and cut it into steps.

    Args:
        function: of arrays or pytrees; what it closes over is constant.
        args: where to trace it.
        keep_custom: whether a function with a custom derivative is one operation, to be derived by that
            derivative, or is entered.
    """
    traced = _flat(function, args, keep_custom)
    jaxpr = traced.jaxpr.jaxpr
    depends = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(v in depends for v in eqn.invars if not isinstance(v, core.Literal)):
            depends.update(eqn.outvars)
    literals, constants = _constants(traced.jaxpr, depends)
    regions = _Regions(jaxpr, depends)
    made_by = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.outvars}
    steps: dict[Any, tuple[int, Step]] = {}
    needed = [v for v in jaxpr.outvars if not isinstance(v, core.Literal) and v in depends]
    while needed:
        v = needed.pop()
        if v in jaxpr.invars:
            continue
        index = made_by[v]
        root = regions.root(v)
        key = v if root is not None else index
        if key not in steps:
            eqns = regions.slice(v, root) if root is not None else (jaxpr.eqns[index],)
            step = _step(eqns, v if root is not None else None, root, depends, literals, constants)
            steps[key] = (index, step)
            needed.extend(step.inputs)
    ordered = tuple(step for _, step in sorted(steps.values(), key=lambda each: each[0]))
    return Graph(ordered, tuple(jaxpr.invars), tuple(jaxpr.outvars), constants | literals, traced.structure)


Rule = Callable[..., Sequence[Any]]  # (step, cotangents, *runs) -> a cotangent for each of the step's inputs


def backward(line: Graph, rule: Rule, cotangents: Sequence[Any], *runs: Run) -> list[Any]:
    """Walk back from cotangents of the results to those of the inputs, by a rule for each step.

    Args:
        line: the function.
        rule: `rule(step, cotangents, *runs) -> cotangents of step.inputs`; None for none.
        cotangents: one a result.
        runs: the values that the rule may look at, from `Graph.run`.
    """
    held: Run = {}

    def add(variables: Sequence[Any], given: Sequence[Any]) -> None:
        for v, cotangent in zip(variables, given, strict=True):
            if (
                cotangent is not None
                and cotangent.dtype != jax.dtypes.float0
                and not isinstance(v, core.Literal)
            ):
                held[v] = held[v] + cotangent if v in held else cotangent

    add(line.outputs, cotangents)
    for step in reversed(line.steps):
        if not any(v in held for v in step.outputs):
            continue
        outgoing = [held[v] if v in held else jnp.zeros(v.aval.shape, v.aval.dtype) for v in step.outputs]
        add(step.inputs, rule(step, outgoing, *runs))
    return [held[v] if v in held else jnp.zeros(v.aval.shape, v.aval.dtype) for v in line.inputs]


def gradient(step: Step, cotangents: Sequence[Any], run: Run) -> Sequence[Any]:
    """The rule of `jax.grad`."""
    _, pull = jax.vjp(step.call, *(run[v] for v in step.inputs))
    return pull(list(cotangents))


def _flat(function: Callable[..., Any], args: Sequence[Any], keep_custom: bool) -> Traced:
    first = trace(function, *args)
    entered = _CALLS if keep_custom else _CALLS | _CUSTOM

    def evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        values: Run = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
        for eqn in jaxpr.eqns:
            read = [_read(v, values) for v in eqn.invars]
            kind = eqn.primitive.name
            if kind in entered:
                answers = inner(eqn.params[entered[kind]], read)
            elif kind == "scan":
                answers = unrolled(eqn.params, read)
            else:
                answers = list(bind(eqn, read))
            values.update(zip(eqn.outvars, answers, strict=True))
        return [_read(v, values) for v in jaxpr.outvars]

    def inner(held: Any, values: Sequence[Any]) -> list[Any]:
        closed = isinstance(held, core.ClosedJaxpr)
        return evaluate(held.jaxpr if closed else held, held.consts if closed else (), values)

    def unrolled(params: Any, values: Sequence[Any]) -> list[Any]:
        n_consts, n_carry, length = params["num_consts"], params["num_carry"], params["length"]
        consts, carry, rows = (
            values[:n_consts],
            values[n_consts : n_consts + n_carry],
            values[n_consts + n_carry :],
        )
        order = range(length)[::-1] if params["reverse"] else range(length)
        written: dict[int, Any] = {}
        for i in order:
            answers = inner(params["jaxpr"], [*consts, *carry, *(row[i] for row in rows)])
            carry, written[i] = answers[:n_carry], answers[n_carry:]
        stacked = [jnp.stack(column) for column in zip(*(written[i] for i in range(length)), strict=True)]
        return [*carry, *stacked]

    flat = jax.make_jaxpr(lambda *inputs: inner(first.jaxpr, inputs))(*first.inputs)
    return Traced(flat, first.inputs, first.structure)


def _read(v: Any, *runs: Run) -> Any:
    return v.val if isinstance(v, core.Literal) else next(run[v] for run in runs if v in run)


def _constants(jaxpr: core.ClosedJaxpr, depends: set[Any]) -> tuple[Run, Run]:
    """The values that do not depend on the input: those made of literals alone, and the rest."""
    literals: Run = {}
    rest: Run = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    for eqn in jaxpr.eqns:
        if any(v in depends for v in eqn.outvars):
            continue
        read = [v for v in eqn.invars if not isinstance(v, core.Literal)]
        if all(v in literals for v in read) and not eqn.effects:
            with jax.ensure_compile_time_eval():
                literals.update(
                    zip(eqn.outvars, bind(eqn, [_read(v, literals) for v in eqn.invars]), strict=True)
                )
        else:
            answers = bind(eqn, [_read(v, literals, rest) for v in eqn.invars])
            rest.update(zip(eqn.outvars, answers, strict=True))
    return literals, rest


class _Regions:
    """Which variables are elementwise functions of one other: the nearest such, their root.

    In the graph of elementwise operations the root of a variable is its immediate dominator: whatever way
    leads to the variable passes it.
    """

    def __init__(self, jaxpr: core.Jaxpr, depends: set[Any]):
        self._made_by: dict[Any, core.JaxprEqn] = {}
        self._chains: dict[Any, tuple[Any, ...]] = {}  # what a variable is a function of, the nearest last
        self._depends = depends
        for eqn in jaxpr.eqns:
            read = self._read(eqn)
            if not read or not _is_elementwise(eqn, read):
                continue
            chains = [(*self._chains.get(v, ()), v) for v in read]
            shared = [v for v in chains[0] if all(v in chain for chain in chains)]
            (made,) = eqn.outvars
            self._made_by[made] = eqn
            if shared:
                self._chains[made] = tuple(shared)

    def root(self, v: Any) -> Any:
        """The variable that `v` is an elementwise function of, or None."""
        return self._chains[v][-1] if v in self._chains else None

    def slice(self, v: Any, root: Any) -> tuple[core.JaxprEqn, ...]:
        """The operations from the root to the variable, in order."""
        found: dict[Any, core.JaxprEqn] = {}

        def visit(v: Any) -> None:
            if v is root or v in found:
                return
            for read in self._read(self._made_by[v]):
                visit(read)
            found[v] = self._made_by[v]

        visit(v)
        return tuple(found.values())

    def _read(self, eqn: core.JaxprEqn) -> list[Any]:
        """The variables that an equation reads and that depend on the input, each once."""
        return list(
            dict.fromkeys(v for v in eqn.invars if not isinstance(v, core.Literal) and v in self._depends)
        )


def _aval(v: Any) -> Any:
    return v.aval


def _is_elementwise(eqn: core.JaxprEqn, read: Sequence[Any]) -> bool:
    if len(eqn.outvars) != 1:
        return False
    shape = _aval(eqn.outvars[0]).shape
    known = eqn.primitive.name in _ELEMENTWISE
    if eqn.primitive.name in _CUSTOM:
        # Kept whole for the sake of its derivative; a function of one value if all inside is.
        inside = eqn.params["call_jaxpr"].jaxpr
        known = len(read) == 1 and _all_elementwise(inside)
    return known and all(_aval(v).shape == shape for v in read)


def _all_elementwise(jaxpr: core.Jaxpr) -> bool:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _CALLS | _CUSTOM:
            held = eqn.params[(_CALLS | _CUSTOM)[eqn.primitive.name]]
            if not _all_elementwise(held.jaxpr if isinstance(held, core.ClosedJaxpr) else held):
                return False
        elif eqn.primitive.name not in _ELEMENTWISE | {"broadcast_in_dim"}:
            return False
    return True


def _step(
    eqns: tuple[core.JaxprEqn, ...], made: Any, root: Any, depends: set[Any], literals: Run, constants: Run
) -> Step:
    last = eqns[-1]
    outputs = tuple(last.outvars) if made is None else (made,)
    read = [v for eqn in eqns for v in eqn.invars if not isinstance(v, core.Literal)]
    inputs = (root,) if root is not None else tuple(dict.fromkeys(v for v in read if v in depends))

    def call(*values: Any) -> list[Any]:
        run = dict(zip(inputs, values, strict=True))
        for eqn in eqns:
            answers = bind(eqn, [_read(v, run, literals, constants) for v in eqn.invars])
            run.update(zip(eqn.outvars, answers, strict=True))
        return [run[v] for v in outputs]

    if all(is_affine(eqn, depends) for eqn in eqns):
        kind = "linear"
    else:
        kind = "elementwise" if root is not None else "other"
    closed = not any(v in constants for v in read)
    return Step(last.primitive.name, kind, inputs, outputs, eqns, call, closed)


def is_affine(eqn: core.JaxprEqn, depends: set[Any]) -> bool:
    """Whether an operation is affine in all that depends on the input, taken together."""
    name = eqn.primitive.name
    moving = [not isinstance(v, core.Literal) and v in depends for v in eqn.invars]
    if name in ("add", "add_any", "sub", "concatenate", "stack", "optimization_barrier"):
        return True
    if name == "div":
        return not moving[1]
    if name == "select_n":
        return not moving[0]
    if name == "convert_element_type":
        return all(jnp.issubdtype(_aval(v).dtype, jnp.inexact) for v in (*eqn.invars, *eqn.outvars))
    if name in ("gather", "dynamic_slice"):
        return not any(moving[1:])
    if name in ("scatter", "scatter-add"):
        return not moving[1]
    if name == "dynamic_update_slice":
        return not any(moving[2:])
    if name == "pad":
        return True
    return sum(moving) == 1 and name in _LINEAR | _LINEAR_ELEMENTWISE


def is_relu(step: Step) -> bool:
    """Whether a step is max(x, 0), however it is written: found by trying it, while tracing.

    At 0 it may have either slope; all that counts is that it gives back what is positive, and 0 for the rest.
    """
    if step.kind != "elementwise" or not step.closed:
        return False
    (root,) = step.inputs
    if not jnp.issubdtype(root.aval.dtype, jnp.floating):
        return False
    with jax.ensure_compile_time_eval():
        for probe in (-1e4, -3.0, -0.7, -1e-3, 0.0, 1e-3, 0.3, 1.0, 5.9, 6.1, 1e4):
            (answer,) = step.call(jnp.full(root.aval.shape, probe, root.aval.dtype))
            if not bool(jnp.all(answer == jnp.full(root.aval.shape, max(probe, 0.0), root.aval.dtype))):
                return False
    return True
