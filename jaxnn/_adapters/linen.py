"""Adapter for Flax Linen modules: calls are intercepted, and each submodule's output is named by its path."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct

from jaxnn._adapters.common import (
    FLAX_EVALUATION,
    HashableModule,
    Static,
    evaluation,
    in_batch,
    kind_of,
    name_arrays,
    name_arrays_in_batch,
    split,
)
from jaxnn._checks import check_flag
from jaxnn._model import Frozen


@flax.struct.dataclass
class LinenModel:
    """A Flax Linen module and its variables as a model of one example; made by `from_linen`.

    Attributes:
        params: the collection "params".
        held: the other collections, and the arrays among the keyword arguments; not trained.
    """

    params: Any
    held: Frozen
    module: HashableModule = flax.struct.field(pytree_node=False)
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
                return self.module.module.apply(variables, x, method=self.method, **keywords)

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
    taken = evaluation(called, FLAX_EVALUATION)
    keywords = {name: value for name, value in taken.items() if name not in switches} | kwargs
    collections = dict(variables)
    params = collections.pop("params", {})
    held, static = split("kwargs", (collections, keywords))
    clone: Any = module.clone
    compared = HashableModule.wrap(clone(**switches))
    return LinenModel(params, Frozen(held), compared, method, static, check_flag("batched", batched))


def _is_collection(value: Any) -> bool:
    return isinstance(value, Mapping)


def _switches(module: nn.Module) -> dict[str, bool]:
    """The module's own attributes that switch between training and evaluation, as they are in evaluation."""
    return {
        name: value
        for name, value in FLAX_EVALUATION.items()
        if name in type(module).__dataclass_fields__ and isinstance(getattr(module, name), bool)
    }
