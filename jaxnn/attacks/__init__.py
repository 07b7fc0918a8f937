"""How little has to change for another answer? Each attack is a function of a model, an example and a label."""

from jaxnn.attacks._common import Attack as Attack
from jaxnn.attacks._criteria import classified_as as classified_as
from jaxnn.attacks._criteria import confident as confident
from jaxnn.attacks._criteria import misclassified as misclassified
