"""The experiments that train many networks at once: small_networks, initialization, many_minds."""

import itertools
import json

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from PIL import Image

import jaxnn
from experiments import initialization, many_minds, small_networks
from experiments._common import networks as networks_of_digits
from experiments._common.digits import load_digits
from experiments._common.networks import FAN_IN_NORMAL, train_sigmoids
from tests.experiments.test_main import run
from tests.test_weights import roughness_in_numpy

pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def digits():
    return load_digits("digits")


def metrics_of(folder, *pictures):
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 20
    return json.loads((folder / "metrics.json").read_text())


def alone(digits, seed, count, **options):
    """The networks of `train_many`, one after another."""
    keys = jax.random.split(jax.random.key(seed), count)
    return [train_sigmoids(key, digits, progress=False, **options) for key in keys]


def predictions_in_numpy(network, inputs):
    value = np.asarray(inputs, np.float64)
    for layer in network.layers:
        signal = value @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias, np.float64)
        value = 1 / (1 + np.exp(-signal))
    return value.argmax(axis=1)


def accuracies_in_numpy(networks, digits):
    return [np.mean(predictions_in_numpy(n, digits.test_inputs) == digits.test_labels) for n in networks]


# --- small_networks


@pytest.mark.long
def test_small_networks_shows_the_accuracy_of_every_seed(digits, tmp_path):
    options = ("--sizes", 10, 2, "--seeds", 3, "--epochs", 4, "--seed", 5, "--output", tmp_path)
    done = run("experiments.small_networks", "--data", "digits", *options)
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path, "accuracy.png")
    assert list(metrics["accuracies"]) == ["2", "10"]
    optimizer = optax.sgd(optax.cosine_decay_schedule(2.0, 4 * -(-len(digits.inputs) // 10)))
    one = 1.5 / len(
        digits.test_labels
    )  # rounding may change the prediction of an image at the decision boundary
    for size, found in metrics["accuracies"].items():
        networks = alone(digits, 5, 3, hidden=(int(size),), epochs=4, optimizer=optimizer)
        np.testing.assert_allclose(found, accuracies_in_numpy(networks, digits), atol=one)
    assert np.median(metrics["accuracies"]["10"]) > np.median(metrics["accuracies"]["2"]) + 0.1
    (table,) = metrics["tables"]
    for row in table["rows"]:
        values = np.array(metrics["accuracies"][row[0]])
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        assert row[2:4] == [f"{100 * values.min():.1f}", f"{100 * middle:.1f}"]
        assert row[4] == f"{100 * low:.1f} to {100 * high:.1f}"
        assert row[5] == f"{100 * values.max():.1f}"
    assert [row[1] for row in table["rows"]] == ["148", "740"]
    assert [row[6] for row in table["rows"]] == ["", ""]  # those are of MNIST


def test_small_networks_stand_beside_the_published_ones():
    found = {2: np.array([0.2, 0.3]), 7: np.array([0.8, 0.9]), 10: np.array([0.9, 0.9])}
    table = small_networks.table_of(found, small_networks.PUBLISHED, 784, 10, "")
    assert table.columns[6].header == "published (MNIST)"
    assert list(table.columns[6].cells) == ["22.80", "", "93.43"]
    for published, drawn in ((small_networks.PUBLISHED, [[(2, 22.8), (10, 93.43)]]), ({}, [])):
        figure = small_networks.figure_of(found, published, "Title")
        lines = [line for line in figure.axes[0].lines if line.get_label() == "published (MNIST)"]
        assert [list(map(tuple, line.get_xydata())) for line in lines] == drawn
        plt.close(figure)


# --- initialization


@pytest.mark.long
def test_initialization_compares_four_kinds(digits, tmp_path):
    options = ("--hidden", 6, "--seeds", 2, "--epochs", 3, "--decay", 1e-3, "--output", tmp_path)
    done = run("experiments.initialization", "--data", "digits", *options)
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path, "weights.png", "weights_rescaled.png", "numbers.png")
    mask = jaxnn.Network(tuple(jaxnn.Dense(True, False, "sigmoid") for _ in range(2)))
    decaying = optax.chain(optax.add_decayed_weights(1e-3, mask=mask), optax.sgd(3.0))
    unscaled = jax.nn.initializers.normal(1.0)
    one = 1.5 / len(digits.test_labels)
    for name, kernel_init, optimizer in (
        ("unscaled, no decay", unscaled, optax.sgd(3.0)),
        ("scaled, decay", FAN_IN_NORMAL, decaying),
    ):
        found = metrics[name]
        networks = alone(
            digits, 0, 2, hidden=(6,), epochs=3, kernel_init=kernel_init, optimizer=optimizer
        )  # fmt: skip
        np.testing.assert_allclose(found["test_accuracy"], accuracies_in_numpy(networks, digits), atol=one)
        rough = [
            [roughness_in_numpy(column.reshape(8, 8)) for column in np.asarray(n.layers[0].kernel).T]
            for n in networks
        ]
        np.testing.assert_allclose(found["roughness"], rough, atol=0.02)
    medians = {
        name: np.median(metrics[name]["roughness"]) for name in ("unscaled, no decay", "scaled, decay")
    }
    assert medians["unscaled, no decay"] > 0.8  # still the noise it started from
    assert medians["scaled, decay"] < 0.75 * medians["unscaled, no decay"]
    assert len(metrics["tables"][0]["rows"]) == 4


@pytest.mark.parametrize(
    ("hidden", "text"), [(30, "of the hidden units"), (31, "of the first 30 hidden units")]
)
def test_the_title_tells_when_not_all_units_are_shown(hidden, text):
    kind = initialization.Kind(*np.ones((2, 1)), np.ones((1, hidden, 2, 2)), np.ones((1, hidden)))
    found = {initialization.WORST: kind, initialization.BEST: kind}
    figure = initialization.figure_of_weights(found, own_scale=True)
    assert text in figure.get_suptitle()
    plt.close(figure)


def test_decay_pulls_the_weights_but_no_bias():
    network = jaxnn.init(jax.random.key(0), (3, 2, 2), bias_init=jax.nn.initializers.ones)
    optimizer = optax.add_decayed_weights(0.5, mask=initialization.is_kernel)
    zero = jax.tree.map(jnp.zeros_like, network)
    pulls, _ = optimizer.update(zero, optimizer.init(network), network)
    for pull, layer in zip(pulls.layers, network.layers, strict=True):
        np.testing.assert_allclose(pull.kernel, 0.5 * layer.kernel)
        np.testing.assert_array_equal(pull.bias, 0.0)


# --- many_minds


@pytest.mark.long
def test_many_minds_compares_the_networks_pair_by_pair(digits, tmp_path):
    options = ("--digit", 3, "--networks", 3, "--hidden", 8, 7, "--epochs", 3, "--output", tmp_path)
    done = run("experiments.many_minds", "--data", "digits", *options)
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path, "pictures.png", "agreement.png")
    optimizer = optax.sgd(optax.cosine_decay_schedule(3.0, 3 * -(-len(digits.inputs) // 10)))
    networks = alone(digits, 0, 3, hidden=(8, 7), epochs=3, optimizer=optimizer)
    predictions = [predictions_in_numpy(n, digits.test_inputs) for n in networks]
    one = 2.5 / len(digits.test_labels)
    np.testing.assert_allclose(metrics["accuracies"], accuracies_in_numpy(networks, digits), atol=one)
    agreeing = [np.mean(a == b) for a, b in itertools.combinations(predictions, 2)]
    np.testing.assert_allclose(metrics["agreement"], agreeing, atol=one)
    products = [np.linalg.multi_dot([np.asarray(la.kernel) for la in n.layers])[:, 3] for n in networks]
    expected = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(products, 2)]
    np.testing.assert_allclose(metrics["correlations"]["path products"], expected, atol=1e-3)
    target = jaxnn.datasets.encode_labels(3)
    back = [np.asarray(jaxnn.backquery(n, target)) for n in networks]
    expected = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(back, 2)]
    np.testing.assert_allclose(metrics["correlations"]["transposed weights"], expected, atol=1e-3)
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    dreams = many_minds.dreams_of(stack, 3, digits)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(dreams, 2)]
    np.testing.assert_allclose(metrics["correlations"]["dream"], expected, atol=1e-2)
    of_pictures, of_agreement = metrics["tables"]
    assert [row[0] for row in of_pictures["rows"]] == list(many_minds.KINDS)
    assert len(of_agreement["rows"]) == 11


@pytest.mark.long
def test_a_dream_of_a_digit_has_a_larger_output_than_a_dream_of_another(digits):
    optimizer = optax.sgd(3.0)
    stack = networks_of_digits.train_many(3, 0, digits, hidden=(20,), epochs=15, optimizer=optimizer)
    dreams, others = (many_minds.dreams_of(stack, digit, digits) for digit in (3, 7))
    assert dreams.shape == (3, 64)
    for i in range(3):
        network = jax.tree.map(lambda leaf, i=i: leaf[i], stack)
        assert network(dreams[i])[3] > 2 * network(others[i])[3]
        alone = many_minds.dreams_of(jax.tree.map(lambda leaf: leaf[None], network), 3, digits)
        np.testing.assert_allclose(alone[0], dreams[i], atol=5e-3)


def test_agreement_and_majority_of_known_predictions():
    predictions = np.array([[1, 2, 3, 4], [1, 2, 3, 5], [0, 2, 9, 5]])
    assert many_minds.agreement(predictions).tolist() == [0.75, 0.25, 0.5]  # of 0 and 1, 0 and 2, 1 and 2
    assert many_minds.majority(predictions).tolist() == [1, 2, 3, 5]
    assert many_minds.majority(np.array([[7], [4]])).tolist() == [4]
    table = many_minds.table_of_agreement(predictions, np.array([1, 2, 3, 5]), 2, "")
    numbers = [float(cell) for cell in table.columns[1].cells]
    # All agree on the second image only, and correctly: it is the only 2.
    assert numbers[:4] == pytest.approx([75.0, 50.0, 100.0, 100.0])
    assert numbers[4:] == pytest.approx([50.0, 100 * (0.75**2 + 0.25**2 / 9), 25, 75, 25, 25, 100], abs=0.05)


def test_correlations_are_of_pairs():
    images = np.random.default_rng(0).normal(size=(4, 30))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(images, 2)]
    np.testing.assert_allclose(many_minds.correlations(images), expected)


@pytest.mark.parametrize("fractions", [[0.5], [0.901, 0.95, 0.999], [0.0, 1.0]])
def test_bins_cover_every_fraction_and_as_many_images_each(fractions):
    fractions = np.array(fractions)
    bins = many_minds.bins_of(fractions, 1000)
    assert np.histogram(100 * fractions, bins)[0].sum() == len(fractions)
    widths = np.diff(bins) * 10  # in images
    np.testing.assert_allclose(widths, np.round(widths[0]))
    assert len(bins) < 30


# --- common helpers


def test_the_rate_falls_to_0_with_the_last_step(digits):
    optimizer = networks_of_digits.falling_sgd(2.0, 1, digits)
    state, ones = optimizer.init(jnp.ones(())), jnp.ones(())
    steps = -(-len(digits.inputs) // 10)
    rates = []
    for _ in range(steps):
        update, state = optimizer.update(ones, state)
        rates.append(-float(update))
    np.testing.assert_allclose(rates, 1 + np.cos(np.pi * np.arange(steps) / steps), atol=1e-5)


@pytest.mark.long
def test_predictions_are_those_of_each_network(digits):
    networks = [jaxnn.init(jax.random.key(i), (64, 5, 10)) for i in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    predictions = networks_of_digits.predictions_of(stack, digits.test_inputs[:50])
    for prediction, network in zip(predictions, networks, strict=True):
        np.testing.assert_array_equal(prediction, predictions_in_numpy(network, digits.test_inputs[:50]))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (small_networks, {"sizes": (3, 0)}, "`sizes` must be at least 1; got 0"),
        (small_networks, {"sizes": ()}, "`sizes` must be at least 1; got 0"),
        (small_networks, {"seeds": 0}, "`seeds` must be at least 1; got 0"),
        (small_networks, {"epochs": 0}, "`epochs` must be at least 1; got 0"),
        (small_networks, {"rate": float("nan")}, "`rate` must be above 0, and finite; got nan"),
        (initialization, {"seed": 2**32}, "`seed` must lie from 0 to 4294967295; got 4294967296"),
        (many_minds, {"seed": -1}, "`seed` must lie from 0 to 4294967295; got -1"),
        (initialization, {"hidden": 0}, "`hidden` must be at least 1; got 0"),
        (initialization, {"seeds": -1}, "`seeds` must be at least 1; got -1"),
        (initialization, {"rate": -1.0}, "`rate` must be above 0, and finite; got -1.0"),
        (initialization, {"decay": 0.0}, "`decay` must be above 0, and finite; got 0.0"),
        (many_minds, {"digit": 10}, "`digit` must be from 0 to 9; got 10"),
        (many_minds, {"networks": 1}, "`networks` must be at least 2; got 1"),
        (many_minds, {"hidden": (5, 0)}, "`hidden` must be at least 1; got 0"),
        (many_minds, {"rate": float("inf")}, "`rate` must be above 0, and finite; got inf"),
    ],
)
def test_a_bad_option_is_named_before_any_training(module, options, message, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the data were loaded first")

    monkeypatch.setattr(module, "load_digits", never)
    with pytest.raises(ValueError, match=message):
        module.main(**options, output=tmp_path)


@pytest.mark.long
def test_an_unknown_data_set_is_named():
    done = run("experiments.many_minds", "--data", "cats")
    assert done.returncode != 0
    assert "--data" in done.stderr
