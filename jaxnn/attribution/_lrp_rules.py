"""The layer rules of LRP: how the relevance of a layer's output is redistributed to its input.

Each rule is `rule(layer, relevance, a, z, options) -> relevance of a`, for a layer `z = A a + b`. With
`s(z) = z + eps sign z`, the sign of 0 being 1, and `+` and `-` for the positive and the negative
part of a number, of each weight or of each bias.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._typing import PyTree, Scalar
from jaxnn.attribution._lrp_layers import Layer


class Options(NamedTuple):
    """The numbers in the rules; `low` and `high` are the bounds of the layer's input, for the z-box rule."""

    epsilon: Scalar
    gamma: Scalar
    alpha: Scalar
    stabilizer: Scalar
    low: PyTree = None
    high: PyTree = None


LayerRule = Callable[[Layer, jax.Array, jax.Array, jax.Array, Options], jax.Array]


def redistribute(
    function: Callable[..., jax.Array], values: tuple[jax.Array, ...], relevance: jax.Array, epsilon: Scalar
) -> list[jax.Array]:
    """Relevance of each value by its contribution to their sum: `v_j  d<relevance / s(z), z> / dv_j`.

    Where `s(z)` is 0, as with an epsilon of 0 and no terms, nothing is redistributed.
    """
    z, pull = jax.vjp(function, *values)
    stabilized = z + jnp.asarray(epsilon, z.dtype) * jnp.where(z < 0, -1, 1).astype(z.dtype)
    empty = stabilized == 0
    fractions = jnp.where(empty, 0, relevance / jnp.where(empty, 1, stabilized))
    return [v * g for v, g in zip(values, pull(fractions), strict=True)]


def _epsilon(layer: Layer, relevance: jax.Array, a: jax.Array, z: jax.Array, o: Options) -> jax.Array:
    """`a * A^T (R / s(z))`."""
    return redistribute(layer.apply, (a,), relevance, o.epsilon)[0]


def _by_sign(
    sums: Callable[[jax.Array, jax.Array], jax.Array], relevance: jax.Array, a: jax.Array, o: Options
) -> jax.Array:
    """Redistribute by `sums(a+, a-)`, for both parts of the input."""
    positive, negative = redistribute(sums, (jnp.maximum(a, 0), jnp.minimum(a, 0)), relevance, o.stabilizer)
    return positive + negative


def _raising(layer: Layer, p: jax.Array, n: jax.Array) -> jax.Array:
    """Terms that raise the output: `A+ a+ + A- a- + b+`."""
    return layer.signed(p)[0] + layer.signed(n)[1] + jnp.maximum(layer.bias(p), 0)


def _lowering(layer: Layer, p: jax.Array, n: jax.Array) -> jax.Array:
    """Terms that lower the output: `A- a+ + A+ a- + b-`."""
    return layer.signed(p)[1] + layer.signed(n)[0] + jnp.minimum(layer.bias(p), 0)


def _z_plus(layer: Layer, relevance: jax.Array, a: jax.Array, z: jax.Array, o: Options) -> jax.Array:
    """All relevance to the terms that raise the output."""
    return _by_sign(lambda p, n: _raising(layer, p, n), relevance, a, o)


def _alpha_beta(layer: Layer, relevance: jax.Array, a: jax.Array, z: jax.Array, o: Options) -> jax.Array:
    """`alpha` times to the terms that raise it, minus `alpha - 1` times to those that lower it."""
    alpha = jnp.asarray(o.alpha, z.dtype)
    lowering = _by_sign(lambda p, n: _lowering(layer, p, n), relevance, a, o)
    return alpha * _z_plus(layer, relevance, a, z, o) - (alpha - 1) * lowering


def _gamma(layer: Layer, relevance: jax.Array, a: jax.Array, z: jax.Array, o: Options) -> jax.Array:
    """Epsilon, with the terms that raise a positive output, or lower a negative one, times `1 + gamma`."""
    gamma = jnp.asarray(o.gamma, z.dtype)

    def part(favored: Callable[..., jax.Array], where: jax.Array) -> jax.Array:
        def sums(p: jax.Array, n: jax.Array) -> jax.Array:
            return sum((*layer.signed(p), *layer.signed(n)), layer.bias(a)) + gamma * favored(layer, p, n)

        return _by_sign(sums, jnp.where(where, relevance, 0), a, o)

    return part(_raising, z > 0) + part(_lowering, z < 0)


def _w_square(layer: Layer, relevance: jax.Array, a: jax.Array, z: jax.Array, o: Options) -> jax.Array:
    """By the squares of the weights, for any input: `A^2 1 + b^2`."""
    b = layer.bias(a) ** 2
    ones = (jnp.ones_like(a),)
    return redistribute(lambda v: layer.linear(jnp.square, v) + b, ones, relevance, o.stabilizer)[0]


def _flat(layer: Layer, relevance: jax.Array, a: jax.Array, z: jax.Array, o: Options) -> jax.Array:
    """To all inputs alike: ones for the weights, no bias."""
    ones = (jnp.ones_like(a),)
    return redistribute(lambda v: layer.linear(jnp.ones_like, v), ones, relevance, o.stabilizer)[0]


def _z_box(layer: Layer, relevance: jax.Array, a: jax.Array, z: jax.Array, o: Options) -> jax.Array:
    """By the distance from the bounds: `A a - A+ low - A- high`."""

    def distance(a: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        positive, negative = layer.signed(a)
        return positive + negative - layer.signed(low)[0] - layer.signed(high)[1]

    own, of_low, of_high = redistribute(distance, (a, o.low, o.high), relevance, o.stabilizer)
    return own + of_low + of_high


LAYER_RULES: dict[str, LayerRule] = {
    "epsilon": _epsilon,
    "gamma": _gamma,
    "alpha_beta": _alpha_beta,
    "z_plus": _z_plus,
    "w_square": _w_square,
    "flat": _flat,
    "z_box": _z_box,
}
COMPOSITES = {
    "epsilon_plus": {"conv": "z_plus", "dense": "epsilon"},
    "epsilon_alpha2_beta1": {"conv": "alpha_beta", "dense": "epsilon"},
    "epsilon_gamma_box": {"conv": "gamma", "dense": "epsilon", "first_conv": "z_box"},
    "epsilon_plus_flat": {"conv": "z_plus", "dense": "epsilon", "first": "flat"},
    "epsilon_alpha2_beta1_flat": {"conv": "alpha_beta", "dense": "epsilon", "first": "flat"},
}
LAYER_KINDS = ("dense", "conv", "first", "first_dense", "first_conv")
