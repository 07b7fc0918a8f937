"""Adapter for functions in NumPy: a call back to the host, one for all examples of a batch."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn import _checks
from jaxnn._adapters import common
from jaxnn._arrays import as_numpy
from jaxnn._engine.primitives import NO_GRADIENT
from jaxnn._model import as_arrays
from jaxnn._typing import PyTree


@flax.struct.dataclass
class NumPyModel:
    """A function of a batch in NumPy as a model of one example; made by `from_numpy`."""

    function: Callable[..., Any] = flax.struct.field(pytree_node=False)
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)
    dtype: np.dtype[Any] = flax.struct.field(pytree_node=False)

    def __call__(self, x: PyTree) -> jax.Array:
        """The function's output for one example, of `shape`."""
        dtype = jax.dtypes.canonicalize_dtype(self.dtype)
        x = as_arrays(x)
        if not jax.tree.leaves(x):
            raise TypeError(f"`x` must hold at least one array; got {x!r}")
        return _call(self.function, self.shape, dtype, x)


def from_numpy(
    function: Callable[..., Any], shape: int | Sequence[int], *, dtype: DTypeLike = float
) -> NumPyModel:
    """NumPy adapter: make a model of one example from a function of a batch, such as `predict_proba`.

    `model(x) = function(x[None])[0]`, and `jax.vmap(model)(X) = function(X)` in one call. JAX cannot see
    inside of the function: it runs on the host, by `jax.pure_callback`, at each evaluation of the model, with
    the state that it has then. So it may belong to scikit-learn, to PyTorch or to any other library.

    The model has no gradient. The methods that only evaluate a model take it: `feature_ablation`,
    `occlusion`, the Shapley values, `kernel_shap`, `lime`, `rise`, `permutation_importance`, learned rules,
    and the attacks `square` and `hop_skip_jump`.

    Args:
        function: from NumPy arrays `(n, ...)`, of the structure and dtypes of the examples, to one array
            `(n, *shape)`. It must be a pure function of them, and be hashable; bfloat16 arrives as float32.
            It is a static argument, compared by equality: a method of the same object is the same function.
        shape: of the output for one example: a tuple, or the number of outputs; `()` for a single number.
        dtype: of the output, to which that of the function is cast; integers for classes. By default
            floating-point numbers in JAX's default precision.

    Returns:
        A callable pytree without leaves, with output `shape`. Called, it raises where the function's output
        has another shape, or a dtype that cannot be cast.

    Raises:
        TypeError: `function` is not callable or not hashable, `shape` does not hold integers, or `dtype` is
            no dtype of numbers.
        ValueError: `shape` holds a number below 1.

    Example:
        >>> import jaxnn, numpy as np
        >>> def probabilities(X):  # (n, 3) -> (n, 2)
        ...     p = 1 / (1 + np.exp(-X.sum(axis=1)))
        ...     return np.stack([1 - p, p], axis=1)
        >>> model = jaxnn.from_numpy(probabilities, 2)
        >>> attributions = jaxnn.attribution.feature_ablation(model, np.array([1.0, 0.0, -2.0]), 1)
        >>> [round(float(a), 2) for a in attributions]
        [0.15, 0.0, -0.46]
    """
    if not callable(function):
        raise TypeError(f"`function` must be callable, of a batch; got {common.describe(function)}")
    common.check_hashable("function", function)
    if not isinstance(shape, Sequence):
        shape = (_checks.check_integer("shape", shape, at_least=1),)
    sizes = _checks.check_sizes("shape", shape)
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"`dtype` must be a dtype, such as float; got {dtype!r}") from error
    if not any(jnp.issubdtype(kind, each) for each in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"`dtype` must be one of real numbers; got {kind}")
    return NumPyModel(function, sizes, kind)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _call(function: Callable[..., Any], shape: tuple[int, ...], dtype: np.dtype[Any], x: PyTree) -> jax.Array:
    axes = tuple(leaf.ndim for leaf in jax.tree.leaves(x))
    host = functools.partial(_on_host, function, shape, dtype, axes)
    return jax.pure_callback(host, jax.ShapeDtypeStruct(shape, dtype), x, vmap_method="broadcast_all")


@_call.defjvp
def _refuse_gradient(function: Callable[..., Any], *_: Any) -> Any:
    raise TypeError(f"`model` {NO_GRADIENT}")


def _on_host(
    function: Callable[..., Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    axes: tuple[int, ...],
    x: PyTree,
) -> np.ndarray:
    """Call the function once, for all axes that `jax.vmap` has put before those of an example."""
    leaves, structure = jax.tree.flatten(x)
    batch = leaves[0].shape[: leaves[0].ndim - axes[0]]
    n = math.prod(batch)
    if n == 0:  # scikit-learn refuses to predict for no rows
        return np.zeros((*batch, *shape), dtype)
    rows = [
        _as_own(leaf).reshape((n, *leaf.shape[leaf.ndim - ndim :]))
        for leaf, ndim in zip(leaves, axes, strict=True)
    ]
    output = as_numpy("function(x)", function(jax.tree.unflatten(structure, rows)))
    output = np.asarray(output)
    if output.shape != (n, *shape):
        raise ValueError(
            f"`function` must return an array (n, *shape), {(n, *shape)} for n = {n} examples; got "
            f"{output.shape}"
        )
    if not np.can_cast(output.dtype, dtype, "same_kind"):
        raise TypeError(
            f"`function` must return numbers that can be cast to `dtype`, {dtype}; got {output.dtype}"
        )
    return output.astype(dtype, copy=False).reshape((*batch, *shape))


def _as_own(leaf: Any) -> np.ndarray:
    """A copy in a dtype of NumPy itself; PyTorch warns of arrays that are read-only, as JAX's are."""
    dtype = np.dtype(leaf.dtype)
    if dtype.isbuiltin != 1:
        dtype = np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) else np.int32)
    return np.array(leaf, dtype)
