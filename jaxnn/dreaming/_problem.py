"""What a dream follows, and whether its parts fit each other: known before the first step."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnn import _checks
from jaxnn._model import as_model
from jaxnn._rewrite import capture
from jaxnn.dreaming._objective import Objective
from jaxnn.dreaming._parameterizations import Parameterization

Bounds = tuple[float, float] | None


class Plan(NamedTuple):
    """What a dream follows, all of it pytrees of arrays."""

    model: Any
    objective: Objective
    transforms: tuple[Any, ...]
    penalties: tuple[Any, ...]
    bounds: Bounds
    redirect: jax.Array

    def judge(self, image: jax.Array) -> jax.Array:
        """The objective at an image."""
        output, values = capture(self.model, image)
        return self.objective(output, _Values(values))

    def shake(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image after a draw of the transforms, cut to its shape."""
        shape = image.shape
        if not self.transforms:
            return image
        part_keys = jax.random.split(key, len(self.transforms))
        for number, part in enumerate(self.transforms):
            image = part(part_keys[number], image)
            if not isinstance(image, jax.Array) or not jnp.issubdtype(image.dtype, jnp.floating):
                given = image.dtype if isinstance(image, jax.Array) else type(image).__name__
                raise TypeError(f"`transforms[{number}]` must give an array of real numbers; got {given}")
        if image.ndim != len(shape) or any(a < b for a, b in zip(image.shape, shape, strict=True)):
            raise ValueError(f"`transforms` must leave at least the shape {shape}; got {image.shape}")
        corner = [(a - b) // 2 for a, b in zip(image.shape, shape, strict=True)]
        return lax.slice(image, corner, [c + b for c, b in zip(corner, shape, strict=True)])

    def price(self, image: jax.Array) -> jax.Array:
        """What the penalties take."""
        total = jnp.zeros((), image.dtype)
        for number, part in enumerate(self.penalties):
            taken = _checks.check_float_array(f"penalties[{number}]", part(image))
            _checks.check_shape(f"penalties[{number}]", taken, (), "of a scalar")
            total += taken
        return total


class _Values(dict[str, jax.Array]):
    """Named intermediates; a name that is none of them says so."""

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


def check_kinds(parameterization: Any, optimizer: Any) -> None:
    """Raise unless the static parts are what they have to be."""
    for name, value, kind, told in (
        ("parameterization", parameterization, Parameterization, "such as dreaming.pixel()"),
        ("optimizer", optimizer, optax.GradientTransformation, "of Optax, such as optax.adam(0.05)"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"`{name}` must be a {kind.__name__}, {told}; got {type(value).__name__}")


def check_bounds(bounds: Any) -> Bounds:
    """Return `(low, high)` as floats, or None where there are none."""
    if bounds is None:
        return None
    if isinstance(bounds, str) or not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise TypeError(f"`bounds` must be a pair (low, high), or None; got {bounds!r}")
    low, high = (_checks.check_real(f"bounds[{i}]", end) for i, end in enumerate(bounds))
    if not low < high:
        raise ValueError(f"`bounds` must be (low, high) with low below high; got ({low:g}, {high:g})")
    return low, high


def check_precision(bounds: Bounds, dtype: Any) -> None:
    """Raise where the bounds become one number, or their distance infinite, in the precision of a dream."""
    if bounds is None:
        return
    with np.errstate(over="ignore"):
        low, high = (np.asarray(end, dtype) for end in bounds)
        distance = high - low
    if not (distance > 0 and np.isfinite(distance)):
        raise ValueError(
            f"`bounds` must be some way apart, and finite, in the dtype of the dream, {dtype}; "
            f"got ({bounds[0]!r}, {bounds[1]!r})"
        )


def check_start(
    start: Any, shape: tuple[int, ...], bounds: Bounds, parameterization: Parameterization, dtype: Any
) -> jax.Array | None:
    """Return an image to start from as an array, integers in a dtype, or raise; None stays None."""
    if start is None:
        return None
    image = _checks.check_float_array("start", start, whole=dtype)
    _checks.check_shape("start", image, shape, "that of the dream")
    _checks.check_finite("start", image)
    if parameterization.invert is None:
        raise ValueError("`start` must be None for a parameterization that cannot make a given image (cppn)")
    if bounds is not None and _checks.known_false(jnp.all((image >= bounds[0]) & (image <= bounds[1]))):
        raise ValueError(
            f"`start` must lie within the bounds, {bounds[0]:g} to {bounds[1]:g}; got values from "
            f"{float(jnp.min(image)):g} to {float(jnp.max(image)):g}"
        )
    return image


def dtype_of(model: Any) -> Any:
    """The dtype to dream in where no start has one: of the model's numbers, else JAX's own."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(model)]
    floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.result_type(*floats) if floats else jnp.result_type(float)


def check_plan(plan: Plan, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise unless all parts fit each other; nothing is computed."""
    example = jax.ShapeDtypeStruct(shape, dtype)
    try:
        jax.eval_shape(_answer, plan.model, example)  # from the cache of traces, after the first time
    except Exception as error:
        raise ValueError(f"`shape` must be one that the model takes; {shape} gives: {error}") from error
    jax.eval_shape(_shaken, plan, _a_key(), example)
    jax.eval_shape(_price, plan, example)
    output, values = jax.eval_shape(capture, plan.model, example)
    # The objective is not an argument, so that its index can be looked at.
    value = jax.eval_shape(lambda *seen: plan.objective(seen[0], _Values(seen[1])), output, values)
    if value.shape != ():
        raise ValueError(f"`objective` must give a scalar; got {value}")


@functools.lru_cache
def check_optimizer(
    optimizer: optax.GradientTransformation,
    parameterization: Parameterization,
    shape: tuple[int, ...],
    dtype: Any,
) -> None:
    """Raise unless parameters of that shape can be made, and moved by their gradient alone."""
    params = jax.eval_shape(lambda key: parameterization.init(key, shape, dtype), _a_key())
    try:
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), params)
    except Exception as error:
        raise TypeError(
            f"`optimizer` must move parameters by their gradient alone; it says: {error}"
        ) from error


def _a_key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


# Compiled functions, as these are traced once for all plans of one structure.
@jax.jit
def _answer(model: Any, x: Any) -> Any:
    return model(x)


@jax.jit
def _shaken(plan: Plan, key: jax.Array, image: jax.Array) -> jax.Array:
    return plan.shake(key, image)


@jax.jit
def _price(plan: Plan, image: jax.Array) -> jax.Array:
    return plan.price(image)
