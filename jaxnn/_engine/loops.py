"""Many small computations a few at a time, so that memory does not grow with their number."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._engine.cpu_layout import for_steps, in_order

Step = Callable[[Any, Any], tuple[Any, Any]]
ChunkStep = Callable[[Any, jax.Array, jax.Array], tuple[Any, Any]]
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


def scan(step: Step, carry: Any, rows: Any = None, length: int | None = None) -> tuple[Any, Any]:
    """`jax.lax.scan`, with the convolutions and the weights of its step in order."""
    steps = jax.tree.leaves(rows)[0].shape[0] if length is None else length
    if steps > 0:
        step = for_steps(steps, step, carry, jax.tree.map(lambda leaf: leaf[0], rows))
    return lax.scan(step, carry, rows, length)


def over_chunks(step: ChunkStep, carry: Any, count: int, size: int, *, like: Any) -> tuple[Any, Any]:
    """Count from 0 to `count - 1` in chunks of at most `size`.

    Args:
        step: `step(carry, indices, valid) -> (carry, outputs)`. The last chunk is filled up by repeating the
            last index, with `valid` false there: what is summed into the carry has to look at it. Outputs
            have an entry an index on their first axis.
        carry: what the first step gets.
        count: at least 1.
        size: at least 1.
        like: what the step computes with; where that differs between devices, so does the carry.

    Returns:
        `(carry, outputs)`: the last carry, and the outputs of all `count` indices.
    """
    chunks = -(-count // size)
    size = -(-count // chunks)  # even chunks: the least to fill up

    step = step if chunks == 1 else in_order(step)  # a single chunk is no loop: that would cost compilation

    # Kept for a gradient, what happens inside all chunks would fill the memory: it is computed anew.
    @jax.checkpoint
    def chunk(carry: Any, number: jax.Array) -> tuple[Any, Any]:
        indices = number * size + jnp.arange(size)
        return step(carry, jnp.minimum(indices, count - 1), indices < count)

    if chunks == 1:
        return chunk(carry, jnp.array(0))
    carry, outputs = lax.scan(chunk, vary_like(carry, like), jnp.arange(chunks))
    return carry, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], outputs)


def map_indices(function: Callable[[jax.Array], Any], count: int, size: int) -> Any:
    """The answers of a function of one index, for 0 to `count - 1`, stacked."""
    return over_chunks(
        lambda _, indices, valid: (None, jax.vmap(function)(indices)), None, count, size, like=None
    )[1]
