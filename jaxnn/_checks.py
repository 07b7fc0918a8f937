"""Argument errors, worded the same everywhere: the argument, what came, what was expected.

Values are looked at under `jax.ensure_compile_time_eval`: a number that is concrete is checked as well while
something else is traced, as an option is under the caller's `jax.jit`.
"""

import functools
import importlib
import itertools
import math
import operator
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn._arrays import ADVICE, SMALLER, as_numpy


class Ends(TypedDict, total=False):
    """The ends of an interval, as keyword arguments; see `check_values`."""

    at_least: float | None
    above: float | None
    at_most: float | None
    below: float | None


def require(module: str, user: str, extra: str) -> ModuleType:
    """Import a module of an extra, or raise an error that says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{user} needs {error.name}, which is not installed: install the `{extra}` extra from the "
            f'checkout, with pip install ".[{extra}]"'
        ) from error


def is_concrete(value: Any) -> bool:
    """Whether a value can be looked at: no leaf of it is being traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def known_false(condition: Any) -> bool:
    """Whether a condition is concrete and false; a traced one is never checked."""
    return is_concrete(condition) and not bool(condition)


def check_path(name: str, value: Any, kind: str) -> Path:
    """Return `value` as a path, or raise; an empty one would be the current folder."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"`{name}` must be a path to a {kind}; got {type(value).__name__}")
    if not path:
        raise ValueError(f"`{name}` must be a path to a {kind}; got an empty one")
    return Path(path)


@jax.ensure_compile_time_eval()
def check_array(name: str, value: Any) -> jax.Array:
    """Return `value` as an array, or raise an error that says what it was instead.

    An array of another library, or in another byte order, is converted; in a list or tuple, too.
    """
    array, leaves = as_numpy(name, value), jax.tree.leaves(value)
    if isinstance(value, list | tuple) and not all(isinstance(leaf, float | int) for leaf in leaves):
        array = jax.tree.map(lambda leaf: as_numpy(name, leaf), value)
    try:
        # A string would be taken for the name of a dtype.
        if any(isinstance(leaf, str | bytes) for leaf in leaves):
            raise TypeError("text")
        with np.errstate(over="ignore"):  # infinite, which is an error of its own where it is one
            return jnp.asarray(array)
    except OverflowError as error:
        raise ValueError(
            f"`{name}` must hold numbers that fit into JAX's; got {_show(value)}. {SMALLER}"
        ) from error
    except (TypeError, ValueError) as error:
        advice = f". {ADVICE}" if isinstance(array, np.ndarray) else ""
        raise TypeError(f"`{name}` must be an array of numbers; got {_show(value)}{advice}") from error


def check_real_array(name: str, value: Any) -> jax.Array:
    """Return `value` as an array of real numbers: floating-point numbers, integers or booleans."""
    array = check_array(name, value)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"`{name}` must hold real numbers; got dtype {array.dtype}")
    return array


@jax.ensure_compile_time_eval()
def check_float_array(name: str, value: Any, whole: DTypeLike = float) -> jax.Array:
    """Return `value` as an array of floating-point numbers; integers and booleans become `whole`."""
    array = check_real_array(name, value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(whole)


def check_rows(*, in_parts: bool = False, **trees: Any) -> tuple[tuple[Any, ...], int]:
    """Return pytrees of arrays `(N, ...)`, those of NumPy and JAX where they are, and N; or raise.

    Args:
        in_parts: whether the caller converts arrays of NumPy, by `as_numpy`, some rows at a time, as of a
            large file; otherwise they are converted here.
        trees: by the names of the arguments.
    """
    checked = []
    for argument, tree in trees.items():
        tree = check_array(argument, tree) if isinstance(tree, list) else tree
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
        if not leaves:
            raise ValueError(f"`{argument}` must hold at least one array of shape (N, ...); got {tree!r}")
        named = [(argument + jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
        arrays = [_check_row(name, leaf) for name, leaf in named]
        if not in_parts:
            arrays = [as_numpy(name, array) for (name, _), array in zip(named, arrays, strict=True)]
        checked.append(jax.tree.unflatten(structure, arrays))
    return tuple(checked), check_count(dict(zip(trees, checked, strict=True)))


def _check_row(name: str, leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray | jax.Array):
        leaf = check_array(name, leaf)
    if leaf.ndim == 0:
        raise ValueError(f"`{name}` must have shape (N, ...), an example a row; got ()")
    if isinstance(leaf, np.ndarray):
        check_array(name, leaf[:0])  # no text, no objects
    return leaf


def check_count(trees: Mapping[str, Any], *, at_least: int = 1) -> int:
    """Return the number of examples, the length of all arrays of the pytrees, or raise.

    Args:
        trees: by the names of the arguments.
        at_least: the smallest number.
    """
    leaves = [jax.tree.leaves(tree) for tree in trees.values()]
    shapes = [leaf.shape for leaf in itertools.chain(*leaves)]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if len(counts) != 1 or min(counts) < at_least or not all(leaves):
        names, same = " and ".join(f"`{name}`" for name in trees), "the same number of " * (len(shapes) > 1)
        raise ValueError(
            f"{names} must hold {same}examples, at least {at_least}, along a first axis; got "
            + ", ".join(map(str, shapes))
        )
    return counts.pop()


def check_last_axis(name: str, value: jax.Array, size: int, meaning: str) -> None:
    """Raise unless the last axis of `value` has `size` elements."""
    if value.ndim == 0 or value.shape[-1] != size:
        raise ValueError(f"`{name}` must have shape (..., {size}), {meaning}; got {value.shape}")


def check_shape(name: str, value: jax.Array | np.ndarray, shape: tuple[int, ...], meaning: str) -> None:
    """Raise unless `value` has exactly `shape`."""
    if value.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, {meaning}; got {value.shape}")


@jax.ensure_compile_time_eval()
def check_finite(name: str, value: Any) -> None:
    """Raise where a concrete value holds NaN or an infinity; a traced one passes."""
    finite = np.isfinite(value) if isinstance(value, np.ndarray) else jnp.isfinite(value)  # where it lies
    if known_false(finite.all()):
        raise ValueError(
            f"`{name}` must be finite; {int((~finite).sum())} of its {finite.size} values are not"
        )


def check_option(name: str, value: Any, options: Collection[str]) -> None:
    """Raise unless `value` is one of the named options."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"`{name}` must be one of {listed}; got {value!r}")


def check_integer(name: str, value: Any, *, at_least: int) -> int:
    """Return `value` as an int, or raise unless it is a whole number of at least `at_least`.

    It is below 2**31, as JAX counts in 32 bits; see `check_bytes` for what is allocated.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError("a truth value")
        integer = operator.index(value)
    except TypeError as error:
        raise TypeError(f"`{name}` must be an integer; got {_show(value)}") from error
    if integer < at_least:
        raise ValueError(f"`{name}` must be at least {at_least}; got {integer}")
    if integer >= 2**31:
        raise ValueError(f"`{name}` must be below 2**31, as JAX counts in 32 bits; got {integer}")
    return integer


def check_bytes(name: str, size: float) -> None:
    """Raise where an argument asks for more bytes than the machine has: XLA may abort the process."""
    if size > memory():
        raise ValueError(
            f"`{name}` must be smaller: it takes {size / 2**30:,.0f} GiB, and the machine has "
            f"{memory() / 2**30:,.0f} GiB of memory"
        )


@functools.cache
def memory() -> int:
    """The bytes of the machine's memory; 2**40 where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # as on Windows
        return 2**40


def check_axis(name: str, axis: Any, ndim: int, of: str) -> int:
    """Return one of `ndim` axes, counted from the first, or raise; `of` says of what."""
    number = check_integer(name, axis, at_least=-ndim)
    if number >= ndim:
        raise ValueError(f"`{name}` must be an axis of {of}; got {number}")
    return number % ndim


def check_real(name: str, value: Any, **ends: Unpack[Ends]) -> float:
    """Return `value` as a finite float within the given ends; a traced one is refused (a static argument)."""
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError("text, or a truth value")
        real = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"`{name}` must be a number, not traced; got {_show(value)}") from error
    limit = jnp.finfo(jnp.result_type(float))
    if not abs(real) <= float(limit.max):
        raise ValueError(f"`{name}` must be finite, in {limit.dtype}; got {real}")
    check_values(name, real, **ends)
    return real


def check_number(name: str, value: Any, **ends: Unpack[Ends]) -> jax.Array:
    """Return one real number, which may be traced, as an array; a concrete one is finite and in range."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        raise TypeError(f"`{name}` must be a number; got {_show(value)}")
    array = check_float_array(name, value)
    check_shape(name, array, (), "one number")
    check_finite(name, array)
    check_values(name, array, **ends)
    return array


def check_values(
    name: str,
    values: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise where a concrete value lies outside of an interval; NaN does, and traced values pass."""
    if not is_concrete(values):
        return
    array = np.asarray(values)  # in NumPy: under `jax.jit` a comparison by JAX would be traced
    ends = ((at_least, operator.ge), (above, operator.gt), (at_most, operator.le), (below, operator.lt))
    # Each end in the precision of the values, as JAX compares them: bfloat16's 0.2 is at most 0.2.
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else float
    if all(bool(np.all(inside(array, np.asarray(end, dtype)))) for end, inside in ends if end is not None):
        return
    shown = f"{array}" if array.ndim == 0 else f"values from {array.min()} to {array.max()}"
    raise ValueError(f"`{name}` must {_interval(at_least, above, at_most, below)}; got {shown}")


def _interval(at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    low, high = at_least if above is None else above, at_most if below is None else below
    if high is None:
        return f"be {'at least' if above is None else 'above'} {low:g}"
    if low is None:
        return f"be {'at most' if below is None else 'below'} {high:g}"
    return f"lie in {'[' if above is None else '('}{low:g}, {high:g}{']' if below is None else ')'}"


def check_interval(name: str, value: Any) -> tuple[float, float]:
    """Return a pair `(low, high)` of finite numbers with `low < high`, or raise."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"`{name}` must be a pair (low, high); got {_show(value)}")
    low, high = (check_real(f"{name}[{i}]", end) for i, end in enumerate(value))
    if not low < high:
        raise ValueError(f"`{name}` must be (low, high) with low below high; got ({low:g}, {high:g})")
    return low, high


def check_structure(name: str, value: Any, reference: Any, reference_name: str = "x") -> None:
    """Raise unless two pytrees have the same structure."""
    structure, expected = str(jax.tree.structure(value)), str(jax.tree.structure(reference))
    if structure != expected:
        raise ValueError(
            f"`{name}` must have the structure of `{reference_name}`, {expected}; got {structure}"
        )


def check_float_dtype(name: str, value: Any) -> np.dtype:
    """Return a floating-point dtype that JAX has, or raise; `float` is its default."""
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a floating-point type; got {_show(value)}") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`{name}` must be a floating-point type; got {dtype}")
    available = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
    if available != dtype and value is not float:
        raise ValueError(f"`{name}` must be a type that JAX has; {dtype} needs `jax_enable_x64`")
    return available


def check_text(name: str, value: Any) -> str:
    """Return `value`, or raise unless it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a string; got {_show(value)}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """Return `value` as a bool, or raise unless it is True or False, of Python or NumPy."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False; got {_show(value)}")
    return bool(value)


def is_key(value: Any) -> bool:
    """Whether `value` is an array of random keys of the new kind, or the shape of one."""
    if not isinstance(value, jax.Array | jax.ShapeDtypeStruct):  # JAX does not know dtypes of other libraries
        return False
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def check_key(name: str, value: Any) -> None:
    """Raise unless `value` is one random key, of the new kind or the old (uint32 of shape (2,))."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    new = is_key(value) and shape == ()
    if not (new or (dtype == jnp.uint32 and shape == (2,))):
        raise TypeError(f"`{name}` must be one random key, such as jax.random.key(0); got {_show(value)}")


def check_sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of integers of at least 1, or raise."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"`{name}` must be a tuple of integers; got {_show(value)}")
    return tuple(check_integer(f"{name}[{i}]", n, at_least=1) for i, n in enumerate(value))


def check_image_shape(name: str, value: Any, size: int, meaning: str) -> tuple[int, ...]:
    """Return the shape of an image of `size` elements: `value`, or a square."""
    if value is not None:
        shape = check_sizes(name, value)
        if math.prod(shape) != size:
            raise ValueError(
                f"`{name}` must have {size} entries, {meaning}; got {shape}, which has {math.prod(shape)}"
            )
        return shape
    side = math.isqrt(size)
    if side * side != size:
        rows = next(d for d in range(side, 0, -1) if size % d == 0)
        raise ValueError(
            f"`{name}` must be given, as {size}, {meaning}, is no square number; "
            f"such as {(rows, size // rows)}"
        )
    return (side, side)


def _show(value: Any) -> str:
    """The type of a value and the start of its repr, on one line, for errors."""
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
