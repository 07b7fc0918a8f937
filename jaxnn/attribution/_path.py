"""Attribution by gradients along paths from a baseline to the example."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.affine_prefix import split_affine_prefix
from jaxnn._engine.loops import vary_like
from jaxnn._model import as_example, broadcast_like, check_batch_like, prepare, scalar
from jaxnn.attribution._accumulate import as_dtype_of, mean_of, moments, weighted_sum

Model = Callable[..., Any]
Target = Any  # an output index, a tuple of them, None, or a function from the output to a scalar

QUADRATURES = ("gauss_legendre", "riemann_left", "riemann_right", "riemann_middle", "trapezoid")


def integrated_gradients(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    quadrature: str = "gauss_legendre",
    batch_size: int = 10,
) -> Any:
    """Each input's share in the way from the answer at a baseline to the answer at the example.

    `a = (x - x0) * sum_k w_k grad f(x0 + t_k (x - x0))`, in which `t_k` and `w_k` are the nodes and weights
    of a quadrature on [0, 1]. In the limit of many steps the attributions sum to `f(x) - f(x0)`:
    `completeness_gap` says how far they are from it.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: of the structure and shapes of `x`, or one number for all.
        steps: nodes of the quadrature.
        quadrature: "gauss_legendre", "riemann_left", "riemann_right", "riemann_middle" or "trapezoid".
        batch_size: steps at a time; memory grows with it, and not with `steps`. A single chunk, with
            `batch_size` at `steps` or above, is compiled without a loop: faster for convolutions on a CPU.

    Returns:
        Of the structure of `x`, in units of the output.

    Raises:
        TypeError: an option is of another type, or as `saliency` raises.
        ValueError: `baseline` is of another shape, `steps` or `batch_size` is below 1 (below 2 for a
            trapezoid), `quadrature` is unknown, or as `saliency` raises.

    References:
        Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017, arXiv:1703.01365.

    Example:
        >>> from jaxnn import attribution
        >>> attribution.integrated_gradients(lambda x: x[0] ** 2 * x[1], [1.0, 3.0]).round(4).tolist()
        [2.0, 1.0]
    """
    sizes = check_steps(steps, quadrature, batch_size)
    model, x, target = prepare(model, x, target)
    return _integrated_gradients(model, x, target, broadcast_like("baseline", baseline, x), **sizes)


@jax.jit(static_argnames=("steps", "quadrature", "batch_size"))
def _integrated_gradients(
    model: Any, x: Any, target: Any, baseline: Any, *, steps: int, quadrature: str, batch_size: int
) -> Any:
    return integrate(scalar(model, target), x, baseline, steps, quadrature, batch_size)


def integrate(
    function: Callable[[Any], jax.Array], x: Any, baseline: Any, steps: int, quadrature: str, batch_size: int
) -> Any:
    """Integrated gradients of any scalar function.

    Its affine first part maps the straight path to a straight path, and takes the sum of the slopes back to
    the input at once; so only the rest is evaluated at each step.
    """
    baseline = vary_like(baseline, x)
    first, rest = split_affine_prefix(function, x)
    end, pull = jax.vjp(first, x)
    start = first(baseline)
    positions, weights = nodes(quadrature, steps)

    def slopes(position: Any) -> Any:
        return jax.grad(rest)(between(start, end, position))

    mean = weighted_sum(slopes, positions, weights, batch_size)
    (slope,) = pull(as_dtype_of(mean, end))
    return jax.tree.map(lambda a, b, g: _change(b, a) * g, x, baseline, slope)


def between(start: Any, end: Any, position: Any) -> Any:
    """A point of the straight path: its start at position 0, its end at 1."""
    return jax.tree.map(lambda a, b: a + jnp.asarray(position, a.dtype) * _change(a, b), start, end)


def _change(a: jax.Array, b: jax.Array) -> jax.Array:
    """`b - a`; 0 between an infinity and itself, which is what a mask puts into both."""
    return jnp.where(jnp.isinf(a) & (a == b), 0, b - a)


@functools.cache
def nodes(quadrature: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in [0, 1] and weights that sum to 1, each `(steps,)`."""
    if quadrature == "gauss_legendre":
        from scipy.special import roots_legendre  # here, as it takes time to import

        positions, weights = roots_legendre(steps)
        return (1 + positions) / 2, weights / 2
    if quadrature == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0.0, 1.0, steps), weights
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[quadrature]
    return (np.arange(steps) + offset) / steps, np.full(steps, 1 / steps)


def check_steps(steps: Any, quadrature: Any, batch_size: Any) -> dict[str, Any]:
    """The options of every method along a path, checked."""
    _checks.check_option("quadrature", quadrature, QUADRATURES)
    least = 2 if quadrature == "trapezoid" else 1
    return {
        "steps": _checks.check_integer("steps", steps, at_least=least),
        "quadrature": quadrature,
        "batch_size": _checks.check_integer("batch_size", batch_size, at_least=1),
    }


def expected_gradients(
    model: Model,
    x: Any,
    target: Target = None,
    *,
    baselines: Any,
    key: jax.Array,
    n_samples: int = 200,
    batch_size: int = 25,
    with_error: bool = False,
) -> Any:
    """Integrated gradients in expectation over a set of baselines, estimated from samples.

    `a = 1/n sum_s (x - b_s) * grad f(b_s + t_s (x - b_s))`, with `b_s` drawn from `baselines` and
    `t_s ~ U(0, 1)`. In expectation the attributions sum to `f(x)` less the mean of `f` over the baselines.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baselines: as `x`, each array with a further first axis, `(n, *shape)`; such as some of the training
            examples.
        key: a JAX random key. Sample `s` is drawn from `jax.random.fold_in(key, s)`.
        n_samples: how many gradients.
        batch_size: samples at a time; memory grows with it, and not with `n_samples`.
        with_error: whether to return an `Estimate`, the values with their standard errors.

    Returns:
        Of the structure of `x`, in units of the output; an `Estimate` of two such where `with_error`.

    Raises:
        TypeError: `key` is no key, an option is of another type, or as `saliency` raises.
        ValueError: `baselines` are of another shape or none, `n_samples` or `batch_size` is below 1 (2
            samples for a standard error), or as `saliency` raises.

    References:
        Erion, Janizek, Sturmfels, Lundberg and Lee, "Improving performance of deep learning models with
        axiomatic attribution priors and expected gradients", 2021, arXiv:1906.10670.

    Example:
        >>> import jax
        >>> from jaxnn import attribution
        >>> options = {"baselines": [[0.0, 0.0], [0.0, 2.0]], "key": jax.random.key(0), "n_samples": 1000}
        >>> found = attribution.expected_gradients(lambda x: x[0] + 2 * x[1], [1.0, 1.0], **options)
        >>> found.round(0).tolist()
        [1.0, 0.0]
    """
    _checks.check_key("key", key)
    sizes = {
        "n_samples": _checks.check_integer("n_samples", n_samples, at_least=2 if with_error else 1),
        "batch_size": _checks.check_integer("batch_size", batch_size, at_least=1),
    }
    model, x, target = prepare(model, x, target)
    baselines = check_batch_like("baselines", baselines, x)
    return _expected_gradients(model, x, target, baselines, key, **sizes, with_error=bool(with_error))


@jax.jit(static_argnames=("n_samples", "batch_size", "with_error"))
def _expected_gradients(
    model: Any,
    x: Any,
    target: Any,
    baselines: Any,
    key: Any,
    *,
    n_samples: int,
    batch_size: int,
    with_error: bool,
) -> Any:
    count = jax.tree.leaves(baselines)[0].shape[0]

    def share(sample: Any) -> Any:
        which, where = jax.random.split(jax.random.fold_in(key, sample))
        row = jax.random.randint(which, (), 0, count)
        baseline = jax.tree.map(lambda leaf: leaf[row], baselines)
        point = between(baseline, x, jax.random.uniform(where))
        slopes = jax.grad(scalar(model, target))(point)
        return jax.tree.map(lambda a, b, g: (a - b) * g, x, baseline, slopes)

    return mean_of(moments(share, n_samples, batch_size), x, with_error=with_error)


def completeness_gap(
    model: Model,
    x: Any,
    target: Target,
    attributions: Any,
    *,
    baseline: Any = 0.0,
    baselines: Any = None,
) -> jax.Array:
    """How much attributions add to the difference that they are to explain, or lack from it.

    `gap = sum_i a_i - (f(x) - f(x0))`: 0 for a method that is complete.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        attributions: of any method, at the inputs or at a layer: a pytree of arrays.
        baseline: what they were made with, as in `integrated_gradients`.
        baselines: in place of it a set of them, as in `expected_gradients`: `f(x0)` is the mean over them.

    Returns:
        A scalar in units of the output; below 0 where some of the difference is missing.

    Raises:
        TypeError: `attributions` does not hold numbers, or as `saliency` raises.
        ValueError: a baseline is of another shape, or as `saliency` raises.

    Example:
        >>> from jaxnn import attribution
        >>> square, x = lambda x: x[0] ** 2, [3.0]
        >>> slopes = attribution.input_x_gradient(square, x)
        >>> float(attribution.completeness_gap(square, x, None, slopes))
        9.0
    """
    model, x, target = prepare(model, x, target, differentiable=False)
    if baselines is None:
        baselines = jax.tree.map(lambda leaf: leaf[None], broadcast_like("baseline", baseline, x))
    else:
        baselines = check_batch_like("baselines", baselines, x)
    return _completeness_gap(model, x, target, as_example("attributions", attributions), baselines)


@jax.jit
def _completeness_gap(model: Any, x: Any, target: Any, attributions: Any, baselines: Any) -> jax.Array:
    function = scalar(model, target)
    difference = function(x) - jnp.mean(jax.vmap(function)(baselines))
    return (sum(jnp.sum(leaf) for leaf in jax.tree.leaves(attributions)) - difference).astype(
        difference.dtype
    )
