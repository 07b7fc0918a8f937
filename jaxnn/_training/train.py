"""Train any model: compiled scans over the batches of an epoch."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import _checks, losses
from jaxnn._engine.loops import vary_like
from jaxnn._model import ModelT, combine, partition
from jaxnn._progress import progress_bar
from jaxnn._serialization import activations_of
from jaxnn._sharding import automatic, check_mesh, model_sharding, put, with_automatic_axes
from jaxnn._training.checkpoints import Standing, beginning, checkpoints, fingerprint, last, store
from jaxnn._training.data import Feed, batches, examples
from jaxnn._training.history import (
    History as History,
    TrainingDivergedError as TrainingDivergedError,
    together,
)
from jaxnn._training.prepare import (
    check_checkpoints,
    check_examples,
    check_loss,
    check_model,
    check_options,
    check_validation,
)
from jaxnn._training.steps import Loss, State, advance, advance_in_place, close, evaluate

_SGD = optax.sgd(0.1)  # made once: an optimizer is a static argument, and a new one compiles anew


def train(
    model: ModelT,
    inputs: Any | Iterable[tuple[Any, Any]],
    targets: Any = None,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    optimizer: optax.GradientTransformation = _SGD,
    loss: Loss = losses.squared_error,
    shuffle: bool = True,
    validation: tuple[Any, Any] | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    progress: bool = False,
) -> tuple[ModelT, History]:
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

    Data larger than memory come in batches: `train(model, batches, epochs=...)`, each a pair
    `(inputs, targets)` and a step. Their order and size are their own. On several processes, under
    `jax.distributed`, each gives its own part of every batch, and otherwise makes the same call.

    With `checkpoint`, a run that was killed goes on where it stood when the same call is made again, and ends
    bit for bit as if it had not been. A call with more epochs goes on from the end.

    Args:
        model: a callable pytree of one example, `model(x) -> y`: a `Network`, or
            `jax.tree_util.Partial(apply, params)` for any other pure function.
        inputs: `(N, ...)`, an array or a pytree of arrays, an example a row. Or, without `targets`, an
            iterable of batches `(inputs, targets)`, gone through once an epoch.
        targets: `(N, ...)`, as `inputs`; for `losses.cross_entropy` also integer labels `(N,)`.
        epochs: how often each example is seen, at least 1.
        batch_size: examples a step, at least 1; the book's networks train with 1. None where data come in
            batches.
        key: a random key for the order of the examples; needed where `shuffle` is on. None where data come in
            batches.
        optimizer: an Optax optimizer; one that asks for the loss's value, such as `optax.lbfgs`, gets it.
        loss: `loss(output, target) -> scalar` of one example.
        shuffle: draw a new order for each epoch, or take the examples in the given one.
        validation: `(inputs, targets)` to evaluate after each epoch, or None.
        mesh: devices to spread each batch over, along the first axis of the mesh, of which `batch_size` must
            be a multiple. Parameters are on all devices; or, on a mesh of two axes, divided along the second:
            each by its largest axis that divides evenly. The steps equal those on one device, up to rounding.
        checkpoint: a folder for checkpoints, of this run alone; the last two are kept. What is unfinished or
            damaged in it is passed over, and deleted. On several processes, one that all of them see.
        checkpoint_every: after how many steps of an epoch to write one, at least 1; one is written after each
            epoch in any case.
        progress: draw a bar (with rich).

    Returns:
        `(model, history)`: the trained model, of the same structure, and a `History`.

    Raises:
        ValueError: lengths that differ, no examples, values that are not finite, options out of range or that
            have no meaning together; a checkpoint of another run, or a folder of something else, or
            one that another run is at work in.
        TypeError: a model that is not callable, or has leaves that are not arrays or nothing to train.
        TrainingDivergedError: the loss or a parameter is no longer finite; it carries the last good model.

    Warns:
        RuntimeWarning: a checkpoint is unfinished or damaged; the one before it is used.

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
    in_memory = targets is not None
    check_options(optimizer, key, shuffle, batch_size, in_memory=in_memory)
    epochs = _checks.check_integer("epochs", epochs, at_least=1)
    checkpoint_every = check_checkpoints(checkpoint, checkpoint_every)
    if mesh is not None:
        check_mesh(mesh, batch_size)
        mesh = automatic(mesh)
    data = check_examples(inputs=inputs, targets=targets) if in_memory else None
    held_out = check_validation(validation)
    model, data, held_out, key = with_automatic_axes((model, data, held_out, key))
    data, held_out, key = _everywhere((data, held_out, key), mesh)
    if data is None:
        feed = batches(inputs, epochs, mesh)
    else:
        assert batch_size is not None  # noqa: S101 - checked above
        feed = examples(data, key, shuffle=shuffle, batch_size=batch_size, every=checkpoint_every)
    check_loss(model, feed.sample, loss)
    if held_out is not None:
        check_loss(model, held_out, loss, "validation[1]")

    start, rest = _start(model, (data, key), optimizer, mesh)
    options = {"loss": loss, "optimizer": optimizer, "mesh": mesh}
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        if not _checks.is_concrete((start, rest, data, key, held_out)):
            raise ValueError("`checkpoint` must be None under tracing, where there is nothing to write yet")
        settings = _settings(start, rest, feed, key, held_out, loss)
        settings |= {"batch_size": batch_size, "shuffle": shuffle}
    with checkpoints(checkpoint) as manager:
        begun = standing = beginning(start) if manager is None else last(manager, start, settings)
        if begun.epoch > epochs:
            raise ValueError(
                f"`epochs` must be at least {begun.epoch}, as many as the checkpoint has gone; got {epochs}"
            )
        with progress_bar("training", epochs, enabled=progress, done=begun.epoch) as advance_bar:
            for standing in _run(begun, epochs, feed, rest, held_out, options):
                ended = standing.after is None
                if manager is not None and (ended or _is_due(standing.done, checkpoint_every)):
                    store(manager, standing, settings)
                if ended and progress:  # to be shown, the numbers are copied to the host
                    advance_bar(_shown(standing.records[-1]))
    return combine(standing.before.trainable, rest), together(standing.records)


def _everywhere(tree: Any, mesh: Mesh | None) -> Any:
    """The same arrays on all devices of the mesh."""
    return tree if mesh is None else put(tree, NamedSharding(mesh, PartitionSpec()))


def _start(model: Any, beside: Any, optimizer: Any, mesh: Mesh | None) -> tuple[State, Any]:
    """The state before the first step, of arrays of our own, and what of the model is not trained."""
    trainable, rest = partition(model)
    if mesh is not None:  # before the optimizer makes more of its size: no device need hold it whole
        trainable, rest = put((trainable, rest), model_sharding((trainable, rest), mesh))
    trainable, alive = vary_like((trainable, jnp.array(True)), (trainable, rest, beside))
    state = State(trainable, optimizer.init(trainable), alive)
    # Copies: the caller keeps his, and an optimizer may hold one buffer twice.
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
    if mesh is not None:  # what the optimizer made anew, too: another placement would compile anew
        state = put(state, model_sharding(state, mesh))
    return state, rest


def _run(
    standing: Standing, epochs: int, feed: Feed, rest: Any, held_out: Any, options: Mapping[str, Any]
) -> Iterator[Standing]:
    """Go on to the end: where the run stands after each part of an epoch, and after each epoch."""
    # A traced state cannot be given away: under vmap the new one may have an axis that the old one lacks.
    in_place = _checks.is_concrete((standing.before, rest, feed.whole))
    while standing.epoch < epochs:
        for data, chosen, steps in feed.parts(standing.epoch, standing.done):
            if standing.after is None:
                after, sums = advance(standing.before, None, rest, data, chosen, **options)
            else:
                go = advance_in_place if in_place else advance
                after, sums = go(standing.after, standing.sums, rest, data, chosen, **options)
            standing = standing._replace(
                done=standing.done + steps, steps=standing.steps + steps, after=after, sums=sums
            )
            yield standing
        standing = _ended(standing, rest, held_out, options["loss"])
        yield standing


def _ended(standing: Standing, rest: Any, held_out: Any, loss: Loss) -> Standing:
    """Where the run stands after the epoch whose steps are taken."""
    assert standing.after is not None and standing.sums is not None  # noqa: S101, PT018
    epoch, records = standing.epoch + 1, standing.records
    state, judged = close(standing.before, standing.after, standing.sums)
    if _checks.known_false(state.alive):
        raise TrainingDivergedError(epoch, combine(state.trainable, rest), together(records))
    checked: Any = (None, None)
    if held_out is not None:
        checked = evaluate(state.trainable, rest, held_out, loss=loss)
    return Standing(epoch, 0, standing.steps, state, None, None, [*records, History(*judged, *checked)])


def _is_due(done: int, every: int | None) -> bool:
    return every is not None and done % every == 0


def _settings(start: State, rest: Any, feed: Feed, key: Any, held_out: Any, loss: Loss) -> dict[str, Any]:
    """What tells a run from another, as a JSON object, by the names that an error may call it by."""

    def shapes(tree: Any) -> list[Any]:
        paths = jax.tree.leaves_with_path(tree)
        return [[jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype)] for path, leaf in paths]

    def numbers(tree: Any) -> list[int] | None:
        return None if tree is None else np.asarray(fingerprint(tree)).tolist()

    return {
        "model": shapes(start.trainable),
        "activation by layer": activations_of(start.trainable),
        "initial model (by checksum)": numbers((start.trainable, rest)),
        "optimizer": shapes(start.optimizer),
        "loss (by name)": getattr(loss, "__name__", None),
        "data (by checksum)": numbers(feed.whole),
        "key (by checksum)": numbers(key),
        "validation (by checksum)": numbers(held_out),
    }


def _shown(record: History) -> str:
    if not _checks.is_concrete(record.loss):
        return "traced"
    return f"loss {record.loss:.4f}" + (
        "" if record.accuracy is None else f", accuracy {record.accuracy:.4f}"
    )
