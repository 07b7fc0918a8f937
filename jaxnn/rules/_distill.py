"""A decision tree taught by a model's own answers, on the data and on samples drawn round it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn.rules._conditions import check_rows, check_spread
from jaxnn.rules._questions import Around, draw, everywhere, held_out_of, require_trees, subject
from jaxnn.rules._tree import Tree, TreeRules, measure, prune


def distill_tree(
    model: Callable[..., Any],
    inputs: ArrayLike,
    *,
    held_out: ArrayLike,
    key: jax.Array,
    held_out_labels: ArrayLike | None = None,
    max_depth: int = 5,
    min_leaf: int = 5,
    samples: int = 5000,
    spread: float = 0.7,
    decide: Callable[..., Any] | None = None,
    features: Callable[..., Any] | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> TreeRules:
    """A decision tree that imitates a model: scikit-learn's, taught by the model's own answers.

    The model is asked about the inputs and about `samples` more, drawn round them:
    `z = x_i + spread * e`, `x_i` by lot and `e` normal with the covariance of the inputs, within the range of
    each input's entries. The tree splits by Gini impurity. A question that changes no answer is taken out. No
    label is used but to measure the accuracy.

    Thresholds are in the units of the inputs. For a network of scaled inputs, make a model of the units of
    the data: `jax.tree_util.Partial(lambda net, mean, scale, x: net((x - mean) / scale), net, mean, scale)`.

    Args:
        model: a callable of one example.
        inputs: `(n, ...)`, finite: the data to learn from.
        held_out: `(m, ...)`: data to measure on; the tree never sees it.
        key: a JAX random key.
        held_out_labels: `(m,)`, the true classes of those, to measure the accuracy.
        max_depth: the most questions on the way to a leaf.
        min_leaf: the fewest of inputs and samples in a leaf.
        samples: how many are drawn; 0 for none.
        spread: how far round the inputs, in their own standard deviations.
        decide: a function from the output to the class that it means, 0, 1, ...; by default the index of
            the largest entry of a vector.
        features: a function from one input to the features `(d,)` that are asked for; by default its entries.
        names: of the features, in the text; by default `x_0`, `x_1`, ....
        classes: of the classes; by default `class 0`, `class 1`, ....

    Returns:
        A `TreeRules`: the tree, its fidelity and accuracy on the data held out, its fidelity at each depth,
        a rule for each leaf, and the text. `jaxnn.plot.decision_tree` draws it.

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
        >>> found = rules.distill_tree(model, x[:200], held_out=x[200:], key=jax.random.key(1))
        >>> print(found.text)
        if x_0 <= 0.5:
            class 0 (100%)
        else:  # x_0 > 0.5
            class 1 (100%)
    """
    trees = require_trees()
    _checks.check_key("key", key)
    rows = check_rows("inputs", inputs)
    max_depth = _checks.check_integer("max_depth", max_depth, at_least=1)
    min_leaf = _checks.check_integer("min_leaf", min_leaf, at_least=1)
    samples = _checks.check_integer("samples", samples, at_least=0)
    spread = check_spread(spread)
    asked = subject(model, rows[0], decide, features, names, classes)
    measured = held_out_of(asked, rows, held_out, held_out_labels)
    drawn = draw(key, Around.of(asked, rows, spread), everywhere(asked, rows), samples)
    seen = np.concatenate([np.asarray(rows), drawn])
    taught = asked.describe(seen)
    learner = trees.DecisionTreeClassifier(
        max_depth=max_depth, min_samples_leaf=min(min_leaf, len(seen)), random_state=seed_of(key)
    )
    grown = taught_tree(learner, taught, asked.answers(seen))
    return measure(prune(_as_arrays(learner, grown, len(asked.classes), taught.dtype)), asked, measured)


def seed_of(key: jax.Array) -> int:
    """A seed for scikit-learn, which chooses by lot between features that are equally good."""
    return int(jax.random.randint(jax.random.fold_in(key, 2**31), (), 0, 2**31 - 1))


def taught_tree(learner: Any, features: np.ndarray, answers: np.ndarray) -> tuple[Any, np.ndarray]:
    """A tree of scikit-learn, and its thresholds.

    It takes values that are 1e-7 apart for equal: so each feature comes in a unit, a power of two, in which
    its range is about 1.
    """
    _, places = np.frexp(np.ptp(features.astype(np.float64), axis=0))
    grown = learner.fit(np.ldexp(features, -places), answers).tree_
    return grown, np.ldexp(grown.threshold, places[grown.feature])  # of no meaning at a leaf


def _as_arrays(learner: Any, taught: tuple[Any, np.ndarray], n_classes: int, dtype: Any) -> Tree:
    grown, thresholds = taught
    nodes = np.arange(grown.node_count)
    leaf = grown.children_left < 0
    shares = np.zeros((len(nodes), n_classes), np.float32)
    shares[:, learner.classes_] = grown.value[:, 0] / grown.value[:, 0].sum(axis=1, keepdims=True)
    return Tree(
        np.where(leaf, -1, grown.feature).astype(np.int32),
        rounded_down(np.where(leaf, 0.0, thresholds), dtype),
        np.where(leaf, nodes, grown.children_left).astype(np.int32),
        np.where(leaf, nodes, grown.children_right).astype(np.int32),
        shares,
    )


def rounded_down(threshold: np.ndarray, dtype: Any) -> np.ndarray:
    """Thresholds in the precision of the features: a feature is below them just if it was before."""
    near = np.asarray(threshold).astype(dtype)
    return np.where(near > threshold, np.nextafter(near, np.array(-np.inf, dtype)), near)
