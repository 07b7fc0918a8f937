"""The common frame of all attacks: checked arguments (`Task`), the result (`Attack`), its final query."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._engine.held import floats, integers, put_back
from jaxnn._engine.loops import vary_like
from jaxnn._model import as_example, as_model, broadcast_like, output_shape, prepare as prepare_model
from jaxnn._repr import short_repr
from jaxnn._typing import Model, Norm, PyTree, Scalar
from jaxnn.attacks._criteria import Label, Margin, check_label, classified_as, misclassified
from jaxnn.attacks._geometry import NORMS, Number, confine, distance

Bounds: TypeAlias = tuple[PyTree, PyTree]


class Attack(NamedTuple):
    """The result of an attack on one example.

    Attributes:
        input: the adversarial input, of the structure, shapes and dtypes of `x`: within the bounds, and in
            the ball if there is one. After a failure, the best candidate.
        success: one bool, whether the model's output for `input`, evaluated once more at the end, meets the
            criterion.
        distance: a scalar, the distance of `input` from `x` in the norm of the attack. NaN where the output
            for `input` is NaN, which is neither a success nor robustness.
        queries: an int32, the number of evaluations of the model. A gradient counts as one, and the final
            query is included.
    """

    input: PyTree
    success: jax.Array
    distance: jax.Array
    queries: jax.Array

    def __repr__(self) -> str:
        return short_repr(self)


@flax.struct.dataclass
class Task:
    """The checked arguments of an attack: a pytree that a jitted function takes.

    Attributes:
        model: a callable pytree of one array.
        x: the example, one array; the floating-point arrays of a pytree are raveled.
        label: an int32, or a callable pytree from the output to a margin.
        low: lower bound, of the dtype of `x`, a scalar or of its shape.
        high: upper bound, likewise.
        epsilon: radius of the ball, a scalar of the dtype of `x`; infinite without a ball.
        norm: the norm of distances; static.
        targeted: whether `label` is the target class; static.
        unravel: the function from an array like `x` to the structure of the example, with `Held` in the
            places of its integer and boolean arrays; static.
        held: those arrays, which an attack leaves as they are.
    """

    model: Model
    x: jax.Array
    label: jax.Array | Margin
    low: jax.Array
    high: jax.Array
    epsilon: jax.Array
    norm: Norm = flax.struct.field(pytree_node=False)
    targeted: bool = flax.struct.field(pytree_node=False, default=False)
    unravel: Callable[[jax.Array], PyTree] = flax.struct.field(pytree_node=False, default=jnp.asarray)
    held: list[jax.Array] = flax.struct.field(default_factory=list)

    @property
    def bounds(self) -> tuple[jax.Array, jax.Array]:
        """The lower and the upper bound."""
        return self.low, self.high

    @property
    def margin(self) -> Margin:
        """The criterion: a function of the output, above 0 where the attack has succeeded."""
        if callable(self.label):
            return self.label
        return classified_as(self.label) if self.targeted else misclassified(self.label)

    def margin_at(self, candidate: jax.Array) -> jax.Array:
        """The margin of the model's output for a candidate."""
        return self.margin(self.model(candidate))

    def succeeds(self, candidate: jax.Array) -> jax.Array:
        """Whether a candidate meets the criterion; False for NaN."""
        return self.margin_at(candidate) > 0

    def confine(self, candidate: jax.Array) -> jax.Array:
        """Project a candidate onto the ball around `x` and clip it to the bounds."""
        return confine(self.x, candidate, self.norm, self.epsilon, self.bounds)


class _OfVectors(NamedTuple):
    """Calls a model of a pytree with one vector and the arrays that are held.

    `unravel` compares equal, so this can be a static part.
    """

    unravel: Callable[[jax.Array], PyTree]

    def __call__(self, model: Model, held: list[jax.Array], flat: jax.Array) -> PyTree:
        return model(put_back(self.unravel(flat), held))


def prepare(
    model: Model,
    x: PyTree,
    label: Label,
    *,
    norm: Norm,
    epsilon: Scalar | None = None,
    needs_epsilon: bool = False,
    bounds: Bounds = (0.0, 1.0),
    key: jax.Array | None = None,
    needs_key: bool = False,
    targeted: bool = False,
    norms: Collection[str] = NORMS,
    name: str = "x",
) -> Task:
    """Check the arguments that every attack has.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        x: the example.
        label: an integer, or a function from the output to a margin.
        norm: the name of the norm.
        epsilon: radius of the ball; None for no ball.
        needs_epsilon: whether `epsilon` is required.
        bounds: `(low, high)`, each a number or of the structure and shapes of `x`.
        key: a random key, or None.
        needs_key: whether `key` is required.
        targeted: whether `label` is the target class.
        norms: the norms that the attack supports.
        name: the caller's name of `x`, or of the batch that it is part of.

    Raises:
        TypeError: an argument of another type.
        ValueError: `x` is not finite or not within the bounds, `bounds` are not in order, `epsilon` is
            negative or not finite, there is no such label or norm.
    """
    _checks.check_option("norm", norm, norms)
    _checks.check_flag("targeted", targeted)
    if needs_key or key is not None:
        _checks.check_key("key", key)
    x = as_example("x", x)
    if not callable(label):
        model = as_model(model)
        criterion: Any = _check_class(model, x, label)
    elif targeted:
        raise ValueError("`targeted` must be False where `label` is a function, which is the criterion")
    else:
        model, x, criterion = prepare_model(model, x, label, "label")
    held = integers(x)
    x = floats(x, name)
    unravel: Callable[[jax.Array], PyTree] = jnp.asarray
    flat = x
    if not isinstance(x, jax.Array):
        flat, unravel = ravel_pytree(x)
        model = Partial(_OfVectors(unravel), model, held)
    if flat.size == 0:
        raise ValueError(f"`{name}` must hold at least one number; got shape {flat.shape}")
    low, high = _check_bounds(bounds, x, flat)
    check_within(name, flat, (low, high))
    radius = jnp.asarray(jnp.inf)
    if needs_epsilon or epsilon is not None:
        radius = _checks.check_number("epsilon", epsilon, at_least=0)
    radius = radius.astype(flat.dtype)
    flat = vary_like(flat, (model, criterion, low, high, radius, key))
    return Task(model, flat, criterion, low, high, radius, norm, targeted, unravel, held)


def with_held(task: Task, held: list[jax.Array]) -> Task:
    """The task of another example, with other held arrays."""
    if not held:
        return task
    current: Any = task.model
    return dataclasses.replace(task, model=Partial(current.func, current.args[0], held), held=held)


def ravel(x: PyTree) -> jax.Array:
    """A pytree as one vector; an array stays unchanged."""
    return x if isinstance(x, jax.Array) else ravel_pytree(x)[0]


@jax.ensure_compile_time_eval()
def check_within(name: str, x: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> None:
    """Raise where a concrete input is not finite, or not within the bounds."""
    _checks.check_finite(name, x)
    if _checks.known_false(jnp.all((x >= bounds[0]) & (x <= bounds[1]))):
        raise ValueError(f"`{name}` must lie within `bounds`; got values from {jnp.min(x)} to {jnp.max(x)}")


def final_result(task: Task, candidate: jax.Array, queries: Scalar) -> Attack:
    """Evaluate the model once more, and give the candidate the structure of the example.

    The gradient of the result's input with respect to `x` is 1, as if the perturbation were a constant.

    Args:
        task: the arguments, gradients included.
        candidate: the final input; it must not be changed after this.
        queries: number of evaluations so far.
    """
    candidate = lax.stop_gradient(candidate) + (task.x - lax.stop_gradient(task.x))
    margin = task.margin_at(candidate)
    size = distance(candidate - task.x, task.norm)
    size = jnp.where(jnp.isnan(margin), jnp.asarray(jnp.nan, size.dtype), size)
    example = put_back(task.unravel(candidate), task.held)
    return Attack(example, margin > 0, size, jnp.asarray(queries, jnp.int32) + 1)


def better(one: Attack, other: Attack) -> Attack:
    """The successful one of two results, or the nearer of two successful ones.

    If both fail, one whose output is NaN, so that it does not stay unnoticed; else the first.
    """
    worse = other.success & (~one.success | (other.distance < one.distance))
    worse |= ~one.success & ~other.success & jnp.isnan(other.distance)
    chosen = select(worse, other, one)
    return chosen._replace(queries=one.queries + other.queries)


def in_ball(result: Attack, x: PyTree, epsilon: Number) -> Attack:
    """A result that lies in the ball; `x` without success where it lies outside."""
    inside = result.success & (result.distance <= epsilon)
    distance = jnp.where(inside | jnp.isnan(result.distance), result.distance, 0)
    return Attack(
        select(inside, result.input, x), inside, distance.astype(result.distance.dtype), result.queries
    )


def select(condition: jax.Array, one: Any, other: Any) -> Any:
    """`jnp.where` of one condition over two pytrees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _check_class(model: Model, x: PyTree, label: Any) -> jax.Array:
    """Return an integer label for which the model has a logit."""
    label = check_label(label)
    output = output_shape(model, x)
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 1 or shape[0] < 2 or not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            "`model` must return at least two logits, of shape (n_out,), for `label` to be an integer, "
            f"else a function from the output to a margin; got {output}"
        )
    if _checks.is_concrete(label) and int(label) >= shape[0]:
        raise ValueError(f"`label` must lie from 0 to {shape[0] - 1}, for {shape[0]} logits; got {label}")
    return label


@jax.ensure_compile_time_eval()
def _check_bounds(bounds: Any, x: PyTree, flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"`bounds` must be a pair (low, high); got {bounds!r}")
    low, high = (_check_bound(f"bounds[{i}]", bound, x).astype(flat.dtype) for i, bound in enumerate(bounds))
    if _checks.known_false(jnp.all(low < high)):
        raise ValueError(f"`bounds` must be (low, high), low below high; got {bounds!r}")
    return low, high


def _check_bound(name: str, bound: Any, x: PyTree) -> jax.Array:
    """A bound as a scalar, or raveled as `x` is."""
    if not isinstance(bound, dict | list | tuple) and jnp.ndim(bound) == 0:
        return _checks.check_float_array(name, bound)
    return ravel(broadcast_like(name, bound, x))
