"""Which inputs made it say that? Each method is a function of a model, an example and a target."""

from jaxnn.attribution._gradient import input_x_gradient as input_x_gradient
from jaxnn.attribution._gradient import saliency as saliency
