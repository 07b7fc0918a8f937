"""The primitive of `jaxnn.tap`: the identity, with a name in the jaxpr.

A primitive of our own, since that of `jax.ad_checkpoint.checkpoint_name` depends on JAX's configuration.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

_tap = core.Primitive("tap")
_tap.def_impl(lambda value, *, name: value)
_tap.def_abstract_eval(lambda aval, *, name: aval)
mlir.register_lowering(_tap, lambda context, value, *, name: [value])


MODULE = "/"  # what the scope of a module of an adapter starts with; the rest is its path
BATCHED = "batch of one"  # the scope of a module that requires a batch axis


def module_scope(path: str) -> Any:
    """The `jax.named_scope` of a module of an adapter, by which its operations are known."""
    return jax.named_scope(MODULE + path)


def tap_array(value: jax.Array, name: str) -> jax.Array:
    """The value itself, named in the jaxpr."""
    result: jax.Array = _tap.bind(value, name=name)
    return result


def tap_one(value: jax.Array, name: str) -> jax.Array:
    """The value itself, named without its batch axis of one, if it has one."""
    if value.shape[:1] != (1,):
        return tap_array(value, name)
    return jnp.expand_dims(tap_array(jnp.squeeze(value, 0), name), 0)


def _jvp(values: Sequence[Any], tangents: Sequence[Any], *, name: str) -> tuple[Any, Any]:
    return tap_array(values[0], name), tangents[0]


def _batch(values: Sequence[Any], axes: Sequence[Any], *, name: str) -> tuple[Any, Any]:
    return tap_array(values[0], name), axes[0]


ad.primitive_jvps[_tap] = _jvp
ad.primitive_transposes[_tap] = lambda cotangent, value, *, name: [cotangent]
batching.primitive_batchers[_tap] = _batch
