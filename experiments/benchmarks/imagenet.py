"""How long do explanations of the networks take that people have?

ResNet-50, EfficientNet-B0 and ViT-B/16 of torchvision with random weights, on images of 224 x 224: by jaxnn
of the module as `jaxnn.from_torch` adapts it, by Captum of the module itself, and, for a gradient, by plain
JAX, whose convolutions are those of XLA.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, awaited, torch_device
from jaxnn import attribution

FORWARD = {"resnet50": 8.2e9, "efficientnet_b0": 0.8e9, "vit_b_16": 35.2e9}  # operations per image
NAMES = {"resnet50": "ResNet-50", "efficientnet_b0": "EfficientNet-B0", "vit_b_16": "ViT-B/16"}
LAYERS = {"resnet50": "layer4", "efficientnet_b0": "features"}  # of Grad-CAM
STEPS = 10
TARGET = 3


def cases(quick: bool) -> list[Case]:
    """Gradients of one image and eight; the other methods of one."""
    work: list[tuple[str, str, int, float]] = []
    for network in FORWARD:
        work += [(network, "saliency", 1, 2), (network, "saliency", 8, 16)]
        work += [(network, "integrated_gradients", 1, 2 * STEPS)]
        if network in LAYERS:
            work += [(network, "grad_cam", 1, 1)]
    work += [("resnet50", "guided_backprop", 1, 2)]
    if quick:
        work = [("efficientnet_b0", "saliency", 1, 2)]
    return [_case(*each) for each in work]


def _case(network: str, method: str, images: int, passes: float) -> Case:
    builds: dict[str, Build] = {"jaxnn": partial(ours, network, method, images)}
    if method == "saliency":
        builds["plain JAX"] = partial(plain, network, images)
    builds |= {
        f"Captum{setting}": partial(captums, network, method, images, setting)
        for setting in ("", ", channels last")
    }
    count = "one image" if images == 1 else f"{images} images"
    return Case(
        "Networks of 224 x 224 images",
        f"{NAMES[network]}, `{method}`, {count}",
        builds,
        Work(passes * FORWARD[network]),
    )


def module_of(network: str) -> Any:
    """The module, with random weights; no operation in place, which Captum does not take."""
    import torch
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, network)(weights=None).eval()
    for each in module.modules():
        if hasattr(each, "inplace"):
            each.inplace = False
    return module


def images_of(count: int) -> np.ndarray:
    """Random images, channels first."""
    return np.random.default_rng(0).normal(size=(count, 3, 224, 224)).astype(np.float32)


def model_of(network: str) -> Any:
    """The module as a function of JAX."""
    warnings.simplefilter("ignore")  # those of torch.export
    return jaxnn.from_torch(module_of(network), images_of(1)[0])


def ours(network: str, method: str, count: int) -> Call:
    """A method of jaxnn."""
    explain: dict[str, Callable[[Any, jax.Array], Any]] = {
        "saliency": lambda model, x: attribution.saliency(model, x, TARGET),
        "guided_backprop": lambda model, x: attribution.guided_backprop(model, x, TARGET),
        "integrated_gradients": lambda model, x: attribution.integrated_gradients(
            model, x, TARGET, steps=STEPS, check_completeness=False
        ),
        "grad_cam": lambda model, x: attribution.grad_cam(model, x, TARGET, layer=LAYERS[network]),
    }
    return _mapped(explain[method], network, count)


def plain(network: str, count: int) -> Call:
    """The gradient by JAX alone."""
    return _mapped(lambda model, x: jax.grad(lambda x: model(x)[TARGET])(x), network, count)


def _mapped(function: Callable[[Any, jax.Array], Any], network: str, count: int) -> Call:
    model, images = model_of(network), jnp.asarray(images_of(count))
    compiled = jax.jit(jax.vmap(function, (None, 0)))
    return lambda: compiled(model, images)


def captums(network: str, method: str, count: int, setting: str) -> Call:
    """A method of Captum, of images in either order of the axes in memory."""
    import captum.attr
    import torch

    warnings.simplefilter("ignore")
    device, module = torch_device(), module_of(network)
    images = torch.from_numpy(images_of(count))
    if setting:
        module, images = (each.to(memory_format=torch.channels_last) for each in (module, images))
    module, images = module.to(device), images.to(device)
    attributes: dict[str, Callable[[], Any]] = {
        "saliency": lambda: captum.attr.Saliency(module).attribute(images, target=TARGET),
        "guided_backprop": lambda: captum.attr.GuidedBackprop(module).attribute(images, target=TARGET),
        "integrated_gradients": lambda: captum.attr.IntegratedGradients(module).attribute(
            images, target=TARGET, n_steps=STEPS
        ),
        "grad_cam": lambda: captum.attr.LayerGradCam(module, module.get_submodule(LAYERS[network])).attribute(
            images, target=TARGET
        ),
    }
    return awaited(attributes[method])
