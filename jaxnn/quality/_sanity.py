"""Sanity checks: whether a method's attributions depend on the parameters, the class and the labels."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import _checks
from jaxnn._engine.loops import chunked_map
from jaxnn._engine.memory import Batch, check_batch_size
from jaxnn._model import as_example, as_model, output_shape, prepare
from jaxnn._precision import float_dtype
from jaxnn._typing import Key, Model, PyTree, Target
from jaxnn.attribution._accumulate import check_sampling
from jaxnn.attribution._masks import examples_at_once
from jaxnn.quality._common import Explain, at_input, check_explain, explained, flat, prepare_explain
from jaxnn.quality._randomize import (
    Initializer,
    drawn_again,
    layer_names,
    parameter_layers,
    select_layers,
)
from jaxnn.quality._similarity import Comparison, Similarity, check_comparison, similarity
from jaxnn.quality._stability import changed

Order = Literal["cascading", "bottom_up", "independent"]


class ParameterRandomization(NamedTuple):
    """How alike the attributions of a network and of one with random parameters are.

    Attributes:
        rank_correlation: `(layers, seeds, N)`, Spearman's of the absolute attributions, over the elements
            where not both are 0; NaN where one of them is constant. Entry i is after step i: from the last
            layer down, in "cascading" order.
        ssim: `(layers, seeds, N)`, the structural similarity, NaN unless the input is an image of at least 7
            by 7 pixels.
        yardstick: `(N,)`, the rank correlation of the attributions of the trained network for an example and
            the next one: what two different explanations have in common.
        yardstick_ssim: `(N,)`, likewise.
    """

    rank_correlation: jax.Array
    ssim: jax.Array
    yardstick: jax.Array
    yardstick_ssim: jax.Array


def parameter_randomization(
    model: Model,
    inputs: PyTree,
    targets: PyTree,
    explain: Explain,
    *,
    key: Key,
    order: Order = "cascading",
    n_seeds: int = 3,
    initializer: Initializer | None = None,
    absolute: bool = True,
    ignore_zeros: bool = True,
    batch_size: int | None = None,
) -> ParameterRandomization:
    """Model parameter randomization test: whether attributions change when layers lose what they learned.

    A method whose attributions for a random network resemble those for the trained one explains the input or
    the architecture, and not what was learned. "cascading" draws the parameters of the last layer again, then
    of the last two, and so on to all; "bottom_up" begins at the first; "independent" draws one layer at a
    time. All steps and seeds share one compilation.

    Compare with `yardstick`, the similarity of the attributions of two different inputs: after all layers are
    random, `rank_correlation` should not be above it. For the variant of averaged attributions (SmoothMPRT)
    pass `quality.smoothed(explain, ...)`.

    Args:
        model: a callable pytree of one example, with its parameters as leaves.
        inputs: `(N, ...)`, at least 2 examples.
        targets: `(N,)` output indices, or None for an output of one element.
        explain: a method, as in `max_sensitivity`.
        key: a random key; seed i is `jax.random.fold_in(key, i)`, as in `randomize_parameters`.
        order: "cascading", "bottom_up" or "independent".
        n_seeds: number of random networks of each step, at least 1.
        initializer: of the random parameters, as in `randomize_parameters`.
        absolute: whether to compare absolute attributions.
        ignore_zeros: whether the rank correlation leaves out the elements where both are exactly 0.
            Those at the baseline are 0 for every network, which says nothing of the method.
        batch_size: how many examples are explained at once. None: at most 16, as in
            `attribution.integrated_gradients`. The result does not depend on it.

    Returns:
        A `ParameterRandomization`; its steps are named by `parameter_layers`, reversed where "cascading".

    Raises:
        TypeError: `model` or `explain` is not callable, or an argument is of another type.
        ValueError: a model without parameters, fewer than 2 examples, another number of targets, attributions
            of another shape than the inputs, or an option out of range.

    References:
        Adebayo and others, "Sanity checks for saliency maps", 2018, arXiv:1810.03292.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn
        >>> from jaxnn import attribution, quality
        >>> network = jaxnn.init(jax.random.key(0), (20, 5, 3))
        >>> inputs = jax.random.uniform(jax.random.key(1), (4, 20))
        >>> options = {"key": jax.random.key(2), "n_seeds": 2}
        >>> found = quality.parameter_randomization(
        ...     network, inputs, jnp.array([0, 1, 2, 0]), attribution.saliency, **options
        ... )
        >>> found.rank_correlation.shape, found.yardstick.shape
        ((2, 2, 4), (4,))
    """
    _checks.check_key("key", key)
    _checks.check_option("order", order, get_args(Order))
    n_seeds = _checks.check_integer("n_seeds", n_seeds, at_least=1)
    how = check_comparison(absolute, ignore_zeros)
    if initializer is not None and not callable(initializer):
        raise TypeError(f"`initializer` must be a function of (key, shape, dtype); got {initializer!r}")
    batch = check_batch_size(batch_size, 16)
    model, inputs, targets = check_examples(model, inputs, targets, at_least=2)
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    explain = check_explain(explain, model, first, None if targets is None else targets[0])
    steps = order_of_layers(model, first, order)
    options = {"steps": steps, "n_seeds": n_seeds, "how": how, "batch": batch}
    return _parameter_randomization(explain, model, inputs, targets, key, initializer=initializer, **options)


def check_examples(
    model: Model, inputs: PyTree, targets: Any, *, at_least: int, name: str = "targets"
) -> tuple[Model, PyTree, jax.Array | None]:
    """Check a model, a batch of inputs, and one target index for each; or None for all."""
    model, inputs = as_model(model), as_example("inputs", inputs)
    count = _checks.check_count({"inputs": inputs}, at_least=at_least)
    for path, leaf in jax.tree.leaves_with_path(inputs):
        _checks.check_finite("inputs" + jax.tree_util.keystr(path), leaf)
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    if targets is None:
        prepare(model, first, None, differentiable=False)
        return model, inputs, None
    targets = _checks.check_array(name, targets)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"`{name}` must hold output indices, integers; got dtype {targets.dtype}")
    _checks.check_shape(name, targets, (count,), "the index of the explained output of each example")
    shape = output_shape(model, first)
    if getattr(shape, "ndim", None) != 1:
        raise ValueError(
            f"`model` must have an output of shape (n,), of which targets are indices; got {shape}"
        )
    _checks.check_values(name, targets, at_least=0, at_most=shape.size - 1)
    return model, inputs, targets


def order_of_layers(model: Model, x: PyTree, order: Order) -> tuple[tuple[bool, ...], ...]:
    """For each step, whether each array that is trained is drawn again, in the order of the pytree."""
    layers, names = parameter_layers(model, x), list(layer_names(model).values())
    layers = layers[::-1] if order == "cascading" else layers
    chosen = [layers[i : i + 1] if order == "independent" else layers[: i + 1] for i in range(len(layers))]
    return tuple(tuple(name in some for name in names) for some in chosen)


def explain_all(
    explain: Explain, model: Model, inputs: PyTree, targets: jax.Array | None, batch: Batch
) -> PyTree:
    """The attributions `(N, ...)` of all examples, some at a time."""
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    one = at_input(explain, model, None if targets is None else targets[0])
    size = examples_at_once(batch, one, first)

    def attributions(index: jax.Array) -> PyTree:
        x = jax.tree.map(lambda leaf: leaf[index], inputs)
        return explained(explain, model, None if targets is None else targets[index], x)

    return chunked_map(attributions, jax.tree.leaves(inputs)[0].shape[0], size)


def compare(a: PyTree, b: PyTree, how: Comparison) -> Similarity:
    """The similarity of each pair of attributions `(N, ...)`."""
    return jax.vmap(lambda one, other: similarity(one, other, how))(a, b)


@jax.jit(static_argnames=("steps", "n_seeds", "how", "initializer", "batch"))
def _parameter_randomization(
    explain: Explain,
    model: Model,
    inputs: PyTree,
    targets: jax.Array | None,
    key: Key,
    *,
    steps: tuple[tuple[bool, ...], ...],
    n_seeds: int,
    how: Comparison,
    initializer: Initializer | None,
    batch: Batch,
) -> ParameterRandomization:
    """All steps and seeds in one loop; the index 0 is the trained network itself."""
    trained = explain_all(explain, model, inputs, targets, batch)
    is_drawn = jnp.asarray(np.array(steps))

    def step(index: jax.Array) -> Similarity:
        drawn = random_network(model, key, is_drawn[index // n_seeds], index % n_seeds, initializer)
        found = explain_all(explain, drawn, inputs, targets, batch)
        return compare(trained, found, how)

    found = jax.lax.map(step, jnp.arange(len(steps) * n_seeds))
    ranks, ssim = jax.tree.map(lambda leaf: leaf.reshape(len(steps), n_seeds, -1), found)
    following = jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), trained)
    yardstick = compare(trained, following, how)
    found = ParameterRandomization(ranks, ssim, *yardstick)
    dtype = float_dtype(jax.tree.leaves(trained)[0].dtype)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), found)


def random_network(
    model: Model, key: Key, is_drawn: jax.Array, seed: jax.Array, initializer: Initializer | None
) -> Model:
    """The model with some of its arrays drawn again."""
    drawn = drawn_again(model, jax.random.fold_in(key, seed), initializer)
    chosen = {path: is_drawn[i] for i, path in enumerate(layer_names(model))}
    return select_layers(model, drawn, chosen)


def smoothed(
    explain: Explain, *, key: Key, n_samples: int = 50, noise: float = 0.1, batch_size: int | None = None
) -> Explain:
    """SmoothMPRT's attributions: the mean of a method over noisy copies of the input.

    `a(x) = 1/n sum_s explain(model, x + e_s, target)`, `e_s ~ N(0, (noise (max x - min x))^2)`.

    Args:
        explain: a method, as in `max_sensitivity`.
        key: a random key; copy s is drawn with `jax.random.fold_in(key, s)`.
        n_samples: number of copies, at least 1.
        noise: the standard deviation as a share of the range of the input, above 0.
        batch_size: how many copies are explained at once. None: at most 16, as in
            `attribution.integrated_gradients`. The result does not depend on it.

    Returns:
        A method, `(model, x, target) -> attributions`.

    Raises:
        TypeError: `explain` is not callable, or `key` is not a key.
        ValueError: a number out of range.

    References:
        Hedstrom and others, "Sanity checks revisited: an exploration to repair the model parameter
        randomisation test", 2024, arXiv:2401.06465.

    Example:
        >>> import jax
        >>> from jaxnn import attribution, quality
        >>> smooth = quality.smoothed(attribution.saliency, key=jax.random.key(0))
        >>> smooth(lambda x: 2 * x[0] - x[1], [1.0, 0.0], None).tolist()
        [2.0, -1.0]
    """
    sampling = check_sampling(key, n_samples, batch_size, 16)
    noise = _checks.check_real("noise", noise, above=0)
    explain = as_model(explain, "explain")
    return jax.tree_util.Partial(_Smoothed(noise, sampling.n_samples, sampling.batch_size), explain, key)


class _Smoothed(NamedTuple):
    """The options of `smoothed`: a function that JAX compares by them."""

    noise: float
    n_samples: int
    batch: Batch

    def __call__(self, explain: Explain, key: Key, model: Model, x: PyTree, target: Target = None) -> PyTree:
        model, x, target, explain = prepare_explain(model, x, target, explain)
        return _mean(explain, model, x, target, key, options=self)


@jax.jit(static_argnames=("options",))
def _mean(
    explain: Explain, model: Model, x: PyTree, target: Target, key: Key, *, options: _Smoothed
) -> PyTree:
    span = jnp.max(flat(x)) - jnp.min(flat(x))
    one = at_input(explain, model, target)

    def copy(index: jax.Array) -> PyTree:
        return one(changed(jax.random.fold_in(key, index), x, "normal", options.noise * span))

    values = chunked_map(copy, options.n_samples, examples_at_once(options.batch, one, x))
    return jax.tree.map(lambda leaf: leaf.mean(0), values)


def efficient_parameter_randomization(
    model: Model, x: PyTree, target: Target, explain: Explain, *, key: Key, n_bins: int = 100
) -> jax.Array:
    """Efficient parameter randomization test: the relative rise of the entropy of the attributions.

    `(H(a_random) - H(a)) / H(a)`, where `a_random` explains the network with all parameters drawn again, and
    H is the entropy of a histogram of the attributions. A method that depends on what was learned has noisier
    attributions for a random network: a value above 0.

    Args:
        model: a callable pytree of one example, with its parameters as leaves.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        target: an output index, None, or a function; see `attribution.saliency`.
        explain: a method, as in `max_sensitivity`.
        key: a random key, as in `randomize_parameters`.
        n_bins: number of bins of equal width, from the smallest attribution to the largest, at least 2.

    Returns:
        A scalar; NaN where all attributions of the trained network lie in one bin.

    Raises:
        TypeError: as `max_sensitivity` raises.
        ValueError: as `max_sensitivity` raises, or a model without parameters.

    References:
        Hedstrom and others, "Sanity checks revisited: an exploration to repair the model parameter
        randomisation test", 2024, arXiv:2401.06465.

    Example:
        >>> import jax, jaxnn
        >>> from jaxnn import attribution, quality
        >>> network = jaxnn.init(jax.random.key(0), (50, 3))
        >>> x = jax.numpy.ones(50)
        >>> float(quality.efficient_parameter_randomization(
        ...     network, x, 1, attribution.saliency, key=jax.random.key(1))) > -1
        True
    """
    _checks.check_key("key", key)
    n_bins = _checks.check_integer("n_bins", n_bins, at_least=2)
    model, x, target, explain = prepare_explain(model, x, target, explain)
    layer_names(model)  # raises where there are none
    return _entropy_rise(explain, model, x, target, key, n_bins=n_bins)


@jax.jit(static_argnames=("n_bins",))
def _entropy_rise(
    explain: Explain, model: Model, x: PyTree, target: Target, key: Key, *, n_bins: int
) -> jax.Array:
    drawn = drawn_again(model, key, None)
    found = [explained(explain, each, target, x) for each in (model, drawn)]
    return entropy_rise(*found, n_bins=n_bins).astype(float_dtype(jax.tree.leaves(found[0])[0].dtype))


def entropy_rise(trained: PyTree, drawn: PyTree, *, n_bins: int) -> jax.Array:
    """The relative rise of the entropy of the histogram."""
    before, after = (_histogram_entropy(flat(each), n_bins) for each in (trained, drawn))
    return jnp.where(before > 0, (after - before) / jnp.where(before > 0, before, 1), jnp.nan)


def _histogram_entropy(values: jax.Array, n_bins: int) -> jax.Array:
    shares = jnp.histogram(values, bins=n_bins)[0] / values.size
    entropy = -jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)))
    return jnp.where(jnp.all(jnp.isfinite(values)), entropy, jnp.nan)


def random_logit(
    model: Model,
    x: PyTree,
    label: Target,
    explain: Explain,
    *,
    key: Key,
    absolute: bool = False,
    ignore_zeros: bool = True,
) -> Similarity:
    """Random logit test: how alike the attributions of the label and of a random other class are.

    A method whose attributions hardly depend on the class, near 1, cannot explain the decision for it.

    Args:
        model: a callable of one example, with an output `(n,)` of at least 2 elements.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        label: the index of the explained output.
        explain: a method, as in `max_sensitivity`.
        key: a random key, which draws the other class.
        absolute: whether to compare absolute attributions.
        ignore_zeros: whether the rank correlation leaves out the elements where both are exactly 0.
            Those at the baseline are 0 for every network, which says nothing of the method.

    Returns:
        A `Similarity`, `(rank_correlation, ssim)`.

    Raises:
        TypeError: as `max_sensitivity` raises, or `label` is no index.
        ValueError: as `max_sensitivity` raises, or the output is not of shape `(n,)`.

    References:
        Sixt, Granz and Landgraf, "When explanations lie: why many modified BP attributions fail", 2020,
        arXiv:1912.09818.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxnn import attribution, quality
        >>> model = lambda x: jnp.stack([x @ jnp.array([1.0, 2.0, 3.0]), x @ jnp.array([3.0, 1.0, 2.0])])
        >>> explain, key = attribution.saliency, jax.random.key(0)
        >>> found = quality.random_logit(model, [1.0, 1.0, 1.0], 0, explain, key=key)
        >>> round(float(found.rank_correlation), 4)
        -0.5
    """
    _checks.check_key("key", key)
    how = check_comparison(absolute, ignore_zeros)
    shape = output_shape(as_model(model), as_example("x", x))
    if getattr(shape, "ndim", None) != 1 or shape.size < 2:
        raise ValueError(
            f"`model` must have an output of shape (n,), n at least 2, one per class; got {shape}"
        )
    model, x, index, explain = prepare_explain(model, x, label, explain, "label")
    if not isinstance(index, tuple):
        raise TypeError(f"`label` must be the index of an output; got {label!r}")
    return _random_logit(explain, model, x, index[0], key, classes=shape.size, how=how)


@jax.jit(static_argnames=("classes", "how"))
def _random_logit(
    explain: Explain, model: Model, x: PyTree, label: jax.Array, key: Key, *, classes: int, how: Comparison
) -> Similarity:
    other = other_class(key, label % classes, classes)
    one, another = (explained(explain, model, target, x) for target in (label, other))
    found = similarity(one, another, how)
    return jax.tree.map(lambda leaf: leaf.astype(float_dtype(jax.tree.leaves(one)[0].dtype)), found)


def other_class(key: Key, label: jax.Array, classes: int) -> jax.Array:
    """A random class, and not the label."""
    return (label + jax.random.randint(key, (), 1, classes)) % classes


def data_randomization(
    model: Model,
    random_model: Model,
    x: PyTree,
    target: Target,
    explain: Explain,
    *,
    absolute: bool = False,
    ignore_zeros: bool = True,
) -> Similarity:
    """Data randomization test: how alike the attributions are for a network trained on shuffled labels.

    Such a network has learned its examples by heart, and nothing of the classes. A method whose attributions
    are alike for both explains the input.

    Args:
        model: a callable of one example.
        random_model: one of the same input and output, trained in the same way with the labels in random
            order.
        x: the example, an array or a pytree of arrays of floating-point numbers.
        target: an output index, None, or a function; see `attribution.saliency`.
        explain: a method, as in `max_sensitivity`.
        absolute: whether to compare absolute attributions.
        ignore_zeros: whether the rank correlation leaves out the elements where both are exactly 0.
            Those at the baseline are 0 for every network, which says nothing of the method.

    Returns:
        A `Similarity`, `(rank_correlation, ssim)`.

    Raises:
        TypeError: as `max_sensitivity` raises.
        ValueError: as `max_sensitivity` raises.

    References:
        Adebayo and others, "Sanity checks for saliency maps", 2018, arXiv:1810.03292, section 4.

    Example:
        >>> from jaxnn import attribution, quality
        >>> one, other = lambda x: x[0] + 2 * x[1], lambda x: 2 * x[0] + x[1]
        >>> options = one, other, [1.0, 1.0], None, attribution.saliency
        >>> round(float(quality.data_randomization(*options).rank_correlation), 4)
        -1.0
    """
    how = check_comparison(absolute, ignore_zeros)
    random_model = as_model(random_model, "random_model")
    _, _, other_target = prepare(random_model, x, target, differentiable=False)
    model, x, target, explain = prepare_explain(model, x, target, explain)
    check_explain(explain, random_model, x, other_target)
    return _data_randomization(explain, model, random_model, x, (target, other_target), how=how)


@jax.jit(static_argnames=("how",))
def _data_randomization(
    explain: Explain,
    model: Model,
    other: Model,
    x: PyTree,
    targets: tuple[Target, Target],
    *,
    how: Comparison,
) -> Similarity:
    one, another = (
        explained(explain, each, target, x) for each, target in zip((model, other), targets, strict=True)
    )
    found = similarity(one, another, how)
    return jax.tree.map(lambda leaf: leaf.astype(float_dtype(jax.tree.leaves(one)[0].dtype)), found)
