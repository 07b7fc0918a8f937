"""Pictures and numbers of the weights against their equations in NumPy."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

import jaxnn
from jaxnn import weights
from jaxnn._activation import ACTIVATION_NAMES
from jaxnn.weights._lesion import _count
from tests.conftest import in_precision

SIZES = (12, 9, 6, 4)
LAYERS = [(0, "hidden_0"), (1, "hidden_1"), (2, "output")]
BIAS = jax.nn.initializers.normal(1.0)


def network(sizes=SIZES, key=0, **options):
    return jaxnn.init(jax.random.key(key), sizes, **{"bias_init": BIAS, **options})


def kernel_of(net, index):
    return np.asarray(net.layers[index].kernel)


def with_kernel(kernel):
    return jaxnn.Network((jaxnn.Dense(jnp.asarray(kernel), None, "identity"),))


def values(*shape):
    return hnp.arrays(np.float32, shape, elements=st.floats(-10, 10, width=32))


def masks(*shape):
    return hnp.arrays(bool, shape)


# --- kernel_images, output_images


def test_the_image_of_a_unit_is_its_column_of_the_kernel():
    net = network((12, 9, 4))
    images = weights.kernel_images(net, (3, 4))
    assert images.shape == (9, 3, 4)
    for k in range(9):
        np.testing.assert_array_equal(images[k], kernel_of(net, 0)[:, k].reshape(3, 4))
    np.testing.assert_array_equal(
        weights.kernel_images(net, layer="output")[1].ravel(), kernel_of(net, 1)[:, 1]
    )


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("shape", [(12,), (2, 2, 3), [4, 3], (np.int64(3), 4)])
def test_an_image_has_any_number_of_axes(shape):
    assert weights.kernel_images(network(), shape).shape == (9, *shape)


@pytest.mark.long
def test_a_square_is_found():
    assert weights.kernel_images(network((784, 30, 10))).shape == (30, 28, 28)
    assert weights.kernel_images(network((1, 2))).shape == (2, 1, 1)
    assert weights.output_images(network((5, 100, 10))).shape == (10, 10, 10)


def test_output_images_are_those_of_the_last_layer():
    net = network()
    images = weights.output_images(net, (2, 3))
    np.testing.assert_array_equal(images, weights.kernel_images(net, (2, 3), layer=-1))
    np.testing.assert_array_equal(images, kernel_of(net, 2).T.reshape(4, 2, 3))


# --- top_features

# Few values, so that there are ties in almost every column; zeros of both signs are equal.
TIED = hnp.arrays(np.float32, (7, 3), elements=st.sampled_from([-1.5, -1.0, -0.0, 0.0, 1.0, np.nan]))


@given(TIED, st.sampled_from([1, 3, 7]))
def test_top_features_agree_with_a_stable_sort(kernel, k):
    top = weights.top_features(with_kernel(kernel), k)
    liked = np.argsort(-kernel, axis=0, kind="stable")[:k].T
    disliked = np.argsort(kernel, axis=0, kind="stable")[:k].T
    np.testing.assert_array_equal(top.liked, liked)
    np.testing.assert_array_equal(top.disliked, disliked)
    np.testing.assert_array_equal(top.liked_weights, np.take_along_axis(kernel.T, liked, 1))
    np.testing.assert_array_equal(top.disliked_weights, np.take_along_axis(kernel.T, disliked, 1))
    assert jnp.issubdtype(top.liked.dtype, jnp.integer)


def test_of_equal_weights_the_lower_index_comes_first():
    top = weights.top_features(with_kernel([[2.0], [-1.0], [2.0], [-1.0]]), 2)
    assert top.liked.tolist() == [[0, 2]]
    assert top.disliked.tolist() == [[1, 3]]


@pytest.mark.parametrize(("index", "name"), LAYERS)
def test_top_features_of_any_layer(index, name):
    net = network()
    for layer in (index, name, index - 3):
        top = weights.top_features(net, 2, layer=layer)
        np.testing.assert_array_equal(top.liked[:, 0], kernel_of(net, index).argmax(axis=0))
        np.testing.assert_array_equal(top.disliked[:, 0], kernel_of(net, index).argmin(axis=0))


# --- contributions


@pytest.mark.parametrize(("index", "name"), LAYERS)
@given(x=values(12), key=st.integers(0, 5))
def test_contributions_and_the_bias_sum_to_the_signal(index, name, x, key):
    net = network(key=key, activation="tanh", output_activation="identity")
    incoming = np.asarray(x, np.float64)
    for layer in net.layers[:index]:
        incoming = np.tanh(
            incoming @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias, np.float64)
        )
    kernel, bias = (
        np.asarray(leaf, np.float64) for leaf in (net.layers[index].kernel, net.layers[index].bias)
    )
    pushes = weights.contributions(net, x, layer=name)
    assert pushes.shape == (SIZES[index], SIZES[index + 1])
    scale = max(1.0, np.abs(incoming).max())
    np.testing.assert_allclose(pushes, incoming[:, None] * kernel, atol=1e-5 * scale)
    np.testing.assert_allclose(pushes.sum(axis=0) + bias, incoming @ kernel + bias, atol=1e-5 * scale)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("activation", [name for name in ACTIVATION_NAMES if name != "softmax"])
def test_contributions_lead_to_the_networks_own_answer(activation):
    net = network(activation=activation)
    x = np.random.default_rng(0).uniform(size=12).astype(np.float32)
    signal = weights.contributions(net, x).sum(axis=0) + net.layers[-1].bias
    np.testing.assert_allclose(jaxnn.activation(activation).function(signal), net(x), atol=1e-5)


def test_contributions_without_a_bias_are_the_whole_signal():
    net = network(use_bias=False, output_activation="identity")
    x = np.linspace(-1, 1, 12)
    np.testing.assert_allclose(weights.contributions(net, x).sum(axis=0), net(x), atol=1e-6)


def test_contributions_take_leading_axes():
    net, x = network(), np.random.default_rng(0).normal(size=(2, 3, 12)).astype(np.float32)
    many = weights.contributions(net, x, layer=1)
    assert many.shape == (2, 3, 9, 6)
    for i, j in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(many[i, j], weights.contributions(net, x[i, j], layer=1), atol=1e-6)


def test_under_strict_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        assert weights.contributions(network(), np.ones((2, 12)), layer=1).shape == (2, 9, 6)
        weights.lesion(network(), layer=0, units=[1], weights=np.ones((12, 9), bool))


# --- path_products


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("start", "stop"), list(itertools.combinations_with_replacement(range(3), 2)))
def test_path_products_are_matrix_products(start, stop):
    with in_precision(np.float64):
        net = network(dtype=np.float64)
        expected = np.eye(SIZES[start])
        for i in range(start, stop + 1):
            expected = expected @ kernel_of(net, i)
        for first, last in itertools.product((start, LAYERS[start][1], start - 3), (stop, LAYERS[stop][1])):
            product = weights.path_products(net, first, last)
            assert product.shape == (SIZES[start], SIZES[stop + 1])
            np.testing.assert_allclose(product, expected, rtol=1e-12, atol=1e-12)


def test_all_paths_is_the_default_and_what_a_linear_network_computes():
    net = network(activation="identity", use_bias=False)
    np.testing.assert_allclose(np.eye(12) @ weights.path_products(net), net(np.eye(12)), atol=1e-5)


# --- lesion


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@given(x=values(12))
def test_without_any_unit_the_answer_is_that_of_the_biases(activation, x):
    net = network(activation=activation)
    for units in (np.ones(6, bool), np.arange(6), range(6)):
        damaged = weights.lesion(net, layer="hidden_1", units=units)
        biases_only = jaxnn.activation(activation).function(net.layers[-1].bias)
        np.testing.assert_array_equal(damaged(x), biases_only)


@given(removed=masks(9), x=values(12))
def test_a_removed_unit_contributes_nothing_and_the_others_what_they_did(removed, x):
    net = network()
    damaged = weights.lesion(net, layer=0, units=removed)
    before, after = (np.asarray(weights.contributions(n, x, layer=1)) for n in (net, damaged))
    np.testing.assert_array_equal(after, np.where(removed[:, None], 0, before))


@given(removed=masks(9, 6))
def test_removed_weights_become_zero_and_nothing_else_changes(removed):
    net = network()
    damaged = weights.lesion(net, layer=1, weights=removed)
    expected = np.where(removed, 0, kernel_of(net, 1))
    np.testing.assert_array_equal(kernel_of(damaged, 1), expected)
    changed = jax.tree.map(lambda a, b: np.any(a != b), net, damaged)
    assert sum(jax.tree.leaves(changed)) == np.any(removed & (kernel_of(net, 1) != 0))
    assert jax.tree.structure(damaged) == jax.tree.structure(net)


def test_units_are_a_mask_or_indices_in_any_form():
    net, mask = network(), np.zeros(9, bool)
    mask[[1, 8]] = True
    expected = weights.lesion(net, layer=0, units=mask)
    for units in ([1, 8], [-1, 1], np.array([8, 1, 1], np.int8), jnp.asarray([1, -1]), (1, 8), mask.tolist()):
        jax.tree.map(np.testing.assert_array_equal, weights.lesion(net, layer=0, units=units), expected)
    only = weights.lesion(net, layer=0, units=8)
    assert np.flatnonzero(np.all(kernel_of(only, 1) == 0, axis=1)).tolist() == [8]


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.uint32, np.int8, np.uint8])
def test_an_index_that_does_not_fit_into_jax_names_no_other_unit(dtype):
    net, info = network(), np.iinfo(dtype)
    wrong = {info.max, info.min or 9} | ({2**32 + 3, 2**32} if info.bits == 64 else set())
    for index in wrong:
        message = rf"`units` must (lie from -9 to 8|hold integers that fit).*[ \[]{index}\]?$"
        with pytest.raises(ValueError, match=message):
            weights.lesion(net, layer=0, units=np.array([index], dtype))


def test_a_traced_index_without_sign_names_no_other_unit():
    net = network()
    for dtype in (jnp.uint32, jnp.uint8):
        units = jnp.array([jnp.iinfo(dtype).max, 2], dtype)
        damaged = jax.jit(lambda units: weights.lesion(net, layer=0, units=units))(units)
        assert np.flatnonzero(np.all(kernel_of(damaged, 1) == 0, axis=1)).tolist() == [2]


@pytest.mark.parametrize("units", [[], np.zeros(9, bool), range(0)])
def test_no_units_leave_the_network_as_it_is(units):
    net = network()
    jax.tree.map(np.testing.assert_array_equal, weights.lesion(net, layer=0, units=units), net)


def test_units_and_weights_at_once():
    net, removed = network(), np.eye(12, 9, dtype=bool)
    both = weights.lesion(net, layer=0, units=[2], weights=removed)
    one_by_one = weights.lesion(weights.lesion(net, layer=0, units=[2]), layer=0, weights=removed)
    jax.tree.map(np.testing.assert_array_equal, both, one_by_one)


def test_a_short_integer_names_a_unit_of_a_wide_layer():
    net = network((2, 300, 1))
    damaged = weights.lesion(net, layer=0, units=np.array([-1, 127], np.int8))
    assert np.flatnonzero(kernel_of(damaged, 1) == 0).tolist() == [127, 299]
    damaged = weights.lesion(net, layer=0, units=np.array([255], np.uint8))
    assert np.flatnonzero(kernel_of(damaged, 1) == 0).tolist() == [255]


def test_many_draws_are_one_vmap():
    net, x = network(), np.ones(12, np.float32)
    keys = jax.random.split(jax.random.key(1), 20)

    def damaged_output(key, fraction):
        return weights.lesion(net, layer=0, units=weights.random_mask(key, 9, fraction))(x)

    every_fraction = jax.vmap(damaged_output, (None, 0))
    outputs = jax.jit(jax.vmap(every_fraction, (0, None)))(keys, jnp.array([0.0, 0.5, 1.0]))
    assert outputs.shape == (20, 3, 4)
    np.testing.assert_allclose(outputs[:, 0], np.tile(net(x), (20, 1)), atol=1e-6)
    silent = weights.lesion(net, layer=0, units=range(9))(x)
    np.testing.assert_allclose(outputs[:, 2], np.tile(silent, (20, 1)), atol=1e-6)
    assert np.all(np.std(outputs[:, 1], axis=0) > 0)


def test_traced_indices_and_those_among_them_that_do_not_exist():
    net = network()
    by_index = jax.jit(lambda units: weights.lesion(net, layer=0, units=units))
    jax.tree.map(
        np.testing.assert_array_equal,
        by_index(jnp.array([1, -1])),
        weights.lesion(net, layer=0, units=[1, 8]),
    )
    jax.tree.map(np.testing.assert_array_equal, by_index(jnp.array([9, -10])), net)


def test_no_gradient_reaches_what_was_removed():
    def loss(net, removed):
        return weights.lesion(net, layer=0, weights=removed)(jnp.ones(12)).sum()

    removed = np.eye(12, 9, dtype=bool)
    gradient = np.asarray(jax.grad(loss)(network(), removed).layers[0].kernel)
    np.testing.assert_array_equal(gradient[removed], 0)
    assert np.all(gradient[~removed] != 0)


# --- random_mask


@given(st.floats(0, 1, width=32), st.sampled_from([1, 9, (4, 5)]), st.integers(0, 3))
def test_a_fraction_of_the_elements_is_true(fraction, shape, seed):
    mask = weights.random_mask(jax.random.key(seed), shape, fraction)
    assert mask.shape == (shape if isinstance(shape, tuple) else (shape,))
    assert mask.dtype == bool
    assert int(mask.sum()) == np.round(np.float32(fraction) * np.float32(mask.size))


@pytest.mark.parametrize("n", [1, 30, 4096, 2**24 + 1, 2**31 - 1])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 1 / 3, 0.5, 0.7, 1 - 2**-24, 1.0])
def test_the_number_of_true_elements_is_exact_for_large_shapes(n, fraction):
    exact = Fraction(float(np.float32(fraction))) * n
    count = int(jax.jit(_count, static_argnums=1)(jnp.float32(fraction), n))
    assert abs(count - exact) <= 0.51
    if n < 2**24:  # for fractions such as 0.05, half of an element is exactly a half
        assert count == round(fraction * n)
    if fraction == 1:
        assert count == n


def test_masks_of_growing_fractions_are_nested_and_all_elements_are_equally_likely():
    keys = jax.random.split(jax.random.key(0), 2000)
    fractions = jnp.linspace(0, 1, 7)
    drawn = jax.vmap(jax.vmap(weights.random_mask, (None, None, 0)), (0, None, None))(keys, 6, fractions)
    assert np.all(np.diff(np.asarray(drawn, int), axis=1) >= 0)
    # 2000 draws of probability 1/2 have a standard error of 0.011.
    np.testing.assert_allclose(drawn[:, 3].mean(axis=0), 0.5, atol=0.045)


# --- bad input

CALLS = {
    "kernel_images": lambda net, layer: weights.kernel_images(net, (12,), layer=layer),
    "top_features": lambda net, layer: weights.top_features(net, 1, layer=layer),
    "contributions": lambda net, layer: weights.contributions(net, np.ones(12), layer=layer),
    "path_products start": lambda net, layer: weights.path_products(net, layer),
    "path_products stop": lambda net, layer: weights.path_products(net, 0, layer),
    "lesion": lambda net, layer: weights.lesion(net, layer=layer, units=[0]),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
@pytest.mark.parametrize("layer", [3, -4, "hidden_2", "Output", ""])
def test_a_layer_that_does_not_exist_lists_those_that_do(call, layer):
    listed = r"must be one of 'hidden_0' \(0\), 'hidden_1' \(1\), 'output' \(2\), .*; got "
    with pytest.raises(ValueError, match=listed + repr(layer)):
        call(network(), layer)


@every_call
@pytest.mark.parametrize("layer", [1.0, None, True, (0,)])
def test_a_layer_of_another_type(call, layer):
    with pytest.raises(TypeError, match=r"` must be a layer's index or name; got"):
        call(network(), layer)


@every_call
def test_what_is_no_network(call):
    with pytest.raises(TypeError, match="`network` must be a jaxnn.Network; got dict"):
        call({}, 0)


@every_call
def test_a_stack_of_networks_asks_for_vmap(call):
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), network())
    with pytest.raises(ValueError, match="`network` must be one network.*jax.vmap"):
        call(stack, 0)


NET, KEY = network((12, 30, 4)), jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weights.kernel_images(NET), r"`shape` must be given, as 12, .*'hidden_0'.*\(3, 4\)"),
        (lambda: weights.output_images(NET), r"`shape` must be given, as 30, .*'output'.*\(5, 6\)"),
        (lambda: weights.kernel_images(NET, (3, 5)), r"`shape` must have 12 .*; got \(3, 5\), which has 15"),
        (lambda: weights.output_images(NET, (3, 5)), r"`shape` must have 30 entries.*'output'.*15"),
        (lambda: weights.kernel_images(NET, (-3, -4)), r"`shape\[0\]` must be at least 1; got -3"),
        (lambda: weights.top_features(NET, 31), "`k` must be at most 30, .*'output'; got 31"),
        (lambda: weights.top_features(NET, 13, layer=0), "`k` must be at most 12, .*'hidden_0'; got 13"),
        (lambda: weights.top_features(NET, 0), "`k` must be at least 1; got 0"),
        (lambda: weights.contributions(NET, np.ones(13)), r"`x` must have shape \(..., 12\).*; got \(13,\)"),
        (lambda: weights.contributions(NET, 1.0), r"`x` must have shape \(..., 12\)"),
        (lambda: weights.path_products(NET, 1, 0), "`stop` must be layer `start` or a later one; got 1 to 0"),
        (lambda: weights.lesion(NET, layer=0), "`units` or `weights` must be given"),
        (lambda: weights.lesion(NET, layer=-1, units=[0]), "`units` must be those of a hidden layer"),
        (lambda: weights.lesion(NET, layer=0, units=[30]), r"`units` must lie from -30 to 29, .*\[30\]"),
        (lambda: weights.lesion(NET, layer=0, units=[-31]), "`units` must lie from -30 to 29"),
        (lambda: weights.lesion(NET, layer=0, units=[2**40]), "`units` must hold numbers that fit"),
        (lambda: weights.contributions(NET, [2**40] * 12), "`x` must hold numbers that fit"),
        (lambda: weights.lesion(NET, layer=0, units=[[1]]), r"`units` must have shape \(m,\)"),
        (lambda: weights.lesion(NET, layer=0, units=[True]), r"`units` must have shape \(30,\).*'hidden_0'"),
        (lambda: weights.lesion(NET, layer=0, weights=np.ones((30, 12), bool)), r"`weights` .*\(12, 30\)"),
        (lambda: weights.random_mask(KEY, 9, 1.1), r"`fraction` must lie in \[0, 1\]; got 1.1"),
        (lambda: weights.random_mask(KEY, 9, -0.1), r"`fraction` must lie in \[0, 1\]"),
        (lambda: weights.random_mask(KEY, 9, np.nan), "`fraction` must be finite"),
        (lambda: weights.random_mask(KEY, 9, [0.1]), r"`fraction` must have shape \(\)"),
        (lambda: weights.random_mask(KEY, 0, 0.1), r"`shape\[0\]` must be at least 1"),
    ],
)
def test_bad_values_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weights.kernel_images(NET, (3.0, 4)), r"`shape\[0\]` must be an integer"),
        (lambda: weights.kernel_images(NET, 12), "`shape` must be a tuple of integers; got int 12"),
        (lambda: weights.kernel_images(NET, "34"), "`shape` must be a tuple of integers; got str"),
        (lambda: weights.top_features(NET, 1.5), "`k` must be an integer; got float 1.5"),
        (lambda: weights.contributions(NET, "x"), "`x` must be an array of numbers"),
        (lambda: weights.lesion(NET, layer=0, units=[0.5]), "`units` must be a mask .* float32"),
        (lambda: weights.lesion(NET, layer=0, units="all"), "`units` must be an array"),
        (lambda: weights.lesion(NET, layer=0, weights=np.ones((12, 30))), "`weights` must be a mask"),
        (lambda: weights.random_mask(7, 9, 0.1), "`key` must be one random key"),
        (lambda: weights.random_mask(KEY, 2.5, 0.1), r"`shape\[0\]` must be an integer"),
    ],
)
def test_bad_types_say_what_was_expected(call, message):
    with pytest.raises(TypeError, match=message):
        call()


# --- roughness


def roughness_in_numpy(image):
    """Pair by pair, in double precision."""
    image = np.asarray(image, np.float64)
    h, w = image.shape
    pairs = [((i, j), (i + 1, j)) for i in range(h - 1) for j in range(w)]
    pairs += [((i, j), (i, j + 1)) for i in range(h) for j in range(w - 1)]
    differences = np.mean([(image[a] - image[b]) ** 2 for a, b in pairs])
    return differences / (2 * np.var(image, ddof=1))


@pytest.mark.parametrize("shape", [(28, 28), (5, 3), (1, 7), (4, 1), (1, 2)])
def test_roughness_is_the_equation(shape):
    images = np.random.default_rng(0).normal(3.0, 2.0, (6, *shape)).astype(np.float32)
    expected = [roughness_in_numpy(image) for image in images]
    np.testing.assert_allclose(weights.roughness(images), expected, rtol=1e-4)
    nested = weights.roughness(images.reshape(2, 3, *shape))
    np.testing.assert_allclose(nested, np.reshape(expected, (2, 3)), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-35, 1e-30, 1e-3, -7.0, 1e30, 8e37])
def test_roughness_does_not_depend_on_the_scale(scale):
    images = np.random.default_rng(1).normal(size=(4, 9, 8)).astype(np.float32)
    scaled = images * np.float32(scale)
    np.testing.assert_allclose(weights.roughness(scaled), weights.roughness(images), rtol=1e-4)


def test_roughness_of_large_numbers_about_a_mean():
    images = (2.0 + np.random.default_rng(1).uniform(size=(2, 28, 28))).astype(np.float32)
    np.testing.assert_allclose(
        weights.roughness(images * np.float32(1e38)), weights.roughness(images), rtol=1e-4
    )


def test_the_gradient_of_roughness_is_its_slope():
    with in_precision(np.float64):
        image = np.random.default_rng(3).normal(size=(4, 5))
        check_grads(weights.roughness, (image,), 1, ["rev"], rtol=1e-5)


def test_roughness_of_images_that_are_known():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(50, 28, 28))
    assert np.mean(weights.roughness(noise)) == pytest.approx(1.0, abs=0.02)
    board = np.indices((28, 28)).sum(axis=0) % 2
    assert float(weights.roughness(board)) == pytest.approx(2.0, abs=0.01)
    ramp = np.broadcast_to(np.linspace(-1.0, 1.0, 28), (28, 28))
    assert float(weights.roughness(ramp)) == pytest.approx(roughness_in_numpy(ramp), rel=1e-4)
    blurred = sum(np.roll(noise, (i, j), (1, 2)) for i in range(3) for j in range(3))
    assert np.all(weights.roughness(blurred) < 0.6 * weights.roughness(noise))


@pytest.mark.parametrize("value", [0.0, 0.1, -3e20])
def test_roughness_of_a_constant_image_is_0(value):
    image = jnp.full((7, 7), value)
    assert float(weights.roughness(image)) == pytest.approx(0.0, abs=1e-6)
    assert np.all(np.isfinite(jax.grad(weights.roughness)(image)))


@pytest.mark.parametrize("shape", [(), (5,), (1, 1), (3, 1, 1), (3, 0, 4)])
def test_roughness_needs_images(shape):
    with pytest.raises(ValueError, match=r"`images` must have shape \(\.\.\., h, w\).*got \("):
        weights.roughness(jnp.zeros(shape))


def test_roughness_needs_numbers():
    with pytest.raises(TypeError, match="`images`"):
        weights.roughness([["a", "b"]])
