"""Arrays of other libraries as arrays of NumPy that JAX takes: data frames, tensors, other byte orders."""

from typing import Any

import jax
import numpy as np

ADVICE = (
    "Convert numbers by `.astype(float)`, and encode text as integers, such as by "
    "`numpy.unique(values, return_inverse=True)[1]`"
)


def as_numpy(name: str, value: Any) -> Any:
    """Return an array of NumPy or another library as one that JAX takes; anything else as it is.

    Another library's array is an object with `__array__`, such as a DataFrame, a tensor or a DataArray.

    Raises:
        TypeError: it does not become an array, or it is a data frame with columns that are not numbers.
        ValueError: it has integers that JAX would cut to 32 bits.
    """
    if isinstance(value, np.ndarray | np.integer):
        return native(name, np.asarray(value))
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
    return native(name, array)


def native(name: str, array: np.ndarray) -> np.ndarray:
    """The array in the machine's byte order, and in float64 if wider; the same object where it is so.

    Raises:
        ValueError: it has integers that JAX would cut to 32 bits.
    """
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    array = array.astype(dtype, copy=False)
    narrow = jax.dtypes.canonicalize_dtype(dtype) if dtype.kind in "iu" else dtype
    if narrow != dtype and array.size:
        low, high, ends = array.min(), array.max(), np.iinfo(narrow)
        if low < ends.min or high > ends.max:
            raise ValueError(
                f"`{name}` must hold integers that fit into {narrow}, which JAX makes of {dtype} unless "
                f"jax_enable_x64 is set; got values from {low} to {high}"
            )
    return array


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
