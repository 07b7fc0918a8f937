import functools
import random
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution, quality

KEY = np.array([0, 5], np.uint32)
NETWORK = jaxnn.init(jax.random.key(0), (64, 12, 4), activation="relu", output_activation="identity")
MODEL = jaxnn.dreaming.flattened(NETWORK)
X = np.random.default_rng(0).uniform(0, 1, (5, 8, 8)).astype(np.float32)
Y = np.array([0, 1, 2, 3, 0])
MASKS = X > 0.6


def refuses(model, x, target):
    raise ValueError("`model` must be another one")


METHODS = {
    "saliency": attribution.saliency,
    "deep_lift": attribution.deep_lift,
    "refuses": refuses,
    "random": jax.tree_util.Partial(lambda key, model, x, target: jax.random.normal(key, x.shape), KEY),
}


@functools.cache
def found():
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state()[1].copy(), random.getstate()
    report = quality.report(MODEL, X, Y, METHODS, key=KEY, masks=MASKS, n_samples=3, n_seeds=2)
    # The random state of the process is left alone.
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]
    return report


def test_every_value_is_that_of_its_own_function():
    keys = jax.random.split(jnp.asarray(KEY), 5)
    options = {"n_samples": 3}
    explain = attribution.deep_lift
    a = jax.vmap(lambda x, y: explain(MODEL, x, y))(X, Y)
    values = found().methods["deep_lift"].values
    metrics = {
        "deletion": lambda x, y, a, k: quality.deletion(MODEL, x, y, a, key=k).area,
        "insertion": lambda x, y, a, k: quality.insertion(MODEL, x, y, a).area,
        "symmetric_relevance_gain": lambda x, y, a, k: quality.symmetric_relevance_gain(MODEL, x, y, a).area,
        "faithfulness_correlation": lambda x, y, a, k: quality.faithfulness_correlation(
            MODEL, x, y, a, key=k
        ),
        "sensitivity_n": lambda x, y, a, k: quality.sensitivity_n(MODEL, x, y, a, key=k).correlations.mean(),
        "mu_fidelity": lambda x, y, a, k: quality.mu_fidelity(MODEL, x, y, a, key=k, grid=8),
        "road": lambda x, y, a, k: quality.road(
            MODEL, x, y, a, key=k, fractions=[i / 10 for i in range(1, 10)]
        ).correct.mean(),
        "completeness": lambda x, y, a, k: quality.completeness(MODEL, x, y, a),
        "non_sensitivity": lambda x, y, a, k: quality.non_sensitivity(MODEL, x, y, a),
        "input_invariance": lambda x, y, a, k: quality.input_invariance(MODEL, x, y, explain),
        "max_sensitivity": lambda x, y, a, k: quality.max_sensitivity(MODEL, x, y, explain, key=k, **options),
        "average_sensitivity": lambda x, y, a, k: quality.average_sensitivity(
            MODEL, x, y, explain, key=k, **options
        ),
        "local_lipschitz": lambda x, y, a, k: quality.local_lipschitz(MODEL, x, y, explain, key=k, **options),
        "relative_input_stability": lambda x, y, a, k: quality.relative_input_stability(
            MODEL, x, y, explain, key=k, **options
        ),
        "random_logit": lambda x, y, a, k: quality.random_logit(MODEL, x, y, explain, key=k).rank_correlation,
        "sparseness": lambda x, y, a, k: quality.sparseness(a),
        "complexity": lambda x, y, a, k: quality.complexity(a),
        "effective_complexity": lambda x, y, a, k: quality.effective_complexity(a),
    }
    for name, metric in metrics.items():
        expected = jax.jit(jax.vmap(metric))(X, Y, a, keys)
        np.testing.assert_allclose(values[name], expected, rtol=2e-4, atol=2e-5, err_msg=name)
    share = jax.vmap(lambda x, y, a, k: quality.infidelity(MODEL, x, y, a, key=k))(X, Y, a, keys)
    np.testing.assert_allclose(values["infidelity"], share.scaled_value / share.null_value, rtol=1e-4)
    for name in ("pointing_game", "relevance_mass", "relevance_rank", "relevance_auc"):
        np.testing.assert_allclose(values[name], jax.vmap(getattr(quality, name))(a, MASKS), rtol=1e-5)
    randomized = quality.parameter_randomization(MODEL, X, Y, explain, key=KEY, n_seeds=2)
    mine = found().methods["deep_lift"].randomization
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine, randomized)
    last = randomized.rank_correlation[-1].mean(0)
    np.testing.assert_allclose(values["parameter_randomization"], last, atol=1e-5)
    rises = [
        jax.vmap(
            lambda x, y, seed=seed: quality.efficient_parameter_randomization(
                MODEL, x, y, explain, key=jax.random.fold_in(KEY, seed)
            )
        )(X, Y)
        for seed in range(2)
    ]
    np.testing.assert_allclose(
        values["efficient_parameter_randomization"], np.mean(rises, 0), rtol=1e-3, atol=1e-4
    )
    assert set(values) == set(metrics) | {
        "infidelity", "pointing_game", "relevance_mass", "relevance_rank", "relevance_auc",
        "parameter_randomization", "efficient_parameter_randomization",
    }  # fmt: skip


def test_verdicts():
    verdicts = {name: part.verdicts for name, part in found().methods.items()}
    assert verdicts["deep_lift"]["sums up"].passed is True
    assert verdicts["saliency"]["sums up"].passed is False
    assert verdicts["random"]["depends on the weights"].passed is False  # the same for every network
    assert verdicts["random"]["depends on the class"].passed is False
    assert verdicts["deep_lift"]["survives deletion"].passed is True
    assert verdicts["random"]["survives deletion"].passed is False
    assert verdicts["refuses"] == {}


def test_a_method_that_refuses_the_model_says_why_and_the_others_go_on():
    assert found().methods["refuses"].refused == "`model` must be another one"
    assert list(found().methods) == list(METHODS)
    assert found().steps == ("layers[1]", "layers[0]")
    with pytest.raises(ValueError, match="`methods` must hold one that takes the model; `model` must be an"):
        quality.report(MODEL, X, Y, {"refuses": refuses}, key=KEY)


def test_text_and_page():
    text = str(found())
    assert "NO: off by" in text
    assert "refuses refused: `model` must be another one" in text
    assert all(metric in text for metric in ("deletion (lower)", "sparseness"))
    page = found().html()
    assert page.count("<table>") == 2
    assert "class=bad" in page
    assert "http" not in page.replace('"data:image/png', "")
    assert "<script" not in page
    assert re.search("nan ±|inf ±", page) is None
    assert "methods" in repr(found())


def test_the_page_is_written_at_once(tmp_path):
    found().save_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == found().html()


def test_drawing():
    figure = found().draw()
    assert [ax.get_title() for ax in figure.axes] == [
        "Can it be trusted? 5 examples",
        "Deletion: the lower, the better",
        "Do the attributions depend on the weights?",
    ]
    plt.close(figure)


def test_a_model_of_one_output_without_parameters():
    report = quality.report(lambda x: jnp.sum(x**2), X, None, {"saliency": attribution.saliency}, key=KEY)
    verdicts = report.methods["saliency"].verdicts
    assert verdicts["depends on the weights"].passed is None
    assert verdicts["depends on the class"].passed is None
    assert not {"road", "random_logit", "parameter_randomization"} & set(report.metrics)
    assert report.steps == ()
    plt.close(report.draw())
    assert "no parameters" in str(report)


@pytest.mark.long
def test_the_chunks_do_not_matter():
    options = {"key": KEY, "n_samples": 2, "n_seeds": 1}
    methods = {"saliency": attribution.saliency}
    one, other = (quality.report(MODEL, X, Y, methods, batch_size=size, **options) for size in (1, 64))
    for metric, values in one.methods["saliency"].values.items():
        np.testing.assert_allclose(values, other.methods["saliency"].values[metric], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"methods": {}}, "`methods` must hold at least one"),
        ({"methods": [attribution.saliency]}, "`methods` must be a mapping"),
        ({"methods": {"a": 3}}, r"`methods\['a'\]` must be callable"),
        ({"inputs": X[:1], "targets": Y[:1]}, "`inputs`"),
        ({"targets": Y[:3]}, "`targets` must have shape"),
        ({"targets": Y + 1}, "`targets` must lie"),
        ({"targets": Y * 1.0}, "`targets` must hold output indices"),
        ({"inputs": (X > 0).astype(int)}, "`inputs` must hold floating-point"),
        ({"masks": X > 2}, "`masks` must have at least one element"),
        ({"masks": X}, "`masks` must hold booleans"),
        ({"n_samples": 0}, "`n_samples`"),
        ({"key": 0}, "`key`"),
        ({"inputs": np.where(X > 0.9, np.nan, X)}, "`inputs` must be finite"),
    ],
)
def test_bad_arguments(arguments, words):
    known = {"model": MODEL, "inputs": X, "targets": Y, "methods": METHODS, "key": KEY}
    with pytest.raises((TypeError, ValueError), match=words):
        quality.report(**known | arguments)
