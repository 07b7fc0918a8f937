"""A call of each public function that succeeds, as keyword arguments, of which the tests spoil one at a time.

The models are as small as they can be: a call that accepts a value runs.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxnn
from jaxnn import attacks, rules
from tests.contract.test_coverage import public_functions

NETWORK = jaxnn.init(jax.random.key(0), (4, 5, 3), activation="relu")
OLD_KEY = np.array([0, 3], np.uint32)  # the check of keys used twice lets it be used by every call
X = np.linspace(0.1, 0.9, 4, dtype=np.float32)
INPUTS = np.linspace(0, 1, 48, dtype=np.float32).reshape(12, 4)
LABELS = np.arange(12) % 3
TARGETS = np.eye(3, dtype=np.float32)[LABELS]
FEATURES = ("a", "b", "c", "d")
CLASSES = ("p", "q", "r")


@jax.tree_util.Partial
def image_model(x):
    """A model of an image `(6, 6, 1)`, with a convolution named `map`."""
    kernel = jnp.full((3, 3, 1, 2), 0.1, x.dtype)
    maps = jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jaxnn.tap(jax.nn.relu(maps[0]), "map").sum((0, 1))


def squared(x):
    return jnp.sum(x**2)


def halved(h):
    return h / 2


def plane(x):
    """Of two inputs, as `linear_regions` takes."""
    return jax.nn.relu(x[0] - x[1]) * jnp.ones(2)


IMAGE = np.linspace(0, 1, 36, dtype=np.float32).reshape(6, 6, 1)
MODULE = nn.Dense(3)
VARIABLES = MODULE.init(jax.random.key(0), X)
RULE = rules.Rule(np.array([-np.inf, 0.2]), np.array([0.5, np.inf]), 1, 0.3, 0.9, "if x_1 > 0.2 then b")
TREE = rules.Tree(
    [0, -1, -1], [0.5, 0, 0], [1, 1, 2], [2, 1, 2], np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
)
RULE_LIST = rules.RuleList((RULE,), 0, 0.8, None, "", ("x_0", "x_1"), ("a", "b"))

EXPLAINED = {"model": NETWORK, "x": X, "target": 1}
DRAWN = EXPLAINED | {"key": OLD_KEY, "n_samples": 8, "batch_size": 4}
GROUPED = {"baseline": 0.0, "groups": np.arange(4), "n_groups": 4, "batch_size": 4}
LAYER = EXPLAINED | {
    "layer": "hidden_0",
    "baseline": 0.0,
    "steps": 4,
    "quadrature": "trapezoid",
    "batch_size": 2,
}
ATTACK = {
    "model": NETWORK,
    "x": X,
    "label": 1,
    "norm": "linf",
    "bounds": (0.0, 1.0),
    "targeted": False,
    "key": OLD_KEY,
}
BALL = ATTACK | {"epsilon": 0.1, "loss": "cross_entropy"}
LEARNED = {
    "model": NETWORK, "inputs": INPUTS, "held_out": INPUTS[:6], "held_out_labels": LABELS[:6], "key": OLD_KEY,
    "n_samples": 50, "spread": 0.5, "decide": jnp.argmax, "features": None, "names": FEATURES,
    "classes": CLASSES,
}  # fmt: skip

CALLS = {
    "activation": {"name": "tanh"},
    "backquery": {
        "network": jaxnn.init(jax.random.key(0), (4, 5, 3)), "y": np.array([0.1, 0.9, 0.1], np.float32),
        "method": "least_squares", "margin": 0.01,
        "sweeps": 2, "steps": 5,
    },
    "capture": {"model": NETWORK, "x": X},
    "dream": {
        "model": NETWORK, "objective": jaxnn.dreaming.logit(1), "key": OLD_KEY, "shape": (4,),
        "bounds": (0.0, 1.0),
        "start": X, "parameterization": jaxnn.dreaming.pixel(), "transforms": (), "penalties": (),
        "optimizer": optax.adam(0.05), "steps": 3, "record_every": 1, "redirect": 1, "channel_axis": None,
    },
    "from_equinox": {"module": None, "state": None},
    "from_linen": {"module": MODULE, "variables": VARIABLES, "method": None, "batched": False},
    "from_nnx": {"module": nnx.Linear(4, 3, rngs=nnx.Rngs(0)), "batched": False},
    "from_numpy": {"function": np.sum, "shape": (), "dtype": np.float32},
    "init": {
        "key": OLD_KEY, "sizes": (4, 5, 3), "activation": "relu", "output_activation": "identity",
        "use_bias": True,
        "kernel_init": jax.nn.initializers.lecun_normal(), "bias_init": jax.nn.initializers.zeros,
        "dtype": jnp.float32,
    },
    "intervene": {"model": NETWORK, "replacements": {"hidden_0": halved}},
    "load": {"path": None, "like": NETWORK},
    "map_examples": {
        "fn": NETWORK, "arrays": INPUTS, "batch_size": 5, "mesh": None, "progress": False, "out": None
    },
    "query": {"network": NETWORK, "x": X},
    "rescale": {"v": X, "low": 0.01, "high": 0.99},
    "rewrite": {"function": squared, "rules": {"integer_pow": lambda operation, x: operation(x)}},
    "save": {"path": None, "model": NETWORK},
    "tap": {"value": X, "name": "seen"},
    "train": {
        "model": NETWORK, "inputs": INPUTS, "targets": TARGETS, "epochs": 1, "batch_size": 4, "key": OLD_KEY,
        "optimizer": optax.sgd(0.1), "loss": jaxnn.losses.squared_error, "shuffle": True,
        "validation": (INPUTS, TARGETS), "mesh": None, "checkpoint": None, "checkpoint_every": None,
        "progress": False,
    },
    "attacks.apgd": BALL | {"steps": 3, "restarts": 1, "random_start": True},
    "attacks.bim": BALL | {"steps": 3, "relative_step_size": 0.2, "random_start": False},
    "attacks.blur": ATTACK | {"epsilon": 0.1, "shape": (2, 2), "max_sigma": 1.0, "steps": 3},
    "attacks.carlini_wagner": ATTACK | {
        "norm": "l2", "steps": 3, "search_steps": 2, "learning_rate": 0.01, "initial_constant": 0.001,
        "confidence": 0.0, "abort_early": True,
    },
    "attacks.classified_as": {"label": 1},
    "attacks.confident": {"label": 1, "probability": 0.5},
    "attacks.contrast": ATTACK | {"epsilon": 0.1, "steps": 3},
    "attacks.deepfool": ATTACK | {"norm": "l2", "steps": 3, "overshoot": 0.02, "candidates": 2},
    "attacks.fgsm": BALL | {"random_start": False},
    "attacks.fmn": ATTACK | {"steps": 3, "step_size": 1.0, "gamma": 0.05},
    "attacks.hop_skip_jump": ATTACK | {
        "norm": "l2", "queries": 60, "start": X[::-1].copy(), "initial_evaluations": 4, "max_evaluations": 8,
        "gamma": 1.0, "batch_size": 4,
    },
    "attacks.minimal_norm": ATTACK | {"attack": attacks.fgsm, "epsilon": 0.5, "steps": 2},
    "attacks.misclassified": {"label": 1},
    "attacks.momentum_pgd": BALL | {
        "steps": 3, "relative_step_size": 0.2, "decay": 1.0, "restarts": 1, "random_start": False
    },
    "attacks.noise": {key: value for key, value in BALL.items() if key != "loss"} | {
        "kind": "uniform", "n_samples": 2
    },
    "attacks.pgd": BALL | {"steps": 3, "relative_step_size": 0.2, "restarts": 1, "random_start": True},
    "attacks.robust_accuracy": {
        "model": NETWORK, "inputs": INPUTS, "labels": LABELS, "attack": attacks.fgsm, "epsilons": [0.0, 0.1],
        "batch_size": 6, "key": OLD_KEY, "mesh": None, "progress": False,
    },
    "attacks.square": {key: value for key, value in BALL.items() if key != "loss"} | {
        "queries": 5, "fraction": 0.5, "image_shape": (2, 2)
    },
    "attacks.strongest": {"attacks": attacks.fgsm},
    "attacks.under_attack": {
        "model": NETWORK, "attack": functools.partial(attacks.fgsm, epsilon=0.1), "key": OLD_KEY
    },
    "attacks.universal": {
        "model": NETWORK, "inputs": INPUTS, "labels": LABELS, "norm": "linf", "epsilon": 0.1,
        "bounds": (0.0, 1.0),
        "targeted": False, "key": OLD_KEY, "epochs": 1, "batch_size": 6, "relative_step_size": 0.1,
        "loss": "cross_entropy",
    },
    "attribution.completeness_gap": EXPLAINED | {"attributions": X, "baseline": 0.0, "baselines": None},
    "attribution.deconvnet": EXPLAINED,
    "attribution.deep_lift": EXPLAINED | {"baseline": 0.0, "primitive_rules": None,
    "check_completeness": True},
    "attribution.deep_lift_shap": EXPLAINED | {
        "baselines": INPUTS[:3], "batch_size": 2, "primitive_rules": None, "check_completeness": True
    },
    "attribution.expected_gradients": DRAWN | {"baselines": INPUTS[:3], "with_error": False},
    "attribution.feature_ablation": EXPLAINED | GROUPED,
    "attribution.grad_cam": {
        "model": image_model, "x": IMAGE, "target": 1, "layer": "map", "relu": True, "shape": (6, 6),
        "channel_axis": -1,
    },
    "attribution.guided_backprop": EXPLAINED,
    "attribution.guided_grad_cam": {
        "model": image_model, "x": IMAGE, "target": 1, "layer": "map", "channel_axis": -1
    },
    "attribution.input_x_gradient": EXPLAINED,
    "attribution.integrated_gradients": EXPLAINED | {
        "baseline": 0.0, "steps": 4, "quadrature": "trapezoid", "batch_size": 2, "check_completeness": False
    },
    "attribution.internal_influence": LAYER,
    "attribution.kernel_shap": DRAWN | GROUPED | {"n_samples": 20, "with_error": False},
    "attribution.layer_activation": {"model": NETWORK, "x": X, "layer": "hidden_0"},
    "attribution.layer_conductance": LAYER,
    "attribution.layer_gradient_x_activation": EXPLAINED | {"layer": "hidden_0", "multiply": True},
    "attribution.layer_integrated_gradients": LAYER,
    "attribution.lime": DRAWN | GROUPED | {"kernel_width": 0.25, "ridge": 1.0, "with_error": False},
    "attribution.lrp": EXPLAINED | {
        "rule": "epsilon_gamma_box", "epsilon": 0.1, "gamma": 0.25, "alpha": 2.0, "low": 0.0, "high": 1.0,
        "stabilizer": 1e-6, "primitive_rules": None,
    },
    "attribution.neuron_gradient": {"model": NETWORK, "x": X, "unit": 1, "layer": "hidden_0"},
    "attribution.occlusion": EXPLAINED | {"window": (2,), "stride": 1, "baseline": 0.0, "batch_size": 2},
    "attribution.permutation_importance": {
        "model": NETWORK, "x": INPUTS, "target": LABELS, "key": OLD_KEY, "loss": jaxnn.losses.cross_entropy,
        "n_samples": 2, "groups": np.arange(4), "n_groups": 4, "batch_size": 6, "with_error": False,
    },
    "attribution.rise": DRAWN | {
        "grid": 3, "probability": 0.5, "axes": None, "baseline": 0.0, "with_error": False
    },
    "attribution.saliency": EXPLAINED | {"absolute": False},
    "attribution.shapley_sampling": DRAWN | GROUPED | {"with_error": False},
    "attribution.shapley_values": EXPLAINED | GROUPED,
    "attribution.smooth_grad": DRAWN | {
        "noise": 0.1, "bounds": (0.0, 1.0), "squared": False, "with_error": False
    },
    "attribution.var_grad": DRAWN | {"noise": 0.1, "bounds": (0.0, 1.0)},
    "datasets.encode_images": {"images": np.zeros((2, 3, 3), np.uint8)},
    "datasets.encode_labels": {"labels": LABELS, "classes": 3},
    "datasets.load": {"name": "mnist-5k", "progress": False},
    "datasets.point_set": {"name": "spiral", "key": OLD_KEY, "n": 10, "noise": 0.1},
    "dreaming.blur": {"sigma": 1.0},
    "dreaming.channel": {"layer": "map", "index": 1, "channel_axis": -1},
    "dreaming.cppn": {"width": 4, "depth": 2},
    "dreaming.deepdream": {"layer": "map"},
    "dreaming.direction": {"layer": "map", "vector": [1.0, 2.0], "channel_axis": -1},
    "dreaming.distance": {"mean": X, "weight": 1.0},
    "dreaming.diversity": {"layer": "map", "axis": "batch", "channel_axis": -1},
    "dreaming.flattened": {"model": NETWORK},
    "dreaming.fourier": {"std": 0.01, "decay": 1.0},
    "dreaming.jitter": {"pixels": 2, "fill": 0.5},
    "dreaming.l1": {"weight": 1.0, "center": 0.0},
    "dreaming.l2": {"weight": 1.0, "center": 0.0},
    "dreaming.layer": {"layer": "map"},
    "dreaming.logit": {"index": 1},
    "dreaming.matching": {"layer": "map", "activations": X},
    "dreaming.neuron": {"layer": "map", "index": 1},
    "dreaming.noise": {"std": 0.05},
    "dreaming.pad": {"pixels": 2, "fill": 0.5},
    "dreaming.pixel": {"std": 0.01},
    "dreaming.probability": {"index": 1, "activation": "softmax"},
    "dreaming.rotate": {"low": -10.0, "high": 10.0, "fill": 0.5},
    "dreaming.scale": {"low": 0.9, "high": 1.1, "fill": 0.5},
    "dreaming.standard_transforms": {"shape": (6, 6)},
    "dreaming.total_variation": {"weight": 1.0},
    "losses.cross_entropy": {"output": X[:3], "target": 1},
    "losses.squared_error": {"output": X[:3], "target": TARGETS[0]},
    "plot.activation_image": {"values": np.ones(6), "shape": (2, 3), "ax": None},
    "plot.attribution": {
        "values": IMAGE[..., 0], "image": IMAGE[..., 0], "clip": 99.0, "limit": 1.0, "title": "t",
        "name": "n",
        "colorbar": True, "ax": None,
    },
    "plot.decision_map": {
        "x1": np.arange(3.0), "x2": np.arange(2.0), "values": np.ones((2, 3)), "points": np.ones((4, 2)),
        "labels": np.arange(4) % 2, "limits": (0.0, 2.0), "name": "n", "ax": None,
    },
    "plot.decision_tree": {"tree": TREE, "names": FEATURES[:2], "classes": CLASSES[:2], "ax": None},
    "plot.feature_bars": {
        "values": X, "names": FEATURES, "errors": X, "k": 2, "title": "t", "name": "n", "ax": None
    },
    "plot.features_of_output": {"images": np.ones((4, 3, 3)), "weights": np.ones(4), "k": 2, "axes": None},
    "plot.image_grid": {
        "images": np.ones((4, 3, 3)), "titles": FEATURES, "columns": 2, "signed": True, "limits": (-2.0, 2.0),
        "name": "n", "row_labels": ("u", "v"), "colorbar": True, "axes": None,
    },
    "plot.output_bars": {"outputs": X[:3], "labels": CLASSES, "target": 1, "ax": None},
    "plot.regions": {
        "polygons": [[[0, 0], [1, 0], [0, 1]]], "values": [1.0], "limits": (0.0, 2.0), "ax": None
    },
    "plot.rule_list": {"rules": RULE_LIST, "ax": None},
    "plot.rule_on_data": {
        "rule": RULE, "features": INPUTS[:, :2], "x": X[:2], "names": FEATURES[:2], "axes": None
    },
    "plot.training_curve": {"values": X, "validation": X, "name": "loss", "ax": None},
    "plot.weight_grid": {
        "images": np.ones((4, 3, 3)), "titles": FEATURES, "columns": 2, "limits": (-2.0, 2.0),
        "row_labels": ("u", "v"), "axes": None,
    },
    "rules.anchor": {
        "model": NETWORK, "x": X, "inputs": INPUTS, "key": OLD_KEY, "precision": 0.9, "confidence": 0.9,
        "max_conditions": 2, "thresholds": 3, "beam": 2, "n_samples": 50, "spread": 0.5, "decide": jnp.argmax,
        "names": FEATURES, "classes": CLASSES,
    },
    "rules.distill_tree": LEARNED | {"max_depth": 2, "min_leaf": 2},
    "rules.linear_region": {"model": NETWORK, "x": X, "normals": True},
    "rules.linear_regions": {
        "model": plane, "bounds": (-1.0, 1.0), "names": FEATURES[:2], "max_regions": 100
    },
    "rules.rule_list": LEARNED | {"max_rules": 2, "max_conditions": 1, "precision": 0.9, "thresholds": 3,
    "beam": 2},
    "rules.trepan": LEARNED | {"max_depth": 2, "max_leaves": 4, "min_leaf": 2},
    "weights.contributions": {"network": NETWORK, "x": X, "layer": -1},
    "weights.kernel_images": {"network": NETWORK, "shape": (2, 2), "layer": 0},
    "weights.lesion": {
        "network": NETWORK, "layer": "hidden_0", "units": [0, 1], "weights": np.zeros((4, 5), bool)
    },
    "weights.output_images": {"network": NETWORK, "shape": (1, 5)},
    "weights.path_products": {"network": NETWORK, "start": 0, "stop": -1},
    "weights.random_mask": {"key": OLD_KEY, "shape": (4, 5), "fraction": 0.5},
    "weights.roughness": {"images": np.ones((2, 3, 3))},
    "weights.top_features": {"network": NETWORK, "k": 2, "layer": "output"},
}  # fmt: skip


def function(name):
    found = jaxnn
    for part in name.split("."):
        found = getattr(found, part)
    return found


def run(name, arguments):
    """Call a public function by its keyword arguments; those of `*arguments` go first."""
    if name == "map_examples":
        arguments = dict(arguments)
        return jaxnn.map_examples(arguments.pop("fn"), arguments.pop("arrays"), **arguments)
    if name == "attacks.strongest":
        return attacks.strongest(arguments["attacks"])
    return function(name)(**arguments)


NAMES = tuple(public_functions())
