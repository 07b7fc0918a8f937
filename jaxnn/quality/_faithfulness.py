"""Faithfulness: whether attributions of sets of features agree with the change when these are removed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map, fori_loop
from jaxnn._model import as_model, output_shape
from jaxnn._precision import widen
from jaxnn._typing import Key, Model, PyTree, Target
from jaxnn.attribution._accumulate import Sampling, check_sampling, safe_sqrt
from jaxnn.attribution._masks import Game, make_game
from jaxnn.attribution._rise import check_grid
from jaxnn.quality._common import (
    all_finite,
    as_dtype,
    check_attributions,
    dtype_of,
    flat,
    group_sums,
    nan_where,
)
from jaxnn.quality._similarity import pearson, spearman

Perturb = Callable[[Key, PyTree], PyTree]  # from a key and the example to a changed example


def faithfulness_correlation(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    key: Key,
    n_samples: int = 100,
    fraction: float = 0.2,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Faithfulness correlation: of the attributions of random sets of features and the effects of removal.

    `corr_S(sum_{i in S} a_i, f(x) - f(x with S at the baseline))`, Pearson's correlation over random sets S
    of one size.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: in units of the output, of the structure and shapes of `x`.
        key: a random key; set i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: number of sets, at least 2.
        fraction: share of the features in a set, in (0, 1); at least one feature, and not all.
        baseline: the value of a removed element: a number, or of the structure of `x`.
        groups: which elements are one feature, as in `attribution.feature_ablation`.
        n_groups: their number; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `attribution.integrated_gradients`. The result does not depend on it.

    Returns:
        A scalar in [-1, 1], the higher the better, 0 on average for random attributions; NaN where all sets
        have one attribution or one effect.

    Raises:
        TypeError: `model` is not callable, `key` is not a key, or an argument is of another type.
        ValueError: attributions of another shape or not finite, fewer than two features, or a group, index
            or number that does not fit.

    References:
        Bhatt, Weller and Moura, "Evaluating and aggregating feature-based model explanations", 2020,
        arXiv:2005.00631, equation 3.

    Example:
        >>> import jax
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1] + x[2]
        >>> options = {"key": jax.random.key(0), "fraction": 0.4}
        >>> float(quality.faithfulness_correlation(model, [1.0] * 3, None, [4.0, 2.0, 1.0], **options))
        1.0
    """
    sampling = check_sampling(key, n_samples, batch_size, 64, at_least=2)
    game = make_game(model, x, target, baseline, groups, n_groups)
    attributions = check_attributions(attributions, game.x)
    size = _subset_size(fraction, game.n)
    return _correlation(game, attributions, key, size=size, sampling=sampling, ranked=False)


def mu_fidelity(
    model: Model,
    x: jax.Array,
    target: Target,
    attributions: jax.Array,
    *,
    key: Key,
    n_samples: int = 200,
    grid: int | tuple[int, ...] = 9,
    axes: tuple[int, ...] | None = None,
    fraction: float = 0.2,
    baseline: PyTree = 0.0,
    batch_size: int | None = None,
) -> jax.Array:
    """MuFidelity: the rank correlation of the attributions of sets of grid cells and the effects of removal.

    As `faithfulness_correlation`, with Spearman's correlation and the cells of a coarse grid as features.

    Args:
        model: a callable of one example.
        x: the example, one array.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: in units of the output, of the shape of `x`.
        key: a random key; set i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: number of sets, at least 2.
        grid: cells along each of the axes: one integer, at most the size of the shortest, or one per axis.
        axes: the axes of `x` that the grid divides; a cell extends over all others, such as the channels of
            an image. None: the first two, height and width, or the only one.
        fraction: share of the cells in a set, in (0, 1).
        baseline: the value of a removed element: a number, or of the shape of `x`.
        batch_size: how many changed examples are evaluated at once. The result does not depend on it.

    Returns:
        A scalar in [-1, 1], the higher the better; NaN as of `faithfulness_correlation`.

    Raises:
        TypeError: as `faithfulness_correlation` raises, or `x` is not one array.
        ValueError: as `faithfulness_correlation` raises, or a grid that does not fit.

    References:
        Fel and others, "Look at the variance! Efficient black-box explanations with Sobol-based sensitivity
        analysis", 2021, arXiv:2111.04138.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import quality
        >>> weights = jnp.arange(16.0).reshape(4, 4)
        >>> model = lambda x: (weights * x).sum()
        >>> options = {"key": jax.random.key(0), "grid": 2}
        >>> round(float(quality.mu_fidelity(model, jnp.ones((4, 4)), None, weights, **options)), 4)
        1.0
    """
    sampling = check_sampling(key, n_samples, batch_size, 64, at_least=2)
    game = make_game(model, x, target, baseline, None, None)
    if not isinstance(game.x, jax.Array) or game.x.ndim == 0:
        raise TypeError("`x` must be one array of at least one axis, for a grid to divide")
    attributions = check_attributions(attributions, game.x)
    cells, n = _cells(game.x.shape, *check_grid(axes, grid, game.x))
    game = game.with_groups(cells, n)
    size = _subset_size(fraction, n)
    return _correlation(game, attributions, key, size=size, sampling=sampling, ranked=True)


def _cells(shape: tuple[int, ...], axes: tuple[int, ...], grid: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The number of the grid cell of each element, and the number of cells."""
    cells = np.zeros((1,) * len(shape), np.int32)
    for axis, count in zip(axes, grid, strict=True):
        along = np.arange(shape[axis]) * count // shape[axis]
        cells = cells * count + np.expand_dims(along, [a for a in range(len(shape)) if a != axis])
    return cells.astype(np.int32), int(np.prod(grid))


class SensitivityN(NamedTuple):
    """Correlations by the size of the sets.

    Attributes:
        sizes: `(m,)`, numbers of features in a set.
        correlations: `(m,)`, in [-1, 1], one per size; NaN where all sets have one attribution or one effect.
    """

    sizes: jax.Array
    correlations: jax.Array


def sensitivity_n(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    key: Key,
    n_samples: int = 100,
    sizes: Sequence[int] | None = None,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> SensitivityN:
    """Sensitivity-n: the faithfulness correlation for sets of n features, for several n.

    For each n, Pearson's correlation of `sum_{i in S} a_i` and `f(x) - f(x with S at the baseline)` over
    random sets S of n features. A method that is complete for a linear model has 1 for all n.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: in units of the output, of the structure and shapes of `x`.
        key: a random key; the sets of the size number i are drawn with `jax.random.fold_in(key, i)`.
        n_samples: number of sets of each size, at least 2.
        sizes: the numbers n, each from 1 to the number of features less 1. None: up to 8 of them, in equal
            ratios from 1 to 0.8 of the features.
        baseline: the value of a removed element: a number, or of the structure of `x`.
        groups: which elements are one feature, as in `attribution.feature_ablation`.
        n_groups: their number.
        batch_size: how many changed examples are evaluated at once. The result does not depend on it.

    Returns:
        A `SensitivityN`, `(sizes, correlations)`.

    Raises:
        TypeError: as `faithfulness_correlation` raises.
        ValueError: as `faithfulness_correlation` raises, or a size out of range.

    References:
        Ancona, Ceolini, Oztireli and Gross, "Towards better understanding of gradient-based attribution
        methods for deep neural networks", 2018, arXiv:1711.06104.

    Example:
        >>> import jax
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1] + x[2]
        >>> options = {"key": jax.random.key(0), "sizes": (1, 2)}
        >>> found = quality.sensitivity_n(model, [1.0] * 3, None, [4.0, 2.0, 1.0], **options)
        >>> found.sizes.tolist(), found.correlations.round(4).tolist()
        ([1, 2], [1.0, 1.0])
    """
    sampling = check_sampling(key, n_samples, batch_size, 64, at_least=2)
    game = make_game(model, x, target, baseline, groups, n_groups)
    attributions = check_attributions(attributions, game.x)
    _check_features(game.n)
    if sizes is None:
        most = max(1, int(0.8 * game.n))
        sizes = sorted({round(size) for size in np.geomspace(1, most, min(8, most))})
    checked = _checks.check_sizes("sizes", sizes)
    if not checked or max(checked) >= game.n:
        raise ValueError(f"`sizes` must hold numbers from 1 to {game.n - 1}; got {sizes}")
    correlations = _sensitivity_n(game, attributions, key, sizes=checked, sampling=sampling)
    return SensitivityN(jnp.array(checked), correlations)


def _check_features(n: int) -> None:
    if n < 2:
        raise ValueError("`x` must have at least two features, some of which are removed; got one")


def _subset_size(fraction: float, n: int) -> int:
    fraction = _checks.check_real("fraction", fraction, above=0, below=1)
    _check_features(n)
    return min(max(round(fraction * n), 1), n - 1)


@jax.jit(static_argnames=("size", "sampling", "ranked"))
def _correlation(
    game: Game, attributions: PyTree, key: Key, *, size: int, sampling: Sampling, ranked: bool
) -> jax.Array:
    sums, drops = _sums_and_drops(game, attributions, key, (size,), sampling)
    value = (spearman if ranked else pearson)(sums[0], drops[0])
    return value.astype(dtype_of(game.output, game.x))


@jax.jit(static_argnames=("sizes", "sampling"))
def _sensitivity_n(
    game: Game, attributions: PyTree, key: Key, *, sizes: tuple[int, ...], sampling: Sampling
) -> jax.Array:
    found = _sums_and_drops(game, attributions, key, sizes, sampling)
    return jax.vmap(pearson)(*found).astype(dtype_of(game.output, game.x))


def _sums_and_drops(
    game: Game, attributions: PyTree, key: Key, sizes: tuple[int, ...], sampling: Sampling
) -> tuple[jax.Array, jax.Array]:
    """By size and sample, the attribution of a random set of features, and the drop of the output without."""
    n, samples, values = game.n, sampling.n_samples, group_sums(attributions, game)
    count = np.append(np.repeat(sizes, samples), 0)  # the last set is empty: the whole example

    def sample(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = key
        if len(sizes) > 1:
            own = jax.random.fold_in(key, index // samples)
        chosen = random_set(jax.random.fold_in(own, index % samples), n, jnp.asarray(count)[index])
        return jnp.sum(jnp.where(chosen, values, 0)), game(~chosen)

    sums, outputs = chunked_map(sample, len(count), game.batch_size(sampling.batch_size))
    outputs = widen(outputs)
    shape = (len(sizes), samples)
    sums, drops = sums[:-1].reshape(shape), (outputs[-1] - outputs[:-1]).reshape(shape)
    eps = 16 * jnp.finfo(sums.dtype).eps
    return _constant_within(sums, eps * jnp.sum(jnp.abs(values))), _constant_within(
        drops, eps * jnp.max(jnp.abs(outputs))
    )


def _constant_within(rows: jax.Array, rounding: jax.Array) -> jax.Array:
    """Rows that differ by no more than rounding made constant, so that they have no correlation."""
    is_constant = jnp.ptp(rows, axis=1, keepdims=True) <= rounding
    return jnp.where(is_constant, rows[:, :1], rows)


def random_set(key: Key, n: int, size: jax.Array) -> jax.Array:
    """A random set of `size` of n features, `(n,)` booleans: those of the smallest of n random numbers.

    The threshold is found bit by bit: on a CPU 27 times as fast as a random permutation, which sorts.
    """
    numbers = jax.random.bits(key, (n,), jnp.uint32)

    def step(i: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold | (jnp.uint32(1) << jnp.asarray(31 - i, jnp.uint32))
        return jnp.where(jnp.sum(numbers < higher) <= size, higher, threshold)

    return numbers < fori_loop(0, 32, step, jnp.uint32(0))


class Infidelity(NamedTuple):
    """The mean squared difference of attributions and effects, over random perturbations.

    Attributes:
        value: `E[(sum_i w_i a_i - D)^2]`, in squared units of the output; 0 is best.
        standard_error: of `value`.
        scale: the factor of the attributions with the lowest value.
        scaled_value: the value with that factor.
        null_value: the value of attributions of 0, `E[D^2]`: `scaled_value / null_value` lies in [0, 1].
    """

    value: jax.Array
    standard_error: jax.Array
    scale: jax.Array
    scaled_value: jax.Array
    null_value: jax.Array


def infidelity(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    key: Key,
    perturb: Perturb | None = None,
    per_unit: bool = False,
    n_samples: int = 100,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> Infidelity:
    """Infidelity: the squared difference of what attributions predict of a perturbation, and its effect.

    `E[(sum_i w_i a_i - (f(x) - f(x')))^2]` over perturbed examples x'. Attributions in units of the output
    have `w_i = (x_i - x'_i) / (x_i - baseline_i)`, the share of the way to the baseline, and 0 where both are
    equal; those per unit of the input, such as gradients, have `w_i = x_i - x'_i`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: of the structure and shapes of `x`.
        key: a random key; perturbation i is drawn with `jax.random.fold_in(key, i)`.
        perturb: `perturb(key, x) -> x'`, an example like `x`. None: each feature takes the baseline with
            probability 1/2.
        per_unit: whether the attributions are per unit of the input.
        n_samples: number of perturbations, at least 2.
        baseline: the value of a removed element: a number, or of the structure of `x`.
        groups: which elements are one feature where `perturb` is None, as in `attribution.feature_ablation`.
        n_groups: their number.
        batch_size: how many changed examples are evaluated at once. The result does not depend on it.

    Returns:
        An `Infidelity`.

    Raises:
        TypeError: `model` or `perturb` is not callable, `key` is not a key, or an argument is of another
            type.
        ValueError: attributions of another shape or not finite, `perturb` returns another shape, or a group,
            index or number that does not fit.

    References:
        Yeh and others, "On the (in)fidelity and sensitivity of explanations", 2019, arXiv:1901.09392,
        equation 1; the scale, section 3.

    Example:
        >>> import jax
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1] + x[2]
        >>> options = {"key": jax.random.key(0)}
        >>> found = quality.infidelity(model, [1.0] * 3, None, [8.0, 4.0, 2.0], **options)
        >>> float(found.scale), float(found.scaled_value)
        (0.5, 0.0)
    """
    sampling = check_sampling(key, n_samples, batch_size, 64, at_least=2)
    per_unit = _checks.check_flag("per_unit", per_unit)
    game = make_game(model, x, target, baseline, groups, n_groups)
    attributions = check_attributions(attributions, game.x)
    if perturb is not None:
        perturb = as_model(perturb, "perturb")
        found = output_shape(perturb, key, game.x, name="perturb")
        shapes, expected = jax.tree.map(jnp.shape, found), jax.tree.map(jnp.shape, game.x)
        if shapes != expected:
            raise ValueError(f"`perturb` must return an example like `x`, of {expected}; got {shapes}")
    return _infidelity(game, attributions, key, perturb, per_unit=per_unit, sampling=sampling)


@jax.jit(static_argnames=("per_unit", "sampling"))
def _infidelity(
    game: Game,
    attributions: PyTree,
    key: Key,
    perturb: Perturb | None,
    *,
    per_unit: bool,
    sampling: Sampling,
) -> Infidelity:
    values, x = flat(attributions), flat(game.x)
    way = x - flat(game.baseline)
    nonzero = way != 0
    weights = values if per_unit else jnp.where(nonzero, values / jnp.where(nonzero, way, 1), 0)
    n = sampling.n_samples

    def perturbed(key: Key) -> PyTree:
        if perturb is not None:
            moved = perturb(key, game.x)
            return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), moved, game.x)
        present = jax.random.bernoulli(key, 0.5, (game.n,))
        return game.mixed(present)

    def sample(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        moved = perturbed(jax.random.fold_in(key, index))
        # The last is the example itself.
        moved = jax.tree.map(lambda a, b: jnp.where(index < n, a, b), moved, game.x)
        return jnp.sum(weights * (x - flat(moved))), game.output(moved)

    sums, outputs = chunked_map(sample, n + 1, game.batch_size(sampling.batch_size))
    sums, drops = sums[:-1], widen(outputs[-1]) - widen(outputs[:-1])
    squares = jnp.square(sums - drops)
    power = jnp.mean(jnp.square(sums))
    scale = jnp.mean(sums * drops) / jnp.where(power > 0, power, 1)
    found = Infidelity(
        value=jnp.mean(squares),
        standard_error=safe_sqrt(jnp.var(squares, ddof=1) / n),
        scale=scale,
        scaled_value=jnp.mean(jnp.square(scale * sums - drops)),
        null_value=jnp.mean(jnp.square(drops)),
    )
    found = as_dtype(found, dtype_of(game.output, game.x))
    return nan_where(~all_finite(jax.tree.leaves(attributions)), found)
