"""Rule lists: a short list of if-then rules with a default, learned from the predictions of a model."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num

from jaxnn import _checks
from jaxnn._repr import short_repr
from jaxnn._typing import Key, Model
from jaxnn.rules._problem import HeldOut, Problem, prepare
from jaxnn.rules._rule import Rule, Vocabulary, check_features, lower_bound, measure_rule, shorten
from jaxnn.rules._show import drawn, measured

_CONFIDENCE = 0.95  # of the bound by which rules are compared
_BLOCK = 256  # conditions counted at once


class RuleList(NamedTuple):
    """A rule list: the first rule that holds decides. Called with features `(d,)`, it predicts a class.

    Attributes:
        rules: each a `Rule`, with its coverage and precision on the held-out inputs that no earlier rule
            decides.
        default: the class where no rule holds.
        fidelity: the fraction of the held-out inputs for which list and model predict the same class.
        accuracy: the fraction for which the list predicts the label; None without labels.
        text: the list as text.
        names: of the features; by default those of the columns of a data frame.
        classes: names of the classes.
    """

    rules: tuple[Rule, ...]
    default: int
    fidelity: float
    accuracy: float | None
    text: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        return short_repr(self)

    def __str__(self) -> str:
        return f"{self.text.rstrip()}\n{measured(self.fidelity, self.accuracy)}"

    def _repr_html_(self) -> str:
        return drawn("rule_list", self, str(self))

    def __call__(self, features: ArrayLike) -> Int[Array, "..."]:
        """The predicted class of each input, `(..., d) -> (...)`."""
        values = check_features(features, len(self.names))
        prediction: jax.Array = jnp.full(values.shape[:-1], self.default)
        for rule in reversed(self.rules):
            prediction = jnp.where(rule(values), rule.prediction, prediction)
        return prediction


def rule_list(
    model: Model,
    inputs: Num[ArrayLike, "n ..."],
    *,
    held_out: Num[ArrayLike, "m ..."],
    key: Key,
    held_out_labels: Int[ArrayLike, "m"] | None = None,
    max_rules: int = 6,
    max_conditions: int = 2,
    precision: float = 0.95,
    thresholds: int = 15,
    beam: int = 8,
    n_samples: int = 5000,
    spread: float = 0.7,
    decide: Model | None = None,
    features: Model | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> RuleList:
    """Rule list by sequential covering (CN2): if-then rules that imitate a model, and a default for the rest.

    The model is queried on the inputs and on samples around them, as by `distill_tree`. Then rules are added
    one by one. Each is a conjunction of conditions `feature <= t` or `feature > t`, with `t` at quantiles, on
    the examples that no earlier rule decides. Among the conjunctions whose precision is at least `precision`,
    with 95 % confidence, the one that decides most is taken. If there is none, it is the one with the highest
    such bound, provided that this exceeds the bound of the default. A beam search adds one condition at a
    time and keeps the best few (`beam`). Rules at the end that predict the default are removed. The method
    suits some tens of features.

    Args:
        model: a callable of one example.
        inputs: `(n, ...)`, finite: the data to learn from.
        held_out: `(m, ...)`: the data to measure on; the list is not fitted to it.
        key: a JAX random key.
        held_out_labels: `(m,)`, the true classes of the held-out data, to measure the accuracy.
        max_rules: the maximum number of rules, besides the default.
        max_conditions: the maximum number of conditions in a rule.
        precision: the precision that a rule should reach among the examples it decides, in (0, 1).
        thresholds: the number of quantiles of each feature that may be thresholds.
        beam: the number of partial rules that the search keeps.
        n_samples: the number of samples; 0 for none.
        spread: the scale of the noise, in standard deviations of the inputs.
        decide: a function from the output to its class; see `distill_tree`.
        features: a function from one input to the features; see `distill_tree`.
        names: of the features.
        classes: names of the classes.

    Returns:
        A `RuleList`; `jaxnn.plot.rule_list` draws it.

    Raises:
        TypeError: `model` is not callable, or an array holds no numbers or is traced.
        ValueError: the arrays are empty, not finite or do not fit, or an option is out of range.

    References:
        Clark and Niblett, "The CN2 induction algorithm", 1989, for the search.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import rules
        >>> def model(x):  # class 1 in a corner
        ...     inside = jnp.minimum(x[0], x[1]) - 0.5
        ...     return jnp.stack([-inside, inside])
        >>> x = jax.random.uniform(jax.random.key(0), (400, 2))
        >>> result = rules.rule_list(model, x[:200], held_out=x[200:], key=jax.random.key(1), max_rules=2)
        >>> [rule.prediction for rule in result.rules], result.default, result.fidelity > 0.9
        ([0, 0], 1, True)
    """
    _checks.check_key("key", key)
    options = SearchOptions(
        _checks.check_integer("max_rules", max_rules, at_least=1),
        _checks.check_integer("max_conditions", max_conditions, at_least=1),
        _checks.check_real("precision", precision, above=0, below=1),
        _checks.check_integer("beam", beam, at_least=1),
    )
    thresholds = _checks.check_integer("thresholds", thresholds, at_least=1)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=0)
    problem = prepare(model, inputs, spread, decide, features, names, classes)
    measured_on = problem.held_out(held_out, held_out_labels)
    training_features, predictions = problem.training_data(key, n_samples)
    candidates = Conditions.of(training_features, thresholds, problem.dtype)
    chosen, default = _cover(candidates, predictions, len(problem.classes), options)
    return _measure(chosen, default, candidates, problem, measured_on)


class Conditions(NamedTuple):
    """Conditions on single features, and for each example whether they hold."""

    feature: Int[np.ndarray, "c"]
    low: Float[np.ndarray, "c"]  # -inf for `feature <= high`
    high: Float[np.ndarray, "c"]
    holds: Bool[np.ndarray, "c n"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"], thresholds: int, dtype: np.dtype) -> "Conditions":
        """Both sides of each quantile of each feature."""
        _checks.check_bytes("thresholds", 16 * features.size * min(thresholds, len(features)))
        rows = []
        for j, cuts in enumerate(quantiles(features, thresholds, dtype)):
            rows += [(j, -np.inf, cut) for cut in cuts] + [(j, cut, np.inf) for cut in cuts]
        feature = np.array([j for j, _, _ in rows], int)
        low, high = (np.array([row[i] for row in rows], features.dtype) for i in (1, 2))
        values = features.T[feature]
        return cls(feature, low, high, (low[:, None] < values) & (values <= high[:, None]))

    def box(self, conjunction: frozenset[int], d: int) -> tuple[np.ndarray, np.ndarray]:
        """The ends of each of `d` features where the conditions all hold."""
        low, high = (np.full(d, end, self.low.dtype) for end in (-np.inf, np.inf))
        for c in conjunction:
            j = self.feature[c]
            low[j], high[j] = max(low[j], self.low[c]), min(high[j], self.high[c])
        return low, high


def quantiles(features: Float[np.ndarray, "n d"], count: int, dtype: np.dtype) -> list[np.ndarray]:
    """Per feature, thresholds of few digits at evenly spaced quantiles, below the largest value."""
    _checks.check_bytes("thresholds", 16 * count * features.shape[1])
    levels = np.arange(1, count + 1) / (count + 1)
    cuts = np.quantile(features.astype(np.float64), levels, axis=0, method="lower")
    columns = zip(cuts.T, features.T, strict=True)
    distinct = [(np.unique(column[column < values.max()]), values) for column, values in columns]
    return [np.array([shorten(cut, v, dtype) for cut in column], v.dtype) for column, v in distinct]


class SearchOptions(NamedTuple):
    """Limits of the search for rules."""

    max_rules: int
    max_conditions: int
    precision: float
    beam: int


class _Candidate(NamedTuple):
    """A conjunction of conditions during the search."""

    conditions: frozenset[int]
    prediction: int
    score: float
    bound: float  # a lower bound of the precision


def _cover(
    candidates: Conditions, predictions: Int[np.ndarray, "n"], n_classes: int, options: SearchOptions
) -> tuple[list[_Candidate], int]:
    """Sequential covering: add rules for the examples that earlier ones leave; the default takes the rest."""
    remaining = np.ones(len(predictions), bool)
    is_class = predictions == np.arange(n_classes)[:, None]
    counts = is_class.sum(axis=1)
    default = int(counts.argmax())
    chosen: list[_Candidate] = []
    while len(candidates.feature) and len(chosen) < options.max_rules and remaining.any():
        best = _best_rule(candidates, is_class & remaining, options)
        if best is None or best.bound <= lower_bound(counts.max(), counts.sum(), _CONFIDENCE):
            break
        chosen.append(best)
        remaining &= ~candidates.holds[list(best.conditions)].all(axis=0)
        counts = (is_class & remaining).sum(axis=1)
        default = int(counts.argmax()) if remaining.any() else default
    while chosen and chosen[-1].prediction == default:
        chosen.pop()
    return chosen, default


def _best_rule(
    candidates: Conditions, is_class: Bool[np.ndarray, "classes n"], options: SearchOptions
) -> _Candidate | None:
    """Beam search for the conjunction of highest score: precise enough, then of largest coverage."""
    best, beam = None, [frozenset[int]()]
    total = is_class.sum()
    for _ in range(options.max_conditions):
        inside = np.stack([is_class & candidates.holds[list(box)].all(axis=0) for box in beam])
        counts = _count(inside, candidates.holds)  # (beam, classes, c)
        correct, covered = counts.max(axis=1), counts.sum(axis=1)
        bounds = lower_bound(correct, covered, _CONFIDENCE)
        scores = np.where(bounds >= options.precision, 1 + covered / total, bounds)
        extended: dict[frozenset[int], _Candidate] = {}
        for i in np.argsort(-scores, axis=None, kind="stable"):
            row, c = divmod(int(i), len(candidates.feature))
            box = beam[row] | {c}
            if box not in beam:
                prediction = int(counts[row, :, c].argmax())
                score, bound = float(scores[row, c]), float(bounds[row, c])
                extended.setdefault(box, _Candidate(box, prediction, score, bound))
            if len(extended) == options.beam:
                break
        if not extended:
            break
        beam = list(extended)
        first = extended[beam[0]]
        if best is None or first.score > best.score:
            best = first
    return best


def _count(
    inside: Bool[np.ndarray, "beam classes n"], holds: Bool[np.ndarray, "c n"]
) -> Float[np.ndarray, "beam classes c"]:
    """The number of examples inside for which each condition holds; float32 is exact up to 16 million."""
    rows = inside.reshape(-1, holds.shape[1]).astype(np.float32)
    blocks = range(0, len(holds), _BLOCK)
    counts = [rows @ holds[i : i + _BLOCK].T.astype(np.float32) for i in blocks]
    return np.concatenate(counts, axis=1).reshape(*inside.shape[:2], -1)


def _measure(
    chosen: list[_Candidate], default: int, candidates: Conditions, problem: Problem, held_out: HeldOut
) -> RuleList:
    vocabulary = Vocabulary(problem.names, problem.classes, problem.dtype)
    remaining = np.ones(len(held_out.predictions), bool)
    predictions = np.full(len(remaining), default)
    rules = []
    for candidate in chosen:
        low, high = candidates.box(candidate.conditions, len(problem.names))
        decided = remaining & ((low < held_out.features) & (held_out.features <= high)).all(axis=1)
        predictions[decided] = candidate.prediction
        remaining &= ~decided
        rules.append(measure_rule(vocabulary, held_out, low, high, candidate.prediction, decided))
    lines = [f"{'else ' if i else ''}{rule.text}" for i, rule in enumerate(rules)]
    text = "\n".join([*lines, f"{'else' if rules else 'always'} {problem.classes[default]}"])
    return RuleList(tuple(rules), default, *held_out.score(predictions), text, problem.names, problem.classes)
