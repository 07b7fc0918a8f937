"""What a model is: a callable pytree of one example. Its trainable part, the rest, and its target."""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.loops import vary_like

Model = TypeVar("Model", bound=Callable[..., Any])


@flax.struct.dataclass
class Frozen:
    """Arrays of a model that training leaves as they are, such as running statistics."""

    value: Any


def _is_held(node: Any) -> bool:
    return isinstance(node, Frozen)


def _is_trainable(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def partition(model: Model) -> tuple[Model, Model]:
    """Split a model into the floating-point arrays to train and the rest, each with None for the other."""
    trainable = jax.tree.map(lambda leaf: leaf if _is_trainable(leaf) else None, model, is_leaf=_is_held)
    rest = jax.tree.map(lambda leaf: None if _is_trainable(leaf) else leaf, model, is_leaf=_is_held)
    return trainable, rest


def combine(trainable: Model, rest: Model) -> Model:
    """Put back together what `partition` split."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, trainable, rest, is_leaf=lambda leaf: leaf is None
    )


def as_model(model: Any, name: str = "model") -> Any:
    """A model that may be an argument of a jitted function: a plain function becomes a pytree without leaves.

    Args:
        model: a callable.
        name: what the caller knows it as.

    Raises:
        TypeError: it is not callable, or holds leaves that are no arrays.
    """
    if not callable(model):
        raise TypeError(f"`{name}` must be callable, a function of one example; got {type(model).__name__}")
    leaves = jax.tree.leaves(model)
    if len(leaves) == 1 and leaves[0] is model:
        return jax.tree_util.Partial(model)
    for leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int):
            raise TypeError(
                f"`{name}` must be a pytree of arrays; this {type(model).__name__} holds a "
                f"{type(leaf).__name__}. An Equinox module goes through jaxnn.from_equinox; otherwise pass "
                "jax.tree_util.Partial(function, arrays)"
            )
    return model


@jax.jit
def _call(model: Any, x: Any) -> Any:
    return model(x)


def output_shape(model: Callable[..., Any], x: Any) -> Any:
    """The shapes and dtypes of `model(x)`, as of `jax.eval_shape`; traced once per structure of the model.

    Args:
        model: a callable pytree, as `as_model` returns it.
        x: one example, or the `jax.ShapeDtypeStruct` of each of its arrays.
    """
    return jax.eval_shape(_call, model, x)


def prepare(
    model: Any, x: Any, target: Any, name: str = "target", *, differentiable: bool = True
) -> tuple[Any, Any, Any]:
    """Check the arguments that every explanation has, and make each one that a jitted function takes.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays of numbers; integers become floats.
        target: an output index (a tuple of them for an output of several axes), None for an output of one
            entry, or a function from the output to a scalar.
        name: what the caller knows `target` as.
        differentiable: whether the scalar must have a gradient; otherwise it may be an integer or a boolean.

    Returns:
        `(model, x, target)`: pytrees, `target` as an index or a callable.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` or the number that it names
            is of another type.
        ValueError: the output has no such entry, or `target` is None and it has more than one.
    """
    model = as_model(model)
    x = as_example("x", x)
    output = output_shape(model, x)
    target = _check_target(target, output, name, differentiable=differentiable)
    return model, vary_like(x, (model, target)), target


def as_example(name: str, x: Any) -> Any:
    """An example as a pytree of floating-point arrays."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(x)
    if _is_number_list(x):  # a nested list of numbers is an array, not a pytree
        return _checks.check_float_array(name, x)
    if not leaves:
        raise TypeError(f"`{name}` must hold at least one array; got {x!r}")
    checked = [_checks.check_float_array(name + jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    return jax.tree.unflatten(structure, checked)


def count_elements(x: Any) -> int:
    """Return how many entries the arrays of an example have in all, or raise where they have none."""
    size = sum(leaf.size for leaf in jax.tree.leaves(x))
    if size == 0:
        raise ValueError("`x` must have at least one entry; all its arrays are empty")
    return size


def as_arrays(x: Any) -> Any:
    """An example as a pytree of arrays of their own types; a nested list of numbers is one array."""
    return jnp.asarray(x) if isinstance(x, list) and _is_number_list(x) else jax.tree.map(jnp.asarray, x)


def broadcast_like(name: str, value: Any, x: Any) -> Any:
    """Something to put beside an example, of its structure, shapes and types; one number stands for all."""
    if not isinstance(value, dict | list | tuple) and jnp.ndim(value) == 0:
        number = _checks.check_float_array(name, value)
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, number.astype(leaf.dtype)), x)
    return _check_structure(name, as_example(name, value), x, ())


def check_batch_like(name: str, value: Any, x: Any) -> Any:
    """A set of things like an example, along a first axis."""
    value = as_example(name, value)
    shape = jax.tree.leaves(value)[0].shape
    if not shape or shape[0] == 0:
        raise ValueError(f"`{name}` must hold at least one, along a first axis; got shape {shape}")
    return _check_structure(name, value, x, shape[:1])


def _check_structure(name: str, value: Any, x: Any, rows: tuple[int, ...]) -> Any:
    structure, expected = str(jax.tree.structure(value)), str(jax.tree.structure(x))
    if structure != expected:
        raise ValueError(f"`{name}` must have the structure of `x`, {expected}; got {structure}")
    meaning = "those of `x` along a first axis" if rows else "that of `x`"
    for leaf, given in zip(jax.tree.leaves(x), jax.tree.leaves(value), strict=True):
        _checks.check_shape(name, given, (*rows, *leaf.shape), meaning)
    return jax.tree.map(lambda given, leaf: given.astype(leaf.dtype), value, x)


def _is_number_list(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(x))


def _check_target(target: Any, output: Any, name: str, *, differentiable: bool) -> Any:
    if callable(target):
        target = as_model(target)
        scalar = output_shape(target, output)
        if getattr(scalar, "shape", None) != ():
            raise ValueError(f"`{name}` must give a scalar of the output; got {scalar}")
        _check_kind(scalar.dtype, name, differentiable=differentiable)
        return target
    if not hasattr(output, "shape"):
        raise ValueError(f"`{name}` must be a function, as the output is a {type(output).__name__}, no array")
    _check_kind(output.dtype, name, differentiable=differentiable)
    if target is None:
        if output.size != 1:
            raise ValueError(f"`{name}` must name an entry of the output, of shape {output.shape}; got None")
        return None
    indices = target if isinstance(target, tuple) else (target,)
    if len(indices) != len(output.shape):
        raise ValueError(
            f"`{name}` must hold {len(output.shape)} indices, for an output of shape {output.shape}; "
            f"got {target!r}"
        )
    for index, size in zip(indices, output.shape, strict=True):
        _check_index(index, size, target, name)
    return tuple(jnp.asarray(index) for index in indices)


def _check_kind(dtype: Any, name: str, *, differentiable: bool) -> None:
    if differentiable and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`{name}` must name a floating-point number, which has a slope; got dtype {dtype}")
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"`{name}` must name a real number; got dtype {dtype}")


def _check_index(index: Any, size: int, target: Any, name: str) -> None:
    dtype = index.dtype if hasattr(index, "dtype") else np.asarray(index).dtype
    if not jnp.issubdtype(dtype, jnp.integer) or np.ndim(index) != 0:
        raise TypeError(
            f"`{name}` must be an integer, a tuple of integers, None or a function; got {target!r}. For one "
            f"{name} an example, jax.vmap over both"
        )
    if _checks.is_concrete(index) and not -size <= int(index) < size:
        raise ValueError(f"`{name}` must lie from {-size} to {size - 1}, for {size} outputs; got {target!r}")


def select(output: Any, target: Any) -> jax.Array:
    """The scalar of an output that a prepared target names."""
    if target is None:
        return output.reshape(())
    if isinstance(target, tuple):
        return output[target]
    return target(output)


def scalar(model: Any, target: Any) -> Callable[[Any], jax.Array]:
    """The function of the input whose scalar is explained."""
    return lambda x: select(model(x), target)
