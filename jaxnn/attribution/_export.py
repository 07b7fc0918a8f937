"""Attributions in what other tools read: pandas, xarray and shap, each imported when it is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from jaxnn._checks import check_array, check_shape, check_text, is_concrete, require

if TYPE_CHECKING:
    from pandas import DataFrame
    from shap import Explanation
    from xarray import DataArray


def to_pandas(
    attributions: Num[ArrayLike, "*n n_features"],
    *,
    names: Sequence[object] | None = None,
    index: Sequence[object] | None = None,
) -> "DataFrame":
    """Attributions as a pandas DataFrame: one row per example, one column per feature.

    Args:
        attributions: `(n_features,)` of one example, or `(N, n_features)`.
        names: of the features: the names of the columns, such as `frame.columns`.
        index: of the examples, such as `frame.index`.

    Returns:
        A DataFrame of N rows.

    Raises:
        ImportError: pandas is not installed.
        TypeError: `attributions` are no numbers, or traced.
        ValueError: their shape, or the number of names or of examples, does not fit.

    Example:
        >>> from jaxnn import attribution
        >>> frame = attribution.to_pandas([[0.5, -1.0], [0.25, 2.0]], names=["age", "dose"])
        >>> frame["dose"].tolist()
        [-1.0, 2.0]
    """
    pandas: Any = require("pandas", "`attribution.to_pandas`", "export")
    table = np.atleast_2d(_check("attributions", attributions, (1, 2)))
    columns = _check_names("names", names, table.shape[1])
    return pandas.DataFrame(table, columns=columns, index=_check_names("index", index, len(table)))


def to_xarray(
    attributions: Num[ArrayLike, "..."],
    dims: Sequence[str],
    *,
    coords: Mapping[str, Any] | None = None,
    name: str = "attribution",
) -> "DataArray":
    """Attributions as an xarray DataArray with named dimensions.

    Args:
        attributions: an array of any number of axes.
        dims: a name for each axis, such as `("image", "row", "column")`.
        coords: coordinates by dimension, as in xarray.
        name: of the array.

    Returns:
        A DataArray.

    Raises:
        ImportError: xarray is not installed.
        TypeError: `attributions` are no numbers, or traced.
        ValueError: there is not one name per axis, or coordinates of another length.

    Example:
        >>> from jaxnn import attribution
        >>> array = attribution.to_xarray([[0.5, -1.0]], ("step", "feature"), coords={"feature": ["a", "b"]})
        >>> float(array.sel(feature="b")[0])
        -1.0
    """
    xarray: Any = require("xarray", "`attribution.to_xarray`", "export")
    values = _check("attributions", attributions, None)
    if isinstance(dims, str) or len(dims) != values.ndim:
        raise ValueError(f"`dims` must hold a name for each of {values.ndim} axes; got {dims!r}")
    return xarray.DataArray(values, dims=tuple(dims), coords=coords, name=check_text("name", name))


def to_shap(
    attributions: Num[ArrayLike, "*n n_features"],
    x: Num[ArrayLike, "*n n_features"],
    *,
    base_value: Num[ArrayLike, "*n"],
    names: Sequence[object] | None = None,
) -> "Explanation":
    """Attributions as a `shap.Explanation`, for the figures of shap, such as `shap.plots.waterfall`.

    They should add up: `f(x) = base_value + sum_i a_i`, as those of `integrated_gradients`, `deep_lift`,
    `shapley_values` and `kernel_shap` do, with the output at the baseline as the base value.

    Args:
        attributions: `(n_features,)` of one example, or `(N, n_features)`.
        x: the examples, of the same shape.
        base_value: the output at the baseline, a number, or `(N,)`.
        names: of the features.

    Returns:
        An Explanation of shap.

    Raises:
        ImportError: shap is not installed.
        TypeError: an argument holds no numbers, or is traced.
        ValueError: their shapes, or the number of names, do not fit.

    Example:
        >>> from jaxnn import attribution  # doctest: +SKIP
        >>> attribution.to_shap([0.5, -1.0], [3.0, 2.0], base_value=0.1).values.tolist()  # doctest: +SKIP
        [0.5, -1.0]
    """
    shap: Any = require("shap", "`attribution.to_shap`", "export")
    values = _check("attributions", attributions, (1, 2))
    data = _check("x", x, (1, 2))
    check_shape("x", data, values.shape, "that of `attributions`")
    base = _check("base_value", base_value, (0, values.ndim - 1))
    if base.shape not in ((), values.shape[:-1]):
        raise ValueError(f"`base_value` must be a number, or of shape {values.shape[:-1]}; got {base.shape}")
    bases = np.broadcast_to(base, values.shape[:-1]).copy() if values.ndim == 2 else float(base)
    labels = _check_names("names", names, values.shape[-1])
    return shap.Explanation(values=values, base_values=bases, data=data, feature_names=labels)


def _check(name: str, value: Any, axes: tuple[int, ...] | None) -> np.ndarray:
    """Numbers as an array of NumPy with one of these numbers of axes; or raise."""
    if not is_concrete(value):
        raise TypeError(
            f"`{name}` must be a concrete array, not traced: call it outside of jit, vmap and grad"
        )
    array = np.asarray(check_array(name, value))
    if axes is not None and array.ndim not in axes:
        shapes = " or ".join(map(str, sorted(set(axes))))
        raise ValueError(f"`{name}` must have {shapes} axes; got shape {array.shape}")
    return array.astype(np.float32) if array.dtype.itemsize < 4 and array.dtype.kind not in "iub" else array


def _check_names(name: str, labels: Sequence[object] | None, count: int) -> list[object] | None:
    if labels is None:
        return None
    if isinstance(labels, str) or len(labels) != count:
        raise ValueError(f"`{name}` must hold {count} labels; got {labels!r}")
    return list(labels)
