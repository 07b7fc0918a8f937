"""The data of a run, epoch by epoch: arrays in memory in a random order, or batches from an iterable."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import _checks
from jaxnn._keys import key_data, key_impl, wrap_key
from jaxnn._sharding import automatic_axes
from jaxnn._typing import Examples, Key, PyTree

Tree = TypeVar("Tree")


class Segment(NamedTuple):
    """A part of an epoch that one call of the compiled steps goes through.

    Attributes:
        data: `(inputs, targets)`.
        rows: `(steps, batch_size)`, the examples of each step; None for one step on all of them.
        steps: number of steps.
    """

    data: Examples
    rows: jax.Array | None
    steps: int


class Source(NamedTuple):
    """The data of a run.

    Attributes:
        epoch: `epoch(number, done)` iterates over the segments of one epoch, skipping its first `done` steps.
        sample: `(inputs, targets)` of at least one batch, to check a model with.
        arrays: all the data, where they are in memory; otherwise None.
    """

    epoch: Callable[[int, int], Iterator[Segment]]
    sample: Examples
    arrays: Examples | None


def array_source(
    data: Examples, key: Key | None, *, shuffle: bool, batch_size: int, every: int | None
) -> Source:
    """Examples in memory, in a new order each epoch; segments end at each multiple of `every` steps."""
    count = len(jax.tree.leaves(data)[0])

    def epoch(number: int, done: int) -> Iterator[Segment]:
        batches, remainder = _order(key, number, count=count, shuffle=shuffle, batch_size=batch_size)
        start, full = done, len(batches)
        while start < full:
            end = full if every is None else min(full, start + every - start % every)
            yield Segment(data, batches[start:end], end - start)
            start = end
        if len(remainder) and done <= full:
            yield Segment(data, remainder[None], 1)

    return Source(epoch, data, data)


@jax.jit(static_argnames=("count", "shuffle", "batch_size"))
def _order(
    key: Key | None, epoch: int, *, count: int, shuffle: bool, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """The examples of each full batch, `(steps, batch_size)`, and of the remainder, `(rest,)`."""
    rows = jnp.arange(count)
    if key is not None and shuffle:
        rows = jax.random.permutation(jax.random.fold_in(key, epoch), rows)
    filled = count - count % batch_size
    return rows[:filled].reshape(-1, batch_size), rows[filled:]


def batch_source(
    batches: Iterable[Examples],
    epochs: int,
    mesh: Mesh | None,
    check_loss: Callable[[Examples, str], Callable[[PyTree, str], None]],
) -> Source:
    """Batches from an iterable; on several processes, each one's part of them.

    Args:
        batches: pairs `(inputs, targets)`.
        epochs: number of times that they are iterated over.
        mesh: devices, or None.
        check_loss: raises unless the loss takes the first batch; returns the check of the targets of others.
    """
    if isinstance(batches, str | bytes | dict) or not isinstance(batches, Iterable):
        raise TypeError(
            "`inputs` must be arrays, with `targets` beside them, or an iterable of batches (inputs, "
            f"targets); got {type(batches).__name__} without `targets`"
        )
    if isinstance(batches, Iterator) and epochs > 1:
        raise ValueError(
            "`inputs` must be an iterable that can be repeated once per epoch, such as a list or a loader; "
            f"got {type(batches).__name__}, which is used up after the first of {epochs}"
        )
    if mesh is not None and mesh.is_multi_process:
        _check_rows_of_processes(mesh)
    iterator = iter(batches)
    first = list(itertools.islice(iterator, 1))
    if not first:
        raise ValueError("`inputs` must give at least one batch; it gave none")
    sample = _check_batch(first[0], 1)
    _check_finite(sample, 1, jax.Array | np.ndarray)
    check_targets = check_loss(sample, "targets")
    # The first epoch continues after the sample: a new iterator would lose it, or draw a new order.
    begun = [itertools.chain(first, iterator)]

    def epoch(number: int, done: int) -> Iterator[Segment]:
        count = 0
        for count, batch in enumerate(begun.pop() if begun else batches, start=1):
            if count > done:
                batch = _check_batch(batch, count)
                # On the host alone: to look at what is on a device would wait for the step before.
                _check_finite(batch, count, np.ndarray)
                if isinstance(batch[1], np.ndarray):
                    check_targets(batch[1], f"targets of batch {count}")
                yield Segment(_place_batch(jax.tree.map(_own, batch), mesh), None, 1)
        if count == 0 or count < done:
            raise ValueError(
                f"`inputs` must give the same batches in every epoch; it gave {count} in epoch {number + 1}"
            )

    return Source(epoch, sample, None)


def _check_batch(batch: Any, number: int) -> Examples:
    """The pair as arrays, those of NumPy unchanged."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise TypeError(
            f"`inputs` must give pairs (inputs, targets); batch {number} is a {type(batch).__name__}{size}"
        )
    named = {f"inputs of batch {number}": batch[0], f"targets of batch {number}": batch[1]}
    (inputs, targets), _ = _checks.check_rows(**named)
    return inputs, targets


def _check_finite(batch: Examples, number: int, kinds: Any) -> None:
    """Raise where an array of these types holds NaN or an infinity."""
    for name, part in zip(("inputs", "targets"), batch, strict=True):
        for leaf in jax.tree.leaves(part):
            if isinstance(leaf, kinds):
                _checks.check_finite(f"{name} of batch {number}", leaf)


def _own(leaf: Any) -> Any:
    """A copy of an array in the host's memory, since a loader may refill its own before the step has run.

    JAX copies to a device asynchronously, and on a CPU may not copy at all.
    """
    return leaf if isinstance(leaf, jax.Array) else np.array(leaf)


def _check_rows_of_processes(mesh: Mesh) -> None:
    """Raise unless the devices that hold a row belong to one process, which gives that row."""
    for i, devices in enumerate(mesh.devices):
        processes = sorted({device.process_index for device in np.ravel(devices)})
        if len(processes) > 1:
            raise ValueError(
                "`mesh` must have devices of one process at each place along its first axis, "
                f"{mesh.axis_names[0]!r}, as each process gives rows of its own; at {i} there are those of "
                f"the processes {processes}"
            )


def _place_batch(batch: Examples, mesh: Mesh | None) -> Examples:
    """A batch on the devices, divided along the first axis of the mesh where that divides it."""
    if mesh is None:
        return jax.tree.map(automatic_axes, batch)
    size = mesh.devices.shape[0]
    rows = len(jax.tree.leaves(batch)[0]) * (jax.process_count() if mesh.is_multi_process else 1)
    sharding = NamedSharding(mesh, PartitionSpec() if rows % size else PartitionSpec(mesh.axis_names[0]))
    if not mesh.is_multi_process:
        return jax.device_put(jax.tree.map(automatic_axes, batch), sharding)
    if rows % size:
        raise ValueError(
            f"`inputs` must give batches whose rows on all processes together, {rows}, are a multiple of the "
            f"{size} devices along the axis {mesh.axis_names[0]!r} of `mesh`"
        )

    def place_local(leaf: Any) -> jax.Array:
        local = np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))
        return jax.make_array_from_process_local_data(sharding, local)

    return jax.tree.map(place_local, batch)


def place(tree: Tree, shardings: Any) -> Tree:
    """`jax.device_put`, also to devices of other processes, where each process holds the same arrays.

    Args:
        tree: a pytree of arrays.
        shardings: a pytree of that structure, with one sharding per array; or one for all.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda leaf: shardings, tree)
    if all(sharding.is_fully_addressable for sharding in jax.tree.leaves(shardings)):
        return jax.device_put(tree, shardings)

    def place_global(leaf: Any, sharding: NamedSharding) -> Any:
        data = key_data(leaf)
        if not isinstance(data, jax.core.Tracer) and getattr(data, "is_fully_addressable", False):
            # An array committed to a device does not move to other processes' devices.
            data = np.asarray(data)
        return wrap_key(jax.device_put(data, sharding), key_impl(leaf))

    return jax.tree.map(place_global, tree, shardings)


@jax.jit
def fingerprint(tree: PyTree) -> jax.Array:
    """Checksum: two 32-bit integers that identify arrays, wherever they are placed.

    Each word is multiplied by its own odd number, so every change of a single word changes the sum.
    """
    total = jnp.zeros(2, jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        words = _words(key_data(leaf)).ravel()
        index = lax.iota(jnp.uint32, words.size)
        factors = jnp.stack([2 * index + 1, (2 * index + 1) * jnp.uint32(0x9E3779B1) ^ (index << 7)])
        total = total * jnp.uint32(0x85EBCA6B) + jnp.sum(words * (factors | 1), axis=1, dtype=jnp.uint32)
        total += jnp.uint32(words.size)
    return total


def _words(leaf: jax.Array) -> jax.Array:
    """The bits of an array in words of 32, or of fewer for smaller elements."""
    if jnp.iscomplexobj(leaf):
        leaf = jnp.stack([leaf.real, leaf.imag])
    if leaf.dtype in (jnp.bool_, jnp.int4, jnp.uint4):  # smaller than a byte
        return leaf.astype(jnp.uint32)
    bits = jnp.dtype(leaf.dtype).itemsize * 8
    word = {8: jnp.uint8, 16: jnp.uint16}.get(bits, jnp.uint32)
    return lax.bitcast_convert_type(leaf, word).astype(jnp.uint32)
