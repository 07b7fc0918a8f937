"""Train any model: one compiled scan over the batches of an epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import _checks, losses
from jaxnn._loops import scan
from jaxnn._model import Model, combine, partition
from jaxnn._progress import progress_bar
from jaxnn._sharding import automatic, check_mesh, vary_like, with_automatic_axes
from jaxnn._train_checks import check_examples, check_loss, check_model, check_options

Loss = Callable[[Any, Any], jax.Array]  # (output, target) of one example -> scalar

_SGD = optax.sgd(0.1)  # made once: an optimizer is a static argument, and a new one compiles anew


class History(NamedTuple):
    """What training saw, epoch by epoch.

    Attributes:
        loss: `(epochs,)`, the mean loss of the examples, each as it was before the step it took part in.
        accuracy: `(epochs,)` in [0, 1], the share of them answered rightly at that moment: the largest
            output at the target's largest entry, or at the integer label. None for models whose output
            is no vector of at least two entries, or whose target is neither of these.
        validation_loss: `(epochs,)`, the mean loss on the validation set after the epoch; or None.
        validation_accuracy: `(epochs,)`, likewise; or None.
    """

    loss: jax.Array
    accuracy: jax.Array | None = None
    validation_loss: jax.Array | None = None
    validation_accuracy: jax.Array | None = None


class TrainingDivergedError(ArithmeticError):
    """The loss or a parameter stopped being finite.

    Attributes:
        epoch: the epoch in which it happened, from 1.
        model: the last good model, from the end of the epoch before (the initial one for epoch 1).
        history: the `History` of the good epochs.
    """

    def __init__(self, epoch: int, model: Any, history: History):
        super().__init__(
            f"training diverged in epoch {epoch}: the loss or a parameter is no longer finite. The model "
            "from before that epoch is in this error's `model`; try a smaller learning rate"
        )
        self.epoch, self.model, self.history = epoch, model, history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.epoch, self.model, self.history)


class _State(NamedTuple):
    trainable: Any
    optimizer: Any
    alive: jax.Array  # False once training has diverged: nothing moves from there on


def train(
    model: Model,
    inputs: Any,
    targets: Any,
    *,
    epochs: int,
    batch_size: int,
    key: jax.Array | None = None,
    optimizer: optax.GradientTransformation = _SGD,
    loss: Loss = losses.squared_error,
    shuffle: bool = True,
    validation: tuple[Any, Any] | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> tuple[Model, History]:
    """Train a model by stochastic gradient descent, a compiled scan over the batches of each epoch.

    A step takes the exact gradient of the mean loss of its batch with respect to every floating-point array
    of the model: `w <- w + optimizer(grad mean_b loss(model(x_b), t_b))`. What the adapters and `intervene`
    hold, such as running statistics, stays as it is; anything else that is not to be trained is closed over,
    or masked with `optax.masked`. The last batch of an epoch holds whatever is left, so every example is
    seen once. The caller's arrays stay as they were.

    The optimizer and the loss are compiled in, and recognized by identity: make each once and pass the
    same object again, and a second call with arrays of the same shapes compiles nothing. Weight decay
    is part of the optimizer (`optax.adamw`, `optax.add_decayed_weights`).

    It composes: under `jax.vmap` (over keys, models or data) many models train at once; under `jax.grad` and
    `jax.jit` it is a function as any other. Traced values are not checked there, so a model that diverges
    stays at its last good epoch, with losses of NaN from there on in the history. A traced
    hyperparameter, such as a vector of learning rates to `vmap` over, goes through
    `optax.inject_hyperparams`.

    Args:
        model: a callable pytree of one example, `model(x) -> y`: a `Network`, or
            `jax.tree_util.Partial(apply, params)` for any other pure function.
        inputs: `(N, ...)`, an array or a pytree of arrays, an example a row.
        targets: `(N, ...)`, likewise; for `losses.cross_entropy` also integer labels `(N,)`.
        epochs: how often each example is seen, at least 1.
        batch_size: examples a step, at least 1; the book's networks train with 1.
        key: a random key for the order of the examples; needed where `shuffle` is on.
        optimizer: an Optax optimizer; one that asks for the loss's value, such as `optax.lbfgs`, gets it.
        loss: `loss(output, target) -> scalar` of one example.
        shuffle: draw a new order for each epoch, or take the examples in the given one.
        validation: `(inputs, targets)` to evaluate after each epoch, or None.
        mesh: devices to spread each batch over, along the first axis of the mesh; parameters and data are
            replicated. `batch_size` must be a multiple of that axis's size. The steps equal those on one
            device, up to rounding.
        progress: draw a bar (with rich).

    Returns:
        `(model, history)`: the trained model, of the same structure, and a `History`.

    Raises:
        ValueError: lengths that differ, no examples, values that are not finite, options out of range.
        TypeError: a model that is not callable, or has leaves that are not arrays or nothing to train.
        TrainingDivergedError: the loss or a parameter is no longer finite; it carries the last good model.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn, optax
        >>> model = jaxnn.init(jax.random.key(0), (2, 8, 1))
        >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> t = jnp.array([[0.0], [1.0], [1.0], [0.0]])  # exclusive or
        >>> model, history = jaxnn.train(model, x, t, epochs=500, batch_size=1, key=jax.random.key(1),
        ...                              optimizer=optax.adam(0.1))
        >>> jnp.round(jaxnn.query(model, x)).ravel().tolist()
        [0.0, 1.0, 1.0, 0.0]
    """
    check_model(model, loss)
    check_options(optimizer, key, shuffle)
    epochs = _checks.check_integer("epochs", epochs, at_least=1)
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    data = check_examples("inputs", inputs, "targets", targets)
    held_out = None
    if validation is not None:
        if not isinstance(validation, tuple) or len(validation) != 2:
            raise TypeError("`validation` must be a pair (inputs, targets)")
        held_out = check_examples("validation[0]", validation[0], "validation[1]", validation[1])
    check_loss(model, data, loss)
    if mesh is not None:
        check_mesh(mesh, batch_size)
        mesh = automatic(mesh)
        everywhere = NamedSharding(mesh, PartitionSpec())
        model, data, held_out, key = jax.device_put((model, data, held_out, key), everywhere)
    model, data, held_out = with_automatic_axes((model, data, held_out))

    trainable, rest = partition(model)
    trainable, alive = vary_like((trainable, jnp.array(True)), (trainable, rest, data, key))
    state = _State(trainable, optimizer.init(trainable), alive)
    # Copies, ours to donate: the caller keeps his, and an optimizer may hold one buffer twice.
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
    if mesh is not None:  # what the optimizer made anew, too: another placement would compile anew
        state = jax.device_put(state, everywhere)
    # A traced state cannot be donated: under vmap the new one may have an axis that the old one lacks.
    concrete = _checks.is_concrete((state, rest, data, key))
    run = _run_epoch_in_place if concrete else _run_epoch
    records: list[History] = []  # one an epoch, of scalars
    with progress_bar("training", epochs, enabled=progress) as advance:
        for epoch in range(epochs):
            order_key = jax.random.fold_in(key, epoch) if key is not None and shuffle else None
            state, (mean_loss, accuracy) = run(
                state, rest, data, order_key, loss=loss, optimizer=optimizer,
                batch_size=batch_size, mesh=mesh,
            )  # fmt: skip
            if _checks.known_false(state.alive):
                model = combine(state.trainable, rest)
                raise TrainingDivergedError(epoch + 1, model, _history(records))
            checked = (None, None)
            if held_out is not None:
                checked = _evaluate(state.trainable, rest, held_out, loss=loss)
            records.append(History(mean_loss, accuracy, *checked))
            if progress:  # to be shown, the numbers are copied to the host
                advance(_shown(mean_loss, accuracy))
    return combine(state.trainable, rest), _history(records)


def _epoch(
    state: _State,
    rest: Any,
    data: Any,
    order_key: jax.Array | None,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    mesh: Mesh | None,
) -> tuple[_State, tuple[jax.Array, jax.Array | None]]:
    """One pass over the data; gives back the old state where the new one is not finite."""
    examples = len(jax.tree.leaves(data)[0])
    order = jnp.arange(examples)
    if order_key is not None:
        order = jax.random.permutation(order_key, order)

    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: _State, chosen: jax.Array) -> tuple[_State, tuple[jax.Array, jax.Array | None]]:
        inputs, targets = _spread(jax.tree.map(lambda a: a[chosen], data), len(chosen), mesh)

        def batch_loss(trainable: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None]]:
            values, right = _judge(combine(trainable, rest), inputs, targets, loss)
            sums = jnp.sum(_widened(values)), jax.tree.map(jnp.sum, right)
            return jnp.mean(values), sums

        (value, sums), gradient = jax.value_and_grad(batch_loss, has_aux=True)(state.trainable)
        extra = {"value": value, "grad": gradient, "value_fn": lambda trainable: batch_loss(trainable)[0]}
        updates, new = optimizer.update(gradient, state.optimizer, state.trainable, **extra)
        return _State(optax.apply_updates(state.trainable, updates), new, state.alive), sums

    filled = examples - examples % batch_size
    new, sums = scan(step, state, order[:filled].reshape(-1, batch_size))
    sums = jax.tree.map(jnp.sum, sums)
    if filled < examples:
        new, last = step(new, order[filled:])
        sums = jax.tree.map(jnp.add, sums, last)
    loss_sum, right = sums
    alive = state.alive & jnp.isfinite(loss_sum)
    for leaf in jax.tree.leaves(new.trainable):
        alive &= jnp.all(jnp.isfinite(leaf))
    kept = jax.tree.map(lambda after, before: jnp.where(alive, after, before), new, state)
    mean_loss = jnp.where(alive, loss_sum / examples, jnp.nan)
    accuracy = None if right is None else right / examples
    return kept._replace(alive=alive), (mean_loss, accuracy)


_STATIC = ("loss", "optimizer", "batch_size", "mesh")
_run_epoch = jax.jit(_epoch, static_argnames=_STATIC)
_run_epoch_in_place = jax.jit(_epoch, static_argnames=_STATIC, donate_argnames=("state",))


@jax.jit(static_argnames=("loss",))
def _evaluate(trainable: Any, rest: Any, data: Any, *, loss: Loss) -> tuple[jax.Array, jax.Array | None]:
    model = combine(trainable, rest)

    def one(example: Any) -> tuple[jax.Array, jax.Array | None]:
        inputs, targets = jax.tree.map(lambda a: a[None], example)
        values, right = _judge(model, inputs, targets, loss)
        return jax.tree.map(lambda a: a[0], (_widened(values), right))

    values, right = lax.map(one, data, batch_size=256)  # memory does not grow with the examples
    return jax.tree.map(jnp.mean, (values, right))


def _judge(model: Any, inputs: Any, targets: Any, loss: Loss) -> tuple[jax.Array, jax.Array | None]:
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


def _widened(values: jax.Array) -> jax.Array:
    """At least float32: a sum of many bfloat16 losses would stop growing."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _spread(batch: Any, size: int, mesh: Mesh | None) -> Any:
    """Divide a batch among the devices; one that does not divide is computed by all of them."""
    if mesh is None or size % mesh.devices.shape[0]:
        return batch
    return lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(mesh.axis_names[0])))


def _history(records: list[History]) -> History:
    if not records:
        return History(jnp.zeros(0))
    return jax.tree.map(lambda *epochs: jnp.stack(epochs), *records)


def _shown(mean_loss: jax.Array, accuracy: jax.Array | None) -> str:
    if not _checks.is_concrete(mean_loss):
        return "traced"
    return f"loss {mean_loss:.4f}" + ("" if accuracy is None else f", accuracy {accuracy:.4f}")
