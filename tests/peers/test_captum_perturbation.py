"""Perturbation methods beside Captum, on equal weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

captum = pytest.importorskip("captum")
torch = pytest.importorskip("torch")

import captum.attr as theirs  # noqa: E402

from jaxnn import attribution  # noqa: E402
from tests.peers import equal_weights as equal  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")

TARGETS = np.array([0, 3, 1, 2])
MODELS = {
    "dense": (lambda: equal.dense(0), equal.SIZES[:1]),
    "convolutional": (lambda: equal.convolutional(2), equal.IMAGE),
}
models = pytest.mark.parametrize(("build", "shape"), MODELS.values(), ids=MODELS.keys())


def both(build, shape):
    ours, torch_model = build()
    x = equal.examples(len(TARGETS), shape)
    return ours, torch_model, jnp.asarray(x), equal.to_torch(x), torch.from_numpy(TARGETS)


def each(method, model, *arrays, **options):
    """The method on every example."""
    return jax.vmap(functools.partial(method, **options), (None, *(0,) * len(arrays)))(model, *arrays)


def groups_of(shape):
    """Blocks of neighbours, all channels of a pixel together."""
    if len(shape) == 1:
        return np.arange(shape[0]) // 3
    blocks = np.arange(shape[0])[:, None, None] // 4 * 3 + np.arange(shape[1])[None, :, None] // 4
    return np.broadcast_to(blocks, shape)


def mask_for_torch(groups):
    return equal.to_torch(groups[None])


@models
def test_feature_ablation(build, shape):
    model, torch_model, x, torch_x, targets = both(build, shape)
    method = theirs.FeatureAblation(torch_model)
    for baseline in (0.0, 0.3):
        ours = each(attribution.feature_ablation, model, x, TARGETS, baseline=baseline)
        found = method.attribute(torch_x, target=targets, baselines=baseline, perturbations_per_eval=16)
        equal.assert_near(ours, equal.from_torch(found))
    groups = groups_of(shape)
    ours = each(attribution.feature_ablation, model, x, TARGETS, groups=groups)
    found = method.attribute(torch_x, target=targets, feature_mask=mask_for_torch(groups))
    equal.assert_near(ours, equal.from_torch(found))


@pytest.mark.parametrize(
    ("build", "shape", "window", "stride"),
    [
        (*MODELS["dense"], (3,), (2,)),
        (*MODELS["dense"], (1,), (1,)),
        (*MODELS["convolutional"], (3, 3, 2), (1, 1, 2)),
        (*MODELS["convolutional"], (5, 4, 1), (3, 4, 1)),
    ],
)
def test_occlusion(build, shape, window, stride):
    model, torch_model, x, torch_x, targets = both(build, shape)
    ours = each(attribution.occlusion, model, x, TARGETS, window=window, stride=stride)
    first = lambda sizes: (sizes[-1], *sizes[:-1]) if len(sizes) == 3 else sizes  # noqa: E731
    found = theirs.Occlusion(torch_model).attribute(
        torch_x, first(window), strides=first(stride), target=targets, perturbations_per_eval=16
    )
    equal.assert_near(ours, equal.from_torch(found))


@models
def test_shapley_values(build, shape):
    model, torch_model, x, torch_x, targets = both(build, shape)
    groups = groups_of(shape) // 2  # 4 or 5 features: Captum goes through all orders
    ours = each(attribution.shapley_values, model, x, TARGETS, groups=groups, baseline=0.2)
    found = theirs.ShapleyValues(torch_model).attribute(
        torch_x, target=targets, baselines=0.2, feature_mask=mask_for_torch(groups),
        perturbations_per_eval=32,
    )  # fmt: skip
    equal.assert_near(ours, equal.from_torch(found))


def test_permutation_importance():
    network, torch_model = equal.dense(1)
    x, goals = equal.examples(30, equal.SIZES[:1]), equal.examples(30, equal.SIZES[-1:], seed=1)
    key, groups = jax.random.key(4), np.arange(20) // 4
    ours = attribution.permutation_importance(network, x, goals, key=key, groups=groups, n_samples=1)

    def half_squared_error(batch):  # less what it is before, so it is the rise that Captum's sign turns
        error = torch_model(batch) - torch.from_numpy(goals)
        return 0.5 * (error * error).sum(dim=1).mean()

    def shuffle(batch, mask):
        group = int(groups[mask.flatten().numpy()][0])
        order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), group), 30)
        return torch.where(mask, batch[torch.from_numpy(np.array(order))], batch)

    found = theirs.FeaturePermutation(half_squared_error, perm_func=shuffle).attribute(
        torch.from_numpy(x), feature_mask=torch.from_numpy(groups)[None]
    )
    equal.assert_near(ours, -found[0].numpy(), 2e-5)


def test_lime_with_captums_own_draws_is_its_fit():
    """Captum's ridge, on many samples, is within the standard error of ours on others."""
    network, torch_model = equal.dense(2)
    x, groups = equal.examples(1, equal.SIZES[:1])[0], np.arange(20) // 4
    ours = attribution.lime(
        network, x, 1, key=jax.random.key(0), n_samples=4000, groups=groups, ridge=1e-3, with_error=True
    )
    torch.manual_seed(0)
    distance = lambda original, perturbed, interpretable, **_: torch.exp(  # noqa: E731
        -((1 - interpretable.float().mean().sqrt()) ** 2) / (2 * 0.25**2)
    )
    from captum._utils.models.linear_model import SkLearnLinearRegression

    found = theirs.LimeBase(
        torch_model, SkLearnLinearRegression(), similarity_func=distance,
        perturb_func=lambda original, **_: (torch.rand(1, 5) < 0.5).float(), perturb_interpretable_space=True,
        from_interp_rep_transform=lambda sample, original, **_: original * sample[:, list(groups)],
        to_interp_rep_transform=None,
    ).attribute(torch.from_numpy(x)[None], target=1, n_samples=4000)  # fmt: skip
    apart = (np.asarray(ours.value)[::4] - found[0].numpy()) / np.asarray(ours.standard_error)[::4]
    assert np.abs(apart).max() < 4 * np.sqrt(2)
    assert np.asarray(ours.standard_error).max() < 0.05 * np.abs(ours.value).max()
