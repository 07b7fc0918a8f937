"""All linear regions of a model of two inputs: a partition of the plane, and the tree that finds them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn._model import as_model, partition
from jaxnn.rules._conditions import feature_names, number
from jaxnn.rules._region import LinearRegion, linear_region

_AT_ONCE = 32  # polygons that are asked about in one call
_THIN = 1e-9  # of the side of the bounds: a line this close to a corner does not cut it off
_STEEP = 1e-12  # a normal smaller than this, of the largest, is that of no line


class AffineTree(NamedTuple):
    """A tree that asks on which side of a line an input lies, and answers by an affine map at its leaves.

    Called with one input `(2,)` it answers `(n_out,)`. Node 0 is the root.

    Attributes:
        normal: `(nodes, 2)`: `normal @ x <= offset` leads to the left. Zeros at a leaf.
        offset: `(nodes,)`.
        left: `(nodes,)`, int32: the node on that side; a leaf's own index at a leaf.
        right: `(nodes,)`, int32.
        kernel: `(nodes, 2, n_out)`: at a leaf, the answer is `x @ kernel + bias`. Zeros elsewhere.
        bias: `(nodes, n_out)`.
    """

    normal: Any
    offset: Any
    left: Any
    right: Any
    kernel: Any
    bias: Any

    def leaf(self, x: ArrayLike) -> jax.Array:
        """The index of the leaf that an input falls into."""
        z = jnp.asarray(x)
        normal, offset = jnp.asarray(self.normal, z.dtype), jnp.asarray(self.offset, z.dtype)
        left, right = jnp.asarray(self.left), jnp.asarray(self.right)

        def descend(node: jax.Array) -> jax.Array:
            # A sum of products and no matrix product, which some devices round to fewer digits.
            return jnp.where(jnp.sum(normal[node] * z) <= offset[node], left[node], right[node])

        return lax.while_loop(lambda node: left[node] != node, descend, jnp.zeros((), left.dtype))

    def __call__(self, x: ArrayLike) -> jax.Array:
        """The answer to one input: that of the model, within the bounds."""
        z = _checks.check_float_array("x", x)
        _checks.check_shape("x", z, (2,), "one input of the plane; jax.vmap for more")
        node = self.leaf(z)
        kernel, bias = jnp.asarray(self.kernel, z.dtype)[node], jnp.asarray(self.bias, z.dtype)[node]
        return jnp.sum(z[:, None] * kernel, axis=0) + bias


class LinearRegions(NamedTuple):
    """The partition of a rectangle into the polygons on each of which a model is one affine map.

    Attributes:
        tree: finds the region of an input, and answers as the model does.
        polygons: for each region its corners, `(corners, 2)`, counterclockwise.
        leaves: `(regions,)`: the node of the tree that is each region.
        text: the tree in words, the map at each leaf.
    """

    tree: AffineTree
    polygons: tuple[np.ndarray, ...]
    leaves: np.ndarray
    text: str


def linear_regions(
    model: Callable[..., Any],
    *,
    bounds: tuple[Any, Any] = (-1.0, 1.0),
    names: Sequence[str] | None = None,
    max_regions: int = 10_000,
) -> LinearRegions:
    """The whole partition of a piecewise linear model of two inputs, and the exact tree that it is.

    A polygon, at first the rectangle of the bounds, is asked about at its middle by `linear_region`. The
    first line, in the order of computation, that runs through the polygon cuts it in two: what is
    computed before is affine on all of it, so the line is exact. A polygon that no line cuts is a region. The
    cuts are the nodes of the tree. All of it is done in float64, whatever the precision of the model.

    Two neighboring regions may have the same map, as where a unit changes sides that nothing listens to.

    Args:
        model: a callable of one example `(2,)`, piecewise linear; see `linear_region`.
        bounds: `(low, high)`, each a number or `(2,)`: the rectangle.
        names: of the two inputs, for the text; by default `x_0` and `x_1`.
        max_regions: stop with an error at more.

    Returns:
        `LinearRegions(tree, polygons, leaves, text)`. Outside of the bounds the tree may answer wrongly.

    Raises:
        TypeError: `model` is not callable, or an argument is traced: the number of regions depends on the
            weights, so that there is no compiling it.
        ValueError: `bounds` are not finite or do not rise, there are more than `max_regions`, or `names`
            are not two.
        NotImplementedError: the model has an operation that is not piecewise linear; it is named.

    References:
        Aytekin, "Neural networks are decision trees", 2022, arXiv:2210.05189.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import rules
        >>> found = rules.linear_regions(lambda x: jnp.maximum(x[:1] - x[1:], 0.0))
        >>> print(found.text)
        if x_0 - x_1 <= 0:
            y_0 = 0
        else:
            y_0 = x_0 - x_1
        >>> found.tree([0.5, 0.2]).tolist()
        [0.30000001192092896]
    """
    model = as_model(model)
    if not _checks.is_concrete((model, bounds)):
        raise TypeError(
            "`model` must not be traced: the number of its regions is not known before its weights"
        )
    max_regions = _checks.check_integer("max_regions", max_regions, at_least=1)
    texts = feature_names(names, 2)
    corners = _rectangle(bounds)
    # Only within this block, and of this thread: the caller's precision stays as it is.
    with jax.enable_x64(True):
        floats, rest = partition(model)
        floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), floats)
        growing = _grow((floats, rest), corners, max_regions)
    tree = growing.tree()
    leaves = np.array(sorted(growing.polygons), np.int32)
    text = "\n".join(_text(tree, texts))
    return LinearRegions(tree, tuple(growing.polygons[leaf] for leaf in leaves.tolist()), leaves, text)


def _rectangle(bounds: Any) -> np.ndarray:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"`bounds` must be (low, high); got {bounds!r}")
    sides = []
    for name, value in zip(("bounds[0]", "bounds[1]"), bounds, strict=True):
        array = np.asarray(_checks.check_float_array(name, value), np.float64)
        _checks.check_finite(name, array)
        if array.shape not in ((), (2,)):
            raise ValueError(f"`{name}` must be a number or have shape (2,); got {array.shape}")
        sides.append(np.broadcast_to(array, (2,)))
    (left, bottom), (right, top) = sides
    if left >= right or bottom >= top:
        raise ValueError(f"`bounds` must rise, from low to high in both inputs; got {bounds!r}")
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])


class _Growing(NamedTuple):
    """The tree while it grows: a row a node."""

    lines: list[tuple[np.ndarray, float]]
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
        for node, (slope, start) in self.maps.items():
            kernel[node], bias[node] = slope, start
        normal = np.stack([line for line, _ in self.lines])
        offset = np.array([offset for _, offset in self.lines])
        left, right = np.array(self.children, np.int32).T
        return AffineTree(normal, offset, left, right, kernel, bias)


def _grow(model: Any, corners: np.ndarray, max_regions: int) -> _Growing:
    growing = _Growing([], [], {}, {})
    thin = _THIN * float(np.ptp(corners, axis=0).max())
    waiting = [(growing.add(), corners)]
    while waiting:
        now, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        middles = np.stack([polygon.mean(axis=0) for _, polygon in now])
        middles = np.concatenate([middles, np.repeat(middles[:1], _AT_ONCE - len(now), axis=0)])
        regions: LinearRegion = jax.tree.map(np.asarray, _regions_at(model, middles))
        if not all(np.isfinite(part).all() for part in regions[:4]):
            raise ValueError("`model` must hold finite numbers only, and answer with such")
        for i, (node, polygon) in enumerate(now):
            region = LinearRegion(*(leaf[i] for leaf in regions))
            line = _first_cut(region, polygon, thin)
            if line is None:
                growing.maps[node] = np.asarray(region.kernel), np.asarray(region.bias)
                growing.polygons[node] = polygon
                continue
            children = growing.add(), growing.add()
            growing.lines[node], growing.children[node] = line, children
            waiting += zip(children, _cut(polygon, *line), strict=True)
        if len(growing.polygons) + len(waiting) > max_regions:
            raise ValueError(f"`max_regions` must be larger: there are more than {max_regions} regions")
    return growing


@jax.jit
def _regions_at(model: Any, points: jax.Array) -> LinearRegion:
    floats, rest = model
    whole = jax.tree.map(lambda a, b: b if a is None else a, floats, rest, is_leaf=lambda leaf: leaf is None)
    return jax.vmap(linear_region, (None, 0))(whole, points)


def _first_cut(region: LinearRegion, polygon: np.ndarray, thin: float) -> tuple[np.ndarray, float] | None:
    """The first line of a region that runs through a polygon, its normal of length 1."""
    normals, offsets = np.asarray(region.normals), np.asarray(region.offsets)
    lengths = np.linalg.norm(normals, axis=1)
    steep = np.flatnonzero(lengths > _STEEP * lengths.max(initial=0.0))
    normals, offsets = normals[steep] / lengths[steep, None], offsets[steep] / lengths[steep]
    beyond = polygon @ normals.T - offsets
    cutting = np.flatnonzero((beyond.max(axis=0) > thin) & (beyond.min(axis=0) < -thin))
    if cutting.size == 0:
        return None
    normal, offset = normals[cutting[0]], float(offsets[cutting[0]])
    # One way round, whichever side was asked: what is written starts with a plus.
    sign = 1.0 if normal[np.argmax(np.abs(normal) > _STEEP)] > 0 else -1.0
    return sign * normal, sign * offset


def _cut(polygon: np.ndarray, normal: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """The two parts of a convex polygon, that with `normal @ x <= offset` first."""
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


def _text(tree: AffineTree, names: Sequence[str], node: int = 0, depth: int = 0) -> list[str]:
    indent = "    " * depth
    if tree.left[node] == node:
        maps = zip(tree.kernel[node].T, tree.bias[node], strict=True)
        return [f"{indent}y_{k} = {_sum(slopes, names, start)}" for k, (slopes, start) in enumerate(maps)]
    # Written with the first input's weight as 1.
    normal, offset = tree.normal[node], tree.offset[node]
    scale = normal[0] if abs(normal[0]) > _STEEP else normal[1]
    return [
        f"{indent}if {_sum(normal / scale, names, 0.0)} <= {number(offset / scale)}:",
        *_text(tree, names, int(tree.left[node]), depth + 1),
        f"{indent}else:",
        *_text(tree, names, int(tree.right[node]), depth + 1),
    ]


def _sum(slopes: np.ndarray, names: Sequence[str], start: float) -> str:
    """Such as `2 x_0 - x_1 + 0.5`."""
    terms = [(slope, name) for slope, name in zip(slopes, names, strict=True) if abs(slope) > _STEEP]
    parts: list[str] = []
    for value, name in [*terms, (start, "")] if abs(start) > _STEEP or not terms else terms:
        size = number(abs(value))
        word = name if name and size == "1" else f"{size} {name}".rstrip()
        sign = "-" if value < 0 else "+"
        parts.append(f" {sign} {word}" if parts else word if sign == "+" else f"-{word}")
    return "".join(parts)
