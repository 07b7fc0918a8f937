"""Attribution: which inputs a prediction depends on. Each method is `method(model, x, target, ...)`.

There are gradients (`_gradient`), path integrals (`_path`), propagation rules (`_lrp`, `_deep_lift`,
`_guided`), layers and units (`_layer`, `_layer_path`, `_grad_cam`), and methods that only evaluate the model
(`_perturbation`, `_shapley`, `_surrogate`, `_rise`, `_permutation`). Start reading at `_gradient`: every
public function checks its arguments and calls a jitted one. Sums over steps and samples are in `_accumulate`,
groups of features in `_masks` and `_groups`; `_export` gives attributions to pandas, xarray and shap.
"""

from jaxnn.attribution._accumulate import Estimate as Estimate
from jaxnn.attribution._completeness import completeness_gap as completeness_gap
from jaxnn.attribution._deep_lift import deep_lift as deep_lift, deep_lift_shap as deep_lift_shap
from jaxnn.attribution._export import (
    to_pandas as to_pandas,
    to_shap as to_shap,
    to_xarray as to_xarray,
)
from jaxnn.attribution._grad_cam import grad_cam as grad_cam, guided_grad_cam as guided_grad_cam
from jaxnn.attribution._gradient import (
    input_x_gradient as input_x_gradient,
    saliency as saliency,
    smooth_grad as smooth_grad,
    var_grad as var_grad,
)
from jaxnn.attribution._groups import blocks as blocks, superpixels as superpixels
from jaxnn.attribution._guided import deconvnet as deconvnet, guided_backprop as guided_backprop
from jaxnn.attribution._layer import (
    layer_activation as layer_activation,
    layer_gradient_x_activation as layer_gradient_x_activation,
    neuron_gradient as neuron_gradient,
)
from jaxnn.attribution._layer_path import (
    internal_influence as internal_influence,
    layer_conductance as layer_conductance,
    layer_integrated_gradients as layer_integrated_gradients,
)
from jaxnn.attribution._lrp import lrp as lrp
from jaxnn.attribution._path import (
    expected_gradients as expected_gradients,
    integrated_gradients as integrated_gradients,
)
from jaxnn.attribution._permutation import permutation_importance as permutation_importance
from jaxnn.attribution._perturbation import feature_ablation as feature_ablation, occlusion as occlusion
from jaxnn.attribution._rise import rise as rise
from jaxnn.attribution._shapley import shapley_sampling as shapley_sampling, shapley_values as shapley_values
from jaxnn.attribution._surrogate import kernel_shap as kernel_shap, lime as lime
