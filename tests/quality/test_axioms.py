import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution, quality

X = np.array([1.0, 2.0, -0.5, 0.25], np.float32)


def model(x):
    return jnp.sin(x[0]) * x[1] + x[2] ** 2  # not of x[3]


def test_completeness():
    with_gap = [1.0, 1.0, 1.0, 1.0]
    change = float(model(X))
    np.testing.assert_allclose(
        quality.completeness(model, X, None, with_gap), abs(4 - change) / change, rtol=1e-5
    )
    exact = attribution.integrated_gradients(model, X)
    assert float(quality.completeness(model, X, None, exact)) < 1e-4
    assert float(quality.completeness(lambda x: 2 * x[0] - x[3], X, None, [2.0, 0, 0, -0.25])) == 0


def test_completeness_where_the_output_does_not_change():
    flat = lambda x: 0 * x[0]  # noqa: E731
    assert float(quality.completeness(flat, X, None, np.zeros(4))) == 0
    assert float(quality.completeness(flat, X, None, np.ones(4))) == np.inf


@pytest.mark.parametrize(
    ("attributions", "wrong"),
    [([1.0, 1.0, 1.0, 0.0], 0), ([0.0, 1.0, 1.0, 0.0], 1), ([0.0, 1.0, 1.0, 2.0], 2), ([0.0] * 4, 3)],
)
def test_non_sensitivity_counts_both_kinds(attributions, wrong):
    assert float(quality.non_sensitivity(model, X, None, attributions)) == wrong


def test_non_sensitivity_of_groups():
    groups = [0, 0, 1, 2]
    values = [[1.0, -1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    found = [float(quality.non_sensitivity(model, X, None, a, groups=groups)) for a in values]
    assert found == [2, 0]  # the sum of the first group, 0, and the second group


def test_input_invariance():
    shifted = lambda x: model(x - 2)  # noqa: E731
    for explain in (attribution.saliency, attribution.input_x_gradient):
        a, b = explain(model, X), explain(shifted, X + 2)
        expected = np.linalg.norm(b - a) / np.linalg.norm(a)
        np.testing.assert_allclose(
            quality.input_invariance(model, X, None, explain, shift=2.0), expected, atol=1e-6
        )
    assert expected > 0.1
    moved = lambda model, x, target: attribution.integrated_gradients(  # noqa: E731
        model, x, target, baseline=x - jnp.asarray(X), check_completeness=False
    )
    assert float(quality.input_invariance(model, X, None, moved)) < 1e-5


def test_parts_that_the_report_explains_again_see_the_network():
    network = jaxnn.init(jax.random.key(0), (4, 6, 3), activation="relu")
    value = quality.input_invariance(network, X, 1, attribution.deep_lift)
    assert np.isfinite(value)
    assert value > 0
