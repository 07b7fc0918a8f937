"""What `train` asks of its arguments, before any work."""

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


def check_options(optimizer: Any, key: Any, shuffle: bool) -> None:
    """Raise unless the optimizer and the key are what their names say."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`optimizer` must be an Optax optimizer; got {type(optimizer).__name__}")
    if shuffle and key is None:
        raise ValueError("`key` is needed to shuffle; pass one, or `shuffle=False` for the given order")
    if key is not None:
        _checks.check_key("key", key)


def check_examples(inputs_name: str, inputs: Any, targets_name: str, targets: Any) -> Any:
    """The data as arrays on the device, once their lengths agree and their values are finite."""
    data = []
    lengths = set()
    for name, tree in ((inputs_name, inputs), (targets_name, targets)):
        tree = _checks.check_array(name, tree) if isinstance(tree, list) else tree
        arrays = jax.tree.map(lambda leaf, name=name: _checks.check_array(name, leaf), tree)
        if not jax.tree.leaves(arrays):
            raise ValueError(f"`{name}` must hold an array of shape (N, ...); got {tree!r}")
        for leaf in jax.tree.leaves(arrays):
            if leaf.ndim == 0:
                raise ValueError(f"`{name}` must have shape (N, ...), an example a row; got ()")
            _checks.check_finite(name, leaf)
            lengths.add(leaf.shape[0])
        data.append(arrays)
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"`{inputs_name}` and `{targets_name}` must hold the same number of examples, at least one; "
            f"got {sorted(lengths)}"
        )
    return tuple(data)


def check_loss(model: Any, data: Any, loss: Any) -> None:
    """Raise unless the loss of one example is a real scalar, and integer labels are among the outputs."""
    inputs, targets = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), data)
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
                f"`targets` must hold labels in [0, {classes}), an output of the model each; got values "
                f"from {int(labels.min())} to {int(labels.max())}"
            )
