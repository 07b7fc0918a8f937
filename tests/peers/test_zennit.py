"""LRP against zennit: every rule and composite, on equal weights, one example, float32."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
zennit = pytest.importorskip("zennit")

from zennit import canonizers, composites, rules  # noqa: E402
from zennit.types import Convolution  # noqa: E402

from jaxnn import attribution  # noqa: E402
from tests.peers.torch_networks import channels_first, example, in_jax, networks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TARGET = 2
LOW, HIGH = -2.0, 2.5


RULES = {
    "epsilon": lambda: rules.Epsilon(),
    "gamma": lambda: rules.Gamma(),
    "alpha_beta": lambda: rules.AlphaBeta(),
    "z_plus": lambda: rules.ZPlus(),
    "w_square": lambda: rules.WSquare(),
    "flat": lambda: rules.Flat(),
}
COMPOSITES = {
    "epsilon_plus": composites.EpsilonPlus,
    "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1,
    "epsilon_plus_flat": composites.EpsilonPlusFlat,
    "epsilon_alpha2_beta1_flat": composites.EpsilonAlpha2Beta1Flat,
    "epsilon_gamma_box": lambda **options: composites.EpsilonGammaBox(low=LOW, high=HIGH, **options),
}


def everywhere(rule):
    """The same rule for all layers with weights."""
    linear = (Convolution, torch.nn.Linear)
    return lambda **options: composites.LayerMapComposite(
        [*composites.layer_map_base(), (linear, rule())], **options
    )


def relevance_of(composite, module, x):
    """zennit's answer, from the target's value on."""
    value = torch.tensor(x)[None].requires_grad_()
    merge = [canonizers.SequentialMergeBatchNorm()] if isinstance(module, torch.nn.Sequential) else []
    with composite(canonizers=merge).context(module) as changed:
        output = changed(channels_first(value))
        start = torch.nn.functional.one_hot(torch.tensor([TARGET]), 4) * output
        (relevance,) = torch.autograd.grad(output, value, start.detach())
    return relevance[0].numpy()


def assert_near(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("kind", ["dense", "conv", "skip"])
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_for_all_layers(rule, kind):
    module, shape = networks(kind)
    x = example(shape)
    ours = attribution.lrp(in_jax(module), x, TARGET, rule=rule)
    assert_near(ours, relevance_of(everywhere(RULES[rule]), module, x))


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_a_composite(name, kind):
    module, shape = networks(kind)
    x = example(shape)
    ours = attribution.lrp(in_jax(module), x, TARGET, rule=name, low=LOW, high=HIGH)
    assert_near(ours, relevance_of(COMPOSITES[name], module, x))


def test_the_box_rule_for_a_dense_first_layer_and_other_numbers():
    module, shape = networks("dense")
    x = example(shape)

    def composite(**options):
        first = [(torch.nn.Linear, rules.ZBox(LOW, HIGH))]
        rest = [*composites.layer_map_base(), (torch.nn.Linear, rules.Gamma(gamma=0.7))]
        return composites.SpecialFirstLayerMapComposite(rest, first, **options)

    asked = {"first": "z_box", "dense": "gamma"}
    ours = attribution.lrp(in_jax(module), x, TARGET, rule=asked, low=LOW, high=HIGH, gamma=0.7)
    assert_near(ours, relevance_of(composite, module, x))
