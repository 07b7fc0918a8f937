"""Losses against their equations and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import losses


def test_squared_error_is_half_the_squared_distance():
    y, t = np.array([0.2, -1.0, 3.0], np.float32), np.array([0.5, 1.0, 3.0], np.float32)
    assert float(losses.squared_error(y, t)) == pytest.approx((0.3**2 + 2**2) / 2)
    np.testing.assert_allclose(jax.grad(losses.squared_error)(y, t), y - t, rtol=1e-6)


def test_cross_entropy_agrees_with_optax_for_labels_and_probabilities():
    z = jnp.array([3.0, -200.0, 0.5, 90.0])
    for label in range(4):
        expected = optax.softmax_cross_entropy_with_integer_labels(z, label)
        np.testing.assert_allclose(losses.cross_entropy(z, label), expected, rtol=1e-6)
    t = jnp.array([0.1, 0.2, 0.3, 0.4])
    expected = optax.softmax_cross_entropy(z, t)
    np.testing.assert_allclose(losses.cross_entropy(z, t), expected, rtol=1e-6)


def test_cross_entropy_follows_its_equation_where_targets_do_not_sum_to_one():
    z, t = np.array([1.0, 2.0, 0.0]), np.array([0.99, 0.01, 0.01])
    expected = np.log(np.exp(z).sum()) * t.sum() - t @ z
    np.testing.assert_allclose(losses.cross_entropy(z, t), expected, rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, 10**6])
def test_a_label_that_no_output_has_gives_nan_not_a_neighbours_loss(label):
    assert np.isnan(losses.cross_entropy(jnp.zeros(3), label))


@pytest.mark.parametrize(
    ("loss", "output", "target", "error", "match"),
    [
        (losses.squared_error, [1.0, 2.0], [1.0], ValueError, r"`target` must have shape \(2,\)"),
        (losses.cross_entropy, 1.0, 1, ValueError, r"`output` must have shape \(n_out,\).*got \(\)"),
        (losses.cross_entropy, [1.0, 2.0], [1.0], ValueError, r"`target` must have shape \(2,\)"),
        (losses.cross_entropy, [1.0, 2.0], 1.0, TypeError, "integer label; got dtype float32"),
        (losses.squared_error, "a", [1.0], TypeError, "`output` must be an array of numbers"),
    ],
)
def test_bad_input_is_refused(loss, output, target, error, match):
    with pytest.raises(error, match=match):
        loss(output, target)


@pytest.mark.parametrize(
    "logits", [[1.0, -np.inf, 0.0], np.float16([6e4, -6e4, 0.0]), np.float32([3e38, -3e38, 0.0])]
)
def test_a_class_that_is_ruled_out_adds_nothing(logits):
    z = jnp.asarray(logits)
    one_hot = jnp.array([1.0, 0.0, 0.0], z.dtype)
    assert losses.cross_entropy(z, one_hot) == losses.cross_entropy(z, 0)
    np.testing.assert_allclose(
        jax.grad(losses.cross_entropy)(z, one_hot), jax.grad(losses.cross_entropy)(z, 0), rtol=1e-6
    )
    assert losses.cross_entropy(jnp.array([1.0, -jnp.inf]), jnp.array([0.5, 0.5])) == jnp.inf
