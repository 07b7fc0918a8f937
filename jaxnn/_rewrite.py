"""Named intermediates and rules for operations: tap, capture, intervene and rewrite.

`jaxnn._engine.jaxpr` evaluates a function's jaxpr equation by equation, with handlers in the place of some.
Those that replace intermediates (`intervene`) and operations (`rewrite`) are here, and `capture`, which only
reads.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn._arrays import as_numpy
from jaxnn._checks import check_array, is_concrete
from jaxnn._engine.jaxpr import (
    Path,
    Traced as Traced,
    bind as bind,
    called,
    scan_lengths,
    trace as trace,
    walk,
    warn_unused,
)
from jaxnn._engine.primitives import NAMES
from jaxnn._engine.tap import tap_array, tapped_axis
from jaxnn._model import Frozen, as_arrays, as_model, tracing
from jaxnn._repr import short_repr
from jaxnn._typing import Layer, Model, PyTree

Value = TypeVar("Value")


def tap(value: Value, name: str) -> Value:
    """Name an intermediate value of a function; the value itself is unchanged.

    The name lives in the function's jaxpr (the primitive `tap`), so it survives `jax.jit`, `jax.vmap` and
    `jax.grad`, and costs nothing when compiled. `capture` returns named values, `intervene` replaces them.
    Policies of `jax.checkpoint` by name see the names of `jax.ad_checkpoint.checkpoint_name` alone, which
    count as taps, too.

    Args:
        value: any array, or a pytree of arrays: the name of each leaf then includes its path, such as
            `"state['h']"`.
        name: such as `"hidden_0"`.

    Returns:
        `value`, unchanged.

    Raises:
        TypeError: `name` is not a string.

    Example:
        >>> import jax, jaxnn
        >>> jax.make_jaxpr(lambda x: jaxnn.tap(2 * x, "doubled"))(1.0).eqns[-1].params["name"]
        'doubled'
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string; got {type(name).__name__} {name!r}")
    return jax.tree_util.tree_map_with_path(
        lambda place, leaf: tap_array(check_array("value", leaf), name + jax.tree_util.keystr(place)), value
    )


def capture(model: Model, x: PyTree) -> tuple[PyTree, dict[str, jax.Array]]:
    """Evaluate a model, and return its output and every named intermediate.

    A name that the model uses more than once, as a reused layer does, is numbered in the order of its
    uses: `"name@1"`, `"name@2"`, .... A value inside of a `lax.scan` has all its steps, along a new
    first axis. Inside of a `lax.while_loop`, or in a branch of a `lax.cond`, a value may not exist, or exist
    many times: it is omitted. The output is the model's own, with its own derivatives.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.

    Returns:
        `(y, values)`: the output, and a dictionary from names to arrays, in the order of computation.

    Raises:
        TypeError: `model` is not callable.
        NotImplementedError: a named value is inside of a primitive that cannot be traced into, such as a
            kernel or `jax.shard_map`; it names both.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> y, values = jaxnn.capture(network, [0.5] * 784)
        >>> list(values), values["hidden_0"].shape
        (['hidden_0_in', 'hidden_0', 'output_in', 'output'], (30,))
    """
    with tracing("model"):
        y, captured = _capture(as_model(model), as_arrays(x))
    return y, dict(zip(captured.names, captured.values, strict=True))


@flax.struct.dataclass
class _Captured:
    """Values by name, in order; a dictionary as a pytree would be sorted."""

    values: list[jax.Array]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)


def lengths_of(model: Model, x: PyTree) -> dict[str, tuple[int, ...]]:
    """The lengths of the scans around each named intermediate; nothing is computed."""
    shapes = jax.eval_shape(_scan_lengths, as_model(model), x)
    return {name: shape.shape for name, shape in shapes.items()}


# Jitted, to be traced once for all calls of one structure: the shapes of the result are the lengths.
@jax.jit
def _scan_lengths(model: Model, x: PyTree) -> dict[str, jax.Array]:
    traced = trace(model, x)
    labels = labels_of(traced)
    return {name: jnp.zeros(scan_lengths(traced.jaxpr.jaxpr, path), bool) for path, name in labels.items()}


@jax.jit
def _capture(model: Model, x: PyTree) -> tuple[PyTree, _Captured]:
    traced = trace(model, x)
    labels = labels_of(traced)
    y, captured = traced.evaluate(reads=labels)
    for path, eqn in walk(traced.jaxpr.jaxpr):
        axis = tapped_axis(eqn) if path in captured else None
        if axis is not None:  # behind one of steps per scan
            captured[path] = jnp.squeeze(captured[path], axis + len(scan_lengths(traced.jaxpr.jaxpr, path)))
    paths = [path for path in labels if path in captured]
    return y, _Captured([captured[path] for path in paths], tuple(labels[path] for path in paths))


def names(model: Model, x: PyTree) -> tuple[str, ...]:
    """The names that `capture` returns, in the order of computation; nothing is computed."""
    return jax.eval_shape(_capture, as_model(model), x)[1].names


@flax.struct.dataclass
class Intervened:
    """A model with some of its intermediates replaced; returned by `intervene`.

    Attributes:
        model: the original model.
        replacements: functions of the values that the model computes, frozen arrays, or `Added`.
        layers: the name of each, or `(name, step, ...)`.
    """

    model: Model
    replacements: tuple[Any, ...]
    layers: tuple[Layer, ...] = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """Evaluate the model with the replacements in place."""
        with tracing("model"):
            traced = trace(self.model, as_arrays(x))
        labels = labels_of(traced)
        check_names("replacements", [split_layer(layer)[0] for layer in self.layers], labels.values())
        handlers: dict[Path, Callable[..., Any]] = {}
        rows: dict[Path, PyTree] = {}
        for path, label in labels.items():
            lengths = scan_lengths(traced.jaxpr.jaxpr, path)
            own = [
                _Change.of(layer, new, lengths)
                for layer, new in zip(self.layers, self.replacements, strict=True)
                if split_layer(layer)[0] == label
            ]
            if own:
                _refuse_equal(own)
                handlers[path] = partial(_change, own)
                rows[path] = [change.rows for change in own]
        return traced.evaluate(handlers, rows=rows)[0]


def intervene(model: Model, replacements: Mapping[Any, Any]) -> Intervened:
    """Intervene on a model: replace some of its named intermediates.

    Everything downstream sees the new value. The result is a model again, so interventions nest, and every
    method of this library accepts it. Inside of a `lax.scan` each step's value is replaced: by a function of
    it, by an array of its shape, or by an array of all steps, as `capture` returns it. `(name, step)` is the
    value at one step. A value in a branch or a `while_loop`, which `capture` cannot return, is replaced
    too. A custom derivative around a replaced value is lost: the function inside is differentiated by JAX. A
    gradient that the model itself takes inside is computed beside the value, and does not see that it was
    replaced.

    Args:
        model: a callable of one example.
        replacements: by name (those of `capture`; `"name@2"` where a name is used again), or by
            `(name, step)` inside of a scan, with a step per scan around it, a new array, or a function of the
            original value. Arrays are frozen: `jaxnn.train` does not update them. A plain
            function is a static argument, compared by identity: define it once.
            `jax.tree_util.Partial(function, arrays)` holds arrays that may change without recompilation, and
            that may be trained.

    Returns:
        A callable pytree. Called, it raises ValueError for a name that the model does not have, listing
        those that it has, for a step that there is not, and for a replacement of another shape or type.

    Raises:
        TypeError: `model` is not callable, or `replacements` is not a dictionary by name of arrays and
            functions.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> silenced = jaxnn.intervene(network, {"hidden_0": lambda h: h.at[3].set(0.0)})
        >>> float(jaxnn.capture(silenced, [0.5] * 784)[1]["hidden_0"][3])
        0.0
    """
    if not isinstance(replacements, Mapping) or not all(map(is_layer, replacements)):
        raise TypeError(f"`replacements` must be a dictionary by name; got {replacements!r}")
    layers = tuple(sorted(replacements, key=split_layer))  # the order of a dictionary does not recompile
    frozen = tuple(
        as_model(new) if callable(new) else Frozen(check_array(f"replacements[{layer!r}]", new))
        for layer, new in ((layer, replacements[layer]) for layer in layers)
    )
    return Intervened(as_model(model), frozen, layers)


def is_layer(layer: Any) -> bool:
    """Whether a value is a name, or a tuple of a name and the steps of scans."""
    if isinstance(layer, tuple) and len(layer) > 1:
        name, *steps = layer
        return isinstance(name, str) and all(hasattr(step, "__index__") for step in steps)
    return isinstance(layer, str)


def check_layer_name(model: Model, x: PyTree, layer: Layer) -> None:
    """Raise unless a model has the layer, and the step where one is given."""
    if not is_layer(layer):
        raise TypeError(
            "`layer` must be the name of an intermediate, or `(name, step)` inside of a scan; got "
            f"{type(layer).__name__} {layer!r}"
        )
    name, steps = split_layer(layer)
    check_names("layer", [name], names(model, x))
    if steps:
        check_steps("layer", layer, lengths_of(model, x)[name])


def split_layer(layer: Layer) -> tuple[str, tuple[int, ...]]:
    """The name, and the steps, of a layer."""
    return (layer, ()) if isinstance(layer, str) else (layer[0], tuple(map(int, layer[1:])))


def check_steps(argument: str, layer: Layer, lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the steps of a layer, counted from the first; or raise unless there are such steps."""
    name, steps = split_layer(layer)
    if not steps:
        return ()
    if len(steps) != len(lengths):
        raise ValueError(
            f"`{argument}` must have a step for each scan around {name!r}, of which there are "
            f"{len(lengths)}; got {layer!r}"
        )
    for step, length in zip(steps, lengths, strict=True):
        if not -length <= step < length:
            raise ValueError(
                f"`{argument}` must have a step from {-length} to {length - 1} of {name!r}; got {layer!r}"
            )
    return tuple(step % length for step, length in zip(steps, lengths, strict=True))


@flax.struct.dataclass
class Added:
    """A replacement: the value itself plus this array; inside of scans, of all their steps."""

    value: jax.Array


class _Change(NamedTuple):
    """A replacement of a value inside of scans.

    Attributes:
        layer: the name of the value, or also its steps.
        new: the replacement.
        rows: what changes from step to step: whether it is replaced, or the new values; or None.
    """

    layer: Layer
    new: Any
    rows: Any

    @classmethod
    def of(cls, layer: Layer, new: Any, lengths: tuple[int, ...]) -> "_Change":
        steps = check_steps("replacements", layer, lengths)
        if steps:
            here = np.zeros(lengths, bool)
            here[steps] = True
            return cls(layer, new, here)
        is_stack = isinstance(new, Frozen | Added) and new.value.shape[: len(lengths)] == lengths
        return cls(layer, new, new.value if lengths and is_stack else None)


def _refuse_equal(changes: Sequence[_Change]) -> None:
    """Raise where two replacements are of the same step, by its number from the first and from the last."""
    masks = [change.rows for change in changes if split_layer(change.layer)[1]]
    if len({mask.tobytes() for mask in masks}) < len(masks):
        layers = ", ".join(repr(change.layer) for change in changes)
        raise ValueError(f"`replacements` must name each step once; got {layers}")


def _change(
    changes: Sequence[_Change], eqn: core.JaxprEqn, values: Sequence[Any], rows: Sequence[Any]
) -> Sequence[Any]:
    """The value of a tap, changed by one replacement after the other."""
    (value,), axis = values, tapped_axis(eqn)
    value = value if axis is None else jnp.squeeze(value, axis)
    for change, row in zip(changes, rows, strict=True):
        value = _replaced(change, value, row)
    return bind(eqn, [value if axis is None else jnp.expand_dims(value, axis)])


def _replaced(change: _Change, value: jax.Array, row: Any) -> jax.Array:
    layer, new, _ = change
    steps = split_layer(layer)[1]
    if isinstance(new, Added):
        shift = new.value if row is None or steps else row
        result = value + shift
    elif isinstance(new, Frozen):
        # An array of all steps, unless it has the shape of the value itself.
        stacked = row is not None and not steps and new.value.ndim > value.ndim
        result = _in_place_of(value, f"replacements[{layer!r}]", row if stacked else new.value)
    else:
        result = _in_place_of(value, f"replacements[{layer!r}](value)", new(value))
    return jnp.where(row, result, value) if steps else result


def _in_place_of(old: Any, name: str, new: Any) -> jax.Array:
    """Check a new value's shape; casting to the old dtype may lose precision, never change kind."""
    array = check_array(name, new)
    if array.shape != old.shape:
        raise ValueError(f"`{name}` must have shape {old.shape}; got {array.shape}")
    if array.dtype == old.dtype:
        return array
    if not jnp.can_cast(array.dtype, old.dtype, "same_kind"):
        raise ValueError(f"`{name}` must have dtype {old.dtype}; got {array.dtype}")
    if is_concrete(array):
        as_numpy(name, np.asarray(array), old.dtype)
    return array.astype(old.dtype)


class Operation(NamedTuple):
    """An operation that a rule replaces; calling it evaluates the original operation.

    Attributes:
        name: of the primitive, such as `"tanh"`, or of the function that was called, such as `"relu"`.
        params: the primitive's parameters.
    """

    name: str
    params: dict[str, Any]
    equation: core.JaxprEqn

    def __call__(self, *values: Any) -> Any:
        """The original operation: its result, or a list where it has several."""
        results = bind(self.equation, values)
        return results[0] if len(results) == 1 else results


Rule = Callable[..., Any]
"""`rule(operation, *values) -> result`, or a tuple where the operation has several results."""


def rewrite(function: Callable[..., Any], rules: Mapping[str, Rule]) -> Callable[..., Any]:
    """Rewrite a function: replace some of its operations by rules.

    A rule is named after a JAX primitive (`"tanh"`, `"dot_general"`: the names that `jax.make_jaxpr` prints)
    or after a function that JAX records as a call (`"relu"`, `"silu"`). It is called as
    `rule(operation, *values)`, and returns the new result. `operation(*values)` is the
    original, and `operation.params` are its parameters. Give a rule's result a derivative of its own with
    `jax.custom_vjp`, and `jax.grad` of the new function follows it.

    Operations are replaced everywhere: in jit, custom derivatives, remat, scan, cond and while. A custom
    derivative around a replaced operation is lost, since it belongs to the original function; all others
    stay. A name that does not occur changes nothing, so one table of rules serves many functions; it is a
    warning where JAX has no such operation at all. A function that JAX records as a call receives the values
    that it closes over first.

    Args:
        function: any JAX function of arrays and pytrees of them.
        rules: by name.

    Returns:
        A function with the same arguments and results.

    Raises:
        TypeError: `function` or a rule is not callable.
        ValueError: (when called) a rule returns another number of values, or another shape or kind of
            number, than the operation.
        NotImplementedError: (when called) a rule's operation is inside of a primitive that cannot be traced
            into, such as a kernel; it names it.

    Warns:
        UserWarning: (when called) neither the function nor JAX has an operation of a rule's name.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> straight = jaxnn.rewrite(lambda x: jnp.tanh(x) ** 2, {"tanh": lambda operation, x: x})
        >>> float(straight(3.0)), float(jax.grad(straight)(3.0))
        (9.0, 6.0)
    """
    if not callable(function):
        raise TypeError(f"`function` must be callable; got {type(function).__name__}")
    if not isinstance(rules, Mapping):
        raise TypeError(f"`rules` must be a dictionary by name; got {type(rules).__name__}")
    for name, rule in rules.items():
        if not callable(rule):
            raise TypeError(f"`rules[{name!r}]` must be callable; got {type(rule).__name__}")

    def apply(name: str, eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        return _checked(name, rules[name](Operation(name, eqn.params, eqn), *values), eqn)

    def rewritten(*args: Any, **kwargs: Any) -> Any:
        for leaf in jax.tree.leaves((args, kwargs)):
            as_numpy("args", leaf)  # raises for integers that would wrap
        with tracing("function"):
            traced = trace(function, *args, **kwargs)
        warn_unused("rules", rules, traced.jaxpr.jaxpr, stacklevel=2, functions=True)
        handlers = {
            path: partial(apply, name)
            for path, eqn in walk(traced.jaxpr.jaxpr)
            for name in called(eqn)[::-1]  # the first one counts
            if name in rules
        }
        return traced.evaluate(handlers)[0]

    return rewritten


def _checked(name: str, result: Any, eqn: core.JaxprEqn) -> Sequence[Any]:
    """The results of a rule, of the shapes and dtypes of the operation's."""
    results = result if isinstance(result, tuple | list) else (result,)
    if len(results) != len(eqn.outvars):
        raise ValueError(f"`rules[{name!r}]` must return {len(eqn.outvars)} values; got {len(results)}")
    return [
        _in_place_of(v.aval, f"rules[{name!r}](operation, ...)", new)
        for v, new in zip(eqn.outvars, results, strict=True)
    ]


def check_names(argument: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise unless each name is one of a model's intermediates."""
    for name in names:
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none: name them with jaxnn.tap"
            raise ValueError(f"`{argument}` must name intermediates of the model ({listed}); got {name!r}")


def labels_of(traced: Traced) -> dict[Path, str]:
    """The name of each tapped value by its place, those used again numbered."""
    tapped = [
        (path, eqn.params["name"]) for path, eqn in walk(traced.jaxpr.jaxpr) if eqn.primitive.name in NAMES
    ]
    total, seen = Counter(name for _, name in tapped), Counter[str]()
    labels: dict[Path, str] = {}
    for path, name in tapped:
        seen[name] += 1
        labels[path] = name if total[name] == 1 else f"{name}@{seen[name]}"
    if len(set(labels.values())) < len(labels):
        twice, _ = Counter(labels.values()).most_common(1)[0]
        raise ValueError(f"the model names two intermediates {twice!r}, one of them by its number: rename it")
    return labels
