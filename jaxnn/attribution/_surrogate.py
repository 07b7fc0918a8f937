"""Surrogate models: a linear function of the features' presence, fitted to the model's outputs."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._precision import widen
from jaxnn._typing import Key, Model, PyTree, Target
from jaxnn.attribution._accumulate import Estimate, Sampling, check_sampling
from jaxnn.attribution._fit import SPARE, LeastSquares, solve
from jaxnn.attribution._masks import Game, make_game, warn_of_cost


def kernel_shap(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    key: Key,
    n_samples: int | None = None,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
    with_error: bool = False,
) -> PyTree:
    """KernelSHAP: Shapley values, estimated by weighted least squares over random sets of features.

    `a = argmin sum_S w(S) (v(S) - v() - sum of a_g over g in S)^2`, subject to all attributions summing to
    `f(x) - f(baseline)`. The kernel is `w(S) = (n - 1) / (C(n, |S|) |S| (n - |S|))`, and `v` is as in
    `shapley_values`: over all sets, the solution is the Shapley values. Sets are drawn in proportion
    to the kernel, each together with its complement, so the fit itself has no weights. Where `n_samples`
    allows for all `2^n - 2` sets, each is evaluated once, and nothing is random.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a random key; pair i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: the number of sets, at least 2 per group; odd numbers are rounded up. None: 2 per group
            plus 2048. A standard error takes 32 more than 2 per group, or all sets: fewer leave hardly any
            residual.
        baseline: the value of an absent element: a number, or of the structure of `x`.
        groups: which elements form one feature; see `feature_ablation`. Every element of a group gets the
            group's attribution.
        n_groups: the number of groups; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `integrated_gradients`. The result does not depend on it.
        with_error: whether to return the standard error too: of the fit, from its residuals, 0 where all sets
            were evaluated. With the fewest samples, over functions of 6 to 50 features, it was 0.8 to 1.2
            times the deviation from the exact values, which was within two of it for 91 to 95 % of the keys.

    Returns:
        Of the structure of `x`, in units of the output; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` is not callable, `key` is not a key, or an argument is of another type.
        ValueError: a shape, group, index, number or size that does not fit.

    References:
        Lundberg and Lee, "A unified approach to interpreting model predictions", 2017, arXiv:1705.07874,
        theorem 2; Covert and Lee, "Improving KernelSHAP", 2021, arXiv:2012.01536, for the pairs.

    Example:
        >>> import jax
        >>> from jaxnn import attribution
        >>> model = lambda x: x[0] * x[1] + x[2]
        >>> values = attribution.kernel_shap(model, [2.0, 3.0, 1.0], key=jax.random.key(0))
        >>> [round(float(value), 4) for value in values]
        [3.0, 3.0, 1.0]
    """
    game = make_game(model, x, target, baseline, groups, n_groups)
    with_error = _checks.check_flag("with_error", with_error)
    least = min(2 * (game.n + SPARE), 2**game.n - 2) if with_error else 0
    sampling = check_sampling(
        key, 2 * game.n + 2048 if n_samples is None else n_samples, batch_size, 64,
        with_error=with_error, at_least=max(2 * game.n, least),
    )  # fmt: skip
    warn_of_cost(game, sampling.n_samples, matrix=True)
    return _kernel_shap(game, key, sampling)


@jax.jit(static_argnames=("sampling",))
def _kernel_shap(game: Game, key: Key, sampling: Sampling) -> PyTree:
    n = game.n
    empty = widen(game.output(game.baseline))
    total = widen(game.output(game.x)) - empty
    exact = sampling.n_samples >= 2**n - 2
    kernel = np.array([(n - 1) / (size * (n - size)) for size in range(1, n)])  # summed over each size

    def each_set(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        present = ((index + 1) >> jnp.arange(n)) & 1 == 1
        weights = [kernel[size - 1] / math.comb(n, size) for size in range(1, n)]
        return present[None], jnp.asarray(weights, total.dtype)[jnp.sum(present) - 1][None]

    def pair(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        size_key, order_key = jax.random.split(jax.random.fold_in(key, index))
        cumulative = jnp.asarray(np.cumsum(kernel) / kernel.sum(), jnp.float32)
        size = 1 + jnp.searchsorted(cumulative[:-1], jax.random.uniform(size_key), side="right")
        order = jax.random.bits(order_key, (n,))
        present = order < jnp.sort(order)[size]
        return jnp.stack([present, ~present]), jnp.ones(2, total.dtype)

    def row(present: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The problem for the deviations from equal attributions: both sides without the mean."""
        ones = present.astype(total.dtype)
        fraction = jnp.mean(ones)
        return ones - fraction, empty + fraction * total

    # The rows do not determine the mean, which is 0. Where pairs leave further directions undetermined, these
    # become 0, too.
    problem = LeastSquares(
        draw=each_set if exact else pair,
        draws=2**n - 2 if exact else -(-sampling.n_samples // 2),
        row=row,
        penalty=lambda gram: jnp.full((n, n), jnp.trace(gram) / n**2),
        intercept=False,
    )
    if n == 1:  # no set to fit: the only feature has the total
        deviations = Estimate(jnp.zeros_like(total)[None], jnp.zeros_like(total)[None])
    else:
        with_error = sampling.with_error and not exact
        deviations = solve(problem, game, n, sampling._replace(with_error=with_error))
    value = game.spread(total / n + deviations.value - jnp.mean(deviations.value))
    return Estimate(value, game.spread(deviations.standard_error)) if sampling.with_error else value


def lime(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    key: Key,
    n_samples: int = 1000,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
    with_error: bool = False,
) -> PyTree:
    """LIME: the coefficients of a linear model, fitted to the outputs near the example.

    Each feature is present (1) or at the baseline (0) with probability 1/2, and `z_0` has all. `a` and an
    intercept `c` minimize `sum_i w_i (f(z_i) - c - a . z_i)^2 + ridge |a|^2`, where
    `w_i = exp(-d_i^2 / (2 kernel_width^2))` and `d_i = 1 - sqrt(fraction of features present)`, the cosine
    distance from `z_0`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a random key; sample i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: how many sets of features are evaluated, at least 2; a standard error takes 16 more than
            one per group.
        kernel_width: the distance at which the weight of a sample is `exp(-1/2)`, above 0.
        ridge: the penalty on squared coefficients, above 0; the intercept has none.
        baseline: the value of an absent element: a number, or of the structure of `x`.
        groups: which elements form one feature; see `feature_ablation`. Every element of a group gets the
            group's coefficient.
        n_groups: the number of groups; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `integrated_gradients`. The result does not depend on it.
        with_error: whether to return the standard error too: of the fit, from its residuals.

    Returns:
        Of the structure of `x`, in units of the output; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` is not callable, `key` is not a key, or an argument is of another type.
        ValueError: a shape, group, index, number or size that does not fit.

    References:
        Ribeiro, Singh and Guestrin, "Why should I trust you?", 2016, arXiv:1602.04938, equation 2, with the
        distance and the ridge of the authors' code for images.

    Example:
        >>> import jax
        >>> from jaxnn import attribution
        >>> coefficients = attribution.lime(lambda x: 3 * x[0] - x[1], [1.0, 1.0], key=jax.random.key(0))
        >>> [round(float(coefficient), 1) for coefficient in coefficients]
        [3.0, -1.0]
    """
    kernel_width = _checks.check_real("kernel_width", kernel_width, above=0)
    ridge = _checks.check_real("ridge", ridge, above=0)
    game = make_game(model, x, target, baseline, groups, n_groups)
    least = game.n + SPARE if _checks.check_flag("with_error", with_error) else 2
    sampling = check_sampling(key, n_samples, batch_size, 64, with_error=with_error, at_least=least)
    warn_of_cost(game, sampling.n_samples, matrix=True)
    return _lime(game, key, kernel_width, ridge, sampling)


@jax.jit(static_argnames=("sampling",))
def _lime(game: Game, key: Key, kernel_width: float, ridge: float, sampling: Sampling) -> PyTree:
    n = game.n
    output = widen(game.output(game.x))

    def draw(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        present = jax.random.bernoulli(jax.random.fold_in(key, index), 0.5, (n,)) | (index == 0)
        distance = 1 - jnp.sqrt(jnp.mean(present.astype(output.dtype)))
        return present[None], jnp.exp(-jnp.square(distance / kernel_width) / 2)[None]

    def row(present: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Centered, with the output at `x` as the offset: only the intercept changes, and rounding is least.
        return jnp.append(present.astype(output.dtype) - jnp.asarray(0.5, output.dtype), 1), output

    penalty = jnp.diag(jnp.append(jnp.ones(n, output.dtype), 0)) * ridge
    problem = LeastSquares(draw, sampling.n_samples, row, lambda gram: penalty, intercept=True)
    coefficients = solve(problem, game, n + 1, sampling)
    value = game.spread(coefficients.value[:n])
    return Estimate(value, game.spread(coefficients.standard_error[:n])) if sampling.with_error else value
