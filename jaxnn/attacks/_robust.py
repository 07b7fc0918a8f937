"""How many examples withstand an attack; the strongest of several attacks."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._map import map_examples
from jaxnn._model import as_model, prepare as prepare_model
from jaxnn._progress import progress_bar
from jaxnn.attacks._common import Attack, Model, better, check_attack, in_ball
from jaxnn.attacks._criteria import misclassified


@flax.struct.dataclass
class Strongest:
    """Several attacks as one; see `strongest`."""

    attacks: tuple[Any, ...] = flax.struct.field(pytree_node=False)

    def __call__(
        self, model: Model, x: Any, label: Any, *, epsilon: Any, key: jax.Array, **options: Any
    ) -> Attack:
        """Run them all, and keep the best."""
        _checks.check_key("key", key)
        results = [
            _run(attack, model, x, label, epsilon, key=jax.random.fold_in(key, i), **options)
            for i, attack in enumerate(self.attacks)
        ]
        return functools.reduce(better, results)


def _run(attack: Any, model: Any, x: Any, label: Any, epsilon: Any, **options: Any) -> Attack:
    """An attack in a ball. One that looks for the nearest success gives `x` where that lies outside."""
    if takes_epsilon(attack):
        return attack(model, x, label, epsilon=epsilon, **options)
    return in_ball(attack(model, x, label, **options), x, epsilon)


def takes_epsilon(attack: Any) -> bool:
    """Whether an attack asks for a radius, or looks for the nearest success by itself."""
    if isinstance(attack, _Fixed):
        return takes_epsilon(attack.function)
    if isinstance(attack, Partial) and not attack.args and not attack.keywords:
        return takes_epsilon(attack.func)
    parameters = inspect.signature(attack).parameters.values()
    return any(p.name == "epsilon" or p.kind is p.VAR_KEYWORD for p in parameters)


def strongest(*attacks: Callable[..., Attack]) -> Strongest:
    """Several attacks as one, which succeeds where any of them does.

    Of the successful results the nearest to the example is given, `queries` being the sum of all.

    Args:
        *attacks: functions `attack(model, x, label, *, epsilon, key, ...)`, such as `pgd`, or
            `functools.partial(pgd, norm="l2")`, at least one. Attack `i` gets `jax.random.fold_in(key, i)`.
            One without `epsilon` among its parameters, such as `deepfool`, has succeeded where what it
            found lies in the ball; else it gives the example itself.

    Returns:
        An attack; it hands what other options it gets, such as `bounds`, on to all of them. Made anew of
        the same attacks it is the same to the compiler.

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
    for attack in attacks:
        check_attack(attack)
    return Strongest(tuple(_by_value(attack) for attack in attacks))


@flax.struct.dataclass
class _Fixed:
    """An attack with options, equal to another of the same function and options."""

    function: Any = flax.struct.field(pytree_node=False)
    options: tuple[tuple[str, Any], ...] = flax.struct.field(pytree_node=False)

    def __call__(self, *args: Any, **options: Any) -> Attack:
        return self.function(*args, **(dict(self.options) | options))


def _by_value(attack: Any) -> Any:
    """A `functools.partial` is recognized by identity; one of plain options becomes equal to its like."""
    if type(attack) is not functools.partial or attack.args:
        return attack
    options = tuple(sorted(attack.keywords.items()))
    try:
        hash(options)
    except TypeError:
        return attack
    return _Fixed(attack.func, options)


def robust_accuracy(
    model: Model,
    inputs: Any,
    labels: Any,
    attack: Callable[..., Attack],
    epsilons: Any,
    *,
    batch_size: int,
    key: jax.Array,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> np.ndarray | jax.Array:
    """The share of examples that are answered rightly and that the attack does not change the answer of.

    `accuracy(epsilon) = 1/N #{i: argmax model(x_i) = y_i, and no attack succeeded within epsilon}`. An
    example that the attack has broken at a smaller radius of those asked for counts as broken at a larger
    one, since what was found lies in that ball too: so the curve never rises. The smallest radius is tried
    first, and outside of `jax.jit` what is already broken is not attacked again.

    Args:
        model: a callable of one example, with logits `(n_out,)` for an answer.
        inputs: `(N, ...)`, an array or a pytree of arrays, an example a row, within the attack's bounds.
        labels: `(N,)`, integers in `[0, n_out)`.
        attack: `attack(model, x, label, *, epsilon, key)`, such as `pgd`, `functools.partial(pgd, norm="l2",
            bounds=(-1.0, 1.0))` or `strongest(...)`; one without `epsilon` among its parameters, such as
            `deepfool`, has succeeded where what it found lies in the ball. It must be untargeted.
        epsilons: `(E,)` or one number, the radii in the attack's norm, at least 0, in any order and not
            traced; 0 gives the accuracy without an attack.
        batch_size: how many examples are attacked at once.
        key: a JAX random key. Example `i` gets `fold_in(key, i)`, the same at each radius.
        mesh: devices to spread each batch over, as in `map_examples`.
        progress: draw a bar (with rich).

    Returns:
        `(E,)`, or a number for one radius: shares in [0, 1], in the order of `epsilons`.

    Raises:
        TypeError: an argument of another type.
        ValueError: lengths that differ; inputs that are not finite, or not within the attack's bounds; a
            radius that is negative; a label that there is not; an attack that is targeted; a model that
            answers NaN to an example or to an attacked one, which is neither robust nor broken; or as the
            attack raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> inputs, labels = [[0.9, 0.1], [0.6, 0.5], [0.2, 0.3]], [0, 0, 0]  # the last is mistaken
        >>> shares = attacks.robust_accuracy(
        ...     model, inputs, labels, attacks.pgd, [0.0, 0.1, 0.5], batch_size=3, key=jax.random.key(0))
        >>> [round(float(share), 2) for share in shares]
        [0.67, 0.33, 0.0]
    """
    _checks.check_key("key", key)
    attack = check_attack(_by_value(attack))
    if _is_targeted(attack):
        raise ValueError("`attack` must be untargeted: what is asked is whether the right answer stays")
    model = as_model(model)
    radii = _check_radii(epsilons)
    inputs, labels = _check_data(model, inputs, labels)
    known = _checks.is_concrete((model, inputs, labels, key, jnp.zeros(())))
    many = functools.partial(map_examples, batch_size=batch_size, mesh=mesh)

    right, is_nan = many(Partial(_right, model), inputs, labels)
    if known and is_nan.any():
        raise ValueError(f"`model` must not answer NaN; it does for {is_nan.sum()} of `inputs`")
    alive, shares = right, {0.0: right.mean()}
    numbers = np.arange(len(labels))
    with progress_bar("radii", len(radii), enabled=progress) as advance:
        for radius in sorted(set(radii)):
            rows = np.flatnonzero(alive) if known else numbers
            if radius > 0 and len(rows):
                data = (inputs, labels, numbers)
                if known:
                    data = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], data)
                found = many(Partial(_attacked, model, attack, np.float32(radius), key), *data)
                if known:
                    _check_found(found, radius)
                    alive[rows] = ~found[0]
                else:
                    alive = alive & ~found[0]
            shares[radius] = alive.mean()
            advance("")
    stacked = (np if known else jnp).stack([shares[radius] for radius in radii])
    return stacked.reshape(np.shape(epsilons))


def under_attack(model: Model, attack: Callable[..., Attack], *, key: jax.Array | None = None) -> Partial:
    """A model as it answers attacked examples, to train it so that they no longer succeed.

    `answer(x, y) = model(attack(model, x, y))`. What the attack adds counts as a constant, so that the
    gradient is that of the loss at the attacked example; and since the attack looks at the model that it is
    given, each step of training is attacked anew:

    `attacked, _ = jaxnn.train(under_attack(net, attack), (inputs, labels), labels, loss=..., ...)`.

    Args:
        model: a callable pytree of one example.
        attack: `attack(model, x, label, *, key)` with all else in it, such as
            `functools.partial(pgd, epsilon=0.1, steps=7)`.
        key: a JAX random key, for an attack that asks for one. Each call folds in the bits of the model's
            answer, so that a random start is another one for each example, and after each step of training.

    Returns:
        A callable pytree of a pair `(x, label)`, whose only arrays to train are the model's, in `args[0]`.

    Raises:
        TypeError: `model` or `attack` is not callable, or `key` is none.

    References:
        Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
        attacks", 2017, arXiv:1706.06083.

    Example:
        >>> import functools, jax, jaxnn
        >>> from jaxnn import attacks
        >>> net = jaxnn.init(jax.random.key(0), (2, 3), output_activation="identity")
        >>> attacked = attacks.under_attack(net, functools.partial(attacks.fgsm, epsilon=0.1))
        >>> attacked((jax.numpy.array([0.5, 0.5]), 1)).shape, attacked.args[0] is net
        ((3,), True)
    """
    attack = check_attack(_by_value(attack))
    if key is None:
        return Partial(_answer, as_model(model), attack)
    _checks.check_key("key", key)
    return Partial(_answer, as_model(model), attack, key)


def _answer(model: Any, attack: Any, *rest: Any) -> Any:
    *keys, (x, label) = rest
    fixed = jax.lax.stop_gradient(model)
    options = {}
    if keys:
        total = jnp.sum(fixed(x)).astype(jnp.float32)
        options["key"] = jax.random.fold_in(keys[0], jax.lax.bitcast_convert_type(total, jnp.int32))
    return model(attack(fixed, x, label, **options).input)


def _is_targeted(attack: Any) -> bool:
    """Whether an attack has been told to look for a certain answer, as far as that can be seen."""
    if isinstance(attack, Strongest):
        return any(map(_is_targeted, attack.attacks))
    options = attack.options if isinstance(attack, _Fixed) else getattr(attack, "keywords", {})
    return dict(options).get("targeted") is True


def _right(model: Any, x: Any, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    margin = misclassified(label)(model(x))
    return margin <= 0, jnp.isnan(margin)


def _attacked(
    model: Any, attack: Any, radius: Any, key: jax.Array, x: Any, label: jax.Array, number: jax.Array
) -> tuple[jax.Array, jax.Array]:
    found = _run(attack, model, x, label, radius, key=jax.random.fold_in(key, number))
    return found.success, found.distance


def _check_radii(epsilons: Any) -> list[float]:
    if not _checks.is_concrete(epsilons):
        raise TypeError("`epsilons` must be numbers, not traced")
    try:
        radii = np.asarray(epsilons, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`epsilons` must be numbers; got {epsilons!r}") from error
    if radii.ndim > 1 or radii.size == 0:
        raise ValueError(f"`epsilons` must have shape (E,), at least one radius; got {radii.shape}")
    if not (np.isfinite(radii) & (radii >= 0)).all():
        raise ValueError(f"`epsilons` must be at least 0, and finite; got {radii.tolist()}")
    return [float(radius) for radius in radii.ravel()]


def _check_data(model: Any, inputs: Any, labels: Any) -> tuple[Any, Any]:
    labels = labels if isinstance(labels, np.ndarray) else _checks.check_array("labels", labels)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"`labels` must be integers of shape (N,); got {labels.dtype} of shape {labels.shape}"
        )
    if isinstance(inputs, list):
        inputs = _checks.check_float_array("inputs", inputs)
    for leaf in jax.tree.leaves(inputs):
        _checks.check_finite("inputs", leaf)
        if np.ndim(leaf) == 0 or len(leaf) != len(labels):
            raise ValueError(
                f"`inputs` must have {len(labels)} rows, as `labels` has; got shape {np.shape(leaf)}"
            )
    one = jax.tree.map(lambda leaf: leaf[0], inputs)
    prepare_model(model, one, 0, "label")
    n_out = jax.eval_shape(lambda model, x: model(x), model, one).shape[0]
    if _checks.known_false(jnp.all((jnp.asarray(labels) >= 0) & (jnp.asarray(labels) < n_out))):
        raise ValueError(f"`labels` must lie from 0 to {n_out - 1}, for {n_out} logits")
    return inputs, labels


def _check_found(found: Any, radius: float) -> None:
    """Raise where an attack gave what is no answer to how robust a model is."""
    _, distances = found
    if np.isnan(distances).any():
        raise ValueError(
            f"`model` must not answer NaN; it does for {np.isnan(distances).sum()} attacked inputs"
        )
    slack = 0.02 if distances.dtype.itemsize < 4 else 1e-4
    if (distances > radius * (1 + slack) + 1e-6).any():
        raise ValueError(
            f"`attack` must stay within epsilon = {radius}; it went as far as {distances.max()}. Do `inputs` "
            "lie within its bounds? functools.partial(attack, bounds=(low, high)) gives it others"
        )
