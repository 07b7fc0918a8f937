"""Data sets of two inputs, where a network and its layers can be looked at as a plane."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn import _checks

_TURNS = 1.75  # of each arm of the spiral


class Points(NamedTuple):
    """Points of a plane and their classes.

    Attributes:
        inputs: `(n, 2)`, floats: `(x_1, x_2)`.
        labels: `(n,)`, int32: 0 or 1, in turn.
    """

    inputs: jax.Array
    labels: jax.Array


def point_set(name: str, *, key: jax.Array, n: int, noise: ArrayLike = 0.0) -> Points:
    """Draw points of a plane that are in one of two classes.

    - `"circles"`: a disc, class 1, in a ring, class 0: radius `U(0, 0.5)` and `U(0.7, 1)`, at any angle.
    - `"exclusive-or"`: each input is `+/- U(0.05, 1)`; class 1 where just one of the two is positive.
    - `"gaussians"`: two clouds, `N(m, 0.15^2)` in each input, `m` being -0.4 for class 0 and 0.4 for class 1.
    - `"spiral"`: two arms that wind around each other: radius `r ~ U(0.1, 1)` at the angle
      `2 pi * 1.75 * r`, half a turn further for class 1.

    Every second point is of class 1, so that any slice is balanced. All points lie in [-1, 1]^2, but for
    one in 16,000 of the gaussians. The sets are those of the TensorFlow Playground
    (Smilkov et al., Direct-Manipulation Visualization of Deep Networks, 2017), drawn to another scale.

    Args:
        name: one of the names above.
        key: a JAX random key.
        n: how many points, at least 1.
        noise: the standard deviation of normal noise that is added to each input, at least 0; it may be
            traced. The points are otherwise those of the same key without it.

    Returns:
        `Points(inputs, labels)`, `(n, 2)` and `(n,)`.

    Raises:
        ValueError: an unknown name, `n` below 1, or `noise` below 0 or not finite (where it is known, not
            traced) or no single number.
        TypeError: `key` is no key, `n` is no integer, or `noise` is no number.

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
    deviation = _checks.check_float_array("noise", noise)
    _checks.check_shape("noise", deviation, (), "one number")
    _checks.check_finite("noise", deviation)
    if _checks.known_false(deviation >= 0):
        raise ValueError(f"`noise` must be at least 0; got {float(deviation)}")
    return _two_inputs(key, deviation, name=name, n=n)


@jax.jit(static_argnames=("name", "n"))
def _two_inputs(key: jax.Array, noise: jax.Array, *, name: str, n: int) -> Points:
    point_key, noise_key = jax.random.split(key)
    labels = jnp.arange(n, dtype=jnp.int32) % 2
    points = _PLANES[name](point_key, labels)
    return Points(points + noise.astype(points.dtype) * jax.random.normal(noise_key, points.shape), labels)


def _circles(key: jax.Array, labels: jax.Array) -> jax.Array:
    radius_key, angle_key = jax.random.split(key)
    share = jax.random.uniform(radius_key, labels.shape)
    angles = jax.random.uniform(angle_key, labels.shape, maxval=2 * jnp.pi)
    return _polar(jnp.where(labels == 1, 0.5 * share, 0.7 + 0.3 * share), angles)


def _exclusive_or(key: jax.Array, labels: jax.Array) -> jax.Array:
    sign_key, size_key = jax.random.split(key)
    first = jax.random.rademacher(sign_key, labels.shape)
    second = jnp.where(labels == 1, -first, first)
    # From 0.05 on: the classes do not touch.
    return jnp.stack([first, second], 1) * jax.random.uniform(size_key, (*labels.shape, 2), minval=0.05)


def _gaussians(key: jax.Array, labels: jax.Array) -> jax.Array:
    return 0.8 * (labels[:, None] - 0.5) + 0.15 * jax.random.normal(key, (*labels.shape, 2))


def _spiral(key: jax.Array, labels: jax.Array) -> jax.Array:
    radius = jax.random.uniform(key, labels.shape, minval=0.1)  # at the center the arms would meet
    return _polar(radius, 2 * jnp.pi * (_TURNS * radius + labels / 2))


def _polar(radius: jax.Array, angle: jax.Array) -> jax.Array:
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=1)


_PLANES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "circles": _circles,
    "exclusive-or": _exclusive_or,
    "gaussians": _gaussians,
    "spiral": _spiral,
}
POINT_SETS = tuple(_PLANES)
