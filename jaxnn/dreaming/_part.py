"""What objectives, transforms and penalties are made of: a function with some arguments already given."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax.numpy as jnp

from jaxnn import _checks


@flax.struct.dataclass
class Part:
    """A function whose last arguments are given: `part(*args)` is `function(*args, *options, *values)`.

    Attributes:
        function: what it does.
        options: what shapes the program, such as the name of a layer: static.
        values: arrays, the leaves of this pytree: others of the same shape compile nothing anew, and
            `jax.vmap` may run over them.
    """

    function: Callable[..., Any] = flax.struct.field(pytree_node=False)
    options: tuple[Any, ...] = flax.struct.field(pytree_node=False)
    values: tuple[Any, ...]

    def __call__(self, *args: Any) -> Any:
        """Do it."""
        return self.function(*args, *self.options, *self.values)


def finite(name: str, value: Any) -> Any:
    """Real numbers, which may be traced, as an array."""
    array = _checks.check_float_array(name, value)
    _checks.check_finite(name, array)
    return array


def number(name: str, value: Any, *, at_least: float | None = None) -> Any:
    """A real number, which may be traced, as an array."""
    array = finite(name, value)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be one number; got shape {array.shape}")
    if at_least is not None and _checks.known_false(array >= at_least):
        raise ValueError(f"`{name}` must be at least {at_least:g}; got {float(array):g}")
    return array


def ordered(low_name: str, low: Any, high_name: str, high: Any) -> tuple[Any, Any]:
    """Two numbers, the second at least the first."""
    low, high = number(low_name, low), number(high_name, high)
    if _checks.known_false(jnp.asarray(low) <= high):
        raise ValueError(
            f"`{low_name}` must not be above `{high_name}`; got {float(low):g} and {float(high):g}"
        )
    return low, high
