"""Attacks as values: ensembles of attacks, attacks with fixed options, and what an attack requires."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._model import as_example, as_model
from jaxnn._typing import Key, Labels, Model, PyTree
from jaxnn.attacks._common import Attack, better, in_ball
from jaxnn.attacks._geometry import Number

AttackFunction: TypeAlias = Callable[..., Attack]


@flax.struct.dataclass
class Strongest:
    """An ensemble of attacks; see `strongest`."""

    attacks: tuple[AttackFunction, ...] = flax.struct.field(pytree_node=False)

    def __call__(
        self, model: Model, x: PyTree, label: Labels, *, epsilon: Number, key: Key, **options: Any
    ) -> Attack:
        """Run all attacks, and return the best result."""
        _checks.check_key("key", key)
        results = [
            run_in_ball(attack, model, x, label, epsilon, key=jax.random.fold_in(key, i), **options)
            for i, attack in enumerate(self.attacks)
        ]
        return functools.reduce(better, results)


def strongest(*attacks: AttackFunction) -> Strongest:
    """Ensemble of attacks: succeeds where any of them does.

    It returns the nearest of the successful results; `queries` is the sum of all.

    Args:
        *attacks: functions `attack(model, x, label, *, epsilon, key, ...)`, such as `pgd`, or
            `functools.partial(pgd, norm="l2")`, at least one. Attack `i` uses `jax.random.fold_in(key, i)`.
            One without a parameter `epsilon`, such as `deepfool`, succeeds if its result lies in the ball;
            else it returns the example itself.

    Returns:
        An attack that passes other options, such as `bounds`, on to all of them. A second ensemble of the
        same attacks does not recompile.

    Raises:
        TypeError: one of them is not callable.
        ValueError: there are none.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> both = attacks.strongest(attacks.noise, attacks.fgsm)
        >>> bool(both(model, [0.6, 0.5], 0, epsilon=0.1, key=jax.random.key(0)).success)
        True
    """
    if not attacks:
        raise ValueError("`attacks` must hold at least one attack; got none")
    for i, attack in enumerate(attacks):
        check_attack(attack, f"attacks[{i}]")
    return Strongest(tuple(map(by_value, attacks)))


@flax.struct.dataclass
class _WithOptions:
    """An attack with options, equal to another with the same function and options."""

    function: AttackFunction = flax.struct.field(pytree_node=False)
    options: tuple[tuple[str, Any], ...] = flax.struct.field(pytree_node=False)

    def __call__(self, *args: Any, **options: Any) -> Attack:
        return self.function(*args, **(dict(self.options) | options))


def by_value(attack: AttackFunction) -> AttackFunction:
    """Replace a `functools.partial`, compared by identity, by a callable compared by value, if hashable."""
    if type(attack) is not functools.partial or attack.args:
        return attack
    options = tuple(sorted(attack.keywords.items()))
    try:
        hash(options)
    except TypeError:
        return attack
    return _WithOptions(attack.func, options)


def check_attack(attack: AttackFunction, name: str = "attack") -> AttackFunction:
    """Return an attack as a callable pytree that a jitted function takes, or raise."""
    return as_model(attack, name)


def takes_epsilon(attack: AttackFunction) -> bool:
    """Whether an attack takes a radius; else it minimizes the distance itself."""
    if isinstance(attack, _WithOptions):
        return takes_epsilon(attack.function)
    if isinstance(attack, Partial) and not attack.args and not attack.keywords:
        return takes_epsilon(attack.func)
    try:
        parameters = inspect.signature(attack).parameters.values()
    except ValueError as error:  # written in C
        raise TypeError(f"`attack` must be a function with named parameters; got {attack!r}") from error
    return any(p.name == "epsilon" or p.kind is p.VAR_KEYWORD for p in parameters)


def is_targeted(attack: AttackFunction) -> bool:
    """Whether an attack is known to be targeted, from its options."""
    if isinstance(attack, Strongest):
        return any(map(is_targeted, attack.attacks))
    options = attack.options if isinstance(attack, _WithOptions) else getattr(attack, "keywords", {})
    return dict(options).get("targeted") is True


def run_in_ball(
    attack: AttackFunction, model: Model, x: PyTree, label: Labels, epsilon: Number, **options: Any
) -> Attack:
    """Run an attack in a ball; a result outside of it becomes `x` without success."""
    if takes_epsilon(attack):
        return run(attack, model, x, label, epsilon=epsilon, **options)
    return in_ball(run(attack, model, x, label, **options), as_example("x", x), epsilon)


def run(attack: AttackFunction, model: Model, x: PyTree, label: Any, **options: Any) -> Attack:
    """Run an attack, or raise unless it returns an `Attack` on an input like `x`."""
    result = attack(model, x, label, **options)
    if not isinstance(result, Attack):
        raise TypeError(
            f"`attack` must return an `Attack`, as those of jaxnn do; got {type(result).__name__}"
        )
    found, expected = (
        jax.tree.map(lambda leaf: (jnp.shape(leaf), str(jnp.result_type(leaf))), tree)
        for tree in (result.input, as_example("x", x))
    )
    if found != expected or jnp.shape(result.success) != () or jnp.shape(result.distance) != ():
        raise ValueError(
            f"`attack` must return an input like `x`, {expected}, one success and one distance; got {found}, "
            f"and shapes {jnp.shape(result.success)} and {jnp.shape(result.distance)}"
        )
    return result
