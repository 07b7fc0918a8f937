"""Groups of features: which elements are present or absent together, and the output for any set of groups."""

import warnings

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.memory import Batch
from jaxnn._model import broadcast_like, call, count_elements, prepare, scalar
from jaxnn._typing import Model, PyTree, Target

Groups = PyTree  # integers, of the structure of the example; None: one group per element


@flax.struct.dataclass
class Game:
    """The cooperative game of a prediction: the output for each set of features that are present.

    Attributes:
        model, x, target: as `prepare` returns them.
        baseline: the values of absent features, like `x`.
        groups: see `check_groups`.
        n: number of groups.
    """

    model: Model
    x: PyTree
    target: Target
    baseline: PyTree
    groups: Groups
    n: int = flax.struct.field(pytree_node=False)

    def __call__(self, present: jax.Array) -> jax.Array:
        """The output with the groups that are `present`, `(n,)` booleans, all others at the baseline."""
        return self.output(self.mixed(present))

    def with_groups(self, groups: Groups, n: int) -> "Game":
        """The same game of other features; see `check_groups`."""
        return Game(self.model, self.x, self.target, self.baseline, groups, n)

    def mixed(self, present: jax.Array) -> PyTree:
        """The example with the groups that are not `present`, `(n,)` booleans, at the baseline."""
        return mix(self.x, self.baseline, self.groups, present)

    def output(self, x: PyTree) -> jax.Array:
        """The scalar output at any input."""
        return scalar(self.model, self.target)(x)

    def batch_size(self, batch: Batch) -> int:
        """How many sets of groups to evaluate at once."""
        return examples_at_once(batch, self.model, self.x)

    def spread(self, values: jax.Array) -> PyTree:
        """See `spread`."""
        return spread(values, self.groups, self.x)


def examples_at_once(batch: Batch, model: Model, x: PyTree) -> int:
    """How many changed copies of an example to evaluate at once."""

    def output_of_changed(change: jax.Array) -> PyTree:
        return call(model, jax.tree.map(lambda leaf: jnp.where(change, leaf, leaf), x))

    return batch.size(jax.make_jaxpr(output_of_changed)(jnp.array(True)))


_MANY = 2_048  # features, above which a method that draws sets of them takes long


def warn_of_cost(game: Game, evaluations: int, *, matrix: bool) -> None:
    """Warn of a call without groups that takes very long, before it begins.

    Args:
        game: with one group per element, or any.
        evaluations: of the model.
        matrix: whether a system of equations of all features is solved.
    """
    if game.groups is not None or game.n <= _MANY:
        return
    size = f", and solves {game.n:,} equations ({4 * game.n**2 / 1e6:,.0f} MB)" if matrix else ""
    warnings.warn(
        f"each of the {game.n:,} elements of `x` is a feature of its own, which takes {evaluations:,} "
        f"evaluations of the model{size}. Pass `groups=`, such as attribution.blocks(x.shape, ...)",
        UserWarning,
        stacklevel=3,
    )


def make_game(
    model: Model, x: PyTree, target: Target, baseline: PyTree, groups: Groups, n_groups: int | None
) -> Game:
    """Check the arguments of a method that makes features absent."""
    model, x, target = prepare(model, x, target, differentiable=False)
    return Game(model, x, target, broadcast_like("baseline", baseline, x), *check_groups(groups, n_groups, x))


def check_groups(groups: Groups, n_groups: int | None, x: PyTree) -> tuple[Groups, int]:
    """Check the groups of the elements of `x`.

    Args:
        groups: integers from 0 to n - 1, of the structure of `x`, each leaf broadcasting to its shape; None
            for one group per element.
        n_groups: n; None to infer it from concrete groups, which must then use every number.
        x: the example.

    Returns:
        `(groups, n)`.

    Raises:
        TypeError: `groups` does not hold integers.
        ValueError: another structure or shape, a number out of range or missing, or `n_groups` missing for
            traced `groups`.
    """
    if n_groups is not None:
        n_groups = _checks.check_integer("n_groups", n_groups, at_least=1)
        _checks.check_bytes("n_groups", 64 * n_groups)
    size = count_elements(x)
    if groups is None:
        if n_groups not in (None, size):
            raise ValueError(f"`n_groups` must be {size}, one per element, without `groups`; got {n_groups}")
        return None, size
    if isinstance(x, jax.Array):
        groups = _checks.check_array("groups", groups)
    _checks.check_structure("groups", groups, x)
    leaves = [
        _check_leaf("groups" + jax.tree_util.keystr(path), leaf, like.shape)
        for (path, like), leaf in zip(jax.tree.leaves_with_path(x), jax.tree.leaves(groups), strict=True)
    ]
    count = _count(leaves, n_groups)
    # int32: JAX's cache would not notice that NumPy's int64 means another type once x64 is enabled.
    return jax.tree.unflatten(jax.tree.structure(x), [leaf.astype(np.int32) for leaf in leaves]), count


def _check_leaf(name: str, leaf: PyTree, shape: tuple[int, ...]) -> jax.Array | np.ndarray:
    leaf = _checks.check_array(name, leaf)
    leaf = np.asarray(leaf) if _checks.is_concrete(leaf) else leaf  # JAX would trace it under `jax.jit`
    if not jnp.issubdtype(leaf.dtype, jnp.integer):
        raise TypeError(f"`{name}` must hold integers; got dtype {leaf.dtype}")
    try:
        fits = np.broadcast_shapes(leaf.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"`{name}` must have shape {shape}, or one that broadcasts; got {leaf.shape}")
    return leaf


def _count(leaves: list[jax.Array | np.ndarray], n_groups: int | None) -> int:
    if not _checks.is_concrete(leaves):
        if n_groups is None:
            raise ValueError("`n_groups` must be given where `groups` is traced")
        return n_groups
    used = np.unique(np.concatenate([np.ravel(leaf) for leaf in leaves]))
    count = int(used[-1]) + 1 if n_groups is None else n_groups
    if used[0] < 0 or used[-1] >= count:
        raise ValueError(f"`groups` must hold numbers from 0 to {count - 1}; got {used[0]} to {used[-1]}")
    if n_groups is None and len(used) < count:
        missing = np.flatnonzero(used != np.arange(len(used)))[0]
        raise ValueError(
            f"`groups` must hold every number from 0 to {count - 1}; {missing} is missing. Where a group may "
            "be empty, give `n_groups`"
        )
    return count


def spread(values: jax.Array, groups: Groups, x: PyTree) -> PyTree:
    """The value `(n,)` of each group at all of its elements, of the structure and dtypes of `x`.

    At integers and booleans the values keep their own dtype.
    """
    return jax.tree.map(like_floats, _elements(values, groups, x), x)


def like_floats(value: jax.Array, leaf: jax.Array) -> jax.Array:
    """Cast to the dtype of `leaf` where that is of floating-point numbers."""
    return value.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else value


def mix(x: PyTree, baseline: PyTree, groups: Groups, present: jax.Array) -> PyTree:
    """The example with the groups that are not `present`, `(n,)` booleans, at the baseline."""
    return jax.tree.map(jnp.where, _elements(present, groups, x), x, baseline)


def _elements(values: jax.Array, groups: Groups, x: PyTree) -> PyTree:
    """The value of the group of each element, of the structure and shapes of `x`."""
    leaves, structure = jax.tree.flatten(x)
    if groups is not None:
        each = [values[ids] for ids in jax.tree.leaves(groups)]
    else:  # slices: an indexing by every element takes longer than a small model
        ends = np.cumsum([0] + [leaf.size for leaf in leaves])
        each = [values[a:b].reshape(leaf.shape) for a, b, leaf in zip(ends, ends[1:], leaves, strict=False)]
    shaped = [jnp.broadcast_to(value, leaf.shape) for value, leaf in zip(each, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
