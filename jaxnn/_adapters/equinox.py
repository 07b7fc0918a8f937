"""Adapter for Equinox modules: each call runs a copy whose submodules name what they return."""

from typing import TYPE_CHECKING, Any

import flax.struct
import jax

from jaxnn._adapters.common import (
    Static,
    check_hashable,
    evaluation,
    is_array,
    kind_of,
    name_equinox,
    naming_class,
    split,
)
from jaxnn._model import Frozen

if TYPE_CHECKING:
    from equinox import Module as EquinoxModule

_EVALUATION = {"train": False, "training": False, "inference": True}


@flax.struct.dataclass
class EquinoxModel:
    """An Equinox module as a model of one example; made by `from_equinox`.

    Attributes:
        arrays: the module with its arrays alone.
        held: the state of its stateful layers, and the arrays among the keyword arguments; not trained.
    """

    arrays: Any
    held: Frozen
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
    keywords = evaluation(type(module).__call__, _EVALUATION) | kwargs
    held, static = split("kwargs", (state, keywords))
    return EquinoxModel(arrays, Frozen(held), split("module", rest)[1], static)


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
