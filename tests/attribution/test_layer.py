"""Attribution at layers and to units: what must hold of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution
from tests.conftest import in_precision

NETWORK = jaxnn.init(jax.random.key(0), (12, 8, 6, 3), activation="tanh")
X, BASELINE = (np.random.default_rng(0).normal(size=12).astype(np.float32) for _ in range(2))
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 1, 2)).astype(np.float32)
METHODS = [
    attribution.layer_gradient_x_activation,
    attribution.layer_integrated_gradients,
    attribution.layer_conductance,
    attribution.internal_influence,
]


def convolutional(x):
    maps = jax.lax.conv_general_dilated(
        x[None, :, :, None], KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    maps = jaxnn.tap(maps, "maps")
    return jnp.stack([jnp.sum(jnp.tanh(maps)), jnp.sum(maps[..., 0] ** 2)])


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("layer", ["hidden_0_in", "hidden_0", "hidden_1", "output"])
def test_layers_explain_the_whole_difference(layer):
    path = functools.partial(
        attribution.layer_integrated_gradients, NETWORK, X, 1, layer=layer, baseline=BASELINE
    )
    gap = functools.partial(attribution.completeness_gap, NETWORK, X, 1, baseline=BASELINE)
    assert abs(gap(path())) < 1e-6
    # Conductance leaves out the ends, and goes in straight steps: its error falls with their number.
    conductance = [
        attribution.layer_conductance(NETWORK, X, 1, layer=layer, baseline=BASELINE, steps=steps)
        for steps in (50, 500)
    ]
    assert abs(gap(conductance[0])) < 0.1
    assert abs(gap(conductance[1])) < 0.015


def test_at_the_output_all_is_with_the_target():
    result = [method(NETWORK, X, 1, layer="output") for method in METHODS]
    for values in result:
        assert values[0] == values[2] == 0
    output = NETWORK(X)[1]
    np.testing.assert_allclose(result[0][1], output, rtol=1e-6)
    np.testing.assert_allclose(result[3][1], 1, rtol=1e-6)
    equal = attribution.layer_gradient_x_activation(NETWORK, X, 1, layer="output", multiply=False)
    np.testing.assert_allclose(equal, [0, 1, 0])


@pytest.mark.parametrize("method", METHODS[1:])
def test_chunks_do_not_matter(method):
    outputs = [
        method(NETWORK, X, 1, layer="hidden_0", steps=9, batch_size=batch_size) for batch_size in (1, 4, 50)
    ]
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], atol=1e-6)


def test_a_unit_by_finite_differences():
    with in_precision("float64"):
        network = jax.tree.map(lambda a: jnp.asarray(np.array(a), "float64"), NETWORK)
        x = X.astype("float64")
        result = attribution.neuron_gradient(network, x, 4, layer="hidden_1")
        activation = functools.partial(attribution.layer_activation, network, layer="hidden_1")
        expected = [(activation(x + e)[4] - activation(x - e)[4]) / 2e-6 for e in 1e-6 * np.eye(12)]
        np.testing.assert_allclose(result, expected, atol=1e-9)
        total = attribution.neuron_gradient(network, x, jnp.sum, layer="hidden_1")
        each = [attribution.neuron_gradient(network, x, unit, layer="hidden_1") for unit in range(6)]
        np.testing.assert_allclose(total, np.sum(each, axis=0), atol=1e-12)


def test_any_method_asks_a_unit():
    unit = lambda x: attribution.layer_activation(NETWORK, x, layer="hidden_0")  # noqa: E731
    result = attribution.integrated_gradients(unit, X, 5)
    np.testing.assert_allclose(result.sum(), unit(X)[5] - unit(0 * X)[5], atol=1e-6)


def test_a_reused_layer_has_its_places_apart():
    def twice(x):
        for _ in range(2):
            x = jaxnn.tap(2 * x, "double")
        return x.sum()

    x = jnp.array([1.0, 3.0])
    gradients = {
        layer: attribution.layer_gradient_x_activation(twice, x, layer=layer, multiply=False).tolist()
        for layer in ("double@1", "double@2")
    }
    assert gradients == {"double@1": [2, 2], "double@2": [1, 1]}


def test_what_goes_around_a_layer_stays():
    def model(x):
        return (jaxnn.tap(2 * x, "inner") * x).sum()

    result = attribution.layer_gradient_x_activation(model, [1.0, 3.0], layer="inner")
    np.testing.assert_allclose(result, [2, 18])


def test_grad_cam_in_numpy():
    x = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    maps = np.array(jaxnn.capture(convolutional, x)[1]["maps"])
    gradients = 1 - np.tanh(maps) ** 2
    expected = (gradients.mean(axis=(0, 1)) * maps).sum(axis=-1)
    np.testing.assert_allclose(attribution.grad_cam(convolutional, x, 0, layer="maps"), expected, atol=1e-5)
    for shape in (None, (12, 10)):
        result = attribution.grad_cam(convolutional, x, 0, layer="maps", relu=True, shape=shape)
        wanted = np.maximum(expected, 0)
        if shape is not None:
            wanted = jax.image.resize(wanted, shape, "linear")
        np.testing.assert_allclose(result, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "method", [*METHODS, attribution.layer_activation, attribution.neuron_gradient, attribution.grad_cam]
)
def test_bad_layers_raise(method):
    target = () if method is attribution.layer_activation else (1,)
    with pytest.raises(ValueError, match=r"`layer` must name .*'hidden_0_in', 'hidden_0'.*; got 'hidden_9'"):
        method(NETWORK, X, *target, layer="hidden_9")
    with pytest.raises(TypeError, match="`layer` must be the name of an intermediate, or .* got int 3"):
        method(NETWORK, X, *target, layer=3)


def test_other_bad_input_raises():
    with pytest.raises(
        ValueError, match=r"`layer` must have shape \(h, w, channels\); 'hidden_0' has \(8,\)"
    ):
        attribution.grad_cam(NETWORK, X, 1, layer="hidden_0")
    with pytest.raises(ValueError, match="`shape` must have 2 sizes"):
        attribution.grad_cam(convolutional, np.ones((4, 4), np.float32), 0, layer="maps", shape=(3,))
    with pytest.raises(ValueError, match="`unit` must lie from -8 to 7"):
        attribution.neuron_gradient(NETWORK, X, 8, layer="hidden_0")
    with pytest.raises(ValueError, match="`unit` must be an index into the output, of shape"):
        attribution.neuron_gradient(NETWORK, X, layer="hidden_0")
    counted = lambda x: jaxnn.tap(jnp.argmax(x), "best").astype(x.dtype) * x.sum()  # noqa: E731
    with pytest.raises(ValueError, match="`layer` must name real numbers; 'best' has dtype int"):
        attribution.layer_gradient_x_activation(counted, X, layer="best")


@pytest.mark.parametrize("method", [attribution.grad_cam, attribution.guided_grad_cam])
def test_the_maps_of_channels_first_are_those_of_channels_last(method):
    kernel = np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32)
    head = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)

    def model(axis):
        names = ("CHW", "OIHW", "CHW") if axis == 0 else ("HWC", "OIHW", "HWC")

        def function(x):
            specs = tuple("N" + each for each in (names[0], names[2]))
            y = jax.lax.conv_general_dilated(
                x[None], kernel, (1, 1), "SAME", dimension_numbers=(specs[0], names[1], specs[1])
            )[0]
            maps = jaxnn.tap(jax.nn.relu(y), "maps")
            return jax.nn.relu(maps.mean(tuple({0, 1, 2} - {axis % 3}))) @ head

        return function

    x = np.random.default_rng(2).uniform(size=(7, 9, 3)).astype(np.float32)
    last = method(model(-1), x, 2, layer="maps")
    first = method(model(0), np.moveaxis(x, -1, 0), 2, layer="maps")
    first = np.moveaxis(first, 0, -1) if first.ndim == 3 else first
    np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-6)
    given = method(model(-1), x, 2, layer="maps", channel_axis=-1)
    np.testing.assert_array_equal(given, last)


def test_channels_that_are_not_known_are_asked_for():
    def tokens(x):
        y = jax.lax.conv(x[None], jnp.ones((6, 3, 3, 3)), (1, 1), "SAME")[0]
        return jaxnn.tap(y.reshape(12, 8), "tokens").sum()

    with pytest.raises(ValueError, match="`channel_axis` must be given: which axis of 'tokens'"):
        attribution.grad_cam(tokens, jnp.ones((3, 4, 4)), layer="tokens")
    assert attribution.grad_cam(tokens, jnp.ones((3, 4, 4)), layer="tokens", channel_axis=1).shape == (12,)
    with pytest.raises(ValueError, match=r"`channel_axis` must be an axis of 'tokens', .*\(12, 8\); got 2"):
        attribution.grad_cam(tokens, jnp.ones((3, 4, 4)), layer="tokens", channel_axis=2)
