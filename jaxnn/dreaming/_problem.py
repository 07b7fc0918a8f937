"""The optimization problem of a dream, and its validation before the first step."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnn import _checks
from jaxnn._model import as_model, output_shape
from jaxnn._rewrite import capture
from jaxnn._typing import Model
from jaxnn.dreaming._objective import Objective
from jaxnn.dreaming._parameterizations import Parameterization, Shape

Bounds: TypeAlias = tuple[float, float] | None


class Problem(NamedTuple):
    """The optimization problem of a dream: maximize the objective minus the penalties."""

    model: Model
    objective: Objective
    transforms: tuple[Callable[[jax.Array, jax.Array], jax.Array], ...]
    penalties: tuple[Callable[[jax.Array], jax.Array], ...]
    bounds: Bounds
    redirect: jax.Array | None

    def objective_at(self, image: jax.Array) -> jax.Array:
        """The objective at an image."""
        output, values = capture(self.model, image)
        return self.objective(output, _Values(values))

    def transform(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image after random transforms, cropped to its shape."""
        shape = image.shape
        if not self.transforms:
            return image
        part_keys = jax.random.split(key, len(self.transforms))
        for number, part in enumerate(self.transforms):
            result: Any = part(part_keys[number], image)
            if not isinstance(result, jax.Array) or not jnp.issubdtype(result.dtype, jnp.floating):
                kind = result.dtype if isinstance(result, jax.Array) else type(result).__name__
                raise TypeError(f"`transforms[{number}]` must return an array of real numbers; got {kind}")
            image = result
        if image.ndim != len(shape) or any(a < b for a, b in zip(image.shape, shape, strict=True)):
            raise ValueError(f"`transforms` must leave at least the shape {shape}; got {image.shape}")
        corner = [(a - b) // 2 for a, b in zip(image.shape, shape, strict=True)]
        return lax.slice(image, corner, [c + b for c, b in zip(corner, shape, strict=True)])

    def penalty(self, image: jax.Array) -> jax.Array:
        """The sum of the penalties."""
        total = jnp.zeros((), image.dtype)
        for number, part in enumerate(self.penalties):
            value = _checks.check_float_array(f"penalties[{number}]", part(image))
            _checks.check_shape(f"penalties[{number}]", value, (), "of a scalar")
            total += value
        return total


class _Values(dict[str, jax.Array]):
    """Named intermediates; an unknown name is an error that lists them."""

    def __missing__(self, name: str) -> jax.Array:
        listed = ", ".join(map(repr, self)) or "none: name them with jaxnn.tap"
        raise ValueError(f"`objective` must name intermediates of the model ({listed}); got {name!r}")


def check_parts(name: str, parts: Any) -> tuple[Any, ...]:
    """Return callables as pytrees, or raise."""
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        raise TypeError(f"`{name}` must be a tuple of callables; got {type(parts).__name__}")
    for number, part in enumerate(parts):
        if not callable(part):
            raise TypeError(f"`{name}[{number}]` must be callable; got {type(part).__name__}")
    return tuple(map(as_model, parts))


def check_types(parameterization: object, optimizer: object) -> None:
    """Raise unless the static parts are of their types."""
    for name, value, kind, example in (
        ("parameterization", parameterization, Parameterization, "such as dreaming.pixel()"),
        ("optimizer", optimizer, optax.GradientTransformation, "of Optax, such as optax.adam(0.05)"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"`{name}` must be a {kind.__name__}, {example}; got {type(value).__name__}")


def check_precision(bounds: Bounds, dtype: DTypeLike) -> None:
    """Raise if the bounds are equal, or infinitely far apart, in the precision of the dream."""
    if bounds is None:
        return
    with np.errstate(over="ignore"):
        low, high = (np.asarray(end, dtype) for end in bounds)
        distance = high - low
    if not (distance > 0 and np.isfinite(distance)):
        raise ValueError(
            f"`bounds` must be distinct, at a finite distance, in the dtype of the dream, {dtype}; "
            f"got ({bounds[0]!r}, {bounds[1]!r})"
        )


@jax.ensure_compile_time_eval()
def check_start(
    start: ArrayLike | None, shape: Shape, bounds: Bounds, parameters: Parameterization, dtype: DTypeLike
) -> jax.Array | None:
    """Return the initial image as an array, integers in `dtype`, or raise; None stays None."""
    if start is None:
        return None
    image = _checks.check_float_array("start", start, whole=dtype)
    _checks.check_shape("start", image, shape, "that of the dream")
    _checks.check_finite("start", image)
    if parameters.invert is None:
        raise ValueError("`start` must be None for a parameterization without an inverse (cppn)")
    if bounds is not None and _checks.known_false(jnp.all((image >= bounds[0]) & (image <= bounds[1]))):
        raise ValueError(
            f"`start` must lie within the bounds, {bounds[0]:g} to {bounds[1]:g}; got values from "
            f"{float(jnp.min(image)):g} to {float(jnp.max(image)):g}"
        )
    return image


def dtype_of(model: Model) -> DTypeLike:
    """The dtype of a dream without a start: of the model's numbers, else the default of JAX."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(model)]
    floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.result_type(*floats) if floats else jnp.result_type(float)


def check_model(model: Model, shape: Shape, dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    """Return what an input of the model is like, or raise unless it takes the shape."""
    example = jax.ShapeDtypeStruct(shape, dtype)
    try:
        output_shape(model, example)
    except Exception as error:
        raise ValueError(f"`shape` must be one that the model takes; {shape} gives: {error}") from error
    return example


def check_problem(problem: Problem, shape: Shape, dtype: DTypeLike) -> None:
    """Raise unless all parts fit each other; nothing is computed."""
    example = jax.ShapeDtypeStruct(shape, dtype)
    jax.eval_shape(_transform, problem, _key_shape(), example)
    jax.eval_shape(_penalty, problem, example)
    output, values = output_shape(jax.tree_util.Partial(capture), problem.model, example)
    # A closure, since an index of the objective must not become traced.
    value = jax.eval_shape(lambda output, values: problem.objective(output, _Values(values)), output, values)
    if value.shape != ():
        raise ValueError(f"`objective` must return a scalar; got {value}")


@functools.lru_cache
def check_optimizer(
    optimizer: optax.GradientTransformation, parameters: Parameterization, shape: Shape, dtype: DTypeLike
) -> None:
    """Raise unless there are parameters of that shape, and the optimizer needs only their gradient."""
    params = jax.eval_shape(lambda key: parameters.init(key, shape, dtype), _key_shape())
    try:
        with jax.numpy_dtype_promotion("standard"):  # as in each step
            jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), params)
    except Exception as error:
        raise TypeError(
            f"`optimizer` must update parameters by their gradient alone; it raises: {error}"
        ) from error


def _key_shape() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


# Jitted, so that they are traced once for all problems of one structure.
@jax.jit
def _transform(problem: Problem, key: jax.Array, image: jax.Array) -> jax.Array:
    return problem.transform(key, image)


@jax.jit
def _penalty(problem: Problem, image: jax.Array) -> jax.Array:
    return problem.penalty(image)
