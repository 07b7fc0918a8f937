"""Variants of Grad-CAM, by their equations in NumPy with gradients by finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution
from tests.conftest import in_precision
from tests.helpers.params import some

WEIGHTINGS = (
    "gradcam", "gradcam++", "xgradcam", "layercam", "hirescam", "eigencam", "ablationcam", "scorecam"
)  # fmt: skip
KERNELS = np.random.default_rng(0).normal(size=(6, 5))
DENSE = np.random.default_rng(1).normal(size=(12, 5, 3)) / 4
X = np.random.default_rng(2).uniform(0.2, 1.0, size=(3, 4, 6))


def maps_of(x):
    """Channels by position, `(3, 4, 5)`."""
    return jax.nn.softplus(x @ KERNELS)


def head(maps):
    return jnp.einsum("pk,pko->o", jnp.tanh(maps.reshape(12, 5)), DENSE) ** 2


def model(x):
    return head(jaxnn.tap(maps_of(x), "maps"))


def differences(function, x, step=1e-6):
    """The gradient of a scalar by central differences."""
    gradient = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        change = np.zeros(x.shape)
        change[i] = step
        gradient[i] = (function(x + change) - function(x - change)) / (2 * step)
    return gradient


def resized(mask, shape):
    return np.asarray(jax.image.resize(mask, shape, "linear"))


def expected(weights, target):
    """The map by the equation, a loop over channels."""
    a = np.asarray(maps_of(X))
    of_maps, of_x = (lambda v, f=f: float(f(v)[target]) for f in (head, model))
    g, f = differences(of_maps, a), of_maps(a)
    channels = range(a.shape[-1])
    if weights == "layercam":
        return (np.maximum(g, 0) * a).sum(-1)
    if weights == "hirescam":
        return (g * a).sum(-1)
    if weights == "eigencam":
        rows = a.reshape(-1, 5) - a.reshape(-1, 5).mean(0)
        values, vectors = np.linalg.eigh(rows.T @ rows)
        first = rows @ vectors[:, np.argmax(values)]
        return (first * np.sign(np.sum(first * a.reshape(-1, 5).sum(1)))).reshape(3, 4)
    if weights == "gradcam":
        w = [g[..., k].mean() for k in channels]
    elif weights == "gradcam++":
        alpha = [g[..., k] ** 2 / (2 * g[..., k] ** 2 + a[..., k].sum() * g[..., k] ** 3) for k in channels]
        w = [(alpha[k] * np.maximum(g[..., k], 0)).sum() for k in channels]
    elif weights == "xgradcam":
        w = [(g[..., k] * a[..., k]).sum() / a[..., k].sum() for k in channels]
    elif weights == "ablationcam":
        w = [(f - of_maps(np.where(np.arange(5) == k, 0, a))) / f for k in channels]
    else:
        masks = [(a[..., k] - a[..., k].min()) / np.ptp(a[..., k]) for k in channels]
        scores = np.array([of_x(X * resized(mask, (3, 4))[..., None]) for mask in masks])
        w = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return sum(w[k] * a[..., k] for k in channels)


@pytest.mark.parametrize("weights", WEIGHTINGS)
def test_it_is_its_equation(weights):
    with in_precision("float64"):
        found = attribution.grad_cam(model, X, 1, layer="maps", weights=weights, channel_axis=-1)
        np.testing.assert_allclose(found, expected(weights, 1), rtol=1e-5, atol=1e-8)
        positive = attribution.grad_cam(
            model, X, 1, layer="maps", weights=weights, channel_axis=-1, relu=True, batch_size=2
        )
        np.testing.assert_allclose(positive, np.maximum(found, 0), rtol=1e-9)


@pytest.mark.parametrize("weights", some(WEIGHTINGS, "gradcam", "scorecam"))
def test_channels_first_are_the_same(weights):
    def channels_first(x):
        return head(
            jnp.moveaxis(jaxnn.tap(jnp.moveaxis(maps_of(jnp.moveaxis(x, 0, -1)), -1, 0), "maps"), 0, -1)
        )

    options = {"layer": "maps", "weights": weights}
    last = attribution.grad_cam(model, X, 1, channel_axis=-1, **options)
    first = attribution.grad_cam(channels_first, np.moveaxis(X, -1, 0), 1, channel_axis=0, **options)
    np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", some(WEIGHTINGS[:-1], "gradcam", "ablationcam"))
def test_tokens_on_a_grid_are_positions(weights):
    """With a class token before them, which is left out."""

    def tokens(x):
        maps = maps_of(x).reshape(12, 5)
        class_token = jnp.full((1, 5), 7.0)
        values = jaxnn.tap(jnp.concatenate([class_token, maps]), "tokens")
        return head(values[1:].reshape(3, 4, 5)) + jnp.sum(jnp.tanh(values[0]))

    options = {"weights": weights, "batch_size": 3}
    found = attribution.grad_cam(tokens, X, 1, layer="tokens", grid=(3, 4), **options)
    by_maps = attribution.grad_cam(
        lambda x: model(x) + 5 * jnp.tanh(7.0), X, 1, layer="maps", channel_axis=-1, **options
    )
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found, by_maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", ["hirescam", "xgradcam"])
def test_of_a_linear_head_the_map_adds_up_to_the_output(weights):
    def linear(x):
        return jnp.einsum("pk,pko->o", jaxnn.tap(maps_of(x), "maps").reshape(12, 5), DENSE)

    found = attribution.grad_cam(linear, X, 2, layer="maps", weights=weights, channel_axis=-1)
    np.testing.assert_allclose(found.sum(), linear(X)[2], rtol=1e-4)


def test_what_has_no_sum_and_no_gradient_is_finite():
    def model(x):
        return jnp.sum(jaxnn.tap(jnp.stack([0 * x, x, -x, x - x.mean()], -1), "maps")[..., 1])

    for weights in WEIGHTINGS:
        found = attribution.grad_cam(model, jnp.ones((2, 3)), layer="maps", weights=weights, channel_axis=-1)
        assert np.all(np.isfinite(found)), weights


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_unit_of_the_output_does_not_matter_to_quotients(scale):
    def of(weights, scale):
        return attribution.grad_cam(
            lambda x: scale * model(x), X, 1, layer="maps", weights=weights, channel_axis=-1
        )

    np.testing.assert_allclose(of("ablationcam", 1), of("ablationcam", scale), rtol=1e-3)
    np.testing.assert_allclose(of("xgradcam", 1), of("xgradcam", scale) / scale, rtol=1e-3)
    # alpha tends to 1/2 for small gradients: the map to half the sum of the positive ones.
    a, g = maps_of(X), jax.grad(lambda v: 1e-6 * head(v)[1])(maps_of(X))
    np.testing.assert_allclose(of("gradcam++", 1e-6), a @ jax.nn.relu(g).sum((0, 1)) / 2, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "camera"}, "`weights` must be one of 'gradcam'.*got 'camera'"),
        ({"grid": (3, 5)}, r"`grid` must have no more places than 'tokens' has tokens.*\(3, 5\)"),
        ({"grid": 3}, "`grid` must be a tuple of integers"),
        ({"grid": (3, 4), "weights": "scorecam"}, r"`grid` must be None for 'scorecam'.*for \(3, 4, 6\)"),
        ({"batch_size": 0}, "`batch_size` must be .*at least 1; got 0"),
    ],
)
def test_what_is_refused(options, message):
    def tokens(x):
        return head(jaxnn.tap(maps_of(x).reshape(12, 5), "tokens").reshape(3, 4, 5))

    with pytest.raises((ValueError, TypeError), match=message):
        attribution.grad_cam(tokens, X, 1, layer="tokens", **options)


def test_score_cam_needs_positions_in_the_input():
    with pytest.raises(ValueError, match="`x` must be an array of real numbers of at least 2 axes"):
        attribution.grad_cam(
            lambda x: model(x["image"]), {"image": X}, 1, layer="maps", weights="scorecam", channel_axis=-1
        )


@pytest.mark.parametrize("weights", ["xgradcam", "gradcam++"])
def test_sums_in_half_precision_do_not_overflow(weights):
    def model(x):
        maps = jaxnn.tap(x[..., None] * jnp.array([1, 0.5], x.dtype), "maps")
        return maps.astype(jnp.float32).mean()

    half, single = (
        attribution.grad_cam(model, jnp.full((112, 112), 6.0, dtype), layer="maps", weights=weights)
        for dtype in (jnp.float16, jnp.float32)
    )
    np.testing.assert_allclose(np.asarray(half, np.float32), single, rtol=2e-2)
