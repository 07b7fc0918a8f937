"""The compiled parts of training: steps, the end of an epoch, and the evaluation of a held-out set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn._engine.loops import scan
from jaxnn._model import combine
from jaxnn._sharding import model_sharding

Loss = Callable[[Any, Any], jax.Array]  # (output, target) of one example -> scalar


class State(NamedTuple):
    """What training moves.

    Attributes:
        trainable: the model's floating-point arrays, with None for the rest.
        optimizer: the optimizer's state.
        alive: False once training has diverged: nothing moves from there on.
    """

    trainable: Any
    optimizer: Any
    alive: jax.Array


class Sums(NamedTuple):
    """What the steps of an epoch have seen: sums over examples.

    Attributes:
        loss: of the losses.
        right: how many were answered rightly; None where that has no meaning.
        seen: how many there were, int32.
    """

    loss: jax.Array
    right: jax.Array | None
    seen: jax.Array


_STATIC = ("loss", "optimizer", "mesh")


@jax.jit(static_argnames=("examples", "shuffle", "batch_size"))
def order(
    key: jax.Array | None, epoch: Any, *, examples: int, shuffle: bool, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """The examples of each full batch, `(steps, batch_size)`, and those that are left, `(rest,)`."""
    chosen = jnp.arange(examples)
    if key is not None and shuffle:
        chosen = jax.random.permutation(jax.random.fold_in(key, epoch), chosen)
    filled = examples - examples % batch_size
    return chosen[:filled].reshape(-1, batch_size), chosen[filled:]


def _advance(
    state: State,
    sums: Sums | None,
    rest: Any,
    data: Any,
    chosen: jax.Array | None,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None,
) -> tuple[State, Sums]:
    """Take steps.

    Args:
        state: from which.
        sums: of the epoch so far; None at its start.
        rest: of the model, what is not trained.
        data: `(inputs, targets)`.
        chosen: `(steps, batch_size)`, examples of the data; None for one step, on all of them.
        loss: of one example.
        optimizer: of Optax.
        mesh: over whose first axis each batch is spread, and over whose second, if any, the state.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: State, examples: jax.Array | None) -> tuple[State, Sums]:
        batch = data if examples is None else jax.tree.map(lambda a: a[examples], data)
        size = len(jax.tree.leaves(batch)[0])
        inputs, targets = _spread(batch, size, mesh)

        def batch_loss(trainable: Any) -> tuple[jax.Array, Sums]:
            values, right = judge(combine(trainable, rest), inputs, targets, loss)
            seen = Sums(jnp.sum(widened(values)), jax.tree.map(jnp.sum, right), jnp.int32(size))
            return jnp.mean(values), seen

        (value, seen), gradient = jax.value_and_grad(batch_loss, has_aux=True)(state.trainable)
        extra = {"value": value, "grad": gradient, "value_fn": lambda trainable: batch_loss(trainable)[0]}
        updates, new = optimizer.update(gradient, state.optimizer, state.trainable, **extra)
        moved = (optax.apply_updates(state.trainable, updates), new)
        if mesh is not None:  # otherwise the compiler may choose another place for each step
            moved = lax.with_sharding_constraint(moved, model_sharding(moved, mesh))
        return State(*moved, state.alive), seen

    if chosen is None:
        state, added = step(state, None)
    else:
        state, each = scan(step, state, chosen)
        added = jax.tree.map(lambda a: jnp.sum(a, axis=0, dtype=a.dtype), each)
    return state, added if sums is None else jax.tree.map(jnp.add, sums, added)


advance = jax.jit(_advance, static_argnames=_STATIC)
advance_in_place = jax.jit(_advance, static_argnames=_STATIC, donate_argnames=("state", "sums"))


@jax.jit
def close(before: State, after: State, sums: Sums) -> tuple[State, tuple[jax.Array, jax.Array | None]]:
    """End an epoch: the new state, or the old one where the new one is not finite; mean loss, accuracy."""
    alive = before.alive & jnp.isfinite(sums.loss)
    for leaf in jax.tree.leaves(after.trainable):
        alive &= jnp.all(jnp.isfinite(leaf))
    kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), after, before)
    mean_loss = jnp.where(alive, sums.loss / sums.seen, jnp.nan)
    accuracy = None if sums.right is None else sums.right / sums.seen
    return kept._replace(alive=alive), (mean_loss, accuracy)


@jax.jit(static_argnames=("loss",))
def evaluate(trainable: Any, rest: Any, data: Any, *, loss: Loss) -> tuple[jax.Array, jax.Array | None]:
    """The mean loss and the accuracy over a held-out set."""
    model = combine(trainable, rest)

    def one(example: Any) -> tuple[jax.Array, jax.Array | None]:
        inputs, targets = jax.tree.map(lambda a: a[None], example)
        values, right = judge(model, inputs, targets, loss)
        return jax.tree.map(lambda a: a[0], (widened(values), right))

    values, right = lax.map(one, data, batch_size=256)  # memory does not grow with the examples
    return jax.tree.map(jnp.mean, (values, right))


def judge(model: Any, inputs: Any, targets: Any, loss: Loss) -> tuple[jax.Array, jax.Array | None]:
    """The loss and the rightness of each example of a batch, `(batch,)` each."""
    outputs = jax.vmap(model)(inputs)
    return jax.vmap(loss)(outputs, targets), jax.vmap(_is_right)(outputs, targets)


def _is_right(output: Any, target: Any) -> jax.Array | None:
    """1.0 where one example is answered rightly, 0.0 where not; None where that has no meaning."""
    if not isinstance(output, jax.Array) or output.ndim != 1 or output.size < 2:
        return None
    if not isinstance(target, jax.Array):
        return None
    if target.ndim == 0 and jnp.issubdtype(target.dtype, jnp.integer):
        return (jnp.argmax(output) == target).astype(jnp.float32)
    if target.shape == output.shape:
        return (jnp.argmax(output) == jnp.argmax(target)).astype(jnp.float32)
    return None


def widened(values: jax.Array) -> jax.Array:
    """At least float32: a sum of many bfloat16 losses would stop growing."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _spread(batch: Any, size: int, mesh: Mesh | None) -> Any:
    """Divide a batch among the devices; one that does not divide is computed by all of them."""
    if mesh is None or size % mesh.devices.shape[0]:
        return batch
    return lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(mesh.axis_names[0])))
