"""JAX's configuration flags, those of next year included: the engine's numbers do not depend on them."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.ad_checkpoint import checkpoint_name

import jaxnn
from jaxnn import attacks, attribution, dreaming, rules
from jaxnn.losses import cross_entropy
from tests.helpers.calls import calls

RNG = np.random.default_rng(0)
W = RNG.normal(0, 0.5, (5, 4)).astype(np.float32)
X = RNG.normal(0, 1, 5).astype(np.float32)

# Flags that a release of JAX may not have are skipped. Of `jax_scan3`, 0.12 itself has no gradient.
NEXT = ["jax_remat3", "jax_custom_vjp3", "jax_custom_jvp3"]
OWN = ["jax_debug_nans", "jax_disable_jit", "jax_check_tracer_leaks", "jax_enable_x64", "strict promotion"]


_VALUES = {
    "strict promotion": ("jax_numpy_dtype_promotion", "strict"),
    "equal ranks": ("jax_numpy_rank_promotion", "raise"),
}


@contextlib.contextmanager
def configured(*flags):
    before = {}
    for flag in flags:
        name, value = _VALUES.get(flag, (flag, True))
        if not hasattr(jax.config, name):
            pytest.skip(f"no flag {flag} in JAX {jax.__version__}")
        before[name] = getattr(jax.config, name)
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _model():
    """A new function, traced under the flags of the time."""

    @jax.custom_vjp
    def rectified(x):
        return jax.nn.relu(x)

    rectified.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, g: (jnp.where(x > 0, g, 0),))

    def model(x):
        h = jaxnn.tap(jax.nn.gelu(x @ W), "hidden")
        h = jax.checkpoint(lambda h: jaxnn.tap(rectified(h @ W.T), "inner"))(h)
        h = checkpoint_name(jax.nn.silu(h) + x, "named")
        h = jax.lax.scan(lambda c, r: (jnp.tanh(c * r + h), None), h, jnp.full((60, 5), 0.7, h.dtype))[0]
        return h / jnp.linalg.norm(h)

    return model


METHODS = {
    "saliency": lambda f, x: attribution.saliency(f, x, 0),
    "integrated_gradients": lambda f, x: attribution.integrated_gradients(f, x, 0, steps=4, baseline=0.1,
                                                                         check_completeness=False),
    "deep_lift": lambda f, x: attribution.deep_lift(f, x, 0, baseline=0.1),
    "guided_backprop": lambda f, x: attribution.guided_backprop(f, x, 0),
    "capture": lambda f, x: jaxnn.capture(f, x)[1],
    "intervene": lambda f, x: jaxnn.intervene(f, {"inner": lambda h: h / 2, "named": jnp.ones_like(x)})(x),
    "layer_conductance": lambda f, x: attribution.layer_conductance(
        f, x, 0, layer="inner", steps=3, baseline=0.1
    ),
}  # fmt: skip


def _results(methods):
    return {name: method(_model(), jnp.asarray(X)) for name, method in methods.items()}


@pytest.fixture(scope="module")
def expected():
    return _results(METHODS)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    "flags", [["jax_custom_vjp3"], NEXT, ["jax_remat3"], ["jax_custom_jvp3"]], ids=" ".join
)
def test_high_primitives_are_those_in_whose_place_they_are(flags, expected):
    with configured(*flags):
        found = _results(METHODS)
    assert list(found["capture"]) == ["hidden", "inner", "named"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("flag", OWN)
def test_the_flags_that_people_set(flag, expected):
    slow = {"integrated_gradients", "deep_lift", "guided_backprop"} if flag == "jax_disable_jit" else set()
    methods = {name: method for name, method in METHODS.items() if name not in slow}
    with configured(flag):
        found = _results(methods)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found, {name: expected[name] for name in methods},
    )  # fmt: skip


def test_a_tap_is_the_identity():
    f = lambda x: jaxnn.tap(x, "value")  # noqa: E731
    x = jnp.asarray(X)
    np.testing.assert_array_equal(f(x), x)
    np.testing.assert_array_equal(jax.jit(f)(x), x)
    np.testing.assert_array_equal(jax.vmap(f, in_axes=1, out_axes=1)(W), W)
    tangents = jax.jvp(f, (x,), (2 * x,))[1]
    np.testing.assert_array_equal(tangents, 2 * x)
    np.testing.assert_array_equal(jax.jacrev(jax.grad(lambda x: jnp.sum(f(x) ** 2)))(x), 2 * np.eye(5))
    np.testing.assert_array_equal(jax.linear_transpose(f, x)(x)[0], x)
    assert f(3).dtype == jnp.asarray(3).dtype
    text = jax.jit(lambda x: f(x) + 1).lower(x).compile().as_text()
    assert "value" not in text.split("ENTRY")[-1].split("metadata")[0]


@pytest.mark.long
def test_strict_promotion_of_what_draws_and_counts():
    """Booleans and counters meet floating-point numbers in these, or an optimizer mixes dtypes."""
    network = jaxnn.init(jax.random.key(0), (5, 4, 3), output_activation="identity")
    x, key, inputs = (
        jnp.asarray(X) / 9 + 0.5,
        jax.random.key(1),
        jax.random.uniform(jax.random.key(2), (9, 5)),
    )
    labels = np.zeros(9, np.int32)
    options = {"epsilon": 0.1, "key": key}
    sizes = np.random.default_rng(0).integers(0, 9, (40, 5)).astype(np.int32)
    counts = lambda row: network(row.astype(jnp.float32))  # noqa: E731
    with configured("strict promotion"):
        attribution.kernel_shap(network, x, 1, key=key)
        attribution.lime(network, x, 1, key=key)
        attacks.apgd(network, x, 1, steps=4, **options)
        attacks.hop_skip_jump(network, x, 1, key=key, queries=60)
        attacks.square(network, x, 1, image_shape=(1, 5), queries=5, **options)
        attacks.carlini_wagner(network, x, 1, steps=4)
        rules.anchor(network, inputs[0], inputs, key=key)
        rules.anchor(counts, sizes[0], sizes, key=key)
        attribution.feature_ablation(counts, sizes[0], 1, baseline=1.0)
        image = {"shape": (5, 5), "transforms": dreaming.standard_transforms((5, 5)), "steps": 2}
        jaxnn.dream(lambda x: network(x[0]), dreaming.logit(1), key=jax.random.key(3), **image)
        fit = {"epochs": 1, "batch_size": 3, "loss": cross_entropy, "optimizer": optax.adam(0.1)}
        train = jaxnn.train(network, inputs, labels, key=key, **fit)
    assert np.isfinite(train[1].loss).all()


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", sorted(calls(), key=lambda name: (name != "rules.distill_tree", name)))
def test_no_function_broadcasts_ranks(name):
    with configured("equal ranks"):
        calls()[name]()


def test_no_result_broadcasts_ranks():
    """Of more axes than one: a rule on rows, the channels of a map, a window and a pool of an image."""
    key, image = np.array([0, 3], np.uint32), jnp.linspace(0, 1, 12).reshape(2, 2, 3)
    rule, part = rules.Rule(np.zeros(3), np.ones(3), 1, 0.5, 1.0, ""), dreaming.cppn(4, 2)
    ball = {"norm": "l2", "epsilon": 0.1, "queries": 5, "key": key}
    with configured("equal ranks"):
        for function in (  # traced is enough
            rule,
            lambda x: dreaming.direction("maps", [1, 0, 0])(None, {"maps": x}),
            lambda x: part.image(part.init(key, x.shape, x.dtype), x.shape),
            lambda x: attribution.permutation_importance(lambda y: y[0], x, x[:, 0], key=key),
            lambda x: attribution.occlusion(lambda x: x.sum(), x, window=(1, 1, 3)),
            lambda x: attacks.square(lambda x: x.reshape(-1)[:3], x, 1, **ball).input,
            lambda x: rules.linear_region(lambda x: x.max(axis=0), x[0]).kernel,
        ):
            jax.eval_shape(function, image)
