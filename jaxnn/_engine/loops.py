"""Loops: scan, while and for loops that compose with `jax.shard_map`, and chunked loops in bounded memory.

Inside of `jax.shard_map` the carry of a loop must vary over the same mesh axes at its start as at its end.
The loops here see to that, so no method has to. Use them in place of those of `jax.lax`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._engine.cpu_layout import fast_convolutions, hoist_layouts

Step = Callable[[Any, Any], tuple[Any, Any]]
ChunkStep = Callable[[Any, jax.Array, jax.Array], tuple[Any, Any]]
Tree = TypeVar("Tree")


def vary_like(tree: Tree, reference: Any) -> Tree:
    """Make `tree` device-varying over every manual mesh axis that `reference` varies over.

    Outside of `jax.shard_map` nothing changes. Inside it, a gradient with respect to a value that is the same
    on all devices is summed over them. With respect to a varying value, each device computes its own.
    """
    # Version-independent: an array created like another varies over the same axes.
    varies = jnp.array(False)
    for leaf in jax.tree.leaves(reference):
        if isinstance(leaf, jax.core.Tracer):
            varies |= jnp.zeros_like(leaf, shape=(), dtype=bool)
    if not isinstance(varies, jax.core.Tracer):
        return tree
    return jax.tree.map(lambda leaf: jnp.where(varies, leaf, leaf), tree)


def scan(
    step: Step,
    carry: Any,
    rows: Any = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    hoist: bool = True,
) -> tuple[Any, Any]:
    """`jax.lax.scan`, with a carry that varies as its result does.

    Args:
        step: `step(carry, row) -> (carry, output)`.
        carry: the initial carry.
        rows: a pytree of arrays `(length, ...)`, or None.
        length: number of steps; None to take it from `rows`.
        reverse: whether to begin at the last row.
        hoist: whether to lay out convolutions and weights before the loop; see `cpu_layout`.
    """
    steps = jax.tree.leaves(rows)[0].shape[0] if length is None else length

    def first_row() -> Any:
        return jax.tree.map(lambda leaf: leaf[0], rows)

    if steps > 0:
        if hoist:
            step = hoist_layouts(steps, step, carry, first_row())
        carry = _varying_carry(lambda carry: step(carry, first_row())[0], carry)

    def varying_step(carry: Any, row: Any) -> tuple[Any, Any]:
        result, output = step(carry, row)
        return _varying_result(result, carry), output

    return lax.scan(varying_step, carry, rows, length, reverse=reverse)


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any) -> Any:
    """`jax.lax.while_loop`, with a carry that varies as its result does."""
    return lax.while_loop(
        condition, lambda carry: _varying_result(body(carry), carry), _varying_carry(body, carry)
    )


def fori_loop(lower: Any, upper: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
    """`jax.lax.fori_loop`, with a carry that varies as its result does."""
    carry = _varying_carry(lambda carry: body(lower, carry), carry)
    return lax.fori_loop(lower, upper, lambda i, carry: _varying_result(body(i, carry), carry), carry)


def chunked_scan(
    step: ChunkStep, carry: Any, count: int, size: int, *, hoist: bool = True
) -> tuple[Any, Any]:
    """Scan over the indices from 0 to `count - 1` in chunks of at most `size`.

    A gradient recomputes each chunk, so memory does not grow with the number of chunks.

    Args:
        step: `step(carry, indices, valid) -> (carry, outputs)`. The last chunk is padded by repeating the
            last index, with `valid` False there; sums in the carry must mask it. Outputs have one element
            per index on their first axis.
        carry: the initial carry.
        count: number of indices, at least 1.
        size: largest number of indices per chunk, at least 1.
        hoist: whether to replace the convolutions of the step; see `cpu_layout`.

    Returns:
        `(carry, outputs)`: the final carry, and the outputs of all `count` indices.
    """
    chunks = -(-count // size)
    size = -(-count // chunks)  # equal chunks: the least padding

    step = fast_convolutions(step) if hoist else step

    @jax.checkpoint
    def chunk(carry: Any, number: jax.Array) -> tuple[Any, Any]:
        indices = number * size + jnp.arange(size)
        return step(carry, jnp.minimum(indices, count - 1), indices < count)

    if chunks == 1:
        return chunk(carry, jnp.array(0))
    carry, outputs = scan(chunk, carry, jnp.arange(chunks), hoist=False)
    return carry, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], outputs)


def chunked_map(function: Callable[[jax.Array], Any], count: int, size: int) -> Any:
    """Outputs of a function of one index, for 0 to `count - 1`, stacked; `size` indices at a time."""
    return chunked_scan(lambda _, indices, valid: (None, jax.vmap(function)(indices)), None, count, size)[1]


def _varying_carry(body: Callable[[Any], Any], carry: Tree) -> Tree:
    """The carry, varying over every mesh axis that anything in it or in `body(carry)` varies over.

    One pass reaches the fixed point: each axis that the body brings in reaches some part of its result.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return carry
    carry = vary_like(carry, carry)
    return vary_like(carry, body(carry))  # only the axes are used, so the compiler drops the computation


def _varying_result(result: Tree, carry: Any) -> Tree:
    """The result of a body, varying as its carry does, also where it does not depend on the carry."""
    return vary_like(result, carry) if jax.sharding.get_abstract_mesh().manual_axes else result
