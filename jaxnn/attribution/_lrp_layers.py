"""What LRP takes for a layer: a product with weights and all that is affine after it, as one step.

A convolution, its bias and the batch normalization after it are one affine map `A a + b`. The rules ask for
it with the positive and the negative part of its weights apart, with their squares, or with ones for
them. Those are found by following the map's own operations, so that a negative scale of a batch
normalization turns positive weights into negative ones.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._engine.graph import Graph, Run, Step
from jaxnn._engine.jaxpr import bind

KINDS = {"dot_general": "dense", "conv_general_dilated": "conv"}
_SUMS = ("reduce_sum", "reduce_window_sum", "cumsum")
_ENTRYWISE = {"add", "sub", "mul", "div", "neg", "name", "copy", "convert_element_type", "reduce_precision"}
_MOVES = {"reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev", "slice", "split"}


class Layer(NamedTuple):
    """An affine map of one value, `A a + b`.

    Attributes:
        kind: "dense", "conv", or "pool" for a sum.
        step: the whole of it.
        first: the product with the weights, or the sum.
        rest: what is affine after it.
        weights: what the value is multiplied by; None for a sum.
        value: which operand of the product the value is.
    """

    kind: str
    step: Step
    first: Step
    rest: tuple[Step, ...]
    weights: Any
    value: int

    def apply(self, a: Any) -> Any:
        """`A a + b`."""
        return self.step.call(a)[0]

    def bias(self, a: Any) -> Any:
        """`b`, whatever `a` is: only its type counts."""
        b = jnp.zeros_like(self.first.call(a)[0])
        for step in self.rest:
            (b,) = step.call(b)
        return b

    def linear(self, change: Callable[[Any], Any], a: Any) -> Any:
        """`A' a`, each weight `w` and each scale of `A` having become `change(w)`."""
        value = self._product(change(self.weights), a)
        for step in self.rest:
            value = change(_scale(step, value)) * value if _scales(step) else _moved(step, value)
        return value

    def signed(self, a: Any) -> tuple[Any, Any]:
        """`(A+ a, A- a)`, the positive and the negative entries of `A` apart."""
        positive = self._product(jnp.maximum(self.weights, 0), a)
        negative = self._product(jnp.minimum(self.weights, 0), a)
        for step in self.rest:
            if _scales(step):
                scale = _scale(step, positive)
                up, down = jnp.maximum(scale, 0), jnp.minimum(scale, 0)
                positive, negative = up * positive + down * negative, up * negative + down * positive
            else:
                positive, negative = _moved(step, positive), _moved(step, negative)
        return positive, negative

    def _product(self, weights: Any, a: Any) -> Any:
        operands = (a, weights) if self.value == 0 else (weights, a)
        return bind(self.first.equations[0], operands)[0]


def layers(line: Graph) -> tuple[Graph, dict[Any, Layer]]:
    """Join the steps of a function into layers.

    Returns:
        `(line, found)`: the function, each layer being one step, and the layers by what they make.
    """
    uses = line.uses()
    reader = {v: step for step in line.steps for v in step.inputs}
    found: dict[Any, Layer] = {}
    joined: dict[Any, Step | None] = {}  # what stands in the place of a step that is part of a layer
    for step in line.steps:
        kind = "pool" if step.name in _SUMS else KINDS.get(step.name)
        if kind is None or step.kind != "linear" or len(step.inputs) != 1:
            continue
        chain = [step]
        while uses[chain[-1].outputs[0]] == 1:
            after = reader.get(chain[-1].outputs[0])
            if after is None or not (_scales(after) or _moves(after)):
                break
            chain.append(after)
        layer = _layer(line, kind, chain)
        (made,) = layer.step.outputs
        found[made] = layer
        joined |= {each.outputs[0]: None for each in chain} | {made: layer.step}
    steps = [joined.get(step.outputs[0], step) for step in line.steps]
    return line._replace(steps=tuple(step for step in steps if step is not None)), found


def _layer(line: Graph, kind: str, chain: Sequence[Step]) -> Layer:
    def call(a: Any) -> list[Any]:
        for step in chain:
            (a,) = step.call(a)
        return [a]

    first, last = chain[0], chain[-1]
    equations = tuple(eqn for step in chain for eqn in step.equations)
    whole = Step(kind, "linear", first.inputs, last.outputs, equations, call, all(s.closed for s in chain))
    if kind == "pool":
        return Layer(kind, whole, first, tuple(chain[1:]), None, 0)
    operands = first.equations[0].invars
    value = 0 if operands[0] is first.inputs[0] else 1
    return Layer(kind, whole, first, tuple(chain[1:]), line.read(operands[1 - value], {}), value)


def _scales(step: Step) -> bool:
    """Whether a step multiplies each entry by a constant, and adds one."""
    return (
        step.kind == "linear"
        and len(step.inputs) == 1
        and step.inputs[0].aval.shape == step.outputs[0].aval.shape
        and all(eqn.primitive.name in _ENTRYWISE for eqn in step.equations)
    )


def _moves(step: Step) -> bool:
    """Whether a step only puts entries elsewhere."""
    return step.kind == "linear" and step.name in _MOVES and len(step.inputs) == 1 == len(step.outputs)


def _scale(step: Step, like: Any) -> Any:
    return _moved(step, jnp.ones_like(like))


def _moved(step: Step, value: Any) -> Any:
    """The linear part of an affine step."""
    return jax.jvp(step.call, (jnp.zeros_like(value),), (value,))[1][0]


def entrances(line: Graph, found: dict[Any, Layer]) -> set[Any]:
    """What is made by the layers that read the input through no other, and nothing that is not affine."""
    direct, reached = set(line.inputs), set()
    for step in line.steps:
        if not all(v in direct for v in step.inputs):
            continue
        layer = found.get(step.outputs[0])
        if layer is not None and layer.kind != "pool":
            reached.add(step.outputs[0])
        elif step.kind == "linear" and (len(step.inputs) == 1 or step.name in ("concatenate", "stack")):
            direct.update(step.outputs)
    return reached


def bounds(line: Graph, entered: set[Any], low: Sequence[Any], high: Sequence[Any]) -> tuple[Run, Run]:
    """The least and the largest of what each layer at the entrance may read, from those of the input."""
    lows, highs = dict(zip(line.inputs, low, strict=True)), dict(zip(line.inputs, high, strict=True))
    for step in line.steps:
        if step.outputs[0] in entered or not all(v in lows for v in step.inputs) or step.kind != "linear":
            continue
        one, other = (step.call(*(each[v] for v in step.inputs)) for each in (lows, highs))
        lows.update(zip(step.outputs, map(jnp.minimum, one, other), strict=True))
        highs.update(zip(step.outputs, map(jnp.maximum, one, other), strict=True))
    return lows, highs
