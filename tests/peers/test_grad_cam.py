"""Class activation maps beside the package grad-cam, on the same PyTorch module, after its scaling."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
cams = pytest.importorskip("pytorch_grad_cam")

from pytorch_grad_cam.utils.image import scale_cam_image  # noqa: E402

import jaxnn  # noqa: E402
from jaxnn import attribution  # noqa: E402

X = np.random.default_rng(0).normal(size=(3, 12, 10)).astype(np.float32)
THEIRS = {
    "gradcam": cams.GradCAM,
    "gradcam++": cams.GradCAMPlusPlus,
    "xgradcam": cams.XGradCAM,
    "layercam": cams.LayerCAM,
    "hirescam": cams.HiResCAM,
    "eigencam": cams.EigenCAM,
    "ablationcam": cams.AblationCAM,
    "scorecam": cams.ScoreCAM,
}


def target(output):
    """A large logit: the package adds 1e-6 to squares of gradients."""
    return 1000 * output[3]


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    layers = (
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 6 * 5, 5),
    )
    return torch.nn.Sequential(*layers).eval()


@pytest.mark.parametrize("weights", THEIRS)
@pytest.mark.parametrize("layer", [1, 3])
def test_the_maps_are_the_packages(module, layer, weights):
    with THEIRS[weights](module, [module[layer]]) as cam:
        expected = cam(torch.from_numpy(X[None]), [target])[0]
    model = jaxnn.from_torch(module, X)
    found = attribution.grad_cam(model, X, target, layer=str(layer), weights=weights)
    if weights == "eigencam" and np.sum(expected * np.maximum(found, 0)) < np.sum(
        expected * np.maximum(-found, 0)
    ):
        found = -found  # the sign of a principal component is arbitrary in the package
    scaled = scale_cam_image(np.maximum(found, 0)[None], (X.shape[2], X.shape[1]))
    np.testing.assert_allclose(scale_cam_image(scaled)[0], expected, atol=1e-5)
    assert expected.max() > 0.9


def test_the_tokens_of_a_grid_are_the_packages_reshaped_layer():
    """The layer of a vision transformer, without its class token."""

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 8, 2, 2)
            self.first = torch.nn.Parameter(torch.randn(1, 1, 8))
            self.block = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
            self.head = torch.nn.Linear(8, 5)

        def forward(self, x):
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
            return self.head(self.block(tokens).mean(1))

    torch.manual_seed(0)
    module = Tokens().eval()

    def grid(tokens):
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 6, 5)

    with cams.GradCAM(module, [module.block], reshape_transform=grid) as cam:
        expected = cam(torch.from_numpy(X[None]), [target])[0]
    found = jax.jit(
        lambda model, x: attribution.grad_cam(model, x, target, layer="block", grid=(6, 5), relu=True)
    )(jaxnn.from_torch(module, X), X)
    scaled = scale_cam_image(np.asarray(found)[None], (X.shape[2], X.shape[1]))
    np.testing.assert_allclose(scale_cam_image(scaled)[0], expected, atol=1e-5)
