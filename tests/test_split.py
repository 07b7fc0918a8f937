"""A model from a layer on: it computes what the model does, and every method explains the layer by it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution
from tests.conftest import in_precision
from tests.helpers.params import some

NETWORK = jaxnn.init(jax.random.key(0), (6, 5, 3), bias_init=jax.nn.initializers.normal())
X = jax.random.normal(jax.random.key(1), (6,), jnp.float32)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        attention = nn.MultiHeadDotProductAttention(2)
        x = x + attention(nn.LayerNorm()(x), mask=mask[None, None, :])
        return x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, batch):
        positions = jnp.sin(jnp.arange(6.0)[:, None] * jnp.arange(1.0, 9.0))
        x = nn.Embed(20, 8)(batch["ids"]) + positions
        for _ in range(2):
            x = Block()(x, batch["mask"])
        return nn.Dense(4)(nn.LayerNorm()(x)[0])


BATCH = {"ids": jnp.array([3, 1, 4, 1, 5, 9]), "mask": jnp.array([True] * 5 + [False])}


@pytest.fixture(scope="module")
def tokens():
    module = Tokens()
    return jaxnn.from_linen(module, module.init(jax.random.key(2), BATCH))


def test_the_rest_of_the_value_is_the_model():
    for layer in ("hidden_0_in", "hidden_0", "output"):
        rest, value = jaxnn.split_at(NETWORK, X, layer)
        np.testing.assert_array_equal(value, jaxnn.capture(NETWORK, X)[1][layer])
        np.testing.assert_allclose(rest(value), NETWORK(X), rtol=1e-6)
        changed = jaxnn.intervene(NETWORK, {layer: value / 2})(X)
        np.testing.assert_allclose(rest(value / 2), changed, rtol=1e-6)


@pytest.mark.parametrize("start", some(["zero", "padding", "mean"], "zero"))
def test_a_transformer_of_tokens_is_explained_at_its_embedding(tokens, start):
    """The attributions add up, whatever the baseline; a masked token gets none."""
    rest, embedding = jaxnn.split_at(tokens, BATCH, "Embed_0")
    table = tokens.params["Embed_0"]["embedding"]
    baseline = {
        "zero": jnp.zeros_like(embedding),
        "padding": jaxnn.split_at(tokens, BATCH | {"ids": jnp.zeros(6, int)}, "Embed_0")[1],
        "mean": jnp.broadcast_to(table.mean(axis=0), embedding.shape),
    }[start]
    change = rest(embedding)[2] - rest(baseline)[2]
    found = attribution.deep_lift(rest, embedding, 2, baseline=baseline)
    np.testing.assert_allclose(found.sum(), change, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[5], 0)
    assert np.abs(found).max() < 1000 * np.abs(change)
    path = attribution.integrated_gradients(rest, embedding, 2, baseline=baseline, steps=200)
    np.testing.assert_allclose(path.sum(), change, rtol=1e-2, atol=1e-3)


def test_a_batch_is_one_example_after_the_other(tokens):
    def explain(ids):
        rest, embedding = jaxnn.split_at(tokens, BATCH | {"ids": ids}, "Embed_0")
        return attribution.deep_lift(rest, embedding, 2)

    ids = jnp.stack([BATCH["ids"], BATCH["ids"][::-1]])
    many = jax.jit(jax.vmap(explain))(ids)
    np.testing.assert_allclose(many, jnp.stack([explain(one) for one in ids]), rtol=1e-4, atol=1e-6)


def test_it_is_the_layer_method_where_there_is_one():
    rest, hidden = jaxnn.split_at(NETWORK, X, "hidden_0")
    found = attribution.input_x_gradient(rest, hidden, 1)
    expected = attribution.layer_gradient_x_activation(NETWORK, X, 1, layer="hidden_0")
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_step_of_a_scan():
    def model(x):
        return jax.lax.scan(lambda c, r: (jaxnn.tap(jnp.tanh(c + r), "state"), None), 0.0, x)[0]

    with in_precision("float64"):
        rest, value = jaxnn.split_at(model, jnp.array([0.1, 0.2, 0.3]), ("state", 1))
        np.testing.assert_allclose(value, np.tanh(np.tanh(0.1) + 0.2))
        np.testing.assert_allclose(rest(0.5), np.tanh(0.5 + 0.3))


def test_new_examples_compile_nothing(caplog):
    explain = jax.jit(lambda rest, value: attribution.saliency(rest, value, 1))
    explain(*jaxnn.split_at(NETWORK, X, "hidden_0"))
    other = jaxnn.split_at(NETWORK, 2 * X, "hidden_0")
    with jax.log_compiles(), caplog.at_level("WARNING"):
        explain(*other)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"`layer` must name intermediates of the model \('hidden_0_in'"):
        jaxnn.split_at(NETWORK, X, "hidden_7")
    with pytest.raises(TypeError, match="`layer` must be the name of an intermediate"):
        jaxnn.split_at(NETWORK, X, 3)
    rest, _ = jaxnn.split_at(NETWORK, X, "hidden_0")
    with pytest.raises(ValueError, match=r"must have shape \(5,\); got \(4,\)"):
        rest(jnp.ones(4))
