"""Layers in a scan, as big models stack them, by name and step: as in the same model without a scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxnn
from jaxnn import attribution

RNG = np.random.default_rng(0)
KERNELS = jnp.asarray(RNG.normal(0, 0.4, (4, 6, 6)), jnp.float32)
LAST = jnp.asarray(RNG.normal(0, 0.4, (6, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(0, 1, 6), jnp.float32)


def _block(h, kernel, name):
    return h + jnp.tanh(jaxnn.tap(h @ kernel, name))


def scanned(x):
    return lax.scan(lambda h, kernel: (_block(h, kernel, "dense"), None), x, KERNELS)[0] @ LAST


def looped(x):
    for i, kernel in enumerate(KERNELS):
        x = _block(x, kernel, f"dense {i}")
    return x @ LAST


METHODS = {
    "activation": lambda f, layer: attribution.layer_activation(f, X, layer=layer),
    "gradient": lambda f, layer: attribution.layer_gradient_x_activation(f, X, 1, layer=layer),
    "conductance": lambda f, layer: attribution.layer_conductance(f, X, 1, layer=layer, steps=8),
    "influence": lambda f, layer: attribution.internal_influence(f, X, 1, layer=layer, steps=8),
    "integrated": lambda f, layer: attribution.layer_integrated_gradients(f, X, 1, layer=layer, steps=8),
}


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("method", METHODS)
def test_one_step_is_the_layer_without_a_scan(method):
    for step in (0, 2, -1):
        found, expected = (
            METHODS[method](scanned, ("dense", step)),
            METHODS[method](looped, f"dense {step % 4}"),
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["activation", "gradient"])
def test_all_steps_are_the_steps(method):
    expected = [METHODS[method](scanned, ("dense", step)) for step in range(4)]
    np.testing.assert_allclose(METHODS[method](scanned, "dense"), expected, rtol=1e-5, atol=1e-6)


def test_all_steps_replaced_at_once_add_up():
    """Their path integral explains the change from the baseline's values, with `x` itself as it is."""
    found = attribution.layer_integrated_gradients(scanned, X, 1, layer="dense", steps=60)
    values, values0 = (jaxnn.capture(scanned, x)[1]["dense"] for x in (X, 0 * X))
    output, output0 = (jaxnn.intervene(scanned, {"dense": each})(X)[1] for each in (values, values0))
    np.testing.assert_allclose(found.sum(), output - output0, rtol=1e-4)


def test_a_neuron_of_one_step():
    found = attribution.neuron_gradient(scanned, X, 3, layer=("dense", 2))
    np.testing.assert_allclose(found, attribution.neuron_gradient(looped, X, 3, layer="dense 2"), rtol=1e-5)


def test_interventions_on_one_step():
    halve = lambda h: h / 2  # noqa: E731
    array = jnp.arange(6.0)
    found = jaxnn.intervene(scanned, {("dense", 1): halve, ("dense", -1): array})(X)
    expected = jaxnn.intervene(looped, {"dense 1": halve, "dense 3": array})(X)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    every = jaxnn.intervene(scanned, {"dense": jnp.stack([array] * 4)})
    np.testing.assert_allclose(every(X), jaxnn.intervene(scanned, {"dense": array})(X), rtol=1e-6)
    batch = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(jax.jit(jax.vmap(every))(batch)[0], every(X), rtol=1e-6)


def test_scans_in_scans_take_a_step_each():
    def nested(x):
        outer = lambda h, kernels: (lax.scan(inner, h, kernels)[0], None)  # noqa: E731
        inner = lambda h, kernel: (_block(h, kernel, "dense"), None)  # noqa: E731
        return lax.scan(outer, x, KERNELS.reshape(2, 2, 6, 6))[0] @ LAST

    found = attribution.layer_gradient_x_activation(nested, X, 1, layer=("dense", 1, 0))
    np.testing.assert_allclose(found, METHODS["gradient"](looped, "dense 2"), rtol=1e-5, atol=1e-6)
    values = jaxnn.capture(nested, X)[1]["dense"]
    assert values.shape == (2, 2, 6)
    np.testing.assert_allclose(jaxnn.intervene(nested, {"dense": values})(X), nested(X), rtol=1e-6)
    with pytest.raises(ValueError, match="must have a step for each scan around 'dense'.* are 2"):
        attribution.layer_activation(nested, X, layer=("dense", 1))


def test_bad_steps_raise():
    with pytest.raises(ValueError, match=r"`layer` must have a step from -4 to 3 of 'dense'; got"):
        attribution.layer_activation(scanned, X, layer=("dense", 4))
    with pytest.raises(ValueError, match="`layer` must have a step for each scan.* are 0"):
        attribution.layer_activation(looped, X, layer=("dense 0", 0))
    with pytest.raises(TypeError, match="`layer` must be the name of an intermediate, or"):
        attribution.layer_activation(scanned, X, layer=("dense",))
    with pytest.raises(ValueError, match="`replacements` must have a step from -4 to 3"):
        jaxnn.intervene(scanned, {("dense", 9): lambda h: h})(X)
    with pytest.raises(ValueError, match="`replacements` must name each step once"):
        jaxnn.intervene(scanned, {("dense", 3): lambda h: h, ("dense", -1): X})(X)
    with pytest.raises(TypeError, match="`replacements` must be a dictionary by name"):
        jaxnn.intervene(scanned, {("dense", "first"): lambda h: h})


def test_grad_cam_takes_one_step():
    kernel = jnp.asarray(RNG.normal(0, 0.4, (3, 1, 1, 2, 2)), jnp.float32)

    def model(x):
        def step(h, k):
            return jaxnn.tap(jax.nn.relu(jnp.einsum("hwc,abcd->hwd", h, k)), "maps"), None

        return lax.scan(step, x, kernel)[0].sum((0, 1))

    x = jnp.asarray(RNG.normal(1, 1, (4, 5, 2)), jnp.float32)
    with pytest.raises(ValueError, match=r"`layer` must name one step of the scan, as in `\('maps', 0\)`"):
        attribution.grad_cam(model, x, 1, layer="maps")
    assert attribution.grad_cam(model, x, 1, layer=("maps", 1), channel_axis=-1).shape == (4, 5)
