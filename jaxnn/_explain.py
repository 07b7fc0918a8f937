"""The first call: `explain` asks four methods that suit the input, checks their sums, and compares them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxnn import attribution
from jaxnn._checks import check_key, check_option, is_concrete, require
from jaxnn._files import write_atomically
from jaxnn._model import as_example, as_model, broadcast_like, call, output_shape, prepare, select
from jaxnn._repr import short_repr
from jaxnn._split import split_at
from jaxnn._summary import as_text, summary
from jaxnn._typing import Model, PyTree, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind: TypeAlias = Literal["image", "table", "tokens", "series"]
_EXACT = 10  # features up to which Shapley values are exact: 2^10 evaluations
_COMPLETE = {"integrated_gradients", "deep_lift", "shapley_values", "kernel_shap"}


class ExplanationPart(NamedTuple):
    """What one method says.

    Attributes:
        call: the call that made it; `x` is the input, or the embedding of tokens.
        attributions: of the shape of `x`; None where the method refused the model. The effect of ablating a
            token or a time step, or of hiding a pixel, is divided by the number of its elements.
        gap: the sum of the attributions minus the change of the output; None for a method without that
            promise.
        refused: the reason of a refusal, else "".
    """

    call: str
    attributions: np.ndarray | None
    gap: float | None
    refused: str


class Explanation(NamedTuple):
    """What four methods say of one prediction; returned by `explain`.

    `print` shows it as tables, `draw` as a figure, and `save_html` as a page; a notebook shows that page.

    Attributes:
        kind: of the input.
        target: the explained output.
        output: its value.
        baseline_output: its value at the baseline.
        x: the explained array: the input, or the embedding of tokens.
        baseline: of the shape of `x`.
        names: of the features, tokens or time steps.
        parts: by method name.
        agreement: `(n, n)`, Spearman's rank correlation of the attributions of each pair of methods that did
            not refuse, per feature, token, pixel or time step; NaN where one of them is constant.
    """

    kind: Kind
    target: Target
    output: float
    baseline_output: float
    x: np.ndarray
    baseline: np.ndarray
    names: tuple[str, ...]
    parts: dict[str, ExplanationPart]
    agreement: np.ndarray

    def values(self, method: str) -> np.ndarray:
        """The attributions of a method per pixel, feature, token, or time step and feature."""
        if method not in self.parts:
            raise ValueError(f"`method` must be one of {', '.join(self.parts)}; got {method!r}")
        found = self.parts[method].attributions
        if found is None:
            raise ValueError(f"`method` must be one that takes the model; {self.parts[method].refused}")
        return _per_unit(self.kind, found)

    def shown_target(self) -> str:
        """The target as text; a function by its name."""
        return getattr(self.target, "__name__", "a function") if callable(self.target) else str(self.target)

    def shown(self) -> np.ndarray:
        """The explained array per pixel, feature, token, or time step and feature, as in `values`."""
        return _per_unit(self.kind, self.x)

    def __rich__(self) -> Group:
        change = self.output - self.baseline_output
        head = Text(
            f"{self.kind}, target {self.shown_target()}: output {self.output:.4g}, at the baseline "
            f"{self.baseline_output:.4g}, change {change:.4g}"
        )
        table = Table("method", "sum", "gap", "largest", title="What each method says")
        for name, part in self.parts.items():
            if part.attributions is None:
                table.add_row(name, "refused", "", Text(part.refused.splitlines()[0][:60]))
                continue
            gap = "" if part.gap is None else f"{part.gap:.2g}"
            table.add_row(name, f"{part.attributions.sum():.4g}", gap, Text(self._largest(name)))
        used = [name for name, part in self.parts.items() if part.attributions is not None]
        ranks = Table("rank correlation", *used)
        for name, row in zip(used, self.agreement, strict=True):
            ranks.add_row(name, *("-" if np.isnan(r) else f"{r:.2f}" for r in row))
        calls = Text("\n".join(part.call for part in self.parts.values()))
        return Group(head, table, ranks, calls)

    def __str__(self) -> str:
        return as_text(self, 100)

    def __repr__(self) -> str:
        return short_repr(self)

    def _largest(self, method: str) -> str:
        """The three largest attributions by name, or by place."""
        values = _ranked(self.kind, self.values(method))
        order = np.argsort(-np.abs(values), axis=None, kind="stable")[:3]
        places = [np.unravel_index(i, values.shape) for i in order]
        return ", ".join(f"{self._name(place)} {values[place]:+.3g}" for place in places)

    def _name(self, place: Sequence[Any]) -> str:
        if len(place) == 1:
            return self.names[place[0]]
        return f"({', '.join(map(str, place))})"

    def draw(self) -> "Figure":
        """Draw all parts in one matplotlib figure; needs the extra `plot`."""
        require("jaxnn.plot", "`Explanation.draw`", "plot")
        from jaxnn import plot

        return plot.explanation(self)

    def html(self) -> str:
        """One page of HTML without scripts and without links; needs the extra `plot`."""
        require("jaxnn.plot", "`Explanation.html`", "plot")
        from jaxnn.plot._explanation import page

        return page(self)

    def save_html(self, path: str | Path) -> None:
        """Write `html()` to a file, atomically."""
        text = self.html()
        write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _repr_html_(self) -> str:
        return self.html()


def explain(
    model: Model,
    x: PyTree,
    target: Target = None,
    *,
    kind: Kind | None = None,
    baseline: PyTree = None,
    names: Sequence[object] | None = None,
    layer: str | None = None,
    key: jax.Array | None = None,
) -> Explanation:
    """Explanation: ask four methods that suit the input, check that they add up, and compare them.

    | kind | methods |
    |---|---|
    | image | `integrated_gradients`, `deep_lift`, `lrp`, `occlusion` |
    | table | `integrated_gradients`, `deep_lift`, `shapley_values` or `kernel_shap`, `feature_ablation` |
    | tokens | `integrated_gradients`, `deep_lift`, `input_x_gradient`, `feature_ablation`, at the embedding |
    | series | `integrated_gradients`, `deep_lift`, `occlusion`, `feature_ablation` of time steps |

    Each has its defaults, except for what `call` of its part shows. Shapley values are exact up to ten
    features. A method that refuses the model says why, and the others go on.

    Args:
        model: a callable of one example.
        x: the example, one array: an image `(h, w)`, `(h, w, channels)` or `(channels, h, w)`, a table's row
            `(n,)`, a time series `(steps, features)`, or integer tokens `(n,)`.
        target: an output index, None, or a function; see `attribution.saliency`. None: the largest output.
        kind: "image", "table", "tokens" or "series". By default tokens for integers of one axis, a table for
            other arrays of one axis, an image for three axes and for two axes of one length, else a series.
        baseline: an input like `x` that stands for absence, or a number. By default 0; for tokens the mean of
            their embeddings. Those of other tokens, such as padding, are of the shape of `x`.
        names: of the features, tokens or time steps, one string each; by default their numbers.
        layer: the name of the embedding, for tokens; by default the first intermediate of one vector of
            floating-point numbers per token.
        key: a random key, for `kernel_shap`; by default `jax.random.key(0)`.

    Returns:
        An `Explanation`.

    Raises:
        TypeError: `model` is not callable, `x` is not one array or is traced, or an argument is of another
            type.
        ValueError: `kind` does not suit the shape of `x`, `target` is None and the output has several axes,
            the model has no such layer, or the number of names does not fit.

    Example:
        >>> import jax, jaxnn
        >>> network = jaxnn.init(jax.random.key(0), (4, 8, 3))
        >>> found = jaxnn.explain(network, [0.1, 0.9, 0.4, 0.3], names=["a", "b", "c", "d"])
        >>> found.kind, list(found.parts)
        ('table', ['integrated_gradients', 'deep_lift', 'shapley_values', 'feature_ablation'])
        >>> found.values("deep_lift").shape, found.agreement.shape
        ((4,), (4, 4))
    """
    if names is None and hasattr(x, "to_numpy") and getattr(x, "ndim", 0) == 1:  # a series of pandas
        names = list(x.index)
    model, x = as_model(model), as_example("x", x)
    if not isinstance(x, jax.Array):
        raise TypeError(f"`x` must be one array, for which there are methods; got a {type(x).__name__}")
    if not is_concrete(x):
        raise TypeError("`x` must be a concrete array, not traced: call it outside of jit, vmap and grad")
    kind = _kind_of(x) if kind is None else kind
    check_option("kind", kind, get_args(Kind))
    _check_axes(kind, x)
    key = jax.random.key(0) if key is None else key
    check_key("key", key)
    target = _largest_output(model, x) if target is None else target
    labels = _labels(names, 0 if kind == "image" else len(x))
    if kind == "tokens":
        layer = _embedding_layer(model, x) if layer is None else layer
        model, x, baseline = _at_embedding(model, x, layer, baseline)
    start = jnp.asarray(broadcast_like("baseline", 0.0 if baseline is None else baseline, x))
    model, x, selected = prepare(model, x, target, differentiable=False)
    output, start_output = (float(select(call(model, each), selected)) for each in (x, start))
    parts = {}
    for name, options in _methods(kind, x, key).items():
        parts[name] = _ask(name, model, x, target, start, options, output - start_output)
    found = [part.attributions for part in parts.values() if part.attributions is not None]
    ranks = _rank_correlations([_ranked(kind, _per_unit(kind, each)) for each in found])
    return Explanation(
        kind, target, output, start_output, np.asarray(x), np.asarray(start), labels, parts, ranks
    )


def _labels(names: Sequence[object] | None, count: int) -> tuple[str, ...]:
    """Names as strings, by default numbers; raise unless there is one for each of `count`."""
    labels = tuple(map(str, range(count) if names is None else names))
    if isinstance(names, str) or len(labels) != count:
        raise ValueError(f"`names` must hold {count} strings, one for each; got {names!r}")
    return labels


def _kind_of(x: jax.Array) -> Kind:
    if x.ndim == 1:
        return "tokens" if jnp.issubdtype(x.dtype, jnp.integer) else "table"
    return "image" if x.ndim == 3 or (x.ndim == 2 and x.shape[0] == x.shape[1]) else "series"


def _check_axes(kind: Kind, x: jax.Array) -> None:
    """Raise unless an array has the axes of its kind."""
    axes = {"image": (2, 3), "table": (1,), "tokens": (1,), "series": (2,)}[kind]
    if x.ndim not in axes or x.size == 0:
        raise ValueError(
            f"`x` must have {' or '.join(map(str, axes))} axes, not empty, for kind {kind!r}; got shape "
            f"{x.shape}"
        )
    if kind == "tokens" and not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"`x` must hold integers for kind 'tokens'; got {x.dtype}")


def _largest_output(model: Model, x: jax.Array) -> int | None:
    """The index of the largest output; None where there is one."""
    shape = output_shape(model, x)
    if not hasattr(shape, "shape") or len(shape.shape) > 1:
        raise ValueError(
            "`target` must be given, since the output is not a vector; its shape is "
            f"{jax.tree.map(jnp.shape, shape)}"
        )
    return None if shape.size == 1 else int(jnp.argmax(call(model, x)))


def _embedding_layer(model: Model, x: jax.Array) -> str:
    """The first intermediate with one vector of floating-point numbers per token."""
    rows = [row for row in summary(model, x) if row.name]
    for row in rows:
        if len(row.shape) == 2 and row.shape[0] == len(x) and jnp.issubdtype(row.dtype, jnp.floating):
            return row.name
    raise ValueError(
        "`x` must be tokens with an embedding, or features as floating-point numbers with kind='table'; or "
        f"`layer` must be given: no intermediate has shape ({len(x)}, n); the "
        f"model has {', '.join(row.name for row in rows) or 'none'}"
    )


def _at_embedding(
    model: Model, x: jax.Array, layer: str, baseline: PyTree
) -> tuple[Model, jax.Array, jax.Array]:
    """The model from the embedding on, the embedding, and a baseline of it."""
    if len(x) == 1 and baseline is None:
        raise ValueError("`baseline` must be given for one token, whose embedding is the mean of all")
    rest, value = split_at(model, x, layer)
    if value.ndim != 2 or len(value) != len(x):
        raise ValueError(
            f"`layer` must have one vector per token, ({len(x)}, n); {layer!r} has {value.shape}"
        )
    if baseline is None:
        return rest, value, jnp.broadcast_to(value.mean(0), value.shape)
    given = as_example("baseline", baseline)
    if given.shape == x.shape and jnp.issubdtype(given.dtype, jnp.integer):
        return rest, value, split_at(model, given, layer)[1]
    return rest, value, jnp.broadcast_to(given, value.shape)


def _methods(kind: Kind, x: jax.Array, key: jax.Array) -> Mapping[str, dict[str, Any]]:
    """By method: the arguments that are not defaults."""
    paths: dict[str, dict[str, Any]] = {
        "integrated_gradients": {"check_completeness": False},
        "deep_lift": {"check_completeness": False},
    }
    if kind == "image":
        window = [max(1, n // 7) for n in x.shape]
        if x.ndim == 3:
            axis = _channel_axis(x)
            window[axis] = x.shape[axis]
        return paths | {"lrp": {}, "occlusion": {"window": tuple(window)}}
    if kind == "table":
        exact = len(x) <= _EXACT
        shapley = {} if exact else {"key": key}
        return paths | {"shapley_values" if exact else "kernel_shap": shapley, "feature_ablation": {}}
    steps = jnp.broadcast_to(jnp.arange(len(x))[:, None], x.shape)
    ablation = {"feature_ablation": {"groups": steps, "n_groups": len(x)}}
    if kind == "tokens":
        return paths | {"input_x_gradient": {}} | ablation
    return paths | {"occlusion": {"window": (max(1, len(x) // 7), 1)}} | ablation


def _channel_axis(x: jax.Array | np.ndarray) -> int:
    """The axis of the channels of an image: the first of 1, 3 or 4, if the last is none of them."""
    return 0 if x.shape[0] in (1, 3, 4) and x.shape[-1] not in (1, 3, 4) else 2


def _ask(
    name: str, model: Model, x: jax.Array, target: Target, baseline: jax.Array, options: dict[str, Any],
    change: float,
) -> ExplanationPart:  # fmt: skip
    """One method's attributions, and how far they are from adding up; or why it refused."""
    method: Callable[..., Any] = getattr(attribution, name)
    own = {} if name in ("lrp", "input_x_gradient") else {"baseline": baseline}
    shown = [*own, *(key for key in options if key != "check_completeness")]
    texts = (f"{key}={options[key]}" if key == "window" else f"{key}=..." for key in shown)
    shown_target = "target" if callable(target) else str(target)
    text = f"attribution.{name}({', '.join(['model', 'x', shown_target, *texts])})"
    try:
        found = np.asarray(method(model, x, target, **own, **options))
    except (TypeError, ValueError, NotImplementedError) as error:
        return ExplanationPart(text, None, None, str(error))
    if not np.isfinite(found).all():
        return ExplanationPart(text, None, None, "its attributions are not finite")
    found = found / _shared_by(name, found)
    gap = float(found.sum() - change) if name in _COMPLETE else None
    return ExplanationPart(text, found, gap, "")


def _shared_by(method: str, found: np.ndarray) -> int:
    """How many elements have the effect of all of them: the channels of a pixel, or a step's features."""
    if method == "feature_ablation" and found.ndim == 2:
        return found.shape[1]
    return found.shape[_channel_axis(found)] if method == "occlusion" and found.ndim == 3 else 1


def _per_unit(kind: Kind, found: np.ndarray) -> np.ndarray:
    """Attributions summed over the channels of a pixel, or the features of a token."""
    if kind == "tokens":
        return found.sum(1)
    if kind == "image" and found.ndim == 3:
        return found.sum(_channel_axis(found))
    return found


def _ranked(kind: Kind, values: np.ndarray) -> np.ndarray:
    """The values that are compared: those of a time step are added."""
    return values.sum(1) if kind == "series" else values


def _rank_correlations(values: Sequence[np.ndarray]) -> np.ndarray:
    """Spearman's rank correlation of each pair; NaN where one is constant."""
    from scipy.stats import ConstantInputWarning, spearmanr  # it takes long to import

    ranks = np.eye(len(values))
    for i in range(len(values)):
        for j in range(i):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConstantInputWarning)
                flat = values[i].ravel(), values[j].ravel()
                ranks[i, j] = ranks[j, i] = spearmanr(*flat).statistic if flat[0].size > 1 else np.nan
    return ranks
