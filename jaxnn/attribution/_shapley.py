"""Shapley values: each feature's fair share of the answer."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map, chunked_scan
from jaxnn._model import broadcast_like, prepare, scalar
from jaxnn.attribution._estimate import Estimate, merge, no_samples, standard_error, wide
from jaxnn.attribution._gradient import Model, Target
from jaxnn.attribution._masks import check_groups, mix, spread

_MOST_GROUPS = 20  # a million evaluations


def shapley_values(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    baseline: Any = 0.0,
    groups: Any = None,
    n_groups: int | None = None,
    batch_size: int = 64,
) -> Any:
    """Each feature's fair share of the answer, exactly, out of all `2^n` sets of features.

    `a_g = sum over S without g of |S|! (n - |S| - 1)! / n! * (v(S + g) - v(S))`, `v(S)` being the answer with
    the features in S as they are and all others at the baseline. The only shares that add up to
    `f(x) - f(baseline)`, are equal for features that do the same, and 0 for one that does nothing.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: what an absent entry becomes: a number, or of the structure of `x`.
        groups: which entries are one feature; see `feature_ablation`. Every entry of a group gets the group's
            share. At most 20 groups; `shapley_sampling` and `kernel_shap` take more.
        n_groups: their number, where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. The answer does not depend on it.

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
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    model, x, target = prepare(model, x, target, differentiable=False)
    baseline, (groups, n) = broadcast_like("baseline", baseline, x), check_groups(groups, n_groups, x)
    if n > _MOST_GROUPS:
        raise ValueError(
            f"`groups` must be at most {_MOST_GROUPS}, as each set of them is evaluated; got {n}. "
            "`shapley_sampling` and `kernel_shap` estimate the values of more"
        )
    return _shapley_values(model, x, target, baseline, groups, n=n, batch_size=batch_size)


@jax.jit(static_argnames=("n", "batch_size"))
def _shapley_values(
    model: Any, x: Any, target: Any, baseline: Any, groups: Any, *, n: int, batch_size: int
) -> Any:
    f = scalar(model, target)

    def of_set(number: jax.Array) -> jax.Array:  # its bits say which features are present
        return f(mix(x, baseline, groups, (number >> jnp.arange(n)) & 1 == 1))

    values = wide(chunked_map(of_set, 2**n, batch_size))
    sizes = np.bitwise_count(np.arange(2**n))
    weights = jnp.asarray([1 / (n * math.comb(n - 1, size)) for size in range(n)], values.dtype)
    # The feature of bit b: the numbers whose b-th bit is 0, and beside each the one whose b-th bit is 1.
    shares = []
    for bit in range(n):
        without, with_it = jnp.moveaxis(values.reshape(-1, 2, 2**bit), 1, 0)
        rest = sizes.reshape(-1, 2, 2**bit)[:, 0]
        shares.append(jnp.sum(weights[rest] * (with_it - without)))
    return spread(jnp.stack(shares), groups, x)


def shapley_sampling(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    key: jax.Array,
    n_samples: int = 25,
    baseline: Any = 0.0,
    groups: Any = None,
    n_groups: int | None = None,
    batch_size: int = 64,
    with_error: bool = False,
) -> Any:
    """Shapley values, estimated by adding the features one by one in random orders.

    `a_g = mean over orders of v(those before g, and g) - v(those before g)`, `v` as in `shapley_values`. Each
    order takes as many evaluations as there are features, and its shares add up to `f(x) - f(baseline)`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a random key; order i is drawn with `jax.random.fold_in(key, i)`.
        n_samples: the number of orders, at least 1.
        baseline: what an absent entry becomes: a number, or of the structure of `x`.
        groups: which entries are one feature; see `feature_ablation`. Every entry of a group gets the group's
            share.
        n_groups: their number, where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. The answer does not depend on it.
        with_error: whether to give the standard error too, which takes 2 samples.

    Returns:
        Of the structure of `x`, in units of the output; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` is not callable, `key` is no key, or an argument is of another type.
        ValueError: a shape, group, index, number or size that does not fit.

    References:
        Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009.

    Example:
        >>> import jax
        >>> from jaxnn import attribution
        >>> model = lambda x: x[0] * x[1] + x[2]
        >>> shares = attribution.shapley_sampling(model, [2.0, 3.0, 1.0], key=jax.random.key(0))
        >>> float(shares.sum()), float(shares[2])
        (7.0, 1.0)
    """
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=2 if with_error else 1)
    _checks.check_key("key", key)
    model, x, target = prepare(model, x, target, differentiable=False)
    baseline, (groups, n) = broadcast_like("baseline", baseline, x), check_groups(groups, n_groups, x)
    return _shapley_sampling(
        model, x, target, baseline, groups, key,
        n=n, n_samples=n_samples, batch_size=batch_size, with_error=bool(with_error),
    )  # fmt: skip


@jax.jit(static_argnames=("n", "n_samples", "batch_size", "with_error"))
def _shapley_sampling(
    model: Any, x: Any, target: Any, baseline: Any, groups: Any, key: jax.Array,
    *, n: int, n_samples: int, batch_size: int, with_error: bool,
) -> Any:  # fmt: skip
    f = scalar(model, target)
    empty = f(baseline)

    def several(moments: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, None]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
        ranks = jax.vmap(lambda one: jax.random.permutation(one, n))(keys)  # of each feature, in each order

        def first_few(index: jax.Array) -> jax.Array:
            return f(mix(x, baseline, groups, ranks[index // n] <= index % n))

        values = chunked_map(first_few, len(ranks) * n, batch_size).reshape(-1, n)
        before = jnp.concatenate([jnp.broadcast_to(empty, (len(ranks), 1)), values[:, :-1]], axis=1)
        gains = jnp.take_along_axis(wide(values) - wide(before), ranks, axis=1)
        return merge(moments, gains, valid), None

    moments, _ = chunked_scan(
        several, no_samples((n,), wide(empty).dtype), n_samples, max(1, batch_size // n),
    )  # fmt: skip
    value = spread(moments.mean, groups, x)
    return Estimate(value, spread(standard_error(moments), groups, x)) if with_error else value
