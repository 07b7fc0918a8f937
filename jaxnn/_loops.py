"""Loops in which convolutions run as quickly as outside of them.

Before XLA on the CPU calls its quick convolution, the axes must be in order: images `(n, ..., channels)`,
kernels `(..., channels in, channels out)`. It brings them there itself, but not inside of a loop, where any
other order falls to a plain one that was 40 times as slow. The gradient of a convolution has its kernel
in another order, whatever that of the convolution.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from jaxnn._jaxpr import Path, Plan, trace

Step = Callable[[Any, Any], tuple[Any, Any]]

# Custom derivatives are not entered, as they would be lost.
_ENTERED = {"jit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr", "scan": "jaxpr"}


def scan(step: Step, carry: Any, rows: Any = None, length: int | None = None) -> tuple[Any, Any]:
    """`jax.lax.scan`, with the convolutions of its step in order."""
    return lax.scan(in_order(step), carry, rows, length)


def in_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its convolutions with their axes in the order that is quick in a loop on a CPU."""
    if jax.default_backend() != "cpu":
        return function

    def ordered(*args: Any) -> Any:
        traced = trace(function, *args)
        places = frozenset(_places(traced.jaxpr.jaxpr))
        return traced.evaluate(Plan(lambda eqn, path: path in places, _convolve_at(places)))[0]

    return ordered


def _places(jaxpr: core.Jaxpr, path: Path = ()) -> Iterator[Path]:
    """Where the convolutions stand whose axes are in another order."""
    for index, eqn in enumerate(jaxpr.eqns):
        kind = eqn.primitive.name
        if kind == "conv_general_dilated" and eqn.params["dimension_numbers"] != _order(eqn):
            yield (*path, index)
        elif kind in _ENTERED:
            held = eqn.params[_ENTERED[kind]]
            inner = held.jaxpr if isinstance(held, core.ClosedJaxpr) else held
            yield from _places(inner, (*path, index, _ENTERED[kind], 0))


def _order(eqn: core.JaxprEqn) -> lax.ConvDimensionNumbers:
    last = len(eqn.params["dimension_numbers"].lhs_spec) - 1
    spatial = range(1, last)
    return lax.ConvDimensionNumbers(
        (0, last, *spatial), (last, last - 1, *range(last - 1)), (0, last, *spatial)
    )


def _convolve_at(places: frozenset[Path]) -> Callable[..., Sequence[Any] | None]:
    def convolve(eqn: core.JaxprEqn, path: Path, values: Sequence[Any]) -> Sequence[Any] | None:
        if path not in places:
            return None
        given, (images, kernels) = eqn.params["dimension_numbers"], values
        (n, c, *at), (o, i, *window), (n_out, c_out, *at_out) = given
        answer = eqn.primitive.bind(
            images.transpose(n, *at, c),
            kernels.transpose(*window, i, o),
            **{**eqn.params, "dimension_numbers": _order(eqn)},
        )
        made = (n_out, *at_out, c_out)  # the axis wanted at which each one made is
        return [answer.transpose(*sorted(range(len(made)), key=made.__getitem__))]

    return convolve
