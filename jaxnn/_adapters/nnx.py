"""Adapter for Flax NNX modules: each call runs a copy whose submodules name what they return."""

from typing import TYPE_CHECKING, Any

import flax.struct
import jax

from jaxnn._adapters.common import (
    FLAX_EVALUATION,
    Static,
    check_hashable,
    evaluation,
    in_batch,
    kind_of,
    name_arrays,
    name_arrays_in_batch,
    naming_class,
    split,
)
from jaxnn._checks import check_flag
from jaxnn._model import Frozen

if TYPE_CHECKING:
    from flax.nnx import Module as NNXModule


@flax.struct.dataclass
class NNXModel:
    """A Flax NNX module as a model of one example; made by `from_nnx`.

    Attributes:
        params: the state of its `nnx.Param`s.
        held: all its other state, and the arrays among the keyword arguments; not trained.
    """

    params: Any
    held: Frozen
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
    held, static = split("kwargs", (rest, evaluation(type(module).__call__, FLAX_EVALUATION) | kwargs))
    check_hashable("module", graph)
    return NNXModel(params, Frozen(held), graph, static, check_flag("batched", batched))
