"""What `train` asks of its arguments, before any work."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnn import _checks, losses
from jaxnn._model import partition
from jaxnn._network import Network


def check_model(model: Any, loss: Any) -> None:
    """Raise unless the model is callable, a pytree of arrays and has something to train."""
    if not callable(model):
        raise TypeError(f"`model` must be callable, model(x) -> y; got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"`loss` must be a function of (output, target); got {loss!r}")
    for path, leaf in jax.tree.leaves_with_path(model):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int):
            raise TypeError(
                f"`model` must be a pytree of arrays; its leaf {jax.tree_util.keystr(path)} is a "
                f"{type(leaf).__name__}. Of any pure function, jax.tree_util.Partial(apply, params) makes one"
            )
    if not jax.tree.leaves(partition(model)[0]):
        raise TypeError(
            "`model` has no floating-point array to train; a plain function hides its parameters: "
            "pass jax.tree_util.Partial(function, params)"
        )
    if loss is losses.cross_entropy and isinstance(model, Network):
        output = model.layers[-1].activation
        if output in ("softmax", "sigmoid"):
            raise ValueError(
                f"`loss` cross_entropy takes logits, but the `model` ends in {output!r}, which would be "
                "squashed twice: give it `output_activation='identity'` and take jax.nn.softmax of its answer"
            )


def check_options(optimizer: Any, key: Any, shuffle: bool, batch_size: Any, *, in_memory: bool) -> None:
    """Raise unless the optimizer, the key and the batch size are what they must be for such data."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`optimizer` must be an Optax optimizer; got {type(optimizer).__name__}")
    if not in_memory:
        for name, value in (("batch_size", batch_size), ("key", key)):
            if value is not None:
                raise ValueError(
                    f"`{name}` must be None without `targets`, as batches have a size and an order of their "
                    f"own; got {value!r}"
                )
        return
    if shuffle and key is None:
        raise ValueError("`key` is needed to shuffle; pass one, or `shuffle=False` for the given order")
    if key is not None:
        _checks.check_key("key", key)
    _checks.check_integer("batch_size", batch_size, at_least=1)


def check_checkpoints(checkpoint: Any, every: Any) -> int | None:
    """Return after how many steps to write one, or None; or raise."""
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"`checkpoint` must be a path to a folder; got {type(checkpoint).__name__}")
    if every is None:
        return None
    if checkpoint is None:
        raise ValueError("`checkpoint_every` must be None without `checkpoint`, the folder to write to")
    return _checks.check_integer("checkpoint_every", every, at_least=1)


def check_validation(validation: Any) -> Any:
    """Return a held-out set as arrays on the device, or None."""
    if validation is None:
        return None
    if not isinstance(validation, tuple) or len(validation) != 2:
        raise TypeError("`validation` must be a pair (inputs, targets)")
    return check_examples(**{"validation[0]": validation[0], "validation[1]": validation[1]})


def check_examples(**trees: Any) -> tuple[Any, ...]:
    """Examples as arrays on the device, once their lengths agree and their values are finite."""
    checked, _ = _checks.check_rows(**trees)
    data = jax.tree.map(jnp.asarray, checked)
    for name, tree in zip(trees, data, strict=True):
        for leaf in jax.tree.leaves(tree):
            _checks.check_finite(name, leaf)
    return data


def check_loss(model: Any, data: Any, loss: Any, name: str = "targets") -> None:
    """Raise unless the loss of one example is a real scalar, and integer labels are among the outputs."""

    def row(leaf: Any) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)  # keys, too
        return jax.ShapeDtypeStruct(leaf.shape[1:], dtype)

    inputs, targets = jax.tree.map(row, data)
    output = jax.eval_shape(lambda model, x: model(x), model, inputs)
    value = jax.eval_shape(loss, output, targets)
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        found = type(value).__name__ if dtype is None else f"{dtype} of shape {shape}"
        raise ValueError(
            f"`loss` must give a real scalar for one example, loss(output, target) -> (); got {found}"
        )
    labels = data[1]
    if loss is losses.cross_entropy and jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 1:
        classes = output.shape[0]
        if _checks.known_false(jnp.all((labels >= 0) & (labels < classes))):
            raise ValueError(
                f"`{name}` must hold labels in [0, {classes}), an output of the model each; got values "
                f"from {int(labels.min())} to {int(labels.max())}"
            )
