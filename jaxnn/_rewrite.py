"""The public face of the engine: run a function with other rules for some of its operations.

`jaxnn._engine.jaxpr` evaluates a function's jaxpr equation by equation, and a table of rules may take an
equation's place. Reading intermediates (`capture`), intervening on them (`intervene`) and new rules for old
operations (`rewrite`) are such tables.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from jaxnn._checks import check_array
from jaxnn._engine.jaxpr import (
    Path,
    Traced as Traced,
    bind as bind,
    called,
    trace as trace,
    walk,
)
from jaxnn._model import Frozen, as_arrays, as_model
from jaxnn._typing import Model, PyTree

Value = TypeVar("Value")


def tap(value: Value, name: str) -> Value:
    """Name an intermediate value of a function; the value itself is unchanged.

    The name lives in the function's jaxpr (the primitive `name`), so it survives `jax.jit`,
    `jax.vmap` and `jax.grad`, costs nothing when compiled, and asks nothing of the function around it.
    `capture` reads what has a name, `intervene` replaces it.

    Args:
        value: any array, or a pytree of arrays: each leaf is then named by its place, too, such as
            `"state['h']"`.
        name: what to call it, such as `"hidden_0"`.

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
        lambda place, leaf: checkpoint_name(leaf, name + jax.tree_util.keystr(place)), value
    )


def capture(model: Callable[..., Any], x: Any) -> tuple[Any, dict[str, jax.Array]]:
    """Ask a model, and read every intermediate that has a name.

    A name that the model uses more than once, as a reused layer does, is numbered in the order of its
    uses: `"name@1"`, `"name@2"`, .... A value inside of a `lax.scan` comes with all its steps, along a new
    first axis. Inside of a `lax.while_loop`, or in a branch of a `lax.cond`, a value may never come to be, or
    many times: it is left out. The answer is the model's own, with its own derivatives.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.

    Returns:
        `(y, values)`: the answer, and a dictionary from names to arrays, in the order of computation.

    Raises:
        TypeError: `model` is not callable.
        NotImplementedError: a named value stands in a primitive that cannot be entered, such as a
            kernel or `jax.shard_map`; it names both.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> y, values = jaxnn.capture(network, [0.5] * 784)
        >>> list(values), values["hidden_0"].shape
        (['hidden_0_in', 'hidden_0', 'output_in', 'output'], (30,))
    """
    y, captured = _capture(as_model(model), as_arrays(x))
    return y, dict(zip(captured.names, captured.values, strict=True))


@flax.struct.dataclass
class _Captured:
    """Values by name, in order; a dictionary as a pytree would be sorted."""

    values: list[jax.Array]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)


@jax.jit
def _capture(model: Model, x: PyTree) -> tuple[PyTree, _Captured]:
    traced = trace(model, x)
    labels = _labels(traced)
    y, captured = traced.evaluate(reads=labels)
    paths = [path for path in labels if path in captured]
    return y, _Captured([captured[path] for path in paths], tuple(labels[path] for path in paths))


def names(model: Model, x: PyTree) -> tuple[str, ...]:
    """The names that `capture` returns, in the order of computation; nothing is computed."""
    return jax.eval_shape(_capture, as_model(model), x)[1].names


@flax.struct.dataclass
class Intervened:
    """A model some of whose intermediates are replaced; made by `intervene`.

    Attributes:
        model: the model as it was.
        replacements: by name, a function of what the model computes there, or an array, held.
    """

    model: Any
    replacements: dict[str, Any]

    def __call__(self, x: Any) -> Any:
        """Evaluate the model with the replacements in place."""
        traced = trace(self.model, as_arrays(x))
        labels = _labels(traced)
        check_names("replacements", self.replacements, labels.values())

        def replace(label: str, eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
            return bind(eqn, [_replacement(label, self.replacements[label], *values)])

        replaced = {path: label for path, label in labels.items() if label in self.replacements}
        return traced.evaluate({path: partial(replace, label) for path, label in replaced.items()})[0]


def intervene(model: Callable[..., Any], replacements: Mapping[str, Any]) -> Intervened:
    """Make a model that computes something else at some of its named intermediates.

    Everything downstream sees the new value. The result is a model again, so interventions nest, and every
    method of this library takes it. Inside of a `lax.scan` each step's value is replaced, and a value in a
    branch or a `while_loop`, which `capture` cannot give, is replaced too. A custom derivative around a
    replaced value goes: what stands there is derived as it is. A gradient that the model itself takes inside
    is computed beside the value, and does not see that it was replaced.

    Args:
        model: a callable of one example.
        replacements: by name (those that `capture` gives; `"name@2"` where a name is used again), an
            array to put there, or a function of the value that stood there. Arrays given so are held:
            `jaxnn.train` leaves them alone. A plain function is compiled in and recognized by
            identity: make it once. `jax.tree_util.Partial(function, arrays)` holds arrays that may
            change without compiling anew, and that may be trained.

    Returns:
        A callable pytree. Called, it raises ValueError for a name that the model does not have, listing
        those that it has, and for a replacement of another shape or type.

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
    if not isinstance(replacements, Mapping) or not all(isinstance(name, str) for name in replacements):
        raise TypeError(f"`replacements` must be a dictionary by name; got {replacements!r}")
    held = {
        name: as_model(new) if callable(new) else Frozen(check_array(f"replacements[{name!r}]", new))
        for name, new in replacements.items()
    }
    return Intervened(as_model(model), held)


def _replacement(label: str, new: Any, value: jax.Array) -> jax.Array:
    if isinstance(new, Frozen):
        return _in_place_of(value, f"replacements[{label!r}]", new.value)
    return _in_place_of(value, f"replacements[{label!r}](value)", new(value))


def _in_place_of(old: Any, name: str, new: Any) -> jax.Array:
    """A new value of an old one's shape and dtype; at most digits are lost on the way."""
    array = check_array(name, new)
    if array.shape != old.shape:
        raise ValueError(f"`{name}` must have shape {old.shape}; got {array.shape}")
    if array.dtype == old.dtype:
        return array
    if not jnp.can_cast(array.dtype, old.dtype, "same_kind"):
        raise ValueError(f"`{name}` must have dtype {old.dtype}; got {array.dtype}")
    return array.astype(old.dtype)


class Operation(NamedTuple):
    """An operation that a rule stands in for; called with values, it does what the function did.

    Attributes:
        name: of the primitive, such as `"tanh"`, or of the function that was called, such as `"relu"`.
        params: the primitive's parameters.
    """

    name: str
    params: dict[str, Any]
    equation: core.JaxprEqn

    def __call__(self, *values: Any) -> Any:
        """The original operation: its value, or a list where it has several."""
        answers = bind(self.equation, values)
        return answers[0] if len(answers) == 1 else answers


Rule = Callable[..., Any]  # (operation, *values) -> value, or a tuple where the operation has several results


def rewrite(function: Callable[..., Any], rules: Mapping[str, Rule]) -> Callable[..., Any]:
    """Make a function in which rules take the place of some operations.

    A rule is named after a JAX primitive (`"tanh"`, `"dot_general"`: what `jax.make_jaxpr` prints) or
    after a function that JAX records as a call (`"relu"`, `"silu"`). It is called as
    `rule(operation, *values)`, and returns what is to stand there. `operation(*values)` is the
    original, and `operation.params` are its parameters. Give a rule's result a derivative of its own with
    `jax.custom_vjp`, and `jax.grad` of the new function follows it.

    Operations are found wherever they are: in jit, custom derivatives, remat, scan, cond and while. Where one
    is found inside of a function with a custom derivative, that derivative goes, as it no longer is that of
    what is computed; where none is, it stays. A name that never comes up changes nothing, so that one table
    of rules serves many functions. A function that JAX records as a call gets what it closes over as its
    first values.

    Args:
        function: any JAX function of arrays and pytrees of them.
        rules: by name.

    Returns:
        A function with the same arguments and results.

    Raises:
        TypeError: `function` or a rule is not callable.
        ValueError: (when called) a rule gives another number of values, or another shape or kind of
            number, than the operation.
        NotImplementedError: (when called) a rule's operation stands in a primitive that cannot be
            entered, such as a kernel; it names it.

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
        traced = trace(function, *args, **kwargs)
        handlers = {
            path: partial(apply, name)
            for path, eqn in walk(traced.jaxpr.jaxpr)
            for name in called(eqn)[::-1]  # the first one counts
            if name in rules
        }
        return traced.evaluate(handlers)[0]

    return rewritten


def _checked(name: str, answer: Any, eqn: core.JaxprEqn) -> Sequence[Any]:
    """The results of a rule, which must fit what they stand in for."""
    answers = answer if isinstance(answer, tuple | list) else (answer,)
    if len(answers) != len(eqn.outvars):
        raise ValueError(f"`rules[{name!r}]` must give {len(eqn.outvars)} values; got {len(answers)}")
    return [
        _in_place_of(v.aval, f"rules[{name!r}](operation, ...)", new)
        for v, new in zip(eqn.outvars, answers, strict=True)
    ]


def check_names(argument: str, wanted: Any, known: Any) -> None:
    """Raise unless each name is one of a model's intermediates."""
    known = list(known)
    for name in wanted:
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none: name them with jaxnn.tap"
            raise ValueError(f"`{argument}` must name intermediates of the model ({listed}); got {name!r}")


def _labels(traced: Traced) -> dict[Path, str]:
    """The name of each tapped value by its place, those used again numbered."""
    tapped = [
        (path, eqn.params["name"]) for path, eqn in walk(traced.jaxpr.jaxpr) if eqn.primitive.name == "name"
    ]
    total, seen = Counter(name for _, name in tapped), Counter[str]()
    labels: dict[Path, str] = {}
    for path, name in tapped:
        seen[name] += 1
        labels[path] = name if total[name] == 1 else f"{name}@{seen[name]}"
    if len(set(labels.values())) < len(labels):
        twice, _ = Counter(labels.values()).most_common(1)[0]
        raise ValueError(
            f"the model names two intermediates {twice!r}, one of them with that number: rename it"
        )
    return labels
