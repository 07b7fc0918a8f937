"""What gradient attacks climb: functions of the output, higher the nearer the attack is to its aim."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxnn.attacks._common import Task
from jaxnn.attacks._criteria import margin_of

LOSSES = ("cross_entropy", "margin", "dlr")


def loss_of(task: Task, loss: str, targeted: bool) -> Callable[[jax.Array], jax.Array]:
    """The function to climb. Where the label is a function, that is the one, whatever `loss` says.

    - `"cross_entropy"`: `log(sum_k exp z_k) - z_label`; its negative where targeted.
    - `"margin"`: that of the label, as in `misclassified` or `classified_as`.
    - `"dlr"`: the margin over `z_1st - z_3rd`, the logits in descending order (where targeted, over
      `z_1st - (z_3rd + z_4th) / 2`), which multiplying the logits does not change.
    """
    if callable(task.label) or loss == "margin":
        return margin_of(task.label, targeted)
    if loss == "dlr":
        return Partial(_dlr_targeted if targeted else _dlr, margin_of(task.label, targeted))
    return Partial(_less_entropy if targeted else _entropy, task.label)


def check_dlr(task: Task, loss: str, targeted: bool) -> None:
    """Raise where there are too few logits for their ratio."""
    if loss != "dlr" or callable(task.label):
        return
    least, (n_out,) = 4 if targeted else 3, jax.eval_shape(lambda task: task.model(task.x), task).shape
    if n_out < least:
        raise ValueError(f"`loss` 'dlr' asks for at least {least} logits; the model has {n_out}")


def _entropy(label: jax.Array, z: jax.Array) -> jax.Array:
    own = jnp.arange(z.size) == label
    return -jnp.sum(jnp.where(own, jax.nn.log_softmax(z), 0))


def _less_entropy(label: jax.Array, z: jax.Array) -> jax.Array:
    return -_entropy(label, z)


def _dlr(margin: Any, z: jax.Array) -> jax.Array:
    ordered = jnp.sort(z)[::-1]
    return margin(z) / (ordered[0] - ordered[2] + 1e-12)


def _dlr_targeted(margin: Any, z: jax.Array) -> jax.Array:
    ordered = jnp.sort(z)[::-1]
    return margin(z) / (ordered[0] - (ordered[2] + ordered[3]) / 2 + 1e-12)
