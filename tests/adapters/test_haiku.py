"""Haiku's own output, every module's output by its path, the state and the key as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn
from jaxnn import attribution
from tests.conftest import in_precision, that_promotes
from tests.helpers.methods import METHODS, read

hk = pytest.importorskip("haiku")

X = jax.random.normal(jax.random.key(9), (4,), jnp.float32)
IMAGE = jax.random.normal(jax.random.key(8), (8, 8, 3), jnp.float32)


def mlp(x):
    return hk.nets.MLP([5, 3])(x)


class Block(hk.Module):
    def __call__(self, x, is_training):
        x = hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training)
        dropout = that_promotes(hk.dropout)  # it multiplies by a boolean
        return dropout(hk.next_rng_key(), 0.5, x) if is_training else jnp.tanh(x)

    def other(self, x):
        return x


def batched_net(x, is_training):
    """One that requires a batch axis, with a list of modules, one called twice, and a recurrent one."""
    blocks = [Block(), Block(name="last")]
    for block in blocks:
        x = block.other(block(x, is_training))
    again = hk.Linear(4, name="again")
    x = again(again(x))
    core = hk.LSTM(3)
    steps, _ = hk.dynamic_unroll(core, jnp.stack([x, 2 * x]), core.initial_state(x.shape[0]))
    return steps[-1]


def model_of(function=mlp, x=X, seed=0, dtype=jnp.float32, **options):
    transformed = hk.transform(function)
    params = transformed.init(jax.random.key(seed), x)
    return jaxnn.from_haiku(transformed, jax.tree.map(lambda a: (a + 0.1).astype(dtype), params), **options)


def net(seed=0):
    transformed = hk.transform_with_state(batched_net)
    params, state = transformed.init(jax.random.key(seed), jnp.ones((2, 4)), is_training=True)
    # Statistics other than 0 and 1, so that the wrong mode would show.
    return transformed, params, jax.tree.map(lambda leaf: leaf + leaf.dtype.type(1), state)


TRANSFORMED = hk.transform(mlp)


def classifier(seed=0):
    return jaxnn.from_haiku(TRANSFORMED, TRANSFORMED.init(jax.random.key(seed), X))


def test_the_output_is_that_of_apply():
    transformed = hk.transform(mlp)
    params = transformed.init(jax.random.key(0), X)
    model = jaxnn.from_haiku(transformed, params)
    np.testing.assert_allclose(model(X), transformed.apply(params, None, X), rtol=1e-6)
    without = hk.without_apply_rng(transformed)
    np.testing.assert_allclose(jaxnn.from_haiku(without, params)(X), without.apply(params, X), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    params["mlp/~/linear_0"]["b"] = params["mlp/~/linear_0"]["b"] + 1
    assert not np.array_equal(model.params["mlp/~/linear_0"]["b"], params["mlp/~/linear_0"]["b"])


def test_evaluation_mode_state_and_batch_axis():
    transformed, params, state = net()
    before = jax.tree.map(np.asarray, state)
    model = jaxnn.from_haiku(transformed, params, state, batched=True)
    expected, _ = transformed.apply(params, state, None, X[None], is_training=False)
    for _ in range(2):
        np.testing.assert_allclose(model(X), expected[0], rtol=1e-6)
    training = jaxnn.from_haiku(
        transformed, params, state, rng=jax.random.key(0), batched=True, is_training=True
    )
    assert not np.allclose(training(X), expected[0])
    jax.tree.map(np.testing.assert_array_equal, state, before)
    assert jax.tree.structure(model.frozen.value)


def test_names_and_values_are_those_of_the_modules():
    transformed, params, state = net()
    expected = {}

    def note(method, args, kwargs, context):
        output = method(*args, **kwargs)
        if context.method_name == "__call__" and "lstm" not in context.module.module_name:
            expected.setdefault(context.module.module_name, []).append(output[0])
        return output

    with hk.intercept_methods(note):
        transformed.apply(params, state, None, X[None], is_training=False)
    y, values = jaxnn.capture(jaxnn.from_haiku(transformed, params, state, batched=True), X)
    inside = {name: values.pop(name) for name in list(values) if name.startswith("lstm")}
    assert {name: value.shape for name, value in inside.items()} == {
        "lstm/linear": (2, 12), "lstm[0]": (2, 3), "lstm[1].hidden": (2, 3), "lstm[1].cell": (2, 3)
    }  # fmt: skip
    np.testing.assert_allclose(inside["lstm[0]"][-1], y, rtol=1e-6)
    numbered = {
        name + (f"@{i + 1}" if len(outputs) > 1 else ""): output
        for name, outputs in expected.items()
        for i, output in enumerate(outputs)
    }
    assert {"block/linear", "block/batch_norm", "block", "last", "again@1", "again@2"} <= set(values)
    assert set(values) == set(numbered)
    for name, value in values.items():
        np.testing.assert_allclose(value, numbered[name], rtol=1e-6, err_msg=name)


def test_names_of_a_method_have_haikus_tilde():
    assert list(jaxnn.capture(classifier(), X)[1]) == ["mlp/~/linear_0", "mlp/~/linear_1", "mlp"]


def test_names_are_not_given_outside_of_the_model():
    transformed = hk.transform(mlp)
    params = transformed.init(jax.random.key(0), X)
    jaxnn.capture(jaxnn.from_haiku(transformed, params), X)
    assert jaxnn.capture(jax.tree_util.Partial(transformed.apply, params, None), X)[1] == {}


def test_an_error_in_the_middle_leaves_nothing_behind():
    def fails(x):
        return hk.Linear(3)(x) + jnp.ones(7)

    transformed = hk.transform(fails)
    params = {"linear": {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}}
    with pytest.raises(TypeError, match="incompatible shapes"):
        jaxnn.from_haiku(transformed, params)(X)
    assert list(jaxnn.capture(classifier(), X)[1])[-1] == "mlp"


@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3)])
def test_a_key_for_functions_that_draw(key):
    def noisy(x):
        return hk.Linear(3)(x) + jax.random.normal(hk.next_rng_key(), (3,))

    transformed = hk.transform(noisy)
    params = transformed.init(jax.random.key(0), X)
    model = jaxnn.from_haiku(transformed, params, rng=key)
    expected = transformed.apply(params, jax.random.PRNGKey(3), X)
    np.testing.assert_allclose(model(X), expected, rtol=1e-6)
    np.testing.assert_array_equal(model(X), model(X))
    with pytest.raises(ValueError, match="must pass a non-None PRNGKey"):
        jaxnn.from_haiku(transformed, params)(X)


@pytest.mark.without("check_tracer_leaks", "it turns off caches")
def test_new_weights_compile_nothing(caplog):
    models = [classifier(seed) for seed in range(2)]
    assert jax.tree.structure(models[0]) == jax.tree.structure(models[1])
    first = read(models[0], X, "mlp/~/linear_0")
    with jax.log_compiles(), caplog.at_level("WARNING"):
        second = read(models[1], X, "mlp/~/linear_0")
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []
    assert np.all(first[0] != second[0])


def test_stacked_models_are_an_ensemble():
    models = [classifier(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    found = jax.vmap(read, (0, None, None))(stacked, X, "mlp")[0]
    np.testing.assert_allclose(found, [model(X) for model in models], rtol=1e-6)


def test_gradients_and_interventions():
    model = classifier()
    gradients = jax.grad(lambda x: jaxnn.capture(model, x)[1]["mlp/~/linear_0"].sum())(X)
    np.testing.assert_allclose(gradients, model.params["mlp/~/linear_0"]["w"].sum(1), rtol=1e-5)
    cut = jaxnn.intervene(model, {"mlp/~/linear_0": jnp.ones(5)})
    assert attribution.saliency(cut, X, 0).tolist() == [0] * 4


def test_training_lowers_the_loss_and_leaves_the_state():
    transformed, params, state = net()
    model = jaxnn.from_haiku(transformed, params, state, batched=True)
    batch = jax.random.normal(jax.random.key(3), (32, 4))
    after, history = jaxnn.train(
        model, batch, jnp.zeros((32, 3)), epochs=4, batch_size=8, key=jax.random.key(1),
        optimizer=optax.adam(0.05),
    )  # fmt: skip
    assert history.loss[-1] < 0.5 * history.loss[0]
    jax.tree.map(np.testing.assert_array_equal, after.frozen.value, model.frozen.value)
    assert np.any(after.params["again"]["w"] != params["again"]["w"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_dtype_is_kept(dtype):
    with in_precision(dtype):
        y, values = jaxnn.capture(model_of(dtype=dtype), X.astype(dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves((y, values))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", [name for name in METHODS if name != "grad_cam"])
def test_methods_on_an_mlp(name):
    METHODS[name](classifier(), X, "mlp/~/linear_0")


def test_inputs_and_outputs_may_be_pytrees():
    def both(x):
        return {"sum": hk.Linear(3)(x["a"]) + hk.Linear(3)(x["b"]), "first": x["a"]}

    x = {"a": X, "b": X[:2]}
    transformed = hk.transform(both)
    params = transformed.init(jax.random.key(0), x)
    found = jaxnn.from_haiku(transformed, params)(x)
    jax.tree.map(np.testing.assert_array_equal, found, transformed.apply(params, None, x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t, s: jaxnn.from_haiku(mlp, {}), TypeError, "haiku.transform_with_state; got function"),
        (lambda t, s: jaxnn.from_haiku(t, None), TypeError, "`params` must be a dictionary.*; got NoneType"),
        (lambda t, s: jaxnn.from_haiku(t, {}, {}), ValueError, "`state` must be None for haiku.transform"),
        (
            lambda t, s: jaxnn.from_haiku(s, {}),
            ValueError,
            "`state` is needed for haiku.transform_with_state",
        ),
        (lambda t, s: jaxnn.from_haiku(s, {}, 3), TypeError, "`state` must be a dictionary.*; got int"),
        (lambda t, s: jaxnn.from_haiku(t, {}, rng=3), TypeError, "`rng` must be one random key.*; got int"),
        (
            lambda t, s: jaxnn.from_haiku(hk.without_apply_rng(t), {}, rng=jax.random.key(0)),
            ValueError,
            "`rng` must be None for haiku.without_apply_rng",
        ),
        (lambda t, s: jaxnn.from_haiku(t, {}, batched=1), TypeError, "`batched` must be True or False"),
        (lambda t, s: jaxnn.from_haiku(t, {}, flag={1}), TypeError, "`kwargs` must hold arrays"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(hk.transform(mlp), hk.transform_with_state(batched_net))
