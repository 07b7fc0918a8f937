"""Least squares over sets of features that are drawn, with the standard errors of their solution."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._engine.loops import chunked_scan
from jaxnn.attribution._estimate import merge, no_samples, standard_error, wide

SPARE = 16  # draws beyond one a feature, from whose residuals a standard error can be told


class Fit(NamedTuple):
    """A least-squares problem: `sum w (y - offset - row . a)^2 + a . penalty a` is to be least.

    Attributes:
        draw: from the number of a draw to its sets `(sets, n)`, booleans, and their weights `(sets,)`. Draws
            are independent, the sets of one may not be: of two, the row of the second is that of the first
            with the other sign, and the weights are equal.
        draws: how many.
        row: from one set to its row, `(columns,)`, and the offset, what is known of its answer.
        penalty: from the rows' Gram matrix to the penalty, `(columns, columns)`.
    """

    draw: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    draws: int
    row: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    penalty: Callable[[jax.Array], jax.Array]


def fitted(
    fit: Fit, answer: Callable[[jax.Array], jax.Array], columns: int, batch_size: int,
    *, with_error: bool,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """The solution `(columns,)`, and its standard error, zeros where that is not asked for."""
    weights = jax.eval_shape(fit.draw, jnp.array(0))[1]
    dtype, size = weights.dtype, max(1, batch_size // weights.size)

    def gather(sums: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, jax.Array]:
        sets, weights = jax.vmap(fit.draw)(indices)
        answers = jax.vmap(jax.vmap(answer))(sets)
        rows, offsets = jax.vmap(jax.vmap(fit.row))(sets)
        weighted = rows * (weights * valid[:, None])[..., None]
        gram, moment = sums
        gram = gram + _einsum("kpi,kpj->ij", weighted, rows)
        return (gram, moment + _einsum("kpi,kp->i", weighted, wide(answers) - offsets)), wide(answers)

    start = jnp.zeros((columns, columns), dtype), jnp.zeros(columns, dtype)
    (gram, moment), answers = chunked_scan(gather, start, fit.draws, size)
    # The matrix is the same for every example: of a batch, devices share the products with its inverse,
    # while they would each solve for all.
    factor = jax.scipy.linalg.cho_factor(gram + fit.penalty(gram).astype(dtype))
    inverse = jax.scipy.linalg.cho_solve(factor, jnp.eye(columns, dtype=dtype))
    solution = _einsum("ij,j->i", inverse, moment)
    if not with_error:
        return solution, jnp.zeros_like(solution)
    return solution, _errors(fit, answers, solution, inverse, size)


def _errors(fit: Fit, answers: jax.Array, solution: jax.Array, inverse: jax.Array, size: int) -> jax.Array:
    """The standard errors of a solution, `(columns,)`, from what its draws' answers differ by from it."""
    dtype = solution.dtype

    def left_over(sums: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, Any]:
        """Each draw's residual, and its leverage: how far it bends the fit its way."""
        sets, weights = jax.vmap(fit.draw)(indices)
        rows, offsets = jax.vmap(jax.vmap(fit.row))(sets)
        residuals = answers[indices] - offsets - _einsum("kpi,i->kp", rows, solution)
        residual = _einsum("kp,p->k", residuals, jnp.array([1, -1], dtype)[: weights.shape[1]])
        leverage = jnp.clip(_einsum("kpi,ij,kpj,kp->k", rows, inverse, rows, weights), 0, 1)
        weight = weights[:, 0] * valid
        squares, spare = sums
        squares += jnp.sum(weight * jnp.square(residual))
        return (squares, spare + jnp.sum(weight * (1 - leverage))), (residual, leverage)

    none = jnp.zeros((), dtype), jnp.zeros((), dtype)
    (squares, spare), (residuals, leverages) = chunked_scan(left_over, none, fit.draws, size)
    common = squares / jnp.maximum(spare, jnp.finfo(dtype).tiny)

    # Each draw moves the solution by the inverse matrix times its row times its residual. How much these
    # moves vary says how far other draws would have led. Its leverage h takes the share h of a residual's
    # variance away, which is given back by division (MacKinnon and White 1985, HC2), or, where hardly any is
    # left, as that share of the variance that is common to all draws.
    def influence(moments: Any, indices: jax.Array, valid: jax.Array) -> tuple[Any, None]:
        sets, weights = jax.vmap(fit.draw)(indices)
        row = jax.vmap(lambda each: fit.row(each[0])[0])(sets)
        residual, leverage = residuals[indices], leverages[indices]
        square = jnp.square(residual)
        variance = jnp.maximum(square / jnp.maximum(1 - leverage, 0.01), square + leverage * common)
        far = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
        moves = (weights[:, 0] * jnp.where(residual < 0, -far, far))[:, None] * row
        return merge(moments, _einsum("ki,ij->kj", moves, inverse), valid), None

    moments, _ = chunked_scan(influence, no_samples(solution.shape, dtype), fit.draws, size)
    return fit.draws * standard_error(moments)


def _einsum(equation: str, *operands: jax.Array) -> jax.Array:
    """In full precision: accelerators round the factors of a product unless asked not to."""
    return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)
