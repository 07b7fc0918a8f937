"""The layers of LRP: a product with weights and the affine operations after it, as one step.

A convolution, its bias and the batch normalization after it are one affine map `A a + b`. The rules need
this map with the positive and the negative part of its weights separated, with their squares, or with ones
for them. Those are computed by following the map's own operations, so that a negative scale of a batch
normalization turns positive weights into negative ones.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._engine.graph import Graph, Run, Step
from jaxnn._engine.jaxpr import bind
from jaxnn._engine.primitives import JOINS, MOVES, PRODUCTS, SCALINGS, SUMS


class Layer(NamedTuple):
    """An affine map of one value, `A a + b`.

    Attributes:
        kind: "dense", "conv", or "pool" for a sum.
        step: the whole map.
        product: the product with the weights, or the sum.
        suffix: the affine operations after it.
        weights: the factor of the value; None for a sum.
        value: index of the value among the operands of the product.
    """

    kind: str
    step: Step
    product: Step
    suffix: tuple[Step, ...]
    weights: Any
    value: int

    def apply(self, a: jax.Array) -> jax.Array:
        """`A a + b`."""
        return self.step.call(a)[0]

    def bias(self, a: jax.Array) -> jax.Array:
        """`b`, for a value of the shape and dtype of `a`."""
        b = jnp.zeros_like(self.product.call(a)[0])
        for step in self.suffix:
            (b,) = step.call(b)
        return b

    def linear(self, change: Callable[[Any], jax.Array], a: jax.Array) -> jax.Array:
        """`A' a`, with `change(w)` for each weight `w` and each scale of `A`."""
        value = self._multiply(change(self.weights), a)
        for step in self.suffix:
            value = change(_scale(step, value)) * value if _scales(step) else linear_part(step, value)
        return value

    def signed(self, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`(A+ a, A- a)`, with the positive and the negative elements of `A`."""
        positive = self._multiply(jnp.maximum(self.weights, 0), a)
        negative = self._multiply(jnp.minimum(self.weights, 0), a)
        for step in self.suffix:
            if _scales(step):
                scale = _scale(step, positive)
                up, down = jnp.maximum(scale, 0), jnp.minimum(scale, 0)
                positive, negative = up * positive + down * negative, up * negative + down * positive
            else:
                positive, negative = linear_part(step, positive), linear_part(step, negative)
        return positive, negative

    def _multiply(self, weights: jax.Array, a: jax.Array) -> jax.Array:
        operands = (a, weights) if self.value == 0 else (weights, a)
        return bind(self.product.equations[0], operands)[0]


Layers = Mapping[Any, Layer]
"""Layers by the variable that they compute."""


def join_layers(graph: Graph) -> tuple[Graph, Layers]:
    """Join the steps of a function into layers: the function with one step per layer, and the layers."""
    reader = {v: step for step in graph.steps for v in step.inputs}
    layers: dict[Any, Layer] = {}
    joined: dict[Any, Step | None] = {}  # the replacement of each step that is part of a layer
    for step in graph.steps:
        kind = "pool" if step.name in SUMS else PRODUCTS.get(step.name)
        if kind is None or step.kind != "linear" or len(step.inputs) != 1:
            continue
        chain = [step]
        while graph.uses[chain[-1].outputs[0]] == 1:
            after = reader.get(chain[-1].outputs[0])
            if after is None or not (_scales(after) or _moves(after)):
                break
            chain.append(after)
        layer = _layer(graph, kind, chain)
        (output,) = layer.step.outputs
        layers[output] = layer
        joined |= {each.outputs[0]: None for each in chain} | {output: layer.step}
    steps = [joined.get(step.outputs[0], step) for step in graph.steps]
    return dataclasses.replace(graph, steps=tuple(step for step in steps if step is not None)), layers


def _layer(graph: Graph, kind: str, chain: Sequence[Step]) -> Layer:
    def call(a: Any) -> list[Any]:
        for step in chain:
            (a,) = step.call(a)
        return [a]

    (product, *suffix), (v,) = chain, chain[0].inputs
    equations = tuple(eqn for step in chain for eqn in step.equations)
    step = Step(kind, "linear", (v,), chain[-1].outputs, equations, call, all(s.closed for s in chain))
    if kind == "pool":
        return Layer(kind, step, product, tuple(suffix), None, 0)
    operands = product.equations[0].invars
    value = 0 if operands[0] is v else 1
    return Layer(kind, step, product, tuple(suffix), graph.read(operands[1 - value], {}), value)


def _scales(step: Step) -> bool:
    """Whether a step multiplies each element by a constant, and adds one."""
    return (
        step.kind == "linear"
        and len(step.inputs) == 1
        and step.inputs[0].aval.shape == step.outputs[0].aval.shape
        and all(eqn.primitive.name in SCALINGS for eqn in step.equations)
    )


def _moves(step: Step) -> bool:
    """Whether a step only moves, repeats or drops elements."""
    return step.kind == "linear" and step.name in MOVES and len(step.inputs) == 1 == len(step.outputs)


def _scale(step: Step, like: jax.Array) -> jax.Array:
    return linear_part(step, jnp.ones_like(like))


def linear_part(step: Step, value: jax.Array) -> jax.Array:
    """The linear part of an affine step of one value."""
    part: jax.Array = jax.jvp(step.call, (jnp.zeros_like(value),), (value,))[1][0]
    return part


def input_layers(graph: Graph, layers: Layers) -> set[Any]:
    """The outputs of the layers that read the input through affine operations alone, and no other layer."""
    direct, reached = set(graph.inputs), set()
    for step in graph.steps:
        if not direct.issuperset(step.inputs):
            continue
        layer = layers.get(step.outputs[0])
        if layer is not None and layer.kind != "pool":
            reached.add(step.outputs[0])
        elif step.kind == "linear" and (len(step.inputs) == 1 or step.name in JOINS):
            direct.update(step.outputs)
    return reached


def bounds(graph: Graph, reached: set[Any], low: Sequence[Any], high: Sequence[Any]) -> tuple[Run, Run]:
    """The bounds of each value that an input layer reads, from those of the input."""
    lows, highs = dict(zip(graph.inputs, low, strict=True)), dict(zip(graph.inputs, high, strict=True))
    for step in graph.steps:
        if step.outputs[0] in reached or not all(v in lows for v in step.inputs) or step.kind != "linear":
            continue
        one, other = (step.call(*(ends[v] for v in step.inputs)) for ends in (lows, highs))
        lows.update(zip(step.outputs, map(jnp.minimum, one, other), strict=True))
        highs.update(zip(step.outputs, map(jnp.maximum, one, other), strict=True))
    return lows, highs
