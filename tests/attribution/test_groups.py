"""Groups of pixels, and a warning where groups are missing."""

import functools
import warnings

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import attribution


@hypothesis.given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
def test_blocks_are_those_of_a_loop(axes):
    shape, size = zip(*axes, strict=True)
    groups = attribution.blocks(shape, size)
    counts = [-(-length // step) for length, step in axes]
    for place in np.ndindex(*shape):
        block = [i // step for i, step in zip(place, size, strict=True)]
        assert groups[place] == np.ravel_multi_index(block, counts)
    assert groups.dtype == np.int32
    assert len(np.unique(groups)) == np.prod(counts)


def test_one_size_for_all_axes():
    np.testing.assert_array_equal(attribution.blocks((5, 4), 2), attribution.blocks((5, 4), (2, 2)))


def test_blocks_are_groups():
    image = jnp.arange(32.0).reshape(4, 4, 2)
    values = attribution.feature_ablation(
        lambda x: jnp.sum(x**2), image, groups=attribution.blocks((4, 4, 2), (2, 2, 2))
    )
    np.testing.assert_allclose(values[:2, :2], jnp.full((2, 2, 2), jnp.sum(image[:2, :2] ** 2)))


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [((4, 4), (2,), "one integer for each axis"), ((4, 4), (0, 1), "size"), ((4,), 0, "size")],
)
def test_sizes_that_do_not_fit(shape, size, message):
    with pytest.raises(ValueError, match=message):
        attribution.blocks(shape, size)


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_superpixels(channels):
    pytest.importorskip("skimage")
    image = np.zeros((20, 30, *channels))
    image[:, 15:] = 7.0
    groups = attribution.superpixels(image, 2, compactness=0.1)
    assert groups.shape == image.shape
    assert groups.dtype == np.int32
    assert set(groups[:, :14].ravel()).isdisjoint(groups[:, 16:].ravel())
    assert np.array_equal(np.unique(groups), np.arange(groups.max() + 1))
    again = attribution.superpixels(1e6 * image - 5, 2, compactness=0.1)  # of any range
    np.testing.assert_array_equal(groups, again)


@pytest.mark.parametrize("image", [np.zeros(4), np.zeros((2, 2, 2, 2)), np.full((4, 4), np.nan)])
def test_what_is_no_image(image):
    with pytest.raises(ValueError, match="`image` must"):
        attribution.superpixels(image)


@pytest.mark.parametrize("method", ["kernel_shap", "shapley_sampling", "lime"])
def test_a_call_without_groups_warns_before_it_begins(method):
    x = jnp.ones((40, 20, 3))
    explain = functools.partial(getattr(attribution, method), jnp.sum, x, key=jax.random.key(0))
    options = {} if method == "kernel_shap" else {"n_samples": 2}
    with pytest.warns(UserWarning, match=r"each of the 2,400 elements .* evaluations.*blocks\(x.shape"):
        jax.eval_shape(lambda: explain(**options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.eval_shape(lambda: explain(groups=attribution.blocks(x.shape, (8, 8, 3)), **options))
