"""The identity of a run: what its checkpoints record of it, and whether a call continues it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnn._engine.digest import digest
from jaxnn._runs import changes, other_run, shapes
from jaxnn._serialization import activations_of
from jaxnn._training.data import Source, fingerprint
from jaxnn._training.steps import Rebuild, State
from jaxnn._typing import Examples, Key, Loss, PyTree

_FORMAT = 3
_TRACED = "JAX and shapes of an example"
_COMPUTED = ("optimizer (by its jaxpr)", "loss of the model (by its jaxpr)")  # comparable if _TRACED is equal
_FIRST_BATCH = "first batch (by checksum)"  # a loader may shuffle: another one is no proof of other data


def identify(
    state: State,
    rebuild: Rebuild,
    source: Source,
    held_out: Examples | None,
    key: Key | None,
    *,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    batch_size: int | None,
    shuffle: bool,
) -> dict[str, Any]:
    """What identifies a run, as a JSON object.

    The optimizer, the loss and the model are functions: they are identified by the jaxprs of an update and of
    the gradient of one example's loss.
    """
    example = jax.tree.map(lambda leaf: _struct(leaf, leaf.shape[1:]), source.sample)
    trainable, optimizer_state = jax.tree.map(lambda leaf: _struct(leaf, leaf.shape), state[:2])

    def example_loss(trainable: PyTree, rebuild: Rebuild, example: Examples) -> Any:
        return loss(rebuild(trainable)(example[0]), example[1])

    def update(gradient: PyTree, state: PyTree, trainable: PyTree) -> Any:
        def value(trainable: PyTree) -> Any:  # of a loss, for optimizers that evaluate it
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(trainable))

        extra = {"value": value(trainable), "grad": gradient, "value_fn": value}
        return optax.with_extra_args_support(optimizer).update(gradient, state, trainable, **extra)

    arguments = (trainable, jax.tree.map(lambda leaf: _struct(leaf, leaf.shape), rebuild), example)
    return {
        "format": _FORMAT,
        "model": shapes(state.trainable),
        "activation by layer": activations_of(state.trainable),
        "initial model (by checksum)": _checksum((state.trainable, rebuild)),
        "optimizer": shapes(state.optimizer),
        "initial state of the optimizer (by checksum)": _checksum(state.optimizer),
        "loss (by name)": getattr(loss, "__name__", None),
        "data (by checksum)": _checksum(source.arrays),
        "key (by checksum)": _checksum(key),
        "validation (by checksum)": _checksum(held_out),
        "batch_size": batch_size,
        "shuffle": shuffle,
        _TRACED: [jax.__version__, shapes(example)],
        _COMPUTED[0]: digest(update, trainable, optimizer_state, trainable),
        _COMPUTED[1]: digest(jax.value_and_grad(example_loss), *arguments),
        _FIRST_BATCH: None if source.arrays is not None else _checksum(source.sample),
    }


def check_same(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise if a checkpoint is of another run; warn of what differs, or cannot be compared, without proof."""
    different = changes(then, now)
    doubtful = {_FIRST_BATCH, _TRACED} | (set(_COMPUTED) if _TRACED in different else set())
    for name, change in different.items():
        if name not in doubtful:
            raise other_run("checkpoint", folder, change)
        if name in (_FIRST_BATCH, _TRACED):
            consequence = (
                "these may be other data, or batches that differ from epoch to epoch"
                if name == _FIRST_BATCH
                else "the functions of the optimizer, the loss and the model are not compared"
            )
            text = f"`checkpoint` {folder} may be of another run: {change}; {consequence}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)


def _struct(leaf: Any, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True))


def _checksum(tree: PyTree) -> list[int] | None:
    return None if tree is None else np.asarray(fingerprint(tree)).tolist()
