"""The rules of LRP: how the relevance of a layer's answer is shared among what it read.

Each rule is `rule(layer, relevance, a, z, options) -> relevance of a`, for a layer `z = A a + b`. With
`s(z) = z + eps sign z`, the sign of 0 being 1, and `+` and `-` for the positive and the negative
part of a number, of each weight or of each bias.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.attribution._lrp_layers import Layer


class Options(NamedTuple):
    """The numbers in the rules; those of the z-box rule are the bounds of what the layer reads."""

    epsilon: Any
    gamma: Any
    alpha: Any
    stabilizer: Any
    low: Any = None
    high: Any = None


def stabilized(z: jax.Array, epsilon: Any) -> jax.Array:
    """Move away from zero, to divide by."""
    return z + jnp.asarray(epsilon, z.dtype) * jnp.where(z < 0, -1, 1).astype(z.dtype)


def shared(function: Callable[..., Any], values: tuple[Any, ...], relevance: Any, epsilon: Any) -> list[Any]:
    """Each value's share of a relevance by its part in their sum: `v_j  d<relevance / s(z), z> / dv_j`."""
    z, pull = jax.vjp(function, *values)
    return [v * g for v, g in zip(values, pull(relevance / stabilized(z, epsilon)), strict=True)]


def _epsilon(layer: Layer, relevance: Any, a: Any, z: Any, o: Options) -> Any:
    """`a * A^T (R / s(z))`."""
    return shared(layer.apply, (a,), relevance, o.epsilon)[0]


def _signs(a: Any) -> tuple[Any, Any]:
    return jnp.maximum(a, 0), jnp.minimum(a, 0)


def _raising(layer: Layer, relevance: Any, a: Any, o: Options) -> Any:
    """What raises the answer: `A+ a+ + A- a- + b+`."""
    b = jnp.maximum(layer.bias(a), 0)
    return sum(
        shared(lambda p, n: layer.signed(p)[0] + layer.signed(n)[1] + b, _signs(a), relevance, o.stabilizer)
    )


def _lowering(layer: Layer, relevance: Any, a: Any, o: Options) -> Any:
    """What lowers the answer: `A- a+ + A+ a- + b-`."""
    b = jnp.minimum(layer.bias(a), 0)
    return sum(
        shared(lambda p, n: layer.signed(p)[1] + layer.signed(n)[0] + b, _signs(a), relevance, o.stabilizer)
    )


def _z_plus(layer: Layer, relevance: Any, a: Any, z: Any, o: Options) -> Any:
    """All relevance to what raises the answer."""
    return _raising(layer, relevance, a, o)


def _alpha_beta(layer: Layer, relevance: Any, a: Any, z: Any, o: Options) -> Any:
    """`alpha` times to what raises it, less `alpha - 1` times to what lowers it."""
    alpha = jnp.asarray(o.alpha, z.dtype)
    return alpha * _raising(layer, relevance, a, o) - (alpha - 1) * _lowering(layer, relevance, a, o)


def _gamma(layer: Layer, relevance: Any, a: Any, z: Any, o: Options) -> Any:
    """As epsilon, what raises a positive answer, or lowers a negative one, counting `1 + gamma` times."""
    gamma, b = jnp.asarray(o.gamma, z.dtype), layer.bias(a)

    def favored(p: Any, n: Any, sign: int) -> Any:
        (pp, pn), (np_, nn) = layer.signed(p), layer.signed(n)
        more = pp + nn + jnp.maximum(b, 0) if sign > 0 else pn + np_ + jnp.minimum(b, 0)
        return pp + pn + np_ + nn + b + gamma * more

    up = shared(lambda p, n: favored(p, n, 1), _signs(a), jnp.where(z > 0, relevance, 0), o.stabilizer)
    down = shared(lambda p, n: favored(p, n, -1), _signs(a), jnp.where(z < 0, relevance, 0), o.stabilizer)
    return sum((*up, *down))


def _w_square(layer: Layer, relevance: Any, a: Any, z: Any, o: Options) -> Any:
    """By the squares of the weights, whatever was read: `A^2 1 + b^2`."""
    b = layer.bias(a) ** 2
    return shared(lambda v: layer.linear(jnp.square, v) + b, (jnp.ones_like(a),), relevance, o.stabilizer)[0]


def _flat(layer: Layer, relevance: Any, a: Any, z: Any, o: Options) -> Any:
    """To all that was read alike: ones for the weights, no bias."""
    return shared(lambda v: layer.linear(jnp.ones_like, v), (jnp.ones_like(a),), relevance, o.stabilizer)[0]


def _z_box(layer: Layer, relevance: Any, a: Any, z: Any, o: Options) -> Any:
    """By the distance from the bounds: `A a - A+ low - A- high`."""

    def distance(a: Any, low: Any, high: Any) -> Any:
        positive, negative = layer.signed(a)
        return positive + negative - layer.signed(low)[0] - layer.signed(high)[1]

    return sum(shared(distance, (a, o.low, o.high), relevance, o.stabilizer))


RULES: dict[str, Callable[..., Any]] = {
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
