"""How little has to change for another answer? Each attack asks a model, with an example and a label."""

from jaxnn.attacks._apgd import apgd as apgd
from jaxnn.attacks._baselines import blur as blur
from jaxnn.attacks._baselines import contrast as contrast
from jaxnn.attacks._baselines import noise as noise
from jaxnn.attacks._carlini_wagner import carlini_wagner as carlini_wagner
from jaxnn.attacks._common import Attack as Attack
from jaxnn.attacks._criteria import classified_as as classified_as
from jaxnn.attacks._criteria import confident as confident
from jaxnn.attacks._criteria import misclassified as misclassified
from jaxnn.attacks._deepfool import deepfool as deepfool
from jaxnn.attacks._fmn import fmn as fmn
from jaxnn.attacks._gradient import bim as bim
from jaxnn.attacks._gradient import fgsm as fgsm
from jaxnn.attacks._gradient import momentum_pgd as momentum_pgd
from jaxnn.attacks._gradient import pgd as pgd
from jaxnn.attacks._hop_skip_jump import hop_skip_jump as hop_skip_jump
from jaxnn.attacks._minimal import minimal_norm as minimal_norm
from jaxnn.attacks._robust import robust_accuracy as robust_accuracy
from jaxnn.attacks._robust import strongest as strongest
from jaxnn.attacks._robust import under_attack as under_attack
from jaxnn.attacks._square import square as square
from jaxnn.attacks._universal import Universal as Universal
from jaxnn.attacks._universal import universal as universal
