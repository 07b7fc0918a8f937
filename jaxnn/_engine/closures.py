"""What a function closes over: objects with a state that JAX does not see.

A compiled function keeps the arrays that it read from such an object when it was traced. After more training
of the object it would still compute with the old ones, without a word.
"""

import dis
import functools
from collections.abc import Container, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from jax.tree_util import Partial

from jaxnn._engine.primitives import CALLBACKS

_REMEDIES = {
    "flax.nnx": "Pass `jaxnn.from_nnx(module)` in its place, again after each change of the module",
    "keras": "Pass `jaxnn.from_keras(model)` in its place, again after each change of the model",
    "torch": "JAX cannot trace it. Pass `jaxnn.from_torch(module, example)` in its place, again after each "
    "change of the module; or, for methods that only evaluate the model, `jaxnn.from_numpy(function, shape)`",
}
_WITHOUT_STATE = {"jax", "numpy", "flax", "optax", "haiku", "equinox", "jaxnn"}
_MOST = 200  # functions and objects looked at


def check_stateless(name: str, function: Any) -> None:
    """Raise where a function is, or closes over, an NNX module, a Keras model or a PyTorch module.

    Looked at are the variables of the function and of the functions that it calls by name: global ones and
    those of enclosing functions, default and bound arguments, the elements of lists and dictionaries, and the
    attributes of objects. Not: attributes of modules and of classes.

    Raises:
        TypeError: there is such an object; it is named, with what to pass in its place.
    """
    queue, seen = [(name, function)], set[int]()
    while queue and len(seen) < _MOST:
        label, value = queue.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        library = _library(value)
        if library is not None:
            where = "be" if label == name else f"use the variable `{label}`,"
            raise TypeError(
                f"`{name}` must not {where} a {type(value).__name__} of {library}: its weights would be "
                f"constants of the compiled function, and stay as they are now after more training. "
                f"{_REMEDIES[library]}"
            )
        queue.extend(_referenced(value, label))


def _library(value: Any) -> str | None:
    """The library of a stateful object, or None."""
    for cls in type(value).__mro__:
        module = getattr(cls, "__module__", None) or ""
        if module.startswith("flax.nnx") and cls.__name__ in ("Module", "Variable"):
            return "flax.nnx"
        root = module.partition(".")[0]
        if root in ("keras", "tf_keras") and cls.__name__ in ("Layer", "Variable", "KerasVariable"):
            return "keras"
        if root == "torch" and cls.__name__ in ("Module", "Tensor"):
            return "torch"
    return None


def _referenced(value: Any, label: str) -> Iterator[tuple[str, Any]]:
    """The values that a function can reach, with the names of the variables."""
    if isinstance(value, functools.partial | Partial):
        yield label, value.func
        if not isinstance(value, Partial):  # the arguments of a `Partial` are arrays, passed at each call
            yield from ((label, each) for each in (*value.args, *value.keywords.values()))
    elif isinstance(value, MethodType):
        yield label, value.__self__
        yield label, value.__func__
    elif isinstance(value, FunctionType):
        if _is_of(_WITHOUT_STATE, value) or _calls_back(value.__code__):
            return
        names = _global_names(value.__code__)
        yield from ((name, value.__globals__[name]) for name in names if name in value.__globals__)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if _is_filled(cell):
                yield name, cell.cell_contents
        yield from ((label, each) for each in value.__defaults__ or ())
        yield from (value.__kwdefaults__ or {}).items()
    elif isinstance(value, list | tuple | dict):
        elements = value.values() if isinstance(value, dict) else value
        yield from ((label, each) for each in list(elements)[:_MOST])
    elif hasattr(value, "__wrapped__"):  # jitted, or otherwise decorated
        yield label, value.__wrapped__
    elif not isinstance(value, type | ModuleType) and not _is_of(_WITHOUT_STATE, type(value)):
        yield from ((f"{label}.{name}", each) for name, each in getattr(value, "__dict__", {}).items())


def _is_of(libraries: Container[str], value: Any) -> bool:
    """Whether a function or a class is of one of some libraries."""
    return (value.__module__ or "").partition(".")[0] in libraries


@functools.lru_cache(4096)
def _global_names(code: CodeType) -> tuple[str, ...]:
    """The global variables that a function's code reads, that of functions defined inside included."""
    own = (each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    return tuple(dict.fromkeys([*own, *(name for inner in _inner(code) for name in _global_names(inner))]))


@functools.lru_cache(4096)
def _calls_back(code: CodeType) -> bool:
    """Whether a function calls back to the host: there it is evaluated with the state of that time."""
    return bool(CALLBACKS.intersection(code.co_names)) or any(map(_calls_back, _inner(code)))


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a variable that is assigned later
        return False
    return True
