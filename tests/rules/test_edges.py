"""Edge cases of rules: data without differences, NaN outputs, other units, the printed thresholds."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

import jaxnn
from jaxnn import rules
from jaxnn.rules import _anchor, _problem, _rule, _sampling, _trepan
from jaxnn.rules._tree import prune
from tests.conftest import in_precision

KEY = jax.random.key(0)
GROW = [rules.distill_tree, rules.trepan, rules.rule_list]
each = pytest.mark.parametrize("grow", GROW)


def uniform(n, d=3, key=1):
    return np.asarray(jax.random.uniform(jax.random.key(key), (n, d)))


def half(x):
    """Class 1 where the first feature is large."""
    return jnp.stack([0.5 - x[0], x[0] - 0.5])


@pytest.mark.long("all but the first")
@each
@pytest.mark.parametrize(
    "inputs",
    [uniform(1), np.full((20, 3), 0.3), np.repeat(uniform(1), 40, axis=0)],
    ids=["one", "equal", "repeated"],
)
def test_data_without_a_difference_makes_no_rule(grow, inputs):
    found = grow(half, inputs, held_out=uniform(50), key=KEY)
    answer = int(inputs[0, 0] > 0.5)
    assert found.text.count("if ") == 0
    assert f"class {answer}" in found.text
    assert found.fidelity == pytest.approx(np.mean((uniform(50)[:, 0] > 0.5) == answer))


@pytest.mark.long("all but the first")
@each
def test_one_class_makes_no_rule(grow):
    found = grow(lambda x: jnp.stack([0 * x[0], 1.0, 0.0]), uniform(40), held_out=uniform(9), key=KEY)
    assert found.text.count("if ") == 0
    assert found.fidelity == 1


def nan_above(x):
    return jnp.where(x[0] > 0.9, jnp.nan, half(x))


@each
def test_nan_is_no_class(grow):
    with pytest.raises(ValueError, match="`model` must not give NaN"):
        grow(nan_above, uniform(40), held_out=uniform(40, key=2), key=KEY)
    with pytest.raises(ValueError, match="`model` must not give NaN"):
        grow(lambda x: nan_above(x)[0], uniform(40), held_out=uniform(40), key=KEY, decide=lambda y: y > 0)


@pytest.mark.long
def test_nan_does_not_count_as_kept():
    with pytest.raises(ValueError, match="`model` must not give NaN"):
        rules.anchor(nan_above, [0.2, 0.5, 0.5], uniform(100), key=KEY)
    with pytest.raises(ValueError, match=r"`x` must have shape \(3,\)"):
        rules.anchor(half, uniform(1), uniform(100), key=KEY)


@pytest.mark.long
def test_the_bound_of_an_anchor_is_for_as_many_trials_as_there_may_be():
    inputs = uniform(200)
    options = {"n_samples": 500, "max_conditions": 2, "beam": 3, "confidence": 0.9}
    for seed, x in enumerate(uniform(5, key=4)):
        found = rules.anchor(half, x, inputs, key=jax.random.key(seed), **options)
        correct = round(found.rule.precision * 500)
        expected = _rule.lower_bound(correct, 500, 1 - 0.1 / (1 + 2 * 3))
        assert found.bound == pytest.approx(float(expected))


@pytest.mark.long
def test_each_trial_of_an_anchor_has_a_sample_of_its_own():
    inputs = jnp.asarray(uniform(200))
    estimator = _anchor._Estimator.of(_problem.prepare(half, inputs, 0.5), inputs[0], KEY)
    box = np.array([[[-np.inf] * 3, [np.inf] * 3]])
    counts = [int(estimator.count_correct(box, 0, 1000, trial)[0]) for trial in (None, 0, 1, 2)]
    assert len(set(counts)) == 4  # of one sample they would be equal
    assert max(counts) - min(counts) < 100


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("unit", [1e-25, 1e-9, 1e25])
@pytest.mark.parametrize("grow", GROW[:2])
def test_the_unit_of_a_feature_does_not_matter(grow, unit):
    unit = 2.0 ** np.round(np.log2(unit))  # exact
    net = jaxnn.init(jax.random.key(3), (3, 8, 3), kernel_init=jax.nn.initializers.normal(3.0))
    inputs, held_out = uniform(200), uniform(500, key=2)
    scaled = jax.tree_util.Partial(lambda net, unit, x: net(x / unit), net, unit)
    options = {"n_samples": 300, "min_leaf": 3, "key": KEY}
    one = grow(net, inputs, held_out=held_out, **options)
    other = grow(scaled, inputs * np.float32(unit), held_out=held_out * np.float32(unit), **options)
    assert other.fidelity == pytest.approx(one.fidelity, abs=0.02)  # what is drawn is rounded otherwise
    assert len(other.rules) > 3


def test_what_is_drawn_has_the_covariance_of_the_data_in_any_units():
    units = np.array([1e-20, 1e-4, 1.0, 1e4, 1e15])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    root = _sampling.noise_root(jnp.asarray(x * units, jnp.float32), 0.4)
    root = np.asarray(root, np.float64) / units
    np.testing.assert_allclose(root.T @ root, 0.16 * np.cov(x.T), rtol=1e-3, atol=1e-4)


def test_what_is_drawn_lies_above_the_lower_end_of_its_region():
    x = uniform(300, 2).copy()
    x[:40, 0] = x[:, 0].min()  # the limit to which noise is cut
    sampler = _problem.prepare(half, x, 2.0).sampler
    low, high = np.array([x[:, 0].min(), -np.inf]), np.full(2, np.inf)
    drawn = _sampling.draw(KEY, sampler, _sampling.Region(low, high, x[x[:, 0] > low[0]]), 3000)
    assert np.all(drawn[:, 0] > low[0])


def quarters(x):
    """On the left two classes, on the right one, and another in a corner of it."""
    left = jnp.where(x[1] > 0.5, 1, 0)
    right = jnp.where(x[2] > 0.95, 3, 2)
    return jax.nn.one_hot(jnp.where(x[0] > 0.5, right, left), 4)


def test_trepan_splits_first_where_most_is_to_be_gained():
    found = rules.trepan(quarters, uniform(300), held_out=uniform(300), key=KEY, max_leaves=3)
    assert sorted(found.tree.feature[found.tree.feature >= 0].tolist()) == [0, 1]
    assert len(found.rules) == 3


def test_the_parts_of_a_region_know_their_ends():
    x = uniform(300)
    problem = _problem.prepare(quarters, x, 0.7)
    stump = DecisionTreeClassifier(max_depth=1)
    split = _trepan._best_split(problem, stump, problem.whole_space(), x, problem.predict(x))
    assert split.feature == 0
    assert split.left.high.tolist() == [split.threshold, np.inf, np.inf]
    assert split.right.low.tolist() == [split.threshold, -np.inf, -np.inf]
    assert np.isinf(np.concatenate([split.left.low, split.right.high])).all()
    np.testing.assert_array_equal(split.left.inputs, x[x[:, 0] <= split.threshold])
    np.testing.assert_array_equal(split.right.inputs, x[x[:, 0] > split.threshold])
    assert split.left_fraction == pytest.approx(np.mean(x[:, 0] <= split.threshold))


def read(text, row, names, number=float):
    """Whether the conditions that a text states hold for a row, by the digits that stand there."""
    for part in text.removeprefix("if ").split(" then ")[0].split(" and "):
        low, name, high = re.fullmatch(r"(?:(\S+) < )?(\w+)(?: (?:<=) (\S+))?", part).groups() if (
            ">" not in part
        ) else (part.split(" > ")[1], part.split(" > ")[0], None)  # fmt: skip
        value = float(row[names.index(name)])
        low, high = (None if end is None else float(number(float(end))) for end in (low, high))
        if (low is not None and not low < value) or (high is not None and not value <= high):
            return False
    return True


@pytest.mark.long("all but the first")
@each
def test_the_text_decides_what_was_held_out_as_the_rules_do(grow):
    shift = np.array([2001.0, 0.0, -7000.0])  # four digits would tell nothing of the first and the last

    def model(x):
        y = x - shift
        inside = jnp.minimum(y[0] - 0.31, 0.69 - y[0])
        return jnp.stack([inside, -inside, y[2] - 0.9])

    inputs, held_out = ((uniform(300, key=k) + shift).astype(np.float32) for k in (1, 2))
    found = grow(model, inputs, held_out=held_out, key=KEY)
    assert len(found.rules) > 1
    for rule in found.rules:
        by_text = [read(rule.text, row, found.names) for row in held_out]
        np.testing.assert_array_equal(by_text, rule(held_out))
    if grow is not rules.rule_list:
        printed = set(re.findall(r"if (\w+ <= -?[\d.]+):", found.text))
        inner = found.tree.feature >= 0
        known = set(zip(found.tree.feature[inner], found.tree.threshold[inner], strict=True))
        assert len(printed) == len(known)  # no two thresholds look alike


def test_a_threshold_has_four_digits_or_as_many_as_it_takes():
    def short(threshold, *values):
        found = _rule.shorten(threshold, np.float32(values), np.float32)
        return _rule.format_threshold(found, np.float32)

    assert short(0.123456) == "0.1235"
    assert short(-0.0) == "0"
    assert short(2001.26) == "2001"
    assert short(2001.26, 2001.1, 2002.0) == "2001.2"  # float32 rounds 2001.3 upwards
    assert _rule.format_number(-0.0) == "0"
    ends = np.float32([1.5]), np.float32([2.0])
    vocabulary = _rule.Vocabulary(["x"], ["no"], np.dtype(np.float32))
    assert vocabulary.rule(*ends, 0) == "if 1.5 < x <= 2 then no"


def explained(model, inputs, held_out, **options):
    """An anchor, as the others are called."""
    found = rules.anchor(model, inputs[0], inputs, **options)
    return found._replace(rule=(found.rule,))


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("grow", [*GROW, explained])
def test_text_and_rule_agree_on_and_next_to_each_threshold(grow, dtype):
    with in_precision(dtype):
        dtype = jnp.dtype(dtype)
        x = uniform(300, key=1).astype(dtype)
        found = grow(quarters, x, held_out=x, key=KEY, n_samples=500)
        learned = found.rule if grow is explained else found.rules
        assert learned
        for rule in learned:
            for ends in (rule.low, rule.high):
                for j in np.flatnonzero(np.isfinite(ends)):
                    on = np.asarray(ends[j]).astype(dtype)
                    for value in (on, *(np.nextafter(on, dtype.type(end)) for end in (-9, 9))):
                        row = np.full(3, 0.5, dtype)
                        row[j] = value
                        # The digits are read in the precision of the features, and in float64.
                        for number in (dtype.type, float):
                            assert read(rule.text, row, ["x_0", "x_1", "x_2"], number) == bool(rule(row))


def test_a_split_whose_sides_agree_is_removed_for_any_prediction_above_it():
    fractions = np.array([[0.6, 0.4], [0.3, 0.7], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]], np.float32)
    tree = rules.Tree([0, 1, -1, -1, -1], [0.5, 0.5, 0, 0, 0], [1, 2, 2, 3, 4], [4, 3, 2, 3, 4], fractions)
    found = prune(tree)
    np.testing.assert_array_equal(found.feature, [0, -1, -1])
    np.testing.assert_allclose(found.fractions, [[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    fractions[1] = [0.7, 0.3]  # the node predicts another class than both of its sides
    found = prune(rules.Tree(*tree[:4], fractions))
    np.testing.assert_array_equal(found.feature, [0, -1, -1])
    np.testing.assert_allclose(found.fractions[1], [0.15, 0.85])


@pytest.mark.long
def test_features_that_do_not_fit_are_refused():
    x = uniform(60)
    tree = rules.distill_tree(lambda x: half(x[::-1]), x, held_out=x, key=KEY)
    listed = rules.rule_list(lambda x: half(x[::-1]), x, held_out=x, key=KEY)
    for ask in (tree.tree, tree.rules[0], listed, listed.rules[0]):
        assert ask(x[0]).shape == ()
        with pytest.raises(ValueError, match="`features` must have shape"):
            ask(x[0, :2])
    with pytest.raises(ValueError, match=r"`features` must have shape \(d,\)"):
        tree.tree(x)
    assert jax.vmap(tree.tree)(x).shape == (60,)


@each
def test_names_and_labels_that_do_not_fit_are_refused(grow):
    known = {"held_out": uniform(9), "key": KEY}
    with pytest.raises(TypeError, match="`names` must be 3 strings"):
        grow(half, uniform(9), **known, names=3)
    with pytest.raises(ValueError, match=r"`held_out_labels` must lie in \[0, 1\]"):
        grow(half, uniform(9), **known, held_out_labels=np.arange(9) % 2 + 1)


def test_linear_regions_of_what_is_not_finite_or_very_small():
    net = jaxnn.init(
        KEY, (2, 6, 2), activation="relu", output_activation="identity",
        bias_init=jax.nn.initializers.normal(0.3),
    )  # fmt: skip
    with pytest.raises(ValueError, match="finite"):
        rules.linear_regions(jax.tree.map(lambda a: a * jnp.nan, net))
    count = len(rules.linear_regions(net).polygons)
    assert count > 6
    assert len(rules.linear_regions(jax.tree.map(lambda a: a * 1e-14, net)).polygons) == count


@each
def test_a_single_feature_makes_a_rule(grow):
    found = grow(half, uniform(200, 1), held_out=uniform(100, 1, key=2), key=KEY)
    assert found.fidelity > 0.95
    assert len(found.rules) > 1


@pytest.mark.parametrize("grow", GROW[:2])
def test_features_far_from_zero_are_split_in_float64(grow):
    """Seconds since 1970: neighbors are one apart, and float32 has one number in 128."""
    with in_precision("float64"):
        x = 1.7e9 + np.random.default_rng(0).normal(size=(200, 2))
        found = grow(lambda x: jnp.stack([0 * x[0], x[0] - 1.7e9]), x, held_out=x, key=KEY, n_samples=500)
        assert found.fidelity > 0.98
        assert len(found.rules) == 2
