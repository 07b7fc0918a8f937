"""The experiments run from the shell and write what they promise."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxnn

pytestmark = pytest.mark.optimized

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared" / "mnist"


def run(*arguments, **environment):
    import os

    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT, env=os.environ | {"MPLBACKEND": "Agg"} | environment, capture_output=True,
        text=True, timeout=500,
    )  # fmt: skip


def test_back_query_draws_ten_digits_six_ways(tmp_path):
    done = run("experiments.back_query", "--epochs", 8, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "correct" in done.stdout
    assert "…" not in done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_accuracy"] > 0.9
    assert metrics["recognized"]["least squares"] == 10
    assert metrics["recognized"]["average digit"] >= 9
    assert metrics["largest_error"]["least squares"] < 0.05
    for row in ("pattern", "typical"):
        assert metrics["recognized"][row] == 10
        assert metrics["judged"][row] >= 9
        assert metrics["nearest"][row] >= 9
    assert metrics["judge_accuracy"] > 0.88
    assert max(metrics["shortfall"]) < 0.02
    assert max(metrics["typicality"]["typical"]) < min(metrics["typicality"]["least squares"]) / 10
    assert np.median(metrics["distance"]["typical"]) < np.median(metrics["distance"]["transposed weights"])
    for name in ("pictures.png", "deviations.png", "outputs.png", "training.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 20
    network = jaxnn.load(tmp_path / "network.jaxnn")
    assert network.sizes == (784, 200, 10)
    # The written outputs are those of the saved network.
    targets = jaxnn.datasets.encode_labels(range(10))
    outputs = jaxnn.query(network, jaxnn.backquery(network, targets))
    np.testing.assert_allclose(metrics["outputs"]["transposed weights"], outputs, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "deviations.png", "metrics.json", "network.jaxnn", "others.png", "outputs.png", "pictures.png",
        "training.png",
    ]  # fmt: skip


@pytest.mark.long
def test_back_query_takes_other_data_and_layers(tmp_path):
    options = ("--data", "digits", "--hidden", 30, 20, "--epochs", 2, "--output", tmp_path / "a" / "b")
    done = run("experiments.back_query", *options)
    assert done.returncode == 0, done.stderr
    assert "64-30-20-10 on digits" in done.stdout
    assert (tmp_path / "a" / "b" / "pictures.png").exists()


@pytest.mark.long
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"the four MNIST files are not in {MNIST}")
def test_back_query_on_all_of_mnist_reaches_the_published_figure(tmp_path):
    options = ("--data", "mnist", "--epochs", 7, "--output", tmp_path)
    done = run("experiments.back_query", *options, JAXNN_DATA=str(MNIST))
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_accuracy"] == pytest.approx(0.975, abs=0.003)
    assert metrics["largest_error"]["least squares"] < 0.05


@pytest.fixture(scope="module")
def own_digit(tmp_path_factory):
    """A 7 of the test split as a large dark-on-light JPEG."""
    pixels = jaxnn.datasets.load("mnist-5k").test.images[7]
    path = tmp_path_factory.mktemp("own") / "seven.jpg"
    Image.fromarray(255 - pixels).convert("RGB").resize((300, 300)).save(path)
    return path


@pytest.mark.long
def test_own_image_is_classified(own_digit, tmp_path):
    trained = run("experiments.own_image", own_digit, "--output", tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "is a 7" in " ".join(trained.stdout.split())
    assert json.loads((tmp_path / "seven_answer.json").read_text())["prediction"] == 7
    assert (tmp_path / "seven_answer.png").exists()


@pytest.mark.long
def test_own_image_takes_a_saved_network_and_checks_it(own_digit, tmp_path):
    wrong = tmp_path / "small.jaxnn"
    jaxnn.save(wrong, jaxnn.init(jax.random.key(0), (64, 10)))
    done = run("experiments.own_image", own_digit, "--network", wrong, "--output", tmp_path)
    assert done.returncode != 0
    assert "and 10 outputs; got (64, 10)" in done.stderr


@pytest.mark.long
def test_own_image_refuses_another_file_before_training(tmp_path):
    text = tmp_path / "note.png"
    text.write_text("no picture")
    done = run("experiments.own_image", text, "--output", tmp_path)
    assert done.returncode != 0
    assert "note.png is not a picture" in done.stderr
    assert "training" not in done.stdout


def test_the_module_lists_the_experiments():
    done = run("experiments")
    assert done.returncode == 0, done.stderr
    assert "What does a trained network think each digit is?" in " ".join(
        done.stdout.replace("│", " ").split()
    ).replace("python -m experiments.back_query ", "")
