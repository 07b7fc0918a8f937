"""Adapter for Flax NNX modules: each call runs a copy whose submodules name their outputs."""

import functools
from typing import TYPE_CHECKING, Any

import flax.struct
import jax

from jaxnn._adapters import common
from jaxnn._checks import check_flag
from jaxnn._model import Frozen
from jaxnn._repr import short_repr
from jaxnn._typing import PyTree

if TYPE_CHECKING:
    from flax.nnx import Module as NNXModule


@flax.struct.dataclass
class NNXModel:
    """A Flax NNX module as a model of one example; made by `from_nnx`.

    Attributes:
        params: the state of its `nnx.Param`s.
        frozen: all its other state, and the arrays among the keyword arguments; not trained.
    """

    params: PyTree
    frozen: Frozen
    graph: Any = flax.struct.field(pytree_node=False)
    static: common.Static = flax.struct.field(pytree_node=False)
    batched: bool = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """The module's output in evaluation mode, each submodule's output tapped by its path."""
        from flax import nnx

        rest, keywords = self.static.join(self.frozen)
        params = jax.tree.map(lambda leaf: leaf, self.params)  # created in this trace, as NNX requires
        module = nnx.merge(self.graph, params, rest)
        for path, part in list(nnx.iter_modules(module)):
            if path and callable(part):
                kind = common.naming_class(type(part), "/".join(map(str, path)), common.NAMERS[self.batched])
                object.__setattr__(part, "__class__", kind)  # the module is a new copy
        return common.call_one(functools.partial(module, **keywords), x, batched=self.batched)


def from_nnx(module: "NNXModule", *, batched: bool = False, **kwargs: Any) -> NNXModel:
    """Flax NNX adapter: make a model of one example from a module.

    The model computes `module(x, **kwargs)` in evaluation mode, `module.eval()`, with the present state of
    the module, which is not changed. If the call has parameters `train`, `training`, `is_train` or
    `is_training`, they are False, and `test`, `eval`, `inference`, `deterministic` and `use_running_average`
    are True, unless `kwargs` sets them. State that changes in a call, such as a count, is reset for the
    next. The output of each submodule's `__call__` is named by the submodule's path, such as
    `"encoder/layers/1"`, for `jaxnn.capture` and `jaxnn.intervene`. A submodule in several places has the
    path of the first.

    `jaxnn.train` trains every `nnx.Param`, a shared one as one. Running statistics and all other state are
    frozen.

    Args:
        module: an NNX module.
        batched: whether the module requires a batch axis: an axis of one is inserted before each array of
            the input, and removed from the output and from named arrays (where they have one).
        kwargs: keyword arguments of the call. Arrays among them are leaves, not trained.

    Returns:
        A callable pytree. Models built from equal modules with equal shapes share one compilation.

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
        raise TypeError(f"`module` must be a Flax NNX module with a __call__; got {common.describe(module)}")
    copy = nnx.clone(module)
    copy.eval()
    split_state: Any = nnx.split  # typed for one filter
    graph, params, rest = split_state(copy, nnx.Param, ...)
    keywords = common.evaluation_keywords(type(module).__call__, common.FLAX_EVALUATION) | kwargs
    frozen, static = common.freeze("kwargs", (rest, keywords))
    common.check_hashable("module", graph)
    return NNXModel(params, frozen, graph, static, check_flag("batched", batched))
