"""Losses of gradient attacks: functions of the output that the attack maximizes."""

from typing import get_args

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import output_shape
from jaxnn._typing import AttackLoss
from jaxnn.attacks._common import Task
from jaxnn.attacks._criteria import Margin


def loss_of(task: Task, loss: AttackLoss) -> Margin:
    """The loss to maximize. If the label is a function, it is the loss, and `loss` is ignored.

    - `"cross_entropy"`: `log(sum_k exp z_k) - z_label`; its negative if targeted.
    - `"margin"`: the criterion of the label, `misclassified` or `classified_as`.
    - `"dlr"` (difference of logits ratio): the margin over `z_1st - z_3rd`, the logits in descending order;
      if targeted, over `z_1st - (z_3rd + z_4th) / 2`. It is invariant to a scale of the logits.
    """
    label, margin, targeted = task.label, task.margin, task.targeted
    if loss == "margin" or callable(label):
        return margin

    def cross_entropy(z: jax.Array) -> jax.Array:
        log_p = jnp.sum(jnp.where(jnp.arange(z.size) == label, jax.nn.log_softmax(z), 0))
        return log_p if targeted else -log_p

    def logits_ratio(z: jax.Array) -> jax.Array:
        ordered = jnp.sort(z)[::-1]
        last = (ordered[2] + ordered[3]) / 2 if targeted else ordered[2]
        ratio_of = ordered[0] - last
        return margin(z) / jnp.where(ratio_of > 0, ratio_of, 1)

    return cross_entropy if loss == "cross_entropy" else logits_ratio


def check_loss(task: Task, loss: AttackLoss) -> None:
    """Raise unless there is such a loss, for the number of logits of the model."""
    _checks.check_option("loss", loss, get_args(AttackLoss))
    if loss == "dlr" and not callable(task.label):
        least, (n_out,) = 4 if task.targeted else 3, output_shape(task.model, task.x).shape
        if n_out < least:
            raise ValueError(f"`loss` 'dlr' needs at least {least} logits; the model has {n_out}")
