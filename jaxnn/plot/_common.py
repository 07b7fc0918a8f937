"""What the pictures of `plot` have in common: their arguments checked, their grids of Axes."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from jaxnn._checks import check_array, check_finite, check_float_array, check_shape, is_concrete

# The Okabe-Ito palette, which every common kind of color vision tells apart.
ORANGE, BLUE = "#D55E00", "#0072B2"
PALETTE = [ORANGE, BLUE, "#009E73", "#F0E442", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MAX_MARKS = 20  # more markers or tick labels than this would touch each other
MAX_CLASS = 255  # no picture tells more of them apart
LETTER = 0.075  # width of a letter of the small labels, in inches
Labels = Iterable[Any] | None


def concrete(name: str, value: Any) -> jax.Array:
    """`value` as an array that can be looked at."""
    if not is_concrete(value):
        raise TypeError(f"`{name}` must be a concrete array, not traced: draw outside of jit, vmap and grad")
    return check_array(name, value)


def numbers(name: str, value: Any, shape: str, ndim: int = 1, size: int = 0) -> npt.NDArray[Any]:
    """`value` as finite numbers, at least one, or exactly `size` where given."""
    with jax.ensure_compile_time_eval():  # so that what is known can be drawn while something else is traced
        array = check_float_array(name, concrete(name, value))
        if array.ndim != ndim or array.size == 0 or size not in (0, array.size):
            raise ValueError(f"`{name}` must have shape {shape}, not empty; got {array.shape}")
        check_finite(name, array)
    return np.asarray(array).astype(np.float64)


def listed(name: str, values: Labels) -> list[Any] | None:
    """Labels as a list."""
    if values is not None and not isinstance(values, Iterable):
        raise TypeError(f"`{name}` must hold strings; got {type(values).__name__} {values!r}")
    return None if values is None else list(values)


def strings(name: str, values: Labels, count: int) -> list[str]:
    """The labels as strings, "" for None."""
    values = listed(name, values)
    values = [None] * count if values is None else values
    texts = ["" if value is None else str(value) for value in values]
    if len(texts) != count:
        raise ValueError(f"`{name}` must hold {count} strings; got {len(texts)}")
    return texts


def true_minus(text: str) -> str:
    """Text with a true minus for each hyphen."""
    return text.replace("-", "\u2212")


def classes(name: str, value: Any, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """`value` as classes: integers from 0 to 255, of that shape."""
    array = concrete(name, value)
    if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool):
        raise TypeError(f"`{name}` must hold classes, integers; got dtype {array.dtype}")
    check_shape(name, array, shape, "a class each")
    for extreme in (array.min(), array.max()):
        if not 0 <= extreme <= MAX_CLASS:
            raise ValueError(f"`{name}` must be classes, from 0 to {MAX_CLASS}; got {extreme}")
    return np.asarray(array).astype(np.int64)


def class_colors(count: int) -> list[Any]:
    """A color for each class, that every common kind of color vision tells apart from the others."""
    return (
        PALETTE[:count] if count <= len(PALETTE) else list(plt.get_cmap("viridis")(np.linspace(0, 1, count)))
    )


def color_limits(pixels: Any, signed: bool, limits: Any) -> tuple[float, float]:
    """The ends of the color scale: never equal, and symmetric about zero where `signed`."""
    if limits is not None:
        low, high = numbers("limits", limits, "(2,)", size=2).tolist()
        if low >= high or (signed and low != -high):
            raise ValueError(f"`limits` must rise, from -high where `signed`; got {limits}")
        return low, high
    low, high = float(pixels.min()), float(pixels.max())
    if signed:
        return min(low, -high) or -1.0, max(-low, high) or 1.0
    return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))


def new_grid(
    rows: int, columns: int, aspect: float, titles: list[str], row_labels: list[str], name: str
) -> npt.NDArray[np.object_]:
    """Axes of a new figure, large enough for the titles, the labels of the rows and that of the color bar."""
    lines = [line for name in titles for line in name.splitlines()]
    cell = max(min(2.0, 9.0 / columns), 0.6, LETTER * max(map(len, lines), default=0))
    titled = 0.22 * max(len(name.splitlines()) for name in titles)
    height = max((cell * aspect + titled + 0.05) * rows, 1.2, LETTER * len(name) + 0.6) + 0.1
    # The layout centers the images in what they leave free, so labels at one side need more than their width.
    labeled = LETTER * max(map(len, row_labels)) + 0.6 if any(row_labels) else 0.0
    size = (cell * columns + labeled + 0.8, height)
    _, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    return np.asarray(grid, dtype=object)


def given_grid(axes: Any, n_images: int, columns: int) -> npt.NDArray[np.object_]:
    """The Axes given as a grid of the right width."""
    grid = np.atleast_2d(np.asarray(axes, dtype=object))
    for ax in grid.flat:
        check_axes("axes", ax)
    if grid.ndim != 2 or grid.size < n_images or grid.shape[1] != columns:
        raise ValueError(f"`axes` must be {n_images} or more, {columns} in a row; got {grid.shape}")
    return grid


def new_axes(ax: Any) -> Axes:
    """The Axes given, or those of a new figure."""
    return plt.subplots(layout="constrained")[1] if ax is None else check_axes("ax", ax)


def check_axes(name: str, ax: Any) -> Axes:
    """Raise unless `ax` is matplotlib Axes."""
    if not isinstance(ax, Axes):
        raise TypeError(f"`{name}` must be matplotlib Axes; got {type(ax).__name__}")
    return ax
