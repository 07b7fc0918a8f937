"""Path methods: gradients accumulated along paths from a baseline to the example."""

import functools
from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.affine_prefix import split_affine_prefix
from jaxnn._engine.held import zeros_for_held
from jaxnn._engine.loops import vary_like
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._model import broadcast_like, check_batch_like, differentiable, prepare
from jaxnn._typing import Key, Model, PyTree, Quadrature, Scalar, Target
from jaxnn.attribution._accumulate import Sampling, as_dtype_of, check_sampling, estimate, weighted_sum
from jaxnn.attribution._completeness import gap_of, warn_if_incomplete

QUADRATURES = get_args(Quadrature)


class QuadratureRule(NamedTuple):
    """The options of an integral along a path; hashable, as a static argument.

    Attributes:
        name: which nodes and weights.
        steps: number of nodes.
        batch_size: how many nodes per chunk.
    """

    name: Quadrature
    steps: int
    batch_size: Batch

    def mean(self, function: Callable[[jax.Array], PyTree]) -> PyTree:
        """The mean of a function of the position over [0, 1], in at least float32."""
        return weighted_sum(function, *nodes(self.name, self.steps), self.batch_size)


def check_steps(steps: int, quadrature: Quadrature, batch_size: int | None) -> QuadratureRule:
    """Check the options of a path method."""
    _checks.check_option("quadrature", quadrature, QUADRATURES)
    steps = _checks.check_integer("steps", steps, at_least=2 if quadrature == "trapezoid" else 1)
    _checks.check_bytes("steps", 48 * steps)
    return QuadratureRule(quadrature, steps, check_batch_size(batch_size, 10))


def integrated_gradients(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    baseline: PyTree = 0.0,
    steps: int = 50,
    quadrature: Quadrature = "gauss_legendre",
    batch_size: int | None = None,
    check_completeness: bool = True,
) -> PyTree:
    """Integrated gradients along the straight path from a baseline to the input.

    `a = (x - x0) * sum_k w_k grad f(x0 + t_k (x - x0))`, where `t_k` and `w_k` are the nodes and weights
    of a quadrature rule on [0, 1]. In the limit of many steps the attributions sum to `f(x) - f(x0)`:
    `completeness_gap` returns the difference. Where the function bends sharply on the path, that takes many
    steps: such as near a baseline of 0 in a model whose first operation is a normalization, whose
    derivative at 0 is as large as the reciprocal of its epsilon's root.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baseline: of the structure and shapes of `x`, or one number for all.
        steps: number of nodes of the quadrature rule.
        quadrature: "gauss_legendre", "riemann_left", "riemann_right", "riemann_middle" or "trapezoid".
        batch_size: steps at a time; memory grows with it, and not with `steps`. None: at most 10, and as many
            as are estimated to take 1 GiB, at least 1; `jax.vmap` multiplies that. The result does not depend
            on it. A single chunk, with `batch_size` at `steps` or above, is compiled without a loop: faster
            for convolutions on a CPU.
        check_completeness: whether to warn where the sum differs by more than 5 % from `f(x) - f(x0)`. It
            takes two evaluations and waits for the result; under `jit`, `vmap` and `grad` nothing is checked.

    Returns:
        Of the structure of `x`, in units of the output.

    Warns:
        UserWarning: the attributions do not sum to the change of the output; see `check_completeness`.

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
    rule = check_steps(steps, quadrature, batch_size)
    model, x, target = prepare(model, x, target, holds=True)
    baseline = broadcast_like("baseline", baseline, x)
    check = _checks.check_flag("check_completeness", check_completeness) and _checks.is_concrete(
        (model, x, target, baseline)
    )
    attributions, gap = _integrated_gradients(model, x, target, baseline, rule, check=check)
    warn_if_incomplete("integrated_gradients", gap, f"use more `steps` than {steps}, or another `baseline`")
    return zeros_for_held(attributions)


@jax.jit(static_argnames=("rule", "check"))
def _integrated_gradients(
    model: Model, x: PyTree, target: Target, baseline: PyTree, rule: QuadratureRule, *, check: bool
) -> tuple[PyTree, jax.Array | None]:
    attributions, ends = integrate(differentiable(model, target, x), x, baseline, rule)
    return attributions, gap_of(attributions, *ends(), within=0.05) if check else None


def integrate(
    function: Callable[[PyTree], jax.Array], x: PyTree, baseline: PyTree, rule: QuadratureRule
) -> tuple[PyTree, Callable[[], tuple[jax.Array, jax.Array]]]:
    """Integrated gradients of any scalar function, and what computes its values at `x` and the baseline.

    Its affine prefix maps the straight path to a straight path, and its transpose maps the summed gradients
    to the input at once. Only the rest is evaluated at each node.
    """
    baseline = vary_like(baseline, x)
    first, rest = split_affine_prefix(function, x)
    end, pull = jax.vjp(first, x)
    start = first(baseline)
    mean = rule.mean(lambda position: jax.grad(rest)(between(start, end, position)))
    (gradient,) = pull(as_dtype_of(mean, end))
    attributions = jax.tree.map(lambda a, b, g: _change(b, a) * g, x, baseline, gradient)
    return attributions, lambda: tuple(jax.vmap(rest)(jax.tree.map(lambda *ab: jnp.stack(ab), end, start)))


def between(start: PyTree, end: PyTree, position: Scalar) -> PyTree:
    """A point of the straight path: its start at position 0, its end at 1."""
    return jax.tree.map(lambda a, b: a + jnp.asarray(position, a.dtype) * _change(a, b), start, end)


def _change(a: jax.Array, b: jax.Array) -> jax.Array:
    """`b - a`; 0 between equal infinities, such as those of a mask."""
    return jnp.where(jnp.isinf(a) & (a == b), 0, b - a)


@functools.cache
def nodes(quadrature: Quadrature, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in [0, 1] and weights that sum to 1, each `(steps,)`."""
    if quadrature == "gauss_legendre":
        from scipy.special import roots_legendre  # here: a slow import

        positions, weights = roots_legendre(steps)
        return (1 + positions) / 2, weights / 2
    if quadrature == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0.0, 1.0, steps), weights
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[quadrature]
    return (np.arange(steps) + offset) / steps, np.full(steps, 1 / steps)


def expected_gradients(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    baselines: PyTree,
    key: Key,
    n_samples: int = 200,
    batch_size: int | None = None,
    with_error: bool = False,
) -> PyTree:
    """Expected gradients: integrated gradients in expectation over a set of baselines, estimated by sampling.

    `a = 1/n sum_s (x - b_s) * grad f(b_s + t_s (x - b_s))`, with `b_s` drawn from `baselines` and
    `t_s ~ U(0, 1)`. In expectation the attributions sum to `f(x)` minus the mean of `f` over the baselines.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays.
        target: an output index, None, or a function; see `saliency`.
        baselines: as `x`, each array with a leading axis, `(n, *shape)`; such as some of the training
            examples.
        key: a JAX random key. Sample `s` is drawn from `jax.random.fold_in(key, s)`.
        n_samples: number of gradients.
        batch_size: samples at a time; memory grows with it, and not with `n_samples`. None: at most 25, as in
            `integrated_gradients`.
        with_error: whether to return an `Estimate`, the values with their standard errors.

    Returns:
        Of the structure of `x`, in units of the output; an `Estimate` of two such where `with_error`.

    Raises:
        TypeError: `key` is not a key, an option is of another type, or as `saliency` raises.
        ValueError: `baselines` are of another shape or none, `n_samples` or `batch_size` is below 1 (2
            samples for a standard error), or as `saliency` raises.

    References:
        Erion, Janizek, Sturmfels, Lundberg and Lee, "Improving performance of deep learning models with
        axiomatic attribution priors and expected gradients", 2021, arXiv:1906.10670.

    Example:
        >>> import jax
        >>> from jaxnn import attribution
        >>> options = {"baselines": [[0.0, 0.0], [0.0, 2.0]], "key": jax.random.key(0), "n_samples": 1000}
        >>> values = attribution.expected_gradients(lambda x: x[0] + 2 * x[1], [1.0, 1.0], **options)
        >>> values.round(0).tolist()
        [1.0, 0.0]
    """
    sampling = check_sampling(key, n_samples, batch_size, 25, with_error=with_error)
    model, x, target = prepare(model, x, target, holds=True)
    baselines = check_batch_like("baselines", baselines, x)
    return zeros_for_held(_expected_gradients(model, x, target, baselines, key, sampling))


@jax.jit(static_argnames=("sampling",))
def _expected_gradients(
    model: Model, x: PyTree, target: Target, baselines: PyTree, key: Key, sampling: Sampling
) -> PyTree:
    count = jax.tree.leaves(baselines)[0].shape[0]
    function = differentiable(model, target, x)

    def attribution(sample: jax.Array) -> PyTree:
        row_key, position_key = jax.random.split(jax.random.fold_in(key, sample))
        row = jax.random.randint(row_key, (), 0, count)
        baseline = jax.tree.map(lambda leaf: leaf[row], baselines)
        point = between(baseline, x, jax.random.uniform(position_key))
        gradient = jax.grad(function)(point)
        return jax.tree.map(lambda a, b, g: (a - b) * g, x, baseline, gradient)

    return estimate(attribution, sampling, lambda values: as_dtype_of(values, x))
