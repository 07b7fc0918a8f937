"""Layer-wise relevance propagation: the answer, handed back through the layers to the inputs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._engine.graph import backward, graph
from jaxnn._model import broadcast_like, prepare, scalar
from jaxnn.attribution._lrp_layers import bounds, entrances, layers
from jaxnn.attribution._lrp_rules import COMPOSITES, LAYER_KINDS, RULES, Options
from jaxnn.attribution._lrp_table import relevance_rule

Model = Callable[..., Any]
Target = Any


def lrp(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    rule: str | Mapping[str, str] = "epsilon",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    low: Any = None,
    high: Any = None,
    stabilizer: float = 1e-6,
) -> Any:
    """The answer's value, handed back layer by layer, each sharing what it gets among what it read.

    A layer is a matrix product or a convolution with all that is affine after it, bias and batch
    normalization: `z = A a + b`. With `s(z) = z + eps sign z`, `+` and `-` for positive and
    negative parts, and each `a_i` taking what its term has in the sum, the rules share by

    | rule         | the sum                                                           |
    |--------------|-------------------------------------------------------------------|
    | `epsilon`    | `z`, with `epsilon` for eps                                       |
    | `gamma`      | `z + gamma up` where `z > 0`, `z + gamma down` where `z < 0`      |
    | `alpha_beta` | `alpha` times by `up`, less `alpha - 1` times by `down`           |
    | `z_plus`     | `up = A+ a+ + A- a- + b+`; `down = A- a+ + A+ a- + b-`            |
    | `w_square`   | `A^2 1 + b^2`                                                     |
    | `flat`       | `A 1`, with ones for all weights                                  |
    | `z_box`      | `A a - A+ low - A- high`, for layers that read the input          |

    Elsewhere: an elementwise function of one value hands on what it gets; sums (an average pool, a skip
    connection) share by epsilon with `stabilizer`; a maximum gives all to what is largest; a product
    of two values gives half to each, shared by epsilon; a normalization's divisor is held constant, and the
    softmax of an attention is shared by its linearization, `a_i = x_i (R_i - y_i sum_j R_j)`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`. Its value is what is handed back.
        rule: the name of a rule, for all layers; of a composite: `"epsilon_plus"` (z_plus for
            convolutions, epsilon for dense layers), `"epsilon_alpha2_beta1"`, either with `"_flat"`
            (flat for the layers that read the input), or `"epsilon_gamma_box"` (gamma for convolutions, z_box
            for those that read the input, epsilon for dense layers); or a dictionary to rules from
            `"dense"`, `"conv"`, and `"first_dense"`, `"first_conv"` or `"first"` for
            layers that read the input, no other between; epsilon for those not named.
        epsilon: of the epsilon rule, at least 0.
        gamma: of the gamma rule, at least 0.
        alpha: of the alpha-beta rule, at least 1.
        low: the least that the input can be, for z_box: one number or of the structure of `x`.
        high: the largest that the input can be.
        stabilizer: the epsilon of all other divisions, at least 0.

    Returns:
        Of the structure of `x`, in units of the output. It adds up to the answer as far as no bias and no
        epsilon took part in it.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or another argument is of a wrong type.
        ValueError: `rule` is not known, `low` or `high` is missing for z_box or has another structure
            or shape than `x`, an option is out of its range, the output has no such entry, or `target`
            is None and it has more than one.
        NotImplementedError: there is no sound rule for one of the model's operations, which is named.

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
    """
    model, x, target = prepare(model, x, target)
    rules = _check_rule(rule)
    for name, value, least in (
        ("epsilon", epsilon, 0),
        ("gamma", gamma, 0),
        ("alpha", alpha, 1),
        ("stabilizer", stabilizer, 0),
    ):
        if _checks.check_float_array(name, value).ndim or _checks.known_false(jnp.asarray(value) >= least):
            raise ValueError(f"`{name}` must be a number of at least {least}; got {value!r}")
    box = None
    if any(name == "z_box" for _, name in rules):
        box = (_check_bound("low", low, x), _check_bound("high", high, x))
        if not all(map(_in_order, *map(jax.tree.leaves, box))):
            raise ValueError(f"`low` must nowhere be above `high`; got {low} and {high}")
    return _lrp(model, x, target, Options(epsilon, gamma, alpha, stabilizer), box, rules=rules)


@jax.jit(static_argnames=("rules",))
def _lrp(model: Any, x: Any, target: Any, options: Options, box: Any, *, rules: tuple[Any, ...]) -> Any:
    plain = graph(scalar(model, target), x)
    line, found = layers(plain)
    leaves, structure = jax.tree.flatten(x)
    entered = entrances(line, found)
    lows, highs = ({}, {}) if box is None else bounds(line, entered, *map(jax.tree.leaves, box))
    chosen = {}
    for made, layer in found.items():
        if layer.kind != "pool":
            name = _choose(dict(rules), layer.kind, made in entered)
            if name == "z_box" and made not in entered:
                raise ValueError(
                    f"`rule` must not give z_box to {layer.kind!r} layers: not all read the input"
                )
            (v,) = layer.step.inputs
            chosen[made] = (RULES[name], options._replace(low=lows.get(v), high=highs.get(v)))
    run = plain.run(*leaves)
    relevance = backward(
        line, relevance_rule(plain, found, chosen, options.stabilizer), plain.results(run), run
    )
    return jax.tree.unflatten(structure, relevance)


def _choose(rules: dict[str, str], kind: str, first: bool) -> str:
    asked = (f"first_{kind}", "first", kind) if first else (kind,)
    return next((rules[key] for key in asked if key in rules), "epsilon")


def _check_rule(rule: Any) -> tuple[tuple[str, str], ...]:
    """The rule of each kind of layer, as a static argument."""
    if isinstance(rule, str):
        _checks.check_option("rule", rule, (*RULES, *COMPOSITES))
        if rule == "z_box":
            raise ValueError(
                '`rule` must name z_box for layers that read the input alone, as {"first": "z_box"}'
            )
        return tuple(COMPOSITES.get(rule, dict.fromkeys(("dense", "conv"), rule)).items())
    if not isinstance(rule, Mapping):
        raise TypeError(f"`rule` must be a name, or a dictionary of them; got {type(rule).__name__}")
    for kind, name in rule.items():
        _checks.check_option("rule", kind, LAYER_KINDS)
        _checks.check_option(f"rule[{kind!r}]", name, RULES)
    return tuple(sorted(rule.items()))


def _in_order(low: jax.Array, high: jax.Array) -> bool:
    return not _checks.known_false(jnp.all(low <= high))


def _check_bound(name: str, bound: Any, x: Any) -> Any:
    if bound is None:
        raise ValueError(f"`{name}` must be given for the rule z_box: a number, or of the structure of `x`")
    return broadcast_like(name, bound, x)
