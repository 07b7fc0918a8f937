"""Representations in a few lines: what a model or a result holds, its arrays by type and shape."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._checks import is_concrete

_WIDTH = 100  # characters of a line
_MOST_KEYS = 20  # of a dictionary, that are shown
_MOST = 6  # numbers of an array, and elements of a list, that are shown


def short_repr(value: Any) -> str:
    """The representation of a named tuple or a dataclass, for its `__repr__`.

    Numbers, and vectors of a few, are shown with four digits; any other array as `float32[784,200]`. Of what
    is static, only text, numbers and the names of functions are shown.
    """
    fields = getattr(value, "_fields", None) or [
        each.name
        for each in dataclasses.fields(value)
        if each.metadata.get("pytree_node", True) or _is_plain(getattr(value, each.name))
    ]
    parts = (f"{name}={_short(getattr(value, name))}" for name in fields)
    return _join(f"{type(value).__name__}(", parts, ")")


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is not None and (isinstance(value, str | int | float) or hasattr(value, "__name__"))


def _short(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value)
    if isinstance(value, Mapping):
        shown = [f"{key!r}: {_short(each)}" for key, each in itertools.islice(value.items(), _MOST_KEYS)]
        return _join("{", [*shown, *(["..."] if len(value) > _MOST_KEYS else [])], "}")
    if isinstance(value, list) or type(value) is tuple:
        shown = [*map(_short, value[:_MOST]), *(["..."] if len(value) > _MOST else [])]
        return _join("[", shown, "]") if isinstance(value, list) else _join("(", shown, ")")
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and isinstance(leaves[0], jax.Array | np.ndarray):  # such as a variable of NNX
        return f"{type(value).__name__}({_array(leaves[0])})"
    text: str = value.__name__ if hasattr(value, "__name__") else repr(value)
    return text if "\n" in text or len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _join(start: str, parts: Iterable[str], end: str) -> str:
    """On one line if it fits, and otherwise a line for each part."""
    listed = list(parts)
    line = f"{start}{', '.join(listed)}{end}"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    return "\n  ".join([start, *(f"{part},".replace("\n", "\n  ") for part in listed)]) + f"\n{end}"


def _is_here(value: Any) -> bool:
    """Whether the numbers of an array can be looked at."""
    if not isinstance(value, jax.Array):
        return True
    return is_concrete(value) and not value.is_deleted() and value.is_fully_addressable


def _array(value: Any) -> str:
    is_number = jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool
    if value.ndim > 1 or value.size > _MOST or not is_number or not _is_here(value):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    numbers = np.asarray(value)
    if jnp.issubdtype(numbers.dtype, jnp.floating):
        numbers = numbers.astype(np.float64)  # NumPy prints bfloat16 in its own way
    return np.array2string(numbers, separator=", ", formatter={"float_kind": "{:.4g}".format})
