"""Estimates of memory before any computation, and batch sizes that keep within a budget."""

from typing import Any, NamedTuple

from jax.extend import core

from jaxnn import _checks
from jaxnn._engine.primitives import CALLS, CUSTOM, REMAT, inner_jaxprs, standard, variables

BUDGET = 2**30  # bytes: small beside the memory of a computer, and more than a batch needs to be fast


class Batch(NamedTuple):
    """How many evaluations to do at once; hashable, as a static argument.

    Attributes:
        most: the largest number.
        bounded: whether to do fewer at once where `most` of them exceed the budget.
    """

    most: int
    bounded: bool = False

    def size(self, function: core.ClosedJaxpr, budget: int = BUDGET) -> int:
        """The number of evaluations of a function, given by its jaxpr, to do at once.

        Never more than the machine has memory for: the result does not depend on it.
        """
        limit = budget if self.bounded else _checks.memory() // 2
        return max(1, min(self.most, limit // max(1, peak_bytes(function.jaxpr))))


def check_batch_size(batch_size: int | None, most: int) -> Batch:
    """The batch size of the caller, or, of None, `most` and within the budget."""
    if batch_size is None:
        return Batch(most, bounded=True)
    return Batch(_checks.check_integer("batch_size", batch_size, at_least=1))


def peak_bytes(jaxpr: core.Jaxpr) -> int:
    """The largest number of bytes that the computed values take at once, in the order of the equations.

    A value is counted from the equation that computes it to the last one that reads it. Inputs and constants
    are not counted. The compiler may choose another order, and computes some values without storing them: of
    a transformer and a ResNet the estimate was 0.5 to 1.8 times as much as it allocated per evaluation.
    """
    jaxpr = standard(jaxpr)
    last = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in variables(eqn.invars)}
    last.update(dict.fromkeys(variables(jaxpr.outvars), len(jaxpr.eqns)))
    ends: dict[int, int] = {}
    stored = peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        inside = max((peak_bytes(inner.jaxpr) for inner in inner_jaxprs(eqn)), default=0)
        for v in eqn.outvars:
            end = last.get(v, i)
            ends[end] = ends.get(end, 0) + _bytes(v)
        results = sum(map(_bytes, eqn.outvars))
        # The results of a call are among the values inside; a loop or a branch makes them from these.
        is_call = eqn.primitive.name in CALLS | REMAT | CUSTOM
        peak = max(peak, stored + (max(inside, results) if is_call else inside + results))
        stored += results - ends.pop(i, 0)
    return peak


def _bytes(v: Any) -> int:
    """The size of a variable; 0 of what is no array, such as a token."""
    return int(getattr(v.aval, "size", 0)) * int(getattr(getattr(v.aval, "dtype", None), "itemsize", 0))
