"""A function with some arguments bound: the common form of objectives, transforms and penalties."""

import sys
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._typing import PyTree


@flax.struct.dataclass
class Part:
    """A function with its last arguments bound: `part(*args)` is `function(*args, *options, *values)`.

    Attributes:
        function: the function; static.
        options: arguments that shape the compiled program, such as the name of a layer; static.
        values: arrays, the leaves of this pytree. Others of the same shape do not recompile, and `jax.vmap`
            may map over them.
    """

    function: Callable[..., Any] = flax.struct.field(pytree_node=False)
    options: tuple[Any, ...] = flax.struct.field(pytree_node=False)
    values: tuple[PyTree, ...]

    def __call__(self, *args: Any) -> Any:
        """Call the function with the bound arguments."""
        return self.function(*args, *self.options, *self.values)


def check_finite_array(name: str, value: Any) -> jax.Array:
    """Return real numbers, which may be traced, as an array, or raise."""
    array = _checks.check_float_array(name, value)
    _checks.check_finite(name, array)
    return array


def with_channels_last(value: jax.Array, channel_axis: int, layer: str) -> jax.Array:
    """A layer's value with its channels on the last axis, or raise."""
    of = f"{layer!r}, of shape {value.shape}"
    axis = _checks.check_axis("channel_axis", channel_axis, value.ndim, of)
    return jnp.moveaxis(value, axis, -1)


def check_axis(channel_axis: int) -> int:
    """Return the number of an axis, which may be negative, or raise."""
    return _checks.check_integer("channel_axis", channel_axis, at_least=-sys.maxsize)


def check_is_image(shape: tuple[int, ...], user: str) -> None:
    """Raise unless a shape is that of an image."""
    if len(shape) not in (2, 3):
        raise ValueError(f"`shape` must be (h, w) or (h, w, c) for {user}; got {shape}")
