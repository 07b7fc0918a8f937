"""Partition of the plane into all linear regions of a model of two inputs, and the tree that finds them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxnn import _checks
from jaxnn._engine.loops import while_loop
from jaxnn._map import map_examples
from jaxnn._model import as_model, combine, partition
from jaxnn._repr import short_repr
from jaxnn._typing import Model
from jaxnn.rules._problem import check_names
from jaxnn.rules._region import LinearRegion, linear_region
from jaxnn.rules._rule import format_number

_BATCH = 32  # polygons per call
_THIN = 1e-9  # of the sides of the bounds: a line this close to a corner does not cut it off
_NEGLIGIBLE = 1e-12  # of the largest term of a sum, within the bounds: a smaller one is not printed
Line = tuple[np.ndarray, float]  # a normal (2,) and an offset: `normal @ x <= offset` is the left side


class AffineTree(NamedTuple):
    """A decision tree with oblique splits and affine leaves: each split is a line, each leaf an affine map.

    Called with one input `(2,)` it returns the output `(n_out,)`. Node 0 is the root.

    Attributes:
        normal: `(nodes, 2)`: `normal @ x <= offset` leads to the left. Zeros at a leaf.
        offset: `(nodes,)`.
        left: `(nodes,)`, int32: the left child; the node itself at a leaf.
        right: `(nodes,)`, int32: the right child, likewise.
        kernel: `(nodes, 2, n_out)`: at a leaf, the output is `x @ kernel + bias`. Zeros elsewhere.
        bias: `(nodes, n_out)`.
    """

    normal: Float[np.ndarray, "nodes 2"]
    offset: Float[np.ndarray, "nodes"]
    left: Int[np.ndarray, "nodes"]
    right: Int[np.ndarray, "nodes"]
    kernel: Float[np.ndarray, "nodes 2 n_out"]
    bias: Float[np.ndarray, "nodes n_out"]

    def __repr__(self) -> str:
        return short_repr(self)

    def leaf(self, x: ArrayLike) -> Int[Array, ""]:
        """The index of the leaf of one input."""
        z = jnp.asarray(x)
        normal, offset = jnp.asarray(self.normal, z.dtype), jnp.asarray(self.offset, z.dtype)
        left, right = jnp.asarray(self.left), jnp.asarray(self.right)

        def descend(node: jax.Array) -> jax.Array:
            # A sum of products, not a matrix product, which some devices compute in lower precision.
            return jnp.where(jnp.sum(normal[node] * z) <= offset[node], left[node], right[node])

        leaf: jax.Array = while_loop(lambda node: left[node] != node, descend, jnp.zeros((), left.dtype))
        return leaf

    def __call__(self, x: ArrayLike) -> Float[Array, "n_out"]:
        """The output for one input: within the bounds, that of the model."""
        z = _checks.check_float_array("x", x)
        _checks.check_shape("x", z, (2,), "one input of the plane (use jax.vmap for more)")
        node = self.leaf(z)
        kernel, bias = jnp.asarray(self.kernel, z.dtype)[node], jnp.asarray(self.bias, z.dtype)[node]
        return jnp.sum(z[:, None] * kernel, axis=0) + bias


class LinearRegions(NamedTuple):
    """Linear regions: the partition of a rectangle into polygons on each of which a model is one affine map.

    Attributes:
        tree: finds the region of an input, and computes the output of the model.
        polygons: for each region its corners, `(corners, 2)`, counterclockwise.
        leaves: `(regions,)`: the node of the tree for each region.
        text: the tree as text, with the affine map at each leaf.
    """

    tree: AffineTree
    polygons: tuple[Float[np.ndarray, "corners 2"], ...]
    leaves: Int[np.ndarray, "regions"]
    text: str

    def __repr__(self) -> str:
        return short_repr(self)


def linear_regions(
    model: Model,
    *,
    bounds: tuple[ArrayLike, ArrayLike] = (-1.0, 1.0),
    names: Sequence[str] | None = None,
    max_regions: int = 10_000,
) -> LinearRegions:
    """Linear regions: all regions of a piecewise linear model of two inputs, and the exact tree of cuts.

    Start from the rectangle of the bounds. Apply `linear_region` at the center of a polygon. Of the faces of
    that region, the first in order of computation that runs through the polygon cuts it in two. All that is
    computed before is affine on the whole polygon, so the cut is exact. A polygon that no line cuts is a
    region. The cuts are the inner nodes of the tree. The computation is in float64 for models of any
    precision.

    Two neighboring regions may have the same map, for example where a unit without outgoing weights switches.

    Args:
        model: a callable of one example `(2,)`, piecewise linear; see `linear_region`.
        bounds: `(low, high)`, each a number or `(2,)`: the rectangle.
        names: of the two inputs, for the text; by default `x_0` and `x_1`.
        max_regions: the maximum number of regions; more are an error.

    Returns:
        `LinearRegions(tree, polygons, leaves, text)`. Outside the bounds the tree may differ from the model.

    Raises:
        TypeError: `model` is not callable, or an argument is traced: the number of regions depends on the
            values of the weights, so it cannot be compiled.
        ValueError: `bounds` are not finite or not increasing, there are more than `max_regions` regions, or
            `names` are not two.
        NotImplementedError: the model has an operation that is not piecewise linear; the message names it.

    References:
        Aytekin, "Neural networks are decision trees", 2022, arXiv:2210.05189.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import rules
        >>> result = rules.linear_regions(lambda x: jnp.maximum(x[:1] - x[1:], 0.0))
        >>> print(result.text)
        if x_0 - x_1 <= 0:
            y_0 = 0
        else:
            y_0 = x_0 - x_1
        >>> result.tree([0.5, 0.2]).tolist()
        [0.30000001192092896]
    """
    model = as_model(model)
    if not _checks.is_concrete((model, bounds)):
        raise TypeError(
            "`model` must not be traced: the number of regions depends on the values of the weights"
        )
    max_regions = _checks.check_integer("max_regions", max_regions, at_least=1)
    names = check_names("names", names, 2, "x_{}", "one per input")
    corners = _rectangle(bounds)
    # In this block and thread only: the caller's precision is unchanged.
    with jax.enable_x64(True):
        floats, rest = partition(model)
        floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), floats)
        builder = _grow(combine(floats, rest), corners, max_regions)
    tree = builder.tree()
    leaves = np.array(sorted(builder.polygons), np.int32)
    polygons = tuple(builder.polygons[leaf] for leaf in leaves.tolist())
    return LinearRegions(tree, polygons, leaves, "\n".join(_text(tree, names, np.abs(corners).max(axis=0))))


def _rectangle(bounds: tuple[ArrayLike, ArrayLike]) -> Float[np.ndarray, "4 2"]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"`bounds` must be (low, high); got {bounds!r}")
    ends = []
    for name, value in zip(("bounds[0]", "bounds[1]"), bounds, strict=True):
        _checks.check_float_array(name, value)
        array = np.asarray(value, np.float64)  # not from JAX, which may have rounded it to float32
        _checks.check_finite(name, array)
        if array.shape not in ((), (2,)):
            raise ValueError(f"`{name}` must be a number or have shape (2,); got {array.shape}")
        ends.append(np.broadcast_to(array, (2,)))
    (left, bottom), (right, top) = ends
    if left >= right or bottom >= top:
        raise ValueError(f"`bounds` must increase, from low to high in both inputs; got {bounds!r}")
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])


class _Builder(NamedTuple):
    """The tree during construction: one row per node."""

    lines: list[Line]
    children: list[tuple[int, int]]
    maps: dict[int, tuple[np.ndarray, np.ndarray]]
    polygons: dict[int, np.ndarray]

    def add(self) -> int:
        node = len(self.lines)
        self.lines.append((np.zeros(2), 0.0))
        self.children.append((node, node))
        return node

    def tree(self) -> AffineTree:
        n_out = next(iter(self.maps.values()))[1].size
        kernel, bias = np.zeros((len(self.lines), 2, n_out)), np.zeros((len(self.lines), n_out))
        for node, (region_kernel, region_bias) in self.maps.items():
            kernel[node], bias[node] = region_kernel, region_bias
        normal = np.stack([line for line, _ in self.lines])
        offset = np.array([offset for _, offset in self.lines])
        left, right = np.array(self.children, np.int32).T
        return AffineTree(normal, offset, left, right, kernel, bias)


def _grow(model: Model, corners: Float[np.ndarray, "4 2"], max_regions: int) -> _Builder:
    builder = _Builder([], [], {}, {})
    sides = np.ptp(corners, axis=0)
    rounding = 64 * np.finfo(np.float64).eps * np.max(np.abs(corners) / sides)
    thin = max(_THIN, float(rounding))
    queue = [(builder.add(), corners)]
    while queue:
        batch, queue = queue[:_BATCH], queue[_BATCH:]
        centers = np.stack([polygon.mean(axis=0) for _, polygon in batch])
        regions: LinearRegion = map_examples(Partial(linear_region, model), centers, batch_size=_BATCH)
        if not all(np.isfinite(part).all() for part in jax.tree.leaves(regions[:4])):
            raise ValueError("`model` must hold finite numbers only, and its output must be finite")
        for i, (node, polygon) in enumerate(batch):
            region = jax.tree.map(lambda leaf, i=i: leaf[i], regions)
            line = _first_cut(region, polygon, sides, thin)
            if line is None:
                builder.maps[node] = np.asarray(region.kernel), np.asarray(region.bias)
                builder.polygons[node] = polygon
                continue
            children = builder.add(), builder.add()
            builder.lines[node], builder.children[node] = line, children
            queue += zip(children, _cut(polygon, *line), strict=True)
        if len(builder.polygons) + len(queue) > max_regions:
            raise ValueError(f"`max_regions` must be larger: there are more than {max_regions} regions")
    return builder


def _first_cut(
    region: LinearRegion, polygon: Float[np.ndarray, "corners 2"], sides: Float[np.ndarray, "2"], thin: float
) -> Line | None:
    """The first face of a region that runs through a polygon, with a normal of length 1.

    Distances are in units of the sides of the bounds, which may be in different units.
    """
    normals, offsets = np.asarray(region.normals), np.asarray(region.offsets)
    lengths = np.linalg.norm(normals * sides, axis=1)
    faces = np.flatnonzero(lengths > 0)
    normals, offsets, lengths = normals[faces], offsets[faces], lengths[faces]
    beyond = (polygon @ normals.T - offsets) / lengths
    cutting = np.flatnonzero((beyond.max(axis=0) > thin) & (beyond.min(axis=0) < -thin))
    if cutting.size == 0:
        return None
    first = cutting[0]
    # The same orientation from either side: the text starts with a plus.
    terms = np.abs(normals[first] * sides)
    sign = np.sign(normals[first][np.argmax(terms > _NEGLIGIBLE * terms.max())])
    length = np.linalg.norm(normals[first])
    return sign * normals[first] / length, float(sign * offsets[first] / length)


def _cut(
    polygon: Float[np.ndarray, "corners 2"], normal: Float[np.ndarray, "2"], offset: float
) -> tuple[np.ndarray, np.ndarray]:
    """The two parts of a convex polygon; the first has `normal @ x <= offset`."""
    heights = polygon @ normal - offset
    below, above = [], []
    for i in range(len(polygon)):
        here, there = heights[i - 1], heights[i]
        if (here < 0 < there) or (there < 0 < here):
            crossing = polygon[i - 1] + here / (here - there) * (polygon[i] - polygon[i - 1])
            below.append(crossing)
            above.append(crossing)
        if there <= 0:
            below.append(polygon[i])
        if there >= 0:
            above.append(polygon[i])
    return np.array(below), np.array(above)


def _text(
    tree: AffineTree, names: Sequence[str], sizes: Float[np.ndarray, "2"], node: int = 0, depth: int = 0
) -> list[str]:
    """The tree as lines; `sizes` are the largest absolute values of the inputs."""
    indent = "    " * depth
    if tree.left[node] == node:
        maps = zip(tree.kernel[node].T, tree.bias[node], strict=True)
        return [
            f"{indent}y_{k} = {_sum(weights, names, bias, sizes)}" for k, (weights, bias) in enumerate(maps)
        ]
    # Scaled so that the weight of the first input is 1.
    normal, offset = tree.normal[node], tree.offset[node]
    terms = np.abs(normal * sizes)
    scale = normal[0] if terms[0] > _NEGLIGIBLE * terms[1] else normal[1]
    return [
        f"{indent}if {_sum(normal / scale, names, 0.0, sizes)} <= {format_number(offset / scale)}:",
        *_text(tree, names, sizes, int(tree.left[node]), depth + 1),
        f"{indent}else:",
        *_text(tree, names, sizes, int(tree.right[node]), depth + 1),
    ]


def _sum(
    weights: Float[np.ndarray, "2"], names: Sequence[str], bias: float, sizes: Float[np.ndarray, "2"]
) -> str:
    """A weighted sum as text, such as `2 x_0 - x_1 + 0.5`."""
    contributions = np.abs([*(weights * sizes), bias])
    kept = contributions > _NEGLIGIBLE * contributions.max()
    terms = [
        term for term, keep in zip([*zip(weights, names, strict=True), (bias, "")], kept, strict=True) if keep
    ]
    parts: list[str] = []
    for value, name in terms or [(0.0, "")]:
        size = format_number(abs(value))
        word = name if name and size == "1" else f"{size} {name}".rstrip()
        sign = "-" if value < 0 else "+"
        parts.append(f" {sign} {word}" if parts else word if sign == "+" else f"-{word}")
    return "".join(parts)
