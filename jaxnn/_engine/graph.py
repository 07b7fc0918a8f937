"""A function as a straight line of steps, to be walked backwards by a table of rules.

`jax.grad` has one rule for each operation. Guided backpropagation, DeepLIFT and LRP have others. Here a
function's jaxpr is laid flat (calls entered, scans unrolled) and cut into steps: what depends on the input,
an operation a step, but for elementwise functions of one value, which are one step however they are
written: a GELU is some eight operations and one function. `backward` then walks the steps from the output to
the input, and asks a rule at each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn._checks import is_concrete
from jaxnn._engine.inline import flat, read_in
from jaxnn._engine.jaxpr import bind
from jaxnn._engine.primitives import is_affine, is_elementwise, is_real

Run = dict[Any, Any]  # the value of each variable
Rule = Callable[..., Sequence[Any]]  # (step, cotangents, *runs) -> a cotangent for each of the step's inputs


class Step(NamedTuple):
    """A step from some values that depend on the input to others.

    Attributes:
        name: of the primitive; of the last one, where the step is an elementwise function of several.
        kind: "linear" (affine in its inputs), "elementwise" (of one input, not affine), or "other".
        inputs: variables that depend on the function's input, each once.
        outputs: variables.
        equations: what it does; `params` of the first say how.
        call: `call(*inputs) -> list of outputs`, its constants bound.
        closed: whether its constants are known while tracing.
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
        known: the values that do not depend on the input and are known while tracing: what is made of
            literals, and of closed-over arrays of one number.
        constants: the others that do not depend on the input, such as weights.
        structure: of the result.
    """

    steps: tuple[Step, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    known: Run
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
        return [self.read(v, run) for v in self.outputs]

    def read(self, v: Any, run: Mapping[Any, Any]) -> Any:
        """The value of anything that an equation reads: a variable of the run, a constant or a literal."""
        return read_in(v, run, self.known, self.constants)

    def made_by(self) -> dict[Any, Step]:
        """The step that makes each variable."""
        return {v: step for step in self.steps for v in step.outputs}

    def uses(self) -> dict[Any, int]:
        """How many steps, and results, read each variable."""
        counts: dict[Any, int] = {}
        for v in (*(v for step in self.steps for v in step.inputs), *self.outputs):
            if not isinstance(v, core.Literal):
                counts[v] = counts.get(v, 0) + 1
        return counts


def graph(function: Callable[..., Any], *args: Any, keep_custom: bool = False) -> Graph:
    """Lay a function flat and cut it into steps.

    Args:
        function: of arrays or pytrees; what it closes over is constant.
        args: where to trace it, arrays or their shapes.
        keep_custom: whether a function with a custom derivative is one operation, to be derived by that
            derivative, or is entered.
    """
    traced = flat(function, args, keep_custom)
    jaxpr = traced.jaxpr.jaxpr
    depends = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(v in depends for v in eqn.invars if not isinstance(v, core.Literal)):
            depends.update(eqn.outvars)
    maker = _Maker(depends, *_constants(jaxpr, traced.jaxpr.consts, depends))
    regions = _Regions(jaxpr, maker)
    position = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.outvars}
    steps: dict[Any, tuple[int, Step]] = {}
    needed = [v for v in jaxpr.outvars if not isinstance(v, core.Literal) and v in depends]
    while needed:
        v = needed.pop()
        if v not in position:  # an input
            continue
        key = v if regions.root(v) is not None else position[v]
        if key not in steps:
            step = regions.step(v) or maker.step((jaxpr.eqns[position[v]],))
            steps[key] = (position[v], step)
            needed.extend(step.inputs)
    ordered = tuple(step for _, step in sorted(steps.values(), key=lambda each: each[0]))
    return Graph(
        ordered, tuple(jaxpr.invars), tuple(jaxpr.outvars), maker.known, maker.constants, traced.structure
    )


def backward(line: Graph, rule: Rule, cotangents: Sequence[Any], *runs: Run) -> list[Any]:
    """Walk back from cotangents of the results to those of the inputs, by a rule for each step.

    Args:
        line: the function.
        rule: `rule(step, cotangents, *runs) -> cotangents of step.inputs`; None for none.
        cotangents: one a result.
        runs: the values that the rule may look at, from `Graph.run`; at least one.
    """
    held: Run = {}

    def add(variables: Sequence[Any], given: Sequence[Any]) -> None:
        for v, cotangent in zip(variables, given, strict=True):
            if cotangent is None or cotangent.dtype == jax.dtypes.float0 or isinstance(v, core.Literal):
                continue
            held[v] = held[v] + cotangent if v in held else cotangent

    def read(v: Any) -> Any:
        if v in held:
            return held[v]
        return jnp.zeros_like(runs[0][v]) if is_real(v) else np.zeros(v.aval.shape, jax.dtypes.float0)

    add(line.outputs, cotangents)
    for step in reversed(line.steps):
        if any(v in held for v in step.outputs):
            add(step.inputs, rule(step, [read(v) for v in step.outputs], *runs))
    return [read(v) for v in line.inputs]


def gradient(step: Step, cotangents: Sequence[Any], run: Run, *_: Run) -> Sequence[Any]:
    """The rule of `jax.grad`."""
    call: Callable[..., Any] = step.call
    _, pull = jax.vjp(call, *(run[v] for v in step.inputs))
    return pull(list(cotangents))


def refuse(method: str, step: Step, why: str = "") -> NotImplementedError:
    """The error for a step that a method has no sound rule for."""
    names = dict.fromkeys(eqn.primitive.name for eqn in step.equations)
    reason = f": {why}" if why else ""
    return NotImplementedError(
        f"{method} has no rule for the primitive {', '.join(map(repr, names))}{reason}"
    )


def summed_to(value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The sum over the axes along which an operand of that shape was repeated."""
    if not shape:
        return jnp.sum(value)
    repeated = [i for i, (n, size) in enumerate(zip(shape, value.shape, strict=True)) if n != size]
    return jnp.sum(value, axis=repeated, keepdims=True) if repeated else value


def _constants(jaxpr: core.Jaxpr, consts: Sequence[Any], depends: set[Any]) -> tuple[Run, Run]:
    """The values that do not depend on the input: those made of numbers alone, and the rest."""
    known: Run = {}
    rest: Run = {}
    for v, value in zip(jaxpr.constvars, consts, strict=True):
        (known if _is_one_number(value) else rest)[v] = value
    for eqn in jaxpr.eqns:
        if any(v in depends for v in eqn.outvars):
            continue
        read = [v for v in eqn.invars if not isinstance(v, core.Literal)]
        # What varies over a mesh cannot be computed while tracing.
        here = not eqn.effects and eqn.primitive.name != "pvary"
        if here and all(v in known for v in read):
            with jax.ensure_compile_time_eval():
                known.update(
                    zip(eqn.outvars, bind(eqn, [read_in(v, known) for v in eqn.invars]), strict=True)
                )
        else:
            answers = bind(eqn, [read_in(v, known, rest) for v in eqn.invars])
            rest.update(zip(eqn.outvars, answers, strict=True))
    return known, rest


def _is_one_number(value: Any) -> bool:
    """Whether an array that a function closes over holds one number, as the zeros of a relu may."""
    if not is_concrete(value) or not jnp.issubdtype(value.dtype, jnp.number) or value.size == 0:
        return False
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return False
    with jax.ensure_compile_time_eval():
        head = np.ravel(np.asarray(value[(0,) * (value.ndim - 1)])[:8]) if value.ndim else np.ravel(value)
        # Nearly all weights are told apart by a few of them.
        return bool((head == head[0]).all()) and bool((np.asarray(value) == head[0]).all())


class _Maker(NamedTuple):
    """Makes steps of equations."""

    depends: set[Any]
    known: Run
    constants: Run

    def reads(self, eqn: core.JaxprEqn) -> list[Any]:
        """The variables that an equation reads and that depend on the input, each once."""
        moving = [v for v in eqn.invars if not isinstance(v, core.Literal) and v in self.depends]
        return list(dict.fromkeys(moving))

    def step(self, eqns: tuple[core.JaxprEqn, ...], root: Any = None) -> Step:
        """One equation as a step; or several that make an elementwise function of one root."""
        last = eqns[-1]
        inputs = tuple(self.reads(last)) if root is None else (root,)
        outputs = tuple(last.outvars)

        def call(*values: Any) -> list[Any]:
            run = dict(zip(inputs, values, strict=True))
            for eqn in eqns:
                answers = bind(eqn, [read_in(v, run, self.known, self.constants) for v in eqn.invars])
                run.update(zip(eqn.outvars, answers, strict=True))
            return [run[v] for v in outputs]

        if all(is_affine(eqn, self.depends) for eqn in eqns):
            kind = "linear"
        else:
            kind = "elementwise" if root is not None else "other"
        read = [v for eqn in eqns for v in eqn.invars if not isinstance(v, core.Literal)]
        closed = not any(v in self.constants for v in read)
        return Step(last.primitive.name, kind, inputs, outputs, eqns, call, closed)


class _Regions:
    """Which variables are elementwise functions of one other: the nearest such, their root.

    In the graph of elementwise operations the root of a variable is its immediate dominator: whatever way
    leads to the variable passes it.
    """

    def __init__(self, jaxpr: core.Jaxpr, maker: _Maker):
        self._maker = maker
        self._made_by: dict[Any, core.JaxprEqn] = {}
        self._chains: dict[Any, tuple[Any, ...]] = {}  # what a variable is a function of, the nearest last
        for eqn in jaxpr.eqns:
            read = maker.reads(eqn)
            if not read or not is_elementwise(eqn, read):
                continue
            chains = [(*self._chains.get(v, ()), v) for v in read]
            shared = [v for v in chains[0] if is_real(v) and all(v in chain for chain in chains)]
            if not shared:
                continue
            (made,) = eqn.outvars
            self._made_by[made] = eqn
            self._chains[made] = tuple(shared)

    def root(self, v: Any) -> Any:
        """The variable that `v` is an elementwise function of, or None."""
        return self._chains[v][-1] if v in self._chains else None

    def step(self, v: Any) -> Step | None:
        """The step from its root to a variable, or None where it has no root."""
        if v not in self._chains:
            return None
        root = self._chains[v][-1]
        found: dict[Any, core.JaxprEqn] = {}
        waiting = [v]
        while waiting:  # no recursion: a region may be as long as a loop that was unrolled
            current = waiting.pop()
            if current in found or current is root:
                continue
            missing = [
                read
                for read in self._maker.reads(self._made_by[current])
                if read is not root and read not in found
            ]
            if missing:
                waiting.extend((current, *missing))
            else:
                found[current] = self._made_by[current]
        return self._maker.step(tuple(found.values()), root)
