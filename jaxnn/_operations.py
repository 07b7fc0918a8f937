"""Names for the results of operations: `tap_operations`, for what no module computes alone."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
from jax.extend import core

from jaxnn._engine.jaxpr import Path, bind, called, trace
from jaxnn._engine.primitives import COMBINERS, RESHAPES, SAME_VALUES, inner_jaxprs
from jaxnn._engine.tap import BATCHED, MODULE, tap_array, tap_one
from jaxnn._model import as_arrays, as_model, tracing
from jaxnn._repr import short_repr
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

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """The output of the model, with its operations tapped."""
        with tracing("model"):
            traced = trace(self.model, as_arrays(x))
        found = list(_find(traced.jaxpr.jaxpr, self.operations))
        if missing := set(self.operations) - {each.name for each in found}:
            known = sorted({each.name for each in _find(traced.jaxpr.jaxpr, None)})
            raise ValueError(
                f"`operations` must name operations of the model ({', '.join(known)}); got {min(missing)!r}"
            )
        counts = Counter[str]()
        handlers = {}
        for each in found:
            module = _module(each.scopes)
            name = f"{module}/{each.name}" if module else each.name
            handlers[each.path] = partial(_tapped, f"{name}@{counts[name]}", BATCHED in each.scopes)
            counts[name] += 1
        return traced.evaluate(handlers)[0]


def tap_operations(model: Model, operations: str | Collection[str]) -> TappedOperations:
    """Name the results of operations: a model that computes the same, with a tap at each of them.

    What one wants to see has often no module of its own: the softmax of an attention, the values per head
    before the output projection, the sum of a residual connection. Their names are `"path/operation@k"`,
    such as `"block_0/attention/softmax@0"`: the path of the module that computes them, the operation, and its
    number within that module, from 0, in the order of computation. The path is that of an adapter's module;
    elsewhere it is the names of `jax.named_scope` around the operation, and empty outside of them.

    The result is a model: `capture` returns the values, `intervene` replaces them, and layer methods take
    them as `layer=`. The values of a batched module are without its batch axis of one, as those of its layers
    are. A custom derivative around a tapped operation is lost; that of the operation itself
    stays.

    Args:
        model: a callable of one example.
        operations: names of functions that JAX records as a call (`"relu"`, `"silu"`, a jitted function of
            your own), of primitives (`"dot_general"`, `"add"`: the names that `jax.make_jaxpr`
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


def _tapped(name: str, batched: bool, eqn: core.JaxprEqn, values: Sequence[Any]) -> list[jax.Array]:
    """The results of an equation, named; several by their number, and without the batch axis of one."""
    tap = tap_one if batched else tap_array
    results = bind(eqn, values)
    if len(results) == 1:
        return [tap(results[0], name)]
    return [tap(result, f"{name}[{i}]") for i, result in enumerate(results)]


class _Operation(NamedTuple):
    """An operation of a model: the place of its equation, the scopes around it, and its name."""

    path: Path
    scopes: tuple[str, ...]
    name: str


def _find(
    jaxpr: core.Jaxpr, operations: Collection[str] | None, path: Path = (), scopes: tuple[str, ...] = ()
) -> Iterator[_Operation]:
    """The equations that are one of the operations; with None, every operation."""
    softmaxes = _softmaxes(jaxpr)
    for index, eqn in enumerate(jaxpr.eqns):
        place = (*path, index)
        names = (*((_SOFTMAX,) if id(eqn) in softmaxes else ()), *called(eqn)) if eqn.outvars else ()
        around = (*scopes, *_scopes(eqn))
        chosen = names if operations is None else [name for name in names if name in operations][:1]
        yield from (_Operation(place, around, name) for name in chosen)
        # What is inside of a tapped operation is not tapped, nor what combines two numbers.
        if eqn.primitive.name not in COMBINERS and (operations is None or not chosen):
            for inner in inner_jaxprs(eqn):
                yield from _find(inner.jaxpr, operations, (*place, inner.parameter, inner.number), around)


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

    def chain(v: Any) -> list[core.JaxprEqn]:
        """The equations behind a value: those that keep its elements, and the one that computes them."""
        eqn = None if isinstance(v, core.Literal) else made_by.get(v)
        if eqn is None:
            return []
        return [eqn, *(chain(eqn.invars[0]) if eqn.primitive.name in SAME_VALUES else [])]

    found = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name != "div":
            continue
        above, below = map(chain, eqn.invars)
        if not above or not below or below[-1].primitive.name != "reduce_sum":
            continue
        summed = chain(below[-1].invars[0])
        same_shape = all(_keeps_shape(each) for each in above[:-1] + summed[:-1])
        is_exp = summed and above[-1].primitive.name == "exp" and _same(summed[-1], above[-1])
        if is_exp and same_shape and _is_along(below[:-1], below[-1], eqn):
            found.add(id(eqn))
    return found


def _keeps_shape(eqn: core.JaxprEqn) -> bool:
    shape = getattr(eqn.invars[0].aval, "shape", None)
    return eqn.primitive.name != "transpose" and shape == getattr(eqn.outvars[0].aval, "shape", None)


def _is_along(moves: Sequence[core.JaxprEqn], total: core.JaxprEqn, quotient: core.JaxprEqn) -> bool:
    """Whether a sum, after some moves, divides each of the elements that were summed.

    Args:
        moves: from the quotient back to the sum.
        total: the sum.
        quotient: of elements of the shape that was summed.
    """
    ndim = len(getattr(quotient.outvars[0].aval, "shape", ()))
    axes: list[int | None] = [axis for axis in range(ndim) if axis not in total.params["axes"]]
    for move in reversed(moves):
        shape = getattr(move.outvars[0].aval, "shape", ())
        if move.primitive.name == "broadcast_in_dim":
            places = dict(zip(move.params["broadcast_dimensions"], axes, strict=True))
            axes = [places.get(i) for i in range(len(shape))]
        elif move.primitive.name in RESHAPES:
            before = getattr(move.invars[0].aval, "shape", ())
            long = [axis for axis, size in zip(axes, before, strict=True) if size > 1]
            if [size for size in before if size > 1] != [size for size in shape if size > 1]:
                return False
            axes = [long.pop(0) if size > 1 else None for size in shape]
        elif not _keeps_shape(move):
            return False
    return len(axes) in (0, ndim) and all(axis in (None, place) for place, axis in enumerate(axes))


def _same(one: core.JaxprEqn, other: core.JaxprEqn) -> bool:
    """Whether two equations compute the same elements."""
    return one is other or (one.primitive is other.primitive and list(one.invars) == list(other.invars))
