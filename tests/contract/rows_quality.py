"""Rows of the contract for the metrics of explanation quality.

What is a rank or a count has no gradient: it is multiplied by the mean of the example.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import attribution, quality

OLD_KEY = np.array([0, 3], np.uint32)  # the check of keys used twice lets it be used by every call
DRAWN = {"key": OLD_KEY, "n_samples": 6, "batch_size": 4}
TENS = np.arange(100) // 10
GROUPS = {"groups": TENS, "n_groups": 10}
MASK = np.arange(100) % 3 == 0
LABELS, PARTS = np.array([0, 1, 2]), np.array([0, 1, 0])


def _times_mean(value, x):
    return jax.tree.map(lambda leaf: leaf * jnp.mean(x), list(value) if isinstance(value, tuple) else value)


def _of_a_map(network, x):
    return network(x.reshape(100))


def _curve(metric):
    return lambda n, x: list(metric(n, x, 1, x, key=OLD_KEY, steps=4, n_random=3, **GROUPS)), (100,)


def _plus(network, x):
    """Outputs that change by much from the baseline, where half precision would lose a small change."""
    return network(x) + jnp.sum(x)


def _three(x):
    """Three examples from one."""
    return jnp.stack([x, x * x, 1 - x])


def _road(network, x):
    model = jax.tree_util.Partial(_of_a_map, network)
    return list(quality.road(model, x, 1, x, key=OLD_KEY, fractions=(0.2, 0.5)))


def _stability(metric, **options):
    return lambda n, x: metric(n, x, 1, attribution.saliency, **DRAWN, **options), (100,)


def _lifted(network, x, target):
    """Attributions away from 0, by which relative changes divide."""
    return 1 + attribution.saliency(network, x, target)


def _randomized(network, x):
    """Of images: ranks of nearly equal attributions change with any rounding."""
    options = {"key": OLD_KEY, "n_seeds": 2, "batch_size": 2}
    of = jax.tree_util.Partial(_of_a_map, network), _three(x), LABELS, attribution.saliency
    found = quality.parameter_randomization(*of, **options)
    return [found.ssim, found.yardstick_ssim]


def _random_logit(network, x):
    found = quality.random_logit(network, x, 1, attribution.saliency, key=OLD_KEY)
    return _times_mean(found.rank_correlation, x)


def _data_randomization(network, x):
    other = quality.randomize_parameters(network, OLD_KEY)
    found = quality.data_randomization(network, other, x, 1, attribution.saliency)
    return _times_mean(found.rank_correlation, x)


def _reproducibility(metric):
    def value(network, x):
        other = jax.tree.map(lambda leaf: leaf * leaf, network)
        models = jax.tree.map(lambda *leaves: jnp.stack(leaves), network, other)
        found = metric(models, _three(x), LABELS, PARTS, attribution.saliency, batch_size=2)
        return jnp.nan_to_num(found) + jnp.mean(x)

    return value, (100,)


def _region(metric):
    return lambda n, x: _times_mean(1 + metric(x * n(x)[0], MASK), x), (100,)


ROWS = {
    "deletion": _curve(quality.deletion),
    "insertion": _curve(quality.insertion),
    "symmetric_relevance_gain": _curve(quality.symmetric_relevance_gain),
    "faithfulness_correlation": (
        lambda n, x: quality.faithfulness_correlation(n, x, 1, x, **DRAWN, **GROUPS), (100,)
    ),
    "sensitivity_n": (
        lambda n, x: quality.sensitivity_n(n, x, 1, x, sizes=(3, 5), **DRAWN, **GROUPS).correlations,
        (100,),
    ),
    "mu_fidelity": (
        lambda n, x: _times_mean(quality.mu_fidelity(n, x, 1, x, grid=10, **DRAWN), x), (100,)
    ),
    "infidelity": (lambda n, x: list(quality.infidelity(n, x, 1, x, **DRAWN, **GROUPS)), (100,)),
    "road": (_road, (10, 10)),
    "completeness": (lambda n, x: quality.completeness(jax.tree_util.Partial(_plus, n), x, 1, 2 * x), (100,)),
    "non_sensitivity": (
        lambda n, x: _times_mean(quality.non_sensitivity(n, x, 1, x - 0.5, threshold=0.05, **GROUPS), x),
        (100,),
    ),
    "input_invariance": (
        lambda n, x: quality.input_invariance(n, x, 1, attribution.input_x_gradient), (100,)
    ),
    "max_sensitivity": _stability(quality.max_sensitivity, radius=0.1),
    "max_sensitivity ascent": _stability(quality.max_sensitivity, radius=0.1, ascent_steps=2),
    "average_sensitivity": _stability(quality.average_sensitivity, radius=0.1),
    "local_lipschitz": _stability(quality.local_lipschitz),
    "relative_input_stability": (
        lambda n, x: quality.relative_input_stability(n, x, 1, _lifted, radius=0.1, **DRAWN), (100,)
    ),
    "sparseness": (lambda n, x: quality.sparseness(x * n(x)[0]), (100,)),
    "complexity": (lambda n, x: quality.complexity(x * n(x)[0]), (100,)),
    "effective_complexity": (
        lambda n, x: _times_mean(quality.effective_complexity(x, threshold=0.5), n(x)), (100,)
    ),
    "normalize": (lambda n, x: quality.normalize(x * n(x)[0], absolute=True), (100,)),
    "pointing_game": _region(quality.pointing_game),
    "relevance_mass": _region(quality.relevance_mass),
    "relevance_rank": _region(quality.relevance_rank),
    "relevance_auc": _region(quality.relevance_auc),
    "randomize_parameters": (lambda n, x: quality.randomize_parameters(n, OLD_KEY)(x), (100,)),
    "parameter_randomization": (_randomized, (10, 10)),
    "efficient_parameter_randomization": (
        lambda n, x: _times_mean(
            quality.efficient_parameter_randomization(n, x, 1, attribution.saliency, key=OLD_KEY), x
        ),
        (100,),
    ),
    "random_logit": (_random_logit, (100,)),
    "data_randomization": (_data_randomization, (100,)),
    "smoothed": (
        lambda n, x: quality.smoothed(attribution.saliency, **DRAWN)(n, x, 1), (100,)
    ),
    "mege": _reproducibility(quality.mege),
    "reco": _reproducibility(quality.reco),
}  # fmt: skip

# Rows whose example reaches the function changed.
INDIRECT = {
    "parameter_randomization", "mege", "reco", "completeness", "sparseness", "complexity",
    "normalize", "pointing_game",
    "relevance_mass", "relevance_rank", "relevance_auc", "non_sensitivity", "effective_complexity",
}  # fmt: skip
