"""Integer and boolean arrays of an example: they reach the model as they are, and have no gradient.

Where a gradient is taken, they are held: the model becomes a function of the floating-point arrays alone. The
place of each is kept by a `Held`, a pytree node without leaves.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.extend import core
from jax.tree_util import Partial

from jaxnn._engine.primitives import CALLS, inner_jaxprs, is_inexact, standard
from jaxnn._typing import PyTree

_INSTEAD = (
    "explain the layer of their embedding, as with `layer_integrated_gradients`, or use a method that only "
    "evaluates the model, such as `feature_ablation`"
)


@flax.struct.dataclass
class Held:
    """The place of a held array of this shape."""

    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)


def is_held(node: Any) -> bool:
    """Whether a node of a pytree is the place of a held array."""
    return isinstance(node, Held)


def hold(model: Callable[[Any], Any], x: PyTree) -> tuple[Callable[[Any], Any], PyTree]:
    """The model as a function of the floating-point arrays of `x` alone, and these; see `floats`."""
    held = integers(x)
    return (Partial(_with_held, model, held) if held else model), floats(x)


def floats(x: PyTree, name: str = "x") -> PyTree:
    """The floating-point arrays of an example, and a `Held` in the place of each other.

    Raises:
        TypeError: it has none; it goes by `name`.
    """
    leaves, structure = jax.tree.flatten(x)
    if not any(map(_is_floating, leaves)):
        kind = " and ".join(sorted({str(leaf.dtype) for leaf in leaves}))
        raise TypeError(
            f"`{name}` must hold floating-point numbers, since integers and booleans are held; got {kind}. "
            f"Cast quantities, as by `{name}.astype(float)`. For token ids, {_INSTEAD}"
        )
    parts = [leaf if _is_floating(leaf) else Held(leaf.shape) for leaf in leaves]
    return jax.tree.unflatten(structure, parts)


def integers(x: PyTree) -> list[jax.Array]:
    """The integer and boolean arrays of an example, which are held, in order."""
    return [leaf for leaf in jax.tree.leaves(x) if not _is_floating(leaf)]


def _is_floating(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _with_held(model: Callable[[Any], Any], held: list[jax.Array], x: PyTree) -> PyTree:
    return model(put_back(x, held))


def put_back(x: PyTree, held: list[jax.Array]) -> PyTree:
    """The example with its held arrays, in order, in their places."""
    rest = iter(held)
    return jax.tree.map(lambda node: next(rest) if is_held(node) else node, x, is_leaf=is_held)


def zeros_for_held(values: PyTree) -> PyTree:
    """Values of the structure of `x`, with zeros in the places of held arrays."""
    leaves = jax.tree.leaves(values, is_leaf=is_held)
    if not any(map(is_held, leaves)):
        return values
    dtype = jnp.result_type(*(leaf for leaf in leaves if not is_held(leaf)))
    return jax.tree.map(
        lambda node: jnp.zeros(node.shape, dtype) if is_held(node) else node, values, is_leaf=is_held
    )


def check_gradient_paths(jaxpr: core.Jaxpr, x: PyTree) -> None:
    """Say where arrays of `x` reach the output through integers or booleans alone: their gradient is 0.

    Args:
        jaxpr: of the function from the example to the explained output.
        x: the example, with floating-point leaves.

    Warns:
        UserWarning: one does, and another reaches the output through floating-point numbers.

    Raises:
        ValueError: all do that reach it.
    """
    lost, others = _gradient_paths(jaxpr)
    if not lost:
        return
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(x)]
    shown = ", ".join(f"`x{names[i]}`" for i in lost)
    if not others:
        raise ValueError(
            f"{shown} must reach the output through floating-point numbers; the model turns the values into "
            "integers or booleans first, so that the gradient is 0 everywhere. Pass token ids as integers, "
            f"and {_INSTEAD}"
        )
    warnings.warn(
        f"{shown} has a gradient of 0 everywhere: the model turns the values into integers or booleans. Pass "
        "them as such to hold them",
        stacklevel=_level_of_caller(),
    )


def _level_of_caller() -> int:
    """The `stacklevel` of a warning in the function that calls this: of the first frame that is not ours."""
    level, frame = 1, sys._getframe(1)
    ours = (str(Path(__file__).parents[1]), str(Path(jax.__file__).parent))
    while frame.f_back is not None and frame.f_code.co_filename.startswith(ours):
        level, frame = level + 1, frame.f_back
    return level


def _gradient_paths(jaxpr: core.Jaxpr) -> tuple[list[int], list[int]]:
    """The numbers of the arrays of `x` whose gradient is lost on the way to the output, and of the others."""
    sources = [frozenset([i]) for i in range(len(jaxpr.invars))]
    every, kept = (frozenset[int]().union(*_flow(jaxpr, sources, smooth=smooth)) for smooth in (False, True))
    return sorted(every - kept), sorted(kept)


def _flow(jaxpr: core.Jaxpr, sources: Sequence[frozenset[int]], *, smooth: bool) -> Sequence[frozenset[int]]:
    """The sources that each result of a jaxpr depends on, given those of each input.

    Args:
        jaxpr: of a function; calls are traced into.
        sources: by input.
        smooth: whether to count dependence through floating-point or complex numbers only.
    """
    nothing = frozenset[int]()
    found: dict[Any, frozenset[int]] = dict(zip(jaxpr.invars, sources, strict=True))

    def of(atoms: Sequence[Any]) -> list[frozenset[int]]:
        return [nothing if isinstance(v, core.Literal) else found.get(v, nothing) for v in atoms]

    for eqn in standard(jaxpr).eqns:
        if eqn.primitive.name in CALLS:
            (inner,) = inner_jaxprs(eqn)
            results = _flow(inner.jaxpr, of(eqn.invars), smooth=smooth)
        else:
            results = [nothing.union(*of(eqn.invars))] * len(eqn.outvars)
        found.update(
            (v, each) for v, each in zip(eqn.outvars, results, strict=True) if not smooth or is_inexact(v)
        )
    return of(jaxpr.outvars)
