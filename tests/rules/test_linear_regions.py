"""The affine map around an input, the region in which it holds, and the whole partition of a plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxnn
from jaxnn import rules
from tests.conftest import in_precision

NORMAL = jax.nn.initializers.normal(0.4)


def network(sizes, activation="relu", key=0, dtype=jnp.float32):
    return jaxnn.init(
        jax.random.key(key), sizes, activation=activation, output_activation="identity", bias_init=NORMAL,
        kernel_init=jax.nn.initializers.he_normal(), dtype=dtype,
    )  # fmt: skip


def several_kinks(kernel, x):
    """A convolution, relu, an overlapping pool, relu6, maxout, a choice by `where`, abs, clip, clamp."""
    layout = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=layout)
    h = nn.max_pool(jax.nn.relu(h), (3, 3), (2, 2), "SAME")
    h = jax.nn.relu6(0.3 * h - 0.1).ravel()
    pairs = jnp.max(h.reshape(-1, 4), axis=1) - jnp.min(h.reshape(-1, 4), axis=1)
    mixed = jnp.where(pairs > 0.2, pairs, 0.3 * pairs + 0.14)
    cut = jnp.clip(mixed, -0.2, 0.3).sum() + jax.lax.clamp(-0.1, mixed, 0.35).sum()
    return jnp.stack([mixed.sum(), jnp.abs(mixed[0] - mixed[1]), cut])


def kinks(key=0):
    return jax.tree_util.Partial(several_kinks, jax.random.normal(jax.random.key(key), (3, 3, 1, 4), float))


MODELS = {
    "relu": (lambda: network((6, 9, 7, 3), "relu", dtype=float), (6,)),
    "leaky_relu": (lambda: network((6, 9, 7, 3), "leaky_relu", dtype=float), (6,)),
    "many kinks": (kinks, (8, 8, 1)),
}
every_model = pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS.keys())


@pytest.mark.long
@every_model
def test_the_map_is_the_jacobian_and_gives_the_answer(make, shape):
    with in_precision("float64"):
        model = make()
        for x in jax.random.normal(jax.random.key(1), (5, *shape)):
            region = rules.linear_region(model, x)
            slopes = jax.jacobian(model)(x).reshape(3, -1).T
            assert np.abs(slopes).max() > 0
            np.testing.assert_allclose(region.kernel, slopes, atol=1e-12)
            np.testing.assert_allclose(x.ravel() @ region.kernel + region.bias, model(x), atol=1e-12)


@pytest.mark.long("all but the first")
@every_model
def test_the_map_holds_in_all_of_the_region(make, shape):
    with in_precision("float64"):
        model = make()
        x = jax.random.normal(jax.random.key(2), shape)
        region = rules.linear_region(model, x)
        assert region.radius > 1e-6
        steps = jax.random.uniform(jax.random.key(3), (400, x.size), float, -1, 1)
        # To a bit before the face that each direction meets first: the region and not just its box.
        slack = region.offsets - region.normals @ x.ravel()
        rates = steps @ region.normals.T
        lengths = jnp.min(jnp.where(rates > 0, slack / jnp.where(rates > 0, rates, 1), jnp.inf), axis=1)
        points = x.ravel() + (0.999999 * jnp.minimum(lengths, 100))[:, None] * steps
        outputs = jax.vmap(model)(points.reshape(-1, *shape))
        np.testing.assert_allclose(points @ region.kernel + region.bias, outputs, atol=1e-9)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_region_is_where_each_unit_stays_on_its_side(activation):
    with in_precision("float64"):
        model = network((4, 8, 6, 2), activation, dtype=float)

        def sides(x):
            values = jaxnn.capture(model, x)[1]
            return jnp.concatenate([values["hidden_0_in"], values["hidden_1_in"]]) > 0

        x = jax.random.normal(jax.random.key(4), (4,))
        region = rules.linear_region(model, x)
        points = x + 0.5 * jax.random.normal(jax.random.key(5), (5000, 4))
        inside = jnp.all(points @ region.normals.T <= region.offsets, axis=1)
        same = jnp.all(jax.vmap(sides)(points) == sides(x), axis=1)
        assert 20 < same.sum() < 4900
        np.testing.assert_array_equal(inside, same)


def test_the_box_and_the_ball_just_touch_the_region():
    with in_precision("float64"):
        model, x = network((5, 12, 8, 2), dtype=float), jnp.linspace(-1, 1, 5)
        region = rules.linear_region(model, x)
        slack = region.offsets - region.normals @ x
        reach = region.radius * jnp.abs(region.normals).sum(axis=1)
        assert np.min(slack - reach) == pytest.approx(0, abs=1e-12)
        reach = region.distance * jnp.linalg.norm(region.normals, axis=1)
        assert np.min(slack - reach) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("x", "radius", "slope"), [(1.5, 0.5, 1), (-0.75, 0.25, 1), (3, 1, 0), (-4, 3, 0)])
def test_a_clamp_has_two_faces(x, radius, slope):
    region = rules.linear_region(lambda x: jax.lax.clamp(-1.0, x, 2.0), [float(x)])
    assert float(region.radius) == pytest.approx(radius)
    assert float(region.kernel[0, 0]) == slope


def test_an_input_on_a_kink_has_a_side_and_no_room():
    region = rules.linear_region(lambda x: jax.nn.relu(x) + jnp.abs(x - 1), jnp.array([0.0]))
    assert region.radius == 0
    inside = jnp.array([[-1.0], [-0.3], [0.0]])
    assert bool(jnp.all(inside @ region.normals.T <= region.offsets))
    np.testing.assert_allclose(inside @ region.kernel + region.bias, 1 - inside)


def test_units_that_nothing_moves_are_no_faces():
    def dead(x):
        return jax.nn.relu(jnp.zeros((3, 2)) @ jax.nn.relu(x) + jax.nn.relu(x[0]) * 0.0)

    region = rules.linear_region(dead, jnp.array([2.0, 3.0]))
    assert region.radius == 2.0
    affine = rules.linear_region(lambda x: 2 * x[::-1] + 1, jnp.array([2.0, 3.0]))
    assert affine.normals.shape == (0, 2)
    assert np.isinf(affine.radius)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (jax.nn.sigmoid, "logistic"),
        (lambda x: x * jax.nn.relu(x), "mul"),
        (jnp.floor, "floor"),
        (lambda x: jax.lax.stop_gradient(x) + 1, "stop_gradient"),
        (lambda x: jnp.where(x == 0, 1.0, x), "eq"),
        (lambda x: jnp.sort(x), "sort"),
    ],
)
def test_what_is_not_piecewise_linear_is_refused_by_name(model, name):
    with pytest.raises(NotImplementedError, match=name):
        rules.linear_region(model, jnp.ones(3))


def test_a_pytree_input_is_flattened():
    region = rules.linear_region(lambda x: jnp.maximum(x["a"], x["b"].sum()), {"a": 1.0, "b": jnp.ones(2)})
    np.testing.assert_array_equal(region.kernel, [[0.0], [1.0], [1.0]])


# --- the whole plane


def area(polygon):
    x, y = polygon.T
    return np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("sizes", "activation"), [((2, 8, 2), "relu"), ((2, 7, 6, 3), "leaky_relu"), ((2, 20, 1), "relu")]
)
def test_the_tree_answers_as_the_network_on_100_000_points(sizes, activation):
    model = network(sizes, activation, key=3)
    found = rules.linear_regions(model, bounds=(-2.0, (2.0, 1.0)))
    assert len(found.polygons) > sizes[1]
    areas = [area(polygon) for polygon in found.polygons]
    assert min(areas) > 0  # counterclockwise, and none is empty
    assert sum(areas) == pytest.approx(12, rel=1e-9)
    x = jax.random.uniform(jax.random.key(1), (100_000, 2), minval=-2, maxval=jnp.array([2.0, 1.0]))
    tree_outputs, outputs = jax.jit(jax.vmap(found.tree.__call__))(x), jaxnn.query(model, x)
    np.testing.assert_allclose(tree_outputs, outputs, atol=1e-5 * (1 + np.abs(outputs).max()))
    if sizes[-1] > 1:
        top = np.sort(outputs, axis=1)
        clear = top[:, -1] - top[:, -2] > 1e-5
        np.testing.assert_array_equal(tree_outputs.argmax(axis=1)[clear], outputs.argmax(axis=1)[clear])
        assert clear.mean() > 0.999


def test_a_region_is_its_polygon_and_each_side_of_an_edge_differs():
    model = network((2, 6, 2), key=5)
    found = rules.linear_regions(model)
    leaf = jax.jit(jax.vmap(found.tree.leaf))
    middles = np.stack([polygon.mean(axis=0) for polygon in found.polygons])
    np.testing.assert_array_equal(leaf(middles), found.leaves)
    # Just inside of each corner, too.
    corners = np.concatenate([p + 1e-4 * (p.mean(axis=0) - p) for p in found.polygons])
    expected = np.repeat(found.leaves, [len(p) for p in found.polygons])
    np.testing.assert_array_equal(leaf(corners), expected)
    # In double precision: the middle of a thin piece may lie within a rounding of its edge.
    first = model.layers[0]
    signals = middles.astype(np.float64) @ np.asarray(first.kernel, np.float64) + np.asarray(first.bias)
    patterns = {tuple(row) for row in signals > 0}
    assert len(patterns) == len(found.polygons)


@pytest.mark.long
def test_no_pattern_of_units_is_cut_into_several_pieces():
    model = network((2, 7, 6, 3), "relu", key=3)
    found = rules.linear_regions(model, bounds=(-2.0, 2.0))
    middles = np.stack([polygon.mean(axis=0) for polygon in found.polygons])
    values = jaxnn.capture(model, middles)[1]
    sides = np.concatenate([values["hidden_0_in"], values["hidden_1_in"]], axis=1) > 0
    assert len(np.unique(sides, axis=0)) == len(found.polygons) > 30


def test_three_lines_cut_the_plane_into_seven_also_in_another_precision():
    lines = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], jnp.bfloat16)
    model = jax.tree_util.Partial(lambda lines, x: jnp.abs(lines @ x - lines.dtype.type(0.25)), lines)
    found = rules.linear_regions(model, names=["width", "height"])
    assert len(found.polygons) == 7
    assert "if width <= 0.25:" in found.text
    assert "y_0 = -width + 0.25" in found.text
    assert jnp.zeros(1).dtype == jnp.float32  # the precision is as it was


def test_bad_input_to_linear_regions():
    model = network((2, 8, 2))
    for bounds in (1.0, (1.0, -1.0), (0.0, np.inf), (np.zeros(3), 1.0)):
        with pytest.raises(ValueError, match="`bounds"):
            rules.linear_regions(model, bounds=bounds)
    with pytest.raises(ValueError, match="`max_regions`"):
        rules.linear_regions(model, max_regions=3)
    with pytest.raises(ValueError, match="`names` must be 2 strings"):
        rules.linear_regions(model, names=["a"])
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda m: rules.linear_regions(m).tree)(model)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e-7, 1e-12])
def test_a_unit_of_any_scale_bounds_the_region(unit):
    """`relu(x + 5) + relu(x - 0.5)`, of which the second is computed in another unit."""

    def function(x):
        return jax.nn.relu(x[0] + 5) + jax.nn.relu(unit * x[0] - 0.5 * unit) / unit

    np.testing.assert_allclose(rules.linear_region(function, [0.4]).radius, 0.1, rtol=1e-5)
