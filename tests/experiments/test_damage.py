"""The experiments on damage, mistakes and the plane write the outputs of the network."""

import itertools
import json

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import jaxnn
from experiments import mistakes as mistakes_script
from tests.experiments.test_main import run

pytestmark = pytest.mark.optimized

SMALL = ("--data", "digits", "--hidden", 20, "--epochs", 2)


def numbers_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def assert_pictures(folder, *names):
    assert sorted(numbers_of(folder)["pictures"]) == sorted(names)
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 20


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights_of(folder):
    """The saved network in NumPy: kernels and biases."""
    layers = jaxnn.load(folder / "network.jaxnn").layers
    return [np.asarray(x, np.float64) for layer in layers for x in (layer.kernel, layer.bias)]


def held_out():
    images, labels = jaxnn.datasets.load("digits").test
    return images.reshape(len(images), -1) / 255 * 0.99 + 0.01, labels


def outputs_of(x, w1, b1, w2, b2):
    return sigmoid(sigmoid(x @ w1 + b1) @ w2 + b2)


# --- lesions


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesions")
    done = run("experiments.lesions", *SMALL, "--draws", 6, "--output", folder)
    assert done.returncode == 0, done.stderr
    assert "Accuracy without hidden units" in done.stdout
    return folder


def accuracy_of(x, labels, *weights):
    return np.mean(outputs_of(x, *weights).argmax(axis=1) == labels)


def weakest(strength, fraction):
    """The weakest fraction of all elements, by a plain sort."""
    mask = np.zeros(strength.size, bool)
    mask[np.argsort(strength, axis=None, kind="stable")[: round(fraction * strength.size)]] = True
    return mask.reshape(strength.shape)


@pytest.mark.long
@pytest.mark.parametrize(("order", "sign"), [("weakest first", 1), ("strongest first", -1)])
def test_lesions_in_order_are_those_of_a_plain_sort(lesions, order, sign):
    found, (x, labels) = numbers_of(lesions), held_out()
    w1, b1, w2, b2 = weights_of(lesions)
    for i, fraction in enumerate(found["fractions"]):
        units = weakest(sign * np.sqrt((w2**2).sum(axis=1)), fraction)
        expected = accuracy_of(x, labels, w1, b1, np.where(units[:, None], 0, w2), b2)
        assert found["accuracy"]["hidden units"][order][i] == pytest.approx(expected, abs=0.006)
        first_kernel, second_kernel = (np.where(weakest(sign * np.abs(w), fraction), 0, w) for w in (w1, w2))
        expected = accuracy_of(x, labels, first_kernel, b1, second_kernel, b2)
        assert found["accuracy"]["weights"][order][i] == pytest.approx(expected, abs=0.006)


@pytest.mark.long
def test_random_lesions_are_like_those_of_another_generator(lesions):
    found, (x, labels) = numbers_of(lesions), held_out()
    w1, b1, w2, b2 = weights_of(lesions)
    rng = np.random.default_rng(0)
    half = [np.isin(np.arange(20), rng.permutation(20)[:10]) for _ in range(200)]
    drawn = [accuracy_of(x, labels, w1, b1, np.where(units[:, None], 0, w2), b2) for units in half]
    mean = found["accuracy"]["hidden units"]["random"][10]
    assert mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(6))
    for kind in ("hidden units", "weights"):
        low, high = found["band"][kind]
        assert low[10] < found["accuracy"][kind]["random"][10] < high[10]  # the draws differ


def test_lesions_start_undamaged_and_end_with_the_biases_alone(lesions):
    found, (x, labels) = numbers_of(lesions), held_out()
    weights = weights_of(lesions)
    undamaged = accuracy_of(x, labels, *weights)
    assert undamaged > 0.7
    nothing = np.mean(labels == weights[3].argmax())
    for curve in (c for curves in found["accuracy"].values() for c in curves.values()):
        assert curve[0] == pytest.approx(undamaged, abs=0.006)
        assert curve[-1] == pytest.approx(nothing, abs=1e-6)
    assert_pictures(lesions, "accuracy.png")


# --- mistakes


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    done = run("experiments.mistakes", *SMALL, "--count", 5, "--output", folder)
    assert done.returncode == 0, done.stderr
    assert "The most confident mistakes" in done.stdout
    return folder


@pytest.mark.long
def test_mistakes_are_the_most_confident_misclassifications(mistakes):
    found, (x, labels) = numbers_of(mistakes), held_out()
    outputs = outputs_of(x, *weights_of(mistakes))
    wrong = np.flatnonzero(outputs.argmax(axis=1) != labels)
    assert found["mistakes"] == pytest.approx(len(wrong), abs=1)
    assert found["test_accuracy"] == pytest.approx(1 - len(wrong) / len(labels), abs=0.003)
    order = wrong[np.argsort(-outputs[wrong].max(axis=1))][:5]
    assert found["image"] == order.tolist()
    assert found["label"] == labels[order].tolist()
    assert found["prediction"] == outputs[order].argmax(axis=1).tolist()
    np.testing.assert_allclose(found["outputs"], outputs[order], atol=1e-5)


def test_the_differences_and_the_biases_add_up_to_the_difference_of_the_signals(mistakes):
    found, (x, _) = numbers_of(mistakes), held_out()
    w1, b1, w2, b2 = weights_of(mistakes)
    each = zip(found["image"], found["label"], found["prediction"], found["difference"], strict=True)
    for image, label, prediction, difference in each:
        hidden = sigmoid(x[image] @ w1 + b1)
        np.testing.assert_allclose(difference, hidden * (w2[:, prediction] - w2[:, label]), atol=1e-4)
        signals = hidden @ w2 + b2
        expected = signals[prediction] - signals[label]
        assert sum(difference) + b2[prediction] - b2[label] == pytest.approx(expected, abs=1e-3)


@pytest.mark.long
def test_the_deciding_units_are_removed(mistakes):
    found, (x, labels) = numbers_of(mistakes), held_out()
    w1, b1, w2, b2 = weights_of(mistakes)
    outputs, hidden = outputs_of(x, w1, b1, w2, b2), sigmoid(x @ w1 + b1)
    wrong = np.flatnonzero(outputs.argmax(axis=1) != labels)
    corrected = 0
    for image in wrong:
        difference = hidden[image] * (w2[:, outputs[image].argmax()] - w2[:, labels[image]])
        without = w2.copy()
        without[np.argsort(-difference)[:3]] = 0
        corrected += (hidden[image] @ without + b2).argmax() == labels[image]
    fractions = found["corrected"]
    assert fractions["the three deciding units"] == pytest.approx(corrected / len(wrong), abs=2 / len(wrong))
    assert fractions["the three deciding units"] > fractions["three at random"]
    assert_pictures(mistakes, "outputs.png", "units.png")


def test_the_picture_of_the_units_names_each_and_its_class():
    network = jaxnn.init(jax.random.key(0), (16, 8, 10))
    w1, x = np.asarray(network.layers[0].kernel), np.linspace(0, 1, 32).reshape(2, 16)
    # The first has only one unit for the wrong class: the others contributed to the correct one, if at all.
    difference = np.array([[-1.0, -2.0, -3.0, 0.5, -4.0, -5.0, -6.0, -7.0], [8.0, 7, 6, 5, -1, -2, -3, -4]])
    shown = mistakes_script.Mistakes(
        np.arange(2), np.array([3, 4]), np.array([7, 9]), np.zeros((2, 10)), difference
    )
    figure = mistakes_script.figure_of_units(network, shown, x, (4, 4))
    axes = np.reshape(figure.axes[:14], (2, 7))
    titles = [[ax.get_title() for ax in row[1:]] for row in axes]
    assert titles[0] == [
        "unit 3: 0.5 for 7", "unit 0: 1.0 for 3", "unit 1: 2.0 for 3",
        "unit 7: 7.0 for 3", "unit 6: 6.0 for 3", "unit 5: 5.0 for 3",
    ]  # fmt: skip
    assert titles[1] == [
        "unit 0: 8.0 for 9", "unit 1: 7.0 for 9", "unit 2: 6.0 for 9",
        "unit 7: 4.0 for 4", "unit 6: 3.0 for 4", "unit 5: 2.0 for 4",
    ]  # fmt: skip
    for row, image in zip(axes, x, strict=True):
        np.testing.assert_allclose(row[0].images[0].get_array(), image.reshape(4, 4), atol=1e-6)
        for ax in row[1:]:
            unit = int(ax.get_title().split()[1].rstrip(":"))
            np.testing.assert_allclose(
                ax.images[0].get_array(), (image * w1[:, unit]).reshape(4, 4), atol=1e-5
            )
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["label 3,\nprediction\n7", "label 4,\nprediction\n9"]
    plt.close(figure)


def test_the_table_of_mistakes_has_true_minus_signs():
    difference = np.array([[-1.0, -2.0, -3.0, 0.5, -4.0, -5.0]])
    shown = mistakes_script.Mistakes(*np.array([[1], [3], [7]]), np.zeros((1, 10)), difference)
    table = mistakes_script.table_of(shown, {"": np.array([3])})
    assert list(table.columns[3].cells) == ["3: +0.5, 0: \N{MINUS SIGN}1.0, 1: \N{MINUS SIGN}2.0"]


# --- playground


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    done = run("experiments.playground", "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_the_playground_is_solved_and_only_by_layers_where_it_bends(playground):
    found = numbers_of(playground)["accuracy"]
    assert set(found) == {"gaussians", "circles", "exclusive-or", "spiral"}
    for name, accuracy in found.items():
        assert accuracy["network"] > 0.95
        assert (accuracy["no_hidden_units"] > 0.95) == (name == "gaussians")
    assert_pictures(playground, *(f"{name}.png" for name in found))


@pytest.mark.long
def test_the_playgrounds_pictures_are_the_units_over_the_plane():
    from experiments import playground

    network = jaxnn.init(jax.random.key(0), (2, 4, 2, 1), activation="tanh", output_activation="sigmoid")
    planes = playground.layers_over_plane(network)
    assert [len(plane) for plane in planes] == [4, 2, 1]
    side = playground.SIDE
    for i, j in itertools.product((0, 37, 110), repeat=2):
        x = np.array([side[i], side[j]])  # the first input runs along the rows
        for layer, plane in zip(network.layers, planes, strict=True):
            signal = x @ np.asarray(layer.kernel, np.float64)
            x = sigmoid(signal) if layer.activation == "sigmoid" else np.tanh(signal)
            np.testing.assert_allclose(plane[:, j, i], x, atol=1e-5)


# --- bad options


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lesions", ("--draws", 0), "`draws` must be at least 1; got 0"),
        ("lesions", ("--hidden", 0), "`hidden` must be at least 1; got 0"),
        ("mistakes", ("--count", 21), "`count` must lie from 1 to 20; got 21"),
        ("mistakes", ("--hidden", 5), "`hidden` must be at least 6; got 5"),
        ("playground", ("--seed", 2**32), "`seed` must lie from 0 to 4294967295; got 4294967296"),
        ("playground", ("--n", 0), "`n` must be at least 1; got 0"),
        ("playground", ("--noise", -1), "`noise` must be at least 0; got -1.0"),
    ],
)
def test_a_bad_option_is_named_before_training(name, options, message, tmp_path):
    done = run(f"experiments.{name}", *options, "--output", tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "training" not in done.stdout
