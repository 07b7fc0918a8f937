"""Adapter for Keras models on the JAX backend: while a model is traced, its layers name their outputs.

Keras has no interceptors of calls. A copy of a model whose layers are named for good would need
`get_config`, which models of one's own class often lack, or a copy of every object that such a class may
hold. So the model itself is traced, and the `call` of each of its layers is replaced by one that taps, in the
layer's own attributes, for as long as the trace takes: under a lock, and put back also after an error. Calls
of the layers by another thread at that time are passed through.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._adapters import common
from jaxnn._checks import require
from jaxnn._engine.tap import module_scope
from jaxnn._model import Frozen
from jaxnn._repr import short_repr
from jaxnn._typing import PyTree

if TYPE_CHECKING:
    from keras import Model

_LOCK = threading.RLock()  # one thread at a time replaces calls; again where a model calls another
_NOT_COMPARED = {"trainable", "compile_config"}  # of a configuration: they do not matter in evaluation mode
_WRAPPED = {"build", "quantize", "call", "quantized_call"}  # methods that Keras, or this module, wraps
_TRAINER = {  # attributes of a model that are of its training
    "auto_scale_loss", "compiled", "distribute_reduction_method", "distribute_strategy", "history", "inputs",
    "jit_compile", "loss", "optimizer", "outputs", "predict_function", "run_eagerly", "steps_per_execution",
    "stop_training", "test_function", "train_function",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Structure:
    """A model without the values of its variables.

    Attributes:
        model: the model.
        variables: its variables in the order of their values, the trainable ones first.
        order: of each of them, its place among the variables of the model; metrics have none.
        parts: of the model; with `order` what is compared.
    """

    model: Any = dataclasses.field(compare=False)
    variables: tuple[Any, ...] = dataclasses.field(compare=False)
    order: tuple[int, ...]
    parts: tuple[Any, ...]

    def call(self, values: list[Any], x: PyTree, keywords: Mapping[str, Any]) -> PyTree:
        """The model's output for other values of its variables, which stay as they are."""
        import keras

        with _LOCK:
            if _parts(self.model) != self.parts:
                raise ValueError(
                    "`model` must be as it was when `from_keras` adapted it; a layer was added, removed or "
                    "configured since: adapt it again"
                )
            with keras.StatelessScope(zip(self.variables, values, strict=True)), _named_outputs(self.model):
                return self.model(x, **keywords)


@flax.struct.dataclass
class KerasModel:
    """A Keras model as a model of one example; made by `from_keras`.

    Attributes:
        params: the values of its trainable variables, in the order of `model.trainable_variables`.
        frozen: those of its other variables, and the arrays among the keyword arguments; not trained.
    """

    params: list[jax.Array]
    frozen: Frozen
    structure: _Structure = flax.struct.field(pytree_node=False)
    static: common.Static = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """The model's output in evaluation mode, each layer's output tapped by its path."""
        others, keywords = self.static.join(self.frozen)
        values = [*self.params, *others]
        call = functools.partial(self.structure.call, values, keywords=keywords)
        return common.call_one(call, x, batched=True, needs="`model` must be one")


def from_keras(model: "Model", **kwargs: Any) -> KerasModel:
    """Keras adapter: make a model of one example from a Keras 3 model on the JAX backend.

    The model computes `model(x[None], training=False, **kwargs)[0]`, without side effects: an axis of one is
    inserted before each array of the input, and removed from the output and from named arrays (where they
    have one). It computes in the model's own dtype policy. The output of each layer is named by the names of
    the layers around it and its own, such as `"dense_1"`, or `"encoder/dense"` in a model within the model,
    for `jaxnn.capture` and `jaxnn.intervene`. A layer in several places has the path of the first.

    `jaxnn.train` trains the trainable variables; all others, such as the averages of `BatchNormalization` and
    the state of random generators, are frozen. The values are copied: later training of the Keras
    model does not change the result.

    Models share one compilation where all their layers have equal names, configurations and attributes, such
    as the statistics that `Normalization.adapt` computes. A layer of a class of your own is compared by its
    `get_config` where that class itself defines one, and otherwise by identity, as functions are: the same
    Keras model with new weights never compiles again.

    Args:
        model: a functional, sequential or subclassed model that is built. Several inputs are a tuple or a
            dictionary, as for the model itself.
        kwargs: keyword arguments of the call, such as `mask`, with their batch axis. Arrays among them are
            leaves, not trained.

    Returns:
        A callable pytree.

    Raises:
        ImportError: Keras is not installed, or it looks for a backend that is not.
        TypeError: `model` is not a Keras model, or a keyword argument is neither an array nor hashable.
        ValueError: Keras runs on another backend, or `model` or a layer of it is not built. Called, it raises
            where a layer was added, removed or configured since.

    Example:
        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
        >>> import jax.numpy as jnp, jaxnn, keras
        >>> layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="output")]
        >>> model = jaxnn.from_keras(keras.Sequential([keras.Input((3,)), *layers]))
        >>> y, values = jaxnn.capture(model, jnp.ones(3))
        >>> {name: value.shape for name, value in values.items()}
        {'hidden': (4,), 'output': (2,)}
    """
    keras = _import_keras()
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model; got {common.describe(model)}")
    _check_built(model)
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    places = {id(variable): i for i, variable in enumerate(own)}
    trainable = model.trainable_variables
    others = [each for each in model.non_trainable_variables if id(each) in places]
    variables = (*trainable, *others)
    with _LOCK:
        structure = _Structure(model, variables, tuple(places[id(each)] for each in variables), _parts(model))
    common.check_hashable("model", structure)
    frozen, static = common.freeze("kwargs", (_copied(others), {"training": False} | kwargs))
    return KerasModel(_copied(trainable), frozen, structure, static)


def _import_keras() -> ModuleType:
    """Keras, on the JAX backend."""
    advice = 'set the environment variable KERAS_BACKEND to "jax" before Keras is imported'
    try:
        keras = require("keras", "`from_keras`", "keras")
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None)
        if missing == "keras":
            raise
        raise ImportError(f"`from_keras` needs Keras on JAX, and it looks for {missing}: {advice}") from error
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"`model` must be of Keras on JAX; got the backend {keras.backend.backend()}: {advice}"
        )
    return keras


def _check_built(model: Any) -> None:
    """Raise where a layer has no variables yet: they would be created in the middle of a trace."""
    import keras

    defaults = (keras.Layer.build, keras.Model.build)  # they create nothing
    for path, layer in _layers(model):
        if not layer.built and (layer is model or type(layer).build not in defaults):
            which = f"its layer {path!r}" if path else "it"
            raise ValueError(f"`model` must be built, but {which} is not: call the model on a batch before")


def _copied(variables: list[Any]) -> list[jax.Array]:
    """Copies of their values: `fit` hands the arrays themselves over to its compiled step."""
    return [jnp.array(variable.value, copy=True) for variable in variables]


def _layers(model: Any) -> list[tuple[str, Any]]:
    """Each layer of a model with its path, the model itself first, with none."""
    from keras.layers import InputLayer

    found = {id(model): ("", model)}

    def visit(layer: Any, path: str) -> None:
        for each in layer._flatten_layers(include_self=False, recursive=False):
            if id(each) not in found and not isinstance(each, InputLayer):  # which is never called
                found[id(each)] = (path + each.name, each)
                visit(each, f"{path}{each.name}/")

    visit(model, "")
    return list(found.values())


def _parts(model: Any) -> tuple[Any, ...]:
    """What is compared of a model: of each layer its path, class, configuration and functions."""
    return tuple(
        (
            path,
            type(layer),
            _configuration(layer, named=layer is not model),
            _functions(layer),
            _attributes(layer),
        )
        for path, layer in _layers(model)
    )


def _configuration(layer: Any, *, named: bool) -> Any:
    """A layer's configuration as text; the layer itself where it may not say everything."""
    cls = type(layer)
    if not _is_of_keras(cls) and "get_config" not in vars(cls):  # an inherited one does not know the class
        return layer
    try:
        config = layer.get_config()
        if not named:
            config = {key: value for key, value in config.items() if key != "name"}
        return json.dumps(_compared(config), sort_keys=True)
    except Exception:  # what a `get_config` may raise is not known: a layer without is one that is not shared
        return layer


def _compared(config: Any, single: str | None = None) -> Any:
    """A configuration without what does not matter in evaluation mode, and the name of a single input.

    `keras.models.clone_model` changes that name. Several inputs are distinguished by theirs.

    Args:
        config: of a layer, or a part of one.
        single: the name of the only input of the model around it.
    """
    if isinstance(config, Mapping):
        layers = config.get("layers")
        if isinstance(layers, list):
            inputs = [each for each in layers if each.get("class_name") == "InputLayer"]
            single = inputs[0]["config"]["name"] if len(inputs) == 1 else None
        ignored = _NOT_COMPARED | ({"name"} if single is not None and config.get("name") == single else set())
        return {key: _compared(value, single) for key, value in config.items() if key not in ignored}
    if not isinstance(config, list | tuple):
        return config
    if len(config) == 3 and config[0] == single:  # a reference: the layer, its call, and the output's place
        config = [None, *config[1:]]
    return [_compared(value, single) for value in config]


def _functions(layer: Any) -> tuple[Any, ...]:
    """The functions that a layer holds, such as an activation, which a configuration has by name only."""
    import keras

    # Those of a model are its compiled steps and its loss; its operations are part of its `call`.
    held = getattr(layer, "operations", ()) if isinstance(layer, keras.Model) else (layer,)
    return tuple(
        (name, value)
        for each in held
        for name, value in vars(each).items()
        if callable(value) and name not in _WRAPPED and not any(map(_is_of_keras, type(value).__mro__))
    )


def _attributes(layer: Any) -> tuple[Any, ...]:
    """The values that a layer holds beside its variables and configuration, such as adapted statistics."""
    import keras

    if isinstance(layer, keras.Model) and _is_of_keras(type(layer)):
        return ()  # what `compile` and `fit` set
    left_out = _NOT_COMPARED | _WRAPPED | (_TRAINER if isinstance(layer, keras.Model) else set())
    return tuple(
        (name, _value(each))
        for name, each in vars(layer).items()
        if not name.startswith("_") and name not in left_out
    )


def _value(value: Any) -> Any:
    """A value that can be compared: numbers and text as they are, arrays by their bytes, others by type."""
    if isinstance(value, jax.core.Tracer):
        return type(value)
    if isinstance(value, jax.Array | np.ndarray):
        array = np.asarray(value)
        return (array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).digest())
    if isinstance(value, Mapping):
        return tuple((str(key), _value(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return (type(value), *map(_value, value))
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        return type(value), value
    if callable(value) and not any(map(_is_of_keras, type(value).__mro__)):
        return value
    return type(value)


def _is_of_keras(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] == "keras"


@contextlib.contextmanager
def _named_outputs(model: Any) -> Iterator[None]:
    """Have the layers of a model name their outputs, in this thread; under the lock.

    What a layer sets in its own attributes meanwhile, as `self.last = x` does, is put back too.
    """
    with contextlib.ExitStack() as stack:
        for path, layer in _layers(model):
            attributes = vars(layer)
            name = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"
            stack.callback(_put_back, attributes, dict(attributes))
            if layer is not model:
                attributes[name] = _naming(getattr(layer, name), path)
        yield


def _put_back(attributes: dict[str, Any], before: Mapping[str, Any]) -> None:
    for name in attributes.keys() - before.keys():
        del attributes[name]
    attributes.update(before)


def _naming(call: Callable[..., Any], path: str) -> Callable[..., Any]:
    """The `call` of a layer, its output tapped; the masks that Keras keeps beside its arrays are kept."""
    from keras.src.backend import get_keras_mask, set_keras_mask

    thread = threading.get_ident()

    @functools.wraps(call)
    def named(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return call(*args, **kwargs)
        with module_scope(path):
            output = call(*args, **kwargs)
        tapped = common.name_arrays(output, path, batched=True)
        for before, after in zip(jax.tree.leaves(output), jax.tree.leaves(tapped), strict=True):
            if (mask := get_keras_mask(before)) is not None:
                set_keras_mask(after, mask)
        return tapped

    return named
