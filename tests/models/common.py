"""What the families share: the table of models, and parameters as training leaves them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxnn


class Case(NamedTuple):
    """A model and what is known of it.

    Attributes:
        build: returns the model and an example.
        family: of architectures.
        framework: that the module is written in.
        layer: a named value that all of the input passes through, or None.
        smooth: whether it has no kink, so that a quadrature converges fast.
        relu: whether it has a ReLU.
        piecewise: whether it is piecewise linear.
        conserves: whether it has neither biases nor softmax: relevance sums to the output.
    """

    build: Callable[[], tuple[Any, Any]]
    family: str
    framework: str
    layer: str | None = None
    smooth: bool = False
    relu: bool = False
    piecewise: bool = False
    conserves: bool = False


CASES: dict[str, Case] = {}


def case(family, framework, **known):
    """Add a function that builds a model to the table, under its own name."""

    def register(build):
        assert build.__name__ not in CASES
        CASES[build.__name__] = Case(build, family, framework, **known)
        return build

    return register


def normal(seed, *shape, scale=1.0):
    return scale * jax.random.normal(jax.random.key(seed), shape)


def glorot(seed, *shape):
    """Weights of a dense layer, `(..., n_in, n_out)`."""
    return normal(seed, *shape, scale=shape[-2] ** -0.5)


def trained(tree):
    """The parameters and statistics, with the biases (zeros) and scales (ones) that training leaves.

    Without it, a wrong rule for a bias is right by chance.
    """
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(7), max(len(leaves), 1))
    return jax.tree.unflatten(structure, [_trained_leaf(leaf, keys[i]) for i, leaf in enumerate(leaves)])


def _noise(key, leaf):
    seed = np.asarray(jax.random.key_data(key))
    return jnp.asarray(0.3 * np.random.default_rng(seed).normal(size=leaf.shape), leaf.dtype)


def _trained_leaf(leaf, key):
    if not eqx.is_inexact_array(leaf):
        return leaf
    if (leaf == 0).all():
        return _noise(key, leaf)
    return jnp.exp(_noise(key, leaf)) if (leaf == 1).all() else leaf  # variances, too, stay positive


def from_linen(module, x, *, batched=False, **kwargs):
    first = jax.tree.map(lambda a: a[None], x) if batched else x
    variables = jax.jit(module.init)(jax.random.key(1), first)  # one program, and not one per operation
    return jaxnn.from_linen(module, trained(variables), batched=batched, **kwargs), x


def from_nnx(module, x, *, batched=False):
    definition, state = nnx.split(module)
    return jaxnn.from_nnx(nnx.merge(definition, trained(state)), batched=batched), x


def from_equinox(module, x, state=None):
    arrays, rest = eqx.partition(module, eqx.is_inexact_array)
    module = eqx.combine(trained(arrays), rest)
    return jaxnn.from_equinox(module, *(() if state is None else (trained(state),))), x


def other_floats(x, seed):
    """An example with random floating-point numbers, and the integers of `x`."""
    random = np.random.default_rng(seed)

    def other(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.asarray(random.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(other, x)
