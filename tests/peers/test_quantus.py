"""Metrics of explanation quality beside Quantus and Captum: equal weights, attributions and samples.

Quantus keeps the channels first, and a vector as one channel. It evaluates networks in float32, so inputs are
of that precision, and the network itself computes in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

quantus = pytest.importorskip("quantus")
pytest.importorskip("captum")
torch = pytest.importorskip("torch")

from captum import attr, metrics  # noqa: E402
from quantus.functions import perturb_func, similarity_func  # noqa: E402

import jaxnn  # noqa: E402
from jaxnn import attribution, quality  # noqa: E402
from jaxnn.quality import _faithfulness, _road, _sanity, _similarity, _stability  # noqa: E402
from tests.conftest import in_precision  # noqa: E402
from tests.peers import equal_weights as equal, torch_networks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")

COUNT = 6  # examples
KINDS = ("relus", "conv")
kinds = pytest.mark.parametrize("kind", KINDS)
REDRAWN = pytest.mark.without("debug_key_reuse", "the test draws the same samples again")
RAW = {"normalise": False, "abs": False}  # attributions as they are


@pytest.fixture(autouse=True)
def _in_float64():
    with in_precision(np.float64):
        yield


class Wide(torch.nn.Module):
    """A network in float64, of inputs of any precision."""

    def __init__(self, module, shape):
        super().__init__()
        self.module, self.shape = module.double(), shape
        self.eval()

    def forward(self, x):
        return self.module(x.double().reshape(-1, *self.shape))


@functools.cache
def both(kind):
    """A network in JAX, the same in PyTorch, examples, and their predicted classes."""
    module, shape = torch_networks.networks(kind)
    theirs = Wide(module, shape if len(shape) == 1 else (shape[-1], *shape[:-1]))
    x = np.stack([torch_networks.example(shape, seed) for seed in range(COUNT)]).astype(np.float64)
    ours = torch_networks.in_jax(module)
    outputs = jax.vmap(ours)(x)
    equal.assert_near(outputs, theirs(torch.from_numpy(first(x))).detach().numpy(), 1e-12)
    return ours, theirs, x, np.argmax(np.asarray(outputs), axis=-1)


def first(array):
    """A batch with the channels first, as a new array."""
    array = np.array(array)
    return np.moveaxis(array, -1, 1).copy() if array.ndim == 4 else array[:, None]


def flat(array):
    """A batch as Quantus flattens it."""
    return first(array).reshape(len(array), -1)


def attributions_of(x, seed=1):
    """Attributions that no method would find, of both signs."""
    return np.random.default_rng(seed).normal(size=x.shape)


def keys_of(count=COUNT):
    return jax.random.split(jax.random.key(7), count)


def scores(metric, theirs, x, targets, a=None, **options):
    """What Quantus returns."""
    found = metric(
        model=theirs, x_batch=first(x), y_batch=np.array(targets), a_batch=None if a is None else first(a),
        channel_first=True, batch_size=len(x), **{"softmax": False, **options},
    )  # fmt: skip
    return found if isinstance(found, dict) else np.asarray(found)


def each(metric, kind, a, **options):
    """A metric of attributions, for every example."""
    model, _, x, targets = both(kind)
    return jax.vmap(lambda x, target, a: metric(model, x, target, a, **options))(x, targets, a)


def each_explained(metric, kind, explain, **options):
    """A metric that explains, for every example, with a key of its own."""
    model, _, x, targets = both(kind)
    one = lambda x, target, key: metric(model, x, target, explain, key=key, **options)  # noqa: E731
    return jax.vmap(one)(x, targets, keys_of())


def gradient_x_input(model, inputs, targets, **_):
    """Quantus's function of a batch in PyTorch."""
    x = torch.from_numpy(np.array(inputs)).requires_grad_()
    output = model(x)[torch.arange(len(x)), torch.from_numpy(np.array(targets))].sum()
    return (x * torch.autograd.grad(output, x)[0]).detach().numpy()


def saliency(model, inputs, targets, **_):
    x = torch.from_numpy(np.array(inputs)).requires_grad_()
    output = model(x)[torch.arange(len(x)), torch.from_numpy(np.array(targets))].sum()
    return torch.autograd.grad(output, x)[0].numpy()


# --- removal of features


@kinds
@pytest.mark.parametrize("features", [1, 4])
def test_deletion_is_pixel_flipping(kind, features):
    model, theirs, x, targets = both(kind)
    a, steps = attributions_of(x), x[0].size // features
    lowest = x.min(axis=tuple(range(1, x.ndim)))  # what Quantus calls black
    for baseline, black in ((0.25, np.full(COUNT, 0.25)), ("black", lowest)):
        one = lambda x, t, a, b: quality.deletion(model, x, t, a, steps=steps, baseline=b)  # noqa: E731
        ours = jax.vmap(one)(x, targets, a, black).outputs
        metric = quantus.PixelFlipping(features_in_step=features, perturb_baseline=baseline, **RAW)
        # Quantus's curve begins after the first step.
        equal.assert_near(ours[:, 1:], scores(metric, theirs, x, targets, a), 1e-12)


@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_deletion_of_blocks_is_region_perturbation(order):
    model, theirs, x, targets = both("conv")
    a, groups = attributions_of(x), attribution.blocks((8, 8, 2), (2, 2, 2))
    sign = 1 if order == "morf" else -1
    one = lambda x, t, a: quality.deletion(model, x, t, sign * a, steps=16, groups=groups)  # noqa: E731
    ours = jax.vmap(one)(x, targets, a).outputs
    metric = quantus.RegionPerturbation(patch_size=2, order=order, perturb_baseline=0.0, **RAW)
    drops = scores(metric, theirs, x, targets, a)
    equal.assert_near(ours[:, :1] - ours[:, 1:], drops, 1e-12)
    if order == "morf":
        metric = quantus.Selectivity(patch_size=2, perturb_baseline=0.0, **RAW)
        equal.assert_near(ours[:, 1:], scores(metric, theirs, x, targets, a), 1e-12)


@kinds
@pytest.mark.parametrize("baseline", [0.0, 0.25])
def test_faithfulness_correlation(kind, baseline, monkeypatch):
    _, theirs, x, targets = both(kind)
    key, samples, n = jax.random.key(3), 40, x[0].size
    size = round(0.2 * n)
    draw = jax.jit(jax.vmap(lambda i: _faithfulness.random_set(jax.random.fold_in(key, i), n, size)))
    sets = flat(draw(jnp.arange(samples)).reshape(samples, *x.shape[1:]))
    places = iter([np.flatnonzero(each) for each in sets for _ in range(COUNT)])
    monkeypatch.setattr(np.random, "choice", lambda n, size, replace: next(places))
    a = attributions_of(x)
    ours = each(
        quality.faithfulness_correlation, kind, a, key=key, n_samples=samples, fraction=0.2, baseline=baseline
    )
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=samples, subset_size=size, perturb_baseline=baseline, return_aggregate=False, **RAW
    )
    equal.assert_near(ours, scores(metric, theirs, x, targets, a), 1e-10)
    assert next(places, None) is None


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_pixels_are_imputed_as_quantus_does(channels, share):
    image = np.random.default_rng(0).uniform(size=(12, 9, channels))
    removed = np.random.default_rng(1).permutation(108) < 108 * share
    ours = _road.impute(jnp.asarray(image), jnp.asarray(removed.reshape(12, 9)))
    found = perturb_func.noisy_linear_imputation(np.moveaxis(image, -1, 0), np.flatnonzero(removed), noise=0)
    equal.assert_near(ours, np.moveaxis(found, 0, -1), 1e-5)


class OneChannel(torch.nn.Module):
    """A convolutional network of two channels, of images of one: Quantus's ROAD takes no others."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(torch.cat([x, x], dim=1))


@functools.cache
def of_one_channel(count):
    """A network in JAX, the same in PyTorch, images of one channel, and their predicted classes."""
    network, module = equal.convolutional(2)
    network = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), network)
    ours = lambda x: network(jnp.concatenate([x, x], axis=-1))  # noqa: E731
    x = equal.examples(count, (12, 12, 1)).astype(np.float64)
    theirs = Wide(OneChannel(module), (1, 12, 12))
    return ours, theirs, x, np.argmax(np.asarray(jax.vmap(ours)(x)), axis=-1)


@pytest.mark.parametrize("most_relevant_first", [True, False])
def test_road(most_relevant_first):
    ours, theirs, x, labels = of_one_channel(24)
    a, percentages = attributions_of(x), [5, 20, 40, 60, 80, 95]
    options = {
        "key": jax.random.key(0), "fractions": [p / 100 for p in percentages], "noise": 0.0,
        "most_relevant_first": most_relevant_first,
    }  # fmt: skip
    found = jax.vmap(lambda x, label, a: quality.road(ours, x, label, a, **options))(x, labels, a)
    metric = quantus.ROAD(percentages=percentages, noise=0.0, **RAW)
    accuracy = scores(metric, theirs, x, labels, a if most_relevant_first else -a)
    assert list(accuracy) == percentages
    assert len(set(accuracy.values())) > 3
    equal.assert_near(found.correct.mean(0), list(accuracy.values()))


# --- stability


def replay(kind, keys, noise, size):
    """Quantus's function that changes a batch, here by the samples of each example in turn."""
    _, _, x, _ = both(kind)
    index = iter(range(1000))

    def change(arr, **_):
        i = next(index)
        one = lambda x, key: _stability.changed(jax.random.fold_in(key, i), x, noise, size)  # noqa: E731
        return flat(jax.vmap(one)(jnp.asarray(x), keys)).reshape(arr.shape)

    return change


SENSITIVITIES = {
    "max": (quality.max_sensitivity, quantus.MaxSensitivity),
    "average": (quality.average_sensitivity, quantus.AvgSensitivity),
}


@kinds
@pytest.mark.parametrize("which", SENSITIVITIES)
def test_sensitivity(kind, which):
    _, theirs, x, targets = both(kind)
    metric, their_metric = SENSITIVITIES[which]
    ours = each_explained(metric, kind, attribution.input_x_gradient, radius=0.5, n_samples=8)
    their_metric = their_metric(nr_samples=8, perturb_func=replay(kind, keys_of(), "uniform", 0.5), **RAW)
    found = scores(their_metric, theirs, x, targets, explain_func=gradient_x_input)
    equal.assert_near(ours, found, 1e-10)
    assert np.min(found) > 0.1


@kinds
def test_local_lipschitz(kind):
    _, theirs, x, targets = both(kind)
    ours = each_explained(quality.local_lipschitz, kind, attribution.input_x_gradient, noise=0.3, n_samples=8)
    metric = quantus.LocalLipschitzEstimate(
        nr_samples=8, perturb_func=replay(kind, keys_of(), "normal", 0.3),
        norm_numerator=similarity_func.distance_euclidean,
        norm_denominator=similarity_func.distance_euclidean, **RAW,
    )  # fmt: skip
    found = scores(metric, theirs, x, targets, explain_func=gradient_x_input)
    equal.assert_near(ours, found, 1e-8)  # Quantus adds 1e-10 to each distance


@kinds
@pytest.mark.parametrize(("radius", "same"), [(1e-3, True), (0.5, False)])
def test_relative_input_stability(kind, radius, same):
    """With a small radius no prediction changes; where one does, Quantus's value is NaN."""
    _, theirs, x, targets = both(kind)
    options = {"radius": radius, "n_samples": 8, "same_prediction": same}
    ours = each_explained(quality.relative_input_stability, kind, attribution.input_x_gradient, **options)
    metric = quantus.RelativeInputStability(
        nr_samples=8, perturb_func=replay(kind, keys_of(), "uniform", radius),
        return_nan_when_prediction_changes=same, **RAW,
    )  # fmt: skip
    equal.assert_near(ours, scores(metric, theirs, x, targets, explain_func=gradient_x_input), 1e-10)


def test_samples_of_another_prediction_are_left_out():
    _, theirs, x, targets = both("relus")
    options = {"radius": 3.0, "n_samples": 8}
    ours = each_explained(quality.relative_input_stability, "relus", attribution.input_x_gradient, **options)
    metric = quantus.RelativeInputStability(
        nr_samples=8, perturb_func=replay("relus", keys_of(), "uniform", 3.0), **RAW
    )
    found = scores(metric, theirs, x, targets, explain_func=gradient_x_input)
    kept = np.isfinite(found)
    assert 0 < kept.sum() < COUNT  # Quantus leaves out the example
    equal.assert_near(np.asarray(ours)[kept], found[kept], 1e-10)


# --- axioms


def test_completeness():
    """Quantus compares by `==`, so the weights and inputs are integers."""
    rng = np.random.default_rng(0)
    kernels = [rng.integers(-2, 3, shape).astype(np.float64) for shape in ((9, 6), (6, 3))]
    model = lambda x: jax.nn.relu(x @ kernels[0]) @ kernels[1]  # noqa: E731
    linears = [torch.nn.Linear(*kernel.shape, bias=False) for kernel in kernels]
    for linear, kernel in zip(linears, kernels, strict=True):
        linear.weight.data = torch.from_numpy(kernel.T.copy())
    theirs = Wide(torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1]), (9,))
    x = rng.integers(-3, 4, (8, 9)).astype(np.float64)
    targets = rng.integers(0, 3, 8)
    a = jax.vmap(functools.partial(attribution.input_x_gradient, model))(x, targets)
    a = np.array(a)
    a[::2, 1] += 1
    ours = jax.vmap(lambda x, target, a: quality.completeness(model, x, target, a))(x, targets, a)
    metric = quantus.Completeness(perturb_baseline=0.0, **RAW)
    found = scores(metric, theirs, x, targets, a)
    assert found.tolist() == [False, True] * 4
    assert (np.asarray(ours) == 0).tolist() == found.tolist()


@pytest.mark.parametrize("baseline", [0.0, 0.25])
def test_non_sensitivity(baseline):
    module, shape = torch_networks.networks("relus")
    module[0].weight.data[:, [2, 5, 7]] = 0  # features without an effect
    theirs, model = Wide(module, shape), torch_networks.in_jax(module)
    x = np.stack([torch_networks.example(shape, seed) for seed in range(COUNT)]).astype(np.float64)
    x[:, 0] = baseline  # nor has this one
    a = attributions_of(x)
    a[np.random.default_rng(2).random(x.shape) < 0.3] = 0
    options = {"threshold": 1e-5, "baseline": baseline}
    ours = jax.vmap(lambda x, a: quality.non_sensitivity(model, x, 1, a, **options))(x, a)
    metric = quantus.NonSensitivity(eps=1e-5, perturb_baseline=baseline, normalise=False)
    found = scores(metric, theirs, x, np.ones(COUNT, int), a)
    assert ours.tolist() == found.tolist()
    assert len(set(found.tolist())) > 1


def test_input_invariance():
    """Quantus shifts the bias of a first convolution without padding, in float32, and answers yes or no."""
    with in_precision(np.float32):
        model, theirs = equal.convolutional(2)
        x, targets = equal.examples(COUNT, equal.IMAGE), np.arange(COUNT) % 5
        # By itself Quantus does not shift the first element of an input.
        metric = quantus.InputInvariance(
            input_shift=-1, perturb_func=lambda arr, input_shift, **_: arr + input_shift, **RAW
        )
        for method, explain, is_invariant in (
            (attribution.saliency, saliency, True),
            (attribution.input_x_gradient, gradient_x_input, False),
        ):
            one = lambda x, t: quality.input_invariance(model, x, t, method)  # noqa: B023, E731
            ours = jax.vmap(one)(x, targets)
            found = scores(metric, theirs.eval(), x, targets, explain_func=explain)
            assert found.tolist() == [is_invariant] * COUNT
            assert ((np.asarray(ours) < 1e-4) == found).all()


# --- complexity


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (quality.sparseness, quantus.Sparseness(normalise=False)),
        (quality.complexity, quantus.Complexity(normalise=False)),
        (
            functools.partial(quality.effective_complexity, threshold=0.5),
            quantus.EffectiveComplexity(eps=0.5, normalise=False),
        ),
    ],
    ids=["sparseness", "complexity", "effective"],
)
@kinds
def test_complexity(kind, ours, theirs):
    _, network, x, targets = both(kind)
    a = attributions_of(x) ** 3  # uneven
    a[:, 1] = 0
    found = scores(theirs, network, x, targets, a)
    equal.assert_near(jax.vmap(ours)(a), found, 1e-9)  # Quantus adds 1e-12 to each share
    assert len(set(found.tolist())) > 1


# --- localization

LOCALIZATION = {
    "pointing_game": (quality.pointing_game, quantus.PointingGame),
    "relevance_mass": (quality.relevance_mass, quantus.RelevanceMassAccuracy),
    "relevance_mass, positive": (
        quality.relevance_mass,
        functools.partial(quantus.AttributionLocalisation, positive_attributions=True),
    ),
    "relevance_rank": (quality.relevance_rank, quantus.RelevanceRankAccuracy),
    "relevance_rank, of 25": (quality.relevance_rank, functools.partial(quantus.TopKIntersection, k=25)),
    "relevance_auc": (quality.relevance_auc, quantus.AUC),
}


@pytest.mark.parametrize("name", LOCALIZATION)
def test_localization(name):
    metric, their_metric = LOCALIZATION[name]
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(20, 8, 8, 1)), np.zeros((20, 8, 8, 1), bool)
    mask[:, 2:7, 1:6] = True  # 25 pixels
    # To the mass Quantus also adds attributions below 0.
    a = rng.uniform(0 if name == "relevance_mass" else -1, 1, x.shape)
    if name == "relevance_auc":
        a = a.round(1)  # with ties
    found = scores(their_metric(**RAW), None, x, np.zeros(20, int), a, s_batch=first(mask)).astype(float)
    equal.assert_near(jax.vmap(metric)(a, mask), found, 1e-8)  # Quantus adds 1e-9 to a sum
    assert len(set(found.tolist())) > 1


def test_focus_is_the_relevance_mass_of_a_mosaic():
    _, theirs, x, targets = both("conv")
    a, x = attributions_of(x)[..., :1], x[..., :1]
    quadrants = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]] * 2)
    mask = np.kron(quadrants.reshape(-1, 2, 2), np.ones((4, 4)))[..., None] > 0
    found = scores(quantus.Focus(**RAW), theirs, x, targets, a, custom_batch=quadrants)
    equal.assert_near(jax.vmap(quality.relevance_mass)(a, mask), found, 1e-8)


# --- random parameters and classes


class Redrawn(torch.nn.Linear):
    """A layer that takes the random weights of a layer in JAX in the place of PyTorch's."""

    def __init__(self, layer, drawn):
        super().__init__(*layer.kernel.shape)
        self._take(layer)
        self.drawn = drawn

    def _take(self, layer):
        self.weight.data = torch.from_numpy(np.array(layer.kernel).T.copy())
        self.bias.data = torch.from_numpy(np.array(layer.bias))

    def reset_parameters(self):
        if hasattr(self, "drawn"):
            self._take(self.drawn)


@functools.cache
def redrawn():
    """A network, its equal in PyTorch, which draws the same random parameters, and examples."""
    ours = jaxnn.init(
        jax.random.key(0), (20, 16, 12, 5), activation="relu", output_activation="identity",
        bias_init=jax.nn.initializers.normal(0.3),
    )  # fmt: skip
    ours = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), ours)
    drawn = quality.randomize_parameters(ours, _seed(0))
    a, b, c = (Redrawn(*pair) for pair in zip(ours.layers, drawn.layers, strict=True))
    module = torch.nn.Sequential(a, torch.nn.ReLU(), b, torch.nn.ReLU(), c)
    x = equal.examples(COUNT, (20,)).astype(np.float64)
    targets = np.argmax(np.asarray(jax.vmap(ours)(x)), axis=-1)
    return ours, Wide(module, (20,)), x, targets


def _seed(index):
    return jax.random.fold_in(jax.random.key(11), index)


@pytest.mark.parametrize(
    ("order", "theirs"),
    [("cascading", "top_down"), ("bottom_up", "bottom_up"), ("independent", "independent")],
)
def test_parameter_randomization(order, theirs):
    ours, network, x, targets = redrawn()
    found = quality.parameter_randomization(
        ours, x, targets, attribution.input_x_gradient, key=jax.random.key(11), order=order, n_seeds=1,
        ignore_zeros=False,
    )  # fmt: skip
    layers = scores(quantus.MPRT(layer_order=theirs), network, x, targets, explain_func=gradient_x_input)
    assert layers.pop("original") == pytest.approx([1] * COUNT)
    names = [f"module.{2 * int(name[7])}" for name in quality.parameter_layers(ours, x[0])]
    assert list(layers) == (names[::-1] if order == "cascading" else names)
    equal.assert_near(found.rank_correlation[:, 0], list(layers.values()), 1e-10)


def test_efficient_parameter_randomization():
    ours, network, x, targets = redrawn()
    one = functools.partial(quality.efficient_parameter_randomization, ours, key=_seed(0), n_bins=20)
    found = jax.vmap(lambda x, target: one(x, target, attribution.input_x_gradient))(x, targets)
    metric = quantus.EfficientMPRT(complexity_func_kwargs={"n_bins": 20}, **RAW)
    # Quantus also asks for the entropy of the outputs, which must be positive.
    theirs = scores(metric, network, x, targets, explain_func=gradient_x_input, softmax=True)
    equal.assert_near(found, theirs, 1e-10)


def ssim_of_images(a, b, batched):
    """Quantus's of images: its metrics pass vectors, of which it compares stretches of 7 elements."""
    side = int(np.sqrt(a.shape[1]))
    return [similarity_func.ssim(*each.reshape(2, side, side)) for each in np.stack([a, b], axis=1)]


@REDRAWN
def test_random_logit(monkeypatch):
    model, theirs, x, labels = of_one_channel(COUNT)
    keys = keys_of()
    others = np.asarray(jax.vmap(lambda k, t: _sanity.other_class(k, t, 5))(keys, labels))
    # Quantus also compares where attributions are 0.
    test = functools.partial(quality.random_logit, model, explain=attribution.input_x_gradient)
    ours = jax.vmap(lambda x, t, k: test(x, t, key=k, ignore_zeros=False))(x, labels, keys)
    # Quantus counts the other classes alone.
    chosen = iter((others - (others > labels)).tolist() * 2)
    monkeypatch.setattr(np.random, "randint", lambda low, high, count: np.array([next(chosen)] * count))
    for found, function in (
        (ours.rank_correlation, similarity_func.correlation_spearman),
        (ours.ssim, ssim_of_images),
    ):
        # One example at a time: Quantus divides by the largest of all attributions of a batch.
        metric = quantus.RandomLogit(similarity_func=function, num_classes=5)
        expected = [
            scores(metric, theirs, x[i : i + 1], labels[i : i + 1], explain_func=gradient_x_input)
            for i in range(COUNT)
        ]
        equal.assert_near(found, np.ravel(expected), 1e-10)


def test_similarities():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 10, 11, 9))
    b += a
    ours = jax.vmap(_similarity.structural_similarity)(a, b)
    equal.assert_near(ours, similarity_func.ssim(a, b, batched=True), 1e-10)
    vectors = a.reshape(10, -1), b.reshape(10, -1)
    ours = jax.vmap(_similarity.pearson)(*vectors)
    equal.assert_near(ours, similarity_func.correlation_pearson(*vectors, batched=True), 1e-10)
    vectors = [each.round(1) for each in vectors]  # with ties
    ours = jax.vmap(_similarity.spearman)(*vectors)
    equal.assert_near(ours, similarity_func.correlation_spearman(*vectors, batched=True), 1e-10)


# --- Captum


@kinds
@pytest.mark.parametrize("per_unit", [False, True])
@pytest.mark.parametrize("drawn", ["baseline", "noise"])
def test_infidelity_is_captums(kind, per_unit, drawn):
    model, theirs, x, targets = both(kind)
    a, keys, n, samples = attributions_of(x), keys_of(), x[0].size, 30
    # Captum divides by the way to the baseline, for attributions in units of the output.
    baseline = 0.25
    noise = lambda key, x: x + 0.3 * jax.random.normal(key, x.shape, x.dtype)  # noqa: E731
    perturb = noise if drawn == "noise" else None

    def moved(key, x):
        if perturb:
            return noise(key, x)
        return jnp.where(jax.random.bernoulli(key, 0.5, (n,)).reshape(x.shape), x, baseline)

    folded = jax.vmap(lambda k: jax.vmap(lambda i: jax.random.fold_in(k, i))(jnp.arange(samples)))(keys)
    changed = jax.vmap(lambda ks, x: jax.vmap(moved, (0, None))(ks, x))(folded, jnp.asarray(x))
    flattened = torch.from_numpy(first(changed.reshape(-1, *x.shape[1:])))

    ours = jax.vmap(
        lambda x, t, a, k: quality.infidelity(
            model, x, t, a, key=k, perturb=perturb, per_unit=per_unit, n_samples=samples, baseline=baseline
        )
    )(x, targets, a, keys)
    perturbed = metrics.infidelity_perturb_func_decorator(not per_unit)(lambda inputs, baselines: flattened)
    for value, normalize in ((ours.value, False), (ours.scaled_value, True)):
        found = metrics.infidelity(
            theirs, perturbed, torch.from_numpy(first(x)), torch.from_numpy(first(a)), baselines=baseline,
            target=torch.from_numpy(targets), n_perturb_samples=samples, normalize=normalize,
        )  # fmt: skip
        equal.assert_near(value, found.numpy(), 1e-9)


@kinds
@pytest.mark.parametrize("at_once", [COUNT * 4, None])
def test_max_sensitivity_is_captums(kind, at_once):
    _, theirs, x, targets = both(kind)
    ours = each_explained(
        quality.max_sensitivity, kind, attribution.input_x_gradient, radius=0.4, n_samples=10, batch_size=3
    )
    change = replay(kind, keys_of(), "uniform", 0.4)

    def perturb(inputs, radius):  # of each example some samples, one after the other
        steps = [change(first(x)) for _ in range(len(inputs) // COUNT)]
        return torch.from_numpy(np.stack(steps, axis=1)).reshape(inputs.shape)

    found = metrics.sensitivity_max(
        attr.InputXGradient(theirs).attribute, torch.from_numpy(first(x)), perturb, 0.4, 10,
        max_examples_per_batch=at_once, target=torch.from_numpy(targets),
    )  # fmt: skip
    equal.assert_near(ours, found.detach().numpy(), 1e-10)
