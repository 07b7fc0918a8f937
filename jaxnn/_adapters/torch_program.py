"""A graph of PyTorch's operators as static data, and its evaluation by JAX."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._adapters import common
from jaxnn._adapters.aten import OPERATORS, dtype_of
from jaxnn._engine.tap import module_scope
from jaxnn._typing import PyTree

TABLE = OPERATORS | {
    "getitem": lambda values, index: values[index],
    "tap.default": lambda value, name: value,  # named below
}


class Value(NamedTuple):
    """The place of an earlier value, where an argument of a step is one."""

    place: int


class Step(NamedTuple):
    """One operator of a graph.

    Attributes:
        operator: its name and overload.
        positional: its arguments, with a `Value` for each tensor.
        keywords: its keyword arguments, likewise.
        shape: of the result; None for several.
        dtype: of the result.
        path: of the submodule that computes it.
    """

    operator: str
    positional: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...] | None
    dtype: str
    path: str


@dataclasses.dataclass(frozen=True)
class Program:
    """A graph without its arrays: values are numbered, first the given ones and then those of the steps.

    Compared by its text, in which 1 and 1.0 differ.

    Attributes:
        given: what each given value is: `("params", name)`, `("buffers", name)`, or `("inputs", number)`.
        inputs: shape and dtype of each leaf of the module's arguments, and of further arrays.
        steps: in order.
        structure: of the output.
        output: the leaves of the output, each a `Value` or a number.
    """

    given: tuple[tuple[str, Any], ...] = dataclasses.field(compare=False)
    inputs: tuple[tuple[tuple[int, ...], str], ...] = dataclasses.field(compare=False)
    steps: tuple[Step, ...] = dataclasses.field(compare=False)
    structure: jax.tree_util.PyTreeDef
    output: tuple[Any, ...] = dataclasses.field(compare=False)
    text: str = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", repr((self.given, self.inputs, self.steps, self.output)))

    def run(self, arrays: Mapping[str, Any], *, batched: bool) -> PyTree:
        """The module's output.

        Args:
            arrays: what `given` names: parameters and buffers by name, inputs by number.
            batched: whether values are named without their batch axis of one.
        """
        values = [arrays[kind][name] for kind, name in self.given]
        for step in self.steps:
            positional, keywords = _insert((step.positional, step.keywords), values)
            with module_scope(step.path) if step.path else contextlib.nullcontext():
                result = TABLE[step.operator](*positional, **dict(keywords))
                if step.shape is not None:
                    result = _checked(result, step)
                if step.operator == "tap.default":
                    result = common.NAMERS[batched](result, positional[1])
            values.append(result)
        return jax.tree.unflatten(self.structure, _insert(self.output, values))

    def cast(self, leaves: Sequence[Any], first_axis: int) -> list[jax.Array]:
        """The leaves of an example in the dtypes of the graph.

        Args:
            leaves: of the module's arguments.
            first_axis: 1 where they have a batch axis, which errors leave out, else 0.

        Raises:
            ValueError: they have other shapes.
            TypeError: a floating-point number takes the place of an integer.
        """
        expected = self.inputs[: len(leaves)]
        shapes, known = [jnp.shape(leaf) for leaf in leaves], [shape for shape, _ in expected]
        if shapes != known:
            wanted, got = ([shape[first_axis:] for shape in each] for each in (known, shapes))
            raise ValueError(
                f"`x` must have the shapes of `example`, {wanted}, for which the module was exported; got "
                f"{got}"
            )
        cast = []
        for leaf, (_, name) in zip(leaves, expected, strict=True):
            dtype = dtype_of(name)
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not jnp.issubdtype(dtype, jnp.inexact):
                raise TypeError(f"`x` must hold {name} where `example` does; got {leaf.dtype}")
            cast.append(leaf.astype(dtype))
        return cast


def _checked(result: Any, step: Step) -> jax.Array:
    """The result in PyTorch's dtype, which numbers without axes do not raise; or raise for another shape."""
    if jnp.shape(result) != step.shape:
        raise RuntimeError(
            f"`{step.operator}` gives shape {jnp.shape(result)}, and {step.shape} in PyTorch: a fault of "
            "jaxnn, please report it"
        )
    array: jax.Array = result.astype(dtype_of(step.dtype))
    return array


def _insert(argument: Any, values: Sequence[Any]) -> Any:
    if type(argument) is Value:
        return values[argument.place]
    if type(argument) is tuple:
        return tuple(_insert(each, values) for each in argument)
    return argument
