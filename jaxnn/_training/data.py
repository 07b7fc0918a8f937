"""What an epoch of training is made of: examples in memory, drawn in an order, or batches as they come."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import _checks
from jaxnn._sharding import with_automatic_axes
from jaxnn._training.steps import order

Part = tuple[Any, jax.Array | None, int]  # data, the examples of it for each step (None: one, on all), steps


class Feed(NamedTuple):
    """Where the steps of an epoch come from.

    Attributes:
        parts: `parts(epoch, done)`, what is to be gone through in turn, the first `done` steps left out.
        sample: `(inputs, targets)` of one batch at least, to check a model with.
        whole: all the data, where that is known.
    """

    parts: Callable[[int, int], Iterator[Part]]
    sample: Any
    whole: Any


def examples(data: Any, key: jax.Array | None, *, shuffle: bool, batch_size: int, every: int | None) -> Feed:
    """Examples in memory, in a new order each epoch; parts end with each multiple of `every` steps."""
    count = len(jax.tree.leaves(data)[0])

    def parts(epoch: int, done: int) -> Iterator[Part]:
        chosen, left = order(key, epoch, examples=count, shuffle=shuffle, batch_size=batch_size)
        start, full = done, len(chosen)
        while start < full:
            end = full if every is None else min(full, start + every - start % every)
            yield data, chosen[start:end], end - start
            start = end
        if len(left) and done <= full:
            yield data, left[None], 1

    return Feed(parts, data, data)


def batches(coming: Iterable[Any], epochs: int, mesh: Mesh | None) -> Feed:
    """Batches `(inputs, targets)` as they come; on several processes, each one's part of them."""
    if isinstance(coming, str | bytes | dict) or not isinstance(coming, Iterable):
        raise TypeError(
            "`inputs` must be arrays, with `targets` beside them, or an iterable of batches (inputs, "
            f"targets); got {type(coming).__name__} without `targets`"
        )
    if isinstance(coming, Iterator) and epochs > 1:
        raise ValueError(
            "`inputs` must be something that can be gone through once an epoch, such as a list or a loader; "
            f"got {type(coming).__name__}, which is used up after the first of {epochs}"
        )
    if mesh is not None and mesh.is_multi_process:
        _check_shares(mesh)
    through = iter(coming)
    drawn = list(itertools.islice(through, 1))
    if not drawn:
        raise ValueError("`inputs` must give at least one batch; it gave none")
    sample = _check_batch(drawn[0], 1)
    for name, part in zip(("inputs", "targets"), sample, strict=True):
        for leaf in jax.tree.leaves(part):
            _checks.check_finite(f"{name} of batch 1", leaf)
    # The epoch that comes first goes on from the sample: to begin anew would lose it, or change a new order.
    begun = [itertools.chain(drawn, through)]

    def parts(epoch: int, done: int) -> Iterator[Part]:
        number = 0
        for number, batch in enumerate(begun.pop() if begun else coming, start=1):
            if number > done:
                yield _placed(with_automatic_axes(_check_batch(batch, number)), mesh), None, 1
        if number == 0 or number < done:
            raise ValueError(
                f"`inputs` must give the same batches in every epoch; it gave {number} in epoch {epoch + 1}"
            )

    return Feed(parts, sample, None)


def _check_batch(batch: Any, number: int) -> Any:
    """The pair as arrays, those of NumPy still there."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise TypeError(
            f"`inputs` must give pairs (inputs, targets); batch {number} is a {type(batch).__name__}{size}"
        )
    named = {f"inputs of batch {number}": batch[0], f"targets of batch {number}": batch[1]}
    return _checks.check_rows(**named)[0]


def _check_shares(mesh: Mesh) -> None:
    """Raise unless the devices that hold a row are of one process: two would have to give the same rows."""
    first = mesh.axis_names[0]
    for i, devices in enumerate(mesh.devices):
        processes = sorted({device.process_index for device in np.ravel(devices)})
        if len(processes) > 1:
            raise ValueError(
                f"`mesh` must have devices of one process at each place along its first axis, {first!r}, as "
                f"each process gives rows of its own; at {i} there are those of the processes {processes}"
            )


def _placed(batch: Any, mesh: Mesh | None) -> Any:
    """A batch on the devices, along the first axis of the mesh where that divides it."""
    if mesh is None:
        return batch
    rows = len(jax.tree.leaves(batch)[0]) * (jax.process_count() if mesh.is_multi_process else 1)
    divided = rows % mesh.devices.shape[0] == 0
    if not mesh.is_multi_process:
        spec = PartitionSpec(mesh.axis_names[0]) if divided else PartitionSpec()
        return jax.device_put(batch, NamedSharding(mesh, spec))
    if not divided:
        raise ValueError(
            f"`inputs` must give batches whose rows on all processes together, {rows}, are a multiple of the "
            f"{mesh.devices.shape[0]} devices along the axis {mesh.axis_names[0]!r} of `mesh`"
        )
    place = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))

    def share(leaf: Any) -> jax.Array:
        local = np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))
        return jax.make_array_from_process_local_data(place, local)

    return jax.tree.map(share, batch)
