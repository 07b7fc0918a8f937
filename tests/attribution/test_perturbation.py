"""Perturbation methods: ablation, occlusion, permutation, and the groups of features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxnn
from jaxnn import attribution, losses
from tests.conftest import in_precision

X = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(42, 3)).astype(np.float32)
GROUPS = np.arange(42).reshape(6, 7) // 5


def model(w, x):
    return jnp.tanh(x.ravel() @ w)


MODEL = Partial(model, W)


def in_numpy(x):
    return np.tanh(x.reshape(-1) @ W)[1]


def test_ablation_is_the_fall_of_the_answer():
    baseline = np.full((6, 7), 0.3, np.float32)
    expected = np.zeros_like(X)
    for group in range(9):
        expected[group == GROUPS] = in_numpy(X) - in_numpy(np.where(group == GROUPS, baseline, X))
    for batch_size in (1, 4, 64):
        result = attribution.feature_ablation(
            MODEL, X, 1, groups=GROUPS, baseline=baseline, batch_size=batch_size
        )
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_counts_and_truth_values_fall_below_zero(dtype):
    count = lambda x: x.sum().astype(dtype)  # noqa: E731
    result = attribution.feature_ablation(count, jnp.zeros(3), baseline=1.0)
    np.testing.assert_array_equal(result, [-1, -1, -1])
    np.testing.assert_array_equal(
        attribution.occlusion(count, jnp.zeros(3), window=(1,), baseline=1.0), result
    )


def test_ablation_of_a_linear_function_is_input_times_slope():
    linear = lambda x: x.ravel() @ W[:, 0].astype(x.dtype)  # noqa: E731
    with in_precision("float64"):
        result = attribution.feature_ablation(linear, X.astype(np.float64))
    np.testing.assert_allclose(result, X * W[:, 0].reshape(6, 7).astype(np.float64), rtol=1e-10)


def test_groups_reach_across_a_tree_and_broadcast():
    x = {"image": jnp.ones((2, 3)), "age": jnp.asarray(4.0)}
    fn = lambda x: x["image"].sum() * x["age"]  # noqa: E731
    groups = {"image": np.array([[0], [1]]), "age": 1}
    result = attribution.feature_ablation(fn, x, groups=groups)
    np.testing.assert_allclose(result["image"], [[12, 12, 12], [24, 24, 24]])
    assert result["age"] == 24
    alone = attribution.feature_ablation(fn, x, baseline={"image": jnp.zeros((2, 3)), "age": 2})
    np.testing.assert_allclose(alone["image"], np.full((2, 3), 4))
    assert alone["age"] == 12


def test_an_empty_group_and_traced_groups_need_their_number():
    number = jax.jit(lambda groups: attribution.feature_ablation(MODEL, X, 1, groups=groups, n_groups=12))
    known = attribution.feature_ablation(MODEL, X, 1, groups=GROUPS)
    np.testing.assert_allclose(number(GROUPS), known, atol=1e-6)
    gaps = attribution.feature_ablation(MODEL, X, 1, groups=GROUPS + 2, n_groups=12)
    np.testing.assert_allclose(gaps, known, atol=1e-6)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("window", "stride"), [((2, 3), (1, 2)), ((3, 7), (2, 1)), ((1, 1), 1), ((4, 3), 3)])
def test_occlusion_is_the_mean_over_covering_windows(window, stride):
    steps = (stride, stride) if isinstance(stride, int) else stride
    total, cover = np.zeros_like(X), np.zeros_like(X)
    for top in range(0, -(-(6 - window[0]) // steps[0]) * steps[0] + 1, steps[0]):
        for left in range(0, -(-(7 - window[1]) // steps[1]) * steps[1] + 1, steps[1]):
            hidden = X.copy()
            hidden[top : top + window[0], left : left + window[1]] = 0.5
            total[top : top + window[0], left : left + window[1]] += in_numpy(X) - in_numpy(hidden)
            cover[top : top + window[0], left : left + window[1]] += 1
    for batch_size in (5, 64):
        result = attribution.occlusion(
            MODEL, X, 1, window=window, stride=stride, baseline=0.5, batch_size=batch_size
        )
        np.testing.assert_allclose(result, total / cover, atol=1e-6)


def test_occlusion_of_a_tree_hides_one_array_at_a_time():
    x = {"a": jnp.ones((3, 2)), "b": jnp.ones(4)}
    fn = lambda x: x["a"].sum() * x["b"].sum()  # noqa: E731
    result = attribution.occlusion(fn, x, window={"a": (3, 1), "b": (2,)}, stride={"a": (1, 1), "b": (2,)})
    np.testing.assert_allclose(result["a"], np.full((3, 2), 12))
    np.testing.assert_allclose(result["b"], np.full(4, 12))


def test_permutation_importance_is_the_rise_of_the_loss():
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(20, 42)).astype(np.float32), rng.uniform(-1, 1, (20, 3)).astype(np.float32)
    key, groups = jax.random.key(3), np.arange(42) // 14

    def mean_loss(x):
        return np.mean(0.5 * np.sum((np.tanh(x @ W) - t) ** 2, axis=1))

    rises = np.zeros((4, 3))
    for i in range(4):
        for g in range(3):
            order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, i), g), 20)
            rises[i, g] = mean_loss(np.where(groups == g, x[np.asarray(order)], x)) - mean_loss(x)
    for batch_size in (6, 45, 1000):
        result = attribution.permutation_importance(
            MODEL, x, t, key=key, n_samples=4, groups=groups, batch_size=batch_size, with_error=True
        )
        np.testing.assert_allclose(result.value, rises.mean(0)[groups], atol=1e-6)
        error = rises.std(0, ddof=1)[groups] / 2
        np.testing.assert_allclose(result.standard_error, error, atol=1e-6)


@pytest.mark.long
def test_what_the_model_does_not_look_at_has_no_importance():
    x = jax.random.normal(jax.random.key(0), (30, 4))
    labels = (x[:, 1] > 0).astype(jnp.int32)
    logits = lambda x: jnp.stack([-x[1], x[1]])  # noqa: E731
    result = attribution.permutation_importance(
        logits, x, labels, key=jax.random.key(1), loss=losses.cross_entropy
    )
    np.testing.assert_array_equal(result[jnp.array([0, 2, 3])], 0)
    assert result[1] > 0.1


@pytest.mark.optimized
def test_memory_does_not_grow_with_the_windows():
    network = jaxnn.init(jax.random.key(0), (1000, 50, 1))
    peak = []
    for stride in (100, 5):
        call = lambda x, stride=stride: attribution.occlusion(network, x, window=(100,), stride=stride)  # noqa: E731
        compiled = jax.jit(call).lower(jnp.ones(1000)).compile()
        peak.append(compiled.memory_analysis().temp_size_in_bytes)
    # 10 rows and 181: no more than a chunk of 64 of them is ever in memory, with the weights of each window.
    assert peak[1] < 64 * 100 * 50 * 4 + 200_000


ABLATE, OCCLUDE = attribution.feature_ablation, attribution.occlusion
PERMUTE = attribution.permutation_importance
DATA = {"x": np.ones((5, 42)), "target": np.ones((5, 3)), "key": jax.random.key(0)}


@pytest.mark.parametrize(
    ("method", "change", "error", "match"),
    [
        (ABLATE, {"groups": GROUPS + 1}, ValueError, "every number from 0 to 9; 0 is missing"),
        (ABLATE, {"groups": GROUPS - 1}, ValueError, "numbers from 0 to 7; got -1 to 7"),
        (ABLATE, {"groups": GROUPS, "n_groups": 5}, ValueError, "numbers from 0 to 4; got 0 to 8"),
        (ABLATE, {"groups": GROUPS / 2}, TypeError, "`groups` must hold integers; got dtype float"),
        (ABLATE, {"groups": GROUPS[:, :3]}, ValueError, r"`groups` must have shape \(6, 7\).*got \(6, 3\)"),
        (ABLATE, {"groups": {"a": 1}}, TypeError, "`groups` must be an array of numbers"),
        (
            ABLATE,
            {"model": jnp.sum, "x": np.ones(0), "target": None},
            ValueError,
            "`x` must have at least one element",
        ),
        (
            ABLATE,
            {"model": jnp.sum, "x": np.ones(0), "target": None, "groups": np.ones(0, int)},
            ValueError,
            "`x` must have at least one element",
        ),
        (ABLATE, {"n_groups": 3}, ValueError, "`n_groups` must be 42, one per element"),
        (ABLATE, {"baseline": np.ones(3)}, ValueError, r"`baseline` must have shape \(6, 7\).*got \(3,\)"),
        (ABLATE, {"baseline": {"a": 1.0}}, ValueError, "`baseline` must have the structure of `x`"),
        (ABLATE, {"baseline": "mean"}, TypeError, "`baseline` must be an array of numbers"),
        (ABLATE, {"batch_size": 0}, ValueError, "`batch_size` must be at least 1; got 0"),
        (
            ABLATE,
            {"target": lambda y: jax.lax.complex(y[0], y[0])},
            TypeError,
            "`target` must select a real number; got dtype comp",
        ),
        (ABLATE, {"target": 3}, ValueError, "`target` must lie from -3 to 2"),
        (ABLATE, {"model": 3}, TypeError, "`model` must be callable"),
        (OCCLUDE, {"window": (7, 7)}, ValueError, r"`window` .*at most its shape \(6, 7\); got \(7, 7\)"),
        (OCCLUDE, {"window": (2,)}, ValueError, "`window` must have a size for each axis"),
        (OCCLUDE, {"window": 2}, TypeError, "`window` must be a tuple of integers"),
        (OCCLUDE, {"window": (2, 0)}, ValueError, r"`window\[1\]` must be at least 1"),
        (OCCLUDE, {"window": (2, 2), "stride": 3}, ValueError, "`stride` must be at most the `window`"),
        (OCCLUDE, {"window": (2, 2), "stride": (1,)}, ValueError, "`stride` must be at most the `window`"),
        (PERMUTE, {**DATA, "target": np.ones((4, 3))}, ValueError, r"same number of examples.*\(4, 3\)"),
        (PERMUTE, {**DATA, "x": np.ones((1, 42))}, ValueError, "at least 2"),
        (PERMUTE, {**DATA, "key": 1}, TypeError, "`key` must be one random key"),
        (PERMUTE, {**DATA, "loss": 1}, TypeError, "`loss` must be callable"),
        (PERMUTE, {**DATA, "loss": lambda y, t: y}, ValueError, "`loss` must give a real scalar"),
        (PERMUTE, {**DATA, "n_samples": 0}, ValueError, "`n_samples` must be at least 1"),
        (PERMUTE, {**DATA, "n_samples": 1, "with_error": True}, ValueError, "`n_samples` must be at least 2"),
    ],
)
def test_bad_input_is_refused(method, change, error, match):
    with pytest.raises(error, match=match):
        method(**{"model": MODEL, "x": X, "target": 1, **change})


def test_an_occlusion_tree_needs_a_window_each():
    with pytest.raises(ValueError, match="`window` and `stride` must have the structure of `x`"):
        OCCLUDE(lambda x: x["a"].sum(), {"a": jnp.ones(3)}, window=(2,))


def test_traced_groups_without_a_number_are_refused():
    with pytest.raises(ValueError, match="`n_groups` must be given where `groups` is traced"):
        jax.jit(lambda groups: ABLATE(MODEL, X, 1, groups=groups))(GROUPS)


def test_occlusion_of_an_array_without_elements_is_empty():
    x = {"values": jnp.ones(4), "none": jnp.zeros((0, 2))}
    drops = attribution.occlusion(
        lambda x: x["values"] @ jnp.arange(4.0) + x["none"].sum(), x, window={"values": (1,), "none": (1, 1)}
    )
    assert drops["none"].shape == (0, 2)
    np.testing.assert_allclose(drops["values"], np.arange(4.0))
