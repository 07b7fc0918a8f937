"""Attribution to a named intermediate along a path from a baseline to the example."""

import jax
import numpy as np

from jaxnn._model import broadcast_like
from jaxnn._typing import Layer, Model, PyTree, Quadrature, Target
from jaxnn.attribution._accumulate import weighted_sum
from jaxnn.attribution._layer import LayerModel, prepare_layer
from jaxnn.attribution._path import QuadratureRule, between, check_steps, integrate, nodes


def layer_integrated_gradients(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    layer: Layer,
    baseline: PyTree = 0.0,
    steps: int = 50,
    quadrature: Quadrature = "gauss_legendre",
    batch_size: int | None = None,
) -> jax.Array:
    """Layer integrated gradients along the straight path between a layer's values at the baseline and at `x`.

    `a = (h(x) - h(x0)) * sum_k w_k df/dh at h(x0) + t_k (h(x) - h(x0))`. The path is straight at the layer.
    Values that reach the output without passing through the layer stay as at `x`. If there are none, the
    attributions sum to `f(x) - f(x0)` in the limit of many steps.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those in `jaxnn.capture`; see `layer_activation`.
        baseline: an input: of the structure and shapes of `x`, or one number for all.
        steps: number of nodes of the quadrature rule.
        quadrature: as in `integrated_gradients`.
        batch_size: steps at a time; memory grows with it, and not with `steps`. None: as in
            `integrated_gradients`.

    Returns:
        Of the layer's shape, in units of the output.

    Raises:
        TypeError: as `integrated_gradients` raises.
        ValueError: the model has no intermediate of that name; the error lists the names. Or as
            `integrated_gradients` raises.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network, x = jaxnn.init(jax.random.key(0), (784, 30, 10)), [0.5] * 784
        >>> values = attribution.layer_integrated_gradients(network, x, 3, layer="hidden_0")
        >>> abs(float(attribution.completeness_gap(network, x, 3, values))) < 1e-5
        True
    """
    rule = check_steps(steps, quadrature, batch_size)
    return _layer_integrated_gradients(*_prepare(model, x, target, layer, baseline, holds=False), rule)


@jax.jit(static_argnames=("rule",))
def _layer_integrated_gradients(
    cut: LayerModel, x: PyTree, target: Target, baseline: PyTree, rule: QuadratureRule
) -> jax.Array:
    return integrate(cut.rest(x, target), cut(x), cut(baseline), rule)[0]


def layer_conductance(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    layer: Layer,
    baseline: PyTree = 0.0,
    steps: int = 50,
    quadrature: Quadrature = "gauss_legendre",
    batch_size: int | None = None,
) -> jax.Array:
    """Layer conductance: the part of integrated gradients that flows through each unit of a layer.

    `a = sum_k df/dh(x_k) * (h(x_{k+1}) - h(x_k))`, along the straight path of inputs, where the `x_k` are at
    the `steps + 1` nodes of the quadrature rule. In the limit of many steps the attributions sum to
    `f(x) - f(x0)`, if the output depends on the input through the layer only.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those in `jaxnn.capture`; see `layer_activation`.
        baseline: of the structure and shapes of `x`, or one number for all.
        steps: number of steps between nodes.
        quadrature: whose nodes, as in `integrated_gradients`.
        batch_size: steps at a time; memory grows with it, and not with `steps`. None: as in
            `integrated_gradients`.

    Returns:
        Of the layer's shape, in units of the output.

    Raises:
        TypeError: as `integrated_gradients` raises.
        ValueError: the model has no intermediate of that name; the error lists the names. Or as
            `integrated_gradients` raises.

    References:
        Dhamdhere, Sundararajan and Yan, "How important is a neuron?", 2018, arXiv:1805.12233.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.layer_conductance(network, [0.5] * 784, 3, layer="hidden_0").shape
        (30,)
    """
    rule = check_steps(steps, quadrature, batch_size)
    return _layer_conductance(*_prepare(model, x, target, layer, baseline, holds=True), rule)


@jax.jit(static_argnames=("rule",))
def _layer_conductance(
    cut: LayerModel, x: PyTree, target: Target, baseline: PyTree, rule: QuadratureRule
) -> jax.Array:
    positions, _ = nodes(rule.name, rule.steps + 1)

    def conductance(ends: PyTree) -> jax.Array:
        here, there = (between(baseline, x, position) for position in ends)
        value, gradient = cut.value_and_gradient(here, target)
        return gradient * (cut(there) - value)

    total = weighted_sum(conductance, (positions[:-1], positions[1:]), np.ones(rule.steps), rule.batch_size)
    return total.astype(jax.eval_shape(cut, x).dtype)


def internal_influence(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    layer: Layer,
    baseline: PyTree = 0.0,
    steps: int = 50,
    quadrature: Quadrature = "gauss_legendre",
    batch_size: int | None = None,
) -> jax.Array:
    """Internal influence: the mean gradient with respect to each unit of a layer along a path of inputs.

    `a = sum_k w_k df/dh(x0 + t_k (x - x0))`: the mean gradient of integrated gradients, at a layer, and not
    multiplied by a difference.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those in `jaxnn.capture`; see `layer_activation`.
        baseline: of the structure and shapes of `x`, or one number for all.
        steps: number of nodes of the quadrature rule.
        quadrature: as in `integrated_gradients`.
        batch_size: steps at a time; memory grows with it, and not with `steps`. None: as in
            `integrated_gradients`.

    Returns:
        Of the layer's shape, in units of the output per unit of the layer.

    Raises:
        TypeError: as `integrated_gradients` raises.
        ValueError: the model has no intermediate of that name; the error lists the names. Or as
            `integrated_gradients` raises.

    References:
        Leino, Sen, Datta, Fredrikson and Li, "Influence-directed explanations for deep convolutional
        networks", 2018, arXiv:1802.03788.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network = jaxnn.init(jax.random.key(0), (784, 30, 10))
        >>> attribution.internal_influence(network, [0.5] * 784, 3, layer="hidden_0").shape
        (30,)
    """
    rule = check_steps(steps, quadrature, batch_size)
    return _internal_influence(*_prepare(model, x, target, layer, baseline, holds=True), rule)


@jax.jit(static_argnames=("rule",))
def _internal_influence(
    cut: LayerModel, x: PyTree, target: Target, baseline: PyTree, rule: QuadratureRule
) -> jax.Array:
    mean = rule.mean(lambda position: cut.value_and_gradient(between(baseline, x, position), target)[1])
    return mean.astype(jax.eval_shape(cut, x).dtype)


def _prepare(
    model: Model, x: PyTree, target: Target, layer: Layer, baseline: PyTree, *, holds: bool
) -> tuple[LayerModel, PyTree, Target, PyTree]:
    cut, x, target = prepare_layer(model, x, target, layer, holds=holds)
    return cut, x, target, broadcast_like("baseline", baseline, x)
