"""Stability: how much attributions change where the input changes a little, sampled or maximized."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map, scan
from jaxnn._engine.memory import Batch
from jaxnn._model import call, output_shape
from jaxnn._precision import draw_wide, wide_dtype, widen
from jaxnn._typing import Key, Model, PyTree, Target
from jaxnn.attribution._accumulate import check_sampling
from jaxnn.attribution._masks import examples_at_once
from jaxnn.quality._common import Explain, at_input, dtype_of, flat, norm, prepare_explain

Measure: TypeAlias = Literal["sensitivity", "lipschitz", "relative"]
Noise: TypeAlias = Literal["uniform", "normal"]
_TINY = 1e-6  # in the place of an element or a norm of 0, of the relative input stability
_SIGMAS = 3.0  # of normal noise, within which it is maximized


def max_sensitivity(
    model: Model,
    x: PyTree,
    target: Target,
    explain: Explain,
    *,
    key: Key,
    radius: float = 0.02,
    n_samples: int = 10,
    ascent_steps: int = 0,
    batch_size: int | None = None,
) -> jax.Array:
    """Max-sensitivity: the largest relative change of the attributions within a distance of the example.

    `max ||a(x + e) - a(x)|| / ||a(x)||` over random e with each element uniform in [-radius, radius]. A
    maximum over samples is a lower bound; with `ascent_steps` the best sample is improved by gradient ascent
    through the method, which finds a higher one where the method has a gradient.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        target: an output index, None, or a function; see `attribution.saliency`.
        explain: `explain(model, x, target) -> attributions`, such as `attribution.saliency`, or one with
            options, `functools.partial(attribution.lrp, rule="epsilon")`. Create it once: another
            object compiles again.
        key: a random key; sample i is drawn with `jax.random.fold_in(key, i)`.
        radius: the largest change of an element, above 0, in units of `x`.
        n_samples: number of samples, at least 1.
        ascent_steps: steps of ascent by the sign of the gradient, within the radius; 0 for samples alone.
        batch_size: how many changed examples are explained at once. None: at most 16, as in
            `attribution.integrated_gradients`. The result does not depend on it.

    Returns:
        A scalar, 0 or more, the lower the more stable; NaN where the attributions at `x` are all 0.

    Raises:
        TypeError: `model` or `explain` is not callable, `x` holds integers, or an argument is of another
            type.
        ValueError: attributions of another shape than `x`, or an index or number that does not fit.

    References:
        Yeh and others, "On the (in)fidelity and sensitivity of explanations", 2019, arXiv:1901.09392,
        definition 2.

    Example:
        >>> import jax
        >>> from jaxnn import attribution, quality
        >>> model, options = lambda x: x[0] ** 2 + x[1], {"key": jax.random.key(0), "radius": 0.1}
        >>> sampled = quality.max_sensitivity(model, [1.0, 1.0], None, attribution.saliency, **options)
        >>> options["ascent_steps"] = 5
        >>> maximum = quality.max_sensitivity(model, [1.0, 1.0], None, attribution.saliency, **options)
        >>> bool(sampled <= maximum), round(float(maximum), 4)  # 0.2 / sqrt(5)
        (True, 0.0894)
    """
    options = key, n_samples, batch_size, ascent_steps
    return _check_and_measure("sensitivity", "uniform", radius, model, x, target, explain, *options)


def average_sensitivity(
    model: Model,
    x: PyTree,
    target: Target,
    explain: Explain,
    *,
    key: Key,
    radius: float = 0.02,
    n_samples: int = 10,
    batch_size: int | None = None,
) -> jax.Array:
    """Average sensitivity: the mean relative change of the attributions within a distance of the example.

    `mean ||a(x + e) - a(x)|| / ||a(x)||` over random e with each element uniform in [-radius, radius].

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        target: an output index, None, or a function; see `attribution.saliency`.
        explain: a method, as in `max_sensitivity`.
        key: a random key; sample i is drawn with `jax.random.fold_in(key, i)`.
        radius: the largest change of an element, above 0, in units of `x`.
        n_samples: number of samples, at least 1.
        batch_size: how many changed examples are explained at once. The result does not depend on it.

    Returns:
        A scalar, as of `max_sensitivity`.

    Raises:
        TypeError: as `max_sensitivity` raises.
        ValueError: as `max_sensitivity` raises.

    References:
        Bhatt, Weller and Moura, "Evaluating and aggregating feature-based model explanations", 2020,
        arXiv:2005.00631.

    Example:
        >>> import jax
        >>> from jaxnn import attribution, quality
        >>> model = lambda x: 2 * x[0] + x[1]  # a linear model has one gradient
        >>> options = {"key": jax.random.key(0)}
        >>> float(quality.average_sensitivity(model, [1.0, 1.0], None, attribution.saliency, **options))
        0.0
    """
    options = key, n_samples, batch_size, None
    return _check_and_measure("sensitivity", "uniform", radius, model, x, target, explain, *options)


def local_lipschitz(
    model: Model,
    x: PyTree,
    target: Target,
    explain: Explain,
    *,
    key: Key,
    noise: float = 0.1,
    n_samples: int = 200,
    ascent_steps: int = 0,
    batch_size: int | None = None,
) -> jax.Array:
    """Local Lipschitz constant: the largest change of the attributions per change of the input.

    `max ||a(x') - a(x)|| / ||x' - x||` over random `x' ~ N(x, noise^2)`.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        target: an output index, None, or a function; see `attribution.saliency`.
        explain: a method, as in `max_sensitivity`.
        key: a random key; sample i is drawn with `jax.random.fold_in(key, i)`.
        noise: the standard deviation of the change of an element, above 0, in units of `x`.
        n_samples: number of samples, at least 1.
        ascent_steps: steps of gradient ascent, as in `max_sensitivity`, within 3 standard deviations.
        batch_size: how many changed examples are explained at once. The result does not depend on it.

    Returns:
        A scalar, in units of the attributions per unit of the input; the lower the more stable.

    Raises:
        TypeError: as `max_sensitivity` raises.
        ValueError: as `max_sensitivity` raises.

    References:
        Alvarez-Melis and Jaakkola, "On the robustness of interpretability methods", 2018, arXiv:1806.08049,
        equation 2.

    Example:
        >>> import jax
        >>> from jaxnn import attribution, quality
        >>> model, options = lambda x: x[0] ** 2, {"key": jax.random.key(0)}
        >>> round(float(quality.local_lipschitz(model, [1.0], None, attribution.saliency, **options)), 3)
        2.0
    """
    options = key, n_samples, batch_size, ascent_steps
    return _check_and_measure("lipschitz", "normal", noise, model, x, target, explain, *options)


def relative_input_stability(
    model: Model,
    x: PyTree,
    target: Target,
    explain: Explain,
    *,
    key: Key,
    radius: float = 0.02,
    n_samples: int = 10,
    ascent_steps: int = 0,
    same_prediction: bool = True,
    batch_size: int | None = None,
) -> jax.Array:
    """Relative input stability: the largest relative change of attributions per relative change of the input.

    `max ||(a(x) - a(x')) / a(x)|| / max(||(x - x') / x||, 1e-6)`, element by element, over random x' with
    each element uniform within the radius. An element of 0 is divided by 1e-6 instead: with many of them,
    such as a black background, they decide the value.

    Args:
        model: a callable of one example.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        target: an output index, None, or a function; see `attribution.saliency`.
        explain: a method, as in `max_sensitivity`.
        key: a random key; sample i is drawn with `jax.random.fold_in(key, i)`.
        radius: the largest change of an element, above 0, in units of `x`.
        n_samples: number of samples, at least 1.
        ascent_steps: steps of gradient ascent, as in `max_sensitivity`.
        same_prediction: whether to leave out samples of another prediction, where the output is an array.
        batch_size: how many changed examples are explained at once. The result does not depend on it.

    Returns:
        A scalar, 0 or more, the lower the more stable; NaN where all samples are left out.

    Raises:
        TypeError: as `max_sensitivity` raises.
        ValueError: as `max_sensitivity` raises.

    References:
        Agarwal and others, "Rethinking stability for attribution-based explanations", 2022,
        arXiv:2203.06877, equation 2.

    Example:
        >>> import jax
        >>> from jaxnn import attribution, quality
        >>> model, options = lambda x: x[0] ** 2, {"key": jax.random.key(0)}
        >>> found = quality.relative_input_stability(model, [1.0], None, attribution.saliency, **options)
        >>> round(float(found), 3)
        1.0
    """
    same = _checks.check_flag("same_prediction", same_prediction)
    options = key, n_samples, batch_size, ascent_steps
    return _check_and_measure("relative", "uniform", radius, model, x, target, explain, *options, same=same)


def _check_and_measure(
    measure: Measure,
    noise: Noise,
    size: float,
    model: Model,
    x: PyTree,
    target: Target,
    explain: Explain,
    key: Key,
    n_samples: int,
    batch_size: int | None,
    ascent_steps: int | None,
    *,
    same: bool = False,
) -> jax.Array:
    sampling = check_sampling(key, n_samples, batch_size, 16)
    size = _checks.check_real("radius" if noise == "uniform" else "noise", size, above=0)
    is_mean = ascent_steps is None
    steps = 0 if ascent_steps is None else _checks.check_integer("ascent_steps", ascent_steps, at_least=0)
    model, x, target, explain = prepare_explain(model, x, target, explain)
    same = same and hasattr(output_shape(model, x), "shape")
    draw = _Draw(noise, size, sampling.n_samples)
    explain = at_input(explain, model, target)
    options = {"measure": measure, "steps": steps, "same": same, "batch": sampling.batch_size}
    return _measure(explain, model, x, key, draw=draw, is_mean=is_mean, **options)


class _Draw(NamedTuple):
    """Random changes of an example; hashable, as a static argument."""

    noise: Noise
    size: float
    n_samples: int

    @property
    def radius(self) -> float:
        """How far from the example an element may be moved by ascent."""
        return self.size if self.noise == "uniform" else _SIGMAS * self.size


def changed(key: Key, x: PyTree, noise: Noise, size: float | jax.Array) -> PyTree:
    """The example with noise on each element, uniform in [-size, size] or normal."""
    sample = jax.random.normal if noise == "normal" else partial(jax.random.uniform, minval=-1, maxval=1)
    leaves, structure = jax.tree.flatten(x)
    keys = [key] if len(leaves) == 1 else jax.random.split(key, len(leaves))
    drawn = [
        draw_wide(sample, own, leaf.shape, wide_dtype(leaf.dtype))
        for own, leaf in zip(keys, leaves, strict=True)
    ]
    moved = [
        (widen(leaf) + jnp.asarray(size, each.dtype) * each).astype(leaf.dtype)
        for leaf, each in zip(leaves, drawn, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def change(measure: Measure, a: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """One of the measures, of the attributions a at x and b at y, vectors `(n,)`."""
    if measure == "sensitivity":
        size = norm(a)
        return jnp.where(size > 0, norm(b - a) / jnp.where(size > 0, size, 1), jnp.nan)
    if measure == "lipschitz":
        distance = norm(y - x)
        return jnp.where(distance > 0, norm(b - a) / jnp.where(distance > 0, distance, 1), 0)
    relative = norm((a - b) / jnp.where(a == 0, _TINY, a))
    return relative / jnp.maximum(norm((x - y) / jnp.where(x == 0, _TINY, x)), _TINY)


@jax.jit(static_argnames=("measure", "draw", "steps", "same", "is_mean", "batch"))
def _measure(
    explain: Callable[[PyTree], PyTree],
    model: Model,
    x: PyTree,
    key: Key,
    *,
    measure: Measure,
    draw: _Draw,
    steps: int,
    same: bool,
    is_mean: bool,
    batch: Batch,
) -> jax.Array:
    start, at = flat(explain(x)), flat(x)
    prediction = jnp.argmax(call(model, x)) if same else None

    def value(moved: PyTree) -> jax.Array:
        found = change(measure, start, flat(explain(moved)), at, flat(moved))
        return jnp.where(jnp.argmax(call(model, moved)) == prediction, found, -jnp.inf) if same else found

    def sample(index: jax.Array) -> jax.Array:
        return value(changed(jax.random.fold_in(key, index), x, draw.noise, draw.size))

    values = chunked_map(sample, draw.n_samples, examples_at_once(batch, explain, x))
    result = jnp.mean(values) if is_mean else jnp.max(values)
    if steps:
        best = changed(jax.random.fold_in(key, jnp.argmax(values)), x, draw.noise, draw.size)
        result = jnp.maximum(result, _climb(value, best, x, draw.radius, steps))
    result = jnp.where(jnp.isneginf(result), jnp.nan, result)  # each sample was left out
    return result.astype(dtype_of(lambda x: jax.tree.leaves(explain(x))[0], x))


def _climb(
    value: Callable[[PyTree], jax.Array], start: PyTree, x: PyTree, radius: float, steps: int
) -> jax.Array:
    """The largest value on a path of gradient ascent within a radius of each element of `x`."""

    def clip(moved: PyTree) -> PyTree:
        return jax.tree.map(
            lambda m, leaf: jnp.clip(m, leaf - radius, leaf + radius).astype(leaf.dtype), moved, x
        )

    def step(carry: tuple[PyTree, jax.Array], size: jax.Array) -> tuple[tuple[PyTree, jax.Array], None]:
        moved, best = carry
        found, gradient = jax.value_and_grad(value)(moved)
        # A method without a gradient here, such as one of a kinked network, stays where it is.
        moved = jax.tree.map(
            lambda m, g: m + size.astype(m.dtype) * jnp.sign(jnp.nan_to_num(g)), moved, gradient
        )
        return (clip(moved), jnp.fmax(best, found)), None

    start = clip(start)
    # Half the width at first, and ever smaller steps.
    sizes = radius * jnp.linspace(1, 1 / steps, steps)
    (moved, best), _ = scan(step, (start, value(start)), sizes)
    return jnp.fmax(best, value(lax.stop_gradient(moved)))
