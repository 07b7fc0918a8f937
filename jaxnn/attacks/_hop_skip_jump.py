"""Along the boundary towards the input, by asking for decisions only."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnn import _checks
from jaxnn._engine.loops import vary_like
from jaxnn._model import as_example, broadcast_like
from jaxnn.attacks._common import Attack, Bounds, Model, Task, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._geometry import distance, steepest
from jaxnn.attacks._search import Succeeds, constant, extent, finish, to_boundary

_DRAWS = 1000  # of noise, until one is adversarial
_FIRST_RADIUS = 0.1  # of the range, for the first estimate of a slope
_SEED_OF_NOISE = 2**31 - 1  # no number of a step


def hop_skip_jump(
    model: Model,
    x: Any,
    label: Label,
    *,
    key: jax.Array,
    norm: str = "l2",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    queries: int = 10_000,
    start: Any = None,
    initial_evaluations: int = 100,
    max_evaluations: int = 10_000,
    gamma: Any = 1.0,
    batch_size: int = 50,
) -> Attack:
    """The nearest adversarial input by decisions alone: whether an input is adversarial, and no more.

    From a point on the boundary, `n = initial_evaluations * sqrt(t)` small steps `u_b` of a random direction
    estimate the normal of the boundary as the mean of `(phi_b - mean(phi)) u_b`, `phi_b` being 1 for an
    adversarial input and -1 for another. A step of `distance / sqrt(t)` along it (along its sign for linf),
    halved until it ends at an adversarial input, is followed by a bisection back to the boundary towards `x`.
    The nearest of all points on the boundary is the answer.

    Args:
        model: a callable of one example with logits `(n_out,)` for an answer; only decisions are used.
        x: the example, within the bounds.
        label: its class, an integer in `[0, n_out)`; or a function from the output to a margin, above 0 where
            the attack has succeeded.
        key: a JAX random key. Small step `b` of step `t` is drawn from `fold_in(fold_in(key, t), b)`.
        norm: `"l2"` or `"linf"`.
        bounds: `(low, high)`, each a number or of the shape of `x`.
        targeted: whether `label` is the class that is wanted. Noise is seldom taken for one: give a `start`.
        queries: at most so many, at least 10.
        start: of the structure and shapes of `x`, within the bounds and adversarial; None for uniform noise
            between finite bounds, drawn until it is adversarial, a thousand times at most.
        initial_evaluations: small steps of the first estimate, at least 1.
        max_evaluations: small steps of any estimate, at least 1.
        gamma: the boundary is found to the share `gamma * n_in ** -1.5` of the way (`n_in ** -2` for linf),
            and small steps have a length of `gamma / n_in` of the distance; above 0.
        batch_size: small steps at a time; memory grows with it, and with no other number.

    Returns:
        An `Attack`, without success where `start`, or all of the noise, is not adversarial.

    Raises:
        TypeError: as `fmn` raises; `key` is no key.
        ValueError: as `fmn` raises; `start` is of another shape or out of the bounds, or None although those
            are not finite.

    References:
        Chen, Jordan and Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", 2020,
        arXiv:1904.02144, algorithm 2 and equations 15 and 16.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> found = attacks.hop_skip_jump(model, [0.5, 0.5], 0, key=jax.random.key(0), queries=1000)
        >>> bool(found.success), round(float(found.distance), 2)
        (True, 0.2)
    """
    sizes = {
        "queries": _checks.check_integer("queries", queries, at_least=10),
        "first": _checks.check_integer("initial_evaluations", initial_evaluations, at_least=1),
        "most": _checks.check_integer("max_evaluations", max_evaluations, at_least=1),
        "batch_size": _checks.check_integer("batch_size", batch_size, at_least=1),
    }
    gamma = _checks.check_real("gamma", gamma)
    if gamma <= 0:
        raise ValueError(f"`gamma` must be above 0; got {gamma}")
    task, restored = prepare(
        model, x, label, norm=norm, norms=("l2", "linf"), bounds=bounds, targeted=targeted, key=key,
        needs_key=True,
    )  # fmt: skip
    if start is not None:
        start = _check_start(start, x, task)
    elif _checks.known_false(jnp.all(jnp.isfinite(task.high - task.low))):
        raise ValueError(
            "`start` must be given where `bounds` are not finite: there is no noise of all inputs"
        )
    return restored(_hop_skip_jump(task, start, key, norm=norm, targeted=targeted, gamma=gamma, **sizes))


def _check_start(start: Any, x: Any, task: Task) -> jax.Array:
    given = broadcast_like("start", start, as_example("x", x))
    flat = ravel_pytree(given)[0].reshape(task.x.shape).astype(task.x.dtype)
    _checks.check_finite("start", flat)
    if _checks.known_false(jnp.all((flat >= task.low) & (flat <= task.high))):
        raise ValueError("`start` must lie within `bounds`")
    return flat


class _State(NamedTuple):
    """Where a search is: the steps and queries so far, the point on the boundary, the nearest of all."""

    step: jax.Array
    used: jax.Array
    point: jax.Array
    nearest: jax.Array
    least: jax.Array


@jax.jit(static_argnames=("norm", "targeted", "queries", "first", "most", "gamma", "batch_size"))
def _hop_skip_jump(
    task: Task,
    start: jax.Array | None,
    key: jax.Array,
    *,
    norm: str,
    targeted: bool,
    queries: int,
    first: int,
    most: int,
    gamma: float,
    batch_size: int,
) -> Attack:
    fixed = constant(task)
    margin, x, bounds = margin_of(fixed.label, targeted), fixed.x, fixed.bounds
    halvings = _halvings(x, norm, gamma, queries)
    limit = queries - 1 - halvings  # before the way back to the boundary, and the query that judges

    def succeeds(z: jax.Array) -> jax.Array:
        return margin(fixed.model(z)) > 0

    def step(state: _State) -> _State:
        root = jnp.sqrt(state.step + 1.0)
        count = jnp.minimum(jnp.floor(first * root).astype(jnp.int32), most)
        count = jnp.minimum(count, limit - state.used - 1)
        size = distance(state.point - x, norm)
        at_first = _FIRST_RADIUS * extent(fixed)
        small = jnp.where(state.step == 0, at_first, gamma / x.size * size)
        own_key = jax.random.fold_in(key, state.step)
        normal = _normal(succeeds, own_key, state.point, small, count, norm, bounds, batch_size)
        length = size / root.astype(x.dtype)
        moved, used = _leap(succeeds, state.point, normal, length, state.used + count, limit, bounds)
        return back(state, moved, used)

    def back(state: _State, moved: jax.Array, used: jax.Array) -> _State:
        point = to_boundary(succeeds, x, moved, norm, bounds, halvings)
        size = distance(point - x, norm)
        nearer = size < state.least
        nearest, least = jnp.where(nearer, point, state.nearest), jnp.where(nearer, size, state.least)
        return _State(state.step + 1, used + halvings, point, nearest, least)

    if start is None:
        start, used = _noise(succeeds, key, fixed, limit)
    else:
        start, used = jnp.where(succeeds(x), x, start), jnp.int32(1)
    found, used = succeeds(start), used + 1
    state = _State(jnp.int32(-1), used, start, start, jnp.full((), jnp.inf, x.dtype))
    state = back(vary_like(state, (x, start, key)), start, used)
    state = lax.while_loop(lambda s: found & (s.least > 0) & (s.used < limit - 1), step, state)
    nearest = jnp.where(found, state.nearest, start)
    return finish(task, nearest, margin_of(task.label, targeted), norm, state.used)


def _halvings(x: jax.Array, norm: str, gamma: float, queries: int) -> int:
    """How often a way is halved: to the threshold of the paper, or to the last place of the numbers."""
    wanted = math.log2(x.size) * (2 if norm == "linf" else 1.5) - math.log2(gamma)
    places = jnp.finfo(jnp.promote_types(x.dtype, jnp.float32)).nmant
    return min(max(math.ceil(wanted), 5), places, queries // 4)


def _noise(succeeds: Succeeds, key: jax.Array, task: Task, limit: int) -> tuple[jax.Array, jax.Array]:
    """Uniform noise that is adversarial, or the last drawn; `x` where that is."""
    x, key = task.x, jax.random.fold_in(key, _SEED_OF_NOISE)

    def draw(carry: Any) -> Any:
        count, _, _ = carry
        share = jax.random.uniform(jax.random.fold_in(key, count), x.shape, x.dtype)
        noise = jnp.clip(task.low + share * (task.high - task.low), *task.bounds)
        return count + 1, noise, succeeds(noise)

    most = min(_DRAWS, limit - 2)
    start = vary_like((jnp.int32(0), x, succeeds(x)), (x, key))
    count, noise, _ = lax.while_loop(lambda carry: (carry[0] < most) & ~carry[2], draw, start)
    return noise, count + 1


def _normal(
    succeeds: Succeeds,
    key: jax.Array,
    point: jax.Array,
    radius: jax.Array,
    count: jax.Array,
    norm: str,
    bounds: Any,
    batch_size: int,
) -> jax.Array:
    """Equations 15 and 16: the mean of random directions, by where they lead; of length 1, or its sign."""
    radius = radius.astype(point.dtype)

    def small_step(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        own_key = jax.random.fold_in(key, number)
        if norm == "l2":
            direction = jax.random.normal(own_key, point.shape, point.dtype)
        else:
            direction = jax.random.uniform(own_key, point.shape, point.dtype, -1, 1)
        moved = jnp.clip(point + radius * direction / distance(direction, "l2"), *bounds)
        valid = (number < count).astype(point.dtype)
        sign = jnp.where(succeeds(moved), valid, -valid)
        return sign, valid * (moved - point) / radius

    def chunk(carry: Any) -> Any:
        start, signs, along, all_steps = carry
        sign, steps = jax.vmap(small_step)(start + jnp.arange(batch_size))
        return (
            start + batch_size,
            signs + jnp.sum(sign),
            along + jnp.tensordot(sign, steps, 1),
            all_steps + jnp.sum(steps, axis=0),
        )

    zero = jnp.zeros_like(point)
    carry = vary_like((jnp.int32(0), jnp.zeros((), point.dtype), zero, zero), (point, key))
    _, signs, along, all_steps = lax.while_loop(lambda carry: carry[0] < count, chunk, carry)
    mean = signs / count.astype(signs.dtype)
    # Where all small steps end on one side there is nothing to compare: they count as they are.
    normal = along - jnp.where(jnp.abs(mean) < 1, mean, 0) * all_steps
    return steepest(normal, norm)


def _leap(
    succeeds: Succeeds,
    point: jax.Array,
    normal: jax.Array,
    length: jax.Array,
    used: jax.Array,
    limit: int,
    bounds: Any,
) -> tuple[jax.Array, jax.Array]:
    """A step along the normal, halved until it ends in success; no step where the queries end before."""

    def attempt(carry: Any) -> Any:
        length, used, _, _ = carry
        moved = jnp.clip(point + length * normal, *bounds)
        return length / 2, used + 1, moved, succeeds(moved)

    start = vary_like((length, used, point, jnp.asarray(False)), (point, normal, length))
    _, used, moved, success = lax.while_loop(lambda carry: (carry[1] < limit) & ~carry[3], attempt, start)
    return jnp.where(success, moved, point), used
