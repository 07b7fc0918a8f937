"""What the metrics share: attributions as one vector, summed over groups, and methods as functions."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import _checks
from jaxnn._model import as_example, as_model, count_elements, output_shape, prepare
from jaxnn._precision import float_dtype, widen
from jaxnn._typing import Model, PyTree, Target
from jaxnn.attribution._masks import Game

Explain = Callable[..., PyTree]
"""An attribution method, `explain(model, x, target) -> attributions`, such as `attribution.saliency`."""


def check_attributions(attributions: PyTree, x: PyTree, name: str = "attributions") -> PyTree:
    """Return attributions as arrays, or raise unless they are finite and of the structure of `x`."""
    attributions = as_example(name, attributions)
    _checks.check_structure(name, attributions, x)
    places = zip(jax.tree.leaves_with_path(attributions), jax.tree.leaves(x), strict=True)
    for (path, leaf), like in places:
        place = name + jax.tree_util.keystr(path)
        _checks.check_shape(place, leaf, like.shape, "that of `x`: an attribution for each element")
        _checks.check_finite(place, leaf)
    return attributions


def check_map(attributions: PyTree) -> PyTree:
    """Return attributions without an input beside them, or raise unless they are finite and not empty."""
    attributions = as_example("attributions", attributions)
    count_elements(attributions)
    return check_attributions(attributions, attributions)


def flat(tree: PyTree) -> jax.Array:
    """All elements as one vector `(n,)`, in at least float32."""
    return jnp.concatenate([widen(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def group_sums(attributions: PyTree, game: Game) -> jax.Array:
    """The sum of the attributions of each group, `(n,)`."""
    values = flat(attributions)
    if game.groups is None:
        return values
    places = zip(jax.tree.leaves(game.groups), jax.tree.leaves(game.x), strict=True)
    ids = jnp.concatenate([jnp.broadcast_to(ids, leaf.shape).ravel() for ids, leaf in places])
    return jax.ops.segment_sum(values, ids, num_segments=game.n)


def dtype_of(function: Any, *args: Any) -> Any:
    """The dtype of the scalar output of a function, or JAX's default where that is an integer."""
    return float_dtype(jax.eval_shape(function, *args).dtype)


def as_dtype(values: PyTree, dtype: Any) -> PyTree:
    """Cast each array of a result."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), values)


def nan_where(condition: jax.Array, values: PyTree) -> PyTree:
    """NaN in the place of floating-point values where a condition holds."""
    return jax.tree.map(lambda leaf: jnp.where(condition, jnp.asarray(jnp.nan, leaf.dtype), leaf), values)


def all_finite(leaves: Iterable[jax.Array]) -> jax.Array:
    """Whether all elements of all arrays are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def check_explain(explain: Any, model: Model, x: PyTree, target: Target, *, name: str = "explain") -> Explain:
    """Return a method as a pytree, or raise unless it gives attributions of the structure of `x`."""
    explain = as_model(explain, name)
    found = output_shape(explain, model, x, target, name=name)
    shapes, expected = jax.tree.map(jnp.shape, found), jax.tree.map(jnp.shape, x)
    if shapes != expected:
        raise ValueError(
            f"`{name}` must return attributions of the structure and shapes of `x`, {expected}; got {shapes}"
        )
    return explain


def prepare_explain(
    model: Model, x: PyTree, target: Target, explain: Any, name: str = "target"
) -> tuple[Model, PyTree, Target, Explain]:
    """Check the arguments of a metric that explains inputs itself; `x` holds floating-point numbers."""
    model, x, target = prepare(model, x, target, name, differentiable=False)
    count_elements(x)
    for path, leaf in jax.tree.leaves_with_path(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"`x{jax.tree_util.keystr(path)}` must hold floating-point numbers, which can be changed a "
                f"little; got dtype {leaf.dtype}. Split a model of integers at its embedding: jaxnn.split_at"
            )
        _checks.check_finite("x" + jax.tree_util.keystr(path), leaf)
    return model, x, target, check_explain(explain, model, x, target)


@jax.jit
def explained(explain: Explain, model: Model, target: Target, x: PyTree) -> PyTree:
    """`explain(model, x, target)`, with the input last."""
    return explain(model, x, target)


def at_input(explain: Explain, model: Model, target: Target) -> Explain:
    """The method as a function of the input alone, a callable pytree."""
    return jax.tree_util.Partial(explained, explain, model, target)


def norm(values: jax.Array) -> jax.Array:
    """The Euclidean norm of a vector, with gradient 0 (not NaN) at 0."""
    total = jnp.sum(jnp.square(values))
    return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)
