"""Changes that know nothing of the model's slopes: noise, blur, less contrast. What an attack must beat."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import vary_like
from jaxnn.attacks._climb import best_of
from jaxnn.attacks._common import Attack, Bounds, Model, Task, prepare
from jaxnn.attacks._criteria import Label, margin_of
from jaxnn.attacks._geometry import confine, distance, uniform_in_ball
from jaxnn.attacks._search import constant, finish

_BISECTIONS = 10


def noise(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array,
    kind: str = "uniform",
    n_samples: int = 1,
) -> Attack:
    """Random changes, of which the nearest that succeeds is kept.

    `x' = clip(x + e)`, `e` uniform in the ball, or of a normal direction and of size `epsilon`.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far the input may be moved, in that norm, at least 0.
        bounds: `(low, high)` of the input.
        targeted: whether `label` is the wanted one.
        key: a JAX random key. Sample `s` is drawn from `jax.random.fold_in(key, s)`.
        kind: `"uniform"` or `"gaussian"`.
        n_samples: how many are tried, at least 1.

    Returns:
        An `Attack`; `queries` counts one for each sample.

    Raises:
        TypeError: an argument of another type.
        ValueError: there is no such kind, `n_samples` is below 1, or as `fgsm` raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> one = lambda n: attacks.noise(
        ...     model, [0.6, 0.5], 0, epsilon=0.1, key=jax.random.key(0), n_samples=n)
        >>> bool(one(1).success), bool(one(50).success)
        (False, True)
    """
    _checks.check_option("kind", kind, ("uniform", "gaussian"))
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=1)
    task, restored = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, needs_key=True,
        targeted=targeted, needs_epsilon=True,
    )  # fmt: skip
    return restored(_noise(task, key, norm=norm, targeted=targeted, kind=kind, n_samples=n_samples))


@jax.jit(static_argnames=("norm", "targeted", "kind", "n_samples"))
def _noise(task: Task, key: Any, *, norm: str, targeted: bool, kind: str, n_samples: int) -> Attack:
    fixed = constant(task)
    margin, x = margin_of(task.label, targeted), fixed.x

    def one(sample: Any) -> Attack:
        own_key = jax.random.fold_in(key, sample)
        if kind == "uniform":
            change = uniform_in_ball(own_key, x.shape, norm, fixed.epsilon, x.dtype)
        else:
            change = jax.random.normal(own_key, x.shape, x.dtype)
            change *= fixed.epsilon / distance(change, norm)
        found = confine(x, x + change, norm, fixed.epsilon, fixed.bounds)
        return finish(task, found, margin, norm, 0)

    return best_of(one, n_samples, task)


def contrast(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any = None,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array | None = None,
    steps: int = 20,
) -> Attack:
    """As little less contrast as changes the answer.

    `x(t) = x + t (gray - x)`, `gray` being the middle of the bounds: the smallest `t` of `steps` in (0, 1]
    that succeeds, brought nearer by bisection.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: the example, an array or a pytree of arrays, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far the input may be moved, in that norm: what goes further is projected onto the ball;
            None for no such limit.
        bounds: `(low, high)` of the input, finite.
        targeted: whether `label` is the wanted one.
        key: not used; here, so that all attacks are called alike.
        steps: how many amounts are tried before the bisection, at least 1.

    Returns:
        An `Attack`; with no contrast at all, as far as `epsilon` lets it, where it failed.

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
    steps = _checks.check_integer("steps", steps, at_least=1)
    task, restored = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, targeted=targeted
    )
    for i, bound in enumerate(task.bounds):
        _checks.check_finite(f"bounds[{i}]", bound)
    return restored(_contrast(task, norm=norm, targeted=targeted, steps=steps))


@jax.jit(static_argnames=("norm", "targeted", "steps"))
def _contrast(task: Task, *, norm: str, targeted: bool, steps: int) -> Attack:
    fixed = constant(task)
    gray = fixed.low + (fixed.high - fixed.low) / 2
    return _search(task, lambda t: fixed.x + t * (gray - fixed.x), norm, targeted, steps)


def blur(
    model: Model,
    x: Any,
    label: Label,
    *,
    norm: str = "linf",
    epsilon: Any = None,
    bounds: Bounds = (0.0, 1.0),
    targeted: bool = False,
    key: jax.Array | None = None,
    shape: tuple[int, ...] | None = None,
    widest: Any = None,
    steps: int = 20,
) -> Attack:
    """As little Gaussian blur as changes the answer.

    `x(t)` is the image under a Gaussian of standard deviation `t * widest` pixels, cut off at the edges:
    the smallest `t` of `steps` in (0, 1] that succeeds, brought nearer by bisection.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        x: an image `(h, w)` or `(h, w, c)`, or one laid flat, within the bounds.
        label: an integer, or a function from the output to a margin; see `fgsm`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        epsilon: how far the input may be moved, in that norm: what goes further is projected onto the ball;
            None for no such limit.
        bounds: `(low, high)` of the input.
        targeted: whether `label` is the wanted one.
        key: not used; here, so that all attacks are called alike.
        shape: of the image, where `x` is one laid flat; None for the shape of `x`, or for a square.
        widest: standard deviation of the widest blur, in pixels, above 0; None for half the longer side.
        steps: how many widths are tried before the bisection, at least 1.

    Returns:
        An `Attack`; at the widest blur, as far as `epsilon` lets it, where it failed.

    Raises:
        TypeError: an argument of another type.
        ValueError: `x` is no image, `widest` is not above 0, `steps` is below 1, or as `fgsm` raises.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> dot = jnp.zeros((5, 5)).at[2, 2].set(1.0)
        >>> model = lambda image: jnp.stack([image[2, 2], 0.5])  # is the middle bright?
        >>> bool(attacks.blur(model, dot, 0).success)
        True
    """
    steps = _checks.check_integer("steps", steps, at_least=1)
    task, restored = prepare(
        model, x, label, norm=norm, epsilon=epsilon, bounds=bounds, key=key, targeted=targeted
    )
    shape = _image_shape(task.x.shape, shape)
    width = _checks.check_float_array("widest", max(shape[:2]) / 2 if widest is None else widest)
    _checks.check_shape("widest", width, (), "one number of pixels")
    if _checks.known_false((width > 0) & jnp.isfinite(width)):
        raise ValueError(f"`widest` must be above 0; got {widest!r}")
    return restored(_blur(task, width, norm=norm, targeted=targeted, shape=shape, steps=steps))


@jax.jit(static_argnames=("norm", "targeted", "shape", "steps"))
def _blur(
    task: Task, widest: Any, *, norm: str, targeted: bool, shape: tuple[int, ...], steps: int
) -> Attack:
    fixed = constant(task)
    image = fixed.x.reshape(shape)

    def blurred(t: jax.Array) -> jax.Array:
        across = [_blur_matrix(n, t * widest, image.dtype) for n in shape[:2]]
        return jnp.einsum("ij,kl,jl...->ik...", *across, image).reshape(fixed.x.shape)

    return _search(task, blurred, norm, targeted, steps)


def _blur_matrix(size: int, width: jax.Array, dtype: Any) -> jax.Array:
    """The weights of a Gaussian around each place, each row summing to 1."""
    apart = np.square(np.arange(size)[:, None] - np.arange(size)).astype(np.float32)
    wide = jnp.maximum(width.astype(jnp.promote_types(dtype, jnp.float32)), 1e-3)  # 0 is no blur
    return jax.nn.softmax(-apart / (2 * wide * wide), axis=1).astype(dtype)


def _image_shape(given: tuple[int, ...], shape: Any) -> tuple[int, ...]:
    if shape is None and len(given) in (2, 3):
        return given
    shape = _checks.check_image_shape("shape", shape, int(np.prod(given)), "those of `x`")
    if len(shape) not in (2, 3):
        raise ValueError(f"`shape` must be (h, w) or (h, w, c); got {shape}")
    return shape


def _search(
    task: Task, path: Callable[[jax.Array], jax.Array], norm: str, targeted: bool, steps: int
) -> Attack:
    """The first success along a path from `x`, at 0, to its end, at 1; its end where there is none."""
    fixed = constant(task)
    margin = margin_of(fixed.label, targeted)
    x = fixed.x
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def at(t: jax.Array) -> jax.Array:
        return confine(x, path(t.astype(x.dtype)), norm, fixed.epsilon, fixed.bounds)

    def succeeds(t: jax.Array) -> jax.Array:
        return margin(fixed.model(at(t))) > 0

    def look(first: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        return jnp.where(succeeds(t) & (t < first), t, first), None

    grid = jnp.linspace(0, 1, steps + 1, dtype=wide)
    start = vary_like(jnp.asarray(jnp.inf, wide), task)
    first = lax.scan(look, start, grid)[0]
    anywhere = jnp.isfinite(first)
    high = jnp.where(anywhere, first, 1)
    low = jnp.where(anywhere, jnp.maximum(high - 1 / steps, 0), 1)  # nothing to bisect

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = (ends[0] + ends[1]) / 2
        success = succeeds(middle)
        return jnp.where(success, ends[0], middle), jnp.where(success, middle, ends[1])

    high = lax.fori_loop(0, _BISECTIONS, halve, (low, high))[1]
    return finish(task, at(high), margin_of(task.label, targeted), norm, steps + 1 + _BISECTIONS)
