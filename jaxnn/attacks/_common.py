"""What all attacks share: their arguments, checked; what they give; and the last query that judges it."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.loops import vary_like
from jaxnn._model import as_example, as_model, prepare as prepare_model
from jaxnn.attacks._criteria import Label, check_label
from jaxnn.attacks._geometry import NORMS, distance

Model = Callable[..., Any]
Bounds = tuple[Any, Any]


class Attack(NamedTuple):
    """What an attack gives, of one example.

    Attributes:
        input: of the structure, shapes and dtypes of `x`: the input that was found, within the bounds, and in
            the ball where there is one. Where the attack failed it is the best that was found.
        success: one bool, whether the model's answer to `input`, asked once more in the end, is what the
            attack wanted.
        distance: a scalar, how far `input` is from `x` in the norm of the attack. NaN where the model answers
            `input` with NaN: such an answer is no success, and it is no robustness either.
        queries: an int32, how often the model was evaluated, a gradient counting as one evaluation and the
            last query included.
    """

    input: Any
    success: jax.Array
    distance: jax.Array
    queries: jax.Array


class Task(NamedTuple):
    """What an attack is asked, checked: a pytree that a jitted function takes.

    Attributes:
        model: a callable pytree of one array.
        x: the example, one array; a pytree that was given is raveled.
        label: an int32, or a callable pytree from the output to a margin.
        low: lower bound, of the dtype of `x`, a scalar or of its shape.
        high: upper bound, likewise.
        epsilon: radius of the ball, a scalar of the dtype of `x`; infinite where there is none.
    """

    model: Any
    x: jax.Array
    label: Any
    low: jax.Array
    high: jax.Array
    epsilon: jax.Array

    @property
    def bounds(self) -> tuple[jax.Array, jax.Array]:
        """The lower and the upper bound."""
        return self.low, self.high


def prepare(
    model: Any,
    x: Any,
    label: Label,
    *,
    norm: str,
    epsilon: Any = None,
    needs_epsilon: bool = False,
    bounds: Bounds = (0.0, 1.0),
    key: Any = None,
    needs_key: bool = False,
    targeted: bool = False,
    norms: Collection[str] = NORMS,
    name: str = "x",
) -> tuple[Task, Callable[[Attack], Attack]]:
    """Check the arguments that every attack has.

    Args:
        model: a callable of one example with logits `(n_out,)` for an answer.
        x: the example.
        label: an integer, or a function from the output to a margin.
        norm: the name of the norm.
        epsilon: the radius of the ball; None for no ball.
        needs_epsilon: whether None is not enough.
        bounds: `(low, high)`, each a number or of the structure and shapes of `x`.
        key: a random key, or None.
        needs_key: whether None is not enough.
        targeted: whether `label` is the wanted one.
        norms: which of them the attack knows.
        name: what the caller knows `x` as, or what it is a part of.

    Returns:
        The task, and what gives an `Attack`'s input back the structure of `x`.

    Raises:
        TypeError: of another type than these.
        ValueError: `x` is not finite or not within the bounds, `bounds` are not in order, `epsilon` is
            negative or not finite, there is no such label or norm.
    """
    _checks.check_option("norm", norm, norms)
    if not isinstance(targeted, bool):
        raise TypeError(f"`targeted` must be True or False; got {targeted!r}")
    if needs_key or key is not None:
        _checks.check_key("key", key)
    x = as_example("x", x)
    if not callable(label):
        model = as_model(model)
        label = _one_label(model, x, label)
    elif targeted:
        raise ValueError(
            "`targeted` must be False where `label` is a function: it says itself what is wanted"
        )
    else:
        model, x, label = prepare_model(model, x, label, "label")
    flat, shapes = raveled(x)
    if flat.size == 0:
        raise ValueError(f"`{name}` must hold at least one number; got shape {flat.shape}")
    if shapes is not None:
        model = jax.tree_util.Partial(shapes, model)
    low, high = _check_bounds(bounds, x, flat)
    check_within(name, flat, (low, high))
    if needs_epsilon and epsilon is None:
        raise TypeError("`epsilon` must be a number, how far the input may be moved; got None")
    radius = _check_epsilon(epsilon, flat.dtype)
    flat = vary_like(flat, (model, label, low, high, radius, key))

    def restored(found: Attack) -> Attack:
        return found if shapes is None else found._replace(input=shapes.restored(found.input))

    return Task(model, flat, label, low, high, radius), restored


def judge(
    model: Any, x: jax.Array, candidate: jax.Array, margin: Callable[..., Any], norm: str, queries: Any
) -> Attack:
    """The result, by one last query.

    Args:
        model: a callable of one example.
        x: the example.
        candidate: the final input; nothing must be done to it after this.
        margin: what `margin_of` gave.
        norm: the norm of the distance.
        queries: how many evaluations came before.
    """
    gain = margin(model(candidate))
    apart = distance(candidate - x, norm)
    return Attack(
        candidate,
        gain > 0,  # false for NaN
        jnp.where(jnp.isnan(gain), jnp.asarray(jnp.nan, apart.dtype), apart),
        jnp.asarray(queries, jnp.int32) + 1,
    )


def better(one: Attack, other: Attack) -> Attack:
    """Of two results the successful one, and of two successful ones the nearer.

    Where both fail, one to which the model answers NaN, so that it does not go unseen; else the first.
    """
    worse = other.success & (~one.success | (other.distance < one.distance))
    worse |= ~one.success & ~other.success & jnp.isnan(other.distance)
    chosen = jax.tree.map(lambda a, b: jnp.where(worse, b, a), one, other)
    return chosen._replace(queries=one.queries + other.queries)


def in_ball(found: Attack, x: Any, epsilon: Any) -> Attack:
    """A result that lies in the ball; `x` without success where it lies outside."""
    inside = found.success & (found.distance <= epsilon)
    kept = jax.tree.map(lambda a, b: jnp.where(inside, a, b), found.input, x)
    distance = jnp.where(inside | jnp.isnan(found.distance), found.distance, 0)
    return Attack(kept, inside, distance.astype(found.distance.dtype), found.queries)


@jax.jit
def _answer(model: Any, x: Any) -> Any:
    return model(x)


def _one_label(model: Any, x: Any, label: Any) -> jax.Array:
    """An integer label, of which the model has a logit."""
    label = check_label(label)
    output = jax.eval_shape(_answer, model, x)
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 1 or shape[0] < 2 or not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            "`model` must answer with at least two logits, of shape (n_out,), for `label` to be an integer, "
            f"else a function from the output to a margin; got {output}"
        )
    if _checks.known_false(label < shape[0]):
        raise ValueError(f"`label` must lie from 0 to {shape[0] - 1}, for {shape[0]} logits; got {label}")
    return label


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """How to make a pytree of one vector; called with a model and a vector, it asks the model."""

    structure: Any
    leaves: tuple[tuple[tuple[int, ...], Any], ...]

    def restored(self, flat: jax.Array) -> Any:
        ends = np.cumsum([int(np.prod(shape)) for shape, _ in self.leaves])
        parts = jnp.split(flat, ends[:-1])
        leaves = [
            part.reshape(shape).astype(dtype) for part, (shape, dtype) in zip(parts, self.leaves, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)

    def __call__(self, model: Any, flat: jax.Array) -> Any:
        return model(self.restored(flat))


def raveled(x: Any) -> tuple[jax.Array, _Shapes | None]:
    """One array of a pytree, and the way back; an array stays as it is."""
    if isinstance(x, jax.Array):
        return x, None
    leaves, structure = jax.tree.flatten(x)
    shapes = _Shapes(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    dtype = jnp.result_type(*leaves)
    return jnp.concatenate([leaf.astype(dtype).ravel() for leaf in leaves]), shapes


def _check_bounds(bounds: Any, x: Any, flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"`bounds` must be a pair (low, high); got {bounds!r}")
    low, high = (_like(f"bounds[{i}]", bound, x, flat) for i, bound in enumerate(bounds))
    if _checks.known_false(jnp.all(low < high)):
        raise ValueError(f"`bounds` must be (low, high), low below high; got {bounds!r}")
    return low, high


def check_within(name: str, flat: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> None:
    """Raise where a concrete input is not finite, or not within the bounds."""
    _checks.check_finite(name, flat)
    if _checks.known_false(jnp.all((flat >= bounds[0]) & (flat <= bounds[1]))):
        raise ValueError(
            f"`{name}` must lie within `bounds`; its values go from {jnp.min(flat)} to {jnp.max(flat)}"
        )


def _like(name: str, bound: Any, x: Any, flat: jax.Array) -> jax.Array:
    """A bound as a scalar, or raveled as `x` is."""
    if not isinstance(bound, dict | list | tuple) and jnp.ndim(bound) == 0:
        return _checks.check_float_array(name, bound).astype(flat.dtype)
    given = as_example(name, bound)
    expected, structure = str(jax.tree.structure(x)), str(jax.tree.structure(given))
    if structure != expected:
        raise ValueError(
            f"`{name}` must be a number or have the structure of `x`, {expected}; got {structure}"
        )
    for leaf, other in zip(jax.tree.leaves(given), jax.tree.leaves(x), strict=True):
        _checks.check_shape(name, leaf, other.shape, "that of `x`")
    return raveled(given)[0].astype(flat.dtype)


def _check_epsilon(epsilon: Any, dtype: Any) -> jax.Array:
    if epsilon is None:
        return jnp.asarray(jnp.inf, dtype)
    radius = _checks.check_float_array("epsilon", epsilon)
    _checks.check_shape("epsilon", radius, (), "one radius; jax.vmap over many")
    if _checks.known_false((radius >= 0) & jnp.isfinite(radius)):
        raise ValueError(f"`epsilon` must be at least 0, and finite; got {epsilon!r}")
    return radius.astype(dtype)


def check_attack(attack: Any) -> Any:
    """An attack as something that a jitted function takes, or an error."""
    return as_model(attack, "attack")
