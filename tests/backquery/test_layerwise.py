"""Back queries."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.optimize

import jaxnn
from jaxnn._activation import INVERTIBLE_NAMES
from tests.conftest import in_precision
from tests.helpers import numpy_book

TARGETS = np.where(np.eye(10) > 0, 0.99, 0.01)


def networks(sizes=(784, 200, 10), dtype=np.float32, **options):
    return jaxnn.init(jax.random.key(1), sizes, dtype=dtype, **options)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-5), (np.float32, 1e-4)])
@pytest.mark.parametrize("sizes", [(784, 200, 10), (20, 30, 15, 10)])
def test_transpose_agrees_with_the_books_equations(dtype, tolerance, sizes):
    with in_precision(dtype):
        network = networks(sizes, dtype, use_bias=False)
        kernels = [np.asarray(layer.kernel, np.float64) for layer in network.layers]
        pictures = jaxnn.backquery(network, TARGETS.astype(dtype))
        assert pictures.dtype == dtype
        for picture, target in zip(pictures, TARGETS, strict=True):
            expected = numpy_book.backquery(kernels, target)
            np.testing.assert_allclose(picture, expected, rtol=0, atol=tolerance)


def test_a_bias_is_taken_off_the_signal_before_it_goes_back():
    with in_precision(np.float64):
        network = networks((5, 4), np.float64, bias_init=jax.nn.initializers.normal(1.0))
        y = np.array([0.2, 0.9, 0.4, 0.6])
        kernel, bias = (np.asarray(a) for a in jax.tree.leaves(network))
        expected = numpy_book.rescale(kernel @ (numpy_book.logit(y) - bias))
        np.testing.assert_allclose(jaxnn.backquery(network, y), expected, atol=1e-14)


def test_a_constant_layer_gives_the_middle_not_nan():
    network = networks((3, 2, 2), kernel_init=jax.nn.initializers.zeros)
    for method in ("transpose", "least_squares"):
        np.testing.assert_allclose(jaxnn.backquery(network, [0.9, 0.1], method=method), 0.5)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("method", ["transpose", "least_squares"])
@pytest.mark.parametrize("activation", INVERTIBLE_NAMES)
def test_every_invertible_activation_goes_back_into_the_box(method, activation):
    network = networks((6, 5, 4, 3), activation=activation, output_activation="sigmoid")
    y = np.array([0.9, 0.2, 0.4], np.float32)
    x = jaxnn.backquery(network, y, method=method, margin=0.05)
    assert x.shape == (6,)
    assert np.all((np.float32(0.05) <= x) & (x <= np.float32(0.95)))
    if method == "transpose":
        assert np.isclose(x.min(), 0.05)
        assert np.isclose(x.max(), 0.95)


# Not leaky_relu: a hidden value just below zero asks for a hundred times the signal, past any input.
@pytest.mark.long("all but the first")
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus", "elu", "identity"])
def test_least_squares_recovers_an_answer_that_the_network_can_give(activation):
    """With many more inputs than units no bound is met, and the output is reached exactly."""
    with in_precision(np.float64):
        network = networks((400, 20, 3), np.float64, activation=activation)
        y = jaxnn.query(network, 0.5 + 0.1 * np.sin(np.arange(400)))
        x = jaxnn.backquery(network, y, method="least_squares", steps=2000)
        np.testing.assert_allclose(jaxnn.query(network, x), y, rtol=0, atol=1e-6)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_least_squares_solves_each_bounded_problem(shape):
    """One layer against SciPy's solver of the same bounded least-squares problem."""
    with in_precision(np.float64):
        network = networks(shape, np.float64, use_bias=False, activation="identity")
        y = 3 * np.random.default_rng(0).normal(size=shape[1])  # out of reach: bounds are active
        x = np.asarray(jaxnn.backquery(network, y, method="least_squares", steps=3000))
        kernel = np.asarray(network.layers[0].kernel)
        best = scipy.optimize.lsq_linear(kernel.T, y, (0.01, 0.99), tol=1e-14)
        assert np.any(np.isclose(x, 0.01)) or np.any(np.isclose(x, 0.99))
        np.testing.assert_allclose(np.sum((x @ kernel - y) ** 2), 2 * best.cost, rtol=1e-6, atol=1e-12)


def test_least_squares_is_the_smallest_correction_where_no_bound_is_met():
    with in_precision(np.float64):
        network = networks((30, 5), np.float64, use_bias=False, activation="identity")
        kernel = np.asarray(network.layers[0].kernel)
        y = np.full(30, 0.5) @ kernel + 0.05
        x = jaxnn.backquery(network, y, method="least_squares", steps=2000)
        smallest = 0.5 + np.linalg.lstsq(kernel.T, np.full(5, 0.05), rcond=None)[0]
        np.testing.assert_allclose(x, smallest, atol=1e-9)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("method", ["transpose", "least_squares"])
def test_the_gradient_agrees_with_finite_differences(method):
    with in_precision(np.float64):
        network = networks((6, 5, 3), np.float64)
        y = jnp.array([0.7, 0.4, 0.55])

        def picture(kernel, y):
            first = network.layers[0].replace(kernel=kernel)
            turned = network.replace(layers=(first, network.layers[1]))
            return jaxnn.backquery(turned, y, method=method, steps=400)

        jax.test_util.check_grads(
            picture, (network.layers[0].kernel, y), order=1, modes=["rev"], atol=1e-5, rtol=1e-4,
            eps=1e-6,
        )  # fmt: skip


@pytest.mark.long
def test_ten_digits_are_asked_for_and_answered():
    """On a network trained on real digits, least squares reaches each requested output within 0.05."""
    data = jaxnn.datasets.load("mnist-5k")
    x = jaxnn.datasets.encode_images(data.train.images)
    t = jaxnn.datasets.encode_labels(data.train.labels)
    for seed in range(3):
        network = jaxnn.init(jax.random.key(seed), (784, 200, 10), use_bias=False)
        network, _ = jaxnn.train(network, x, t, epochs=10, batch_size=1, key=jax.random.key(seed))
        pictures = jaxnn.backquery(network, TARGETS, method="least_squares")
        outputs = jaxnn.query(network, pictures)
        np.testing.assert_array_equal(jnp.argmax(outputs, -1), np.arange(10))
        np.testing.assert_allclose(outputs, TARGETS, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("activation", "advice"), [("relu", "leaky_relu"), ("gelu", "softplus"), ("softmax", "logits")]
)
def test_an_activation_without_an_inverse_is_named_with_what_to_use(activation, advice):
    network = networks((4, 3, 2), output_activation=activation)
    with pytest.raises(ValueError, match=f"'{activation}' in its layer 'output'.*{advice}"):
        jaxnn.backquery(network, [0.5, 0.5])
    if activation != "softmax":
        network = networks((4, 3, 2), activation=activation, output_activation="sigmoid")
        with pytest.raises(ValueError, match=f"'{activation}' in its layer 'hidden_0'"):
            jaxnn.backquery(network, [0.5, 0.5])


@pytest.mark.parametrize(
    ("y", "options", "error", "match"),
    [
        ([0.5], {}, ValueError, r"`y` must have shape \(\.\.\., 2\).*got \(1,\)"),
        (0.5, {}, ValueError, r"`y` must have shape \(\.\.\., 2\).*got \(\)"),
        ([1.0, 0.0], {}, ValueError, "strictly between 0.0 and 1.0.*'sigmoid'; got values from 0.0 to 1.0"),
        ([np.nan, 0.5], {}, ValueError, "strictly between"),
        ([0.5, 0.5], {"method": "inverse"}, ValueError, "`method` must be one of 'transpose'"),
        (
            [0.5, 0.5],
            {"margin": 0.5},
            ValueError,
            r"`margin` must lie in \[1.19209e-07, 0.5\); got 0.5",
        ),
        ([0.5, 0.5], {"margin": 0}, ValueError, "`margin` must lie in"),
        ([0.5, 0.5], {"margin": 1e-8}, ValueError, r"`margin` must lie in \[1.19209e-07"),
        ([0.5, 0.5], {"margin": "a"}, TypeError, "`margin` must be a number"),
        ([0.5, 0.5], {"sweeps": 0}, ValueError, "`sweeps` must be at least 1"),
        ([0.5, 0.5], {"steps": 0}, ValueError, "`steps` must be at least 1"),
        (["a", "b"], {}, TypeError, "`y` must be an array of numbers"),
    ],
)
def test_bad_input_is_refused(y, options, error, match):
    with pytest.raises(error, match=match):
        jaxnn.backquery(networks((4, 3, 2)), y, **options)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("margin", [1e-6, 0.499])
@pytest.mark.parametrize("method", ["transpose", "least_squares"])
def test_a_margin_may_be_narrow_or_wide(method, margin):
    x = jaxnn.backquery(networks((20, 10, 3)), [0.9, 0.2, 0.4], method=method, margin=margin)
    assert np.all(np.isfinite(x))


@pytest.mark.long
def test_more_sweeps_are_never_further_from_the_answer():
    for key in range(5):
        network = jaxnn.init(jax.random.key(key), (20, 12, 4), activation="elu")
        network = jax.tree.map(lambda a: 4 * a, network)
        y = 3 * jax.random.uniform(jax.random.key(key), (4,))
        errors = []
        for sweeps in (1, 2, 3, 5):
            x = jaxnn.backquery(network, y, method="least_squares", sweeps=sweeps)
            errors.append(float(jnp.sum((jaxnn.query(network, x) - y) ** 2)))
        assert errors == sorted(errors, reverse=True)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("method", ["transpose", "least_squares"])
def test_targets_on_an_explicit_mesh_are_taken(method):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    network, y = networks((20, 10, 3)), jax.random.uniform(jax.random.key(2), (16, 3))
    spread = jax.device_put(y, jax.NamedSharding(mesh, jax.P("d")))
    x = jaxnn.backquery(network, spread, method=method)
    np.testing.assert_allclose(x, jaxnn.backquery(network, y, method=method), atol=1e-4)


def test_layers_that_do_not_fit_are_named():
    dense = jaxnn.Dense(jnp.zeros((3, 2)), jnp.zeros(2), "sigmoid")
    for layers, match in [
        ((), "at least one layer"),
        ((dense, dense), r"'output' has a kernel of shape \(3, 2\).*expected \(2, n_out\)"),
        ((dense.replace(bias=jnp.zeros(1)),), r"a bias of shape \(1,\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            jaxnn.backquery(jaxnn.Network(layers), [0.5, 0.5])
    stack = jax.vmap(lambda key: jaxnn.init(key, (4, 2)))(jax.random.split(jax.random.key(0), 3))
    with pytest.raises(ValueError, match="a stack of shape"):
        jaxnn.backquery(stack, [0.5, 0.5])


def test_only_a_network_can_be_asked_backwards():
    with pytest.raises(TypeError, match="`network` must be a jaxnn.Network"):
        jaxnn.backquery(lambda x: x, [0.5])


def test_traced_values_are_not_checked_but_shapes_are():
    network = networks((4, 3, 2))
    x = jax.jit(jaxnn.backquery)(network, jnp.array([1.0, 0.0]))  # logit(1) is infinite
    assert not np.all(np.isfinite(x))
    solve = jax.jit(lambda y: jaxnn.backquery(network, y, method="least_squares"))
    assert np.all(np.isnan(solve(jnp.array([1.0, 0.5]))))  # not a picture for what cannot be
    assert np.all(np.isfinite(solve(jnp.array([0.9, 0.5]))))
    with pytest.raises(ValueError, match=r"`y` must have shape \(\.\.\., 2\)"):
        jax.jit(jaxnn.backquery)(network, jnp.ones(3))
