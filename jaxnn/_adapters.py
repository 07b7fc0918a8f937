"""Make a model of one example out of a Flax Linen, Flax NNX or Equinox module, with all outputs inside named.

Each adapter holds the module's arrays as leaves and all else as static, so two modules of one structure
share their compiled programs. The module itself is never changed: Linen's calls are intercepted; an NNX
or Equinox module is copied for each call, and the copy's submodules get classes that name what they return.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import flax.struct
import jax

from jaxnn._adapter_parts import (
    Compared,
    Static,
    check_flag,
    check_hashable,
    evaluation,
    in_batch,
    is_array,
    kind_of,
    name_arrays,
    name_arrays_in_batch,
    name_equinox,
    naming_class,
    split,
)
from jaxnn._model import Held

if TYPE_CHECKING:
    from equinox import Module as EquinoxModule
    from flax.nnx import Module as NNXModule

_FLAX_EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}
_EQUINOX_EVALUATION = {"train": False, "training": False, "inference": True}


@flax.struct.dataclass
class LinenModel:
    """A Flax Linen module and its variables as a model of one example; made by `from_linen`.

    Attributes:
        params: the collection "params".
        held: the other collections, and the arrays among the keyword arguments; not trained.
    """

    params: Any
    held: Held
    module: Compared = flax.struct.field(pytree_node=False)
    method: Any = flax.struct.field(pytree_node=False)
    static: Static = flax.struct.field(pytree_node=False)
    batched: bool = flax.struct.field(pytree_node=False)

    def __call__(self, x: Any) -> Any:
        """The module's answer in evaluation mode, each submodule's output tapped by its path."""
        collections, keywords = self.static.join(self.held.value)
        named = name_arrays_in_batch if self.batched else name_arrays

        def name_output(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            output = method(*args, **kwargs)
            if context.method_name != "__call__" or not context.module.path:
                return output
            return named(output, "/".join(context.module.path))

        def ask(x: Any) -> Any:
            with nn.intercept_methods(name_output):
                variables = {"params": self.params, **collections}
                return self.module.it.apply(variables, x, method=self.method, **keywords)

        return in_batch(ask, x) if self.batched else ask(x)


def from_linen(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    method: str | Callable[..., Any] | None = None,
    batched: bool = False,
    **kwargs: Any,
) -> LinenModel:
    """Make a model of one example out of a Flax Linen module and its variables.

    It answers `module.apply(variables, x, **kwargs)` in evaluation mode: where the module, or the call of it,
    takes `train`, `training` or `is_training`, that is False, and `deterministic` and
    `use_running_average` are True, unless `kwargs` says otherwise. Nothing is mutated. What each submodule's
    `__call__` returns is named by the submodule's path, such as `"encoder/Dense_1"`, for `jaxnn.capture` and
    `jaxnn.intervene`.

    `jaxnn.train` trains the collection `"params"`; the others, such as batch statistics, stay as they are.

    Args:
        module: a Linen module, not bound to variables.
        variables: its collections, `{"params": ..., "batch_stats": ..., ...}`.
        method: what to call, a method or its name; None for `__call__`.
        batched: whether the module insists on a batch axis: an axis of one is put before each array of the
            input, and taken from the answer and from what is named (where it has one).
        kwargs: keyword arguments of the call, such as `mask`, and `rngs`. Arrays among them are leaves, not
            trained.

    Returns:
        A callable pytree. It and another of an equal module, with arrays of the same shapes, are one to the
        compiler.

    Raises:
        TypeError: `module` is not a Linen module or cannot be hashed (it has an array for an attribute),
            `variables` is not a dictionary of collections, or a keyword argument is neither an array nor
            hashable.
        ValueError: `module` is bound, has no such method, or `kwargs` asks to mutate or to capture.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxnn
        >>> module = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
        >>> model = jaxnn.from_linen(module, module.init(jax.random.key(0), jnp.ones(3)))
        >>> y, values = jaxnn.capture(model, jnp.ones(3))
        >>> {name: value.shape for name, value in values.items()}
        {'layers_0': (4,), 'layers_2': (2,)}
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"`module` must be a Flax Linen module; got {kind_of(module)}")
    if module.scope is not None:
        raise ValueError("`module` must not be bound: pass both parts of module.unbind()")
    if not isinstance(variables, Mapping) or not all(_is_collection(c) for c in variables.values()):
        raise TypeError(
            f'`variables` must be a dictionary of collections, {{"params": ...}}; got {kind_of(variables)}'
        )
    if refused := kwargs.keys() & {"mutable", "capture_intermediates"}:
        raise ValueError(f"`kwargs` must not hold {min(refused)!r}: nothing is mutated; see jaxnn.capture")
    called = (
        getattr(type(module), method, None) if isinstance(method, str) else method or type(module).__call__
    )
    if not callable(called):
        raise ValueError(f"`method` must be a method of {type(module).__name__} or its name; got {method!r}")
    switches = _switches(module)
    taken = evaluation(called, _FLAX_EVALUATION)
    keywords = {name: value for name, value in taken.items() if name not in switches} | kwargs
    collections = dict(variables)
    params = collections.pop("params", {})
    held, static = split("kwargs", (collections, keywords))
    clone: Any = module.clone
    compared = Compared.of(clone(**switches))
    return LinenModel(params, Held(held), compared, method, static, check_flag("batched", batched))


def _is_collection(value: Any) -> bool:
    return isinstance(value, Mapping)


def _switches(module: nn.Module) -> dict[str, bool]:
    """The module's own attributes that switch between training and evaluation, as they are in evaluation."""
    return {
        name: value
        for name, value in _FLAX_EVALUATION.items()
        if name in type(module).__dataclass_fields__ and isinstance(getattr(module, name), bool)
    }


@flax.struct.dataclass
class NNXModel:
    """A Flax NNX module as a model of one example; made by `from_nnx`.

    Attributes:
        params: the state of its `nnx.Param`s.
        held: all its other state, and the arrays among the keyword arguments; not trained.
    """

    params: Any
    held: Held
    graph: Any = flax.struct.field(pytree_node=False)
    static: Static = flax.struct.field(pytree_node=False)
    batched: bool = flax.struct.field(pytree_node=False)

    def __call__(self, x: Any) -> Any:
        """The module's answer in evaluation mode, each submodule's output tapped by its path."""
        from flax import nnx

        rest, keywords = self.static.join(self.held.value)
        named = name_arrays_in_batch if self.batched else name_arrays
        params = jax.tree.map(lambda leaf: leaf, self.params)  # made in this trace, or NNX would refuse them
        module = nnx.merge(self.graph, params, rest)
        for path, part in list(nnx.iter_modules(module)):
            if path and callable(part):
                kind = naming_class(type(part), "/".join(map(str, path)), named)
                object.__setattr__(part, "__class__", kind)  # the module is ours, made just now

        def ask(x: Any) -> Any:
            return module(x, **keywords)

        return in_batch(ask, x) if self.batched else ask(x)


def from_nnx(module: "NNXModule", *, batched: bool = False, **kwargs: Any) -> NNXModel:
    """Make a model of one example out of a Flax NNX module.

    It answers `module(x, **kwargs)` in evaluation mode, `module.eval()`, with the state that the module has
    now; the module stays as it is. Where the call takes `train`, `training` or `is_training`, that is False,
    and `deterministic` and `use_running_average` are True, unless `kwargs` says otherwise. State that changes
    in a call, such as a count, is the same again in the next. What each submodule's `__call__` returns is
    named by the submodule's path, such as `"encoder/layers/1"`, for `jaxnn.capture` and `jaxnn.intervene`;
    one that stands in several places has the path of the first.

    `jaxnn.train` trains every `nnx.Param`, one that is shared as one; running statistics and all other state
    stay as they are.

    Args:
        module: an NNX module.
        batched: whether the module insists on a batch axis: an axis of one is put before each array of the
            input, and taken from the answer and from what is named (where it has one).
        kwargs: keyword arguments of the call. Arrays among them are leaves, not trained.

    Returns:
        A callable pytree. It and another of a module built alike are one to the compiler.

    Raises:
        TypeError: `module` is not a callable NNX module, or a keyword argument is neither an array nor
            hashable.

    Example:
        >>> import jax.numpy as jnp, jaxnn
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> module = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs))
        >>> y, values = jaxnn.capture(jaxnn.from_nnx(module), jnp.ones(3))
        >>> {name: value.shape for name, value in values.items()}
        {'layers/0': (4,), 'layers/2': (2,)}
    """
    from flax import nnx

    if not isinstance(module, nnx.Module) or not callable(module):
        raise TypeError(f"`module` must be a Flax NNX module with a __call__; got {kind_of(module)}")
    copy = nnx.clone(module)
    copy.eval()
    split_state: Any = nnx.split  # typed for one filter
    graph, params, rest = split_state(copy, nnx.Param, ...)
    held, static = split("kwargs", (rest, evaluation(type(module).__call__, _FLAX_EVALUATION) | kwargs))
    check_hashable("module", graph)
    return NNXModel(params, Held(held), graph, static, check_flag("batched", batched))


@flax.struct.dataclass
class EquinoxModel:
    """An Equinox module as a model of one example; made by `from_equinox`.

    Attributes:
        arrays: the module with its arrays alone.
        held: the state of its stateful layers, and the arrays among the keyword arguments; not trained.
    """

    arrays: Any
    held: Held
    rest: Static = flax.struct.field(pytree_node=False)
    static: Static = flax.struct.field(pytree_node=False)

    def __call__(self, x: Any) -> Any:
        """The module's answer in inference mode, each submodule's output tapped by its path."""
        import equinox

        state, keywords = self.static.join(self.held.value)
        module = _naming_equinox(equinox.combine(self.arrays, self.rest.join(())), ())
        return module(x, **keywords) if state is None else module(x, state, **keywords)[0]


def from_equinox(module: "EquinoxModule", state: Any = None, **kwargs: Any) -> EquinoxModel:
    """Make a model of one example out of an Equinox module.

    It answers `module(x, **kwargs)` in inference mode, `equinox.nn.inference_mode(module)`; with a state,
    `module(x, state, **kwargs)[0]`, the new state being let go. Where the call takes `train` or `training`,
    that is False, and `inference` is True, unless `kwargs` says otherwise. Functions and other leaves
    that are no arrays are compiled in. What each submodule's `__call__` returns is named by the submodule's
    path, such as `"encoder/layers/1"`, for `jaxnn.capture` and `jaxnn.intervene`.

    `jaxnn.train` trains every floating-point array of the module, as is Equinox's way; the state stays as it
    is.

    Args:
        module: an Equinox module of one example, as they are.
        state: the `equinox.nn.State` of its stateful layers, such as `BatchNorm`, from
            `equinox.nn.make_with_state` or from training; None where it has none.
        kwargs: keyword arguments of the call, such as `key`. Arrays among them are leaves, not trained.

    Returns:
        A callable pytree. It and another of a module built alike are one to the compiler.

    Raises:
        TypeError: `module` is not a callable Equinox module, `state` is no state, or a leaf or keyword
            argument is neither an array nor hashable.
        ValueError: the module has stateful layers, and `state` is None.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, jaxnn
        >>> module = eqx.nn.MLP(3, 2, width_size=4, depth=1, key=jax.random.key(0))
        >>> y, values = jaxnn.capture(jaxnn.from_equinox(module), jnp.ones(3))
        >>> {name: value.shape for name, value in values.items()}
        {'layers/0': (4,), 'layers/1': (2,)}
    """
    import equinox

    if not isinstance(module, equinox.Module) or not callable(module):
        raise TypeError(f"`module` must be an Equinox module with a __call__; got {kind_of(module)}")
    if state is not None and not isinstance(state, equinox.nn.State):
        raise TypeError(f"`state` must be an equinox.nn.State; got {kind_of(state)}")
    nodes = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, equinox.nn.StateIndex))
    if state is None and any(isinstance(node, equinox.nn.StateIndex) for node in nodes):
        raise ValueError(
            "`state` is needed, as the module has stateful layers; see equinox.nn.make_with_state"
        )
    quiet = equinox.nn.inference_mode(module)
    arrays, rest = equinox.partition(quiet, is_array)
    check_hashable("module", jax.tree.structure(arrays))
    keywords = evaluation(type(module).__call__, _EQUINOX_EVALUATION) | kwargs
    held, static = split("kwargs", (state, keywords))
    return EquinoxModel(arrays, Held(held), split("module", rest)[1], static)


def _naming_equinox(node: Any, path: tuple[str, ...]) -> Any:
    """A copy of an Equinox module whose submodules are of classes that name what they return."""
    import equinox

    children, structure = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda part: part is not node and isinstance(part, equinox.Module)
    )
    parts = [
        _naming_equinox(part, (*path, jax.tree_util.keystr(place, simple=True, separator="/")))
        if isinstance(part, equinox.Module)
        else part
        for place, part in children
    ]
    copy = jax.tree.unflatten(structure, parts)
    if path and callable(copy):
        kind: Any = type(copy)
        object.__setattr__(copy, "__class__", naming_class(kind, "/".join(path), name_equinox))
    return copy
