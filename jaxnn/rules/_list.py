"""A short list of if-then rules with a default, learned from a model's answers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn.rules._conditions import Rule, check_rows, check_share, check_spread, make_rule
from jaxnn.rules._questions import (
    Around,
    Measured,
    Subject,
    draw,
    everywhere,
    held_out_of,
    lower_bound,
    subject,
)

_CONFIDENCE = 0.95  # of the bound by which rules are compared
_BLOCK = 256  # conditions that are counted at once


class RuleList(NamedTuple):
    """Rules in order: the first that holds decides. Called with features `(d,)` it answers a class.

    Attributes:
        rules: each a `Rule`, with its coverage and precision on the inputs held out that no earlier one took.
        default: the class where none holds.
        fidelity: the share of the inputs held out to which the list gives the model's answer.
        accuracy: the share of those to which it gives the label; None without labels.
        text: the list in words.
        names: of the features.
        classes: of the classes.
    """

    rules: tuple[Rule, ...]
    default: int
    fidelity: float
    accuracy: float | None
    text: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __call__(self, features: ArrayLike) -> jax.Array:
        """The class of one input, `(..., d) -> (...)`."""
        values = _checks.check_float_array("features", features)
        _checks.check_last_axis("features", values, len(self.names), "an entry a feature")
        answer = jnp.full(values.shape[:-1], self.default)
        for rule in reversed(self.rules):
            answer = jnp.where(rule(values), rule.answer, answer)
        return answer


def rule_list(
    model: Callable[..., Any],
    inputs: ArrayLike,
    *,
    held_out: ArrayLike,
    key: jax.Array,
    held_out_labels: ArrayLike | None = None,
    max_rules: int = 6,
    max_conditions: int = 2,
    precision: float = 0.95,
    thresholds: int = 15,
    beam: int = 8,
    samples: int = 5000,
    spread: float = 0.7,
    decide: Callable[..., Any] | None = None,
    features: Callable[..., Any] | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> RuleList:
    """A short list of if-then rules that imitates a model, and a default for the rest.

    The model is asked about the inputs and samples round them, as by `distill_tree`. Then rule by rule, among
    what no earlier rule decides, a conjunction of conditions `feature <= t` or `feature > t` is sought, `t`
    at quantiles: of those whose precision is at least the one asked for, with 95 % confidence, that which
    decides most; where there is none, the one with the highest such bound, if it is surer than the default.
    The search adds a condition at a time and keeps the best few (`beam`). Rules at the end that say what
    the default says are left out. It suits some tens of features.

    Args:
        model: a callable of one example.
        inputs: `(n, ...)`, finite: the data to learn from.
        held_out: `(m, ...)`: data to measure on; the list never sees it.
        key: a JAX random key.
        held_out_labels: `(m,)`, the true classes of those, to measure the accuracy.
        max_rules: the most rules, besides the default.
        max_conditions: the most conditions in a rule.
        precision: what a rule should reach among what it decides, in (0, 1).
        thresholds: how many quantiles of each feature may be thresholds.
        beam: how many partial rules the search keeps.
        samples: how many inputs are drawn; 0 for none.
        spread: how far round the inputs, in their own standard deviations.
        decide: a function from the output to a class; see `distill_tree`.
        features: a function from one input to the features; see `distill_tree`.
        names: of the features.
        classes: of the classes.

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
        >>> found = rules.rule_list(model, x[:200], held_out=x[200:], key=jax.random.key(1), max_rules=2)
        >>> [rule.answer for rule in found.rules], found.default, found.fidelity > 0.9
        ([0, 0], 1, True)
    """
    _checks.check_key("key", key)
    rows = check_rows("inputs", inputs)
    search = Search(max_rules, max_conditions, precision, beam)
    for name, value in (*search._asdict().items(), ("thresholds", thresholds)):
        if name != "precision":
            _checks.check_integer(name, value, at_least=1)
    samples = _checks.check_integer("samples", samples, at_least=0)
    check_share("precision", precision)
    spread = check_spread(spread)
    asked = subject(model, rows[0], decide, features, names, classes)
    measured = held_out_of(asked, rows, held_out, held_out_labels)
    drawn = draw(key, Around.of(asked, rows, spread), everywhere(asked, rows), samples)
    seen = np.concatenate([np.asarray(rows), drawn])
    candidates = Conditions.of(asked.describe(seen), thresholds)
    answers = asked.answers(seen)
    boxes, default = _cover(candidates, answers, len(asked.classes), search)
    return _measured(boxes, default, asked, measured)


class Conditions(NamedTuple):
    """Conditions on single features, and for each example whether they hold."""

    feature: np.ndarray  # (c,)
    low: np.ndarray  # (c,), -inf for `feature <= high`
    high: np.ndarray
    holds: np.ndarray  # (c, n)

    @classmethod
    def of(cls, features: np.ndarray, thresholds: int) -> "Conditions":
        """Both sides of each quantile of each feature; quantiles of values that occur, so none is new."""
        found = []
        for j, cuts in enumerate(quantiles(features, thresholds)):
            found += [(j, -np.inf, cut) for cut in cuts] + [(j, cut, np.inf) for cut in cuts]
        feature = np.array([j for j, _, _ in found], int)
        low, high = (np.array([each[i] for each in found], features.dtype) for i in (1, 2))
        values = features.T[feature]
        return cls(feature, low, high, (low[:, None] < values) & (values <= high[:, None]))


def quantiles(features: np.ndarray, count: int) -> list[np.ndarray]:
    """For each feature the values between which its examples divide evenly, without the largest."""
    levels = np.arange(1, count + 1) / (count + 1)
    cuts = np.quantile(features, levels, axis=0, method="lower")
    return [np.unique(column[column < top]) for column, top in zip(cuts.T, features.max(axis=0), strict=True)]


class Search(NamedTuple):
    """What is sought, and how widely."""

    max_rules: int
    max_conditions: int
    precision: float
    beam: int


class _Box(NamedTuple):
    """A rule while it is sought."""

    conditions: frozenset[int]
    answer: int
    worth: float
    bound: float


def _cover(
    candidates: Conditions, answers: np.ndarray, n_classes: int, search: Search
) -> tuple[list[tuple[_Box, np.ndarray, np.ndarray]], int]:
    """Take rules one after the other, each for what the earlier ones leave; the rest is the default's."""
    left = np.ones(len(answers), bool)
    kinds = answers == np.arange(n_classes)[:, None]
    counts = kinds.sum(axis=1)
    default = int(counts.argmax())
    found: list[tuple[_Box, np.ndarray, np.ndarray]] = []
    while len(candidates.feature) and len(found) < search.max_rules and left.any():
        best = _best_rule(candidates, kinds & left, search)
        if best is None or best.bound <= lower_bound(counts.max(), counts.sum(), _CONFIDENCE):
            break
        found.append((best, *_interval(candidates, best.conditions)))
        left &= ~candidates.holds[list(best.conditions)].all(axis=0)
        counts = (kinds & left).sum(axis=1)
        default = int(counts.argmax()) if left.any() else default
    while found and found[-1][0].answer == default:
        found.pop()
    return found, default


def _best_rule(candidates: Conditions, kinds: np.ndarray, search: Search) -> _Box | None:
    """The conjunction of most worth: that decides most, of those that are precise enough."""
    best, kept = None, [frozenset[int]()]
    total = kinds.sum()
    for _ in range(search.max_conditions):
        inside = np.stack([kinds & candidates.holds[list(box)].all(axis=0) for box in kept])
        right = _count(inside, candidates.holds)  # (beam, classes, c)
        most, covered = right.max(axis=1), right.sum(axis=1)
        bounds = lower_bound(most, covered, _CONFIDENCE)
        worth = np.where(bounds >= search.precision, 1 + covered / total, bounds)
        found: dict[frozenset[int], _Box] = {}
        for i in np.argsort(-worth, axis=None, kind="stable"):
            row, place = divmod(int(i), len(candidates.feature))
            box = kept[row] | {place}
            if box not in kept:
                answer, at = int(right[row, :, place].argmax()), (row, place)
                found.setdefault(box, _Box(box, answer, float(worth[at]), float(bounds[at])))
            if len(found) == search.beam:
                break
        if not found:
            break
        kept = list(found)
        first = next(iter(found.values()))
        if best is None or first.worth > best.worth:
            best = first
    return best


def _count(inside: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """In how many of the examples inside each condition holds; exact, as float32 is up to 16 million."""
    rows = inside.reshape(-1, holds.shape[1]).astype(np.float32)
    blocks = range(0, len(holds), _BLOCK)
    counts = [rows @ holds[i : i + _BLOCK].T.astype(np.float32) for i in blocks]
    return np.concatenate(counts, axis=1).reshape(*inside.shape[:2], -1)


def _interval(candidates: Conditions, conditions: frozenset[int]) -> tuple[np.ndarray, np.ndarray]:
    d = int(candidates.feature.max()) + 1
    low, high = np.full(d, -np.inf), np.full(d, np.inf)
    for place in conditions:
        j = candidates.feature[place]
        low[j], high[j] = max(low[j], candidates.low[place]), min(high[j], candidates.high[place])
    return low, high


def _measured(
    boxes: list[tuple[_Box, np.ndarray, np.ndarray]], default: int, asked: Subject, held_out: Measured
) -> RuleList:
    left = np.ones(len(held_out.answers), bool)
    given = np.full(len(left), default)
    found = []
    pad = len(asked.names)
    for box, low, high in boxes:
        low, high = (_padded(end, pad, fill) for end, fill in ((low, -np.inf), (high, np.inf)))
        decided = left & ((low < held_out.features) & (held_out.features <= high)).all(axis=1)
        given[decided] = box.answer
        left &= ~decided
        found.append(
            make_rule(
                low, high, box.answer, decided, held_out.answers, asked.names, asked.classes,
                list(held_out.features.T),
            )
        )  # fmt: skip
    fidelity, accuracy = held_out.compare(given)
    lines = [f"{'else ' if i else ''}{rule.text}" for i, rule in enumerate(found)]
    text = "\n".join([*lines, f"{'else ' if found else 'always '}{asked.classes[default]}"])
    return RuleList(tuple(found), default, fidelity, accuracy, text, asked.names, asked.classes)


def _padded(ends: np.ndarray, size: int, fill: float) -> np.ndarray:
    """With the last features, where none of them has two values to cut between."""
    return np.concatenate([ends, np.full(size - len(ends), fill)])
