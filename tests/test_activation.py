"""Activations invert, with the precision the dtype allows; the rescale keeps its promises."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

import jaxnn
from jaxnn._activation import ACTIVATION_NAMES, INVERTIBLE_NAMES
from tests.conftest import in_precision

SIZE = 8  # one shape for every draw: a new one recompiles


def vectors(low, high, dtype):
    width = np.dtype(dtype).itemsize * 8
    low, high = np.dtype(dtype).type(low), np.dtype(dtype).type(high)
    numbers = st.floats(float(low), float(high), width=width, allow_subnormal=False)
    return hnp.arrays(dtype, SIZE, elements=numbers)


def both_precisions(low, high):
    """(dtype, vector of it with elements in [low, high])."""
    kinds = [np.float32, np.float64]
    return st.sampled_from(kinds).flatmap(lambda d: st.tuples(st.just(d), vectors(low, high, d)))


@given(both_precisions(-15, 15))
def test_logit_inverts_the_sigmoid(case):
    dtype, x = case
    with in_precision(dtype):
        sigmoid = jaxnn.activation("sigmoid")
        back = np.asarray(sigmoid.inverse(sigmoid.function(x)), np.float64)
    eps = np.finfo(dtype).eps
    x = x.astype(np.float64)
    # p = sigmoid(x) is known to eps p. The derivative of the logit there is 1 / (p (1 - p)) = (1 + e^x) / p.
    assert back.dtype == np.float64
    np.testing.assert_array_less(np.abs(back - x), 4 * eps * (1 + np.exp(x) + np.abs(x)))


@given(both_precisions(1e-6, 1 - 1e-6))
def test_the_sigmoid_inverts_logit(case):
    dtype, p = case
    with in_precision(dtype):
        sigmoid = jaxnn.activation("sigmoid")
        back = np.asarray(sigmoid.function(sigmoid.inverse(p)))
    assert back.dtype == dtype
    # logit(p) is known to eps |logit(p)|, and the derivative of the sigmoid there is p (1 - p) <= p.
    eps, exact = np.finfo(dtype).eps, p.astype(np.float64)
    bound = 8 * eps * exact * (1 + np.abs(np.log(exact / (1 - exact))))
    np.testing.assert_array_less(np.abs(back - exact), bound)


RANGES = {
    "sigmoid": (0.001, 0.999),
    "tanh": (-0.999, 0.999),
    "softplus": (0.001, 50),
    "elu": (-0.999, 50),
    "leaky_relu": (-50, 50),
    "identity": (-50, 50),
}


def test_every_invertible_activation_has_its_range_here():
    assert set(RANGES) == set(INVERTIBLE_NAMES)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", INVERTIBLE_NAMES)
@given(data=st.data())
def test_each_inverse_inverts_its_function_both_ways(name, data):
    dtype, y = data.draw(both_precisions(*RANGES[name]))
    known = jaxnn.activation(name)
    with in_precision(dtype):
        x = np.asarray(known.inverse(y))
        there = np.asarray(known.function(x))
        back = np.asarray(known.inverse(known.function(x)))
        derivative = np.asarray(jax.vmap(jax.grad(known.function))(x), np.float64)
    eps = np.finfo(dtype).eps
    assert there.dtype == dtype
    # Errors of a few eps in y come back divided by the derivative, those in x multiplied by it.
    scale_y, scale_x = np.maximum(np.abs(y), 1), np.maximum(np.abs(x), 1)
    np.testing.assert_array_less(np.abs(there - y), 8 * eps * (scale_y + scale_x * derivative))
    np.testing.assert_array_less(np.abs(back - x), 16 * eps * (scale_x + scale_y / derivative))


@pytest.mark.parametrize("name", INVERTIBLE_NAMES)
def test_the_range_is_the_open_interval_of_what_the_function_gives(name):
    known = jaxnn.activation(name)
    with in_precision(np.float64):
        y = np.asarray(known.function(jnp.linspace(-15, 15, 1001)))
    assert np.all(y > known.low)
    assert np.all(y < known.high)
    assert np.isclose(known.at_zero, float(known.function(jnp.zeros(()))))


@pytest.mark.parametrize("name", ["elu", "leaky_relu", "softplus", "tanh", "sigmoid"])
def test_inverses_have_finite_gradients_on_both_sides(name):
    low, high = RANGES[name]
    y = jnp.linspace(low, high, 101)
    gradients = jax.vmap(jax.grad(jaxnn.activation(name).inverse))(y)
    assert np.all(np.isfinite(gradients))
    assert np.all(gradients > 0)


def test_activations_without_an_inverse_say_so():
    without = [n for n in ACTIVATION_NAMES if jaxnn.activation(n).inverse is None]
    assert without == ["relu", "gelu", "softmax"]


def test_an_unknown_activation_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"`name` must be one of 'sigmoid', 'tanh'.*got 'swish'"):
        jaxnn.activation("swish")


WIDE = 3e38  # nearly the largest float32: its range overflows


@given(both_precisions(-WIDE, WIDE))
def test_rescale_meets_its_bounds_and_keeps_order(case):
    dtype, v = case
    with in_precision(dtype):
        r = np.asarray(jaxnn.rescale(v, 0.01, 0.99))
    low, high = dtype(0.01), dtype(0.99)
    assert r.dtype == dtype
    assert np.all((low <= r) & (r <= high))
    order = np.argsort(v, kind="stable")
    assert np.all(np.diff(r[order]) >= 0)
    limits = np.finfo(dtype)
    if np.ptp(v.astype(np.float64) / 8) >= 2 * limits.tiny / limits.eps:
        assert r[np.argmin(v)] == low
        assert r[np.argmax(v)] == high


@given(both_precisions(-1e3, 1e3))
def test_rescale_equals_the_books(case):
    dtype, v = case
    if np.ptp(v) < 1e-3:
        v = np.arange(SIZE, dtype=dtype)
    with in_precision(dtype):
        r = np.asarray(jaxnn.rescale(v))
    exact = v.astype(np.float64)
    exact = (exact - exact.min()) / np.ptp(exact) * 0.98 + 0.01
    bound = 4 * np.finfo(dtype).eps * max(1, np.abs(v).max() / np.ptp(v))
    np.testing.assert_allclose(r, exact, atol=bound, rtol=0)


@given(both_precisions(-WIDE, WIDE))
def test_rescale_is_idempotent(case):
    dtype, v = case
    with in_precision(dtype):
        once = np.asarray(jaxnn.rescale(v))
        twice = np.asarray(jaxnn.rescale(once))
    np.testing.assert_allclose(twice, once, rtol=0, atol=4 * np.finfo(dtype).eps)


@given(st.sampled_from([np.float32, np.float64]), st.floats(-(2.0**127), 2.0**127, width=32))
def test_rescale_maps_a_constant_vector_to_the_middle(dtype, value):
    with in_precision(dtype):
        r = np.asarray(jaxnn.rescale(np.full(SIZE, value, dtype), 0.2, 0.4))
    np.testing.assert_array_equal(r, dtype((0.2 + 0.4) / 2))


@pytest.mark.long
@given(both_precisions(-WIDE, WIDE))
def test_rescale_has_a_finite_gradient(case):
    dtype, v = case
    with in_precision(dtype):
        jacobian = np.asarray(jax.jacrev(jaxnn.rescale)(v))
    assert np.all(np.isfinite(jacobian))


@pytest.mark.long
def test_the_gradient_of_rescale_agrees_with_finite_differences():
    with in_precision(np.float64):
        v = jnp.array([0.3, -1.2, 2.5, 0.7, 1.1])
        jax.test_util.check_grads(jaxnn.rescale, (v,), order=2, modes=("fwd", "rev"), atol=1e-5)


def test_rescale_works_over_the_last_axis_only():
    rows = jnp.array([[0.0, 1.0, 4.0], [5.0, 5.0, 5.0]])
    each = jnp.stack([jaxnn.rescale(row, 0.0, 1.0) for row in rows])
    np.testing.assert_array_equal(jaxnn.rescale(rows, 0.0, 1.0), each)


def test_rescale_keeps_half_precision_and_lets_nan_through():
    assert jaxnn.rescale(jnp.arange(4, dtype=jnp.bfloat16)).dtype == jnp.bfloat16
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        assert np.all(np.isnan(jaxnn.rescale(jnp.array([0.0, bad, 1.0]))))
    assert np.all(np.isnan(jaxnn.rescale(jnp.full(3, jnp.inf))))


@pytest.mark.parametrize("size", [1e-27, 1e-22, 1e-3, 1.0, 1e15, 1e22, 1e36])
def test_the_gradient_of_rescale_holds_at_every_scale(size):
    """At v = (0, 1, 3) times any size the Jacobian is that at (0, 1, 3), over the size."""
    exact = 0.98 * np.array([[0, 0, 0], [-2 / 9, 1 / 3, -1 / 9], [0, 0, 0]])
    jacobian = jax.jacrev(jaxnn.rescale)(jnp.array([0.0, 1.0, 3.0], jnp.float32) * size)
    np.testing.assert_allclose(np.asarray(jacobian, np.float64) * size, exact, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ((1.0,), ValueError, r"`v` must have shape \(\.\.\., n\).*got \(\)"),
        ((np.zeros((3, 0)),), ValueError, r"n at least 1; got \(3, 0\)"),
        (([0.0, 1.0], 0.9, 0.1), ValueError, "`low` must be below `high`.*got 0.9 and 0.1"),
        (([0.0, 1.0], 0.0, np.nan), ValueError, "`high` must be finite.*; got nan"),
        (([0.0, 1.0], "a", 1.0), TypeError, "`low` must be a number, not traced; got str 'a'"),
        ((np.float32([0, 1]), -3e38, 3e38), ValueError, "by a distance that float32 represents"),
        (("ab",), TypeError, "`v` must be an array of numbers; got str 'ab'"),
        ((np.ones(2, complex),), TypeError, "`v` must hold real numbers; got dtype complex64"),
    ],
)
def test_rescale_refuses_bad_input(args, error, match):
    with pytest.raises(error, match=match):
        jaxnn.rescale(*args)
