"""A function as a graph of steps, to be walked backwards by rules.

`jax.grad` has one rule per operation. Guided backpropagation, DeepLIFT and LRP have other rules. Here the
calls of a function's jaxpr are inlined, its short scans are unrolled, and the result is cut into steps: one
step per operation that depends on the input. A long scan is one step; see `scans`. An elementwise function
of one value is a single step however it is written: a GELU is some eight operations and one function.
"""

import functools
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn._checks import is_concrete
from jaxnn._engine.inline import inline_calls
from jaxnn._engine.jaxpr import read, run
from jaxnn._engine.primitives import (
    CALLS,
    CUSTOM,
    NAMES,
    REMAT,
    UNROLLED,
    is_affine,
    is_elementwise,
    is_integer,
    is_real,
    variables,
)
from jaxnn._engine.scans import Scan, make_scan

Run = dict[Any, Any]
"""The value of each variable."""


class Step(NamedTuple):
    """A function of some values that depend on the input.

    Attributes:
        name: of the primitive; of the last one in an elementwise function of several.
        kind: "linear" (affine in its inputs), "elementwise" (of one input, not affine), or "other".
        inputs: variables that depend on the function's input, each once.
        outputs: variables.
        equations: the operations; one, or those of an elementwise function.
        call: `call(*inputs) -> list of outputs`, with its constants bound.
        closed: whether its constants are known while tracing.
        scan: the scan that the step is, or None. Its outputs then end with those of `scan.saved`.
    """

    name: str
    kind: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    equations: tuple[core.JaxprEqn, ...]
    call: Callable[..., list[jax.Array]]
    closed: bool
    scan: Scan | None = None

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of its last operation."""
        return self.equations[-1].params


@dataclass(frozen=True, eq=False)
class Graph:
    """A function of the leaves of its arguments, in steps.

    Attributes:
        steps: in the order of computation; only those that lead to a result.
        inputs: one variable per leaf.
        outputs: one variable, or literal, per leaf of the result.
        known: values that do not depend on the input and are known while tracing: computed from literals,
            and from closed-over arrays that repeat one number.
        constants: all other values that do not depend on the input, such as weights.
        sources: the operation that computes each constant.
        structure: of the result.
        around: of the body of a scan, where its inputs come from, carries left out; None outside of scans.
    """

    steps: tuple[Step, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    known: Run
    constants: Run
    sources: Mapping[Any, core.JaxprEqn]
    structure: Any
    around: Mapping[Any, "Around"] | None = None

    def run(self, *inputs: Any, apply: Callable[..., list[Any]] = lambda step, *a: step.call(*a)) -> Run:
        """The value of each variable, from the leaves of an input; `apply(step, *values) -> results`."""
        values = dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            values.update(zip(step.outputs, apply(step, *(values[v] for v in step.inputs)), strict=True))
        return values

    def results(self, run: Run) -> list[Any]:
        """The leaves of the result, from a run."""
        return [self.read(v, run) for v in self.outputs]

    def read(self, v: Any, run: Run) -> Any:
        """The value of an operand: a variable of the run, a constant or a literal."""
        return read(v, ChainMap(run, self.known, self.constants))

    @functools.cached_property
    def made_by(self) -> Mapping[Any, Step]:
        """The step that computes each variable."""
        return {v: step for step in self.steps for v in step.outputs}

    def chain(self, v: Any, *, beyond: bool = False) -> Iterator[Step]:
        """The steps that compute a variable, the last first, up to and with one of several inputs.

        Args:
            v: the variable.
            beyond: whether to go on in the function around the body of a scan.
        """
        while v in self.made_by:
            step = self.made_by[v]
            yield step
            if len(step.inputs) != 1:
                return
            (v,) = step.inputs
        if beyond and self.around is not None and v in self.around:
            yield from self.around[v].graph.chain(self.around[v].variable, beyond=True)

    @functools.cached_property
    def stopped(self) -> frozenset[Any]:
        """The values that depend on the input through `stop_gradient` alone."""
        around = self.around or {}
        found = {v for v, place in around.items() if place.variable in place.graph.stopped}
        for step in self.steps:
            if step.name == "stop_gradient" or found.issuperset(step.inputs):
                found.update(step.outputs)
        return frozenset(found)

    @functools.cached_property
    def uses(self) -> Mapping[Any, int]:
        """How many steps and results read each variable."""
        return Counter(variables([*(v for step in self.steps for v in step.inputs), *self.outputs]))


class Around(NamedTuple):
    """Where an input of the body of a scan comes from: a constant of the scan, or the array of a row.

    Attributes:
        graph: the function around the scan.
        variable: its variable.
        is_unit: whether it is the function's input, up to units; see the plan of the method.
    """

    graph: Graph
    variable: Any
    is_unit: bool


def graph(
    function: Callable[..., Any],
    *args: Any,
    keep_custom: bool = False,
    hold_integers: bool = False,
    keep_long: Callable[[core.JaxprEqn], bool] | None = None,
    around: Sequence["Around | None"] | None = None,
) -> Graph:
    """Trace a function, inline its calls, and cut it into steps.

    Args:
        function: of arrays or pytrees; what it closes over is constant.
        args: where to trace it, arrays or their shapes.
        keep_custom: whether a function with a custom derivative is one operation, with that derivative, or
            is inlined.
        hold_integers: whether integers that are computed from the input, such as the indices of the largest
            values, are constants, as they are at `args`.
        keep_long: `keep_long(equation)` tells whether a long scan is one step; None to unroll all.
        around: of the body of a scan, where each of its arguments comes from; None for a carry.
    """
    # Without taps: one in the middle of a softmax does not hide it.
    inlined = CALLS | REMAT | UNROLLED | NAMES | (set() if keep_custom else CUSTOM)
    traced = inline_calls(function, args, inlined, keep_long=keep_long)
    jaxpr = traced.jaxpr.jaxpr
    depends = set(jaxpr.invars)
    held: list[Any] = []
    scans: dict[Any, Scan] = {}  # by their results
    for eqn in jaxpr.eqns:
        if not depends.isdisjoint(variables(eqn.invars)):
            results: list[Any] = eqn.outvars
            if keep_long is not None and eqn.primitive.name == "scan":
                scan = make_scan(eqn, depends.__contains__)
                scans |= dict.fromkeys(results, scan)
                results = [v for v, moved in zip(results, scan.moved, strict=True) if moved]
            integers = [v for v in results if hold_integers and is_integer(v)]
            held += integers
            depends.update(v for v in results if v not in integers)
    others: Run = {}
    if held:
        values = dict(
            zip([*jaxpr.constvars, *jaxpr.invars], [*traced.jaxpr.consts, *traced.inputs], strict=True)
        )
        run([eqn for eqn in jaxpr.eqns if eqn.outvars], values)
        others = {v: values[v] for v in held}
    builder = _StepBuilder(depends, *_constants(jaxpr, traced.jaxpr.consts, depends, others, scans))
    regions = _Regions(jaxpr, builder)
    position = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.outvars}
    steps: dict[Any, tuple[int, Step]] = {}
    needed = [v for v in variables(jaxpr.outvars) if v in depends]
    while needed:
        v = needed.pop()
        if v not in position:  # an input
            continue
        key = v if v in regions.dominators else position[v]
        if key not in steps:
            eqn = jaxpr.eqns[position[v]]
            step = builder.scan(scans[v]) if v in scans else regions.step(v) or builder.step((eqn,))
            steps[key] = (position[v], step)
            needed.extend(step.inputs)
    ordered = tuple(step for _, step in sorted(steps.values(), key=lambda each: each[0]))
    inputs, outputs = tuple(jaxpr.invars), tuple(jaxpr.outvars)
    sources = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars if v not in depends}
    placed = None
    if around is not None:
        placed = {v: place for v, place in zip(inputs, around, strict=True) if place is not None}
    return Graph(
        ordered, inputs, outputs, builder.known, builder.constants, sources, traced.structure, placed
    )


def _constants(
    jaxpr: core.Jaxpr, consts: Sequence[Any], depends: set[Any], others: Run, scans: Mapping[Any, Scan]
) -> tuple[Run, Run]:
    """The values that do not depend on the input: those computed from numbers alone, and all others.

    `others` are known to begin with. Some results of `scans` may be among them.
    """
    known: Run = {}
    for v, value in zip(jaxpr.constvars, consts, strict=True):
        (known if _is_one_number(value) else others)[v] = value
    for eqn in jaxpr.eqns:
        if not depends.isdisjoint(variables(eqn.invars)):  # not by its results: a callback has none
            if eqn.outvars and eqn.outvars[0] in scans:
                every = functools.partial(read, values=ChainMap(others, known))
                others.update(scans[eqn.outvars[0]].fixed(every))
            continue
        # A value that varies over a mesh cannot be computed while tracing.
        static = not eqn.effects and eqn.primitive.name != "pvary"
        if static and all(v in known for v in variables(eqn.invars)):
            with jax.ensure_compile_time_eval():
                run([eqn], known)
        else:
            run([eqn], ChainMap(others, known))
    return known, others


def _is_one_number(value: Any) -> bool:
    """Whether a closed-over array repeats one number, as the zeros of a ReLU may."""
    if not is_concrete(value) or not jnp.issubdtype(value.dtype, jnp.number) or value.size == 0:
        return False
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return False
    with jax.ensure_compile_time_eval():
        head = np.ravel(np.asarray(value[(0,) * (value.ndim - 1)])[:8]) if value.ndim else np.ravel(value)
        # A few elements distinguish nearly all weights.
        return bool((head == head[0]).all()) and bool((np.asarray(value) == head[0]).all())


class _StepBuilder(NamedTuple):
    """Builds steps from equations."""

    depends: set[Any]
    known: Run
    constants: Run

    def operands(self, eqn: core.JaxprEqn) -> list[Any]:
        """The variables that an equation reads and that depend on the input, each once."""
        return [v for v in dict.fromkeys(variables(eqn.invars)) if v in self.depends]

    def step(self, eqns: tuple[core.JaxprEqn, ...], root: Any = None) -> Step:
        """One equation as a step; or several that are together an elementwise function of one root."""
        last = eqns[-1]
        inputs = tuple(self.operands(last)) if root is None else (root,)
        outputs = tuple(last.outvars)

        def call(*values: Any) -> list[Any]:
            results = ChainMap(dict(zip(inputs, values, strict=True)), self.known, self.constants)
            run(eqns, results)
            return [results[v] for v in outputs]

        if all(is_affine(eqn, self.depends) for eqn in eqns):
            kind = "linear"
        else:
            kind = "elementwise" if root is not None else "other"
        closed = not any(v in self.constants for eqn in eqns for v in variables(eqn.invars))
        return Step(last.primitive.name, kind, inputs, outputs, eqns, call, closed)

    def scan(self, scan: Scan) -> Step:
        """A scan as one step."""
        eqn = scan.equation
        inputs = tuple(self.operands(eqn))

        def call(*values: Any) -> list[Any]:
            known = ChainMap(dict(zip(inputs, values, strict=True)), self.known, self.constants)
            return scan.call([read(v, known) for v in eqn.invars])

        return Step("scan", "other", inputs, (*eqn.outvars, *scan.saved), (eqn,), call, False, scan)


class _Regions:
    """The elementwise functions of one variable, their root.

    In the graph of elementwise operations the root of a variable is its immediate dominator: every path to
    the variable passes through it.
    """

    def __init__(self, jaxpr: core.Jaxpr, builder: _StepBuilder):
        self._builder = builder
        self._made_by: dict[Any, core.JaxprEqn] = {}
        self.dominators: dict[Any, list[Any]] = {}  # of each variable, the nearest last
        for eqn in jaxpr.eqns:
            operands = builder.operands(eqn)
            if not operands or not is_elementwise(eqn, operands):
                continue
            chains = [[*self.dominators.get(v, ()), v] for v in operands]
            common = [v for v in chains[0] if is_real(v) and all(v in chain for chain in chains)]
            if common:
                (output,) = eqn.outvars
                self._made_by[output] = eqn
                self.dominators[output] = common

    def step(self, v: Any) -> Step | None:
        """The step from its root to a variable, or None where it has no root."""
        if v not in self.dominators:
            return None
        root = self.dominators[v][-1]
        ordered: dict[Any, core.JaxprEqn] = {}
        waiting = [v]
        while waiting:  # no recursion: a region may be as long as an unrolled loop
            current = waiting.pop()
            if current in ordered or current is root:
                continue
            operands = self._builder.operands(self._made_by[current])
            missing = [v for v in operands if v is not root and v not in ordered]
            if missing:
                waiting.extend((current, *missing))
            else:
                ordered[current] = self._made_by[current]
        return self._builder.step(tuple(ordered.values()), root)
