"""Robust accuracy: the fraction of examples that withstand an attack, over a range of radii."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh
from jax.tree_util import Partial

from jaxnn import _checks
from jaxnn._engine.held import floats
from jaxnn._map import map_examples
from jaxnn._model import as_example, as_model, output_shape, prepare as prepare_model
from jaxnn._progress import progress_bar
from jaxnn._typing import Key, Labels, Model, PyTree
from jaxnn.attacks._criteria import misclassified
from jaxnn.attacks._ensemble import AttackFunction, by_value, check_attack, is_targeted, run_in_ball
from jaxnn.attacks._geometry import Number


def robust_accuracy(
    model: Model,
    inputs: PyTree,
    labels: Labels,
    attack: AttackFunction,
    epsilons: npt.ArrayLike,
    *,
    batch_size: int,
    key: Key,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> np.ndarray | jax.Array:
    """Robust accuracy: the fraction of examples that are classified correctly and withstand the attack.

    `accuracy(epsilon) = 1/N #{i: argmax model(x_i) = y_i, and no attack succeeded within epsilon}`. An
    example that was attacked successfully at a smaller radius counts as not robust at a larger one, since the
    adversarial input lies in that ball too; the curve never rises. Radii are attacked in ascending order, and
    outside of `jax.jit` examples that are not robust are not attacked again.

    Args:
        model: a callable of one example with logits `(n_out,)` as output.
        inputs: `(N, ...)`, an array or a pytree of arrays, one example per row, within the attack's bounds.
        labels: `(N,)`, integers in `[0, n_out)`.
        attack: `attack(model, x, label, *, epsilon, key)`, such as `pgd`, `functools.partial(pgd, norm="l2",
            bounds=(-1.0, 1.0))` or `strongest(...)`; one without a parameter `epsilon`, such as `deepfool`,
            succeeds if its result lies in the ball. It must be untargeted.
        epsilons: `(E,)` or one number, the radii in the attack's norm, at least 0, in any order and not
            traced; 0 gives the accuracy without an attack.
        batch_size: number of examples per batch.
        key: a JAX random key. Example `i` uses `fold_in(key, i)`, the same at each radius.
        mesh: devices to spread each batch over, as in `map_examples`.
        progress: whether to show a progress bar (with rich).

    Returns:
        `(E,)`, or a number for one radius: fractions in [0, 1], in the order of `epsilons`.

    Raises:
        TypeError: an argument of another type.
        ValueError: lengths differ; inputs are not finite, or not within the attack's bounds; a radius is
            negative; there is no such label; the attack is targeted; the model returns NaN for an example or
            an attacked one, which is neither robust nor not; or as the attack raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attacks
        >>> model = lambda x: jnp.stack([x[0], x[1]])
        >>> inputs, labels = [[0.9, 0.1], [0.6, 0.5], [0.2, 0.3]], [0, 0, 0]  # the last is misclassified
        >>> accuracy = attacks.robust_accuracy(
        ...     model, inputs, labels, attacks.pgd, [0.0, 0.1, 0.5], batch_size=3, key=jax.random.key(0))
        >>> [round(float(fraction), 2) for fraction in accuracy]
        [0.67, 0.33, 0.0]
    """
    _checks.check_key("key", key)
    _checks.check_flag("progress", progress)
    attack = check_attack(by_value(attack))
    if is_targeted(attack):
        raise ValueError("`attack` must be untargeted: robust accuracy asks whether the correct class stays")
    model = as_model(model)
    radii = _check_radii(epsilons)
    inputs, classes = _check_data(model, inputs, labels)
    concrete = _checks.is_concrete((model, inputs, classes, key, jnp.zeros(())))
    many = functools.partial(map_examples, batch_size=batch_size, mesh=mesh)

    robust, is_nan = many(Partial(_is_correct, model), inputs, classes)
    if concrete and is_nan.any():
        raise ValueError(f"`model` must not return NaN; it does for {is_nan.sum()} of `inputs`")
    accuracy = {0.0: robust.mean()}
    largest = _largest(inputs) if concrete else 0.0
    numbers = np.arange(len(classes))
    with progress_bar("radii", len(radii), enabled=progress) as advance:
        for radius in sorted(set(radii)):
            rows = np.flatnonzero(robust) if concrete else numbers
            if radius > 0 and len(rows):
                data = (inputs, classes, numbers)
                if concrete:
                    data = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], data)
                success, sizes = many(Partial(_attack_one, model, attack, jnp.asarray(radius), key), *data)
                if concrete:
                    _check_distances(sizes, radius, largest)
                    robust[rows] = ~success
                else:
                    robust = robust & ~success
            accuracy[radius] = robust.mean()
            advance("")
    stacked = (np if concrete else jnp).stack([accuracy[radius] for radius in radii])
    return stacked.reshape(np.shape(epsilons))


def _is_correct(model: Model, x: PyTree, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    margin = misclassified(label)(model(x))
    return margin <= 0, jnp.isnan(margin)


def _attack_one(
    model: Model,
    attack: AttackFunction,
    radius: Number,
    key: Key,
    x: PyTree,
    label: jax.Array,
    row: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    result = run_in_ball(attack, model, x, label, radius, key=jax.random.fold_in(key, row))
    return result.success, result.distance


def _check_radii(epsilons: npt.ArrayLike) -> list[float]:
    if not _checks.is_concrete(epsilons):
        raise TypeError("`epsilons` must be numbers, not traced")
    try:
        radii = np.asarray(epsilons, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`epsilons` must be numbers; got {epsilons!r}") from error
    if radii.ndim > 1 or radii.size == 0:
        raise ValueError(f"`epsilons` must have shape (E,), at least one radius; got {radii.shape}")
    _checks.check_values("epsilons", radii, at_least=0, below=np.inf)
    return [float(radius) for radius in radii.ravel()]


def _check_data(model: Model, inputs: PyTree, labels: Labels) -> tuple[PyTree, Any]:
    (inputs, rows), _ = _checks.check_rows(inputs=inputs, labels=labels)
    if rows.ndim != 1 or not jnp.issubdtype(rows.dtype, jnp.integer):
        raise ValueError(f"`labels` must be integers of shape (N,); got {rows.dtype} of shape {rows.shape}")
    for leaf in jax.tree.leaves(inputs):
        _checks.check_finite("inputs", leaf)
    one = as_example("inputs", jax.tree.map(lambda leaf: leaf[0], inputs))
    floats(one, "inputs")
    prepare_model(model, one, 0, "label")
    n_out = output_shape(model, one).shape[0]
    _checks.check_values("labels", rows, at_least=0, below=n_out)
    return inputs, rows


def _largest(inputs: PyTree) -> float:
    """The largest absolute value of all floating-point inputs."""
    leaves = [leaf for leaf in jax.tree.leaves(inputs) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return max((float(np.max(np.abs(leaf), initial=0)) for leaf in leaves), default=0.0)


def _check_distances(distances: np.ndarray, radius: float, largest: float) -> None:
    """Raise if the model returned NaN, or if the attack left the ball by more than rounding."""
    if np.isnan(distances).any():
        raise ValueError(
            f"`model` must not return NaN; it does for {np.isnan(distances).sum()} attacked inputs"
        )
    slack = 0.02 if distances.dtype.itemsize < 4 else 1e-4
    rounding = 8 * float(jnp.finfo(distances.dtype).eps) * largest
    if (distances > radius * (1 + slack) + rounding).any():
        raise ValueError(
            f"`attack` must stay within epsilon = {radius}; it reached {distances.max()}. Do `inputs` lie "
            "within its bounds? functools.partial(attack, bounds=(low, high)) sets others"
        )
