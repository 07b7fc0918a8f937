"""Gradients and paths beside Captum, on equal weights."""

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
MODELS = {
    "dense": (lambda: equal.dense(0), equal.SIZES[:1]),
    "convolutional": (lambda: equal.convolutional(2), equal.IMAGE),
}
models = pytest.mark.parametrize(("build", "shape"), MODELS.values(), ids=MODELS.keys())


def both(build, shape):
    ours, torch_model = build()
    x = equal.examples(6, shape)
    return ours, torch_model, jnp.asarray(x), equal.to_torch(x), torch.from_numpy(TARGETS)


def each(method, model, *arrays, **options):
    """The method on every example."""
    return jax.vmap(functools.partial(method, **options), (None, *(0,) * len(arrays)))(model, *arrays)


@models
def test_saliency(build, shape):
    model, torch_model, x, torch_x, targets = both(build, shape)
    for absolute in (False, True):
        ours = each(attribution.saliency, model, x, TARGETS, absolute=absolute)
        found = theirs.Saliency(torch_model).attribute(torch_x, target=targets, abs=absolute)
        equal.assert_near(ours, equal.from_torch(found))


@models
def test_input_x_gradient(build, shape):
    model, torch_model, x, torch_x, targets = both(build, shape)
    ours = each(attribution.input_x_gradient, model, x, TARGETS)
    found = theirs.InputXGradient(torch_model).attribute(torch_x, target=targets)
    equal.assert_near(ours, equal.from_torch(found))


@models
@pytest.mark.parametrize(
    ("quadrature", "method"),
    [
        ("gauss_legendre", "gausslegendre"),
        *((f"riemann_{side}", f"riemann_{side}") for side in ("left", "right", "middle")),
    ],
)
def test_integrated_gradients(build, shape, quadrature, method):
    model, torch_model, x, torch_x, targets = both(build, shape)
    baseline = equal.examples(6, shape, seed=1)

    def ours(model, x, target, baseline):
        return attribution.integrated_gradients(
            model, x, target, baseline=baseline, steps=50, quadrature=quadrature, batch_size=8
        )

    found = theirs.IntegratedGradients(torch_model).attribute(
        torch_x, equal.to_torch(baseline), targets, n_steps=50, method=method
    )
    equal.assert_near(each(ours, model, x, TARGETS, baseline), equal.from_torch(found))


@models
def test_a_trapezoid_is_captums_times_what_its_weights_lack(build, shape):
    # Captum's weights sum to (n - 1) / n.
    model, torch_model, x, torch_x, targets = both(build, shape)
    # Not from an even image, where pools see equal values, and the two share a slope out differently.
    baseline = equal.examples(6, shape, seed=1)

    def ours(model, x, target, baseline):
        options = {"baseline": baseline, "steps": 20, "quadrature": "trapezoid"}
        return attribution.integrated_gradients(model, x, target, **options)

    found = theirs.IntegratedGradients(torch_model).attribute(
        torch_x, equal.to_torch(baseline), targets, n_steps=20, method="riemann_trapezoid"
    )
    equal.assert_near(each(ours, model, x, TARGETS, baseline), equal.from_torch(found) * 20 / 19)


@models
@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_smooth_grad_on_the_same_noise(build, shape, kind, monkeypatch):
    model, torch_model, x, torch_x, targets = both(build, shape)
    key, sigma = jax.random.key(3), 0.2

    def ours(model, x, target, key):
        options = {"key": key, "n_samples": 12, "noise": sigma, "bounds": (0.0, 1.0), "batch_size": 5}
        if kind == "vargrad":
            return attribution.var_grad(model, x, target, **options)
        return attribution.smooth_grad(model, x, target, squared=kind == "smoothgrad_sq", **options)

    def drawn(key):
        def draw(sample):
            return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, sample), 0), shape)

        return jax.vmap(draw)(jnp.arange(12))

    keys = jax.random.split(key, 6)
    noise = equal.to_torch(jax.vmap(drawn)(keys).reshape(6 * 12, *shape))  # all samples of an example first
    monkeypatch.setattr(torch, "normal", lambda mean, deviation: mean + deviation * noise)
    found = theirs.NoiseTunnel(theirs.Saliency(torch_model)).attribute(
        torch_x, nt_type=kind, nt_samples=12, stdevs=sigma, target=targets, abs=False
    )
    equal.assert_near(each(ours, model, x, TARGETS, keys), equal.from_torch(found))


def test_expected_gradients_within_the_standard_errors():
    model, torch_model, x, torch_x, targets = both(*MODELS["dense"])
    baselines = equal.examples(4, equal.SIZES[:1], seed=5)

    def ours(model, x, target):
        return attribution.expected_gradients(
            model, x, target, baselines=baselines, key=jax.random.key(4), n_samples=4000, with_error=True
        )

    found = each(ours, model, x, TARGETS)
    torch.manual_seed(0)
    np.random.seed(0)
    shap = theirs.GradientShap(torch_model).attribute(
        torch_x, equal.to_torch(baselines), target=targets, n_samples=4000, stdevs=0.0
    )
    apart = np.asarray(found.value - equal.from_torch(shap)) / np.asarray(found.standard_error)
    # Two estimates of equal error lie sqrt(2) of them apart, in the mean of squares.
    assert 1.0 < np.sqrt(np.mean(apart**2)) < 1.8
    assert np.abs(apart).max() < 6
