"""A tree grown by asking the model: new inputs are drawn inside of each region before it is split."""

import heapq
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn.rules._conditions import check_rows, check_spread
from jaxnn.rules._distill import rounded_down, seed_of, taught_tree
from jaxnn.rules._questions import (
    Around,
    Region,
    Subject,
    draw,
    everywhere,
    held_out_of,
    require_trees,
    subject,
)
from jaxnn.rules._tree import Tree, TreeRules, measure, prune


def trepan(
    model: Callable[..., Any],
    inputs: ArrayLike,
    *,
    held_out: ArrayLike,
    key: jax.Array,
    held_out_labels: ArrayLike | None = None,
    max_depth: int = 5,
    max_leaves: int = 32,
    min_leaf: int = 5,
    samples: int = 5000,
    spread: float = 0.7,
    decide: Callable[..., Any] | None = None,
    features: Callable[..., Any] | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> TreeRules:
    """A decision tree grown by asking a model inside of each region before it is split.

    Data thins out down a tree: after five questions of 400 inputs about a dozen are left. Here each node is
    first filled up to `samples` inputs, drawn inside of its region round those that are there, and the
    model is asked about them; then the node is split in two by Gini impurity. The node comes first from
    which most is to be gained: the share of all inputs that reach it times the share of those that it answers
    otherwise than the model. Each node asks for one feature; Craven and Shavlik's "m of n" questions, shorter
    to write and harder to read, are left out.

    Args:
        model: a callable of one example.
        inputs: `(n, ...)`, finite: the data to learn from; few will do.
        held_out: `(m, ...)`: data to measure on; the tree never sees it.
        key: a JAX random key.
        held_out_labels: `(m,)`, the true classes of those, to measure the accuracy.
        max_depth: the most questions on the way to a leaf.
        max_leaves: the most leaves.
        min_leaf: the fewest of inputs and samples in a leaf.
        samples: how many inputs a node is filled up to before it is split.
        spread: how far round the inputs, in the standard deviations of the data.
        decide: a function from the output to a class; see `distill_tree`.
        features: a function from one input to the features; see `distill_tree`.
        names: of the features.
        classes: of the classes.

    Returns:
        A `TreeRules`, as `distill_tree` gives it.

    Raises:
        ImportError: scikit-learn, which finds the splits, is not installed.
        TypeError: `model` is not callable, or an array holds no numbers or is traced.
        ValueError: the arrays are empty, not finite or do not fit, or an option is out of range.

    References:
        Craven and Shavlik, "Extracting tree-structured representations of trained networks", 1996.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import rules
        >>> model = lambda x: jnp.stack([0.5 - x[0], x[0] - 0.5])  # class 1 where x_0 > 0.5
        >>> x = jax.random.uniform(jax.random.key(0), (120, 2))
        >>> found = rules.trepan(model, x[:20], held_out=x[20:], key=jax.random.key(1))
        >>> found.fidelity, int(found.tree.feature[0])
        (1.0, 0)
    """
    trees = require_trees()
    _checks.check_key("key", key)
    rows = check_rows("inputs", inputs)
    options = {"max_depth": max_depth, "min_leaf": min_leaf, "samples": samples, "max_leaves": max_leaves}
    for name, value in options.items():
        options[name] = _checks.check_integer(name, value, at_least=2 if name == "max_leaves" else 1)
    spread = check_spread(spread)
    asked = subject(model, rows[0], decide, features, names, classes)
    measured = held_out_of(asked, rows, held_out, held_out_labels)
    around = Around.of(asked, rows, spread)

    def fill(node: int, region: Region) -> np.ndarray:
        missing = max(samples - len(region.inside), 0)
        drawn = draw(jax.random.fold_in(key, node), around, region, missing)
        return np.concatenate([region.inside, drawn])

    stump = trees.DecisionTreeClassifier(max_depth=1, min_samples_leaf=min_leaf, random_state=seed_of(key))
    tree = _grow(asked, fill, stump, everywhere(asked, rows), max_depth, max_leaves)
    return measure(prune(tree), asked, measured)


class _Split(NamedTuple):
    """A node that may be split: its region filled up, where, and into what."""

    feature: int
    threshold: np.ndarray
    left: Region
    right: Region
    to_left: float  # the share of the inputs


def _grow(
    asked: Subject,
    fill: Callable[[int, Region], np.ndarray],
    stump: Any,
    root: Region,
    max_depth: int,
    max_leaves: int,
) -> Tree:
    feature: list[int] = []
    threshold: list[Any] = []
    left: list[int] = []
    right: list[int] = []
    shares: list[np.ndarray] = []
    waiting: list[tuple[float, int, int, float, _Split]] = []

    def add(region: Region, depth: int, reach: float) -> int:
        node = len(feature)
        seen = fill(node, region) if depth < max_depth else region.inside  # it will not be split
        answers = asked.answers(seen)
        share = np.bincount(answers, minlength=len(asked.classes)) / len(answers)
        feature.append(-1)
        threshold.append(0.0)
        left.append(node)
        right.append(node)
        shares.append(share)
        split = _best_split(asked, stump, region, seen, answers) if depth < max_depth else None
        if split is not None:
            heapq.heappush(waiting, (-reach * (1 - share.max()), node, depth, reach, split))
        return node

    add(root, 0, 1.0)
    while waiting and 2 * max_leaves - 1 >= len(feature) + 2:
        _, node, depth, reach, split = heapq.heappop(waiting)
        feature[node], threshold[node] = split.feature, split.threshold
        left[node] = add(split.left, depth + 1, reach * split.to_left)
        right[node] = add(split.right, depth + 1, reach * (1 - split.to_left))
    return Tree(
        np.array(feature, np.int32), np.array(threshold), np.array(left, np.int32),
        np.array(right, np.int32), np.array(shares, np.float32),
    )  # fmt: skip


def _best_split(
    asked: Subject, stump: Any, region: Region, seen: np.ndarray, answers: np.ndarray
) -> _Split | None:
    if np.all(answers == answers[0]):
        return None
    features = asked.describe(seen)
    grown, thresholds = taught_tree(stump, features, answers)
    if grown.node_count == 1:
        return None
    j, threshold = int(grown.feature[0]), rounded_down(thresholds[0], features.dtype)
    below = features[:, j] <= threshold
    high, low = region.high.copy(), region.low.copy()
    high[j] = low[j] = threshold
    left, right = Region(region.low, high, seen[below]), Region(low, region.high, seen[~below])
    return _Split(j, threshold, left, right, float(below.mean()))
