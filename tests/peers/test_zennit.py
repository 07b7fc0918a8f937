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


<<<<<<< HEAD
class Skip(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(12, 8)
        self.inner = torch.nn.Linear(8, 8)
        self.sum = layer.Sum()
        self.relus = torch.nn.ModuleList([torch.nn.ReLU(), torch.nn.ReLU()])  # it sees modules alone
        self.last = torch.nn.Linear(8, 4)

    def forward(self, x):
        h = self.relus[0](self.first(x))
        return self.last(self.sum(torch.stack([h, self.relus[1](self.inner(h))], dim=-1)))


def networks(kind):
    """A network in PyTorch, and its equal in JAX, of one example with the channels last."""
    torch.manual_seed(0)
    if kind == "skip":
        return randomized(Skip(), (12,))
    if kind == "dense":
        parts = [torch.nn.Linear(12, 10), torch.nn.ReLU(), torch.nn.Linear(10, 8), torch.nn.GELU()]
        return randomized(torch.nn.Sequential(*parts, torch.nn.Linear(8, 4)), (12,))
    parts = [torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU()]
    parts += [torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 6, 3, stride=1), torch.nn.ReLU()]
    parts += [torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(6, 4)]
    return randomized(torch.nn.Sequential(*parts), (8, 8, 2))


def randomized(module, shape):
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.weight.copy_(torch.randn(4))  # negative scales, too
                part.bias.copy_(torch.randn(4) / 2)
                part.running_mean.copy_(torch.randn(4) / 2)
                part.running_var.copy_(torch.rand(4) + 0.5)
    return module.eval(), shape


def in_jax(module):
    if isinstance(module, Skip):
        first, inner, last = in_jax(module.first), in_jax(module.inner), in_jax(module.last)

        def skip(x):
            h = jax.nn.relu(first(x))
            return last(h + jax.nn.relu(inner(h)))

        return skip
    if isinstance(module, torch.nn.Sequential):
        parts = [in_jax(part) for part in module]

        def chain(x):
            for part in parts:
                x = part(x)
            return x

        return chain
    arrays = {name: jnp.asarray(value.detach().numpy()) for name, value in module.state_dict().items()}
    return lambda x: PARTS[type(module).__name__](x, module, **arrays)


def convolved(x, module, weight, bias):
    numbers = ("NHWC", "OIHW", "NHWC")
    padding = [(p, p) for p in module.padding]
    return (
        jax.lax.conv_general_dilated(x[None], weight, module.stride, padding, dimension_numbers=numbers)[0]
        + bias
    )


def normalized(x, module, weight, bias, running_mean, running_var, num_batches_tracked):
    return (x - running_mean) / jnp.sqrt(running_var + module.eps) * weight + bias


def pooled(x, start, function):
    return jax.lax.reduce_window(x, start, function, (2, 2, 1), (2, 2, 1), "VALID")


PARTS = {
    "Linear": lambda x, module, weight, bias: weight @ x + bias,
    "Conv2d": convolved,
    "BatchNorm2d": normalized,
    "ReLU": lambda x, module: jax.nn.relu(x),
    "GELU": lambda x, module: jax.nn.gelu(x, approximate=False),
    "MaxPool2d": lambda x, module: pooled(x, -jnp.inf, jax.lax.max),
    "AvgPool2d": lambda x, module: pooled(x, 0.0, jax.lax.add) / 4,
    "Flatten": lambda x, module: jnp.moveaxis(x, -1, 0).ravel(),
}

=======
>>>>>>> i4-prop
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
