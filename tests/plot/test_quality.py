import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxnn import plot
from jaxnn.quality import Curve, MethodQuality, ParameterRandomization, Report, Verdict

CURVE = Curve(*map(np.asarray, ([0, 0.5, 1], [3.0, 1, 0], 1.25, [3.0, 2, 0], [0, 0.5, 0], 1.75, 0.2)))
RANDOMIZED = ParameterRandomization(
    np.full((2, 3, 4), 0.5), np.full((2, 3, 4), np.nan), np.full(4, 0.1), np.full(4, np.nan)
)

VERDICTS = {"sums up": Verdict(True, 0.001, 0.01, ""), "is stable": Verdict(None, np.nan, 0.5, "")}
PART = MethodQuality({"sparseness": np.ones(4)}, {"deletion": CURVE}, RANDOMIZED, VERDICTS, "")
REFUSED = MethodQuality({}, {}, None, {}, "not of this model")
REPORT = Report({"one": PART, "other": REFUSED}, ("sparseness",), ("last", "first"), 4)


def test_deletion_curves_draw_the_band_of_random_orders():
    bare = CURVE._replace(random_outputs=np.full(3, np.nan))
    ax = plot.deletion_curves({"one": CURVE, "two": bare}, title="curves", ylabel="logit")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["one (area 1.25)", "two (area 1.25)", "random orders (area 1.75)"]
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0
    assert 2.5 in band[:, 1]
    assert (ax.get_title(), ax.get_ylabel()) == ("curves", "logit")
    plt.close(ax.figure)


def test_randomization_draws_the_yardstick():
    ax = plot.randomization({"one": RANDOMIZED}, ["last", "first"])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["none", "last", "first"]
    heights = [line.get_ydata() for line in ax.lines]
    assert any(np.allclose(height, [1, 0.5, 0.5]) for height in heights if len(height) == 3)
    assert any(np.allclose(height, 0.1) for height in heights)
    plt.close(ax.figure)


def test_quality_table_has_a_cell_per_claim():
    ax = plot.quality_table(REPORT, title="table")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["one"]
    assert [text.get_text() for text in ax.texts] == ["yes (0.001)", "-"]
    plt.close(ax.figure)


def test_a_report_is_one_figure_and_one_page():
    figure = REPORT.draw()
    assert len(figure.axes) == 3
    plt.close(figure)
    assert "other</td><td>refused: not of this model" in REPORT.html()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.deletion_curves({}), "`curves` must hold at least one"),
        (lambda: plot.deletion_curves([CURVE]), "`curves` must be a mapping"),
        (lambda: plot.deletion_curves({"a": 3}), r"`curves\['a'\]` must be a result"),
        (lambda: plot.deletion_curves({"a": CURVE._replace(outputs=np.ones((2, 3)))}), "`outputs` must have"),
        (lambda: plot.randomization({"a": RANDOMIZED}, measure="x"), "`measure`"),
        (lambda: plot.randomization({"a": RANDOMIZED}, measure="ssim"), "finite values of 'ssim'"),
        (lambda: plot.randomization({"a": RANDOMIZED}, ["one"]), "`steps` must hold 2"),
        (lambda: plot.quality_table(CURVE), "`found` must be the result of jaxnn.quality.report"),
        (lambda: plot.quality_table(REPORT, ax=3), "`ax`"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
    plt.close("all")


def test_curves_of_jax_arrays():
    plt.close(plot.deletion_curves({"one": Curve(*map(jnp.asarray, CURVE))}).figure)
