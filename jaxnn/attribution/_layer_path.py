"""Attribution to a named intermediate along a path from a baseline to the example."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxnn._model import broadcast_like
from jaxnn.attribution._accumulate import weighted_sum
from jaxnn.attribution._layer import LayerOf, after, prepare_layer, value_and_slope
from jaxnn.attribution._path import between, check_steps, integrate, nodes

Model = Callable[..., Any]
Target = Any  # an output index, a tuple of them, None, or a function from the output to a scalar


def layer_integrated_gradients(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    layer: str,
    baseline: Any = 0.0,
    steps: int = 50,
    quadrature: str = "gauss_legendre",
    batch_size: int = 10,
) -> jax.Array:
    """Integrated gradients of what follows a layer, from its value at the baseline to that at the example.

    `a = (h(x) - h(x0)) * sum_k w_k df/dh at h(x0) + t_k (h(x) - h(x0))`. The path is straight at the layer.
    Whatever reaches the output by another way stays as it is at `x`. Without such a way, the attributions
    sum to `f(x) - f(x0)` in the limit of many steps.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those that `jaxnn.capture` gives.
        baseline: an input: of the structure and shapes of `x`, or one number for all.
        steps: nodes of the quadrature.
        quadrature: as in `integrated_gradients`.
        batch_size: steps at a time; memory grows with it, and not with `steps`.

    Returns:
        Of the layer's shape, in units of the output.

    Raises:
        TypeError: as `integrated_gradients` raises.
        ValueError: the model has no such name; the error lists those that it has. Or as
            `integrated_gradients` raises.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution
        >>> network, x = jaxnn.init(jax.random.key(0), (784, 30, 10)), [0.5] * 784
        >>> found = attribution.layer_integrated_gradients(network, x, 3, layer="hidden_0")
        >>> abs(float(attribution.completeness_gap(network, x, 3, found))) < 1e-5
        True
    """
    sizes = check_steps(steps, quadrature, batch_size)
    model, x, target = prepare_layer(model, x, target, layer)
    return _layer_integrated_gradients(
        model, x, target, broadcast_like("baseline", baseline, x), layer=layer, **sizes
    )


@jax.jit(static_argnames=("layer", "steps", "quadrature", "batch_size"))
def _layer_integrated_gradients(
    model: Any,
    x: Any,
    target: Any,
    baseline: Any,
    *,
    layer: str,
    steps: int,
    quadrature: str,
    batch_size: int,
) -> jax.Array:
    cut_off = LayerOf(model, layer)
    start, end = cut_off(baseline), cut_off(x)
    return integrate(after(model, x, target, layer), end, start, steps, quadrature, batch_size)


def layer_conductance(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    layer: str,
    baseline: Any = 0.0,
    steps: int = 50,
    quadrature: str = "gauss_legendre",
    batch_size: int = 10,
) -> jax.Array:
    """The part of integrated gradients that goes through each unit of a layer.

    `a = sum_k df/dh(x_k) * (h(x_{k+1}) - h(x_k))`, along the straight path of inputs, `x_k` being at the
    `steps + 1` nodes of the quadrature. In the limit of many steps the attributions sum to `f(x) - f(x0)`, if
    all of the output's way leads through the layer.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those that `jaxnn.capture` gives.
        baseline: of the structure and shapes of `x`, or one number for all.
        steps: how many steps between nodes.
        quadrature: whose nodes, as in `integrated_gradients`.
        batch_size: steps at a time; memory grows with it, and not with `steps`.

    Returns:
        Of the layer's shape, in units of the output.

    Raises:
        TypeError: as `integrated_gradients` raises.
        ValueError: the model has no such name; the error lists those that it has. Or as
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
    sizes = check_steps(steps, quadrature, batch_size)
    model, x, target = prepare_layer(model, x, target, layer)
    return _layer_conductance(model, x, target, broadcast_like("baseline", baseline, x), layer=layer, **sizes)


@jax.jit(static_argnames=("layer", "steps", "quadrature", "batch_size"))
def _layer_conductance(
    model: Any,
    x: Any,
    target: Any,
    baseline: Any,
    *,
    layer: str,
    steps: int,
    quadrature: str,
    batch_size: int,
) -> jax.Array:
    positions, _ = nodes(quadrature, steps + 1)

    def share(ends: Any) -> Any:
        here, there = (between(baseline, x, position) for position in ends)
        value, slope = value_and_slope(model, here, target, layer)
        return slope * (LayerOf(model, layer)(there) - value)

    total = weighted_sum(share, (positions[:-1], positions[1:]), np.ones(steps), batch_size)
    return total.astype(jax.eval_shape(LayerOf(model, layer), x).dtype)


def internal_influence(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    layer: str,
    baseline: Any = 0.0,
    steps: int = 50,
    quadrature: str = "gauss_legendre",
    batch_size: int = 10,
) -> jax.Array:
    """The mean slope of the answer in each unit of a layer, along a path of inputs.

    `a = sum_k w_k df/dh(x0 + t_k (x - x0))`: integrated gradients' mean of slopes, at a layer, and not
    multiplied by anything.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        layer: the intermediate's name, one of those that `jaxnn.capture` gives.
        baseline: of the structure and shapes of `x`, or one number for all.
        steps: nodes of the quadrature.
        quadrature: as in `integrated_gradients`.
        batch_size: steps at a time; memory grows with it, and not with `steps`.

    Returns:
        Of the layer's shape, in units of the output per unit of the layer.

    Raises:
        TypeError: as `integrated_gradients` raises.
        ValueError: the model has no such name; the error lists those that it has. Or as
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
    sizes = check_steps(steps, quadrature, batch_size)
    model, x, target = prepare_layer(model, x, target, layer)
    return _internal_influence(
        model, x, target, broadcast_like("baseline", baseline, x), layer=layer, **sizes
    )


@jax.jit(static_argnames=("layer", "steps", "quadrature", "batch_size"))
def _internal_influence(
    model: Any,
    x: Any,
    target: Any,
    baseline: Any,
    *,
    layer: str,
    steps: int,
    quadrature: str,
    batch_size: int,
) -> jax.Array:
    positions, weights = nodes(quadrature, steps)

    def slope(position: Any) -> jax.Array:
        return value_and_slope(model, between(baseline, x, position), target, layer)[1]

    mean = weighted_sum(slope, positions, weights, batch_size)
    return mean.astype(jax.eval_shape(LayerOf(model, layer), x).dtype)
