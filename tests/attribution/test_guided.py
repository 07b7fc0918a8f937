"""Guided backpropagation and deconvnet: their rule at each relu, and no other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import attribution
from tests.engine.test_graph import RELUS

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(6, 8)).astype(np.float32), RNG.normal(size=(8, 3)).astype(np.float32)
X = RNG.normal(size=6).astype(np.float32)
METHODS = {"guided_backprop": attribution.guided_backprop, "deconvnet": attribution.deconvnet}
both = pytest.mark.parametrize("name", METHODS)


def two_layers(relu):
    return lambda x: relu(relu(x @ W) @ V) @ jnp.array([1.0, -2.0, 3.0])


def in_numpy(name):
    """Springenberg et al. 2014, figure 1: backwards through each relu by hand."""
    z1 = X @ W
    z2 = np.maximum(z1, 0) @ V
    guided = name == "guided_backprop"
    g = np.array([1.0, -2.0, 3.0])
    g = g * (g > 0) * ((z2 > 0) if guided else 1)
    g = V @ g
    g = g * (g > 0) * ((z1 > 0) if guided else 1)
    return W @ g


@both
@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS.keys())
def test_the_definition_and_any_way_to_write_a_relu(name, relu):
    scale = 2 / 3 if relu is RELUS["two thirds"] else 1
    answer = METHODS[name](two_layers(relu), X)
    assert np.any(answer)
    np.testing.assert_allclose(answer, in_numpy(name) * scale**2, rtol=1e-5, atol=1e-6)


@both
def test_relus_in_loops_and_in_remat(name):
    def looped(x):
        def body(h, w):
            return jax.checkpoint(jax.nn.relu)(w @ h), None

        return lax.scan(body, x, np.stack([W[:, :6], W[:, 2:]]))[0].sum()

    def unrolled(x):
        return jax.nn.relu(W[:, 2:] @ jax.nn.relu(W[:, :6] @ x)).sum()

    np.testing.assert_allclose(METHODS[name](looped, X), METHODS[name](unrolled, X), rtol=1e-5)


@pytest.mark.long("all but the first")
@both
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", [nn.LayerNorm, lambda **options: nn.GroupNorm(2, **options)])
def test_a_normalization_keeps_its_gradient(name, kind, fast):
    norm = kind(use_fast_variance=fast)
    variables = norm.init(jax.random.key(0), X)
    model = jax.tree_util.Partial(lambda v, x: norm.apply(v, x)[0], variables)
    np.testing.assert_allclose(METHODS[name](model, X), jax.grad(model)(X), rtol=1e-5, atol=1e-6)


SMOOTH = {
    "gelu": lambda x: jax.nn.gelu(x @ W).sum(),
    "skipped": lambda x: (lambda z: z + jax.nn.relu(z))(x @ W).sum(),
    "softmax": lambda x: jax.nn.softmax(x @ W)[1],
    "sorted": lambda x: jnp.sort(x @ W)[1] + lax.top_k(x, 2)[0][1],
    "leaky": lambda x: jax.nn.leaky_relu(x @ W).sum(),
    "larger": lambda x: jnp.maximum(x @ W, W[0]).sum(),
    "scattered": lambda x: (
        x.at[0].multiply(x[1]).at[2].min(x[3]).at[4].max(x[5]).at[1].subtract(x[0]) ** 2
    ).sum(),
    "straight through": lambda x: (x + lax.stop_gradient(jnp.round(x) - x)).sum(),
}


@pytest.mark.long("all but the first")
@both
@pytest.mark.parametrize("function", SMOOTH.values(), ids=SMOOTH.keys())
def test_without_a_relu_it_is_the_gradient(name, function):
    np.testing.assert_allclose(METHODS[name](function, X), jax.grad(function)(X), rtol=1e-5, atol=1e-6)


@jax.custom_vjp
def hidden(x):
    return jax.nn.relu(x).sum()


hidden.defvjp(lambda x: (hidden(x), x), lambda x, g: (g * x,))
REFUSED = {
    "while": lambda x: lax.while_loop(lambda h: h[0] < 3, lambda h: jax.nn.relu(h) + 1, x).sum(),
    "cond": lambda x: lax.cond(x[0] > 0, lambda x: x, lambda x: 0 * x, x).sum(),
    "custom_vjp_call": hidden,
}


@both
@pytest.mark.parametrize("primitive", REFUSED)
def test_a_relu_out_of_reach_is_an_error(name, primitive):
    with pytest.raises(NotImplementedError, match=f"{name}.*{primitive}"):
        METHODS[name](REFUSED[primitive], X)


@both
def test_a_whole_number_has_no_slope(name):
    with pytest.raises(TypeError, match="`target` must select a floating-point number; dtype int"):
        METHODS[name](lambda x: jnp.argmax(x @ W), X)
