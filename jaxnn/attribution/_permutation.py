"""Permutation importance: attribution over a data set, by shuffling features among its examples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn import _checks, losses
from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch
from jaxnn._model import as_example, as_model, check_loss, output_shape
from jaxnn._precision import widen
from jaxnn._typing import Key, Model, PyTree
from jaxnn.attribution._accumulate import Sampling, check_sampling, estimate
from jaxnn.attribution._masks import check_groups, mix, spread

Loss = Callable[[PyTree, PyTree], jax.Array]


def permutation_importance(
    model: Model,
    x: PyTree,
    target: PyTree,
    *,
    key: Key,
    loss: Loss = losses.squared_error,
    n_samples: int = 5,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
    with_error: bool = False,
) -> PyTree:
    """Permutation importance: the rise of the loss when one feature is shuffled among the examples.

    `a_g = mean over permutations p of 1/N sum_j loss(model(x_j with the elements of group g from x_p(j)),
    t_j) - loss(model(x_j), t_j)`. Unlike the other methods, it explains the model's performance on a whole
    data set and not one prediction. A feature that is irrelevant to it is near 0.

    Args:
        model: a callable of one example.
        x: `(N, ...)`, N at least 2 examples: an array or a pytree of arrays.
        target: `(N, ...)`, the desired output for each, as `loss` takes it: an array or a pytree.
        key: a random key; group g is shuffled for the i-th time by `jax.random.permutation` with
            `jax.random.fold_in(jax.random.fold_in(key, i), g)`.
        loss: `loss(output, target) -> scalar` of one example, compared by identity (static argument). The
            0-1 loss, whose mean is the error rate, is possible too.
        n_samples: the number of permutations of each group, at least 1.
        groups: which elements of an example are shuffled together: as in `feature_ablation`, of the structure
            and shape of one example.
        n_groups: the number of groups; needed where `groups` is traced or a group may be empty.
        batch_size: how many examples are evaluated at once. None: at most 64, as in `integrated_gradients`.
            The result does not depend on it.
        with_error: whether to return the standard error too, over permutations and not over examples, which
            takes 2 samples.

    Returns:
        Of the structure of one example, in units of the loss; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` or `loss` is not callable, `key` is not a key, or an argument is of another type.
        ValueError: lengths that differ, or a shape, group, number or size that does not fit.

    References:
        Breiman, "Random forests", 2001, section 10; Fisher, Rudin and Dominici, "All models are wrong, but
        many are useful", 2019, arXiv:1801.01489.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> x = jax.random.normal(jax.random.key(0), (100, 2))
        >>> model = lambda x: 3 * x[:1]
        >>> rise = attribution.permutation_importance(model, x, 3 * x[:, :1], key=jax.random.key(1))
        >>> bool(rise[0] > 5), float(rise[1])
        (True, 0.0)
    """
    sampling = check_sampling(key, n_samples, batch_size, 64, with_error=with_error)
    model, loss, x = as_model(model), as_model(loss, "loss"), as_example("x", x)
    if isinstance(target, list):
        target = _checks.check_array("target", target)
    target = jax.tree.map(lambda leaf: _checks.check_array("target", leaf), target)
    _checks.check_count({"x": x, "target": target}, at_least=2)
    example, label = _row((x, target), 0)
    check_loss(loss, output_shape(model, example), label, differentiable=False)
    groups, n = check_groups(groups, n_groups, example)
    return _permutation_importance(model, loss, x, target, groups, key, n=n, sampling=sampling)


def _row(tree: PyTree, index: jax.Array | int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], tree)


@jax.jit
def _loss(model: Model, loss: Loss, x: PyTree, target: PyTree) -> jax.Array:
    return loss(model(x), target)


@jax.jit(static_argnames=("n", "sampling"))
def _permutation_importance(
    model: Model, loss: Loss, x: PyTree, target: PyTree, groups: PyTree, key: Key,
    *, n: int, sampling: Sampling,
) -> PyTree:  # fmt: skip
    count = len(jax.tree.leaves(x)[0])

    def loss_at(example: PyTree, index: jax.Array) -> jax.Array:
        return widen(_loss(model, loss, example, _row(target, index)))

    first = jnp.array(0)
    batch_size = sampling.batch_size.size(jax.make_jaxpr(loss_at)(_row(x, first), first))
    losses_before = chunked_map(lambda index: loss_at(_row(x, index), index), count, batch_size)

    def mean_rise(key: Key, group: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(key, group), count)

        def rise(index: jax.Array) -> jax.Array:
            shuffled = mix(_row(x, index), _row(x, order[index]), groups, jnp.arange(n) != group)
            return loss_at(shuffled, index) - losses_before[index]

        return jnp.mean(chunked_map(rise, count, batch_size))

    def rises(sample: jax.Array) -> jax.Array:
        sample_key = jax.random.fold_in(key, sample)
        return chunked_map(lambda group: mean_rise(sample_key, group), n, max(1, batch_size // count))

    example = _row(x, 0)
    one_by_one = sampling._replace(batch_size=Batch(1))
    return estimate(rises, one_by_one, lambda values: spread(values, groups, example))
