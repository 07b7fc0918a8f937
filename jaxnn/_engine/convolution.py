"""A convolution that a CPU computes in the fastest known way.

XLA's convolutions on a CPU are 10 to 50 times slower than necessary for some shapes, such as depthwise
ones. Which way is the fastest depends on all shapes, which `vmap` and gradients still change while JAX
traces. So a primitive of our own stands in for `conv_general_dilated`. It has the same parameters,
derivatives and batching rules, and chooses when the program is lowered for a CPU; see `convolution_cpu`.
Other devices get JAX's own.

`fast_convolutions` puts it into a function; `standard` of `primitives` takes it out of a jaxpr that a method
reads.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from jaxnn._engine.convolution_cpu import convolve

ORIGINAL = lax.conv_general_dilated_p
CONVOLUTION = core.Primitive("conv_of_cpu")
CONVOLUTION.def_effectful_abstract_eval(ORIGINAL.abstract_eval)


def _evaluate(*operands: Any, **params: Any) -> jax.Array:
    if jax.config.values["jax_disable_jit"]:
        result: jax.Array = ORIGINAL.bind(*operands, **params)
        return result
    return _compiled(*operands, params=tuple(params.items()))


@functools.partial(jax.jit, static_argnames="params")
def _compiled(images: jax.Array, kernels: jax.Array, params: tuple[tuple[str, Any], ...]) -> jax.Array:
    return _bind(images, kernels, **dict(params))


def _bind(images: Any, kernels: Any, **params: Any) -> jax.Array:
    result: jax.Array = CONVOLUTION.bind(images, kernels, **params)
    return result


def _with_ours(function: Callable[..., jax.Array], *operands: Any) -> jax.Array:
    """Evaluate a function of JAX's convolutions with ours."""
    traced = jax.make_jaxpr(function)(*operands)
    equations = [fast_on_cpu(eqn) for eqn in traced.jaxpr.eqns]
    replaced = core.ClosedJaxpr(traced.jaxpr.replace(eqns=equations), traced.consts)
    (result,) = core.jaxpr_as_fun(replaced)(*operands)
    return result


def fast_on_cpu(eqn: core.JaxprEqn) -> core.JaxprEqn:
    """An equation of JAX's convolution as one of ours; any other as it is."""
    return eqn.replace(primitive=CONVOLUTION) if eqn.primitive is ORIGINAL else eqn


def original(eqn: core.JaxprEqn) -> core.JaxprEqn:
    """An equation of our convolution as one of JAX's; any other as it is."""
    return eqn.replace(primitive=ORIGINAL) if eqn.primitive is CONVOLUTION else eqn


def _transpose(convolve: Callable[..., jax.Array], aval: Any, cotangent: Any, other: Any) -> jax.Array:
    """The cotangent of the first operand of a convolution, by JAX's rule: a convolution, too."""

    def transpose(cotangent: Any, other: Any) -> jax.Array:
        (result,) = jax.linear_transpose(lambda value: convolve(value, other), aval)(cotangent)
        return result

    return _with_ours(transpose, cotangent, other)


def _transpose_images(cotangent: Any, images: Any, kernels: Any, **params: Any) -> jax.Array:
    return _transpose(functools.partial(ORIGINAL.bind, **params), images.aval, cotangent, kernels)


def _transpose_kernels(cotangent: Any, images: Any, kernels: Any, **params: Any) -> jax.Array:
    return _transpose(lambda w, x: ORIGINAL.bind(x, w, **params), kernels.aval, cotangent, images)


def _batch(operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> tuple[jax.Array, int]:
    """JAX's rule: images of a batch are more images, kernels of a batch are more channels or groups."""
    n, channel, *_ = params["dimension_numbers"].out_spec
    axis = n if axes[1] is None else channel  # where the rule leaves the batch axis
    mapped = jax.vmap(functools.partial(ORIGINAL.bind, **params), tuple(axes), axis)
    return _with_ours(mapped, *operands), axis


CONVOLUTION.def_impl(_evaluate)
ad.defbilinear(CONVOLUTION, _transpose_images, _transpose_kernels)
batching.primitive_batchers[CONVOLUTION] = _batch
mlir.register_lowering(CONVOLUTION, mlir.lower_fun(ORIGINAL.bind, multiple_results=False))
mlir.register_lowering(CONVOLUTION, mlir.lower_fun(convolve, multiple_results=False), platform="cpu")
