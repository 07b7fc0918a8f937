"""Errors that say what to pass, where people stumble; and what is taken although it looks unusual."""

from typing import NamedTuple

import flax.errors
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.tree_util import Partial

import jaxnn
from jaxnn import attribution

X = jnp.linspace(-1, 1, 20).reshape(5, 4)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(8)(x)))


class Conv(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3))(x)).reshape(x.shape[0], -1))


VARIABLES = Dense().init(jax.random.key(0), X[0])
MODEL = jaxnn.from_linen(Dense(), VARIABLES)
IMAGES = jnp.linspace(0, 1, 5 * 64).reshape(5, 8, 8, 1)
CONV_VARIABLES = Conv().init(jax.random.key(0), IMAGES)
NETWORK = jaxnn.init(jax.random.key(0), (4, 5, 3))


@pytest.mark.parametrize("x", [X, pd.DataFrame(np.asarray(X), columns=list("abcd"))], ids=["array", "frame"])
@pytest.mark.parametrize("method", [attribution.saliency, attribution.integrated_gradients])
def test_a_batch(method, x):
    with pytest.raises(ValueError, match="If `x` is a batch of 5 examples, use jax.vmap or"):
        method(MODEL, x, 1)


def test_a_batch_without_a_target():
    with pytest.raises(ValueError, match="If `x` is a batch of 5"):
        attribution.saliency(MODEL, X)


def test_a_batch_of_a_model_that_takes_one_example_alone():
    model = jaxnn.from_linen(Conv(), CONV_VARIABLES, batched=True)
    with pytest.raises(flax.errors.ScopeParamShapeError, match="If `x` is a batch of 5 examples"):
        attribution.saliency(model, IMAGES, 1)


def test_no_batch_is_seen_where_there_is_none():
    """A matrix as an output, rows that its first axis does not count, and numbers in the place of rows."""
    with pytest.raises(ValueError, match=r"must hold 2 indices, for an output of shape \(3, 4\); got 1$"):
        attribution.saliency(lambda x: jnp.outer(jnp.ones(3), x), X[0], 1)
    with pytest.raises(TypeError) as raised:
        attribution.saliency(lambda x: jnp.sum(x * jnp.ones(4)), jnp.ones(5))
    assert "batch" not in "".join(getattr(raised.value, "__notes__", []))


def test_a_missing_batch_axis():
    model = jaxnn.from_linen(Conv(), CONV_VARIABLES)
    with pytest.raises(
        flax.errors.ScopeParamShapeError, match="takes a batch, and `x` is one example: pass `batched=True`"
    ):
        attribution.saliency(model, IMAGES[0], 1)


def test_an_error_of_the_model_stays():
    def model(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        attribution.saliency(model, X[0], 1)


def test_parameters_in_place_of_variables():
    with pytest.raises(ValueError, match=r'Pass \{"params": params\}'):
        jaxnn.from_linen(Dense(), VARIABLES["params"])
    stateless = nn.Sequential([nn.relu])
    assert jaxnn.from_linen(stateless, {})(X[0]).shape == (4,)


def test_other_collections_than_parameters():
    class Constant(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * self.variable("constants", "kernel", jnp.ones, (4,)).value

    variables = Constant().init(jax.random.key(0), X[0])
    np.testing.assert_array_equal(jaxnn.from_linen(Constant(), variables)(X[0]), X[0])


class Layer(NamedTuple):
    kernel: jax.Array

    def __call__(self, x):
        return jnp.tanh(x @ self.kernel)


class Layers(NamedTuple):
    first: Layer
    second: Layer

    def __call__(self, x):
        return self.second(self.first(x))


def test_a_model_that_is_a_tuple_of_two_functions():
    model = Layers(Layer(jnp.ones((4, 4))), Layer(jnp.ones((4, 3))))
    assert attribution.saliency(model, X[0], 1).shape == (4,)


@jax.tree_util.register_pytree_node_class
class WithAFunction:
    def __init__(self, kernel, function):
        self.kernel, self.function = kernel, function

    def __call__(self, x):
        return self.function(x @ self.kernel)

    def tree_flatten(self):
        return (self.kernel, self.function), None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(*parts)


def test_a_jitted_object_that_holds_a_function():
    model = jax.jit(WithAFunction(jnp.ones((4, 3)), jnp.tanh))
    assert attribution.saliency(model, X[0], 1).shape == (4,)


TRANSFORMED = hk.transform(lambda x: hk.Linear(3)(x))


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        (Dense(), "from_linen"),
        (Dense().apply, "from_linen"),
        ((Dense().apply, VARIABLES), "from_linen"),
        ((lambda params, x: x, VARIABLES), r"jax.tree_util.Partial\(function, params\)"),
        (TRANSFORMED, "from_haiku"),
        (hk.without_apply_rng(TRANSFORMED), "from_haiku"),
        ([MODEL], "got list$"),
    ],
)
def test_what_is_no_model(model, advice):
    with pytest.raises(TypeError, match=f"`model` must be callable, a function of one example; .*{advice}"):
        attribution.saliency(model, X[0], 1)


@pytest.mark.parametrize("model", [MODEL, NETWORK, Partial(jnp.dot, jnp.ones((3, 4))), jnp.sin])
def test_a_jitted_model(model):
    expected, found = (attribution.saliency(each, X[0], 1) for each in (model, jax.jit(model)))
    np.testing.assert_array_equal(expected, found)


def test_integer_labels_under_the_default_loss():
    with pytest.raises(ValueError, match="For integer labels pass loss=jaxnn.losses.cross_entropy"):
        jaxnn.train(NETWORK, X, jnp.arange(5) % 3, epochs=1, batch_size=2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="For integer labels"):
        attribution.permutation_importance(NETWORK, X, jnp.arange(5) % 3, key=jax.random.key(0))


@pytest.mark.parametrize("method", ["integrated_gradients", "kernel_shap", "shapley_values"])
def test_a_set_of_baselines(method):
    options = {"key": jax.random.key(0)} if method == "kernel_shap" else {}
    with pytest.raises(ValueError, match="jax.vmap over `baseline` and the mean"):
        getattr(attribution, method)(MODEL, X[0], 1, baseline=X, **options)
