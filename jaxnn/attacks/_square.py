"""A search at random, by squares, that asks for answers only."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._common import Attack, Bounds, Model, Task, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._geometry import confine, distance
from jaxnn.attacks._search import constant, finish, number

# The share of the picture that a square covers is halved after these queries, of 10,000.
_HALVED = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)


def square(
    model: Model,
    x: Any,
    label: Label,
    *,
    epsilon: Any,
    key: jax.Array,
    norm: str = "linf",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    queries: int = 5000,
    share: Any = 0.8,
    image_shape: Sequence[int] | None = None,
) -> Attack:
    """An adversarial input in a ball by random squares, each kept where it raises the margin.

    For linf it begins with vertical stripes of `+-epsilon`, and each query sets a square to `+-epsilon`, one
    sign a channel. For l2 it begins with a grid of tiles with a positive and a negative bump each, and each
    query moves what one square holds of the change's length into another, in the form of such bumps. The side
    of the square is the root of a share of the picture's area that is halved eight times.

    Args:
        model: a callable of one example with logits `(n_out,)` for an answer; no gradient is taken.
        x: the example, within the bounds.
        label: its class, an integer in `[0, n_out)`; or a function from the output to a margin, above 0 where
            the attack has succeeded.
        epsilon: the radius of the ball, in units of the input.
        key: a JAX random key. Query `i` is drawn from `jax.random.fold_in(key, i)`.
        norm: `"linf"` or `"l2"`.
        bounds: `(low, high)`, each a number or of the shape of `x`.
        targeted: whether `label` is the class that is wanted.
        queries: at most so many, at least 3; fewer where it has succeeded before.
        share: of the picture that the first squares cover, from 0 to 1.
        image_shape: `(h, w)` or `(h, w, channels)`; None for the shape of `x`, or the square that a vector
            makes.

    Returns:
        An `Attack`.

    Raises:
        TypeError: as `fmn` raises; `key` is no key.
        ValueError: as `fmn` raises; the picture's shape does not fit.

    References:
        Andriushchenko, Croce, Flammarion and Hein, "Square attack: a query-efficient black-box adversarial
        attack via random search", 2020, arXiv:1912.00049, algorithms 1 to 3 and equation 2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([jnp.sum(x[:2]), jnp.sum(x[2:])])
        >>> x = jnp.array([0.6, 0.6, 0.4, 0.4])
        >>> found = attacks.square(model, x, 0, epsilon=0.15, key=jax.random.key(0))
        >>> bool(found.success), round(float(found.distance), 2)
        (True, 0.15)
    """
    queries = _checks.check_integer("queries", queries, at_least=3)
    share = number("share", share, at_least=0)
    if _checks.known_false(share <= 1):
        raise ValueError(f"`share` must be at most 1; got {share}")
    task, restored = prepare(
        model, x, label, norm=norm, norms=("linf", "l2"), epsilon=epsilon, bounds=bounds, targeted=targeted,
        key=key, needs_key=True, needs_epsilon=True,
    )  # fmt: skip
    shape = _picture(image_shape, task.x)
    return restored(
        _square(task, share, key, norm=norm, targeted=targeted, queries=queries, image_shape=shape)
    )


def _picture(image_shape: Any, x: jax.Array) -> tuple[int, int, int]:
    """Height, width and channels."""
    if image_shape is None and x.ndim in (2, 3):
        image_shape = x.shape
    shape = _checks.check_image_shape("image_shape", image_shape, x.size, "the entries of `x`")
    if len(shape) not in (2, 3):
        raise ValueError(f"`image_shape` must be (h, w) or (h, w, channels); got {shape}")
    return (shape[0], shape[1], math.prod(shape[2:]))


@jax.jit(static_argnames=("norm", "targeted", "queries", "image_shape"))
def _square(
    task: Task,
    share: jax.Array,
    key: jax.Array,
    *,
    norm: str,
    targeted: bool,
    queries: int,
    image_shape: tuple[int, int, int],
) -> Attack:
    fixed = constant(task)
    margin, x = margin_of(fixed.label, targeted), fixed.x
    image = x.reshape(image_shape)
    start, change = (_stripes, _in_square) if norm == "linf" else (_tiles, _moved)

    def moved_by(delta: jax.Array) -> jax.Array:
        return confine(x, x + delta.reshape(x.shape), norm, fixed.epsilon, fixed.bounds)

    def step(carry: Any) -> Any:
        count, candidate, value = carry
        delta = candidate.reshape(image_shape) - image
        side = _side(share, count, queries, image_shape)
        proposal = moved_by(change(jax.random.fold_in(key, count), delta, side, fixed.epsilon))
        gain = margin(fixed.model(proposal))
        better = gain > value
        return count + 1, jnp.where(better, proposal, candidate), jnp.where(better, gain, value)

    first = moved_by(start(jax.random.fold_in(key, 0), image_shape, fixed.epsilon))
    at_x, at_first = margin(fixed.model(x)), margin(fixed.model(first))
    candidate = jnp.where(at_x > 0, x, first)
    carry = vary_like((jnp.int32(2), candidate, jnp.where(at_x > 0, at_x, at_first)), (x, key))
    count, candidate, _ = lax.while_loop(lambda c: (c[0] < queries - 1) & ~(c[2] > 0), step, carry)
    return finish(task, candidate, margin_of(task.label, targeted), norm, count)


def _side(share: jax.Array, count: Any, queries: int, shape: tuple[int, int, int]) -> jax.Array:
    """The side of the square of one query."""
    halved = jnp.sum(count * (10_000 / queries) > np.array(_HALVED))
    side = jnp.sqrt(share * 0.5**halved * shape[0] * shape[1])
    return jnp.clip(jnp.round(side).astype(int), 1, min(shape[:2]))


def _signs(share: jax.Array) -> jax.Array:
    """Of uniform numbers in [0, 1) half of them -1 and half of them 1."""
    return jnp.where(share < 0.5, -1, 1).astype(share.dtype)


def _stripes(key: jax.Array, shape: tuple[int, int, int], epsilon: jax.Array) -> jax.Array:
    drawn = jax.random.uniform(key, (1, *shape[1:]), epsilon.dtype)
    return epsilon * jnp.broadcast_to(_signs(drawn), shape)


def _corner(shares: jax.Array, side: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The distances of all rows and columns from the corner of a square, which two uniform numbers place."""
    free = jnp.array(shape[:2]) - side
    row, column = jnp.minimum(jnp.floor(shares * (free + 1)).astype(int), free)
    return jnp.arange(shape[0])[:, None] - row, jnp.arange(shape[1])[None, :] - column


def _inside(corner: tuple[jax.Array, jax.Array], side: jax.Array) -> jax.Array:
    rows, columns = corner
    return ((rows >= 0) & (rows < side) & (columns >= 0) & (columns < side))[..., None]


def _in_square(key: jax.Array, delta: jax.Array, side: jax.Array, epsilon: jax.Array) -> jax.Array:
    drawn = _drawn(key, 2, delta)
    inside = _inside(_corner(drawn[:2], side, delta.shape), side)
    return jnp.where(inside, epsilon * _signs(drawn[2:]).astype(delta.dtype), delta)


def _drawn(key: jax.Array, count: int, delta: jax.Array) -> jax.Array:
    """So many uniform numbers and one a channel, drawn at once: each draw takes long to compile."""
    wide = jnp.promote_types(delta.dtype, jnp.float32)
    return jax.random.uniform(key, (count + delta.shape[2],), wide)


def _bump(rows: jax.Array, columns: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
    """Equation 2: rings round the middle of a window, each higher than the one around it; 0 outside of it."""
    middle = height // 2
    ring = jnp.maximum(jnp.abs(rows - middle), jnp.abs(columns - width // 2))
    sums = jnp.cumsum(1 / np.arange(1, sum(ring.shape) + 2) ** 2)  # a height is at most the picture's
    value = sums[middle] - jnp.where(ring > 0, sums[jnp.clip(ring - 1, 0)], 0)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return jnp.where(inside, jnp.maximum(value, 0), 0)


def _bumps(rows: jax.Array, columns: jax.Array, side: jax.Array) -> jax.Array:
    """One half of a square up, the other down."""
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
    signs = _signs(jax.random.uniform(key, grid, epsilon.dtype))
    delta = bumps[..., None].astype(epsilon.dtype) * signs[rows // side, columns // side]
    return epsilon * delta / distance(delta, "l2")


def _moved(key: jax.Array, delta: jax.Array, side: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Algorithm 3: the length in two squares, and what the ball has left, put into the first of them."""
    shape, drawn = delta.shape, _drawn(key, 5, delta)
    largest = max(min(shape[:2]) - 1 + min(shape[:2]) % 2, 1)
    side = jnp.minimum(jnp.maximum(side, 3) // 2 * 2 + 1, largest)  # odd
    corner = _corner(drawn[:2], side, shape)
    to, off = _inside(corner, side), _inside(_corner(drawn[2:4], side, shape), side)
    upright = _bumps(*corner, side)
    lying = _bumps(corner[1], corner[0], side)
    form = jnp.where(drawn[4] < 0.5, upright, lying)[..., None].astype(delta.dtype)
    form = _unit(form) * _signs(drawn[5:]).astype(delta.dtype) + _unit(jnp.where(to, delta, 0))
    left = jnp.maximum(jnp.square(epsilon) - jnp.sum(jnp.square(delta)), 0)
    available = jnp.sqrt(jnp.square(_length(jnp.where(to | off, delta, 0))) + left / shape[2])
    return jnp.where(to, _unit(form) * available, jnp.where(off, 0, delta))
