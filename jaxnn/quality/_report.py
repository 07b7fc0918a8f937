"""The report: every method by every metric, with curves, and a verdict in words."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._files import write_atomically
from jaxnn._model import as_model, broadcast_like, call, output_shape, prepare
from jaxnn._progress import progress_bar
from jaxnn._repr import short_repr
from jaxnn._summary import as_text
from jaxnn._typing import Key, Model, PyTree
from jaxnn.attribution._masks import Game, check_groups, warn_of_cost
from jaxnn.quality._axioms import completeness, input_invariance, non_sensitivity
from jaxnn.quality._common import Explain, check_explain, flat
from jaxnn.quality._deletion import Curve, deletion, insertion, symmetric_relevance_gain
from jaxnn.quality._faithfulness import faithfulness_correlation, infidelity, mu_fidelity, sensitivity_n
from jaxnn.quality._localization import pointing_game, relevance_auc, relevance_mass, relevance_rank
from jaxnn.quality._randomize import parameter_layers
from jaxnn.quality._road import road
from jaxnn.quality._sanity import (
    ParameterRandomization,
    check_examples,
    compare,
    entropy_rise,
    explain_all,
    order_of_layers,
    other_class,
    random_network,
)
from jaxnn.quality._shape import complexity, effective_complexity, sparseness
from jaxnn.quality._similarity import Comparison
from jaxnn.quality._stability import change, changed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Which value of a metric is better; "" where neither is.
BETTER = {
    "deletion": "lower",
    "insertion": "higher",
    "symmetric_relevance_gain": "higher",
    "faithfulness_correlation": "higher",
    "sensitivity_n": "higher",
    "mu_fidelity": "higher",
    "infidelity": "lower",
    "road": "lower",
    "completeness": "lower",
    "non_sensitivity": "lower",
    "input_invariance": "lower",
    "max_sensitivity": "lower",
    "average_sensitivity": "lower",
    "local_lipschitz": "lower",
    "relative_input_stability": "lower",
    "parameter_randomization": "lower",
    "efficient_parameter_randomization": "higher",
    "random_logit": "lower",
    "sparseness": "",
    "complexity": "",
    "effective_complexity": "",
    "pointing_game": "higher",
    "relevance_mass": "higher",
    "relevance_rank": "higher",
    "relevance_auc": "higher",
}
CLAIMS = (
    "sums up", "survives deletion", "depends on the weights", "depends on the class", "is stable"
)  # fmt: skip
_GAP = 0.01  # of the change of the output, that the sum may be off
_ALIKE = 0.9  # rank correlation of attributions that hardly differ
_CHANGE = 0.5  # relative change of the attributions within the radius
_ROAD = tuple(i / 10 for i in range(1, 10))
_RADIUS, _NOISE = 0.02, 0.1  # those of `max_sensitivity` and `local_lipschitz`
_LOCALIZATION = {
    "pointing_game": pointing_game, "relevance_mass": relevance_mass, "relevance_rank": relevance_rank,
    "relevance_auc": relevance_auc,
}  # fmt: skip


class Verdict(NamedTuple):
    """Whether a method does what is claimed.

    Attributes:
        passed: whether it does; None where it could not be measured.
        value: the measured number.
        limit: what it was compared with.
        text: both in words.
    """

    passed: bool | None
    value: float
    limit: float
    text: str


class MethodQuality(NamedTuple):
    """What the metrics say of one method.

    Attributes:
        values: by metric, `(N,)`, one value per example.
        curves: "deletion" and "insertion", a `Curve` of means over the examples.
        randomization: see `ParameterRandomization`; None of a model without parameters.
        verdicts: by claim, a `Verdict`.
        refused: why the method refused the model, and nothing else is there; else "".
    """

    values: dict[str, np.ndarray]
    curves: dict[str, Curve]
    randomization: ParameterRandomization | None
    verdicts: dict[str, Verdict]
    refused: str


class Report(NamedTuple):
    """Every method by every metric; returned by `report`.

    `print` shows it as tables, `draw` as a figure, and `save_html` as a page; a notebook shows that page.

    Attributes:
        methods: by name, a `MethodQuality`.
        metrics: the names of the metrics.
        steps: the layers whose parameters were drawn again, from the last to the first.
        n_examples: N, the number of examples.
    """

    methods: dict[str, MethodQuality]
    metrics: tuple[str, ...]
    steps: tuple[str, ...]
    n_examples: int

    def mean(self, method: str, metric: str) -> tuple[float, float]:
        """The mean of a metric over the examples where it is finite, and its standard error."""
        return _mean(self.methods[method].values[metric])

    def __rich__(self) -> Group:
        used = [name for name, found in self.methods.items() if not found.refused]
        # As text: a name may hold brackets, which are markup elsewhere.
        verdicts = Table("method", *CLAIMS, title=f"Can it be trusted? {self.n_examples} examples")
        for name, found in self.methods.items():
            if found.refused:
                verdicts.add_row(Text(name), "refused")
                continue
            verdicts.add_row(Text(name), *(_cell(found.verdicts[claim]) for claim in CLAIMS))
        refusals = "\n".join(
            f"{name} refused: {found.refused.splitlines()[0]}"
            for name, found in self.methods.items()
            if found.refused
        )
        notes = [Text(refusals)] if refusals else []
        blocks = [used[i : i + 4] for i in range(0, len(used), 4)]
        return Group(verdicts, *notes, *(self._table(block) for block in blocks))

    def _table(self, methods: list[str]) -> Table:
        table = Table(
            "metric (better)", *map(escape, methods), title="Mean over the examples, and its standard error"
        )
        for metric in self.metrics:
            better = f" ({BETTER[metric]})" if BETTER[metric] else ""
            values = [self.mean(method, metric) for method in methods]
            table.add_row(metric + better, *(f"{mean:.3g} ± {error:.1g}" for mean, error in values))
        return table

    def __str__(self) -> str:
        return as_text(self, 120)

    def __repr__(self) -> str:
        return short_repr(self)

    def draw(self) -> "Figure":
        """Draw the verdicts, the curves and the randomization as one figure; needs the extra `plot`."""
        _checks.require("jaxnn.plot", "`Report.draw`", "plot")
        from jaxnn.plot._quality import figure

        return figure(self)

    def html(self) -> str:
        """One page of HTML without scripts and without links; needs the extra `plot`."""
        _checks.require("jaxnn.plot", "`Report.html`", "plot")
        from jaxnn.plot._quality import page

        return page(self)

    def save_html(self, path: str | Path) -> None:
        """Write `html()` to a file, atomically."""
        text = self.html()
        write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _repr_html_(self) -> str:
        return self.html()


def _cell(verdict: Verdict) -> Text:
    style = {True: "green", False: "bold red", None: "dim"}[verdict.passed]
    word = {True: "yes", False: "NO", None: "-"}[verdict.passed]
    return Text(f"{word}: {verdict.text}", style=style)


def report(
    model: Model,
    inputs: PyTree,
    targets: jax.Array | None,
    methods: Mapping[str, Explain],
    *,
    key: Key,
    baseline: PyTree = 0.0,
    groups: PyTree = None,
    n_groups: int | None = None,
    masks: PyTree = None,
    n_samples: int = 10,
    n_seeds: int = 3,
    batch_size: int | None = None,
    progress: bool = False,
) -> Report:
    """Quality report: every method by every metric, and which of them can be trusted on these examples.

    Each metric has its defaults, and for example i the key `jax.random.split(key, N)[i]`. Shown are the mean
    over the sizes of `sensitivity_n`, the share `scaled_value / null_value` of `infidelity`, the mean
    accuracy at 0.1, 0.2, ..., 0.9 of the pixels of `road`, and the rank correlation after all layers were
    drawn again of `parameter_randomization`, with `key`. Metrics that do not suit the model are left out:
    `road` of inputs that are no images, the tests of classes of a model with one output, and those of
    parameters of a model without them.

    | claim | holds where |
    |---|---|
    | sums up | the median of `completeness` is at most 0.01 |
    | survives deletion | the area under `deletion` is below that of random orders by two standard errors |
    | depends on the weights | `parameter_randomization` is at most its yardstick and two standard errors |
    | depends on the class | the mean of `random_logit` is below 0.9 |
    | is stable | the mean of `max_sensitivity` is below 0.5 |

    A yardstick below 0 counts as 0, and one above 0.9 as 0.9: a map that is the same for all inputs is none
    of the weights.

    Args:
        model: a callable pytree of one example.
        inputs: `(N, ...)`, at least 2 examples of floating-point numbers.
        targets: `(N,)` output indices, or None for an output of one element.
        methods: by name, `explain(model, x, target) -> attributions`, such as `attribution.saliency`, or one
            with options, `functools.partial(attribution.lrp, rule="epsilon")`. One that refuses the model
            says why, and the others go on.
        key: a random key.
        baseline: the value of a removed element: a number, or of the structure of one example.
        groups: which elements are one feature, as in `attribution.feature_ablation`; for large images such as
            `attribution.blocks(...)`.
        n_groups: their number.
        masks: `(N, ...)` booleans, where the attributions should lie, for the metrics of localization.
        n_samples: changed inputs per example, of the metrics of stability, at least 1.
        n_seeds: random networks per layer, at least 1.
        batch_size: how many examples are explained at once. None: at most 16, as in
            `attribution.integrated_gradients`. The result does not depend on it.
        progress: whether to draw a progress bar (with rich).

    Returns:
        A `Report`.

    Raises:
        TypeError: `model` or a method is not callable, `methods` is no mapping, the inputs hold integers, or
            an argument is of another type.
        ValueError: no methods, all of them refuse the model, fewer than 2 examples, or an argument that does
            not fit.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> from jaxnn import attribution, quality
        >>> network = jaxnn.init(jax.random.key(0), (6, 5, 3))
        >>> inputs, targets = jax.random.uniform(jax.random.key(1), (3, 6)), jnp.array([0, 1, 2])
        >>> methods = {"saliency": attribution.saliency, "deep_lift": attribution.deep_lift}
        >>> found = quality.report(network, inputs, targets, methods, key=jax.random.key(2))
        >>> {name: each.verdicts["sums up"].passed for name, each in found.methods.items()}
        {'saliency': False, 'deep_lift': True}
    """
    _checks.check_key("key", key)
    n_samples = _checks.check_integer("n_samples", n_samples, at_least=1)
    n_seeds = _checks.check_integer("n_seeds", n_seeds, at_least=1)
    batch = check_batch_size(batch_size, 16)
    model, inputs, targets = check_examples(model, inputs, targets, at_least=2)
    if not _checks.is_concrete((model, inputs, targets)):
        raise TypeError("`inputs` must be concrete arrays, not traced: call it outside of jit, vmap and grad")
    methods = _check_methods(methods)
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    for leaf in jax.tree.leaves(first):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"`inputs` must hold floating-point numbers; got dtype {leaf.dtype}")
    baseline = broadcast_like("baseline", baseline, first)
    groups, n = check_groups(groups, n_groups, first)
    if n < 2:
        raise ValueError("`inputs` must have at least two features, some of which are removed; got one")
    _, x, target = prepare(model, first, None if targets is None else targets[0], differentiable=False)
    evaluations = n * jax.tree.leaves(inputs)[0].shape[0]
    warn_of_cost(Game(model, x, target, baseline, groups, n), evaluations, matrix=False)
    masks = None if masks is None else _check_masks(masks, inputs)
    plan = _Plan(model, inputs, targets, key, baseline, groups, n, masks, n_samples, n_seeds, batch)
    with progress_bar("methods", len(methods), enabled=progress) as advance:
        return _ask_all(plan, methods, advance)


def _check_methods(methods: Any) -> dict[str, Explain]:
    if not isinstance(methods, Mapping):
        raise TypeError(f"`methods` must be a mapping of names to methods; got {type(methods).__name__}")
    if not methods:
        raise ValueError("`methods` must hold at least one method; got none")
    return {
        _checks.check_text("methods", name): as_model(method, f"methods[{name!r}]")
        for name, method in methods.items()
    }


def _check_masks(masks: PyTree, inputs: PyTree) -> PyTree:
    masks = jax.tree.map(jnp.asarray, masks)
    _checks.check_structure("masks", masks, inputs, "inputs")
    for leaf, like in zip(jax.tree.leaves(masks), jax.tree.leaves(inputs), strict=True):
        _checks.check_shape("masks", leaf, like.shape, "that of `inputs`")
        if leaf.dtype != bool:
            raise TypeError(f"`masks` must hold booleans, such as `masks > 0`; got dtype {leaf.dtype}")
    inside = np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(masks)], axis=1)
    if not inside.any(1).all():
        raise ValueError("`masks` must have at least one element in the region of each example; got none")
    return masks


class _Plan(NamedTuple):
    """The checked arguments of `report`."""

    model: Model
    inputs: PyTree
    targets: jax.Array | None
    key: Key
    baseline: PyTree
    groups: PyTree
    n_groups: int
    masks: PyTree
    n_samples: int
    n_seeds: int
    batch: Batch

    @property
    def n_examples(self) -> int:
        return jax.tree.leaves(self.inputs)[0].shape[0]

    @property
    def keys(self) -> jax.Array:
        """A key for each example: the same for all methods, whose samples are to be the same."""
        return jax.random.split(jax.random.clone(self.key), self.n_examples)

    @property
    def first(self) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[0], self.inputs)


def _ask_all(plan: _Plan, methods: dict[str, Explain], advance: Callable[..., None]) -> Report:
    names, steps = _layers(plan)
    target = None if plan.targets is None else plan.targets[0]
    explained: dict[str, PyTree] = {}
    refused: dict[str, str] = {}
    sampled: dict[str, dict[str, np.ndarray]] = {}
    randomized: dict[str, tuple[ParameterRandomization, np.ndarray]] = {}
    for name, explain in methods.items():
        try:
            check_explain(explain, plan.model, plan.first, target, name=f"methods[{name!r}]")
        except Exception as error:  # a method of the caller raises anything
            refused[name] = str(error) or type(error).__name__
            advance(name)
            continue
        explained[name] = _explain(explain, plan.model, plan.inputs, plan.targets, batch=plan.batch)
        sampled[name] = _changed_metrics(plan, explain, explained[name])
        if steps:
            randomized[name] = _randomized(plan, explain, explained[name], steps)
        advance(name)
    if not explained:
        raise ValueError("`methods` must hold one that takes the model; " + next(iter(refused.values())))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *explained.values())
    scores, curves = _scores(plan, stacked)
    parts = {name: MethodQuality({}, {}, None, {}, reason) for name, reason in refused.items()}
    for number, name in enumerate(explained):
        values = {metric: np.asarray(found[:, number]) for metric, found in scores.items()} | sampled[name]
        found = None
        if steps:
            found, entropies = randomized[name]
            values["parameter_randomization"] = _nanmean(np.asarray(found.rank_correlation[-1]))
            values["efficient_parameter_randomization"] = entropies
        own = jax.tree.map(lambda leaf, i=number: np.asarray(leaf[:, i]), curves)
        verdicts = _verdicts(values, own["deletion"], found)
        means = {kind: Curve(*(jnp.asarray(_nanmean(leaf)) for leaf in curve)) for kind, curve in own.items()}
        parts[name] = MethodQuality(values, means, found, verdicts, "")
    parts = {name: parts[name] for name in methods}
    used = {metric for part in parts.values() for metric in part.values}
    metrics = tuple(metric for metric in BETTER if metric in used)
    return Report(parts, metrics, names, plan.n_examples)


def _layers(plan: _Plan) -> tuple[tuple[str, ...], tuple[tuple[bool, ...], ...]]:
    """The names of the layers from the last, and what each step draws again; none without parameters."""
    try:
        names = parameter_layers(plan.model, plan.first)[::-1]
    except ValueError:
        return (), ()
    return names, order_of_layers(plan.model, plan.first, "cascading")


_explain = jax.jit(explain_all, static_argnames=("batch",))
_compare = jax.jit(compare, static_argnames=("how",))


@jax.jit(static_argnames=("noise", "size"))
def _move(keys: Key, sample: jax.Array, inputs: PyTree, *, noise: Any, size: float) -> PyTree:
    def one(key: Key, x: PyTree) -> PyTree:
        return changed(jax.random.fold_in(key, sample), x, noise, size)

    return jax.vmap(one)(keys, inputs)


@jax.jit(static_argnames=("measure",))
def _change(a: PyTree, b: PyTree, x: PyTree, y: PyTree, *, measure: Any) -> jax.Array:
    return jax.vmap(lambda *each: change(measure, *map(flat, each)))(a, b, x, y)


@jax.jit
def _predict(model: Model, inputs: PyTree) -> jax.Array:
    return jax.vmap(lambda x: jnp.argmax(call(model, x)))(inputs)


@jax.jit(static_argnames=("classes",))
def _others(keys: Key, targets: jax.Array, *, classes: int) -> jax.Array:
    return jax.vmap(partial(other_class, classes=classes))(keys, targets)


def _changed_metrics(plan: _Plan, explain: Explain, before: PyTree) -> dict[str, np.ndarray]:
    """The metrics of stability, and those of another class and of a shift."""
    model, inputs, targets = plan.model, plan.inputs, plan.targets
    explain_these = partial(_explain, explain, model, batch=plan.batch)
    found: dict[str, list[Any]] = {"sensitivity": [], "relative": [], "lipschitz": []}
    labels = _predict(model, inputs) if hasattr(output_shape(model, plan.first), "shape") else None
    for sample in range(plan.n_samples):
        moved = _move(plan.keys, jnp.array(sample), inputs, noise="uniform", size=_RADIUS)
        after = explain_these(moved, targets)
        same = True if labels is None else np.asarray(_predict(model, moved) == labels)
        found["sensitivity"].append(_change(before, after, inputs, moved, measure="sensitivity"))
        relative = np.asarray(_change(before, after, inputs, moved, measure="relative"))
        found["relative"].append(np.where(same, relative, -np.inf))
        moved = _move(plan.keys, jnp.array(sample), inputs, noise="normal", size=_NOISE)
        after = explain_these(moved, targets)
        found["lipschitz"].append(_change(before, after, inputs, moved, measure="lipschitz"))
    sensitivity, relative, lipschitz = (np.stack(each) for each in found.values())
    most = relative.max(0)
    values = {
        "max_sensitivity": sensitivity.max(0),
        "average_sensitivity": sensitivity.mean(0),
        "local_lipschitz": lipschitz.max(0),
        "relative_input_stability": np.where(np.isneginf(most), np.nan, most),
        "input_invariance": _invariances(plan, explain),
    }
    classes = getattr(output_shape(model, plan.first), "size", 1)
    if targets is not None and classes > 1:
        others = _others(plan.keys, targets, classes=classes)
        found_other = _compare(before, explain_these(inputs, others), Comparison())
        values["random_logit"] = np.asarray(found_other.rank_correlation)
    return values


def _invariances(plan: _Plan, explain: Explain) -> np.ndarray:
    """The input invariance of each example; NaN of a method that reads the attributes of the model."""
    try:
        return np.asarray(_invariance(explain, plan.model, plan.inputs, plan.targets, batch=plan.batch))
    except Exception:
        return np.full(plan.n_examples, np.nan)


@jax.jit(static_argnames=("batch",))
def _invariance(
    explain: Explain, model: Model, inputs: PyTree, targets: jax.Array | None, *, batch: Batch
) -> jax.Array:
    def one(index: jax.Array) -> jax.Array:
        x = jax.tree.map(lambda leaf: leaf[index], inputs)
        return input_invariance(model, x, None if targets is None else targets[index], explain)

    return chunked_map(one, jax.tree.leaves(inputs)[0].shape[0], batch.most)


@jax.jit(static_argnames=("initializer",))
def _draw_network(model: Model, key: Key, is_drawn: jax.Array, seed: jax.Array, *, initializer: Any) -> Model:
    return random_network(model, key, is_drawn, seed, initializer)


@jax.jit
def _rise(before: PyTree, after: PyTree) -> jax.Array:
    return jax.vmap(partial(entropy_rise, n_bins=100))(before, after)


def _randomized(
    plan: _Plan, explain: Explain, before: PyTree, steps: tuple[tuple[bool, ...], ...]
) -> tuple[ParameterRandomization, np.ndarray]:
    """The result of `parameter_randomization`, and the `(N,)` rises of the entropy."""
    ranks, ssim, rises = [], [], []
    for is_drawn in steps:
        for seed in range(plan.n_seeds):
            drawn = _draw_network(
                plan.model,
                jax.random.clone(plan.key),
                jnp.asarray(is_drawn),
                jnp.array(seed),
                initializer=None,
            )
            after = _explain(explain, drawn, plan.inputs, plan.targets, batch=plan.batch)
            alike = _compare(before, after, Comparison(absolute=True))
            ranks.append(alike.rank_correlation)
            ssim.append(alike.ssim)
            if is_drawn == steps[-1]:
                rises.append(np.asarray(_rise(before, after)))
    shape = (len(steps), plan.n_seeds, plan.n_examples)
    following = jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), before)
    yardstick = _compare(before, following, Comparison(absolute=True))
    by_step = [jnp.reshape(jnp.stack(each), shape) for each in (ranks, ssim)]
    found = ParameterRandomization(*by_step, *yardstick)
    return jax.tree.map(np.asarray, found), _nanmean(np.stack(rises))


def _scores(plan: _Plan, attributions: PyTree) -> tuple[dict[str, jax.Array], dict[str, Curve]]:
    """The metrics of attributions `(N, methods, ...)`: by metric `(N, methods)`, and the curves."""
    shape = output_shape(plan.model, plan.first)
    images = isinstance(plan.inputs, jax.Array) and plan.inputs.ndim in (3, 4)
    is_road = images and plan.targets is not None and getattr(shape, "ndim", 0) == 1
    cells = min(9, *plan.inputs.shape[1:3]) if isinstance(plan.inputs, jax.Array) else 0
    options = {"is_road": is_road, "cells": cells, "n_groups": plan.n_groups}
    args = (
        plan.model,
        plan.inputs,
        plan.targets,
        attributions,
        plan.keys,
        plan.baseline,
        plan.groups,
        plan.masks,
    )
    return _score_all(*args, **options)


@jax.jit(static_argnames=("is_road", "cells", "n_groups"))
def _score_all(
    model: Model,
    inputs: PyTree,
    targets: jax.Array | None,
    attributions: PyTree,
    keys: Key,
    baseline: PyTree,
    groups: PyTree,
    masks: PyTree,
    *,
    is_road: bool,
    cells: int,
    n_groups: int,
) -> tuple[dict[str, jax.Array], dict[str, Curve]]:
    parts = {"baseline": baseline, "groups": groups, "n_groups": n_groups if groups is not None else None}

    def example(index: jax.Array) -> tuple[dict[str, jax.Array], dict[str, Curve]]:
        x, found, mask = jax.tree.map(lambda leaf: leaf[index], (inputs, attributions, masks))
        target, key = None if targets is None else targets[index], keys[index]

        def method(a: PyTree) -> tuple[dict[str, jax.Array], dict[str, Curve]]:
            of: tuple[Any, ...] = model, x, target, a
            kinds = {"deletion": deletion, "insertion": insertion}
            curves = {name: metric(*of, key=key, **parts) for name, metric in kinds.items()}
            values = {name: curve.area for name, curve in curves.items()} | {
                "symmetric_relevance_gain": symmetric_relevance_gain(*of, **parts).area,
                "faithfulness_correlation": faithfulness_correlation(*of, key=key, **parts),
                "sensitivity_n": jnp.nanmean(sensitivity_n(*of, key=key, **parts).correlations),
                "completeness": completeness(*of, baseline=baseline),
                "non_sensitivity": non_sensitivity(*of, **parts),
                "sparseness": sparseness(a),
                "complexity": complexity(a),
                "effective_complexity": effective_complexity(a),
            }
            share = infidelity(*of, key=key, **parts)
            values["infidelity"] = share.scaled_value / share.null_value
            if cells > 1:
                values["mu_fidelity"] = mu_fidelity(*of, key=key, grid=cells, baseline=baseline)
            if is_road and targets is not None:
                values["road"] = road(model, x, targets[index], a, key=key, fractions=_ROAD).correct.mean()
            if mask is not None:
                values |= {name: metric(a, mask) for name, metric in _LOCALIZATION.items()}
            return values, curves

        # What does not depend on the attributions is evaluated once for all methods.
        return jax.vmap(method)(found)

    return chunked_map(example, jax.tree.leaves(inputs)[0].shape[0], 1)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis where it is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    counts = finite.sum(0)
    return np.where(counts > 0, np.where(finite, values, 0).sum(0) / np.maximum(counts, 1), np.nan)


def _mean(values: Any) -> tuple[float, float]:
    """The mean of the finite values, and its standard error; NaN without two of them."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return float("nan"), float("nan")
    error = finite.std(ddof=1) / np.sqrt(len(finite)) if len(finite) > 1 else float("nan")
    return float(finite.mean()), float(error)


def _verdicts(
    values: dict[str, np.ndarray], curve: Curve, randomization: ParameterRandomization | None
) -> dict[str, Verdict]:
    return dict(zip(CLAIMS, _judge(values, curve, randomization), strict=True))


def _judge(
    values: dict[str, np.ndarray], curve: Curve, randomization: ParameterRandomization | None
) -> Iterator[Verdict]:
    """A verdict for each of the claims, in their order."""
    gap = float(np.median(values["completeness"]))
    yield _below(gap, _GAP, f"off by {gap:.2g} of the change")
    gains = np.asarray(curve.area - curve.random_mean)
    gain, error = _mean(gains)
    rounding = 16 * np.finfo(np.float32).eps * np.abs(curve.random_outputs).max()
    limit = -max(_quantile(len(gains)) * error, rounding)
    yield _of_most(gains, _below(gain, limit, f"area {gain:+.3g} ± {error:.1g} to random"))
    if randomization is None:
        yield Verdict(None, np.nan, np.nan, "no parameters")
    else:
        found, _ = _mean(values["parameter_randomization"])
        yardstick, error = _mean(randomization.yardstick)
        # Maps of other inputs may be opposed, and one that is the same for all inputs has 1.
        limit = min(max(yardstick, 0.0) + 2 * error, _ALIKE)
        text = f"correlation {found:.2f}, other inputs {yardstick:.2f}"
        yield _of_most(values["parameter_randomization"], _below(found, limit, text))
    if "random_logit" in values:
        found, _ = _mean(values["random_logit"])
        verdict = _below(found, _ALIKE, f"correlation {found:.2f}")
        yield _of_most(values["random_logit"], verdict)
    else:
        yield Verdict(None, np.nan, np.nan, "one class")
    found, _ = _mean(values["max_sensitivity"])
    yield _of_most(values["max_sensitivity"], _below(found, _CHANGE, f"changes by {found:.2g}"))


def _of_most(values: np.ndarray, verdict: Verdict) -> Verdict:
    """The verdict with the number of examples it is of, where some have no value; none of less than half."""
    finite = int(np.isfinite(values).sum())
    if finite == len(values):
        return verdict
    passed = verdict.passed if 2 * finite >= len(values) else None
    return verdict._replace(passed=passed, text=f"{verdict.text} ({finite} of {len(values)} examples)")


def _quantile(count: int) -> float:
    """How many standard errors chance exceeds once in forty: 2 of many examples, and 12.7 of two."""
    from scipy.stats import t  # it takes long to import

    return max(2.0, float(t.ppf(0.975, count - 1)))


def _below(value: float, limit: float, text: str) -> Verdict:
    passed = bool(value <= limit) if np.isfinite(value) and np.isfinite(limit) else None
    return Verdict(passed if not np.isposinf(value) else False, value, limit, text)
