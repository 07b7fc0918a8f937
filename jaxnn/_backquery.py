"""Ask a network backwards: from an answer to an input that it would have come from."""

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn._activation import INVERTIBLE_NAMES, activation, rescale
from jaxnn._engine.loops import vary_like
from jaxnn._network import Dense, Network, check_network
from jaxnn._sharding import automatic_axes

Box = tuple[float, float]  # the lowest and the highest value allowed; infinite where there is no end
_Step = tuple[jax.Array, jax.Array, jax.Array]  # where it is, where it looks ahead, the momentum
# What goes into each layer, the input nearest to the asked-for output so far, and its squared distance.
_Sweep = tuple[tuple[jax.Array, ...], jax.Array, jax.Array]
_METHODS = ("transpose", "least_squares")
_INSTEAD = {
    "relu": "'leaky_relu' is the nearest that has",
    "gelu": "'elu' or 'softplus' is near and has",
    "softmax": "train the logits (`output_activation='identity'`, `losses.cross_entropy`)",
}


def backquery(
    network: Network,
    y: ArrayLike,
    *,
    method: str = "transpose",
    margin: float = 0.01,
    sweeps: int = 3,
    steps: int = 100,
) -> jax.Array:
    """Ask a network backwards: from outputs to inputs, layer by layer from the last to the first.

    In each layer the inverse activation gives the signal `s = activation^-1(a_out) - bias`, and then

    - `"transpose"` sends it back through the transposed weights, `a_in = rescale(kernel @ s)`. A transposed
      matrix is not an inverse, so the picture shows what the weights associate with the answer, and the
      network need not recognise it: see what `query(network, backquery(network, y))` says.
    - `"least_squares"` finds `a_in` with `a_in @ kernel = s` as nearly as can be: it minimizes
      `|a_in @ kernel - s|^2` over the box of values that the layer below can produce, by accelerated
      projected gradient steps. They start from the activation of a zero signal (the middle of the box
      for the input and for sigmoid layers), which keeps the correction to that start small. What one
      layer asks of the one below may be out of its reach, so the whole is repeated in sweeps, each from
      the values that the network really has at the input found so far; the sweep whose answer comes
      nearest to `y` counts. A traced `y` outside the range gives NaN.

    The box of a layer is the range of its activation less a share `margin` at each end, and
    `[margin, 1 - margin]` for the input. The transposed signal is rescaled into that box; where the range
    has only a lower end it is shifted to start there, and where it has no ends it stays as it is.

    Args:
        network: a `Network` whose activations all have an inverse (`jaxnn.activation`).
        y: `(..., n_out)`, the outputs asked for, inside the open range of the output activation;
            `jaxnn.datasets.encode_labels` makes such targets.
        method: `"transpose"` or `"least_squares"`.
        margin: how far from the ends of its range a value stays, as a share of it; at least the dtype's
            epsilon (1.2e-7 in float32) and below 0.5.
        sweeps: passes from the output to the input, for `"least_squares"`.
        steps: projected gradient steps a layer and sweep, for `"least_squares"`.

    Returns:
        `(..., n_in)` in `[margin, 1 - margin]`.

    Raises:
        ValueError: an activation without an inverse; a wrong shape; an unknown method; `margin` out of
            its range; or (where its values are known, not traced) `y` outside the activation's range.
        TypeError: `network` is not a `Network`, `y` does not hold real numbers, or an option is not a number.

    References:
        T. Rashid, *Make Your Own Neural Network*, 2016, part 3, for `"transpose"`. A. Beck, M. Teboulle,
        *A fast iterative shrinkage-thresholding algorithm*, 2009, with the restart of B. O'Donoghue,
        E. Candes, *Adaptive restart for accelerated gradient schemes*, 2015, for `"least_squares"`.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 200, 10))
        >>> five = jaxnn.datasets.encode_labels(5)
        >>> picture = jaxnn.backquery(network, five, method="least_squares")
        >>> picture.shape, int(jaxnn.query(network, picture).argmax())
        ((784,), 5)
    """
    check_network(network)
    _check_invertible(network)
    _checks.check_option("method", method, _METHODS)
    sweeps = _checks.check_integer("sweeps", sweeps, at_least=1)
    steps = _checks.check_integer("steps", steps, at_least=1)
    margin = _checks.check_real("margin", margin)
    outputs = _checks.check_float_array("y", y, network.layers[-1].kernel.dtype)
    dtype = jnp.result_type(outputs, *jax.tree.leaves(network))
    least = float(jnp.finfo(dtype).eps)  # any nearer, and values round to the ends of their range
    if not least <= margin < 0.5:
        raise ValueError(f"`margin` must lie between {least:.2g}, for {dtype}, and 0.5; got {margin}")
    _checks.check_last_axis("y", outputs, network.sizes[-1], "one entry an output of the network")
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


def _check_in_range(y: jax.Array, name: str) -> None:
    low, high = activation(name).low, activation(name).high
    if _checks.known_false(jnp.all((y > low) & (y < high))):
        raise ValueError(
            f"`y` must lie strictly between {low} and {high}, the range of the output activation {name!r}; "
            f"got values from {float(jnp.min(y))} to {float(jnp.max(y))}"
        )


@jax.jit(static_argnames=("margin",))
def _transpose(network: Network, y: jax.Array, *, margin: float) -> jax.Array:
    def one(value: jax.Array) -> jax.Array:
        for layer, box in _backwards(network, _boxes(network, margin)):
            value = _into_box(layer.kernel @ _signal_of(layer, value), box)
        return value

    return jnp.vectorize(one, signature="(o)->(i)")(y)


@jax.jit(static_argnames=("margin", "sweeps", "steps"))
def _least_squares(network: Network, y: jax.Array, *, margin: float, sweeps: int, steps: int) -> jax.Array:
    dtype = jnp.result_type(y, *jax.tree.leaves(network))
    work = jnp.promote_types(dtype, jnp.float32)  # half precision would lose the small steps
    network = jax.tree.map(lambda leaf: leaf.astype(work), network)
    boxes = _boxes(network, margin)
    rates = [1 / _largest_curvature(layer.kernel) for layer in network.layers]

    def one(output: jax.Array) -> jax.Array:
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

        at_rest = [0.5, *(activation(layer.activation).at_zero for layer in network.layers[:-1])]
        first = tuple(jnp.full(n, v, work) for n, v in zip(network.sizes[:-1], at_rest, strict=True))
        carry = vary_like((first, first[0], jnp.array(jnp.inf, work)), (network, output))
        solution = lax.scan(sweep, carry, length=sweeps)[0][1]
        # Out of its range the output has no signal; the box would hide that.
        possible = jnp.all(jnp.isfinite(_signal_of(network.layers[-1], output)))
        return jnp.where(possible, solution, jnp.nan)

    return jnp.vectorize(one, signature="(o)->(i)")(y.astype(work)).astype(dtype)


def _backwards(network: Network, boxes: list[Box]) -> list[tuple[Dense, Box]]:
    """Each layer with the box of the values that go into it, the last layer first."""
    return list(zip(network.layers, boxes, strict=True))[::-1]


def _inputs_of_layers(network: Network, x: jax.Array) -> tuple[jax.Array, ...]:
    """What goes into each layer when the network is shown `x`; `x` itself is the first."""
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
    """The values that may go into each layer: those its inputs, or the layer below, can produce."""
    boxes = [(margin, 1 - margin)]
    for layer in network.layers[:-1]:
        low, high = activation(layer.activation).low, activation(layer.activation).high
        inset = margin * (high - low) if math.isfinite(high - low) else margin
        boxes.append((low + inset, high - inset))
    return boxes


def _into_box(value: jax.Array, box: Box) -> jax.Array:
    """Bring a vector into a box by the least change of its shape: scale, shift, or nothing."""
    low, high = box
    if math.isfinite(high):
        return rescale(value, low, high)
    if math.isfinite(low):
        return value - jnp.min(value) + low
    return value


def _bounded_least_squares(
    kernel: jax.Array, signal: jax.Array, box: Box, start: jax.Array, rate: jax.Array, steps: int
) -> jax.Array:
    """Minimize `|a @ kernel - signal|^2` over the box, from `start`."""

    def step(carry: _Step, _: None) -> tuple[_Step, None]:
        current, ahead, momentum = carry
        downhill = ahead - rate * (kernel @ (ahead @ kernel - signal))
        new = optax.projections.projection_box(downhill, *box)
        # Where the momentum points uphill it has overshot: start it again from nothing.
        overshot = jnp.vdot(ahead - new, new - current) > 0
        momentum = jnp.where(overshot, 1, momentum)
        grown = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return (new, new + (momentum - 1) / grown * (new - current), grown), None

    first = optax.projections.projection_box(start, *box)
    carry = (first, first, vary_like(jnp.ones((), first.dtype), first))
    (solution, _, _), _ = lax.scan(step, carry, length=steps)
    return solution


def _largest_curvature(kernel: jax.Array) -> jax.Array:
    """The largest eigenvalue of `kernel @ kernel.T`, by way of the smaller of the two products."""
    gram = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
    # The solution does not depend on the step's size, so no gradient goes through it.
    largest = jnp.linalg.eigvalsh(lax.stop_gradient(gram))[-1]
    return jnp.where(largest > 0, largest, 1)  # a kernel of zeros has no curvature, and needs none
