"""Tokens as a figure and as HTML: colors by value, letters readable, lines broken, text escaped."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

import jaxnn
from jaxnn import plot

WORDS = ["not", "bad", "at", "all"]
VALUES = [-0.5, 1.5, 0.0, 0.2]


def test_the_background_is_the_value_on_a_scale_around_0():
    ax = plot.tokens(WORDS, VALUES)
    colors = [patch.get_facecolor() for patch in ax.patches]
    cmap = plt.get_cmap("RdBu")
    for color, value in zip(colors, VALUES, strict=True):
        np.testing.assert_allclose(color, cmap(0.5 + value / 3), atol=0.01)
    np.testing.assert_allclose(ax.figure.axes[1].get_ylim(), (-1.5, 1.5))
    plt.close(ax.figure)


def test_letters_contrast_with_their_background():
    ax = plot.tokens(["a"] * 21, np.linspace(-1, 1, 21))
    for text, patch in zip(ax.texts, ax.patches, strict=True):
        weights = (0.2126, 0.7152, 0.0722)
        back, ink = (np.dot(to_rgba(c)[:3], weights) for c in (patch.get_facecolor(), text.get_color()))
        assert abs(back - ink) > 0.3
    plt.close(ax.figure)


def test_long_text_is_broken_into_lines_that_fit():
    ax = plot.tokens(["token"] * 60, np.ones(60), width=4.0)
    right = max(patch.get_x() + patch.get_width() for patch in ax.patches)
    assert len({patch.get_y() for patch in ax.patches}) > 3
    assert right <= 72 * 4.0
    figure = ax.figure
    figure.canvas.draw()
    for text, patch in zip(ax.texts, ax.patches, strict=True):
        assert text.get_window_extent().width <= patch.get_window_extent().width
    plt.close(figure)


def test_odd_tokens_are_drawn_as_they_are():
    ax = plot.tokens(["$x$", "", "<b>", "_a^b", "Ġthe", "\u200b"], np.arange(6.0))
    assert [text.get_text() for text in ax.texts] == ["$x$", "", "<b>", "_a^b", "Ġthe", "\u200b"]
    ax.figure.canvas.draw()
    plt.close(ax.figure)


def test_html_is_escaped_and_colored():
    text = plot.tokens_html(['<img src="x">', "b"], [1.0, -1.0], title="<i>")
    assert "<img" not in text
    assert "<i>" not in text
    blue, red = (text.split("background:")[i][:7] for i in (1, 2))
    assert int(blue[5:], 16) > int(blue[1:3], 16)
    assert int(red[1:3], 16) > int(red[5:], 16)


def test_a_common_limit_clips():
    ax = plot.tokens(WORDS, VALUES, limit=0.5)
    assert ax.figure.axes[1].get_ylim() == (-0.5, 0.5)
    np.testing.assert_allclose(ax.patches[1].get_facecolor(), plt.get_cmap("RdBu")(1.0))
    plt.close(ax.figure)


@pytest.mark.parametrize("draw", [plot.tokens, plot.tokens_html])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((WORDS, VALUES[:3]), {}, ValueError, "`texts` must hold 3 strings; got 4"),
        (("text", VALUES), {}, TypeError, "`texts` must hold strings"),
        ((WORDS, [1.0, np.nan, 0.0, 0.0]), {}, ValueError, "`values`"),
        ((WORDS, VALUES), {"limit": 0.0}, ValueError, "`limit`"),
    ],
)
def test_what_does_not_fit_is_refused(draw, arguments, options, error, message):
    with pytest.raises(error, match=message):
        draw(*arguments, **options)


def test_explanation_draws_one_chart_per_method_and_refuses_others():
    network = jaxnn.init(jax.random.key(0), (4, 8, 3))
    found = jaxnn.explain(network, [0.1, 0.9, 0.4, 0.3], names=["a", "b", "c", "d"])
    figure = plot.explanation(found)
    for ax, name in zip(figure.axes, found.parts, strict=True):
        lengths = {
            t.get_text(): bar.get_width() for t, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)
        }
        expected = dict(zip("abcd", found.values(name), strict=True))
        assert lengths == pytest.approx(expected, rel=1e-6)
    plt.close(figure)
    with pytest.raises(TypeError, match=r"`found` must be the result of jaxnn.explain; got int"):
        plot.explanation(3)
