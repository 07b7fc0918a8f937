import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn._engine.affine_prefix import split_affine_prefix

KERNEL = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@jax.jit
def layer(x):
    return x @ KERNEL + 1


def residual(x):
    return x[:4] + jax.nn.relu(2 * layer(x) - 3)


# A function, and the shapes of the values where it is cut.
CASES = {
    "dense": (lambda x: jnp.tanh(layer(x)), [(4,)]),
    "residual": (residual, [(4,), (4,)]),
    "affine throughout": (layer, [(4,)]),
    "nowhere affine": (lambda x: jnp.sin(x) * x, [(6,)]),
    "two layers before any bend": (lambda x: jnp.exp(layer(x) @ KERNEL.T).sum(), [(6,)]),
    "a product of two parts": (lambda x: (x[:3] * 2) * x[3:], [(3,), (3,)]),
    "a constant": (lambda x: jnp.ones(3), []),
    "a choice by the input": (lambda x: jnp.where(x > 0, 2 * x, x), [(6,), (6,)]),
    "a place by the input": (lambda x: (3 * x)[jnp.argmax(x)], [(6,), (6,)]),
    "no derivative": (lambda x: jax.lax.stop_gradient(2 * x) * x, [(6,), (6,)]),
    "a loop": (lambda x: jax.lax.scan(lambda c, r: (c * r, c), 1.0, 2 * x)[0], [(6,)]),
}


@pytest.mark.parametrize(("function", "shapes"), CASES.values(), ids=CASES.keys())
def test_the_parts_make_the_function_and_its_gradient(function, shapes):
    x, y = jnp.array([0.3, -1.0, 2.0, 0.5, -0.2, 1.4]), jnp.ones(6)
    prefix, suffix = split_affine_prefix(function, x)
    assert sorted(value.shape for value in prefix(x)) == sorted(shapes)
    np.testing.assert_allclose(suffix(prefix(x)), function(x), rtol=1e-6)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, prefix(x), prefix(y))
    for value, expected in zip(prefix((x + y) / 2), middle, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    total = lambda f: jax.grad(lambda x: jnp.sum(f(x)))  # noqa: E731
    np.testing.assert_allclose(total(lambda x: suffix(prefix(x)))(x), total(function)(x), rtol=1e-5)


def test_a_pytree_and_names():
    def model(x):
        return jnp.tanh(jaxnn.tap(2 * x["a"] + x["b"], "sum")), x["a"]

    x = {"a": jnp.ones(2), "b": jnp.zeros(2)}
    prefix, suffix = split_affine_prefix(model, x)
    assert len(prefix(x)) == 2
    _, values = jaxnn.capture(lambda x: suffix(prefix(x)), x)
    np.testing.assert_array_equal(values["sum"], [2, 2])
    assert jax.tree.structure(suffix(prefix(x))) == jax.tree.structure(model(x))
