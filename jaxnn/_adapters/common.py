"""What the adapters are made of: classes that name what they return, evaluation mode, and static parts."""

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

from jaxnn._checks import is_key
from jaxnn._rewrite import tap

# How Flax spells evaluation mode, as attributes and as keyword arguments.
FLAX_EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}


@functools.cache
def naming_class(cls: Any, name: str, named: Callable[[Any, str], Any]) -> type:
    """A subclass that names what its instances return.

    The name is the class's, so it stays with the module through whatever takes it apart and puts it together
    again: jit, scan, vmap and the frameworks' own forms of them.
    """

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        return named(cls.__call__(self, *args, **kwargs), name)

    kept = ("__module__", "__qualname__", "__doc__")
    body = {"__call__": __call__} | {key: getattr(cls, key) for key in kept}
    is_pytree = getattr(cls, "_pytree__is_pytree", None)  # which NNX asks of each class anew
    options = {} if is_pytree is None else {"pytree": is_pytree}
    return types.new_class(cls.__name__, (cls,), options, lambda namespace: namespace.update(body))


def name_arrays(output: Any, name: str) -> Any:
    """What a submodule returned, its arrays tapped; those of a tuple or a dictionary by their place in it."""

    def named(place: Any, leaf: Any) -> Any:
        return tap(leaf, name + jax.tree_util.keystr(place)) if isinstance(leaf, jax.Array) else leaf

    return jax.tree_util.tree_map_with_path(named, output)


def name_arrays_in_batch(output: Any, name: str) -> Any:
    """Likewise, a batch axis of one being left out of what is tapped."""

    def named(place: Any, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.shape[:1] != (1,):
            return name_arrays(leaf, name + jax.tree_util.keystr(place))
        one = tap(jnp.squeeze(leaf, 0), name + jax.tree_util.keystr(place))
        return jnp.expand_dims(one, 0)

    return jax.tree_util.tree_map_with_path(named, output)


def name_equinox(output: Any, name: str) -> Any:
    """Likewise, without a new state that comes with it; modules that are returned are no values."""
    import equinox

    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], equinox.nn.State):
        return name_equinox(output[0], name), output[1]
    kept = equinox.Module | equinox.nn.State
    nodes = jax.tree.leaves(output, is_leaf=lambda node: isinstance(node, kept))
    return output if any(isinstance(node, kept) for node in nodes) else name_arrays(output, name)


def in_batch(ask: Callable[[Any], Any], x: Any) -> Any:
    """Ask with a batch axis of one, and take it from the answer."""

    def without(leaf: Any) -> jax.Array:
        if jnp.shape(leaf)[:1] != (1,):
            raise ValueError(
                "`batched` needs a module that answers with the batch axis of one that it was given; got an "
                f"answer of shape {jnp.shape(leaf)}"
            )
        return jnp.squeeze(leaf, 0)

    return jax.tree.map(without, ask(jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), x)))


def evaluation(call: Callable[..., Any], switches: Mapping[str, bool]) -> dict[str, Any]:
    """Those of the switches that a call takes by name."""
    try:
        taken = inspect.signature(call).parameters
    except (TypeError, ValueError):  # written in C
        return {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {k: v for k, v in switches.items() if k in taken and taken[k].kind in by_name}


@dataclasses.dataclass(frozen=True)
class HashableModule:
    """A Linen module, equal to those made of the same parts, be there lists and dictionaries among them."""

    module: nn.Module = dataclasses.field(compare=False)
    parts: Any

    @classmethod
    def wrap(cls, module: nn.Module) -> "HashableModule":
        compared = cls(module, _parts(module))
        check_hashable("module", compared)
        return compared


def _parts(value: Any) -> Any:
    if isinstance(value, nn.Module):
        names = (field.name for field in dataclasses.fields(value) if field.name != "parent")
        return type(value), tuple((name, _parts(getattr(value, name))) for name in names)
    if isinstance(value, Mapping):
        return type(value), tuple((key, _parts(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_parts, value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(_parts, value))
    return type(value), value  # 1, 1.0 and True are equal, but no more than that


class Static(NamedTuple):
    """A pytree without its arrays: what is known when compiling, comparable and hashable."""

    structure: Any
    leaves: tuple[tuple[Any, ...], ...]  # ("array",), ("key", implementation) or ("static", type, value)

    def join(self, arrays: tuple[Any, ...]) -> Any:
        """The pytree with its arrays."""
        coming = iter(arrays)
        leaves = []
        for kind, *known in self.leaves:
            if kind == "static":
                leaves.append(known[1])
            elif kind == "key":
                leaves.append(jax.random.wrap_key_data(next(coming), impl=known[0]))
            else:
                leaves.append(next(coming))
        return jax.tree.unflatten(self.structure, leaves)


def split(argument: str, tree: Any) -> tuple[tuple[Any, ...], Static]:
    """The arrays of a pytree, random keys as the numbers they are made of, and the rest."""
    leaves, structure = jax.tree.flatten(tree)
    arrays: list[Any] = []
    known: list[tuple[Any, ...]] = []
    for leaf in leaves:
        if not is_array(leaf):
            known.append(("static", type(leaf), leaf))  # with its type, as 1, 1.0 and True are equal
        elif is_key(leaf):
            arrays.append(jax.random.key_data(leaf))
            known.append(("key", jax.random.key_impl(leaf)))
        else:
            arrays.append(leaf)
            known.append(("array",))
    static = Static(structure, tuple(known))
    check_hashable(argument, static)
    return tuple(arrays), static


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, of JAX or NumPy."""
    return isinstance(leaf, jax.Array | np.ndarray)


def check_hashable(argument: str, static: Any) -> None:
    """Raise unless what is compiled in can be hashed."""
    try:
        hash(static)
    except TypeError as error:
        raise TypeError(
            f"`{argument}` must hold arrays where the framework holds its parameters, and otherwise what can "
            f"be hashed, being compiled in; {error}"
        ) from error


def kind_of(value: Any) -> str:
    """What a value is, for an error to say."""
    return f"the class {value.__name__}, not made yet" if isinstance(value, type) else type(value).__name__
