"""Functions in NumPy as models: what the methods that only evaluate a model return, and in how many calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import jaxnn
from jaxnn import attacks, attribution, rules
from tests.helpers.params import some

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (200, 4)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] > 1).astype(int)
FOREST = RandomForestClassifier(10, random_state=0).fit(X, LABELS)
ESTIMATORS = {"forest": FOREST, "logistic regression": LogisticRegression().fit(X, LABELS)}
x = X[0]


class Counted:
    """A function that counts the rows of each call."""

    def __init__(self, function):
        self.function, self.rows = function, []

    def __call__(self, batch):
        self.rows.append(len(batch))
        return self.function(batch)


@pytest.fixture(params=some(ESTIMATORS, "forest"))
def ask(request):
    """`predict_proba` of an estimator, counted."""
    return Counted(ESTIMATORS[request.param].predict_proba)


def test_it_is_the_function_under_jit_and_vmap(ask):
    model, expected = jaxnn.from_numpy(ask, 2), ask.function(X)
    np.testing.assert_allclose(model(x), expected[0], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(model)(x), expected[0], rtol=1e-6)
    ask.rows.clear()
    nested = jax.vmap(jax.vmap(model))(X.reshape(20, 10, 4))
    np.testing.assert_allclose(nested, expected.reshape(20, 10, 2), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(model))(X), expected, rtol=1e-6)
    np.testing.assert_allclose(jaxnn.map_examples(model, X, batch_size=64), expected, rtol=1e-6)
    assert ask.rows == [200, 200, 64, 64, 64, 64]
    assert jax.vmap(model)(X[:0]).shape == (0, 2)


def test_ablation_by_hand(ask):
    """`f(x) - f(x with an element or a window replaced)`, in two calls: of `x`, and of the others."""
    model, before = jaxnn.from_numpy(ask, 2), ask.function(x[None])[0, 1]
    ablated = np.where(np.eye(4, dtype=bool), np.float32(0.5), x)
    found = attribution.feature_ablation(model, x, 1, baseline=0.5)
    assert ask.rows == [1, 4]
    np.testing.assert_allclose(found, before - ask.function(ablated)[:, 1], atol=1e-6)
    windows = np.where([[True, True, False, False], [False, False, True, True]], np.float32(0), x)
    changes = before - ask.function(windows)[:, 1]
    found = attribution.occlusion(model, x, 1, window=(2,), stride=(2,))
    np.testing.assert_allclose(found, np.repeat(changes, 2), atol=1e-6)
    assert ask.rows[2:] == [1, 2]


def test_shapley_values_by_hand(ask):
    """The sum over all coalitions, with the values of one call; kernel SHAP of all coalitions is the same."""
    model = jaxnn.from_numpy(ask, 2)
    found = attribution.shapley_values(model, x, 1)
    assert ask.rows == [16]
    present = (np.arange(16)[:, None] >> np.arange(4)) & 1
    value = ask.function(np.where(present, x, np.float32(0)))[:, 1]
    weights = np.array([1 / 4, 1 / 12, 1 / 12, 1 / 4])  # |S|! (3 - |S|)! / 4!
    for i in range(4):
        without = np.flatnonzero(present[:, i] == 0)
        gains = value[without + 2**i] - value[without]
        assert found[i] == pytest.approx(weights[present[without].sum(1)] @ gains, abs=1e-6)
    ask.rows.clear()
    np.testing.assert_allclose(attribution.kernel_shap(model, x, 1, key=KEY), found, atol=1e-5)
    assert len(ask.rows) <= 3
    assert sum(ask.rows) <= 16


def test_sampled_methods_equal_those_of_the_model_in_jax():
    """LIME, RISE and permutation importance of a linear model written twice."""
    weights = np.array([1.0, -2.0, 0.5, 0.0], np.float32)
    ask = Counted(lambda batch: batch @ weights)
    model, known = jaxnn.from_numpy(ask, ()), lambda x: x @ weights
    loss = lambda y, t: (y - t) ** 2  # noqa: E731
    for method, most in (
        (lambda model: attribution.lime(model, x, key=KEY, n_samples=200), 8),
        (lambda model: attribution.rise(model, x, key=KEY, grid=2, n_samples=100), 4),
        (lambda model: attribution.shapley_sampling(model, x, key=KEY, n_samples=20), 6),
        (
            lambda model: attribution.permutation_importance(
                model, X, X @ weights, loss=loss, key=KEY, n_samples=2, batch_size=200
            ),
            12,
        ),
    ):
        ask.rows.clear()
        np.testing.assert_allclose(method(model), method(known), rtol=1e-3, atol=1e-5)
        assert len(ask.rows) <= most


def test_rules_learn_it(ask):
    model, predicted = jaxnn.from_numpy(ask, 2), ask.function(X).argmax(1)
    options = {"held_out": X, "key": KEY, "n_samples": 500}
    tree = rules.distill_tree(model, X, max_depth=4, **options)
    assert tree.fidelity == np.mean(np.asarray(jax.vmap(tree.tree.__call__)(X)) == predicted)
    assert tree.fidelity > 0.85
    assert rules.rule_list(model, X, **options).fidelity > 0.85
    assert max(ask.rows) > 100
    assert len(ask.rows) <= 12
    assert rules.trepan(model, X, **options).fidelity > 0.85
    ask.rows.clear()
    anchor = rules.anchor(model, x, X, key=KEY, n_samples=200, precision=0.8)
    inside = np.array([bool(anchor.rule(row)) for row in X])
    assert bool(anchor.rule(x))
    assert anchor.rule.prediction == predicted[0]
    assert np.mean(predicted[inside] == predicted[0]) > 0.8
    assert np.mean(ask.rows) > 50


def test_attacks_without_gradients(ask):
    model, label = jaxnn.from_numpy(ask, 2), int(ask.function(x[None]).argmax())
    for found in (
        attacks.square(model, x, label, epsilon=0.3, key=KEY),
        attacks.hop_skip_jump(model, x, label, key=KEY, queries=200),
    ):
        assert bool(found.success)
        assert ask.function(np.asarray(found.input)[None])[0].argmax() != label
    rows, labels = X[:20], ask.function(X[:20]).argmax(1)
    attack = jax.tree_util.Partial(attacks.noise)
    robust = attacks.robust_accuracy(model, rows, labels, attack, [0.0, 0.2], batch_size=20, key=KEY)
    assert robust[0] == 1


GRADIENTS = {
    "saliency": lambda model: attribution.saliency(model, x, 1),
    "integrated_gradients": lambda model: attribution.integrated_gradients(model, x, 1),
    "guided_backprop": lambda model: attribution.guided_backprop(model, x, 1),
    "deep_lift": lambda model: attribution.deep_lift(model, x, 1),
    "lrp": lambda model: attribution.lrp(model, x, 1, rule="epsilon"),
    "linear_region": lambda model: rules.linear_region(model, x),
    "fgsm": lambda model: attacks.fgsm(model, x, 1, epsilon=0.1),
    "universal": lambda model: attacks.universal(model, X, LABELS, epsilon=0.1, key=KEY),
    "grad": lambda model: jax.grad(lambda x: model(x)[0])(x),
    "jacfwd": lambda model: jax.jacfwd(model)(x),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_methods_by_the_gradient_are_refused(name):
    """Also where the function is a part of the model, and where its shapes look like an activation's."""
    forest = jaxnn.from_numpy(FOREST.predict_proba, 2)
    squares = jaxnn.from_numpy(np.square, 4)
    for model in (forest, jax.tree_util.Partial(lambda part, x: 2 * part(x) + x[:2], forest), squares):
        with pytest.raises((TypeError, NotImplementedError), match="has no gradient. Use .*feature_ablation"):
            GRADIENTS[name](model)


def test_a_gradient_beside_it_passes():
    """Where the function's input is held constant."""
    squares = jaxnn.from_numpy(np.square, 4)
    found = attribution.saliency(lambda x: (x * squares(jax.lax.stop_gradient(x))).sum(), x)
    np.testing.assert_allclose(found, np.abs(x**2), rtol=1e-6)


def test_inputs_and_outputs_of_other_kinds():
    """Trees, where one array may be the same for all rows; integers; bfloat16; outputs of many axes."""

    def scores(rows):
        assert isinstance(rows["ids"], np.ndarray)
        assert rows["ids"].dtype == np.int32
        return np.multiply.outer(rows["ids"].sum(1) * rows["scale"], np.ones((2, 3)))

    model = jaxnn.from_numpy(scores, (2, 3))
    ids, scale = np.arange(12, dtype=np.int32).reshape(4, 3), np.float32(2)
    found = jax.vmap(lambda ids: model({"ids": ids, "scale": scale}))(ids)
    np.testing.assert_array_equal(found, np.multiply.outer(2 * ids.sum(1), np.ones((2, 3))))

    classes = jaxnn.from_numpy(FOREST.predict, (), dtype=int)
    assert classes(x).dtype == jnp.asarray(0).dtype
    np.testing.assert_array_equal(jax.vmap(classes)(X), FOREST.predict(X))
    seen = []
    doubled = jaxnn.from_numpy(lambda rows: (seen.append(rows.dtype), 2 * rows)[1], 4)
    np.testing.assert_allclose(doubled(jnp.asarray(x, jnp.bfloat16)), 2 * x, rtol=1e-2)
    with jax.enable_x64(True):
        assert doubled(x.astype(float)).dtype == np.float64
    assert seen == [np.float32, np.float64]


@pytest.mark.without("check_tracer_leaks", "it turns off caches")
def test_one_function_compiles_once_and_is_evaluated_as_it_is_now(caplog):
    """A method of the same object is the same function; after more training it predicts something else."""
    estimator = LogisticRegression().fit(X, LABELS)
    before = attribution.feature_ablation(jaxnn.from_numpy(estimator.predict_proba, 2), x, 1)
    jaxnn.from_numpy(estimator.predict_proba, 2)(x)
    estimator.fit(X, 1 - LABELS)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        jaxnn.from_numpy(estimator.predict_proba, 2)(x)
        after = attribution.feature_ablation(jaxnn.from_numpy(estimator.predict_proba, 2), x, 1)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []
    np.testing.assert_allclose(after, -np.asarray(before), atol=1e-3)


def test_objects_with_a_state_are_taken():
    """They are evaluated at each call: a PyTorch module is known by the name of its class."""
    parent = type("Module", (), {"__module__": "torch.nn.modules.module"})
    net = type("Net", (parent,), {"__call__": lambda self, rows: rows * self.factor, "factor": 2.0})()
    function = lambda rows: net(rows)  # noqa: E731
    model = jaxnn.from_numpy(function, 4)
    for each in (model, lambda x: model(x), jax.tree_util.Partial(lambda x: 2 * model(x) / 2)):
        net.factor = 2.0
        first = attribution.feature_ablation(each, x, 0)
        net.factor = 3.0
        np.testing.assert_allclose(attribution.feature_ablation(each, x, 0), 1.5 * first, rtol=1e-6)
    with pytest.raises(TypeError, match=r"or, for methods that only evaluate.*jaxnn.from_numpy"):
        attribution.feature_ablation(function, x, 0)


BAD_OUTPUTS = {
    "fewer columns": (lambda rows: rows[:, :1], 2, float, r"\(1, 2\) for n = 1 examples; got \(1, 1\)"),
    "one row": (lambda rows: rows[0, :2], 2, float, r"\(1, 2\) for n = 1 examples; got \(2,\)"),
    "text": (lambda rows: np.array(["a"] * len(rows)), (), float, r"cast to float\d\d; got <U1"),
    "fractions": (lambda rows: rows.sum(1), (), int, r"cast to int\d\d; got float32"),
    "nothing": (lambda rows: None, 2, float, r"\(1, 2\) for n = 1 examples; got \(\)"),
}


@pytest.mark.parametrize("name", BAD_OUTPUTS)
def test_each_call_checks_the_output(name):
    function, shape, dtype, message = BAD_OUTPUTS[name]
    model = jaxnn.from_numpy(function, shape, dtype=dtype)
    for call in (model, jax.jit(model)):
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            jax.block_until_ready(call(x))


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((FOREST, 2), {}, TypeError, "`function` must be callable, of a batch; got RandomForestClassifier"),
        ((np.square, 0), {}, ValueError, "`shape` must be at least 1; got 0"),
        ((np.square, 2.0), {}, TypeError, "`shape` must be an integer; got float 2.0"),
        ((np.square, (2, "a")), {}, TypeError, r"`shape\[1\]` must be an integer"),
        ((np.square, 2), {"dtype": "text"}, TypeError, "`dtype` must be a dtype, such as float; got 'text'"),
        (
            (np.square, 2),
            {"dtype": complex},
            TypeError,
            "`dtype` must be one of real numbers; got complex128",
        ),
    ],
)
def test_bad_arguments(args, options, error, message):
    with pytest.raises(error, match=message):
        jaxnn.from_numpy(*args, **options)


def test_functions_in_numpy_themselves_are_pointed_to_it():
    with pytest.raises(
        TypeError, match=r"`model` must be callable.*jaxnn.from_numpy\(model.predict_proba, sha"
    ):
        attribution.feature_ablation(FOREST, x, 1)
    one = lambda x: FOREST.predict_proba(np.asarray(x)[None])[0]  # noqa: E731
    for call in (
        lambda: attribution.feature_ablation(one, x, 1),
        lambda: rules.distill_tree(one, X, held_out=X, key=KEY),
    ):
        with pytest.raises(
            TypeError, match=r"`model` must be a function that JAX can trace.*jaxnn.from_numpy"
        ):
            call()


def test_it_needs_an_array():
    with pytest.raises(TypeError, match="`x` must hold at least one array"):
        jaxnn.from_numpy(np.square, 2)({})
