"""The pictures of attributions: what is drawn, where the colors end, and what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxnn import plot

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def pixels(ax):
    return np.asarray(ax.images[0].get_array())


def test_blue_speaks_for_and_red_against_and_the_image_shows_where_nothing_is():
    values = np.array([[1.0, -1.0], [0.0, 0.0]])
    shown = pixels(plot.attribution(values, image=[[0.0, 0.0], [0.0, 1.0]], clip=100))
    blue, red, nothing, ink = shown.reshape(4, 3)
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]
    np.testing.assert_allclose(nothing, 1.0)
    np.testing.assert_allclose(ink, 0.6)


def test_the_colors_end_at_the_percentile_and_the_bar_says_how_many_are_past_it():
    values = RNG.normal(size=(20, 20))
    ax = plot.attribution(values, clip=90)
    bar = ax.figure.axes[1]
    end = np.percentile(np.abs(values), 90)
    np.testing.assert_allclose(bar.get_ylim(), (-end, end))
    assert f"({np.sum(np.abs(values) > end)} of 400 beyond)" in bar.get_ylabel()


def test_channels_are_added():
    values = RNG.normal(size=(4, 5, 3))
    one, other = plot.attribution(values), plot.attribution(values.sum(axis=2))
    np.testing.assert_allclose(pixels(one), pixels(other), atol=1e-6)


def test_a_limit_puts_several_on_one_scale():
    ax = plot.attribution([[0.5, 0.1]], limit=2.0)
    assert ax.figure.axes[1].get_ylim() == (-2.0, 2.0)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.pad([[1.0]], 20)])
def test_a_map_of_nearly_nothing_is_drawn(values):
    assert np.all(np.isfinite(pixels(plot.attribution(values))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0, 2.0]}, "`values` must have shape"),
        ({"values": [[np.nan]]}, "`values`"),
        ({"image": np.zeros((2, 2))}, "`image` must have shape"),
        ({"clip": 0}, r"`clip` must lie in \(0, 100\]"),
        ({"limit": -1.0}, "`limit` must be above 0"),
    ],
)
def test_bad_maps_are_refused(change, message):
    given = {"values": np.ones((3, 4))} | change
    with pytest.raises(ValueError, match=message):
        plot.attribution(given.pop("values"), **given)


def test_bars_are_sorted_by_size_and_colored_by_sign():
    ax = plot.feature_bars([0.5, -2.0, 1.0], ["a", "b", "c"], errors=[0.1, 0.2, 0.3])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b", "c", "a"]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == [-2.0, 1.0, 0.5]
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor() == ax.patches[2].get_facecolor()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a"]}, "`names` must hold 3"),
        ({"errors": [0.1, -0.2, 0.1]}, "`errors` must be at least 0"),
        ({"errors": [0.1]}, "`errors` must have shape"),
        ({"k": 4}, "`k` must be at most 3"),
        ({"k": 0}, "`k` must be at least 1"),
    ],
)
def test_bad_bars_are_refused(change, message):
    given = {"values": [1.0, 2.0, 3.0], "names": ["a", "b", "c"]} | change
    with pytest.raises(ValueError, match=message):
        plot.feature_bars(given.pop("values"), given.pop("names"), **given)
