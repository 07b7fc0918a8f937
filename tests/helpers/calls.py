"""A valid call of every public function, of which tests replace one argument by something wrong."""

import functools
import inspect
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnn
from jaxnn import attacks
from tests.contract.test_coverage import public_functions

KEY = np.array([0, 3], np.uint32)  # of the old kind, which the check of keys used twice lets be used again
NET = jaxnn.init(jax.random.key(0), (4, 5, 3), activation="relu", output_activation="identity")
TANH = jaxnn.init(jax.random.key(1), (4, 5, 3), activation="tanh", output_activation="tanh")
X = np.random.default_rng(0).uniform(0.1, 0.9, (8, 4)).astype(np.float32)
Y = np.arange(8, dtype=np.int64) % 3
PRIOR = jaxnn.prior(X, components=2, rank=2, key=KEY)
IMAGE = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
MODULE = nn.Dense(3)
HELD_OUT = {"held_out_labels": Y, "classes": ["a", "b", "c"]}


def maps(x: jax.Array) -> jax.Array:
    """A model with a layer of two channels."""
    return jnp.sum(jaxnn.tap(jnp.stack([x, 2 * x], axis=-1), "maps"))


def plane(x: jax.Array) -> jax.Array:
    """A model of two inputs with two linear regions."""
    return jnp.maximum(x[:1] - x[1:], 0)


# By the name of the parameter; in `_OWN` those of one function.
_VALUES: dict[str, Any] = {
    "model": NET, "network": NET, "fn": NET, "function": jnp.tanh, "key": KEY, "rules": {},
    "x": X[0], "v": X[0], "inputs": X, "targets": X[:, :3], "target": 1, "label": 1, "labels": Y,
    "y": np.zeros(3, np.float32), "attack": attacks.fgsm, "epsilon": 0.1, "epsilons": [0.0, 0.1],
    "batch_size": 4, "epochs": 1, "baselines": X[:2], "layer": "hidden_0", "attributions": X[0], "unit": 1,
    "window": (2,), "held_out": X, "sizes": (4, 3), "replacements": {"hidden_0": np.zeros(5, np.float32)},
    "shape": (4, 4), "objective": jaxnn.dreaming.logit(1), "index": 1, "fraction": 0.5, "n": 3,
    "output": X[0, :3], "vector": X[0], "activations": X[0], "axis": "dreams", "sigma": 1.0, "pixels": 1,
    "mean": IMAGE, "images": np.zeros((2, 4, 4), np.uint8), "k": 2, "values": X[0], "name": "tanh",
    "units": np.array([0]), "probability": 0.5, "value": X[0], "module": MODULE, "groups": np.arange(4),
    "explain": jaxnn.attribution.saliency, "mask": np.arange(4) > 1, "random_model": NET, "parts": Y % 2,
    "methods": {"saliency": jaxnn.attribution.saliency},
    "models": jax.tree.map(lambda *leaves: jnp.stack(leaves), NET, NET),
    "variables": MODULE.init(jax.random.key(0), X[0]), "start": None, "weights": None,
}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "backquery": {"network": TANH},
    "dream": {"model": jaxnn.dreaming.flattened(NET), "shape": (2, 2), "steps": 2},
    "tap_operations": {"operations": "dot_general"},
    "rewrite": {"rules": {"tanh": lambda operation, x: operation(x)}},
    "train": {"epochs": 1, "targets": X[:, :3], "batch_size": 4},
    "attacks.minimal_norm": {"steps": 2},
    "attacks.carlini_wagner": {"steps": 2, "search_steps": 1},
    "attacks.hop_skip_jump": {"queries": 20},
    "attacks.square": {"queries": 4, "image_shape": (2, 2)},
    "attacks.blur": {"shape": (2, 2)},
    "attribution.grad_cam": {"model": maps, "x": IMAGE, "target": None, "layer": "maps", "shape": None},
    "attribution.guided_grad_cam": {"model": maps, "x": IMAGE, "target": None, "layer": "maps"},
    "attribution.permutation_importance": {"x": X, "target": X[:, :3]},
    "attribution.blocks": {"shape": (4, 4), "size": (2, 2)},
    "attribution.rise": {"n_samples": 4, "grid": 2},
    "attribution.kernel_shap": {"n_samples": 8},
    "attribution.lime": {"n_samples": 8},
    "datasets.load": {"name": "digits"},
    "datasets.point_set": {"name": "spiral"},
    "losses.squared_error": {"target": X[1, :3]},
    "dreaming.from_prior": {"prior": PRIOR},
    "dreaming.typicality": {"prior": PRIOR},
    "quality.mu_fidelity": {"grid": 2},
    "quality.parameter_randomization": {"targets": Y, "n_seeds": 1},
    "quality.report": {"targets": Y, "n_samples": 2, "n_seeds": 1},
    "quality.road": {
        "model": jaxnn.dreaming.flattened(NET), "x": IMAGE[:2, :2], "attributions": IMAGE[:2, :2]
    },
    "quality.sensitivity_n": {"sizes": (1, 2)},
    "rules.anchor": {"n_samples": 50, "decide": None},
    "rules.distill_tree": HELD_OUT | {"n_samples": 20},
    "rules.rule_list": HELD_OUT | {"n_samples": 20},
    "rules.trepan": HELD_OUT | {"n_samples": 20},
    "rules.linear_regions": {"model": plane},
    "weights.kernel_images": {"shape": (2, 2)},
    "weights.output_images": {"shape": (5, 1)},
    "weights.random_mask": {"shape": 4},
    "plot.activation_image": {"values": X[0], "shape": (2, 2)},
    "plot.attribution": {"values": IMAGE},
    "plot.decision_map": {
        "x1": np.arange(3), "x2": np.arange(3), "values": np.eye(3), "points": X[:, :2], "labels": Y
    },
    "plot.feature_bars": {"names": list("abcd")},
    "plot.features_of_output": {"images": np.zeros((3, 2, 2)), "weights": np.arange(3.0)},
    "plot.output_bars": {"outputs": X[0]},
    "plot.tokens": {"texts": list("abcd"), "values": X[0]},
    "plot.tokens_html": {"texts": list("abcd"), "values": X[0]},
    "plot.regions": {"polygons": [[[0, 0], [1, 0], [0, 1]]], "values": None},
    "plot.training_curve": {"values": X[0]},
    "plot.weight_grid": {"images": np.zeros((2, 4, 4))},
}  # fmt: skip
_GIVEN = {"target", "unit", "key", "units"}  # also where they have a default
_LEFT_OUT = {  # their arguments are files, modules of other libraries or results of other functions
    "save", "load", "from_equinox", "from_haiku", "from_keras", "from_torch", "from_nnx",
    "attribution.superpixels", "attribution.to_pandas", "attribution.to_shap", "attribution.to_xarray",
    "plot.decision_tree", "plot.deletion_curves", "plot.explanation", "plot.quality_table",
    "plot.randomization", "plot.rule_list", "plot.rule_on_data",
}  # fmt: skip


class Call(NamedTuple):
    """A public function, and the arguments of a valid call."""

    name: str
    function: Any
    arguments: dict[str, Any]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters of the function by name."""
        return dict(inspect.signature(self.function).parameters)

    def __call__(self, **changed: Any) -> Any:
        """Call the function with some arguments changed."""
        arguments = self.arguments | changed
        if self.name == "attacks.strongest":
            return self.function(arguments.get("attacks", attacks.fgsm), attacks.noise)
        if self.name == "map_examples":
            arrays = arguments.pop("arrays")
            return self.function(arguments.pop("fn"), arrays, **arguments)
        result = self.function(**arguments)
        plt.close("all")
        return result


@functools.cache
def calls() -> dict[str, Call]:
    """A call of each public function by its name."""
    found = {}
    for name in public_functions():
        if name in _LEFT_OUT:
            continue
        module, _, last = name.rpartition(".")
        function = getattr(getattr(jaxnn, module) if module else jaxnn, last)
        own = _OWN.get(name, {})
        known = _VALUES | own
        arguments = {
            parameter: known[parameter]
            for parameter, kind in inspect.signature(function).parameters.items()
            if parameter in known and (kind.default is kind.empty or parameter in _GIVEN or parameter in own)
        }
        if name == "map_examples":
            arguments["arrays"] = X
        found[name] = Call(name, function, arguments)
    return found
