"""Canaries: programs that a release of XLA compiled wrongly, against NumPy in float64.

jaxlib 0.10.2 on a CPU fuses a batched product with the sum after it, and the last row of a large batch is
wrong. A failure here is a fault of the JAX that is installed: exclude it in pyproject.toml.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.optimized

RNG = np.random.default_rng(0)
EIGHT = RNG.normal(size=(8, 8))
LARGE = 32_769


def _squares(np, rows, weights):
    return ((rows @ weights) ** 2).sum(-1)


def _gated(np, rows, weights):
    return (np.maximum(rows @ weights, 0) * rows).sum(-1)


def _two_products(np, rows, weights):
    return ((rows @ weights) @ weights.T).sum(-1)


def _mean_of_abs(np, rows, weights):
    return abs(rows @ weights).mean(-1)


def _largest(np, rows, weights):
    return (rows @ weights).max(-1)


@pytest.mark.parametrize("count", [1000, LARGE])
@pytest.mark.parametrize("function", [_squares, _gated, _two_products, _mean_of_abs, _largest])
def test_products_of_large_batches(function, count):
    rows = RNG.normal(size=(count, 8))
    expected = function(np, rows, EIGHT)
    compiled = jax.jit(jax.vmap(functools.partial(function, jnp), (0, None)))
    found = compiled(jnp.asarray(rows, jnp.float32), jnp.asarray(EIGHT, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_the_last_row_of_a_large_batch():
    rows = np.zeros((LARGE, 3), np.float32)
    rows[:, 0] = np.arange(LARGE)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)
    np.testing.assert_allclose(squares, np.arange(LARGE, dtype=np.float64) ** 2, rtol=1e-6)


@pytest.mark.parametrize("axes", [5, 7])
def test_products_of_many_axes(axes):
    shape = (2, 3, 2, 2, 2, 3, 2)[:axes]
    a, b = RNG.normal(size=shape), RNG.normal(size=shape)
    equation = f"{'abcdefg'[:axes]},{'abcdefg'[:axes]}->{'abcdefg'[: axes - 1]}"
    found = jax.jit(lambda a, b: jnp.einsum(equation, a, b))(jnp.float32(a), jnp.float32(b))
    np.testing.assert_allclose(found, np.einsum(equation, a, b), rtol=1e-4, atol=1e-5)
