"""Localization: whether the attributions lie where the truth is known to be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._precision import float_dtype
from jaxnn._typing import PyTree
from jaxnn.quality._common import check_map, flat
from jaxnn.quality._similarity import places, ranks


def pointing_game(attributions: PyTree, mask: PyTree) -> jax.Array:
    """Pointing game: whether the largest attribution lies in a region.

    Args:
        attributions: an array or a pytree of arrays.
        mask: booleans of the same structure and shapes, or that broadcast: whether an element is in the
            region; of at least one element.

    Returns:
        A scalar: 1, or 0; where several elements are largest, the share of them in the region.

    Raises:
        TypeError: `attributions` does not hold numbers, or `mask` no booleans.
        ValueError: attributions that are not finite, another shape, or an empty region.

    References:
        Zhang and others, "Top-down neural attention by excitation backprop", 2016, arXiv:1608.00507.

    Example:
        >>> from jaxnn import quality
        >>> float(quality.pointing_game([0.1, 3.0, -4.0], [False, True, True]))
        1.0
    """
    return _score(attributions, mask, _pointing_game)


def _pointing_game(values: jax.Array, inside: jax.Array) -> jax.Array:
    largest = values == jnp.max(values)
    return jnp.sum(largest & inside) / jnp.sum(largest)


def relevance_mass(attributions: PyTree, mask: PyTree) -> jax.Array:
    """Relevance mass: the share of the positive attributions in a region.

    `sum_{i in mask} max(a_i, 0) / sum_i max(a_i, 0)`.

    Args:
        attributions: an array or a pytree of arrays.
        mask: booleans, as in `pointing_game`.

    Returns:
        A scalar in [0, 1]; for random attributions the share of the elements in the region; NaN where no
        attribution is positive.

    Raises:
        TypeError: as `pointing_game` raises.
        ValueError: as `pointing_game` raises.

    References:
        Arras, Osman and Samek, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural
        network explanations", 2022, arXiv:2003.07258.

    Example:
        >>> from jaxnn import quality
        >>> float(quality.relevance_mass([1.0, 3.0, -4.0], [False, True, True]))
        0.75
    """
    return _score(attributions, mask, _relevance_mass)


def _relevance_mass(values: jax.Array, inside: jax.Array) -> jax.Array:
    positive = jnp.maximum(values, 0)
    total = jnp.sum(positive)
    return jnp.where(
        total > 0, jnp.sum(jnp.where(inside, positive, 0)) / jnp.where(total > 0, total, 1), jnp.nan
    )


def relevance_rank(attributions: PyTree, mask: PyTree) -> jax.Array:
    """Relevance rank: the share of a region of m elements among the m largest attributions.

    Args:
        attributions: an array or a pytree of arrays; of equal ones the first counts as larger.
        mask: booleans, as in `pointing_game`.

    Returns:
        A scalar in [0, 1]; for random attributions the share of the elements in the region.

    Raises:
        TypeError: as `pointing_game` raises.
        ValueError: as `pointing_game` raises.

    References:
        Arras, Osman and Samek, "CLEVR-XAI", 2022, arXiv:2003.07258.

    Example:
        >>> from jaxnn import quality
        >>> float(quality.relevance_rank([1.0, 3.0, -4.0], [False, True, True]))
        0.5
    """
    return _score(attributions, mask, _relevance_rank)


def _relevance_rank(values: jax.Array, inside: jax.Array) -> jax.Array:
    size = jnp.sum(inside)
    return jnp.sum(inside & (places(-values) < size)) / size


def relevance_auc(attributions: PyTree, mask: PyTree) -> jax.Array:
    """Relevance AUC: the area under the ROC curve of the attributions as a classifier of a region.

    The probability that an element in the region has a larger attribution than one outside, ties counting
    half.

    Args:
        attributions: an array or a pytree of arrays.
        mask: booleans, as in `pointing_game`, with at least one element outside of the region, too.

    Returns:
        A scalar in [0, 1]; 0.5 for random attributions; NaN where no element is outside.

    Raises:
        TypeError: as `pointing_game` raises.
        ValueError: as `pointing_game` raises.

    References:
        Fawcett, "An introduction to ROC analysis", 2006.

    Example:
        >>> from jaxnn import quality
        >>> float(quality.relevance_auc([1.0, 3.0, -4.0], [False, True, True]))
        0.5
    """
    return _score(attributions, mask, _relevance_auc)


def _relevance_auc(values: jax.Array, inside: jax.Array) -> jax.Array:
    size = jnp.sum(inside).astype(values.dtype)
    outside = values.size - size
    wins = jnp.sum(jnp.where(inside, ranks(values), 0)) - size * (size + 1) / 2
    return jnp.where(outside > 0, wins / jnp.where(outside > 0, size * outside, 1), jnp.nan)


def _score(attributions: PyTree, mask: PyTree, rule: Any) -> jax.Array:
    attributions = check_map(attributions)
    inside = _check_mask(mask, attributions)
    values = flat(attributions)
    found = jnp.where(jnp.all(jnp.isfinite(values)) & jnp.any(inside), rule(values, inside), jnp.nan)
    return found.astype(float_dtype(jax.tree.leaves(attributions)[0].dtype))


def _check_mask(mask: PyTree, attributions: PyTree) -> jax.Array:
    """A region as one vector of booleans; raise unless it has the shapes of the attributions."""
    if isinstance(attributions, jax.Array):
        mask = _checks.check_array("mask", mask)
    _checks.check_structure("mask", mask, attributions, "attributions")
    leaves = []
    for (path, leaf), like in zip(
        jax.tree.leaves_with_path(mask), jax.tree.leaves(attributions), strict=True
    ):
        name = "mask" + jax.tree_util.keystr(path)
        leaf = _checks.check_array(name, leaf)
        if leaf.dtype != bool:
            raise TypeError(f"`{name}` must hold booleans, such as `{name} > 0`; got dtype {leaf.dtype}")
        try:
            fits = np.broadcast_shapes(leaf.shape, like.shape) == like.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"`{name}` must have shape {like.shape}, that of `attributions`; got {leaf.shape}"
            )
        leaves.append(jnp.broadcast_to(leaf, like.shape).ravel())
    inside = jnp.concatenate(leaves)
    if _checks.known_false(jnp.any(inside)):
        raise ValueError("`mask` must have at least one element in the region; got none")
    return inside
