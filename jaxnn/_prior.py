"""Priors: a mixture of Gaussians in the principal components of data, which says what inputs look like."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxnn import _checks
from jaxnn._keys import key_data
from jaxnn._repr import short_repr
from jaxnn._typing import Key

_N_DRAWS = 2048  # covariances with an output over that many are accurate to some 2 %


class Prior(NamedTuple):
    """A mixture of Gaussians over inputs `x = mean + basis @ z`, with `z ~ N(centers[k], C_k)`.

    Component `k` has the probability `weights[k]` and the covariance `C_k = factors[k] @ factors[k].T`.

    Attributes:
        mean: `(...)`, the mean input.
        basis: `(..., rank)`, the principal components, orthonormal.
        centers: `(components, rank)`, the mean of each component in their coordinates.
        factors: `(components, rank, rank)`, the lower Cholesky factor of each covariance.
        whitening: `(components, rank, rank)`, the inverse of each factor.
        weights: `(components,)`, with sum 1.
        noise: scalar, the mean variance of an element outside of the basis.
        low: scalar, the smallest element of the data.
        high: scalar, the largest.
        draws: `(n, rank)`, coordinates of inputs drawn at random from the mixture.
    """

    mean: Float[Array, "..."]
    basis: Float[Array, "... rank"]
    centers: Float[Array, "components rank"]
    factors: Float[Array, "components rank rank"]
    whitening: Float[Array, "components rank rank"]
    weights: Float[Array, "components"]
    noise: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    draws: Float[Array, "n rank"]

    def __repr__(self) -> str:
        return short_repr(self)

    def input_at(self, z: Float[Array, "rank"]) -> Float[Array, "..."]:
        """The input with the coordinates `z`, within `low` and `high`: `(rank,) -> (...)`."""
        return jnp.clip(self.mean + self.basis @ z, self.low, self.high)

    def distances(self, x: Real[ArrayLike, "..."]) -> Float[Array, "components"]:
        """The squared Mahalanobis distance of an input to each component: `(...) -> (components,)`.

        `|C_k^(-1/2) (z - centers[k])|^2 + |x - mean - basis @ z|^2 / noise`, with
        `z = basis.T @ (x - mean)`.
        """
        difference = jnp.asarray(x, self.mean.dtype) - self.mean
        z = jnp.tensordot(difference, self.basis, difference.ndim)
        rest = jnp.sum((difference - self.basis @ z) ** 2)
        inside = jnp.sum(jnp.einsum("kij,kj->ki", self.whitening, z - self.centers) ** 2, axis=-1)
        return inside + rest / self.noise

    def variances(self) -> Float[Array, "rank"]:
        """The variance of the mixture along each principal component, `(rank,)`."""
        center = self.weights @ self.centers
        within = jnp.sum(self.factors**2, axis=-1)
        return self.weights @ (within + (self.centers - center) ** 2)


def check_prior(value: Any) -> Prior:
    """Return `value`, or raise unless it is a `Prior`."""
    if not isinstance(value, Prior):
        raise TypeError(f"`prior` must be a prior of jaxnn.prior; got {type(value).__name__}")
    return value


def prior(
    inputs: Real[ArrayLike, "N ..."], *, components: int | None = None, rank: int | None = None, key: Key
) -> Prior:
    """Prior: fit a mixture of Gaussians to inputs, without their labels.

    The inputs are projected to their first principal components, divided by k-means, and each part gives the
    mean and the covariance of a component. The covariance is shrunk as Ledoit and Wolf do,
    `C_k = (1 - s) S_k + s tr(S_k) / rank I`, so that few inputs suffice. With one component it is a
    Gaussian.

    Args:
        inputs: `(N, ...)`, finite.
        components: number of components, from 1 to `N // 2`; None for one per 20 inputs, and at most 30.
        rank: number of principal components, from 1 to the rank of the centered inputs; None for as many
            as hold 95 % of their variance, and at most 100.
        key: a random key, for the first means of k-means and for the inputs that are drawn from the mixture.

    Returns:
        A `Prior`, a pytree of arrays in the precision of `inputs`.

    Raises:
        ValueError: fewer than two inputs, values that are not finite or all the same; `components` or `rank`
            out of its range.
        TypeError: `inputs` does not hold real numbers, or `key` is not a random key.
        ImportError: scikit-learn is not installed.

    References:
        O. Ledoit, M. Wolf, *A well-conditioned estimator for large-dimensional covariance matrices*, 2004.

    Example:
        >>> import jax, jaxnn
        >>> x, labels = jaxnn.datasets.point_set("gaussians", key=jax.random.key(0), n=200)
        >>> prior = jaxnn.prior(x, components=2, key=jax.random.key(1))
        >>> prior.centers.shape, prior.distances(x[0]).shape
        ((2, 2), (2,))
    """
    data = _checks.check_float_array("inputs", inputs)
    if data.ndim < 2 or len(data) < 2:
        raise ValueError(f"`inputs` must have shape (N, ...), with N at least 2; got {data.shape}")
    if not _checks.is_concrete((data, key)):
        raise TypeError("`inputs` and `key` must not be traced: a prior is fitted on the host")
    _checks.check_finite("inputs", data)
    _checks.check_key("key", key)
    if components is None:
        components = max(1, min(30, len(data) // 20))
    components = _checks.check_integer("components", components, at_least=1)
    if components > len(data) // 2:
        raise ValueError(f"`components` must be at most {len(data) // 2}, N // 2; got {components}")
    rows = np.asarray(data, np.float64).reshape(len(data), -1)
    mean = rows.mean(axis=0)
    variances, basis = _principal_components(rows - mean)
    rank = _check_rank(rank, variances)
    basis = basis[:, :rank]
    seed = int(np.asarray(key_data(key)).ravel()[-1] % 2**31)
    z = (rows - mean) @ basis
    centers, factors, weights = _fit(z, components, seed)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(weights), _N_DRAWS, p=weights)
    draws = centers[chosen] + np.einsum("nij,nj->ni", factors[chosen], rng.normal(size=(_N_DRAWS, rank)))
    left = mean.size - rank
    noise = variances[rank:].sum() / left if left else 0.0
    shape = data.shape[1:]
    fields = (
        mean.reshape(shape), basis.reshape(*shape, rank), centers, factors, np.linalg.inv(factors), weights,
        max(noise, 1e-6 * variances.sum() / mean.size), rows.min(), rows.max(), draws,
    )  # fmt: skip
    return Prior(*(jnp.asarray(field, data.dtype) for field in fields))


def _principal_components(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variances along all principal components, the largest first, and the components as columns."""
    count, size = centered.shape
    if size <= count:
        squares, vectors = np.linalg.eigh(centered.T @ centered)
    else:  # of the smaller product, which has the same eigenvalues
        squares, left = np.linalg.eigh(centered @ centered.T)
        vectors = centered.T @ left / np.sqrt(np.maximum(squares, np.finfo(float).tiny))
    return np.maximum(squares[::-1], 0) / count, vectors[:, ::-1]


def _check_rank(rank: Any, variances: np.ndarray) -> int:
    total = variances.sum()
    if total == 0:
        raise ValueError("`inputs` must differ from each other; all are the same")
    possible = int(np.sum(variances > 1e-10 * variances[0]))
    if rank is None:
        return min(int(np.searchsorted(np.cumsum(variances), 0.95 * total)) + 1, possible, 100)
    rank = _checks.check_integer("rank", rank, at_least=1)
    if rank > possible:
        raise ValueError(f"`rank` must be at most {possible}, that of the centered inputs; got {rank}")
    return rank


def _fit(z: np.ndarray, components: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The means, Cholesky factors of the covariances, and weights of the parts that k-means finds."""
    cluster = _checks.require("sklearn.cluster", "a prior", "rules")
    ledoit_wolf = _checks.require("sklearn.covariance", "a prior", "rules").ledoit_wolf
    part = cluster.KMeans(components, n_init=1, random_state=seed).fit_predict(z)
    parts = [z[part == k] for k in np.unique(part)]
    smallest = 1e-6 * z.var(axis=0).mean()  # of a part whose inputs are all the same
    covariances = [ledoit_wolf(rows)[0] + smallest * np.eye(z.shape[1]) for rows in parts]
    return (
        np.stack([rows.mean(axis=0) for rows in parts]),
        np.linalg.cholesky(np.stack(covariances)),
        np.array([len(rows) / len(z) for rows in parts]),
    )
