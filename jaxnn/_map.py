"""`map_examples`: a function of one example over a data set, one batch at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import _checks
from jaxnn._arrays import as_numpy
from jaxnn._engine.loops import chunked_map
from jaxnn._model import as_model
from jaxnn._progress import progress_bar
from jaxnn._sharding import automatic_axes, check_mesh, local_copy, model_sharding
from jaxnn._typing import PyTree


def map_examples(
    fn: Callable[..., PyTree],
    *arrays: PyTree,
    batch_size: int,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> PyTree:
    """Batched map: apply a function of one example to each example of a data set.

    `outputs_i = fn(arrays[0]_i, arrays[1]_i, ...)`. Each batch is one call of `jax.vmap(fn)`, compiled once.
    The last batch is padded with its last example. The outputs do not depend on the batch size, up to
    rounding.

    Data and outputs may be larger than the device's memory: data in NumPy (also a memory map) are copied to
    the device one batch at a time, and the outputs are copied to the host's memory while the device computes
    the next batch. Under `jax.jit` and the other transformations, where all arrays are on the device, it is a
    loop over batches that returns JAX arrays.

    `fn` is a static argument, compared by identity: create it once and pass the same object again, and a
    second call does not recompile. Arrays that it closes over are constants of the compiled program. Pass a
    model that changes with `jax.tree_util.Partial(function, model)`.

    Args:
        fn: a function of one example, with as many arguments as there are arrays, that returns an array or a
            pytree of arrays.
        *arrays: `(N, ...)`, arrays or pytrees of arrays, one row per example: inputs, targets, random keys.
        batch_size: number of examples computed at once, at least 1.
        mesh: devices that divide each batch, along the first axis of the mesh, of which `batch_size` must be
            a multiple. The arrays in `fn` are replicated; or, on a mesh of two axes, divided along the
            second: each by its largest axis that divides evenly. On several processes each maps its own part
            of the data, over its own devices.
        progress: whether to draw a progress bar (with rich).

    Returns:
        NumPy arrays `(N, ...)`, with the structure of the output of `fn`.

    Raises:
        TypeError: `fn` is not callable or has leaves that are not arrays; `arrays` does not hold numbers.
        ValueError: lengths that differ, no examples, a batch size below 1, a mesh that does not divide it, or
            one with devices of other processes.

    Example:
        >>> import jax, jaxnn, numpy as np
        >>> network = jaxnn.init(jax.random.key(0), (4, 3))
        >>> x, labels = np.ones((10, 4), np.float32), np.arange(10) % 3
        >>> gradient = lambda network, x, label: jaxnn.attribution.saliency(network, x, label)
        >>> gradients = jaxnn.map_examples(jax.tree_util.Partial(gradient, network), x, labels, batch_size=8)
        >>> gradients.shape
        (10, 4)
    """
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    if mesh is not None:
        mesh = check_mesh(mesh, batch_size)
        if mesh.is_multi_process:
            raise ValueError(
                "`mesh` must be of this process's own devices, jax.local_devices(): each maps its own "
                "part of the data, by itself"
            )
    fn = jax.tree.map(partial(local_copy, "fn"), as_model(fn, "fn"))
    (arrays,), count = _checks.check_rows(arrays=arrays, in_parts=True)
    row = sum(leaf.size // count * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
    _checks.check_bytes("batch_size", batch_size * (8 + row))
    if not _checks.is_concrete((fn, arrays, jnp.zeros(()))):  # under `jax.jit`, new arrays are traced too
        if mesh is not None:
            raise ValueError("`mesh` must be None under tracing: place the arrays on the mesh instead")
        data = jax.tree.map(partial(_checks.check_array, "arrays"), arrays)
        return chunked_map(lambda i: fn(*jax.tree.map(lambda leaf: leaf[i], data)), count, batch_size)

    sharding = None
    if mesh is not None:
        sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
        fn = jax.device_put(fn, model_sharding(fn, mesh))
    fn, arrays = jax.tree.map(automatic_axes, (fn, arrays))
    total, outputs = -(-count // batch_size), None
    with progress_bar("examples", total, enabled=progress) as advance:
        for start, batch in _batch_outputs(fn, arrays, count, batch_size, sharding):
            if outputs is None:
                outputs = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), batch)
            jax.tree.map(partial(_copy_rows, start), outputs, batch)
            advance("")
    return outputs


def _batch_outputs(
    fn: Callable[..., PyTree], arrays: PyTree, count: int, batch_size: int, sharding: NamedSharding | None
) -> Iterator[tuple[int, PyTree]]:
    """The start of each batch and its outputs, while the next batch is computed."""
    previous = None
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        batch = jax.tree.map(lambda leaf, rows=rows: _take(leaf, rows), arrays)
        current = start, _run(fn, jax.device_put(batch, sharding))
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def _take(leaf: Any, rows: np.ndarray) -> Any:
    if isinstance(leaf, np.ndarray):
        return as_numpy("arrays", leaf[rows])
    return _take_on_device(leaf, rows.astype(np.int32))


@jax.jit
def _take_on_device(leaf: jax.Array, rows: jax.Array) -> jax.Array:
    return leaf[rows]


@jax.jit
def _run(fn: Callable[..., PyTree], batch: PyTree) -> PyTree:
    return jax.vmap(fn)(*batch)


def _copy_rows(start: int, output: np.ndarray, batch: jax.Array) -> None:
    output[start : start + len(batch)] = np.asarray(batch)[: len(output) - start]
