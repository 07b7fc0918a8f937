"""Attribution by the gradient at the input, and at noisy copies of it."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.affine_prefix import split_affine_prefix
from jaxnn._engine.held import zeros_for_held
from jaxnn._model import count_elements, differentiable, gradient, prepare
from jaxnn._precision import draw_wide
from jaxnn._typing import Key, Model, PyTree, Scalar, Target
from jaxnn.attribution._accumulate import (
    Sampling,
    as_dtype_of,
    check_sampling,
    estimate,
    variance,
    weighted_sum,
)

Bounds = tuple[Scalar, Scalar]  # (low, high)


def saliency(model: Model, x: PyTree, target: Target = None, *, absolute: bool = False) -> PyTree:
    """Saliency: the gradient of the target output with respect to each input.

    `a_i = df / dx_i`, where `f` is the output that `target` selects; `|df / dx_i|` where `absolute`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays. Arrays of integers and booleans in it are held:
            their attribution is 0.
        target: an output index (a tuple of them for an output of several axes), None for an output of one
            element, or a function from the output to a scalar. A function is compared by identity (static
            argument): create it once. A traced index that is out of range is clamped, as in JAX.
        absolute: whether to return absolute values.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold floating-point numbers, or `target` is of
            another type.
        ValueError: the output has no such element, `target` is None and it has more than one, or the model
            turns all numbers of `x` into integers or booleans.

    References:
        Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2013, arXiv:1312.6034.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> model = lambda x: jnp.stack([x[0] * x[1], x[0] + x[1]])
        >>> attribution.saliency(model, [2.0, 3.0], 0).tolist()
        [3.0, 2.0]
    """
    absolute = _checks.check_flag("absolute", absolute)
    return zeros_for_held(_saliency(*prepare(model, x, target, holds=True), absolute=absolute))


@jax.jit(static_argnames=("absolute",))
def _saliency(model: Model, x: PyTree, target: Target, *, absolute: bool) -> PyTree:
    values = gradient(differentiable(model, target, x), x)
    return jax.tree.map(jnp.abs, values) if absolute else values


def input_x_gradient(model: Model, x: PyTree, target: Target = None) -> PyTree:
    """Input times gradient: each input times the gradient of the target output with respect to it.

    `a_i = x_i * df / dx_i`: the input's term in a linear function with that gradient.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such element, or `target` is None and it has more than one.

    References:
        Shrikumar, Greenside, Shcherbina and Kundaje, "Not just a black box", 2016, arXiv:1605.01713.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> attribution.input_x_gradient(lambda x: x[0] * x[1], [2.0, 3.0]).tolist()
        [6.0, 6.0]
    """
    return zeros_for_held(_input_x_gradient(*prepare(model, x, target, holds=True)))


@jax.jit
def _input_x_gradient(model: Model, x: PyTree, target: Target) -> PyTree:
    return jax.tree.map(jnp.multiply, x, gradient(differentiable(model, target, x), x))


def smooth_grad(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    key: Key,
    n_samples: int = 25,
    noise: Scalar = 0.15,
    bounds: Bounds | None = None,
    squared: bool = False,
    batch_size: int | None = None,
    with_error: bool = False,
) -> PyTree:
    """SmoothGrad: the mean gradient over noisy copies of the example, less noisy than the gradient at it.

    `a = 1/n sum_s grad f(x + e_s)`, `e_s ~ N(0, sigma^2)`, `sigma = noise * (high - low)`; where `squared`,
    the mean of the squared gradients.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a JAX random key. Sample `s` is drawn from `jax.random.fold_in(key, s)`.
        n_samples: number of noisy copies.
        noise: sigma as a fraction of the range of the inputs, at least 0.
        bounds: `(low, high)`, the range of the inputs; None for that of `x`, of each array separately.
        squared: whether to square the gradients before their mean.
        batch_size: samples at a time; memory grows with it, and not with `n_samples`. None: at most 25, as in
            `integrated_gradients`.
        with_error: whether to return an `Estimate`, the values with their standard errors.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input (squared where `squared`); an
        `Estimate` of two such where `with_error`.

    Raises:
        TypeError: `key` is not a key, an option is of another type, or as `saliency` raises.
        ValueError: `n_samples` or `batch_size` is below 1 (2 samples for a standard error), `noise` is
            negative, `bounds` are not in order, `x` has no element, or as `saliency` raises.

    References:
        Smilkov, Thorat, Kim, Viegas and Wattenberg, "SmoothGrad", 2017, arXiv:1706.03825. Squared: Hooker,
        Erhan, Kindermans and Kim, "A benchmark for interpretability methods", 2019, arXiv:1806.10758.

    Example:
        >>> import jax
        >>> from jaxnn import attribution
        >>> kink = lambda x: jax.nn.relu(x[0])
        >>> options = {"key": jax.random.key(0), "n_samples": 1000, "bounds": (0.0, 1.0)}
        >>> [round(float(attribution.smooth_grad(kink, [x], **options)[0]), 1) for x in (-1.0, 0.0, 1.0)]
        [0.0, 0.5, 1.0]
    """
    sampling = check_sampling(key, n_samples, batch_size, 25, with_error=with_error)
    squared = _checks.check_flag("squared", squared)
    prepared = _prepare_noisy(model, x, target, key, noise, bounds)
    return zeros_for_held(_smooth_grad(*prepared, squared=squared, sampling=sampling))


@jax.jit(static_argnames=("squared", "sampling"))
def _smooth_grad(
    model: Model, target: Target, copies: "NoisyCopies", *, squared: bool, sampling: Sampling
) -> PyTree:
    x = copies.x
    function = differentiable(model, target, x)
    if squared or sampling.with_error:

        def at_copy(sample: jax.Array) -> PyTree:
            value = gradient(function, copies(sample))
            return jax.tree.map(jnp.square, value) if squared else value

        return estimate(at_copy, sampling, lambda values: as_dtype_of(values, x))
    # The transpose of the affine prefix maps the summed gradients to the input at once.
    first, rest = split_affine_prefix(function, x)
    cut, pull = jax.vjp(first, x)
    n = sampling.n_samples
    mean = weighted_sum(
        lambda sample: gradient(rest, first(copies(sample))),
        np.arange(n), np.full(n, 1 / n), sampling.batch_size,
    )  # fmt: skip
    return pull(as_dtype_of(mean, cut))[0]


def var_grad(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    key: Key,
    n_samples: int = 25,
    noise: Scalar = 0.15,
    bounds: Bounds | None = None,
    batch_size: int | None = None,
) -> PyTree:
    """VarGrad: the variance of the gradient over noisy copies of the example.

    `a = 1/n sum_s (grad f(x + e_s) - m)^2`, where `m` is the mean over the `n` samples, as in `smooth_grad`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a JAX random key; the samples are those of `smooth_grad`.
        n_samples: number of noisy copies.
        noise: sigma as a fraction of the range of the inputs, at least 0.
        bounds: `(low, high)`, the range of the inputs; None for that of `x`, of each array separately.
        batch_size: samples at a time; memory grows with it, and not with `n_samples`. None: at most 25, as in
            `integrated_gradients`.

    Returns:
        Of the structure of `x`, in squared units of the output per unit of the input.

    Raises:
        TypeError: as `smooth_grad` raises.
        ValueError: as `smooth_grad` raises.

    References:
        Adebayo, Gilmer, Goodfellow and Kim, "Local explanation methods for deep neural networks lack
        sensitivity to parameter values", 2018, arXiv:1810.03307.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> linear_and_curved = lambda x: 3 * x[0] + jnp.tanh(x[1])
        >>> variance = attribution.var_grad(linear_and_curved, [0.0, 1.0], key=jax.random.key(0))
        >>> (variance > 0).tolist()
        [False, True]
    """
    sampling = check_sampling(key, n_samples, batch_size, 25)
    return zeros_for_held(_var_grad(*_prepare_noisy(model, x, target, key, noise, bounds), sampling))


@jax.jit(static_argnames=("sampling",))
def _var_grad(model: Model, target: Target, copies: "NoisyCopies", sampling: Sampling) -> PyTree:
    x = copies.x
    function = differentiable(model, target, x)
    at_copy = lambda sample: gradient(function, copies(sample))  # noqa: E731
    return variance(at_copy, sampling, lambda values: as_dtype_of(values, x))


@flax.struct.dataclass
class NoisyCopies:
    """An example with normal noise: the copy of a sample index.

    Attributes:
        x: the example.
        key, noise, bounds: as in `smooth_grad`.
    """

    x: PyTree
    key: Key
    noise: jax.Array
    bounds: jax.Array | None

    def __call__(self, sample: jax.Array) -> PyTree:
        """The noisy copy of one sample."""
        key = jax.random.fold_in(self.key, sample)
        leaves, structure = jax.tree.flatten(self.x)
        copies = [self._copy(leaf, jax.random.fold_in(key, i)) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, copies)

    def _copy(self, leaf: jax.Array, key: Key) -> jax.Array:
        if leaf.size == 0:  # no element, so no range
            return leaf
        low, high = (jnp.min(leaf), jnp.max(leaf)) if self.bounds is None else self.bounds
        sigma = (self.noise * (high - low)).astype(leaf.dtype)
        return leaf + sigma * draw_wide(jax.random.normal, key, leaf.shape, leaf.dtype)


def _prepare_noisy(
    model: Model, x: PyTree, target: Target, key: Key, noise: Scalar, bounds: Bounds | None
) -> tuple[Model, Target, NoisyCopies]:
    """Check the arguments of the methods that sample around an example."""
    noise = _checks.check_number("noise", noise, at_least=0)
    ends = None if bounds is None else _check_bounds(bounds)
    model, x, target = prepare(model, x, target, holds=True)
    count_elements(x)
    return model, target, NoisyCopies(x, key, noise, ends)


@jax.ensure_compile_time_eval()
def _check_bounds(bounds: Bounds) -> jax.Array:
    ends = _checks.check_float_array("bounds", bounds)
    _checks.check_shape("bounds", ends, (2,), "the lowest and the highest input")
    _checks.check_finite("bounds", ends)
    if _checks.known_false(ends[0] < ends[1]):
        raise ValueError(f"`bounds` must be (low, high), low below high; got {ends.tolist()}")
    return ends
