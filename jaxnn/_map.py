"""`map_examples`: a function of one example over a data set, one batch at a time."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import _checks
from jaxnn._arrays import as_numpy
from jaxnn._engine.digest import digest
from jaxnn._engine.loops import chunked_map
from jaxnn._keys import key_data
from jaxnn._model import as_model
from jaxnn._outputs import Outputs, in_files, in_memory
from jaxnn._progress import progress_bar
from jaxnn._runs import shapes
from jaxnn._sharding import automatic_axes, check_mesh, local_copy, model_sharding
from jaxnn._typing import PyTree

_HASHED = 1 << 28  # bytes of an array of which all rows are hashed
_BLOCK = 1 << 24  # bytes that are hashed at once


def map_examples(
    fn: Callable[..., PyTree],
    *arrays: PyTree,
    batch_size: int,
    mesh: Mesh | None = None,
    out: str | os.PathLike[str] | PyTree | None = None,
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

    With a path as `out`, the outputs go to files, and the host's memory does not grow with their number. A
    call that was interrupted or killed continues when the same call is made again, and its outputs are bit
    for bit those of an uninterrupted one; a kill loses the work of at most a second and a batch. A complete
    call is not computed again. The path is that of a folder with an array in NumPy's format for each leaf of
    the outputs, `0.npy`, `1.npy`, ... in the order of `jax.tree.leaves`, and a `record.json`. NumPy has no
    bfloat16 and no dtype below 8 bits: a file holds such numbers as bytes, which `np.load(file).view(dtype)`
    reads.

    The same call is one with the same arguments, on the same kind of devices and with the same version of
    JAX. Arrays, those in `fn` included, and the jaxpr of `fn` are compared by SHA-256; of an array of more
    than 256 MiB only rows at equal distances. What a callback calls on the host is not compared.

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
        out: where the outputs go: a path for files, of one process; NumPy arrays `(N, ...)` to fill, of the
            structure and the dtypes of the outputs; or None for new arrays. None under transformations.
        progress: whether to draw a progress bar (with rich).

    Returns:
        NumPy arrays `(N, ...)`, with the structure of the output of `fn`: new ones, those of `out`, or
        read-only memory maps of its files.

    Raises:
        TypeError: `fn` is not callable or has leaves that are not arrays; `arrays` does not hold numbers.
        ValueError: lengths that differ, no examples, a batch size below 1, a mesh that does not divide it, or
            one with devices of other processes; arrays of `out` that do not fit the outputs, or a folder of
            other files, of another call, or of one that is running.
        Exception: any error or interrupt of the computation, with a note. Without a path, its attribute
            `finished` holds the outputs of the complete batches, where there is one.

    Example:
        >>> import jax, jaxnn, numpy as np
        >>> network = jaxnn.init(jax.random.key(0), (4, 3))
        >>> x, labels = np.ones((10, 4), np.float32), np.arange(10) % 3
        >>> gradient = lambda network, x, label: jaxnn.attribution.saliency(network, x, label)
        >>> gradients = jaxnn.map_examples(jax.tree_util.Partial(gradient, network), x, labels, batch_size=8)
        >>> gradients.shape
        (10, 4)

        Into files:

        >>> import tempfile
        >>> fn = jax.tree_util.Partial(gradient, network)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     maps = jaxnn.map_examples(fn, x, labels, batch_size=8, out=f"{folder}/gradients")
        ...     bool((np.load(f"{folder}/gradients/0.npy") == gradients).all())
        True
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
        if out is not None:
            raise ValueError("`out` must be None under tracing, where there is nothing to write yet")
        data = jax.tree.map(partial(_checks.check_array, "arrays"), arrays)
        return chunked_map(lambda i: fn(*jax.tree.map(lambda leaf: leaf[i], data)), count, batch_size)

    sharding = None
    if mesh is not None:
        sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
        fn = jax.device_put(fn, model_sharding(fn, mesh))
    fn, arrays = jax.tree.map(automatic_axes, (fn, arrays))
    load = partial(_load, arrays, count, batch_size, sharding)
    place = _place_outputs(out, fn, arrays, load, mesh, count, batch_size)
    total = -(-count // batch_size)
    with place as outputs, progress_bar("examples", total, enabled=progress) as advance:
        advance("", -(-outputs.rows // batch_size))
        for start, batch in _batch_outputs(fn, load, range(outputs.rows, count, batch_size)):
            outputs.write(batch, min(start + batch_size, count))
            advance("")
    return outputs.result()


def _load(arrays: PyTree, count: int, batch_size: int, sharding: NamedSharding | None, start: int) -> PyTree:
    """A batch on the devices, the last one padded with its last example."""
    rows = np.minimum(np.arange(start, start + batch_size), count - 1)
    return jax.device_put(jax.tree.map(lambda leaf: _take(leaf, rows), arrays), sharding)


def _batch_outputs(
    fn: Callable[..., PyTree], load: Callable[[int], PyTree], starts: range
) -> Iterator[tuple[int, PyTree]]:
    """The start of each batch and its outputs, while the next batch is computed."""
    previous = None
    for start in starts:
        try:
            current = start, _run(fn, load(start))
        except BaseException:
            if previous is not None:  # it is complete
                yield previous
            raise
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def _place_outputs(
    out: Any, fn: Any, arrays: PyTree, load: Any, mesh: Mesh | None, count: int, batch_size: int
) -> contextlib.AbstractContextManager[Outputs]:
    """Where the outputs go; raise unless `out` suits them."""
    if out is None:
        return in_memory(count, None)
    batch = load(0)

    def rows(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), np.dtype(leaf.dtype))

    like = jax.tree.map(rows, jax.eval_shape(_run, fn, batch))
    if not isinstance(out, str | os.PathLike):
        _check_out(out, like)
        return in_memory(count, out)
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    settings = {
        "format": 1,
        "jax": jax.__version__,
        "devices": [device.device_kind, None if mesh is None else dict(mesh.shape)],
        "examples": count,
        "batch_size": batch_size,
        "arrays": shapes(arrays),
        "outputs": shapes(like),
        "arrays (by checksum)": _checksum(_blocks(arrays, count)),
        "arrays in fn (by checksum)": _checksum(jax.tree.leaves(fn)),
        "fn (by its jaxpr)": digest(_run, fn, batch),
    }
    return in_files(out, like, settings)


def _check_out(out: PyTree, like: PyTree) -> None:
    _checks.check_structure("out", out, like, "fn(...)")
    for (path, array), leaf in zip(jax.tree.leaves_with_path(out), jax.tree.leaves(like), strict=True):
        name = "out" + jax.tree_util.keystr(path)
        if not isinstance(array, np.ndarray):
            raise TypeError(f"`{name}` must be a path or a NumPy array to fill; got {type(array).__name__}")
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"`{name}` must have shape {leaf.shape} and dtype {leaf.dtype}, those of the outputs; got "
                f"shape {array.shape} and dtype {array.dtype}"
            )
        if not array.flags.writeable:
            raise ValueError(f"`{name}` must be an array to fill; got one that is read-only")


def _blocks(arrays: PyTree, count: int) -> Iterator[Any]:
    """The rows of arrays, in blocks; of a large one, rows at equal distances and the last."""
    for leaf in map(key_data, jax.tree.leaves(arrays)):
        rows = np.append(np.arange(0, count, max(1, -(-leaf.nbytes // _HASHED))), count - 1)
        size = max(1, _BLOCK * count // max(1, leaf.nbytes))
        for start in range(0, len(rows), size):
            yield _take(leaf, rows[start : start + size])


def _checksum(arrays: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.asarray(key_data(array)).tobytes())
    return total.hexdigest()


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
