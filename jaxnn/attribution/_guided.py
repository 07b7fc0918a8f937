"""Guided backpropagation and the deconvolutional network: the gradient with another rule at each relu."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._engine.graph import Run, Step, backward, gradient, graph, refuse
from jaxnn._engine.primitives import CUSTOM
from jaxnn._engine.relu import is_clamped_variance, is_relu, relu_factor
from jaxnn._model import prepare, scalar

Model = Callable[..., Any]
Target = Any

# Primitives that hold other operations, but none that makes a new value of one.
_OF_TWO = {
    "reduce", "reduce_window", "scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min",
    "scatter-max",
}  # fmt: skip


def guided_backprop(model: Model, x: Any, target: Target = None) -> Any:
    """The gradient, with only what raises the answer let through each relu.

    Backwards through `max(z, 0)`, a gradient `g` becomes `g * 1[z > 0] * 1[g > 0]`; everything else
    has its own derivative. A relu is an elementwise function of one value that gives back what is
    positive, and 0 for the rest, however it is written (`jax.nn.relu`, `jnp.maximum(z, 0)`,
    `jnp.where(z > 0, z, 0)`). Such a function counts as a whole: no relu is seen in `z + relu(z)`, in
    `-min(-z, 0)`, a function of `-z`, or in the largest of a stack of `z` and zeros. No other activation is
    treated, so without a relu this is `saliency`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such entry, or `target` is None and it has more than one.
        NotImplementedError: a relu stands in a primitive that cannot be entered, or the input decides
            which branch of a `lax.cond` is taken.

    References:
        Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity", 2014, arXiv:1412.6806.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> model = lambda x: 3 * jax.nn.relu(x[0]) - 2 * jax.nn.relu(x[1])
        >>> attribution.guided_backprop(model, [1.0, 1.0]).tolist()
        [3.0, 0.0]
    """
    return _with_relus(*prepare(model, x, target), name="guided_backprop")


def deconvnet(model: Model, x: Any, target: Target = None) -> Any:
    """The gradient, with a relu applied to it at each relu.

    Backwards through `max(z, 0)`, a gradient `g` becomes `g * 1[g > 0]`, whatever `z` was;
    everything else has its own derivative. What is a relu is said at `guided_backprop`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such entry, or `target` is None and it has more than one.
        NotImplementedError: as for `guided_backprop`.

    References:
        Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2013, arXiv:1311.2901.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> model = lambda x: 3 * jax.nn.relu(x[0]) - 2 * jax.nn.relu(x[1])
        >>> attribution.deconvnet(model, [-1.0, 1.0]).tolist()
        [3.0, 0.0]
    """
    return _with_relus(*prepare(model, x, target), name="deconvnet")


@jax.jit(static_argnames=("name",))
def _with_relus(model: Any, x: Any, target: Any, *, name: str) -> Any:
    line = graph(scalar(model, target), x, keep_custom=True)

    def rule(step: Step, cotangents: Any, run: Run) -> Any:
        factor = relu_factor(step)
        if factor is not None and not is_clamped_variance(line, step):
            (g,), z = cotangents, run[step.inputs[0]]
            passes = (g > 0) & (z > 0) if name == "guided_backprop" else g > 0
            return [jnp.where(passes, factor * g, 0)]
        for eqn in step.equations if step.kind == "other" else ():
            if _is_opaque(eqn, [not isinstance(v, core.Literal) and v in run for v in eqn.invars]):
                raise refuse(name, step, "it may hold a relu that cannot be reached")
        return gradient(step, cotangents, run)

    leaves, structure = jax.tree.flatten(x)
    run = line.run(*leaves)
    cotangents = [jnp.ones_like(y) for y in line.results(run)]
    return jax.tree.unflatten(structure, backward(line, rule, cotangents, run))


def _is_opaque(eqn: core.JaxprEqn, moving: list[bool]) -> bool:
    """Whether an equation holds a relu, or what cannot be known to hold none."""
    kind, params = eqn.primitive.name, eqn.params
    if kind in CUSTOM:
        return _holds_relu(params["call_jaxpr"])
    if kind == "cond":
        return moving[0] or any(map(_holds_relu, params["branches"]))
    held = [p for value in params.values() for p in (value if isinstance(value, tuple) else (value,))]
    return kind not in _OF_TWO and any(isinstance(each, core.Jaxpr | core.ClosedJaxpr) for each in held)


def _holds_relu(closed: core.ClosedJaxpr) -> bool:
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    inside = graph(core.jaxpr_as_fun(closed), *shapes, keep_custom=True)
    return any(
        is_relu(step) or any(_is_opaque(eqn, [True]) for eqn in step.equations) for step in inside.steps
    )
