"""How long do explanations of the networks take that people have?

ResNet-50, EfficientNet-B0 and ViT-B/16 of torchvision, a GPT and an LSTM, with random weights: by jaxnn of
the module as `jaxnn.from_torch` adapts it, by Captum, zennit or Foolbox of the module itself, and, for a
gradient, by plain JAX, whose convolutions are those of XLA.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks._architectures import ARCHITECTURES, IMAGE, inputs_of, model_of, module_of
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call, awaited, torch_device
from jaxnn import attacks, attribution

STEPS = 10  # of integrated gradients and pgd; samples of SmoothGrad
WINDOW, STRIDE = 32, 16  # of occlusion, pixels
PLACES = 13  # of the window along an axis
SUPERPIXELS = attribution.blocks(IMAGE, (3, 32, 32))
SAMPLES = 100  # of Kernel SHAP
EPSILON = 0.1  # of pgd
TARGET = 3
KEY = 0

Explain = Callable[[Any, jax.Array], Any]
Captums = Callable[[Any, Any, Any], Any]


class Method(NamedTuple):
    """A method in both libraries.

    Attributes:
        ours: `ours(model, x)`, of one example.
        captums: `captums(captum.attr, module, x)`, of a batch; None where another library has it.
        passes: forward passes that it takes at least, of which a gradient takes two.
    """

    ours: Explain
    captums: Captums | None
    passes: float


METHODS = {
    "saliency": Method(
        lambda model, x: attribution.saliency(model, x, TARGET),
        lambda captum, module, x: captum.Saliency(module).attribute(x, target=TARGET),
        2,
    ),
    "integrated_gradients": Method(
        lambda model, x: attribution.integrated_gradients(
            model, x, TARGET, steps=STEPS, check_completeness=False
        ),
        lambda captum, module, x: captum.IntegratedGradients(module).attribute(
            x, target=TARGET, n_steps=STEPS
        ),
        2 * STEPS,
    ),
    "smooth_grad": Method(
        lambda model, x: attribution.smooth_grad(
            model, x, TARGET, key=jax.random.key(KEY), n_samples=STEPS, noise=0.15
        ),
        lambda captum, module, x: captum.NoiseTunnel(captum.Saliency(module)).attribute(
            x, target=TARGET, nt_samples=STEPS, stdevs=0.15, abs=False
        ),
        2 * STEPS,
    ),
    "guided_backprop": Method(
        lambda model, x: attribution.guided_backprop(model, x, TARGET),
        lambda captum, module, x: captum.GuidedBackprop(module).attribute(x, target=TARGET),
        2,
    ),
    "deep_lift": Method(
        lambda model, x: attribution.deep_lift(model, x, TARGET, check_completeness=False),
        lambda captum, module, x: captum.DeepLift(module).attribute(x, target=TARGET),
        3,
    ),
    "occlusion": Method(
        lambda model, x: attribution.occlusion(
            model, x, TARGET, window=(3, WINDOW, WINDOW), stride=(3, STRIDE, STRIDE)
        ),
        lambda captum, module, x: captum.Occlusion(module).attribute(
            x, (3, WINDOW, WINDOW), strides=(3, STRIDE, STRIDE), target=TARGET, perturbations_per_eval=8
        ),
        PLACES**2,
    ),
    "kernel_shap": Method(
        lambda model, x: attribution.kernel_shap(
            model, x, TARGET, key=jax.random.key(KEY), groups=SUPERPIXELS, n_samples=SAMPLES
        ),
        lambda captum, module, x: captum.KernelShap(module).attribute(
            x, target=TARGET, feature_mask=_mask(), n_samples=SAMPLES, perturbations_per_eval=8
        ),
        SAMPLES,
    ),
    "lrp": Method(lambda model, x: attribution.lrp(model, x, TARGET, rule="epsilon_plus"), None, 3),
    "pgd": Method(
        lambda model, x: attacks.pgd(
            model, x, TARGET, epsilon=EPSILON, steps=STEPS, key=jax.random.key(KEY), bounds=(-10.0, 10.0)
        ),
        None,
        2 * STEPS,
    ),
}
WORK: dict[str, list[tuple[str, int]]] = {  # methods, and how many examples at once
    "resnet50": [
        ("saliency", 1), ("saliency", 8), ("integrated_gradients", 1), ("smooth_grad", 1),
        ("guided_backprop", 1), ("deep_lift", 1), ("lrp", 1), ("grad_cam", 1), ("occlusion", 1),
        ("kernel_shap", 1), ("pgd", 1),
    ],
    "efficientnet_b0": [
        ("saliency", 1), ("saliency", 8), ("integrated_gradients", 1), ("grad_cam", 1), ("occlusion", 1),
    ],
    "vit_b_16": [
        ("saliency", 1), ("saliency", 8), ("integrated_gradients", 1), ("deep_lift", 1), ("kernel_shap", 1),
    ],
    "gpt": [("saliency", 1), ("saliency", 8), ("integrated_gradients", 1), ("deep_lift", 1)],
    "lstm": [("saliency", 1), ("saliency", 8), ("integrated_gradients", 1), ("smooth_grad", 8)],
}  # fmt: skip
NO_PEER = {("resnet50", "deep_lift")}  # its modules are used several times, which Captum's does not take


def method_of(network: str, name: str) -> Method:
    """A method by its name; Grad-CAM is of the network's layer."""
    layer = ARCHITECTURES[network].layer
    of_layer = Method(
        lambda model, x: attribution.grad_cam(model, x, TARGET, layer=layer),
        lambda captum, module, x: captum.LayerGradCam(module, module.get_submodule(layer)).attribute(
            x, target=TARGET
        ),
        1,
    )
    return of_layer if name == "grad_cam" else METHODS[name]


def cases(quick: bool) -> list[Case]:
    """Each method of each network that there is."""
    work = {"lstm": [("saliency", 1)]} if quick else WORK
    return [_case(network, *each) for network, methods in work.items() for each in methods]


def _case(network: str, method: str, count: int) -> Case:
    builds: dict[str, Build] = {"jaxnn": partial(ours, network, method, count)}
    if method == "saliency":
        builds["plain JAX"] = partial(plain, network, count)
    if method == "lrp":
        builds["zennit"] = partial(zennits, network, count)
    elif method == "pgd":
        builds["Foolbox"] = partial(foolboxs, network, count)
    elif (network, method) not in NO_PEER:
        settings = ("", ", channels last") if len(ARCHITECTURES[network].shape) == 3 else ("",)
        for setting in settings:
            builds[f"Captum{setting}"] = partial(captums, network, method, count, setting)
    examples = "one example" if count == 1 else f"{count} examples"
    known = ARCHITECTURES[network]
    return Case(
        "Common architectures",
        f"{known.title}, `{method}`, {examples}",
        builds,
        Work(count * method_of(network, method).passes * known.operations),
    )


def ours(network: str, method: str, count: int) -> Call:
    """A method of jaxnn."""
    return _mapped(method_of(network, method).ours, network, count)


def plain(network: str, count: int) -> Call:
    """The gradient by JAX alone."""
    return _mapped(lambda model, x: jax.grad(lambda x: model(x)[TARGET])(x), network, count)


def _mapped(function: Explain, network: str, count: int) -> Call:
    model, inputs = model_of(network), jnp.asarray(inputs_of(network, count))
    compiled = jax.jit(jax.vmap(function, (None, 0)))
    return lambda: compiled(model, inputs)


def captums(network: str, method: str, count: int, setting: str) -> Call:
    """A method of Captum; of images in either order of the axes in memory."""
    import captum.attr
    import torch

    module, inputs = _on_device(network, count)
    if setting:
        module, inputs = (each.to(memory_format=torch.channels_last) for each in (module, inputs))
    of_captum = method_of(network, method).captums
    if of_captum is None:
        raise ValueError(f"Captum has no {method!r}")
    return awaited(lambda: of_captum(captum.attr, module, inputs))


def _on_device(network: str, count: int) -> tuple[Any, Any]:
    import torch

    warnings.simplefilter("ignore")
    device = torch_device()
    return module_of(network).to(device), torch.from_numpy(inputs_of(network, count)).to(device)


def _mask() -> Any:
    import torch

    return torch.from_numpy(SUPERPIXELS)[None]


def zennits(network: str, count: int) -> Call:
    """LRP by zennit, with batch normalizations merged into the convolutions."""
    import torch
    from zennit.composites import EpsilonPlus
    from zennit.torchvision import ResNetCanonizer

    module, inputs = _on_device(network, count)
    inputs.requires_grad_()

    def call() -> Any:
        with EpsilonPlus(canonizers=[ResNetCanonizer()]).context(module) as changed:
            output = changed(inputs)
            start = torch.nn.functional.one_hot(torch.tensor([TARGET] * count), output.shape[1]) * output
            return torch.autograd.grad(output, inputs, start.detach())[0]

    return awaited(call)


def foolboxs(network: str, count: int) -> Call:
    """Projected gradient descent by Foolbox, without gradients of the weights, which it leaves on."""
    import foolbox.attacks
    import torch
    from foolbox.models.pytorch import PyTorchModel

    module, inputs = _on_device(network, count)
    module.requires_grad_(False)
    model = PyTorchModel(module, bounds=(-10, 10), device=torch_device())
    attack, labels = foolbox.attacks.LinfPGD(steps=STEPS), torch.full((count,), TARGET)
    return awaited(lambda: attack(model, inputs, labels, epsilons=EPSILON) and None)
