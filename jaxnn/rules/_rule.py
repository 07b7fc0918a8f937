"""A rule: an interval per feature and the class that the model predicts there; its text and measures."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float
from scipy.special import betaincinv

from jaxnn import _checks
from jaxnn.rules._problem import HeldOut

Ends: TypeAlias = Float[np.ndarray, "d"]
_NO_VALUES = np.zeros(0)


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
        text: the rule as text. Thresholds have four digits, or as many more as it takes to decide the
            measured examples alike.
    """

    low: Ends
    high: Ends
    prediction: int
    coverage: float
    precision: float
    text: str

    def __call__(self, features: ArrayLike) -> Bool[Array, "..."]:
        """Whether the conditions hold: `(..., d) -> (...)`."""
        values = check_features(features, len(self.low))
        return jnp.all((self.low < values) & (values <= self.high), axis=-1)


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
        distinguishable: per feature, values that its printed thresholds separate as the thresholds do.
    """

    names: Sequence[str]
    classes: Sequence[str]
    distinguishable: Sequence[np.ndarray]

    def rule(self, low: Ends, high: Ends, prediction: int) -> str:
        """The rule as text, such as `if 2 < width <= 3 and height > 1 then class 0`."""
        parts = []
        for start, end, name, values in zip(low, high, self.names, self.distinguishable, strict=True):
            if np.isfinite(start) and np.isfinite(end):
                values = np.append(values, (float(start) + float(end)) / 2)  # the two must print differently
                parts.append(f"{format_number(start, values)} < {name} <= {format_number(end, values)}")
            elif np.isfinite(end):
                parts.append(f"{name} <= {format_number(end, values)}")
            elif np.isfinite(start):
                parts.append(f"{name} > {format_number(start, values)}")
        return f"if {' and '.join(parts) or 'anything'} then {self.classes[prediction]}"


def measure_rule(
    vocabulary: Vocabulary, held_out: HeldOut, low: Ends, high: Ends, prediction: int, decided: np.ndarray
) -> Rule:
    """The rule with its coverage and precision on the held-out examples that it decides, `(m,)` booleans."""
    correct = held_out.predictions[decided] == prediction
    precision = float(correct.mean()) if correct.size else float("nan")
    text = vocabulary.rule(low, high, prediction)
    return Rule(low, high, prediction, float(decided.mean()), precision, text)


def format_number(value: float, distinguishable: np.ndarray = _NO_VALUES) -> str:
    """Four digits, or as many more as separate the given values as `<= value` does; no minus before zero."""
    value = float(value)
    below = distinguishable[distinguishable <= value].max(initial=-np.inf)
    above = distinguishable[distinguishable > value].min(initial=np.inf)
    texts = [f"{value:.{digits}g}" for digits in range(4, 18)] if value else ["0"]
    return next((text for text in texts if below <= float(text) < above), texts[-1])


def lower_bound(correct: ArrayLike, trials: ArrayLike, confidence: float) -> np.ndarray:
    """Clopper-Pearson bound: the exact lower confidence bound of a proportion, elementwise.

    It is the `q` with `P(Binomial(trials, q) >= correct) = 1 - confidence`, and 0 for `correct = 0`.
    """
    correct, trials = np.asarray(correct, float), np.asarray(trials, float)
    bound = betaincinv(np.maximum(correct, 1e-9), np.maximum(trials - correct + 1, 1e-9), 1 - confidence)
    return np.where(correct > 0, bound, 0.0)
