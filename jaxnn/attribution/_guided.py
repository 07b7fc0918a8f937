"""Guided backpropagation and the deconvolutional network: the gradient with another rule at each ReLU."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxnn._engine.backward import Plan, backward, gradient, refuse
from jaxnn._engine.graph import Around, Run, Step, graph
from jaxnn._engine.held import zeros_for_held
from jaxnn._engine.primitives import COMBINERS, CUSTOM, inner_jaxprs
from jaxnn._engine.relu import is_clamped_variance, is_relu, relu_factor
from jaxnn._model import differentiable, nan_as, prepare
from jaxnn._typing import Model, PyTree, Target


def guided_backprop(model: Model, x: PyTree, target: Target = None) -> PyTree:
    """Guided backpropagation: the gradient with negative values zeroed at every ReLU.

    Backwards through `max(z, 0)`, a gradient `g` becomes `g * 1[z > 0] * 1[g > 0]`; everything else
    has its own derivative. A ReLU is an elementwise function of one value that returns positive values
    unchanged, and 0 for all others, in any spelling (`jax.nn.relu`, `jnp.maximum(z, 0)`,
    `jnp.where(z > 0, z, 0)`). The function must be a ReLU as a whole: there is none in `z + relu(z)`, in
    `-min(-z, 0)`, a function of `-z`, or in the maximum of a stack of `z` and zeros. No other activation is
    treated, so without a ReLU this is `saliency`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such element, or `target` is None and it has more than one.
        NotImplementedError: a ReLU is in a primitive that cannot be traced into, or the input decides
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
    return zeros_for_held(_with_relus(*prepare(model, x, target, holds=True), name="guided_backprop"))


def deconvnet(model: Model, x: PyTree, target: Target = None) -> PyTree:
    """Deconvolutional network: the gradient with a ReLU applied to it at every ReLU.

    Backwards through `max(z, 0)`, a gradient `g` becomes `g * 1[g > 0]`, for any `z`;
    everything else has its own derivative. `guided_backprop` defines which functions are a ReLU.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such element, or `target` is None and it has more than one.
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
    return zeros_for_held(_with_relus(*prepare(model, x, target, holds=True), name="deconvnet"))


@jax.jit(static_argnames=("name",))
def _with_relus(model: Model, x: PyTree, target: Target, *, name: str) -> PyTree:
    leaves, structure = jax.tree.flatten(x)
    plan = _plan(name, differentiable(model, target, x), x)
    (run,) = plan.evaluate(leaves)
    (output,) = plan.graph.results(run)
    return nan_as(output, jax.tree.unflatten(structure, backward(plan, [jnp.ones_like(output)], run)))


def _plan(
    name: str, function: Callable[..., Any], *args: Any, around: Sequence[Around | None] | None = None
) -> Plan:
    steps = graph(function, *args, keep_custom=True, keep_long=lambda _: True, around=around)

    def rule(step: Step, cotangents: Sequence[jax.Array], run: Run) -> Sequence[Any]:
        factor = relu_factor(step)
        if factor is not None and not is_clamped_variance(steps, step):
            (g,), z = cotangents, run[step.inputs[0]]
            passes = (g > 0) & (z > 0) if name == "guided_backprop" else g > 0
            return [jnp.where(passes, factor * g, 0)]
        for eqn in step.equations if step.kind == "other" else ():
            if _is_opaque(eqn, not isinstance(eqn.invars[0], core.Literal) and eqn.invars[0] in run):
                raise refuse(name, step, "it may contain a ReLU that cannot be traced into")
        return gradient(step, cotangents, run)

    return Plan(steps, rule, lambda inputs: [steps.run(*inputs)], functools.partial(_plan, name))


def _is_opaque(eqn: core.JaxprEqn, moving: bool) -> bool:
    """Whether an equation contains a ReLU, or may; `moving` if its first operand depends on the input."""
    kind, inner = eqn.primitive.name, list(inner_jaxprs(eqn))
    if kind in CUSTOM or (kind == "cond" and not moving):
        return any(_contains_relu(core.ClosedJaxpr(each.jaxpr, each.consts)) for each in inner)
    return kind not in COMBINERS and len(inner) > 0


def _contains_relu(closed: core.ClosedJaxpr) -> bool:
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    inside = graph(core.jaxpr_as_fun(closed), *shapes, keep_custom=True)
    return any(is_relu(step) or any(_is_opaque(eqn, True) for eqn in step.equations) for step in inside.steps)
