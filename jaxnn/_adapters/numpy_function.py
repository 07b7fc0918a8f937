"""Adapter for functions in NumPy: a call back to the host, one for all examples of a batch."""

import dataclasses
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
from jaxnn._repr import short_repr
from jaxnn._typing import PyTree


@flax.struct.dataclass
class NumPyModel:
    """A function of a batch in NumPy as a model of one example; made by `from_numpy`."""

    function: Callable[..., Any] = flax.struct.field(pytree_node=False)
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)
    dtype: np.dtype[Any] = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> jax.Array:
        """The function's output for one example, of `shape`."""
        dtype = jax.dtypes.canonicalize_dtype(self.dtype)
        x = as_arrays(x)
        if not jax.tree.leaves(x):
            raise TypeError(f"`x` must hold at least one array; got {x!r}")
        axes = tuple(leaf.ndim for leaf in jax.tree.leaves(x))
        return _call(_Host(self.function, self.shape, dtype, axes), x)


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
    _checks.check_bytes("shape", 4 * math.prod(sizes))
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"`dtype` must be a dtype, such as float; got {dtype!r}") from error
    if not any(jnp.issubdtype(kind, each) for each in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"`dtype` must be one of real numbers; got {kind}")
    if kind.kind == "f":
        _checks.check_float_dtype("dtype", dtype)
    return NumPyModel(function, sizes, kind)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _call(host: "_Host", x: PyTree) -> jax.Array:
    result = jax.ShapeDtypeStruct(host.shape, host.dtype)
    return jax.pure_callback(host, result, x, vmap_method="broadcast_all")


@_call.defjvp
def _refuse_gradient(host: "_Host", *_: Any) -> Any:
    raise TypeError(f"`model` {NO_GRADIENT}")


@dataclasses.dataclass(frozen=True)
class _Host:
    """The function as JAX calls it back; compared by value, since a new one would compile again.

    Attributes:
        function: of a batch.
        shape: of its output for one example.
        dtype: to which the output is cast.
        axes: the number of axes of each array of an example.
    """

    function: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[int, ...]

    def __call__(self, x: PyTree) -> np.ndarray:
        """Call the function once, for all axes that `jax.vmap` has put before those of an example."""
        leaves, structure = jax.tree.flatten(x)
        batch = leaves[0].shape[: leaves[0].ndim - self.axes[0]]
        n = math.prod(batch)
        if n == 0:  # scikit-learn refuses to predict for no rows
            return np.zeros((*batch, *self.shape), self.dtype)
        rows = [
            _as_own(leaf).reshape((n, *leaf.shape[leaf.ndim - ndim :]))
            for leaf, ndim in zip(leaves, self.axes, strict=True)
        ]
        output = as_numpy("function(x)", self.function(jax.tree.unflatten(structure, rows)), self.dtype)
        return self._check(np.asarray(output), n).reshape((*batch, *self.shape))

    def _check(self, output: np.ndarray, n: int) -> np.ndarray:
        """The output in the right dtype; raise where it has another shape, or is of another kind."""
        if output.shape != (n, *self.shape):
            raise ValueError(
                f"`function` must return an array (n, *shape), {(n, *self.shape)} for n = {n} examples; got "
                f"{output.shape}"
            )
        if not np.can_cast(output.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"`function` must return numbers that can be cast to {self.dtype}; got {output.dtype}"
            )
        return output.astype(self.dtype, copy=False)


def _as_own(leaf: Any) -> np.ndarray:
    """A copy in a dtype of NumPy itself; PyTorch warns of arrays that are read-only, as JAX's are."""
    dtype = np.dtype(leaf.dtype)
    if dtype.isbuiltin != 1:
        dtype = np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) else np.int32)
    return np.array(leaf, dtype)
