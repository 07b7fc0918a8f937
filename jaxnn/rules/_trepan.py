"""TREPAN: a decision tree grown with new queries of the model in each region."""

import heapq
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num, Shaped

from jaxnn import _checks
from jaxnn._typing import Key, Model
from jaxnn.rules._distill import fit_tree, tree_learner
from jaxnn.rules._problem import Problem, prepare
from jaxnn.rules._rule import shorten
from jaxnn.rules._sampling import Region, draw
from jaxnn.rules._tree import Tree, TreeRules, measure_tree, prune

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier as Learner

Fill: TypeAlias = Callable[[int, Region], np.ndarray]  # of a node: its inputs, filled up with samples


def trepan(
    model: Model,
    inputs: Num[ArrayLike, "n ..."],
    *,
    held_out: Num[ArrayLike, "m ..."],
    key: Key,
    held_out_labels: Int[ArrayLike, "m"] | None = None,
    max_depth: int = 5,
    max_leaves: int = 32,
    min_leaf: int = 5,
    n_samples: int = 5000,
    spread: float = 0.7,
    decide: Model | None = None,
    features: Model | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> TreeRules:
    """TREPAN: grow a decision tree with new samples of the model's predictions in each region.

    Data thin out down a tree: after five splits of 400 inputs about a dozen are left. Here each node is first
    filled up to `n_samples` inputs, drawn inside its region around those that reach it, and the model is
    queried on them. Then the node is split in two by Gini impurity. Growth is best-first: the node with the
    largest reach times infidelity is split next. The reach is the fraction of all inputs that get to the
    node, the infidelity the fraction of its inputs for which node and model predict different classes. Each
    split is on one feature; the "m of n" splits of Craven and Shavlik are shorter to write and harder to
    read, and are not implemented.

    Args:
        model: a callable of one example.
        inputs: `(n, ...)`, finite: the data to learn from; few suffice.
        held_out: `(m, ...)`: the data to measure on; the tree is not fitted to it.
        key: a JAX random key.
        held_out_labels: `(m,)`, the true classes of the held-out data, to measure the accuracy.
        max_depth: the maximum number of splits from the root to a leaf.
        max_leaves: the maximum number of leaves.
        min_leaf: the minimum number of inputs and samples in a leaf.
        n_samples: the number of inputs that a node is filled up to before it is split.
        spread: the scale of the noise, in standard deviations of the inputs.
        decide: a function from the output to its class; see `distill_tree`.
        features: a function from one input to the features; see `distill_tree`.
        names: of the features; by default those of the columns of a data frame.
        classes: names of the classes.

    Returns:
        A `TreeRules`, as from `distill_tree`.

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
        >>> result = rules.trepan(model, x[:20], held_out=x[20:], key=jax.random.key(1))
        >>> result.fidelity, int(result.tree.feature[0])
        (1.0, 0)
    """
    _checks.check_key("key", key)
    max_depth = _checks.check_integer("max_depth", max_depth, at_least=1)
    max_leaves = _checks.check_integer("max_leaves", max_leaves, at_least=2)
    min_leaf = _checks.check_integer("min_leaf", min_leaf, at_least=1)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=1)
    problem = prepare(model, inputs, spread, decide, features, names, classes)
    stump = tree_learner(key, 1, min_leaf)
    _checks.check_bytes("n_samples", 16 * n_samples * problem.inputs[0].size)
    measured_on = problem.held_out(held_out, held_out_labels)

    def fill(node: int, region: Region) -> Shaped[np.ndarray, "k ..."]:
        missing = max(n_samples - len(region.inputs), 0)
        samples = draw(jax.random.fold_in(key, node), problem.sampler, region, missing)
        return np.concatenate([region.inputs, samples])

    tree = _grow(problem, fill, stump, max_depth, max_leaves)
    return measure_tree(prune(tree), problem, measured_on)


class _Split(NamedTuple):
    """A candidate split of a node: the feature, the threshold, and the two regions."""

    feature: int
    threshold: Float[np.ndarray, ""]
    left: Region
    right: Region
    left_fraction: float  # of the inputs


def _grow(problem: Problem, fill: Fill, stump: "Learner", max_depth: int, max_leaves: int) -> Tree:
    nodes: list[tuple[int, float | np.ndarray, int, int, np.ndarray]] = []  # the fields of `Tree`
    queue: list[tuple[float, int, int, float, _Split]] = []

    def add(region: Region, depth: int, reach: float) -> int:
        node = len(nodes)
        inputs = fill(node, region) if depth < max_depth else region.inputs  # a node at that depth is a leaf
        predictions = problem.predict(inputs)
        fractions = np.bincount(predictions, minlength=len(problem.classes)) / len(predictions)
        nodes.append((-1, 0.0, node, node, fractions))
        split = _best_split(problem, stump, region, inputs, predictions) if depth < max_depth else None
        if split is not None:
            heapq.heappush(queue, (-reach * (1 - fractions.max()), node, depth, reach, split))
        return node

    add(problem.whole_space(), 0, 1.0)
    while queue and len(nodes) + 2 < 2 * max_leaves:
        _, node, depth, reach, split = heapq.heappop(queue)
        left = add(split.left, depth + 1, reach * split.left_fraction)
        right = add(split.right, depth + 1, reach * (1 - split.left_fraction))
        nodes[node] = (split.feature, split.threshold, left, right, nodes[node][-1])
    return Tree(*map(np.array, zip(*nodes, strict=True)))


def _best_split(
    problem: Problem, stump: "Learner", region: Region, inputs: np.ndarray, predictions: np.ndarray
) -> _Split | None:
    if np.all(predictions == predictions[0]):
        return None
    features = problem.featurize(inputs)
    fitted, thresholds = fit_tree(stump, features, predictions)
    if fitted.node_count == 1:
        return None
    j = int(fitted.feature[0])
    threshold = shorten(thresholds[0], features[:, j], problem.dtype)
    is_low = features[:, j] <= threshold
    high, low = region.high.copy(), region.low.copy()
    high[j] = low[j] = threshold
    left, right = Region(region.low, high, inputs[is_low]), Region(low, region.high, inputs[~is_low])
    return _Split(j, threshold, left, right, float(is_low.mean()))
