"""One change for all examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import canonical_convolutions
from jaxnn._engine.loops import vary_like
from jaxnn._model import as_example as model_inputs, check_batch_like
from jaxnn.attacks._common import Attack, Bounds, Model, Task, check_within, prepare, raveled
from jaxnn.attacks._criteria import margin_of
from jaxnn.attacks._geometry import confine, distance, project, steepest
from jaxnn.attacks._gradient import check_number
from jaxnn.attacks._loss import LOSSES, check_dlr, loss_of
from jaxnn.attacks._search import constant


class Universal(NamedTuple):
    """What `universal` gives.

    Attributes:
        change: of the structure, shapes and dtypes of one input: what is added to each of them, in the ball.
        success: `(N,)` bools, whether the model's answer to each changed input, cut to the bounds and asked
            once more in the end, is what the attack wanted; false where it is NaN.
        distance: a scalar, the size of `change` in the norm of the attack.
        queries: an int32, how often the model was evaluated, over all inputs.
    """

    change: Any
    success: jax.Array
    distance: jax.Array
    queries: jax.Array


def universal(
    model: Model,
    inputs: Any,
    labels: Any,
    *,
    norm: str = "linf",
    epsilon: Any,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array,
    epochs: int = 10,
    batch_size: int = 32,
    step: Any = 0.1,
    loss: str = "cross_entropy",
) -> Universal:
    """One change in the ball that alters the answers to as many examples as it can.

    For each batch `v <- P(v + step * epsilon * d)`, `d` being the steepest direction, as in `fgsm`, of the
    mean loss of the examples in it that the change does not yet alter the answer to, and `P` the projection
    onto the ball. The examples come in a new order in each epoch, whole batches only; the change that alters
    most answers after an epoch is kept.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        inputs: `(N, ...)`, an array or a pytree of arrays, an example a row, within the bounds.
        labels: `(N,)`, the true labels in `[0, n_out)`, or where `targeted` the wanted ones; or a function
            from the output to a margin, for all; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far each input may be moved, in that norm, at least 0.
        bounds: `(low, high)` of the inputs.
        targeted: whether `labels` are the wanted ones.
        key: a JAX random key, for the order of the examples.
        epochs: how often each is seen, at least 1.
        batch_size: examples a step, at least 1.
        step: the size of each step, as a share of epsilon, above 0.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        A `Universal`. What it did to an example is `clip(x + change)`.

    Raises:
        TypeError: an argument of another type.
        ValueError: no inputs, or lengths that differ; `epochs` or `batch_size` is below 1, `step` not above
            0; or as `fgsm` raises.

    References:
        Moosavi-Dezfooli, Fawzi, Fawzi and Frossard, "Universal adversarial perturbations", 2016,
        arXiv:1610.08401; by gradient steps over batches: Shafahi, Najibi, Xu, Dickerson, Davis and Goldstein,
        "Universal adversarial training", 2018, arXiv:1811.11304.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> inputs = jnp.array([[0.6, 0.5], [0.9, 0.8], [0.9, 0.1]])
        >>> found = attacks.universal(
        ...     model, inputs, jnp.zeros(3, int), epsilon=0.1, key=jax.random.key(0), batch_size=1)
        >>> found.success.tolist()
        [True, True, False]
    """
    epochs = _checks.check_integer("epochs", epochs, at_least=1)
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    step = check_number("step", step)
    if _checks.known_false((step > 0) & jnp.isfinite(step)):
        raise ValueError(f"`step` must be above 0; got {step}")
    _checks.check_option("loss", loss, LOSSES)
    inputs = model_inputs("inputs", inputs)
    first = jax.tree.map(lambda leaf: leaf[0] if leaf.ndim and len(leaf) else leaf, inputs)
    inputs = check_batch_like("inputs", inputs, first)
    count = len(jax.tree.leaves(inputs)[0])
    if not callable(labels):
        labels = _checks.check_array("labels", labels)
        _checks.check_shape("labels", labels, (count,), "a label an input")
        if _checks.known_false(jnp.all(labels >= 0)):
            raise ValueError(f"`labels` must be at least 0; got {jnp.min(labels)}")
    label = labels if callable(labels) else jnp.max(labels)
    task, restored = prepare(
        model, first, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, needs_key=True,
        targeted=targeted, needs_epsilon=True, name="inputs",
    )  # fmt: skip
    check_dlr(task, loss, targeted)
    rows = jax.vmap(lambda x: raveled(x)[0])(inputs)
    check_within("inputs", rows, task.bounds)
    rows = vary_like(rows, (rows, task))
    found = _universal(
        task, rows, None if callable(labels) else labels.astype(jnp.int32), key, step, norm=norm,
        targeted=targeted, loss=loss, epochs=epochs, batch_size=min(batch_size, count),
    )  # fmt: skip
    change = restored(Attack(found.change, *found[1:])).input
    return found._replace(change=change)


class _State(NamedTuple):
    change: jax.Array
    best: jax.Array
    fooled: jax.Array  # how many the best alters


@jax.jit(static_argnames=("norm", "targeted", "loss", "epochs", "batch_size"))
def _universal(
    task: Task,
    rows: jax.Array,
    labels: jax.Array | None,
    key: jax.Array,
    step: jax.Array,
    *,
    norm: str,
    targeted: bool,
    loss: str,
    epochs: int,
    batch_size: int,
) -> Universal:
    fixed, rows = constant(task), lax.stop_gradient(rows)
    size = (step * fixed.epsilon).astype(rows.dtype)
    batches = len(rows) // batch_size

    def of(number: jax.Array) -> Task:
        return fixed._replace(x=rows[number], label=fixed.label if labels is None else labels[number])

    def moved(task: Task, change: jax.Array) -> jax.Array:
        return confine(task.x, task.x + change, norm, task.epsilon, task.bounds)

    def succeeds(change: jax.Array, number: jax.Array) -> jax.Array:
        task = of(number)
        return margin_of(task.label, targeted)(task.model(moved(task, change))) > 0

    def price(change: jax.Array, number: jax.Array) -> jax.Array:
        task = of(number)
        z = task.model(jnp.clip(task.x + change, *task.bounds))
        wanted = ~(margin_of(task.label, targeted)(z) > 0)
        return jnp.where(wanted, loss_of(task, loss, targeted)(z), 0)

    def batch(change: jax.Array, numbers: jax.Array) -> tuple[jax.Array, None]:
        slope = canonical_convolutions(jax.grad(lambda v: jnp.mean(jax.vmap(price, (None, 0))(v, numbers))))(
            change
        )
        return project(change + size * steepest(slope, norm), norm, fixed.epsilon), None

    def epoch(state: _State, number: jax.Array) -> tuple[_State, None]:
        order = jax.random.permutation(jax.random.fold_in(key, number), len(rows))
        taken = order[: batches * batch_size].reshape(batches, batch_size)
        change = lax.scan(batch, state.change, taken)[0]
        count = jnp.sum(judged(change))
        better = count > state.fooled
        best = jnp.where(better, change, state.best)
        return _State(change, best, jnp.maximum(count, state.fooled)), None

    def judged(change: jax.Array) -> jax.Array:
        return lax.map(lambda i: succeeds(change, i), jnp.arange(len(rows)), batch_size=batch_size)

    none = jnp.zeros_like(rows[0])
    start = vary_like(_State(none, none, jnp.array(-1)), (rows, fixed))
    best = lax.scan(epoch, start, jnp.arange(epochs))[0].best
    queries = epochs * (batches * batch_size + len(rows)) + len(rows)
    return Universal(best, judged(best), distance(best, norm), jnp.asarray(queries, jnp.int32))
