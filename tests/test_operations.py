"""Operations that are named: `tap_operations` gives what the model computes there, by its module's path."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnn
from jaxnn import attribution

X = jax.random.normal(jax.random.key(0), (5, 4))


class Attention(nn.Module):
    """Self-attention of two heads, which returns what it computes inside."""

    @nn.compact
    def __call__(self, x):
        query, key, value = (nn.DenseGeneral((2, 3), name=name)(x) for name in ("q", "k", "v"))
        scores = jax.nn.softmax(jnp.einsum("shd,thd->hst", query, key))
        heads = jnp.einsum("hst,thd->shd", scores, value)
        return nn.DenseGeneral(4, axis=(-2, -1), name="out")(heads), scores, heads


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        change, scores, heads = Attention()(nn.LayerNorm()(x))
        y = x + change
        hidden = nn.relu(nn.Dense(6)(y))
        return y + nn.Dense(4)(hidden), {"scores": scores, "heads": heads, "middle": y, "hidden": hidden}


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x, first = Block()(x)
        x, second = Block()(x)
        return nn.softmax(x.mean(0)), first, second


def of_linen():
    module = Transformer()
    return jaxnn.from_linen(module, module.init(jax.random.key(1), X))


def test_what_no_module_returns_is_named_by_the_path_of_its_module():
    model = of_linen()
    tapped = jaxnn.tap_operations(model, ("softmax", "relu", "dot_general", "add"))
    (y, first, second), values = jaxnn.capture(tapped, X)
    np.testing.assert_allclose(y, model(X)[0], rtol=1e-6)
    for path, inside in (("Block_0", first), ("Block_1", second)):
        for name, expected in {
            f"{path}/Attention_0/softmax@0": inside["scores"],
            f"{path}/Attention_0/dot_general@1": inside["heads"].transpose(1, 2, 0),
            f"{path}/add@0": inside["middle"],
            f"{path}/relu@0": inside["hidden"],
        }.items():
            np.testing.assert_allclose(values[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(values["softmax@0"], y, rtol=1e-6)


def test_methods_take_the_names():
    tapped = jaxnn.tap_operations(of_linen(), "softmax")
    name = "Block_1/Attention_0/softmax@0"
    uniform = jaxnn.intervene(tapped, {name: jnp.full((2, 5, 5), 0.2)})
    _, _, inside = uniform(X)
    assert not np.allclose(inside["scores"], tapped(X)[2]["scores"])
    scalar = jax.tree_util.Partial(lambda model, x: model(x)[0][1], tapped)
    found = attribution.layer_activation(scalar, X, layer=name)
    np.testing.assert_allclose(found, tapped(X)[2]["scores"], rtol=1e-5)


def test_nnx_and_equinox_have_paths_too():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)])

        def __call__(self, x):
            return nnx.softmax(self.layers[1](nnx.relu(self.layers[0](x))))

    tapped = jaxnn.tap_operations(jaxnn.from_nnx(Net(nnx.Rngs(0))), ("relu", "softmax", "dot_general"))
    names = {"layers/0/dot_general@0", "relu@0", "layers/1/dot_general@0", "softmax@0"}
    assert names <= set(jaxnn.capture(tapped, X[0])[1])
    module = eqx.nn.MLP(4, 2, 3, 1, key=jax.random.key(0))
    tapped = jaxnn.tap_operations(jaxnn.from_equinox(module), ("relu", "dot_general"))
    names = {"layers/0/dot_general@0", "relu@0", "layers/1/dot_general@0"}
    assert names <= set(jaxnn.capture(tapped, X[0])[1])


def test_without_modules_the_path_is_that_of_the_named_scopes():
    def model(x):
        x = jnp.sin(x)
        with jax.named_scope("block"), jax.named_scope("mlp"):
            x = jnp.sin(x)
        return jnp.sin(x)

    tapped = jaxnn.tap_operations(model, "sin")
    assert list(jaxnn.capture(tapped, 1.0)[1]) == ["sin@0", "block/mlp/sin@0", "sin@1"]


@pytest.mark.parametrize(
    "softmax",
    [
        jax.nn.softmax,
        lambda x: jax.nn.softmax(x, axis=0),
        lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
        lambda x: jax.nn.softmax(x.astype(jnp.bfloat16)).astype(x.dtype),
    ],
)
def test_each_way_to_write_a_softmax_is_one(softmax):
    def model(x):
        e = softmax(x)
        return jnp.tanh(e) / jnp.sum(e)  # no softmax

    _, values = jaxnn.capture(jaxnn.tap_operations(model, "softmax"), X)
    assert list(values) == ["softmax@0"]
    np.testing.assert_allclose(np.asarray(values["softmax@0"], np.float32), softmax(X), rtol=1e-2)


def test_a_named_function_is_one_operation_and_its_inside_is_none():
    @jax.jit
    def block(x):
        return jnp.sin(jax.nn.relu(x)), jnp.cos(x)

    tapped = jaxnn.tap_operations(lambda x: jnp.sin(block(x)[0]) + block(x)[1], ("block", "sin", "relu"))
    with pytest.raises(ValueError, match=r"`operations` must name .*block.*; got 'relu'"):
        tapped(X)
    tapped = jaxnn.tap_operations(lambda x: jnp.sin(block(x)[0]), ("block", "sin"))
    values = jaxnn.capture(tapped, X)[1]
    assert list(values) == ["block@0[0]", "block@0[1]", "sin@0"]
    np.testing.assert_allclose(values["block@0[1]"], jnp.cos(X), rtol=1e-6)


def test_a_scan_has_its_steps():
    def model(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, length=3)[0]

    values = jaxnn.capture(jaxnn.tap_operations(model, "sin"), X[0])[1]
    assert {name: value.shape for name, value in values.items()} == {"sin@0": (3, 4)}


def test_derivatives_of_operations_stay():
    tapped = jaxnn.tap_operations(lambda x: jax.nn.relu(x).sum(), "relu")
    np.testing.assert_array_equal(jax.grad(tapped)(jnp.array([0.0, 1.0, -1.0])), [0.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("operations", "error", "message"),
    [
        ((), ValueError, "at least one operation; got none"),
        (3, TypeError, "must be names, strings; got 3"),
        ((3,), TypeError, "must be names, strings"),
    ],
)
def test_what_is_refused(operations, error, message):
    with pytest.raises(error, match=f"`operations` .*{message}"):
        jaxnn.tap_operations(jnp.sin, operations)


def test_an_operation_that_the_model_lacks_is_named_with_those_that_it_has():
    with pytest.raises(ValueError, match=r"`operations` must name .* of the model \(sin\); got 'tan'"):
        jaxnn.tap_operations(jnp.sin, "tan")(1.0)


def test_haiku_and_keras_have_paths_too():
    haiku = pytest.importorskip("haiku")
    from tests.helpers.keras_models import keras  # on the JAX backend

    transformed = haiku.transform(lambda x: haiku.nets.MLP([4, 3])(x))
    model = jaxnn.from_haiku(transformed, transformed.init(jax.random.key(0), X[0]))
    names = {"mlp/~/linear_0/dot_general@0", "mlp/relu@0", "mlp/~/linear_1/dot_general@0"}
    assert names <= set(jaxnn.capture(jaxnn.tap_operations(model, ("relu", "dot_general")), X[0])[1])
    layers = [keras.layers.Dense(4, activation="relu", name="one"), keras.layers.Dense(3, name="two")]
    model = jaxnn.from_keras(keras.Sequential([keras.Input((4,)), *layers]))
    names = {"one/dot_general@0", "one/relu@0", "two/dot_general@0"}
    assert names <= set(jaxnn.capture(jaxnn.tap_operations(model, ("relu", "dot_general")), X[0])[1])


@pytest.mark.parametrize("operations", ["sub", "exp", "div", ("reduce_sum", "reduce_max")])
def test_methods_give_what_they_give_without_names(operations):
    """A tap in the middle of a softmax or of a norm does not hide it."""
    w = jax.random.normal(jax.random.key(4), (4, 3))

    def softmax(x):
        return jax.nn.softmax(x) @ w

    tapped = jaxnn.tap_operations(softmax, operations)
    for method in (attribution.lrp, attribution.deep_lift, attribution.guided_backprop):
        np.testing.assert_allclose(method(tapped, X[0], 0), method(softmax, X[0], 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("operations", ["sub", "square", "rsqrt"])
def test_a_norm_with_names_is_still_a_norm(operations):
    module = nn.LayerNorm()
    variables = module.init(jax.random.key(0), X[0])
    w = jax.random.normal(jax.random.key(4), (4, 3))

    def normalized(x):
        return nn.relu(module.apply(variables, x) @ w)

    tapped = jaxnn.tap_operations(normalized, operations)
    for method in (attribution.lrp, attribution.guided_backprop, attribution.deconvnet):
        np.testing.assert_allclose(method(tapped, X[0], 1), method(normalized, X[0], 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "quotient", [lambda e: e / e.sum(0)[:, None], lambda e: e.T / e.sum(0), lambda e: e / e.sum()]
)
def test_only_a_sum_along_its_own_axes_makes_a_softmax(quotient):
    x = X[:4, :4]
    is_softmax = np.allclose(quotient(jnp.exp(x)), jax.nn.softmax(x, axis=(0, 1)), rtol=1e-5)
    tapped = jaxnn.tap_operations(lambda x: quotient(jnp.exp(x)), "softmax")
    if is_softmax:
        assert list(jaxnn.capture(tapped, x)[1]) == ["softmax@0"]
    else:
        with pytest.raises(ValueError, match="'softmax'"):
            tapped(x)


def test_an_addition_into_places_is_one_operation():
    values = jaxnn.capture(jaxnn.tap_operations(lambda x: (x + 1).at[0].add(2.0) + x, "add"), X[0])[1]
    assert list(values) == ["add@0", "add@1"]


def test_values_of_a_batched_module_are_without_its_batch_axis():
    module = nn.Sequential([nn.Conv(2, (3, 3)), nn.relu])
    x = jnp.ones((6, 6, 1))
    model = jaxnn.from_linen(module, module.init(jax.random.key(0), x[None]), batched=True)
    tapped = jaxnn.tap_operations(model, ("relu", "conv_general_dilated"))
    y, values = jaxnn.capture(tapped, x)
    assert {value.shape for value in values.values()} == {(6, 6, 2)}
    np.testing.assert_allclose(values["relu@0"], y, rtol=1e-6)
