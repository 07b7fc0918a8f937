"""Attribution over a data set, by shuffling features among its examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import _checks, losses
from jaxnn._engine.loops import chunked_map, chunked_scan
from jaxnn._model import as_example, as_model
from jaxnn.attribution._estimate import Estimate, merge, no_samples, standard_error, wide
from jaxnn.attribution._gradient import Model
from jaxnn.attribution._masks import check_groups, mix, spread


def permutation_importance(
    model: Model,
    x: Any,
    target: Any,
    *,
    key: jax.Array,
    loss: Callable[[Any, Any], jax.Array] = losses.squared_error,
    n_samples: int = 5,
    groups: Any = None,
    n_groups: int | None = None,
    batch_size: int = 64,
    with_error: bool = False,
) -> Any:
    """How much worse a model does on a data set when one feature is shuffled among the examples.

    `a_g = mean over permutations p of 1/N sum_j loss(model(x_j with the entries of group g from x_p(j)), t_j)
    - loss(model(x_j), t_j)`. The other methods explain one answer. This one asks, of all examples together,
    which features the model's success rests on; a feature that has nothing to do with it is near 0.

    Args:
        model: a callable of one example.
        x: `(N, ...)`, N at least 2 examples: an array or a pytree of arrays.
        target: `(N, ...)`, what the model should answer to each, as `loss` takes it: an array or a pytree.
        key: a random key; group g is shuffled for the i-th time by `jax.random.permutation` with
            `jax.random.fold_in(jax.random.fold_in(key, i), g)`.
        loss: `loss(output, target) -> scalar` of one example, recognized by identity. The share of wrong
            answers is a loss too.
        n_samples: the number of permutations of each group, at least 1.
        groups: which entries of an example are shuffled together: as in `feature_ablation`, of the structure
            and shape of one example.
        n_groups: their number, where `groups` is traced or a group may be empty.
        batch_size: how many examples are evaluated at once. The answer does not depend on it.
        with_error: whether to give the standard error too, over permutations and not over examples, which
            takes 2 samples.

    Returns:
        Of the structure of one example, in units of the loss; or an `Estimate` of two of these, `(value,
        standard_error)`, where `with_error`.

    Raises:
        TypeError: `model` or `loss` is not callable, `key` is no key, or an argument is of another type.
        ValueError: lengths that differ, or a shape, group, number or size that does not fit.

    References:
        Breiman, "Random forests", 2001, section 10; Fisher, Rudin and Dominici, "All models are wrong, but
        many are useful", 2019, arXiv:1801.01489.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> x = jax.random.normal(jax.random.key(0), (100, 2))
        >>> model = lambda x: 3 * x[:1]
        >>> worse = attribution.permutation_importance(model, x, 3 * x[:, :1], key=jax.random.key(1))
        >>> bool(worse[0] > 5), float(worse[1])
        (True, 0.0)
    """
    batch_size = _checks.check_integer("batch_size", batch_size, at_least=1)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=2 if with_error else 1)
    _checks.check_key("key", key)
    if not callable(loss):
        raise TypeError(f"`loss` must be a function of (output, target); got {type(loss).__name__}")
    model, loss, x = as_model(model), as_model(loss, "loss"), as_example("x", x)
    if isinstance(target, list):
        target = _checks.check_array("target", target)
    target = jax.tree.map(lambda leaf: _checks.check_array("target", leaf), target)
    count = _check_lengths(x, target)
    example, goal = jax.tree.map(lambda leaf: leaf[0], (x, target))
    answer = jax.eval_shape(_loss, model, loss, example, goal)
    if getattr(answer, "shape", None) != ():
        raise ValueError(f"`loss` must give a scalar for one example; got {answer}")
    groups, n = check_groups(groups, n_groups, example)
    return _permutation_importance(
        model, loss, x, target, groups, key,
        count=count, n=n, n_samples=n_samples, batch_size=batch_size, with_error=bool(with_error),
    )  # fmt: skip


def _check_lengths(x: Any, target: Any) -> int:
    leaves = jax.tree.leaves((x, target))
    lengths = {leaf.shape[:1] for leaf in leaves}
    if len(lengths) != 1 or not jax.tree.leaves(target) or leaves[0].shape[:1] in ((), (0,), (1,)):
        raise ValueError(
            "`x` and `target` must have shape (N, ...), the same number of examples, at least 2; got shapes "
            + ", ".join(str(leaf.shape) for leaf in leaves)
        )
    return leaves[0].shape[0]


@jax.jit
def _loss(model: Any, loss: Any, x: Any, target: Any) -> jax.Array:
    return loss(model(x), target)


@jax.jit(static_argnames=("count", "n", "n_samples", "batch_size", "with_error"))
def _permutation_importance(
    model: Any, loss: Any, x: Any, target: Any, groups: Any, key: jax.Array,
    *, count: int, n: int, n_samples: int, batch_size: int, with_error: bool,
) -> Any:  # fmt: skip
    def row(tree: Any, index: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], tree)

    def own(index: jax.Array) -> jax.Array:
        return wide(_loss(model, loss, row(x, index), row(target, index)))

    losses_before = chunked_map(own, count, batch_size)

    def mean_rise(one: jax.Array, group: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(one, group), count)

        def rise(index: jax.Array) -> jax.Array:
            changed = mix(row(x, index), row(x, order[index]), groups, jnp.arange(n) != group)
            return wide(_loss(model, loss, changed, row(target, index))) - losses_before[index]

        return jnp.mean(chunked_map(rise, count, batch_size))

    def once(moments: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, None]:
        one = jax.random.fold_in(key, indices[0])
        rises = chunked_map(lambda group: mean_rise(one, group), n, max(1, batch_size // count))
        return merge(moments, rises[None], valid), None

    start = no_samples((n,), losses_before.dtype)
    moments, _ = chunked_scan(once, start, n_samples, 1)
    example = row(x, 0)
    value = spread(moments.mean, groups, example)
    return Estimate(value, spread(standard_error(moments), groups, example)) if with_error else value
