"""Networks that people have, with random weights, by each method: ResNet-18, ViT-B/16 and an LSTM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution
from tests.helpers.methods import METHODS

torch = pytest.importorskip("torch", reason="PyTorch is an extra that the tests do not install")
torchvision = pytest.importorskip("torchvision")

pytestmark = [pytest.mark.long, pytest.mark.optimized]


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 16, batch_first=True)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


# By name: the module, the shape of an example, and the name of a layer.
NETWORKS = {
    "ResNet-18": (lambda: torchvision.models.resnet18(weights=None), (3, 64, 64), "layer4"),
    "ViT-B/16": (
        lambda: torchvision.models.vit_b_16(weights=None, image_size=64), (3, 64, 64), "conv_proj"
    ),
    "LSTM": (Recurrent, (20, 5), "lstm[0]"),
}  # fmt: skip


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    build, shape, layer = NETWORKS[request.param]
    module = build().eval()
    if request.param == "ViT-B/16":  # whose head is 0 at first
        torch.nn.init.normal_(module.heads.head.weight, std=0.05)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    return module, jaxnn.from_torch(module, x), x, layer


def test_the_output_and_the_gradient_are_pytorchs(network):
    module, model, x, _ = network
    theirs = torch.from_numpy(np.array(x[None])).requires_grad_()
    output = module(theirs)
    output[0, 1].backward()
    expected = output.detach().numpy()[0]
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    gradient = theirs.grad.numpy()[0]
    found = attribution.saliency(model, x, 1)
    np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())


@pytest.mark.parametrize("method", METHODS)
def test_each_method_explains_it(network, method):
    _, model, x, layer = network
    if method == "capture":  # which stores every value, so that XLA joins other operations
        y, values = jaxnn.capture(model, x)
        np.testing.assert_allclose(y, model(x), rtol=0, atol=1e-5 * float(jnp.abs(y).max()))
        assert bool(jnp.isfinite(values[layer]).all())
    elif method == "grad_cam" and x.ndim == 2:  # of time steps
        assert attribution.grad_cam(model, x, 1, layer=layer).shape == x.shape[:1]
    elif method == "deep_lift":
        found = jax.jit(lambda model, x: attribution.deep_lift(model, x, 1))(model, x)
        change = float(model(x)[1] - model(jnp.zeros_like(x))[1])
        assert abs(float(found.sum()) - change) < 1e-4 * max(1.0, abs(change))
    else:
        METHODS[method](model, x, layer)
