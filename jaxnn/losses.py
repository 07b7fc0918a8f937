"""Losses of one example: `loss(output, target) -> scalar`. A batch is `jax.vmap`."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxnn import _checks

__all__ = ("cross_entropy", "squared_error")


def __dir__() -> list[str]:
    return list(__all__)


def squared_error(output: Real[ArrayLike, "n_out"], target: Real[ArrayLike, "n_out"]) -> Float[Array, ""]:
    """Squared error: half the squared distance between an output and its target.

    `L(y, t) = 1/2 * sum_k (t_k - y_k)^2`, whose gradient with respect to `y` is `y - t`.

    Args:
        output: `(n_out,)`, the output of the model.
        target: `(n_out,)`, the desired output.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: the two shapes differ.

    Example:
        >>> from jaxnn import losses
        >>> float(losses.squared_error([0.5, 0.0], [1.0, 0.0]))
        0.125
    """
    y, t = _checks.check_float_array("output", output), _checks.check_float_array("target", target)
    _checks.check_shape("target", t, y.shape, "the shape of `output`")
    return jnp.sum((t - y) ** 2) / 2


def cross_entropy(
    output: Real[ArrayLike, "n_out"], target: Real[ArrayLike, "n_out"] | int
) -> Float[Array, ""]:
    """Cross-entropy, in nats, between a target and the softmax of the logits in `output`.

    `L(z, t) = log(sum_k exp z_k) * sum_k t_k - sum_k t_k z_k`; for an integer label `c` it is
    `log(sum_k exp z_k) - z_c`. The output holds logits, so a `Network` that is trained with this loss
    has `output_activation="identity"`; a softmax there would be applied twice.

    Args:
        output: `(n_out,)`, logits: any real numbers.
        target: `(n_out,)`, probabilities, at least 0; or an integer label in `[0, n_out)`, shape `()`.
            Any other integer gives NaN (indexing would clamp it silently).

    Returns:
        A scalar, at least 0 for probabilities that sum to 1.

    Raises:
        ValueError: `output` is not a vector, `target` is neither of its shape nor one integer, or (for
            concrete values) a probability is below 0.
        TypeError: a scalar `target` is not an integer.

    Example:
        >>> from jaxnn import losses
        >>> round(float(losses.cross_entropy([0.0, 0.0], 1)), 4)
        0.6931
    """
    z = _checks.check_float_array("output", output)
    t = _checks.check_array("target", target)
    if z.ndim != 1 or z.size == 0:
        raise ValueError(f"`output` must have shape (n_out,), at least one logit; got {z.shape}")
    log_p = jax.nn.log_softmax(z)
    if t.ndim == 0:
        if not jnp.issubdtype(t.dtype, jnp.integer):
            raise TypeError(f"a scalar `target` must be an integer label; got dtype {t.dtype}")
        return jnp.where((t >= 0) & (t < len(z)), -log_p[t], jnp.nan)
    _checks.check_shape("target", t, z.shape, "the shape of `output`")
    _checks.check_values("target", t, at_least=0)
    # A class that is ruled out and has no probability adds 0, not 0 * -inf.
    return -jnp.sum(t * jnp.where((t == 0) & jnp.isneginf(log_p), 0, log_p))
