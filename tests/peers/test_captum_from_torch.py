"""The same PyTorch module, explained by Captum and, through `from_torch`, by JAX."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum").attr

import jaxnn  # noqa: E402
from jaxnn import attribution  # noqa: E402

X = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    layers = (
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
    )
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 5, 3), torch.nn.ReLU(), torch.nn.Flatten())
    network.append(torch.nn.Linear(20, 3))
    network(torch.randn(16, 3, 8, 8))  # statistics
    return network.eval()


METHODS = {
    "saliency": (lambda m: attr.Saliency(m), {"abs": False}, {}),
    "input_x_gradient": (lambda m: attr.InputXGradient(m), {}, {}),
    "integrated_gradients": (lambda m: attr.IntegratedGradients(m), {"n_steps": 50}, {"steps": 50}),
    "deep_lift": (lambda m: attr.DeepLift(m), {}, {}),
    "guided_backprop": (lambda m: attr.GuidedBackprop(m), {}, {}),
    "deconvnet": (lambda m: attr.Deconvolution(m), {}, {}),
    "feature_ablation": (lambda m: attr.FeatureAblation(m), {}, {}),
    "occlusion": (
        lambda m: attr.Occlusion(m),
        {"sliding_window_shapes": (3, 2, 2), "strides": (3, 2, 2)},
        {"window": (3, 2, 2), "stride": (3, 2, 2)},
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", METHODS)
def test_captum_and_jax_agree(module, name):
    make, theirs, ours = METHODS[name]
    x = torch.from_numpy(X.copy())[None].requires_grad_()
    expected = make(module).attribute(x, target=1, **theirs)[0].detach().numpy()
    found = getattr(attribution, name)(jaxnn.from_torch(module, X), X, 1, **ours)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
