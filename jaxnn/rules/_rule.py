"""A rule: an interval per feature and the class that the model predicts there; its text and measures."""

import decimal
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxnn import _checks
from jaxnn.rules._problem import HeldOut

Ends: TypeAlias = Float[np.ndarray, "d"]


class Rule(NamedTuple):
    """A rule: if each feature lies in its interval, then predict this class.

    `rule(features)` is whether the conditions hold.

    Attributes:
        low: `(d,)`: `low < feature`; `-inf` where there is no such condition.
        high: `(d,)`: `feature <= high`; `inf` where there is none.
        prediction: the class.
        coverage: the fraction of the examples that the rule decides, in [0, 1].
        precision: the fraction of those for which the model predicts that class, in [0, 1]; NaN if there are
            none.
        text: the rule as text. Thresholds have four digits, or as many more as it takes to separate the
            examples that the rule was learned from. The text decides every input as the rule does.
    """

    low: Ends
    high: Ends
    prediction: int
    coverage: float
    precision: float
    text: str

    def __repr__(self) -> str:
        return f"Rule({self.text!r}, coverage={self.coverage:.4g}, precision={self.precision:.4g})"

    def __str__(self) -> str:
        return f"{self.text} (coverage {self.coverage:.0%}, precision {self.precision:.0%})"

    def __call__(self, features: ArrayLike) -> Bool[Array, "..."]:
        """Whether the conditions hold: `(..., d) -> (...)`."""
        values = check_features(features, len(self.low))
        low, high = (jnp.broadcast_to(jnp.asarray(end), values.shape) for end in (self.low, self.high))
        return jnp.all((low < values) & (values <= high), axis=-1)


def check_features(features: ArrayLike, n_features: int) -> jax.Array:
    """Return `features` as an array `(..., n_features)`, or raise."""
    values = _checks.check_float_array("features", features)
    _checks.check_last_axis("features", values, n_features, "one element per feature")
    return values


class Vocabulary(NamedTuple):
    """What the text of rules needs.

    Attributes:
        names: of the features.
        classes: names of the classes.
        dtype: of the features.
    """

    names: Sequence[str]
    classes: Sequence[str]
    dtype: np.dtype

    def rule(self, low: Ends, high: Ends, prediction: int) -> str:
        """The rule as text, such as `if 2 < width <= 3 and height > 1 then class 0`."""
        parts = []
        for start, end, name in zip(low, high, self.names, strict=True):
            if np.isfinite(start) and np.isfinite(end):
                parts.append(f"{self.threshold(start)} < {name} <= {self.threshold(end)}")
            elif np.isfinite(end):
                parts.append(f"{name} <= {self.threshold(end)}")
            elif np.isfinite(start):
                parts.append(f"{name} > {self.threshold(start)}")
        return f"if {' and '.join(parts) or 'anything'} then {self.classes[prediction]}"

    def threshold(self, value: Float[np.ndarray, ""]) -> str:
        """A threshold as text."""
        return format_threshold(value, self.dtype)


def measure_rule(
    vocabulary: Vocabulary, held_out: HeldOut, low: Ends, high: Ends, prediction: int, decided: np.ndarray
) -> Rule:
    """The rule with its coverage and precision on the held-out examples that it decides, `(m,)` booleans."""
    correct = held_out.predictions[decided] == prediction
    precision = float(correct.mean()) if correct.size else float("nan")
    text = vocabulary.rule(low, high, prediction)
    return Rule(low, high, prediction, float(decided.mean()), precision, text)


def format_number(value: float) -> str:
    """Four digits; no minus before zero."""
    return f"{float(value) + 0.0:.4g}"


def shorten(threshold: float, values: Float[np.ndarray, "n"], dtype: npt.DTypeLike) -> Float[np.ndarray, ""]:
    """The threshold of fewest digits, at least four, that separates values as `value <= threshold` does.

    Its digits stand for it: a feature is at most the threshold exactly where it is at most the digits, be
    they read in the precision of the features or in more.

    Args:
        threshold: the one to shorten.
        values: of the feature.
        dtype: of the features, as the model has them.
    """
    exact = values.astype(np.float64)
    below = exact[exact <= threshold].max(initial=-np.inf)
    above = exact[exact > threshold].min(initial=np.inf)
    for number in (near for text in _decimals(threshold) for near in _neighbors(text)):
        short = np.asarray(number).astype(dtype)
        if below <= float(short) < above and float(short) <= number:
            return short.astype(values.dtype)
    return round_down(np.asarray(threshold), values.dtype)


def format_threshold(threshold: Float[np.ndarray, ""], dtype: npt.DTypeLike) -> str:
    """The fewest digits, at least four, that stand for a threshold; see `shorten`."""
    for text in _decimals(float(threshold)):
        if float(threshold) <= float(text) and np.asarray(float(text)).astype(dtype) == threshold:
            return text
    return repr(float(threshold))


def _decimals(value: float) -> list[str]:
    """A number to four digits and more, up to all of it."""
    return [f"{value + 0.0:.{digits}g}" for digits in range(4, 18)]


def _neighbors(text: str) -> list[float]:
    """A number, and those that differ by one in its last digit: one of them is rounded downwards."""
    number = decimal.Decimal(text)
    last = decimal.Decimal((0, (1,), int(number.as_tuple().exponent)))
    return [float(number), float(number + last), float(number - last)]


def round_down(thresholds: Float[np.ndarray, "..."], dtype: npt.DTypeLike) -> Float[np.ndarray, "..."]:
    """Thresholds in the precision of the features: `feature <= threshold` holds exactly where it did."""
    nearest = np.asarray(thresholds).astype(dtype)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.array(-np.inf, dtype)), nearest)


def lower_bound(correct: ArrayLike, trials: ArrayLike, confidence: float) -> np.ndarray:
    """Clopper-Pearson bound: the exact lower confidence bound of a proportion, elementwise.

    It is the `q` with `P(Binomial(trials, q) >= correct) = 1 - confidence`, and 0 for `correct = 0`.
    """
    from scipy.special import betaincinv  # here: a slow import

    correct, trials = np.asarray(correct, float), np.asarray(trials, float)
    bound = betaincinv(np.maximum(correct, 1e-9), np.maximum(trials - correct + 1, 1e-9), 1 - confidence)
    return np.where(correct > 0, bound, 0.0)
