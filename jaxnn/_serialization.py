"""Serialization: save a model to one file and load it again; a damaged file is never read in part.

The file is a line that names the format, a line with the SHA-256 of the rest, and a msgpack map: the leaves
by their path in the pytree, and the activation of every `Dense` layer.
"""

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxnn import _checks
from jaxnn._activation import ACTIVATION_NAMES
from jaxnn._files import write_atomically
from jaxnn._model import ARRAY_TYPES
from jaxnn._network import Dense, Network
from jaxnn._typing import PyTree

_FORMAT = b"jaxnn model 1"
_PARTS = ("leaves", "activations", "network")


def save(path: str | os.PathLike[str], model: PyTree) -> None:
    """Save the arrays of a model to one file, atomically.

    The file is written under a temporary name beside `path` and moved there once it is complete, so an
    existing file is replaced as a whole or not at all. A link is followed, and an existing file keeps its
    mode. What a killed call left under a temporary name is deleted by the next one for the same `path`. The
    file contains no code: it is never a pickle.

    Args:
        path: of the file; its folder must exist.
        model: a `Network`, or any pytree of at least one array.

    Raises:
        TypeError: `path` is not a path, or a leaf of the model is not an array of numbers.
        ValueError: `path` is a folder or a device; the model has no leaf, or two with the same path.
        OSError: the file cannot be written there.

    Example:
        >>> import jax, jaxnn, tempfile
        >>> network = jaxnn.init(jax.random.key(0), (4, 3, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     jaxnn.save(f"{folder}/network.jaxnn", network)
        ...     again = jaxnn.load(f"{folder}/network.jaxnn")
        >>> bool((again([0, 0, 1, 1]) == network([0, 0, 1, 1])).all())
        True
    """
    file = _checks.check_path("path", path, "file")
    leaves: dict[str, np.ndarray] = {}
    for key_path, leaf in jax.tree.leaves_with_path(model):
        name = jax.tree_util.keystr(key_path)
        if not _is_numeric(leaf):
            raise TypeError(f"`model` has a leaf {name} that is not an array of numbers: {leaf!r}")
        if name in leaves:
            raise ValueError(f"`model` has two leaves of the name {name}; one would be lost")
        scalar = isinstance(leaf, bool | int | float)  # which JAX converts to its default type
        leaves[name] = np.asarray(leaf, jnp.result_type(leaf) if scalar else None)
    if not leaves:
        raise ValueError(f"`model` must hold at least one array; got {model!r}")
    parts = (leaves, activations_of(model), isinstance(model, Network))
    body = serialization.msgpack_serialize(dict(zip(_PARTS, parts, strict=True)))
    content = b"\n".join([_FORMAT, hashlib.sha256(body).hexdigest().encode(), body])
    write_atomically(file, partial(Path.write_bytes, data=content))


def activations_of(model: PyTree) -> dict[str, str]:
    """The activation of every `Dense` in the model by its path: they are not leaves."""
    layers = jax.tree.leaves_with_path(model, is_leaf=lambda node: isinstance(node, Dense))
    return {
        jax.tree_util.keystr(path): layer.activation for path, layer in layers if isinstance(layer, Dense)
    }


def load(path: str | os.PathLike[str], *, like: PyTree = None) -> Any:
    """Load a model that `save` wrote.

    Args:
        path: of the file.
        like: a model of the same structure, shapes and dtypes, whose arrays are replaced by those of the
            file. Not required for a `Network`.

    Returns:
        A model of the structure of `like`, or a `Network`.

    Raises:
        TypeError: `path` is not a path.
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, changed or of another kind; or its leaves, their shapes or their
            dtypes differ from those of `like`.

    Example:
        See `save`.
    """
    leaves, activations, is_network = _read(_checks.check_path("path", path, "file"))
    if like is None:
        if not is_network:
            raise ValueError(
                f"{path} holds a model that is not a jaxnn.Network; pass `like`, one of its structure"
            )
        return _fill(path, _network_of(path, leaves, activations), leaves)
    if activations != (expected := activations_of(like)):
        raise ValueError(f"{path} has the activations {activations}; `like` has {expected}")
    return _fill(path, like, leaves)


def _fill(path: Any, like: PyTree, leaves: dict[str, np.ndarray]) -> Any:
    """`like` with its leaves replaced by those of the same names, shapes and dtypes."""
    expected = {jax.tree_util.keystr(place): leaf for place, leaf in jax.tree.leaves_with_path(like)}
    if different := expected.keys() ^ leaves.keys():
        raise ValueError(f"{path} and `like` differ in their leaves: {', '.join(sorted(different))}")
    for name, leaf in expected.items():
        old, new = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf), leaves[name]
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            raise ValueError(
                f"{path} holds {name} as {new.dtype} of shape {new.shape}; `like` has "
                f"{old.dtype} of shape {old.shape}"
            )
        if jax.dtypes.canonicalize_dtype(new.dtype) != new.dtype:
            raise ValueError(
                f"{path} holds {name} as {new.dtype}, which JAX would cut to half its digits: "
                "set `jax_enable_x64` to load it"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(leaves[name]) for name in expected])


def _network_of(path: Any, leaves: dict[str, np.ndarray], activations: dict[str, str]) -> Network:
    """The network of the leaves; raise unless its layers fit each other."""
    layers: list[Dense] = []
    for i in range(len(activations)):
        kernel, bias = leaves.get(f".layers[{i}].kernel"), leaves.get(f".layers[{i}].bias")
        n_in = layers[-1].kernel.shape[-1] if layers else None
        if kernel is None or kernel.ndim < 2 or (n_in is not None and kernel.shape[-2] != n_in):
            shown = "none" if kernel is None else f"one of shape {kernel.shape}"
            raise ValueError(
                f"{path} needs a kernel of shape ({n_in or 'n_in'}, n_out) in layer {i}; got {shown}"
            )
        if bias is not None and bias.shape[-1:] != kernel.shape[-1:]:
            raise ValueError(
                f"{path} needs a bias of shape ({kernel.shape[-1]},) in layer {i}; got {bias.shape}"
            )
        if (activation := activations.get(f".layers[{i}]")) not in ACTIVATION_NAMES:
            raise ValueError(f"{path} has an unknown activation in layer {i}: {activations}")
        fields: Any = {"kernel": kernel, "bias": bias, "activation": activation}  # NumPy's; see `_fill`
        layers.append(Dense(**fields))
    return Network(tuple(layers))


def _is_numeric(leaf: Any) -> bool:
    if not isinstance(leaf, ARRAY_TYPES) or isinstance(leaf, jax.core.Tracer):
        return False
    dtype = jnp.result_type(leaf)  # keys and other extended types are not numbers
    return jnp.issubdtype(dtype, jnp.number) or dtype == jnp.bool_


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str], bool]:
    """The parts of a file; raise unless it is complete and unchanged."""
    parts = path.read_bytes().split(b"\n", 2)
    if parts[0] != _FORMAT or len(parts) != 3:
        raise ValueError(f"{path} is not a model saved by jaxnn.save, or it was cut off at its start")
    _, digest, body = parts
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged: it was cut off or altered after it was saved. Save it again")
    try:
        content = serialization.msgpack_restore(body)
        leaves, activations, is_network = (content[part] for part in _PARTS)
    except Exception as error:  # msgpack's errors are of many types
        raise ValueError(
            f"{path} holds no model: its checksum is correct, but jaxnn.save did not write it"
        ) from error
    return leaves, activations, is_network
