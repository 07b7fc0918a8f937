"""The square attack: random search over square perturbations, by queries of the output only."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import while_loop
from jaxnn._precision import draw_wide, wide_dtype
from jaxnn._typing import Key, Model, PyTree, Scalar
from jaxnn.attacks._baselines import image_shape_of
from jaxnn.attacks._common import Attack, Bounds, Task, final_result, prepare
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._geometry import distance

# The fraction of the image that a square covers is halved after these queries, of 10,000.
_HALVED = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)


def square(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    epsilon: Scalar,
    key: Key,
    norm: Literal["linf", "l2"] = "linf",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    queries: int = 5000,
    fraction: Scalar = 0.8,
    image_shape: Sequence[int] | None = None,
) -> Attack:
    """Square attack: random square perturbations in a ball, each kept if it raises the margin.

    For linf it starts with vertical stripes of `+-epsilon`, and each query sets a square to `+-epsilon`, one
    sign per channel. For l2 it starts with a grid of tiles, each with a positive and a negative bump, and
    each query moves the l2 norm of the perturbation in one square into another, in the form of such bumps.
    The side of the square is the root of a fraction of the image's area that is halved eight times.

    Args:
        model: a callable of one example with logits `(n_out,)` as output; no gradient is computed.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        epsilon: radius of the ball around `x` in that norm, at least 0.
        key: a JAX random key. Query `i` uses `jax.random.fold_in(key, i)`.
        norm: `"linf"` or `"l2"`.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        queries: largest number of queries, at least 3; the attack stops at the first success.
        fraction: of the image that the first squares cover, in `[0, 1]`.
        image_shape: `(h, w)` or `(h, w, c)`; None for the shape of `x`, or a square for a vector.

    Returns:
        An `Attack`.

    Raises:
        TypeError: an argument of another type.
        ValueError: `queries` or `fraction` is out of its range, the shape of the image does not fit, or as
            `fgsm` raises.

    References:
        Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial
        attack via random search", 2020, arXiv:1912.00049, algorithms 1 to 3 and equation 2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([jnp.sum(x[:2]), jnp.sum(x[2:])])
        >>> x = jnp.array([0.6, 0.6, 0.4, 0.4])
        >>> result = attacks.square(model, x, 0, epsilon=0.15, key=jax.random.key(0))
        >>> bool(result.success), round(float(result.distance), 2)
        (True, 0.15)
    """
    queries = _checks.check_integer("queries", queries, at_least=3)
    fraction = _checks.check_number("fraction", fraction, at_least=0, at_most=1)
    task = prepare(
        model, x, label, norm=norm, norms=("linf", "l2"), epsilon=epsilon, bounds=bounds, targeted=targeted,
        key=key, needs_key=True, needs_epsilon=True,
    )  # fmt: skip
    height, width, *channels = image_shape_of("image_shape", image_shape, task.x)
    shape = (height, width, math.prod(channels))
    return _square(task, fraction, key, queries=queries, image_shape=shape)


@jax.jit(static_argnames=("queries", "image_shape"))
def _square(
    task: Task, fraction: jax.Array, key: Key, *, queries: int, image_shape: tuple[int, int, int]
) -> Attack:
    fixed = lax.stop_gradient(task)
    x = fixed.x
    image = x.reshape(image_shape)
    start, change = (_stripes, _set_square) if fixed.norm == "linf" else (_tiles, _move_norm)

    def perturbed(delta: jax.Array) -> jax.Array:
        return fixed.confine(x + delta.reshape(x.shape))

    def step(carry: Any) -> Any:
        count, candidate, value = carry
        delta = candidate.reshape(image_shape) - image
        side = _side(fraction, count, queries, image_shape)
        proposal = perturbed(change(jax.random.fold_in(key, count), delta, side, fixed.epsilon))
        margin = fixed.margin_at(proposal)
        better = margin > value
        return count + 1, jnp.where(better, proposal, candidate), jnp.where(better, margin, value)

    first = perturbed(start(jax.random.fold_in(key, 0), image_shape, fixed.epsilon))
    at_x, at_first = fixed.margin_at(x), fixed.margin_at(first)
    carry = (jnp.int32(2), jnp.where(at_x > 0, x, first), jnp.where(at_x > 0, at_x, at_first))
    count, candidate, _ = while_loop(lambda c: (c[0] < queries - 1) & ~(c[2] > 0), step, carry)
    return final_result(task, candidate, count)


def _side(
    fraction: jax.Array, count: jax.Array | int, queries: int, shape: tuple[int, int, int]
) -> jax.Array:
    """The side of the square of one query."""
    position = jnp.asarray(count, jnp.float32) * (10_000 / queries)
    halved = jnp.sum(position > np.array(_HALVED, np.float32)).astype(fraction.dtype)
    side = jnp.sqrt(fraction * 0.5**halved * shape[0] * shape[1])
    return jnp.clip(jnp.round(side).astype(int), 1, min(shape[:2]))


def _signs(uniform: jax.Array) -> jax.Array:
    """Random signs from uniform numbers in [0, 1)."""
    return jnp.where(uniform < 0.5, -1, 1).astype(uniform.dtype)


def _stripes(key: jax.Array, shape: tuple[int, int, int], epsilon: jax.Array) -> jax.Array:
    uniform = draw_wide(jax.random.uniform, key, (1, *shape[1:]), epsilon.dtype)
    return epsilon * jnp.broadcast_to(_signs(uniform), shape)


def _corner(uniform: jax.Array, side: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Distances of all rows and columns from the corner of a square, at a place of two uniform numbers."""
    free = jnp.array(shape[:2]) - side
    row, column = jnp.minimum(jnp.floor(uniform * (free + 1).astype(uniform.dtype)).astype(free.dtype), free)
    return jnp.arange(shape[0])[:, None] - row, jnp.arange(shape[1])[None, :] - column


def _inside(corner: tuple[jax.Array, jax.Array], side: jax.Array) -> jax.Array:
    rows, columns = corner
    return ((rows >= 0) & (rows < side) & (columns >= 0) & (columns < side))[..., None]


def _set_square(key: jax.Array, delta: jax.Array, side: jax.Array, epsilon: jax.Array) -> jax.Array:
    uniform = _uniform(key, 2, delta)
    inside = _inside(_corner(uniform[:2], side, delta.shape), side)
    return jnp.where(inside, epsilon * _signs(uniform[2:]).astype(delta.dtype), delta)


def _uniform(key: jax.Array, count: int, delta: jax.Array) -> jax.Array:
    """`count` uniform numbers and one per channel, in a single draw: each takes long to compile."""
    return jax.random.uniform(key, (count + delta.shape[2],), wide_dtype(delta.dtype))


def _bump(rows: jax.Array, columns: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
    """Equation 2: concentric rings in a window, each higher than the one around it; 0 outside."""
    middle = height // 2
    ring = jnp.maximum(jnp.abs(rows - middle), jnp.abs(columns - width // 2))
    sums = jnp.cumsum(1 / np.arange(1, sum(ring.shape) + 2) ** 2)  # a height is at most that of the image
    value = sums[middle] - jnp.where(ring > 0, sums[jnp.clip(ring - 1, 0)], 0)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return jnp.where(inside, jnp.maximum(value, 0), 0)


def _bumps(rows: jax.Array, columns: jax.Array, side: jax.Array) -> jax.Array:
    """A square with a positive bump in one half and a negative one in the other."""
    half = side // 2
    return _bump(rows, columns, side, half) - _bump(rows, columns - half, side, side - half)


def _length(values: jax.Array) -> jax.Array:
    """The l2 norm of each channel."""
    return jnp.sqrt(jnp.sum(jnp.square(values), axis=(0, 1), keepdims=True))


def _unit(values: jax.Array) -> jax.Array:
    length = _length(values)
    return values / jnp.where(length > 0, length, 1)


def _tiles(key: jax.Array, shape: tuple[int, int, int], epsilon: jax.Array) -> jax.Array:
    side = max(min(shape[:2]) // 5, 1)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    bumps = _bumps(jnp.asarray(rows % side), jnp.asarray(columns % side), jnp.asarray(side))
    grid = (-(-shape[0] // side), -(-shape[1] // side), shape[2])
    signs = _signs(draw_wide(jax.random.uniform, key, grid, epsilon.dtype))
    delta = bumps[..., None].astype(epsilon.dtype) * signs[rows // side, columns // side]
    return epsilon * delta / distance(delta, "l2")


def _move_norm(key: jax.Array, delta: jax.Array, side: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Algorithm 3: move the norm in two squares, and what the ball leaves, into the first of them."""
    shape, uniform = delta.shape, _uniform(key, 5, delta)
    largest = max(min(shape[:2]) - 1 + min(shape[:2]) % 2, 1)
    side = jnp.minimum(jnp.maximum(side, 3) // 2 * 2 + 1, largest)  # odd
    corner = _corner(uniform[:2], side, shape)
    target, source = _inside(corner, side), _inside(_corner(uniform[2:4], side, shape), side)
    bumps, transposed = _bumps(*corner, side), _bumps(corner[1], corner[0], side)
    form = jnp.where(uniform[4] < 0.5, bumps, transposed)[..., None].astype(delta.dtype)
    signs = _signs(uniform[5:])[None, None].astype(delta.dtype)
    form = _unit(form) * signs + _unit(jnp.where(target, delta, 0))
    left = jnp.maximum(jnp.square(epsilon) - jnp.sum(jnp.square(delta)), 0)
    available = jnp.sqrt(jnp.square(_length(jnp.where(target | source, delta, 0))) + left / shape[2])
    return jnp.where(target, _unit(form) * available, jnp.where(source, 0, delta))
