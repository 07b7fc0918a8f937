"""`backquery`, the public function: its checks, and the choice of the method."""

from typing import Any, Literal, get_args, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from jaxnn import _checks
from jaxnn._backquery._layerwise import check_in_range, check_invertible, least_squares, transpose
from jaxnn._backquery._pattern import pattern
from jaxnn._backquery._typical import TypicalInput, typical
from jaxnn._model import as_model, output_shape
from jaxnn._network import Network, check_network
from jaxnn._prior import Prior
from jaxnn._sharding import automatic_axes
from jaxnn._typing import BackqueryMethod, Model

Request = Real[ArrayLike, "... n_out"]


@overload
def backquery(
    network: Model,
    y: Request,
    *,
    method: Literal["transpose", "least_squares", "pattern"] = ...,
    prior: Prior | ArrayLike | None = ...,
    free: Bool[ArrayLike, "... n_out"] | None = ...,
    exact: bool = ...,
    margin: float = ...,
    sweeps: int = ...,
    steps: int = ...,
) -> Float[Array, "..."]: ...


@overload
def backquery(
    network: Model,
    y: Request,
    *,
    method: Literal["typical"],
    prior: Prior | ArrayLike | None = ...,
    free: Bool[ArrayLike, "... n_out"] | None = ...,
    exact: bool = ...,
    margin: float = ...,
    sweeps: int = ...,
    steps: int = ...,
) -> TypicalInput: ...


def backquery(
    network: Model,
    y: Request,
    *,
    method: BackqueryMethod = "transpose",
    prior: Prior | ArrayLike | None = None,
    free: Bool[ArrayLike, "... n_out"] | None = None,
    exact: bool = False,
    margin: float = 0.01,
    sweeps: int = 3,
    steps: int = 100,
) -> Any:
    """Back query: from outputs of a network back to an input.

    Two methods propagate outputs of a `Network` layer by layer, from the last to the first. In each layer the
    inverse activation gives the signal `s = activation^-1(a_out) - bias`. Then

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

    Two methods know what inputs look like, from a `prior`, and take any differentiable model of one example.
    Signals `s` are the outputs before the output activation of a `Network` (of a softmax its log odds), and
    the outputs of any other model, for which logits are best.

    - `"pattern"` is the best linear estimate of the input given the requested signals (the "activation
      pattern"): `x = mean x + cov(x, s) cov(s)^-1 (s(y) - mean s)`, over inputs. `x - mean x` shows what must
      be present and what must be absent. It may exceed the range of inputs.
    - `"typical"` is the most typical input whose outputs are at least as sure as requested: it minimizes the
      squared Mahalanobis distance to a component of the prior, over the components and over its inputs,
      subject to `s >= s(y)` where `y` is above the middle of its largest and smallest values, `s <= s(y)`
      elsewhere, and the range of inputs. It shows the look of the data as well as the network's view; what
      is the network's is the difference of `x` and `surer`.

    Args:
        network: a `Network` whose activations all have an inverse (`jaxnn.activation`); for `"pattern"` and
            `"typical"` any callable pytree of one example with a vector of outputs.
        y: `(..., n_out)`, the requested outputs, inside the open range of the output activation;
            `jaxnn.datasets.encode_labels` returns such targets.
        method: `"transpose"`, `"least_squares"`, `"pattern"` or `"typical"`.
        prior: of `jaxnn.prior`, required for `"pattern"` and `"typical"`. For `"pattern"` also inputs
            `(N, ...)` themselves, over which the covariances are taken.
        free: `(n_out,)` or `(..., n_out)`, True for outputs without a request; for `"pattern"` and
            `"typical"`. By default `"pattern"` frees those that are not above the middle of the largest and
            smallest requested value, and `"typical"` none.
        exact: whether `"typical"` requires `s = s(y)`.
        margin: the least distance of a value from the ends of its range, as a fraction of it; at least the
            dtype's epsilon (1.2e-7 in float32) and below 0.5.
        sweeps: passes from the output to the input, for `"least_squares"`.
        steps: projected gradient steps per layer and sweep, for `"least_squares"`.

    Returns:
        `(..., n_in)` in `[margin, 1 - margin]`; for `"pattern"` `(..., *shape)`, of the shape of one input;
        for `"typical"` a `TypicalInput`.

    Raises:
        ValueError: an activation without an inverse; a wrong shape; an unknown method; `margin` out of
            its range; a `prior` that is missing or of inputs that the model does not take; or (for concrete
            values) `y` outside the activation's range, or all outputs free.
        TypeError: `network` is not a `Network`, `y` does not hold real numbers, or an option is of another
            type.

    References:
        T. Rashid, *Make Your Own Neural Network*, 2016, part 3, for `"transpose"`. A. Beck, M. Teboulle,
        *A fast iterative shrinkage-thresholding algorithm*, 2009, with the restart of B. O'Donoghue,
        E. Candes, *Adaptive restart for accelerated gradient schemes*, 2015, for `"least_squares"`.
        S. Haufe et al., *On the interpretation of weight vectors of linear models in multivariate
        neuroimaging*, NeuroImage 87, 2014, and P.-J. Kindermans et al., *Learning how to explain neural
        networks*, arXiv:1705.05598, for `"pattern"`.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (784, 200, 10))
        >>> five = jaxnn.datasets.encode_labels(5)
        >>> image = jaxnn.backquery(network, five, method="least_squares")
        >>> image.shape, int(jaxnn.query(network, image).argmax())
        ((784,), 5)
    """
    _checks.check_option("method", method, get_args(BackqueryMethod))
    sweeps = _checks.check_integer("sweeps", sweeps, at_least=1)
    steps = _checks.check_integer("steps", steps, at_least=1)
    exact = _checks.check_flag("exact", exact)
    if method in ("pattern", "typical"):
        return _by_prior(network, y, method, prior, free, exact)
    for name, value in (("prior", prior), ("free", free)):
        if value is not None:
            raise ValueError(f"`{name}` must be None for the method {method!r}")
    return _by_layers(network, y, method, margin, sweeps, steps)


def _by_layers(network: Any, y: Any, method: str, margin: float, sweeps: int, steps: int) -> jax.Array:
    """The methods that invert the layers of a `Network`."""
    check_network(network)
    check_invertible(network)
    outputs = _checks.check_float_array("y", y, network.layers[-1].kernel.dtype)
    dtype = jnp.result_type(outputs, *jax.tree.leaves(network))
    least = float(jnp.finfo(dtype).eps)  # below it, values round to the ends of their range
    margin = _checks.check_real("margin", margin, at_least=least, below=0.5)
    _checks.check_last_axis("y", outputs, network.sizes[-1], "one element per output of the network")
    check_in_range(outputs, network.layers[-1].activation)
    network, outputs = jax.tree.map(automatic_axes, (network, outputs))
    if method == "transpose":
        return transpose(network, outputs, margin=margin)
    return least_squares(network, outputs, margin=margin, sweeps=sweeps, steps=steps)


def _by_prior(network: Any, y: Any, method: str, prior: Any, free: Any, exact: bool) -> Any:
    """The methods that take a prior, for each of the requests `(..., n_out)`."""
    model = as_model(network, "network")
    if not isinstance(prior, Prior):
        if method == "typical" or prior is None:
            expected = "a prior of jaxnn.prior" + (", or inputs (N, ...)" if method == "pattern" else "")
            raise TypeError(f"`prior` must be {expected}, for {method!r}; got {type(prior).__name__}")
        inputs = _checks.check_float_array("prior", prior)
        _checks.check_finite("prior", inputs)
        if inputs.ndim == 0 or len(inputs) < 2:
            raise ValueError(f"`prior` must hold inputs (N, ...), with N at least 2; got {inputs.shape}")
    else:
        inputs = jax.vmap(prior.input_at)(prior.draws)
    outputs = _checks.check_float_array("y", y, inputs.dtype)
    size = _size_of_output(model, inputs)
    _checks.check_last_axis("y", outputs, size, "one element per output of the network")
    _checks.check_finite("y", outputs)
    if isinstance(network, Network):
        name = network.layers[-1].activation
        check_in_range(outputs, "sigmoid" if name == "softmax" else name)
    mask = _free(free, outputs, method)
    model, prior, inputs, outputs = jax.tree.map(automatic_axes, (model, prior, inputs, outputs))

    def one(y: jax.Array, free: jax.Array) -> Any:
        if method == "pattern":
            return pattern(model, inputs, y, free).astype(jnp.result_type(y, inputs))
        return typical(model, prior, y, free, exact=exact)

    batch = outputs.shape[:-1]
    found = jax.vmap(one)(outputs.reshape(-1, size), jnp.broadcast_to(mask, outputs.shape).reshape(-1, size))
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)


def _size_of_output(model: Any, inputs: jax.Array) -> int:
    """The number of outputs; raise unless the model takes such inputs, and returns a vector of numbers."""
    example = jax.ShapeDtypeStruct(inputs.shape[1:], inputs.dtype)
    try:
        output = output_shape(model, example, name="network")
    except ValueError as error:
        raise ValueError(
            f"`prior` must be of inputs that the network takes; of shape {example.shape}: {error}"
        ) from error
    shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
    if shape is None or dtype is None or len(shape) != 1 or not jnp.issubdtype(dtype, jnp.floating):
        shown = type(output).__name__ if shape is None else f"{dtype} of shape {shape}"
        raise ValueError(f"`network` must return a vector of real numbers, (n_out,); got {shown}")
    return shape[0]


def _free(free: Any, y: jax.Array, method: str) -> jax.Array:
    """Which outputs have no request."""
    if free is None:
        if method == "typical":
            return jnp.zeros(y.shape, bool)
        high, low = y.max(axis=-1, keepdims=True), y.min(axis=-1, keepdims=True)
        return (y <= (high + low) / 2) & (high > low)
    mask = _checks.check_array("free", free)
    if mask.dtype != jnp.bool_ or mask.shape not in (y.shape, y.shape[-1:]):
        raise ValueError(
            f"`free` must be True or False for each output, of shape {y.shape[-1:]} or {y.shape}; got "
            f"{mask.dtype} of shape {mask.shape}"
        )
    if _checks.known_false(jnp.all(jnp.any(~mask, axis=-1))):
        raise ValueError("`free` must leave at least one output with a request; all are free")
    return mask
