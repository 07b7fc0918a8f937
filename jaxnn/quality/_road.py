"""ROAD: removal of pixels by imputation from their neighbors, so that the mask itself says nothing."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._model import as_example, as_model, call, output_shape, prepare
from jaxnn._precision import float_dtype, widen
from jaxnn._typing import Key, Labels, Model
from jaxnn.attribution._masks import examples_at_once
from jaxnn.quality._common import check_attributions, nan_where
from jaxnn.quality._similarity import places

# A pixel beside, and one at a corner.
_WEIGHTS = np.array([[1 / 12, 1 / 6, 1 / 12], [1 / 6, 0, 1 / 6], [1 / 12, 1 / 6, 1 / 12]])
_FRACTIONS = tuple(i / 100 for i in range(1, 100, 2))


class Road(NamedTuple):
    """The prediction while pixels are imputed.

    Attributes:
        fractions: `(m,)`, shares of imputed pixels.
        correct: `(m,)`, 1 where the label is the largest output, else 0: over examples, the mean is the
            accuracy.
        outputs: `(m,)`, the output of the label.
    """

    fractions: jax.Array
    correct: jax.Array
    outputs: jax.Array


def road(
    model: Model,
    x: jax.Array,
    label: Labels,
    attributions: jax.Array,
    *,
    key: Key,
    fractions: Sequence[float] = _FRACTIONS,
    most_relevant_first: bool = True,
    noise: float = 0.01,
    batch_size: int | None = None,
) -> Road:
    """ROAD (remove and debias): the prediction while the pixels of the largest attributions are imputed.

    A removed pixel is the weighted mean of its 8 neighbors, 1/6 for those beside it and 1/12 for those at its
    corners, plus `N(0, noise^2)`. All removed pixels are the solution of one system of linear equations.
    Unlike a baseline, the imputed pixels do not show where the mask is. The faster the accuracy falls, the
    better the order; where the least relevant pixels are first, the slower.

    Args:
        model: a callable of one example, with an output `(n,)`.
        x: an image `(h, w)` or `(h, w, channels)`; pixels are removed with all their channels.
        label: the index of the explained output.
        attributions: of the shape of `x`, or `(h, w)`; those of the channels are added.
        key: a random key for the noise.
        fractions: the shares of pixels to impute, each in (0, 1); the number of pixels is rounded down, and
            one is kept.
        most_relevant_first: whether to remove the largest attributions first, or else the smallest.
        noise: the standard deviation of the noise, at least 0, in units of `x`.
        batch_size: how many changed images are evaluated at once. None: at most 64, as in
            `attribution.integrated_gradients`. The result does not depend on it.

    Returns:
        A `Road`; take the mean over examples for the accuracy.

    Raises:
        TypeError: `model` is not callable, `x` is not one array of floating-point numbers, `key` is not a
            key, or an argument is of another type.
        ValueError: another number of axes, attributions of another shape or not finite, or an index or number
            out of range.

    References:
        Rong and others, "A consistent and efficient evaluation strategy for attribution methods", 2022,
        arXiv:2202.00449.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import quality
        >>> model = lambda image: jnp.stack([image[:2].sum(), image[2:].sum()])
        >>> image = jnp.zeros((4, 4)).at[0, 1].set(1.0)
        >>> road = quality.road(model, image, 0, image, key=jax.random.key(0), fractions=(0.1,), noise=0.0)
        >>> image[0, 1].tolist(), road.outputs.round(4).tolist()
        (1.0, [0.0])
    """
    batch = check_batch_size(batch_size, 64)
    _checks.check_key("key", key)
    noise = _checks.check_real("noise", noise, at_least=0)
    first = _checks.check_flag("most_relevant_first", most_relevant_first)
    model, x = as_model(model), as_example("x", x)
    if not isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError("`x` must be one array of floating-point numbers, an image whose pixels are imputed")
    if x.ndim not in (2, 3) or x.size == 0:
        raise ValueError(f"`x` must have shape (h, w) or (h, w, channels); got {x.shape}")
    _checks.check_finite("x", x)
    shape = output_shape(model, x)
    if getattr(shape, "ndim", None) != 1:
        raise ValueError(f"`model` must have an output of shape (n,), one number per class; got {shape}")
    model, x, index = prepare(model, x, label, "label", differentiable=False)
    if not isinstance(index, tuple):
        raise TypeError(f"`label` must be the index of an output; got {label!r}")
    attributions = as_example("attributions", attributions)
    like = x[..., 0] if x.ndim == 3 and getattr(attributions, "ndim", 0) == 2 else x
    attributions = check_attributions(attributions, like)
    shares = _check_fractions(fractions, x.shape[0] * x.shape[1])
    return _road(model, x, index[0], attributions, key, noise, counts=shares, first=first, batch=batch)


def _check_fractions(fractions: Sequence[float], pixels: int) -> tuple[tuple[float, int], ...]:
    """Each share with its number of pixels."""
    if not isinstance(fractions, Sequence | np.ndarray) or len(fractions) == 0:
        raise TypeError(f"`fractions` must be a sequence of numbers; got {fractions!r}")
    numbers = [_checks.check_real(f"fractions[{i}]", f, above=0, below=1) for i, f in enumerate(fractions)]
    return tuple((share, min(int(pixels * share + 1e-6), pixels - 1)) for share in numbers)


@jax.jit(static_argnames=("counts", "first", "batch"))
def _road(
    model: Model,
    x: jax.Array,
    label: jax.Array,
    attributions: jax.Array,
    key: Key,
    noise: jax.Array,
    *,
    counts: tuple[tuple[float, int], ...],
    first: bool,
    batch: Batch,
) -> Road:
    shares, numbers = zip(*counts, strict=True)
    image = widen(jnp.atleast_3d(x))
    total = widen(attributions).reshape(*x.shape[:2], -1).sum(-1).ravel()
    place = places(-total if first else total)

    def evaluate(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        removed = (place < jnp.asarray(numbers)[index]).reshape(x.shape[:2])
        values = impute(image, removed)
        values += jnp.asarray(noise, values.dtype) * jax.random.normal(
            jax.random.fold_in(key, index), values.shape, values.dtype
        )
        imputed = jnp.where(removed[..., None], values, image).reshape(x.shape).astype(x.dtype)
        output = call(model, imputed)
        return jnp.argmax(output) == label % output.size, output[label]

    correct, outputs = chunked_map(evaluate, len(counts), examples_at_once(batch, model, x))
    dtype = float_dtype(outputs.dtype)
    found = correct.astype(dtype), outputs.astype(dtype)
    # An order by NaN means nothing.
    return Road(jnp.asarray(shares, dtype), *nan_where(~jnp.all(jnp.isfinite(total)), found))


def impute(image: jax.Array, removed: jax.Array) -> jax.Array:
    """The image `(h, w, channels)`, its `removed` pixels `(h, w)` the weighted means of their neighbors.

    Each removed value is `sum_q w_q v_q / sum_q w_q` over the neighbors q inside of the image, removed ones
    included: a symmetric positive definite system, while one pixel is known, for conjugate gradients.
    """
    removed = removed[..., None]
    total = _neighbors(jnp.ones_like(image))  # the weights of the neighbors inside of the image

    def system(values: jax.Array) -> jax.Array:
        return jnp.where(removed, total * values - _neighbors(jnp.where(removed, values, 0)), values)

    known = jnp.where(removed, 0, image)
    right = jnp.where(removed, _neighbors(known), image)
    # Begin near the solution: with the mean of what is known.
    mean = jnp.sum(known, (0, 1)) / jnp.maximum(jnp.sum(~removed, (0, 1)), 1)
    start = jnp.where(removed, mean, image)
    solution, _ = jax.scipy.sparse.linalg.cg(
        system,
        right,
        start,
        tol=1e-6,
        maxiter=4 * sum(image.shape[:2]),
        M=lambda v: jnp.where(removed, v / total, v),
    )
    return solution


def _neighbors(image: jax.Array) -> jax.Array:
    """The weighted sum of the 8 neighbors of each pixel."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    h, w, _ = image.shape
    return sum(  # type: ignore[return-value]
        float(_WEIGHTS[i, j]) * lax.slice(padded, (i, j, 0), (i + h, j + w, padded.shape[2]))
        for i in range(3)
        for j in range(3)
        if _WEIGHTS[i, j]
    )
