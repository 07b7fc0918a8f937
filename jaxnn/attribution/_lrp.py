"""Layer-wise relevance propagation (LRP)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn import _checks
from jaxnn._engine.backward import Plan, Rule, StaticRules, backward, check_rules, with_rules
from jaxnn._engine.graph import Around, graph
from jaxnn._engine.held import zeros_for_held
from jaxnn._engine.softmax import shift_invariants
from jaxnn._model import broadcast_like, fast_scalar, prepare, scalar
from jaxnn._typing import Model, PyTree, Scalar, Target
from jaxnn.attribution._lrp_layers import (
    WEIGHTED,
    bounds,
    input_layers,
    input_units,
    join_complex,
    join_layers,
)
from jaxnn.attribution._lrp_rules import COMPOSITES, LAYER_KINDS, LAYER_RULES, Options
from jaxnn.attribution._lrp_table import relevance_rule


def lrp(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    rule: str | Mapping[str, str] = "epsilon",
    epsilon: Scalar = 1e-6,
    gamma: Scalar = 0.25,
    alpha: Scalar = 2.0,
    low: PyTree = None,
    high: PyTree = None,
    stabilizer: Scalar = 1e-6,
    primitive_rules: Mapping[str, Rule] | None = None,
) -> PyTree:
    """Layer-wise relevance propagation (LRP): redistribute the output score, layer by layer, to the inputs.

    A layer is a matrix product or a convolution with the affine operations after it, bias and batch
    normalization: `z = A a + b`. With `s(z) = z + eps sign z`, `+` and `-` for positive and
    negative parts, each `a_i` receives the fraction of the relevance that its term has in the sum:

    | rule         | the sum                                                           |
    |--------------|-------------------------------------------------------------------|
    | `epsilon`    | `z`, with `epsilon` for eps                                       |
    | `gamma`      | `z + gamma up` where `z > 0`, `z + gamma down` where `z < 0`      |
    | `alpha_beta` | `alpha` times by `up`, minus `alpha - 1` times by `down`          |
    | `z_plus`     | `up = A+ a+ + A- a- + b+`; `down = A- a+ + A+ a- + b-`            |
    | `w_square`   | `A^2 1 + b^2`                                                     |
    | `flat`       | `A 1`, with ones for all weights                                  |
    | `z_box`      | `A a - A+ low - A- high`, for layers that read the input          |

    Elsewhere: an elementwise function of one value passes on its relevance; sums (an average pool, a skip
    connection) use epsilon with `stabilizer`; a maximum passes all to the largest element; a product
    of two values gives half to each, by epsilon; a normalization with its bias, `(a - mean) / std * w + b`,
    uses epsilon with `stabilizer`, as one affine map with constant `std`, as does a batch normalization that
    follows no layer; and the softmax of an attention uses its linearization,
    `a_i = x_i (R_i - y_i sum_j R_j)`. Sorting and `top_k` pass relevance to the element that was moved;
    integers that are computed from the input, such as the indices of `top_k`, are constants. So is a value
    behind `stop_gradient`: in a sum it keeps its relevance, as a bias does, as in a straight-through
    estimator, `z + stop_gradient(round(z) - z)`; in a product all goes to the other factor, as with attention
    weights that are held (CP-LRP), `stop_gradient(weights) @ values`. Linear operations
    on complex numbers, such as a Fourier transform, a filter and the inverse transform, are one linear map,
    which uses epsilon with `stabilizer`. A standardization of the input itself passes on its relevance.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`. Its value is redistributed.
        rule: the name of a rule, for all layers; of a composite: `"epsilon_plus"` (z_plus for
            convolutions, epsilon for dense layers), `"epsilon_alpha2_beta1"`, either with `"_flat"`
            (flat for the layers that read the input), or `"epsilon_gamma_box"` (gamma for convolutions, z_box
            for those that read the input, epsilon for dense layers); or a dictionary to rules from
            `"dense"`, `"conv"`, and `"first_dense"`, `"first_conv"` or `"first"` for
            layers that read the input, no other between; epsilon for those not named.
        epsilon: of the epsilon rule, at least 0.
        gamma: of the gamma rule, at least 0.
        alpha: of the alpha-beta rule, at least 1.
        low: lower bound of the input, for z_box: one number or of the structure of `x`.
        high: upper bound of the input.
        stabilizer: the epsilon of all other divisions, at least 0.
        primitive_rules: further rules by the name of a primitive, `rule(step, relevances, values)`; they come
            before the built-in ones. `values` are the operands that depend on the input, `relevances` those
            of the results; a rule returns one relevance per value, of its shape, as a tuple or list.
            `step.call(*values)` evaluates the operation (a list of results), and `step.params` are its
            parameters. Not for layers, nor for parts of a larger elementwise function. Static: rules are
            compared by identity, so define them once.

    Returns:
        Of the structure of `x`, in units of the output. Sums to the output up to bias and epsilon terms.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or another argument is of a wrong type.
        ValueError: `rule` is not known, `low` or `high` is missing for z_box or has another structure
            or shape than `x`, an option is out of its range, the output has no such element, `target`
            is None and it has more than one, or a primitive rule returns other shapes than its values have.
        NotImplementedError: there is no sound rule for one of the model's operations, which is named.

    Warns:
        UserWarning: neither the model nor JAX has a primitive of the name of a rule.

    References:
        Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
        propagation", 2015, doi:10.1371/journal.pone.0130140. Montavon et al., "Layer-wise relevance
        propagation: an overview", 2019, doi:10.1007/978-3-030-28954-6_10. Normalization: Ali et al., 2022,
        arXiv:2202.07304. Attention: Achtibat et al., 2024, arXiv:2402.05602.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> kernel = jnp.array([[1.0], [2.0]])
        >>> model = lambda x: jax.nn.relu(x @ kernel)
        >>> [round(float(a), 3) for a in attribution.lrp(model, [3.0, 2.0])]
        [3.0, 4.0]

        A rule for an operation that is refused otherwise: equal parts to the factors of a product.

        >>> def product_rule(step, relevances, values):
        ...     (relevance,), (factors,) = relevances, values
        ...     return [jnp.full_like(factors, relevance / factors.size)]
        >>> rules = {"reduce_prod": product_rule}
        >>> attribution.lrp(jnp.prod, [3.0, 2.0], primitive_rules=rules).tolist()
        [3.0, 3.0]
    """
    model, x, target = prepare(model, x, target, holds=True)
    rules = _check_rule(rule)
    options = Options(
        _checks.check_number("epsilon", epsilon, at_least=0),
        _checks.check_number("gamma", gamma, at_least=0),
        _checks.check_number("alpha", alpha, at_least=1),
        _checks.check_number("stabilizer", stabilizer, at_least=0),
    )
    needed = any(name == "z_box" for _, name in rules)
    ends = [
        _check_bound(name, bound, x) if needed or bound is not None else None
        for name, bound in (("low", low), ("high", high))
    ]
    if not (low is None or high is None) and not all(map(_in_order, *map(jax.tree.leaves, ends))):
        raise ValueError(f"`low` must nowhere be above `high`; got {low} and {high}")
    box = tuple(ends) if needed else None
    static = check_rules(primitive_rules, scalar(model, target), x)
    return zeros_for_held(_lrp(model, x, target, options, box, rules=rules, primitive_rules=static))


@jax.jit(static_argnames=("rules", "primitive_rules"))
def _lrp(
    model: Model,
    x: PyTree,
    target: Target,
    options: Options,
    box: PyTree,
    *,
    rules: tuple[tuple[str, str], ...],
    primitive_rules: StaticRules,
) -> PyTree:
    leaves, structure = jax.tree.flatten(x)
    plan = _plan(dict(rules), options, box, primitive_rules, fast_scalar(model, target, x), x)
    (run,) = plan.evaluate(leaves)
    return jax.tree.unflatten(structure, backward(plan, plan.graph.results(run), run))


def _plan(
    rules: Mapping[str, str],
    options: Options,
    box: PyTree,
    primitive_rules: StaticRules,
    function: Callable[..., Any],
    *args: Any,
    around: Sequence[Around | None] | None = None,
) -> Plan:
    # Which layers read the input alone, and the relevance of complex numbers, are known of unrolled scans.
    of_first = any(kind.startswith("first") for kind in rules)
    keep = None if of_first else _is_real_scan
    plain = join_complex(graph(function, *args, hold_integers=True, keep_long=keep, around=around))
    shift = shift_invariants(plain)
    units = input_units(plain)
    joined, layers = join_layers(plain, shift.carried, units)
    reached = input_layers(joined, layers)
    lows, highs = ({}, {}) if box is None else bounds(joined, reached, *map(jax.tree.leaves, box))
    layer_rules = {}
    for output, layer in layers.items():
        if layer.kind in WEIGHTED:
            name = _choose(rules, layer.kind, output in reached)
            if name == "z_box" and output not in reached:
                raise ValueError(
                    f"`rule` must not give z_box to {layer.kind!r} layers: not all read the input"
                )
            (v,) = layer.step.inputs
            ends = options._replace(low=lows.get(v), high=highs.get(v))
            layer_rules[output] = (LAYER_RULES[name], ends)
    rule = relevance_rule(plain, shift, layers, layer_rules, options.stabilizer)
    return Plan(
        joined,
        with_rules("lrp", rule, shift.fixed, primitive_rules),
        lambda inputs: [plain.run(*inputs)],
        functools.partial(_plan, rules, options, None, primitive_rules),
        shift.fixed,
        units,
        plain,
    )


def _is_real_scan(eqn: core.JaxprEqn) -> bool:
    carries: list[Any] = eqn.outvars
    return not any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in carries)


def _choose(rules: Mapping[str, str], kind: str, first: bool) -> str:
    keys = (f"first_{kind}", "first", kind) if first else (kind,)
    return next((rules[key] for key in keys if key in rules), "epsilon")


def _check_rule(rule: str | Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The rule of each kind of layer, as a static argument."""
    if isinstance(rule, str):
        _checks.check_option("rule", rule, (*LAYER_RULES, *COMPOSITES))
        if rule == "z_box":
            raise ValueError(
                '`rule` must name z_box for layers that read the input alone, as {"first": "z_box"}'
            )
        return tuple(COMPOSITES.get(rule, dict.fromkeys(("dense", "conv"), rule)).items())
    if not isinstance(rule, Mapping):
        raise TypeError(f"`rule` must be a name, or a dictionary of them; got {type(rule).__name__}")
    for kind, name in rule.items():
        _checks.check_option("rule", kind, LAYER_KINDS)
        _checks.check_option(f"rule[{kind!r}]", name, LAYER_RULES)
    return tuple(sorted(rule.items()))


@jax.ensure_compile_time_eval()
def _in_order(low: jax.Array, high: jax.Array) -> bool:
    return not _checks.known_false(jnp.all(low <= high))


def _check_bound(name: str, bound: PyTree, x: PyTree) -> PyTree:
    if bound is None:
        raise ValueError(f"`{name}` must be given for the rule z_box: a number, or of the structure of `x`")
    return broadcast_like(name, bound, x)
