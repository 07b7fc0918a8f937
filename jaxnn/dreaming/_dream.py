"""Dreams: the input that a part of a model would most like to see."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn._engine.graph import backward, gradient, graph
from jaxnn._engine.loops import scan, vary_like
from jaxnn._engine.relu import is_relu
from jaxnn._model import as_model
from jaxnn.dreaming._objective import Objective, as_objective
from jaxnn.dreaming._parameterizations import Parameterization, fourier, pixel
from jaxnn.dreaming._problem import (
    Bounds,
    Plan,
    check_bounds,
    check_kinds,
    check_optimizer,
    check_parts,
    check_plan,
    check_precision,
    check_start,
    dtype_of,
)
from jaxnn.dreaming._transforms import standard_transforms

# The root's tiny summand changes no step, and gives the root a slope where a gradient is 0 throughout.
ADAM = optax.adam(0.05, eps_root=1e-20)
_MARGIN = 0.01  # how far from its bounds a given image starts, as a share: at a bound nothing moves


class Dream(NamedTuple):
    """What `dream` gives.

    Attributes:
        image: of the shape asked for, within the bounds; a bound itself only where the dtype is at its end.
        value: the objective at the image, a scalar; without transforms and penalties.
        trace: `(steps,)`, the objective before each step, at the transformed image.
        frames: `(1 + steps // record_every, *shape)`, the image before the first step, and after every
            `record_every` of them; None where nothing was to be recorded.
        alive: whether the objective had any slope at the first step, a redirected one included: one bool.
            False is a unit that does not answer to small changes of the input, such as a relu far below 0.
    """

    image: jax.Array
    value: jax.Array
    trace: jax.Array
    frames: jax.Array | None
    alive: jax.Array


def dream(
    model: Callable[..., Any],
    objective: Objective | Callable[..., Any],
    *,
    key: jax.Array,
    shape: Sequence[int],
    bounds: Bounds = (0.0, 1.0),
    start: ArrayLike | None = None,
    parameterization: Parameterization | None = None,
    transforms: Sequence[Callable[..., Any]] | None = None,
    penalties: Sequence[Callable[..., Any]] = (),
    optimizer: optax.GradientTransformation = ADAM,
    steps: int = 512,
    record_every: int | None = None,
    redirect: int = 0,
) -> Dream:
    """Find an input at which a part of the model responds as much as it can.

    Gradient ascent on parameters `p` of the input, a new draw `T` of the transforms at each step:

    `maximize E[objective(model(T(x)))] - sum_i penalty_i(x)`, `x = low + (high - low) * sigmoid(image(p))`.

    The run is one compiled loop. New weights, another index, key, start, strength of a penalty or range of
    a scale compile nothing anew. `jax.vmap` dreams many at once: over the index of an objective, over keys,
    over a stack of models.

    Args:
        model: a callable of one example.
        objective: one of `jaxnn.dreaming`'s, sums and multiples of them, or a function
            `(output, values) -> scalar` of the model's output and its named intermediates.
        key: a JAX random key, of the start and the transforms. The same key gives the same dream,
            however many are dreamed beside it.
        shape: of the input: `(h, w)`, `(h, w, c)`, or any other, which has neither frequencies nor
            neighbors. `jaxnn.dreaming.flattened(model)` lets a dense network be asked in images. A model
            of channels first, `(c, h, w)`, is asked in `(h, w, c)` through a function that moves the axis.
        bounds: `(low, high)` of the input, within which it stays; None for no bounds.
        start: an input to start from, such as an image or a back query, of that shape and within the
            bounds, from which it is first drawn in by 0.01 of their distance. None for noise.
        parameterization: `dreaming.pixel()`, `fourier()` or `cppn()`; None for `fourier()` of an image,
            `pixel()` of another shape.
        transforms: callables `(key, image) -> image`, one after the other; what is larger than the model's
            image in the end is cut to its middle. None for `dreaming.standard_transforms` of an image, and
            none of another shape.
        penalties: callables `image -> scalar`, taken from the objective.
        optimizer: of Optax, one that asks for gradients and parameters alone. It is recognized by identity:
            make it once.
        steps: of ascent, at least 1.
        record_every: how many steps between two frames, at least 1; None to keep none.
        redirect: for so many of the first steps a relu through which no slope gets at all lets pass what
            would raise its input, so that a dead unit may be woken.

    Returns:
        A `Dream`.

    Raises:
        ValueError: `bounds` the wrong way round, or one number in the precision of the dream; a shape that
            the model, the start or the parameterization does not fit; an objective of a name or an index
            that the model does not have, or that is no scalar; transforms that leave too small an image.
        TypeError: `model`, `objective` or another part is not callable, a number is none, or `optimizer` asks
            for more than gradients.

    Warns:
        RuntimeWarning: the objective has no slope at the start; under tracing, look at `Dream.alive`.

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
    model, objective = as_model(model), as_objective(objective)
    _checks.check_key("key", key)
    shape = _checks.check_sizes("shape", shape)
    is_image = len(shape) in (2, 3)
    if parameterization is None:
        parameterization = fourier() if is_image else pixel()
    if transforms is None:
        transforms = standard_transforms(shape) if is_image else ()
    check_kinds(parameterization, optimizer)
    steps = _checks.check_integer("steps", steps, at_least=1)
    if record_every is not None:
        record_every = _checks.check_integer("record_every", record_every, at_least=1)
    redirect = _checks.check_integer("redirect", redirect, at_least=0)
    plan = Plan(
        model, objective, check_parts("transforms", transforms), check_parts("penalties", penalties),
        check_bounds(bounds), jnp.asarray(redirect),
    )  # fmt: skip
    start = check_start(start, shape, plan.bounds, parameterization, dtype_of(model))
    dtype = jnp.dtype(dtype_of(model) if start is None else start.dtype)
    check_precision(plan.bounds, dtype)
    check_optimizer(optimizer, parameterization, shape, _wide(dtype))
    check_plan(plan, shape, dtype)
    found = _dream(
        plan, key, start, shape=shape, dtype=dtype, parameterization=parameterization,
        optimizer=optimizer, steps=steps, record_every=record_every, redirects=redirect > 0,
    )  # fmt: skip
    if _checks.known_false(found.alive):
        warnings.warn(
            "the objective has no slope at the start, so that nothing leads the dream (a dead relu?); try "
            "`redirect=16`, another key, or a start at which the unit answers",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


class _State(NamedTuple):
    params: Any
    optimizer: Any
    frames: jax.Array | None


@jax.jit(
    static_argnames=(
        "shape", "dtype", "parameterization", "optimizer", "steps", "record_every", "redirects"
    )
)  # fmt: skip
def _dream(
    plan: Plan,
    key: jax.Array,
    start: jax.Array | None,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    parameterization: Parameterization,
    optimizer: optax.GradientTransformation,
    steps: int,
    record_every: int | None,
    redirects: bool,
) -> Dream:
    init_key, step_key = jax.random.split(key)

    def image_of(params: Any) -> jax.Array:
        return _into(parameterization.image(params, shape).astype(dtype), plan.bounds)

    def step(state: _State, number: jax.Array) -> tuple[_State, tuple[jax.Array, jax.Array]]:
        image, pull = jax.vjp(image_of, state.params)
        frames = _with_frame(state.frames, number, image, record_every)
        value, alive, upwards = _slope(plan, jax.random.fold_in(step_key, number), image, number, redirects)
        (downwards,) = pull(-upwards)
        updates, new = optimizer.update(downwards, state.optimizer, state.params)
        return _State(optax.apply_updates(state.params, updates), new, frames), (value, alive)

    if start is None or parameterization.invert is None:
        params = parameterization.init(init_key, shape, _wide(dtype))
    else:
        params = parameterization.invert(_out_of(start.astype(_wide(dtype)), plan.bounds))
    frames = None if record_every is None else jnp.zeros((1 + steps // record_every, *shape), dtype)
    state = _State(params, optimizer.init(params), frames)
    state = vary_like(state, (plan, params, jax.random.bits(jax.random.fold_in(key, 2))))
    state, (trace, alive) = scan(step, state, jnp.arange(steps))
    image = image_of(state.params)
    frames = _with_frame(state.frames, steps, image, record_every)
    return Dream(image, plan.judge(image), trace, frames, alive[0])


def _wide(dtype: Any) -> Any:
    """What parameters are held in: in half precision small steps, and their squares, come to nothing."""
    return jnp.promote_types(dtype, jnp.float32)


def _with_frame(
    frames: jax.Array | None, number: Any, image: jax.Array, every: int | None
) -> jax.Array | None:
    """The frames with the image after `number` steps in its row; past the last row it is dropped."""
    if frames is None or every is None:
        return None
    # The last one written to a row is the image after a whole number of `every` steps.
    return frames.at[-(-number // every)].set(image, mode="drop")


def _slope(
    plan: Plan, key: jax.Array, image: jax.Array, number: jax.Array, redirects: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The objective after a draw of the transforms, whether it has a slope, and the way up for the image."""
    shaken, unshake = jax.vjp(lambda x: plan.shake(key, x), image)
    if redirects:
        value, slope = _redirected(plan.judge, shaken, number < plan.redirect)
    else:
        value, slope = jax.value_and_grad(plan.judge)(shaken)
    (upwards,) = unshake(slope)
    if plan.penalties:
        upwards -= jax.grad(plan.price)(image)
    return value, jnp.any(slope != 0), upwards


def _into(raw: jax.Array, bounds: Bounds) -> jax.Array:
    if bounds is None:
        return raw
    low, high = (jnp.asarray(end, raw.dtype) for end in bounds)
    inside = low + (high - low) * jax.nn.sigmoid(raw)
    # The sum may round to something beyond a bound. What is added is exact, and has no part in the slope.
    return inside + lax.stop_gradient(jnp.clip(inside, low, high) - inside)


def _out_of(image: jax.Array, bounds: Bounds) -> jax.Array:
    """The raw image that `_into` makes this one of, drawn in a little from the bounds."""
    if bounds is None:
        return image
    low, high = (jnp.asarray(end, image.dtype) for end in bounds)
    share = jnp.clip((image - low) / (high - low), _MARGIN, 1 - _MARGIN)
    return jnp.log(share) - jnp.log1p(-share)


def _redirected(
    judge: Callable[[jax.Array], jax.Array], image: jax.Array, active: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The objective and its slope; where nothing gets through a relu, what would raise its input passes."""
    line = graph(judge, image, keep_custom=True)
    run = line.run(image)
    (value,) = line.results(run)

    def rule(step: Any, cotangents: Sequence[Any], run: Any) -> Sequence[Any]:
        passed = gradient(step, cotangents, run)
        if not is_relu(step):
            return passed
        (signal,) = (run[v] for v in step.inputs)
        (wanted,) = cotangents
        rising = jnp.where((signal <= 0) & (wanted < 0), 0, wanted)
        return (jnp.where(active & ~jnp.any(passed[0] != 0), rising, passed[0]),)

    (slope,) = backward(line, rule, (jnp.ones_like(value),), run)
    return value, slope
