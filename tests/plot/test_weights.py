"""Pictures of weights, activations and decisions."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxnn
from jaxnn import plot, weights
from tests.plot.test_images import color_bars, extents_inside, rendered

IMAGES = np.random.default_rng(0).normal(size=(6, 4, 3))
ONTO = np.array([0.5, -2.0, 3.0, 1.0, -2.0, 3.0])
X1, X2 = np.linspace(-1, 1, 5), np.linspace(0, 3, 4)
PLANE = X2[:, None] * X1


@pytest.fixture(autouse=True)
def tidy():
    before = mpl.rcParams.copy()
    yield
    assert mpl.rcParams == before
    plt.close("all")


# --- weight_grid


def test_weights_share_symmetric_limits_and_one_named_color_bar():
    axes = plot.weight_grid(IMAGES, titles=range(6), columns=3, row_labels=["a", "b"])
    high = np.abs(IMAGES.astype(np.float32)).max()
    assert {ax.images[0].get_clim() for ax in axes.flat} == {(-high, high)}
    assert [ax.get_title() for ax in axes.flat] == list("012345")
    (bar,) = color_bars(axes[0, 0].figure)
    assert bar.get_ylabel() == "weight"
    red, _, blue, _ = axes[0, 0].images[0].to_rgba(-high)
    assert red > blue
    assert plot.weight_grid(IMAGES, limits=(-9, 9))[0, 0].images[0].get_clim() == (-9, 9)


@pytest.mark.long
def test_a_hundred_images_are_drawn(tmp_path):
    axes = plot.weight_grid(np.random.default_rng(0).normal(size=(100, 28, 28)), titles=range(100))
    axes[0, 0].figure.savefig(tmp_path / "grid.png")
    assert axes.shape == (10, 10)
    assert (tmp_path / "grid.png").stat().st_size > 1000


# --- features_of_output


def test_likes_above_and_dislikes_below_strongest_first():
    axes = plot.features_of_output(IMAGES, ONTO)
    shown = [2, 5, 3, 1, 4, 0]  # of equal weights the lower index comes first
    assert [int(ax.get_title().split(":")[0]) for ax in axes.flat] == shown
    assert [axes[0, 0].get_title(), axes[1, 2].get_title()] == ["2: +3.00", "0: +0.500"]
    assert axes[1, 0].get_title() == "1: \N{MINUS SIGN}2.00"
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["likes", "dislikes"]
    for ax, unit in zip(axes.flat, shown, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), IMAGES[unit], rtol=1e-6)
    assert len({ax.images[0].get_clim() for ax in axes.flat}) == 1


@pytest.mark.parametrize("k", [1, 2, 6])
def test_no_label_of_a_feature_is_cut_off(k):
    extents_inside(plot.features_of_output(IMAGES, ONTO, k)[0, 0].figure)


@pytest.mark.long
def test_the_features_are_those_of_top_features():
    network = jaxnn.init(jax.random.key(0), (12, 6, 4))
    top = weights.top_features(network, 2)
    for unit in range(4):
        axes = plot.features_of_output(
            weights.kernel_images(network, (4, 3)), network.layers[-1].kernel[:, unit], 2
        )
        drawn = [int(ax.get_title().split(":")[0]) for ax in axes.flat]
        assert drawn == [*top.liked[unit].tolist(), *top.disliked[unit].tolist()]


# --- activation_image


def test_activations_lie_row_by_row_and_the_ticks_add_up_to_the_unit():
    ax = plot.activation_image(np.arange(6) / 10, (2, 3))
    np.testing.assert_allclose(ax.images[0].get_array(), [[0, 0.1, 0.2], [0.3, 0.4, 0.5]], rtol=1e-6)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["+0", "+1", "+2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "3"]
    assert color_bars(ax.figure)[0].get_ylabel() == "activation"
    assert plot.activation_image(np.zeros(100)).images[0].get_array().shape == (10, 10)


@pytest.mark.parametrize(
    ("values", "limits", "colors"),
    [
        ([0.2, 0.9, 0.3, 0.3], (0, 1), "gray"),
        ([0, 3, 1, 1], (0, 3), "gray"),
        ([-0.5, 0.2, 0, 0], (-0.5, 0.5), "RdBu"),
        ([2, 2, 2, 2], (0, 2), "gray"),
        ([0, 0, 0, 0], (0, 1), "gray"),
    ],
)
def test_the_colors_start_at_zero_or_center_on_it(values, limits, colors):
    image = plot.activation_image(values).images[0]
    assert image.get_clim() == pytest.approx(limits)
    assert image.get_cmap().name == colors


@pytest.mark.parametrize("shape", [(20, 20), (1, 400), (400, 1)])
def test_ticks_of_a_wide_layer_are_few(shape):
    ax = plot.activation_image(np.zeros(400), shape)
    assert len(ax.get_xticks()) <= 10
    assert len(ax.get_yticks()) <= 10
    extents_inside(ax.figure)


# --- decision_map


def test_values_lie_where_their_inputs_are():
    ax = plot.decision_map(X1, X2, PLANE, name="output")
    mesh = ax.collections[0]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(4, 5), PLANE, atol=1e-6)
    assert mesh.get_clim() == (-3, 3)
    assert mesh.colorbar.ax.get_ylabel() == "output"
    # Half a cell past the last inputs on every side.
    assert ax.axis() == pytest.approx((-1.25, 1.25, -0.5, 3.5))
    low, middle, high = (mesh.to_rgba(value) for value in (-3, 0, 3))
    assert low[0] > low[2]
    assert high[2] > high[0]
    assert min(middle) > 0.9


@pytest.mark.parametrize(
    ("values", "limits", "given"),
    [
        (PLANE / 100 + 0.5, (0, 1), None),
        (PLANE, (-3, 3), None),
        (PLANE, (-5, 1), (-5, 1)),
        (np.full((4, 5), 2.0), (-2, 2), None),
        (np.zeros((4, 5)), (0, 1), None),
    ],
)
def test_the_limits_of_a_map(values, limits, given):
    assert plot.decision_map(X1, X2, values, limits=given).collections[0].get_clim() == pytest.approx(limits)


def test_the_decision_is_a_line_where_the_middle_is_crossed():
    ax = plot.decision_map(X1, X2, np.tile(X1 / 2 + 0.5, (4, 1)))
    line = ax.collections[1].get_paths()[0].vertices
    np.testing.assert_allclose(line[:, 0], 0, atol=1e-6)
    assert len(plot.decision_map(X1, X2, np.full((4, 5), 0.9)).collections) == 1


@pytest.mark.parametrize("count", [2, 8, 30])
def test_classes_have_flat_colors_and_a_tick_each(count):
    classes = np.arange(20).reshape(4, 5) % count
    ax = plot.decision_map(X1, X2, classes, points=[[0.0, 1.0]], labels=[count - 1])
    mesh = ax.collections[0]
    assert len({tuple(mesh.to_rgba(k)) for k in range(count)}) == count
    assert mesh.colorbar.ax.get_ylabel() == "class"
    assert mesh.colorbar.get_ticks().tolist() == list(range(0, count, 1 if count < 20 else 2))
    assert ax.get_legend() is None


def test_one_class_or_truth_values_are_a_map_too(tmp_path):
    plot.decision_map(X1, X2, np.zeros((4, 5), int))
    ax = plot.decision_map(X1, X2, PLANE > 0)
    assert rendered(ax.figure, tmp_path / "map.png") > 1000


def test_points_are_distinguished_by_more_than_color_and_do_not_move_the_edges():
    points = np.array([[0.5, 1.0], [-0.5, 2.0], [50.0, 50.0]])
    ax = plot.decision_map(X1, X2, PLANE, points=points, labels=[0, 1, 1])
    assert ax.axis() == plot.decision_map(X1, X2, PLANE).axis()
    zero, one = ax.collections[2:]
    assert zero.get_offsets().tolist() == [[0.5, 1.0]]
    assert one.get_offsets().tolist() == [[-0.5, 2.0], [50.0, 50.0]]
    assert zero.get_paths()[0].vertices.shape != one.get_paths()[0].vertices.shape
    assert zero.get_facecolor().tolist() != one.get_facecolor().tolist()
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1"]
    ax.figure.canvas.draw()
    covered = legend.get_window_extent()
    assert not covered.overlaps(ax.get_window_extent())
    assert not covered.overlaps(ax.xaxis.label.get_window_extent())
    extents_inside(ax.figure)
    assert plot.decision_map(X1, X2, PLANE, points=points).get_legend() is None


# --- all of them

DRAW = {
    "weight_grid": lambda a, **where: plot.weight_grid(a.reshape(1, 2, 3), **where),
    "features_of_output": lambda a, **where: plot.features_of_output(a.reshape(6, 1, 1), a, **where),
    "activation_image": lambda a, **where: plot.activation_image(a, (2, 3), **where),
    "decision_map": lambda a, **where: plot.decision_map([0, 1, 2], [0, 1], a.reshape(2, 3), **where),
}


@pytest.mark.parametrize(
    "draw",
    [
        *DRAW.values(),
        plot.training_curve,
        plot.output_bars,
        lambda a: plot.output_bars(np.ones(6), target=a),
    ],
)
def test_what_is_traced_cannot_be_drawn(draw):
    with pytest.raises(TypeError, match=r"` must be a concrete array, not traced: draw outside of jit"):
        jax.jit(draw)(jnp.arange(6.0))
    assert not plt.get_fignums()


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_jax_arrays_of_any_real_dtype_are_drawn(draw, dtype, tmp_path):
    drawn = draw(jnp.asarray([0, 1, 2, 3, 4, 5]).astype(dtype))
    assert rendered(np.ravel(drawn)[0].figure, tmp_path / "drawn.png") > 1000


@pytest.mark.parametrize("name", ["activation_image", "decision_map"])
def test_the_axes_given_come_back(name):
    figure, ax = plt.subplots()
    assert DRAW[name](np.arange(6.0), ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_the_grids_draw_in_the_axes_given():
    _, own = plt.subplots(2, 3)
    assert plot.weight_grid(IMAGES, axes=own).tolist() == own.tolist()
    _, own = plt.subplots(2, 3)
    assert plot.features_of_output(IMAGES, ONTO, axes=own).tolist() == own.tolist()


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot.weight_grid(IMAGES[0]), ValueError, r"`images` must have shape \(N, h, w\)"),
        (lambda: plot.weight_grid(IMAGES, limits=(0, 1)), ValueError, "`limits` must increase, from -high"),
        (lambda: plot.features_of_output(IMAGES[0], ONTO), ValueError, r"`images` .*\(n_hidden, h, w\)"),
        (lambda: plot.features_of_output(IMAGES, ONTO[:5]), ValueError, r"`weights` must have shape \(6,\)"),
        (lambda: plot.features_of_output(IMAGES, ONTO, 7), ValueError, "`k` must be at most 6.*; got 7"),
        (lambda: plot.features_of_output(IMAGES, ONTO, 0), ValueError, "`k` must be at least 1"),
        (lambda: plot.features_of_output(IMAGES, ONTO, axes=[1]), TypeError, "`axes` must be matplotlib"),
        (lambda: plot.activation_image(ONTO), ValueError, r"`shape` must be given, as 6, .*\(2, 3\)"),
        (lambda: plot.activation_image(ONTO, (2, 2)), ValueError, r"`shape` must have 6 entries.*\(2, 2\)"),
        (lambda: plot.activation_image(ONTO, (6,)), ValueError, r"`shape` must be \(rows, columns\)"),
        (lambda: plot.activation_image(IMAGES), ValueError, r"`values` must have shape \(n,\)"),
        (lambda: plot.activation_image([np.nan]), ValueError, "`values` must be finite"),
        (lambda: plot.activation_image([1.0], ax=0), TypeError, "`ax` must be matplotlib Axes"),
        (lambda: plot.decision_map(X1, X2, PLANE.T), ValueError, r"`values` must have shape \(4, 5\)"),
        (lambda: plot.decision_map(X1, X2, PLANE / 0), ValueError, "`values` must be finite"),
        (lambda: plot.decision_map(X1[::-1], X2, PLANE), ValueError, "`x1` must increase"),
        (lambda: plot.decision_map(X1, X2[:1], PLANE[:1]), ValueError, "`x2` must increase"),
        (lambda: plot.decision_map(X1, X2, -np.ones((4, 5), int)), ValueError, "`values` must be classes"),
        (lambda: plot.decision_map(X1, X2, PLANE, limits=(1, 0)), ValueError, "`limits` must increase"),
        (lambda: plot.decision_map(X1, X2, PLANE, points=X1), ValueError, r"`points` .*\(N, 2\)"),
        (
            lambda: plot.decision_map(X1, X2, PLANE, points=IMAGES[0]),
            ValueError,
            r"`points` .*; got \(4, 3\)",
        ),
        (
            lambda: plot.decision_map(X1, X2, PLANE, labels=[1]),
            ValueError,
            "`labels` must come with `points`",
        ),
        (lambda: _labeled([1, 2]), ValueError, r"`labels` must have shape \(1,\)"),
        (lambda: _labeled([-1]), ValueError, "`labels` must be classes, from 0 to 255; got -1"),
        (lambda: _labeled([256]), ValueError, "`labels` must be classes, from 0 to 255; got 256"),
        (
            lambda: plot.decision_map(X1, X2, np.full((4, 5), 2**30)),
            ValueError,
            "`values` must be classes, .* 255; got 1073741824",
        ),
        (
            lambda: plot.decision_map(X1, X2, np.ones((4, 5), int), limits=(0, 1)),
            ValueError,
            r"`limits` must be None if .* classes; got \(0, 1\)",
        ),
        (lambda: plot.weight_grid(IMAGES, titles=5), TypeError, "`titles` must hold strings; got int 5"),
        (lambda: plot.weight_grid(IMAGES, row_labels=5), TypeError, "`row_labels` must hold strings"),
        (lambda: _labeled([0.5]), TypeError, "`labels` must hold classes, integers; got dtype float32"),
        (lambda: plot.decision_map(X1, X2, PLANE, ax="here"), TypeError, "`ax` must be matplotlib Axes"),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide|invalid)")
def test_bad_input_raises_and_leaves_no_figure(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
    assert not plt.get_fignums()


def _labeled(labels):
    return plot.decision_map(X1, X2, PLANE, points=[[0.0, 1.0]], labels=labels)
