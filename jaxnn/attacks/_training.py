"""Adversarial training: a model whose inputs are attacked at each call."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._model import as_model
from jaxnn._typing import Key, Model, PyTree
from jaxnn.attacks._ensemble import AttackFunction, by_value, check_attack, run


def under_attack(model: Model, attack: AttackFunction, *, key: Key | None = None) -> Partial:
    """Adversarial training: a model that attacks its example before it evaluates it.

    `output(x, y) = model(attack(model, x, y))`. The perturbation counts as a constant, so the gradient is
    that of the loss at the attacked example. The attack uses the current parameters, so each training step
    computes new adversarial examples:

    `attacked, _ = jaxnn.train(under_attack(net, attack), (inputs, labels), labels, loss=..., ...)`.

    Args:
        model: a callable pytree of one example.
        attack: `attack(model, x, label, *, key)` with all other options bound, such as
            `functools.partial(pgd, epsilon=0.1, steps=7)`.
        key: a JAX random key, for an attack that requires one. Each call folds in the bits of the model's
            output, so the random start differs between examples, and after each training step.

    Returns:
        A callable pytree of a pair `(x, label)`, whose only trainable arrays are the model's, in `args[0]`.

    Raises:
        TypeError: `model` or `attack` is not callable, or `key` is no key.

    References:
        Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
        attacks", 2017, arXiv:1706.06083.

    Example:
        >>> import functools, jax, jaxnn
        >>> from jaxnn import attacks
        >>> net = jaxnn.init(jax.random.key(0), (2, 3), output_activation="identity")
        >>> attacked = attacks.under_attack(net, functools.partial(attacks.fgsm, epsilon=0.1))
        >>> attacked((jax.numpy.array([0.5, 0.5]), 1)).shape, attacked.args[0] is net
        ((3,), True)
    """
    attack = check_attack(by_value(attack))
    if key is not None:
        _checks.check_key("key", key)
    return Partial(_output, as_model(model), attack, key)


def _output(model: Model, attack: AttackFunction, key: Key | None, example: tuple[PyTree, Any]) -> Any:
    x, label = example
    fixed = jax.lax.stop_gradient(model)
    if key is not None:
        total = jnp.sum(fixed(x)).astype(jnp.float32)
        call_key = jax.random.fold_in(key, jax.lax.bitcast_convert_type(total, jnp.int32))
        attack = functools.partial(attack, key=call_key)
    return model(run(attack, fixed, x, label).input)
