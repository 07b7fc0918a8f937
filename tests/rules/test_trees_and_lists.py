"""Trees, rule lists and anchors: recomputed in NumPy, and compared with known models."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

import jaxnn
from jaxnn import rules
from jaxnn.rules import _problem, _rule, _sampling

KEY = jax.random.key(0)
ADAMW = optax.adamw(3e-3, weight_decay=1e-2)


def uniform(n, d, key=1):
    return jax.random.uniform(jax.random.key(key), (n, d))


def corner(x):
    """Class 1 in one corner, class 2 in another, 0 elsewhere."""
    first = jnp.minimum(x[0] - 0.6, x[1] - 0.3)
    second = jnp.minimum(0.25 - x[0], x[2] - 0.5)
    return jnp.stack([jnp.zeros(()), 10 * first, 10 * second])


def predicted(x):
    """The same in NumPy."""
    first = (x[:, 0] > 0.6) & (x[:, 1] > 0.3)
    return np.where(first, 1, np.where((x[:, 0] < 0.25) & (x[:, 2] > 0.5), 2, 0))


def walked(tree, row):
    """Down a tree in plain Python: the leaf."""
    node = 0
    while tree.feature[node] >= 0:
        low = row[tree.feature[node]] <= tree.threshold[node]
        node = (tree.left if low else tree.right)[node]
    return node


# --- trees


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("grow", [rules.distill_tree, rules.trepan])
def test_a_tree_is_what_it_says_it_is(grow):
    inputs, held_out = np.asarray(uniform(300, 4)), np.asarray(uniform(500, 4, key=2))
    labels = (held_out[:, 0] > 0.5).astype(int)
    found = grow(corner, inputs, held_out=held_out, held_out_labels=labels, key=KEY, max_depth=4)
    leaves = np.array([walked(found.tree, row) for row in held_out])
    tree_classes, model_classes = np.asarray(found.tree.fractions)[leaves].argmax(axis=1), predicted(held_out)
    np.testing.assert_array_equal(jax.vmap(found.tree.__call__)(held_out), tree_classes)
    assert found.fidelity == pytest.approx(np.mean(tree_classes == model_classes))
    assert found.accuracy == pytest.approx(np.mean(tree_classes == labels))
    assert found.fidelity > 0.97
    assert found.curve[-1] == found.fidelity
    assert found.curve[0] == pytest.approx(np.mean(model_classes == 0))
    # Each input falls into one rule, its leaf's.
    holding = np.stack([np.asarray(rule(held_out)) for rule in found.rules])
    assert np.all(holding.sum(axis=0) == 1)
    for rule, inside in zip(found.rules, holding, strict=True):
        assert np.unique(leaves[inside]).size <= 1
        assert rule.coverage == pytest.approx(inside.mean())
        if inside.any():
            assert rule.precision == pytest.approx(np.mean(model_classes[inside] == rule.prediction))
            assert np.all(tree_classes[inside] == rule.prediction)
    assert any("x_0 > 0.6" in rule.text or "x_0 > 0.59" in rule.text for rule in found.rules)
    assert found.text.count("if ") == len(found.rules) - 1


def test_without_samples_it_is_scikit_learns_tree():
    inputs, held_out = np.asarray(uniform(400, 5)), np.asarray(uniform(2000, 5, key=2))
    model = jaxnn.init(jax.random.key(3), (5, 8, 3), kernel_init=jax.nn.initializers.normal(3.0))
    found = rules.distill_tree(
        model, inputs, held_out=held_out, key=KEY, n_samples=0, max_depth=6, min_leaf=3
    )
    seed = rules._distill.seed_of(KEY)
    theirs = DecisionTreeClassifier(max_depth=6, min_samples_leaf=3, random_state=seed)
    theirs.fit(inputs, jaxnn.query(model, inputs).argmax(axis=1))
    expected = theirs.predict(held_out)
    np.testing.assert_array_equal(jax.vmap(found.tree.__call__)(held_out), expected)
    # Cut off after k questions it is the tree that was grown to k.
    two = DecisionTreeClassifier(max_depth=2, min_samples_leaf=3, random_state=seed)
    two.fit(inputs, jaxnn.query(model, inputs).argmax(axis=1))
    tree_classes = jax.vmap(found.tree.__call__, (0, None))(held_out, 2)
    np.testing.assert_array_equal(tree_classes, two.predict(held_out))
    assert len(found.rules) < theirs.get_n_leaves()  # questions that change no answer are out


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_precisions(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = uniform(200, 3).astype(dtype)
        found = rules.distill_tree(corner, x, held_out=x, key=KEY)
        assert found.fidelity > 0.95
        assert found.tree.threshold.dtype == (np.float64 if dtype == "float64" else np.float32)


@pytest.mark.long
def test_features_decide_and_names():
    images = uniform(200, 16).reshape(200, 4, 4)

    def dark_above(image):
        return image[:2].mean() - 0.5

    halves = rules.distill_tree(
        dark_above, images, held_out=images, key=KEY, decide=lambda y: y > 0,
        features=lambda image: image.reshape(2, -1).mean(axis=1),
        names=["above", "below"], classes=["light", "dark"],
    )  # fmt: skip
    assert halves.fidelity > 0.99
    assert halves.text.startswith("if above <= 0.5")
    few = rules.trepan(
        dark_above, images[:20], held_out=images, key=KEY, decide=lambda y: y > 0, max_depth=2,
        features=lambda image: image.reshape(2, -1).mean(axis=1), n_samples=500,
    )  # fmt: skip
    assert few.fidelity > 0.95
    assert int(few.tree.feature[0]) == 0


@pytest.mark.long
def test_the_same_key_gives_the_same_rules():
    x = uniform(100, 3)
    one, same = (rules.trepan(corner, x, held_out=x, key=KEY, n_samples=300) for _ in range(2))
    assert one.text == same.text
    assert one.text != rules.trepan(corner, x, held_out=x, key=jax.random.key(9), n_samples=300).text


# --- what is drawn


def test_samples_have_the_covariance_of_the_data_and_keep_to_the_region():
    mix = jnp.array([[1.0, 0.9, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 2.0]])
    x = jax.random.normal(jax.random.key(1), (300, 3)) @ mix
    problem = _problem.prepare(corner, x, 0.4)
    sampler = problem.sampler
    np.testing.assert_allclose(sampler.root.T @ sampler.root, 0.16 * np.cov(x.T), rtol=1e-4, atol=1e-5)
    few, many = (_sampling.draw(KEY, sampler, problem.whole_space(), count) for count in (10, 30_000))
    np.testing.assert_array_equal(few, many[:10])
    # Clipped at the range of the data, so a little narrower.
    np.testing.assert_allclose(np.cov(many.T), 1.16 * np.cov(x.T), rtol=0.05, atol=0.05)
    assert np.all((many >= x.min(axis=0)) & (many <= x.max(axis=0)))
    low, high = np.array([0.0, -np.inf, -1.0]), np.array([np.inf, 0.5, 1.0])
    inside = np.asarray(x)[np.all((low < x) & (x <= high), axis=1)]
    drawn = _sampling.draw(KEY, sampler, _sampling.Region(low, high, inside), 2000)
    assert np.all((low < drawn) & (drawn <= high))
    assert np.unique(drawn, axis=0).shape[0] > 1900


def test_more_entries_than_inputs():
    x = jax.random.normal(jax.random.key(1), (6, 20))
    root = _sampling.noise_root(x, 1.0)
    np.testing.assert_allclose(root.T @ root, np.cov(x.T), rtol=1e-4, atol=1e-5)


def test_the_lower_bound_is_clopper_and_pearsons():
    for correct, trials, confidence in ((40, 40, 0.95), (4, 4, 0.95), (970, 1000, 0.99), (1, 7, 0.9)):
        bound = float(_rule.lower_bound(correct, trials, confidence))
        tail = scipy.stats.binom.sf(correct - 1, trials, bound)  # the probability of as many or more
        assert tail == pytest.approx(1 - confidence, rel=1e-6)
    assert _rule.lower_bound(0, 5, 0.95) == 0
    assert _rule.lower_bound(0, 0, 0.95) == 0


# --- lists


def test_a_rule_list_is_what_it_says_it_is():
    inputs, held_out = np.asarray(uniform(800, 4)), np.asarray(uniform(3000, 4, key=2))
    classes = ["rest", "right", "left"]
    found = rules.rule_list(corner, inputs, held_out=held_out, key=KEY, classes=classes, max_rules=4)
    model_classes, left = predicted(held_out), np.ones(len(held_out), bool)
    list_classes = np.full(len(held_out), found.default)
    for rule in found.rules:
        holds = np.all((rule.low < held_out) & (held_out <= rule.high), axis=1) & left
        assert rule.coverage == pytest.approx(holds.mean())
        assert rule.precision == pytest.approx(np.mean(model_classes[holds] == rule.prediction))
        assert np.sum(np.isfinite(rule.low)) + np.sum(np.isfinite(rule.high)) <= 2
        list_classes[holds] = rule.prediction
        left &= ~holds
    np.testing.assert_array_equal(found(held_out), list_classes)
    assert found.fidelity == pytest.approx(np.mean(list_classes == model_classes))
    assert found.fidelity > 0.9
    assert found.accuracy is None
    assert found.text.splitlines()[-1] == f"else {classes[found.default]}"
    assert found.rules[-1].prediction != found.default


@pytest.mark.long
def test_a_list_of_what_is_always_the_same_has_no_rule():
    x = uniform(50, 2)
    found = rules.rule_list(lambda x: jnp.array([0.0, 1.0]) + 0 * x[0], x, held_out=x, key=KEY)
    assert (found.rules, found.default, found.fidelity, found.text) == ((), 1, 1.0, "always class 1")


# --- anchors


def sampled_around(x, inputs, low, high, spread, count, seed=0):
    """The samples of `anchor`, in NumPy."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([inputs, x[None]])
    limits = rows.min(axis=0), rows.max(axis=0)
    centers = rows[np.all((low < rows) & (rows <= high), axis=1)]
    centers = centers[rng.integers(len(centers), size=count)]
    noise = rng.multivariate_normal(np.zeros(len(x)), spread**2 * np.cov(inputs.T), count)
    found, done = centers.copy(), np.zeros(count, bool)
    for k in range(8):
        new = np.clip(centers + noise / 2**k, *limits)
        stays = np.all((low < new) & (new <= high), axis=1) & ~done
        found[stays], done = new[stays], done | stays
    return found


@pytest.mark.long
def test_the_bound_of_an_anchor_holds_in_a_large_sample_of_its_own():
    inputs = np.asarray(uniform(400, 4))
    verified = 0
    for i, x in enumerate(np.asarray(uniform(8, 4, key=5))):
        found = rules.anchor(corner, x, inputs, key=jax.random.key(i))
        rule = found.rule
        assert bool(rule(x))
        answer = predicted(x[None])[0]
        assert rule.prediction == answer
        sample = sampled_around(x, inputs, rule.low, rule.high, 0.5, 100_000)
        precision = np.mean(predicted(sample) == answer)
        assert precision >= found.bound
        assert rule.precision == pytest.approx(precision, abs=0.02)
        assert found.bound <= rule.precision
        assert rule.coverage == pytest.approx(np.mean(rule(inputs)))
        assert found.verified == (found.bound >= 0.95)
        verified += found.verified
    assert verified >= 7


@pytest.mark.long
def test_an_anchor_is_short():
    inputs = uniform(500, 6)
    found = rules.anchor(
        lambda x: jnp.stack([0.5 - x[3], x[3] - 0.5]), inputs[0].at[3].set(0.9), inputs, key=KEY
    )
    assert np.flatnonzero(np.isfinite(found.rule.low)).tolist() == [3]
    assert not np.isfinite(found.rule.high).any()
    assert 0.4 < found.rule.low[3] < 0.62
    # A model that always says the same needs no condition.
    always = rules.anchor(lambda x: jnp.array([1.0, 0.0]) + 0 * x[0], inputs[0], inputs, key=KEY)
    assert (always.rule.text, always.rule.coverage, always.verified) == (
        "if anything then class 0",
        1.0,
        True,
    )


@pytest.mark.long
def test_an_anchor_that_cannot_be_had_says_so():
    inputs = uniform(200, 3)
    checkered = lambda x: jnp.stack([0.0, jnp.sin(60 * x).prod()])  # noqa: E731
    found = rules.anchor(checkered, inputs[0], inputs, key=KEY, max_conditions=2)
    assert not found.verified
    assert found.bound < 0.95


# --- the figures that the issue asks for


@pytest.fixture(scope="module")
def tumors():
    """Ten splits of the patients, in standard deviations, and a network of each."""
    data = load_breast_cancer()

    def split(key):
        order = np.asarray(jax.random.permutation(key, 569))
        test, rest = np.split(order, [142])
        scaled = (data.data - data.data[rest].mean(axis=0)) / data.data[rest].std(axis=0)
        return [np.asarray(a) for a in (scaled[rest], data.target[rest], scaled[test], data.target[test])]

    keys = jax.random.split(jax.random.key(42), 10)
    inputs, labels, test_inputs, test_labels = map(np.stack, zip(*map(split, keys), strict=True))

    def train(key, inputs, labels):
        network = jaxnn.init(key, (30, 16, 2), activation="tanh", output_activation="identity")
        return jaxnn.train(
            network, inputs, labels, key=jax.random.fold_in(key, 1), epochs=60, batch_size=16,
            optimizer=ADAMW, loss=jaxnn.losses.cross_entropy,
        )[0]  # fmt: skip

    inputs, test_inputs = inputs.astype(np.float32), test_inputs.astype(np.float32)
    networks = jax.vmap(train)(keys, inputs, labels)
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], networks) for i in range(10)]
    return list(zip(each, inputs, test_inputs, test_labels, strict=True))


def fidelities(tumors, grow, few=False, **options):
    return np.array([
        grow(network, inputs[:42] if few else inputs, held_out=held_out, held_out_labels=labels,
             key=KEY, **options).fidelity
        for network, inputs, held_out, labels in tumors
    ])  # fmt: skip


@pytest.mark.long
def test_a_tree_of_depth_5_is_faithful_on_tumors(tumors):
    found = fidelities(tumors, rules.distill_tree)
    assert found.mean() >= 0.93
    # The samples are what makes it so.
    assert found.mean() > fidelities(tumors, rules.distill_tree, n_samples=0).mean()


@pytest.mark.long
def test_trepan_makes_do_with_a_tenth_of_the_data(tumors):
    found = fidelities(tumors, rules.trepan, few=True)
    assert found.mean() >= fidelities(tumors, rules.distill_tree, few=True).mean() - 0.005
    assert found.mean() >= fidelities(tumors, rules.distill_tree, n_samples=0).mean()


# --- bad input


def test_bad_input_is_refused_before_any_work():
    x = uniform(20, 3)
    known = {"held_out": x, "key": KEY}
    for grow in (rules.distill_tree, rules.trepan, rules.rule_list):
        with pytest.raises(ValueError, match="`inputs` must be finite"):
            grow(corner, x.at[0, 0].set(jnp.nan), **known)
        with pytest.raises(ValueError, match=r"`held_out` must have shape \(n, 3\)"):
            grow(corner, x, held_out=x[:, :2], key=KEY)
        with pytest.raises(ValueError, match="`held_out_labels`"):
            grow(corner, x, **known, held_out_labels=[1, 2])
        with pytest.raises(ValueError, match="`names` must be 3 strings"):
            grow(corner, x, **known, names=["a"])
        with pytest.raises(ValueError, match="`decide` must be given"):
            grow(lambda x: x[0], x, **known)
        with pytest.raises(ValueError, match="`classes` must be given"):
            grow(corner, x, **known, decide=jnp.argmin)
        with pytest.raises(ValueError, match="`decide` must give classes from 0 to 1"):
            grow(corner, x, **known, decide=lambda y: 2 + 0 * jnp.argmin(y), classes=["a", "b"])
        with pytest.raises(ValueError, match="`spread`"):
            grow(corner, x, **known, spread=-1.0)
        with pytest.raises(TypeError, match="`key`"):
            grow(corner, x, held_out=x, key=0)
        with pytest.raises(TypeError, match="`inputs` must not be traced"):
            jax.jit(lambda x, grow=grow: grow(corner, x, held_out=x, key=KEY).fidelity)(x)
    with pytest.raises(ValueError, match=r"`precision` must lie in \(0, 1\)"):
        rules.anchor(corner, x[0], x, key=KEY, precision=1.0)
    with pytest.raises(ValueError, match=r"`x` must have shape"):
        rules.anchor(corner, x[0, :2], x, key=KEY)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.tree", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[rules\]"'):
        rules.distill_tree(corner, uniform(5, 3), held_out=uniform(5, 3), key=KEY)
