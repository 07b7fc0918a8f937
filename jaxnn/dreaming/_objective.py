"""The type of an objective: a weighted sum of functions of a model's output and intermediates."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import as_model
from jaxnn._typing import PyTree, Scalar
from jaxnn.dreaming._part import Part

Values: TypeAlias = Mapping[str, jax.Array]
Term: TypeAlias = Callable[[Any, Values], jax.Array]


@flax.struct.dataclass
class Objective:
    """A weighted sum of functions of a model's output and intermediates: a callable pytree.

    Attributes:
        terms: callables `(output, values) -> scalar`.
        weights: one number per term.
    """

    terms: tuple[Term, ...]
    weights: tuple[jax.Array, ...]

    def __call__(self, output: PyTree, values: Values) -> jax.Array:
        """The value of the objective, for the output and the intermediates of one input."""
        scalars = [_checks.check_float_array("objective", term(output, values)) for term in self.terms]
        return sum(  # type: ignore[return-value]
            jnp.asarray(weight, scalar.dtype) * scalar
            for weight, scalar in zip(self.weights, scalars, strict=True)
        )

    def __add__(self, other: "Objective | Term") -> "Objective":
        other = as_objective(other)
        return Objective(self.terms + other.terms, self.weights + other.weights)

    def __radd__(self, other: "Term | int") -> "Objective":
        # `sum` starts from 0.
        return self if isinstance(other, int) and other == 0 else as_objective(other) + self

    def __sub__(self, other: "Objective | Term") -> "Objective":
        return self + -as_objective(other)

    def __rsub__(self, other: "Objective | Term") -> "Objective":
        return as_objective(other) + -self

    def __mul__(self, factor: Scalar) -> "Objective":
        factor = _checks.check_number("factor", factor)
        return Objective(self.terms, tuple(factor * weight for weight in self.weights))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Scalar) -> "Objective":
        divisor = _checks.check_number("divisor", divisor)
        if _checks.is_concrete(divisor) and float(divisor) == 0:
            raise ValueError("`divisor` must not be 0")
        return self * (1 / divisor)

    def __neg__(self) -> "Objective":
        return self * -1.0


def as_objective(value: Any) -> Objective:
    """Return an objective, or one with a plain function `(output, values) -> scalar` as its term."""
    if isinstance(value, Objective):
        return value
    if not callable(value):
        raise TypeError(
            f"`objective` must be an objective or a function of (output, values); got {type(value).__name__}"
        )
    return Objective((as_model(value, "objective"),), (jnp.asarray(1.0),))


def objective_of(
    function: Callable[..., jax.Array], options: tuple[str | int, ...], *values: PyTree
) -> Objective:
    """The objective `function(output, values, *options, *values)`; see `Part`."""
    return Objective((Part(function, options, values),), (jnp.asarray(1.0),))


def check_name(value: Any, argument: str = "layer") -> str:
    """Return the name of a layer, or raise."""
    if not isinstance(value, str):
        raise TypeError(f"`{argument}` must be a string; got {type(value).__name__} {value!r}")
    return value
