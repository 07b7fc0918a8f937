"""`train`: any model, by compiled scans over the batches of an epoch."""

import os
from collections.abc import Iterable, Iterator

import optax
from jax.sharding import Mesh

from jaxnn import _checks, losses
from jaxnn._model import ModelT
from jaxnn._progress import progress_bar
from jaxnn._training.checkpoints import RunState, checkpoints, restore, store
from jaxnn._training.history import History, TrainingDivergedError, attach_model, stack_history
from jaxnn._training.prepare import Problem, prepare
from jaxnn._training.steps import Evaluation, advance, advance_in_place, end_epoch, evaluate
from jaxnn._typing import Examples, Key, Loss, PyTree

_SGD = optax.sgd(0.1)  # created once: an optimizer is a static argument, and a new one would recompile


def train(
    model: ModelT,
    inputs: PyTree | Iterable[Examples],
    targets: PyTree = None,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: Key | None = None,
    optimizer: optax.GradientTransformation = _SGD,
    loss: Loss = losses.squared_error,
    shuffle: bool = True,
    validation: Examples | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    progress: bool = False,
) -> tuple[ModelT, History]:
    """Stochastic gradient descent on any model: a compiled scan over the batches of each epoch.

    A step takes the exact gradient of the mean loss of its batch with respect to every floating-point array
    of the model: `w <- w + optimizer(grad mean_b loss(model(x_b), t_b))`. What the adapters and `intervene`
    freeze, such as running statistics, is not changed. Close over anything else that is not to be trained,
    or mask it with `optax.masked`. The last batch of an epoch has the remaining examples, so every example is
    seen once. The caller's arrays are not changed.

    The optimizer and the loss are static arguments, compared by identity: create each once and pass the same
    object again, and a second call with arrays of the same shapes does not recompile. Weight decay is part of
    the optimizer (`optax.adamw`, `optax.add_decayed_weights`).

    `train` composes with transformations. Under `jax.vmap` (over keys, models or data) many models train at
    once. It can be differentiated with `jax.grad` and compiled with `jax.jit`. Traced values are not checked:
    a model that diverges stays at its last good epoch, and the history has losses of NaN from there on. A
    traced hyperparameter, such as a vector of learning rates to `vmap` over, goes through
    `optax.inject_hyperparams`.

    Data larger than memory come in batches: `train(model, batches, epochs=...)`, each a pair
    `(inputs, targets)` and one step. The iterable decides their order and size. On several processes, under
    `jax.distributed`, each gives its own part of every batch, and otherwise makes the same call.

    With `checkpoint`, a run that was killed continues when the same call is made again, and its result is
    bit for bit that of an uninterrupted run. A call with more epochs continues from the end.

    Args:
        model: a callable pytree of one example, `model(x) -> y`: a `Network`, or
            `jax.tree_util.Partial(apply, params)` for any other pure function.
        inputs: `(N, ...)`, an array or a pytree of arrays, one row per example. Or, without `targets`, an
            iterable of batches `(inputs, targets)`, iterated over once per epoch.
        targets: `(N, ...)`, as `inputs`; for `losses.cross_entropy` also integer labels `(N,)`.
        epochs: number of passes over the examples, at least 1.
        batch_size: examples per step, at least 1; the book's networks train with 1. None for an iterable of
            batches.
        key: a random key for the order of the examples, required if `shuffle` is True. None for an iterable
            of batches.
        optimizer: an Optax optimizer. Optimizers that need the value of the loss, such as `optax.lbfgs`, get
            it.
        loss: `loss(output, target) -> scalar` of one example.
        shuffle: whether to draw a new order for each epoch, or to keep the given order.
        validation: `(inputs, targets)` to evaluate after each epoch, or None.
        mesh: devices that divide each batch, along the first axis of the mesh, of which `batch_size` must be
            a multiple. Parameters are replicated; or, on a mesh of two axes, divided along the second: each
            by its largest axis that divides evenly. The steps equal those on one device, up to rounding.
        checkpoint: a folder for the checkpoints of this run alone; the last two are kept. Unfinished and
            damaged ones are passed over, and deleted. What the run did not write is never deleted. On several
            processes, a folder that all of them see.
        checkpoint_every: number of steps of an epoch between checkpoints, at least 1; one is written after
            each epoch in any case.
        progress: whether to draw a progress bar (with rich).

    Returns:
        `(model, history)`: the trained model, of the same structure, and a `History`.

    Raises:
        ValueError: lengths that differ, no examples, values that are not finite, options out of range or
            that exclude each other; a folder of another run, of an older version, or one that another run is
            using; a run that is not finished in a folder that is read-only.
        TypeError: a model that is not callable, has leaves that are not arrays, or has nothing to train.
        TrainingDivergedError: the loss or a parameter is no longer finite; it carries the last good model.
            So does any other error that stops the run, such as a KeyboardInterrupt or one of an iterable.

    Warns:
        RuntimeWarning: a checkpoint is unfinished or damaged, and the one before it is used; or others'
            files in the folder look like checkpoints.

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
    epochs = _checks.check_integer("epochs", epochs, at_least=1)
    problem = prepare(
        model, inputs, targets, epochs=epochs, batch_size=batch_size, key=key, optimizer=optimizer, loss=loss,
        shuffle=shuffle, validation=validation, mesh=mesh, checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    with progress_bar("training", epochs, enabled=progress) as show, checkpoints(checkpoint) as folder:
        start = run_state = stored = restore(folder, problem.state, problem.settings, epochs)
        show("", start.epoch)
        try:
            for run_state in _epochs(problem, start, epochs):
                ended = run_state.current is None
                due = ended or (checkpoint_every and run_state.steps_in_epoch % checkpoint_every == 0)
                if folder is not None and due:
                    store(folder, run_state, problem.settings)
                    stored = run_state
                if ended and progress:  # the numbers to show are copied to the host
                    show(_note(run_state.history[-1]))
        except BaseException as error:
            _explain(error, problem, run_state, folder and f"{folder.path}, after {stored.steps} steps")
            raise
    return problem.rebuild(run_state.epoch_start.trainable), stack_history(run_state.history)


def _explain(error: BaseException, problem: Problem, run_state: RunState, checkpoint: str | None) -> None:
    """Add to an error that ends a run its last good model, and where the same call continues."""
    if isinstance(error, TrainingDivergedError) or not _checks.is_concrete((run_state, problem.rebuild)):
        return
    model = problem.rebuild(run_state.epoch_start.trainable)
    attach_model(error, run_state.epoch + 1, model, stack_history(run_state.history))
    if checkpoint:
        error.add_note(f"The same call continues from {checkpoint}")


def _epochs(problem: Problem, run_state: RunState, epochs: int) -> Iterator[RunState]:
    """Train to the last epoch: the run after each segment of an epoch, and after each epoch."""
    rebuild, source = problem.rebuild, problem.source
    # Traced arrays are not donated: under vmap the new state may have an axis that the old one lacks.
    in_place = _checks.is_concrete((problem.state, rebuild, source.arrays))
    while run_state.epoch < epochs:
        for data, rows, steps in source.epoch(run_state.epoch, run_state.steps_in_epoch):
            # The state at the start of the epoch is never donated: it is returned if training diverges.
            step = advance_in_place if in_place and run_state.current is not None else advance
            state = run_state.epoch_start if run_state.current is None else run_state.current
            state, sums = step(state, run_state.sums, rebuild, data, rows, **problem.options)
            in_epoch, in_all = run_state.steps_in_epoch + steps, run_state.steps + steps
            run_state = run_state._replace(steps_in_epoch=in_epoch, steps=in_all, current=state, sums=sums)
            yield run_state
        run_state = _end_epoch(problem, run_state)
        yield run_state


def _end_epoch(problem: Problem, run_state: RunState) -> RunState:
    """The run after the last step of an epoch, with its record in the history."""
    state, training = end_epoch(run_state.epoch_start, run_state.current, run_state.sums)
    epoch, history = run_state.epoch + 1, run_state.history
    if _checks.known_false(state.finite):
        raise TrainingDivergedError(epoch, problem.rebuild(state.trainable), stack_history(history))
    validation: Evaluation | tuple[None, None] = (None, None)
    if problem.held_out is not None:
        loss = problem.options["loss"]
        validation = evaluate(state.trainable, problem.rebuild, problem.held_out, loss=loss)
    record = History(*training, *validation)
    return RunState(epoch, 0, run_state.steps, state, None, None, [*history, record])


def _note(record: History) -> str:
    if not _checks.is_concrete(record.loss):
        return "traced"
    accuracy = "" if record.accuracy is None else f", accuracy {record.accuracy:.4f}"
    return f"loss {record.loss:.4f}{accuracy}"
