"""Adversarial attacks: the smallest change of an input that changes the predicted class.

Each attack is `attack(model, x, label, *, ...)` for one example; `jax.vmap` runs many. It returns an
`Attack`. In a ball of radius `epsilon`: `fgsm`, `bim`, `pgd`, `momentum_pgd`, `apgd` by gradients, `square`
by outputs. Of minimal distance: `deepfool`, `carlini_wagner`, `fmn` by gradients, `hop_skip_jump` by
decisions. Baselines: `noise`, `contrast`, `blur`. On top of them: `strongest`, `minimal_norm`, `universal`,
`robust_accuracy`, `under_attack`.

Start reading at `_common.py` (`Task`, `Attack`), then `_gradient.py` and `_climb.py`.
"""

from jaxnn.attacks._apgd import apgd as apgd
from jaxnn.attacks._baselines import blur as blur, contrast as contrast, noise as noise
from jaxnn.attacks._carlini_wagner import carlini_wagner as carlini_wagner
from jaxnn.attacks._common import Attack as Attack
from jaxnn.attacks._criteria import (
    classified_as as classified_as,
    confident as confident,
    misclassified as misclassified,
)
from jaxnn.attacks._deepfool import deepfool as deepfool
from jaxnn.attacks._ensemble import strongest as strongest
from jaxnn.attacks._fmn import fmn as fmn
from jaxnn.attacks._gradient import bim as bim, fgsm as fgsm, momentum_pgd as momentum_pgd, pgd as pgd
from jaxnn.attacks._hop_skip_jump import hop_skip_jump as hop_skip_jump
from jaxnn.attacks._minimal import minimal_norm as minimal_norm
from jaxnn.attacks._robust import robust_accuracy as robust_accuracy
from jaxnn.attacks._square import square as square
from jaxnn.attacks._training import under_attack as under_attack
from jaxnn.attacks._universal import Universal as Universal, universal as universal
