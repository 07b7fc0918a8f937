"""Back query: from an output of a network to an input that produces it."""

import math
from typing import get_args

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxnn import _checks
from jaxnn._activation import INVERTIBLE_NAMES, activation, rescale
from jaxnn._engine.loops import scan
from jaxnn._network import Dense, Network, check_network
from jaxnn._precision import wide_dtype
from jaxnn._sharding import automatic_axes
from jaxnn._typing import ActivationName, BackqueryMethod

Box = tuple[float, float]  # the lowest and the highest allowed value; infinite if unbounded
_Step = tuple[jax.Array, jax.Array, jax.Array]  # the current point, the extrapolated one, the momentum
# The input of each layer, the best input of the network so far, and its squared distance to the output.
_Sweep = tuple[tuple[jax.Array, ...], jax.Array, jax.Array]
_INSTEAD = {
    "relu": "'leaky_relu' is the nearest that has",
    "gelu": "'elu' or 'softplus' is near and has",
    "softmax": "train the logits (`output_activation='identity'`, `losses.cross_entropy`)",
}


def backquery(
    network: Network,
    y: Real[ArrayLike, "... n_out"],
    *,
    method: BackqueryMethod = "transpose",
    margin: float = 0.01,
    sweeps: int = 3,
    steps: int = 100,
) -> Float[Array, "... n_in"]:
    """Back query: propagate outputs back to inputs, layer by layer from the last to the first.

    In each layer the inverse activation gives the signal `s = activation^-1(a_out) - bias`. Then

    - `"transpose"` propagates it through the transposed weights, `a_in = rescale(kernel @ s)`. A transposed
      matrix is not an inverse, so the image shows which inputs the weights associate with the output, and the
      network need not recognize it: check with `query(network, backquery(network, y))`.
    - `"least_squares"` solves `a_in @ kernel = s` as closely as possible: it minimizes
      `|a_in @ kernel - s|^2` over the box of values that the layer below can produce, by accelerated
      projected gradient steps. They start from the activation of a zero signal (the middle of the box
      for the input and for sigmoid layers), which keeps the correction to that start small. One
      layer may request values that the layer below cannot produce, so the propagation is repeated in sweeps,
      each from the activations at the current input. The result is the sweep whose output is nearest to `y`.
      A traced `y` outside the range gives NaN.

    The box of a layer is the range of its activation without a fraction `margin` at each end, and
    `[margin, 1 - margin]` for the input. The transposed signal is rescaled into that box. Where the range
    has only a lower end it is shifted to start there, and where it is unbounded it is unchanged.

    Args:
        network: a `Network` whose activations all have an inverse (`jaxnn.activation`).
        y: `(..., n_out)`, the requested outputs, inside the open range of the output activation;
            `jaxnn.datasets.encode_labels` returns such targets.
        method: `"transpose"` or `"least_squares"`.
        margin: the least distance of a value from the ends of its range, as a fraction of it; at least the
            dtype's epsilon (1.2e-7 in float32) and below 0.5.
        sweeps: passes from the output to the input, for `"least_squares"`.
        steps: projected gradient steps per layer and sweep, for `"least_squares"`.

    Returns:
        `(..., n_in)` in `[margin, 1 - margin]`.

    Raises:
        ValueError: an activation without an inverse; a wrong shape; an unknown method; `margin` out of
            its range; or (for concrete values) `y` outside the activation's range.
        TypeError: `network` is not a `Network`, `y` does not hold real numbers, or an option is not a number.

    References:
        T. Rashid, *Make Your Own Neural Network*, 2016, part 3, for `"transpose"`. A. Beck, M. Teboulle,
        *A fast iterative shrinkage-thresholding algorithm*, 2009, with the restart of B. O'Donoghue,
        E. Candes, *Adaptive restart for accelerated gradient schemes*, 2015, for `"least_squares"`.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 200, 10))
        >>> five = jaxnn.datasets.encode_labels(5)
        >>> image = jaxnn.backquery(network, five, method="least_squares")
        >>> image.shape, int(jaxnn.query(network, image).argmax())
        ((784,), 5)
    """
    check_network(network)
    _check_invertible(network)
    _checks.check_option("method", method, get_args(BackqueryMethod))
    sweeps = _checks.check_integer("sweeps", sweeps, at_least=1)
    steps = _checks.check_integer("steps", steps, at_least=1)
    outputs = _checks.check_float_array("y", y, network.layers[-1].kernel.dtype)
    dtype = jnp.result_type(outputs, *jax.tree.leaves(network))
    least = float(jnp.finfo(dtype).eps)  # below it, values round to the ends of their range
    margin = _checks.check_real("margin", margin, at_least=least, below=0.5)
    _checks.check_last_axis("y", outputs, network.sizes[-1], "one element per output of the network")
    _check_in_range(outputs, network.layers[-1].activation)
    network, outputs = jax.tree.map(automatic_axes, (network, outputs))
    if method == "transpose":
        return _transpose(network, outputs, margin=margin)
    return _least_squares(network, outputs, margin=margin, sweeps=sweeps, steps=steps)


def _check_invertible(network: Network) -> None:
    for name, layer in zip(network.layer_names, network.layers, strict=True):
        if layer.activation not in INVERTIBLE_NAMES:
            raise ValueError(
                f"`network` has the activation {layer.activation!r} in its layer {name!r}, which has no "
                f"inverse; {_INSTEAD[layer.activation]}. Invertible are {', '.join(INVERTIBLE_NAMES)}"
            )


@jax.ensure_compile_time_eval()
def _check_in_range(y: Float[Array, "... n_out"], name: ActivationName) -> None:
    low, high = activation(name).low, activation(name).high
    if _checks.known_false(jnp.all((y > low) & (y < high))):
        raise ValueError(
            f"`y` must lie strictly between {low} and {high}, the range of the output activation {name!r}; "
            f"got values from {float(jnp.min(y))} to {float(jnp.max(y))}"
        )


@jax.jit(static_argnames=("margin",))
def _transpose(network: Network, y: Float[Array, "... n_out"], *, margin: float) -> Float[Array, "... n_in"]:
    def one(value: Float[Array, "n_out"]) -> Float[Array, "n_in"]:
        for layer, box in _backwards(network, _boxes(network, margin)):
            value = _into_box(layer.kernel @ _signal_of(layer, value), box)
        return value

    return jnp.vectorize(one, signature="(o)->(i)")(y)


@jax.jit(static_argnames=("margin", "sweeps", "steps"))
def _least_squares(
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
                signal = _signal_of(layer, value)
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
        possible = jnp.all(jnp.isfinite(_signal_of(network.layers[-1], output)))
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


def _signal_of(layer: Dense, output: jax.Array) -> jax.Array:
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
