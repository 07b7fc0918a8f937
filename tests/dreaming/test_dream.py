"""`dream`: what it climbs to, and that it is the same dream however it is asked for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

import jaxnn
from experiments._common.digits import load_digits
from experiments._common.networks import train_sigmoids
from jaxnn import dreaming
from tests.conftest import in_precision

LONG = pytest.mark.long
PLAIN = {"parameterization": dreaming.pixel(), "transforms": ()}  # compiles fast
SGD = optax.sgd(0.5)
USUAL = {"parameterization": None, "transforms": None}  # what `dream` does where nothing is said
BIAS = jax.nn.initializers.normal(0.1)


def network(seed=0, sizes=(36, 12, 4), **options):
    return jaxnn.init(jax.random.key(seed), sizes, bias_init=BIAS, **options)


def dream(model=None, objective=None, *, seed=0, shape=(6, 6), steps=30, **options):
    model = dreaming.flattened(network()) if model is None else model
    objective = dreaming.logit(1) if objective is None else objective
    options = PLAIN | options
    return jaxnn.dream(model, objective, key=jax.random.key(seed), shape=shape, steps=steps, **options)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


class Convolution(nn.Module):
    @nn.compact
    def __call__(self, x):
        maps = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(jaxnn.tap(maps, "maps").reshape(-1))


def convolution(channels=1):
    module = Convolution()
    variables = module.init(jax.random.key(0), jnp.zeros((6, 6, channels)))
    return jax.tree_util.Partial(module.apply, variables)


# --- what it climbs to


def linear(weights, x):
    return jnp.sum(weights * x)


@pytest.mark.parametrize("parameterization", [dreaming.pixel(), dreaming.fourier()], ids=["pixel", "fourier"])
def test_a_linear_model_dreams_of_the_bounds_where_its_weights_point(parameterization):
    weights = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (6, 6)), jnp.float32)
    found = dream(
        jax.tree_util.Partial(linear, weights), lambda output, values: output, bounds=(-1.0, 3.0), steps=800,
        parameterization=parameterization, transforms=(),
    )  # fmt: skip
    np.testing.assert_allclose(found.image, np.where(weights > 0, 3, -1), atol=0.05)
    assert np.all((found.image > -1) & (found.image < 3))
    assert bool(found.has_gradient)


def test_without_bounds_a_parabola_is_climbed_to_its_top():
    top = jnp.linspace(-5, 5, 7)
    found = dream(
        lambda x: x, lambda output, values: -jnp.sum((output - top) ** 2), shape=(7,), bounds=None, steps=1000
    )
    np.testing.assert_allclose(found.image, top, atol=1e-3)
    np.testing.assert_allclose(found.value, 0, atol=1e-4)


def test_penalties_are_weighed_against_the_objective():
    # sum x_i - 2 / 4 * sum (x_i - 0.2)^2 has its top where x_i = 1.2.
    found = dream(
        lambda x: x, lambda output, values: jnp.sum(output), shape=(4,), bounds=(0.0, 2.0), steps=800,
        penalties=(dreaming.l2(2.0, center=0.2), lambda image: jnp.sum(image) * 0.0),
    )  # fmt: skip
    np.testing.assert_allclose(found.image, 1.2, atol=1e-2)
    np.testing.assert_allclose(found.value, 4.8, atol=0.05)  # without what the penalty takes


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=LONG), pytest.param(2, marks=LONG)])
def test_all_ten_dreamed_digits_are_answered_and_beat_every_training_image(seed):
    digits = load_digits("digits")
    trained = train_sigmoids(jax.random.key(seed), digits, hidden=(30,), epochs=10, progress=False)
    model = dreaming.flattened(trained)
    found = jax.vmap(lambda i: dream(model, dreaming.logit(i), shape=(8, 8), steps=512, transforms=()))(
        jnp.arange(10)
    )
    answers = jax.vmap(model)(found.image)
    assert np.argmax(answers, axis=1).tolist() == list(range(10))
    assert np.min(np.diag(answers)) > 0.99
    _, seen = jaxnn.capture(trained, digits.inputs)
    assert np.all(found.value > np.max(seen["output_in"], axis=0))
    np.testing.assert_allclose(found.value, jnp.log(np.diag(answers) / (1 - np.diag(answers))), rtol=0.02)


@LONG
def test_a_cppn_and_a_color_image_climb():
    for parameterization, rate in ((dreaming.cppn(6, 2), 0.01), (dreaming.fourier(), 0.05)):
        found = dream(
            convolution(3), dreaming.channel("maps", 2), shape=(6, 6, 3), parameterization=parameterization,
            optimizer=optax.adam(rate),
        )  # fmt: skip
        assert found.image.shape == (6, 6, 3)
        assert found.trace[-10:].mean() > found.trace[:10].mean()


@pytest.mark.long
def test_an_image_is_found_again_from_its_activations():
    model = convolution()
    wanted = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (6, 6, 1)), jnp.float32)
    _, values = jaxnn.capture(model, wanted)
    found = dream(
        model, dreaming.matching("maps", values["maps"]), shape=(6, 6, 1), transforms=(), steps=1500,
        parameterization=dreaming.pixel(), optimizer=optax.adam(0.02),
    )  # fmt: skip
    assert found.value > -1e-3
    assert np.abs(found.image - wanted).mean() < 0.03


@LONG
def test_diversity_makes_dreams_of_one_channel_unlike_each_other():
    model = convolution()

    def dreams(weight):
        objective = dreaming.channel("maps", 1) + weight * dreaming.diversity("maps", "dreams")
        return jax.vmap(
            lambda key: (
                jaxnn.dream(model, objective, key=key, shape=(6, 6, 1), transforms=(), steps=100).image
            ),
            axis_name="dreams",
        )(jax.random.split(jax.random.key(0), 3))

    def cosine(images):
        maps = jax.vmap(lambda image: jaxnn.capture(model, image)[1]["maps"])(images).reshape(3, -1, 4)
        grams = jnp.einsum("npc,npd->ncd", maps, maps).reshape(3, -1)
        grams /= jnp.linalg.norm(grams, axis=1, keepdims=True)
        return float(jnp.min(grams @ grams.T))

    assert cosine(dreams(3.0)) < cosine(dreams(0.0)) - 0.05


@pytest.mark.parametrize(("dtype", "sign"), [("bfloat16", 1), pytest.param("float32", -1, marks=LONG)])
def test_a_dream_that_wants_more_stays_within_its_bounds(dtype, sign):
    # -1.7 + 1.9 rounds to more than 0.2 in half precision.
    weights = jnp.full(5, 100.0 * sign, dtype)
    found = dream(
        jax.tree_util.Partial(linear, weights), lambda output, values: output, shape=(5,), bounds=(-1.7, 0.2),
        steps=400, optimizer=optax.adam(0.5),
    )  # fmt: skip
    low, high = jnp.asarray([-1.7, 0.2], dtype)
    assert np.all((found.image >= low) & (found.image <= high))
    np.testing.assert_allclose(np.float64(found.image), float(high if sign > 0 else low), atol=0.02)


SMALL = [(1, 1), (1, 1, 3), (1, 5), (5, 1), (2, 3, 4, 5), (7,), ()]


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("shape", [SMALL[0], *(pytest.param(s, marks=LONG) for s in SMALL[1:])])
def test_any_shape_dreams(shape):
    start = jnp.full(shape, 0.3)
    found = dream(
        lambda x: x,
        lambda output, values: jnp.sum(output),
        shape=shape,
        start=start,
        steps=9,
        record_every=2,
        **USUAL,
    )
    assert found.image.shape == shape
    assert found.frames.shape == (5, *shape)
    assert np.all(found.image > 0.3)


def test_a_schedule_is_an_optimizer_and_the_answers_closed_over_may_be_traced():
    top = jnp.linspace(0.2, 0.8, 4)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 200))

    def one(factor):
        return jaxnn.dream(
            lambda x: factor * x, lambda output, values: -jnp.sum((output - factor * top) ** 2),
            key=jax.random.key(0), shape=(4,), steps=200, optimizer=optimizer,
            penalties=(lambda image: 0.0 * factor * jnp.sum(image),),
        ).image  # fmt: skip

    np.testing.assert_allclose(jax.vmap(one)(jnp.array([1.0, 2.0])), jnp.stack([top, top]), atol=2e-3)


def adapted_linen():
    module = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda x: x.reshape(-1), nn.Dense(3)])
    return jaxnn.from_linen(module, module.init(jax.random.key(0), jnp.zeros((6, 6, 1)))), "layers_0"


def adapted_nnx():
    rngs = nnx.Rngs(0)
    layers = (nnx.Conv(1, 4, (3, 3), rngs=rngs), nnx.relu, nnx.Dropout(0.5, rngs=rngs))
    model = nnx.Sequential(*layers, lambda x: x.reshape(-1), nnx.Linear(144, 3, rngs=rngs))
    return jaxnn.from_nnx(model), "layers/0"


def adapted_equinox():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0))
    layers = [
        eqx.nn.Lambda(lambda x: jnp.moveaxis(x, -1, 0)), eqx.nn.Conv2d(1, 4, 3, key=keys[0]),
        eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(64, 3, key=keys[1]),
    ]  # fmt: skip
    return jaxnn.from_equinox(eqx.nn.Sequential(layers)), "layers/1"


@LONG
@pytest.mark.parametrize("adapted", [adapted_linen, adapted_nnx, adapted_equinox])
def test_modules_of_other_frameworks_dream(adapted):
    model, layer = adapted()
    found = dream(model, dreaming.neuron(layer, (1, 2, 3)), shape=(6, 6, 1), transforms=())
    assert found.value > found.trace[0] + 0.1
    _, values = jaxnn.capture(model, found.image)
    np.testing.assert_allclose(found.value, values[layer][1, 2, 3], rtol=1e-5)


# --- the record


@pytest.mark.long
def test_trace_value_and_frames_are_those_of_shorter_dreams():
    options = {"transforms": (), "seed": 3}
    found = dream(steps=10, record_every=4, **options)
    assert found.trace.shape == (10,)
    assert found.frames.shape == (3, 6, 6)
    for steps, frame in ((4, found.frames[1]), (8, found.frames[2])):
        shorter = dream(steps=steps, **options)
        np.testing.assert_allclose(frame, shorter.image, atol=1e-6)
        np.testing.assert_allclose(found.trace[steps], shorter.value, rtol=1e-5)
        assert shorter.frames is None
    model = dreaming.flattened(network())
    _, values = jaxnn.capture(model, found.frames[0])
    np.testing.assert_allclose(found.trace[0], values["output_in"][1], rtol=1e-5)
    _, values = jaxnn.capture(model, found.image)
    np.testing.assert_allclose(found.value, values["output_in"][1], rtol=1e-5)
    even = dream(steps=8, record_every=4, **options)
    np.testing.assert_allclose(even.frames, found.frames, atol=1e-6)
    np.testing.assert_array_equal(even.frames[-1], even.image)


def test_a_given_start_is_drawn_in_from_the_bounds_only():
    start = jnp.linspace(0, 1, 36).reshape(6, 6)
    for parameterization in (dreaming.pixel(), dreaming.fourier()):
        found = dream(start=start, parameterization=parameterization, record_every=1, steps=1)
        np.testing.assert_allclose(found.frames[0], jnp.clip(start, 0.01, 0.99), atol=1e-5)
    free = dream(start=9 * start, bounds=None, record_every=1, steps=1)
    np.testing.assert_allclose(free.frames[0], 9 * start, atol=1e-4)


def test_a_back_query_is_a_start():
    net = network()
    picture = jaxnn.backquery(net, [0.01, 0.99, 0.01, 0.01]).reshape(6, 6)
    assert dream(start=picture).value > jaxnn.capture(net, picture.ravel())[1]["output_in"][1]


def test_transforms_in_their_order_and_cut_to_the_middle():
    def grow(key, image):
        return jnp.pad(image, ((1, 2), (0, 2)))  # the middle begins at (1, 1)

    seen = dream(
        lambda x: x, lambda output, values: output[0, 0], transforms=(grow, lambda key, image: 2 * image),
        start=jnp.arange(36.0).reshape(6, 6), bounds=None, steps=1,
    )  # fmt: skip
    assert float(seen.trace[0]) == pytest.approx(2.0, abs=1e-4)


@LONG
def test_the_image_is_smoother_with_total_variation():
    rough, smooth = dream(), dream(penalties=(dreaming.total_variation(50.0),))
    measure = dreaming.total_variation()
    assert measure(smooth.image) < measure(rough.image) / 2


# --- the same dream


@pytest.mark.long
def test_the_same_key_is_the_same_dream_whatever_is_beside_it():
    model = dreaming.flattened(network())
    alone = [dream(model, dreaming.logit(i), seed=5, steps=100, **USUAL) for i in range(4)]
    for count in (2, 4):
        beside = jax.vmap(lambda i: dream(model, dreaming.logit(i), seed=5, steps=100, **USUAL))(
            jnp.arange(count)
        )
        for i in range(count):
            np.testing.assert_allclose(beside.image[i], alone[i].image, atol=2e-4)
    assert np.abs(dream(seed=6, steps=100, **USUAL).image - alone[1].image).max() > 1e-3


@LONG
def test_dreams_over_networks_keys_and_starts_equal_a_loop():
    nets = [network(i) for i in range(3)]
    starts = jax.random.uniform(jax.random.key(1), (3, 6, 6))

    def one(net, key, start):
        return jaxnn.dream(
            dreaming.flattened(net), dreaming.logit(0), key=key, shape=(6, 6), start=start, steps=20
        )

    together = jax.vmap(one)(stack(nets), jax.random.split(jax.random.key(0), 3), starts)
    for i in range(3):
        apart = one(nets[i], jax.random.split(jax.random.key(0), 3)[i], starts[i])
        np.testing.assert_allclose(together.image[i], apart.image, atol=1e-4)
        np.testing.assert_allclose(together.trace[i], apart.trace, atol=1e-3)


@pytest.mark.long
def test_another_index_network_key_or_strength_compiles_nothing(caplog):
    def run(seed, weight):
        return dream(
            dreaming.flattened(network(seed)), dreaming.neuron("hidden_0", seed) * weight, seed=seed, steps=5,
            transforms=(dreaming.rotate(-weight, weight), dreaming.noise(weight)), bounds=(0.0, weight),
            penalties=(dreaming.total_variation(weight),), start=jnp.full((6, 6), weight / 2),
        )  # fmt: skip

    run(0, 1.0)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run(1, 2.0)
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    "dtype", ["bfloat16", *(pytest.param(d, marks=LONG) for d in ("float32", "float64"))]
)
@pytest.mark.long
def test_the_dtype_is_that_of_the_model(dtype):
    with in_precision(dtype):
        model = dreaming.flattened(network(dtype=dtype))
        found = dream(
            model, steps=4, record_every=2, penalties=(dreaming.l1(), dreaming.total_variation()), **USUAL
        )
        assert {leaf.dtype for leaf in found[:4]} == {jnp.dtype(dtype)}
        assert np.all(np.isfinite(np.asarray(found.image, np.float64)))


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=LONG)])
def test_half_precision_climbs_as_high_as_single(dtype):
    # Its parameters are held in single precision: their small steps, and the squares of slopes, are not lost.
    rounded = jax.tree.map(lambda leaf: leaf.astype(dtype), network())
    half = dream(dreaming.flattened(rounded), steps=512, **USUAL)
    single = dream(steps=512, **USUAL)
    _, values = jaxnn.capture(dreaming.flattened(network()), half.image.astype(jnp.float32))
    assert half.image.dtype == dtype
    np.testing.assert_allclose(values["output_in"][1], single.value, atol=2e-3)


@pytest.mark.long
def test_a_start_of_whole_numbers_is_of_the_type_of_the_model():
    with in_precision("float64"):
        model = dreaming.flattened(network(dtype="float32"))
        found = dream(model, start=np.full((6, 6), 3, np.uint8), bounds=(0, 255), steps=2)
        assert found.image.dtype == jnp.float32


@LONG
def test_old_keys_are_keys():
    old = jaxnn.dream(
        dreaming.flattened(network()), dreaming.logit(0), key=jax.random.PRNGKey(0), shape=(6, 6), steps=3
    )
    assert old.image.shape == (6, 6)


@LONG
def test_keys_spread_over_devices_give_the_same_dreams():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    model = dreaming.flattened(network())

    def one(key):
        return jaxnn.dream(model, dreaming.logit(1), key=key, shape=(6, 6), steps=5).image

    everywhere = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    many, here = (run(jax.random.split(jax.random.key(0), 8)) for run in (jax.jit(everywhere), jax.vmap(one)))
    np.testing.assert_allclose(many, here, atol=1e-5)


@pytest.mark.long
def test_the_slope_through_a_dream_is_its_difference():
    with in_precision("float64"):
        start = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (6, 6)))
        model = dreaming.flattened(network(dtype="float64"))

        @jax.jit
        def total(scale, start):
            found = dream(model, dreaming.logit(1) * scale, start=start, steps=4, optimizer=SGD)
            return jnp.sum(jnp.cos(jnp.arange(36.0)) * found.image.ravel())

        slopes, h = jax.grad(total, argnums=(0, 1))(1.5, start), 1e-6
        ahead, behind = total(1.5 + h, start), total(1.5 - h, start)
        np.testing.assert_allclose(slopes[0], (ahead - behind) / (2 * h), rtol=1e-5)
        step = jnp.zeros((6, 6)).at[2, 3].set(h)
        ahead, behind = total(1.5, start + step), total(1.5, start - step)
        np.testing.assert_allclose(slopes[1][2, 3], (ahead - behind) / (2 * h), rtol=1e-5)


# --- dead units


def dead(sizes=(36, 12, 4)):
    """A network of relus whose unit 3 is far below zero at any input in [0, 1]."""
    net = network(sizes=sizes, activation="relu", output_activation="identity")
    first = net.layers[0]
    return net.replace(layers=(first.replace(bias=first.bias.at[3].set(-2.0)), *net.layers[1:]))


@pytest.mark.long
def test_a_dead_unit_is_reported_and_woken_by_the_redirect():
    model, objective = dreaming.flattened(dead()), dreaming.neuron("hidden_0", 3)
    with pytest.warns(RuntimeWarning, match="no gradient at the start.*redirect"):
        found = dream(model, objective, steps=100, transforms=())
    assert not bool(found.has_gradient)
    assert float(found.value) == 0
    many = jax.vmap(
        lambda i: dream(model, dreaming.neuron("hidden_0", i), steps=1, transforms=(), record_every=1)
    )(jnp.arange(12))
    _, values = jaxnn.capture(model, many.frames[0, 0])
    np.testing.assert_array_equal(many.has_gradient, values["hidden_0_in"] > 0)
    assert 0 < many.has_gradient.sum() < 12
    woken = dream(model, objective, steps=100, transforms=(), redirect=100)
    assert bool(woken.has_gradient)
    assert woken.value > 0.1


@pytest.mark.long
def test_the_redirect_ends_and_changes_nothing_where_slopes_pass():
    model = dreaming.flattened(dead())
    options = {"transforms": (), "steps": 20}
    living = dreaming.logit(0)
    np.testing.assert_allclose(
        dream(model, living, redirect=20, **options).image, dream(model, living, **options).image, atol=1e-5
    )
    still = dreaming.neuron("hidden_0", 3)
    moved = dream(model, still, redirect=3, record_every=1, optimizer=optax.sgd(0.1), **options)
    steps = np.abs(np.diff(moved.frames, axis=0)).max(axis=(1, 2)) > 0
    assert steps.tolist() == [True] * 3 + [False] * 17


@LONG
def test_the_redirect_sends_upwards_only():
    # Minus the dead unit would have it lower still: that is not let through.
    with pytest.warns(RuntimeWarning, match="no gradient"):
        found = dream(dreaming.flattened(dead()), -dreaming.neuron("hidden_0", 3), steps=5, redirect=5)
    assert not bool(found.has_gradient)


# --- refusals


def nothing(*args, **options):
    raise AssertionError("work was done")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bounds": (1.0, 0.0)}, ValueError, "`bounds` must be (low, high) with low below high; got (1, 0)"),
        ({"bounds": (1.0, 1.0)}, ValueError, "`bounds` must be (low, high) with low below high; got (1, 1)"),
        ({"bounds": 3.0}, TypeError, "`bounds` must be a pair"),
        ({"bounds": "ab"}, TypeError, "`bounds` must be a pair"),
        ({"bounds": (0.0, np.inf)}, ValueError, "`bounds[1]` must be finite"),
        ({"bounds": ("0", "1")}, TypeError, "`bounds[0]` must be a number"),
        ({"bounds": (1.0, 1.0 + 1e-9)}, ValueError, "`bounds` must be distinct, at a finite distance, in"),
        ({"bounds": (-3e38, 3e38)}, ValueError, "of the dream, float32; got (-3e+38, 3e+38)"),
        ({"bounds": (0, 1e39)}, ValueError, "`bounds[1]` must be finite, in float32; got 1e+39"),
        (
            {"bounds": (0.0, 7e4), "model": dreaming.flattened(network(dtype="float16"))}, ValueError,
            "in the dtype of the dream, float16",
        ),
        ({"optimizer": optax.lbfgs()}, TypeError, "`optimizer` must update parameters by their gradient"),
        ({"optimizer": optax.lookahead(SGD, 5, 0.5)}, TypeError, "`optimizer` must update parameters"),
        ({"optimizer": 3}, TypeError, "`optimizer` must be a GradientTransformation"),
        ({"parameterization": dreaming.pixel}, TypeError, "`parameterization` must be a Parameterization"),
        ({"objective": lambda output, values: None}, TypeError, "`objective` must be an array of numbers"),
        ({"penalties": (lambda image: None,)}, TypeError, "`penalties[0]` must be an array of numbers"),
        ({"transforms": (lambda key, x: None,)}, TypeError, "`transforms[0]` must return an array"),
        ({"shape": (6, 7)}, ValueError, "`shape` must be one that the model takes; (6, 7) gives"),
        ({"shape": 6}, TypeError, "`shape` must be a tuple of integers"),
        ({"key": 0}, TypeError, "`key` must be one random key"),
        (
            {"objective": dreaming.neuron("hidden_1", 0)}, ValueError,
            "'output_in'); got 'hidden_1'",
        ),
        ({"objective": lambda output, values: values["x"].sum()}, ValueError, "got 'x'"),
        ({"objective": dreaming.logit(4)}, ValueError, "`index` must lie from -4 to 3, for 'output'"),
        ({"objective": dreaming.neuron("hidden_0", (0, 0))}, ValueError, "`index` must hold 1 integers"),
        ({"objective": dreaming.direction("hidden_0", [1.0])}, ValueError, "`vector` must have shape (12,)"),
        ({"objective": dreaming.matching("hidden_0", [1.0])}, ValueError, "`activations` must have shape"),
        ({"objective": dreaming.diversity("hidden_0", "no")}, ValueError, "there is no 'no'"),
        ({"objective": lambda output, values: output}, ValueError, "`objective` must return a scalar"),
        ({"objective": 3}, TypeError, "`objective` must be an objective or a function"),
        ({"model": 3}, TypeError, "`model` must be callable"),
        ({"start": np.zeros((5, 6))}, ValueError, "`start` must have shape (6, 6)"),
        ({"start": np.full((6, 6), 1.5)}, ValueError, "`start` must lie within the bounds, 0 to 1"),
        ({"start": np.full((6, 6), np.nan)}, ValueError, "`start` must be finite"),
        (
            {"start": np.zeros((6, 6)), "parameterization": dreaming.cppn()}, ValueError,
            "`start` must be None",
        ),
        ({"steps": 0}, ValueError, "`steps` must be at least 1"),
        ({"record_every": 0}, ValueError, "`record_every` must be at least 1"),
        ({"redirect": -1}, ValueError, "`redirect` must be at least 0"),
        ({"transforms": (3,)}, TypeError, "`transforms[0]` must be callable"),
        ({"penalties": dreaming.l1()}, TypeError, "`penalties` must be a tuple of callables"),
        ({"penalties": (jnp.abs,)}, ValueError, "`penalties[0]` must have shape (), of a scalar"),
        (
            {"transforms": (lambda key, x: x.astype(int),)}, TypeError,
            "`transforms[0]` must return an array of real numbers; got int32",
        ),
        ({"transforms": (lambda key, x: x[1:],)}, ValueError, "`transforms` must leave at least the shape"),
        (
            {"model": network(), "shape": (36,), "parameterization": dreaming.fourier()}, ValueError,
            "`shape` must be (h, w) or (h, w, c) for the parameterization fourier",
        ),
        (
            {"model": network(), "shape": (36,), "transforms": (dreaming.jitter(1),)}, ValueError,
            "`shape` must be (h, w) or (h, w, c) for this transform",
        ),
        (
            {"model": network(), "shape": (36,), "penalties": (dreaming.total_variation(),)}, ValueError,
            "`shape` must be (h, w) or (h, w, c) for total_variation",
        ),
        ({"penalties": (dreaming.distance(np.zeros(3)),)}, ValueError, "`mean` must have shape (6, 6)"),
    ],
)  # fmt: skip
def test_bad_input_raises_before_the_first_step(options, error, words, monkeypatch):
    monkeypatch.setattr("jaxnn.dreaming._dream._dream", nothing)
    arguments = {"model": dreaming.flattened(network()), "objective": dreaming.logit(1)} | options
    model, objective = arguments.pop("model"), arguments.pop("objective")
    with pytest.raises(error) as caught:
        jaxnn.dream(model, objective, **({"key": jax.random.key(0), "shape": (6, 6)} | arguments))
    assert words in str(caught.value)


def _convolved(kernel, x):
    """A convolution with the channels first, as in Equinox."""
    convolved = lax.conv_general_dilated(x[None] - 0.5, kernel, (1, 1), "SAME")[0]
    return jax.nn.relu(jaxnn.tap(convolved, "maps")).mean((1, 2))


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("start", "options"),
    [
        (True, {"parameterization": dreaming.pixel(), "transforms": (dreaming.jitter(2),)}),
        (False, {"penalties": (dreaming.total_variation(0.1),)}),
    ],
)
def test_a_model_with_its_channels_first_dreams_as_one_with_its_channels_last(start, options):
    rng = np.random.default_rng(0)
    model = jax.tree_util.Partial(_convolved, rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
    moved = jax.tree_util.Partial(lambda model, x: model(jnp.moveaxis(x, -1, 0)), model)
    image = rng.uniform(0.2, 0.8, (9, 12, 3)).astype(np.float32)
    call = {"key": jax.random.PRNGKey(0), "steps": 3, "record_every": 1} | options
    objective = dreaming.channel("maps", 2, channel_axis=0) + dreaming.logit(1)
    one = jaxnn.dream(moved, objective, shape=(9, 12, 3), start=image if start else None, **call)
    first = np.moveaxis(image, -1, 0) if start else None
    other = jaxnn.dream(model, objective, shape=(3, 9, 12), start=first, **call)
    np.testing.assert_allclose(jnp.moveaxis(other.image, 0, -1), one.image, atol=1e-6)
    np.testing.assert_allclose(jnp.moveaxis(other.frames, 1, -1), one.frames, atol=1e-6)
    np.testing.assert_allclose(other.trace, one.trace, rtol=1e-5)


@pytest.mark.long
def test_the_axis_of_the_channels_can_be_given_and_is_the_last_without_a_convolution():
    def dense(x):
        return jnp.sin(jnp.arange(x.size).reshape(x.shape) * x).sum()[None]

    call = {"key": jax.random.PRNGKey(0), "steps": 1, "shape": (3, 8, 8), "transforms": ()}
    images = [
        jaxnn.dream(dense, dreaming.logit(0), channel_axis=axis, **call).image for axis in (None, 2, -1, 0)
    ]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])
    assert images[3].shape == (3, 8, 8)
    assert np.any(images[3] != images[0])  # frequencies of other axes
    with pytest.raises(ValueError, match=r"`channel_axis` must be an axis of `shape`, \(3, 8, 8\); got 3"):
        jaxnn.dream(dense, dreaming.logit(0), channel_axis=3, **call)
    with pytest.raises(ValueError, match="`channel_axis` must be an axis of 'maps'"):
        dreaming.channel("maps", 0, channel_axis=2)(None, {"maps": jnp.ones((2, 2))})
