"""What a model answers to many inputs, and new inputs to ask about that are drawn round those at hand."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.special import betaincinv

from jaxnn import _checks
from jaxnn._model import as_model
from jaxnn.rules._conditions import check_rows, class_names, feature_names

_LARGEST = jax.tree_util.Partial(jnp.argmax)
FLAT = jax.tree_util.Partial(jnp.ravel)
_AT_ONCE = 1024  # inputs in one call: one program for any number of them


class Subject(NamedTuple):
    """A model as rules see it: from an input to a class, by way of the input's features.

    Attributes:
        model: a callable pytree of one example.
        decide: a callable pytree from its output to a class.
        features: a callable pytree from an input to its features `(d,)`.
        names: of the features.
        classes: of the classes.
    """

    model: Any
    decide: Any
    features: Any
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def answers(self, inputs: Any) -> np.ndarray:
        """The class of each input, `(n,)`."""
        given, broken = _in_calls(_classes, (self.model, self.decide), inputs)
        refuse_nan(broken.sum())
        if given.min() < 0 or given.max() >= len(self.classes):
            raise ValueError(
                f"`decide` must give classes from 0 to {len(self.classes) - 1}, those that `classes` names; "
                f"got {given.min()} to {given.max()}"
            )
        return given

    def describe(self, inputs: Any) -> np.ndarray:
        """The features of each input, `(n, d)`, in float32 at least."""
        (found,) = _in_calls(_features, self.features, inputs)
        return found.astype(jnp.promote_types(found.dtype, jnp.float32))


def subject(model: Any, example: Any, decide: Any, features: Any, names: Any, classes: Any) -> Subject:
    """Check what a model is asked by, on one example."""
    model = as_model(model)
    output = jax.eval_shape(lambda model, x: model(x), model, example)
    if decide is None:
        shape = getattr(output, "shape", None)
        if shape is None or len(shape) != 1 or shape[0] < 2:
            raise ValueError(
                "`decide` must be given, a function from the output to a class (0, 1, ...), as the output is "
                f"no vector of two or more, whose largest entry is the answer; it is {output}"
            )
        decide = _LARGEST
    decide = as_model(decide)
    answer = jax.eval_shape(lambda decide, output: decide(output), decide, output)
    whole = jnp.issubdtype(getattr(answer, "dtype", float), jnp.integer) or answer.dtype == bool
    if not whole or answer.shape != ():
        raise ValueError(f"`decide` must give one integer, the class; got {answer}")
    features = as_model(FLAT if features is None else features)
    described = jax.eval_shape(lambda features, x: features(x), features, example)
    if not hasattr(described, "shape") or len(described.shape) != 1 or described.shape[0] == 0:
        raise ValueError(f"`features` must give a vector (d,) of an input; got {described}")
    if decide is _LARGEST:
        count = output.shape[0]
    elif classes is None and answer.dtype != bool:
        raise ValueError(
            "`classes` must be given with `decide`: the names of the classes 0, 1, ...; got None"
        )
    else:
        count = 2 if classes is None else len(classes)
    return Subject(
        model, decide, features, feature_names(names, described.shape[0]), class_names(classes, count)
    )


@jax.jit
def _classes(held: tuple[Any, Any], inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    model, decide = held
    return jax.vmap(lambda x: decided(decide, model(x)))(inputs)


def decided(decide: Callable[[Any], jax.Array], output: Any) -> tuple[jax.Array, jax.Array]:
    """The class that an output means, and whether there is a NaN in it."""
    leaves = [leaf for leaf in jax.tree.leaves(output) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    broken = jnp.any(jnp.stack([jnp.any(jnp.isnan(leaf)) for leaf in leaves] or [jnp.array(False)]))
    return decide(output).astype(jnp.int32), broken


def refuse_nan(count: int) -> None:
    """Raise where a model has answered NaN, which is no class, to so many inputs."""
    if count:
        raise ValueError(f"`model` must not answer NaN; it does for {count} of the inputs asked about")


@jax.jit
def _features(features: Any, inputs: jax.Array) -> tuple[jax.Array]:
    return (jax.vmap(features)(inputs),)


def _in_calls(
    function: Callable[[Any, jax.Array], tuple[jax.Array, ...]], held: Any, inputs: Any
) -> tuple[np.ndarray, ...]:
    """A function of many inputs, in calls of one size; the last is filled up with its first input."""
    rows = np.asarray(inputs)
    size = min(_AT_ONCE, 1 << (len(rows) - 1).bit_length())
    parts = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
        parts.append([np.asarray(each)[: len(part)] for each in function(held, jnp.asarray(filled))])
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


class Measured(NamedTuple):
    """The inputs held out, on which rules are measured: what they are and what the model says to them."""

    features: np.ndarray
    answers: np.ndarray
    labels: np.ndarray | None

    def compare(self, given: np.ndarray) -> tuple[float, float | None]:
        """Fidelity and accuracy of answers: the shares equal to the model's, and to the labels."""
        fidelity = float(np.mean(given == self.answers))
        return fidelity, None if self.labels is None else float(np.mean(given == self.labels))


def held_out_of(asked: Subject, inputs: jax.Array, held_out: Any, labels: Any) -> Measured:
    """Check the inputs held out and their labels, and ask the model about them."""
    rows = check_rows("held_out", held_out, inputs)
    if labels is not None:
        array = _checks.check_array("held_out_labels", labels)
        _checks.check_shape("held_out_labels", array, rows.shape[:1], "one for each input held out")
        if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool):
            raise TypeError(f"`held_out_labels` must be classes, integers; got dtype {array.dtype}")
        if not jnp.all((array >= 0) & (array < len(asked.classes))):
            raise ValueError(
                f"`held_out_labels` must lie from 0 to {len(asked.classes) - 1}, as the answers do; got "
                f"{jnp.min(array)} to {jnp.max(array)}"
            )
        labels = np.asarray(array)
    return Measured(asked.describe(rows), asked.answers(rows), labels)


class Region(NamedTuple):
    """A box of features, `low < features <= high`, and inputs that are known to lie in it, `(n, ...)`."""

    low: np.ndarray
    high: np.ndarray
    inside: np.ndarray


class Around(NamedTuple):
    """What new inputs are drawn by: round what, in which limits, and how far.

    Attributes:
        features: a callable pytree from an input to its features.
        limits: the least and the largest value of each entry.
        root: `(r, size)`: turns `r` independent normal numbers into noise of `spread^2` times the covariance
            of the inputs, so that what belongs together moves together.
    """

    features: Any
    limits: tuple[jax.Array, jax.Array]
    root: jax.Array

    @classmethod
    def of(cls, asked: Subject, inputs: jax.Array, spread: float) -> "Around":
        """What is drawn round these inputs, `(n, ...)`."""
        limits = inputs.min(axis=0), inputs.max(axis=0)
        return cls(asked.features, limits, noise_root(inputs, spread))


@jax.jit
def noise_root(inputs: jax.Array, spread: jax.Array) -> jax.Array:
    """A matrix `(r, size)`, the transpose of which times itself is `spread^2` times the covariance."""
    rows = inputs.reshape(len(inputs), -1).astype(jnp.promote_types(inputs.dtype, jnp.float32))
    apart = rows - rows.mean(axis=0)
    factor = jnp.asarray(spread / math.sqrt(max(len(rows) - 1, 1)), rows.dtype)
    if rows.shape[0] <= rows.shape[1]:
        return (factor * apart).astype(inputs.dtype)
    # As good, and with fewer rows: from the eigenvectors of the correlations. Those of the covariance would
    # be lost, for what is measured in large units, in the roundings of what is measured in small ones.
    sizes = jnp.max(jnp.abs(apart), axis=0)
    apart = apart / jnp.where(sizes > 0, sizes, 1)
    deviations = jnp.sqrt(jnp.mean(jnp.square(apart), axis=0))
    apart = factor * apart / jnp.where(sizes > 0, deviations, 1)
    values, vectors = jnp.linalg.eigh(jnp.matmul(apart.T, apart, precision="highest"))
    return (jnp.sqrt(jnp.maximum(values, 0))[:, None] * vectors.T * deviations * sizes).astype(inputs.dtype)


def everywhere(asked: Subject, inputs: jax.Array) -> Region:
    """The region of all inputs."""
    ends = np.full(len(asked.names), np.inf)
    return Region(-ends, ends, np.asarray(inputs))


def draw(key: jax.Array, around: Around, region: Region, count: int) -> np.ndarray:
    """Draw new inputs in a region, `(count, ...)`; those of fewer are the first of those of more.

    `z = r + t e`, `r` by lot from those in the region and `e` the noise; `t` is the first of 1, 1/2, ...,
    1/128 and 0 by which `z` stays in the region. No entry leaves its limits.
    """
    parts = [region.inside[:0]]
    ends = (jnp.asarray(region.low), jnp.asarray(region.high))
    for start in range(0, count, _AT_ONCE):
        lots, noise = _lots(key, around.root, start + jnp.arange(_AT_ONCE))
        centers = region.inside[(np.asarray(lots) * len(region.inside)).astype(int)]
        parts.append(np.asarray(_moved(around, jnp.asarray(centers), noise, ends)))
    return np.concatenate(parts)[:count]


@jax.jit
def _lots(key: jax.Array, root: jax.Array, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda number: lot(key, root, number))(numbers)


def lot(key: jax.Array, root: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For a number a lot in [0, 1), and noise `(size,)`."""
    which_key, step_key = jax.random.split(jax.random.fold_in(key, number))
    return jax.random.uniform(which_key), jax.random.normal(step_key, root.shape[:1], root.dtype) @ root


@jax.jit
def _moved(around: Around, centers: jax.Array, noise: jax.Array, ends: Any) -> jax.Array:
    def move(center: jax.Array, step: jax.Array) -> jax.Array:
        return moved(around.features, center, step.reshape(center.shape), ends, around.limits)

    return jax.vmap(move)(centers, noise)


def moved(features: Any, center: jax.Array, step: jax.Array, ends: Any, limits: Any) -> jax.Array:
    """One step from a center, halved until its features stay between the ends; entries keep to the limits."""

    def shorter(found: tuple[jax.Array, jax.Array], size: jax.Array) -> tuple[Any, None]:
        at, done = found
        new = jnp.clip(center + size * step, *limits)
        values = features(new)
        stays = jnp.all((ends[0] < values) & (values <= ends[1]))
        return (jnp.where(~done & stays, new, at), done | stays), None

    sizes = 0.5 ** jnp.arange(8, dtype=center.dtype)
    return lax.scan(shorter, (center, jnp.array(False)), sizes)[0][0]


def lower_bound(right: Any, asked: Any, confidence: Any) -> Any:
    """The share that is at least so high with that confidence, `right` of `asked` lots having been right.

    Clopper and Pearson's exact bound: `q` such that `P(Binomial(asked, q) >= right) = 1 - confidence`.
    """
    right, asked = np.asarray(right, float), np.asarray(asked, float)
    bound = betaincinv(np.maximum(right, 1e-9), np.maximum(asked - right + 1, 1e-9), 1 - confidence)
    return np.where(right > 0, bound, 0.0)


def require_trees() -> Any:
    """scikit-learn's trees."""
    try:
        from sklearn import tree
    except ModuleNotFoundError as error:
        raise ImportError(
            f"trees need {error.name}, which is not installed: install the `rules` extra from the checkout, "
            'with pip install ".[rules]"'
        ) from error
    return tree
