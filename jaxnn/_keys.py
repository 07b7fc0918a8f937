"""Random keys as plain numbers, and back: for files, checkpoints and devices of other processes."""

from typing import Any

import jax

from jaxnn._checks import is_key


def key_data(leaf: Any) -> Any:
    """Return the integers of an array of random keys; any other leaf unchanged."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def key_impl(leaf: Any) -> Any:
    """Return the implementation of an array of random keys; None for any other leaf."""
    return jax.random.key_impl(leaf) if is_key(leaf) else None


def wrap_key(data: Any, impl: Any) -> Any:
    """Invert `key_data`, for the implementation that `key_impl` returned."""
    return data if impl is None else jax.random.wrap_key_data(data, impl=impl)
