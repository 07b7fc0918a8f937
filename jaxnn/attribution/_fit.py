"""Least squares over random sets of features, with the standard errors of the solution."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._engine.loops import chunked_scan
from jaxnn._precision import widen
from jaxnn._typing import PyTree
from jaxnn.attribution._accumulate import (
    Estimate,
    Moments,
    Sampling,
    merge,
    no_samples,
    safe_sqrt,
    standard_error,
)
from jaxnn.attribution._masks import Game

SPARE = 16  # draws beyond one per feature that residuals need for a standard error


class LeastSquares(NamedTuple):
    """The problem: minimize `sum w (y - offset - row . a)^2 + a . penalty a` over `a`.

    Attributes:
        draw: from the index of a draw to its sets `(sets, n)`, booleans, and their weights `(sets,)`. Draws
            are independent. Of two sets of one draw, the second has the first one's row with the opposite
            sign, and an equal weight.
        draws: number of draws.
        row: from one set to its row, `(columns,)`, and its offset, the known part of the output.
        penalty: from the Gram matrix of the rows to the penalty, `(columns, columns)`.
        intercept: whether the last column is that of an intercept, without a penalty.
    """

    draw: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    draws: int
    row: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    penalty: Callable[[jax.Array], jax.Array]
    intercept: bool


def solve(problem: LeastSquares, game: Game, columns: int, sampling: Sampling) -> Estimate:
    """The solution `(columns,)` and its standard error, zeros unless `sampling.with_error`.

    Args:
        problem: the sets, rows, weights and penalty.
        game: from one set to the output, `y`.
        columns: number of unknowns.
        sampling: its `batch_size` counts sets.
    """
    weights = jax.eval_shape(problem.draw, jnp.array(0))[1]
    dtype, size = weights.dtype, max(1, game.batch_size(sampling.batch_size) // weights.size)

    def gather(sums: PyTree, indices: jax.Array, valid: jax.Array) -> tuple[PyTree, jax.Array]:
        sets, weights = jax.vmap(problem.draw)(indices)
        outputs = widen(jax.vmap(jax.vmap(game))(sets))
        rows, offsets = jax.vmap(jax.vmap(problem.row))(sets)
        weighted = rows * (weights * valid[:, None].astype(weights.dtype))[..., None]
        gram, moment = sums
        gram = gram + _einsum("kpi,kpj->ij", weighted, rows)
        return (gram, moment + _einsum("kpi,kp->i", weighted, outputs - offsets)), outputs

    start = jnp.zeros((columns, columns), dtype), jnp.zeros(columns, dtype)
    (gram, moment), outputs = chunked_scan(gather, start, problem.draws, size)
    # The matrix is the same for every example. Under `vmap` its inverse is computed once, and each example
    # takes one product. Solving directly would repeat the elimination per example.
    penalty = problem.penalty(gram).astype(dtype)
    inverse = (_inverse_with_intercept if problem.intercept else _inverse)(gram, penalty)
    solution = _einsum("ij,j->i", inverse, moment)
    if not sampling.with_error:
        return Estimate(solution, jnp.zeros_like(solution))
    return Estimate(solution, _errors(problem, outputs, solution, inverse, size))


def _inverse_with_intercept(gram: jax.Array, penalty: jax.Array) -> jax.Array:
    """`_inverse`, with the intercept eliminated first: it may be anything, and is never undetermined."""
    basis = jnp.eye(len(gram), dtype=gram.dtype).at[-1, :-1].set(-gram[-1, :-1] / gram[-1, -1])
    inverse = _inverse(_einsum("ji,jk,kl->il", basis, gram, basis), penalty)
    return _einsum("ij,jk,lk->il", basis, inverse, basis)


# One matrix after the other, also under `vmap`, which would decompose each in both ways. XLA:CPU decomposes a
# batch on the threads that wait for it: with as many batches at once as it has threads, none ever ends.
@jax.custom_batching.sequential_vmap  # type: ignore[untyped-decorator, unused-ignore]
def _inverse(gram: jax.Array, penalty: jax.Array) -> jax.Array:
    """The inverse of `gram + penalty`, and 0 along directions in which the Gram matrix is 0 to rounding.

    Sets fewer than features leave such directions. The solution has no part in them, and an inverse would
    enlarge the rounding there.
    """
    columns = len(gram)
    least = columns * jnp.finfo(gram.dtype).eps
    factor = jnp.linalg.cholesky(gram + penalty)
    pivots = jnp.square(jnp.diagonal(factor))
    safe = jnp.min(pivots) > 0.05 * jnp.max(pivots)  # false where the factor is not a number

    def by_factor() -> jax.Array:
        inverse: jax.Array = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(columns, dtype=gram.dtype))
        return inverse

    def by_eigenvectors() -> jax.Array:
        values, vectors = jnp.linalg.eigh(gram)
        penalized = values + _einsum("ji,jk,ki->i", vectors, penalty, vectors)
        determined = values > least * values[-1]
        return _einsum("ik,k,jk->ij", vectors, jnp.where(determined, 1 / penalized, 0), vectors)

    inverse: jax.Array = lax.cond(safe, by_factor, by_eigenvectors)
    return inverse


def _errors(
    problem: LeastSquares, outputs: jax.Array, solution: jax.Array, inverse: jax.Array, size: int
) -> jax.Array:
    """The standard errors of a solution, `(columns,)`, from the residuals of its draws."""
    dtype = solution.dtype

    def residuals_of(sums: PyTree, indices: jax.Array, valid: jax.Array) -> tuple[PyTree, PyTree]:
        """Each draw's residual, and its leverage: the derivative of its fitted value in its output."""
        sets, weights = jax.vmap(problem.draw)(indices)
        rows, offsets = jax.vmap(jax.vmap(problem.row))(sets)
        differences = outputs[indices] - offsets - _einsum("kpi,i->kp", rows, solution)
        residual = _einsum("kp,p->k", differences, jnp.array([1, -1], dtype)[: weights.shape[1]])
        leverage = jnp.clip(_einsum("kpi,ij,kpj,kp->k", rows, inverse, rows, weights), 0, 1)
        weight = weights[:, 0] * valid.astype(weights.dtype)
        squares, spare = sums
        squares += jnp.sum(weight * jnp.square(residual))
        return (squares, spare + jnp.sum(weight * (1 - leverage))), (residual, leverage)

    zeros = jnp.zeros((), dtype), jnp.zeros((), dtype)
    (squares, spare), (residuals, leverages) = chunked_scan(residuals_of, zeros, problem.draws, size)
    common = squares / jnp.maximum(spare, jnp.finfo(dtype).tiny)

    # The influence of a draw on the solution is inverse @ row * residual. The variance of the influences
    # estimates that of the solution over draws. A leverage h removes the fraction h of a residual's variance.
    # It is restored by division (MacKinnon and White 1985, HC2), or, where hardly any is left, as the same
    # fraction of the variance that is common to all draws.
    def influence(moments: Moments, indices: jax.Array, valid: jax.Array) -> tuple[Moments, None]:
        sets, weights = jax.vmap(problem.draw)(indices)
        row = jax.vmap(lambda each: problem.row(each[0])[0])(sets)
        residual, leverage = residuals[indices], leverages[indices]
        square = jnp.square(residual)
        variance = jnp.maximum(square / jnp.maximum(1 - leverage, 0.01), square + leverage * common)
        deviation = jnp.where(residual < 0, -1, 1) * safe_sqrt(variance)
        influences = (weights[:, 0] * deviation)[:, None] * row
        return merge(moments, _einsum("ki,ij->kj", influences, inverse), valid), None

    moments, _ = chunked_scan(influence, no_samples(solution.shape, dtype), problem.draws, size)
    return problem.draws * standard_error(moments)


def _einsum(equation: str, *operands: jax.Array) -> jax.Array:
    """In full precision: accelerators round the factors of a product by default."""
    return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)
