"""Attacks on sets of examples, ensembles of them, and what they must beat."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn
from jaxnn import attacks

KEY = jax.random.key(3)
NETWORK = jaxnn.init(jax.random.key(1), (12, 8, 4), activation="tanh", output_activation="identity")
X = np.random.default_rng(0).uniform(0, 1, (60, 12)).astype(np.float32)
LABELS = np.where(np.arange(60) % 10 == 0, 0, np.argmax(jax.vmap(NETWORK)(X), axis=1))
RADII = [0.2, 0.0, 0.02, 0.08]
PGD = functools.partial(attacks.pgd, steps=10, relative_step_size=0.2)


def robust(attack=PGD, epsilons=RADII, network=NETWORK, x=X, labels=LABELS, batch_size=16, **options):
    return attacks.robust_accuracy(
        network, x, labels, attack, epsilons, batch_size=batch_size, key=KEY, **options
    )


def test_robust_accuracy_is_the_share_that_withstands_every_smaller_radius():
    shares = robust()
    alive = np.argmax(jax.vmap(NETWORK)(X), axis=1) == LABELS
    expected = {0.0: alive.mean()}
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(60))
    for radius in (0.02, 0.08, 0.2):
        one = functools.partial(PGD, epsilon=np.float32(radius))
        found = jax.vmap(lambda x, y, key, one=one: one(NETWORK, x, y, key=key))(X, LABELS, keys)
        alive = alive & ~np.asarray(found.success)
        expected[radius] = alive.mean()
    np.testing.assert_allclose(shares, [expected[radius] for radius in RADII])
    assert 0 < expected[0.08] < expected[0.02] < expected[0.0] < 1  # a tenth of the labels are wrong
    assert robust(epsilons=0.02).shape == ()


@pytest.mark.long
def test_it_depends_on_neither_batches_devices_nor_jit():
    shares = robust()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    np.testing.assert_allclose(robust(batch_size=24, mesh=mesh), shares)
    np.testing.assert_allclose(robust(x=jnp.asarray(X), labels=jnp.asarray(LABELS), batch_size=60), shares)
    traced = jax.jit(lambda network: robust(network=network))(NETWORK)
    assert isinstance(traced, jax.Array)
    np.testing.assert_allclose(traced, shares)


def test_the_same_attack_made_anew_compiles_nothing(caplog):
    def ask(network, radius):
        attack = attacks.strongest(attacks.fgsm, functools.partial(attacks.pgd, steps=3))
        return robust(attack, [0.0, radius], network)

    ask(NETWORK, 0.1)
    other = jax.tree.map(lambda a: 1.1 * a, NETWORK)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        ask(other, 0.2)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


@pytest.mark.long
def test_the_strongest_of_several_is_at_least_as_strong_as_each():
    several = [attacks.noise, functools.partial(attacks.fgsm), functools.partial(PGD, restarts=2)]
    single = [robust(attack) for attack in several]
    assert (robust(attacks.strongest(*several)) <= np.min(single, axis=0) + 1e-9).all()
    found = attacks.strongest(attacks.fgsm, attacks.bim)(NETWORK, X[1], LABELS[1], epsilon=0.3, key=KEY)
    parts = [attack(NETWORK, X[1], LABELS[1], epsilon=0.3) for attack in (attacks.fgsm, attacks.bim)]
    assert bool(found.success)
    assert float(found.distance) == min(float(part.distance) for part in parts if part.success)
    assert int(found.queries) == sum(int(part.queries) for part in parts)


@pytest.mark.long
def test_an_attack_without_a_radius_counts_where_it_stays_inside():
    attack = functools.partial(attacks.deepfool, norm="l2")
    distances = jax.vmap(lambda x, y: attack(NETWORK, x, y))(X, LABELS)
    right = np.argmax(jax.vmap(NETWORK)(X), axis=1) == LABELS
    for radius in (0.05, 0.2):
        broken = np.asarray(distances.success & (distances.distance <= radius))
        assert robust(attack, radius) == pytest.approx(np.mean(right & ~broken))


BAD = {
    "lengths": ({"labels": LABELS[:3]}, "`inputs` and `labels` must hold the same number"),
    "NaN": ({"x": np.full((60, 12), np.nan)}, "`inputs` must be finite"),
    "label": ({"labels": LABELS + 4}, r"`labels` must lie in \[0, 4\)"),
    "halves": ({"labels": LABELS / 2}, "`labels` must be integers"),
    "radius": ({"epsilons": [-0.1]}, r"`epsilons` must lie in \[0, inf\)"),
    "no radius": ({"epsilons": np.zeros(0)}, "`epsilons` must have shape"),
    "bounds": ({"x": X - 0.5}, "`attack` must stay within epsilon"),
    "target": ({"attack": functools.partial(PGD, targeted=True)}, "`attack` must be untargeted"),
    "targets": (
        {"attack": attacks.strongest(attacks.fgsm, functools.partial(attacks.fgsm, targeted=True))},
        "`attack` must be untargeted",
    ),
}


@pytest.mark.parametrize(("changed", "match"), BAD.values(), ids=BAD.keys())
def test_bad_data(changed, match):
    with pytest.raises(ValueError, match=match):
        robust(**changed)
    with pytest.raises(ValueError, match="at least one attack"):
        attacks.strongest()


@pytest.mark.long
def test_one_change_for_all_alters_more_than_noise_of_its_size():
    options = {"epsilon": 0.15, "key": KEY}
    found = attacks.universal(NETWORK, X, LABELS, batch_size=16, **options)
    assert float(found.distance) <= 0.15 + 1e-6
    noisy = jax.vmap(lambda x, y: attacks.noise(NETWORK, x, y, **options).success)(X, LABELS)
    assert found.success.mean() > noisy.mean() + 0.1
    answers = jnp.argmax(jax.vmap(NETWORK)(jnp.clip(X + found.change, 0, 1)), axis=1)
    np.testing.assert_array_equal(found.success, answers != LABELS)
    wanted = attacks.universal(NETWORK, X, attacks.classified_as(2), norm="l2", **options)
    before = np.argmax(jax.vmap(NETWORK)(X), axis=1) == 2
    assert wanted.success.sum() > before.sum()
    with pytest.raises(ValueError, match="`inputs` must lie within `bounds`"):
        attacks.universal(NETWORK, 2 * X, LABELS, **options)
    with pytest.raises(ValueError, match="`labels` must have shape"):
        attacks.universal(NETWORK, X, LABELS[:5], **options)


@pytest.mark.long
def test_contrast_and_blur_find_the_smallest_amount():
    def bright(image):
        return jnp.stack([image.max(), 0.7])

    image = jnp.zeros((7, 7)).at[3, 3].set(1.0)
    found = attacks.contrast(bright, image, 0)
    assert float(found.distance) == pytest.approx(0.3, abs=1e-3)  # 0.7 is 60 % of the way to gray
    np.testing.assert_allclose(found.input[0, 0], 0.3, atol=1e-3)
    assert not attacks.contrast(bright, image, 0, epsilon=0.29).success
    blurred = attacks.blur(bright, image, 0)
    assert bool(blurred.success)
    assert float(blurred.input.max()) == pytest.approx(0.7, abs=0.02)
    assert float(blurred.input.sum()) == pytest.approx(1, abs=0.02)
    flat = attacks.blur(lambda x: bright(x.reshape(7, 7)), image.ravel(), 0)
    np.testing.assert_allclose(flat.input.reshape(7, 7), blurred.input, atol=1e-6)
    with pytest.raises(ValueError, match="`shape` must"):
        attacks.blur(bright, image[:5].ravel(), 0)
    with pytest.raises(ValueError, match="must be finite"):
        attacks.contrast(bright, image, 0, bounds=(-np.inf, np.inf))


@pytest.mark.long
def test_noise_fills_the_ball():
    def sizes(kind):
        keys = jax.random.split(jax.random.key(len(kind)), 500)
        ask = functools.partial(attacks.noise, norm="l2", epsilon=0.01, kind=kind)
        return jax.vmap(lambda key: ask(NETWORK, jnp.full(12, 0.5), 0, key=key).distance)(keys)

    np.testing.assert_allclose(sizes("gaussian"), 0.01, rtol=1e-4)
    assert np.median(sizes("uniform")) == pytest.approx(0.01 * 0.5 ** (1 / 12), rel=0.02)


@pytest.mark.long
def test_training_against_an_attack_makes_it_fail_more_often():
    attack = functools.partial(attacks.pgd, epsilon=0.1, steps=3, relative_step_size=0.5)
    x, y = jnp.asarray(X), jnp.asarray(LABELS)
    options = {"epochs": 30, "batch_size": 10, "key": KEY, "loss": jaxnn.losses.cross_entropy,
               "optimizer": optax.adam(0.01)}  # fmt: skip
    plain, _ = jaxnn.train(NETWORK, x, y, **options)
    model = attacks.under_attack(NETWORK, attack, key=KEY)
    trained, _ = jaxnn.train(model, (x, y), y, **options)
    assert isinstance(trained.args[0], jaxnn.Network)
    before, after = (robust(epsilons=0.1, network=network) for network in (plain, trained.args[0]))
    assert after > before + 0.1

    def loss(network, x):
        return jaxnn.losses.cross_entropy(network(x), LABELS[1])

    still = functools.partial(attack, random_start=False)
    fixed = still(NETWORK, X[1], LABELS[1]).input
    expected = jax.grad(loss)(NETWORK, fixed)
    found = jax.grad(lambda network: loss(attacks.under_attack(network, still), (X[1], LABELS[1])))(NETWORK)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_integers_are_refused_as_an_attack_holds_them():
    """In uint8, 100 - 128 is 228: the model's output for them is another."""
    images = np.random.default_rng(0).integers(0, 256, (40, 12)).astype(np.uint8)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(12, 3)), jnp.float32)
    model = jax.tree_util.Partial(lambda w, x: (x - 128) / 64 @ w, weights)
    labels = np.argmax(jax.vmap(model)(images.astype(np.float32)), axis=1)
    attack = functools.partial(attacks.fgsm, bounds=(0, 255))
    with pytest.raises(TypeError, match="`inputs` must hold floating-point numbers.*got uint8"):
        robust(attack, [0.0, 1e-3], model, images, labels)
    floats = images.astype(np.float32)
    np.testing.assert_array_equal(robust(attack, [0.0, 1e-3], model, floats, labels), [1, 1])
