"""Which inputs made it say that? Each method is a function of a model, an example and a target."""

from jaxnn.attribution._deep_lift import deep_lift as deep_lift
from jaxnn.attribution._deep_lift import deep_lift_shap as deep_lift_shap
from jaxnn.attribution._gradient import input_x_gradient as input_x_gradient
from jaxnn.attribution._gradient import saliency as saliency
from jaxnn.attribution._guided import deconvnet as deconvnet
from jaxnn.attribution._guided import guided_backprop as guided_backprop
from jaxnn.attribution._lrp import lrp as lrp
