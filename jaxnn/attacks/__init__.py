"""How little has to change for another answer? Each attack is a function of a model, an example and a label."""

from jaxnn.attacks._carlini_wagner import carlini_wagner as carlini_wagner
from jaxnn.attacks._common import Attack as Attack
from jaxnn.attacks._criteria import classified_as as classified_as
from jaxnn.attacks._criteria import confident as confident
from jaxnn.attacks._criteria import misclassified as misclassified
from jaxnn.attacks._deepfool import deepfool as deepfool
from jaxnn.attacks._fmn import fmn as fmn
from jaxnn.attacks._hop_skip_jump import hop_skip_jump as hop_skip_jump
from jaxnn.attacks._minimal import minimal_norm as minimal_norm
from jaxnn.attacks._square import square as square
