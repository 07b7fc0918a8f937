"""The layers of LRP: a product with weights, a sum or a normalization, and the affine operations after it.

A convolution, its bias and the batch normalization after it are one affine map `A a + b`. The rules need
this map with the positive and the negative part of its weights separated, with their squares, or with ones
for them. Those are computed by following the map's own operations, so that a negative scale of a batch
normalization turns positive weights into negative ones.
"""

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._engine.graph import Graph, Run, Step
from jaxnn._engine.jaxpr import bind
from jaxnn._engine.primitives import (
    ADDITIONS,
    JOINS,
    MOVES,
    MULTIPLICATIONS,
    PRODUCTS,
    ROOTS,
    SCALINGS,
    SUMS,
    is_real,
)


class Layer(NamedTuple):
    """An affine map of one value, `A a + b`.

    Attributes:
        kind: "dense", "conv", "pool" for a sum, "complex" for linear operations on complex numbers,
            "normalization" for a product with a value that is held, or "scaling" for affine operations alone.
        step: the whole map; of a normalization, of the value and of what is held.
        product: the product with the weights, the sum, or the first operation.
        suffix: the affine operations after it.
        weights: the factor of the value, of dense and convolutional layers; or None.
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
            scale = change(_scale(step, value)) if _scales(step) else None
            value = linear_part(step, value) if scale is None else scale * value.astype(scale.dtype)
        return value

    def signed(self, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`(A+ a, A- a)`, with the positive and the negative elements of `A`."""
        positive = self._multiply(jnp.maximum(self.weights, 0), a)
        negative = self._multiply(jnp.minimum(self.weights, 0), a)
        for step in self.suffix:
            if _scales(step):
                scale = _scale(step, positive)
                positive, negative = positive.astype(scale.dtype), negative.astype(scale.dtype)
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


WEIGHTED = frozenset(PRODUCTS.values())
"""The kinds of layers that have weights."""


COMPLEX_MAP = "complex"
"""The name of a step, and the kind of a layer, of linear operations on complex numbers."""


def join_complex(graph: Graph) -> Graph:
    """Join linear operations on complex numbers to maps from real values to real ones."""
    steps = []
    for step in graph.steps:
        before = None if is_real(*step.inputs) or not is_real(*step.outputs) else _complex_before(graph, step)
        steps.append(step if before is None else _joined(before, COMPLEX_MAP))
    return dataclasses.replace(graph, steps=tuple(steps))


def _complex_before(graph: Graph, last: Step) -> list[Step] | None:
    """The steps that compute a real value from complex ones, and those from real ones; all are linear."""
    needed, found = set(last.outputs), []
    for step in reversed(graph.steps):
        if needed.isdisjoint(step.outputs) or (step is not last and is_real(*step.outputs)):
            continue
        if step.kind != "linear":
            return None
        found.append(step)
        needed.update(step.inputs)
    return found[::-1]


def _joined(steps: Sequence[Step], kind: str) -> Step:
    """Several linear steps as one, of the values that none of them computes."""
    outputs = {v for step in steps for v in step.outputs}
    inputs = tuple(v for v in dict.fromkeys(v for step in steps for v in step.inputs) if v not in outputs)
    call = _call_of(steps, inputs)
    equations = tuple(eqn for step in steps for eqn in step.equations)
    return Step(kind, "linear", inputs, steps[-1].outputs, equations, call, all(s.closed for s in steps))


def _call_of(steps: Sequence[Step], inputs: Sequence[Any]) -> Callable[..., list[Any]]:
    def call(*values: Any) -> list[Any]:
        results = dict(zip(inputs, values, strict=True))
        for step in steps:
            results.update(zip(step.outputs, step.call(*(results[v] for v in step.inputs)), strict=True))
        return [results[v] for v in steps[-1].outputs]

    return call


def join_layers(graph: Graph, carried: Container[Any], units: Container[Any]) -> tuple[Graph, Layers]:
    """Join the steps of a function into layers: the function with one step per layer, and the layers.

    Args:
        graph: the function.
        carried: values that depend on the shift of a softmax; their scaling is no layer.
        units: of `input_units`; what makes them is no layer.
    """
    reader = {v: step for step in graph.steps for v in step.inputs}
    layers: dict[Any, Layer] = {}
    joined: dict[Any, Step | None] = {}  # the replacement of each step that is part of a layer
    for step in graph.steps:
        if step.outputs[0] in units:
            continue
        held = normalizer(graph, step)
        kind = _kind(step) if held is None else "normalization"
        if kind is None or step.outputs[0] in joined or (kind == "scaling" and step.inputs[0] in carried):
            continue
        chain = [step]
        while graph.uses[chain[-1].outputs[0]] == 1:
            after = reader.get(chain[-1].outputs[0])
            if after is None or not (_scales(after) or _moves(after)):
                break
            chain.append(after)
        if kind == "scaling" and not any(map(_adds, chain)):
            continue
        layer = _layer(graph, kind, chain, held)
        (output,) = layer.step.outputs
        layers[output] = layer
        joined |= {each.outputs[0]: None for each in chain} | {output: layer.step}
    steps = [joined.get(step.outputs[0], step) for step in graph.steps]
    return dataclasses.replace(graph, steps=tuple(step for step in steps if step is not None)), layers


def input_units(graph: Graph) -> frozenset[Any]:
    """The inputs, moved and in other units; in the body of a scan those of the function around it."""
    around = graph.around
    units = set(graph.inputs)
    if around is not None:
        units = {v for v, place in around.items() if place.is_unit}
    for step in graph.steps:
        if units.issuperset(step.inputs) and (_scales(step) or _moves(step)):
            units.update(step.outputs)
    return frozenset(units)


def _kind(step: Step) -> str | None:
    """The kind of layer that begins with a step."""
    if step.kind != "linear" or len(step.inputs) != 1:
        return None
    if step.name == COMPLEX_MAP:
        return COMPLEX_MAP
    return "pool" if step.name in SUMS else PRODUCTS.get(step.name, "scaling" if _scales(step) else None)


def _layer(graph: Graph, kind: str, chain: Sequence[Step], held: Any) -> Layer:
    product, *suffix = chain
    before: tuple[Step, ...] = ()
    if held is None:
        (v,) = inputs = product.inputs
    else:
        (centered,) = (v for v in product.inputs if v is not held)
        v, before = _uncentered(graph, centered)
        inputs = (v, held)
    steps = (*before, *chain)
    call = _call_of(steps, inputs)
    equations = tuple(eqn for step in steps for eqn in step.equations)
    step = Step(kind, "linear", inputs, chain[-1].outputs, equations, call, all(s.closed for s in steps))
    if kind not in WEIGHTED:
        return Layer(kind, step, product, tuple(suffix), None, 0)
    operands = product.equations[0].invars
    value = 0 if operands[0] is v else 1
    return Layer(kind, step, product, tuple(suffix), graph.read(operands[1 - value], {}), value)


def normalizer(graph: Graph, step: Step) -> Any:
    """The factor or divisor that a product or a quotient normalizes by, or None if it does not."""
    if step.name not in MULTIPLICATIONS or len(step.inputs) != 2 or len(step.equations) != 1:
        return None
    candidates = step.inputs if step.name == "mul" else (step.equations[0].invars[1],)
    norms = [v for v in candidates if _is_norm(graph, v)]
    return norms[0] if len(norms) == 1 else None


def _is_norm(graph: Graph, v: Any) -> bool:
    """Whether a value is the root of a sum, or its reciprocal, such as a norm or a standard deviation."""
    rooted = False
    for step in graph.chain(v, beyond=True):
        rooted = rooted or any(_is_root(eqn) for eqn in step.equations)
        if step.name == "reduce_sum" or len(step.inputs) != 1:
            return rooted and (step.name == "reduce_sum" or step.name in ADDITIONS)  # E x^2 - (E x)^2
    return False


def _is_root(eqn: core.JaxprEqn) -> bool:
    exponent = eqn.invars[-1]
    halved = isinstance(exponent, core.Literal) and exponent.val in (0.5, -0.5)
    return eqn.primitive.name in ROOTS or (eqn.primitive.name == "pow" and halved)


def _uncentered(graph: Graph, v: Any) -> tuple[Any, tuple[Step, ...]]:
    """The value that another is the difference of, from its mean, and the steps between; or that value."""
    step = graph.made_by.get(v)
    if step is None or step.name not in ADDITIONS or len(step.inputs) != 2:
        return v, ()
    one, other = (_linear_chain(graph, v) for v in step.inputs)
    common = next((v for v in one if v in other), None)
    if common is None:
        return v, ()
    between = {v, *one[: one.index(common)], *other[: other.index(common)]}
    return common, tuple(each for each in graph.steps if not between.isdisjoint(each.outputs))


def _linear_chain(graph: Graph, v: Any) -> list[Any]:
    """A value, and those that it is computed from one after the other by affine steps of one input."""
    chain = [v]
    for step in graph.chain(v):
        if step.kind != "linear" or len(step.inputs) != 1:
            break
        chain.append(step.inputs[0])
    return chain


def _adds(step: Step) -> bool:
    return any(eqn.primitive.name in ADDITIONS for eqn in step.equations)


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
        if not direct.issuperset(step.inputs) or step.name == COMPLEX_MAP:  # its bounds are not known
            continue
        layer = layers.get(step.outputs[0])
        if layer is not None and layer.kind in WEIGHTED:
            reached.add(step.outputs[0])
        elif step.kind == "linear" and (len(step.inputs) == 1 or step.name in JOINS):
            direct.update(step.outputs)
    return reached


def bounds(graph: Graph, reached: set[Any], low: Sequence[Any], high: Sequence[Any]) -> tuple[Run, Run]:
    """The bounds of each value that an input layer reads, from those of the input."""
    lows, highs = dict(zip(graph.inputs, low, strict=True)), dict(zip(graph.inputs, high, strict=True))
    for step in graph.steps:
        known = all(v in lows for v in step.inputs) and is_real(*step.outputs)
        if step.outputs[0] in reached or not known or step.kind != "linear":
            continue
        one, other = (step.call(*(ends[v] for v in step.inputs)) for ends in (lows, highs))
        lows.update(zip(step.outputs, map(jnp.minimum, one, other), strict=True))
        highs.update(zip(step.outputs, map(jnp.maximum, one, other), strict=True))
    return lows, highs
