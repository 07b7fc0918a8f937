"""Integers and booleans of an example reach the model as they are: held, or replaced as wholes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxnn
from jaxnn import attacks, attribution, rules
from tests.helpers.params import some

KEY = jax.random.key(0)
TABLE = jax.random.normal(jax.random.key(1), (20, 4), jnp.float32)
WEIGHTS = jax.random.normal(jax.random.key(2), (4, 3), jnp.float32)
BATCH = {
    "ids": jnp.array([3, 1, 4], jnp.int32),
    "mask": jnp.array([True, False, True]),
    "values": jnp.array([0.3, 0.6, 0.8, 0.2], jnp.float32),
}


def _rows(weights, batch):
    """Rows of a table by id, where the mask is true: an index or a mask in another dtype is an error."""
    assert batch["ids"].dtype == jnp.int32
    assert batch["mask"].dtype == bool
    rows = jnp.where(batch["mask"][:, None], TABLE[batch["ids"]], 0.0).mean(0)
    return jnp.tanh(rows * batch["values"] + batch["values"] ** 2) @ weights


def _values_alone(weights, values):
    return _rows(weights, BATCH | {"values": values})


MODEL, ALONE = Partial(_rows, WEIGHTS), Partial(_values_alone, WEIGHTS)
SEVERAL = jnp.stack([BATCH["values"], BATCH["values"] / 2, 0 * BATCH["values"]])
BATCHES = {name: jnp.stack([BATCH[name]] * 3) for name in ("ids", "mask")} | {"values": SEVERAL}
SAMPLES = {"key": KEY, "n_samples": 4}
GRADIENTS = {
    "saliency": {},
    "input_x_gradient": {},
    "smooth_grad": SAMPLES,
    "var_grad": SAMPLES,
    "integrated_gradients": {"steps": 30},
    "expected_gradients": SAMPLES | {"baselines": BATCHES},
    "deep_lift": {},
    "deep_lift_shap": {"baselines": BATCHES},
    "lrp": {"rule": "epsilon"},
    "guided_backprop": {},
    "deconvnet": {},
}


@pytest.mark.parametrize("name", some(GRADIENTS, "saliency", "expected_gradients", "deep_lift", "lrp"))
def test_gradient_methods_hold_them(name):
    """The numbers of the floating-point arrays alone, and zeros elsewhere."""
    method, options = getattr(attribution, name), GRADIENTS[name]
    found = method(MODEL, BATCH, 1, **options)
    alone = {k: v["values"] if k == "baselines" else v for k, v in options.items()}
    np.testing.assert_allclose(found["values"], method(ALONE, BATCH["values"], 1, **alone), rtol=1e-5)
    assert np.abs(found["values"]).max() > 0
    for held in ("ids", "mask"):
        assert found[held].dtype == jnp.float32
        assert found[held].shape == (3,)
        assert not found[held].any()


def test_they_compose():
    """Under vmap, jit and grad, with other integers in each row."""
    batches = BATCHES | {"ids": jnp.arange(9, dtype=jnp.int32).reshape(3, 3)}
    many = jax.jit(jax.vmap(lambda batch: attribution.saliency(MODEL, batch, 1)))(batches)
    for i in range(3):
        one = attribution.saliency(MODEL, jax.tree.map(lambda leaf, i=i: leaf[i], batches), 1)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), many, one)
    penalty = lambda model: (attribution.saliency(model, BATCH, 1)["values"] ** 2).sum()  # noqa: E731
    assert np.isfinite(jax.grad(penalty)(MODEL).args[0]).all()


LAYER = Partial(
    lambda weights, ids: jaxnn.tap(TABLE[ids], "rows").mean(0) @ weights, WEIGHTS
)  # of token ids alone


def test_layer_methods_take_ids():
    ids = BATCH["ids"]
    np.testing.assert_array_equal(attribution.layer_activation(LAYER, ids, layer="rows"), TABLE[ids])
    gradient = attribution.layer_gradient_x_activation(LAYER, ids, 1, layer="rows", multiply=False)
    np.testing.assert_allclose(gradient, jnp.tile(WEIGHTS[:, 1] / 3, (3, 1)), rtol=1e-6)
    found = attribution.layer_integrated_gradients(
        LAYER, ids, 1, layer="rows", baseline=jnp.array([7, 7, 7], jnp.int32)
    )
    np.testing.assert_allclose(found, (TABLE[ids] - TABLE[7]) * WEIGHTS[:, 1] / 3, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["feature_ablation", "shapley_values", "kernel_shap", "lime", "occlusion"])
def test_evaluating_methods_replace_them(name):
    """An id or a flag is at its own value or at the baseline's; never between, and never a float."""
    options = {"key": KEY} if name in ("kernel_shap", "lime") else {}
    if name == "occlusion":
        options["window"] = {"ids": (1,), "mask": (1,), "values": (1,)}
    baseline = {"ids": jnp.array([7, 7, 7]), "mask": jnp.zeros(3, bool), "values": jnp.zeros(4)}
    found = getattr(attribution, name)(MODEL, BATCH, 1, baseline=baseline, **options)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    if name in ("shapley_values", "kernel_shap"):
        gap = attribution.completeness_gap(MODEL, BATCH, 1, found, baseline=baseline)
        np.testing.assert_allclose(gap, 0, atol=1e-5)
    if name in ("feature_ablation", "occlusion"):
        changed = MODEL(BATCH | {"ids": BATCH["ids"].at[2].set(7)})[1]
        np.testing.assert_allclose(found["ids"][2], MODEL(BATCH)[1] - changed, rtol=1e-5)
        np.testing.assert_allclose(found["mask"][1], 0, atol=1e-7)


def test_rise_and_permutation_importance_take_ids():
    def model(ids):
        assert ids.dtype == jnp.int32
        return TABLE[ids, 0].sum()

    ids = jnp.arange(1, 9, dtype=jnp.int32)
    found = attribution.rise(model, ids, key=KEY, grid=8, n_samples=4000)
    # Each visible with probability 1/2: the mean output while id i is visible.
    visible = (TABLE[ids, 0] + 7 * TABLE[0, 0]) / 2 + TABLE[ids, 0].sum() / 2
    np.testing.assert_allclose(found - found.mean(), visible - visible.mean(), atol=0.25)
    rows = jax.random.randint(KEY, (40, 3), 0, 20)
    loss = lambda y, t: (y - t) ** 2  # noqa: E731
    rise = attribution.permutation_importance(
        lambda row: TABLE[row[0], 0], rows, TABLE[rows[:, 0], 0], loss=loss, key=KEY, n_samples=3
    )
    assert rise[0] > 0.1
    assert rise.dtype == jnp.float32
    np.testing.assert_array_equal(rise[1:], 0)


BALL = {"epsilon": 0.1, "key": KEY}
ATTACKS = {
    "fgsm": {"epsilon": 0.1},
    "pgd": BALL,
    "apgd": BALL,
    "deepfool": {},
    "fmn": {},
    "hop_skip_jump": {"key": KEY, "queries": 60},
    "noise": BALL,
}


@pytest.mark.parametrize("name", some(ATTACKS, "pgd", "fmn"))
def test_attacks_leave_them(name):
    options, label = ATTACKS[name], int(MODEL(BATCH).argmax())
    result = getattr(attacks, name)(MODEL, BATCH, label, **options)
    for held in ("ids", "mask"):
        assert result.input[held].dtype == BATCH[held].dtype
        np.testing.assert_array_equal(result.input[held], BATCH[held])
    alone = getattr(attacks, name)(ALONE, BATCH["values"], label, **options)
    np.testing.assert_allclose(result.input["values"], alone.input, atol=1e-5)


def test_attacks_on_sets_take_each_rows_own():
    """The first output is the id of the row: what is robust depends on it."""

    def model(row):
        assert row["id"].dtype == jnp.int32
        return jnp.stack([row["id"].astype(row["value"].dtype) / 10, row["value"][0]])

    rows = {"id": jnp.array([9, 5, 1], jnp.int32), "value": jnp.full((3, 1), 0.45)}
    accuracy = attacks.robust_accuracy(
        model, rows, np.array([0, 0, 0]), attacks.fgsm, [0.0, 0.1], batch_size=3, key=KEY
    )
    np.testing.assert_allclose(accuracy, [2 / 3, 1 / 3])
    found = attacks.universal(model, rows, np.array([0, 0, 0]), epsilon=0.1, key=KEY, batch_size=1)
    np.testing.assert_array_equal(found.success, [False, True, True])
    assert found.change["id"].dtype == jnp.int32
    assert found.change["id"] == 0


def test_linear_region_holds_them():
    region = rules.linear_region(
        lambda b: jnp.where(b["flag"], 2.0, 1.0) * jax.nn.relu(b["value"]),
        {"flag": jnp.array(True), "value": jnp.array([0.5])},
    )
    np.testing.assert_allclose(region.kernel, [[2.0]])
    np.testing.assert_allclose(region.radius, 0.5)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("kind", [np.int32, bool])
def test_rules_draw_integers(kind):
    """From a table of integers the model gets integers, and never a fraction."""
    data = np.random.default_rng(0).integers(0, 10 if kind is np.int32 else 2, (120, 2)).astype(kind)

    def model(row):
        assert row.dtype == kind
        score = jnp.where(row[0], 1.0, -1.0) if kind is bool else TABLE[row[0] + row[1], 0]
        return jnp.stack([score, 0.0 * score])

    learn = functools.partial(rules.distill_tree, model, data, held_out=data, max_depth=8, key=KEY)
    assert learn().fidelity == 1 or kind is np.int32
    found = rules.anchor(model, data[0], data, key=KEY)
    assert bool(found.rule(data[0]))
    assert rules.rule_list(model, data, held_out=data, key=KEY).fidelity > 0.7
    assert rules.trepan(model, data, held_out=data, key=KEY).fidelity > 0.7


@pytest.mark.parametrize("method", [attribution.saliency, attribution.deep_lift, attribution.lrp])
@pytest.mark.parametrize("x", [jnp.arange(3), [1, 2, 3], np.array([True, False])])
def test_an_example_without_floats_is_refused(method, x):
    with pytest.raises(TypeError, match="`x` must hold floating-point numbers.*layer_integrated_gradients"):
        method(lambda x: (x * 1.0).sum(), x)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: (jax.nn.one_hot(x.astype(int), 20) @ TABLE).sum(),
        lambda x: (x > 1).astype(x.dtype) @ jnp.ones(3),
    ],
)
def test_floats_that_the_model_casts_are_refused(model):
    """Keras' Embedding casts token ids given as floats: their gradient is 0 everywhere."""
    with pytest.raises(ValueError, match="`x` must reach the output through floating-point numbers"):
        attribution.saliency(model, jnp.arange(3.0))
    with pytest.raises(ValueError, match="`x` must reach"):
        jax.vmap(lambda x: attribution.integrated_gradients(model, x))(jnp.ones((2, 3)))


def test_one_array_of_floats_that_the_model_casts_is_a_warning():
    batch = {"mask": jnp.ones(4), "values": BATCH["values"]}
    with pytest.warns(UserWarning, match=r"`x\['mask'\]` has a gradient of 0 everywhere"):
        found = attribution.saliency(lambda b: jnp.where(b["mask"] > 0, b["values"], 0).sum(), batch)
    np.testing.assert_array_equal(found["values"], 1)


def test_what_counts_is_the_target():
    model = lambda x: {"vote": (x > 0).astype(float).sum(), "values": 2 * x}  # noqa: E731
    with pytest.raises(ValueError, match="`x` must reach the output"):
        attribution.saliency(model, jnp.ones(2), lambda y: y["vote"])
    np.testing.assert_array_equal(attribution.saliency(model, jnp.ones(2), lambda y: y["values"][0]), [2, 0])


@pytest.mark.parametrize(
    "method", [attribution.saliency, functools.partial(attribution.smooth_grad, key=KEY)]
)
def test_the_warning_is_at_the_callers_line(method):
    model = lambda b: (b["mask"] > 0).astype(b["values"].dtype).sum() * b["values"].sum()  # noqa: E731
    with pytest.warns(UserWarning, match="a gradient of 0 everywhere") as caught:
        method(model, {"mask": jnp.ones(4), "values": jnp.arange(3.0)})
    assert caught[0].filename == __file__


def test_a_model_that_ignores_its_input_has_zeros():
    np.testing.assert_array_equal(attribution.saliency(lambda x: jnp.float32(1), jnp.ones(2)), 0)


def test_a_baseline_of_integers_has_no_fractions():
    with pytest.raises(ValueError, match="`baseline` must hold values of the dtype of `x`, int32; got 0.5"):
        attribution.feature_ablation(lambda x: TABLE[x].sum(), jnp.arange(3, dtype=jnp.int32), baseline=0.5)
