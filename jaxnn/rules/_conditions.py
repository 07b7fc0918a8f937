"""Rules as boxes: for each feature an interval, and what the model answers inside."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn import _checks

_NOTHING = np.zeros(0)


class Rule(NamedTuple):
    """If each feature lies in its interval, then the answer is this class; `rule(features)` says if they do.

    Attributes:
        low: `(d,)`: `low < feature`; `-inf` where there is no such condition.
        high: `(d,)`: `feature <= high`; `inf` where there is none.
        answer: the class.
        coverage: the share of the examples that the rule decides, in [0, 1].
        precision: the share of those to which the model gives that answer, in [0, 1]; NaN of none.
        text: in words; a threshold has four digits, or as many more as it takes to decide alike what it was
            measured on.
    """

    low: np.ndarray
    high: np.ndarray
    answer: int
    coverage: float
    precision: float
    text: str

    def __call__(self, features: ArrayLike) -> jax.Array:
        """Whether the conditions hold: `(..., d) -> (...)`."""
        values = _checks.check_float_array("features", features)
        _checks.check_last_axis("features", values, len(self.low), "an entry a feature")
        return jnp.all((self.low < values) & (values <= self.high), axis=-1)


def make_rule(
    low: np.ndarray,
    high: np.ndarray,
    answer: int,
    decided: np.ndarray,
    answers: np.ndarray,
    names: Sequence[str],
    classes: Sequence[str],
    parted: Sequence[np.ndarray],
) -> Rule:
    """A rule, measured: `decided` are the examples that it decides, `answers` what the model says to all.

    `parted` are values of each feature that the text of its thresholds has to part as they do.
    """
    right = answers[decided] == answer
    coverage = float(decided.mean())
    precision = float(right.mean()) if right.size else float("nan")
    text = f"{conditions(low, high, names, parted)} then {classes[answer]}"
    return Rule(low, high, answer, coverage, precision, text)


def conditions(low: np.ndarray, high: np.ndarray, names: Sequence[str], parted: Sequence[np.ndarray]) -> str:
    """Such as `if 2 < width <= 3 and height > 1`."""
    parts = []
    for start, end, name, values in zip(low, high, names, parted, strict=True):
        if np.isfinite(start) and np.isfinite(end):
            values = np.append(values, (float(start) + float(end)) / 2)  # the two do not become one
            parts.append(f"{number(start, values)} < {name} <= {number(end, values)}")
        elif np.isfinite(end):
            parts.append(f"{name} <= {number(end, values)}")
        elif np.isfinite(start):
            parts.append(f"{name} > {number(start, values)}")
    return "if " + (" and ".join(parts) or "anything")


def number(value: float, parted: np.ndarray = _NOTHING) -> str:
    """Four digits, or as many more as it takes to part values as `<= value` does; no minus before zero."""
    value = float(value)
    below = parted[parted <= value].max(initial=-np.inf)
    above = parted[parted > value].min(initial=np.inf)
    texts = [f"{value:.{digits}g}" for digits in range(4, 18)] if value else ["0"]
    return next((text for text in texts if below <= float(text) < above), texts[-1])


def feature_names(names: Any, count: int) -> tuple[str, ...]:
    """The names given, or `x_0`, `x_1`, ...; raise unless there is one a feature."""
    return _strings("names", names, count, "x_{}", "one a feature")


def class_names(classes: Any, count: int) -> tuple[str, ...]:
    """The names given, or `class 0`, `class 1`, ...; raise unless there is one a class."""
    return _strings("classes", classes, count, "class {}", "one a class")


def _strings(name: str, values: Any, count: int, pattern: str, meaning: str) -> tuple[str, ...]:
    if values is None:
        return tuple(pattern.format(i) for i in range(count))
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"`{name}` must be {count} strings, {meaning}; got one, {values!r}")
    texts = tuple(str(value) for value in values)
    if len(texts) != count:
        raise ValueError(f"`{name}` must be {count} strings, {meaning}; got {len(texts)}")
    return texts


def check_rows(name: str, values: Any, like: Any = None) -> jax.Array:
    """Examples as a floating-point array `(n, ...)`, not empty and finite; of the shape of other ones."""
    if not _checks.is_concrete(values):
        raise TypeError(f"`{name}` must not be traced: the rules found depend on its values")
    array = _checks.check_float_array(name, values)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"`{name}` must have shape (n, ...), an example each, not empty; got {array.shape}")
    _checks.check_finite(name, array)
    if like is not None and array.shape[1:] != like.shape[1:]:
        raise ValueError(
            f"`{name}` must have shape (n, {', '.join(map(str, like.shape[1:]))}); got {array.shape}"
        )
    return array


def check_spread(spread: Any) -> float:
    """Raise unless it is a number of at least 0."""
    value = _checks.check_real("spread", spread)
    if value < 0:
        raise ValueError(f"`spread` must be at least 0; got {value}")
    return value


def check_share(name: str, value: Any) -> float:
    """Raise unless it is a number between 0 and 1, without the ends."""
    share = _checks.check_real(name, value)
    if not 0 < share < 1:
        raise ValueError(f"`{name}` must lie between 0 and 1; got {share}")
    return share
