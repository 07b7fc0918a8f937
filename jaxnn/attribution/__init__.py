"""Which inputs made it say that? Each method is a function of a model, an example and a target."""

from jaxnn.attribution._estimate import Estimate as Estimate
from jaxnn.attribution._grad_cam import grad_cam as grad_cam
from jaxnn.attribution._grad_cam import guided_grad_cam as guided_grad_cam
from jaxnn.attribution._gradient import input_x_gradient as input_x_gradient
from jaxnn.attribution._gradient import saliency as saliency
from jaxnn.attribution._gradient import smooth_grad as smooth_grad
from jaxnn.attribution._gradient import var_grad as var_grad
from jaxnn.attribution._layer import layer_activation as layer_activation
from jaxnn.attribution._layer import layer_gradient_x_activation as layer_gradient_x_activation
from jaxnn.attribution._layer import neuron_gradient as neuron_gradient
from jaxnn.attribution._layer_path import internal_influence as internal_influence
from jaxnn.attribution._layer_path import layer_conductance as layer_conductance
from jaxnn.attribution._layer_path import layer_integrated_gradients as layer_integrated_gradients
from jaxnn.attribution._path import completeness_gap as completeness_gap
from jaxnn.attribution._path import expected_gradients as expected_gradients
from jaxnn.attribution._path import integrated_gradients as integrated_gradients
