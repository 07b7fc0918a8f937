"""Shared parts of the figures: colors, argument checks, new Axes and grids of Axes."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from matplotlib.axes import Axes

from jaxnn._checks import check_array, check_finite, check_float_array, check_shape, is_concrete

# The Okabe-Ito palette: distinguishable with every common kind of color vision.
ORANGE, BLUE = "#D55E00", "#0072B2"
PALETTE = [ORANGE, BLUE, "#009E73", "#F0E442", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
GRAY = "#B0B0B0"
MAX_MARKS = 20  # more markers or tick labels than this would touch each other
MAX_CLASS = 255  # more classes are not distinguishable in a figure
LETTER = 0.075  # width of a letter of the small labels, in inches
Labels: TypeAlias = Iterable[object] | None
Values: TypeAlias = ArrayLike | Sequence[float]
Numbers: TypeAlias = npt.NDArray[np.float64]
Classes: TypeAlias = npt.NDArray[np.int64]
Grid: TypeAlias = npt.NDArray[np.object_]  # of Axes
AxesLike: TypeAlias = Axes | Sequence[Axes] | Grid | None


def check_concrete(name: str, value: Values) -> jax.Array:
    """Return `value` as a concrete array, or raise."""
    if not is_concrete(value):
        raise TypeError(f"`{name}` must be a concrete array, not traced: draw outside of jit, vmap and grad")
    return check_array(name, value)


def check_numbers(name: str, value: Values, shape: str, ndim: int = 1, size: int = 0) -> Numbers:
    """Return `value` as finite numbers, at least one, or exactly `size` if that is not 0; or raise."""
    with jax.ensure_compile_time_eval():  # concrete values can be drawn while something else is traced
        array = check_float_array(name, check_concrete(name, value))
        if array.ndim != ndim or array.size == 0 or size not in (0, array.size):
            raise ValueError(f"`{name}` must have shape {shape}, not empty; got {array.shape}")
        check_finite(name, array)
    return np.asarray(array).astype(np.float64)


def check_list(name: str, values: Iterable[Any], what: str = "strings") -> list[Any]:
    """Return labels or other parts as a list, or raise."""
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | dict):
        raise TypeError(f"`{name}` must hold {what}; got {type(values).__name__} {values!r}")
    return list(values)


def check_labels(name: str, values: Labels, count: int, default: str = "") -> list[str]:
    """Return `count` labels as strings, "" for None, or raise; by default numbered by a pattern."""
    if values is None:
        return [default.format(i) for i in range(count)]
    texts = ["" if label is None else str(label) for label in check_list(name, values)]
    if len(texts) != count:
        raise ValueError(f"`{name}` must hold {count} strings; got {len(texts)}")
    return texts


def true_minus(text: str) -> str:
    """Text with a minus sign (U+2212) for each hyphen."""
    return text.replace("-", "\u2212")


def check_classes(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Classes:
    """Return `value` as classes, integers from 0 to 255 of that shape, or raise."""
    array = check_concrete(name, value)
    if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool):
        raise TypeError(f"`{name}` must hold classes, integers; got dtype {array.dtype}")
    check_shape(name, array, shape, "one class each")
    for extreme in (array.min(), array.max()):
        if not 0 <= extreme <= MAX_CLASS:
            raise ValueError(f"`{name}` must be classes, from 0 to {MAX_CLASS}; got {extreme}")
    return np.asarray(array).astype(np.int64)


def class_colors(count: int) -> list[Any]:
    """One color per class, distinguishable with every common kind of color vision."""
    if count <= len(PALETTE):
        return PALETTE[:count]
    return list(plt.get_cmap("viridis")(np.linspace(0, 1, count)))


def check_limits(limits: tuple[float, float], signed: bool = False) -> tuple[float, float]:
    """Return the ends of a color scale, or raise."""
    low, high = check_numbers("limits", limits, "(2,)", size=2).tolist()
    if low >= high or (signed and low != -high):
        raise ValueError(f"`limits` must increase, from -high if `signed`; got {limits}")
    return low, high


def color_limits(pixels: Numbers, signed: bool, limits: tuple[float, float] | None) -> tuple[float, float]:
    """The ends of the color scale: never equal, and symmetric about zero if `signed`."""
    if limits is not None:
        return check_limits(limits, signed)
    low, high = float(pixels.min()), float(pixels.max())
    if signed:
        return min(low, -high) or -1.0, max(-low, high) or 1.0
    return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))


def new_grid(
    rows: int, columns: int, aspect: float, titles: list[str], row_labels: list[str], name: str
) -> Grid:
    """The Axes of a new figure, large enough for titles, row labels and the label of the color bar."""
    lines = [line for name in titles for line in name.splitlines()]
    cell = max(min(2.0, 9.0 / columns), 0.6, LETTER * max(map(len, lines), default=0))
    titled = 0.22 * max(len(name.splitlines()) for name in titles)
    height = max((cell * aspect + titled + 0.05) * rows, 1.2, LETTER * len(name) + 0.6) + 0.1
    # The layout centers the images in the free space, so labels on one side need more than their width.
    labeled = LETTER * max(map(len, row_labels)) + 0.6 if any(row_labels) else 0.0
    size = (cell * columns + labeled + 0.8, height)
    _, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    return np.asarray(grid, dtype=object)


def check_grid(axes: AxesLike, n_images: int, columns: int) -> Grid:
    """Return Axes as a grid with that many columns, or raise."""
    grid = np.atleast_2d(np.asarray(axes, dtype=object))
    for ax in grid.flat:
        check_axes("axes", ax)
    if grid.ndim != 2 or grid.size < n_images or grid.shape[1] != columns:
        raise ValueError(f"`axes` must be {n_images} or more, {columns} in a row; got {grid.shape}")
    return grid


def axes_or_new(ax: Axes | None, figsize: tuple[float, float] | None = None) -> Axes:
    """The given Axes, or those of a new figure."""
    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else check_axes("ax", ax)


def check_axes(name: str, ax: object) -> Axes:
    """Return `ax`, or raise unless it is matplotlib Axes."""
    if not isinstance(ax, Axes):
        raise TypeError(f"`{name}` must be matplotlib Axes; got {type(ax).__name__}")
    return ax
