"""What a model computes, by its named intermediates: `summary`."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxnn._engine.jaxpr import trace
from jaxnn._engine.primitives import (
    COMBINERS,
    CONTROL,
    MOVING,
    NAMES,
    PRODUCTS,
    SAME_VALUES,
    inner_jaxprs,
    is_number,
)
from jaxnn._engine.tap import tapped_axis
from jaxnn._model import as_arrays, as_model, tracing
from jaxnn._rewrite import labels_of
from jaxnn._typing import Model, PyTree


class SummaryRow(NamedTuple):
    """One named intermediate, and what is computed between the one before and it.

    Attributes:
        name: of the intermediate, as `capture` returns it; "" for what follows the last one.
        shape: of the value, without the steps of scans around it.
        dtype: of the value.
        parameters: number of elements of the model's arrays, running statistics included, that are first used
            there.
        operations: number of arithmetic operations there; a product and its sum are two.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    operations: int


class Summary(tuple[SummaryRow, ...]):
    """The rows of a summary, in the order of computation; printed as a table."""

    __slots__ = ()

    def __rich__(self) -> Table:
        parameters = sum(row.parameters for row in self)
        operations = sum(row.operations for row in self)
        table = Table("name", "shape", "dtype", title="Intermediates of the model, in order")
        for column in ("parameters", "operations", "share"):
            table.add_column(column, justify="right")
        for row in self:
            share = f"{row.operations / max(operations, 1):.1%}"
            shape = str(row.shape) if row.shape or row.dtype else ""
            name = Text(row.name or "(after)")  # not as markup
            table.add_row(name, shape, row.dtype, f"{row.parameters:,}", f"{row.operations:,}", share)
        table.add_section()
        table.add_row("total", "", "", f"{parameters:,}", f"{operations:,}", "")
        return table

    def __str__(self) -> str:
        return as_text(self, 120)


def as_text(shown: Any, width: int) -> str:
    """What rich prints of an object, in lines of that many letters."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as text:
        console.print(shown)
    return text.get().rstrip("\n")


def summary(model: Model, x: PyTree) -> Summary:
    """Model summary: what a model computes, by its named intermediates; nothing is computed.

    Each row is an intermediate that `capture` returns, with the parameters that are first used, and the
    operations that are done, between the intermediate before it and itself. A submodule's output has a row
    after those of its parts; `tap_operations` adds rows within a module. In a `lax.scan` the operations count
    once per step. Of a `lax.cond` the branch of the most operations counts, and a `lax.while_loop` as one
    step; names inside of them have no row.

    Operations count arithmetic: 2 for each product in a sum of a matrix product or a convolution, and 1 for
    each element of the larger of the operands and the result of all others, but none for those that only move
    or select values.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays, or of their `jax.ShapeDtypeStruct`.

    Returns:
        A `Summary`, a tuple of `SummaryRow`; `print` shows it as a table.

    Raises:
        TypeError: `model` is not callable.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> for row in jaxnn.summary(network, jax.ShapeDtypeStruct((784,), "float32")):
        ...     print(row.name, row.shape, row.parameters, row.operations)
        hidden_0_in (30,) 23550 47070
        hidden_0 (30,) 0 30
        output_in (10,) 310 610
        output (10,) 0 10
    """
    return _count(as_model(model), x).rows()


def leaves_by_use(model: Model, x: PyTree) -> list[int]:
    """The numbers of the model's arrays, leaves of its pytree, in the order in which it first uses them."""
    return list(_count(model, x).seen)


def _count(model: Model, x: PyTree) -> "_Count":
    leaves, structure = jax.tree.flatten(model)

    def of_leaves(leaves: list[Any], x: PyTree) -> PyTree:
        return jax.tree.unflatten(structure, leaves)(x)

    with tracing("model"):
        traced = trace(of_leaves, leaves, x if _is_described(x) else as_arrays(x))
    jaxpr = traced.jaxpr.jaxpr
    count = _Count(jaxpr, list(labels_of(traced).values()))
    count.follow(jaxpr, {v: i for i, v in enumerate(jaxpr.invars[: len(leaves)])}, 1)
    return count


def _is_described(x: PyTree) -> bool:
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(x))


class _Count:
    """Parameters and operations since the last name, and the rows so far."""

    def __init__(self, jaxpr: core.Jaxpr, names: Sequence[str]):
        self.names = iter(names)
        self.sizes = [math.prod(_shape(v)) if is_number(v) else 0 for v in jaxpr.invars]
        self.seen: dict[int, None] = {}  # in the order of first use
        self.done: list[SummaryRow] = []
        self.parameters = self.operations = 0

    def follow(self, jaxpr: core.Jaxpr, leaves: Mapping[Any, int], times: int) -> dict[Any, int]:
        """Count the equations of a jaxpr; return its variables that are the model's arrays, as given."""
        leaves = dict(leaves)
        for eqn in jaxpr.eqns:
            own = [None if isinstance(v, core.Literal) else leaves.get(v) for v in eqn.invars]
            kind = eqn.primitive.name
            inner = list(inner_jaxprs(eqn))
            if kind in NAMES:
                self._end_row(next(self.names), eqn.outvars[0], tapped_axis(eqn))
            if kind in SAME_VALUES | NAMES:
                leaves |= {v: own[0] for v in eqn.outvars if own[0] is not None}
            elif kind in CONTROL:
                self._use(own)
                self.operations += times * max(_operations(each.jaxpr) for each in inner)
                for each in inner:
                    self._skip_names(each.jaxpr)
            elif len(inner) == 1 and kind not in COMBINERS and len(inner[0].jaxpr.invars) == len(own):
                steps = eqn.params["length"] if kind == "scan" else 1
                body = inner[0].jaxpr
                given = {v: i for v, i in zip(body.invars, own, strict=True) if i is not None}
                known = self.follow(body, given, times * steps)
                if kind != "scan":  # where a result is of all steps
                    inside = [None if isinstance(w, core.Literal) else known.get(w) for w in body.outvars]
                    results = zip(eqn.outvars, inside, strict=True)
                    leaves |= {v: leaf for v, leaf in results if leaf is not None}
            else:
                self._use(own)
                self.operations += times * _operations_of(eqn)
        return leaves

    def rows(self) -> Summary:
        """All rows, with one for what follows the last name, if anything does."""
        if self.operations or self.parameters:
            self.done.append(SummaryRow("", (), "", self.parameters, self.operations))
        return Summary(self.done)

    def _end_row(self, name: str, v: Any, axis: int | None) -> None:
        shape = tuple(size for i, size in enumerate(v.aval.shape) if i != axis)
        row = SummaryRow(name, shape, str(v.aval.dtype), self.parameters, self.operations)
        self.done.append(row)
        self.parameters = self.operations = 0

    def _use(self, leaves: Sequence[int | None]) -> None:
        for leaf in leaves:
            if leaf is not None and leaf not in self.seen:
                self.seen[leaf] = None
                self.parameters += self.sizes[leaf]

    def _skip_names(self, jaxpr: core.Jaxpr) -> None:
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in NAMES:
                next(self.names)
            for inner in inner_jaxprs(eqn):
                self._skip_names(inner.jaxpr)


def _operations(jaxpr: core.Jaxpr) -> int:
    return sum(_operations_of(eqn) for eqn in jaxpr.eqns)


def _operations_of(eqn: core.JaxprEqn) -> int:
    """The number of arithmetic operations of an equation, those inside of it included."""
    kind, results = eqn.primitive.name, sum(math.prod(_shape(v)) for v in eqn.outvars)
    sizes = [math.prod(_shape(v)) for v in eqn.invars]
    inner = list(inner_jaxprs(eqn))
    if kind in COMBINERS:  # of two numbers: once for each that is combined
        return (sizes[-1] if kind.startswith("scatter") else sizes[0]) * max(_operations(inner[0].jaxpr), 1)
    if inner:
        inside = [_operations(each.jaxpr) for each in inner]
        steps: int = eqn.params["length"] if kind == "scan" else 1
        return steps * (max(inside) if kind in CONTROL else sum(inside))
    if kind in MOVING:
        return 0
    if kind in PRODUCTS:
        return 2 * _products(eqn, results)
    return max([results, *sizes])


def _shape(v: Any) -> tuple[int, ...]:
    """The shape of an operand or a result."""
    shape: tuple[int, ...] = getattr(v.aval, "shape", ())
    return shape


def _products(eqn: core.JaxprEqn, results: int) -> int:
    """The number of products of two numbers."""
    left, right = (_shape(v) for v in eqn.invars)
    if eqn.primitive.name == "dot_general":
        (axes, _), _ = eqn.params["dimension_numbers"]
        return results * math.prod(left[axis] for axis in axes)
    spec = eqn.params["dimension_numbers"].rhs_spec
    if math.prod(eqn.params["lhs_dilation"]) > 1:  # a transposed convolution: without the zeros between
        return math.prod(left) * math.prod(right) // right[spec[1]] // eqn.params["feature_group_count"]
    return results * math.prod(right) // right[spec[0]]
