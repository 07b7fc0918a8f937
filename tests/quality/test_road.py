import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import quality
from jaxnn.quality._road import impute
from tests.conftest import in_precision

KEY = np.array([0, 3], np.uint32)  # of the old kind, which the check of keys used twice lets be used again


def solve(image, removed):
    """The system of equations, dense."""
    h, w, c = image.shape
    weights = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12}
    matrix, right = np.eye(h * w), image.reshape(-1, c).copy()
    for i, j in np.argwhere(removed):
        row = np.zeros(h * w)
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if (di or dj) and 0 <= i + di < h and 0 <= j + dj < w:
                    row[(i + di) * w + j + dj] = weights[abs(di), abs(dj)] if abs(di) <= abs(dj) else 1 / 6
        matrix[i * w + j] = -row / row.sum()
        matrix[i * w + j, i * w + j] = 1
        right[i * w + j] = 0
    return np.linalg.solve(matrix, right).reshape(image.shape)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_imputed_pixels_solve_the_system(share):
    rng = np.random.default_rng(0)
    image, removed = rng.uniform(size=(9, 7, 2)), rng.uniform(size=(9, 7)) < share
    assert not removed.all()
    with in_precision("float64"):
        np.testing.assert_allclose(impute(image, jnp.asarray(removed)), solve(image, removed), atol=2e-6)


def test_an_image_of_one_color_hides_what_is_removed():
    image = jnp.full((28, 28, 1), 0.7)
    removed = jax.random.uniform(KEY, (28, 28)) < 0.99
    np.testing.assert_allclose(impute(image, removed), 0.7, atol=1e-5)


def model(image):
    return jnp.stack([image[:4].sum(), image[4:].sum() + 12])


def test_accuracy_falls_by_the_relevant_pixels_first():
    image = jnp.zeros((8, 8)).at[:4].set(1.0)
    options = {"key": KEY, "fractions": (0.25, 0.45, 0.49)}
    most = quality.road(model, image, 0, image, **options)
    least = quality.road(model, image, 0, image, most_relevant_first=False, **options)
    assert most.correct.tolist() == [1, 1, 0]
    np.testing.assert_allclose(least.outputs, 32, rtol=1e-6)
    assert np.all(np.diff(most.outputs) < 0)


def test_the_noise_is_that_of_its_key_and_only_on_removed_pixels():
    image, seen = jnp.zeros((8, 8)), []
    spy = lambda x: jnp.stack([jnp.sum(jnp.abs(x) > 0), jnp.sum(x**2)])  # noqa: E731
    found = quality.road(spy, image, 1, jnp.arange(64.0).reshape(8, 8), key=KEY, fractions=(0.25,), noise=0.5)
    seen = float(found.outputs[0]) / 16
    assert 0.05 < seen < 0.6  # 16 squares of N(0, 0.25)
    quiet = quality.road(spy, image, 1, image, key=KEY, fractions=(0.25,), noise=0.0)
    assert float(quiet.outputs[0]) == 0


def test_channels_are_removed_together_and_their_attributions_added():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 6, 3)), jnp.float32)
    a = jnp.asarray(np.random.default_rng(1).normal(size=(6, 6, 3)), jnp.float32)
    net = lambda image: jnp.stack([image[:3].sum(), image[3:].sum()])  # noqa: E731
    one, other = (quality.road(net, image, 0, each, key=KEY, fractions=(0.3,)) for each in (a, a.sum(-1)))
    np.testing.assert_allclose(one.outputs, other.outputs, rtol=1e-5)


def test_the_result_does_not_depend_on_how_many_are_evaluated_at_once():
    image = jax.random.uniform(KEY, (8, 8))
    found = [quality.road(model, image, 0, image, key=KEY, batch_size=size).outputs for size in (1, 7, 64)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x": jnp.zeros(4)}, "`x` must have shape"),
        ({"x": jnp.zeros((4, 4), int)}, "`x` must be one array of floating-point"),
        ({"fractions": (0.5, 1.0)}, r"`fractions\[1\]`"),
        ({"fractions": ()}, "`fractions` must be a sequence"),
        ({"noise": -1.0}, "`noise`"),
        ({"label": 5}, "`label` must lie"),
        ({"label": lambda y: y[0]}, "`label` must be the index"),
        ({"model": lambda x: x.sum()}, "`model` must have an output"),
        ({"attributions": jnp.zeros((8, 7))}, "`attributions` must have shape"),
    ],
)
def test_bad_arguments(arguments, words):
    known = {
        "model": model,
        "x": jnp.zeros((8, 8)),
        "label": 0,
        "attributions": jnp.zeros((8, 8)),
        "key": KEY,
    }
    with pytest.raises((TypeError, ValueError), match=words):
        quality.road(**known | arguments)
