"""Figures of rules: decision trees, rule lists, one rule on the data, linear regions of the plane."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from jaxnn._checks import check_last_axis
from jaxnn._typing import PyTree
from jaxnn.plot import _common
from jaxnn.plot._common import BLUE, GRAY, ORANGE, AxesLike, Grid, Labels
from jaxnn.plot._maps import value_colors

_ROW = 0.26  # height of a leaf, in inches


def decision_tree(
    tree: PyTree, *, names: Labels = None, classes: Labels = None, ax: Axes | None = None
) -> Axes:
    """Decision tree diagram: draw a tree from left to right, the branch where the condition holds on top.

    Each leaf shows its class and, of the training inputs there, the fraction for which the model predicts it.

    Args:
        tree: A `jaxnn.rules.Tree`, or any object with its arrays.
        names: One string per feature; by default `x_0`, `x_1`, ....
        classes: One string per class; by default `class 0`, `class 1`, ....
        ax: The Axes to draw in; by default those of a new figure, large enough for all leaves.

    Returns:
        The Axes.

    Raises:
        TypeError: `tree` has no such arrays, or `ax` is not an Axes.
        ValueError: The number of names or classes does not fit.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot, rules
        >>> leaves = np.array([[0.5, 0.5], [1.0, 0.0], [0.1, 0.9]])
        >>> tree = rules.Tree([1, -1, -1], [2.5, 0.0, 0.0], [1, 1, 2], [2, 1, 2], leaves)
        >>> ax = plot.decision_tree(tree, names=["age", "height"], classes=["no", "yes"])
        >>> [text.get_text() for text in ax.texts]
        ['height ≤ 2.5', 'no 100%', 'yes 90%', 'yes', 'no']
        >>> plt.close(ax.figure)
    """
    parts = ("feature", "threshold", "left", "right", "fractions")
    if not all(hasattr(tree, part) for part in parts):
        raise TypeError(f"`tree` must be a tree of jaxnn.rules; got {type(tree).__name__}")
    feature, threshold, left, right, fractions = (np.asarray(getattr(tree, part)) for part in parts)
    n_features, n_classes = int(feature.max()) + 1, fractions.shape[1]
    labels = [f"x_{i}" for i in range(n_features)]
    if names is not None:
        labels = [str(name) for name in _common.check_list("names", names)]
    if len(labels) < n_features:
        raise ValueError(f"`names` must hold at least {n_features}, one per feature; got {len(labels)}")
    class_names = _common.check_labels("classes", classes, n_classes, "class {}")
    places = _places(feature, left, right)
    colors = _common.class_colors(n_classes)
    depth, last_row = int(places[:, 0].max()), float(places[:, 1].max())
    ax = _common.axes_or_new(ax, (2.1 * depth + 2.0, _ROW * (last_row + 1) + 0.6))
    for node, (x, y) in enumerate(places):
        leaf = feature[node] < 0
        for child in () if leaf else (left[node], right[node]):
            at = places[child]
            ax.plot([x, x + 0.08, at[0] - 0.08, at[0]], [y, y, at[1], at[1]], color=GRAY, lw=0.9, zorder=1)
        prediction = int(fractions[node].argmax())
        if leaf:
            text = f"{class_names[prediction]} {fractions[node, prediction]:.0%}"
        else:
            text = _common.true_minus(f"{labels[feature[node]]} ≤ {threshold[node]:.4g}")
        box = {"facecolor": (colors[prediction], 0.3) if leaf else "white", "edgecolor": GRAY, "lw": 0.5}
        ax.text(x, y, text, ha="left", va="center", fontsize=7.5, bbox=box | {"boxstyle": "round,pad=0.2"})
    if depth:  # label the branches once, at the root
        for child, word in ((left[0], "yes"), (right[0], "no")):
            x, y = places[child]
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            ax.text(x - 0.05, y, word, ha="right", va="center", fontsize=7, color="dimgray", bbox=box)
    ax.set(xlim=(-0.05, depth + 0.75), ylim=(last_row + 0.6, -0.6))
    ax.set_axis_off()
    return ax


def _places(
    feature: Int[np.ndarray, "nodes"], left: Int[np.ndarray, "nodes"], right: Int[np.ndarray, "nodes"]
) -> Float[np.ndarray, "nodes 2"]:
    """Depth and row of each node: one row per leaf, inner nodes midway between their two branches."""
    places = np.zeros((len(feature), 2))
    rows = iter(range(len(feature)))

    def visit(node: int, depth: int) -> float:
        if feature[node] < 0:
            row = float(next(rows))
        else:
            row = (visit(int(left[node]), depth + 1) + visit(int(right[node]), depth + 1)) / 2
        places[node] = depth, row
        return row

    visit(0, 0)
    return places


def rule_list(rules: PyTree, *, ax: Axes | None = None) -> Axes:
    """Rule list chart: draw the coverage and the precision of each rule, from the first to the default.

    Args:
        rules: A `jaxnn.rules.RuleList`.
        ax: The Axes to draw in; by default those of a new figure.

    Returns:
        The Axes, with one bar per rule. Its length is the fraction of the inputs that the rule decides; the
        part for which the model predicts another class is gray.

    Raises:
        TypeError: `rules` is not a rule list, or `ax` is not an Axes.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot, rules
        >>> ends = np.array([0.0]), np.array([np.inf])
        >>> rule = rules.Rule(*ends, 1, 0.4, 0.95, "if x_0 > 0 then yes")
        >>> ax = plot.rule_list(rules.RuleList((rule,), 0, 0.9, None, "", ("x_0",), ("no", "yes")))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['if x_0 > 0 then yes', 'else no']
        >>> plt.close(ax.figure)
    """
    if not all(hasattr(rules, part) for part in ("rules", "default", "fidelity", "classes")):
        raise TypeError(f"`rules` must be a RuleList of jaxnn.rules; got {type(rules).__name__}")
    coverage = np.array([rule.coverage for rule in rules.rules])
    correct = np.array([rule.coverage * np.nan_to_num(rule.precision) for rule in rules.rules])
    coverage = np.append(coverage, 1 - coverage.sum())
    correct = np.append(correct, rules.fidelity - correct.sum())
    predictions = [*(rule.prediction for rule in rules.rules), rules.default]
    texts = [f"{'else ' if i else ''}{rule.text}" for i, rule in enumerate(rules.rules)]
    texts.append(f"{'else' if texts else 'always'} {rules.classes[rules.default]}")
    ax = _common.axes_or_new(ax, (4.0 + 0.068 * max(map(len, texts)), 0.38 * len(texts) + 1.3))
    colors = _common.class_colors(len(rules.classes))
    rows = np.arange(len(texts))
    ax.barh(rows, 100 * correct, color=[colors[k] for k in predictions])
    gray: dict[str, Any] = {"hatch": "///", "edgecolor": "white"}
    ax.barh(rows, 100 * (coverage - correct), left=100 * correct, color=GRAY, **gray)
    for row, (covered, good) in enumerate(zip(coverage, correct, strict=True)):
        text = f"{good / covered:.0%} correct" if covered > 1e-9 else "none"
        ax.annotate(text, (100 * covered, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(rows, texts, fontsize=8)
    ax.set(xlabel="coverage, % of inputs", xlim=(0, 130 * coverage.max()), ylim=(len(texts) - 0.5, -0.5))
    handles = [Patch(color=colors[k], label=rules.classes[k]) for k in sorted(set(predictions))]
    handles.append(Patch(facecolor=GRAY, label="the model predicts another class", **gray))
    ax.legend(
        handles=handles,
        fontsize=8,
        ncols=len(handles),
        loc="lower right",
        bbox_to_anchor=(1, 1),
        frameon=False,
    )
    return ax


def rule_on_data(
    rule: PyTree,
    features: Num[ArrayLike, "n d"],
    *,
    x: Num[ArrayLike, "d"] | None = None,
    names: Labels = None,
    axes: AxesLike = None,
) -> Grid:
    """Rule on data: draw the histogram of each feature that a rule has a condition on, and its interval.

    Args:
        rule: A `jaxnn.rules.Rule`, such as that of an anchor.
        features: (N, d), finite: the data.
        x: (d,), the input that the rule explains: a line in each histogram.
        names: One string per feature.
        axes: As many Axes as the rule has features with conditions; by default those of a new figure.

    Returns:
        The Axes, one per feature with a condition.

    Raises:
        TypeError: `rule` is not a rule, or the arrays do not hold numbers.
        ValueError: The rule has no condition, or shapes, names or Axes do not fit.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot, rules
        >>> rule = rules.Rule(np.array([-np.inf, 2.0]), np.array([np.inf, 5.0]), 1, 0.3, 0.97, "")
        >>> axes = plot.rule_on_data(rule, np.arange(20.0).reshape(10, 2), names=["age", "height"])
        >>> [ax.get_xlabel() for ax in axes]
        ['height']
        >>> plt.close(axes[0].figure)
    """
    if not (hasattr(rule, "low") and hasattr(rule, "high")):
        raise TypeError(f"`rule` must be a Rule of jaxnn.rules; got {type(rule).__name__}")
    values = _common.check_numbers("features", features, "(N, d)", ndim=2)
    low, high = np.asarray(rule.low), np.asarray(rule.high)
    check_last_axis("features", jnp.asarray(values), low.size, "one column per feature of the rule")
    example = None if x is None else _common.check_numbers("x", x, f"({low.size},)", size=low.size)
    labels = _common.check_labels("names", names, low.size, "x_{}")
    used = np.flatnonzero(np.isfinite(low) | np.isfinite(high))
    if used.size == 0:
        raise ValueError("`rule` must have a condition; it holds for any input")
    if axes is None:
        size = (2.6 * used.size + 0.4, 2.3)
        axes = plt.subplots(1, used.size, figsize=size, squeeze=False, layout="constrained")[1].ravel()
    cells: Grid = np.ravel(np.asarray(axes, object))
    for ax in cells:
        _common.check_axes("axes", ax)
    if len(cells) != used.size:
        raise ValueError(f"`axes` must be {used.size}, one per feature with a condition; got {len(cells)}")
    for ax, j in zip(cells, used, strict=True):
        ax.hist(values[:, j], bins=30, color=GRAY)
        start, end = ax.get_xlim()
        ax.axvspan(max(low[j], start), min(high[j], end), color=BLUE, alpha=0.2, label="the rule holds")
        if example is not None:
            ax.axvline(example[j], color=ORANGE, lw=1.5, label="this input")
        ax.set(xlabel=labels[j], xlim=(start, end), yticks=[])
    cells[0].set_ylabel("inputs")
    cells[0].legend(fontsize=7)
    return cells


def regions(
    polygons: Sequence[Num[ArrayLike, "corners 2"]],
    *,
    values: Num[ArrayLike, "n"] | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Region map: draw a partition of the plane into polygons, such as the linear regions of a network.

    Args:
        polygons: Each (corners, 2), such as from `jaxnn.rules.linear_regions`.
        values: (N,), one number per polygon, colored from red (low) to blue (high); by default only the edges
            are drawn, over the existing contents.
        limits: (low, high) of the color scale; by default as in `decision_map`.
        ax: The Axes to draw in, such as those of a `decision_map`; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        TypeError: The polygons or values are not numbers, or `ax` is not an Axes.
        ValueError: They are not finite or have another shape.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.regions([[[0, 0], [1, 0], [0, 1]], [[1, 0], [1, 1], [0, 1]]])
        >>> len(ax.collections[0].get_paths())
        2
        >>> plt.close(ax.figure)
    """
    corners = [
        _common.check_numbers(f"polygons[{i}]", each, "(corners, 2)", ndim=2)
        for i, each in enumerate(_common.check_list("polygons", polygons, "polygons"))
    ]
    if not corners or any(each.shape[1] != 2 for each in corners):
        raise ValueError("`polygons` must each have shape (corners, 2), and be at least one")
    style: dict[str, Any] = {"facecolor": "none"}
    if limits is not None:
        _common.check_limits(limits)
    if values is not None:
        colors = _common.check_numbers("values", values, f"({len(corners)},)", size=len(corners))
        style = {"array": colors, **value_colors(colors, limits)}
    is_new = ax is None
    ax = _common.axes_or_new(ax)
    drawn = PolyCollection(corners, edgecolor="black", linewidths=0.5, zorder=2, **style)
    ax.add_collection(drawn, autolim=is_new)
    if is_new:
        ends = np.concatenate(corners)
        ax.set(xlim=(ends[:, 0].min(), ends[:, 0].max()), ylim=(ends[:, 1].min(), ends[:, 1].max()))
        ax.set_box_aspect(1)
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax
