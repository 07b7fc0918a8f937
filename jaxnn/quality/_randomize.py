"""Random parameters: the layers of any pytree of parameters, and networks with some of them drawn again."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import ModelT, as_model, combine, partition
from jaxnn._precision import draw_wide, widen
from jaxnn._summary import leaves_by_use
from jaxnn._typing import Key, Model, PyTree

Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array, as in jax.nn.initializers


def parameter_layers(model: Model, x: PyTree) -> tuple[str, ...]:
    """The layers of a model by the place of their parameters in its pytree, from the input to the output.

    Arrays beside each other, such as a kernel and its bias, are one layer. Layers are in the order in which
    the model first uses them. Frozen arrays, such as running statistics, are none.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.

    Returns:
        Names for `randomize_parameters`.

    Raises:
        TypeError: `model` is not callable.
        ValueError: the model has no parameters, such as a function that closes over them.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (4, 5, 3))
        >>> jaxnn.quality.parameter_layers(network, jnp.zeros(4))
        ('layers[0]', 'layers[1]')
    """
    model = as_model(model)
    names = layer_names(model)
    trainable, _ = partition(model)
    paths = [path for path, _ in jax.tree.leaves_with_path(model)]
    kept = {path for path, _ in jax.tree.leaves_with_path(trainable)}
    used = [paths[i] for i in leaves_by_use(model, x) if paths[i] in kept]
    unused = [path for path in kept if path not in used]
    ordered = [names[path] for path in [*used, *sorted(unused, key=paths.index)]]
    return tuple(dict.fromkeys(ordered))


def layer_names(model: Model) -> dict[Any, str]:
    """The name of the layer of each array that is trained, by its path in the pytree; or raise."""
    trainable, _ = partition(model)
    paths = [path for path, _ in jax.tree.leaves_with_path(trainable)]
    if not paths:
        raise ValueError(
            "`model` must have parameters: floating-point arrays as leaves of its pytree. Pass a function "
            "with its parameters as jax.tree_util.Partial(function, parameters)"
        )
    parts = [_parts(path) for path in paths]
    parents = [part[:-1] for part in parts]
    if all(parent == parents[0] for parent in parents):  # arrays side by side, each one its own layer
        parents = parts
    # What all have in common says nothing, but for the name in front of an index.
    common = 0
    while all(len(parent) > common + 1 and parent[common] == parents[0][common] for parent in parents):
        common += 1
    is_index = any(parent[common].startswith("[") for parent in parents if len(parent) > common)
    if common and is_index and parents[0][common - 1].startswith("."):
        common -= 1
    return {
        path: "".join(parent[common:] or part[-1:]).lstrip(".")
        for path, parent, part in zip(paths, parents, parts, strict=True)
    }


def _parts(path: tuple[Any, ...]) -> list[str]:
    """A path in parts; a key with dots, as of PyTorch's state, is several."""
    parts = []
    for key in path:
        name = getattr(key, "key", None)
        if isinstance(name, str):
            parts += [f".{part}" for part in name.replace("/", ".").split(".")]
        else:
            parts.append(str(key))
    return parts


def randomize_parameters(
    model: ModelT, key: Key, *, layers: Sequence[str] | None = None, initializer: Initializer | None = None
) -> ModelT:
    """Random parameters: the same model with the parameters of some layers drawn again.

    By default each array is drawn from `N(m, s^2)`, where s is the standard deviation of its elements, and m
    is 0, or of a vector the mean of its elements. An array of equal elements stays as it is, such as a bias
    of zeros, the scales of a new normalization, or a single number. Frozen arrays, such as running
    statistics, stay too.

    Args:
        model: a callable pytree.
        key: a random key; the array number i of the pytree is drawn with `jax.random.fold_in(key, i)`.
        layers: names of `parameter_layers`, such as its last `k` from the top down; None for all.
        initializer: `initializer(key, shape, dtype)`, as of `jax.nn.initializers`, for the arrays of two
            axes or more; others are drawn by their standard deviation.

    Returns:
        A model of the same structure, shapes and dtypes.

    Raises:
        TypeError: `model` is not callable, `key` is not a key, or `initializer` is not callable.
        ValueError: the model has no parameters, or no such layer.

    References:
        Adebayo and others, "Sanity checks for saliency maps", 2018, arXiv:1810.03292.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (4, 5, 3))
        >>> other = jaxnn.quality.randomize_parameters(network, jax.random.key(1), layers=["layers[1]"])
        >>> [bool((a.kernel == b.kernel).all()) for a, b in zip(network.layers, other.layers)]
        [True, False]
    """
    _checks.check_key("key", key)
    model = as_model(model)
    names = layer_names(model)
    known = tuple(dict.fromkeys(names.values()))
    layers = known if layers is None else layers
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"`layers` must be a sequence of names; got {layers!r}")
    if wrong := [layer for layer in layers if layer not in known]:
        raise ValueError(f"`layers` must hold names among {', '.join(known)}; got {wrong[0]!r}")
    if initializer is not None and not callable(initializer):
        raise TypeError(f"`initializer` must be a function of (key, shape, dtype); got {initializer!r}")
    drawn, chosen = drawn_again(model, key, initializer), set(layers)
    return select_layers(model, drawn, {path: name in chosen for path, name in names.items()})


def drawn_again(model: ModelT, key: Key, initializer: Initializer | None) -> ModelT:
    """The model with all parameters drawn again."""
    trainable, rest = partition(model)
    leaves, structure = jax.tree.flatten(trainable)
    drawn = [_draw(leaf, jax.random.fold_in(key, i), initializer) for i, leaf in enumerate(leaves)]
    return combine(jax.tree.unflatten(structure, drawn), rest)


def _draw(leaf: jax.Array, key: Key, initializer: Initializer | None) -> jax.Array:
    leaf = jnp.asarray(leaf)
    if leaf.size == 0:
        return leaf
    if initializer is not None and leaf.ndim >= 2:
        return jnp.asarray(draw_wide(initializer, key, leaf.shape, leaf.dtype))
    first = leaf.ravel()[0]
    spread = jnp.std(widen(leaf))
    # The scales of a normalization lie about 1, and would otherwise shrink what they scale.
    center = jnp.mean(widen(leaf)) if leaf.ndim < 2 else 0
    drawn = (center + spread * jax.random.normal(key, leaf.shape, spread.dtype)).astype(leaf.dtype)
    return jnp.where(jnp.all(leaf == first), leaf, drawn)


def select_layers(model: ModelT, drawn: ModelT, is_drawn: dict[Any, Any]) -> ModelT:
    """The model with the arrays of another at some paths; conditions may be traced."""
    trainable, rest = partition(model)
    others, _ = partition(drawn)

    def choose(path: Any, leaf: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(is_drawn[path], other, leaf)

    return combine(jax.tree.map_with_path(choose, trainable, others), rest)
