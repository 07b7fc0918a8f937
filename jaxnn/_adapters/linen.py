"""Adapter for Flax Linen modules: calls are intercepted, and each submodule's output is named by its path."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct

from jaxnn._adapters import common
from jaxnn._checks import check_flag
from jaxnn._engine.tap import module_scope
from jaxnn._model import Frozen
from jaxnn._repr import short_repr
from jaxnn._typing import PyTree

_LAYER = re.compile(r"_\d+$")  # at the end of the names that Linen gives to layers, and not to collections


@flax.struct.dataclass
class LinenModel:
    """A Flax Linen module and its variables as a model of one example; made by `from_linen`.

    Attributes:
        params: the collection "params".
        frozen: the other collections, and the arrays among the keyword arguments; not trained.
    """

    params: PyTree
    frozen: Frozen
    module: common.HashableModule = flax.struct.field(pytree_node=False)
    method: str | Callable[..., Any] | None = flax.struct.field(pytree_node=False)
    static: common.Static = flax.struct.field(pytree_node=False)
    batched: bool = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """The module's output in evaluation mode, each submodule's output tapped by its path."""
        collections, keywords = self.static.join(self.frozen)

        def name_output(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name != "__call__" or not context.module.path:
                return method(*args, **kwargs)
            path = "/".join(context.module.path)
            with module_scope(path):
                return common.NAMERS[self.batched](method(*args, **kwargs), path)

        def apply(x: PyTree) -> PyTree:
            with nn.intercept_methods(name_output):
                variables = {"params": self.params, **collections}
                return self.module.module.apply(variables, x, method=self.method, **keywords)

        return common.call_one(apply, x, batched=self.batched)


def from_linen(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    method: str | Callable[..., Any] | None = None,
    batched: bool = False,
    **kwargs: Any,
) -> LinenModel:
    """Flax Linen adapter: make a model of one example from a module and its variables.

    The model computes `module.apply(variables, x, **kwargs)` in evaluation mode. If the module, or its call,
    has the parameters `train`, `training`, `is_train` or `is_training`, they are False, and `test`, `eval`,
    `inference`, `deterministic` and `use_running_average` are True, unless `kwargs` sets them. Nothing is
    mutated. The output of each submodule's `__call__` is named by the submodule's path, such as
    `"encoder/Dense_1"`, for `jaxnn.capture` and `jaxnn.intervene`.

    `jaxnn.train` trains the collection `"params"`; the others, such as batch statistics, are frozen.

    Args:
        module: an unbound Linen module.
        variables: its collections, `{"params": ..., "batch_stats": ..., ...}`.
        method: the method to call, or its name; None for `__call__`.
        batched: whether the module requires a batch axis: an axis of one is inserted before each array of
            the input, and removed from the output and from named arrays (where they have one).
        kwargs: keyword arguments of the call, such as `mask`, and `rngs`. Arrays among them are leaves, not
            trained.

    Returns:
        A callable pytree. Models built from equal modules with equal shapes share one compilation.

    Raises:
        TypeError: `module` is not a Linen module or cannot be hashed (an attribute is an array),
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
        raise TypeError(f"`module` must be a Flax Linen module; got {common.describe(module)}")
    if module.scope is not None:
        raise ValueError("`module` must not be bound: pass both parts of module.unbind()")
    if not isinstance(variables, Mapping) or not all(isinstance(c, Mapping) for c in variables.values()):
        raise TypeError(
            '`variables` must be a dictionary of collections, {"params": ...}; got '
            f"{common.describe(variables)}"
        )
    if "params" not in variables and any(_LAYER.search(name) for name in variables):
        raise ValueError(
            '`variables` must have the collection "params"; got the keys '
            f'{", ".join(sorted(variables))}. Pass {{"params": params}}, as module.init returns it'
        )
    if refused := kwargs.keys() & {"mutable", "capture_intermediates"}:
        raise ValueError(f"`kwargs` must not hold {min(refused)!r}: nothing is mutated; see jaxnn.capture")
    named = "__call__" if method is None else method
    function = getattr(type(module), named, None) if isinstance(named, str) else named
    if not callable(function):
        raise ValueError(f"`method` must be a method of {type(module).__name__} or its name; got {method!r}")
    switches = _switches(module)
    evaluation = common.evaluation_keywords(function, common.FLAX_EVALUATION)
    keywords = {name: value for name, value in evaluation.items() if name not in switches} | kwargs
    collections = dict(variables)
    params = collections.pop("params", {})
    frozen, static = common.freeze("kwargs", (collections, keywords))
    clone: Any = module.clone
    hashable = common.HashableModule.wrap(clone(**switches))
    return LinenModel(params, frozen, hashable, method, static, check_flag("batched", batched))


def _switches(module: nn.Module) -> dict[str, bool]:
    """The module's attributes that select training or evaluation, with their values for evaluation."""
    return {
        name: value
        for name, value in common.FLAX_EVALUATION.items()
        if name in type(module).__dataclass_fields__ and isinstance(getattr(module, name), bool)
    }
