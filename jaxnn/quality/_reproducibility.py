"""Reproducibility: whether networks trained on other parts of the data have the same explanations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._model import as_example, as_model
from jaxnn._precision import float_dtype
from jaxnn._typing import Model, PyTree
from jaxnn.quality._common import Explain, check_explain, flat
from jaxnn.quality._sanity import check_examples, explain_all
from jaxnn.quality._similarity import spearman


class _Distances(NamedTuple):
    """Distances of the explanations of pairs of networks, one of which was trained without the example.

    Attributes:
        distance: `(N, k)`, of the network of the example's own part and each other.
        agree: `(N, k)`, whether both are right.
        disagree: `(N, k)`, whether one of them is right.
    """

    distance: jax.Array
    agree: jax.Array
    disagree: jax.Array


def mege(
    models: Model, inputs: PyTree, labels: jax.Array, parts: jax.Array, explain: Explain, *,
    batch_size: int | None = None,
) -> jax.Array:  # fmt: skip
    """MeGe (mean generalizability): how alike explanations are, whether or not the example was trained on.

    `1 / (1 + mean d)`, the mean over examples and pairs of networks, one trained without the example and one
    with it, that both predict its label; `d = 1 - |r|`, with Spearman's rank correlation r of their
    attributions.

    Args:
        models: k networks as one pytree of arrays with a first axis k, as of `jaxnn.train` on a stack.
            Network i was trained on all parts of the data but part i.
        inputs: `(N, ...)`, examples of the training data.
        labels: `(N,)` integers, the right outputs, which are explained.
        parts: `(N,)` integers from 0 to k - 1, the part of each example.
        explain: a method, as in `max_sensitivity`.
        batch_size: how many examples are explained at once. None: at most 16, as in
            `attribution.integrated_gradients`. The result does not depend on it.

    Returns:
        A scalar in [0.5, 1], the higher the better; NaN where no pair of networks agrees.

    Raises:
        TypeError: `models` or `explain` is not callable, or an argument is of another type.
        ValueError: fewer than two networks, arrays of other lengths, or an index out of range.

    References:
        Fel, Vigouroux, Cadene and Serre, "How good is your explanation? Algorithmic stability measures to
        assess the quality of explanations for deep neural networks", 2020, arXiv:2009.04521, equation 3.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> from jaxnn import attribution, quality
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> models = jax.vmap(lambda key: jaxnn.init(key, (20, 1)))(keys)
        >>> x, zeros = jax.random.uniform(jax.random.key(1), (4, 20)), jnp.zeros(4, int)
        >>> value = quality.mege(models, x, zeros, zeros, attribution.saliency)
        >>> bool(0.5 <= value <= 1)
        True
    """
    found = _check_and_measure(models, inputs, labels, parts, explain, batch_size)
    count = jnp.sum(found.agree)
    mean = jnp.sum(jnp.where(found.agree, found.distance, 0)) / jnp.maximum(count, 1)
    return jnp.where(count > 0, 1 / (1 + mean), jnp.nan).astype(_dtype(inputs))


def reco(
    models: Model, inputs: PyTree, labels: jax.Array, parts: jax.Array, explain: Explain, *,
    batch_size: int | None = None,
) -> jax.Array:  # fmt: skip
    """ReCo (relative consistency): whether explanations differ more where the predictions differ.

    `max over t of TPR(t) + TNR(t) - 1`: how well a threshold t of the distance d of two explanations tells
    pairs of networks that both predict the label from pairs of which one does.

    Args:
        models: k networks, as in `mege`.
        inputs: `(N, ...)`, examples of the training data.
        labels: `(N,)` integers, the right outputs, which are explained.
        parts: `(N,)` integers from 0 to k - 1, the part of each example.
        explain: a method, as in `max_sensitivity`.
        batch_size: how many examples are explained at once. The result does not depend on it.

    Returns:
        A scalar in [0, 1], the higher the better; NaN without pairs of both kinds.

    Raises:
        TypeError: as `mege` raises.
        ValueError: as `mege` raises.

    References:
        Fel, Vigouroux, Cadene and Serre, 2020, arXiv:2009.04521, equation 4.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> from jaxnn import attribution, quality
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> models = jax.vmap(lambda key: jaxnn.init(key, (20, 1)))(keys)
        >>> x, zeros = jax.random.uniform(jax.random.key(1), (4, 20)), jnp.zeros(4, int)
        >>> float(quality.reco(models, x, zeros, zeros, attribution.saliency))  # one class: none is wrong
        nan
    """
    found = _check_and_measure(models, inputs, labels, parts, explain, batch_size)
    return _best_threshold(found).astype(_dtype(inputs))


def _dtype(inputs: PyTree) -> Any:
    return float_dtype(jax.tree.leaves(as_example("inputs", inputs))[0].dtype)


@jax.jit
def _best_threshold(found: _Distances) -> jax.Array:
    distance, agree, disagree = (leaf.ravel() for leaf in found)
    order = jnp.argsort(distance)
    ordered = distance[order]
    # The shares at or below each distance; of equal distances those after the last of them.
    last = jnp.searchsorted(ordered, ordered, side="right", method="sort") - 1
    close = jnp.cumsum(agree[order])[last] / jnp.maximum(jnp.sum(agree), 1)
    closer = jnp.cumsum(disagree[order])[last] / jnp.maximum(jnp.sum(disagree), 1)
    both = jnp.any(agree) & jnp.any(disagree)
    return jnp.where(both, jnp.maximum(jnp.max(close - closer), 0), jnp.nan)


def _check_and_measure(
    models: Any, inputs: PyTree, labels: Any, parts: Any, explain: Any, batch_size: int | None
) -> _Distances:
    batch = check_batch_size(batch_size, 16)
    models = as_model(models, "models")
    k = _checks.check_count({"models": models}, at_least=2)
    one = jax.tree.map(lambda leaf: leaf[0], models)
    _, inputs, labels = check_examples(one, inputs, labels, at_least=1, name="labels")
    if labels is None:
        raise TypeError("`labels` must hold output indices, integers; got None")
    parts = _checks.check_array("parts", parts)
    if not jnp.issubdtype(parts.dtype, jnp.integer):
        raise TypeError(f"`parts` must hold integers; got dtype {parts.dtype}")
    _checks.check_shape("parts", parts, labels.shape, "the part of each example")
    _checks.check_values("parts", parts, at_least=0, at_most=k - 1)
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    explain = check_explain(explain, one, first, labels[0])
    return _distances(explain, models, inputs, labels, parts, batch=batch)


@jax.jit(static_argnames=("batch",))
def _distances(
    explain: Explain, models: Model, inputs: PyTree, labels: jax.Array, parts: jax.Array, *, batch: Batch
) -> _Distances:
    def of_network(model: Model) -> tuple[jax.Array, jax.Array]:
        right = jnp.argmax(jax.vmap(model)(inputs), axis=-1) == labels
        return jax.vmap(flat)(explain_all(explain, model, inputs, labels, batch)), right

    maps, right = jax.lax.map(of_network, models)
    own, own_right = (each[parts, jnp.arange(len(labels))] for each in (maps, right))
    correlations = jax.vmap(lambda each: jax.vmap(spearman)(own, each))(maps).T
    other = parts[:, None] != jnp.arange(len(maps))  # trained with the example
    valid = other & jnp.isfinite(correlations)
    both, either = own_right[:, None] & right.T, own_right[:, None] ^ right.T
    return _Distances(jnp.where(valid, 1 - jnp.abs(correlations), 0), valid & both, valid & either)
