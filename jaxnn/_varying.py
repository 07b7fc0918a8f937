"""Inside `jax.shard_map`: which values differ from device to device."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def vary_like(tree: Tree, reference: Any) -> Tree:
    """Mark the leaves of `tree` as differing along every mesh axis along which `reference` does.

    Outside `jax.shard_map` nothing changes. Inside it, a gradient with respect to a value that is the same
    on all devices is summed over them without being asked, and the carry of a scan must differ along
    the same axes at its start as at its end. After this, each device computes on its own.
    """
    # An array made like another differs where that one does, whatever its own shape and values.
    differs = jnp.array(False)
    for leaf in jax.tree.leaves(reference):
        if isinstance(leaf, jax.core.Tracer):
            differs |= jnp.zeros_like(leaf, shape=(), dtype=bool)
    if not isinstance(differs, jax.core.Tracer):
        return tree
    return jax.tree.map(lambda leaf: jnp.where(differs, leaf, leaf), tree)
