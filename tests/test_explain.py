"""`explain`: each part is what its function returns, sums are checked, and refusals are shown."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attribution

ROW = jax.random.normal(jax.random.key(1), (4,), jnp.float32)


def network(n_in=4, seed=0):
    return jaxnn.init(jax.random.key(seed), (n_in, 8, 3))


class Sentence(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(12, 6)(tokens)
        return nn.Dense(3)(jnp.tanh(nn.Dense(5)(x)).mean(0))


TOKENS = jnp.array([3, 1, 4, 1, 5])


def sentence():
    return jaxnn.from_linen(Sentence(), Sentence().init(jax.random.key(0), TOKENS))


def test_parts_of_a_row_are_what_the_functions_return():
    model, baseline = network(), 0.5
    found = jaxnn.explain(model, ROW, 2, baseline=baseline, names=list("abcd"))
    assert (found.kind, found.target, found.names) == ("table", 2, tuple("abcd"))
    for name, part in found.parts.items():
        expected = getattr(attribution, name)(model, ROW, 2, baseline=baseline)
        np.testing.assert_allclose(part.attributions, expected, rtol=1e-5, atol=1e-7)
        assert part.call == f"attribution.{name}(model, x, 2, baseline=...)"
    change = model(ROW)[2] - model(jnp.full(4, baseline))[2]
    np.testing.assert_allclose(found.output - found.baseline_output, change, rtol=1e-5)
    gaps = {name: part.gap for name, part in found.parts.items()}
    assert gaps.pop("feature_ablation") is None
    np.testing.assert_allclose(list(gaps.values()), 0, atol=1e-5)


def test_the_gap_is_that_of_completeness_gap():
    kinked = lambda x: jnp.where(x.sum() > 1, 5.0, 0.0) * x[0] + x.sum()  # noqa: E731
    x = jnp.array([1.0, 2.0, -1.0])
    found = jaxnn.explain(kinked, x)
    for name in ("integrated_gradients", "deep_lift", "shapley_values"):
        part = found.parts[name]
        if part.attributions is None:
            continue
        expected = attribution.completeness_gap(kinked, x, None, part.attributions)
        np.testing.assert_allclose(part.gap, expected, atol=1e-5)
    assert abs(found.parts["integrated_gradients"].gap) > 0.1


def test_many_features_are_asked_by_kernel_shap():
    found = jaxnn.explain(network(12), jnp.ones(12), key=jax.random.key(3))
    expected = attribution.kernel_shap(network(12), jnp.ones(12), found.target, key=jax.random.key(3))
    np.testing.assert_allclose(found.parts["kernel_shap"].attributions, expected, rtol=1e-5)
    assert "shapley_values" not in found.parts


def test_the_target_is_the_largest_output():
    assert jaxnn.explain(network(), ROW).target == int(network()(ROW).argmax())
    assert jaxnn.explain(lambda x: x.sum(), ROW).target is None


def test_tokens_are_explained_at_their_embedding():
    model = sentence()
    found = jaxnn.explain(model, TOKENS, 1, names=["a", "b", "c", "d", "e"])
    rest, value = jaxnn.split_at(model, TOKENS, "Embed_0")
    mean = jnp.broadcast_to(value.mean(0), value.shape)
    np.testing.assert_allclose(found.x, value)
    np.testing.assert_allclose(found.baseline, mean, rtol=1e-6)
    expected = attribution.deep_lift(rest, value, 1, baseline=mean).sum(1)
    np.testing.assert_allclose(found.values("deep_lift"), expected, rtol=1e-5, atol=1e-7)
    for i, effect in enumerate(found.values("feature_ablation")):
        drop = rest(value)[1] - rest(value.at[i].set(mean[i]))[1]
        np.testing.assert_allclose(effect, drop, rtol=1e-4, atol=1e-6)
    padded = jaxnn.explain(model, TOKENS, 1, baseline=jnp.zeros_like(TOKENS))
    padding = model.params["Embed_0"]["embedding"][jnp.zeros(5, int)]
    np.testing.assert_allclose(padded.baseline, padding, rtol=1e-6)
    later = jaxnn.explain(model, TOKENS, 1, layer="Dense_1")
    assert later.x.shape == (5, 5)


@pytest.mark.parametrize(
    ("shape", "kind", "unit"),
    [
        ((6, 6), "image", (6, 6)),
        ((6, 7, 3), "image", (6, 7)),
        ((3, 6, 7), "image", (6, 7)),
        ((9, 4), "series", (9, 4)),
    ],
)
def test_maps_have_one_value_per_pixel_or_step(shape, kind, unit):
    x = jax.random.normal(jax.random.key(2), shape)
    found = jaxnn.explain(lambda x: jnp.tanh(x).reshape(-1)[:3] + jnp.square(x).sum(), x)
    assert found.kind == kind
    assert {found.values(name).shape for name in found.parts} == {unit}
    assert found.shown().shape == unit
    if kind == "series":
        ablated = found.values("feature_ablation").sum(1)
        expected = attribution.feature_ablation(
            lambda x: jnp.tanh(x).reshape(-1)[found.target] + jnp.square(x).sum(), x,
            groups=np.repeat(np.arange(9), 4).reshape(9, 4),
        )[:, 0]  # fmt: skip
        np.testing.assert_allclose(ablated, expected, rtol=1e-4, atol=1e-6)


def test_a_method_that_refuses_says_why_and_the_others_go_on():
    found = jaxnn.explain(lambda x: jnp.linalg.eigvalsh(x)[0] + x.sum(), jnp.eye(3) + 0.1)
    refused = {name: part for name, part in found.parts.items() if part.attributions is None}
    assert set(refused) == {"deep_lift", "lrp"}
    assert all(part.refused and part.gap is None for part in refused.values())
    assert found.agreement.shape == (2, 2)
    assert "refused" in str(found)
    with pytest.raises(ValueError, match="`method` must be one that takes the model"):
        found.values("lrp")


def test_a_pixel_of_occlusion_is_hidden_with_its_channels_once():
    for shape in ((5, 5, 3), (3, 5, 5)):
        x = jax.random.normal(jax.random.key(4), shape)
        found = jaxnn.explain(lambda x: x.sum(), x)
        np.testing.assert_allclose(found.values("occlusion"), found.values("deep_lift"), rtol=1e-4, atol=1e-5)


def test_attributions_that_are_not_finite_are_refused():
    found = jaxnn.explain(lambda x: jnp.sqrt(x).sum(), jnp.array([1.0, 4.0, 0.0]))
    assert "not finite" in found.parts["integrated_gradients"].refused
    assert found.html()


def test_steps_are_compared_and_named():
    x = jax.random.normal(jax.random.key(4), (5, 3))
    found = jaxnn.explain(lambda x: (x.sum(1) * jnp.arange(1.0, 6.0)).sum(), x, names=list("abcde"))
    np.testing.assert_allclose(found.agreement[0, [1, 3]], 1.0, atol=1e-6)
    largest = "abcde"[int(np.abs(found.values("deep_lift").sum(1)).argmax())]
    assert found._largest("deep_lift").startswith(largest)


def test_agreement_is_a_rank_correlation():
    found = jaxnn.explain(lambda x: (x * jnp.arange(1.0, 5.0)).sum(), jnp.ones(4))
    np.testing.assert_allclose(found.agreement, 1.0, atol=1e-6)
    constant = jaxnn.explain(lambda x: 0.0 * x.sum() + 1.0, jnp.ones(4))
    assert np.isnan(constant.agreement[0, 1])


def test_it_is_printed_drawn_and_written(tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    for x, model in ((ROW, network()), (TOKENS, sentence()), (jnp.ones((6, 6)), lambda x: x.sum())):
        found = jaxnn.explain(model, x)
        for name in found.parts:
            assert name in str(found)
        figure = found.draw()
        titles = {ax.get_title() or ax.get_title(loc="left") for ax in figure.axes}
        assert set(found.parts) <= titles
        plt.close(figure)
        found.save_html(tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert page == found._repr_html_()
        assert "<script" not in page
        assert "http" not in page.replace("http://www.w3.org", "")
    assert plt.get_fignums() == []
    hostile = jaxnn.explain(network(), ROW, names=["<script>alert(1)</script>", "b", "[bold]c", "$d$"])
    assert "<script" not in hostile.html()
    assert "[bold]c" in str(hostile) or "[bold]c" not in hostile._largest("deep_lift")


def test_a_series_of_pandas_brings_its_names():
    pandas = pytest.importorskip("pandas")
    row = pandas.Series([0.1, 0.2, 0.3, 0.4], index=["age", "dose", "size", "area"])
    assert jaxnn.explain(network(), row).names == ("age", "dose", "size", "area")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": {"a": ROW}}, TypeError, "`x` must be one array"),
        ({"kind": "text"}, ValueError, "`kind`"),
        ({"kind": "image"}, ValueError, "`x` must have 2 or 3 axes, not empty, for kind 'image'"),
        ({"kind": "tokens"}, TypeError, "`x` must hold integers for kind 'tokens'; got float32"),
        ({"names": ["a"]}, ValueError, "`names` must hold 4 strings"),
        ({"names": "abcd"}, ValueError, "`names` must hold 4 strings"),
        ({"target": 7}, ValueError, "`target` must lie from -3 to 2"),
        ({"key": 3}, TypeError, "`key` must be one random key"),
        ({"baseline": jnp.ones(3)}, ValueError, "`baseline`"),
        ({"model": lambda x: jnp.ones((2, 2)) * x[0]}, ValueError, "`target` must be given"),
        ({"x": TOKENS, "model": lambda x: x.sum() * 1.0}, ValueError, "`layer` must be given"),
        ({"x": TOKENS[:1], "model": sentence()}, ValueError, "`baseline` must be given for one token"),
        ({"x": TOKENS, "model": sentence(), "layer": "none"}, ValueError, "Embed_0"),
        ({"x": TOKENS, "model": sentence(), "layer": "Dense_0"}, ValueError, r"'Dense_0' has \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(options, error, message):
    arguments = {"model": network(), "x": ROW} | options
    with pytest.raises(error, match=message):
        jaxnn.explain(**arguments)


def test_it_is_not_traced():
    with pytest.raises(TypeError, match="`x` must be a concrete array, not traced"):
        jax.jit(lambda x: jaxnn.explain(network(), x).output)(ROW)
