"""The best linear estimate of the input, given the signals of requested outputs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._backquery._signals import requested_signals, signals
from jaxnn._precision import wide_dtype

_AT_ONCE = 512  # inputs that the model evaluates


@jax.jit
def pattern(model: Any, inputs: jax.Array, y: jax.Array, free: jax.Array) -> jax.Array:
    """`mean x + cov(x, s) cov(s)^-1 (s_requested - mean s)`, over inputs `(N, ...)`: `(n_out,) -> (...)`."""
    work = wide_dtype(jnp.result_type(y, inputs))
    inputs = inputs.astype(work)
    found = lax.map(lambda x: signals(model, x), inputs, batch_size=min(_AT_ONCE, len(inputs))).astype(work)
    mean_x, mean = inputs.mean(axis=0), found.mean(axis=0)
    deviation = jnp.where(free, 0, found - mean)
    covariance = deviation.T @ deviation / len(inputs)
    # A free or constant output has neither variance nor covariance: any variance leaves it out.
    variances = jnp.diagonal(covariance)
    rounding = jnp.finfo(work).eps * jnp.sum(variances)
    covariance += jnp.diag(jnp.where(variances > 0, rounding, 1))
    change = jnp.where(free, 0, requested_signals(model, y.astype(work)) - mean)
    weights = deviation @ jnp.linalg.solve(covariance, change) / len(inputs)
    return mean_x + jnp.tensordot(weights, inputs - mean_x, 1)
