"""Attribution to layers and units beside Captum, on equal weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

captum = pytest.importorskip("captum")
torch = pytest.importorskip("torch")

import captum.attr as theirs  # noqa: E402

from jaxnn import attribution  # noqa: E402
from tests.peers import equal_weights as equal  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")

TARGETS = np.array([0, 3, 1, 2, 4, 0])
# Not a relu's answer before a pool: of its equal zeros each library picks its own largest.
# A builder, an example's shape, our name and the number of their module.
LAYERS = {
    "dense": (lambda: equal.dense(0), equal.SIZES[:1], "hidden_1", 3),
    "convolution": (lambda: equal.convolutional(2), equal.IMAGE, "conv_1", 3),
    "before a pool": (lambda: equal.convolutional(2), equal.IMAGE, "conv_0", 0),
}
layers = pytest.mark.parametrize(("build", "shape", "name", "place"), LAYERS.values(), ids=LAYERS.keys())
maps = pytest.mark.parametrize(
    ("build", "shape", "name", "place"), list(LAYERS.values())[1:], ids=list(LAYERS)[1:]
)


def both(build, shape, place):
    ours, torch_model = build()
    x = equal.examples(6, shape)
    return ours, torch_model, torch_model[place], jnp.asarray(x), equal.to_torch(x), torch.from_numpy(TARGETS)


def each(method, model, *arrays, **options):
    """The method on every example."""
    return jax.vmap(functools.partial(method, **options), (None, *(0,) * len(arrays)))(model, *arrays)


@layers
def test_activation_and_gradient(build, shape, name, place):
    model, torch_model, module, x, torch_x, targets = both(build, shape, place)
    found = theirs.LayerActivation(torch_model, module).attribute(torch_x)
    equal.assert_near(each(attribution.layer_activation, model, x, layer=name), equal.from_torch(found))
    for multiply in (True, False):
        method = theirs.LayerGradientXActivation(torch_model, module, multiply_by_inputs=multiply)
        found = method.attribute(torch_x, target=targets)
        ours = each(attribution.layer_gradient_x_activation, model, x, TARGETS, layer=name, multiply=multiply)
        equal.assert_near(ours, equal.from_torch(found))


@layers
@pytest.mark.parametrize(
    ("method", "captums"),
    [
        (attribution.layer_integrated_gradients, "LayerIntegratedGradients"),
        (attribution.layer_conductance, "LayerConductance"),
        (attribution.internal_influence, "InternalInfluence"),
    ],
)
def test_paths(build, shape, name, place, method, captums):
    model, torch_model, module, x, torch_x, targets = both(build, shape, place)
    baseline = equal.examples(6, shape, seed=1)

    def ours(model, x, target, baseline):
        return method(model, x, target, layer=name, baseline=baseline, steps=30, batch_size=8)

    found = getattr(theirs, captums)(torch_model, module).attribute(
        torch_x, equal.to_torch(baseline), targets, n_steps=30
    )
    equal.assert_near(each(ours, model, x, TARGETS, baseline), equal.from_torch(found))


@maps
def test_grad_cam(build, shape, name, place):
    model, torch_model, module, x, torch_x, targets = both(build, shape, place)
    for relu in (False, True):
        found = theirs.LayerGradCam(torch_model, module).attribute(
            torch_x, target=targets, relu_attributions=relu
        )
        ours = each(attribution.grad_cam, model, x, TARGETS, layer=name, relu=relu)
        equal.assert_near(ours, equal.from_torch(found)[..., 0])
    resized = theirs.LayerAttribution.interpolate(found, shape[:2], "bilinear")
    ours = each(attribution.grad_cam, model, x, TARGETS, layer=name, relu=True, shape=shape[:2])
    equal.assert_near(ours, equal.from_torch(resized)[..., 0])


@maps
def test_guided_grad_cam(build, shape, name, place):
    model, torch_model, module, x, torch_x, targets = both(build, shape, place)
    found = theirs.GuidedGradCam(torch_model, module).attribute(
        torch_x, target=targets, interpolate_mode="bilinear"
    )
    ours = each(attribution.guided_grad_cam, model, x, TARGETS, layer=name)
    equal.assert_near(ours, equal.from_torch(found))


@layers
def test_neuron_gradient(build, shape, name, place):
    model, torch_model, module, x, torch_x, _ = both(build, shape, place)
    unit = (2,) if len(shape) == 1 else (1, 2, 3)  # Captum: the channel first
    found = theirs.NeuronGradient(torch_model, module).attribute(torch_x, (unit[-1], *unit[:-1]))
    ours = each(lambda model, x: attribution.neuron_gradient(model, x, unit, layer=name), model, x)
    equal.assert_near(ours, equal.from_torch(found))
