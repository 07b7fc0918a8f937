"""LRP's rules for every step of a function: its layers, elementwise functions, and `RULES` by primitive."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._engine.backward import Rule, gradient, refuse, register, summed_to
from jaxnn._engine.graph import Graph, Run, Step
from jaxnn._engine.primitives import (
    ADDITIONS,
    EXTREMA,
    PRODUCTS,
    SCALINGS,
    SCATTERED_ADDITIONS,
    SELECTIONS,
)
from jaxnn._engine.softmax import ShiftInvariants, normalization
from jaxnn._typing import Scalar
from jaxnn.attribution._lrp_layers import COMPLEX_MAP, Layers, linear_part
from jaxnn.attribution._lrp_rules import LayerRule, Options, redistribute

LayerRules = Mapping[object, tuple[LayerRule, Options]]
Relevances = Sequence[jax.Array | None]


class _Context(NamedTuple):
    """The function, without layers, its softmax shifts, and the epsilon of sums."""

    graph: Graph
    shift: ShiftInvariants
    stabilizer: Scalar

    def redistribute(self, step: Step, relevance: jax.Array, values: Sequence[jax.Array]) -> list[jax.Array]:
        """By each input's contribution to the result."""
        return redistribute(lambda *v: step.call(*v)[0], tuple(values), relevance, self.stabilizer)


PrimitiveRule = Callable[[_Context, Step, jax.Array, Run], Relevances]
RULES: dict[str, PrimitiveRule] = {}
"""`rule(context, step, relevance, run) -> relevances of step.inputs`, by primitive."""

rule = functools.partial(register, RULES)


def relevance_rule(
    graph: Graph, shift: ShiftInvariants, layers: Layers, layer_rules: LayerRules, stabilizer: Scalar
) -> Rule:
    """The rule for `backward`: `rule(step, relevances, run)`.

    Args:
        graph: the function, without layers.
        shift: its softmax shifts.
        layers: its layers, by their outputs.
        layer_rules: the rule of each that has weights.
        stabilizer: the epsilon of sums.
    """
    context = _Context(graph, shift, stabilizer)

    def step_rule(step: Step, relevances: Sequence[jax.Array], run: Run) -> Relevances:
        relevance, output = relevances[0], step.outputs[0]
        if output in graph.stopped:  # a constant, as the model declares: it keeps its relevance
            return [None] * len(step.inputs)
        values = [run[v] for v in step.inputs]
        if output in layer_rules:
            layer_rule, options = layer_rules[output]
            return [layer_rule(layers[output], relevance, values[0], run[output], options)]
        if output in layers:
            moved, *held = values  # the scale of a normalization is held
            pooled = redistribute(lambda v: step.call(v, *held)[0], (moved,), relevance, context.stabilizer)
            return [*pooled, *(None for _ in held)]
        if step.kind == "elementwise":
            return [relevance]
        if step.name == COMPLEX_MAP:  # of several values; that of one is a layer
            return context.redistribute(step, relevance, values)
        if step.kind == "linear":
            return _affine(context, step, relevances, values)
        if step.name in SELECTIONS:
            return gradient(step, relevances, run)
        if step.name not in RULES:
            raise refuse("lrp", step, rules=RULES)
        return RULES[step.name](context, step, relevance, run)

    return step_rule


def _affine(
    context: _Context, step: Step, relevances: Sequence[jax.Array], values: Sequence[jax.Array]
) -> Relevances:
    """A sum is redistributed; operations that scale and move elements pass on their relevance."""
    moving = [v for v in step.inputs if v not in context.shift.fixed]
    if step.name in ADDITIONS | SCATTERED_ADDITIONS and len(moving) > 1:
        if not context.shift.carried.isdisjoint(moving):
            raise refuse("lrp", step, "of the shift in a log-softmax; explain its input instead")
        return context.redistribute(step, relevances[0], values)
    if step.name in SCATTERED_ADDITIONS and len(values) == 1:  # several elements may be added at one place
        return redistribute(lambda v: linear_part(step, v), tuple(values), relevances[0], context.stabilizer)
    if all(eqn.primitive.name in SCALINGS for eqn in step.equations):
        return [summed_to(relevances[0], v.aval.shape) if v in moving else None for v in step.inputs]
    zeros = [jnp.zeros_like(v) for v in values]
    if len(step.equations) > 1:  # elementwise, and some elements may be masked out
        (scale,) = jax.jvp(step.call, zeros, [jnp.ones_like(v) for v in values])[1]
        return [jnp.where(scale != 0, relevances[0], 0)]
    pulled: Relevances = jax.vjp(step.call, *zeros)[1](list(relevances))
    return pulled


@rule(*EXTREMA, "max", "min")
def _extremum(context: _Context, step: Step, relevance: jax.Array, run: Run) -> Relevances:
    """All to the extremum."""
    return gradient(step, [relevance], run)


@rule(*PRODUCTS, "mul")
def _product(context: _Context, step: Step, relevance: jax.Array, run: Run) -> Relevances:
    """Half to each factor, to its elements by their terms; or all to one, where the other is a constant."""
    if not context.shift.carried.isdisjoint(step.inputs):
        raise refuse("lrp", step, "of the shift in a softmax")
    parts = context.redistribute(step, relevance, [run[v] for v in step.inputs])
    held = context.graph.stopped.intersection(step.inputs)
    return parts if held else [r / 2 for r in parts]


@rule("div")
def _quotient(context: _Context, step: Step, relevance: jax.Array, run: Run) -> Relevances:
    """A softmax, by its linearization."""
    if len(step.inputs) != 2:
        raise refuse("lrp", step, "its dividend does not depend on the input")
    above, _ = step.equations[0].invars
    softmax, exponential = normalization(context.graph, step), context.graph.made_by.get(above)
    if (
        softmax is None
        or softmax.mask is not None
        or exponential is None
        or [eqn.primitive.name for eqn in exponential.equations] != ["exp"]
    ):
        raise refuse("lrp", step, "it is neither a normalization nor a softmax")
    (x,) = exponential.inputs
    if x in context.shift.carried:
        (x,) = (v for v in context.graph.made_by[x].inputs if v not in context.shift.fixed)
    y = run[step.outputs[0]]
    linearized = run[x] * (relevance - y * jnp.sum(relevance, axis=softmax.axes, keepdims=True))
    linearized = jnp.where(y == 0, 0, linearized)  # masked out, at minus infinity
    return [linearized if v is above else None for v in step.inputs]
