"""The pictures of rules: what is in them, and what they refuse."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxnn import plot, rules

ANYTHING = rules.Rule(np.full(1, -np.inf), np.full(1, np.inf), 0, 1.0, 1.0, "")


@pytest.fixture(autouse=True)
def tidy():
    yield
    plt.close("all")


def a_tree():
    fractions = np.array([[0.5, 0.5], [0.7, 0.3], [0.1, 0.9], [1.0, 0.0], [0.4, 0.6]])
    return rules.Tree([0, 1, -1, -1, -1], [1.5, -2.0, 0, 0, 0], [1, 3, 2, 3, 4], [2, 4, 2, 3, 4], fractions)


def test_a_tree_lies_on_its_side_yes_above():
    ax = plot.decision_tree(a_tree(), classes=["a", "b"])
    places = {text.get_text(): text.get_position() for text in ax.texts}
    # In the order of the branches: if x_0 <= 1.5, then if x_1 <= -2, then a.
    assert ax.yaxis_inverted()
    assert places["x_1 ≤ \u22122"][1] < places["b 90%"][1]
    assert places["a 100%"][1] < places["b 60%"][1] < places["b 90%"][1]
    assert places["x_0 ≤ 1.5"][0] < places["x_1 ≤ \u22122"][0] < places["a 100%"][0]
    assert places["yes"][1] < places["x_0 ≤ 1.5"][1] < places["no"][1]


def test_a_list_shows_what_each_rule_decides_and_how_much_of_it_wrongly():
    ends = np.array([0.0]), np.array([np.inf])
    listed = (rules.Rule(*ends, 1, 0.5, 0.9, "if x_0 > 0 then b"), rules.Rule(*ends, 0, 0.1, np.nan, "if c"))
    ax = plt.subplots()[1]
    assert plot.rule_list(rules.RuleList(listed, 0, 0.85, None, "", ("x_0",), ("a", "b")), ax=ax) is ax
    correct, wrong = ([bar.get_width() for bar in bars] for bars in ax.containers)
    np.testing.assert_allclose(correct, [45, 0, 40], atol=1e-9)
    np.testing.assert_allclose(wrong, [5, 10, 0], atol=1e-9)
    assert [text.get_text() for text in ax.texts] == ["90% correct", "0% correct", "100% correct"]


def test_a_rule_is_drawn_on_the_features_it_asks_for():
    rule = rules.Rule(np.array([-np.inf, 2.0, 1.0]), np.array([np.inf, 5.0, np.inf]), 1, 0.3, 0.97, "")
    features = np.random.default_rng(0).uniform(0, 10, (50, 3))
    axes = plot.rule_on_data(rule, features, x=[1.0, 3.0, 8.0])
    assert [ax.get_xlabel() for ax in axes] == ["x_1", "x_2"]
    assert [ax.lines[0].get_xdata()[0] for ax in axes] == [3.0, 8.0]


def test_regions_lie_over_what_is_there():
    ax = plot.decision_map([0.0, 1.0], [0.0, 1.0], [[0.0, 1.0], [1.0, 0.0]])
    before = ax.axis()
    assert plot.regions([[[0, 0], [3, 0], [0, 3]]], ax=ax) is ax
    assert ax.axis() == before
    colored = plot.regions([[[0, 0], [1, 0], [0, 1]]] * 2, values=[-1.0, 3.0])
    assert colored.collections[0].get_clim() == (-3.0, 3.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot.decision_tree(3), TypeError, "`tree` must be a tree"),
        (lambda: plot.decision_tree(a_tree(), names=["a"]), ValueError, "`names` must hold at least 2"),
        (lambda: plot.decision_tree(a_tree(), classes=["a"]), ValueError, "`classes` must hold 2"),
        (lambda: plot.rule_list(a_tree()), TypeError, "`rules` must be a RuleList"),
        (lambda: plot.rule_on_data(a_tree(), [[1.0]]), TypeError, "`rule` must be a Rule"),
        (lambda: plot.rule_on_data(ANYTHING, [[1.0]]), ValueError, "`rule` must have a condition"),
        (lambda: plot.regions([[[0.0, 1.0, 2.0]]]), ValueError, "`polygons`"),
        (lambda: plot.regions([]), ValueError, "`polygons`"),
    ],
)  # fmt: skip
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
