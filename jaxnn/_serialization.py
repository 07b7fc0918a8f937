"""Save a model to one file and load it again; a damaged file is refused, never half-read.

The file is a line naming the format, a line with the SHA-256 of what follows, and a msgpack map of the
leaves by their path in the pytree, with the activation of every `Dense` layer among them.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxnn._activation import ACTIVATION_NAMES
from jaxnn._files import write_atomically
from jaxnn._network import Dense, Network

_FORMAT = b"jaxnn model 1"

Tree = TypeVar("Tree")


def save(path: str | os.PathLike[str], model: Any) -> None:
    """Save the arrays of a model to one file.

    The file is written under a temporary name beside `path` and moved there once it is whole, so a
    file of that name is replaced at once or not at all. Nothing in it is code: it is never a pickle.

    Args:
        path: where to; its folder must exist.
        model: a `Network`, or any pytree of arrays.

    Raises:
        TypeError: a leaf of the model is not an array of numbers.
        ValueError: two leaves have the same path.
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
    leaves: dict[str, np.ndarray] = {}
    for key_path, leaf in jax.tree.leaves_with_path(model):
        name = jax.tree_util.keystr(key_path)
        if not _is_numeric(leaf):
            raise TypeError(f"`model` has a leaf {name} that is no array of numbers: {leaf!r}")
        if name in leaves:
            raise ValueError(f"`model` has two leaves of the name {name}; one would be lost")
        scalar = isinstance(leaf, bool | int | float)  # which JAX takes for its own default type
        leaves[name] = np.asarray(leaf, jnp.result_type(leaf) if scalar else None)
    content = {"leaves": leaves, "activations": activations_of(model), "network": isinstance(model, Network)}
    body = serialization.msgpack_serialize(content)
    write_atomically(Path(path), b"\n".join([_FORMAT, hashlib.sha256(body).hexdigest().encode(), body]))


def activations_of(model: Any) -> dict[str, str]:
    """The activation of every `Dense` in the model, by the path to it: they are no leaves."""
    layers = jax.tree.leaves_with_path(model, is_leaf=lambda node: isinstance(node, Dense))
    return {
        jax.tree_util.keystr(where): layer.activation for where, layer in layers if isinstance(layer, Dense)
    }


def load(path: str | os.PathLike[str], *, like: Tree | None = None) -> Any:
    """Load a model that `save` wrote.

    Args:
        path: the file.
        like: a model of the same structure, shapes and dtypes, whose arrays the file's replace. A
            `Network` can be loaded without one.

    Returns:
        A model of the structure of `like`, or a `Network`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut off, altered or of another kind; or its leaves, their shapes or their
            dtypes are not those of `like`.

    Example:
        See `save`.
    """
    content = _read_whole(Path(path))
    leaves, activations = content["leaves"], content["activations"]
    if like is None:
        if not content["network"]:
            raise ValueError(
                f"{path} holds a model that is not a jaxnn.Network; pass `like`, one of its structure"
            )
        return _fill(path, _network_of(path, leaves, activations), leaves)
    if activations != (wanted := activations_of(like)):
        raise ValueError(f"{path} has the activations {activations}; `like` has {wanted}")
    return _fill(path, like, leaves)


def _fill(path: Any, like: Any, leaves: dict[str, np.ndarray]) -> Any:
    """`like` with its leaves replaced by those of the same names, shapes and dtypes."""
    wanted = {jax.tree_util.keystr(where): leaf for where, leaf in jax.tree.leaves_with_path(like)}
    if different := wanted.keys() ^ leaves.keys():
        raise ValueError(f"{path} and `like` differ in their leaves: {', '.join(sorted(different))}")
    for name, leaf in wanted.items():
        expected, found = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf), leaves[name]
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise ValueError(
                f"{path} holds {name} as {found.dtype} of shape {found.shape}; `like` has "
                f"{expected.dtype} of shape {expected.shape}"
            )
        if jax.dtypes.canonicalize_dtype(found.dtype) != found.dtype:
            raise ValueError(
                f"{path} holds {name} as {found.dtype}, which JAX would cut to half its digits: "
                "set `jax_enable_x64` to load it"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(leaves[n]) for n in wanted])


def _network_of(path: Any, leaves: dict[str, np.ndarray], activations: dict[str, str]) -> Network:
    """The network that the leaves spell out, once its layers are seen to fit on each other."""
    layers: list[Dense] = []
    for i in range(len(activations)):
        kernel, bias = leaves.get(f".layers[{i}].kernel"), leaves.get(f".layers[{i}].bias")
        n_in = layers[-1].kernel.shape[-1] if layers else None
        if kernel is None or kernel.ndim < 2 or (n_in is not None and kernel.shape[-2] != n_in):
            found = "none" if kernel is None else f"one of shape {kernel.shape}"
            raise ValueError(
                f"{path} needs a kernel of shape ({n_in or 'n_in'}, n_out) in layer {i}; got {found}"
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
    numbers = jax.Array | np.ndarray | np.generic | float | int
    if not isinstance(leaf, numbers) or isinstance(leaf, jax.core.Tracer):
        return False
    dtype = jnp.result_type(leaf)  # keys and other extended types are no numbers
    return jnp.issubdtype(dtype, jnp.number) or dtype == jnp.bool_


def _read_whole(path: Path) -> dict[str, Any]:
    parts = path.read_bytes().split(b"\n", 2)
    if parts[0] != _FORMAT or len(parts) != 3:
        raise ValueError(f"{path} is not a model saved by jaxnn.save, or it was cut off at its start")
    _, digest, body = parts
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged: it was cut off or altered after it was saved. Save it again")
    try:
        content = serialization.msgpack_restore(body)
        return {part: content[part] for part in ("leaves", "activations", "network")}
    except Exception as error:  # msgpack's errors are of many types
        raise ValueError(
            f"{path} holds no model: its checksum is right, but jaxnn.save did not write it"
        ) from error
