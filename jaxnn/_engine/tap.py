"""The primitive of `jaxnn.tap`: the identity, with a name in the jaxpr.

A primitive of our own, since that of `jax.ad_checkpoint.checkpoint_name` depends on JAX's configuration.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

_tap = core.Primitive("tap")
_tap.def_impl(lambda value, *, name, axis: value)
_tap.def_abstract_eval(lambda aval, *, name, axis: aval)
mlir.register_lowering(_tap, lambda context, value, *, name, axis: [value])


MODULE = "/"  # what the scope of a module of an adapter starts with; the rest is its path
BATCHED = "batch of one"  # the scope of a module that requires a batch axis


def module_scope(path: str) -> Any:
    """The `jax.named_scope` of a module of an adapter, by which its operations are known."""
    return jax.named_scope(MODULE + path)


def tap_array(value: jax.Array, name: str, axis: int | None = None) -> jax.Array:
    """The value itself, named in the jaxpr; what is named has no such axis, which is a batch of one."""
    result: jax.Array = _tap.bind(value, name=name, axis=axis)
    return result


def tap_one(value: jax.Array, name: str) -> jax.Array:
    """The value itself, named without its batch axis of one, if it has one."""
    return tap_array(value, name, 0 if value.shape[:1] == (1,) else None)


def tapped_axis(eqn: core.JaxprEqn) -> int | None:
    """The axis that a named value is without, or None."""
    axis: int | None = eqn.params.get("axis")  # JAX's own names have none
    return axis


def _jvp(values: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    return tap_array(values[0], **params), tangents[0]


def _batch(
    values: Sequence[Any], axes: Sequence[Any], *, name: str, axis: int | None
) -> tuple[jax.Array, int]:
    (batch,) = axes
    if axis is not None and batch <= axis:
        axis += 1
    return tap_array(values[0], name, axis), batch


ad.primitive_jvps[_tap] = _jvp
ad.primitive_transposes[_tap] = lambda cotangent, value, **params: [cotangent]
batching.primitive_batchers[_tap] = _batch
