"""The experiments on weights: their numbers, computed again in NumPy, and their pictures."""

import itertools
import json
import re
from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import jaxnn
from tests.experiments.test_main import MNIST, run
from tests.plot.test_images import extents_inside

matplotlib.use("Agg")

from experiments import hidden_layer, lego_blocks, two_digits, two_hidden_layers
from experiments._common.digits import load_digits
from experiments._common.figures import color_limits, near_square, signed
from experiments._common.networks import accuracy, train_sigmoids
from experiments.two_digits import only

pytestmark = pytest.mark.optimized

SCRIPTS = (lego_blocks, hidden_layer, two_digits, two_hidden_layers)


def results(tmp_path: Path, name: str, *options, pictures: tuple[str, ...], **environment):
    """The metrics of a run, whose pictures are there and not blank."""
    done = run(f"experiments.{name}", *options, "--output", tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert sorted(metrics["pictures"]) == sorted(f"{picture}.png" for picture in pictures)
    for picture in metrics["pictures"]:
        with Image.open(tmp_path / picture) as image:
            assert min(image.size) > 200
            assert np.asarray(image.convert("L")).std() > 15
    return metrics


def kernels_and_biases(*hidden: int, epochs: int, seed: int):
    """The network that a script trains on the digits, as NumPy arrays."""
    digits = load_digits("digits")
    network = train_sigmoids(jax.random.key(seed), digits, hidden=hidden, epochs=epochs, progress=False)
    parameters = [
        (np.asarray(layer.kernel, float), np.asarray(layer.bias, float)) for layer in network.layers
    ]
    return digits, parameters


def sigmoid(signal):
    return 1 / (1 + np.exp(-signal))


@pytest.mark.long
def test_lego_blocks_lists_the_largest_and_the_smallest_weights(tmp_path):
    options = ("--data", "digits", "--epochs", 2, "--hidden", 12, "--seed", 3)
    metrics = results(tmp_path, "lego_blocks", *options, pictures=("hidden_units", "outputs", "features"))
    _, (_, (kernel, _)) = kernels_and_biases(12, epochs=2, seed=3)
    order = np.argsort(kernel, axis=0, kind="stable")
    assert metrics["liked"] == order[::-1][:3].T.tolist()
    assert metrics["disliked"] == order[:3].T.tolist()
    ranked = np.sort(kernel, axis=0)
    np.testing.assert_allclose(metrics["liked_weights"], ranked[::-1][:3].T, atol=1e-4)
    np.testing.assert_allclose(metrics["disliked_weights"], ranked[:3].T, atol=1e-4)
    # The tables have the same numbers.
    features, shared = metrics["tables"]
    for digit, row in enumerate(features["rows"]):
        assert row[0] == str(digit)
        assert [int(part.split()[0]) for part in row[1].split(", ")] == metrics["liked"][digit]
        assert [int(part.split()[0]) for part in row[2].split(", ")] == metrics["disliked"][digit]
    lists = [set(a) | set(b) for a, b in zip(metrics["liked"], metrics["disliked"], strict=True)]
    times = [sum(unit in one for one in lists) for unit in range(12)]
    expected = [sum(n == 0 for n in times), sum(n == 1 for n in times), sum(n > 1 for n in times)]
    assert [int(row[1]) for row in shared["rows"][:3]] == expected


@pytest.mark.long
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"the four MNIST files are not in {MNIST}")
def test_lego_blocks_on_all_of_mnist_reaches_95_percent(tmp_path):
    options = ("--data", "mnist", "--epochs", 10, "--seed", 1)  # the default of 30 takes three times as long
    pictures = ("hidden_units", "outputs", "features")
    metrics = results(tmp_path, "lego_blocks", *options, pictures=pictures, JAXNN_DATA=str(MNIST))
    assert metrics["settings"]["sizes"] == [784, 30, 10]
    assert metrics["test_accuracy"] >= 0.95


@pytest.mark.long
def test_hidden_layer_adds_up_to_the_signal_of_the_prediction(tmp_path):
    options = ("--data", "digits", "--epochs", 2, "--hidden", 20, "--index", 7, "--top", 3)
    metrics = results(tmp_path, "hidden_layer", *options, pictures=("layers", "units"))
    digits, ((first, bias), (last, out_bias)) = kernels_and_biases(20, epochs=2, seed=0)
    x = np.asarray(digits.test_inputs[7], float)
    activations = sigmoid(x @ first + bias)
    signals = activations @ last + out_bias
    prediction = int(signals.argmax())
    assert metrics["prediction"] == prediction
    assert metrics["label"] == digits.test_labels[7]
    np.testing.assert_allclose(metrics["activations"], activations, atol=1e-4)
    np.testing.assert_allclose(metrics["outputs"], sigmoid(signals), atol=1e-4)
    contributions = activations * last[:, prediction]
    np.testing.assert_allclose(metrics["contributions"], contributions, atol=1e-4)
    assert metrics["units"] == np.argsort(-contributions)[:3].tolist()
    assert metrics["signal"] == pytest.approx(signals[prediction], abs=1e-3)
    # The rows of the table, rounded, add up to its last one.
    (table,) = metrics["tables"]
    *parts, total = [float(row[-1].replace("\u2212", "-")) for row in table["rows"]]
    assert len(parts) == 3 + 3
    assert total == pytest.approx(signals[prediction], abs=0.006)
    assert sum(parts) == pytest.approx(total, abs=0.04)


@pytest.mark.long
def test_one_unit_distinguishes_0_from_1(tmp_path):
    metrics = results(tmp_path, "two_digits", pictures=("unit", "signals"))
    assert metrics["settings"]["sizes"] == [784, 1, 2]
    assert metrics["test_accuracy"] > 0.99
    test = jaxnn.datasets.load("mnist-5k").test
    weights = np.asarray(metrics["weights"], float)
    signals = []
    for digit in (0, 1):
        inputs = np.asarray(jaxnn.datasets.encode_images(test.images[test.labels == digit]), float)
        signals.append(inputs @ weights)
    # The signals are the input times the weights, and one bias for all.
    offsets = np.concatenate(metrics["signals"]) - np.concatenate(signals)
    np.testing.assert_allclose(offsets, offsets[0], atol=1e-3)
    assert abs(np.median(signals[1]) - np.median(signals[0])) > 5
    assert [int(row[2]) for row in metrics["tables"][0]["rows"]] == metrics["correct"]
    assert sum(metrics["correct"]) == round(metrics["test_accuracy"] * 200)


@pytest.mark.long
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"the four MNIST files are not in {MNIST}")
def test_one_unit_tells_0_from_1_on_all_of_mnist(tmp_path):
    options, pictures = ("--data", "mnist"), ("unit", "signals")
    metrics = results(tmp_path, "two_digits", *options, pictures=pictures, JAXNN_DATA=str(MNIST))
    assert metrics["test_accuracy"] > 0.99
    assert [len(signals) for signals in metrics["signals"]] == [980, 1135]


def test_two_digits_keeps_the_images_of_two_digits():
    digits = load_digits("digits")
    pair = only(digits, (8, 3))
    assert sorted({8: 0, 3: 1}.values()) == sorted(set(pair.labels.tolist()))
    for labels, all_labels in ((pair.labels, digits.labels), (pair.test_labels, digits.test_labels)):
        assert [np.sum(labels == k) for k in (0, 1)] == [np.sum(all_labels == d) for d in (8, 3)]
    first = int(np.flatnonzero((digits.labels == 3) | (digits.labels == 8))[0])
    np.testing.assert_array_equal(pair.inputs[0], digits.inputs[first])
    assert pair.labels[0] == (digits.labels[first] == 3)
    np.testing.assert_allclose(pair.targets[0], [0.01, 0.99] if pair.labels[0] else [0.99, 0.01])


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_one_unit_does_so_on_other_seeds(seed):
    digits = only(load_digits("mnist-5k"), (0, 1))
    network = train_sigmoids(jax.random.key(seed), digits, hidden=(1,), epochs=10, progress=False)
    assert accuracy(network, digits.test_inputs, digits.test_labels) > 0.99


@pytest.mark.long
def test_two_hidden_layers_measures_windows_and_gaps(tmp_path):
    options = ("--data", "digits", "--epochs", 2, "--hidden", 6, 5)
    pictures = ("first_layer", "second_layer", "activity")
    metrics = results(tmp_path, "two_hidden_layers", *options, pictures=pictures)
    digits, ((first, bias), (second, second_bias), _) = kernels_and_biases(6, 5, epochs=2, seed=0)
    labels = digits.test_labels
    hidden = sigmoid(np.asarray(digits.test_inputs, float) @ first + bias)
    activations = (hidden, sigmoid(hidden @ second + second_bias))
    images = (first.T.reshape(-1, 8, 8), (first @ second).T.reshape(-1, 8, 8))
    for layer, mean, values, pictures in zip(
        metrics["layers"].values(), metrics["means"], activations, images, strict=True
    ):
        expected = [[values[labels == d, unit].mean() for d in range(10)] for unit in range(values.shape[1])]
        np.testing.assert_allclose(mean, expected, atol=1e-4)
        fractions = [
            max((i[r : r + 3, c : c + 3] ** 2).sum() for r in range(6) for c in range(6)) / (i**2).sum()
            for i in pictures
        ]
        np.testing.assert_allclose(layer["window"], fractions, atol=1e-4)
        gaps = np.mean([np.array(expected)[:, d] for d in (0, 6, 8, 9)], axis=0)
        gaps = gaps - np.mean([np.array(expected)[:, d] for d in (1, 2, 3, 5, 7)], axis=0)
        np.testing.assert_allclose(layer["gap"], gaps, atol=1e-4)
        assert layer["best"] == pytest.approx(np.abs(gaps).max(), abs=1e-4)


def test_likes_are_drawn_at_the_left_and_dislikes_at_the_right():
    digits, kernel = np.arange(10)[:, None], np.random.default_rng(0).normal(size=(10, 6))
    top = jaxnn.weights.TopFeatures(
        (digits + np.arange(3)) % 20, (digits + np.arange(9, 6, -1)) % 20, kernel[:, :3], kernel[:, 3:]
    )
    images = np.random.default_rng(1).uniform(-1, 1, (20, 3, 3))
    figure = lego_blocks.figure_of_features(images, top)
    left, right = figure.subfigs
    assert [half.get_suptitle() for half in (left, right)] == ["likes", "dislikes"]
    for half, units, onto in zip((left, right), top[:2], top[2:], strict=True):
        axes = half.axes[:30]
        assert [ax.get_title() for ax in axes] == [
            f"{u}: {signed(w, 1)}" for u, w in zip(units.ravel(), onto.ravel(), strict=True)
        ]
        for ax, unit in zip(axes, units.ravel(), strict=True):
            np.testing.assert_allclose(ax.images[0].get_array(), images[unit], atol=1e-6)
    assert [ax.get_ylabel() for ax in left.axes[:30:3]] == [f"digit {d}" for d in range(10)]
    plt.close(figure)


def test_the_activity_stands_over_its_digit():
    means = [np.random.default_rng(i).uniform(size=(n, 10)) for i, n in enumerate((4, 3))]
    figure = two_hidden_layers.figure_of_activity(means)
    for ax, mean, layer in zip(figure.axes, means, ("first layer", "second layer"), strict=False):
        order = [int(label.get_text()) for label in ax.get_xticklabels()]
        assert sorted(order) == list(range(10))
        assert sorted(order[:4]) == [0, 6, 8, 9]
        assert order[4] == 4
        np.testing.assert_allclose(ax.images[0].get_array(), mean[:, order], atol=1e-6)
        assert ax.get_title() == layer
    plt.close(figure)


def test_a_loop_detector_would_be_found():
    mean = np.full((3, 10), 0.5)
    mean[1] = [d in (0, 6, 8, 9) for d in range(10)]
    found = two_hidden_layers.loops(mean)
    assert found["best"] == pytest.approx(1)
    assert found["rank"] == 1
    assert found["median_group"] < 0.5
    mean[1] = 1 - mean[1]  # inactive for loops distinguishes them as well
    assert two_hidden_layers.loops(mean)["rank"] == 1
    mean[1] = [d in (1, 2, 3, 7) for d in range(10)]
    assert two_hidden_layers.loops(mean)["rank"] > 1


def test_an_edge_detector_would_be_found():
    images = np.zeros((2, 28, 28))
    images[0, 3:12, 10:19] = 1.0  # all within one window
    images[1] = -2.0  # everywhere
    np.testing.assert_allclose(two_hidden_layers.in_window(images), [1.0, 81 / 784])


def test_the_groups_are_all_fours_without_the_4():
    assert len(two_hidden_layers.GROUPS) == len(set(two_hidden_layers.GROUPS)) == 126
    assert two_hidden_layers.LOOPS in two_hidden_layers.GROUPS
    assert 4 not in set(itertools.chain(*two_hidden_layers.GROUPS))


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (lego_blocks, {"hidden": 5}, "`hidden` must lie from 6 to 1000; got 5"),
        (hidden_layer, {"index": 360}, "`index` must lie from 0 to 359; got 360"),
        (hidden_layer, {"index": -1}, "`index` must lie from 0 to 359; got -1"),
        (hidden_layer, {"top": 11}, "`top` must lie from 1 to 10; got 11"),
        (hidden_layer, {"top": 4, "hidden": 3}, "`top` must lie from 1 to 3; got 4"),
        (hidden_layer, {"hidden": 0}, "`hidden` must lie from 1 to 1000; got 0"),
        (two_digits, {"pair": (0, 0)}, "`pair` must be two digits; got (0, 0)"),
        (two_digits, {"pair": (0, 10)}, "`pair` must lie from 0 to 9; got 10"),
        (two_hidden_layers, {"hidden": (16, 0)}, "`hidden` must lie from 1 to 100; got 0"),
        *((script, {"epochs": 0}, "`epochs` must be at least 1; got 0") for script in SCRIPTS),
    ],
)
def test_wrong_options_are_named_before_training(tmp_path, monkeypatch, script, options, message):
    def step(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr("jaxnn._training.train.advance", step)
    with pytest.raises(ValueError, match=re.escape(message)):
        script.main(data="digits", output=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_near_square_and_signed():
    assert [near_square(n) for n in (1, 3, 16, 30, 100)] == [(1, 1), (1, 3), (4, 4), (5, 6), (10, 10)]
    for n in range(1, 1001):
        rows, columns = near_square(n)
        assert n <= rows * columns < n + columns  # no row is empty
        assert rows <= columns <= max(3 * rows, 1)
    assert [signed(0.126), signed(-2.0, 1)] == ["+0.13", "\u22122.0"]


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("size", [7, 9])
def test_a_layer_that_fills_no_rectangle_has_hatched_places(size):
    rng = np.random.default_rng(0)
    activations, outputs = rng.uniform(size=size), rng.uniform(size=10)
    figure = hidden_layer.figure_of_layers(rng.uniform(size=(4, 4)), activations, outputs, 3, "Title")
    ax = figure.axes[1]
    np.testing.assert_allclose(ax.images[0].get_array().ravel()[:size], activations, atol=1e-6)
    assert [patch.get_xy() for patch in ax.patches] == ([] if size == 9 else [(0.5, 1.5), (1.5, 1.5)])
    assert ("hatched" in ax.get_title()) == (size == 7)
    network = jaxnn.init(jax.random.key(0), (16, size, 10))
    figure = lego_blocks.figure_of_outputs(network)
    for digit, ax in enumerate(figure.axes[:10]):
        drawn = ax.images[0].get_array().ravel()
        np.testing.assert_allclose(drawn[:size], network.layers[1].kernel[:, digit], atol=1e-6)
        assert len(ax.patches) == 9 - size
    plt.close("all")


@pytest.mark.long
def test_the_title_of_one_unit_is_not_cut_off():
    network = jaxnn.init(jax.random.key(0), (16, 3, 10))
    extents_inside(hidden_layer.figure_of_units(network, np.ones(16), np.array([1]), 4, (4, 4)))
    plt.close("all")


@pytest.mark.long
def test_only_units_with_positive_contributions_are_shown(tmp_path):
    contributions = np.array([-1.0, 0.5, 0.0, 2.0, -3.0])
    assert hidden_layer.largest_positive(contributions, 1).tolist() == [3]
    assert hidden_layer.largest_positive(contributions, 4).tolist() == [3, 1]
    assert hidden_layer.largest_positive(-np.ones(3), 2).tolist() == []
    hidden_layer.main(data="digits", hidden=3, top=3, epochs=1, output=tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["units"] == [
        u for u in np.argsort(found["contributions"])[::-1] if found["contributions"][u] > 0
    ]


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("sizes", [(100, 2), (1, 1), (16, 16)])
def test_the_activity_of_layers_of_any_size_is_readable(sizes):
    figure = two_hidden_layers.figure_of_activity([np.full((n, 10), 0.5) for n in sizes])
    extents_inside(figure)
    for ax, n in zip(figure.axes, sizes, strict=False):
        labels = [label.get_window_extent() for label in ax.get_yticklabels()]
        assert all(low.y1 <= high.y0 for high, low in itertools.pairwise(labels))
        assert ax.get_ylim() == (n - 0.5, -0.5)
    plt.close(figure)


def test_the_table_reports_the_window():
    assert two_hidden_layers.window_fraction((28, 28)) == 81 / 784
    assert two_hidden_layers.window_fraction((8, 8)) == 9 / 64
    mean = np.full((3, 10), 0.5)
    found = {"first layer": {"window": [0.2], **two_hidden_layers.loops(mean)}}
    assert "best 14% of" in two_hidden_layers.table_of_layers(found, 0.1, 9 / 64, "").columns[1].header


def test_color_limits_leave_out_the_few_largest_weights():
    images = np.ones((10, 10, 10))
    images[0, 0, :2] = -50.0, 9.0
    assert color_limits(images) == (-1.0, 1.0)
