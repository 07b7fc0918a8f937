"""Rows of the contract for the attacks by the gradient, the baselines, and what is made of them.

Few steps: they are compiled for every promise. The criterion is a function, so that no random network has
fulfilled it already.
"""

import functools

import jax.numpy as jnp
import numpy as np

from jaxnn import attacks
from tests.contract.rows_attacks_minimal import _found, _more

OLD_KEY = np.array([0, 3], np.uint32)  # the check of keys used twice lets it be used by every call
BALL = {"norm": "l2", "epsilon": 0.1}
LABELS = np.arange(10) % 3


def _row(method, **options):
    return functools.partial(_found, method, **options), (100,)


def _universal(network, inputs):
    found = attacks.universal(
        network, inputs, _more, epochs=1, batch_size=5, key=OLD_KEY, norm="l2", epsilon=0.1
    )
    return inputs + found.change


def _share(network, inputs):
    share = attacks.robust_accuracy(
        network, inputs, LABELS, attacks.fgsm, [0.0, 0.1], batch_size=5, key=OLD_KEY
    )
    return inputs * jnp.asarray(share, inputs.dtype).mean()


def _under_attack(network, x):
    attack = functools.partial(attacks.fgsm, epsilon=0.05, norm="l2")
    return attacks.under_attack(network, attack)((x, jnp.int32(1)))


ROWS = {
    "fgsm": _row(attacks.fgsm, epsilon=0.05),
    "bim": _row(attacks.bim, steps=2, **BALL),
    "pgd": _row(attacks.pgd, steps=2, relative_step_size=0.5, **BALL),
    "pgd l1": _row(attacks.pgd, steps=2, relative_step_size=0.5, norm="l1", epsilon=1.0),
    "momentum_pgd": _row(attacks.momentum_pgd, steps=2, **BALL),
    "apgd": _row(attacks.apgd, steps=3, **BALL),
    "universal": (_universal, (10, 100)),
    "noise": _row(attacks.noise, kind="gaussian", n_samples=2, **BALL),
    "blur": _row(attacks.blur, steps=3, **BALL),
    "contrast": _row(attacks.contrast, steps=3, **BALL),
    "strongest": _row(attacks.strongest(attacks.fgsm, attacks.noise), **BALL),
    "robust_accuracy": (_share, (10, 100)),
    "under_attack": (_under_attack, (100,)),
}
