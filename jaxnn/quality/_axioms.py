"""Axioms: attributions that sum up, are 0 where nothing depends on a feature, and do not see a shift."""

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import broadcast_like, call
from jaxnn._precision import float_dtype
from jaxnn._typing import Model, PyTree, Target
from jaxnn.attribution._completeness import gap_and_change
from jaxnn.attribution._masks import make_game
from jaxnn.attribution._perturbation import feature_ablation
from jaxnn.quality._common import (
    Explain,
    all_finite,
    check_attributions,
    dtype_of,
    explained,
    flat,
    group_sums,
    nan_where,
    norm,
    prepare_explain,
)


def completeness(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    baseline: PyTree = 0.0,
    baselines: PyTree = None,
) -> jax.Array:
    """Completeness: the relative error of the sum of the attributions.

    `|sum_i a_i - (f(x) - f(baseline))| / |f(x) - f(baseline)|`, the size of `attribution.completeness_gap`
    over the change of the output.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: as in `attribution.completeness_gap`.
        baseline: that of the attributions, as in `attribution.integrated_gradients`.
        baselines: a set of them in its place, as in `attribution.expected_gradients`.

    Returns:
        A scalar, 0 or more; 0 for a complete method, 1 for attributions that sum to 0, infinite where the
        output did not change and the attributions do not sum to 0.

    Raises:
        TypeError: as `attribution.completeness_gap` raises.
        ValueError: as `attribution.completeness_gap` raises.

    References:
        Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017, arXiv:1703.01365,
        proposition 1.

    Example:
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1]
        >>> float(quality.completeness(model, [1.0, 1.0], None, [4.0, 5.0]))
        0.5
    """
    return _relative(*gap_and_change(model, x, target, attributions, baseline, baselines))


@jax.jit
def _relative(gap: jax.Array, change: jax.Array) -> jax.Array:
    size, change = jnp.abs(gap), jnp.abs(change)
    return jnp.where(change > 0, size / jnp.where(change > 0, change, 1), jnp.where(size > 0, jnp.inf, size))


def non_sensitivity(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    threshold: float = 1e-5,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Non-sensitivity: the features whose attribution is 0 and effect is not, or the other way around.

    `#({i: |a_i| < t} symmetric difference {i: |f(x) - f(x with i at the baseline)| < t})`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: of the structure and shapes of `x`.
        threshold: t, above 0, below which an attribution and an effect count as 0, in units of the output.
        baseline: the value of a removed element: a number, or of the structure of `x`.
        groups: which elements are one feature, as in `attribution.feature_ablation`.
        n_groups: their number; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. The result does not depend on it.

    Returns:
        A scalar from 0, the best, to the number of features.

    Raises:
        TypeError: as `attribution.feature_ablation` raises.
        ValueError: as `attribution.feature_ablation` raises, or attributions of another shape or not finite.

    References:
        Nguyen and Martinez, "On quantitative aspects of model interpretability", 2020, arXiv:2007.07584.

    Example:
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0]
        >>> float(quality.non_sensitivity(model, [1.0, 1.0, 1.0], None, [4.0, 0.0, 0.3]))
        1.0
    """
    threshold = _checks.check_real("threshold", threshold, above=0)
    game = make_game(model, x, target, baseline, groups, n_groups)
    attributions = check_attributions(attributions, game.x)
    options = {"groups": groups, "n_groups": n_groups, "batch_size": batch_size}
    effects = feature_ablation(model, game.x, target, baseline=baseline, **options)
    return _non_sensitivity(game, attributions, effects, threshold)


@jax.jit
def _non_sensitivity(game: PyTree, attributions: PyTree, effects: PyTree, threshold: float) -> jax.Array:
    effect = flat(effects)
    if game.groups is not None:  # one effect at all elements of a group
        ones = jax.tree.map(jnp.ones_like, effects)
        effect = group_sums(effects, game) / jnp.maximum(group_sums(ones, game), 1)
    differ = (jnp.abs(group_sums(attributions, game)) < threshold) ^ (jnp.abs(effect) < threshold)
    count = jnp.sum(differ).astype(dtype_of(game.output, game.x))
    return nan_where(~all_finite(jax.tree.leaves((attributions, effects))), count)


def input_invariance(
    model: Model, x: PyTree, target: Target, explain: Explain, *, shift: PyTree = -1.0
) -> jax.Array:
    """Input invariance: the relative change of the attributions where a shift of the input is undone inside.

    `||a'(x + s) - a(x)|| / ||a(x)||`, where a' explains `x -> f(x - s)`, which has the same output and the
    same gradient. A method with a baseline changes, unless its baseline is shifted too.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        target: an output index, None, or a function; see `attribution.saliency`.
        explain: a method, as in `max_sensitivity`.
        shift: s, a number, or of the structure of `x`.

    Returns:
        A scalar, 0 or more; 0 for an invariant method; NaN where the attributions at `x` are all 0.

    Raises:
        TypeError: as `max_sensitivity` raises.
        ValueError: as `max_sensitivity` raises.

    References:
        Kindermans and others, "The (un)reliability of saliency methods", 2017, arXiv:1711.00867.

    Example:
        >>> from jaxnn import attribution, quality
        >>> model, x = lambda x: x[0] * x[1], [1.0, 2.0]
        >>> float(quality.input_invariance(model, x, None, attribution.saliency))
        0.0
        >>> float(quality.input_invariance(model, x, None, attribution.input_x_gradient)) > 0.1
        True
    """
    model, x, target, explain = prepare_explain(model, x, target, explain)
    shift = broadcast_like("shift", shift, x)
    return _input_invariance(explain, model, x, target, shift)


def _shifted(model: Model, shift: PyTree, x: PyTree) -> PyTree:
    return call(model, jax.tree.map(jnp.subtract, x, shift))


@jax.jit
def _input_invariance(explain: Explain, model: Model, x: PyTree, target: Target, shift: PyTree) -> jax.Array:
    before = explained(explain, model, target, x)
    moved = jax.tree_util.Partial(_shifted, model, shift)
    after = explained(explain, moved, target, jax.tree.map(jnp.add, x, shift))
    a, size = flat(before), norm(flat(before))
    found = jnp.where(size > 0, norm(flat(after) - a) / jnp.where(size > 0, size, 1), jnp.nan)
    return found.astype(float_dtype(jax.tree.leaves(before)[0].dtype))
