"""The shortest rule that keeps a model's answer to one input."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn import _checks
from jaxnn.rules._conditions import Rule, check_rows, check_share, check_spread, conditions
from jaxnn.rules._list import quantiles
from jaxnn.rules._questions import (
    FLAT,
    Subject,
    decided,
    lot,
    lower_bound,
    moved,
    noise_root,
    refuse_nan,
    subject,
)

_BOXES, _DRAWS = 40, 100  # candidates that are compared, and draws, in one call
_ROUNDS = ((100, 8), (400, 2), (1000, 1))  # how often each candidate is asked about, and how many beams stay


class Anchor(NamedTuple):
    """A rule that keeps a model's answer to one input.

    Attributes:
        rule: the conditions, the answer, the coverage (the share of the inputs where the conditions hold) and
            the precision, as estimated by a sample that the search has not seen.
        bound: the precision is at least this with the confidence that was asked for.
        verified: whether the bound reaches the precision that was asked for.
        queries: how often the model was asked.
    """

    rule: Rule
    bound: float
    verified: bool
    queries: int


def anchor(
    model: Callable[..., Any],
    x: ArrayLike,
    inputs: ArrayLike,
    *,
    key: jax.Array,
    precision: float = 0.95,
    confidence: float = 0.95,
    max_conditions: int = 5,
    thresholds: int = 9,
    beam: int = 4,
    samples: int = 2000,
    spread: float = 0.5,
    decide: Callable[..., Any] | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Anchor:
    """The shortest rule that holds for one input and keeps the model's answer to it whatever else changes.

    `precision(A) = P(model(z) = model(x))` for `z` from `D(z | A)`, what is like the data where `A` holds: by
    lot `x` or one of the inputs for which `A` holds, moved by normal noise with `spread^2` times the
    covariance of the inputs; a step out of `A` is halved until it stays, seven times at most, or not taken.
    Conditions are `feature <= t` or `feature > t`, `t` at quantiles of the inputs, whichever holds for `x`.
    The search adds a condition at a time and keeps the best few (`beam`). Of the rules with the fewest
    conditions the one of greatest coverage is taken whose precision a fresh sample puts above the one
    asked for, by Clopper and Pearson's bound at `1 - (1 - confidence) / trials`, `trials` being how many
    there may be: so the bound holds with the confidence asked for, whichever rule passes.

    Args:
        model: a callable of one example `(d,)`.
        x: `(d,)`, the input whose answer is to be kept.
        inputs: `(n, d)`, finite: the data.
        key: a JAX random key.
        precision: what the rule has to reach, in (0, 1).
        confidence: of the bound, in (0, 1).
        max_conditions: the most conditions.
        thresholds: how many quantiles of each feature may be thresholds.
        beam: how many partial rules the search keeps.
        samples: the size of the fresh sample that a rule is tried on.
        spread: how far the noise goes, in the standard deviations of the data.
        decide: a function from the output to a class; see `distill_tree`.
        names: of the features.
        classes: of the classes.

    Returns:
        An `Anchor`; where no rule passes, the one with the highest bound, `verified` being False.

    Raises:
        TypeError: `model` is not callable, or an array holds no numbers or is traced.
        ValueError: the arrays are empty, not finite or do not fit, or an option is out of range.

    References:
        Ribeiro, Singh and Guestrin, "Anchors: high-precision model-agnostic explanations", 2018. The bandit
        that picks candidates is simpler here, and the bound is of a sample of its own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import rules
        >>> model = lambda x: jnp.stack([0.5 - x[0], x[0] - 0.5])  # class 1 where x_0 > 0.5
        >>> inputs = jax.random.uniform(jax.random.key(0), (500, 3))
        >>> found = rules.anchor(model, [0.9, 0.1, 0.3], inputs, key=jax.random.key(1))
        >>> found.rule.text.split(">")[0], found.bound > 0.95
        ('if x_0 ', True)
    """
    _checks.check_key("key", key)
    rows = check_rows("inputs", inputs)
    if rows.ndim != 2:
        raise ValueError(f"`inputs` must have shape (n, d); got {rows.shape}")
    one = _checks.check_float_array("x", x)
    _checks.check_shape("x", one, rows.shape[1:], "one of `inputs`")
    (one,) = check_rows("x", one[None])
    for name, value in (("max_conditions", max_conditions), ("thresholds", thresholds), ("beam", beam)):
        _checks.check_integer(name, value, at_least=1)
    samples = _checks.check_integer("samples", samples, at_least=1)
    precision, confidence = check_share("precision", precision), check_share("confidence", confidence)
    spread = check_spread(spread)
    asked = subject(model, rows[0], decide, None, names, classes)
    questions = _Questions(
        asked, one, jnp.concatenate([rows, one[None]]), noise_root(rows, spread), _keys(key)
    )
    return _find(questions, precision, confidence, max_conditions, thresholds, beam, samples)


def _keys(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)


class _Questions(NamedTuple):
    """What is asked: whether the answer is kept inside of a box `(2, d)`."""

    asked: Subject
    x: jax.Array
    rows: jax.Array  # the inputs, and x
    root: jax.Array
    keys: tuple[jax.Array, jax.Array]  # of the search, and of the trials

    def kept(self, boxes: np.ndarray, start: int, count: int, trial: int | None = None) -> np.ndarray:
        """How often of `count` draws, from number `start` on, the answer is kept in each box `(m, 2, d)`."""
        key = self.keys[0] if trial is None else jax.random.fold_in(self.keys[1], trial)
        held = (self.asked.model, self.asked.decide, self.x, self.rows, self.root, key)
        most = 1 if trial is not None else _BOXES
        total = np.zeros(len(boxes), int)
        for first in range(0, len(boxes), most):
            part = boxes[first : first + most]
            filled = np.concatenate([part, np.repeat(part[:1], most - len(part), axis=0)])
            for number in range(start, start + count, _DRAWS):
                numbers = number + np.arange(_DRAWS)
                kept, broken = map(np.asarray, _kept(held, filled, numbers))
                refuse_nan(broken.sum())
                total[first : first + most] += kept[: len(part), numbers < start + count].sum(axis=1)
        return total

    def coverage(self, box: np.ndarray) -> float:
        """The share of the inputs inside."""
        rows = np.asarray(self.rows)[:-1]
        return float(((box[0] < rows) & (rows <= box[1])).all(axis=1).mean())


@jax.jit
def _kept(held: Any, boxes: jax.Array, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each box and each draw whether the answer is kept, and whether it is NaN, `(boxes, draws)`."""
    model, decide, x, rows, root, key = held
    own, own_broken = decided(decide, model(x))
    limits = rows.min(axis=0), rows.max(axis=0)

    def inside(box: jax.Array) -> tuple[jax.Array, jax.Array]:
        holds = jnp.cumsum(jnp.all((box[0] < rows) & (rows <= box[1]), axis=1))

        def answer(chance: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
            place = jnp.searchsorted(holds, jnp.floor(chance * holds[-1]), side="right")
            return decided(decide, model(moved(FLAT, rows[place], step, box, limits)))

        return jax.vmap(answer)(*lots)

    lots = jax.vmap(lambda number: lot(key, root, number))(
        numbers
    )  # the same for all boxes: they are compared on equal terms
    answers, broken = jax.vmap(inside)(boxes)
    return answers == own, broken | own_broken


def _find(
    questions: _Questions,
    precision: float,
    confidence: float,
    max_conditions: int,
    thresholds: int,
    beam: int,
    samples: int,
) -> Anchor:
    trials = 1 + max_conditions * beam
    surely = 1 - (1 - confidence) / trials
    conditions_ = _conditions_of(questions, thresholds)
    ends = np.full(questions.x.shape, np.inf, questions.x.dtype)
    everything = np.stack([-ends, ends])
    boxes, best, trial, queries = everything[None], (-1.0, 0, everything), 0, 0
    for length in range(max_conditions + 1):
        if length:
            boxes, asked = _round(questions, _extended(boxes, conditions_), precision, beam)
            queries += asked
        if not len(boxes):
            break
        for box in sorted(boxes, key=questions.coverage, reverse=True):
            right = int(questions.kept(box[None], 0, samples, trial)[0])
            trial, queries = trial + 1, queries + samples
            bound = float(lower_bound(right, samples, surely))
            best = max(best, (bound, right, box), key=lambda found: found[0])
            if bound >= precision:
                return _made(questions, best, samples, True, queries)
    return _made(questions, best, samples, False, queries)


def _conditions_of(questions: _Questions, thresholds: int) -> list[tuple[int, int, float]]:
    """Those that hold for the input: feature, which end (0: above, 1: up to), threshold."""
    cuts = quantiles(np.asarray(questions.rows)[:-1], thresholds)
    return [
        (j, int(questions.x[j] <= cut), float(cut))
        for j, column in enumerate(cuts)
        for cut in column.tolist()
    ]


def _extended(boxes: np.ndarray, conditions_: list[tuple[int, int, float]]) -> np.ndarray:
    """Each box with one more condition, each once."""
    found = {}
    for box in boxes:
        for j, end, cut in conditions_:
            if np.isfinite(box[end, j]):  # one condition a side: a nearer one is no longer rule
                continue
            new = box.copy()
            new[end, j] = cut
            found[new.tobytes()] = new
    return np.array(list(found.values())).reshape(-1, *boxes.shape[1:])


def _round(questions: _Questions, boxes: np.ndarray, precision: float, beam: int) -> tuple[np.ndarray, int]:
    """The most promising boxes: those that may reach the precision by coverage, the others by precision."""
    right, asked, queries = np.zeros(len(boxes)), 0, 0
    coverage = np.array([questions.coverage(box) for box in boxes])
    for count, beams in _ROUNDS:
        if not len(boxes):
            break
        right = right + questions.kept(boxes, asked, count - asked)
        queries += len(boxes) * (count - asked)
        asked = count
        reached = lower_bound(right, asked, 0.9) >= precision
        worth = np.where(reached, 1 + coverage, right / asked)
        order = np.argsort(-worth, kind="stable")[: beams * beam]
        boxes, right, coverage = boxes[order], right[order], coverage[order]
    return boxes, queries


def _made(
    questions: _Questions, best: tuple[float, int, np.ndarray], samples: int, verified: bool, queries: int
) -> Anchor:
    bound, right, (low, high) = best
    asked = questions.asked
    answer = int(asked.answers(np.asarray(questions.x)[None])[0])
    parted = list(np.asarray(questions.rows).T)
    text = f"{conditions(low, high, asked.names, parted)} then {asked.classes[answer]}"
    coverage = questions.coverage(np.stack([low, high]))
    rule = Rule(low, high, answer, coverage, right / samples, text)
    return Anchor(rule, bound, verified, queries)
