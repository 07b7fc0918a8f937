"""Distillation of a model into a decision tree, on the data and on samples around it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from jaxnn import _checks
from jaxnn._typing import Key, Model
from jaxnn.rules._problem import prepare
from jaxnn.rules._rule import shorten
from jaxnn.rules._tree import Tree, TreeRules, measure_tree, prune

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier
    from sklearn.tree._tree import Tree as FittedTree


def distill_tree(
    model: Model,
    inputs: Num[ArrayLike, "n ..."],
    *,
    held_out: Num[ArrayLike, "m ..."],
    key: Key,
    held_out_labels: Int[ArrayLike, "m"] | None = None,
    max_depth: int = 5,
    min_leaf: int = 5,
    n_samples: int = 5000,
    spread: float = 0.7,
    decide: Model | None = None,
    features: Model | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> TreeRules:
    """Decision tree distillation: fit scikit-learn's decision tree to the predictions of a model.

    The model is queried on the inputs and on `n_samples` samples around them,
    `z = x_i + spread * e`, with `x_i` a random input and `e` normal noise with the covariance of the inputs.
    Each element of `z` is clipped to its range in the inputs. Splits minimize the Gini impurity. A split that
    changes no prediction is removed. Thresholds have few digits: four, or as many as separate the inputs and
    samples as the fitted ones do. Labels are used only to measure the accuracy.

    Thresholds are in the units of the inputs. If a network expects scaled inputs, wrap it as a model of the
    unscaled data:
    `jax.tree_util.Partial(lambda net, mean, scale, x: net((x - mean) / scale), net, mean, scale)`.

    Args:
        model: a callable of one example.
        inputs: `(n, ...)`, finite: the data to learn from.
        held_out: `(m, ...)`: the data to measure on; the tree is not fitted to it.
        key: a JAX random key.
        held_out_labels: `(m,)`, the true classes of the held-out data, to measure the accuracy.
        max_depth: the maximum number of splits from the root to a leaf.
        min_leaf: the minimum number of inputs and samples in a leaf.
        n_samples: the number of samples; 0 for none.
        spread: the scale of the noise, in standard deviations of the inputs.
        decide: a function from the output to its class, 0, 1, ...; by default the index of the largest
            element of a vector.
        features: a function from one input to the features `(d,)` to split on; by default its elements.
        names: of the features, in the text; by default those of the columns of a data frame, else `x_0`,
            `x_1`, ....
        classes: names of the classes; by default `class 0`, `class 1`, ....

    Returns:
        A `TreeRules`: the tree, its fidelity and accuracy on the held-out data, its fidelity at each depth,
        one rule per leaf, and the text. `jaxnn.plot.decision_tree` draws it.

    Raises:
        ImportError: scikit-learn is not installed.
        TypeError: `model` is not callable, or an array holds no numbers or is traced.
        ValueError: the arrays are empty, not finite or do not fit, or an option is out of range.

    References:
        Bastani, Kim and Bastani, "Interpreting blackbox models via model extraction", 2017, arXiv:1705.08504.
        Breiman and Shang, "Born again trees", 1996.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import rules
        >>> model = lambda x: jnp.stack([0.5 - x[0], x[0] - 0.5])  # class 1 where x_0 > 0.5
        >>> x = jax.random.uniform(jax.random.key(0), (400, 2))
        >>> result = rules.distill_tree(model, x[:200], held_out=x[200:], key=jax.random.key(1))
        >>> print(result.text)
        if x_0 <= 0.5:
            class 0 (100%)
        else:  # x_0 > 0.5
            class 1 (100%)
    """
    _checks.check_key("key", key)
    max_depth = _checks.check_integer("max_depth", max_depth, at_least=1)
    min_leaf = _checks.check_integer("min_leaf", min_leaf, at_least=1)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=0)
    problem = prepare(model, inputs, spread, decide, features, names, classes)
    learner = tree_learner(key, max_depth, min_leaf)
    measured_on = problem.held_out(held_out, held_out_labels)
    training_features, predictions = problem.training_data(key, n_samples)
    fitted, thresholds = fit_tree(learner, training_features, predictions)
    nodes = np.arange(fitted.node_count)
    is_leaf = fitted.children_left < 0
    fractions = np.zeros((len(nodes), len(problem.classes)), np.float32)
    fractions[:, learner.classes_] = fitted.value[:, 0] / fitted.value[:, 0].sum(axis=1, keepdims=True)
    short = [
        0 if leaf else shorten(threshold, training_features[:, j], problem.dtype)
        for leaf, threshold, j in zip(is_leaf, thresholds, fitted.feature, strict=True)
    ]
    tree = Tree(
        np.where(is_leaf, -1, fitted.feature),
        np.array(short, training_features.dtype),
        np.where(is_leaf, nodes, fitted.children_left),
        np.where(is_leaf, nodes, fitted.children_right),
        fractions,
    )
    return measure_tree(prune(tree), problem, measured_on)


def tree_learner(key: Key, max_depth: int, min_leaf: int) -> "DecisionTreeClassifier":
    """scikit-learn's decision tree classifier, or an error that says how to install it."""
    tree = _checks.require("sklearn.tree", "a tree", "rules")
    options = {"max_depth": max_depth, "min_samples_leaf": min_leaf, "random_state": seed_of(key)}
    return tree.DecisionTreeClassifier(**options)


def seed_of(key: Key) -> int:
    """A seed for scikit-learn, which chooses at random between equally good features."""
    return int(jax.random.randint(jax.random.fold_in(key, 2**31), (), 0, 2**31 - 1))


def fit_tree(
    learner: "DecisionTreeClassifier", features: Float[np.ndarray, "n d"], predictions: Int[np.ndarray, "n"]
) -> tuple["FittedTree", Float[np.ndarray, "nodes"]]:
    """Fit a tree of scikit-learn; return it and its thresholds, which have no meaning at a leaf.

    scikit-learn rounds to float32, and treats values within 1e-7 as equal. So each feature is centered, and
    scaled by a power of two to a range of about 1.
    """
    values = features.astype(np.float64)
    centers = (values.min(axis=0) + values.max(axis=0)) / 2
    _, exponents = np.frexp(np.ptp(values, axis=0))
    fitted = learner.fit(np.ldexp(values - centers, -exponents), predictions).tree_
    split_on = np.maximum(fitted.feature, 0)  # negative at a leaf
    return fitted, np.ldexp(fitted.threshold, exponents[split_on]) + centers[split_on]
