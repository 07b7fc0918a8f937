"""Pictures of rules: a decision tree, a list of rules, one rule on the data, the regions of a plane."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from jaxnn._checks import check_last_axis
from jaxnn.plot._common import BLUE, ORANGE, Labels, check_axes, class_colors, new_axes, numbers, strings
from jaxnn.plot._maps import value_colors

_ROW = 0.26  # height of a leaf, in inches
_GRAY = "#B0B0B0"


def decision_tree(tree: Any, *, names: Labels = None, classes: Labels = None, ax: Axes | None = None) -> Axes:
    """Draw a decision tree from left to right: up where the condition holds, down where it does not.

    At each leaf stand its class and the share of the inputs there, of those that the tree learned from, to
    which the model gave that answer.

    Args:
        tree: A `jaxnn.rules.Tree`, or anything with its arrays.
        names: A string for each feature; by default `x_0`, `x_1`, ....
        classes: A string for each class; by default `class 0`, `class 1`, ....
        ax: Where to draw; by default a new figure, large enough for all leaves.

    Returns:
        The Axes drawn in.

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
    parts = ("feature", "threshold", "left", "right", "shares")
    if not all(hasattr(tree, part) for part in parts):
        raise TypeError(f"`tree` must be a tree of jaxnn.rules; got {type(tree).__name__}")
    feature, threshold, left, right, shares = (np.asarray(getattr(tree, part)) for part in parts)
    known = int(feature.max()) + 1
    labels = [f"x_{i}" for i in range(known)] if names is None else [str(name) for name in names]
    if len(labels) < known:
        raise ValueError(f"`names` must hold a string a feature, at least {known}; got {len(labels)}")
    kinds = _class_labels(classes, shares.shape[1])
    places = _places(feature, left, right)
    colors = class_colors(len(kinds))
    depth = int(places[:, 0].max())
    if ax is None:
        rows = places[:, 1].max() + 1
        size = (2.1 * depth + 2.0, _ROW * rows + 0.6)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    ax = check_axes("ax", ax)
    for node, (x, y) in enumerate(places):
        leaf = feature[node] < 0
        for child in () if leaf else (left[node], right[node]):
            at = places[child]
            ax.plot([x, x + 0.08, at[0] - 0.08, at[0]], [y, y, at[1], at[1]], color=_GRAY, lw=0.9, zorder=1)
        answer = int(shares[node].argmax())
        text = (
            f"{kinds[answer]} {shares[node, answer]:.0%}"
            if leaf
            else f"{labels[feature[node]]} ≤ {threshold[node]:.4g}".replace("-", "\u2212")
        )
        box = {"facecolor": (colors[answer], 0.3) if leaf else "white", "edgecolor": _GRAY, "lw": 0.5}
        ax.text(x, y, text, ha="left", va="center", fontsize=7.5, bbox=box | {"boxstyle": "round,pad=0.2"})
    if depth:  # which branch is which, once
        for child, word in ((left[0], "yes"), (right[0], "no")):
            x, y = places[child]
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            ax.text(x - 0.05, y, word, ha="right", va="center", fontsize=7, color="dimgray", bbox=box)
    ax.set(xlim=(-0.05, depth + 0.75), ylim=(places[:, 1].max() + 0.6, -0.6))
    ax.set_axis_off()
    return ax


def _places(
    feature: npt.NDArray[Any], left: npt.NDArray[Any], right: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Depth and row of each node: a row a leaf, an inner node in the middle of its two branches."""
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


def rule_list(found: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a list of rules from the first to the default: how much each decides, and how much of it wrongly.

    Args:
        found: A `jaxnn.rules.RuleList`.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes drawn in: a bar a rule, its length the share of the inputs that it decides; the part to which
        the model answers otherwise is gray.

    Raises:
        TypeError: `found` is no list of rules, or `ax` is not an Axes.

    Example:
        >>> import numpy as np
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot, rules
        >>> ends = np.array([0.0]), np.array([np.inf])
        >>> rule = rules.Rule(*ends, 1, 0.4, 0.95, "if x_0 > 0 then yes")
        >>> found = rules.RuleList((rule,), 0, 0.9, None, "", ("x_0",), ("no", "yes"))
        >>> ax = plot.rule_list(found)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['if x_0 > 0 then yes', 'else no']
        >>> plt.close(ax.figure)
    """
    if not all(hasattr(found, part) for part in ("rules", "default", "fidelity", "classes")):
        raise TypeError(f"`found` must be a RuleList of jaxnn.rules; got {type(found).__name__}")
    coverage = np.array([rule.coverage for rule in found.rules])
    right = np.array([rule.coverage * np.nan_to_num(rule.precision) for rule in found.rules])
    coverage, right = np.append(coverage, 1 - coverage.sum()), np.append(right, found.fidelity - right.sum())
    answers = [*(rule.answer for rule in found.rules), found.default]
    texts = [f"{'else ' if i else ''}{rule.text}" for i, rule in enumerate(found.rules)]
    texts.append(f"{'else' if texts else 'always'} {found.classes[found.default]}")
    if ax is None:
        width = 4.0 + 0.068 * max(map(len, texts))
        ax = plt.subplots(figsize=(width, 0.38 * len(texts) + 1.3), layout="constrained")[1]
    ax = check_axes("ax", ax)
    colors = class_colors(len(found.classes))
    rows = np.arange(len(texts))
    ax.barh(rows, 100 * right, color=[colors[answer] for answer in answers])
    ax.barh(rows, 100 * (coverage - right), left=100 * right, color=_GRAY, hatch="///", edgecolor="white")
    for row, (all_, good) in enumerate(zip(coverage, right, strict=True)):
        share = f"{good / all_:.0%} right" if all_ > 1e-9 else "none"
        ax.annotate(share, (100 * all_, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(rows, texts, fontsize=8)
    ax.set(xlabel="decides, % of inputs", xlim=(0, 130 * coverage.max()), ylim=(len(texts) - 0.5, -0.5))
    used = sorted(set(answers))
    handles = [Patch(color=colors[k], label=found.classes[k]) for k in used]
    wrong = Patch(facecolor=_GRAY, hatch="///", edgecolor="white", label="the model answers otherwise")
    ax.legend(
        handles=[*handles, wrong], fontsize=8, ncols=len(used) + 1, loc="lower right",
        bbox_to_anchor=(1, 1), frameon=False,
    )  # fmt: skip
    return ax


def rule_on_data(
    rule: Any,
    features: ArrayLike,
    *,
    x: ArrayLike | None = None,
    names: Labels = None,
    axes: Any = None,
) -> npt.NDArray[np.object_]:
    """Draw the conditions of one rule on the data: for each feature it asks for, how that is distributed.

    Args:
        rule: A `jaxnn.rules.Rule`, such as that of an anchor.
        features: (N, d), finite: the data.
        x: (d,), the input that the rule was made for: a line in each picture.
        names: A string for each feature.
        axes: As many Axes as the rule has conditioned features; by default those of a new figure.

    Returns:
        The Axes drawn in, one for each conditioned feature.

    Raises:
        TypeError: `rule` is no rule, or the arrays are not numbers.
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
    values = numbers("features", features, "(N, d)", ndim=2)
    low, high = np.asarray(rule.low), np.asarray(rule.high)
    check_last_axis("features", jnp.asarray(values), low.size, "a column for each feature of the rule")
    own = None if x is None else numbers("x", x, f"({low.size},)", size=low.size)
    labels = strings("names", [f"x_{i}" for i in range(low.size)] if names is None else names, low.size)
    asked = np.flatnonzero(np.isfinite(low) | np.isfinite(high))
    if asked.size == 0:
        raise ValueError("`rule` must have a condition; it holds for anything")
    if axes is None:
        size = (2.6 * asked.size + 0.4, 2.3)
        axes = plt.subplots(1, asked.size, figsize=size, squeeze=False, layout="constrained")[1].ravel()
    cells: npt.NDArray[np.object_] = np.empty(len(axes), object)
    cells[:] = [check_axes("axes", ax) for ax in axes]
    if len(cells) != asked.size:
        raise ValueError(f"`axes` must be {asked.size}, one for each conditioned feature; got {len(cells)}")
    for ax, j in zip(cells, asked, strict=True):
        ax.hist(values[:, j], bins=30, color=_GRAY)
        start, end = ax.get_xlim()
        ax.axvspan(max(low[j], start), min(high[j], end), color=BLUE, alpha=0.2, label="the rule holds")
        if own is not None:
            ax.axvline(own[j], color=ORANGE, lw=1.5, label="this input")
        ax.set(xlabel=labels[j], xlim=(start, end), yticks=[])
    cells[0].set_ylabel("inputs")
    cells[0].legend(fontsize=7)
    return cells


def regions(
    polygons: Sequence[ArrayLike],
    *,
    values: ArrayLike | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the polygons into which a plane is cut, such as the linear regions of a network of two inputs.

    Args:
        polygons: Each (corners, 2), as of `jaxnn.rules.linear_regions`.
        values: (N,), a number for each, that colors it from red (low) to blue (high); by default only the
            edges are drawn, over what is there.
        limits: (low, high) of the colors; by default as in `decision_map`.
        ax: Where to draw, such as over a `decision_map`; by default a new figure.

    Returns:
        The Axes drawn in.

    Raises:
        TypeError: The polygons or values are not numbers, or `ax` is not an Axes.
        ValueError: They are not finite or of another shape.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from jaxnn import plot
        >>> ax = plot.regions([[[0, 0], [1, 0], [0, 1]], [[1, 0], [1, 1], [0, 1]]])
        >>> len(ax.collections[0].get_paths())
        2
        >>> plt.close(ax.figure)
    """
    corners = [numbers(f"polygons[{i}]", each, "(corners, 2)", ndim=2) for i, each in enumerate(polygons)]
    if not corners or any(each.shape[1] != 2 for each in corners):
        raise ValueError("`polygons` must each have shape (corners, 2), and be at least one")
    style: dict[str, Any] = {"facecolor": "none"}
    if values is not None:
        colors = numbers("values", values, f"({len(corners)},)", size=len(corners))
        style = {"array": colors, **value_colors(colors, limits)}
    fresh = ax is None
    ax = new_axes(ax)
    drawn = PolyCollection(corners, edgecolor="black", linewidths=0.5, zorder=2, **style)
    ax.add_collection(drawn, autolim=fresh)
    if fresh:
        ends = np.concatenate(corners)
        ax.set(xlim=(ends[:, 0].min(), ends[:, 0].max()), ylim=(ends[:, 1].min(), ends[:, 1].max()))
        ax.set_box_aspect(1)
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def _class_labels(classes: Labels, count: int) -> list[str]:
    return strings("classes", [f"class {k}" for k in range(count)] if classes is None else classes, count)
