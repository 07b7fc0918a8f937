"""DeepFool: iterated projection onto the nearest linearized decision boundary."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import fast_convolutions
from jaxnn._engine.loops import vary_like, while_loop
from jaxnn._typing import Key, Model, Norm, PyTree, Scalar
from jaxnn.attacks._common import Attack, Bounds, Task, final_result, prepare
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._geometry import distance
from jaxnn.attacks._search import search_radius

# On a boundary the step to it is 0, and would never leave it. The published program adds 1e-4 to each step; a
# fraction of the change so far does not depend on the units of the input.
_BEYOND = 1e-4


def deepfool(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Literal["l2", "linf"] = "l2",
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int = 50,
    overshoot: Scalar = 0.02,
    candidates: int | None = 10,
) -> Attack:
    """DeepFool: step by step to the nearest decision boundary of the linearized model.

    With `g_k` the gradient of `f_k = z_k - z_label` at the current point, each step adds
    `|f_k| / ||g_k||_* * v_k` for the class `k` of the smallest `|f_k| / ||g_k||_*`: for l2 the dual norm
    is l2 and `v_k = g_k / ||g_k||_2`, for linf it is l1 and `v_k = sign(g_k)`. The next point is
    `clip(x + (1 + overshoot) * sum of steps)`; the first one beyond the boundary is returned. For a target
    class or a function the margin itself takes the place of the `f_k`.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"l2"` or `"linf"`.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: unused; accepted so that all attacks can be called alike.
        steps: largest number of steps, at least 1.
        overshoot: the relative length added to the change, beyond a linear boundary, at least 0.
        candidates: number of classes of the largest logits to consider, `label` among them, at least 2; None
            for all. Gradients are computed for these only.

    Returns:
        An `Attack`. Each gradient counts as a query.

    Raises:
        TypeError: an argument of another type.
        ValueError: `steps`, `overshoot` or `candidates` is too small, or as `fgsm` raises.

    References:
        Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep neural
        networks", 2016, arXiv:1511.04599, algorithm 2 and equation 12.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([3 * x[0] + 4 * x[1], 2.5])
        >>> result = attacks.deepfool(model, [0.5, 0.5], 0, overshoot=0.001)
        >>> bool(result.success), round(float(result.distance), 2)
        (True, 0.2)
    """
    steps = _checks.check_integer("steps", steps, at_least=1)
    if candidates is not None:
        candidates = _checks.check_integer("candidates", candidates, at_least=2)
    overshoot = _checks.check_number("overshoot", overshoot, at_least=0)
    task = prepare(
        model, x, label, norm=norm, norms=("l2", "linf"), bounds=bounds, targeted=targeted, key=key
    )
    return _deepfool(task, overshoot, steps=steps, candidates=candidates)


@jax.jit(static_argnames=("steps", "candidates"))
def _deepfool(task: Task, overshoot: jax.Array, *, steps: int, candidates: int | None) -> Attack:
    fixed = lax.stop_gradient(task)
    x, norm = fixed.x, fixed.norm
    output = fixed.model(x)
    margins = _margins(fixed, output, candidates)
    stretch = (1 + overshoot).astype(x.dtype)
    tiny = jnp.finfo(x.dtype).eps * search_radius(fixed)

    def step(carry: Any) -> Any:
        count, candidate, total, _ = carry
        least = jnp.maximum(distance(total, norm), tiny)
        push = fast_convolutions(lambda y: _step(lambda z: margins(fixed.model(z)), y, norm, least))
        change = push(candidate)
        total = total + jnp.where(jnp.isfinite(change), change, 0)  # no gradient where the model gives NaN
        candidate = jnp.clip(x + stretch * total, *fixed.bounds)
        return count + 1, candidate, total, fixed.succeeds(candidate)

    start = (jnp.int32(0), x, jnp.zeros_like(x), fixed.margin(output) > 0)
    count, candidate, *_ = while_loop(lambda carry: (carry[0] < steps) & ~carry[3], step, start)
    gradients = jax.eval_shape(margins, output).size
    return final_result(task, candidate, 1 + count * (gradients + 1))


def _margins(task: Task, output: PyTree, candidates: int | None) -> Callable[[PyTree], jax.Array]:
    """A function from the output to the vector of margins whose boundaries are considered."""
    if task.targeted or callable(task.label):
        return lambda z: task.margin(z)[None]
    rivals = output.size - 1 if candidates is None else min(candidates, output.size) - 1
    others = jnp.where(jnp.arange(output.size) == task.label, -jnp.inf, output)
    classes = lax.top_k(others, rivals)[1]
    return lambda z: z[classes] - z[task.label]


def _step(margins: Callable[[jax.Array], jax.Array], x: jax.Array, norm: Norm, least: jax.Array) -> jax.Array:
    """The smallest change that brings one of the linearized margins to 0, and a little beyond."""
    values, pull = jax.vjp(margins, x)
    rows = vary_like(jnp.eye(values.size, dtype=values.dtype), values)
    gradients = jax.vmap(lambda row: pull(row)[0])(rows)
    sizes = jax.vmap(lambda gradient: distance(gradient, "l2" if norm == "l2" else "l1"))(gradients)
    usable = sizes > 0
    divisors = jnp.where(usable, sizes, 1)
    lengths = jnp.where(usable, jnp.abs(values).astype(sizes.dtype) / divisors, jnp.inf)
    nearest = jnp.argmin(lengths)
    gradient = gradients[nearest]
    length = jnp.where(usable[nearest], lengths[nearest], 0)  # no margin has a gradient
    length = length + _BEYOND * jnp.maximum(length, least)
    return length * (gradient / divisors[nearest] if norm == "l2" else jnp.sign(gradient))
