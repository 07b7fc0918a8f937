"""Which inputs made it say that? Each method is a function of a model, an example and a target."""

from jaxnn.attribution._accumulate import Estimate as Estimate
from jaxnn.attribution._gradient import input_x_gradient as input_x_gradient
from jaxnn.attribution._gradient import saliency as saliency
from jaxnn.attribution._gradient import smooth_grad as smooth_grad
from jaxnn.attribution._gradient import var_grad as var_grad
from jaxnn.attribution._path import completeness_gap as completeness_gap
from jaxnn.attribution._path import expected_gradients as expected_gradients
from jaxnn.attribution._path import integrated_gradients as integrated_gradients
