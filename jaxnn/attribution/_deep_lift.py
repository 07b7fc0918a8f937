"""DeepLIFT and DeepLIFT-SHAP: contributions of the inputs' changes from a baseline."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._checks import check_flag
from jaxnn._engine.backward import Plan, Rule, StaticRules, backward, check_rules, with_rules
from jaxnn._engine.graph import Around, graph
from jaxnn._engine.held import zeros_for_held
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._engine.softmax import shift_invariants
from jaxnn._model import broadcast_like, check_batch_like, fast_scalar, prepare, scalar
from jaxnn._typing import Model, PyTree, Target
from jaxnn.attribution._accumulate import as_dtype_of, weighted_sum
from jaxnn.attribution._completeness import gap_of, warn_if_incomplete
from jaxnn.attribution._deep_lift_rules import rescale_rule, run_both

ADVICE = "rounding grows where the output changes far more on the way than in all; try another `baseline`"


def deep_lift(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    baseline: PyTree = 0.0,
    primitive_rules: Mapping[str, Rule] | None = None,
    check_completeness: bool = True,
) -> PyTree:
    """DeepLIFT, rescale rule: attribute the change of the output from that at a baseline to the inputs.

    `a_i = m_i (x_i - x0_i)`, and these add up: `sum_i a_i = f(x) - f(x0)`. The multipliers `m` obey the chain
    rule as gradients do, but span the whole change from `x0` to `x`. Through an elementwise function:
    `(y - y0) / (r - r0)`. Through a product: the mean of the other factor. Through a quotient `y = a / b`
    whose divisor keeps its sign, also where it is written as a product by a reciprocal:
    `m_a = 2 / (b + b0)`, `m_b = -(y + y0) / (b + b0)`, which stays bounded where a normalizer is near 0 at
    the baseline. Through a product of many factors, and any other function of two values: their Shapley
    values. Through a value divided by a sum, as in a softmax: those of the value itself and of all others
    together. Through the maximum of a window: the two elements that are the largest in the two runs. Through
    sorting and `top_k`: on the straight path between the two runs, an element gets the multiplier of a rank
    for the fraction of the path on which it has that rank. The function is what counts: relu, GELU, softmax
    and normalization may be written in any way, reused, nested and skipped.

    Routes by integers that are computed from the input, such as the experts that the indices of `top_k`
    select, are refused: the two runs may take different routes, and no rule says which input the difference
    is due to. `lrp` and gradient methods explain the route that was taken.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: the reference input: of the structure and shapes of `x`, or one number for all.
        primitive_rules: further rules by the name of a primitive,
            `rule(step, multipliers, values, baseline_values)`; they come before the built-in ones. `values`
            and `baseline_values` are the operands that depend on the input, in the two runs, `multipliers`
            those of the results; a rule returns one multiplier per value, of its shape, as a tuple or list.
            `step.call(*values)` evaluates the operation (a list of results), and `step.params` are its
            parameters. Not for parts of a larger elementwise function. Static: rules are compared by
            identity, so define them once.
        check_completeness: whether to warn where the sum differs by more than 1 % from the change of the
            output. It waits for the result; under `jit`, `vmap` and `grad` nothing is checked.

    Returns:
        Of the structure of `x`, in units of the output.

    Warns:
        UserWarning: the attributions do not sum to the change of the output; see `check_completeness`. Or
            neither the model nor JAX has a primitive of the name of a rule.

    Raises:
        TypeError: `model` is not callable, `x` or `baseline` does not hold numbers, or `target` is
            of another type.
        ValueError: `baseline` has another structure or shape than `x`, the output has no such element,
            `target` is None and it has more than one, or a primitive rule returns other shapes than those
            of its values.
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

        A rule in the place of a built-in one: of a pair's product, the first factor changes first.

        >>> def pair_rule(step, multipliers, values, baseline_values):
        ...     (m,), (pair,), (pair0,) = multipliers, values, baseline_values
        ...     return [m * jnp.stack([pair0[1], pair[0]])]
        >>> rules = {"reduce_prod": pair_rule}
        >>> attribution.deep_lift(jnp.prod, [3.0, 2.0], primitive_rules=rules).tolist()
        [0.0, 6.0]
    """
    check_flag("check_completeness", check_completeness)
    model, x, target = prepare(model, x, target, holds=True)
    baseline = broadcast_like("baseline", baseline, x)
    rules = check_rules(primitive_rules, scalar(model, target), x)
    attributions, gap = _deep_lift(model, x, target, baseline, primitive_rules=rules)
    warn_if_incomplete("deep_lift", gap if check_completeness else None, ADVICE)
    return zeros_for_held(attributions)


@jax.jit(static_argnames=("primitive_rules",))
def _deep_lift(
    model: Model,
    x: PyTree,
    target: Target,
    baseline: PyTree,
    *,
    primitive_rules: StaticRules,
) -> tuple[PyTree, jax.Array]:
    # Inside of jax.shard_map, each must vary over the mesh axes of both.
    x, baseline = (
        jax.tree.map(lambda a, b: a + jnp.zeros_like(b), *p) for p in ((x, baseline), (baseline, x))
    )
    plan = _plan(primitive_rules, fast_scalar(model, target, x), x)
    leaves, structure = jax.tree.flatten(x)
    leaves0 = jax.tree.leaves(baseline)
    run, run0 = plan.evaluate(leaves, leaves0)
    (output,), (output0,) = plan.graph.results(run), plan.graph.results(run0)
    multipliers = backward(plan, [jnp.ones_like(output)], run, run0)
    leaves = [m * (a - b) for m, a, b in zip(multipliers, leaves, leaves0, strict=True)]
    attributions = jax.tree.unflatten(structure, leaves)
    return attributions, gap_of(attributions, output, output0, within=0.01)


def _plan(
    primitive_rules: StaticRules,
    function: Callable[..., Any],
    *args: Any,
    around: Sequence[Around | None] | None = None,
) -> Plan:
    steps = graph(function, *args, keep_long=lambda _: True, around=around)
    fixed = shift_invariants(steps).fixed
    return Plan(
        steps,
        with_rules("deep_lift", rescale_rule(steps), fixed, primitive_rules),
        functools.partial(run_both, steps, fixed),
        functools.partial(_plan, primitive_rules),
        fixed,
    )


def deep_lift_shap(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    baselines: PyTree,
    batch_size: int | None = None,
    primitive_rules: Mapping[str, Rule] | None = None,
    check_completeness: bool = True,
) -> PyTree:
    """DeepLIFT-SHAP: the mean of `deep_lift` over a set of baselines.

    `a_i = 1/n sum_b m_i(b) (x_i - b_i)`: the contribution of each input to the difference of the output from
    its mean over the baselines, `sum_i a_i = f(x) - 1/n sum_b f(b)`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baselines: of the structure of `x`, each array with a first axis of the `n` baselines.
        batch_size: number of baselines at once, which bounds the memory. None: all, or fewer as in
            `integrated_gradients`.
        primitive_rules: as in `deep_lift`.
        check_completeness: as in `deep_lift`.

    Returns:
        Of the structure of `x`, in units of the output.

    Warns:
        UserWarning: the attributions do not sum to the change of the output; see `check_completeness`. Or
            neither the model nor JAX has a primitive of the name of a rule.

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
    check_flag("check_completeness", check_completeness)
    model, x, target = prepare(model, x, target, holds=True)
    baselines = check_batch_like("baselines", baselines, x)
    count = jax.tree.leaves(baselines)[0].shape[0]
    batch = check_batch_size(batch_size, count)
    batch = batch._replace(most=min(batch.most, count))  # all larger sizes are one program
    rules = check_rules(primitive_rules, scalar(model, target), x)
    attributions, gap = _deep_lift_shap(model, x, target, baselines, batch=batch, primitive_rules=rules)
    warn_if_incomplete("deep_lift_shap", gap if check_completeness else None, ADVICE)
    return zeros_for_held(attributions)


@jax.jit(static_argnames=("batch", "primitive_rules"))
def _deep_lift_shap(
    model: Model,
    x: PyTree,
    target: Target,
    baselines: PyTree,
    *,
    batch: Batch,
    primitive_rules: StaticRules,
) -> tuple[PyTree, jax.Array]:
    def one(index: jax.Array) -> tuple[PyTree, jax.Array]:
        baseline = jax.tree.map(lambda rows: rows[index], baselines)
        return _deep_lift(model, x, target, baseline, primitive_rules=primitive_rules)

    count = jax.tree.leaves(baselines)[0].shape[0]
    mean = weighted_sum(one, np.arange(count), np.full(count, 1 / count), batch)
    attributions, gap = mean
    return as_dtype_of(attributions, x), gap
