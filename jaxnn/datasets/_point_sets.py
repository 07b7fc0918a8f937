"""Point sets: two classes of points in the plane, where all that a network computes can be drawn."""

from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnn import _checks
from jaxnn._repr import short_repr
from jaxnn._typing import Key, PointSetName, Scalar

POINT_SETS: tuple[PointSetName, ...] = get_args(PointSetName)
_TURNS = 1.75  # of each arm of the spiral


class Points(NamedTuple):
    """Points of the plane and their classes.

    Attributes:
        inputs: `(n, 2)`, floats: `(x_1, x_2)`.
        labels: `(n,)`, int32: 0 and 1 alternate.
    """

    inputs: Float[Array, "n 2"]
    labels: Int[Array, "n"]

    def __repr__(self) -> str:
        return short_repr(self)


def point_set(name: PointSetName, *, key: Key, n: int, noise: Scalar = 0.0) -> Points:
    """Point set: draw random points of the plane in two classes.

    - `"circles"`: a disc, class 1, in a ring, class 0: radius `U(0, 0.5)` and `U(0.7, 1)`, at any angle.
    - `"exclusive-or"`: each input is `+/- U(0.05, 1)`; class 1 where exactly one of the two is positive.
    - `"gaussians"`: two clouds, `N(m, 0.15^2)` in each input, with `m = -0.4` for class 0 and 0.4 for
      class 1.
    - `"spiral"`: two arms that wind around each other: radius `r ~ U(0.1, 1)` at the angle
      `2 pi * 1.75 * r`, plus half a turn for class 1.

    Every second point is of class 1, so any slice is balanced. All points lie in [-1, 1]^2, except for one in
    16,000 of the gaussians. The sets are those of the TensorFlow Playground
    (Smilkov et al., Direct-Manipulation Visualization of Deep Networks, 2017), at another scale.

    Args:
        name: one of the names above.
        key: a JAX random key.
        n: the number of points, at least 1.
        noise: the standard deviation of the normal noise added to each input, at least 0; it may be traced.
            Otherwise the points are those of the same key without noise.

    Returns:
        `Points(inputs, labels)`, `(n, 2)` and `(n,)`.

    Raises:
        ValueError: an unknown name, `n` below 1, or `noise` that is not one number, or, for a concrete value,
            below 0 or not finite.
        TypeError: `key` is not a key, `n` is not an integer, or `noise` is not a number.

    Example:
        >>> import jax, jaxnn
        >>> points = jaxnn.datasets.point_set("exclusive-or", key=jax.random.key(0), n=200)
        >>> one_positive = (points.inputs > 0).sum(axis=1) == 1
        >>> points.inputs.shape, bool((one_positive == points.labels).all())
        ((200, 2), True)
    """
    _checks.check_option("name", name, POINT_SETS)
    _checks.check_key("key", key)
    n = _checks.check_integer("n", n, at_least=1)
    _checks.check_bytes("n", 16 * n)
    return _point_set(key, _checks.check_number("noise", noise, at_least=0), name=name, n=n)


@jax.jit(static_argnames=("name", "n"))
def _point_set(key: Key, noise: Float[Array, ""], *, name: PointSetName, n: int) -> Points:
    point_key, noise_key = jax.random.split(key)
    labels = jnp.arange(n, dtype=jnp.int32) % 2
    points = _GENERATORS[name](point_key, labels)
    return Points(points + noise.astype(points.dtype) * jax.random.normal(noise_key, points.shape), labels)


def _circles(key: Key, labels: Int[Array, "n"]) -> Float[Array, "n 2"]:
    radius_key, angle_key = jax.random.split(key)
    uniform = jax.random.uniform(radius_key, labels.shape)
    angles = jax.random.uniform(angle_key, labels.shape, maxval=2 * jnp.pi)
    return _polar(jnp.where(labels == 1, 0.5 * uniform, 0.7 + 0.3 * uniform), angles)


def _exclusive_or(key: Key, labels: Int[Array, "n"]) -> Float[Array, "n 2"]:
    sign_key, size_key = jax.random.split(key)
    first = jax.random.rademacher(sign_key, labels.shape)
    second = jnp.where(labels == 1, -first, first)
    # At least 0.05: the classes do not touch.
    return jnp.stack([first, second], 1) * jax.random.uniform(size_key, (*labels.shape, 2), minval=0.05)


def _gaussians(key: Key, labels: Int[Array, "n"]) -> Float[Array, "n 2"]:
    return 0.8 * (labels[:, None] - 0.5) + 0.15 * jax.random.normal(key, (*labels.shape, 2))


def _spiral(key: Key, labels: Int[Array, "n"]) -> Float[Array, "n 2"]:
    radius = jax.random.uniform(key, labels.shape, minval=0.1)  # the arms would meet at the center
    return _polar(radius, 2 * jnp.pi * (_TURNS * radius + labels / 2))


def _polar(radius: Float[Array, "n"], angle: Float[Array, "n"]) -> Float[Array, "n 2"]:
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=1)


_GENERATORS: dict[PointSetName, Callable[[Key, jax.Array], jax.Array]] = {
    "circles": _circles,
    "exclusive-or": _exclusive_or,
    "gaussians": _gaussians,
    "spiral": _spiral,
}
