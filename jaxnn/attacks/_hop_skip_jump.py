"""HopSkipJump: a walk along the decision boundary, by queries of the predicted class only."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import while_loop
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._model import broadcast_like
from jaxnn._precision import draw_wide, wide_dtype
from jaxnn._typing import Key, Model, PyTree, Scalar
from jaxnn.attacks._common import Attack, Bounds, Task, check_within, final_result, prepare, ravel
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._geometry import distance, steepest, symmetric
from jaxnn.attacks._search import has_range, search_radius, to_boundary

_DRAWS = 1000  # largest number of noise inputs, until one is adversarial
_FIRST_RADIUS = 0.1  # of the range, for the first gradient estimate
_SEED_OF_NOISE = 2**31 - 1  # not the number of a step


def hop_skip_jump(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    key: Key,
    norm: Literal["l2", "linf"] = "l2",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    queries: int = 10_000,
    start: PyTree | None = None,
    initial_evaluations: int = 100,
    max_evaluations: int = 10_000,
    gamma: Scalar = 1.0,
    batch_size: int | None = None,
) -> Attack:
    """HopSkipJump: the nearest adversarial input by decisions alone, whether an input is adversarial or not.

    From a point on the boundary, `n = initial_evaluations * sqrt(t)` small steps `u_b` of a random direction
    estimate the normal of the boundary as the mean of `(phi_b - mean(phi)) u_b`, where `phi_b` is 1 for an
    adversarial input and -1 for another. A step of `distance / sqrt(t)` along it (along its sign for linf),
    halved until it ends at an adversarial input, is followed by a bisection back to the boundary towards `x`.
    The nearest of all points on the boundary is returned.

    Args:
        model: a callable of one example with logits `(n_out,)` as output; only decisions are used.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        key: a JAX random key. Small step `b` of step `t` uses `fold_in(fold_in(key, t), b)`.
        norm: `"l2"` or `"linf"`.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class. Noise is rarely classified so: pass a `start`.
        queries: largest number of queries, at least 10.
        start: an adversarial input of the structure and shapes of `x`, within the bounds; None for uniform
            noise between finite bounds, drawn again until it is adversarial, at most 1,000 times.
        initial_evaluations: number of small steps of the first estimate, at least 1.
        max_evaluations: largest number of small steps of an estimate, at least 1.
        gamma: the boundary is located to the fraction `gamma * n_in ** -1.5` of the distance (`n_in ** -2`
            for linf), and small steps have a length of `gamma / n_in` of the distance; above 0.
        batch_size: number of small steps per batch; memory grows with it, and with no other number. None: at
            most 50, and as many as are estimated to take 1 GiB.

    Returns:
        An `Attack`, without success if `start`, or all of the noise, is not adversarial.

    Raises:
        TypeError: an argument of another type.
        ValueError: `start` has another shape, is out of the bounds, or is None although the bounds are not
            finite; an option is out of its range, or as `fgsm` raises.

    References:
        Chen, Jordan and Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", 2020,
        arXiv:1904.02144, algorithm 2 and equations 15 and 16.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> result = attacks.hop_skip_jump(model, [0.5, 0.5], 0, key=jax.random.key(0), queries=1000)
        >>> bool(result.success), round(float(result.distance), 2)
        (True, 0.2)
    """
    sizes = {
        "queries": _checks.check_integer("queries", queries, at_least=10),
        "first": _checks.check_integer("initial_evaluations", initial_evaluations, at_least=1),
        "most": _checks.check_integer("max_evaluations", max_evaluations, at_least=1),
    }
    batch = check_batch_size(batch_size, 50)
    gamma = _checks.check_real("gamma", gamma, above=0)
    task = prepare(
        model, x, label, norm=norm, norms=("l2", "linf"), bounds=bounds, targeted=targeted, key=key,
        needs_key=True,
    )  # fmt: skip
    if start is not None:
        start = ravel(broadcast_like("start", start, task.unravel(task.x))).astype(task.x.dtype)
        check_within("start", start, task.bounds)
    elif not has_range(task):
        raise ValueError("`start` must be given where `bounds` are not finite: uniform noise has no range")
    return _hop_skip_jump(task, start, key, gamma=gamma, batch=batch, **sizes)


class _State(NamedTuple):
    """The number of steps and queries so far, the point on the boundary, and the nearest of all."""

    step: jax.Array
    queries: jax.Array
    point: jax.Array
    nearest: jax.Array
    least: jax.Array


@jax.jit(static_argnames=("queries", "first", "most", "gamma", "batch"))
def _hop_skip_jump(
    task: Task,
    start: jax.Array | None,
    key: Key,
    *,
    queries: int,
    first: int,
    most: int,
    gamma: float,
    batch: Batch,
) -> Attack:
    fixed = lax.stop_gradient(task)
    x, norm = fixed.x, fixed.norm
    batch_size = min(batch.size(jax.make_jaxpr(fixed.margin_at)(x)), most, queries)
    halvings = _halvings(fixed, gamma, queries)
    limit = queries - 1 - halvings  # before the way back to the boundary, and the final query

    def step(state: _State) -> _State:
        root = jnp.sqrt(state.step.astype(jnp.float32) + 1)
        count = jnp.minimum(jnp.floor(first * root).astype(jnp.int32), most)
        count = jnp.minimum(count, limit - state.queries - 1)
        size = distance(state.point - x, norm)
        radius = jnp.where(state.step == 0, _FIRST_RADIUS * search_radius(fixed), gamma / x.size * size)
        step_key = jax.random.fold_in(key, state.step)
        normal = _normal(fixed, step_key, state.point, radius.astype(x.dtype), count, batch_size)
        length = size / root.astype(x.dtype)
        moved, used = _leap(fixed, state.point, normal, length, state.queries + count, limit)
        return back(state, moved, used)

    def back(state: _State, moved: jax.Array, used: jax.Array) -> _State:
        point = to_boundary(fixed, moved, halvings)
        size = distance(point - x, norm)
        nearer = size < state.least
        nearest, least = jnp.where(nearer, point, state.nearest), jnp.where(nearer, size, state.least)
        return _State(state.step + 1, used + halvings, point, nearest, least)

    if start is None:
        start, used = _adversarial_noise(fixed, key, limit)
    else:
        start, used = jnp.where(fixed.succeeds(x), x, start), jnp.int32(1)
    is_adversarial, used = fixed.succeeds(start), used + 1
    state = _State(jnp.int32(-1), used, start, start, jnp.full((), jnp.inf, x.dtype))
    state = while_loop(
        lambda s: is_adversarial & (s.least > 0) & (s.queries < limit - 1), step, back(state, start, used)
    )
    return final_result(task, jnp.where(is_adversarial, state.nearest, start), state.queries)


def _halvings(task: Task, gamma: float, queries: int) -> int:
    """Number of bisection steps: to the threshold of the paper, or to the precision of the dtype."""
    exponent = 2 if task.norm == "linf" else 1.5
    needed = math.log2(task.x.size) * exponent - math.log2(gamma)
    digits = jnp.finfo(wide_dtype(task.x.dtype)).nmant
    return min(max(math.ceil(needed), 5), digits, queries // 4)


def _adversarial_noise(task: Task, key: Key, limit: int) -> tuple[jax.Array, jax.Array]:
    """Uniform noise that is adversarial, or the last draw; `x` if it is adversarial itself."""
    x, key = task.x, jax.random.fold_in(key, _SEED_OF_NOISE)

    def draw(carry: Any) -> Any:
        count, _, _ = carry
        uniform = draw_wide(jax.random.uniform, jax.random.fold_in(key, count), x.shape, x.dtype)
        noise = jnp.clip(task.low + uniform * (task.high - task.low), *task.bounds)
        return count + 1, noise, task.succeeds(noise)

    most = min(_DRAWS, limit - 2)
    start = (jnp.int32(0), x, task.succeeds(x))
    count, noise, _ = while_loop(lambda carry: (carry[0] < most) & ~carry[2], draw, start)
    return noise, count + 1


def _normal(
    task: Task, key: Key, point: jax.Array, radius: jax.Array, count: jax.Array, batch_size: int
) -> jax.Array:
    """Equations 15 and 16: the mean of random directions, signed by success; of length 1, or its sign."""

    def small_step(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        step_key = jax.random.fold_in(key, number)
        if task.norm == "l2":
            direction = draw_wide(jax.random.normal, step_key, point.shape, point.dtype)
        else:
            direction = draw_wide(symmetric, step_key, point.shape, point.dtype)
        moved = jnp.clip(point + radius * direction / distance(direction, "l2"), *task.bounds)
        valid = (number < count).astype(point.dtype)
        sign = jnp.where(task.succeeds(moved), valid, -valid)
        return sign, valid * (moved - point) / radius

    def chunk(carry: Any) -> Any:
        start, sign_sum, signed_sum, step_sum = carry
        sign, steps = jax.vmap(small_step)(start + jnp.arange(batch_size))
        return (
            start + batch_size,
            sign_sum + jnp.sum(sign),
            signed_sum + jnp.tensordot(sign, steps, 1),
            step_sum + jnp.sum(steps, axis=0),
        )

    zero = jnp.zeros_like(point)
    carry = (jnp.int32(0), jnp.zeros((), point.dtype), zero, zero)
    _, sign_sum, signed_sum, step_sum = while_loop(lambda carry: carry[0] < count, chunk, carry)
    mean = sign_sum / count.astype(sign_sum.dtype)
    # If all small steps end on one side there is nothing to compare: they count without the mean.
    normal = signed_sum - jnp.where(jnp.abs(mean) < 1, mean, 0) * step_sum
    return steepest(normal, task.norm)


def _leap(
    task: Task, point: jax.Array, normal: jax.Array, length: jax.Array, used: jax.Array, limit: int
) -> tuple[jax.Array, jax.Array]:
    """A step along the normal, halved until it succeeds; no step if the queries are used up before."""

    def attempt(carry: Any) -> Any:
        length, used, _, _ = carry
        moved = jnp.clip(point + length * normal, *task.bounds)
        return length / 2, used + 1, moved, task.succeeds(moved)

    start = (length, used, point, jnp.asarray(False))
    _, used, moved, success = while_loop(lambda carry: (carry[1] < limit) & ~carry[3], attempt, start)
    return jnp.where(success, moved, point), used
