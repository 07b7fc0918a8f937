"""Check the arguments of `train` and place them on the devices, before any work."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from jaxnn import _checks, losses
from jaxnn._engine.loops import vary_like
from jaxnn._model import as_model, check_loss, combine, output_shape, partition
from jaxnn._network import Network
from jaxnn._sharding import automatic_axes, check_mesh, model_sharding
from jaxnn._training.data import Source, array_source, batch_source, place
from jaxnn._training.identity import identify
from jaxnn._training.steps import State
from jaxnn._typing import Examples, Key, Loss, PyTree


class Problem(NamedTuple):
    """A checked training problem, its arrays on the devices.

    Attributes:
        state: the initial state, of arrays of its own.
        rebuild: `rebuild(trainable) -> model`, a pytree of the arrays that are not trained.
        source: the data.
        held_out: `(inputs, targets)` to evaluate after each epoch, or None.
        options: static arguments of the compiled steps: `loss`, `optimizer` and `mesh`.
        settings: what identifies the run in its checkpoints, as a JSON object; empty without checkpoints.
    """

    state: State
    rebuild: Partial
    source: Source
    held_out: Examples | None
    options: Mapping[str, Any]
    settings: dict[str, Any]


def prepare(
    model: Any,
    inputs: PyTree | Iterable[Examples],
    targets: PyTree,
    *,
    epochs: int,
    batch_size: int | None,
    key: Key | None,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    shuffle: bool,
    validation: Examples | None,
    mesh: Mesh | None,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_every: int | None,
) -> Problem:
    """Check the arguments of `train`, and place the arrays among them."""
    _check_model(model, loss)
    in_memory = targets is not None
    batch_size = _check_options(optimizer, key, shuffle, batch_size, in_memory=in_memory)
    _check_checkpoints(checkpoint, checkpoint_every)
    mesh = None if mesh is None else check_mesh(mesh, batch_size)

    model, key = jax.tree.map(automatic_axes, model), _replicate(key, mesh)
    if in_memory:
        assert batch_size is not None  # noqa: S101 - checked above
        data = _place_examples(mesh, inputs=inputs, targets=targets)
        source = array_source(data, key, shuffle=shuffle, batch_size=batch_size, every=checkpoint_every)
        _check_loss(model, loss, source.sample, "targets")
    else:
        source = batch_source(inputs, epochs, mesh, functools.partial(_check_loss, model, loss))
    held_out = None
    if validation is not None:
        if not isinstance(validation, tuple) or len(validation) != 2:
            raise TypeError("`validation` must be a pair (inputs, targets)")
        held_out = _place_examples(mesh, **{f"validation[{i}]": part for i, part in enumerate(validation)})
        _check_loss(model, loss, held_out, "validation[1]")

    trainable, rest = partition(model)
    if mesh is not None:  # before the optimizer makes more of its size: no device need hold it whole
        trainable, rest = place((trainable, rest), model_sharding((trainable, rest), mesh))
    state = _initial_state(trainable, (rest, source.arrays, key), optimizer, mesh)
    rebuild, settings = Partial(combine, rest=rest), {}
    if checkpoint is not None:
        if not _checks.is_concrete((state, rest, source.arrays, key, held_out)):
            raise ValueError("`checkpoint` must be None under tracing, where there is nothing to write yet")
        settings = identify(
            state, rebuild, source, held_out, key, optimizer=optimizer, loss=loss, batch_size=batch_size,
            shuffle=shuffle,
        )  # fmt: skip
    options = {"loss": loss, "optimizer": optimizer, "mesh": mesh}
    return Problem(state, rebuild, source, held_out, options, settings)


def _initial_state(
    trainable: PyTree, reference: PyTree, optimizer: optax.GradientTransformation, mesh: Mesh | None
) -> State:
    """The state before the first step, which varies over the mesh axes that `reference` varies over."""
    trainable, finite = vary_like((trainable, jnp.array(True)), (trainable, reference))
    state = State(trainable, optimizer.init(trainable), finite)
    # Copies: the caller's arrays are not donated, and an optimizer may use one buffer twice.
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
    if mesh is not None:  # the optimizer's new arrays, too: another placement would recompile
        state = place(state, model_sharding(state, mesh))
    return state


def _place_examples(mesh: Mesh | None, **trees: Any) -> Any:
    """Examples on the devices, of equal lengths and finite values."""
    checked, _ = _checks.check_rows(**trees)
    with jax.ensure_compile_time_eval():
        data = jax.tree.map(jnp.asarray, checked)
    for name, tree in zip(trees, data, strict=True):
        for leaf in jax.tree.leaves(tree):
            _checks.check_finite(name, leaf)
    return _replicate(data, mesh)


def _replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The same arrays on all devices of the mesh, on automatic axes."""
    tree = jax.tree.map(automatic_axes, tree)
    return tree if mesh is None else place(tree, NamedSharding(mesh, PartitionSpec()))


def _check_model(model: Any, loss: Loss) -> None:
    """Raise unless the model has arrays to train and an output that suits the loss."""
    trainable, _ = partition(as_model(model))
    if not jax.tree.leaves(trainable):
        raise TypeError(
            "`model` has no floating-point array to train; a plain function hides its parameters: "
            "pass jax.tree_util.Partial(function, params)"
        )
    if loss is losses.cross_entropy and isinstance(model, Network):
        output = model.layers[-1].activation
        if output in ("softmax", "sigmoid"):
            raise ValueError(
                f"`loss` cross_entropy takes logits, but the `model` ends in {output!r}, which would be "
                "squashed twice: give it `output_activation='identity'` and take jax.nn.softmax of its output"
            )


def _check_options(
    optimizer: Any, key: Any, shuffle: bool, batch_size: Any, *, in_memory: bool
) -> int | None:
    """Raise unless the optimizer, the key and the batch size suit each other and the kind of data."""
    _checks.check_flag("shuffle", shuffle)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`optimizer` must be an Optax optimizer; got {type(optimizer).__name__}")
    if not in_memory:
        for name, value in (("batch_size", batch_size), ("key", key)):
            if value is not None:
                raise ValueError(
                    f"`{name}` must be None without `targets`, as batches have a size and an order of their "
                    f"own; got {value!r}"
                )
        return None
    if shuffle and key is None:
        raise ValueError("`key` is needed to shuffle; pass one, or `shuffle=False` for the given order")
    if key is not None:
        _checks.check_key("key", key)
    return _checks.check_integer("batch_size", batch_size, at_least=1)


def _check_checkpoints(checkpoint: Any, every: Any) -> None:
    """Raise unless the folder is a path, and the number of steps between checkpoints suits it."""
    if checkpoint is not None:
        _checks.check_path("checkpoint", checkpoint, "folder")
    if every is not None:
        if checkpoint is None:
            raise ValueError("`checkpoint_every` must be None without `checkpoint`, the folder to write to")
        _checks.check_integer("checkpoint_every", every, at_least=1)


def _check_loss(model: Any, loss: Loss, data: Examples, name: str) -> Callable[[PyTree, str], None]:
    """Raise unless the loss of one example is a real scalar, and suits the targets.

    Returns the check of other targets of the same shapes.
    """

    def row(leaf: Any) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)  # keys, too
        return jax.ShapeDtypeStruct(leaf.shape[1:], dtype)

    inputs, targets = jax.tree.map(row, data)
    output = output_shape(model, inputs)
    check_loss(loss, output, targets)
    check = functools.partial(_check_targets, output.shape[0] if loss is losses.cross_entropy else None)
    check(data[1], name)
    return check


@jax.ensure_compile_time_eval()
def _check_targets(classes: int | None, targets: Any, name: str) -> None:
    """Raise where targets of `cross_entropy` are no labels of the outputs, or no probabilities."""
    if classes is None:
        return
    if jnp.issubdtype(targets.dtype, jnp.integer) and targets.ndim == 1:
        low, high = targets.min(), targets.max()
        if _checks.known_false((low >= 0) & (high < classes)):
            raise ValueError(
                f"`{name}` must hold labels in [0, {classes}), one per output of the model; got values from "
                f"{int(low)} to {int(high)}"
            )
    elif _checks.known_false(targets.min() >= 0):
        raise ValueError(f"`{name}` must hold probabilities, at least 0; got {float(targets.min())}")
