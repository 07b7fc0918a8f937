"""Complexity: on how few features the attributions lie."""

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._precision import float_dtype
from jaxnn._typing import PyTree
from jaxnn.quality._common import check_map, flat
from jaxnn.quality._similarity import scaled

_SMALL = 1e-7  # added to each attribution of `sparseness`, so that all zeros are even


def normalize(attributions: PyTree, *, absolute: bool = False) -> PyTree:
    """Attributions divided by the largest of their absolute values; then, on request, their absolute values.

    `a / max |a|`, in [-1, 1]; unchanged where all are 0. No metric does this by itself. It changes
    those with a unit or a threshold, such as `infidelity` and `effective_complexity`.

    Args:
        attributions: an array or a pytree of arrays.
        absolute: whether to return absolute values.

    Returns:
        Of the structure of `attributions`.

    Raises:
        TypeError: `attributions` does not hold numbers.
        ValueError: they are not finite, or empty.

    Example:
        >>> from jaxnn import quality
        >>> quality.normalize([1.0, -4.0, 2.0], absolute=True).tolist()
        [0.25, 1.0, 0.5]
    """
    absolute = _checks.check_flag("absolute", absolute)
    values = check_map(attributions)
    values = scaled(jax.tree.map(lambda leaf: leaf.astype(float_dtype(leaf.dtype)), values))
    return jax.tree.map(jnp.abs, values) if absolute else values


def _dtype(attributions: PyTree) -> jnp.dtype:
    return float_dtype(jax.tree.leaves(attributions)[0].dtype)


def sparseness(attributions: PyTree) -> jax.Array:
    """Sparseness: the Gini coefficient of the absolute attributions.

    `G = sum_i (2 i - n - 1) b_i / (n sum_i b_i)`, of `b_i = |a_i| + 1e-7` in increasing order: 0 where all
    are equal, towards 1 where one has it all.

    Args:
        attributions: an array or a pytree of arrays.

    Returns:
        A scalar in [0, 1].

    Raises:
        TypeError: `attributions` does not hold numbers.
        ValueError: they are not finite, or empty.

    References:
        Chalasani and others, "Concise explanations of neural networks using adversarial training", 2020,
        arXiv:1810.06583.

    Example:
        >>> from jaxnn import quality
        >>> round(float(quality.sparseness([1.0, 1.0])), 4), round(float(quality.sparseness([0.0, -3.0])), 4)
        (0.0, 0.5)
    """
    attributions = check_map(attributions)
    return _sparseness(attributions).astype(_dtype(attributions))


@jax.jit
def _sparseness(attributions: PyTree) -> jax.Array:
    values = jnp.sort(jnp.abs(flat(attributions)) + _SMALL)
    n = values.size
    factors = 2 * jnp.arange(1, n + 1, dtype=values.dtype) - n - 1
    return jnp.sum(factors * values) / (n * jnp.sum(values))


def complexity(attributions: PyTree) -> jax.Array:
    """Complexity: the entropy of the absolute attributions, as shares of their sum.

    `-sum_i p_i log p_i`, `p_i = |a_i| / sum_j |a_j|`: 0 where one feature has it all, `log n` where all are
    equal.

    Args:
        attributions: an array or a pytree of arrays.

    Returns:
        A scalar in [0, log n], in nats; NaN where all attributions are 0.

    Raises:
        TypeError: `attributions` does not hold numbers.
        ValueError: they are not finite, or empty.

    References:
        Bhatt, Weller and Moura, "Evaluating and aggregating feature-based model explanations", 2020,
        arXiv:2005.00631, definition 3.

    Example:
        >>> from jaxnn import quality
        >>> round(float(quality.complexity([1.0, -1.0])), 4), float(quality.complexity([0.0, 2.0]))
        (0.6931, 0.0)
    """
    attributions = check_map(attributions)
    return _complexity(attributions).astype(_dtype(attributions))


@jax.jit
def _complexity(attributions: PyTree) -> jax.Array:
    values = jnp.abs(flat(attributions))
    total = jnp.sum(values)
    shares = values / jnp.where(total > 0, total, 1)
    terms = jnp.where(shares > 0, -shares * jnp.log(jnp.where(shares > 0, shares, 1)), 0)
    return jnp.where(total > 0, jnp.sum(terms), jnp.nan)


def effective_complexity(attributions: PyTree, *, threshold: float = 1e-5) -> jax.Array:
    """Effective complexity: the number of features with an absolute attribution above a threshold.

    `#{i: |a_i| > threshold}`.

    Args:
        attributions: an array or a pytree of arrays.
        threshold: at least 0, in units of the attributions; of their largest, where they are normalized.

    Returns:
        A scalar from 0 to n.

    Raises:
        TypeError: `attributions` does not hold numbers, or `threshold` is none.
        ValueError: they are not finite, or empty, or the threshold is negative.

    References:
        Nguyen and Martinez, "On quantitative aspects of model interpretability", 2020, arXiv:2007.07584.

    Example:
        >>> from jaxnn import quality
        >>> float(quality.effective_complexity([0.0, -0.5, 2.0]))
        2.0
    """
    threshold = _checks.check_real("threshold", threshold, at_least=0)
    attributions = check_map(attributions)
    values = jnp.abs(flat(attributions))
    count = jnp.where(
        jnp.all(jnp.isfinite(values)), jnp.sum(values > threshold).astype(values.dtype), jnp.nan
    )
    return count.astype(_dtype(attributions))
