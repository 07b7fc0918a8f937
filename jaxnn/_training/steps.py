"""The compiled parts of training: steps, the end of an epoch, and the evaluation of a held-out set."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn._engine.loops import scan
from jaxnn._precision import widen
from jaxnn._sharding import model_sharding
from jaxnn._typing import Examples, Loss, Model, PyTree

Rebuild: TypeAlias = Callable[[PyTree], Model]  # trainable -> model; a pytree of the other arrays
Evaluation: TypeAlias = tuple[jax.Array, jax.Array | None]  # loss, and accuracy where it has a meaning


class State(NamedTuple):
    """The training state.

    Attributes:
        trainable: the model's floating-point arrays, with None for the rest.
        optimizer: the optimizer's state.
        finite: scalar; False once the loss or a parameter is not finite; later updates are skipped.
    """

    trainable: PyTree
    optimizer: PyTree
    finite: jax.Array


class Sums(NamedTuple):
    """Sums over the examples that the steps of an epoch have seen.

    Attributes:
        loss: the sum of their losses.
        correct: the number of correct predictions; None where that has no meaning.
        seen: their number, int32.
    """

    loss: jax.Array
    correct: jax.Array | None
    seen: jax.Array


def _advance(
    state: State,
    sums: Sums | None,
    rebuild: Rebuild,
    data: Examples,
    rows: jax.Array | None,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None,
) -> tuple[State, Sums]:
    """Take steps.

    Args:
        state: the state before them.
        sums: of the epoch so far; None at its start.
        rebuild: from the trainable arrays to the model.
        data: `(inputs, targets)`.
        rows: `(steps, batch_size)`, the examples of each step; None for one step on all of them.
        loss: the loss of one example.
        optimizer: an Optax optimizer.
        mesh: devices; its first axis divides each batch, its second, if any, the state.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: State, examples: jax.Array | None) -> tuple[State, Sums]:
        batch = data if examples is None else jax.tree.map(lambda a: a[examples], data)
        size = len(jax.tree.leaves(batch)[0])
        batch = _divide_batch(batch, size, mesh)

        def batch_loss(trainable: PyTree) -> tuple[jax.Array, Sums]:
            losses, correct = evaluate_batch(rebuild(trainable), batch, loss)
            added = Sums(jnp.sum(widen(losses)), jax.tree.map(jnp.sum, correct), jnp.int32(size))
            return jnp.mean(losses), added

        (value, added), gradient = jax.value_and_grad(batch_loss, has_aux=True)(state.trainable)
        extra = {"value": value, "grad": gradient, "value_fn": lambda trainable: batch_loss(trainable)[0]}
        with jax.numpy_dtype_promotion("standard"):  # Optax itself mixes dtypes
            updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trainable, **extra)
            updated = (optax.apply_updates(state.trainable, updates), optimizer_state)
        if mesh is not None:  # otherwise the compiler may choose another placement for each step
            updated = lax.with_sharding_constraint(updated, model_sharding(updated, mesh))
        return State(*updated, state.finite), added

    if rows is None:
        state, added = step(state, None)
    else:
        state, each = scan(step, state, rows)
        added = jax.tree.map(lambda a: jnp.sum(a, axis=0, dtype=a.dtype), each)
    return state, added if sums is None else jax.tree.map(jnp.add, sums, added)


_STATIC = ("loss", "optimizer", "mesh")
advance = jax.jit(_advance, static_argnames=_STATIC)
advance_in_place = jax.jit(_advance, static_argnames=_STATIC, donate_argnames=("state", "sums"))


@jax.jit
def end_epoch(before: State, after: State, sums: Sums) -> tuple[State, Evaluation]:
    """End an epoch: the new state, or the old one where the new one is not finite; mean loss, accuracy."""
    finite = before.finite & jnp.isfinite(sums.loss)
    for leaf in jax.tree.leaves(after.trainable):
        finite &= jnp.all(jnp.isfinite(leaf))
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    mean_loss = jnp.where(finite, sums.loss / sums.seen.astype(sums.loss.dtype), jnp.nan)
    accuracy = None if sums.correct is None else sums.correct / sums.seen.astype(sums.correct.dtype)
    return state._replace(finite=finite), (mean_loss, accuracy)


@jax.jit(static_argnames=("loss",))
def evaluate(trainable: PyTree, rebuild: Rebuild, data: Examples, *, loss: Loss) -> Evaluation:
    """The mean loss and the accuracy over a held-out set."""
    model = rebuild(trainable)

    def evaluate_one(example: Examples) -> Evaluation:
        losses, correct = evaluate_batch(model, jax.tree.map(lambda a: a[None], example), loss)
        return jax.tree.map(lambda a: a[0], (widen(losses), correct))

    # In chunks: memory does not grow with the number of examples.
    return jax.tree.map(jnp.mean, lax.map(evaluate_one, data, batch_size=256))


def evaluate_batch(model: Model, batch: Examples, loss: Loss) -> Evaluation:
    """The loss of each example of a batch, and whether its prediction is correct, `(batch,)` each."""
    inputs, targets = batch
    outputs = jax.vmap(model)(inputs)
    return jax.vmap(loss)(outputs, targets), jax.vmap(_is_correct)(outputs, targets)


def _is_correct(output: Any, target: Any) -> jax.Array | None:
    """1.0 for a correct prediction of one example, 0.0 for another; None where that has no meaning."""
    if not isinstance(output, jax.Array) or output.ndim != 1 or output.size < 2:
        return None
    if not isinstance(target, jax.Array):
        return None
    if target.ndim == 0 and jnp.issubdtype(target.dtype, jnp.integer):
        return (jnp.argmax(output) == target).astype(jnp.float32)
    if target.shape == output.shape:
        return (jnp.argmax(output) == jnp.argmax(target)).astype(jnp.float32)
    return None


def _divide_batch(batch: Examples, size: int, mesh: Mesh | None) -> Examples:
    """Divide a batch among the devices; one that does not divide is computed by all of them."""
    if mesh is None or size % mesh.devices.shape[0]:
        return batch
    return lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(mesh.axis_names[0])))
