"""Arrays of the host as arrays of NumPy that JAX takes: data frames, tensors, byte orders, wide integers."""

from typing import Any

import jax
import numpy as np

ADVICE = (
    "Convert numbers by `.astype(float)`, and encode text as integers, such as by "
    "`numpy.unique(values, return_inverse=True)[1]`"
)
SMALLER = "Set `jax_enable_x64`, or pass smaller integers"


def as_numpy(name: str, value: Any, dtype: np.dtype | None = None) -> Any:
    """Return an array of NumPy or another library as one that JAX takes; anything else as it is.

    Another library's array is an object with `__array__`, such as a DataFrame, a tensor or a DataArray.

    Args:
        name: the argument's name, for errors.
        value: the argument.
        dtype: to which the caller casts the array; None for that of JAX.

    Raises:
        TypeError: it does not become an array, or it is a data frame with columns that are not numbers.
        ValueError: an integer is beyond the range of the dtype.
    """
    array = _to_numpy(name, value)
    if isinstance(array, np.ndarray | np.generic):
        _check_fits(name, array, dtype)
    return array


def _check_fits(name: str, array: np.ndarray | np.generic, dtype: np.dtype | None) -> None:
    """Raise where an integer would wrap around: JAX's have 32 bits unless `jax_enable_x64` is set."""
    if array.dtype.kind not in "iu" or array.size == 0:
        return
    dtype = jax.dtypes.canonicalize_dtype(array.dtype) if dtype is None else dtype
    if dtype.kind not in "iu" or np.can_cast(array.dtype, dtype):
        return  # nothing to look at: most arrays
    ends, extremes = np.iinfo(dtype), (int(array.min()), int(array.max()))
    for extreme in extremes:
        if not ends.min <= extreme <= ends.max:
            raise ValueError(
                f"`{name}` must hold numbers that fit into JAX's {dtype}; got {extreme}. {SMALLER}"
            )


def _to_numpy(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _native(value)
    if isinstance(value, jax.Array | np.generic | type) or hasattr(value, "__jax_array__"):
        return value
    if not hasattr(value, "__array__"):
        return value
    try:
        array = np.asarray(value)
    except Exception as error:  # such as a tensor that requires a gradient, or one on another device
        raise TypeError(
            f"`{name}` must become an array of numbers; a {type(value).__name__} gave: {error}"
        ) from error
    if array.dtype == object and hasattr(value, "columns"):
        array = _join_columns(name, value)
    return _native(array)


def _native(array: np.ndarray) -> np.ndarray:
    """The array in the machine's byte order, and in float64 if wider; the same object where it is so."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return array.astype(dtype, copy=False)


def _join_columns(name: str, frame: Any) -> np.ndarray:
    """The columns of a data frame in their common dtype: pandas makes objects of booleans beside numbers."""
    by_place = getattr(frame, "iloc", frame)
    columns = [np.asarray(by_place[:, i]) for i in range(len(frame.columns))]
    others = [
        f"{column!r} (dtype {by_place[:, i].dtype})"
        for i, (column, values) in enumerate(zip(frame.columns, columns, strict=True))
        if values.dtype.kind not in "biuf"
    ]
    if others:
        raise TypeError(
            f"`{name}` must hold numbers; got the columns {', '.join(others)}. Drop or encode them: "
            "categories as integers or one-hot, dates as numbers of days"
        )
    return np.stack(columns, axis=1)
