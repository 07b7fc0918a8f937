"""Features of an example in groups: which entries go together, what an absent one is replaced by."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._model import count_elements

Groups = Any  # of the structure of the example; None: every entry is a group


def check_groups(groups: Any, n_groups: Any, x: Any) -> tuple[Groups, int]:
    """The groups of the entries of `x`, and how many there are.

    Args:
        groups: integers from 0 to n - 1, of the structure of `x`, each leaf broadcasting to its shape; None
            for a group an entry.
        n_groups: n, or None to take it from the groups, which must then be known and leave no number out.
        x: the example.

    Raises:
        TypeError: `groups` does not hold integers.
        ValueError: another structure or shape, a number out of range or left out, or `n_groups` missing where
            `groups` is traced.
    """
    if n_groups is not None:
        n_groups = _checks.check_integer("n_groups", n_groups, at_least=1)
    size = count_elements(x)
    if groups is None:
        if n_groups not in (None, size):
            raise ValueError(f"`n_groups` must be {size}, an entry each, without `groups`; got {n_groups}")
        return None, size
    # In NumPy: under `jax.jit` what JAX makes of known numbers is traced.
    if isinstance(x, jax.Array) and not isinstance(groups, jax.Array):
        groups = np.asarray(groups)
    leaves = []
    for where, leaf, like in _leaves_like("groups", groups, x):
        leaf = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.integer):
            raise TypeError(f"`groups{where}` must hold integers; got dtype {leaf.dtype}")
        # JAX does not see that NumPy's own integers mean another type where 64 bits are turned on.
        leaves.append(_fitting("groups" + where, leaf, like).astype(np.int32))
    return jax.tree.unflatten(jax.tree.structure(x), leaves), _count(leaves, n_groups)


def _count(leaves: list[Any], n_groups: int | None) -> int:
    if not _checks.is_concrete(leaves):
        if n_groups is None:
            raise ValueError("`n_groups` must be given where `groups` is traced")
        return n_groups
    found = np.unique(np.concatenate([np.ravel(leaf) for leaf in leaves]))
    count = int(found[-1]) + 1 if n_groups is None else n_groups
    if found[0] < 0 or found[-1] >= count:
        raise ValueError(f"`groups` must hold numbers from 0 to {count - 1}; got {found[0]} to {found[-1]}")
    if n_groups is None and len(found) < count:
        missing = np.setdiff1d(np.arange(count), found)[0]
        raise ValueError(
            f"`groups` must hold every number from 0 to {count - 1}; {missing} is missing. Where a group may "
            "be empty, give `n_groups`"
        )
    return count


def _leaves_like(name: str, tree: Any, x: Any) -> list[tuple[str, Any, jax.Array]]:
    found, expected = (str(jax.tree.structure(one)) for one in (tree, x))
    if found != expected:
        raise ValueError(f"`{name}` must have the structure of `x`, {expected}; got {found}")
    paths = jax.tree.leaves_with_path(x)
    return [
        (jax.tree_util.keystr(path), leaf, like)
        for leaf, (path, like) in zip(jax.tree.leaves(tree), paths, strict=True)
    ]


def _fitting(name: str, leaf: Any, like: jax.Array) -> Any:
    try:
        fits = np.broadcast_shapes(leaf.shape, like.shape) == like.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"`{name}` must have shape {like.shape}, or one that broadcasts; got {leaf.shape}")
    return leaf


def spread(values: jax.Array, groups: Groups, x: Any) -> Any:
    """The value `(n,)` of each group at each of its entries, of the structure and types of `x`."""
    return jax.tree.map(lambda value, leaf: value.astype(leaf.dtype), _entries(values, groups, x), x)


def mix(x: Any, baseline: Any, groups: Groups, present: jax.Array) -> Any:
    """The example with the groups that are not `present`, `(n,)` booleans, at the baseline."""
    return jax.tree.map(jnp.where, _entries(present, groups, x), x, baseline)


def _entries(values: jax.Array, groups: Groups, x: Any) -> Any:
    leaves, structure = jax.tree.flatten(x)
    if groups is not None:
        each = [values[ids] for ids in jax.tree.leaves(groups)]
    else:  # slices: looking up every entry's number takes longer than a small model
        ends = np.cumsum([0] + [leaf.size for leaf in leaves])
        each = [values[a:b].reshape(leaf.shape) for a, b, leaf in zip(ends, ends[1:], leaves, strict=False)]
    shaped = [jnp.broadcast_to(value, leaf.shape) for value, leaf in zip(each, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
