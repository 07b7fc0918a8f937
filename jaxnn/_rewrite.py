"""The engine: evaluate a function's jaxpr, letting rules replace some of its operations.

Whatever a function computes, its jaxpr is a list of equations over primitives. Here it is evaluated equation
by equation, into jit, custom derivatives, remat, scan, cond and while, and a table of rules may take an
equation's place. Reading intermediates and intervening on them are two such tables.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from jaxnn._model import as_model

Value = TypeVar("Value")
Path = tuple[Any, ...]  # where an equation stands: its index, and that of each equation around it
Handler = Callable[[core.JaxprEqn, Path, Sequence[Any]], Sequence[Any] | None]
Captured = dict[Path, jax.Array]
Evaluated = tuple[list[Any], Captured]


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
    first axis. Inside of a `lax.while_loop`, or in one branch of a `lax.cond` and not in the others, a value
    may never come to be: it is left out, and listed by no error.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.

    Returns:
        `(y, values)`: the answer, and a dictionary from names to arrays, in the order of computation.

    Raises:
        TypeError: `model` is not callable.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> y, values = jaxnn.capture(network, [0.5] * 784)
        >>> list(values), values["hidden_0"].shape
        (['hidden_0_in', 'hidden_0', 'output_in', 'output'], (30,))
    """
    y, named = _capture(as_model(model), jax.tree.map(jnp.asarray, x))
    return y, named.by_key()


@jax.jit
def _capture(model: Any, x: Any) -> "tuple[Any, _Keyed]":
    traced = trace(model, x)
    outputs, captured = _evaluate(traced.jaxpr.jaxpr, traced.jaxpr.consts, traced.inputs, _keep_all, ())
    labels = _labels(traced.jaxpr.jaxpr)
    named = {label: captured[path] for path, label in labels.items() if path in captured}
    return jax.tree.unflatten(traced.structure, outputs), _Keyed.of(named)


def names(model: Callable[..., Any], x: Any) -> tuple[str, ...]:
    """The names of a model's intermediates, in the order of computation; nothing is computed."""
    return jax.eval_shape(_capture, as_model(model), x)[1].keys


@flax.struct.dataclass
class Intervened:
    """A model some of whose intermediates are replaced; made by `intervene`.

    Attributes:
        model: the model as it was.
        replacements: by name, an array or a function of what the model computes there.
    """

    model: Any
    replacements: dict[str, Any]

    def __call__(self, x: Any) -> Any:
        """Answer as the model would, with the replacements in place."""
        traced = trace(self.model, x)
        labels = _labels(traced.jaxpr.jaxpr)
        check_names("replacements", self.replacements, labels.values())

        def replace(eqn: core.JaxprEqn, path: Path, values: Sequence[Any]) -> Sequence[Any] | None:
            label = labels.get(path)
            if label is None or label not in self.replacements:
                return None
            (value,) = values
            return (eqn.primitive.bind(_replaced(label, self.replacements[label], value), **eqn.params),)

        outputs, _ = _evaluate(traced.jaxpr.jaxpr, traced.jaxpr.consts, traced.inputs, replace, ())
        return jax.tree.unflatten(traced.structure, outputs)


def intervene(model: Callable[..., Any], replacements: Mapping[str, Any]) -> Intervened:
    """Make a model that computes something else at some of its named intermediates.

    Everything downstream sees the new value. The result is a model again, so interventions nest, and every
    method of this library takes it.

    Args:
        model: a callable of one example.
        replacements: by name (those that `capture` gives; `"name@2"` where a name is used again), an
            array to put there, or a function of the value that stood there. A plain function is compiled in
            and recognized by identity: make it once. `jax.tree_util.Partial(function, arrays)`
            holds arrays that may change without compiling anew.

    Returns:
        A callable pytree. Called, it raises ValueError for a name that the model does not have, listing
        those that it has, and for a replacement of another shape or type.

    Raises:
        TypeError: `model` is not callable, or `replacements` is not a dictionary.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> silenced = jaxnn.intervene(network, {"hidden_0": lambda h: h.at[3].set(0.0)})
        >>> float(jaxnn.capture(silenced, [0.5] * 784)[1]["hidden_0"][3])
        0.0
    """
    if not isinstance(replacements, Mapping):
        raise TypeError(f"`replacements` must be a dictionary by name; got {type(replacements).__name__}")
    held = {name: as_model(new) if callable(new) else jnp.asarray(new) for name, new in replacements.items()}
    return Intervened(as_model(model), held)


def _replaced(label: str, new: Any, value: jax.Array) -> jax.Array:
    answer = jnp.asarray(new(value)) if callable(new) else new
    if answer.shape != value.shape:
        raise ValueError(f"`replacements[{label!r}]` must have shape {value.shape}; got {answer.shape}")
    if answer.dtype != value.dtype and not jnp.can_cast(answer.dtype, value.dtype, "same_kind"):
        raise ValueError(f"`replacements[{label!r}]` must have dtype {value.dtype}; got {answer.dtype}")
    return answer.astype(value.dtype)


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
    what is computed; where none is, it stays.

    Args:
        function: any JAX function.
        rules: by name.

    Returns:
        A function with the same arguments and results.

    Raises:
        TypeError: `function` or a rule is not callable.
        NotImplementedError: (when called) a rule's operation stands in a primitive that cannot be
            entered, such as a kernel; it names it.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> straight = jaxnn.rewrite(lambda x: jnp.tanh(x) ** 2, {"tanh": lambda operation, x: x})
        >>> float(straight(3.0)), float(jax.grad(straight)(3.0))
        (9.0, 6.0)
    """
    for name, rule in {"function": function, **rules}.items():
        if not callable(rule):
            raise TypeError(f"`rules[{name!r}]` must be callable; got {type(rule).__name__}")

    def apply(eqn: core.JaxprEqn, path: Path, values: Sequence[Any]) -> Sequence[Any] | None:
        name = next((name for name in _called(eqn) if name in rules), None)
        if name is None:
            return None
        answer = rules[name](Operation(name, eqn.params, eqn), *values)
        return answer if isinstance(answer, tuple | list) else (answer,)

    def rewritten(*args: Any) -> Any:
        traced = trace(function, *args)
        outputs, _ = _evaluate(traced.jaxpr.jaxpr, traced.jaxpr.consts, traced.inputs, apply, (), set(rules))
        return jax.tree.unflatten(traced.structure, outputs)

    return rewritten


class Traced(NamedTuple):
    """A function's jaxpr on the leaves of its arguments, and the structure of its result."""

    jaxpr: core.ClosedJaxpr
    inputs: list[Any]
    structure: Any


def trace(function: Callable[..., Any], *args: Any) -> Traced:
    """Trace a function; what it closes over becomes constants of the jaxpr."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    return Traced(jaxpr, jax.tree.leaves(args), jax.tree.structure(shapes))


def check_names(argument: str, wanted: Any, known: Any) -> None:
    """Raise unless each name is one of a model's intermediates."""
    known = list(known)
    for name in wanted:
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none: name them with jaxnn.tap"
            raise ValueError(f"`{argument}` must name intermediates of the model ({listed}); got {name!r}")


def _called(eqn: core.JaxprEqn) -> tuple[str, ...]:
    """The names that a rule may call an equation by."""
    kind = eqn.primitive.name
    if kind == "jit":
        return (str(eqn.params["name"]), kind)
    if kind == "custom_jvp_call":
        return (str(eqn.params["call_jaxpr"].jaxpr.debug_info.func_name), kind)
    return (kind,)


def _labels(jaxpr: core.Jaxpr) -> dict[Path, str]:
    """The name of each tapped value by its place, those used again numbered."""
    found = [(path, eqn.params["name"]) for path, eqn in walk(jaxpr) if eqn.primitive.name == "name"]
    total, seen = Counter(name for _, name in found), Counter[str]()
    labels = {}
    for path, name in found:
        seen[name] += 1
        labels[path] = name if total[name] == 1 else f"{name}@{seen[name]}"
    return labels


def walk(jaxpr: core.Jaxpr, path: Path = ()) -> Iterator[tuple[Path, core.JaxprEqn]]:
    """Every equation with its place, in the order of evaluation."""
    for index, eqn in enumerate(jaxpr.eqns):
        yield (*path, index), eqn
        for inner, place in _inner(eqn):
            yield from walk(inner, (*path, index, *place))


def _inner(eqn: core.JaxprEqn) -> list[tuple[core.Jaxpr, Path]]:
    """The jaxprs inside of an equation, each with its place among them."""
    found = []
    for key, value in eqn.params.items():
        for i, each in enumerate(value if isinstance(value, tuple | list) else (value,)):
            if isinstance(each, core.ClosedJaxpr):
                found.append((each.jaxpr, (key, i)))
            elif isinstance(each, core.Jaxpr):
                found.append((each, (key, i)))
    return found


def _keep_all(eqn: core.JaxprEqn, path: Path, values: Sequence[Any]) -> Sequence[Any] | None:
    return values if eqn.primitive.name == "name" else None


def _evaluate(
    jaxpr: core.Jaxpr,
    consts: Sequence[Any],
    inputs: Sequence[Any],
    handler: Handler,
    path: Path,
    wanted: frozenset[str] | set[str] = frozenset({"name"}),
) -> Evaluated:
    """Evaluate, asking the handler first; gives the outputs and what stood at each tap."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
    captured: Captured = {}
    for index, eqn in enumerate(jaxpr.eqns):
        place = (*path, index)
        read = [v.val if isinstance(v, core.Literal) else values[v] for v in eqn.invars]
        answers = handler(eqn, place, read)
        if answers is None:
            inside = any(not wanted.isdisjoint(_called(e)) for j, _ in _inner(eqn) for _, e in walk(j))
            if inside:
                answers, more = _enter(eqn, read, handler, place, wanted)
                captured |= more
            else:
                answers = bind(eqn, read)
        if eqn.primitive.name == "name":
            captured[place] = answers[0]
        values.update(zip(eqn.outvars, answers, strict=True))
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars], captured


def bind(eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Do what an equation does, with other values; a sequence of results, also of one."""
    with eqn.ctx.manager:
        answer = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return answer if eqn.primitive.multiple_results else [answer]


_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def _enter(eqn: core.JaxprEqn, values: Sequence[Any], handler: Handler, path: Path, wanted: Any) -> Evaluated:
    """Evaluate an equation that holds others."""
    kind, params = eqn.primitive.name, eqn.params

    def inside(key: str, number: int = 0) -> Callable[..., Evaluated]:
        held = params[key][number] if isinstance(params[key], tuple | list) else params[key]
        jaxpr, consts = (held.jaxpr, held.consts) if isinstance(held, core.ClosedJaxpr) else (held, ())
        place = (*path, key, number)
        return lambda *inputs: _evaluate(jaxpr, consts, inputs, handler, place, wanted)

    if kind in _CALLS:
        return inside(_CALLS[kind])(*values)
    if kind == "remat2":
        return _again(params, inside("jaxpr"), values)
    if kind == "scan":
        return _scan(params, inside("jaxpr"), values)
    if kind == "cond":
        return _cond(len(params["branches"]), inside, values)
    if kind == "while":
        return _while(params, inside, values)
    names_ = sorted({name for j, _ in _inner(eqn) for _, e in walk(j) for name in _called(e)} & set(wanted))
    raise NotImplementedError(f"the primitive {kind!r} cannot be entered, and holds {', '.join(names_)}")


def _again(params: Mapping[str, Any], body: Callable[..., Evaluated], values: Sequence[Any]) -> Evaluated:
    def keyed(*values: Any) -> tuple[list[Any], _Keyed]:
        outputs, captured = body(*values)
        return outputs, _Keyed.of(captured)

    options = {key: params[key] for key in ("policy", "prevent_cse")}
    outputs, captured = jax.checkpoint(keyed, **options)(*values)
    return outputs, captured.by_key()


def _scan(params: Mapping[str, Any], body: Callable[..., Evaluated], values: Sequence[Any]) -> Evaluated:
    n_consts, n_carry = params["num_consts"], params["num_carry"]
    consts, carry, rows = (
        values[:n_consts],
        values[n_consts : n_consts + n_carry],
        values[n_consts + n_carry :],
    )

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        outputs, captured = body(*consts, *carry, *row)
        return outputs[:n_carry], (outputs[n_carry:], _Keyed.of(captured))

    options = {key: params[key] for key in ("length", "reverse", "unroll")}
    carry, (outputs, captured) = lax.scan(step, list(carry), list(rows), **options)
    return [*carry, *outputs], captured.by_key()


def _cond(count: int, inside: Callable[..., Any], values: Sequence[Any]) -> Evaluated:
    index, *operands = values
    branches = [lambda *args, i=i: inside("branches", i)(*args)[0] for i in range(count)]
    return lax.switch(index, branches, *operands), {}


def _while(params: Mapping[str, Any], inside: Callable[..., Any], values: Sequence[Any]) -> Evaluated:
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    asked, done, carry = values[:n_cond], values[n_cond : n_cond + n_body], values[n_cond + n_body :]
    condition, body = inside("cond_jaxpr"), inside("body_jaxpr")
    answers = lax.while_loop(
        lambda carry: condition(*asked, *carry)[0][0], lambda carry: body(*done, *carry)[0], list(carry)
    )
    return answers, {}


@flax.struct.dataclass
class _Keyed:
    """A dictionary as a pytree that keeps its order, with keys of any kind: for scan and jit."""

    values: tuple[Any, ...]
    keys: tuple[Any, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, entries: dict[Any, Any]) -> "_Keyed":
        return cls(tuple(entries.values()), tuple(entries))

    def by_key(self) -> dict[Any, Any]:
        return dict(zip(self.keys, self.values, strict=True))
