"""Shapley values: each feature's mean contribution to the output over all orders of adding features."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._precision import widen
from jaxnn._typing import Key, Model, PyTree, Target
from jaxnn.attribution._accumulate import Sampling, check_sampling, estimate
from jaxnn.attribution._masks import Game, make_game, warn_of_cost

_MOST_GROUPS = 20  # a million evaluations


def shapley_values(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> PyTree:
    """Shapley values, computed exactly from all `2^n` sets of features.

    `a_g = sum over S without g of |S|! (n - |S| - 1)! / n! * (v(S + g) - v(S))`, where `v(S)` is the output
    with the features in S unchanged and all others at the baseline. They are the only attributions that sum
    to `f(x) - f(baseline)`, are equal for interchangeable features, and 0 for a feature without effect.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: the value of an absent element: a number, or of the structure of `x`.
        groups: which elements form one feature; see `feature_ablation`. Every element of a group gets the
            group's attribution. At most 20 groups; `shapley_sampling` and `kernel_shap` take more.
        n_groups: the number of groups; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `integrated_gradients`. The result does not depend on it.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: `model` is not callable, or an argument is of another type.
        ValueError: more than 20 groups, or a shape, group, index or size that does not fit.

    References:
        Shapley, "A value for n-person games", 1953; Lundberg and Lee, "A unified approach to interpreting
        model predictions", 2017, arXiv:1705.07874, equation 4.

    Example:
        >>> from jaxnn import attribution
        >>> attribution.shapley_values(lambda x: x[0] * x[1] + x[2], [2.0, 3.0, 1.0]).tolist()
        [3.0, 3.0, 1.0]
    """
    batch = check_batch_size(batch_size, 64)
    game = make_game(model, x, target, baseline, groups, n_groups)
    if game.n > _MOST_GROUPS:
        raise ValueError(
            f"`groups` must be at most {_MOST_GROUPS}, as each set of them is evaluated; got {game.n}. "
            "`shapley_sampling` and `kernel_shap` estimate the values of more"
        )
    return _shapley_values(game, batch)


@jax.jit(static_argnames=("batch",))
def _shapley_values(game: Game, batch: Batch) -> PyTree:
    n = game.n

    def value(index: jax.Array) -> jax.Array:  # the bits of the index are the features that are present
        return game((index >> jnp.arange(n)) & 1 == 1)

    values = widen(chunked_map(value, 2**n, game.batch_size(batch)))
    sizes = np.bitwise_count(np.arange(2**n))
    weights = jnp.asarray([1 / (n * math.comb(n - 1, size)) for size in range(n)], values.dtype)
    # For the feature of each bit: the indices where the bit is 0, paired with those where it is 1.
    attributions = []
    for bit in range(n):
        without, with_it = jnp.moveaxis(values.reshape(-1, 2, 2**bit), 1, 0)
        others = sizes.reshape(-1, 2, 2**bit)[:, 0]
        attributions.append(jnp.sum(weights[others] * (with_it - without)))
    return game.spread(jnp.stack(attributions))


def shapley_sampling(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    key: Key,
    n_samples: int = 25,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
    with_error: bool = False,
) -> PyTree:
    """Shapley value sampling: estimate Shapley values by adding the features one by one in random orders.

    `a_g = mean over orders of v(features before g, and g) - v(features before g)`, `v` as in
    `shapley_values`. Each order takes as many evaluations as there are features, and its attributions sum to
    `f(x) - f(baseline)`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a random key; order i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: the number of orders, at least 1.
        baseline: the value of an absent element: a number, or of the structure of `x`.
        groups: which elements form one feature; see `feature_ablation`. Every element of a group gets the
            group's attribution.
        n_groups: the number of groups; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `integrated_gradients`. The result does not depend on it.
        with_error: whether to return the standard error too, which takes 2 samples.

    Returns:
        Of the structure of `x`, in units of the output; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` is not callable, `key` is not a key, or an argument is of another type.
        ValueError: a shape, group, index, number or size that does not fit.

    References:
        Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009.

    Example:
        >>> import jax
        >>> from jaxnn import attribution
        >>> model = lambda x: x[0] * x[1] + x[2]
        >>> values = attribution.shapley_sampling(model, [2.0, 3.0, 1.0], key=jax.random.key(0))
        >>> float(values.sum()), float(values[2])
        (7.0, 1.0)
    """
    sampling = check_sampling(key, n_samples, batch_size, 64, with_error=with_error)
    game = make_game(model, x, target, baseline, groups, n_groups)
    warn_of_cost(game, game.n * sampling.n_samples, matrix=False)
    return _shapley_sampling(game, key, sampling)


@jax.jit(static_argnames=("sampling",))
def _shapley_sampling(game: Game, key: Key, sampling: Sampling) -> PyTree:
    n, batch_size = game.n, game.batch_size(sampling.batch_size)
    empty = widen(game.output(game.baseline))

    def gains(index: jax.Array) -> jax.Array:
        """The change of the output as each feature is added, `(n,)`, in one order."""
        ranks = jax.random.permutation(jax.random.fold_in(key, index), n)
        values = widen(chunked_map(lambda last: game(ranks <= last), n, batch_size))
        return jnp.diff(values, prepend=empty)[ranks]

    return estimate(gains, sampling._replace(batch_size=Batch(max(1, batch_size // n))), game.spread)
