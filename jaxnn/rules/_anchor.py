"""Anchors: the shortest rule that keeps the prediction of a model for one input."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from jaxnn import _checks
from jaxnn._map import map_examples
from jaxnn._model import broadcast_like
from jaxnn._precision import float_dtype
from jaxnn._repr import short_repr
from jaxnn._typing import Key, Model
from jaxnn.rules._list import quantiles
from jaxnn.rules._problem import FLATTEN, Problem, check_examples, classify, prepare, refuse_nan
from jaxnn.rules._rule import Rule, Vocabulary, lower_bound
from jaxnn.rules._sampling import Sampler, draw_one, is_between, move

Boxes: TypeAlias = Float[np.ndarray, "k 2 d"]  # lower and upper ends
_BOXES, _DRAWS = 40, 100  # candidates compared, and samples drawn, in one call
_ROUNDS = ((100, 8), (400, 2), (1000, 1))  # samples per candidate, and how many times `beam` candidates stay


class Anchor(NamedTuple):
    """An anchor: a rule that keeps the prediction of a model for one input.

    Attributes:
        rule: the conditions, the prediction, the coverage (the fraction of the inputs where the conditions
            hold) and the precision, estimated on a sample that the search has not used.
        bound: a lower bound of the precision, at the requested confidence.
        verified: whether the bound reaches the requested precision.
        queries: the number of queries of the model.
    """

    rule: Rule
    bound: float
    verified: bool
    queries: int

    def __repr__(self) -> str:
        return short_repr(self)

    def __str__(self) -> str:
        kind = "verified" if self.verified else "not verified"
        return f"{self.rule} with precision at least {self.bound:.0%}, {kind}, from {self.queries:,} queries"


def anchor(
    model: Model,
    x: Num[ArrayLike, "d"],
    inputs: Num[ArrayLike, "n d"],
    *,
    key: Key,
    precision: float = 0.95,
    confidence: float = 0.95,
    max_conditions: int = 5,
    thresholds: int = 9,
    beam: int = 4,
    n_samples: int = 2000,
    spread: float = 0.5,
    decide: Model | None = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Anchor:
    """Anchor: the shortest rule that holds for one input and keeps its prediction when all else changes.

    `precision(A) = P(model(z) = model(x))` for `z` from `D(z | A)`, the distribution of the data where `A`
    holds. To sample it, draw at random `x` or an input for which `A` holds, and add normal noise with
    `spread^2` times the covariance of the inputs. A step out of `A` is halved until it stays inside, at most
    seven times, or is not taken. Conditions are `feature <= t` or `feature > t`, with `t` at quantiles of the
    inputs, whichever holds for `x`. A beam search adds one condition at a time and keeps the best few
    (`beam`). Among the rules with the fewest conditions, the result is the one of largest coverage whose
    precision is at least `precision` on a fresh sample, by the Clopper-Pearson bound at `1 - (1 - confidence)
    / trials`. Here `trials` is the largest possible number of tests, so the bound holds with the requested
    confidence for any rule that passes.

    Args:
        model: a callable of one example `(d,)`.
        x: `(d,)`, the input whose prediction is explained.
        inputs: `(n, d)`, finite: the data.
        key: a JAX random key.
        precision: the precision that the rule has to reach, in (0, 1).
        confidence: of the bound, in (0, 1).
        max_conditions: the maximum number of conditions.
        thresholds: the number of quantiles of each feature that may be thresholds.
        beam: the number of partial rules that the search keeps.
        n_samples: the size of the fresh sample on which a rule is tested.
        spread: the scale of the noise, in standard deviations of the inputs.
        decide: a function from the output to its class; see `distill_tree`.
        names: of the features; by default those of the columns of a data frame.
        classes: names of the classes.

    Returns:
        An `Anchor`; if no rule passes, the one with the highest bound, with `verified` False.

    Raises:
        TypeError: `model` is not callable, or an array holds no numbers or is traced.
        ValueError: the arrays are empty, not finite or do not fit, or an option is out of range.

    References:
        Ribeiro, Singh and Guestrin, "Anchors: high-precision model-agnostic explanations", 2018. The bandit
        that selects candidates is simpler here, and the bound is from a separate sample.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import rules
        >>> model = lambda x: jnp.stack([0.5 - x[0], x[0] - 0.5])  # class 1 where x_0 > 0.5
        >>> inputs = jax.random.uniform(jax.random.key(0), (500, 3))
        >>> result = rules.anchor(model, [0.9, 0.1, 0.3], inputs, key=jax.random.key(1))
        >>> result.rule.text.split(">")[0], result.bound > 0.95
        ('if x_0 ', True)
    """
    _checks.check_key("key", key)
    max_conditions = _checks.check_integer("max_conditions", max_conditions, at_least=1)
    thresholds = _checks.check_integer("thresholds", thresholds, at_least=1)
    beam = _checks.check_integer("beam", beam, at_least=1)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=1)
    precision = _checks.check_real("precision", precision, above=0, below=1)
    confidence = _checks.check_real("confidence", confidence, above=0, below=1)
    problem = prepare(model, inputs, spread, decide, None, names, classes)
    if problem.inputs.ndim != 2:
        raise ValueError(f"`inputs` must have shape (n, d); got {problem.inputs.shape}")
    given = _checks.check_real_array("x", x)
    _checks.check_shape("x", given, problem.inputs.shape[1:], "that of a row of `inputs`")
    example = broadcast_like("x", given, problem.inputs[0])
    check_examples("x", example[None])
    estimator = _Estimator.of(problem, example, key)

    trials = 1 + max_conditions * beam
    trial_confidence = 1 - (1 - confidence) / trials
    conditions = _conditions_of(estimator, thresholds)
    ends = np.full(example.shape, np.inf, float_dtype(example.dtype))
    everything = np.stack([-ends, ends])
    boxes, best, trial, queries = everything[None], (-1.0, 0, everything), 0, 0
    for length in range(max_conditions + 1):
        if length:
            boxes, round_queries = _select(estimator, _extend(boxes, conditions), precision, beam)
            queries += round_queries
        for box in sorted(boxes, key=estimator.coverage, reverse=True):
            correct = int(estimator.count_correct(box[None], 0, n_samples, trial)[0])
            trial, queries = trial + 1, queries + n_samples
            bound = float(lower_bound(correct, n_samples, trial_confidence))
            best = max(best, (bound, correct, box), key=lambda candidate: candidate[0])
            if bound >= precision:
                break
        if best[0] >= precision or not len(boxes):
            break
    bound, correct, (low, high) = best
    prediction = int(problem.predict(np.asarray(example)[None])[0])
    vocabulary = Vocabulary(problem.names, problem.classes, problem.dtype)
    coverage, text = estimator.coverage(best[2]), vocabulary.rule(low, high, prediction)
    rule = Rule(low, high, prediction, coverage, correct / n_samples, text)
    return Anchor(rule, bound, bound >= precision, queries)


class _Estimator(NamedTuple):
    """Estimates how often the model keeps its prediction inside a box `(2, d)` around an example."""

    problem: Problem
    x: Shaped[Array, "d"]
    rows: Shaped[Array, "m d"]  # the inputs, and x
    keys: tuple[Key, Key]  # of the search, and of the trials

    @classmethod
    def of(cls, problem: Problem, x: Shaped[Array, "d"], key: Key) -> "_Estimator":
        rows = jnp.concatenate([problem.inputs, x[None]])
        return cls(problem, x, rows, (jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)))

    def count_correct(
        self, boxes: Boxes, start: int, count: int, trial: int | None = None
    ) -> Int[np.ndarray, "k"]:
        """The number of the samples `start` to `start + count` in each box that keep the prediction."""
        key = self.keys[0] if trial is None else jax.random.fold_in(self.keys[1], trial)
        model, decide, root = self.problem.model, self.problem.decide, self.problem.sampler.root
        total = np.zeros(len(boxes), int)
        for first in range(start, start + count, _DRAWS):
            numbers = np.arange(first, first + _DRAWS)
            keeps = Partial(_keeps_prediction, model, decide, self.x, self.rows, root, key, numbers)
            kept, is_nan = map_examples(keeps, boxes, batch_size=_BOXES if trial is None else 1)
            refuse_nan(is_nan.sum())
            total += kept[:, numbers < start + count].sum(axis=1)
        return total

    def coverage(self, box: Float[np.ndarray, "2 d"]) -> float:
        """The fraction of the inputs inside."""
        rows = np.asarray(self.problem.inputs)
        return float(((box[0] < rows) & (rows <= box[1])).all(axis=1).mean())


def _keeps_prediction(
    model: Model,
    decide: Model,
    x: Shaped[Array, "d"],
    rows: Shaped[Array, "m d"],
    root: Float[Array, "r d"],
    key: Key,
    numbers: Int[Array, "n"],
    box: Float[Array, "2 d"],
) -> tuple[Bool[Array, "n"], Bool[Array, "n"]]:
    """Per sample in the box: whether the model predicts the class of `x`, and whether its output is NaN."""
    own, own_is_nan = classify(model, decide, x)
    sampler = Sampler(FLATTEN, (rows.min(axis=0), rows.max(axis=0)), root)
    low, high = box[:, None]
    counts = jnp.cumsum(jnp.all(is_between(rows, low, high), axis=1))

    def predict(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The random numbers are the same for all boxes, which makes their comparison fair.
        uniform, noise = draw_one(key, root, number)
        place = jnp.floor(uniform * counts[-1].astype(uniform.dtype))
        index = jnp.searchsorted(counts, place.astype(counts.dtype), side="right")
        return classify(model, decide, move(sampler, (box[0], box[1]), rows[index], noise))

    predictions, is_nan = jax.vmap(predict)(numbers)
    return predictions == own, is_nan | own_is_nan


def _conditions_of(estimator: _Estimator, thresholds: int) -> list[tuple[int, int, float]]:
    """The conditions that hold for the example: feature, end (0: above, 1: up to), threshold."""
    rows = estimator.problem.featurize(estimator.problem.inputs)
    return [
        (j, int(float(estimator.x[j]) <= cut), float(cut))
        for j, cuts in enumerate(quantiles(rows, thresholds, estimator.problem.dtype))
        for cut in cuts.tolist()
    ]


def _extend(boxes: Boxes, conditions: list[tuple[int, int, float]]) -> Boxes:
    """Each box with one more condition, without duplicates."""
    extended = {}
    for box in boxes:
        for j, end, cut in conditions:
            if np.isfinite(box[end, j]):  # at most one condition per side of a feature
                continue
            new = box.copy()
            new[end, j] = cut
            extended[new.tobytes()] = new
    return np.array(list(extended.values())).reshape(-1, *boxes.shape[1:])


def _select(estimator: _Estimator, boxes: Boxes, precision: float, beam: int) -> tuple[Boxes, int]:
    """The `beam` most promising boxes: by coverage if they may reach the precision, else by precision."""
    correct, count, queries = np.zeros(len(boxes)), 0, 0
    coverage = np.array([estimator.coverage(box) for box in boxes])
    for next_count, beams in _ROUNDS if len(boxes) else ():
        correct = correct + estimator.count_correct(boxes, count, next_count - count)
        queries += len(boxes) * (next_count - count)
        count = next_count
        reached = lower_bound(correct, count, 0.9) >= precision
        scores = np.where(reached, 1 + coverage, correct / count)
        order = np.argsort(-scores, kind="stable")[: beams * beam]
        boxes, correct, coverage = boxes[order], correct[order], coverage[order]
    return boxes, queries
