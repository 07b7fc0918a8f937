"""What an objective is: a weighted sum of functions of what a model computes."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import as_model
from jaxnn.dreaming._part import number

Values = Mapping[str, jax.Array]


@flax.struct.dataclass
class Objective:
    """A weighted sum of functions of what a model computes: a callable pytree.

    Attributes:
        terms: callables `(output, values) -> scalar`.
        weights: a number a term.
    """

    terms: tuple[Callable[[Any, Values], jax.Array], ...]
    weights: tuple[Any, ...]

    def __call__(self, output: Any, values: Values) -> jax.Array:
        """The value, for what one input gave."""
        scalars = [_checks.check_float_array("objective", term(output, values)) for term in self.terms]
        return sum(  # type: ignore[return-value]
            jnp.asarray(weight, scalar.dtype) * scalar
            for weight, scalar in zip(self.weights, scalars, strict=True)
        )

    def __add__(self, other: Any) -> "Objective":
        other = as_objective(other)
        return Objective(self.terms + other.terms, self.weights + other.weights)

    def __radd__(self, other: Any) -> "Objective":
        # `sum` starts from 0.
        return self if isinstance(other, int) and other == 0 else as_objective(other) + self

    def __sub__(self, other: Any) -> "Objective":
        return self + -as_objective(other)

    def __rsub__(self, other: Any) -> "Objective":
        return as_objective(other) + -self

    def __mul__(self, factor: Any) -> "Objective":
        factor = number("factor", factor)
        return Objective(self.terms, tuple(factor * weight for weight in self.weights))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Objective":
        divisor = number("divisor", divisor)
        if _checks.known_false(divisor != 0):
            raise ValueError("`divisor` must not be 0")
        return self * (1 / divisor)

    def __neg__(self) -> "Objective":
        return self * -1.0


def as_objective(value: Any) -> Objective:
    """An objective, of one or of a plain function `(output, values) -> scalar`."""
    if isinstance(value, Objective):
        return value
    if not callable(value):
        raise TypeError(
            f"`objective` must be an objective or a function of (output, values); got {type(value).__name__}"
        )
    return Objective((as_model(value),), (jnp.asarray(1.0),))
