"""Activation functions, their inverses with the open range of each, and linear rescaling into a range."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logit
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxnn import _checks
from jaxnn._precision import widen
from jaxnn._typing import ActivationName

_LEAK = 0.01  # the derivative of leaky_relu below zero


class Activation(NamedTuple):
    """An elementwise nonlinearity (softmax: over the last axis) and, where it has one, its inverse.

    Attributes:
        function: `(..., n) -> (..., n)`.
        inverse: `(..., n) -> (..., n)` on the open interval `(low, high)`; None if not invertible.
        low: the lower end of the range, never reached; `-inf` for an unbounded one.
        high: the upper end of the range, never reached; `inf` for an unbounded one.
        at_zero: the function's value at 0.
    """

    function: Callable[[jax.Array], jax.Array]
    inverse: Callable[[jax.Array], jax.Array] | None = None
    low: float = -jnp.inf
    high: float = jnp.inf
    at_zero: float = 0.0


def _inverse_softplus(y: jax.Array) -> jax.Array:
    # log(e^y - 1), written so that neither a large nor a small y overflows or cancels.
    return y + jnp.log(-jnp.expm1(-y))


def _inverse_leaky_relu(y: jax.Array) -> jax.Array:
    return jnp.where(y >= 0, y, y / _LEAK)


def _inverse_elu(y: jax.Array) -> jax.Array:
    # The inner `where` keeps the unused branch, and so its gradient, finite.
    return jnp.where(y >= 0, y, jnp.log1p(jnp.where(y >= 0, 0, y)))


def _identity(x: jax.Array) -> jax.Array:
    return x


_ACTIVATIONS: dict[ActivationName, Activation] = {
    "sigmoid": Activation(jax.nn.sigmoid, logit, 0.0, 1.0, 0.5),
    "tanh": Activation(jnp.tanh, jnp.arctanh, -1.0, 1.0),
    "relu": Activation(jax.nn.relu),
    "leaky_relu": Activation(functools.partial(jax.nn.leaky_relu, negative_slope=_LEAK), _inverse_leaky_relu),
    "softplus": Activation(jax.nn.softplus, _inverse_softplus, 0.0, at_zero=math.log(2)),
    "elu": Activation(jax.nn.elu, _inverse_elu, -1.0),
    "gelu": Activation(functools.partial(jax.nn.gelu, approximate=False)),
    "identity": Activation(_identity, _identity),
    "softmax": Activation(jax.nn.softmax),
}
ACTIVATION_NAMES = tuple(_ACTIVATIONS)
INVERTIBLE_NAMES = tuple(name for name, a in _ACTIVATIONS.items() if a.inverse is not None)


def activation(name: ActivationName) -> Activation:
    """An activation function by name, with its inverse and range.

    | name         | function                        | inverse                         | range     |
    |--------------|---------------------------------|---------------------------------|-----------|
    | `sigmoid`    | `1 / (1 + e^-x)`                | `logit: log(y / (1 - y))`       | (0, 1)    |
    | `tanh`       | `tanh x`                        | `arctanh y`                     | (-1, 1)   |
    | `softplus`   | `log(1 + e^x)`                  | `y + log(1 - e^-y)`             | (0, inf)  |
    | `elu`        | `x`, below zero `e^x - 1`       | `y`, below zero `log(1 + y)`    | (-1, inf) |
    | `leaky_relu` | `x`, below zero `x / 100`       | `y`, below zero `100 y`         | all       |
    | `identity`   | `x`                             | `y`                             | all       |
    | `relu`       | `max(x, 0)`                     | none                            |           |
    | `gelu`       | `x Phi(x)`, the exact one       | none                            |           |
    | `softmax`    | `e^x_k / sum_j e^x_j`           | none (loses a constant)         |           |

    Args:
        name: one of the names above.

    Returns:
        `Activation(function, inverse, low, high)`.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> import jaxnn
        >>> sigmoid = jaxnn.activation("sigmoid")
        >>> round(float(sigmoid.inverse(sigmoid.function(2.0))), 4)
        2.0
    """
    _checks.check_option("name", name, ACTIVATION_NAMES)
    return _ACTIVATIONS[name]


def rescale(v: Real[ArrayLike, "... n"], low: float = 0.01, high: float = 0.99) -> Float[Array, "... n"]:
    """Rescale a vector linearly so that its smallest element is `low` and its largest is `high`.

    `r_i = low + (high - low) * (v_i - min v) / (max v - min v)`, over the last axis. The bounds are met
    exactly and the order is preserved. A constant vector, for which that is 0 / 0, maps to the middle
    `(low + high) / 2`, with a gradient of zero. So does a vector whose range is so small (below
    `8 tiny / eps`, 8e-31 in float32) that the gradient would overflow.

    Args:
        v: `(..., n)`, any real numbers; a vector that contains NaN or an infinity becomes NaN.
        low: the lower bound of the result.
        high: the upper bound of the result.

    Returns:
        `(..., n)` in `[low, high]`.

    Raises:
        ValueError: `v` has no last axis, an empty one, or `low` is not below `high`.
        TypeError: `v` does not hold real numbers, or a bound is traced or not a number.

    Example:
        >>> import jaxnn
        >>> jaxnn.rescale([-1.0, 0.0, 3.0], 0.0, 1.0).tolist()
        [0.0, 0.25, 1.0]
    """
    array = _checks.check_float_array("v", v)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"`v` must have shape (..., n) with n at least 1; got {array.shape}")
    low, high = _checks.check_real("low", low), _checks.check_real("high", high)
    if not 0 < high - low < float(jnp.finfo(array.dtype).max):
        raise ValueError(
            f"`low` must be below `high`, by a distance that {array.dtype} represents; got {low} and {high}"
        )
    return _rescale(array, low=low, high=high)


@jax.jit(static_argnames=("low", "high"))
def _rescale(v: Float[Array, "... n"], *, low: float, high: float) -> Float[Array, "... n"]:
    # In float32 for half precision. An eighth, so that the range and its inverse are representable.
    scaled = widen(v) / 8
    start = jnp.min(scaled, axis=-1, keepdims=True)
    end = jnp.max(scaled, axis=-1, keepdims=True)
    limits = jnp.finfo(scaled.dtype)
    span = lax.stop_gradient(end - start)
    constant = span < limits.tiny / limits.eps
    # First to about [0, 1] by a fixed factor, then exactly: the derivative of a quotient squares its
    # denominator, which must neither underflow nor overflow.
    near = (scaled - start) / jnp.where(constant, 1, span)
    fraction = near / jnp.where(constant, 1, jnp.max(near, axis=-1, keepdims=True))
    # Each step is monotone in floating point, so the order is preserved. Then the bounds are made exact.
    raised = jnp.minimum(low + fraction * (high - low), high)
    bounded = jnp.where(scaled == end, high, raised)
    result = jnp.where(constant, (low + high) / 2, bounded)
    return jnp.where(jnp.isfinite(span), result, jnp.nan).astype(v.dtype)
