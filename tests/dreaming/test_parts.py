"""The parts of a dream: transforms beside SciPy, the rest beside NumPy, slopes beside differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

import jaxnn
from jaxnn import dreaming
from tests.conftest import in_precision

LONG = pytest.mark.long
SHAPES = [(11, 8), pytest.param((8, 11, 3), marks=LONG)]
FILLS = [None, 0.3]


def image_of(shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape)


def in_scipy(function, image, fill, **options):
    """A function of `scipy.ndimage` on each channel."""
    mode = {"mode": "nearest"} if fill is None else {"mode": "grid-constant", "cval": fill}
    planes = image[..., None] if image.ndim == 2 else image
    done = [function(planes[..., c], order=1, **mode, **options) for c in range(planes.shape[-1])]
    return np.stack(done, axis=-1).reshape(*done[0].shape, *image.shape[2:])


# --- transforms


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", FILLS)
def test_rotate_equals_scipy(shape, fill):
    image = image_of(shape)
    for angle in (0.0, 7.3, -31.0, 90.0, 200.0):
        turned = dreaming.rotate(angle, angle, fill=fill)(jax.random.key(0), jnp.asarray(image, jnp.float32))
        expected = in_scipy(scipy.ndimage.rotate, image, fill, angle=angle, reshape=False)
        np.testing.assert_allclose(turned, expected, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", FILLS)
def test_scale_equals_scipy(shape, fill):
    image = image_of(shape)
    middle = (np.array(shape[:2]) - 1) / 2
    for factor in (1.0, 0.7, 1.37, 3.0):
        scaled = dreaming.scale(factor, factor, fill=fill)(jax.random.key(0), jnp.asarray(image, jnp.float32))
        expected = in_scipy(
            scipy.ndimage.affine_transform, image, fill, matrix=np.diag(np.full(2, 1 / factor)),
            offset=middle - middle / factor,
        )  # fmt: skip
        np.testing.assert_allclose(scaled, expected, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", FILLS)
def test_jitter_is_every_shift_of_scipy_alike_often(shape, fill):
    image = image_of(shape)
    shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    expected = np.stack([in_scipy(scipy.ndimage.shift, image, fill, shift=shift) for shift in shifts])
    keys = jax.random.split(jax.random.key(0), 500)
    shaken = jax.vmap(dreaming.jitter(2, fill=fill), (0, None))(keys, jnp.asarray(image, jnp.float32))
    far = np.abs(np.asarray(shaken)[:, None] - expected).max(axis=tuple(range(2, expected.ndim + 1)))
    assert far.min(axis=1).max() < 1e-6
    counts = np.bincount(far.argmin(axis=1), minlength=25)
    assert counts.min() > 5  # of 20 expected
    assert counts.max() < 40


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 6.0])
def test_blur_equals_scipy(shape, sigma):
    image = image_of(shape)
    blurred = dreaming.blur(sigma)(jax.random.key(0), jnp.asarray(image, jnp.float32))
    sigmas = (sigma, sigma, 0)[: image.ndim]
    expected = scipy.ndimage.gaussian_filter(image, sigmas, mode="nearest")
    np.testing.assert_allclose(blurred, expected, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", FILLS)
def test_pad_equals_numpy(shape, fill):
    image = image_of(shape).astype(np.float32)
    options = {"mode": "edge"} if fill is None else {"constant_values": np.float32(fill)}
    expected = np.pad(image, ((3, 3), (3, 3), (0, 0))[: image.ndim], **options)
    np.testing.assert_array_equal(dreaming.pad(3, fill=fill)(jax.random.key(0), jnp.asarray(image)), expected)


def test_noise_has_its_mean_and_deviation():
    noise = np.asarray(dreaming.noise(0.2)(jax.random.key(0), jnp.full((200, 200), 3.0))) - 3
    assert abs(noise.mean()) < 0.004
    assert abs(noise.std() - 0.2) < 0.003


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    "part", [dreaming.rotate(-20, 40), dreaming.scale(0.5, 2.0)], ids=["rotate", "scale"]
)
def test_the_draw_is_even_over_its_range(part):
    # A ramp tells by its slope how far it was turned or scaled.
    ramp = jnp.arange(21.0)[:, None] - 10 + jnp.zeros((21, 21))
    low, high = (float(end) for end in part.values[1:])
    seen = np.asarray(jax.vmap(part, (0, None))(jax.random.split(jax.random.key(0), 2000), ramp))
    down, across = seen[:, 11, 10] - seen[:, 10, 10], seen[:, 10, 11] - seen[:, 10, 10]
    drawn = np.rad2deg(np.arctan2(across, down)) if part.function.__name__ == "_rotate" else 1 / down
    assert low <= drawn.min() + 1e-3
    assert drawn.max() <= high + 1e-3
    np.testing.assert_allclose(np.quantile(drawn, [0, 0.25, 0.5, 0.75, 1]), np.linspace(low, high, 5),
                               atol=0.04 * (high - low))  # fmt: skip


TRANSFORMS = {
    "jitter": dreaming.jitter(2),
    "scale": dreaming.scale(0.7, 1.4, fill=0.5),
    "rotate": dreaming.rotate(-40, 40),
    "pad": dreaming.pad(2),
    "blur": dreaming.blur(1.2),
    "noise": dreaming.noise(0.3),
}


def assert_slopes_are_differences(function, *arrays):
    """Of a scalar function, along a random direction, in float64."""
    rng = np.random.default_rng(1)
    directions = [jnp.asarray(rng.normal(size=np.shape(a))) for a in arrays]
    h = 1e-6
    ahead = function(*(a + h * d for a, d in zip(arrays, directions, strict=True)))
    behind = function(*(a - h * d for a, d in zip(arrays, directions, strict=True)))
    slopes = jax.grad(function, argnums=tuple(range(len(arrays))))(*arrays)
    along = sum(jnp.sum(s * d) for s, d in zip(slopes, directions, strict=True))
    assert abs(along) > 1e-4
    np.testing.assert_allclose(along, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("part", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_slopes_through_a_transform_are_differences(part, shape):
    with in_precision("float64"):

        def total(image):
            moved = part(jax.random.key(2), image)
            assert moved.dtype == jnp.float64
            return jnp.sum(jnp.cos(jnp.arange(moved.size)) * moved.ravel() ** 2)

        assert_slopes_are_differences(total, jnp.asarray(image_of(shape)))


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_slopes_in_the_range_of_a_transform_are_differences(name):
    with in_precision("float64"):
        image = jnp.asarray(image_of((9, 9)))

        def total(value):
            moved = getattr(dreaming, name)(value, value)(jax.random.key(0), image)
            return jnp.sum(jnp.cos(jnp.arange(moved.size)) * moved.ravel())

        assert_slopes_are_differences(total, jnp.asarray(1.234))


@pytest.mark.parametrize("part", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=LONG)])
def test_a_transform_keeps_the_dtype_and_the_same_key_the_draw(part, dtype):
    image = jnp.asarray(image_of((8, 8)), dtype)
    first, again, other = (part(jax.random.key(seed), image) for seed in (0, 0, 1))
    assert first.dtype == dtype
    np.testing.assert_array_equal(first, again)
    if part not in (TRANSFORMS["pad"], TRANSFORMS["blur"]):
        assert np.any(np.asarray(first != other))


def test_standard_transforms_grow_with_the_image():
    options = {side: [p.options for p in dreaming.standard_transforms((side, side))] for side in (28, 224)}
    assert options[224] == [(12,), (8,), (), (), (4,)]
    assert options[28] == [(2,), (1,), (), (), (1,)]


# --- penalties


def test_penalties_equal_numpy():
    image, mean = image_of((5, 4, 3)), image_of((5, 4, 3), 1)
    with in_precision("float64"):
        down, across = np.abs(np.diff(image, axis=0)).sum(), np.abs(np.diff(image, axis=1)).sum()
        for part, expected in (
            (dreaming.l1(0.5, center=0.2), 0.5 * np.abs(image - 0.2).mean()),
            (dreaming.l2(0.5, center=0.2), 0.5 * ((image - 0.2) ** 2).mean()),
            (dreaming.distance(mean, 3.0), 3 * ((image - mean) ** 2).mean()),
            (dreaming.total_variation(2.0), 2 * (down + across) / image.size),
        ):
            np.testing.assert_allclose(part(jnp.asarray(image)), expected, rtol=1e-12)
            assert_slopes_are_differences(part, jnp.asarray(image))


def test_typicality_is_the_squared_distance_to_the_nearest_component():
    with in_precision("float64"):
        images = np.random.default_rng(0).uniform(0, 1, (30, 5, 4))
        prior = jaxnn.prior(images, components=2, rank=6, key=jax.random.key(0))
        image = jnp.asarray(image_of((5, 4), 1))
        part = dreaming.typicality(prior, 3.0)
        basis = np.asarray(prior.basis).reshape(20, 6)
        rest = (np.asarray(image) - images.mean(axis=0)).ravel()
        distances = []
        for center, factor in zip(*map(np.asarray, (prior.centers, prior.factors)), strict=True):
            covariance = basis @ factor @ factor.T @ basis.T
            covariance += prior.noise * (np.eye(20) - basis @ basis.T)
            difference = rest - basis @ center
            distances.append(difference @ np.linalg.solve(covariance, difference))
        np.testing.assert_allclose(part(image), 3 * min(distances) / 20, rtol=1e-8)
        np.testing.assert_allclose(part(image.ravel()), part(image), rtol=1e-12)
        assert_slopes_are_differences(part, image)
        with pytest.raises(ValueError, match="`prior` must be of inputs of shape"):
            part(jnp.ones((5, 5)))


# --- parameterizations


PARAMETERIZATIONS = {
    "pixel": dreaming.pixel(0.5),
    "fourier": dreaming.fourier(0.5),
    "fourier, flat": dreaming.fourier(0.5, decay=0.0),
    "cppn": dreaming.cppn(5, 3),
}


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("part", PARAMETERIZATIONS.values(), ids=PARAMETERIZATIONS)
@pytest.mark.parametrize("shape", [(7, 6, 3), *(pytest.param(s, marks=LONG) for s in ((6, 7), (5, 4, 2)))])
def test_slopes_through_a_parameterization_are_differences(part, shape):
    with in_precision("float64"):
        params = part.init(jax.random.key(0), shape, jnp.float64)
        leaves, structure = jax.tree.flatten(params)

        def total(*leaves):
            raw = part.image(jax.tree.unflatten(structure, leaves), shape)
            assert raw.shape == shape
            assert raw.dtype == jnp.float64
            return jnp.sum(jnp.cos(jnp.arange(raw.size)) * raw.ravel() ** 2)

        assert_slopes_are_differences(total, *leaves)


@pytest.mark.parametrize("part", list(PARAMETERIZATIONS.values())[:3], ids=list(PARAMETERIZATIONS)[:3])
@pytest.mark.parametrize("shape", [(6, 7), pytest.param((7, 6, 3), marks=LONG)])
def test_a_given_image_is_made_again(part, shape):
    with in_precision("float64"):
        raw = jnp.asarray(np.random.default_rng(0).normal(size=shape))
        np.testing.assert_allclose(part.image(part.invert(raw), shape), raw, atol=1e-12)


def test_from_prior_draws_inputs_of_its_mean_and_variance():
    with in_precision("float64"):
        images = np.random.default_rng(0).normal(0.5, 0.05, (30, 6, 7))
        prior = jaxnn.prior(images, components=2, rank=6, key=jax.random.key(0))._replace(low=0.0, high=1.0)
        part = dreaming.from_prior(prior, 1.0)
        drawn = [part.init(key, (6, 7), jnp.float64) for key in jax.random.split(jax.random.key(1), 500)]
        made = jax.nn.sigmoid(jnp.stack([part.image(params, (6, 7)) for params in drawn]))
        np.testing.assert_allclose(made.mean(axis=0), images.mean(axis=0), atol=0.02)
        along = np.tensordot(np.asarray(made) - images.mean(axis=0), prior.basis, 2)
        np.testing.assert_allclose(along.var(axis=0), prior.variances(), rtol=0.25)
        np.testing.assert_allclose(part.invert(part.image(drawn[0], (6, 7))), drawn[0], atol=1e-8)
        with pytest.raises(ValueError, match="`prior` must be of inputs of shape"):
            part.image(drawn[0], (6, 6))


def test_fourier_equals_numpy():
    shape = (6, 9)
    with in_precision("float64"):
        part = dreaming.fourier(decay=1.5)
        params = np.asarray(part.init(jax.random.key(0), shape, jnp.float64))
        frequencies = np.hypot(np.fft.fftfreq(6)[:, None], np.fft.rfftfreq(9))
        spectrum = (params[..., 0] + 1j * params[..., 1]) / np.maximum(frequencies, 1 / 9) ** 1.5
        expected = np.fft.irfft2(spectrum, s=shape, norm="ortho") / 4
        np.testing.assert_allclose(part.image(jnp.asarray(params), shape), expected, atol=1e-12)
        assert abs(np.std(params) - 0.01) < 0.002


@pytest.mark.long
def test_the_colors_of_fourier_are_correlated_as_in_photographs():
    shape = (32, 32, 3)
    part = dreaming.fourier()
    raw = np.asarray(part.image(part.init(jax.random.key(0), shape, jnp.float32), shape)).reshape(-1, 3)
    mixed = np.array([[0.26, 0.09, 0.02], [0.27, 0, -0.05], [0.27, -0.09, 0.03]])
    expected = mixed @ mixed.T
    expected /= np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(np.corrcoef(raw.T), expected, atol=0.1)
    two = part.image(part.init(jax.random.key(0), (32, 32, 2), jnp.float32), (32, 32, 2)).reshape(-1, 2)
    assert abs(np.corrcoef(np.asarray(two).T)[0, 1]) < 0.3


# --- objectives


VALUES = {
    "map": np.random.default_rng(0).normal(size=(4, 5, 3)),
    "units": np.random.default_rng(1).normal(size=6),
    "output_in": np.random.default_rng(2).normal(size=4),
}
OUTPUT = np.random.default_rng(3).normal(size=4)
WITHOUT = {name: VALUES[name] for name in ("map", "units")}


def softmax(signals):
    return np.exp(signals) / np.exp(signals).sum()


def test_objectives_equal_numpy():
    vector, wanted = np.array([1.0, -2.0, 0.5]), np.arange(6.0)
    signal = VALUES["output_in"]
    with in_precision("float64"):
        for objective, values, expected in (
            (dreaming.logit(2), VALUES, signal[2]),
            (dreaming.logit(-1), WITHOUT, OUTPUT[3]),
            (dreaming.probability(1), VALUES, softmax(signal)[1]),
            (dreaming.probability(1), WITHOUT, softmax(OUTPUT)[1]),
            (dreaming.probability(1, activation="sigmoid"), VALUES, 1 / (1 + np.exp(-signal[1]))),
            (dreaming.neuron("units", 3), VALUES, VALUES["units"][3]),
            (dreaming.neuron("map", (3, 0, 1)), VALUES, VALUES["map"][3, 0, 1]),
            (dreaming.channel("map", 2), VALUES, VALUES["map"][..., 2].mean()),
            (dreaming.channel("units", 2), VALUES, VALUES["units"][2]),
            (dreaming.layer("map"), VALUES, VALUES["map"].mean()),
            (dreaming.deepdream("map"), VALUES, (VALUES["map"] ** 2).mean()),
            (dreaming.direction("map", vector), VALUES, (VALUES["map"] @ vector).mean()),
            (
                dreaming.matching("units", wanted), VALUES,
                -((VALUES["units"] - wanted) ** 2).sum() / (wanted**2).sum(),
            ),
            (
                2 * dreaming.logit(2) - dreaming.layer("map") / 4 + (lambda output, values: output[0]),
                VALUES,
                2 * signal[2] - VALUES["map"].mean() / 4 + OUTPUT[0],
            ),
            (
                sum([dreaming.logit(0), dreaming.logit(1)]) - (lambda output, values: values["units"][0]),
                VALUES,
                signal[0] + signal[1] - VALUES["units"][0],
            ),
            ((lambda output, values: output[1]) - dreaming.logit(0) * -3, VALUES, OUTPUT[1] + 3 * signal[0]),
        ):  # fmt: skip
            found = objective(jnp.asarray(OUTPUT), {name: jnp.asarray(v) for name, v in values.items()})
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_network_inside_of_the_model_does_not_give_the_logits():
    output, inner = jnp.array([1.0, 2.0]), jnp.arange(3.0)
    assert float(dreaming.logit(0)(output, {"output_in": inner})) == 1.0
    assert float(dreaming.logit(0)(output, {"output_in": inner[1:] + 4})) == 5.0


def test_counts_in_an_objective_keep_their_weight():
    objective = dreaming.logit(0) + 0.5 * (
        0 * dreaming.logit(0) + (lambda output, values: jnp.sum(output > 0))
    )
    assert float(objective(jnp.array([2.0, 3.0, -1.0]), {})) == 3.0


def test_a_traced_index_out_of_range_gives_nan():
    found = jax.jit(lambda i: dreaming.neuron("units", i)(None, {"units": jnp.arange(6.0)}))
    assert found(5) == 5
    assert np.isnan(found(6))


def test_an_index_does_not_wrap_around():
    with in_precision("float64"), pytest.raises(ValueError, match="`index` must be that of an element"):
        dreaming.logit(2**32 + 1)


def test_of_counts_an_entry_is_a_number():
    assert float(dreaming.logit(1)(jnp.array([3, 4]), {})) == 4.0


def test_diversity_equals_numpy():
    maps = np.random.default_rng(0).normal(size=(3, 2, 2, 4)).astype(np.float32)
    objective = dreaming.diversity("map", "dreams")
    found = jax.vmap(lambda value: objective(None, {"map": value}), axis_name="dreams")(maps)
    grams = np.stack([(p.T @ p).ravel() for p in maps.reshape(3, 4, 4)])
    grams /= np.linalg.norm(grams, axis=1, keepdims=True)
    cosines = grams @ grams.T
    np.testing.assert_allclose(found, -(cosines.sum(axis=1) - 1) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: dreaming.jitter(-1), ValueError, "`pixels` must be at least 0; got -1"),
        (lambda: dreaming.jitter(0.5), TypeError, "`pixels` must be an integer"),
        (lambda: dreaming.scale(2.0, 1.0), ValueError, "`low` must not be above `high`; got 2 and 1"),
        (lambda: dreaming.scale(0.0, 1.0), ValueError, "`low` must be above 0"),
        (lambda: dreaming.rotate([1.0, 2.0], 3.0), ValueError, "`low` must have shape (), one number"),
        (lambda: dreaming.rotate("a"), TypeError, "`low` must be an array of numbers"),
        (lambda: dreaming.rotate(0.0, np.nan), ValueError, "`high` must be finite"),
        (lambda: dreaming.blur(0), ValueError, "`sigma` must be above 0"),
        (lambda: dreaming.noise(-1), ValueError, "`std` must be at least 0; got -1"),
        (
            lambda: dreaming.standard_transforms((5,)),
            ValueError,
            "`shape` must be (h, w) or (h, w, c)",
        ),
        (lambda: dreaming.l1(-1.0), ValueError, "`weight` must be at least 0"),
        (lambda: dreaming.pixel(-1.0), ValueError, "`std` must be at least 0"),
        (lambda: dreaming.fourier(decay="a"), TypeError, "`decay` must be a number"),
        (lambda: dreaming.cppn(0), ValueError, "`width` must be at least 1"),
        (lambda: dreaming.neuron(3, 3), TypeError, "`layer` must be a string; got int 3"),
        (lambda: dreaming.neuron("a", 1.0), TypeError, "`index` must be an integer"),
        (lambda: dreaming.neuron("a", np.arange(3)), TypeError, "jax.vmap"),
        (lambda: dreaming.logit("a"), TypeError, "`index` must be an array of numbers; got str 'a'"),
        (lambda: dreaming.logit(None), TypeError, "`index` must be an array of numbers; got NoneType"),
        (lambda: dreaming.logit(2**40), ValueError, "`index` must hold numbers that fit"),
        (lambda: dreaming.direction("a", [1.0, np.inf]), ValueError, "`vector` must be finite"),
        (lambda: dreaming.matching("a", [np.nan]), ValueError, "`activations` must be finite"),
        (lambda: dreaming.distance([np.nan]), ValueError, "`mean` must be finite"),
        (lambda: dreaming.diversity("a", None), TypeError, "`axis` must be a string"),
        (lambda: dreaming.probability(0, activation="tanh"), ValueError, "`activation` must be one of"),
        (lambda: dreaming.logit(0) + 3, TypeError, "`objective` must be"),
        (lambda: dreaming.logit(0) * "a", TypeError, "`factor` must be"),
        (lambda: dreaming.logit(0) / 0, ValueError, "`divisor` must not be 0"),
        (lambda: dreaming.flattened(3), TypeError, "`model` must be callable"),
    ],
)
def test_wrong_arguments_of_parts_raise(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_flattened_answers_and_names_as_the_network_does():
    network = jaxnn.init(jax.random.key(0), (12, 5, 2))
    x = jax.random.uniform(jax.random.key(1), (12,))
    y, values = jaxnn.capture(dreaming.flattened(network), x.reshape(3, 4))
    expected, named = jaxnn.capture(network, x)
    np.testing.assert_array_equal(y, expected)
    assert list(values) == list(named)
