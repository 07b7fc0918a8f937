"""Attribution by the gradient at the input, and at noisy copies of it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.affine_prefix import split_affine_prefix
from jaxnn._model import count_elements, prepare, scalar
from jaxnn.attribution._accumulate import as_dtype_of, mean_of, moments, variance_of, weighted_sum

Model = Callable[..., Any]
Target = Any  # an output index, a tuple of them, None, or a function from the output to a scalar


def saliency(model: Model, x: Any, target: Target = None, *, absolute: bool = False) -> Any:
    """The slope of the answer in each input.

    `a_i = df / dx_i`, `f` being the output that `target` names; its size `|df / dx_i|` where `absolute`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index (a tuple of them for an output of several axes), None for an output of one
            entry, or a function from the output to a scalar. A function is recognized by identity: make it
            once. A traced index that is out of range becomes the nearest, as in JAX.
        absolute: whether to give the sizes of the slopes.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such entry, or `target` is None and it has more than one.

    References:
        Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2013, arXiv:1312.6034.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> model = lambda x: jnp.stack([x[0] * x[1], x[0] + x[1]])
        >>> attribution.saliency(model, [2.0, 3.0], 0).tolist()
        [3.0, 2.0]
    """
    return _saliency(*prepare(model, x, target), absolute=absolute)


@jax.jit(static_argnames=("absolute",))
def _saliency(model: Any, x: Any, target: Any, *, absolute: bool) -> Any:
    slopes = jax.grad(scalar(model, target))(x)
    return jax.tree.map(jnp.abs, slopes) if absolute else slopes


def input_x_gradient(model: Model, x: Any, target: Target = None) -> Any:
    """Each input times the slope of the answer in it.

    `a_i = x_i * df / dx_i`: what the input would add to a linear function with that slope.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: `model` is not callable, `x` does not hold numbers, or `target` is of another type.
        ValueError: the output has no such entry, or `target` is None and it has more than one.

    References:
        Shrikumar, Greenside, Shcherbina and Kundaje, "Not just a black box", 2016, arXiv:1605.01713.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attribution
        >>> attribution.input_x_gradient(lambda x: x[0] * x[1], [2.0, 3.0]).tolist()
        [6.0, 6.0]
    """
    return _input_x_gradient(*prepare(model, x, target))


@jax.jit
def _input_x_gradient(model: Any, x: Any, target: Any) -> Any:
    return jax.tree.map(jnp.multiply, x, jax.grad(scalar(model, target))(x))


def smooth_grad(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    key: jax.Array,
    n_samples: int = 25,
    noise: Any = 0.15,
    bounds: tuple[Any, Any] | None = None,
    squared: bool = False,
    batch_size: int = 25,
    with_error: bool = False,
) -> Any:
    """The mean slope around an example, which flickers less from input to input than the slope there.

    `a = 1/n sum_s grad f(x + e_s)`, `e_s ~ N(0, sigma^2)`, `sigma = noise * (high - low)`; where `squared`,
    the mean of the squared slopes.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a JAX random key. Sample `s` is drawn from `jax.random.fold_in(key, s)`.
        n_samples: how many noisy copies.
        noise: sigma as a share of the range of the inputs, at least 0.
        bounds: `(low, high)`, the range of the inputs; None for that of `x`, of each array of it by itself.
        squared: whether to square the slopes before their mean.
        batch_size: samples at a time; memory grows with it, and with no other number.
        with_error: whether to return an `Estimate`, the values with their standard errors.

    Returns:
        Of the structure of `x`, in units of the output per unit of the input (squared where `squared`); an
        `Estimate` of two such where `with_error`.

    Raises:
        TypeError: `key` is no key, an option is of another type, or as `saliency` raises.
        ValueError: `n_samples` or `batch_size` is below 1 (2 samples for a standard error), `noise` is
            negative, `bounds` are not in order, `x` has no entry, or as `saliency` raises.

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
    least = 2 if with_error else 1
    arguments, sizes = _prepare_noisy(model, x, target, key, noise, bounds, n_samples, least, batch_size)
    return _smooth_grad(*arguments, **sizes, squared=bool(squared), with_error=bool(with_error))


def var_grad(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    key: jax.Array,
    n_samples: int = 25,
    noise: Any = 0.15,
    bounds: tuple[Any, Any] | None = None,
    batch_size: int = 25,
) -> Any:
    """How much the slope varies around an example.

    `a = 1/n sum_s (grad f(x + e_s) - m)^2`, `m` being the mean over the `n` samples, as in `smooth_grad`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        key: a JAX random key; the samples are those that `smooth_grad` draws with it.
        n_samples: how many noisy copies.
        noise: sigma as a share of the range of the inputs, at least 0.
        bounds: `(low, high)`, the range of the inputs; None for that of `x`, of each array of it by itself.
        batch_size: samples at a time; memory grows with it, and with no other number.

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
        >>> straight_and_bent = lambda x: 3 * x[0] + jnp.tanh(x[1])
        >>> found = attribution.var_grad(straight_and_bent, [0.0, 1.0], key=jax.random.key(0))
        >>> (found > 0).tolist()
        [False, True]
    """
    arguments, sizes = _prepare_noisy(model, x, target, key, noise, bounds, n_samples, 1, batch_size)
    return _var_grad(*arguments, **sizes)


def _prepare_noisy(
    model: Any,
    x: Any,
    target: Any,
    key: Any,
    noise: Any,
    bounds: Any,
    n_samples: Any,
    least: int,
    batch_size: Any,
) -> tuple[tuple[Any, ...], dict[str, int]]:
    """The arguments of the jitted functions of noisy samples, and their sizes."""
    _checks.check_key("key", key)
    sizes = {
        "n_samples": _checks.check_integer("n_samples", n_samples, at_least=least),
        "batch_size": _checks.check_integer("batch_size", batch_size, at_least=1),
    }
    noise = _checks.check_float_array("noise", noise)
    _checks.check_shape("noise", noise, (), "one share of the range")
    if _checks.known_false(noise >= 0):
        raise ValueError(f"`noise` must be at least 0; got {noise}")
    if bounds is not None:
        bounds = _checks.check_float_array("bounds", bounds)
        _checks.check_shape("bounds", bounds, (2,), "the lowest and the highest input")
        if _checks.known_false(bounds[0] < bounds[1]):
            raise ValueError(f"`bounds` must be (low, high), low below high; got {bounds.tolist()}")
    model, x, target = prepare(model, x, target)
    count_elements(x)
    return (model, x, target, key, noise, bounds), sizes


def _noisy(x: Any, key: jax.Array, noise: Any, bounds: Any, sample: Any) -> Any:
    """A copy of the example with noise, that of one sample."""
    key = jax.random.fold_in(key, sample)
    leaves, structure = jax.tree.flatten(x)
    copies = []
    for i, leaf in enumerate(leaves):
        if leaf.size == 0:  # no entry to change, and none that a range could be taken from
            copies.append(leaf)
            continue
        low, high = (jnp.min(leaf), jnp.max(leaf)) if bounds is None else bounds
        sigma = (noise * (high - low)).astype(leaf.dtype)
        copies.append(leaf + sigma * jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype))
    return jax.tree.unflatten(structure, copies)


@jax.jit(static_argnames=("n_samples", "batch_size", "squared", "with_error"))
def _smooth_grad(
    model: Any,
    x: Any,
    target: Any,
    key: Any,
    noise: Any,
    bounds: Any,
    *,
    n_samples: int,
    batch_size: int,
    squared: bool,
    with_error: bool,
) -> Any:
    function = scalar(model, target)
    copies = functools.partial(_noisy, x, key, noise, bounds)
    if squared or with_error:

        def slopes(sample: Any) -> Any:
            found = jax.grad(function)(copies(sample))
            return jax.tree.map(jnp.square, found) if squared else found

        return mean_of(moments(slopes, n_samples, batch_size), x, with_error=with_error)
    # The affine first part of the model takes the sum of the slopes back to the input at once.
    first, rest = split_affine_prefix(function, x)
    cut, pull = jax.vjp(first, x)
    mean = weighted_sum(
        lambda sample: jax.grad(rest)(first(copies(sample))),
        np.arange(n_samples), np.full(n_samples, 1 / n_samples), batch_size,
    )  # fmt: skip
    return pull(as_dtype_of(mean, cut))[0]


@jax.jit(static_argnames=("n_samples", "batch_size"))
def _var_grad(
    model: Any, x: Any, target: Any, key: Any, noise: Any, bounds: Any, *, n_samples: int, batch_size: int
) -> Any:
    slopes = jax.grad(scalar(model, target))
    found = moments(lambda sample: slopes(_noisy(x, key, noise, bounds, sample)), n_samples, batch_size)
    return variance_of(found, x)
