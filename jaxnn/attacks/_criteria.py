"""Success criteria: margins of a model's output, above 0 where an attack has succeeded."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._typing import Labels, PyTree, Scalar

Margin: TypeAlias = Callable[[PyTree], jax.Array]
Label: TypeAlias = Labels | Margin


def misclassified(label: Labels) -> Margin:
    """Criterion of an untargeted attack: the predicted class is not this label.

    `margin(z) = max_{k != label} z_k - z_label`. It is the criterion of an integer label in every attack.

    Args:
        label: an integer in `[0, n_out)`, which may be traced.

    Returns:
        A callable pytree from logits `(n_out,)` to a margin: above 0 where another logit is the largest, NaN
        where there is no such label. A new label does not recompile.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> float(attacks.misclassified(0)(jnp.array([3.0, 1.0, 0.0])))
        -2.0
    """
    return Partial(_misclassified, check_label(label))


def classified_as(label: Labels) -> Margin:
    """Criterion of a targeted attack: the predicted class is this label.

    `margin(z) = z_label - max_{k != label} z_k`. It is the criterion of an integer label if `targeted`.

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
    return Partial(_classified_as, check_label(label))


def confident(label: Labels, probability: Scalar) -> Margin:
    """Criterion of confidence: this label has more than this probability.

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
    probability = _checks.check_number("probability", probability, above=0, below=1)
    return Partial(_confident, check_label(label), probability)


@jax.ensure_compile_time_eval()
def check_label(label: Labels) -> jax.Array:
    """Return an integer of at least 0 as an array, or raise."""
    array = None if label is None else _checks.check_array("label", label)
    if array is None or not jnp.issubdtype(array.dtype, jnp.integer) or array.ndim != 0:
        raise TypeError(
            f"`label` must be an integer, or a function from the output to a margin; got {label!r}. For one "
            "label per example, jax.vmap over both"
        )
    _checks.check_values("label", array, at_least=0, below=2**31)
    return array.astype(jnp.int32)


def _misclassified(label: jax.Array, z: jax.Array) -> jax.Array:
    return _break_tie(-_lead(label, z), jnp.argmax(z) != label)


def _classified_as(label: jax.Array, z: jax.Array) -> jax.Array:
    return _break_tie(_lead(label, z), jnp.argmax(z) == label)


def _confident(label: jax.Array, probability: jax.Array, z: jax.Array) -> jax.Array:
    log_p = jnp.sum(jnp.where(jnp.arange(z.size) == label, jax.nn.log_softmax(z), 0))
    return jnp.where(label < z.size, log_p - jnp.log(probability).astype(z.dtype), jnp.nan)


def _lead(label: jax.Array, z: jax.Array) -> jax.Array:
    """The logit of a label minus the largest other; NaN if any logit is, or if there is no such label."""
    own = jnp.arange(z.size) == label
    lead = jnp.sum(jnp.where(own, z, 0)) - jnp.max(jnp.where(own, -jnp.inf, z))
    return jnp.where(jnp.any(own), lead, jnp.nan)


def _break_tie(margin: jax.Array, success: jax.Array) -> jax.Array:
    """A tiny positive margin for a tie that `jnp.argmax`, the first of equal logits, decides as a success."""
    tiny = jnp.asarray(jnp.finfo(margin.dtype).tiny, margin.dtype)
    return margin + jnp.where((margin == 0) & success, tiny, 0)
