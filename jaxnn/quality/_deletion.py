"""Deletion and insertion: the output while features are removed, or added, in the order of attributions."""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._precision import widen
from jaxnn._typing import Key, Model, PyTree, Target
from jaxnn.attribution._accumulate import safe_sqrt
from jaxnn.attribution._masks import Game, make_game
from jaxnn.quality._common import all_finite, as_dtype, check_attributions, dtype_of, group_sums, nan_where
from jaxnn.quality._similarity import places

Kind: TypeAlias = Literal["deletion", "insertion", "gain"]


class Curve(NamedTuple):
    """The output along an order of the features, and along random orders.

    Attributes:
        fractions: `(steps + 1,)`, the share of the features that were removed or added, from 0 to 1.
        outputs: `(steps + 1,)`, the output there; of `symmetric_relevance_gain` a difference of outputs.
        area: the area under `outputs` by trapezoids: their mean, in units of the output.
        random_outputs: `(steps + 1,)`, the mean of the outputs over random orders; NaN without a key.
        random_outputs_std: `(steps + 1,)`, their standard deviation over random orders.
        random_mean: the mean area of random orders.
        random_std: the standard deviation of the area of one random order.
    """

    fractions: jax.Array
    outputs: jax.Array
    area: jax.Array
    random_outputs: jax.Array
    random_outputs_std: jax.Array
    random_mean: jax.Array
    random_std: jax.Array


def deletion(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    key: Key | None = None,
    steps: int = 10,
    n_random: int = 10,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Deletion curve: the output while the features are removed, that of the largest attribution first.

    `outputs_k = f(x with the first round(k n / steps) of the n features at the baseline)`, and the area under
    the outputs over the share of removed features. The lower the area, the better the order; compare it with
    `random_mean`, the mean area of random orders, and `random_std`. Of equal attributions the first is
    removed first. It takes `steps + 1` evaluations of the model, and for random orders
    `2 + (steps - 1) n_random` more.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: of any method, of the structure and shapes of `x`. Of groups, their sums are ranked.
        key: a random key for the random orders; order i is drawn with `jax.random.fold_in(key, i)`. None:
            there are none, and NaN in their place.
        steps: number of steps, at least 1, at most one per feature.
        n_random: number of random orders, at least 2.
        baseline: the value of a removed element: a number, or of the structure of `x`.
        groups: which elements are removed together, as in `attribution.feature_ablation`; such as
            `attribution.blocks(...)` for all channels of a pixel.
        n_groups: their number; needed where `groups` is traced or a group may be empty.
        batch_size: how many changed examples are evaluated at once. None: at most 64, as in
            `attribution.integrated_gradients`. The result does not depend on it.

    Returns:
        A `Curve`.

    Raises:
        TypeError: `model` is not callable, or an argument is of another type.
        ValueError: attributions of another shape or not finite, or a group, index or number that does not
            fit.

    References:
        Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018,
        arXiv:1806.07421. Samek and others, "Evaluating the visualization of what a deep neural network has
        learned", 2017, arXiv:1509.06321 (pixel flipping).

    Example:
        >>> import jax
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1] + x[2]
        >>> curve = quality.deletion(model, [1.0, 1.0, 1.0], None, [4.0, 2.0, 1.0], steps=3)
        >>> curve.outputs.tolist(), round(float(curve.area), 3)
        ([7.0, 3.0, 1.0, 0.0], 2.5)
    """
    options = key, steps, n_random, baseline, groups, n_groups, batch_size
    return _check_and_evaluate("deletion", model, x, target, attributions, *options)


def insertion(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    key: Key | None = None,
    steps: int = 10,
    n_random: int = 10,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Insertion curve: the output while the features are added to the baseline, the largest first.

    `outputs_k = f(baseline with the first round(k n / steps) of the n features as in x)`. The higher the
    area, the better the order.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: of the structure and shapes of `x`, as in `deletion`.
        key: a random key for the random orders, as in `deletion`.
        steps: number of steps, at least 1, at most one per feature.
        n_random: number of random orders, at least 2.
        baseline: where it starts: a number, or of the structure of `x`.
        groups: which elements are added together, as in `deletion`.
        n_groups: their number.
        batch_size: how many examples are evaluated at once. The result does not depend on it.

    Returns:
        A `Curve`.

    Raises:
        TypeError: as `deletion` raises.
        ValueError: as `deletion` raises.

    References:
        Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018,
        arXiv:1806.07421.

    Example:
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1] + x[2]
        >>> quality.insertion(model, [1.0, 1.0, 1.0], None, [4.0, 2.0, 1.0], steps=3).outputs.tolist()
        [0.0, 4.0, 6.0, 7.0]
    """
    options = key, steps, n_random, baseline, groups, n_groups, batch_size
    return _check_and_evaluate("insertion", model, x, target, attributions, *options)


def symmetric_relevance_gain(
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    *,
    key: Key | None = None,
    steps: int = 10,
    n_random: int = 10,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Symmetric relevance gain: the area between the deletion curves of the smallest and the largest first.

    `outputs_k = f(x without the k smallest) - f(x without the k largest)`. A random order has mean 0. The
    higher the area, the better the order; unlike that of `deletion` alone it hardly depends on whether the
    model reacts to the baseline itself.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `attribution.saliency`.
        attributions: of the structure and shapes of `x`, as in `deletion`.
        key: a random key for the random orders, as in `deletion`.
        steps: number of steps, at least 1, at most one per feature.
        n_random: number of random orders, at least 2.
        baseline: the value of a removed element: a number, or of the structure of `x`.
        groups: which elements are removed together, as in `deletion`.
        n_groups: their number.
        batch_size: how many examples are evaluated at once. The result does not depend on it.

    Returns:
        A `Curve`.

    Raises:
        TypeError: as `deletion` raises.
        ValueError: as `deletion` raises.

    References:
        Bluecher, Vielhaben and Strodthoff, "Decoupling pixel flipping and occlusion strategy for consistent
        XAI benchmarks", 2024, arXiv:2401.06654. Achtibat and others, "AttnLRP", 2024, arXiv:2402.05602.

    Example:
        >>> from jaxnn import quality
        >>> model = lambda x: 4 * x[0] + 2 * x[1] + x[2]
        >>> found = quality.symmetric_relevance_gain(model, [1.0] * 3, None, [4.0, 2.0, 1.0], steps=3)
        >>> found.outputs.tolist()
        [0.0, 3.0, 3.0, 0.0]
    """
    options = key, steps, n_random, baseline, groups, n_groups, batch_size
    return _check_and_evaluate("gain", model, x, target, attributions, *options)


def _check_and_evaluate(
    kind: Kind,
    model: Model,
    x: PyTree,
    target: Target,
    attributions: PyTree,
    key: Key | None,
    steps: int,
    n_random: int,
    baseline: PyTree,
    groups: PyTree,
    n_groups: int | None,
    batch_size: int | None,
) -> Curve:
    batch = check_batch_size(batch_size, 64)
    steps = _checks.check_integer("steps", steps, at_least=1)
    n_random = _checks.check_integer("n_random", n_random, at_least=2)
    if key is not None:
        _checks.check_key("key", key)
    game = make_game(model, x, target, baseline, groups, n_groups)
    attributions = check_attributions(attributions, game.x)
    _checks.check_bytes("n_random", 4 * n_random * (game.n + min(steps, game.n)))
    return _curve(game, attributions, key, kind=kind, steps=steps, n_random=n_random, batch=batch)


@jax.jit(static_argnames=("kind", "steps", "n_random", "batch"))
def _curve(
    game: Game, attributions: PyTree, key: Key | None, *, kind: Kind, steps: int, n_random: int, batch: Batch
) -> Curve:
    n, steps = game.n, min(steps, game.n)
    counts = np.round(np.arange(steps + 1) * (n / steps)).astype(int)

    def along(order: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The outputs of some orders, and their areas."""
        if kind == "gain":
            largest, smallest = (_outputs(game, each, counts, batch) for each in (order, n - 1 - order))
            outputs = smallest - largest
        else:
            outputs = _outputs(game, order, counts, batch, inserts=kind == "insertion")
        return outputs, jax.scipy.integrate.trapezoid(outputs, jnp.asarray(counts / n, outputs.dtype), axis=1)

    (outputs,), (area,) = along(places(-group_sums(attributions, game))[None])
    nan = jnp.full((steps + 1,), jnp.nan, outputs.dtype)
    curve = Curve(jnp.asarray(counts / n), outputs, area, nan, nan, nan[0], nan[0])
    if key is not None:
        draw = jax.vmap(lambda i: jax.random.permutation(jax.random.fold_in(key, i), n))
        # Apart: under `jax.vmap` over attributions they are evaluated once for all.
        others, areas = along(draw(jnp.arange(n_random)))
        curve = curve._replace(
            random_outputs=others.mean(0),
            random_outputs_std=safe_sqrt(others.var(0, ddof=1)),
            random_mean=areas.mean(),
            random_std=safe_sqrt(areas.var(ddof=1)),
        )
    curve = as_dtype(curve, dtype_of(game.output, game.x))
    # An order by NaN means nothing.
    is_wrong = ~all_finite(jax.tree.leaves(attributions))
    return curve._replace(outputs=nan_where(is_wrong, curve.outputs), area=nan_where(is_wrong, curve.area))


def _outputs(
    game: Game, places: jax.Array, counts: np.ndarray, batch: Batch, *, inserts: bool = False
) -> jax.Array:
    """The output `(orders, len(counts))` with the first of each order removed, or present."""
    orders, inner = len(places), counts[1:-1]
    # All orders begin and end with the same two inputs.
    order = np.append(np.repeat(np.arange(orders), len(inner)), [0, 0])
    count = np.append(np.tile(inner, orders), counts[[0, -1]])

    def output(index: jax.Array) -> jax.Array:
        is_first = places[jnp.asarray(order)[index]] < jnp.asarray(count)[index]
        return game(is_first if inserts else ~is_first)

    found = widen(chunked_map(output, len(order), game.batch_size(batch)))
    first, last = (jnp.full((orders, 1), end, found.dtype) for end in (found[-2], found[-1]))
    return jnp.concatenate([first, found[:-2].reshape(orders, len(inner)), last], axis=1)
