"""Baselines without gradients: noise, contrast reduction and blur. A useful attack must beat them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jax.typing import DTypeLike

from jaxnn import _checks
from jaxnn._engine.loops import fori_loop, scan
from jaxnn._precision import draw_wide, wide_dtype
from jaxnn._typing import Key, Model, NoiseKind, Norm, PyTree, Scalar
from jaxnn.attacks._climb import best_of, check_steps, start_of
from jaxnn.attacks._common import Attack, Bounds, Task, final_result, prepare
from jaxnn.attacks._criteria import Label
from jaxnn.attacks._geometry import distance

_BISECTIONS = 10


def noise(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    epsilon: Scalar,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key,
    kind: NoiseKind = "uniform",
    n_samples: int = 1,
) -> Attack:
    """Random noise: the nearest of several samples that succeeds.

    `x' = clip(x + e)`, with `e` uniform in the ball, or of a normal direction and of size `epsilon`.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of the ball around `x` in that norm, at least 0.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: a JAX random key. Sample `s` uses `jax.random.fold_in(key, s)`.
        kind: `"uniform"` or `"gaussian"`.
        n_samples: number of samples, at least 1.

    Returns:
        An `Attack`; `queries` counts one per sample.

    Raises:
        TypeError: an argument of another type.
        ValueError: there is no such kind, `n_samples` is below 1, or as `fgsm` raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> sample = lambda n: attacks.noise(
        ...     model, [0.6, 0.5], 0, epsilon=0.1, key=jax.random.key(0), n_samples=n)
        >>> bool(sample(1).success), bool(sample(50).success)
        (False, True)
    """
    _checks.check_option("kind", kind, get_args(NoiseKind))
    n_samples = check_steps(n_samples, "n_samples")
    task = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, needs_key=True,
        targeted=targeted, needs_epsilon=True,
    )  # fmt: skip
    return _noise(task, key, kind=kind, n_samples=n_samples)


@jax.jit(static_argnames=("kind", "n_samples"))
def _noise(task: Task, key: Key, *, kind: NoiseKind, n_samples: int) -> Attack:
    fixed = lax.stop_gradient(task)
    x = fixed.x

    def sample(number: jax.Array | int) -> Attack:
        if kind == "uniform":
            return final_result(task, start_of(fixed, key, number), 0)
        change = draw_wide(jax.random.normal, jax.random.fold_in(key, number), x.shape, x.dtype)
        change *= fixed.epsilon / distance(change, fixed.norm)
        return final_result(task, fixed.confine(x + change), 0)

    return best_of(sample, n_samples)


def contrast(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    epsilon: Scalar | None = None,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    steps: int = 20,
) -> Attack:
    """Contrast reduction: the smallest one that succeeds.

    `x(t) = x + t (gray - x)`, with `gray` in the middle of the bounds: the smallest `t` of a grid of `steps`
    in (0, 1] that succeeds, refined by bisection.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of a ball around `x` in that norm, onto which larger changes are projected; None for
            no limit.
        bounds: `(low, high)` of the input, finite; see `fgsm`.
        targeted: whether `label` is the target class.
        key: unused; accepted so that all attacks can be called alike.
        steps: size of the grid, at least 1.

    Returns:
        An `Attack`; after a failure, at no contrast, within `epsilon`.

    Raises:
        TypeError: an argument of another type.
        ValueError: the bounds are not finite, `steps` is below 1, or as `fgsm` raises.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], 0.75])
        >>> round(float(attacks.contrast(model, [1.0], 0).distance), 2)
        0.25
    """
    steps = check_steps(steps)
    task = prepare(model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, targeted=targeted)
    for i, bound in enumerate(task.bounds):
        _checks.check_finite(f"bounds[{i}]", bound)
    return _search(task, Partial(_reduced_contrast), steps)


def _reduced_contrast(task: Task, t: jax.Array) -> jax.Array:
    gray = task.low + (task.high - task.low) / 2
    return task.x + t * (gray - task.x)


def blur(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm = "linf",
    epsilon: Scalar | None = None,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: Key | None = None,
    shape: Sequence[int] | None = None,
    max_sigma: Scalar | None = None,
    steps: int = 20,
) -> Attack:
    """Gaussian blur: the smallest one that succeeds.

    `x(t)` is the image under a Gaussian of standard deviation `t * max_sigma` pixels, truncated at the edges:
    the smallest `t` of a grid of `steps` in (0, 1] that succeeds, refined by bisection.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: an image `(h, w)` or `(h, w, c)`, or a flattened one, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: radius of a ball around `x` in that norm, onto which larger changes are projected; None for
            no limit.
        bounds: `(low, high)` of the input; see `fgsm`.
        targeted: whether `label` is the target class.
        key: unused; accepted so that all attacks can be called alike.
        shape: of the image, for a flattened `x`; None for the shape of `x`, or a square.
        max_sigma: largest standard deviation, in pixels, above 0; None for half the longer side.
        steps: size of the grid, at least 1.

    Returns:
        An `Attack`; after a failure, at the largest blur, within `epsilon`.

    Raises:
        TypeError: an argument of another type.
        ValueError: `x` is no image, `max_sigma` is not above 0, `steps` is below 1, or as `fgsm` raises.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> dot = jnp.zeros((5, 5)).at[2, 2].set(1.0)
        >>> model = lambda image: jnp.stack([image[2, 2], 0.5])  # is the middle bright?
        >>> bool(attacks.blur(model, dot, 0).success)
        True
    """
    steps = check_steps(steps)
    task = prepare(model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, targeted=targeted)
    shape = image_shape_of("shape", shape, task.x)
    sigma = _checks.check_number("max_sigma", max(shape[:2]) / 2 if max_sigma is None else max_sigma, above=0)
    return _search(task, Partial(_Blurred(shape), sigma), steps)


class _Blurred(NamedTuple):
    """The image under a Gaussian; its shape is static."""

    shape: tuple[int, ...]

    def __call__(self, max_sigma: jax.Array, task: Task, t: jax.Array) -> jax.Array:
        image = task.x.reshape(self.shape)
        matrices = [_blur_matrix(n, t * max_sigma, image.dtype) for n in self.shape[:2]]
        return jnp.einsum("ij,kl,jl...->ik...", *matrices, image).reshape(task.x.shape)


def _blur_matrix(size: int, sigma: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The weights of a Gaussian around each pixel; each row sums to 1."""
    squares = np.square(np.arange(size)[:, None] - np.arange(size)).astype(np.float32)
    wide = jnp.maximum(sigma.astype(wide_dtype(dtype)), 1e-3)  # 0 is no blur
    return jax.nn.softmax(-squares / (2 * wide * wide), axis=1).astype(dtype)


def image_shape_of(name: str, shape: Sequence[int] | None, x: jax.Array) -> tuple[int, ...]:
    """Return the shape of an image: the argument, that of `x`, or a square; or raise."""
    if shape is None and x.ndim in (2, 3):
        return x.shape
    sizes = _checks.check_image_shape(name, shape, x.size, "the number of elements of `x`")
    if len(sizes) not in (2, 3):
        raise ValueError(f"`{name}` must be (h, w) or (h, w, c); got {sizes}")
    return sizes


@jax.jit(static_argnames="steps")
def _search(task: Task, path: Callable[[Task, jax.Array], jax.Array], steps: int) -> Attack:
    """The first success along a path from `x`, at 0, to its end, at 1; its end if there is none."""
    fixed = lax.stop_gradient(task)
    wide = wide_dtype(fixed.x.dtype)

    def at(t: jax.Array) -> jax.Array:
        return fixed.confine(path(fixed, t.astype(fixed.x.dtype)))

    def visit(first: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        return jnp.where(fixed.succeeds(at(t)) & (t < first), t, first), None

    grid = jnp.linspace(0, 1, steps + 1, dtype=wide)
    first, _ = scan(visit, jnp.asarray(jnp.inf, wide), grid, hoist=False)
    anywhere = jnp.isfinite(first)
    high = jnp.where(anywhere, first, 1)
    low = jnp.where(anywhere, jnp.maximum(high - 1 / steps, 0), 1)  # nothing to bisect

    def halve(_: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = (ends[0] + ends[1]) / 2
        success = fixed.succeeds(at(middle))
        return jnp.where(success, ends[0], middle), jnp.where(success, middle, ends[1])

    high = fori_loop(0, _BISECTIONS, halve, (low, high))[1]
    return final_result(task, at(high), steps + 1 + _BISECTIONS)
