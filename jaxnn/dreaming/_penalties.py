"""Penalties: regularizers of the image, subtracted from the objective of a dream.

A penalty is called as `penalty(image)` on the image before its transforms, and returns a scalar. A plain
function is one, too. All are means over the elements of the image, so that a weight means the same for any
size.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn._prior import Prior, check_prior
from jaxnn._typing import Scalar
from jaxnn.dreaming._part import Part, check_finite_array, check_is_image


def l1(weight: Scalar = 1.0, *, center: Scalar = 0.0) -> Part:
    """L1 penalty: the mean absolute distance of the elements from `center`: `weight * mean |x_i - center|`.

    Args:
        weight: in units of the objective per unit of the input; at least 0.
        center: the value without cost, such as that of the background.

    Returns:
        A penalty, of an input of any shape.

    Raises:
        ValueError: `weight` is below 0.
        TypeError: one is not a number.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.l1(2.0)(jnp.array([1.0, -3.0])))
        4.0
    """
    return Part(_l1, (), (_check_weight(weight), _checks.check_number("center", center)))


def _l1(image: jax.Array, weight: jax.Array, center: jax.Array) -> jax.Array:
    return weight.astype(image.dtype) * jnp.mean(jnp.abs(image - center.astype(image.dtype)))


def l2(weight: Scalar = 1.0, *, center: Scalar = 0.0) -> Part:
    """L2 penalty: the mean squared distance of the elements from `center`, `weight * mean (x_i - center)^2`.

    Args:
        weight: in units of the objective per squared unit of the input; at least 0.
        center: the value without cost.

    Returns:
        A penalty, of an input of any shape.

    Raises:
        ValueError: `weight` is below 0.
        TypeError: one is not a number.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.l2(2.0)(jnp.array([1.0, -3.0])))
        10.0
    """
    return Part(_distance, (), (_check_weight(weight), _checks.check_number("center", center)))


def distance(mean: ArrayLike, weight: Scalar = 1.0) -> Part:
    """Distance penalty: the mean squared distance from an image, such as the average of the data.

    `weight * mean (x_i - m_i)^2`.

    Args:
        mean: of the shape of the dream.
        weight: in units of the objective per squared unit of the input; at least 0.

    Returns:
        A penalty.

    Raises:
        ValueError: `weight` is below 0, or `mean` not finite; (when called) the image has another shape.
        TypeError: one does not hold numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.distance([1.0, 1.0])(jnp.array([1.0, 3.0])))
        2.0
    """
    return Part(_distance_to_image, (), (_check_weight(weight), check_finite_array("mean", mean)))


def _distance_to_image(image: jax.Array, weight: jax.Array, mean: jax.Array) -> jax.Array:
    _checks.check_shape("mean", mean, image.shape, "that of the dream")
    return _distance(image, weight, mean)


def _distance(image: jax.Array, weight: jax.Array, center: jax.Array) -> jax.Array:
    return weight.astype(image.dtype) * jnp.mean((image - center.astype(image.dtype)) ** 2)


def total_variation(weight: Scalar = 1.0) -> Part:
    """Total variation: the mean absolute difference of neighboring pixels.

    `weight / n * (sum |x[i + 1, j] - x[i, j]| + sum |x[i, j + 1] - x[i, j]|)`, of `n` elements.

    Args:
        weight: in units of the objective per unit of the input; at least 0.

    Returns:
        A penalty, of an image `(h, w)` or `(h, w, c)`.

    Raises:
        ValueError: `weight` is below 0; (when called) it is no image.
        TypeError: it is not a number.

    References:
        Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms", 1992; here
        with the sum of both absolute values instead of the root of their squares, whose gradient is not
        defined at 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import dreaming
        >>> float(dreaming.total_variation()(jnp.array([[0.0, 1.0], [0.0, 1.0]])))
        0.5
    """
    return Part(_total_variation, (), (_check_weight(weight),))


def _total_variation(image: jax.Array, weight: jax.Array) -> jax.Array:
    check_is_image(image.shape, "total_variation")
    changes = (jnp.sum(jnp.abs(jnp.diff(image, axis=axis))) for axis in (0, 1))
    return weight.astype(image.dtype) * (sum(changes) / image.size)


def typicality(prior: Prior, weight: Scalar = 1.0) -> Part:
    """Typicality penalty: the squared Mahalanobis distance from the nearest component of a prior.

    `weight / n * min_k d_k(x)`, of `n` elements; see `Prior.distances`.

    Args:
        prior: of `jaxnn.prior`; its inputs have the shape of the dream, or as many elements.
        weight: in units of the objective; at least 0.

    Returns:
        A penalty.

    Raises:
        ValueError: `weight` is below 0; (when called) the image has another number of elements.
        TypeError: `prior` is not a `Prior`, or `weight` not a number.

    Example:
        >>> import jax, jaxnn
        >>> x = jax.random.uniform(jax.random.key(0), (50, 6))
        >>> prior = jaxnn.prior(x, components=1, key=jax.random.key(1))
        >>> penalty = jaxnn.dreaming.typicality(prior)
        >>> bool(penalty(prior.mean) < penalty(prior.mean + 1))
        True
    """
    return Part(_typicality, (), (_check_weight(weight), check_prior(prior)))


def _typicality(image: jax.Array, weight: jax.Array, prior: Prior) -> jax.Array:
    if image.size != prior.mean.size:
        raise ValueError(f"`prior` must be of inputs of shape {image.shape}; got {prior.mean.shape}")
    distances = prior.distances(image.reshape(prior.mean.shape).astype(prior.mean.dtype))
    return (weight * jnp.min(distances) / image.size).astype(image.dtype)


def _check_weight(weight: Scalar) -> jax.Array:
    return _checks.check_number("weight", weight, at_least=0)
