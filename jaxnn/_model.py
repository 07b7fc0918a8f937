"""Models, callable pytrees of one example: coerce, partition into trainable and rest, select the target."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import flax.errors
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._advice import (
    advice_on_batch,
    advice_on_failed_call,
    advice_on_labels,
    advice_on_model,
    with_advice,
)
from jaxnn._arrays import as_numpy
from jaxnn._engine.channels_last import evaluate_channels_last
from jaxnn._engine.closures import check_stateless
from jaxnn._engine.cpu_layout import with_fast_convolutions
from jaxnn._engine.held import check_gradient_paths, hold, is_held
from jaxnn._engine.jaxpr import Traced, trace
from jaxnn._engine.loops import vary_like
from jaxnn._repr import short_repr

ARRAY_TYPES = jax.Array | np.ndarray | np.generic | float | int  # arrays, and numbers that become arrays
ModelT = TypeVar("ModelT", bound=Callable[..., Any])


@flax.struct.dataclass
class Frozen:
    """Arrays of a model that are not trained, such as running statistics."""

    value: Any

    def __repr__(self) -> str:
        return short_repr(self)


def _is_frozen(node: Any) -> bool:
    return isinstance(node, Frozen)


def _is_trainable(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def partition(model: ModelT) -> tuple[ModelT, ModelT]:
    """Split a model into its trainable floating-point arrays and the rest, each with None for the other."""
    trainable = jax.tree.map(lambda leaf: leaf if _is_trainable(leaf) else None, model, is_leaf=_is_frozen)
    rest = jax.tree.map(lambda leaf: None if _is_trainable(leaf) else leaf, model, is_leaf=_is_frozen)
    return trainable, rest


def combine(trainable: ModelT, rest: ModelT) -> ModelT:
    """Inverse of `partition`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, trainable, rest, is_leaf=lambda leaf: leaf is None
    )


def as_model(model: Any, name: str = "model") -> Any:
    """Coerce a callable to a pytree of arrays; a plain function becomes a pytree without leaves.

    Args:
        model: a callable.
        name: the argument's name, for errors.

    Raises:
        TypeError: it is not callable, has leaves that are not arrays, or closes over a stateful object.
    """
    advice = advice_on_model(model)
    if advice or not callable(model):
        message = f"`{name}` must be callable, a function of one example; got {type(model).__name__}"
        raise TypeError(with_advice(message, advice))
    model = _without_jit(model)
    leaves = jax.tree.leaves(model)
    is_plain = len(leaves) == 1 and leaves[0] is model
    if is_plain or isinstance(model, jax.tree_util.Partial):
        check_stateless(name, model)
    if is_plain:
        return jax.tree_util.Partial(model)
    check_leaves(name, model)
    return model


def _without_jit(model: Any) -> Any:
    """What `jax.jit` was applied to, where that is a pytree, whose arrays a jitted function hides."""
    inside = getattr(model, "__wrapped__", None)
    leaves = jax.tree.leaves(inside)
    is_tree = bool(leaves) and all(isinstance(leaf, ARRAY_TYPES) for leaf in leaves)
    return inside if type(model).__name__ == "PjitFunction" and is_tree else model


def check_leaves(name: str, model: Any) -> None:
    """Raise unless all leaves of a model are arrays, of numbers that JAX does not cut off."""
    for path, leaf in jax.tree.leaves_with_path(model):
        if not isinstance(leaf, ARRAY_TYPES):
            raise TypeError(
                f"`{name}` must be a pytree of arrays; its leaf {jax.tree_util.keystr(path)} is a "
                f"{type(leaf).__name__}. Pass an Equinox module through jaxnn.from_equinox, and any other "
                "function as jax.tree_util.Partial(function, arrays)"
            )
        if isinstance(leaf, np.ndarray | np.generic):
            as_numpy(f"{name}{jax.tree_util.keystr(path)}", leaf)  # raises for integers that would wrap


@jax.jit
def call(function: Any, *args: Any) -> Any:
    """`function(*args)`, traced once per structure of the function and its arguments."""
    return function(*args)


@contextlib.contextmanager
def tracing(name: str) -> Iterator[None]:
    """Raise an error that names an argument where JAX cannot trace it, as a function of arrays."""
    try:
        yield
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"`{name}` must be a function that JAX can trace; it converts its input to an array of NumPy. "
            "Pass one that computes in NumPy as jaxnn.from_numpy(function, shape)"
        ) from error
    except TypeError as error:
        kinds = jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError
        if isinstance(error, kinds) or "scalar array" in str(error):
            raise TypeError(
                f"`{name}` must be a function that JAX can trace; it converts a value to a number or a "
                "condition of Python. jax.numpy.where and jax.lax.cond choose by values"
            ) from error
        if "JAX type" in str(error):  # JAX's words for a result that is no array
            raise TypeError(f"`{name}` must return an array, or a pytree of arrays: {error}") from error
        raise


def output_shape(function: Callable[..., Any], *args: Any, name: str = "model") -> Any:
    """The shapes and dtypes of `function(*args)`, as of `jax.eval_shape`; traced once per structure of it.

    Args:
        function: a callable pytree, as `as_model` returns it.
        args: such as one example, or the `jax.ShapeDtypeStruct` of each of its arrays.
        name: the argument's name, for errors.

    Raises:
        TypeError: JAX cannot trace the function, or it returns something else than arrays.
    """
    with tracing(name):
        shapes = jax.eval_shape(call, function, *args)
    if not jax.tree.leaves(shapes):
        raise TypeError(f"`{name}` must return an array, or a pytree of arrays; got {shapes!r}")
    return shapes


def check_loss(loss: Any, output: Any, target: Any, *, differentiable: bool = True) -> None:
    """Raise unless the loss of one example, of these shapes, is a real scalar; or, if allowed, an integer."""
    if not callable(loss):
        raise TypeError(f"`loss` must be a function of (output, target); got {loss!r}")
    loss = as_model(loss, "loss")
    try:
        value = output_shape(loss, output, target, name="loss")
    except ValueError as error:
        raise ValueError(with_advice(str(error), advice_on_labels(output, target))) from error
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    kinds = (jnp.floating,) if differentiable else (jnp.floating, jnp.integer, jnp.bool_)
    if shape != () or dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        shown = type(value).__name__ if dtype is None else f"{dtype} of shape {shape}"
        raise ValueError(
            f"`loss` must give a real scalar for one example, loss(output, target) -> (); got {shown}"
        )


def prepare(
    model: Any,
    x: Any,
    target: Any,
    name: str = "target",
    *,
    differentiable: bool = True,
    holds: bool = False,
) -> tuple[Any, Any, Any]:
    """Check the arguments of an explanation, and make each a valid argument of a jitted function.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays of numbers.
        target: an output index (a tuple of them for an output of several axes), None for an output of one
            element, or a function from the output to a scalar.
        name: the name of the argument `target`, for errors.
        differentiable: whether the scalar must have a gradient; otherwise it may be an integer or a boolean.
        holds: whether integers and booleans of `x` are held, as the others alone get an attribution.

    Returns:
        `(model, x, target)`: pytrees, `target` as an index or a callable. Where arrays are held, `x` has a
        `Held` in the place of each, and `model` takes it.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or none that are not held, or
            `target` or the scalar that it selects has an unsupported type.
        ValueError: the index is out of range, or `target` is None and the output has more than one element.
    """
    model = as_model(model)
    x = as_example("x", x)
    if holds:
        model, x = hold(model, x)
    output = _output_of_example(model, x)
    target = _check_target(target, output, x, name, differentiable=differentiable)
    return model, vary_like(x, (model, target)), target


def _output_of_example(model: Any, x: Any) -> Any:
    """`output_shape`, with advice where the input has an axis too many or too few."""
    try:
        return output_shape(model, x)
    except (TypeError, ValueError, flax.errors.FlaxError) as error:
        if advice := advice_on_failed_call(functools.partial(output_shape, model), x):
            error.add_note(advice)
        raise


def as_example(name: str, x: Any) -> Any:
    """Convert an example to a pytree of arrays of real numbers, dtypes unchanged."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(x)
    if _is_number_list(x):  # a nested list of numbers is an array, not a pytree
        return _checks.check_real_array(name, x)
    if not leaves:
        raise TypeError(f"`{name}` must hold at least one array; got {x!r}")
    checked = [_checks.check_real_array(name + jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    return jax.tree.unflatten(structure, checked)


def count_elements(x: Any) -> int:
    """Count the elements of all arrays of an example; raise where there are none."""
    size = sum(leaf.size for leaf in jax.tree.leaves(x))
    if size == 0:
        raise ValueError("`x` must have at least one element; all its arrays are empty")
    return size


def as_arrays(x: Any) -> Any:
    """Convert an example to a pytree of arrays, dtypes unchanged; a nested list of numbers is one array."""
    if isinstance(x, list) and _is_number_list(x):
        return _checks.check_array("x", x)
    paths, structure = jax.tree_util.tree_flatten_with_path(x)
    leaves = [_checks.check_array("x" + jax.tree_util.keystr(path), leaf) for path, leaf in paths]
    return jax.tree.unflatten(structure, leaves)


def broadcast_like(name: str, value: Any, x: Any) -> Any:
    """Broadcast a number, or a pytree like `x`, to the structure, shapes and dtypes of `x`."""
    if not isinstance(value, dict | list | tuple) and jnp.ndim(value) == 0:
        number = _checks.check_real_array(name, value)
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, _cast(name, number, leaf.dtype)), x)
    return _cast_like(name, as_example(name, value), x, ())


def check_batch_like(name: str, value: Any, x: Any) -> Any:
    """Check a batch: the structure of `x`, with one leading axis."""
    value = as_example(name, value)
    return _cast_like(name, value, x, (_checks.check_count({name: value}),))


def _cast_like(name: str, value: Any, x: Any, rows: tuple[int, ...]) -> Any:
    """Arrays in the dtypes of those of `x`, and `Held` where `x` has it: a held array has no other value."""
    places, structure = jax.tree.flatten(x, is_leaf=is_held)
    _checks.check_structure(name, value, jax.tree.unflatten(structure, [0.0] * len(places)))
    meaning = "that of `x` behind a leading axis" if rows else "that of `x`"
    cast = []
    for place, array in zip(places, jax.tree.leaves(value), strict=True):
        if not rows and array.shape[1:] == place.shape and array.ndim > place.ndim:
            raise ValueError(
                f"`{name}` must have shape {place.shape}, {meaning}; got {array.shape}. For a set of them "
                f"use jax.vmap over `{name}` and the mean, or expected_gradients or deep_lift_shap"
            )
        _checks.check_shape(name, array, (*rows, *place.shape), meaning)
        cast.append(place if is_held(place) else _cast(name, array, place.dtype))
    return jax.tree.unflatten(structure, cast)


@jax.ensure_compile_time_eval()
def _cast(name: str, array: jax.Array, dtype: Any) -> jax.Array:
    """An array in the dtype of that of `x`; a fraction is no integer."""
    result = array.astype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        with jax.numpy_dtype_promotion("standard"):  # the dtypes differ
            is_equal = jnp.all(result == array)
        if _checks.known_false(is_equal):
            raise ValueError(f"`{name}` must hold values of the dtype of `x`, {dtype}; got {array}")
    return result


def _is_number_list(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(x))


def _check_target(target: Any, output: Any, x: Any, name: str, *, differentiable: bool) -> Any:
    if callable(target):
        target = as_model(target, name)
        scalar = output_shape(target, output, name=name)
        if getattr(scalar, "shape", None) != ():
            raise ValueError(f"`{name}` must give a scalar of the output; got {scalar}")
        _check_kind(scalar.dtype, name, differentiable=differentiable)
        return target
    if not hasattr(output, "shape"):
        raise ValueError(
            f"`{name}` must be a function, since the output is a {type(output).__name__}, not an array"
        )
    _check_kind(output.dtype, name, differentiable=differentiable)
    if target is None:
        if output.size != 1:
            message = f"`{name}` must be an index into the output, of shape {output.shape}; got None"
            raise ValueError(with_advice(message, advice_on_batch(x, output) if output.ndim > 1 else ""))
        return None
    indices = target if isinstance(target, tuple) else (target,)
    if len(indices) != len(output.shape):
        message = (
            f"`{name}` must hold {len(output.shape)} indices, for an output of shape {output.shape}; "
            f"got {target!r}"
        )
        is_short = len(indices) < output.ndim
        raise ValueError(with_advice(message, advice_on_batch(x, output) if is_short else ""))
    indices = tuple(as_numpy(name, index) for index in indices)
    for index, size in zip(indices, output.shape, strict=True):
        _check_index(index, size, target, name)
    return tuple(jnp.asarray(index) for index in indices)


def _check_kind(dtype: Any, name: str, *, differentiable: bool) -> None:
    if differentiable and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`{name}` must select a floating-point number; dtype {dtype} has no gradient")
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"`{name}` must select a real number; got dtype {dtype}")


def _check_index(index: Any, size: int, target: Any, name: str) -> None:
    dtype = (
        index.dtype if hasattr(index, "dtype") else np.dtype(type(index) if np.isscalar(index) else object)
    )
    if not jnp.issubdtype(dtype, jnp.integer) or np.ndim(index) != 0:
        raise TypeError(
            f"`{name}` must be an integer, a tuple of integers, None or a function; got {target!r}. For one "
            f"{name} per example, use jax.vmap over both"
        )
    if _checks.is_concrete(index) and not -size <= int(index) < size:
        raise ValueError(f"`{name}` must lie from {-size} to {size - 1}, for {size} outputs; got {target!r}")


def select(output: Any, target: Any) -> jax.Array:
    """Select the target scalar of an output; `target` comes from `prepare`."""
    if target is None:
        return output.reshape(())
    if isinstance(target, tuple):
        return output[target]
    return jnp.asarray(target(output))


def scalar(model: Any, target: Any) -> Callable[[Any], jax.Array]:
    """The scalar function of the input that is explained: the target output of the model."""
    return lambda x: select(model(x), target)


def fast_scalar(model: Any, target: Any, x: Any) -> Callable[[Any], jax.Array]:
    """`scalar`, traced at `x`, with fast convolutions; for arrays of the shapes and dtypes of `x`."""
    return _evaluated(trace(scalar(model, target), x))


def differentiable(model: Any, target: Any, x: Any) -> Callable[[Any], jax.Array]:
    """`fast_scalar`, for a gradient with respect to `x`, which all of `x` should have.

    Raises:
        ValueError: the numbers of `x` reach the scalar as integers or booleans alone.
    """
    traced = trace(scalar(model, target), x)
    check_gradient_paths(traced.jaxpr.jaxpr, x)
    return _evaluated(traced)


def _evaluated(traced: Traced) -> Callable[[Any], Any]:
    """The function that was traced, as the device evaluates it fast."""
    evaluate = evaluate_channels_last if jax.default_backend() == "cpu" else with_fast_convolutions
    return lambda x: evaluate(traced._replace(inputs=jax.tree.leaves(x)))


def gradient(function: Callable[[Any], jax.Array], x: Any) -> Any:
    """The gradient of a scalar function, and NaN where its value is; see `nan_as`."""
    value, found = jax.value_and_grad(function)(x)
    return nan_as(value, found)


def nan_as(value: jax.Array, gradients: Any) -> Any:
    """Gradients of a scalar, and NaN where it is NaN itself.

    That of a ReLU is 0 at NaN: of a network of them it would be finite, as if the input had been.
    """
    is_nan = jnp.isnan(value)
    return jax.tree.map(lambda leaf: jnp.where(is_nan, jnp.asarray(jnp.nan, leaf.dtype), leaf), gradients)
