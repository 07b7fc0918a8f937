"""Adapter for Equinox modules: each call runs a copy whose submodules name their outputs."""

import functools
from typing import TYPE_CHECKING, Any

import flax.struct
import jax

from jaxnn._adapters import common
from jaxnn._checks import require
from jaxnn._model import Frozen
from jaxnn._repr import short_repr
from jaxnn._typing import PyTree

if TYPE_CHECKING:
    from equinox import Module as EquinoxModule

_EVALUATION = {"train": False, "training": False, "inference": True}


@flax.struct.dataclass
class EquinoxModel:
    """An Equinox module as a model of one example; made by `from_equinox`.

    Attributes:
        arrays: the module with its arrays alone.
        frozen: the state of its stateful layers, and the arrays among the keyword arguments; not trained.
    """

    arrays: PyTree
    frozen: Frozen
    rest: common.Static = flax.struct.field(pytree_node=False)
    static: common.Static = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """The module's output in inference mode, each submodule's output tapped by its path."""
        import equinox

        state, keywords = self.static.join(self.frozen)
        module = _naming_equinox(equinox.combine(self.arrays, self.rest.join(Frozen(()))), ())
        if state is None:
            return common.call_one(functools.partial(module, **keywords), x, batched=False)
        return common.call_one(lambda x: module(x, state, **keywords)[0], x, batched=False)


def from_equinox(module: "EquinoxModule", state: Any = None, **kwargs: Any) -> EquinoxModel:
    """Equinox adapter: make a model of one example from a module.

    The model computes `module(x, **kwargs)` in inference mode, `equinox.nn.inference_mode(module)`; with a
    state, `module(x, state, **kwargs)[0]`, and the new state is discarded. If the call has the parameters
    `train` or `training`, they are False, and `inference` is True, unless `kwargs` sets them. Functions and
    other leaves that are not arrays are static. The output of each submodule's `__call__` is named by the
    submodule's path, such as `"encoder/layers/1"`, for `jaxnn.capture` and `jaxnn.intervene`.

    `jaxnn.train` trains every floating-point array of the module, as usual in Equinox; the state is frozen.

    Args:
        module: an Equinox module of one example.
        state: the `equinox.nn.State` of its stateful layers, such as `BatchNorm`, from
            `equinox.nn.make_with_state` or from training; None where it has none.
        kwargs: keyword arguments of the call, such as `key`. Arrays among them are leaves, not trained.

    Returns:
        A callable pytree. Models built from equal modules with equal shapes share one compilation.

    Raises:
        ImportError: Equinox is not installed.
        TypeError: `module` is not a callable Equinox module, `state` is not a state, or a leaf or keyword
            argument is neither an array nor hashable.
        ValueError: the module has stateful layers, and `state` is None.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, jaxnn
        >>> module = eqx.nn.MLP(3, 2, width_size=4, depth=1, key=jax.random.key(0))
        >>> y, values = jaxnn.capture(jaxnn.from_equinox(module), jnp.ones(3))
        >>> {name: value.shape for name, value in values.items()}
        {'layers/0': (4,), 'layers/1': (2,)}
    """
    equinox = require("equinox", "`from_equinox`", "equinox")
    if not isinstance(module, equinox.Module) or not callable(module):
        raise TypeError(f"`module` must be an Equinox module with a __call__; got {common.describe(module)}")
    if state is not None and not isinstance(state, equinox.nn.State):
        raise TypeError(f"`state` must be an equinox.nn.State; got {common.describe(state)}")
    nodes = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, equinox.nn.StateIndex))
    if state is None and any(isinstance(node, equinox.nn.StateIndex) for node in nodes):
        raise ValueError(
            "`state` is needed, as the module has stateful layers; see equinox.nn.make_with_state"
        )
    arrays, rest = equinox.partition(equinox.nn.inference_mode(module), common.is_array)
    common.check_hashable("module", jax.tree.structure(arrays))
    keywords = common.evaluation_keywords(type(module).__call__, _EVALUATION) | kwargs
    frozen, static = common.freeze("kwargs", (state, keywords))
    return EquinoxModel(arrays, frozen, common.freeze("module", rest)[1], static)


def _naming_equinox(node: Any, path: tuple[str, ...]) -> Any:
    """A copy of an Equinox module whose submodules have classes that name their outputs."""
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
        object.__setattr__(copy, "__class__", common.naming_class(kind, "/".join(path), common.name_equinox))
    return copy
