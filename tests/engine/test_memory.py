"""Estimates of memory, and the batch sizes that methods choose from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution
from jaxnn._engine.memory import BUDGET, Batch, check_batch_size, peak_bytes

pytestmark = pytest.mark.optimized

KEY = jax.random.key(0)
ROW = 4 * 1000  # bytes of a row


def peak(function, *args):
    return peak_bytes(jax.make_jaxpr(function)(*args).jaxpr)


def chain(x):
    for _ in range(10):
        x = jnp.sin(x)
    return x


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (chain, 2),  # an operand and its result
        (lambda x: jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.tan(x)]).sum(), 6),  # the parts and the whole
        (lambda x: jax.jit(chain)(x), 2),
        (lambda x: jax.checkpoint(chain)(x), 2),
        (
            lambda x: jax.lax.scan(lambda c, _: (c, chain(c)), x, length=50)[1],
            50 + 2,
        ),  # and the chain of one step
        (lambda x: jax.grad(lambda x: chain(x).sum())(x), 12),  # ten derivatives, an operand and a result
        (lambda x: x, 0),
    ],
    ids=["chain", "stack", "call", "recomputed", "scan", "gradient", "identity"],
)
def test_values_count_from_their_computation_to_their_last_use(function, rows):
    assert peak(function, jnp.ones(1000, jnp.float32)) == pytest.approx(rows * ROW, abs=100)


def test_a_random_key_and_an_effect_have_a_size():
    def sample(key):
        jax.debug.print("{}", key)
        return jax.random.normal(jax.random.fold_in(key, 1), (1000,), jnp.float32)

    assert ROW <= peak(sample, KEY) < 20 * ROW


def test_a_batch_is_the_largest_that_fits():
    def mebibytes(number):
        return jax.make_jaxpr(lambda x: jnp.broadcast_to(x, (number, 2**18)))(jnp.float32(1))

    assert BUDGET == 2**30
    sizes = [check_batch_size(None, 25).size(mebibytes(n)) for n in (1, 40, 41, 100, 1024, 5000)]
    assert sizes == [25, 25, 24, 10, 1, 1]
    assert check_batch_size(7, 25).size(mebibytes(300)) == 7
    assert Batch(64, bounded=True).size(mebibytes(1), 2**22) == 4


def attend(parameters, x):
    for weights in parameters:
        q, k, v = jnp.moveaxis((x @ weights).reshape(512, 3, 24, 4), 0, 2)
        scores = jax.nn.softmax(q @ jnp.moveaxis(k, 1, 2), axis=-1)
        x = x + jnp.moveaxis(scores @ v, 0, 1).reshape(512, 96)
    return jax.nn.gelu(x).mean(axis=0)


MODEL = jax.tree_util.Partial(attend, [jnp.ones((96, 288))] * 3)
TOKENS = np.arange(512)[:, None]
LARGE = {
    "integrated_gradients": {},
    "smooth_grad": {"key": KEY},
    "var_grad": {"key": KEY},
    "expected_gradients": {"key": KEY, "baselines": np.zeros((3, 512, 96), np.float32)},
    "feature_ablation": {"groups": TOKENS},
    "occlusion": {"window": (1, 96), "stride": (1, 96)},
    "shapley_sampling": {"key": KEY, "groups": TOKENS},
    "kernel_shap": {"key": KEY, "groups": TOKENS // 8},
    "lime": {"key": KEY, "groups": TOKENS // 8},
    "rise": {"key": KEY},
    "deep_lift_shap": {"baselines": np.zeros((20, 512, 96), np.float32)},
}


def temporary_bytes(name, **options):
    method = getattr(attribution, name)
    compiled = jax.jit(lambda m, x: method(m, x, 3, **options)).lower(MODEL, jnp.ones((512, 96))).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", LARGE)
def test_the_default_of_a_large_model_stays_near_the_budget(name):
    assert temporary_bytes(name, **LARGE[name]) < 1.6 * BUDGET


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("name", "batch_size"), [("integrated_gradients", 10), ("feature_ablation", 64)])
def test_a_given_batch_size_is_kept(name, batch_size):
    """So the test above can fail."""
    assert temporary_bytes(name, **LARGE[name], batch_size=batch_size) > 1.3 * BUDGET


SMALL = {
    "integrated_gradients": (10, {}),
    "layer_conductance": (10, {"layer": "hidden_0"}),
    "smooth_grad": (25, {"key": KEY}),
    "expected_gradients": (25, {"key": KEY, "baselines": np.zeros((3, 20), np.float32)}),
    "feature_ablation": (64, {}),
    "occlusion": (64, {"window": (3,)}),
    "shapley_values": (64, {"groups": np.arange(20) // 3}),
    "shapley_sampling": (64, {"key": KEY}),
    "kernel_shap": (64, {"key": KEY}),
    "lime": (64, {"key": KEY}),
    "rise": (64, {"key": KEY}),
    "permutation_importance": (64, {"key": KEY}),
    "deep_lift_shap": (30, {"baselines": np.zeros((30, 20), np.float32)}),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_default_of_a_small_model_is_the_largest_batch(name):
    method, (most, options) = getattr(attribution, name), SMALL[name]
    network = jaxnn.init(jax.random.key(1), (20, 6, 5))
    x, target = jnp.ones(20), 3
    if name == "permutation_importance":
        x, target = jnp.ones((9, 20)), jnp.zeros((9, 5))
    default, given, other = (
        str(jax.make_jaxpr(lambda n, x, s=size: method(n, x, target, **options, batch_size=s))(network, x))
        for size in (None, most, 4)
    )
    assert default == given  # the same program
    assert default != other


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", SMALL)
def test_a_smaller_budget_does_not_change_the_result(name, monkeypatch):
    method, (most, options) = getattr(attribution, name), SMALL[name]
    network = jaxnn.init(jax.random.key(1), (20, 7, 5))  # of a shape of its own: nothing is compiled yet
    x, target = jnp.linspace(-1, 1, 20), 3
    if name == "permutation_importance":
        x, target = jax.random.normal(KEY, (9, 20)), jnp.zeros((9, 5))
    chosen = []
    size = Batch.size

    def smaller(self, function, budget=BUDGET):
        chosen.append(size(self, function, budget=7 * peak_bytes(function.jaxpr)))
        return chosen[-1]

    monkeypatch.setattr(Batch, "size", smaller)
    result = method(network, x, target, **options)
    assert chosen[0] == 7
    monkeypatch.undo()
    np.testing.assert_allclose(result, method(network, x, target, **options, batch_size=most), atol=1e-5)
