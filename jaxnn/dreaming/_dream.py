"""Dreams: activation maximization, the input to which a part of a model responds most."""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnn import _checks
from jaxnn._engine.backward import Plan, backward, gradient
from jaxnn._engine.graph import Around, Run, Step, graph
from jaxnn._engine.loops import scan, vary_like
from jaxnn._engine.relu import is_relu
from jaxnn._model import as_model
from jaxnn._precision import wide_dtype
from jaxnn._repr import short_repr
from jaxnn._typing import Key, Model, PyTree
from jaxnn.dreaming._model import channels_last, check_channel_axis
from jaxnn.dreaming._objective import Objective, Term, as_objective
from jaxnn.dreaming._parameterizations import Parameterization, fourier, pixel
from jaxnn.dreaming._problem import (
    Bounds,
    Problem,
    check_model,
    check_optimizer,
    check_parts,
    check_precision,
    check_problem,
    check_start,
    check_types,
    dtype_of,
)
from jaxnn.dreaming._transforms import standard_transforms

# The tiny summand under the root changes no step, and keeps its derivative finite for gradients of 0.
ADAM = optax.adam(0.05, eps_root=1e-20)
_MARGIN = 0.01  # fraction of the range by which a start keeps off the bounds, where the gradient vanishes


class Dream(NamedTuple):
    """The result of `dream`.

    Attributes:
        image: of the requested shape, within the bounds; equal to a bound only by rounding.
        value: the objective at the image, a scalar; without transforms and penalties.
        trace: `(steps,)`, the objective before each step, at the transformed image.
        frames: `(1 + steps // record_every, *shape)`, the image before the first step, and after every
            `record_every` of them; None without recording.
        has_gradient: one bool, whether the objective had a nonzero gradient at the first step, a redirected
            one included. False means that the unit does not respond to small changes of the input, such as
            a ReLU far below 0.
    """

    image: jax.Array
    value: jax.Array
    trace: jax.Array
    frames: jax.Array | None
    has_gradient: jax.Array

    def __repr__(self) -> str:
        return short_repr(self)


def dream(
    model: Model,
    objective: Objective | Term,
    *,
    key: Key,
    shape: Sequence[int],
    bounds: Bounds = (0.0, 1.0),
    start: ArrayLike | None = None,
    parameterization: Parameterization | None = None,
    transforms: Sequence[Callable[[jax.Array, jax.Array], jax.Array]] | None = None,
    penalties: Sequence[Callable[[jax.Array], jax.Array]] = (),
    optimizer: optax.GradientTransformation = ADAM,
    steps: int = 512,
    record_every: int | None = None,
    redirect: int = 0,
    channel_axis: int | None = None,
) -> Dream:
    """Activation maximization: find an input that maximizes an objective of the model.

    Gradient ascent on parameters `p` of the input, with new random transforms `T` at each step:

    `maximize E[objective(model(T(x)))] - sum_i penalty_i(x)`, `x = low + (high - low) * sigmoid(image(p))`.

    The run is one compiled loop. New weights, another index, key, start, strength of a penalty or range of
    a scale do not recompile. `jax.vmap` dreams many at once: over the index of an objective, over keys, over
    a stack of models.

    Args:
        model: a callable of one example.
        objective: one of `jaxnn.dreaming`, sums and multiples of them, or a function
            `(output, values) -> scalar` of the model's output and its named intermediates.
        key: a JAX random key, for the start and the transforms. The same key gives the same dream, for
            any size of the batch.
        shape: of the input: `(h, w)`, `(h, w, c)`, `(c, h, w)`, or any other, without frequencies and
            neighbors. `jaxnn.dreaming.flattened(model)` adapts a dense network to images.
        bounds: `(low, high)` of the input; None for no bounds.
        start: an initial input, such as an image or a back query, of that shape and within the bounds. It
            is first clipped to 0.01 of the range from either bound. None for noise.
        parameterization: `dreaming.pixel()`, `fourier()` or `cppn()`; None for `fourier()` of an image,
            `pixel()` of another shape.
        transforms: callables `(key, image) -> image`, applied in order; an image larger than the model's
            is cropped to its center at the end. None for `dreaming.standard_transforms` of an image, and
            for no transforms of another shape.
        penalties: callables `image -> scalar`, subtracted from the objective.
        optimizer: of Optax, one that needs only gradients and parameters. It is compared by identity
            (static argument): create it once.
        steps: number of steps, at least 1.
        record_every: number of steps between two frames, at least 1; None to record none.
        redirect: number of initial steps in which a ReLU with zero gradient everywhere passes the gradient
            that would increase its input (Lucid's redirected ReLU gradients), to revive a dead unit.
        channel_axis: the axis of the channels in `shape`. None is that of the convolution which reads the
            input, first in Equinox and last in Flax; the last where there is none. Parameterizations,
            transforms and penalties always have the channels last.

    Returns:
        A `Dream`.

    Raises:
        ValueError: `bounds` are not in order, or equal in the precision of the dream; the model, the start,
            the parameterization or `channel_axis` does not fit the shape; the model has no such name or
            index, or the objective is no scalar; transforms leave too small an image.
        TypeError: `model`, `objective` or another part is not callable, a number is of another type, or
            `optimizer` needs more than gradients.

    Warns:
        RuntimeWarning: the gradient of the objective is 0 at the start; under tracing, check
            `Dream.has_gradient`.

    References:
        Erhan, Bengio, Courville and Vincent, "Visualizing higher-layer features of a deep network", 2009;
        Olah, Mordvintsev and Schubert, "Feature visualization", Distill, 2017, doi:10.23915/distill.00007.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (16, 8, 3))
        >>> model = jaxnn.dreaming.flattened(network)
        >>> def five(index):
        ...     objective = jaxnn.dreaming.logit(index)
        ...     return jaxnn.dream(model, objective, key=jax.random.key(1), shape=(4, 4), steps=50)
        >>> dreams = jax.vmap(five)(jax.numpy.arange(3))
        >>> dreams.image.shape, bool((dreams.value > dreams.trace[:, 0]).all())
        ((3, 4, 4), True)
    """
    model = as_model(model)
    _checks.check_key("key", key)
    shape = _checks.check_sizes("shape", shape)
    is_image = len(shape) in (2, 3)
    if parameterization is None:
        parameterization = fourier() if is_image else pixel()
    check_types(parameterization, optimizer)
    steps = _checks.check_integer("steps", steps, at_least=1)
    if record_every is not None:
        record_every = _checks.check_integer("record_every", record_every, at_least=1)
    redirect = _checks.check_integer("redirect", redirect, at_least=0)
    _checks.check_bytes("steps", 16 * steps)
    _checks.check_bytes("shape", 16 * math.prod(shape))
    if record_every is not None:
        _checks.check_bytes("record_every", 4 * (1 + steps // record_every) * math.prod(shape))
    if bounds is not None:
        bounds = _checks.check_interval("bounds", bounds)
    image = check_start(start, shape, bounds, parameterization, dtype_of(model))
    dtype = jnp.dtype(dtype_of(model) if image is None else image.dtype)
    check_precision(bounds, dtype)
    axis = check_channel_axis(channel_axis, model, check_model(model, shape, dtype))
    if axis != len(shape) - 1:
        model = channels_last(model, axis)
        shape = (*shape[:axis], *shape[axis + 1 :], shape[axis])
        image = None if image is None else jnp.moveaxis(image, axis, -1)
    if transforms is None:
        transforms = standard_transforms(shape) if is_image else ()
    problem = Problem(
        model, as_objective(objective), check_parts("transforms", transforms),
        check_parts("penalties", penalties), bounds, jnp.asarray(redirect) if redirect else None,
    )  # fmt: skip
    check_optimizer(optimizer, parameterization, shape, wide_dtype(dtype))
    check_problem(problem, shape, dtype)
    result = _dream(
        problem, key, image, shape=shape, dtype=dtype, parameterization=parameterization,
        optimizer=optimizer, steps=steps, record_every=record_every,
    )  # fmt: skip
    if _checks.known_false(result.has_gradient):
        warnings.warn(
            "the objective has no gradient at the start, so the dream does not change (a dead ReLU?); try "
            "`redirect=16`, another key, or a start to which the unit responds",
            RuntimeWarning,
            stacklevel=2,
        )
    return result if axis == len(shape) - 1 else _with_channels_at(result, axis)


def _with_channels_at(result: Dream, axis: int) -> Dream:
    """The result with the last axis of its images moved to another place."""
    frames = None if result.frames is None else jnp.moveaxis(result.frames, -1, axis + 1)
    return result._replace(image=jnp.moveaxis(result.image, -1, axis), frames=frames)


class _State(NamedTuple):
    params: PyTree
    optimizer: PyTree
    frames: jax.Array | None


@jax.jit(static_argnames=("shape", "dtype", "parameterization", "optimizer", "steps", "record_every"))
def _dream(
    problem: Problem,
    key: Key,
    start: jax.Array | None,
    *,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    parameterization: Parameterization,
    optimizer: optax.GradientTransformation,
    steps: int,
    record_every: int | None,
) -> Dream:
    init_key, step_key = jax.random.split(key)

    def image_of(params: PyTree) -> jax.Array:
        return _into_bounds(parameterization.image(params, shape).astype(dtype), problem.bounds)

    def step(state: _State, number: jax.Array) -> tuple[_State, tuple[jax.Array, jax.Array]]:
        image, pull = jax.vjp(image_of, state.params)
        frames = _with_frame(state.frames, number, image, record_every)
        draw_key = jax.random.fold_in(step_key, number)
        value, has_gradient, ascent = _ascent(problem, draw_key, image, number)
        (descent,) = pull(-ascent)
        with jax.numpy_dtype_promotion("standard"):  # Optax itself mixes dtypes
            updates, new = optimizer.update(descent, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
        return _State(params, new, frames), (value, has_gradient)

    if start is None or parameterization.invert is None:
        params = parameterization.init(init_key, shape, wide_dtype(dtype))
    else:
        params = parameterization.invert(_out_of_bounds(start.astype(wide_dtype(dtype)), problem.bounds))
    frames = None if record_every is None else jnp.zeros((1 + steps // record_every, *shape), dtype)
    params = vary_like(params, (problem, key))  # gradients are taken of them, one per device
    state = _State(params, optimizer.init(params), frames)
    state, (trace, has_gradient) = scan(step, state, jnp.arange(steps))
    image = image_of(state.params)
    frames = _with_frame(state.frames, steps, image, record_every)
    return Dream(image, problem.objective_at(image), trace, frames, has_gradient[0])


def _with_frame(
    frames: jax.Array | None, number: jax.Array | int, image: jax.Array, every: int | None
) -> jax.Array | None:
    """The frames with the image after `number` steps in its row; a row past the last is dropped."""
    if frames is None or every is None:
        return None
    # The last image written to a row is that after a multiple of `every` steps.
    return frames.at[-(-number // every)].set(image, mode="drop")


def _ascent(
    problem: Problem, key: Key, image: jax.Array, number: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The objective of the transformed image, whether it has a gradient, and the ascent direction."""
    transformed, pull = jax.vjp(lambda x: problem.transform(key, x), image)
    if problem.redirect is not None:
        value, gradient = _redirected(problem.objective_at, transformed, number < problem.redirect)
    else:
        value, gradient = jax.value_and_grad(problem.objective_at)(transformed)
    (ascent,) = pull(gradient)
    if problem.penalties:
        ascent -= jax.grad(problem.penalty)(image)
    return value, jnp.any(gradient != 0), ascent


def _into_bounds(raw: jax.Array, bounds: Bounds) -> jax.Array:
    if bounds is None:
        return raw
    low, high = (jnp.asarray(end, raw.dtype) for end in bounds)
    inside = low + (high - low) * jax.nn.sigmoid(raw)
    # The sum may round to a value beyond a bound. The correction is exact, and has no gradient.
    return inside + lax.stop_gradient(jnp.clip(inside, low, high) - inside)


def _out_of_bounds(image: jax.Array, bounds: Bounds) -> jax.Array:
    """The inverse of `_into_bounds`, clipped to a small distance from the bounds."""
    if bounds is None:
        return image
    low, high = (jnp.asarray(end, image.dtype) for end in bounds)
    fraction = jnp.clip((image - low) / (high - low), _MARGIN, 1 - _MARGIN)
    return jnp.log(fraction) - jnp.log1p(-fraction)


def _redirected(
    objective: Callable[[jax.Array], jax.Array], image: jax.Array, active: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The objective and its gradient; a ReLU with zero gradient everywhere passes what raises its input."""
    plan = _redirecting(active, objective, image)
    (run,) = plan.evaluate([image])
    (value,) = plan.graph.results(run)
    (input_gradient,) = backward(plan, (jnp.ones_like(value),), run)
    return value, input_gradient


def _redirecting(
    active: jax.Array, function: Callable[..., Any], *args: Any, around: Sequence[Around | None] | None = None
) -> Plan:
    steps = graph(function, *args, keep_custom=True, keep_long=lambda _: True, around=around)

    def rule(step: Step, cotangents: Sequence[jax.Array], run: Run) -> Sequence[jax.Array]:
        gradients = gradient(step, cotangents, run)
        if not is_relu(step):
            return gradients
        (signal,) = (run[v] for v in step.inputs)
        (cotangent,) = cotangents
        rising = jnp.where((signal <= 0) & (cotangent < 0), 0, cotangent)
        return (jnp.where(active & ~jnp.any(gradients[0] != 0), rising, gradients[0]),)

    return Plan(steps, rule, lambda inputs: [steps.run(*inputs)], functools.partial(_redirecting, active))
