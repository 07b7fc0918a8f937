"""DeepLIFT: what each input's change from a baseline contributes to the answer's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.graph import backward, graph
from jaxnn._model import broadcast_like, check_batch_like, prepare, scalar
from jaxnn.attribution._accumulate import as_dtype_of, weighted_sum
from jaxnn.attribution._deep_lift_rules import rescale_rule, run_both

Model = Callable[..., Any]
Target = Any


def deep_lift(model: Model, x: Any, target: Target = None, *, baseline: Any = 0.0) -> Any:
    """The answer's change from that at a baseline, shared among the inputs by the rescale rule.

    `a_i = m_i (x_i - x0_i)`, and these add up: `sum_i a_i = f(x) - f(x0)`. The multipliers `m` obey
    the chain rule as gradients do, but span the whole change from `x0` to `x`: through an
    elementwise function `(y - y0) / (r - r0)`; through a product the mean of the other factor; in general,
    through a function of two values, their Shapley values; through a value's share in a sum, as a softmax
    gives it, those of the value itself and of all others together; through the largest of a window, the two
    entries that are it in the two runs. The function is what counts: relu, GELU, softmax and normalization
    may be written in any way, used again, nested and skipped.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: what to compare with: of the structure and shapes of `x`, or one number for all.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: `model` is not callable, `x` or `baseline` does not hold numbers, or `target` is
            of another type.
        ValueError: `baseline` has another structure or shape than `x`, the output has no such entry, or
            `target` is None and it has more than one.
        NotImplementedError: there is no sound rule for one of the model's operations, which is named.

    References:
        Shrikumar, Greenside and Kundaje, "Learning important features through propagating activation
        differences", 2017, arXiv:1704.02685.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> model = lambda x: jax.nn.relu(x[0] - 1) + x[0] * x[1]
        >>> attribution.deep_lift(model, [3.0, 2.0]).tolist()
        [5.0, 3.0]
    """
    model, x, target = prepare(model, x, target)
    return _deep_lift(model, x, target, broadcast_like("baseline", baseline, x))


@jax.jit
def _deep_lift(model: Any, x: Any, target: Any, baseline: Any) -> Any:
    # Inside of jax.shard_map, each is to vary as both do.
    x, baseline = (
        jax.tree.map(lambda a, b: a + jnp.zeros_like(b), *p) for p in ((x, baseline), (baseline, x))
    )
    line = graph(scalar(model, target), x)
    leaves, structure = jax.tree.flatten(x)
    leaves0 = jax.tree.leaves(baseline)
    run, run0 = run_both(line, leaves, leaves0)
    start = [jnp.ones_like(y) for y in line.results(run)]
    multipliers = backward(line, rescale_rule(line), start, run, run0)
    attributions = [m * (a - b) for m, a, b in zip(multipliers, leaves, leaves0, strict=True)]
    return jax.tree.unflatten(structure, attributions)


def deep_lift_shap(
    model: Model, x: Any, target: Target = None, *, baselines: Any, batch_size: int | None = None
) -> Any:
    """The mean of `deep_lift` over a set of baselines.

    `a_i = 1/n sum_b m_i(b) (x_i - b_i)`: what each input contributes to the distance of the answer from
    its mean over the baselines, `sum_i a_i = f(x) - 1/n sum_b f(b)`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baselines: of the structure of `x`, each array with a first axis of the `n` baselines.
        batch_size: how many baselines to work on at once, which bounds the memory; None is all.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: as for `deep_lift`, or `batch_size` is no integer.
        ValueError: `baselines` has another structure or shapes than `x` with one more axis, or holds
            none, or `batch_size` is below 1; or as for `deep_lift`.
        NotImplementedError: there is no sound rule for one of the model's operations, which is named.

    References:
        Lundberg and Lee, "A unified approach to interpreting model predictions", 2017, arXiv:1705.07874.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> baselines = jnp.array([[0.0, 0.0], [1.0, 1.0]])
        >>> attribution.deep_lift_shap(lambda x: x[0] * x[1], [3.0, 2.0], baselines=baselines).tolist()
        [3.0, 2.5]
    """
    model, x, target = prepare(model, x, target)
    baselines = check_batch_like("baselines", baselines, x)
    count = jax.tree.leaves(baselines)[0].shape[0]
    batch_size = count if batch_size is None else _checks.check_integer("batch_size", batch_size, at_least=1)
    batch_size = min(batch_size, count)  # so that all sizes from there on are one program
    return _deep_lift_shap(model, x, target, baselines, batch_size=batch_size)


@jax.jit(static_argnames=("batch_size",))
def _deep_lift_shap(model: Any, x: Any, target: Any, baselines: Any, *, batch_size: int) -> Any:
    def one(number: jax.Array) -> Any:
        return _deep_lift(model, x, target, jax.tree.map(lambda rows: rows[number], baselines))

    count = jax.tree.leaves(baselines)[0].shape[0]
    mean = weighted_sum(one, np.arange(count), np.full(count, 1 / count), batch_size)
    return as_dtype_of(mean, x)
