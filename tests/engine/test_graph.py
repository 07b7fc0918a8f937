"""A function in steps: it computes what it did, and its steps are what they seem."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxnn
from jaxnn import attribution, rules
from jaxnn._engine.backward import Plan, backward, gradient
from jaxnn._engine.graph import graph
from jaxnn._engine.relu import is_clamped_variance, is_relu
from jaxnn._engine.softmax import shift_invariants

W = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
X = np.random.default_rng(1).normal(size=6).astype(np.float32)


@jax.custom_vjp
def doubled(x):
    return x


doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))

FUNCTIONS = {
    "dense": lambda x: jnp.tanh(x @ W).sum(),
    "literal": lambda x: x[0] + 3.0,
    "constant": lambda x: jnp.ones(()),
    "remat": lambda x: jax.checkpoint(lambda x: jnp.sin(x @ W).sum())(x),
    "scan": lambda x: lax.scan(lambda h, t: (jnp.tanh(h @ W + t), h.sum()), x, X)[0].sum(),
    "scan reversed": lambda x: lax.scan(lambda h, t: (h * t, h), x[0], x, reverse=True)[1] @ X,
    "scan of nothing": lambda x: lax.scan(lambda h, t: (h, h), x, None, length=0)[0].sum(),
    "known branch": lambda x: lax.cond(True, jnp.sin, jnp.cos, x).sum(),
    "branch": lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x).sum(),
    "sorted": lambda x: jnp.sort(jnp.exp(x))[:2].sum(),
    "largest two": lambda x: lax.top_k(x @ W, 2)[0].sum(),
    "softmax": lambda x: jax.nn.softmax(x @ W)[0],
    "norm": lambda x: jnp.linalg.norm(x) * x[0],
    "gather": lambda x: x[jnp.array([0, 0, 3])] @ W[:3, 0],
    "update": lambda x: (jnp.asarray(x).at[1].set(x[0] ** 2) @ W).sum(),
    "whole numbers": lambda x: x[0] * jnp.sum(x > 0) + x[jnp.argmax(x)],
}


def _plan(steps):
    return Plan(steps, gradient, lambda inputs: [steps.run(*inputs)], None)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("keep_custom", [True, False])
def test_the_steps_compute_the_function_and_its_gradient(function, keep_custom):
    steps = graph(function, X, keep_custom=keep_custom)
    run = steps.run(X)
    np.testing.assert_allclose(steps.results(run)[0], function(X), rtol=1e-6)
    (slope,) = backward(_plan(steps), [jnp.ones(())], run)
    np.testing.assert_allclose(slope, jax.grad(function)(X), rtol=1e-5, atol=1e-6)


def test_a_derivative_of_its_own_is_kept_or_not():
    def slope(keep_custom):
        steps = graph(lambda x: doubled(x)[0], X, keep_custom=keep_custom)
        return backward(_plan(steps), [jnp.ones(())], steps.run(X))[0][0]

    assert slope(True) == 2
    assert slope(False) == 1


def test_a_pytree_in_and_out():
    steps = graph(lambda x: {"sum": x["a"] + x["b"], "product": x["a"] * x["b"]}, {"a": 2.0, "b": 3.0})
    results = jax.tree.unflatten(steps.structure, steps.results(steps.run(2.0, 3.0)))
    assert results == {"sum": 5.0, "product": 6.0}


def test_what_leads_to_no_result_is_no_step():
    steps = graph(lambda x: (jnp.exp(x), x + 1)[1], X)
    assert [step.name for step in steps.steps] == ["add"]


ONE_STEP = {
    "gelu": jax.nn.gelu,
    "exact gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "leaky": jax.nn.leaky_relu,
    "skipped": lambda x: x + jnp.tanh(x),
    "chosen": lambda x: jnp.where(x > 0, x, 0),
    "cubic": lambda x: x * x * x - x,
    "counted": lambda x: x * (x > 0).astype(x.dtype),
    "stepped": lambda x: jnp.where((x > 0) & (x < 1), 1.0, -1.0),
}


@pytest.mark.parametrize("function", ONE_STEP.values(), ids=ONE_STEP.keys())
def test_an_elementwise_function_is_one_step(function):
    steps = graph(lambda x: function(x @ W) @ W, X)
    assert [step.kind for step in steps.steps if step.kind != "linear"] == ["elementwise"]


def test_functions_after_each_other_are_steps_of_their_own():
    steps = graph(lambda x: jnp.tanh(jax.nn.relu(jnp.sin(x))), X)
    assert [step.name for step in steps.steps] == ["sin", "max", "tanh"]


RELUS = {
    "nn": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "where not below": lambda x: jnp.where(x < 0, 0.0, x),
    "mask": lambda x: x * (x > 0).astype(x.dtype),
    "clip": lambda x: jnp.clip(x, 0),
    "two thirds": lambda x: (x + jnp.abs(x)) / 3,
    "jit": jax.jit(jax.checkpoint(jax.nn.relu)),
    "held zeros": lambda x: jnp.maximum(x, np.zeros(x.shape, np.float32)),
}
NO_RELUS = {
    "leaky": jax.nn.leaky_relu,
    "clamped": lambda x: lax.clamp(x.dtype.type(0), x, x.dtype.type(6)),
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "shifted": lambda x: jnp.maximum(x, 1),
    "below": lambda x: jnp.minimum(x, 0),
    "absolute": jnp.abs,
    "skipped": lambda x: x + jax.nn.relu(x),
    "of weights": lambda x: jnp.maximum(x, W[0]),
}


@pytest.mark.parametrize("keep_custom", [True, False])
@pytest.mark.parametrize("name", [*RELUS, *NO_RELUS])
def test_a_relu_is_known_however_it_is_written(name, keep_custom):
    function = (RELUS | NO_RELUS)[name]
    steps = graph(lambda x: jnp.sin(function(jnp.sin(x))), X, keep_custom=keep_custom)
    assert sum(map(is_relu, steps.steps)) == (name in RELUS)


MASK, SIGNS = np.arange(6) < 4, np.array([1.0, -1, 1, 1, 1, 1], np.float32)
CLAMPED = {
    "fast": lambda x: jnp.maximum(0.0, jnp.mean(x**2) - jnp.mean(x) ** 2),
    "two passes": lambda x: jnp.maximum(jnp.mean((x - jnp.mean(x)) ** 2), 0.0),
    "variance": lambda x: jnp.maximum(jnp.var(x), 0.0),
    "in groups": lambda x: (
        lambda g: jnp.maximum(0.0, jnp.mean(g**2, axis=1) - jnp.mean(g, axis=1) ** 2).sum()
    )(x.reshape(2, 3)),
    "of an average": lambda x: (
        lambda h: jnp.maximum(0.0, jnp.mean(h**2) - jnp.mean(h) ** 2)
    )(x.reshape(3, 2).mean(1) / 4),
    "masked": lambda x: jnp.maximum(0.0, jnp.mean(x**2, where=MASK) - jnp.mean(x, where=MASK) ** 2),
}  # fmt: skip
NOT_CLAMPED = {
    "weighted": lambda x: jnp.maximum(0.0, jnp.sum(SIGNS * x**2)),
    "other mean": lambda x: jnp.maximum(0.0, jnp.mean(x**2) - jnp.mean(2 * x) ** 2),
    "sum": lambda x: jnp.maximum(0.0, x.sum()),
    "squared": lambda x: jnp.maximum(0.0, x**2),
}


@pytest.mark.parametrize("name", [*CLAMPED, *NOT_CLAMPED])
def test_a_clamped_variance_is_no_activation(name):
    steps = graph((CLAMPED | NOT_CLAMPED)[name], X)
    (relu,) = [step for step in steps.steps if is_relu(step)]
    assert is_clamped_variance(steps, relu) == (name in CLAMPED)


def attended(scores):
    """A softmax that divides last."""
    raised = jnp.exp(scores - scores.max(-1, keepdims=True))
    return (raised @ W[:3]) / raised.sum(-1, keepdims=True)


SHIFTED = {
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "logsumexp": functools.partial(jax.nn.logsumexp, axis=-1),
    "other axis": functools.partial(jax.nn.softmax, axis=0),
    "both axes": functools.partial(jax.nn.softmax, axis=(0, 1)),
    "masked": lambda z: jax.nn.softmax(z, where=W[:2, :3] > 0, axis=-1),
    "by hand": lambda z: jnp.exp(z - z.max()) / jnp.sum(jnp.exp(z - z.max())),
    "reciprocal": lambda z: jnp.exp(z - z.max()) * (1 / jnp.sum(jnp.exp(z - z.max()))),
    "cooler after": lambda z: jax.nn.softmax((z - z.max()) / 2),
    "squared": lambda z: jnp.square(jnp.exp(z - z.max())) / jnp.sum(jnp.exp(2 * (z - z.max()))),
    "product": attended,
    "and the maximum itself": lambda z: jax.nn.softmax(z) + z.max(),
}
NOT_SHIFTED = {
    "largest": lambda z: z - z.max(),
    "unequal": lambda z: jnp.exp(z - z.max()) / jnp.sum(jnp.exp(z - 2 * z.max())),
    "other rows": lambda z: jnp.exp(z - z.max(1, keepdims=True)) / jnp.exp(z - z.max(1, keepdims=True)).sum(),
    "divided": lambda z: z / z.max(),
    "squared once": lambda z: jnp.exp(z - z.max()) ** 2 / jnp.sum(jnp.exp(z - z.max())),
    "straight through": lambda z: z + lax.stop_gradient(jnp.round(z) - z),
    "more": lambda z: jnp.exp(z - z.max()) / (1e-3 + jnp.sum(jnp.exp(z - z.max()))),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SHIFTED, *NOT_SHIFTED])
def test_the_shift_of_a_softmax_is_proved_to_fall_out(name):
    function = (SHIFTED | NOT_SHIFTED)[name]
    steps = graph(lambda x: function(jnp.outer(x[:2], x[:3])), X)
    found = [step for step in steps.steps if step.name == "reduce_max" or step.name == "stop_gradient"]
    fixed = shift_invariants(steps).fixed
    assert any(v in fixed for step in steps.steps for v in step.outputs) == (name in SHIFTED)
    assert found or name in NOT_SHIFTED


@pytest.mark.long
def test_the_graph_is_known_under_jit_vmap_and_grad():
    def slope(x):
        steps = graph(FUNCTIONS["softmax"], x)
        return backward(_plan(steps), [jnp.ones(())], steps.run(x))[0]

    batch = np.stack([X, 2 * X])
    expected = jax.vmap(jax.grad(FUNCTIONS["softmax"]))(batch)
    np.testing.assert_allclose(jax.jit(jax.vmap(slope))(batch), expected, rtol=1e-4, atol=1e-6)
    hessian = jax.hessian(FUNCTIONS["softmax"])(X)
    np.testing.assert_allclose(jax.jacobian(slope)(X), hessian, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        attribution.deep_lift,
        attribution.lrp,
        attribution.guided_backprop,
        attribution.integrated_gradients,
        lambda f, x: rules.linear_region(f, x).kernel[:, 0],
        lambda f, x: (
            jaxnn.dream(
                f, lambda output, _: output, key=jax.random.key(0), shape=(3,), steps=2, redirect=1
            ).image
        ),
    ],
)
def test_an_operation_without_a_result_changes_nothing(method):
    def plain(x):
        return jax.nn.relu(2 * x).sum()

    def printing(x):
        h = jax.nn.relu(2 * x)
        jax.debug.callback(lambda h: None, h)
        return h.sum()

    np.testing.assert_array_equal(method(printing, jnp.ones(3)), method(plain, jnp.ones(3)))
