"""Layer by layer from the last to the first: by transposed weights, or by least squares."""

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from jaxnn import _checks
from jaxnn._activation import INVERTIBLE_NAMES, activation, rescale
from jaxnn._engine.loops import scan
from jaxnn._network import Dense, Network
from jaxnn._precision import wide_dtype
from jaxnn._typing import ActivationName

Box = tuple[float, float]  # the lowest and the highest allowed value; infinite if unbounded
_Step = tuple[jax.Array, jax.Array, jax.Array]  # the current point, the extrapolated one, the momentum
# The input of each layer, the best input of the network so far, and its squared distance to the output.
_Sweep = tuple[tuple[jax.Array, ...], jax.Array, jax.Array]
_INSTEAD = {
    "relu": "'leaky_relu' is the nearest that has",
    "gelu": "'elu' or 'softplus' is near and has",
    "softmax": "train the logits (`output_activation='identity'`, `losses.cross_entropy`)",
}


def check_invertible(network: Network) -> None:
    for name, layer in zip(network.layer_names, network.layers, strict=True):
        if layer.activation not in INVERTIBLE_NAMES:
            raise ValueError(
                f"`network` has the activation {layer.activation!r} in its layer {name!r}, which has no "
                f"inverse; {_INSTEAD[layer.activation]}. Invertible are {', '.join(INVERTIBLE_NAMES)}"
            )


@jax.ensure_compile_time_eval()
def check_in_range(y: Float[Array, "... n_out"], name: ActivationName) -> None:
    low, high = activation(name).low, activation(name).high
    if _checks.known_false(jnp.all((y > low) & (y < high))):
        raise ValueError(
            f"`y` must lie strictly between {low} and {high}, the range of the output activation {name!r}; "
            f"got values from {float(jnp.min(y))} to {float(jnp.max(y))}"
        )


@jax.jit(static_argnames=("margin",))
def transpose(network: Network, y: Float[Array, "... n_out"], *, margin: float) -> Float[Array, "... n_in"]:
    def one(value: Float[Array, "n_out"]) -> Float[Array, "n_in"]:
        for layer, box in _backwards(network, _boxes(network, margin)):
            value = _into_box(layer.kernel @ signal_of(layer, value), box)
        return value

    return jnp.vectorize(one, signature="(o)->(i)")(y)


@jax.jit(static_argnames=("margin", "sweeps", "steps"))
def least_squares(
    network: Network, y: Float[Array, "... n_out"], *, margin: float, sweeps: int, steps: int
) -> Float[Array, "... n_in"]:
    dtype = jnp.result_type(y, *jax.tree.leaves(network))
    work = wide_dtype(dtype)  # half precision would lose the small steps
    network = jax.tree.map(lambda leaf: leaf.astype(work), network)
    boxes = _boxes(network, margin)
    rates = [1 / _largest_curvature(layer.kernel) for layer in network.layers]

    def one(output: Float[Array, "n_out"]) -> Float[Array, "n_in"]:
        def sweep(carry: _Sweep, _: None) -> tuple[_Sweep, None]:
            inputs, nearest, distance = carry
            value = output
            for (layer, box), start, rate in zip(
                _backwards(network, boxes), inputs[::-1], rates[::-1], strict=True
            ):
                signal = signal_of(layer, value)
                value = _bounded_least_squares(layer.kernel, signal, box, start, rate, steps)
            inputs = _inputs_of_layers(network, value)
            reached = jnp.sum((network.layers[-1](inputs[-1]) - output) ** 2)
            nearest = jnp.where(reached < distance, value, nearest)
            return (inputs, nearest, jnp.minimum(reached, distance)), None

        initial = [0.5, *(activation(layer.activation).at_zero for layer in network.layers[:-1])]
        first = tuple(jnp.full(n, v, work) for n, v in zip(network.sizes[:-1], initial, strict=True))
        carry = (first, first[0], jnp.array(jnp.inf, work))
        solution = scan(sweep, carry, length=sweeps, hoist=False)[0][1]
        # An output out of range has no signal; the box would hide that.
        possible = jnp.all(jnp.isfinite(signal_of(network.layers[-1], output)))
        return jnp.where(possible, solution, jnp.nan)

    return jnp.vectorize(one, signature="(o)->(i)")(y.astype(work)).astype(dtype)


def _backwards(network: Network, boxes: list[Box]) -> list[tuple[Dense, Box]]:
    """Each layer with the box of its inputs, the last layer first."""
    return list(zip(network.layers, boxes, strict=True))[::-1]


def _inputs_of_layers(network: Network, x: jax.Array) -> tuple[jax.Array, ...]:
    """The input of each layer for the input `x` of the network; `x` itself is the first."""
    inputs = [x]
    for layer in network.layers[:-1]:
        inputs.append(layer(inputs[-1]))
    return tuple(inputs)


def signal_of(layer: Dense, output: jax.Array) -> jax.Array:
    inverse = activation(layer.activation).inverse
    assert inverse is not None, "checked before tracing"  # noqa: S101
    signal = inverse(output)
    return signal if layer.bias is None else signal - layer.bias


def _boxes(network: Network, margin: float) -> list[Box]:
    """The allowed inputs of each layer: those that the layer below can produce."""
    boxes = [(margin, 1 - margin)]
    for layer in network.layers[:-1]:
        low, high = activation(layer.activation).low, activation(layer.activation).high
        inset = margin * (high - low) if math.isfinite(high - low) else margin
        boxes.append((low + inset, high - inset))
    return boxes


def _into_box(value: jax.Array, box: Box) -> jax.Array:
    """Rescale a vector into a bounded box, shift it into a half-bounded one, or leave it unchanged."""
    low, high = box
    if math.isfinite(high):
        return rescale(value, low, high)
    if math.isfinite(low):
        return value - jnp.min(value) + low
    return value


def _bounded_least_squares(
    kernel: Float[Array, "n_in n_out"], signal: Float[Array, "n_out"], box: Box, start: Float[Array, "n_in"],
    rate: Float[Array, ""], steps: int,
) -> Float[Array, "n_in"]:  # fmt: skip
    """Minimize `|a @ kernel - signal|^2` over the box, from `start`."""

    def step(carry: _Step, _: None) -> tuple[_Step, None]:
        current, ahead, momentum = carry
        downhill = ahead - rate * (kernel @ (ahead @ kernel - signal))
        new = optax.projections.projection_box(downhill, *box)
        # Restart the momentum where it points uphill.
        overshot = jnp.vdot(ahead - new, new - current) > 0
        momentum = jnp.where(overshot, 1, momentum)
        next_momentum = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return (new, new + (momentum - 1) / next_momentum * (new - current), next_momentum), None

    first = optax.projections.projection_box(start, *box)
    carry = (first, first, jnp.ones((), first.dtype))
    (solution, _, _), _ = scan(step, carry, length=steps, hoist=False)
    return solution


def _largest_curvature(kernel: Float[Array, "n_in n_out"]) -> Float[Array, ""]:
    """The largest eigenvalue of `kernel @ kernel.T`, from the smaller of the two products."""
    gram = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
    # The solution does not depend on the step size, so it takes no gradient.
    largest = jnp.linalg.eigvalsh(lax.stop_gradient(gram))[-1]
    return jnp.where(largest > 0, largest, 1)  # any step size does for a kernel of zeros
