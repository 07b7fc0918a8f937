"""How little has to change for another answer? Each attack asks a model, with an example and a label."""

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
from jaxnn.attacks._fmn import fmn as fmn
from jaxnn.attacks._gradient import bim as bim, fgsm as fgsm, momentum_pgd as momentum_pgd, pgd as pgd
from jaxnn.attacks._hop_skip_jump import hop_skip_jump as hop_skip_jump
from jaxnn.attacks._minimal import minimal_norm as minimal_norm
from jaxnn.attacks._robust import (
    robust_accuracy as robust_accuracy,
    strongest as strongest,
    under_attack as under_attack,
)
from jaxnn.attacks._square import square as square
from jaxnn.attacks._universal import Universal as Universal, universal as universal
