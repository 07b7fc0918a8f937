"""Names for the results of operations: `tap_operations`, for what no module computes alone."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
from jax.extend import core

from jaxnn._engine.jaxpr import Path, bind, called, trace
from jaxnn._engine.primitives import SAME_VALUES, inner_jaxprs
from jaxnn._engine.tap import MODULE, tap_array
from jaxnn._model import as_arrays, as_model, tracing
from jaxnn._typing import Model, PyTree

_SOFTMAX = "softmax"  # which JAX does not record as a call


@flax.struct.dataclass
class TappedOperations:
    """A model whose operations name their results; returned by `tap_operations`.

    Attributes:
        model: the original model.
        operations: names of functions and primitives.
    """

    model: Model
    operations: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def __call__(self, x: PyTree) -> PyTree:
        """The output of the model, with its operations tapped."""
        with tracing("model"):
            traced = trace(self.model, as_arrays(x))
        found = _find(traced.jaxpr.jaxpr, self.operations)
        if missing := [name for name in self.operations if not any(name == each for _, _, each in found)]:
            known = sorted({name for _, _, name in _find(traced.jaxpr.jaxpr, None)})
            raise ValueError(
                f"`operations` must name operations of the model ({', '.join(known)}); got {missing[0]!r}"
            )
        counts = Counter[str]()
        handlers = {}
        for path, module, operation in found:
            name = f"{module}/{operation}" if module else operation
            handlers[path] = partial(_tapped, f"{name}@{counts[name]}")
            counts[name] += 1
        return traced.evaluate(handlers)[0]


def tap_operations(model: Model, operations: str | Collection[str]) -> TappedOperations:
    """Name the results of operations: a model that computes the same, with a tap at each of them.

    What one wants to see has often no module of its own: the softmax of an attention, the values per head
    before the output projection, the sum of a residual connection. Their names are `"path/operation@k"`,
    such as `"block_0/attention/softmax@0"`: the path of the module that computes them, the operation, and its
    number within that module, from 0, in the order of computation. The path is that of an adapter's module;
    elsewhere it is that of the `jax.named_scope`s around the operation, and empty outside of them.

    The result is a model: `capture` returns the values, `intervene` replaces them, and layer methods take
    them as `layer=`. A custom derivative around a tapped operation is lost; that of the operation itself
    stays.

    Args:
        model: a callable of one example.
        operations: names of functions that JAX records as a call (`"relu"`, `"gelu"`, `"silu"`, a jitted
            function of your own), of primitives (`"dot_general"`, `"add"`: the names that `jax.make_jaxpr`
            prints), or `"softmax"`, a quotient of exponentials by their sum. Operations inside of a named
            function are not named.

    Returns:
        A callable pytree. Called, it raises ValueError for an operation that the model does not have,
        listing those that it has.

    Raises:
        TypeError: `model` is not callable, or `operations` are not strings.
        ValueError: `operations` is empty.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> tapped = jaxnn.tap_operations(lambda x: jax.nn.softmax(2 * jax.nn.relu(x)), ("relu", "softmax"))
        >>> y, values = jaxnn.capture(tapped, jnp.array([-1.0, 1.0]))
        >>> {name: value.shape for name, value in values.items()}
        {'relu@0': (2,), 'softmax@0': (2,)}
    """
    names = (operations,) if isinstance(operations, str) else operations
    is_list = isinstance(names, tuple | list | set | frozenset)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise TypeError(f"`operations` must be names, strings; got {operations!r}")
    if not names:
        raise ValueError("`operations` must name at least one operation; got none")
    return TappedOperations(as_model(model), tuple(dict.fromkeys(names)))


def _tapped(name: str, eqn: core.JaxprEqn, values: Sequence[Any]) -> list[jax.Array]:
    """The results of an equation, named; several by their number."""
    results = bind(eqn, values)
    if len(results) == 1:
        return [tap_array(results[0], name)]
    return [tap_array(result, f"{name}[{i}]") for i, result in enumerate(results)]


def _find(
    jaxpr: core.Jaxpr, operations: Collection[str] | None, path: Path = (), scopes: tuple[str, ...] = ()
) -> list[tuple[Path, str, str]]:
    """The path of each equation that is one of the operations, its module, and the operation.

    With None, of every operation.
    """
    return list(_walk(jaxpr, operations, path, scopes))


def _walk(
    jaxpr: core.Jaxpr, operations: Collection[str] | None, path: Path, scopes: tuple[str, ...]
) -> Iterator[tuple[Path, str, str]]:
    softmaxes = _softmaxes(jaxpr)
    for index, eqn in enumerate(jaxpr.eqns):
        place = (*path, index)
        names = (*((_SOFTMAX,) if id(eqn) in softmaxes else ()), *called(eqn))
        around = (*scopes, *_scopes(eqn))
        chosen = names if operations is None else [name for name in names if name in operations][:1]
        yield from ((place, _module(around), name) for name in chosen)
        if operations is None or not chosen:  # what is inside of a tapped operation is not tapped
            for inner in inner_jaxprs(eqn):
                yield from _walk(inner.jaxpr, operations, (*place, inner.parameter, inner.number), around)


def _scopes(eqn: core.JaxprEqn) -> list[str]:
    """The named scopes around an equation, without those of transformations such as vmap."""
    stack = eqn.source_info.name_stack.stack
    return [each.name for each in stack if type(each).__name__ == "Scope"]


def _module(scopes: Sequence[str]) -> str:
    """The path of the innermost module of an adapter, or else that of all scopes."""
    modules = [scope for scope in scopes if scope.startswith(MODULE)]
    return modules[-1].removeprefix(MODULE) if modules else "/".join(scopes)


def _softmaxes(jaxpr: core.Jaxpr) -> set[int]:
    """The equations that divide exponentials by their sum."""
    made_by = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}

    def origin(v: Any) -> core.JaxprEqn | None:
        """The equation that computes the elements of a value."""
        eqn = None if isinstance(v, core.Literal) else made_by.get(v)
        return origin(eqn.invars[0]) if eqn is not None and eqn.primitive.name in SAME_VALUES else eqn

    found = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name != "div":
            continue
        above, below = map(origin, eqn.invars)
        if above is None or below is None or below.primitive.name != "reduce_sum":
            continue
        if above.primitive.name == "exp" and _same(origin(below.invars[0]), above):
            found.add(id(eqn))
    return found


def _same(one: core.JaxprEqn | None, other: core.JaxprEqn) -> bool:
    """Whether two equations compute the same elements."""
    if one is None or one is other:
        return one is other
    return one.primitive is other.primitive and list(one.invars) == list(other.invars)
