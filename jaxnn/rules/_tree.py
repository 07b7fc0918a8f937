"""A decision tree as arrays: what it answers, its leaves as rules, and its text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn.rules._conditions import Rule, make_rule, number
from jaxnn.rules._questions import Measured, Subject


class Tree(NamedTuple):
    """A decision tree: called with the features `(d,)` of one input it answers a class. Node 0 is the root.

    Attributes:
        feature: `(nodes,)`, int32: which feature a node asks for; -1 at a leaf.
        threshold: `(nodes,)`: `feature <= threshold` leads to the left.
        left: `(nodes,)`, int32: the node on that side; a leaf's own index at a leaf.
        right: `(nodes,)`, int32.
        shares: `(nodes, classes)`: of the inputs in a node, the share to which the model answered each class.
    """

    feature: Any
    threshold: Any
    left: Any
    right: Any
    shares: Any

    def leaf(self, features: ArrayLike, depth: ArrayLike | None = None) -> jax.Array:
        """The index of the leaf of one input, or of the node in which it is after `depth` questions."""
        values = _checks.check_float_array("features", features)
        feature, threshold = jnp.asarray(self.feature), jnp.asarray(self.threshold)
        if values.ndim != 1 or _checks.known_false(jnp.max(feature) < values.size):
            raise ValueError(
                f"`features` must have shape (d,), those of one input, jax.vmap for more; got {values.shape}"
            )
        left, right = jnp.asarray(self.left), jnp.asarray(self.right)
        most = jnp.asarray(len(self.feature) if depth is None else depth)

        def descend(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            node, asked = state
            low = values[feature[node]] <= threshold[node]
            return jnp.where(low, left[node], right[node]), asked + 1

        def inside(state: tuple[jax.Array, jax.Array]) -> jax.Array:
            return (feature[state[0]] >= 0) & (state[1] < most)

        return lax.while_loop(inside, descend, (jnp.zeros((), left.dtype), jnp.zeros((), most.dtype)))[0]

    def __call__(self, features: ArrayLike, depth: ArrayLike | None = None) -> jax.Array:
        """The class of one input, after `depth` questions or at its leaf."""
        return jnp.argmax(jnp.asarray(self.shares)[self.leaf(features, depth)])


class TreeRules(NamedTuple):
    """A tree that says what a model does, measured on inputs held out.

    Attributes:
        tree: a `Tree` of the features; `jax.vmap(found.tree)(features)` for many inputs.
        fidelity: the share of the inputs held out to which it gives the model's answer.
        accuracy: the share of those to which it gives the label; None without labels.
        curve: `(depth + 1,)`: the fidelity of the tree cut off after 0, 1, ... questions.
        rules: a `Rule` for each leaf, with coverage and precision on the inputs held out.
        text: the tree in words.
        names: of the features.
        classes: of the classes.
    """

    tree: Tree
    fidelity: float
    accuracy: float | None
    curve: np.ndarray
    rules: tuple[Rule, ...]
    text: str
    names: tuple[str, ...]
    classes: tuple[str, ...]


def measure(tree: Tree, asked: Subject, held_out: Measured) -> TreeRules:
    """What a tree is worth on the inputs held out, and what it says."""
    tree = Tree(*(np.asarray(leaf) for leaf in tree))
    features = jnp.asarray(held_out.features)
    leaves, given = (np.asarray(values) for values in _of_all(tree, features, len(tree.feature)))
    fidelity, accuracy = held_out.compare(given)
    depths = range(depth_of(tree) + 1)
    curve = np.array([held_out.compare(np.asarray(_of_all(tree, features, k)[1]))[0] for k in depths])
    classes, parted = asked.classes, _parted(tree, held_out.features)
    rules = tuple(
        make_rule(
            low, high, int(tree.shares[leaf].argmax()), leaves == leaf, held_out.answers, asked.names,
            classes, parted,
        )
        for leaf, low, high in boxes(tree, len(asked.names))
    )  # fmt: skip
    text = "\n".join(_text(tree, asked.names, classes, parted))
    return TreeRules(tree, fidelity, accuracy, curve, rules, text, asked.names, classes)


def _parted(tree: Tree, features: np.ndarray) -> list[np.ndarray]:
    """For each feature the values held out, and one between any two thresholds, so that no two look alike."""
    found = []
    for j, values in enumerate(features.T):
        thresholds = np.unique(np.asarray(tree.threshold, np.float64)[tree.feature == j])
        found.append(np.concatenate([values, (thresholds[1:] + thresholds[:-1]) / 2]))
    return found


@jax.jit
def _of_all(tree: Tree, features: jax.Array, depth: jax.Array) -> tuple[jax.Array, jax.Array]:
    leaves = jax.vmap(tree.leaf, (0, None))(features, depth)
    return leaves, jax.vmap(tree.__call__, (0, None))(features, depth)


def depth_of(tree: Tree, node: int = 0) -> int:
    """The most questions on the way to a leaf."""
    if tree.feature[node] < 0:
        return 0
    return 1 + max(depth_of(tree, int(tree.left[node])), depth_of(tree, int(tree.right[node])))


def boxes(tree: Tree, d: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """For each leaf, from left to right, the interval of each feature: `low < feature <= high`."""
    found: list[tuple[int, np.ndarray, np.ndarray]] = []

    def visit(node: int, low: np.ndarray, high: np.ndarray) -> None:
        j, threshold = int(tree.feature[node]), float(tree.threshold[node])
        if j < 0:
            found.append((node, low, high))
            return
        below, above = high.copy(), low.copy()
        below[j], above[j] = min(high[j], threshold), max(low[j], threshold)
        visit(int(tree.left[node]), low, below)
        visit(int(tree.right[node]), above, high)

    visit(0, np.full(d, -np.inf), np.full(d, np.inf))
    return found


def _text(
    tree: Tree,
    names: Sequence[str],
    classes: Sequence[str],
    parted: Sequence[np.ndarray],
    node: int = 0,
    depth: int = 0,
) -> list[str]:
    indent = "    " * depth
    if tree.feature[node] < 0:
        answer = int(tree.shares[node].argmax())
        return [f"{indent}{classes[answer]} ({tree.shares[node][answer]:.0%})"]
    j = int(tree.feature[node])
    name, threshold = names[j], number(tree.threshold[node], parted[j])
    return [
        f"{indent}if {name} <= {threshold}:",
        *_text(tree, names, classes, parted, int(tree.left[node]), depth + 1),
        f"{indent}else:  # {name} > {threshold}",
        *_text(tree, names, classes, parted, int(tree.right[node]), depth + 1),
    ]


def prune(tree: Tree) -> Tree:
    """Take out questions whose answer changes nothing: both sides lead to the same class."""
    keep: list[int] = []
    feature, left, right, shares = (
        np.array(part) for part in (tree.feature, tree.left, tree.right, tree.shares)
    )

    def visit(node: int) -> int | None:
        """The answer that all below gives, if it is one."""
        if feature[node] < 0:
            return int(shares[node].argmax())
        one, other = visit(int(left[node])), visit(int(right[node]))
        if one is None or one != other:
            return None
        if shares[node].argmax() != one:  # asked about other inputs than its parts were
            shares[node] = (shares[left[node]] + shares[right[node]]) / 2
        feature[node], left[node], right[node] = -1, node, node
        return one

    visit(0)

    def collect(node: int) -> None:
        keep.append(node)
        if feature[node] >= 0:
            collect(int(left[node]))
            collect(int(right[node]))

    collect(0)
    number_of = {node: i for i, node in enumerate(keep)}
    places = np.array(keep)
    return Tree(
        feature[places],
        np.asarray(tree.threshold)[places],
        np.array([number_of[int(left[node])] for node in keep], np.int32),
        np.array([number_of[int(right[node])] for node in keep], np.int32),
        shares[places],
    )
