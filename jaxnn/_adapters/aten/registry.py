"""The table of operators, which the other files fill, and what their functions share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

OPERATORS: dict[str, Callable[..., Any]] = {}  # by name and overload, such as "add.Tensor"


def operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function for the operators of these names."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype in JAX of that of the same name in PyTorch: of 64 bits where they are enabled."""
    return np.dtype(jax.dtypes.canonicalize_dtype(jnp.dtype(name)))


def optional(name: str | None) -> np.dtype[Any] | None:
    """The dtype of a name; None for none."""
    return None if name is None else dtype_of(name)


def each(value: Any, n: int) -> tuple[int, ...]:
    """One number per axis, of a list that may have a single one for all."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * n if len(values) == 1 else values


def along_axis(weights: np.ndarray, x: Any, axis: int) -> Any:
    """The product of a matrix with one axis of an array, in the array's dtype."""
    product = jnp.tensordot(jnp.asarray(weights, x.dtype), x, (1, axis))
    return jnp.moveaxis(product, 0, axis)
