"""Attributions along time: the colors, the lines and the times, and what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxnn import plot

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(12, 3))
SERIES = 100 * RNG.normal(size=(12, 3)) + [0, 1e3, -1e3]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_each_feature_is_a_row_with_the_first_on_top():
    ax = plot.series(VALUES, series=SERIES, names=["a", "b", "c"], clip=100)
    (mesh,) = ax.collections[:1]
    np.testing.assert_allclose(mesh.get_array().reshape(3, 12), VALUES.T[::-1], rtol=1e-6)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "b", "a"]
    end = np.abs(VALUES).max()
    np.testing.assert_allclose(ax.figure.axes[1].get_ylim(), (-end, end), rtol=1e-6)


def test_each_line_keeps_its_shape_within_its_row():
    ax = plot.series(VALUES, series=SERIES)
    for line, own, row in zip(ax.lines, SERIES.T, (2, 1, 0), strict=True):
        drawn = line.get_ydata() - row
        np.testing.assert_allclose(drawn, 0.1 + 0.8 * (own - own.min()) / np.ptp(own), atol=1e-5)


def test_one_axis_is_one_feature_and_a_constant_line_is_in_the_middle():
    ax = plot.series(VALUES[:, 0], series=np.ones(12), title="heart", xlabel="time, s")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), 0.5)
    assert ax.get_title() == "heart"
    assert ax.get_xlabel() == "time, s"
    assert [label.get_text() for label in ax.get_yticklabels()] == [""]


def test_cells_are_between_the_times():
    ax = plot.series(np.ones(3), times=[0.0, 1.0, 5.0])
    assert ax.get_xlim() == (-0.5, 7.0)
    np.testing.assert_array_equal(ax.collections[0].get_coordinates()[0, :, 0], [-0.5, 0.5, 3.0, 7.0])
    assert plot.series([2.0]).get_xlim() == (-0.5, 0.5)


def test_seconds_since_1970_are_not_rounded():
    times = 1.7e9 + 60 * np.arange(12)
    ax = plot.series(VALUES, series=1.7e9 + SERIES, times=times, xlabel="time, s")
    np.testing.assert_array_equal(np.diff(ax.lines[0].get_xdata()), 60)
    own = SERIES[:, 0]
    np.testing.assert_allclose(
        ax.lines[0].get_ydata() - 2, 0.1 + 0.8 * (own - own.min()) / np.ptp(own), atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"series": SERIES[:5]}, r"`series` must have the shape of `values`, \(12, 3\); got \(5, 3\)"),
        ({"times": np.zeros(12)}, "`times` must increase"),
        ({"times": np.arange(11.0)}, r"`times` must have shape \(12,\)"),
        ({"names": ["a"]}, "`names`"),
        ({"limit": 0.0}, "`limit`"),
        ({"clip": 0.0}, "`clip`"),
    ],
)
def test_bad_input_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        plot.series(VALUES, **options)


def test_other_numbers_of_axes_are_refused():
    with pytest.raises(ValueError, match=r"`values` must have shape \(steps,\) or \(steps, features\)"):
        plot.series(np.ones((2, 2, 2)))
