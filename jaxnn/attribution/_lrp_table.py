"""LRP's table of rules for everything in a function, its layers included."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._engine.graph import Graph, Run, Step, gradient, refuse, summed_to
from jaxnn._engine.primitives import is_real
from jaxnn._engine.softmax import Shifts, shares, shifts
from jaxnn.attribution._lrp_layers import Layer
from jaxnn.attribution._lrp_rules import Options, shared

_ADDS = {"add", "add_any", "sub", "scatter-add", "scatter-sub"}
_LARGEST = {"reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "max", "min"}
_PRODUCTS = {"mul", "dot_general", "conv_general_dilated"}
_ENTRYWISE = {
    "add", "sub", "mul", "div", "neg", "name", "copy", "convert_element_type", "reduce_precision", "pvary",
}  # fmt: skip

Chosen = Mapping[Any, tuple[Callable[..., Any], Options]]  # the rule of each layer, by what it makes


class _Context(NamedTuple):
    """What the rules of the steps without weights look at."""

    shift: Shifts
    made_by: Mapping[Any, Step]
    stabilizer: Any


def relevance_rule(
    line: Graph, found: Mapping[Any, Layer], chosen: Chosen, stabilizer: Any
) -> Callable[..., Any]:
    """The rule of each step: `rule(step, relevances, run)`.

    Args:
        line: the function, without layers.
        found: its layers, by what they make.
        chosen: the rule of each that has weights.
        stabilizer: the epsilon of sums.
    """
    context = _Context(shifts(line), line.made_by(), stabilizer)

    def rule(step: Step, relevances: Sequence[Any], run: Run) -> Sequence[Any]:
        relevance, (made, *_) = relevances[0], step.outputs
        values = tuple(run[v] for v in step.inputs)
        if all(v in context.shift.fixed for v in step.outputs):
            return [None] * len(step.inputs)
        if not all(is_real(v) for v in (*step.inputs, *step.outputs)):
            raise refuse("lrp", step, "what it works on, or makes of the input, are no real numbers")
        if made in chosen:
            share, options = chosen[made]
            return [share(found[made], relevance, values[0], run[made], options)]
        if made in found:
            return shared(lambda v: step.call(v)[0], values, relevance, stabilizer)
        if step.kind == "elementwise":
            return [relevance]
        if step.kind == "linear":
            return _affine(context, step, relevances, values)
        if step.name == "stop_gradient":
            raise refuse("lrp", step, "the answer may depend on the value whose gradient is stopped")
        if step.name in _LARGEST:
            return gradient(step, relevances, run)
        if step.name == "div" and len(values) == 2:
            return _quotient(context, step, relevance, run)
        if step.name in _PRODUCTS:
            return _product(context, step, relevance, values)
        raise refuse("lrp", step)

    return rule


def _affine(context: _Context, step: Step, relevances: Sequence[Any], values: Sequence[Any]) -> Sequence[Any]:
    """A sum is shared; what scales and moves entries hands on what it gets."""
    moving = [v for v in step.inputs if v not in context.shift.fixed]
    if step.name in _ADDS and len(moving) > 1:
        if any(v in context.shift.carried for v in moving):
            raise refuse("lrp", step, "of the shift in a log-softmax; explain what goes into it")
        return shared(lambda *v: step.call(*v)[0], tuple(values), relevances[0], context.stabilizer)
    if all(eqn.primitive.name in _ENTRYWISE for eqn in step.equations):
        return [summed_to(relevances[0], v.aval.shape) if v in moving else None for v in step.inputs]
    zeros = [jnp.zeros_like(v) for v in values]
    if len(step.equations) > 1:  # entry by entry, and some may be left out
        (scale,) = jax.jvp(step.call, zeros, [jnp.ones_like(v) for v in values])[1]
        return [jnp.where(scale != 0, relevances[0], 0)]
    return jax.vjp(step.call, *zeros)[1](list(relevances))


def _product(context: _Context, step: Step, relevance: Any, values: Sequence[Any]) -> Sequence[Any]:
    """Half to each factor, among its entries by their terms; nothing to a normalization's."""
    scales = [v for v in step.inputs if _is_normalizer(context.made_by, v)]
    if step.name == "mul" and len(scales) == 1:
        return [None if v is scales[0] else summed_to(relevance, v.aval.shape) for v in step.inputs]
    if any(v in context.shift.carried for v in step.inputs):
        raise refuse("lrp", step, "of the shift in a softmax")
    return [r / 2 for r in shared(lambda *v: step.call(*v)[0], tuple(values), relevance, context.stabilizer)]


def _quotient(context: _Context, step: Step, relevance: Any, run: Run) -> Sequence[Any]:
    """All to the dividend where the divisor is a normalization's; or a softmax."""
    above, below = step.equations[0].invars
    if _is_normalizer(context.made_by, below):
        return [None if v is below else summed_to(relevance, v.aval.shape) for v in step.inputs]
    share = shares(context.made_by, step)
    exponential = context.made_by.get(above)
    if (
        share is None
        or share.mask is not None
        or exponential is None
        or [eqn.primitive.name for eqn in exponential.equations] != ["exp"]
    ):
        raise refuse("lrp", step)
    (x,) = exponential.inputs
    if x in context.shift.carried:
        (x,) = (v for v in context.made_by[x].inputs if v not in context.shift.fixed)
    y = run[step.outputs[0]]
    linearized = run[x] * (relevance - y * jnp.sum(relevance, axis=share.axes, keepdims=True))
    linearized = jnp.where(y == 0, 0, linearized)  # what is masked out, at minus infinity
    return [linearized if v is above else None for v in step.inputs]


def _is_normalizer(made_by: Mapping[Any, Step], v: Any) -> bool:
    """Whether a value is a root of a sum, or one over it, as the norms and deviations to divide by are."""
    rooted = False
    while v in made_by:
        step = made_by[v]
        rooted = rooted or any(_is_root(eqn) for eqn in step.equations)
        if step.name == "reduce_sum" or len(step.inputs) != 1:
            return rooted and (step.name == "reduce_sum" or step.name == "sub")
        (v,) = step.inputs
    return False


def _is_root(eqn: core.JaxprEqn) -> bool:
    name, exponent = eqn.primitive.name, eqn.invars[-1]
    halved = isinstance(exponent, core.Literal) and exponent.val in (0.5, -0.5)
    return name in ("sqrt", "rsqrt") or (name == "pow" and halved)
