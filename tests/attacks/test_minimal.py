"""The nearest adversarial input: exact distances of linear classifiers, and what holds for any model."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attacks
from tests.conftest import in_precision

DUAL = {"l2": 2, "linf": 1, "l1": np.inf}
ORDER = {"l2": 2, "linf": np.inf, "l1": 1}
KEY = np.array([0, 3], np.uint32)


def _affine(kernel, bias, x):
    return x @ kernel + bias


def _linear(classes=4):
    """A linear classifier of 8 inputs, examples in [-3, 3] not too near to a boundary, and the answers."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, (8, classes)).astype(np.float32)
    bias = rng.normal(0, 1, classes).astype(np.float32)
    x = rng.uniform(-3, 3, (40, 8)).astype(np.float32)
    ordered = np.sort(x @ kernel + bias, axis=1)
    x = x[ordered[:, -1] - ordered[:, -2] > 1][:12]
    return jax.tree_util.Partial(_affine, kernel, bias), kernel, x, x @ kernel + bias


def _to_hyperplane(kernel, logits, labels, norm):
    """The distance to the nearest boundary of each row's label: `min_k |f_k| / ||w_k - w_label||_*`."""
    found = []
    for z, label in zip(logits, labels, strict=True):
        others = [k for k in range(len(z)) if k != label]
        gaps = [z[label] - z[k] for k in others]
        slopes = [np.linalg.norm(kernel[:, label] - kernel[:, k], DUAL[norm]) for k in others]
        found.append(np.min(np.array(gaps) / slopes))
    return np.array(found)


def _each(method, model, x, labels, **options):
    keys = jax.random.split(jax.random.key(0), len(x))
    call = jax.jit(jax.vmap(lambda x, label, key: method(model, x, label, key=key, **options)))
    return call(jnp.asarray(x), jnp.asarray(labels), keys)


# deepfool looks at all classes. The other two climb the margin of the class that is ahead, and may end at its
# boundary where another one is nearer: two classes for them.
EXACT = {
    "deepfool l2": (attacks.deepfool, 4, {"norm": "l2", "overshoot": 1e-5}),
    "deepfool linf": (attacks.deepfool, 4, {"norm": "linf", "overshoot": 1e-5}),
    "carlini_wagner": (attacks.carlini_wagner, 2, {"norm": "l2", "steps": 1000, "learning_rate": 0.002}),
    "fmn l2": (attacks.fmn, 2, {"norm": "l2", "steps": 500}),
    "fmn linf": (attacks.fmn, 2, {"norm": "linf", "steps": 500}),
    "fmn l1": (attacks.fmn, 2, {"norm": "l1", "steps": 500}),
}


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("attack", "classes", "options"), EXACT.values(), ids=EXACT.keys())
def test_the_distance_to_the_nearest_hyperplane_is_exact(attack, classes, options):
    model, kernel, x, logits = _linear(classes)
    labels = logits.argmax(axis=1)
    found = _each(attack, model, x, labels, bounds=(-9.0, 9.0), **options)
    assert np.all(found.success)
    exact = _to_hyperplane(kernel, logits, labels, options["norm"])
    np.testing.assert_allclose(found.distance, exact, rtol=1e-3)


@functools.cache
def _network(seed=0):
    bias = jax.nn.initializers.normal(0.3)
    return jaxnn.init(jax.random.key(seed), (16, 12, 4), activation="tanh", bias_init=bias)


def _inputs(count=8, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, 16)).astype(np.float32)


METHODS = {
    "deepfool l2": functools.partial(attacks.deepfool, norm="l2", steps=20),
    "deepfool linf": functools.partial(attacks.deepfool, norm="linf", steps=20),
    "carlini_wagner": functools.partial(attacks.carlini_wagner, steps=60, search_steps=6),
    "fmn linf": functools.partial(attacks.fmn, norm="linf", steps=40),
    "fmn l2": functools.partial(attacks.fmn, norm="l2", steps=40),
    "fmn l1": functools.partial(attacks.fmn, norm="l1", steps=40),
}
methods = pytest.mark.parametrize("attack", METHODS.values(), ids=METHODS.keys())
NORM = {id(attack): attack.keywords.get("norm", "l2") for attack in METHODS.values()}


@pytest.mark.long
@methods
@hypothesis.settings(max_examples=10)
@hypothesis.given(
    seed=st.integers(0, 1000), low=st.floats(-2, 0), width=st.floats(1, 3), scale=st.floats(0.1, 20)
)
def test_within_the_bounds_and_honest(attack, seed, low, width, scale):
    network = jax.tree.map(lambda a: np.float32(scale) * a, _network(seed % 7))
    low, width = np.float32(low), np.float32(width)
    x = np.clip(low + width * _inputs(seed=seed), low, low + width)
    labels = np.arange(8) % 4
    found = _run(attack, network, x, labels, low, low + width)
    inputs = np.asarray(found.input)
    assert inputs.min() >= low
    assert inputs.max() <= low + width
    gains = _gains(network, inputs, labels)
    clear = np.abs(gains) > 1e-5  # the boundary itself is a matter of rounding
    np.testing.assert_array_equal(found.success[clear], (gains > 0)[clear])
    sizes = np.linalg.norm(inputs - x, ORDER[NORM[id(attack)]], axis=1)
    np.testing.assert_allclose(found.distance, sizes, rtol=1e-5, atol=1e-7)


@jax.jit
def _gains(network, inputs, labels):
    return jax.vmap(lambda x, label: attacks.misclassified(label)(network(x)))(inputs, labels)


@functools.partial(jax.jit, static_argnames=("attack", "targeted"))
def _run(attack, network, x, labels, low, high, targeted=False):
    def one(x, label):
        return attack(network, x, label, bounds=(low, high), targeted=targeted)

    return jax.vmap(one)(x, labels)


@pytest.mark.long
@methods
def test_a_target(attack):
    network, x = _network(), _inputs()
    labels = np.asarray(jax.vmap(network)(x)).argmax(axis=1)
    wanted = (labels + 1) % 4
    found = _run(attack, network, x, wanted, -4.0, 4.0, targeted=True)
    away = _run(attack, network, x, labels, -4.0, 4.0)
    assert np.all(found.success)
    np.testing.assert_array_equal(np.asarray(jax.vmap(network)(found.input)).argmax(axis=1), wanted)
    assert np.all(found.distance > 0.9 * away.distance)  # one class is no nearer than the nearest


@pytest.mark.long("all but the first")
@methods
def test_what_is_misclassified_stays_where_it_is(attack):
    network, x = _network(), _inputs()
    wrong = (np.asarray(jax.vmap(network)(x)).argmax(axis=1) + 1) % 4
    found = _run(attack, network, x, wrong, 0.0, 1.0)
    assert np.all(found.success)
    np.testing.assert_array_equal(found.distance, 0)
    np.testing.assert_array_equal(found.input, x)


@pytest.mark.long
@methods
def test_a_criterion(attack):
    network, x = _network(), _inputs()[0]
    wanted = int(jnp.argmin(network(x)))
    sure = attacks.confident(wanted, 0.4)
    found = attack(network, x, sure, bounds=(-4.0, 4.0))
    assert bool(found.success)
    assert jax.nn.softmax(network(found.input))[wanted] > 0.4
    nearer = attack(network, x, attacks.confident(wanted, 0.3), bounds=(-4.0, 4.0))
    assert nearer.distance < found.distance


@pytest.mark.long
@methods
def test_where_there_is_nothing_to_find(attack):
    found = attack(lambda x: jnp.stack([x.sum() * 0 + 1, x.sum() * 0]), _inputs()[0], 0)
    assert not found.success
    assert np.all(np.isfinite(found.input))


@pytest.mark.long("all but the first")
@methods
def test_what_answers_nan_is_neither_success_nor_a_way_out(attack):
    def broken(x):  # from a little below the input on
        return jnp.where(x[0] < 0.49, jnp.nan, jnp.stack([x[0], 0.2]))

    for model in (lambda x: x[:2] * jnp.nan, broken):
        found = attack(model, jnp.full(3, 0.5), 0)
        assert not found.success
        assert jnp.all((found.input >= 0) & (found.input <= 1))
        assert jnp.isnan(found.distance) == jnp.isnan(model(found.input)).any()


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", ["deepfool", "fmn", "hop_skip_jump"])
def test_bounds_may_be_infinite(name, norm):
    model, kernel, x, logits = _linear(2)
    labels = logits.argmax(axis=1)
    options = {"start": -9 * x[0], "queries": 2000} if name == "hop_skip_jump" else {}
    attack = functools.partial(getattr(attacks, name), key=jax.random.key(1), norm=norm, **options)
    found = attack(model, x[0], labels[0], bounds=(-np.inf, np.inf))
    assert bool(found.success)
    exact = _to_hyperplane(kernel, logits[:1], labels[:1], norm)[0]
    assert exact * 0.999 < found.distance < exact * 1.2


@pytest.mark.long
@methods
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_dtype_is_kept_and_its_bounds(attack, dtype):
    with in_precision(dtype):
        network = jax.tree.map(lambda a: jnp.asarray(a, dtype), _network())
        x = jnp.asarray(_inputs()[1], dtype)
        found = attack(network, x, int(jnp.argmax(network(x))), bounds=(0.0, 2.0))
        assert found.input.dtype == dtype
        assert found.distance.dtype == dtype
        assert jnp.all((found.input >= 0) & (found.input <= 2))


def test_carlini_wagner_takes_no_more_steps_than_asked_for():
    network, x = _network(), _inputs()[0]
    label = int(jnp.argmax(network(x)))
    options = {"steps": 25, "search_steps": 2, "abort_early": False}
    found = attacks.carlini_wagner(network, x, label, **options)
    assert found.queries == 1 + 2 * 25 + 16 + 1  # a look; the steps; the bisection; the last look


@pytest.mark.long
def test_the_confidence_is_reached():
    model, _, x, logits = _linear()
    labels = logits.argmax(axis=1)
    found = _each(attacks.carlini_wagner, model, x, labels, bounds=(-9.0, 9.0), steps=500, confidence=2.0)
    margins = [
        float(attacks.misclassified(i)(z)) for i, z in zip(labels, jax.vmap(model)(found.input), strict=True)
    ]
    assert np.all(found.success)
    np.testing.assert_allclose(margins, 2, atol=0.02)
    assert np.all(np.array(margins) > 2)


@pytest.mark.long
def test_deepfool_with_all_classes_is_no_farther_than_with_few():
    model, _, x, logits = _linear()
    labels = logits.argmax(axis=1)
    few = _each(attacks.deepfool, model, x, labels, bounds=(-9.0, 9.0), candidates=2)
    every = _each(attacks.deepfool, model, x, labels, bounds=(-9.0, 9.0), candidates=None)
    assert np.all(every.distance <= few.distance + 1e-6)
    assert np.any(every.distance < 0.99 * few.distance)
    assert np.all(every.queries == 1 + 4 + 1)  # a look; three slopes and where they lead; the last look
    assert np.all(few.queries >= 1 + 2 + 1)


def test_the_change_is_a_constant_to_a_gradient():
    network, x = _network(), _inputs()[0]

    def total(x):
        return jnp.sum(jnp.arange(16) * attacks.fmn(network, x, 1, steps=3).input)

    np.testing.assert_allclose(jax.grad(total)(x), np.arange(16), rtol=1e-6)


BALL = functools.partial(attacks.pgd, steps=100, random_start=False)
GENTLE = functools.partial(attacks.deepfool, norm="l2")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_minimal_norm_of_pgd_finds_the_hyperplane(norm):
    model, kernel, x, logits = _linear(2)
    labels = logits.argmax(axis=1)
    found = _each(
        attacks.minimal_norm, model, x, labels, attack=BALL, norm=norm, bounds=(-9.0, 9.0), epsilon=4.0,
        steps=14,
    )  # fmt: skip
    assert np.all(found.success)
    exact = _to_hyperplane(kernel, logits, labels, norm)
    np.testing.assert_allclose(found.distance, exact, rtol=2e-3)
    assert np.all(found.queries > 14)


@pytest.mark.long
def test_minimal_norm_of_several_is_the_least_of_each():
    network, x = _network(), _inputs()
    labels = np.asarray(jax.vmap(network)(x)).argmax(axis=1)
    both = [attacks.deepfool, attacks.fmn]
    options = {"norm": "l2", "bounds": (-2.0, 2.0)}
    found = _each(attacks.minimal_norm, network, x, labels, attack=both, **options)
    each = [_each(attack, network, x, labels, **options).distance for attack in both]
    np.testing.assert_allclose(found.distance, np.minimum(*each), rtol=1e-6)


def test_minimal_norm_stays_in_the_ball():
    model, _, x, logits = _linear(2)
    label = logits[0].argmax()
    options = {"key": KEY, "norm": "l2", "bounds": (-9.0, 9.0)}
    for attack in (attacks.fmn, BALL, lambda *args, **options: BALL(*args, **options)):
        free = attacks.minimal_norm(model, x[0], label, attack, **options)
        assert bool(free.success)
        near, far = (
            attacks.minimal_norm(model, x[0], label, attack, epsilon=share * free.distance, **options)
            for share in (0.9, 1.1)
        )
        assert not near.success
        assert near.distance <= 0.9 * free.distance
        assert bool(far.success)
    endless = options | {"bounds": (-np.inf, np.inf)}
    assert bool(attacks.minimal_norm(model, x[0], label, attacks.fmn, **endless).success)
    with pytest.raises(ValueError, match="`epsilon` must be given"):
        attacks.minimal_norm(model, x[0], label, BALL, **endless)


def test_minimal_norm_of_what_is_misclassified_is_0():
    network, x = _network(), _inputs()[0]
    wrong = (int(jnp.argmax(network(x))) + 1) % 4
    found = attacks.minimal_norm(network, x, wrong, attacks.fmn, key=KEY)
    assert bool(found.success)
    assert found.distance == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: attacks.deepfool(m, x, 0, norm="l1"), ValueError, "`norm`"),
        (lambda m, x: attacks.deepfool(m, x, 0, candidates=1), ValueError, "`candidates`"),
        (lambda m, x: attacks.deepfool(m, x, 0, overshoot=-0.1), ValueError, "`overshoot`"),
        (lambda m, x: attacks.deepfool(m, x, 0, steps=0), ValueError, "`steps`"),
        (lambda m, x: attacks.deepfool(m, x * np.nan, 0), ValueError, "`x`"),
        (lambda m, x: attacks.deepfool(m, x, 7), ValueError, "`label`"),
        (lambda m, x: attacks.carlini_wagner(m, x, 0, norm="linf"), ValueError, "`norm`"),
        (lambda m, x: attacks.carlini_wagner(m, x, 0, bounds=(0, np.inf)), ValueError, "`bounds`"),
        (lambda m, x: attacks.carlini_wagner(m, x, 0, confidence=-1), ValueError, "`confidence`"),
        (lambda m, x: attacks.carlini_wagner(m, x, 0, abort_early=1), TypeError, "`abort_early`"),
        (lambda m, x: attacks.fmn(m, x, 0, gamma=1), ValueError, "`gamma`"),
        (lambda m, x: attacks.fmn(m, x, 0, step_size=[1.0, 2.0]), ValueError, "`step_size`"),
        (lambda m, x: attacks.minimal_norm(m, x, 0, [], key=KEY), ValueError, "`attack`"),
        (lambda m, x: attacks.minimal_norm(m, x, 0, 3, key=KEY), TypeError, "`attack`"),
        (lambda m, x: attacks.minimal_norm(m, x, 0, attacks.fmn, key=3), TypeError, "`key`"),
        (lambda m, x: attacks.minimal_norm(m, x, 0, attacks.fmn, key=KEY, steps=0), ValueError, "`steps`"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(_network(), _inputs()[0])
