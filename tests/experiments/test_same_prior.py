"""The experiment same_prior: what it reads in pictures, and that it tells networks from their controls."""

import jax
import numpy as np
import pytest

from experiments import same_prior
from experiments._common.digits import class_means, load_digits
from experiments._common.networks import accuracies, train_judge
from tests.experiments.test_many import metrics_of

pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def digits():
    return load_digits("digits")


def test_pictures_are_read_by_four_and_compared_with_the_first_network(digits):
    judge = train_judge(digits, 0)
    stack = jax.tree.map(lambda leaf: leaf[None], judge)
    means = np.asarray(class_means(digits))[None]
    as_requested = same_prior.read(means, means[0], stack, judge, digits)
    assert as_requested == (1.0, 1.0, 1.0, 1.0, 0.0)
    one_further = np.roll(means, 1, axis=1)
    shifted = same_prior.read(one_further, means[0], stack, judge, digits)
    assert shifted[:4] == (0.0, 0.0, 0.0, 0.0)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(means[0]) for b in np.delete(means[0], i, axis=0)]
    apart = np.mean(np.linalg.norm(means[0] - one_further[0], axis=1)) / np.mean(pairs)
    assert shifted.difference == pytest.approx(apart, rel=1e-5)


@pytest.mark.long
def test_networks_with_shuffled_labels_are_trained_on_a_permutation(digits):
    options = {"controls": 2, "hidden": 20, "epochs": 8, "rate": 1.0, "seed": 0}
    stacks = same_prior.train_all(digits, **options)
    right = {name: accuracies(stack, digits.inputs, digits.labels).mean() for name, stack in stacks.items()}
    assert min(right["trained"], right["other seed"], right["adversarial"]) > 0.8
    assert max(right["shuffled"], right["untrained"]) < 0.35
    trained, other = stacks["trained"].layers[0].kernel, stacks["other seed"].layers[0].kernel
    assert not np.array_equal(trained, other)


@pytest.mark.long
def test_the_pictures_differ_as_the_networks_do(tmp_path):
    same_prior.main(data="digits", controls=3, hidden=40, epochs=10, output=tmp_path)
    metrics = metrics_of(tmp_path, "typical.png", "surer.png", "pattern.png")
    readings = {name: each["typical"] for name, each in metrics["readings"].items()}
    for name in ("trained", "other seed", "adversarial"):
        assert readings[name]["judged"] >= 0.8
        assert readings[name]["difference"] < 0.8
    for name in ("shuffled", "untrained"):
        assert readings[name]["judged"] <= 0.4
        assert readings[name]["difference"] > 0.8
