"""A function of one example over a whole data set, a batch at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map
from jaxnn._model import as_model
from jaxnn._progress import progress_bar
from jaxnn._sharding import automatic_axes, check_mesh, local_copy, model_sharding


def map_examples(
    fn: Callable[..., Any],
    *arrays: Any,
    batch_size: int,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Any:
    """Apply a function of one example to each example of a data set.

    `answers_i = fn(arrays[0]_i, arrays[1]_i, ...)`. Each batch is one call of `jax.vmap(fn)`, compiled once;
    the last is filled up with its last example, and cut. The answers do not depend on the batch size, up to
    rounding.

    The data may be larger than the device's memory, and so may the answers: data in NumPy (a memory map,
    too) go to the device a batch at a time, and the answers come back to the host's memory, while the
    device works on the next batch. Under `jax.jit` and the other transformations, where all is on the device
    anyway, it is a loop over batches with JAX arrays for an answer.

    `fn` is recognized by identity: make it once and pass the same object again, and a second call
    compiles nothing. What it closes over is compiled in; a model that changes goes in through
    `jax.tree_util.Partial(function, model)`.

    Args:
        fn: a function of one example, of as many arguments as there are arrays, with one array or a pytree
            of arrays for an answer.
        *arrays: `(N, ...)`, arrays or pytrees of arrays, an example a row: inputs, targets, random keys.
        batch_size: how many examples are computed at once, at least 1.
        mesh: devices to spread each batch over, along the first axis of the mesh, of which `batch_size` must
            be a multiple. The arrays in `fn` are on all devices; or, on a mesh of two axes, divided along the
            second: each by its largest axis that divides evenly. On several processes each maps its own part
            of the data, over its own devices.
        progress: draw a bar (with rich).

    Returns:
        NumPy arrays `(N, ...)`, of the structure of `fn`'s answer.

    Raises:
        TypeError: `fn` is not callable or holds what is no array; `arrays` does not hold numbers.
        ValueError: lengths that differ, no examples, a batch size below 1, a mesh that does not divide it, or
            one with devices of other processes.

    Example:
        >>> import jax, jaxnn, numpy as np
        >>> network = jaxnn.init(jax.random.key(0), (4, 3))
        >>> x, labels = np.ones((10, 4), np.float32), np.arange(10) % 3
        >>> slopes = lambda network, x, label: jaxnn.attribution.saliency(network, x, label)
        >>> answers = jaxnn.map_examples(jax.tree_util.Partial(slopes, network), x, labels, batch_size=8)
        >>> answers.shape
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
    (arrays,), count = _checks.check_rows(arrays=arrays)
    if not _checks.is_concrete((fn, arrays, jnp.zeros(()))):  # under `jax.jit`, what is made is traced too
        if mesh is not None:
            raise ValueError("`mesh` must be None under tracing: place the arrays on the mesh instead")
        data = jax.tree.map(jnp.asarray, arrays)
        return chunked_map(lambda i: fn(*jax.tree.map(lambda leaf: leaf[i], data)), count, batch_size)

    placement = None
    if mesh is not None:
        placement = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
        fn = jax.device_put(fn, model_sharding(fn, mesh))
    fn, arrays = jax.tree.map(automatic_axes, (fn, arrays))
    total, answers = -(-count // batch_size), None
    with progress_bar("examples", total, enabled=progress) as advance:
        for start, batch in _computed(fn, arrays, count, batch_size, placement):
            if answers is None:
                answers = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), batch)
            _store(answers, batch, start)
            advance("")
    return answers


def _computed(
    fn: Any, arrays: Any, count: int, batch_size: int, placement: NamedSharding | None
) -> Iterator[tuple[int, Any]]:
    """The start of each batch and its answers, the next already on its way."""
    waiting = None
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        batch = jax.tree.map(lambda leaf, rows=rows: _take(leaf, rows), arrays)
        following = start, _run(fn, jax.device_put(batch, placement))
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting


def _take(leaf: Any, rows: np.ndarray) -> Any:
    return leaf[rows] if isinstance(leaf, np.ndarray) else _take_on_device(leaf, rows.astype(np.int32))


@jax.jit
def _take_on_device(leaf: jax.Array, rows: jax.Array) -> jax.Array:
    return leaf[rows]


@jax.jit
def _run(fn: Any, batch: Any) -> Any:
    return jax.vmap(fn)(*batch)


def _store(answers: Any, batch: Any, start: int) -> None:
    def store(answer: np.ndarray, leaf: jax.Array) -> None:
        answer[start : start + len(leaf)] = np.asarray(leaf)[: len(answer) - start]

    jax.tree.map(store, answers, batch)
