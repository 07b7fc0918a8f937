"""The nearest decision boundary, taken for flat again and again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import canonical_convolutions
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._common import Attack, Bounds, Model, Task, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._geometry import distance
from jaxnn.attacks._search import constant, extent, finish, number

# On a boundary the way to it is 0, and would never be left. The published program adds 1e-4 to each step; a
# share of the change so far does not depend on the units of the input.
_BEYOND = 1e-4


def deepfool(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "l2",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Any = None,
    steps: int = 50,
    overshoot: Any = 0.02,
    candidates: int | None = 10,
) -> Attack:
    """A small change for another answer: step by step to the nearest boundary of the linearized model.

    With `g_k` the slope of `f_k = z_k - z_label` at the point reached, each step adds
    `|f_k| / ||g_k||_* * v_k` for the class `k` of the smallest `|f_k| / ||g_k||_*`: for l2 the dual norm
    is l2 and `v_k = g_k / ||g_k||_2`, for linf it is l1 and `v_k = sign(g_k)`. The next point is
    `clip(x + (1 + overshoot) * sum of steps)`; the first beyond the boundary is the answer. For a target or
    a function the margin itself takes the place of the `f_k`.

    Args:
        model: a callable of one example with logits `(n_out,)` for an answer.
        x: the example, within the bounds.
        label: its class, an integer in `[0, n_out)`; or a function from the output to a margin, above 0 where
            the attack has succeeded.
        norm: `"l2"` or `"linf"`.
        bounds: `(low, high)`, each a number or of the shape of `x`.
        targeted: whether `label` is the class that is wanted.
        key: not used; here, so that all attacks are called alike.
        steps: at most so many, at least 1.
        overshoot: how much longer the change is made than it has to be for a flat boundary, at least 0.
        candidates: how many of the likeliest classes are considered, `label` among them, at least 2; None for
            all. Slopes are taken of these only.

    Returns:
        An `Attack`. Each slope counts as a query.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `label` or an option is of another
            type.
        ValueError: `x` is not finite or out of the bounds, there is no such label or norm, `steps`,
            `overshoot` or `candidates` is too small.

    References:
        Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep neural
        networks", 2016, arXiv:1511.04599, algorithm 2 and equation 12.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> found = attacks.deepfool(model, [0.5, 0.5], 0, overshoot=0.001)
        >>> bool(found.success), round(float(found.distance), 2)
        (True, 0.2)
    """
    steps = _checks.check_integer("steps", steps, at_least=1)
    if candidates is not None:
        candidates = _checks.check_integer("candidates", candidates, at_least=2)
    overshoot = number("overshoot", overshoot, at_least=0)
    task, restored = prepare(
        model, x, label, norm=norm, norms=("l2", "linf"), bounds=bounds, targeted=targeted, key=key
    )
    return restored(
        _deepfool(task, overshoot, norm=norm, targeted=targeted, steps=steps, candidates=candidates)
    )


@jax.jit(static_argnames=("norm", "targeted", "steps", "candidates"))
def _deepfool(
    task: Task, overshoot: jax.Array, *, norm: str, targeted: bool, steps: int, candidates: int | None
) -> Attack:
    fixed = constant(task)
    margin, x = margin_of(fixed.label, targeted), fixed.x
    output = fixed.model(x)
    reach = (1 + overshoot).astype(x.dtype)
    aims = _aims(fixed, output, margin, targeted, candidates)
    tiny = jnp.finfo(x.dtype).eps * extent(fixed)

    def step(carry: Any) -> Any:
        count, candidate, total, _ = carry
        least = jnp.maximum(distance(total, norm), tiny)
        push = canonical_convolutions(lambda y: _step(lambda z: aims(fixed.model(z)), y, norm, least))
        change = push(candidate)
        total = total + jnp.where(jnp.isfinite(change), change, 0)  # no way out of where the model is NaN
        candidate = jnp.clip(x + reach * total, *fixed.bounds)
        return count + 1, candidate, total, margin(fixed.model(candidate)) > 0

    start = vary_like((jnp.int32(0), x, jnp.zeros_like(x), margin(output) > 0), x)
    count, candidate, *_ = lax.while_loop(lambda carry: (carry[0] < steps) & ~carry[3], step, start)
    slopes = jax.eval_shape(aims, output).size
    return finish(task, candidate, margin_of(task.label, targeted), norm, 1 + count * (slopes + 1))


def _aims(
    task: Task, output: jax.Array, margin: Callable[..., Any], targeted: bool, candidates: int | None
) -> Callable[[jax.Array], jax.Array]:
    """The margins whose boundaries are aimed at: a vector of them, as a function of the output."""
    if targeted or callable(task.label):
        return lambda z: margin(z)[None]
    rivals = output.size - 1 if candidates is None else min(candidates, output.size) - 1
    others = jnp.where(jnp.arange(output.size) == task.label, -jnp.inf, output)
    classes = lax.top_k(others, rivals)[1]
    return lambda z: z[classes] - z[task.label]


def _step(gaps: Callable[[jax.Array], jax.Array], x: jax.Array, norm: str, least: jax.Array) -> jax.Array:
    """The shortest change that brings one of the linearized gaps to 0, and a little more."""
    values, pull = jax.vjp(gaps, x)
    rows = vary_like(jnp.eye(values.size, dtype=values.dtype), values)
    slopes = jax.vmap(lambda row: pull(row)[0])(rows)
    dual = {"l2": "l2", "linf": "l1"}[norm]
    sizes = jax.vmap(lambda slope: distance(slope, dual))(slopes)
    tiny = jnp.asarray(1e-8, sizes.dtype)
    lengths = jnp.abs(values).astype(sizes.dtype) / (sizes + tiny)
    nearest = jnp.argmin(lengths)
    slope, length = slopes[nearest], lengths[nearest]
    length = length + _BEYOND * jnp.maximum(length, least)
    return length * (slope / (sizes[nearest] + tiny) if norm == "l2" else jnp.sign(slope))
