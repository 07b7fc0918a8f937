"""The attribution methods for images of digits, with options, and the dense network's logits."""

from collections.abc import Callable
from functools import partial

import jax

import jaxnn
from experiments._common.cnn import Model
from experiments._common.digits import Digits, as_images
from jaxnn import attribution as a

Method = Callable[[Model, jax.Array, int], jax.Array]  # (model, x, target) -> attributions, of the shape of x
BLACK = 0.01  # the encoding of a black pixel


def logits_of(network: jaxnn.Network, image: jax.Array) -> jax.Array:
    """The signals of the dense network before its last activation, for an image `(h, w, 1)`."""
    hidden = network.layers[0](image.reshape(-1))
    return network.layers[1].signal(hidden)


def methods(digits: Digits, *, key: jax.Array, convolutional: bool) -> dict[str, Method]:
    """Every method of attribution, with options for an image of a digit."""
    images = as_images(digits.inputs[:50], digits)
    h, w = digits.image_shape
    groups = a.blocks((h, w, 1), (2, 2, 1))  # for methods with many perturbations
    chosen: dict[str, Method] = {
        "saliency": a.saliency,
        "input x gradient": a.input_x_gradient,
        "integrated gradients": partial(a.integrated_gradients, baseline=BLACK),
        "expected gradients": partial(a.expected_gradients, baselines=images, key=key),
        "smooth_grad": partial(a.smooth_grad, key=key),
        "var_grad": partial(a.var_grad, key=key),
        "deep_lift": partial(a.deep_lift, baseline=BLACK),
        "deep_lift_shap": partial(a.deep_lift_shap, baselines=images),
        "lrp, epsilon": partial(a.lrp, rule="epsilon"),
        "occlusion": partial(a.occlusion, window=(3, 3, 1), baseline=BLACK),
        "feature_ablation": partial(a.feature_ablation, groups=groups, baseline=BLACK),
        "shapley_sampling": partial(a.shapley_sampling, groups=groups, key=key, baseline=BLACK),
        "kernel_shap": partial(a.kernel_shap, groups=groups, key=key, n_samples=2000, baseline=BLACK),
        "lime": partial(a.lime, groups=groups, key=key, n_samples=2000, baseline=BLACK),
        "rise": partial(a.rise, key=key, baseline=BLACK),
    }
    if convolutional:  # with ReLUs, without which the first two would be the gradient
        chosen["guided_backprop"], chosen["deconvnet"] = a.guided_backprop, a.deconvnet
        chosen["lrp, epsilon-plus"] = partial(a.lrp, rule="epsilon_plus")
        chosen["grad_cam"] = partial(a.grad_cam, layer="Conv_1", shape=digits.image_shape)
        chosen["guided_grad_cam"] = partial(a.guided_grad_cam, layer="Conv_1")
    return chosen
