"""Attacks by the gradient: against distances known exactly, against NumPy, and never out of the ball."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attacks
from jaxnn.attacks._apgd import checkpoints
from jaxnn.attacks._geometry import confine, distance, project, uniform_in_ball
from tests.conftest import in_precision

KEY = jax.random.key(7)
NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
SIZES = (12, 8, 4)
# Steps enough to reach the best corner of a ball, from anywhere in it.
THOROUGH = {
    "linf": {"relative_step_size": 0.1},
    "l2": {"steps": 150, "relative_step_size": 0.05},
    "l1": {"steps": 200, "relative_step_size": 3.0},
}


def size(delta, norm):
    return np.linalg.norm(np.asarray(delta, np.float64).ravel(), ORDER[norm])


def affine(weights, x):
    """Two logits, their difference being affine."""
    return jnp.stack([x @ weights[:-1] + weights[-1], jnp.zeros((), x.dtype)])


def network(seed=0, sizes=SIZES):
    return jaxnn.init(jax.random.key(seed), sizes, activation="tanh", output_activation="identity")


class TestLinear:
    """A linear classifier: the distance to the hyperplane is known in each norm."""

    def flips(self, attack, norm, seed, share, **options):
        rng = np.random.default_rng(seed)
        w, x = rng.normal(size=12), rng.uniform(0.3, 0.7, 12)
        threshold = 0.05
        lead = threshold * np.linalg.norm(w, DUAL[norm])
        weights = jnp.asarray(np.append(w, lead - w @ x), jnp.float32)
        found = attack(
            jax.tree_util.Partial(affine, weights), x.astype(np.float32), 0, norm=norm,
            epsilon=share * threshold, key=KEY, bounds=(0, 1), **options,
        )  # fmt: skip
        assert size(found.input - x.astype(np.float32), norm) <= share * threshold + 1e-6
        return bool(found.success)

    @pytest.mark.parametrize("norm", NORMS)
    def test_pgd_flips_it_just_beyond_the_threshold(self, norm):
        attack = functools.partial(attacks.pgd, **THOROUGH[norm])
        for seed in range(4):
            assert self.flips(attack, norm, seed, 1.001)
            assert not self.flips(attack, norm, seed, 0.999)

    @pytest.mark.long("all but the first")
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    @pytest.mark.parametrize("name", ["fgsm", "bim", "momentum_pgd", "apgd"])
    def test_so_do_the_others(self, name, norm):
        assert self.flips(getattr(attacks, name), norm, 1, 1.001)
        assert not self.flips(getattr(attacks, name), norm, 1, 0.999)

    def test_bounds_in_the_way_are_taken_into_account(self):
        w, x = np.array([1.0, 2.0, -1.0], np.float32), np.array([0.05, 0.5, 0.98], np.float32)
        drop = 1 * 0.05 + 2 * 0.1 + 1 * 0.02  # within 0.1 of x, and within the bounds
        for share, success in ((0.999, True), (1.001, False)):
            weights = jnp.asarray(np.append(w, share * drop - w @ x), jnp.float32)
            model = jax.tree_util.Partial(affine, weights)
            assert (
                bool(attacks.pgd(model, x, 0, epsilon=0.1, relative_step_size=0.1, key=KEY).success)
                is success
            )


class TestNumPy:
    """The same steps written out in float64."""

    def slope(self, network, x, label):
        (w1, b1), (w2, b2) = [
            (np.asarray(a.kernel, np.float64), np.asarray(a.bias, np.float64)) for a in network.layers
        ]
        h = np.tanh(x @ w1 + b1)
        z = h @ w2 + b2
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        of_z = p - (np.arange(len(z)) == label)
        value = np.log(np.exp(z - z.max()).sum()) + z.max() - z[label]
        return value, w1 @ ((1 - h * h) * (w2 @ of_z))

    def keep(self, x, y, epsilon, norm):
        delta = y - x
        if norm == "linf":
            delta = np.clip(delta, -epsilon, epsilon)
        else:
            delta *= min(1, epsilon / max(np.linalg.norm(delta), 1e-300))
        return np.clip(x + delta, 0, 1)

    def unit(self, slope, norm):
        return np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope)

    @pytest.mark.long("all but the first")
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    @pytest.mark.parametrize("decay", [None, 0.9])
    def test_steps(self, norm, decay):
        with in_precision("float64"):
            net = jax.tree.map(lambda a: a.astype("float64"), network(3))
            x = np.random.default_rng(0).uniform(0, 1, 12)
            options = {"norm": norm, "epsilon": 0.2, "steps": 7, "relative_step_size": 0.3}
            if decay is None:
                found = attacks.bim(net, x, 2, **options)
            else:
                found = attacks.momentum_pgd(net, x, 2, decay=decay, **options)
            y, velocity = x, np.zeros(12)
            for _ in range(7):
                slope = self.slope(net, y, 2)[1]
                velocity = (decay or 0) * velocity + slope / np.abs(slope).sum()
                y = self.keep(x, y + 0.3 * 0.2 * self.unit(velocity, norm), 0.2, norm)
            np.testing.assert_allclose(found.input, y, rtol=0, atol=1e-10)
            assert int(found.queries) == 8

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_apgd_is_algorithm_1_of_the_paper(self, norm):
        steps, epsilon = 40, 0.05  # nothing is flipped, so that the best point is the answer
        with in_precision("float64"):
            net = jax.tree.map(lambda a: a.astype("float64"), network(3))
            x = np.random.default_rng(0).uniform(0, 1, 12)
            label = int(np.argmax(net(x)))
            found = attacks.apgd(net, x, label, norm=norm, epsilon=epsilon, steps=steps, random_start=False)
            best = self.algorithm_1(net, x, label, norm, epsilon, steps)
            assert not found.success
            np.testing.assert_allclose(found.input, best, rtol=0, atol=1e-9)

    def algorithm_1(self, net, x, label, norm, epsilon, steps):
        eta, last = 2 * epsilon, x
        first, slope = self.slope(net, x, label)
        now = self.keep(x, x + eta * self.unit(slope, norm), epsilon, norm)
        values = [first, self.slope(net, now, label)[0]]
        best_x, best = (now, values[1]) if values[1] > first else (x, first)
        judged, judged_eta, judged_best = 0, eta, first
        at = set(checkpoints(steps).tolist())
        for k in range(1, steps):
            slope = self.slope(net, now, label)[1]
            z = self.keep(x, now + eta * self.unit(slope, norm), epsilon, norm)
            now, last = self.keep(x, now + 0.75 * (z - now) + 0.25 * (now - last), epsilon, norm), now
            values.append(self.slope(net, now, label)[0])
            if values[-1] > best:
                best_x, best = now, values[-1]
            if k + 1 in at:
                rises = sum(b > a for a, b in zip(values[judged:-1], values[judged + 1 :], strict=True))
                stuck = rises < 0.75 * (k + 1 - judged) or (eta == judged_eta and best == judged_best)
                judged, judged_eta, judged_best = k + 1, eta, best
                if stuck:
                    eta, now = eta / 2, best_x
                    values[-1] = best
        return best_x

    def test_the_checkpoints_are_those_of_the_paper(self):
        assert checkpoints(100).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
        assert checkpoints(1).tolist() == [1]


@functools.cache
def attacked(name, norm):
    """An attack on a batch, compiled once."""
    options = {"steps": 4} if name in ("bim", "pgd", "momentum_pgd", "apgd") else {}
    if name in ("pgd restarts", "apgd restarts"):
        options = {"steps": 3, "restarts": 2}
    if name == "noise":
        options = {"kind": "gaussian"}
    if name == "blur":
        options = {"shape": (3, 4)}
    attack = getattr(attacks, name.split()[0])

    def one(net, x, label, epsilon, low, high, key):
        return attack(
            net, x, label, norm=norm, epsilon=epsilon, bounds=(low, high), key=key, **options
        )  # fmt: skip

    return jax.jit(jax.vmap(one, (None, 0, 0, None, None, None, 0)))


NAMES = ("fgsm", "bim", "pgd", "momentum_pgd", "apgd", "noise", "blur", "contrast")


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(
            name, norm, marks=[pytest.mark.long] * (name != "pgd" and (name, norm) != ("apgd", "l2"))
        )
        for name in NAMES
        for norm in NORMS
        if (name, norm) != ("apgd", "l1")
    ],
)
@hypothesis.given(
    seed=st.integers(0, 10**6),
    epsilon=st.one_of(st.just(0.0), st.floats(1e-6, 1e2)),
    low=st.sampled_from([0.0, -1.0, 0.3]),
    reach=st.sampled_from([1.0, 0.01, 2.0, 255.0]),
    gain=st.sampled_from([0.0, 1.0, 100.0]),
    edge=st.booleans(),
)
@hypothesis.settings(max_examples=25)
def test_never_out_of_the_ball_or_the_bounds(name, norm, seed, epsilon, low, reach, gain, edge):
    rng = np.random.default_rng(seed)
    low, high, epsilon = np.float32(low), np.float32(low + reach), np.float32(epsilon)
    share = rng.integers(0, 2, (8, 12)) if edge else rng.uniform(0, 1, (8, 12))
    x = np.clip(low + share.astype(np.float32) * (high - low), low, high)
    net = jax.tree.map(lambda a: gain * a, network(seed % 5))
    found = attacked(name, norm)(net, x, rng.integers(0, 4, 8), epsilon, low, high,
                                 jax.random.split(jax.random.key(seed), 8))  # fmt: skip
    y = np.asarray(found.input)
    assert np.isfinite(y).all()
    assert y.min() >= low
    assert y.max() <= high
    for one, other, said in zip(x, y, np.asarray(found.distance), strict=True):
        apart = size(other.astype(np.float64) - one.astype(np.float64), norm)
        assert apart <= float(epsilon) + 1e-6
        assert abs(apart - said) <= max(1e-5, 3e-7 * apart)
    right = np.argmax(jax.vmap(net)(y), axis=1) == rng_labels(seed, edge)
    np.testing.assert_array_equal(np.asarray(found.success), ~right)


def rng_labels(seed, edge):
    rng = np.random.default_rng(seed)
    rng.integers(0, 2, (8, 12)) if edge else rng.uniform(0, 1, (8, 12))
    return rng.integers(0, 4, 8)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [1e-7, 8.0, 300.0])
def test_the_ball_is_not_left_by_a_rounding_in_any_units(norm, epsilon):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1000, 1000, (200, 40)).astype(np.float32)
    x[:, :20] /= 1e4
    far = x + rng.normal(0, 3 * epsilon, x.shape).astype(np.float32)
    found = jax.jit(jax.vmap(lambda x, y: confine(x, y, norm, epsilon, (-1000.0, 1000.0))))(x, far)
    sizes = np.linalg.norm(np.asarray(found, np.float64) - x.astype(np.float64), ORDER[norm], axis=1)
    assert sizes.max() <= np.float32(epsilon)
    assert epsilon < 1 or sizes.max() > 0.9999 * epsilon


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("norm", NORMS)
def test_balls(norm):
    one, two = jax.random.split(jax.random.key(NORMS.index(norm)))
    draws = jax.vmap(lambda key: uniform_in_ball(key, (3,), norm, 2.0))(jax.random.split(one, 4000))
    radii = np.array([size(draw, norm) for draw in draws])
    assert radii.max() <= 2 + 1e-6
    shares = [np.mean(radii < 2 * share ** (1 / 3)) for share in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.03)  # the volume inside a radius
    inside = jnp.array([0.1, -0.2, 0.1])
    np.testing.assert_array_equal(project(inside, norm, 1.0), inside)
    np.testing.assert_array_equal(project(inside, norm, jnp.inf), inside)
    far = jnp.array([3.0, -1.0, 0.5])
    nearest = project(far, norm, 1.0)
    others = jax.vmap(lambda key: uniform_in_ball(key, (3,), norm, 1.0))(jax.random.split(two, 2000))
    apart = np.linalg.norm(np.asarray(others) - np.asarray(far), axis=1)
    assert np.linalg.norm(nearest - far) <= apart.min() + 1e-6
    assert size(nearest, norm) == pytest.approx(1, abs=1e-6)


def test_a_candidate_that_is_not_finite_does_not_get_through():
    x = jnp.array([0.2, 0.5])
    for norm in NORMS:
        kept = confine(x, jnp.array([jnp.nan, jnp.inf]), norm, 0.1, (0.0, 1.0))
        np.testing.assert_array_equal(kept, x)
    assert float(distance(jnp.array([3e30, 4e30]), "l2")) == pytest.approx(5e30, rel=1e-6)


@pytest.mark.long
def test_restarts_find_more_and_never_less():
    net = network(1)
    x = np.random.default_rng(0).uniform(0, 1, (64, 12)).astype(np.float32)
    labels = np.argmax(jax.vmap(net)(x), axis=1)
    found = {}
    for restarts in (1, 6):
        one = functools.partial(
            attacks.pgd, epsilon=0.12, norm="l2", steps=2, relative_step_size=0.1, restarts=restarts, key=KEY
        )
        found[restarts] = jax.vmap(one, (None, 0, 0))(net, x, labels)
    assert (found[6].success | ~found[1].success).all()
    assert found[6].success.sum() > found[1].success.sum()
    assert set(found[6].queries.tolist()) == {18}


@pytest.mark.long
def test_targets_and_criteria():
    net, x = network(2), jnp.full(12, 0.5)
    answer = int(jnp.argmax(net(x)))
    wanted = (answer + 1) % 4
    for attack in (attacks.pgd, attacks.apgd):
        found = attack(net, x, wanted, targeted=True, epsilon=1.0, key=KEY)
        assert found.success
        assert int(jnp.argmax(net(found.input))) == wanted
        same = attack(net, x, attacks.classified_as(wanted), epsilon=1.0, key=KEY)
        assert same.success
    sure = attacks.pgd(net, x, attacks.confident(wanted, 0.3), epsilon=1.0, key=KEY)
    assert jax.nn.softmax(net(sure.input))[wanted] > 0.3
    too_sure = attacks.pgd(net, x, attacks.confident(wanted, 0.999999), epsilon=0.1, key=KEY)
    assert not too_sure.success


def test_a_new_label_criterion_or_radius_compiles_nothing(caplog):
    net, x = network(), jnp.full(12, 0.5)

    def ask(label, epsilon, share):
        attacks.pgd(net, x, label, epsilon=epsilon, key=KEY, relative_step_size=share)
        attacks.apgd(net, x, attacks.confident(label, share), epsilon=epsilon, key=KEY)

    ask(0, 0.1, 0.1)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        ask(1, 0.2, 0.2)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


@pytest.mark.parametrize("z", [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
def test_ties_are_judged_as_argmax_does(z):
    for label in range(3):
        is_answer = int(np.argmax(z)) == label
        assert bool(attacks.misclassified(label)(jnp.array(z)) > 0) is not is_answer
        assert bool(attacks.classified_as(label)(jnp.array(z)) > 0) is is_answer


def test_an_example_of_several_arrays():
    def model(x):
        return jnp.stack([x["a"].sum() - x["b"].sum(), 0.05])

    x = {"a": jnp.full((2, 2), 0.5), "b": jnp.full(3, 0.6)}
    found = attacks.pgd(
        model,
        x,
        0,
        epsilon=0.1,
        relative_step_size=0.1,
        key=KEY,
        bounds=({"a": jnp.zeros((2, 2)), "b": jnp.zeros(3)}, 1),
    )
    assert found.success
    assert jax.tree.map(jnp.shape, found.input) == {"a": (2, 2), "b": (3,)}
    np.testing.assert_allclose(found.input["a"], 0.4, rtol=1e-5)


@pytest.mark.long
def test_a_label_that_there_is_not_is_no_success():
    net, keys = network(), jax.random.split(KEY, 3)
    for label_of in (lambda k: k, attacks.misclassified, attacks.classified_as,
                     lambda k: attacks.confident(k, 0.1)):  # fmt: skip
        found = jax.vmap(lambda k, key: attacks.pgd(net, X, label_of(k), epsilon=1.0, key=key))(  # noqa: B023
            jnp.array([4, 9, 100]), keys
        )
        assert not found.success.any()
        assert jnp.isnan(found.distance).all()
    with pytest.raises(ValueError, match="`probability` must have shape"):
        attacks.confident(1, [0.5, 0.6])


def test_nan_does_not_hide_among_restarts():
    def broken(x):  # in a quarter of the ball
        return jnp.where(x[0] > 0.55, jnp.nan, jnp.stack([1.0, 0.0]))

    found = attacks.noise(broken, [0.5], 0, epsilon=0.1, key=jax.random.key(1), n_samples=50)
    assert not found.success
    assert jnp.isnan(found.distance)
    assert found.input[0] > 0.55


def broken(x):
    """A model that answers NaN near the middle, and rightly elsewhere."""
    return jnp.where(x[0] < 0.55, jnp.nan, jnp.stack([x[0], 0.6]))


def test_nan_from_the_model_is_neither_success_nor_robustness():
    found = attacks.pgd(broken, [0.7], 0, epsilon=0.2, key=KEY, random_start=False)
    assert not found.success
    assert np.isnan(found.distance)
    assert np.isfinite(found.input).all()
    with pytest.raises(ValueError, match="`model` must not return NaN; it does for 1 attacked"):
        attacks.robust_accuracy(broken, [[0.7]], [0], attacks.fgsm, 0.2, batch_size=1, key=KEY)
    with pytest.raises(ValueError, match="`model` must not return NaN; it does for 1 of"):
        attacks.robust_accuracy(broken, [[0.5]], [0], attacks.fgsm, 0.2, batch_size=1, key=KEY)


X = np.full(12, 0.5, np.float32)
BAD = {
    "NaN": ({"x": np.full(12, np.nan)}, ValueError, "`x` must be finite"),
    "out of bounds": ({"x": 2 * X + 1}, ValueError, "`x` must lie within `bounds`"),
    "bounds": ({"bounds": (1, 0)}, ValueError, "`bounds` must be"),
    "no pair": ({"bounds": 1.0}, TypeError, "`bounds` must be a pair"),
    "epsilon": ({"epsilon": -0.1}, ValueError, "`epsilon` must be at least 0"),
    "infinite": ({"epsilon": np.inf}, ValueError, "`epsilon` must be finite"),
    "many": ({"epsilon": np.ones(2)}, ValueError, "`epsilon` must have shape"),
    "no epsilon": ({"epsilon": None}, TypeError, "`epsilon` must be an array of numbers"),
    "norm": ({"norm": "l3"}, ValueError, "`norm` must be one of"),
    "norms": ({"norm": ["l2"]}, ValueError, "`norm` must be one of"),
    "label": ({"label": 4}, ValueError, "`label` must lie from 0 to 3, for 4 logits"),
    "negative": ({"label": -1}, ValueError, r"`label` must lie in \[0, "),
    "none": ({"label": None}, TypeError, "`label` must be an integer"),
    "half": ({"label": 0.5}, TypeError, "`label` must be an integer"),
    "text": ({"label": "a"}, TypeError, "`label` must be an array of numbers"),
    "pair": ({"label": (1,)}, TypeError, "`label` must be an integer"),
    "sequence": ({"label": [1]}, TypeError, "`label` must be an integer"),
    "targeted": ({"label": attacks.misclassified(1), "targeted": True}, ValueError, "`targeted` must be"),
    "key": ({"key": None}, TypeError, "`key` must be one random key"),
    "loss": ({"loss": "hinge"}, ValueError, "`loss` must be one of"),
    "steps": ({"steps": 0}, ValueError, "`steps` must be at least 1"),
    "restarts": ({"restarts": 2, "random_start": False}, ValueError, "`restarts` must be 1"),
    "model": ({"model": 3}, TypeError, "`model` must be callable"),
    "one logit": ({"model": lambda x: x[:1]}, ValueError, "`model` must return at least two"),
    "no logit": ({"model": lambda x: x.sum()}, ValueError, "`model` must return at least two"),
    "named": ({"model": lambda x: {"y": x}}, ValueError, "`model` must return at least two"),
    "classes": ({"model": lambda x: jnp.arange(3)}, ValueError, "`model` must return at least two"),
    "nothing": ({"model": lambda x: jnp.arange(3.0), "x": X[:0]}, ValueError, "`x` must hold at least one"),
    "dlr": ({"model": lambda x: x[:2], "loss": "dlr"}, ValueError, "`loss` 'dlr' needs at least 3"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "match"), BAD.values(), ids=BAD.keys())
def test_bad_input(changed, error, match):
    given = {"model": network(), "x": X, "label": 0, "epsilon": 0.1, "key": KEY} | changed
    with pytest.raises(error, match=match):
        attacks.pgd(given.pop("model"), given.pop("x"), given.pop("label"), **given)
