"""What is public in a package: what the reference has to have an entry for."""

import functools
import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator
from typing import Any


def public_names(package: Any) -> Iterator[str]:
    """Every public name of a package and of its public modules, and each class's public methods."""
    names = [package.__name__] + [
        f"{package.__name__}.{module.name}"
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_")
    ]
    for module in map(importlib.import_module, names):
        for name in getattr(module, "__all__", None) or dir(module):
            value = getattr(module, name)
            if name.startswith("_") or isinstance(value, types.ModuleType):
                continue
            if hasattr(typing, name) or not is_of(package, value):
                continue
            yield f"{module.__name__}.{name}"
            for method in vars(value) if isinstance(value, type) else ():
                if not method.startswith("_") and is_method_of(
                    package, value, method
                ):
                    yield f"{module.__name__}.{name}.{method}"


def is_of(package: Any, value: Any) -> bool:
    """Whether a value is from that package; a constant, such as a string, does not say where it is from."""
    module = getattr(value, "__module__", None)
    return module is None or f"{module}.".startswith(f"{package.__name__}.")


def is_method_of(package: Any, owner: type, name: str) -> bool:
    """Whether a name of a class is that of a method or a property, written in that package."""
    value = vars(owner)[name]
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, classmethod | staticmethod | functools.cached_property):
        value = value.__func__ if hasattr(value, "__func__") else value.func
    return isinstance(value, types.FunctionType) and is_of(package, value)
