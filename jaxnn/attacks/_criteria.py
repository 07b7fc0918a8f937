"""What an attack wants of the model's answer: a margin, above 0 where it is so."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxnn import _checks

Label = Any  # an integer, or a function from the output to a margin
Margin = Callable[[jax.Array], jax.Array]


def misclassified(label: Any) -> Margin:
    """Criterion: the answer is any other than this label.

    `margin(z) = max_{k != label} z_k - z_label`; what every attack takes an integer label for.

    Args:
        label: an integer in `[0, n_out)`, which may be traced.

    Returns:
        A callable pytree from logits `(n_out,)` to a margin, above 0 where the largest of them is another,
        NaN where there is no such label. A new label compiles nothing anew.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> float(attacks.misclassified(0)(jnp.array([3.0, 1.0, 0.0])))
        -2.0
    """
    return Partial(_away, check_label(label))


def classified_as(label: Any) -> Margin:
    """Criterion: the answer is this label.

    `margin(z) = z_label - max_{k != label} z_k`; what every attack takes a label for where `targeted`.

    Args:
        label: an integer in `[0, n_out)`, which may be traced.

    Returns:
        A callable pytree from logits `(n_out,)` to a margin; see `misclassified`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> float(attacks.classified_as(0)(jnp.array([3.0, 1.0, 0.0])))
        2.0
    """
    return Partial(_towards, check_label(label))


def confident(label: Any, probability: Any) -> Margin:
    """Criterion: the answer is this label, with more than this probability.

    `margin(z) = log softmax(z)_label - log probability`.

    Args:
        label: an integer in `[0, n_out)`, which may be traced.
        probability: above 0 and below 1, which may be traced.

    Returns:
        A callable pytree from logits `(n_out,)` to a margin, in nats.

    Raises:
        ValueError: `probability` does not lie between 0 and 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> sure = attacks.confident(0, 0.9)
        >>> [bool(sure(jnp.array([z, 0.0])) > 0) for z in (1.0, 3.0)]
        [False, True]
    """
    probability = _checks.check_float_array("probability", probability)
    _checks.check_shape("probability", probability, (), "one number")
    if _checks.known_false((probability > 0) & (probability < 1)):
        raise ValueError(f"`probability` must lie between 0 and 1; got {probability}")
    return Partial(_confident, check_label(label), probability)


def margin_of(label: Label, targeted: bool = False) -> Margin:
    """The margin of a label, wanted where `targeted`; a function is a margin itself."""
    if callable(label):
        return label
    return classified_as(label) if targeted else misclassified(label)


def check_label(label: Any) -> jax.Array:
    """An integer of at least 0 as an array, or an error."""
    array = None if label is None else _checks.check_array("label", label)
    if array is None or not jnp.issubdtype(array.dtype, jnp.integer) or array.ndim != 0:
        raise TypeError(
            f"`label` must be an integer, or a function from the output to a margin; got {label!r}. For one "
            "label an example, jax.vmap over both"
        )
    if _checks.known_false(array >= 0):
        raise ValueError(f"`label` must be at least 0; got {label!r}")
    return array.astype(jnp.int32)


def _away(label: jax.Array, z: jax.Array) -> jax.Array:
    return _tie(-_lead(label, z), jnp.argmax(z) != label)


def _towards(label: jax.Array, z: jax.Array) -> jax.Array:
    return _tie(_lead(label, z), jnp.argmax(z) == label)


def _confident(label: jax.Array, probability: jax.Array, z: jax.Array) -> jax.Array:
    log_p = jnp.sum(jnp.where(jnp.arange(z.size) == label, jax.nn.log_softmax(z), 0))
    return jnp.where(label < z.size, log_p - jnp.log(probability).astype(z.dtype), jnp.nan)


def _lead(label: jax.Array, z: jax.Array) -> jax.Array:
    """How far the logit of a label is above the largest other; NaN where any is, or where there is none."""
    own = jnp.arange(z.size) == label
    lead = jnp.sum(jnp.where(own, z, 0)) - jnp.max(jnp.where(own, -jnp.inf, z))
    return jnp.where(jnp.any(own), lead, jnp.nan)


def _tie(margin: jax.Array, success: jax.Array) -> jax.Array:
    """Of equal logits the first is the answer, as it is for `jnp.argmax`: a margin of 0 may be a success."""
    tiny = jnp.asarray(jnp.finfo(margin.dtype).tiny, margin.dtype)
    return margin + jnp.where((margin == 0) & success, tiny, 0)
