"""Kernel SHAP beside the SHAP library, its selection of features turned off."""

import jax
import numpy as np
import pytest

shap = pytest.importorskip("shap")
torch = pytest.importorskip("torch")

from jaxnn import attribution  # noqa: E402
from tests.peers import equal_weights as equal  # noqa: E402


def theirs(network, x, baseline, n_samples):
    answer = jax.jit(jax.vmap(lambda x: network(x)[2]))
    explainer = shap.KernelExplainer(lambda rows: np.asarray(answer(rows.astype(np.float32))), baseline[None])
    return explainer.shap_values(x, nsamples=n_samples, l1_reg=False, silent=True)


def case(seed, features):
    """An example of so many features. SHAP leaves out those that equal the baseline: our last group."""
    network, _ = equal.dense(seed)
    x, baseline = equal.examples(2, (20,), seed=seed)
    x = np.where(np.arange(20) < features, x, baseline)
    return network, x, baseline, np.minimum(np.arange(20), features)


def test_all_sets_are_equal():
    network, x, baseline, groups = case(0, 8)
    ours = attribution.kernel_shap(network, x, 2, key=jax.random.key(0), baseline=baseline, groups=groups)
    equal.assert_near(ours[:8], theirs(network, x, baseline, 254)[:8])
    np.testing.assert_allclose(ours[8:], 0, atol=1e-6)


def test_sampled_sets_agree_within_the_standard_error():
    network, x, baseline, groups = case(1, 13)
    np.random.seed(0)  # SHAP draws from NumPy's global state
    found = theirs(network, x, baseline, 4000)[:13]
    options = {"baseline": baseline, "groups": groups}
    ours = attribution.kernel_shap(
        network, x, 2, key=jax.random.key(1), n_samples=1000, with_error=True, **options
    )
    exact = attribution.shapley_values(network, x, 2, **options)
    for other in (found, exact[:13]):
        apart = np.abs(ours.value[:13] - other) / ours.standard_error[:13]
        assert apart.max() < 4
        assert 0.4 < np.sqrt((apart**2).mean()) < 1.6
