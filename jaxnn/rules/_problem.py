"""The learning problem: a model as a classifier of feature vectors, and its data."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxnn import _checks
from jaxnn._map import map_examples
from jaxnn._model import as_model, output_shape
from jaxnn._precision import float_dtype, wide_dtype
from jaxnn._typing import Model, PyTree
from jaxnn.rules._sampling import Region, Sampler, draw

_ARGMAX = Partial(jnp.argmax)
FLATTEN = Partial(jnp.ravel)
_BATCH = 1024  # examples per call, at most
Names = Sequence[str] | None


class HeldOut(NamedTuple):
    """Test examples: their features, the model's predictions and, if given, the true labels."""

    features: Float[np.ndarray, "m d"]
    predictions: Int[np.ndarray, "m"]
    labels: Shaped[np.ndarray, "m"] | None

    def score(self, predictions: Int[np.ndarray, "m"]) -> tuple[float, float | None]:
        """Fidelity and accuracy: the fractions that equal the model's predictions, and the labels."""
        fidelity = float(np.mean(predictions == self.predictions))
        return fidelity, None if self.labels is None else float(np.mean(predictions == self.labels))


class Problem(NamedTuple):
    """A model as a classifier of feature vectors, and the data.

    Attributes:
        model: a callable pytree of one example.
        decide: a callable pytree from its output to a class.
        features: a callable pytree from an input to its features `(d,)`.
        names: of the features.
        classes: names of the classes.
        inputs: `(n, ...)`: the data to learn from.
        sampler: draws new inputs around them.
        dtype: of the features, floating-point.
    """

    model: Model
    decide: Model
    features: Model
    names: tuple[str, ...]
    classes: tuple[str, ...]
    inputs: Shaped[Array, "n ..."]
    sampler: Sampler
    dtype: np.dtype

    def predict(self, inputs: Shaped[np.ndarray, "n ..."] | jax.Array) -> Int[np.ndarray, "n"]:
        """The class of each input."""
        predictions, is_nan = _map_rows(Partial(classify, self.model, self.decide), inputs)
        refuse_nan(is_nan.sum())
        if predictions.min() < 0 or predictions.max() >= len(self.classes):
            raise ValueError(
                f"`decide` must give classes from 0 to {len(self.classes) - 1}, those that `classes` names; "
                f"got {predictions.min()} to {predictions.max()}"
            )
        return predictions

    def featurize(self, inputs: Shaped[np.ndarray, "n ..."] | jax.Array) -> Float[np.ndarray, "n d"]:
        """The features of each input, in at least float32."""
        features: np.ndarray = _map_rows(self.features, inputs)
        return features.astype(wide_dtype(features.dtype))

    def whole_space(self) -> Region:
        """The region without conditions, with all inputs."""
        ends = np.full(len(self.names), np.inf)
        return Region(-ends, ends, np.asarray(self.inputs))

    def training_data(
        self, key: jax.Array, n_samples: int
    ) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, "n"]]:
        """The features and the predictions of the inputs and of samples around them."""
        _checks.check_bytes("n_samples", 16 * n_samples * (self.inputs[0].size + len(self.names)))
        samples = draw(key, self.sampler, self.whole_space(), n_samples)
        inputs = np.concatenate([np.asarray(self.inputs), samples])
        return self.featurize(inputs), self.predict(inputs)

    def held_out(self, inputs: ArrayLike, labels: ArrayLike | None) -> HeldOut:
        """Check test examples and their labels, and query the model on them."""
        rows = check_examples("held_out", inputs)
        if rows.shape[1:] != self.inputs.shape[1:]:
            expected = ", ".join(map(str, self.inputs.shape[1:]))
            raise ValueError(f"`held_out` must have shape (n, {expected}); got {rows.shape}")
        if labels is not None:
            array = _checks.check_array("held_out_labels", labels)
            _checks.check_shape("held_out_labels", array, rows.shape[:1], "one per held-out input")
            if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool):
                raise TypeError(f"`held_out_labels` must be classes, integers; got dtype {array.dtype}")
            _checks.check_values("held_out_labels", array, at_least=0, at_most=len(self.classes) - 1)
            labels = np.asarray(array)
        return HeldOut(self.featurize(rows), self.predict(rows), labels)


def prepare(
    model: Model,
    inputs: ArrayLike,
    spread: float,
    decide: Model | None = None,
    features: Model | None = None,
    names: Names = None,
    classes: Names = None,
) -> Problem:
    """Check the arguments that all learned rules have in common, and the functions on one example."""
    rows = check_examples("inputs", inputs)
    spread = _checks.check_real("spread", spread, at_least=0)
    model = as_model(model)
    output = output_shape(model, rows[0])
    if decide is None and (getattr(output, "ndim", 0) != 1 or output.size < 2):
        raise ValueError(
            "`decide` must be given, a function from the output to a class (0, 1, ...), as the output is no "
            f"vector of two or more elements, the largest of which is the prediction; it is {output}"
        )
    count = output.size if decide is None else None
    decide = as_model(_ARGMAX if decide is None else decide, "decide")
    prediction = output_shape(decide, output, name="decide")
    dtype = getattr(prediction, "dtype", jnp.float32)
    is_flag = jnp.issubdtype(dtype, jnp.bool_)
    if not (is_flag or jnp.issubdtype(dtype, jnp.integer)) or prediction.shape != ():
        raise ValueError(f"`decide` must give one integer, the class; got {prediction}")
    names = _column_names(inputs) if names is None and features is None else names
    features = as_model(FLATTEN if features is None else features, "features")
    vector = output_shape(features, rows[0], name="features")
    if getattr(vector, "ndim", 0) != 1 or vector.size == 0:
        raise ValueError(f"`features` must give a vector (d,) for one input; got {vector}")
    if count is None and classes is None and not is_flag:
        raise ValueError(
            "`classes` must be given with `decide`: the names of the classes 0, 1, ...; got None"
        )
    if count is None:
        count = 2 if classes is None else len(classes)
    names = check_names("names", names, vector.size, "x_{}", "one per feature")
    classes = check_names("classes", classes, count, "class {}", "one per class")
    sampler = Sampler.of(features, rows, spread)
    dtype = jnp.dtype(float_dtype(vector.dtype))
    return Problem(model, decide, features, names, classes, rows, sampler, dtype)


def classify(model: Model, decide: Model, x: jax.Array) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """The predicted class of one input, and whether the output has a NaN."""
    output = model(x)
    leaves = [leaf for leaf in jax.tree.leaves(output) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    is_nan = jnp.any(jnp.stack([jnp.any(jnp.isnan(leaf)) for leaf in leaves] or [jnp.array(False)]))
    return decide(output).astype(jnp.int32), is_nan


def refuse_nan(count: int) -> None:
    """Raise if the output of the model is NaN, which is no class, for `count` of the inputs."""
    if count:
        raise ValueError(f"`model` must not give NaN; it does for {count} of the inputs queried")


def _map_rows(function: Model, inputs: Shaped[np.ndarray, "n ..."] | jax.Array) -> PyTree:
    """The function of each input; batches of a power of two, so that few sizes are compiled."""
    rows = np.asarray(inputs)
    return map_examples(function, rows, batch_size=min(_BATCH, 1 << (len(rows) - 1).bit_length()))


def check_examples(name: str, values: ArrayLike) -> Shaped[Array, "n ..."]:
    """Return examples as an array `(n, ...)` of real numbers, not empty and finite, or raise."""
    if not _checks.is_concrete(values):
        raise TypeError(f"`{name}` must not be traced: the rules depend on its values")
    array = _checks.check_real_array(name, values)
    _checks.check_count({name: array})
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"`{name}` must have shape (n, ...), one example per row, not empty; got {array.shape}"
        )
    _checks.check_finite(name, array)
    return array


def _column_names(inputs: ArrayLike) -> Names:
    """The names of the columns of a data frame, where it has them, or None; pandas numbers those without."""
    columns = list(getattr(inputs, "columns", []))
    return columns if columns and all(isinstance(column, str) for column in columns) else None


def check_names(name: str, values: Names, count: int, pattern: str, meaning: str) -> tuple[str, ...]:
    """Return `count` names, those given or, for None, numbered by the pattern; or raise."""
    if values is None:
        return tuple(pattern.format(i) for i in range(count))
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(
            f"`{name}` must be {count} strings, {meaning}; got {type(values).__name__} {values!r}"
        )
    texts = tuple(str(value) for value in values)
    if len(texts) != count:
        raise ValueError(f"`{name}` must be {count} strings, {meaning}; got {len(texts)}")
    return texts
