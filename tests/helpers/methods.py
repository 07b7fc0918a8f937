"""One method of each kind on a model that came through an adapter: it must run, and say the same as ever."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn
from jaxnn import attacks, attribution, dreaming


def capture(model, x, layer):
    y, values = jaxnn.capture(model, x)
    np.testing.assert_allclose(y, model(x), rtol=1e-6, atol=1e-6)
    assert bool(jnp.isfinite(values[layer]).all())


def saliency(model, x, layer):
    expected = jax.grad(lambda x: model(x)[1])(x)
    np.testing.assert_allclose(attribution.saliency(model, x, 1), expected, rtol=1e-5, atol=1e-6)


def integrated_gradients(model, x, layer):
    complete(model, x, attribution.integrated_gradients(model, x, 1, check_completeness=False), 0.05)


def deep_lift(model, x, layer):
    complete(model, x, attribution.deep_lift(model, x, 1), 1e-5)


def lrp(model, x, layer):
    relevance = attribution.lrp(model, x, 1, rule="epsilon")
    assert relevance.shape == x.shape
    assert bool(jnp.isfinite(relevance).all() & (relevance != 0).any())


def grad_cam(model, x, layer):
    shape = x.shape[1:] if x.shape[0] == 3 else x.shape[:2]  # with three channels first or last
    maps = attribution.grad_cam(model, x, 1, layer=layer, shape=shape)
    assert maps.shape == shape
    assert bool(jnp.isfinite(maps).all())


def occlusion(model, x, layer):
    found = attribution.occlusion(model, x, 1, window=x.shape)  # all of it at once
    np.testing.assert_allclose(found, change(model, x), rtol=1e-4, atol=1e-5)


def kernel_shap(model, x, layer):
    groups = jnp.arange(x.size).reshape(x.shape) % 4
    found = attribution.kernel_shap(model, x, 1, key=jax.random.key(5), groups=groups)
    np.testing.assert_allclose(found.reshape(-1)[:4].sum(), change(model, x), rtol=1e-4, atol=1e-5)


def dream(model, x, layer):
    found = jaxnn.dream(
        model, dreaming.layer(layer), key=jax.random.key(5), shape=x.shape, steps=4, transforms=()
    )
    assert found.image.shape == x.shape


def pgd(model, x, layer):
    label = int(model(x).argmax())
    found = attacks.pgd(model, x, label, epsilon=0.1, bounds=(-4.0, 4.0), key=jax.random.key(5), steps=5,
        relative_step_size=0.5,
    )  # fmt: skip
    assert float(jnp.abs(found.input - x).max()) <= 0.1 + 1e-6
    assert jax.nn.softmax(model(found.input))[label] < jax.nn.softmax(model(x))[label]


def change(model, x):
    """The change of the output from that at a baseline of zeros."""
    return model(x)[1] - model(jnp.zeros_like(x))[1]


def complete(model, x, attributions, tolerance):
    np.testing.assert_allclose(attributions.sum(), change(model, x), rtol=tolerance, atol=tolerance)


METHODS = {
    method.__name__: method
    for method in (
        capture, saliency, integrated_gradients, deep_lift, lrp, occlusion, kernel_shap, dream, pgd, grad_cam
    )
}  # fmt: skip


@functools.partial(jax.jit, static_argnames="layer")
def read(model, x, layer):
    """The output and a named value, compiled."""
    y, values = jaxnn.capture(model, x)
    return y, values[layer]
