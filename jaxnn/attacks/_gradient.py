"""Gradient attacks in a ball: FGSM, BIM, PGD and momentum PGD."""

from typing import Any

import jax

from jaxnn import _checks
from jaxnn._typing import AttackLoss, Key, Model, Norm, PyTree, Scalar
from jaxnn.attacks._climb import Pace, check_restarts, climb
from jaxnn.attacks._common import Attack, Bounds, prepare
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._loss import check_loss

# Number of steps and their size as a fraction of epsilon, as published (for linf at epsilon = 0.3).
_PGD = {"linf": (40, 0.01 / 0.3), "l2": (50, 0.025), "l1": (50, 0.025)}


def fgsm(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    epsilon: Scalar,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    random_start: bool = False,
    loss: AttackLoss = "cross_entropy",
) -> Attack:
    """Fast gradient sign method (FGSM): one step along the gradient, to the surface of the ball.

    `x' = clip(x + epsilon * d)`. The direction `d` is the sign of the gradient of the loss for linf, and the
    gradient divided by its l2 or l1 norm for l2 or l1.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds. Arrays of integers and booleans in
            it are left as they are.
        label: the true label in `[0, n_out)`, an integer that may be traced; the target class if `targeted`;
            or a function from the output to a margin, above 0 where the attack has succeeded, such as
            `confident(label, 0.9)`. A gradient attack then maximizes this function.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of the ball around `x` in that norm, in units of the input, at least 0.
        bounds: `(low, high)` of the input, each a number or of the structure and shapes of `x`.
        targeted: whether `label` is the target class.
        key: a JAX random key, required for a random start.
        random_start: whether to start at a random point of the ball.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        An `Attack`. Elements of the gradient that are not finite count as 0.

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
        >>> result = attacks.fgsm(model, [0.6, 0.5], 0, epsilon=0.1)
        >>> bool(result.success), [round(v, 2) for v in result.input.tolist()]
        (True, [0.5, 0.6])
    """
    return _attack(
        model, x, label, key, steps=1, relative_step_size=1.0, random_start=random_start, loss=loss,
        norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted,
    )  # fmt: skip


def bim(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    epsilon: Scalar,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int = 10,
    relative_step_size: Scalar = 0.2,
    random_start: bool = False,
    loss: AttackLoss = "cross_entropy",
) -> Attack:
    """Basic iterative method (BIM): several small steps along the gradient, from the example itself.

    `x_{k+1} = P(x_k + relative_step_size * epsilon * d_k)`, with the direction `d_k` of `fgsm` at `x_k`, and
    `P` the projection onto the ball around `x`, then clipped to the bounds.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of the ball around `x` in that norm, at least 0.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: a JAX random key, required for a random start.
        steps: number of steps, at least 1.
        relative_step_size: size of each step as a fraction of epsilon, above 0.
        random_start: whether to start at a random point of the ball.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        An `Attack`, at the last step.

    Raises:
        TypeError: an argument of another type.
        ValueError: `steps` is below 1 or `relative_step_size` not above 0, or as `fgsm` raises.

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
        model, x, label, key, steps=steps, relative_step_size=relative_step_size, random_start=random_start,
        loss=loss, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted,
    )  # fmt: skip


def pgd(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    epsilon: Scalar,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int | None = None,
    relative_step_size: Scalar | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: AttackLoss = "cross_entropy",
) -> Attack:
    """Projected gradient descent (PGD): many small steps along the gradient, from a random point of the ball.

    `x_0 ~ uniform in the ball`, `x_{k+1} = P(x_k + relative_step_size * epsilon * d_k)`, with the direction
    `d_k` of `fgsm` and the projection `P` of `bim`.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of the ball around `x` in that norm, at least 0.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: a JAX random key, required for a random start. Restart `r` uses `jax.random.fold_in(key, r)`.
        steps: number of steps, at least 1; None for 40 in linf and 50 in l2 and l1.
        relative_step_size: size of each step as a fraction of epsilon, above 0; None for 1/30 in linf, 0.025
            in l2 and l1.
        restarts: number of runs; the successful one with the nearest input is returned.
        random_start: whether to start at a random point of the ball, or at `x`.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`; see `apgd`.

    Returns:
        An `Attack`, at the last step of the best run.

    Raises:
        TypeError: an argument of another type; no `key` for a random start.
        ValueError: `steps` or `restarts` is below 1, `relative_step_size` not above 0, several restarts
            without a random start, or as `fgsm` raises.

    References:
        Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
        attacks", 2017, arXiv:1706.06083.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> result = attacks.pgd(model, [0.8, 0.2], 0, norm="l2", epsilon=0.5, key=jax.random.key(0))
        >>> bool(result.success), bool(result.distance <= 0.5), int(result.queries)
        (True, True, 51)
    """
    _checks.check_option("norm", norm, tuple(_PGD))
    steps = _PGD[norm][0] if steps is None else steps
    step_size = _PGD[norm][1] if relative_step_size is None else relative_step_size
    return _attack(
        model, x, label, key, steps=steps, relative_step_size=step_size, restarts=restarts,
        random_start=random_start, loss=loss, norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted,
    )  # fmt: skip


def momentum_pgd(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    epsilon: Scalar,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int = 10,
    relative_step_size: Scalar | None = None,
    decay: Scalar = 1.0,
    restarts: int = 1,
    random_start: bool = False,
    loss: AttackLoss = "cross_entropy",
) -> Attack:
    """Momentum iterative method (MI-FGSM): steps along a decaying sum of normalized gradients.

    `v_{k+1} = decay * v_k + g_k / ||g_k||_1`,
    `x_{k+1} = P(x_k + relative_step_size * epsilon * d(v_{k+1}))`, with the direction `d` of `fgsm` and the
    projection `P` of `bim`. The momentum carries the iterate past small local maxima.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of the ball around `x` in that norm, at least 0.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: a JAX random key, required for a random start.
        steps: number of steps, at least 1.
        relative_step_size: size of each step as a fraction of epsilon, above 0; None for `1 / steps`.
        decay: factor of the sum from step to step, at least 0; 0 is `bim`.
        restarts: number of runs; the successful one with the nearest input is returned.
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
    steps = _checks.check_integer("steps", steps, at_least=1)
    step_size = 1 / steps if relative_step_size is None else relative_step_size
    return _attack(
        model, x, label, key, steps=steps, relative_step_size=step_size, restarts=restarts,
        decay=_checks.check_number("decay", decay, at_least=0), random_start=random_start, loss=loss,
        norm=norm, epsilon=epsilon, bounds=bounds, targeted=targeted,
    )  # fmt: skip


def _attack(
    model: Model,
    x: PyTree,
    label: Label,
    key: Key | None,
    *,
    steps: int,
    relative_step_size: Scalar,
    decay: jax.Array | None = None,
    restarts: int = 1,
    random_start: bool,
    loss: AttackLoss,
    **arguments: Any,
) -> Attack:
    steps = _checks.check_integer("steps", steps, at_least=1)
    step_size = _checks.check_number("relative_step_size", relative_step_size, above=0)
    restarts = check_restarts(restarts, random_start)
    task = prepare(model, x, label, key=key, needs_key=random_start, needs_epsilon=True, **arguments)
    check_loss(task, loss)
    start_key = key if random_start else None
    return climb(task, Pace(step_size, decay), start_key, loss=loss, steps=steps, restarts=restarts)
