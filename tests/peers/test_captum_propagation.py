"""Guided backpropagation, deconvnet and DeepLIFT against Captum, where Captum is right: modules used once."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
captum = pytest.importorskip("captum.attr")

from jaxnn import attribution  # noqa: E402
from tests.peers.torch_networks import channels_first, example, in_jax, networks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TARGET = 2


class ChannelsLast(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(channels_first(x))


def theirs(method, kind, x, **options):
    module, _ = networks(kind)
    value = torch.tensor(x)[None].requires_grad_()
    return method(ChannelsLast(module)).attribute(value, target=TARGET, **options).detach().numpy()[0]


def assert_near(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("kind", ["relus", "conv", "skip"])
@pytest.mark.parametrize(
    ("ours", "method"),
    [(attribution.guided_backprop, captum.GuidedBackprop), (attribution.deconvnet, captum.Deconvolution)],
    ids=["guided_backprop", "deconvnet"],
)
def test_the_rules_of_the_relu(ours, method, kind):
    module, shape = networks(kind)
    x = example(shape)
    assert_near(ours(in_jax(module), x, TARGET), theirs(method, kind, x))


# A relu beside a max-pool is left out: Captum's attributions do not add up there, ours do.
@pytest.mark.parametrize("kind", ["relus", "average", "pool alone", "skip"])
def test_deep_lift(kind):
    module, shape = networks(kind)
    x, baseline = example(shape), example(shape, seed=4)
    given = torch.tensor(baseline)[None]
    ours = attribution.deep_lift(in_jax(module), x, TARGET, baseline=baseline)
    assert_near(ours, theirs(captum.DeepLift, kind, x, baselines=given))


def test_deep_lift_shap():
    module, shape = networks("relus")
    x, baselines = example(shape), example((5, *shape), seed=4)
    ours = attribution.deep_lift_shap(in_jax(module), x, TARGET, baselines=baselines, batch_size=2)
    assert_near(ours, theirs(captum.DeepLiftShap, "relus", x, baselines=torch.tensor(baselines)))
