"""Universal adversarial perturbations: one change for all examples."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.cpu_layout import fast_convolutions
from jaxnn._engine.held import floats, integers, put_back
from jaxnn._engine.loops import scan, vary_like
from jaxnn._model import as_example, check_batch_like
from jaxnn._repr import short_repr
from jaxnn._typing import AttackLoss, Key, Labels, Model, Norm, PyTree, Scalar
from jaxnn.attacks._climb import check_steps
from jaxnn.attacks._common import Bounds, Task, check_within, prepare, ravel, with_held
from jaxnn.attacks._criteria import Margin
from jaxnn.attacks._geometry import distance, project, steepest
from jaxnn.attacks._loss import check_loss, loss_of


class Universal(NamedTuple):
    """The result of `universal`.

    Attributes:
        change: of the structure, shapes and dtypes of one input: the perturbation, added to each input, in
            the ball.
        success: `(N,)` bools, whether the model's output for each perturbed input, clipped to the bounds and
            evaluated once more at the end, meets the criterion; False where it is NaN.
        distance: a scalar, the size of `change` in the norm of the attack.
        queries: an int32, the number of evaluations of the model, over all inputs.
    """

    change: PyTree
    success: jax.Array
    distance: jax.Array
    queries: jax.Array

    def __repr__(self) -> str:
        return short_repr(self)


def universal(
    model: Model,
    inputs: PyTree,
    labels: Labels | Margin,
    *,
    norm: Norm = "linf",
    epsilon: Scalar,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key,
    epochs: int = 10,
    batch_size: int = 32,
    relative_step_size: Scalar = 0.1,
    loss: AttackLoss = "cross_entropy",
) -> Universal:
    """Universal adversarial perturbation: one change in the ball that succeeds on most examples.

    For each batch `v <- P(v + relative_step_size * epsilon * d)`, where `d` is the steepest direction, as in
    `fgsm`, of the mean loss of the examples of the batch on which the change does not yet succeed, and `P`
    the projection onto the ball. The examples are shuffled in each epoch, and incomplete batches are dropped.
    The change with the most successes after an epoch is returned.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        inputs: `(N, ...)`, an array or a pytree of arrays, one example per row, within the bounds.
        labels: `(N,)`, the true labels in `[0, n_out)`, or the target classes if `targeted`; or one function
            from the output to a margin, for all; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of the ball of changes in that norm, at least 0.
        bounds: `(low, high)` of the inputs; see `fgsm`.
        targeted: whether `labels` are the target classes.
        key: a JAX random key, for the order of the examples.
        epochs: number of passes over the examples, at least 1.
        batch_size: number of examples per step, at least 1.
        relative_step_size: size of each step as a fraction of epsilon, above 0.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        A `Universal`. The perturbed input of an example is `clip(x + change)`.

    Raises:
        TypeError: an argument of another type.
        ValueError: no inputs, or lengths that differ; `epochs` or `batch_size` is below 1,
            `relative_step_size` not above 0; or as `fgsm` raises.

    References:
        Moosavi-Dezfooli, Fawzi, Fawzi and Frossard, "Universal adversarial perturbations", 2016,
        arXiv:1610.08401; by gradient steps over batches: Shafahi, Najibi, Xu, Dickerson, Davis and Goldstein,
        "Universal adversarial training", 2018, arXiv:1811.11304.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> inputs = jnp.array([[0.6, 0.5], [0.9, 0.8], [0.9, 0.1]])
        >>> result = attacks.universal(
        ...     model, inputs, jnp.zeros(3, int), epsilon=0.1, key=jax.random.key(0), batch_size=1)
        >>> result.success.tolist()
        [True, True, False]
    """
    epochs = check_steps(epochs, "epochs")
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    step_size = _checks.check_number("relative_step_size", relative_step_size, above=0)
    inputs = as_example("inputs", inputs)
    first = jax.tree.map(lambda leaf: leaf[0] if leaf.ndim and len(leaf) else leaf, inputs)
    inputs = check_batch_like("inputs", inputs, first)
    count = len(jax.tree.leaves(inputs)[0])
    classes = None
    if not callable(labels):
        classes = _checks.check_array("labels", labels)
        _checks.check_shape("labels", classes, (count,), "one label per input")
        _checks.check_values("labels", classes, at_least=0, below=2**31)
    task = prepare(
        model, first, labels if classes is None else _largest(classes), norm=norm, epsilon=epsilon,
        bounds=bounds, key=key, needs_key=True, targeted=targeted, needs_epsilon=True, name="inputs",
    )  # fmt: skip
    check_loss(task, loss)
    rows = jax.vmap(lambda x: ravel(floats(x)))(inputs)
    check_within("inputs", rows, task.bounds)
    rows = vary_like(rows, (rows, task))
    return _universal(
        task, rows, integers(inputs), None if classes is None else classes.astype(jnp.int32), key, step_size,
        loss=loss, epochs=epochs, batch_size=min(batch_size, count),
    )  # fmt: skip


@jax.ensure_compile_time_eval()
def _largest(classes: jax.Array) -> jax.Array:
    return jnp.max(classes)


class _State(NamedTuple):
    change: jax.Array
    best: jax.Array
    successes: jax.Array  # the number of successes of the best


@jax.jit(static_argnames=("loss", "epochs", "batch_size"))
def _universal(
    task: Task,
    rows: jax.Array,
    held: list[jax.Array],
    labels: jax.Array | None,
    key: Key,
    step_size: jax.Array,
    *,
    loss: AttackLoss,
    epochs: int,
    batch_size: int,
) -> Universal:
    fixed, rows = lax.stop_gradient((task, rows))
    norm, size = fixed.norm, (step_size * fixed.epsilon).astype(rows.dtype)
    batches = len(rows) // batch_size

    def task_of(number: jax.Array) -> Task:
        label = fixed.label if labels is None else labels[number]
        one = dataclasses.replace(fixed, x=rows[number], label=label)
        return with_held(one, [leaf[number] for leaf in held])

    def succeeds(change: jax.Array, number: jax.Array) -> jax.Array:
        one = task_of(number)
        return one.succeeds(one.confine(one.x + change))

    def loss_at(change: jax.Array, number: jax.Array) -> jax.Array:
        one = task_of(number)
        z = one.model(jnp.clip(one.x + change, *one.bounds))
        return jnp.where(one.margin(z) > 0, 0, loss_of(one, loss)(z))

    def batch(change: jax.Array, numbers: jax.Array) -> tuple[jax.Array, None]:
        mean_loss = lambda v: jnp.mean(jax.vmap(loss_at, (None, 0))(v, numbers))  # noqa: E731
        gradient = fast_convolutions(jax.grad(mean_loss))(change)
        return project(change + size * steepest(gradient, norm), norm, fixed.epsilon), None

    def epoch(state: _State, number: jax.Array) -> tuple[_State, None]:
        order = jax.random.permutation(jax.random.fold_in(key, number), len(rows))
        numbers = order[: batches * batch_size].reshape(batches, batch_size)
        change = scan(batch, state.change, numbers, hoist=False)[0]
        count = jnp.sum(successes(change))
        best = jnp.where(count > state.successes, change, state.best)
        return _State(change, best, jnp.maximum(count, state.successes)), None

    def successes(change: jax.Array) -> jax.Array:
        return lax.map(lambda i: succeeds(change, i), jnp.arange(len(rows)), batch_size=batch_size)

    zero = jnp.zeros_like(rows[0])
    best = scan(epoch, _State(zero, zero, jnp.array(-1)), jnp.arange(epochs), hoist=False)[0].best
    queries = epochs * (batches * batch_size + len(rows)) + len(rows)
    change = put_back(task.unravel(best), [jnp.zeros_like(leaf[0]) for leaf in held])
    return Universal(change, successes(best), distance(best, norm), jnp.asarray(queries, jnp.int32))
