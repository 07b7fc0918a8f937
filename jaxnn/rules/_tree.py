"""A decision tree as arrays: its predictions, its leaves as rules, and its text."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxnn import _checks
from jaxnn._engine.loops import while_loop
from jaxnn._repr import short_repr
from jaxnn.rules._problem import HeldOut, Problem
from jaxnn.rules._rule import Rule, Vocabulary, measure_rule
from jaxnn.rules._show import drawn, measured


class Tree(NamedTuple):
    """A decision tree as arrays: called with the features `(d,)` of one input, it predicts a class.

    Node 0 is the root.

    Attributes:
        feature: `(nodes,)`, int32: the feature that a node splits on; -1 at a leaf.
        threshold: `(nodes,)`: `feature <= threshold` leads to the left.
        left: `(nodes,)`, int32: the left child; the node itself at a leaf.
        right: `(nodes,)`, int32: the right child, likewise.
        fractions: `(nodes, classes)`: of the training inputs in a node, the fraction for which the model
            predicts each class, in [0, 1].
    """

    feature: Int[np.ndarray, "nodes"]
    threshold: Float[np.ndarray, "nodes"]
    left: Int[np.ndarray, "nodes"]
    right: Int[np.ndarray, "nodes"]
    fractions: Float[np.ndarray, "nodes classes"]

    def __repr__(self) -> str:
        return short_repr(self)

    def leaf(self, features: ArrayLike, depth: ArrayLike | None = None) -> Int[Array, ""]:
        """The index of the leaf of one input, or of its node after `depth` splits."""
        values = _checks.check_float_array("features", features)
        feature, threshold = jnp.asarray(self.feature), jnp.asarray(self.threshold)
        known = _checks.is_concrete(self.feature)
        if values.ndim != 1 or (known and np.max(self.feature) >= values.size):
            raise ValueError(
                "`features` must have shape (d,), the features of one input (use jax.vmap for more); "
                f"got {values.shape}"
            )
        left, right = jnp.asarray(self.left), jnp.asarray(self.right)
        max_depth = _checks.check_array("depth", len(self.feature) if depth is None else depth)

        def descend(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            node, level = state
            is_low = values[feature[node]] <= threshold[node]
            return jnp.where(is_low, left[node], right[node]), level + 1

        def is_inner(state: tuple[jax.Array, jax.Array]) -> jax.Array:
            return (feature[state[0]] >= 0) & (state[1] < max_depth)

        root = jnp.zeros((), left.dtype), jnp.zeros((), max_depth.dtype)
        leaf: jax.Array = while_loop(is_inner, descend, root)[0]
        return leaf

    def __call__(self, features: ArrayLike, depth: ArrayLike | None = None) -> Int[Array, ""]:
        """The predicted class of one input, at its leaf or after `depth` splits."""
        return jnp.argmax(jnp.asarray(self.fractions)[self.leaf(features, depth)])


class TreeRules(NamedTuple):
    """A decision tree that imitates a model, with its measures on held-out data.

    Attributes:
        tree: a `Tree` of the features; `jax.vmap(result.tree)(features)` for many inputs.
        fidelity: the fraction of the held-out inputs for which tree and model predict the same class.
        accuracy: the fraction for which the tree predicts the label; None without labels.
        curve: `(depth + 1,)`: the fidelity of the tree cut off after 0, 1, ... splits.
        rules: one `Rule` per leaf, with coverage and precision on the held-out inputs.
        text: the tree as text.
        names: of the features.
        classes: names of the classes.
    """

    tree: Tree
    fidelity: float
    accuracy: float | None
    curve: Float[np.ndarray, "levels"]
    rules: tuple[Rule, ...]
    text: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        return short_repr(self)

    def __str__(self) -> str:
        return f"{self.text.rstrip()}\n{measured(self.fidelity, self.accuracy)}"

    def _repr_html_(self) -> str:
        return drawn("decision_tree", self.tree, str(self), names=self.names, classes=self.classes)


def measure_tree(tree: Tree, problem: Problem, held_out: HeldOut) -> TreeRules:
    """Measure a tree on held-out data, and write it as rules and as text."""
    features = jnp.asarray(held_out.features)
    predictions = tree.fractions.argmax(axis=1)
    # The path of each input: its node after 0, 1, ... splits; the last is its leaf.
    path = [np.asarray(_nodes_at(tree, features, level)) for level in range(_depth(tree) + 1)]
    scores = [held_out.score(predictions[nodes]) for nodes in path]
    vocabulary = Vocabulary(problem.names, problem.classes, problem.dtype)
    rules = tuple(
        measure_rule(vocabulary, held_out, low, high, int(predictions[leaf]), path[-1] == leaf)
        for leaf, low, high in _boxes(tree, len(problem.names))
    )
    text = "\n".join(_text(tree, vocabulary))
    curve = np.array([fidelity for fidelity, _ in scores])
    return TreeRules(tree, *scores[-1], curve, rules, text, problem.names, problem.classes)


@jax.jit
def _nodes_at(tree: Tree, features: Float[Array, "m d"], level: ArrayLike) -> Int[Array, "m"]:
    return jax.vmap(tree.leaf, (0, None))(features, level)


def _depth(tree: Tree, node: int = 0) -> int:
    """The largest number of splits from a node to a leaf."""
    if tree.feature[node] < 0:
        return 0
    return 1 + max(_depth(tree, int(tree.left[node])), _depth(tree, int(tree.right[node])))


def _boxes(tree: Tree, d: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """For each leaf, from left to right, the interval of each feature: `low < feature <= high`."""
    boxes: list[tuple[int, np.ndarray, np.ndarray]] = []

    def visit(node: int, low: np.ndarray, high: np.ndarray) -> None:
        j, threshold = int(tree.feature[node]), float(tree.threshold[node])
        if j < 0:
            boxes.append((node, low, high))
            return
        below, above = high.copy(), low.copy()
        below[j], above[j] = min(high[j], threshold), max(low[j], threshold)
        visit(int(tree.left[node]), low, below)
        visit(int(tree.right[node]), above, high)

    low, high = (np.full(d, end, tree.threshold.dtype) for end in (-np.inf, np.inf))
    visit(0, low, high)
    return boxes


def _text(tree: Tree, vocabulary: Vocabulary, node: int = 0, depth: int = 0) -> list[str]:
    indent = "    " * depth
    if tree.feature[node] < 0:
        prediction = int(tree.fractions[node].argmax())
        return [f"{indent}{vocabulary.classes[prediction]} ({tree.fractions[node][prediction]:.0%})"]
    j = int(tree.feature[node])
    name = vocabulary.names[j]
    threshold = vocabulary.threshold(tree.threshold[node])
    return [
        f"{indent}if {name} <= {threshold}:",
        *_text(tree, vocabulary, int(tree.left[node]), depth + 1),
        f"{indent}else:  # {name} > {threshold}",
        *_text(tree, vocabulary, int(tree.right[node]), depth + 1),
    ]


def prune(tree: Tree) -> Tree:
    """Remove splits that change no prediction: both sides predict the same class."""
    dtypes = (np.int32, None, np.int32, np.int32, np.float32)
    feature, threshold, left, right, fractions = map(np.array, tree, dtypes)

    def visit(node: int) -> int | None:
        """The class that everything below a node predicts, if it is one."""
        if feature[node] < 0:
            return int(fractions[node].argmax())
        below, above = visit(int(left[node])), visit(int(right[node]))
        if below is None or below != above:
            return None
        if fractions[node].argmax() != below:  # its inputs differ from those of its children
            fractions[node] = (fractions[left[node]] + fractions[right[node]]) / 2
        feature[node], left[node], right[node] = -1, node, node
        return below

    visit(0)
    kept: list[int] = []

    def collect(node: int) -> None:
        kept.append(node)
        if feature[node] >= 0:
            collect(int(left[node]))
            collect(int(right[node]))

    collect(0)
    new_index = np.zeros(len(feature), np.int32)
    new_index[kept] = np.arange(len(kept))
    return Tree(
        feature[kept], threshold[kept], new_index[left[kept]], new_index[right[kept]], fractions[kept]
    )
