import itertools
import subprocess
import sys

import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image

from jaxnn import plot

IMAGES = np.linspace(-0.5, 2.0, 5 * 4 * 3).reshape(5, 4, 3)


@pytest.fixture(autouse=True)
def tidy():
    before = mpl.rcParams.copy()
    yield
    assert mpl.rcParams == before
    plt.close("all")


def color_bars(figure):
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def extend(axes):
    (bar,) = [ax.images[0].colorbar for ax in axes.flat if ax.images[0].colorbar]
    return bar.extend


def rendered(figure, path):
    """The picture, and how many of its pixels are not the background."""
    figure.savefig(path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return (pixels != pixels[0, 0]).any(axis=-1).sum()


def extents_inside(figure):
    figure.canvas.draw()
    tight = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert tight.x0 >= -0.01
    assert tight.y0 >= -0.01
    assert tight.x1 <= width + 0.01
    assert tight.y1 <= height + 0.01


# --- image_grid


def test_the_grid_has_a_cell_for_each_image_and_switches_the_others_off():
    axes = plot.image_grid(IMAGES, columns=3)
    assert axes.shape == (2, 3)
    assert all(isinstance(ax, Axes) for ax in axes.flat)
    assert [ax.axison for ax in axes.flat] == [True] * 5 + [False]
    for ax, image in zip(axes.flat, IMAGES, strict=False):
        np.testing.assert_allclose(ax.images[0].get_array(), image, rtol=1e-6)
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert not axes[1, 2].images


@pytest.mark.parametrize(
    ("count", "options", "shape"),
    [
        (3, {}, (1, 3)),
        (23, {}, (3, 10)),
        (12, {"row_labels": ["a", "b", "c"]}, (3, 4)),
        (5, {"columns": 1}, (5, 1)),
    ],
)
def test_the_number_of_columns_when_it_is_not_given(count, options, shape):
    assert plot.image_grid(np.zeros((count, 2, 2)), **options).shape == shape


def test_all_images_share_the_limits_of_all_the_values():
    axes = plot.image_grid(IMAGES)
    assert {ax.images[0].get_clim() for ax in axes.flat} == {(-0.5, 2.0)}
    assert axes[0, 0].images[0].get_cmap().name == "gray"


def test_signed_images_are_centered_on_zero_with_negative_red_and_positive_blue():
    axes = plot.image_grid(IMAGES, signed=True)
    for ax in axes.flat:
        assert ax.images[0].get_clim() == (-2.0, 2.0)
    red, _, blue, _ = axes[0, 0].images[0].to_rgba(-2.0)
    assert red > blue
    red, _, blue, _ = axes[0, 0].images[0].to_rgba(2.0)
    assert blue > red
    assert min(axes[0, 0].images[0].to_rgba(0.0)) > 0.9


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 255.0])
def test_a_constant_image_is_drawn(signed, value, tmp_path):
    axes = plot.image_grid(np.full((2, 3, 3), value), signed=signed)
    low, high = axes[0, 0].images[0].get_clim()
    assert low <= value <= high
    assert low < high
    assert rendered(axes[0, 0].figure, tmp_path / "grid.png") > 0


def test_limits_can_be_given_and_the_color_bar_points_to_what_lies_beyond():
    axes = plot.image_grid(IMAGES, limits=(0.0, 1.0))
    assert {ax.images[0].get_clim() for ax in axes.flat} == {(0.0, 1.0)}
    assert extend(axes) == "both"
    assert extend(plot.image_grid(IMAGES)) == "neither"
    signed = plot.image_grid(IMAGES, signed=True, limits=(-1.0, 1.0))
    assert signed[0, 0].images[0].get_clim() == (-1.0, 1.0)
    assert extend(signed) == "max"


def test_there_is_one_color_bar_or_none():
    assert len(color_bars(plot.image_grid(IMAGES)[0, 0].figure)) == 1
    assert not color_bars(plot.image_grid(IMAGES, colorbar=False)[0, 0].figure)


def test_the_label_of_the_color_bar_is_not_cut_off():
    axes = plot.image_grid(np.zeros((8, 4, 4)), name="a rather long name of the values")
    axes[0, 0].figure.suptitle("Title")
    extents_inside(axes[0, 0].figure)


def test_titles_and_row_labels_are_written():
    axes = plot.image_grid(
        IMAGES, titles=["5 ✓ 0.98", None, "c", "d", 7], columns=3, row_labels=["one", "two"]
    )
    assert [ax.get_title() for ax in axes.flat] == ["5 ✓ 0.98", "", "c", "d", "7", ""]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["one", "two"]
    extents_inside(axes[0, 0].figure)


def test_titles_do_not_run_into_each_other():
    axes = plot.image_grid(IMAGES, titles=["a rather long title of an image"] * 5)
    figure = axes[0, 0].figure
    figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in axes[0]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    extents_inside(figure)


@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 5)])
def test_it_draws_in_the_axes_it_is_given(shape):
    _, own = plt.subplots(2, 3) if shape == (2, 3) else plt.subplots(1, shape[-1])
    count = len(plt.get_fignums())
    axes = plot.image_grid(IMAGES, axes=own)
    assert list(axes.flat) == list(np.ravel(own))
    assert axes.shape == (shape if len(shape) == 2 else (1, 6))
    assert [ax.axison for ax in axes.flat] == [True] * 5 + [False] * (axes.size - 5)
    assert len(plt.get_fignums()) == count


def test_a_lone_axes_takes_one_image():
    _, ax = plt.subplots()
    assert plot.image_grid(IMAGES[:1], axes=ax)[0, 0] is ax


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": np.zeros((3, 4))}, ValueError, r"`images` must have shape \(N, h, w\)"),
        ({"images": np.zeros((0, 4, 4))}, ValueError, "`images` must have shape"),
        ({"images": np.full((1, 2, 2), np.nan)}, ValueError, "`images` must be finite"),
        ({"images": "digit"}, TypeError, "`images` must be an array"),
        ({"images": np.zeros((1, 2, 2), complex)}, TypeError, "`images` must hold real"),
        ({"titles": ["a"]}, ValueError, "`titles` must hold 5 strings; got 1"),
        ({"row_labels": ["a", "b"], "columns": 5}, ValueError, "`row_labels` must hold 1"),
        ({"row_labels": []}, ValueError, "`row_labels` must hold 1"),
        ({"columns": 0}, ValueError, "`columns` must be at least 1"),
        ({"columns": 2.0}, TypeError, "`columns` must be an integer"),
        ({"limits": (1.0, 1.0)}, ValueError, "`limits` must increase"),
        ({"limits": (0.0, 1.0, 2.0)}, ValueError, "`limits` must have shape"),
        ({"limits": (0.0, np.inf)}, ValueError, "`limits` must be finite"),
        ({"limits": (-1.0, 2.0), "signed": True}, ValueError, "`limits` must increase, from -high"),
        ({"axes": ["not", "axes"]}, TypeError, "`axes` must be matplotlib Axes; got str"),
        ({"axes": []}, ValueError, "`axes` must be 5 or more"),
    ],
)
def test_bad_grids_raise_and_leave_no_figure(options, error, message):
    with pytest.raises(error, match=message):
        plot.image_grid(**{"images": IMAGES, **options})
    assert not plt.get_fignums()


def test_too_few_axes_or_other_columns_than_they_have_raise():
    _, axes = plt.subplots(2, 2)
    with pytest.raises(ValueError, match="`axes` must be 5 or more"):
        plot.image_grid(IMAGES, axes=axes)
    with pytest.raises(ValueError, match="3 in a row"):
        plot.image_grid(IMAGES[:4], axes=axes, columns=3)
    with pytest.raises(ValueError, match="`row_labels` must hold 2"):
        plot.image_grid(IMAGES[:4], axes=axes, row_labels=["a"])
    assert not axes[0, 0].images


# --- training_curve


def test_the_curve_runs_over_the_epochs_from_one():
    ax = plot.training_curve([3.0, 2.0, 1.5, 1.0], name="squared error")
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert ax.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.5, 1.0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "squared error")
    assert ax.get_legend() is None


def test_validation_is_distinguished_by_more_than_color():
    ax = plot.training_curve([3.0, 2.0], validation=[4.0, 3.0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    assert ax.lines[1].get_ydata().tolist() == [4.0, 3.0]


@pytest.mark.parametrize("epochs", [1, 2, 5, 300])
def test_epochs_are_whole_numbers(epochs):
    ax = plot.training_curve(np.linspace(1.0, 0.1, epochs))
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) for tick in ticks)


def test_a_single_epoch_shows_as_a_marker(tmp_path):
    ax = plot.training_curve([0.5])
    assert ax.lines[0].get_marker() == "o"
    before = rendered(ax.figure, tmp_path / "with.png")
    ax.lines[0].remove()
    assert rendered(ax.figure, tmp_path / "without.png") < before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"values": []}, ValueError, r"`values` must have shape \(epochs,\)"),
        ({"values": [[1.0]]}, ValueError, "`values` must have shape"),
        ({"values": [1.0, np.nan]}, ValueError, "`values` must be finite"),
        ({"values": [1.0], "validation": [1.0, 2.0]}, ValueError, "`validation` must have shape"),
        ({"values": "loss"}, TypeError, "`values` must be an array"),
        ({"values": [1.0], "ax": "here"}, TypeError, "`ax` must be matplotlib Axes"),
    ],
)
def test_bad_curves_raise_and_leave_no_figure(arguments, error, message):
    with pytest.raises(error, match=message):
        plot.training_curve(**arguments)
    assert not plt.get_fignums()


# --- output_bars


def tick_labels(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_the_highest_bar_is_highlighted_and_has_its_value():
    ax = plot.output_bars([0.1, 0.75, 0.3])
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.1, 0.75, 0.3])
    colors = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colors[0] == colors[2] != colors[1]
    assert [(text.get_text(), text.xy[0]) for text in ax.texts] == [("0.75", 1)]
    assert ax.get_ylim() == (0.0, 1.15)
    assert tick_labels(ax) == ["0", "1", "2"]


def test_the_true_class_is_marked_by_more_than_color():
    ax = plot.output_bars([0.1, 0.75, 0.3], labels=["cat", "dog", "cow"], target=2)
    assert sorted(tick_labels(ax)) == sorted(["cat", "dog", "▲cow"])
    assert ax.patches[2].get_linewidth() > 0
    assert "▲" in ax.get_xlabel()
    assert "▲" not in plot.output_bars([0.1, 0.75]).get_xlabel()


def test_the_true_class_can_be_an_element_of_an_array():
    for target in (jnp.arange(3)[1], np.arange(3)[1]):
        assert "▲1" in tick_labels(plot.output_bars([0.1, 0.75, 0.3], target=target))


@pytest.mark.parametrize("outputs", [[-3.0, 4.0, 1.0], [-3.0, -1.0], [2.0, 1.0], [-5.0]])
def test_logits_get_an_axis_that_holds_them_and_zero(outputs):
    ax = plot.output_bars(outputs)
    low, high = ax.get_ylim()
    assert low <= min(0.0, *outputs)
    assert high >= max(0.0, *outputs)
    assert ax.texts[0].get_text() == f"{max(outputs):.3g}".replace("-", "\N{MINUS SIGN}")


@pytest.mark.parametrize("top", [0.0, 0.5, 0.93, 1.0])
def test_the_value_stays_inside_the_axes(top):
    ax = plot.output_bars([0.0, top])
    ax.figure.canvas.draw()
    text, frame = ax.texts[0].get_window_extent(), ax.get_window_extent()
    assert text.y0 >= frame.y0
    assert text.y1 <= frame.y1


@pytest.mark.parametrize("n_out", [1, 10, 20, 100, 1000])
def test_the_names_of_the_bars_do_not_run_into_each_other(n_out):
    ax = plot.output_bars(np.linspace(0.0, 0.5, n_out), target=n_out // 2)
    ax.figure.canvas.draw()
    assert len(tick_labels(ax)) <= 21
    assert f"▲{n_out // 2}" in tick_labels(ax)
    if ax.get_xticklabels()[0].get_rotation() == 0:
        boxes = sorted(label.get_window_extent().extents.tolist() for label in ax.get_xticklabels())
        assert all(left[2] < right[0] for left, right in itertools.pairwise(boxes))


def test_long_names_are_slanted_and_not_cut_off():
    ax = plot.output_bars(np.linspace(0.0, 0.5, 10), labels=["automobile"] * 10, target=3)
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {45.0}
    extents_inside(ax.figure)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"outputs": []}, ValueError, r"`outputs` must have shape \(n_out,\)"),
        ({"outputs": [[0.1]]}, ValueError, "`outputs` must have shape"),
        ({"outputs": [np.inf]}, ValueError, "`outputs` must be finite"),
        ({"outputs": [0.1, 0.2], "labels": ["a"]}, ValueError, "`labels` must hold 2 strings"),
        ({"outputs": [0.1, 0.2], "target": 2}, ValueError, "`target` must be below 2"),
        ({"outputs": [0.1, 0.2], "target": -1}, ValueError, "`target` must be at least 0"),
        ({"outputs": [0.1, 0.2], "target": 0.5}, TypeError, "`target` must be an integer"),
        ({"outputs": [0.1], "ax": 3}, TypeError, "`ax` must be matplotlib Axes; got int"),
    ],
)
def test_bad_bars_raise_and_leave_no_figure(arguments, error, message):
    with pytest.raises(error, match=message):
        plot.output_bars(**arguments)
    assert not plt.get_fignums()


# --- all of them


DRAW = {
    "image_grid": lambda array, **where: plot.image_grid(array.reshape(1, 2, 3), **where),
    "training_curve": plot.training_curve,
    "output_bars": plot.output_bars,
}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_jax_arrays_of_any_real_dtype_are_drawn(draw, dtype, tmp_path):
    drawn = draw(jnp.asarray([0, 1, 2, 3, 4, 5]).astype(dtype))
    assert rendered(np.ravel(drawn)[0].figure, tmp_path / "drawn.png") > 1000


@pytest.mark.parametrize("name", ["training_curve", "output_bars"])
def test_the_axes_given_come_back(name):
    figure, ax = plt.subplots()
    assert DRAW[name](np.arange(3.0), ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_importing_it_starts_no_device():
    code = (
        "import jaxnn.plot; from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
