"""The history of a training run, and the error that is raised where it diverges."""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._repr import short_repr


class History(NamedTuple):
    """Training history: losses and accuracies, one per epoch.

    Attributes:
        loss: `(epochs,)`, the mean loss of the examples, each evaluated before the step that it is part of.
        accuracy: `(epochs,)` in [0, 1], the fraction of correct predictions at that moment: the largest
            output is at the target's largest element, or at the integer label. None for models whose output
            is not a vector of at least two elements, and for other targets.
        validation_loss: `(epochs,)`, the mean loss on the validation set after the epoch; or None.
        validation_accuracy: `(epochs,)`, likewise; or None.
    """

    loss: jax.Array
    accuracy: jax.Array | None = None
    validation_loss: jax.Array | None = None
    validation_accuracy: jax.Array | None = None

    def __repr__(self) -> str:
        return short_repr(self)


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


def attach_model(error: BaseException, epoch: int, model: Any, history: History) -> None:
    """Give an error that ends a run the attributes of `TrainingDivergedError`, unless it has its own."""
    if hasattr(error, "model"):
        return
    with contextlib.suppress(AttributeError, TypeError):  # it takes no attributes
        for name, value in (("epoch", epoch), ("model", model), ("history", history)):
            setattr(error, name, value)
        error.add_note(f"Training stopped in epoch {epoch}; this error's `model` is from before that epoch")


def stack_history(records: list[History]) -> History:
    """Stack the records of single epochs."""
    if not records:
        return History(jnp.zeros(0))
    return jax.tree.map(lambda *values: jnp.stack(values), *records)


def unstack_history(history: History) -> list[History]:
    """Invert `stack_history`."""
    return [jax.tree.map(lambda values, i=i: values[i], history) for i in range(len(history.loss))]
