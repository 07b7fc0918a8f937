import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution, quality
from jaxnn.quality._sanity import order_of_layers

KEY = np.array([0, 3], np.uint32)  # of the old kind, which the check of keys used twice lets be used again
NETWORK = jaxnn.init(KEY, (6, 5, 4, 3), bias_init=jax.nn.initializers.normal(0.1))


def flat_dict(params, x):
    return jnp.tanh(x @ params["w2"] + params["b2"]) @ params["w10"]


def test_layers_are_in_the_order_of_their_use():
    """Of twelve layers, whose names sort as Dense_0, Dense_1, Dense_10, Dense_11, Dense_2, ..."""
    module = nn.Sequential([nn.Dense(4) for _ in range(12)])
    params = module.init(KEY, jnp.ones(4))
    model = jaxnn.from_linen(module, params)
    names = quality.parameter_layers(model, jnp.ones(4))
    assert [name.rpartition("_")[2] for name in names] == [str(i) for i in range(12)]
    assert quality.parameter_layers(NETWORK, jnp.ones(6)) == ("layers[0]", "layers[1]", "layers[2]")


def test_arrays_side_by_side_are_layers_of_their_own():
    params = {"w2": jnp.ones((3, 2)), "b2": jnp.ones(2), "w10": jnp.ones((2, 2))}
    model = jax.tree_util.Partial(flat_dict, params)
    assert quality.parameter_layers(model, jnp.ones(3)) == ("w2", "b2", "w10")
    arrays = jax.tree_util.Partial(lambda w, v, x: v @ jnp.tanh(w @ x), jnp.ones((2, 3)), jnp.ones((2, 2)))
    assert len(quality.parameter_layers(arrays, jnp.ones(3))) == 2


def test_keys_with_dots_are_paths():
    params = {"conv.weight": jnp.ones((3, 2)), "conv.bias": jnp.ones(2), "fc.weight": jnp.ones((2, 2))}
    function = lambda p, x: (x @ p["conv.weight"] + p["conv.bias"]) @ p["fc.weight"]  # noqa: E731
    model = jax.tree_util.Partial(function, params)
    assert quality.parameter_layers(model, jnp.ones(3)) == ("conv", "fc")


def test_a_model_without_parameters_has_no_layers():
    with pytest.raises(ValueError, match="`model` must have parameters"):
        quality.parameter_layers(lambda x: x.sum(), jnp.ones(3))


def test_only_the_given_layers_are_drawn_and_keep_their_spread():
    network = jaxnn.init(KEY, (300, 200, 100), bias_init=jax.nn.initializers.normal(0.3))
    other = quality.randomize_parameters(network, jax.random.key(1), layers=["layers[1]"])
    assert (other.layers[0].kernel == network.layers[0].kernel).all()
    assert (other.layers[0].bias == network.layers[0].bias).all()
    for name in ("kernel", "bias"):
        before, after = getattr(network.layers[1], name), getattr(other.layers[1], name)
        assert (before != after).all()
        np.testing.assert_allclose(after.std(), before.std(), rtol=0.2)
        assert abs(np.corrcoef(np.ravel(before), np.ravel(after))[0, 1]) < 0.25


def test_constants_stay():
    network = jaxnn.init(KEY, (6, 3))
    other = quality.randomize_parameters(network, KEY)
    assert (other.layers[0].bias == 0).all()
    one = jax.tree_util.Partial(lambda scale, w, x: scale * (w @ x), jnp.array(2.0), jnp.arange(3.0))
    drawn = quality.randomize_parameters(one, KEY)
    assert float(drawn.args[0]) == 2
    assert (drawn.args[1] != jnp.arange(3.0)).all()


def test_an_initializer_draws_the_matrices():
    other = quality.randomize_parameters(NETWORK, KEY, initializer=jax.nn.initializers.constant(0.5))
    for layer, before in zip(other.layers, NETWORK.layers, strict=True):
        assert (layer.kernel == 0.5).all()
        assert (layer.bias != before.bias).all()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("cascading", [(2,), (1, 2), (0, 1, 2)]),
        ("bottom_up", [(0,), (0, 1), (0, 1, 2)]),
        ("independent", [(0,), (1,), (2,)]),
    ],
)
def test_orders(order, expected):
    steps = order_of_layers(NETWORK, jnp.ones(6), order)
    drawn = [tuple(sorted({i // 2 for i, is_drawn in enumerate(step) if is_drawn})) for step in steps]
    assert drawn == expected


def test_parameter_randomization_equals_a_loop():
    import scipy.stats

    x = np.random.default_rng(0).uniform(size=(5, 6)).astype(np.float32)
    y, key = np.array([0, 1, 2, 0, 1]), jax.random.key(4)
    found = quality.parameter_randomization(NETWORK, x, y, attribution.saliency, key=key, n_seeds=2)
    layers = quality.parameter_layers(NETWORK, x[0])[::-1]
    for step in range(3):
        for seed in range(2):
            drawn = quality.randomize_parameters(
                NETWORK, jax.random.fold_in(key, seed), layers=layers[: step + 1]
            )
            for i in range(5):
                maps = [np.abs(attribution.saliency(each, x[i], y[i])) for each in (NETWORK, drawn)]
                expected = scipy.stats.spearmanr(*maps)[0]
                np.testing.assert_allclose(found.rank_correlation[step, seed, i], expected, atol=1e-5)
    for i in range(5):
        maps = [np.abs(attribution.saliency(NETWORK, x[j], y[j])) for j in (i, (i + 1) % 5)]
        np.testing.assert_allclose(found.yardstick[i], scipy.stats.spearmanr(*maps)[0], atol=1e-5)


def test_elements_that_are_zero_for_every_network_are_left_out_unless_asked_for():
    """Input x gradient of an image with a black half: the black half agrees for all networks."""
    x = np.random.default_rng(0).uniform(0.5, 1, (12, 100)) * (np.arange(100) < 50)
    network = jaxnn.init(jax.random.key(0), (100, 30, 3), activation="tanh")
    options = {"key": KEY, "n_seeds": 1}
    of = network, x, np.arange(12) % 3, attribution.input_x_gradient
    found = quality.parameter_randomization(*of, **options).rank_correlation[-1]
    plain = quality.parameter_randomization(*of, ignore_zeros=False, **options).rank_correlation[-1]
    assert abs(found.mean()) < 0.1
    assert plain.mean() > 0.7


def test_one_compilation_serves_all_steps_and_seeds(caplog):
    x, y = np.ones((4, 6), np.float32) * np.arange(1, 5)[:, None], np.array([0, 1, 2, 0])
    options = {"key": KEY, "n_seeds": 4}
    quality.parameter_randomization(NETWORK, x, y, attribution.saliency, **options)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        other = quality.randomize_parameters(NETWORK, jax.random.key(9))
        caplog.clear()
        quality.parameter_randomization(other, x, y, attribution.saliency, **options)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


@pytest.mark.long
def test_the_result_does_not_depend_on_how_many_are_explained_at_once():
    x, y = np.random.default_rng(0).uniform(size=(7, 6)).astype(np.float32), np.arange(7) % 3
    found = [
        quality.parameter_randomization(
            NETWORK, x, y, attribution.saliency, key=KEY, batch_size=size
        ).rank_correlation
        for size in (1, 3, 64)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


def test_random_logit_never_draws_the_label():
    from jaxnn.quality._sanity import other_class

    drawn = jax.vmap(lambda i: other_class(jax.random.fold_in(KEY, i), jnp.array(2), 4))(jnp.arange(300))
    counts = np.bincount(drawn, minlength=4)
    assert counts[2] == 0
    assert (counts[[0, 1, 3]] > 70).all()


def test_smoothed_is_a_mean_over_noisy_copies():
    from jaxnn.quality._stability import changed

    x = jnp.array([0.0, 0.3, 0.8, 2.0])
    model = lambda x: jnp.sum(x**3)  # noqa: E731
    smooth = quality.smoothed(attribution.saliency, key=KEY, n_samples=7, noise=0.2, batch_size=3)
    copies = [changed(jax.random.fold_in(KEY, i), x, "normal", 0.4) for i in range(7)]
    expected = np.mean([3 * np.asarray(copy) ** 2 for copy in copies], 0)
    np.testing.assert_allclose(smooth(model, x, None), expected, rtol=1e-5)
    again = quality.smoothed(attribution.saliency, key=KEY, n_samples=7, noise=0.2, batch_size=3)
    assert jax.tree.structure(smooth) == jax.tree.structure(again)  # and so it does not compile again


def test_efficient_randomization_equals_numpy():
    import scipy.stats

    network = jaxnn.init(KEY, (200, 5, 3))
    x, key = np.random.default_rng(0).uniform(size=200).astype(np.float32), KEY
    drawn = quality.randomize_parameters(network, key)
    h = [
        scipy.stats.entropy(np.histogram(attribution.saliency(each, x, 1), 20)[0])
        for each in (network, drawn)
    ]
    found = quality.efficient_parameter_randomization(network, x, 1, attribution.saliency, key=key, n_bins=20)
    np.testing.assert_allclose(found, (h[1] - h[0]) / h[0], rtol=1e-4, atol=1e-5)


def test_mege_and_reco_equal_a_loop():
    import scipy.stats

    models = jax.vmap(lambda key: jaxnn.init(key, (6, 8, 3)))(jax.random.split(jax.random.key(8), 3))
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], models) for i in range(3)]
    x = np.random.default_rng(0).uniform(size=(24, 6)).astype(np.float32)
    labels = np.where(np.arange(24) % 4, np.argmax(jax.vmap(each[0])(x), -1), np.arange(24) % 3)
    parts = np.arange(24) % 3
    same, other = [], []
    for i in range(24):
        own = each[parts[i]]
        for j in set(range(3)) - {parts[i]}:
            maps = [attribution.saliency(m, x[i], labels[i]) for m in (own, each[j])]
            right = [int(jnp.argmax(m(x[i]))) == labels[i] for m in (own, each[j])]
            distance = 1 - abs(scipy.stats.spearmanr(*maps)[0])
            (same if all(right) else other if any(right) else []).append(distance)
    assert len(same) > 1
    assert len(other) > 1
    args = models, x, labels, parts, attribution.saliency
    np.testing.assert_allclose(quality.mege(*args), 1 / (1 + np.mean(same)), rtol=1e-5)
    best = max(np.mean(np.array(same) <= t) + np.mean(np.array(other) > t) - 1 for t in [*same, *other])
    np.testing.assert_allclose(quality.reco(*args), max(best, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quality.randomize_parameters(NETWORK, KEY, layers=["hidden"]), "`layers` must hold names"),
        (lambda: quality.randomize_parameters(NETWORK, KEY, layers="layers[0]"), "`layers` must be a seq"),
        (lambda: quality.randomize_parameters(NETWORK, KEY, initializer=3), "`initializer`"),
        (lambda: quality.randomize_parameters(NETWORK, 0), "`key`"),
        (
            lambda: quality.parameter_randomization(
                NETWORK, np.ones((2, 6)), np.array([0, 3]), attribution.saliency, key=KEY
            ),
            "`targets` must lie",
        ),
        (
            lambda: quality.parameter_randomization(
                NETWORK, np.ones((1, 6)), np.array([0]), attribution.saliency, key=KEY
            ),
            "`inputs`",
        ),
        (
            lambda: quality.random_logit(lambda x: x[:1], np.ones(3), 0, attribution.saliency, key=KEY),
            "n at least 2",
        ),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
