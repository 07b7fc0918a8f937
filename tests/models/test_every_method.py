"""Models as people write them, and every method on each: a result that is right, or a refusal that says why.

The models are small, and have the parts that make attributions go wrong: statistics and biases that are not
0, products, normalizers near 0 at the baseline, kinks, gathers, long scans.
"""

import collections
import functools
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxnn
from jaxnn import attacks, attribution, rules
from tests.models import (  # noqa: F401
    convolutional,
    differential,
    experts,
    graphs,
    recurrent,
    state_space,
    transformers,
)
from tests.models.common import CASES, other_floats

# Of each method, the models that it refuses, and the primitive that it names.
_CHANGE_REFUSED = {
    # Two runs may take other experts, and other steps.
    "expert_choice_linen": "scatter-add",
    "odeint_linen": "while",
    "shared_expert_equinox": "select_n",
    "switch_nnx": "gather",
    "top_two_equinox": "gather",
    # A maximum over the neighbors has no rule.
    "sage_linen": "scatter-max",
}
_NOT_PIECEWISE_LINEAR = {
    "dot_general": "lru_linen post_norm_linen",
    "exp": "neural_cde_equinox",
    "expm1": "unet_equinox",
    "integer_pow": "s4d_equinox",
    "logistic": "attention_unet_nnx bidirectional_gru_linen efficientnet_equinox "
    "gated_linear_attention_linen gru_equinox lstm_linen lstm_max_nnx message_passing_equinox "
    "min_gru_nnx shared_expert_equinox",
    "mul": "cosine_attention_equinox hyena_equinox mobilenet_v3_linen",
    "scatter-max": "gat_nnx sage_linen",  # a maximum is piecewise linear, but this one has no rule
    "sin": "leapfrog_nnx",
    "square": "convnext_nnx cross_attention_linen diffusion_unet_nnx gpt_nnx groupnorm_resnet_equinox "
    "llama_nnx mamba_nnx pre_norm_linen soft_moe_linen vit_equinox",
    "stop_gradient": "dense_gate_nnx expert_choice_linen switch_nnx",  # of a softmax
    "tanh": "euler_linen fixed_point_nnx odeint_linen runge_kutta_equinox stacked_rnn_nnx",
    "top_k": "top_two_equinox",
}
EXPECTED = {
    "deep_lift": _CHANGE_REFUSED,
    "deep_lift_shap": _CHANGE_REFUSED,
    "lrp": {
        # Quotients of values that both depend on the input, other than a normalization and a softmax.
        "gat_nnx": "div",
        "odeint_linen": "div",
        "shared_expert_equinox": "div",
        "sage_linen": "scatter-max",
    },
    "guided_backprop": {"odeint_linen": "custom_vjp_call"},  # it may contain a ReLU
    "linear_region": {
        name: primitive for primitive, names in _NOT_PIECEWISE_LINEAR.items() for name in names.split()
    },
}
REFUSALS = {  # what a refusal starts with, if not with the method's name
    "deep_lift_shap": "deep_lift",
    "linear_region": "the model has the operation",
}
# Hard routing is not continuous: where the path crosses a boundary, no integral of gradients sums. It warns.
JUMPS = {"expert_choice_linen", "shared_expert_equinox", "switch_nnx", "top_two_equinox"}
SAMPLE = {  # of the default suite
    ("resnet_linen", "lrp"),
    ("llama_nnx", "deep_lift"),
    ("gcn_equinox", "lrp"),
}


GROUPS = 4
ROUNDING = 4 * float(np.finfo(np.float32).eps)  # of a sum, as a fraction of the sizes of its terms


@jax.jit
def _run(model, x):
    return model(x)


class Subject:
    """A model with its example, a scalar of its output, and two baselines."""

    def __init__(self, name):
        self.case, self.jumps = CASES[name], name in JUMPS
        self.model, self.x = self.case.build()
        zero = jax.tree.map(
            lambda leaf: jnp.zeros_like(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, self.x
        )
        self.baselines = {"zero": zero, "random": other_floats(self.x, 5)}
        self.target = self._most_changed()

    def _most_changed(self):
        """A change that is small by chance would leave nothing but rounding to compare with."""
        y, *others = (np.asarray(_run(self.model, x)) for x in (self.x, *self.baselines.values()))
        place = np.argmax(np.min([abs(y - other) for other in others], axis=0))
        return int(place) if y.ndim == 1 else operator.itemgetter(np.unravel_index(place, y.shape))

    def scalar_of(self, y):
        return self.target(y) if callable(self.target) else y[self.target]

    def __call__(self, x):
        return self.scalar_of(_run(self.model, x))

    def gradient(self):
        """At the floating-point arrays of the example, as one vector."""
        return self._gradient

    @functools.cached_property
    def _gradient(self):
        leaves, structure = jax.tree.flatten(self.x)
        floating = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

        def output(floats):
            moved = dict(zip(floating, floats, strict=True))
            return self(jax.tree.unflatten(structure, [moved.get(i, a) for i, a in enumerate(leaves)]))

        gradients = jax.jit(jax.grad(output))([leaves[i] for i in floating])
        return np.concatenate([np.ravel(g) for g in gradients]).astype(np.float64)

    def change(self, baseline):
        return float(self(self.x) - self(baseline))

    def groups(self):
        """Groups of features, for each array of the example."""
        return jax.tree.map(
            lambda leaf: jnp.asarray(np.arange(leaf.size) * GROUPS // leaf.size).reshape(leaf.shape), self.x
        )

    def floats(self, tree):
        """The values in the places of the floating-point arrays of the example, as one vector."""
        self.check_structure(tree)
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(self.x), strict=True)
        kept = [np.ravel(a) for a, leaf in pairs if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return np.concatenate(kept).astype(np.float64)

    def check_structure(self, tree):
        assert jax.tree.structure(tree) == jax.tree.structure(self.x)
        assert [a.shape for a in jax.tree.leaves(tree)] == [a.shape for a in jax.tree.leaves(self.x)]
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(tree))


@functools.cache
def subject_of(name):
    return Subject(name)


def check_sum(values, change, relative, of_sizes=ROUNDING):
    """The values sum to the change, up to a fraction of their sizes: by default the rounding of the sum."""
    assert abs(values.sum() - change) <= relative * abs(change) + of_sizes * np.abs(values).sum()


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4 * max(1e-3, np.abs(b).max()))


def saliency(s):
    close(s.floats(attribution.saliency(s.model, s.x, s.target)), s.gradient())


def input_x_gradient(s):
    values = s.floats(attribution.input_x_gradient(s.model, s.x, s.target))
    close(values, s.gradient() * s.floats(s.x))


def smooth_grad(s):
    options = {"key": jax.random.key(3), "n_samples": 4}
    s.floats(attribution.smooth_grad(s.model, s.x, s.target, **options, noise=0.1))
    close(s.floats(attribution.smooth_grad(s.model, s.x, s.target, **options, noise=0.0)), s.gradient())


def integrated_gradients(s):
    """From a random baseline: at one of 0 the derivative of a normalizer is that of its epsilon.

    A quadrature of a gradient with jumps, that of a function with kinks, converges as one over the number of
    its steps. Its error is a fraction of the sizes, and the change may be far smaller.
    """
    baseline, steps = s.baselines["random"], {"steps": 300, "batch_size": 100}
    if s.jumps:
        with pytest.warns(UserWarning, match="the attributions of integrated_gradients sum to"):
            attribution.integrated_gradients(s.model, s.x, s.target, baseline=baseline, **steps)
        return
    values = attribution.integrated_gradients(s.model, s.x, s.target, baseline=baseline, **steps)
    tolerances = (1e-4,) if s.case.smooth else (1e-2, 1e-3)
    check_sum(s.floats(values), s.change(baseline), *tolerances)


def deep_lift(s):
    for baseline in s.baselines.values():
        values = s.floats(attribution.deep_lift(s.model, s.x, s.target, baseline=baseline))
        change = s.change(baseline)
        check_sum(values, change, 1e-4)
        assert np.abs(values).max() <= 1000 * abs(change)


def deep_lift_shap(s):
    baselines = jax.tree.map(lambda *rows: jnp.stack(rows), *s.baselines.values())
    values = s.floats(attribution.deep_lift_shap(s.model, s.x, s.target, baselines=baselines))
    check_sum(values, np.mean([s.change(baseline) for baseline in s.baselines.values()]), 1e-4)


def lrp(s):
    values = s.floats(attribution.lrp(s.model, s.x, s.target))
    output = float(s(s.x))
    assert np.abs(values).max() <= 1000 * abs(output)
    if s.case.conserves:
        check_sum(values, output, 1e-4)


def guided_backprop(s):
    values = s.floats(attribution.guided_backprop(s.model, s.x, s.target))
    if not s.case.relu:
        close(values, s.gradient())


def expected_gradients(s):
    baselines = jax.tree.map(lambda *rows: jnp.stack(rows), *s.baselines.values())
    options = {"baselines": baselines, "key": jax.random.key(4), "n_samples": 20}
    s.floats(attribution.expected_gradients(s.model, s.x, s.target, **options))


def feature_ablation(s):
    baseline, groups = s.baselines["random"], s.groups()
    values = attribution.feature_ablation(s.model, s.x, s.target, baseline=baseline, groups=groups)
    values, of_group = s.floats(values), s.floats(groups)
    for group in range(GROUPS):
        ablated = jax.tree.map(lambda a, b, g, n=group: jnp.where(g == n, b, a), s.x, baseline, groups)
        np.testing.assert_allclose(values[of_group == group], s.change(ablated), rtol=1e-3, atol=1e-5)


def kernel_shap(s):
    baseline, groups = s.baselines["random"], s.groups()
    values = attribution.kernel_shap(
        s.model, s.x, s.target, key=jax.random.key(5), baseline=baseline, groups=groups
    )
    values, of_group = s.floats(values), s.floats(groups)
    check_sum(np.array([values[of_group == g][0] for g in range(GROUPS)]), s.change(baseline), 1e-4)


def layer_gradient_x_activation(s):
    value = attribution.layer_activation(s.model, s.x, layer=s.case.layer)
    values = attribution.layer_gradient_x_activation(s.model, s.x, s.target, layer=s.case.layer)

    def from_layer(value):
        return s.scalar_of(jaxnn.intervene(s.model, {s.case.layer: value})(s.x))

    close(np.asarray(values), np.asarray(value * jax.grad(from_layer)(value)))


def layer_conductance(s):
    """Sums along the path converge as one over the number of steps."""
    baseline = s.baselines["random"]
    values = attribution.layer_conductance(
        s.model, s.x, s.target, layer=s.case.layer, baseline=baseline, steps=300, batch_size=100
    )
    assert np.isfinite(values).all()
    check_sum(np.asarray(values, np.float64), s.change(baseline), 5e-2, 5e-3)


def linear_region(s):
    region = rules.linear_region(s.model, s.x)
    flat = s.floats(s.x)
    y = ravel_pytree(_run(s.model, s.x))[0]
    np.testing.assert_allclose(flat @ region.kernel + region.bias, y, rtol=1e-4, atol=1e-4)
    assert (region.normals @ flat <= region.offsets + 1e-4).all()
    assert region.radius >= 0


def pgd(s):
    options = {"epsilon": 0.1, "bounds": (-5.0, 5.0), "key": jax.random.key(6), "steps": 3}
    result = attacks.pgd(s.model, s.x, s.target, **options)
    assert np.abs(s.floats(result.input) - s.floats(s.x)).max() <= 0.1 + 1e-6
    for a, b in zip(jax.tree.leaves(result.input), jax.tree.leaves(s.x), strict=True):
        assert a.dtype == b.dtype
        assert jnp.issubdtype(b.dtype, jnp.floating) or (a == b).all()


METHODS = {
    method.__name__: method
    for method in (
        saliency, input_x_gradient, smooth_grad, integrated_gradients, deep_lift, deep_lift_shap, lrp,
        guided_backprop, expected_gradients, feature_ablation, kernel_shap, layer_gradient_x_activation,
        layer_conductance, linear_region, pgd,
    )
}  # fmt: skip
OF_LAYERS = {"layer_gradient_x_activation", "layer_conductance"}


def cells():
    for name, case in CASES.items():
        for method in METHODS:
            if case.layer or method not in OF_LAYERS:
                marks = () if (name, method) in SAMPLE else pytest.mark.long
                yield pytest.param(name, method, marks=marks, id=f"{name}-{method}")


@pytest.mark.parametrize(("name", "method"), list(cells()))
def test_a_method_is_right_or_refuses_by_name(name, method):
    subject = subject_of(name)
    primitive = EXPECTED.get(method, {}).get(name)
    if primitive is None:
        METHODS[method](subject)
        return
    with pytest.raises(NotImplementedError, match=re.escape(f"'{primitive}'")) as refusal:
        METHODS[method](subject)
    assert re.match(REFUSALS.get(method, method), str(refusal.value))


def test_every_family_and_framework_has_its_models():
    families = collections.Counter(case.family for case in CASES.values())
    frameworks = collections.Counter(case.framework for case in CASES.values())
    assert len(families) == 9
    assert min(families.values()) >= 5
    assert set(frameworks) == {"linen", "nnx", "equinox"}
    assert min(frameworks.values()) >= 10


def test_the_table_of_refusals_names_models_and_methods():
    assert set(EXPECTED) <= set(METHODS)
    assert all(set(models) <= set(CASES) for models in EXPECTED.values())
    assert set(CASES) >= JUMPS
    piecewise = {name for name, case in CASES.items() if case.piecewise}
    assert set(EXPECTED["linear_region"]) == set(CASES) - piecewise
