"""Shared parts of the adapters: classes that name their outputs, evaluation mode, and static parts."""

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._engine.tap import BATCHED, module_scope, tap_one
from jaxnn._keys import key_data, key_impl, wrap_key
from jaxnn._model import Frozen
from jaxnn._rewrite import tap
from jaxnn._typing import PyTree

# Evaluation mode in Flax, as attributes and as keyword arguments.
FLAX_EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "is_train": False,
    "test": True,
    "eval": True,
    "inference": True,
    "deterministic": True,
    "use_running_average": True,
}


@functools.cache
def naming_class(cls: Any, name: str, namer: Callable[[PyTree, str], PyTree]) -> type:
    """A subclass that names the outputs of its instances.

    The name belongs to the class, so it survives everything that flattens and rebuilds a module: jit, scan,
    vmap and the frameworks' own forms of them.
    """

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        with module_scope(name):
            return namer(cls.__call__(self, *args, **kwargs), name)

    copied = ("__module__", "__qualname__", "__doc__")
    body = {"__call__": __call__} | {key: getattr(cls, key) for key in copied}
    is_pytree = getattr(cls, "_pytree__is_pytree", None)  # NNX requires it of each class
    options = {} if is_pytree is None else {"pytree": is_pytree}
    return types.new_class(cls.__name__, (cls,), options, lambda namespace: namespace.update(body))


def name_arrays(output: PyTree, name: str, *, batched: bool = False) -> PyTree:
    """Tap the arrays that a submodule returned; those in a tuple or a dictionary by their place in it.

    Args:
        output: of the submodule.
        name: its path.
        batched: whether to tap arrays without their batch axis of one.
    """

    def tap_leaf(place: Any, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        return (tap_one if batched else tap)(leaf, name + jax.tree_util.keystr(place))

    return jax.tree_util.tree_map_with_path(tap_leaf, output)


NAMERS: dict[bool, Callable[[PyTree, str], PyTree]] = {  # by `batched`
    False: name_arrays,
    True: functools.partial(name_arrays, batched=True),
}


def name_equinox(output: PyTree, name: str) -> PyTree:
    """Like `name_arrays`, but skip a returned `eqx.nn.State` and any returned modules."""
    import equinox

    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], equinox.nn.State):
        return name_equinox(output[0], name), output[1]
    skipped = equinox.Module | equinox.nn.State
    nodes = jax.tree.leaves(output, is_leaf=lambda node: isinstance(node, skipped))
    return output if any(isinstance(node, skipped) for node in nodes) else name_arrays(output, name)


def call_one(
    call: Callable[[PyTree], PyTree], x: PyTree, *, batched: bool, needs: str = "`batched` needs a module"
) -> PyTree:
    """Call a module on one example; if `batched`, with a batch axis of one, removed from its output.

    Args:
        call: the module.
        x: the example.
        batched: whether the module requires a batch axis.
        needs: the beginning of the error for an output without a batch axis.
    """
    with jax.named_scope(BATCHED) if batched else contextlib.nullcontext(), module_scope(""):
        return _call_one(call, x, batched, needs)


def _call_one(call: Callable[[PyTree], PyTree], x: PyTree, batched: bool, needs: str) -> PyTree:
    if not batched:
        return call(x)

    def squeeze(leaf: Any) -> jax.Array:
        if jnp.shape(leaf)[:1] != (1,):
            raise ValueError(
                f"{needs} whose output has the batch axis of one of its input; got an output of shape "
                f"{jnp.shape(leaf)}"
            )
        return jnp.squeeze(leaf, 0)

    return jax.tree.map(squeeze, call(jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), x)))


def evaluation_keywords(call: Callable[..., Any], switches: Mapping[str, bool]) -> dict[str, Any]:
    """The switches that a call has as keyword parameters."""
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):  # written in C
        return {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {k: v for k, v in switches.items() if k in parameters and parameters[k].kind in by_name}


@dataclasses.dataclass(frozen=True)
class HashableModule:
    """A Linen module, compared by its attributes, which may be lists and dictionaries."""

    module: nn.Module = dataclasses.field(compare=False)
    attributes: Any

    @classmethod
    def wrap(cls, module: nn.Module) -> "HashableModule":
        hashable = cls(module, _comparable(module))
        check_hashable("module", hashable)
        return hashable


def _comparable(value: Any) -> Any:
    if isinstance(value, nn.Module):
        names = (field.name for field in dataclasses.fields(value) if field.name != "parent")
        return type(value), tuple((name, _comparable(getattr(value, name))) for name in names)
    if isinstance(value, Mapping):
        return type(value), tuple((key, _comparable(element)) for key, element in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_comparable, value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(_comparable, value))
    return type(value), value  # with its type, as 1, 1.0 and True are equal


class Static(NamedTuple):
    """A pytree without its arrays: static, comparable and hashable.

    Attributes:
        structure: of the pytree.
        leaves: for each, `("array", implementation of random keys or None)` or `("static", type, value)`.
    """

    structure: jax.tree_util.PyTreeDef
    leaves: tuple[tuple[Any, ...], ...]

    def join(self, frozen: Frozen) -> Any:
        """The pytree with its arrays."""
        arrays = iter(frozen.value)
        leaves = [
            wrap_key(next(arrays), known[0]) if kind == "array" else known[1] for kind, *known in self.leaves
        ]
        return jax.tree.unflatten(self.structure, leaves)


def freeze(argument: str, tree: PyTree) -> tuple[Frozen, Static]:
    """Split a pytree into its arrays, random keys as integers, and the rest."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = tuple(key_data(leaf) for leaf in leaves if is_array(leaf))
    known = (("array", key_impl(leaf)) if is_array(leaf) else ("static", type(leaf), leaf) for leaf in leaves)
    static = Static(structure, tuple(known))
    check_hashable(argument, static)
    return Frozen(arrays), static


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX or NumPy."""
    return isinstance(leaf, jax.Array | np.ndarray)


def check_hashable(argument: str, static: Any) -> None:
    """Raise unless a static part can be hashed."""
    try:
        hash(static)
    except TypeError as error:
        raise TypeError(
            f"`{argument}` must hold arrays where the framework holds its parameters, and otherwise hashable "
            f"values, which are static; {error}"
        ) from error


def describe(value: Any) -> str:
    """The type of a value, for an error."""
    return f"the class {value.__name__}, not made yet" if isinstance(value, type) else type(value).__name__
