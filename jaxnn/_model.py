"""What a model is: a callable pytree of one example. Its trainable part, and the rest."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Model = TypeVar("Model", bound=Callable[..., Any])


def _is_trainable(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def partition(model: Model) -> tuple[Model, Model]:
    """Split a model into its floating-point arrays and the rest, each a tree with None for the other."""
    trainable = jax.tree.map(lambda leaf: leaf if _is_trainable(leaf) else None, model)
    rest = jax.tree.map(lambda leaf: None if _is_trainable(leaf) else leaf, model)
    return trainable, rest


def combine(trainable: Model, rest: Model) -> Model:
    """Put back together what `partition` split."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, trainable, rest, is_leaf=lambda leaf: leaf is None
    )
