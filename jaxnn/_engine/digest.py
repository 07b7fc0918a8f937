"""Digest of a computation: equal for functions that trace to the same jaxpr, in any process."""

import enum
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxnn._checks import is_key
from jaxnn._engine.jaxpr import trace

_PLAIN = (str, bytes, bool, int, float, complex, enum.Enum, np.dtype, type(None))


def digest(function: Callable[..., Any], *args: Any) -> str:
    """The SHA-256 of a function's jaxpr: its operations, their parameters and its constants.

    Names and the placement on devices are left out, as they do not change the numbers; what a callback
    computes on the host is not seen.

    Args:
        function: of pytrees of arrays.
        *args: pytrees of arrays or `jax.ShapeDtypeStruct`.
    """
    return _sha256(_describe(trace(function, *args).jaxpr).encode())


def _describe(value: Any) -> str:
    """A text that is equal in two processes where the value is; of an unknown object its type."""
    if isinstance(value, core.ClosedJaxpr):  # so is every Jaxpr of JAX 0.12, with itself as its `jaxpr`
        return f"[{_describe_jaxpr(value.jaxpr)}, {_describe(value.consts)}]"
    if isinstance(value, core.Jaxpr):
        return _describe_jaxpr(value)
    if isinstance(value, _PLAIN):
        return repr(value)
    if is_key(value):
        return f"{value.dtype}{_describe(jax.random.key_data(value))}"
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return f"{value.dtype}{value.shape}{_sha256(np.asarray(value).tobytes())}"
    if isinstance(value, Mapping):
        return _describe(sorted((str(key), _describe(item)) for key, item in value.items()))
    if isinstance(value, AbstractSet):  # whose order is another in each process
        return _describe(sorted(map(_describe, value)))
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_describe, value))}]"
    return type(value).__name__


def _describe_jaxpr(jaxpr: core.Jaxpr) -> str:
    """Its equations, with its variables numbered."""
    numbers: dict[Any, int] = {}
    fresh = itertools.count()

    def name(atom: Any) -> str:
        if isinstance(atom, core.Literal):
            return f"{_shape(atom)}{_describe(atom.val)}"
        if atom not in numbers:
            numbers[atom] = next(fresh)
        return f"v{numbers[atom]}"

    def names(atoms: Sequence[Any]) -> str:
        return " ".join(map(name, atoms))

    lines = [f"{name(v)}:{_shape(v)}" for v in (*jaxpr.constvars, *jaxpr.invars)]
    for eqn in jaxpr.eqns:
        params = {key: value for key, value in eqn.params.items() if key != "name"}
        results = " ".join(f"{name(v)}:{_shape(v)}" for v in eqn.outvars)
        lines.append(f"{results} = {eqn.primitive.name} {_describe(params)} {names(eqn.invars)}")
    return "\n".join([*lines, names(jaxpr.outvars)])


def _shape(atom: Any) -> str:
    return f"{getattr(atom.aval, 'dtype', None)}{getattr(atom.aval, 'shape', None)}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
