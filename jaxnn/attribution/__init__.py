"""Which inputs made it say that? Each method is a function of a model, an example and a target."""

from jaxnn.attribution._estimate import Estimate as Estimate
from jaxnn.attribution._gradient import input_x_gradient as input_x_gradient
from jaxnn.attribution._gradient import saliency as saliency
from jaxnn.attribution._permutation import permutation_importance as permutation_importance
from jaxnn.attribution._perturbation import feature_ablation as feature_ablation
from jaxnn.attribution._perturbation import occlusion as occlusion
from jaxnn.attribution._rise import rise as rise
from jaxnn.attribution._shapley import shapley_sampling as shapley_sampling
from jaxnn.attribution._shapley import shapley_values as shapley_values
from jaxnn.attribution._surrogate import kernel_shap as kernel_shap
from jaxnn.attribution._surrogate import lime as lime
