"""Attacks by the gradient: one step, many steps, steps with momentum."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn.attacks._climb import Pace, climb
from jaxnn.attacks._common import Attack, Bounds, Model, prepare
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._loss import LOSSES, check_dlr

# Steps and their size as a share of epsilon, of the attacks as published (for linf at epsilon = 0.3).
_PGD = {"linf": (40, 0.01 / 0.3), "l2": (50, 0.025), "l1": (50, 0.025)}


def fgsm(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array | None = None,
    random_start: bool = False,
    loss: str = "cross_entropy",
) -> Attack:
    """One step along the gradient, as long as the ball is wide (the fast gradient sign method).

    `x' = clip(x + epsilon * d)`, `d` being the sign of the loss's gradient for linf, the gradient divided
    by its l2 or l1 norm for l2 or l1.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: the true label in `[0, n_out)`, to get away from; the wanted one where `targeted`; or a
            function from the output to a margin, above 0 where the attack has succeeded, such as
            `confident(label, 0.9)`, which is then what is climbed.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far the input may be moved, in that norm and in units of the input, at least 0.
        bounds: `(low, high)` of the input, each a number or of the structure and shapes of `x`.
        targeted: whether `label` is the wanted one.
        key: a JAX random key, for a random start.
        random_start: whether to start at a random point of the ball.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        An `Attack`. An entry of the gradient that is not finite moves nothing.

    Raises:
        TypeError: an argument of another type.
        ValueError: `x` is not finite or out of the bounds, `epsilon` is negative, `bounds` are not in order,
            there is no such label, norm or loss.

    References:
        Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", 2014,
        arXiv:1412.6572.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])  # which of the two is larger?
        >>> found = attacks.fgsm(model, [0.6, 0.5], 0, epsilon=0.1)
        >>> bool(found.success), [round(v, 2) for v in found.input.tolist()]
        (True, [0.5, 0.6])
    """
    return _attack(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted, key=key, steps=1,
        step=1.0, random_start=random_start, loss=loss,
    )  # fmt: skip


def bim(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array | None = None,
    steps: int = 10,
    step: Any = 0.2,
    random_start: bool = False,
    loss: str = "cross_entropy",
) -> Attack:
    """Several small steps along the gradient, from the example itself (the basic iterative method).

    `x_{k+1} = P(x_k + step * epsilon * d_k)`, `d_k` as in `fgsm` at `x_k`, and `P` the projection onto the
    ball around `x`, then clipped to the bounds.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far the input may be moved, in that norm, at least 0.
        bounds: `(low, high)` of the input.
        targeted: whether `label` is the wanted one.
        key: a JAX random key, for a random start.
        steps: how many, at least 1.
        step: the size of each, as a share of epsilon, above 0.
        random_start: whether to start at a random point of the ball.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        An `Attack`, at the last step.

    Raises:
        TypeError: an argument of another type.
        ValueError: `steps` is below 1 or `step` not above 0, or as `fgsm` raises.

    References:
        Kurakin, Goodfellow and Bengio, "Adversarial examples in the physical world", 2016, arXiv:1607.02533.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0] * x[1], 0.2])
        >>> bool(attacks.bim(model, [0.5, 0.5], 0, epsilon=0.1).success)
        True
    """
    return _attack(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted, key=key, steps=steps,
        step=step, random_start=random_start, loss=loss,
    )  # fmt: skip


def pgd(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array | None = None,
    steps: int | None = None,
    step: Any = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
) -> Attack:
    """Many small steps along the gradient, from a random point of the ball (projected gradient descent).

    `x_0 ~ uniform in the ball`, `x_{k+1} = P(x_k + step * epsilon * d_k)`, with `d_k` as in `fgsm` and `P`
    as in `bim`.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far the input may be moved, in that norm, at least 0.
        bounds: `(low, high)` of the input.
        targeted: whether `label` is the wanted one.
        key: a JAX random key, needed for the random start. Restart `r` is drawn from
            `jax.random.fold_in(key, r)`.
        steps: how many, at least 1; None for 40 in linf and 50 in l2 and l1.
        step: the size of each, as a share of epsilon, above 0; None for 1/30 in linf, 0.025 in l2 and l1.
        restarts: how often to start anew; the successful run whose input is nearest is kept.
        random_start: whether to start at a random point of the ball, or at `x`.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        An `Attack`, at the last step of the best run.

    Raises:
        TypeError: an argument of another type; no `key` for a random start.
        ValueError: `steps` or `restarts` is below 1, `step` not above 0, several restarts without a random
            start, or as `fgsm` raises.

    References:
        Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
        attacks", 2017, arXiv:1706.06083.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> found = attacks.pgd(model, [0.8, 0.2], 0, norm="l2", epsilon=0.5, key=jax.random.key(0))
        >>> bool(found.success), bool(found.distance <= 0.5), int(found.queries)
        (True, True, 51)
    """
    _checks.check_option("norm", norm, tuple(_PGD))
    steps = _PGD[norm][0] if steps is None else steps
    step = _PGD[norm][1] if step is None else step
    return _attack(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted, key=key, steps=steps,
        step=step, restarts=restarts, random_start=random_start, loss=loss,
    )  # fmt: skip


def momentum_pgd(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array | None = None,
    steps: int = 10,
    step: Any = None,
    decay: Any = 1.0,
    restarts: int = 1,
    random_start: bool = False,
    loss: str = "cross_entropy",
) -> Attack:
    """Steps along a running sum of gradients, which carries over small hills.

    `v_{k+1} = decay * v_k + g_k / ||g_k||_1`, `x_{k+1} = P(x_k + step * epsilon * d(v_{k+1}))`, with the
    direction `d` as in `fgsm` and `P` as in `bim`.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far the input may be moved, in that norm, at least 0.
        bounds: `(low, high)` of the input.
        targeted: whether `label` is the wanted one.
        key: a JAX random key, for a random start.
        steps: how many, at least 1.
        step: the size of each, as a share of epsilon, above 0; None for `1 / steps`.
        decay: how much of the sum is kept from step to step, at least 0; 0 is `bim`.
        restarts: how often to start anew; the successful run whose input is nearest is kept.
        random_start: whether to start at a random point of the ball, or at `x`.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        An `Attack`, at the last step of the best run.

    Raises:
        TypeError: as `pgd` raises.
        ValueError: `decay` is negative, or as `pgd` raises.

    References:
        Dong, Liao, Pang, Su, Zhu, Hu and Li, "Boosting adversarial attacks with momentum", 2017,
        arXiv:1710.06081.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0] * x[1], 0.2])
        >>> bool(attacks.momentum_pgd(model, [0.5, 0.5], 0, epsilon=0.1).success)
        True
    """
    decay = check_number("decay", decay)
    if _checks.known_false((decay >= 0) & jnp.isfinite(decay)):
        raise ValueError(f"`decay` must be at least 0; got {decay}")
    steps = _checks.check_integer("steps", steps, at_least=1)
    return _attack(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted, key=key, steps=steps,
        step=1 / steps if step is None else step, decay=decay, restarts=restarts, random_start=random_start,
        loss=loss,
    )  # fmt: skip


def check_number(name: str, value: Any) -> jax.Array:
    """One number, which may be traced, as an array."""
    number = _checks.check_float_array(name, value)
    _checks.check_shape(name, number, (), "one number")
    return number


def check_starts(restarts: Any, random_start: Any) -> dict[str, Any]:
    """The options of an attack that may start anew."""
    restarts = _checks.check_integer("restarts", restarts, at_least=1)
    if restarts > 1 and not random_start:
        raise ValueError(f"`restarts` must be 1 without a random start; got {restarts}")
    return {"restarts": restarts, "random_start": bool(random_start)}


def _attack(
    model: Any,
    x: Any,
    label: Any,
    *,
    norm: str,
    epsilon: Any,
    bounds: Any,
    targeted: bool,
    key: Any,
    steps: Any,
    step: Any,
    decay: jax.Array | None = None,
    restarts: Any = 1,
    random_start: Any,
    loss: str,
) -> Attack:
    steps = _checks.check_integer("steps", steps, at_least=1)
    step = check_number("step", step)
    if _checks.known_false((step > 0) & jnp.isfinite(step)):
        raise ValueError(f"`step` must be above 0; got {step}")
    _checks.check_option("loss", loss, LOSSES)
    starts = check_starts(restarts, random_start)
    task, restored = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, needs_key=bool(random_start),
        targeted=targeted, needs_epsilon=True,
    )  # fmt: skip
    check_dlr(task, loss, targeted)
    found = climb(
        task, Pace(step, decay), key, norm=norm, targeted=targeted, loss=loss, steps=steps, **starts
    )
    return restored(found)
