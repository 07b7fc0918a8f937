"""Adapter for Haiku transforms: calls are intercepted, and each module's output is named by its path."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.struct
import jax

from jaxnn._adapters import common
from jaxnn._checks import check_flag, check_key, require
from jaxnn._engine.tap import module_scope
from jaxnn._model import Frozen
from jaxnn._repr import short_repr
from jaxnn._typing import PyTree

if TYPE_CHECKING:
    from haiku import Transformed, TransformedWithState


@flax.struct.dataclass
class HaikuModel:
    """A Haiku transform with its parameters as a model of one example; made by `from_haiku`.

    Attributes:
        params: the parameters.
        frozen: the state, the random key, and the arrays among the keyword arguments; not trained.
    """

    params: PyTree
    frozen: Frozen
    apply: Callable[..., Any] = flax.struct.field(pytree_node=False)
    static: common.Static = flax.struct.field(pytree_node=False)
    with_state: bool = flax.struct.field(pytree_node=False)
    batched: bool = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """The function's output in evaluation mode, each module's output tapped by its path."""
        import haiku

        arguments, keywords = self.static.join(self.frozen)

        def name_output(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name != "__call__":
                return method(*args, **kwargs)
            path = context.module.module_name
            with module_scope(path):
                return common.NAMERS[self.batched](method(*args, **kwargs), path)

        def apply(x: PyTree) -> PyTree:
            with haiku.intercept_methods(name_output):
                output = self.apply(self.params, *arguments, x, **keywords)
            return output[0] if self.with_state else output

        return common.call_one(apply, x, batched=self.batched)


def from_haiku(
    transformed: "Transformed | TransformedWithState",
    params: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    *,
    rng: Any = None,
    batched: bool = False,
    **kwargs: Any,
) -> HaikuModel:
    """Haiku adapter: make a model of one example from a transformed function and its parameters.

    The model computes `transformed.apply(params, rng, x, **kwargs)`; with a state,
    `transformed.apply(params, state, rng, x, **kwargs)[0]`, and the new state is discarded. If the function
    has parameters `train`, `training`, `is_train` or `is_training`, they are False, and `test`, `eval`,
    `inference`, `deterministic` and `use_running_average` are True, unless `kwargs` sets them. The output of
    each module's `__call__` is named by the module's path in Haiku, such as `"mlp/~/linear_0"`, for
    `jaxnn.capture` and `jaxnn.intervene`.

    `jaxnn.train` trains `params`; the state and the key are frozen.

    Args:
        transformed: the result of `haiku.transform`, `haiku.transform_with_state` or
            `haiku.without_apply_rng`.
        params: its parameters, from `transformed.init` or from training.
        state: its state, such as the averages of `BatchNorm`; None for `haiku.transform`.
        rng: a random key for functions that draw numbers also in evaluation mode: the same one at each call.
            None for all others.
        batched: whether the function requires a batch axis: an axis of one is inserted before each array of
            the input, and removed from the output and from named arrays (where they have one).
        kwargs: keyword arguments of the function. Arrays among them are leaves, not trained.

    Returns:
        A callable pytree. Models built from one `transformed` with equal shapes share one compilation.

    Raises:
        ImportError: Haiku is not installed.
        TypeError: `transformed` is not a transformed function, `params` or `state` is not a dictionary, `rng`
            is not a random key, or a keyword argument is neither an array nor hashable.
        ValueError: the function has a state and `state` is None, or the other way round, or `rng` is given to
            a function that takes none.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, jaxnn
        >>> transformed = hk.transform(lambda x: hk.nets.MLP([4, 2])(x))
        >>> params = transformed.init(jax.random.key(0), jnp.ones(3))
        >>> y, values = jaxnn.capture(jaxnn.from_haiku(transformed, params), jnp.ones(3))
        >>> {name: value.shape for name, value in values.items()}
        {'mlp/~/linear_0': (4,), 'mlp/~/linear_1': (2,), 'mlp': (2,)}
    """
    haiku = require("haiku", "`from_haiku`", "haiku")
    if not isinstance(transformed, haiku.Transformed | haiku.TransformedWithState):
        raise TypeError(
            "`transformed` must be the result of haiku.transform or haiku.transform_with_state; got "
            f"{common.describe(transformed)}"
        )
    if not isinstance(params, Mapping):
        raise TypeError(f"`params` must be a dictionary, of transformed.init; got {common.describe(params)}")
    with_state = isinstance(transformed, haiku.TransformedWithState)
    arguments = (*_state(state, with_state), *_rng(rng, transformed.apply, with_state))
    keywords = common.evaluation_keywords(transformed.apply, common.FLAX_EVALUATION) | kwargs
    frozen, static = common.freeze("kwargs", (arguments, keywords))
    params = jax.tree.map(lambda leaf: leaf, params)  # in dictionaries of its own
    return HaikuModel(params, frozen, transformed.apply, static, with_state, check_flag("batched", batched))


def _state(state: Any, with_state: bool) -> tuple[Any, ...]:
    """The state as an argument of `apply`, if it takes one."""
    if not with_state:
        if state is not None:
            raise ValueError("`state` must be None for haiku.transform; see haiku.transform_with_state")
        return ()
    if state is None:
        raise ValueError("`state` is needed for haiku.transform_with_state: `params, state = init(...)`")
    if not isinstance(state, Mapping):
        raise TypeError(f"`state` must be a dictionary, of transformed.init; got {common.describe(state)}")
    return (state,)


def _rng(rng: Any, apply: Callable[..., Any], with_state: bool) -> tuple[Any, ...]:
    """The key as an argument of `apply`, if it takes one: that of `without_apply_rng` does not."""
    if rng is not None:
        check_key("rng", rng)
    if list(inspect.signature(apply).parameters)[1 + with_state :][:1] == ["rng"]:
        return (rng,)
    if rng is not None:
        raise ValueError("`rng` must be None for haiku.without_apply_rng, whose `apply` takes no key")
    return ()
