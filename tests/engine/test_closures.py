"""Objects with a state that a model closes over are refused: their weights would be constants."""

import functools
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnn
from jaxnn import attribution

MODULE = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
X = jnp.array([1.0, -2.0, 0.5])


def _uses_global(x):
    return MODULE(x)


def _calls_another(x):
    return 2 * _uses_global(x)


def _nested(x):
    return jax.vmap(lambda row: MODULE(row))(x[None])[0]


def _of_enclosing():
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(1))
    return lambda x: module(x)


def _default(x, module=MODULE):
    return module(x)


class _Wrapper:
    def __init__(self):
        self.parts = [nnx.Linear(3, 2, rngs=nnx.Rngs(1))]

    def __call__(self, x):
        return self.parts[0](x)

    def forward(self, x):
        return self(x)


class _Agent:  # without a call
    def __init__(self):
        self.net = nnx.Linear(3, 2, rngs=nnx.Rngs(1))

    def forward(self, x):
        return self.net(x)


AGENT = _Agent()

STALE = {
    "method of an object": AGENT.forward,
    "attribute": lambda x: AGENT.net(x),
    "global": _uses_global,
    "called": _calls_another,
    "nested": _nested,
    "closure": _of_enclosing(),
    "default": _default,
    "jitted": jax.jit(_uses_global),
    "partial": functools.partial(lambda module, x: module(x), MODULE),
    "Partial": jax.tree_util.Partial(_uses_global),
    "object": _Wrapper(),
    "method": _Wrapper().forward,
    "method of the module": MODULE.__call__,
}


@pytest.mark.parametrize("name", STALE)
def test_an_nnx_module_in_a_closure_is_refused(name):
    with pytest.raises(TypeError, match=r"a Linear of flax.nnx: its weights.*jaxnn.from_nnx\(module\)"):
        attribution.saliency(STALE[name], X, 0)


def test_the_variable_is_named():
    with pytest.raises(TypeError, match="`model` must not use the variable `MODULE`"):
        jaxnn.capture(_calls_another, X)
    with pytest.raises(TypeError, match="`target` must not use the variable `MODULE`"):
        attribution.saliency(lambda x: x, X, lambda y: MODULE(y)[0])


def test_the_adapter_is_the_remedy():
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    before = attribution.saliency(jaxnn.from_nnx(module), X, 0)
    module.kernel[...] = 2 * module.kernel[...]
    np.testing.assert_allclose(attribution.saliency(jaxnn.from_nnx(module), X, 0), 2 * before)
    np.testing.assert_allclose(
        attribution.saliency(module, X, 0), 2 * before
    )  # a pytree, passed at each call


@pytest.mark.parametrize(
    ("library", "base", "message"),
    [
        ("keras.src.layers.layer", "Layer", r"a Net of keras.*jaxnn.from_keras\(model\)"),
        ("torch.nn.modules.module", "Module", "a Net of torch.*from_torch"),
    ],
)
def test_keras_and_torch_are_recognized(library, base, message):
    """By the names of their classes: neither is imported."""
    parent = type(base, (), {"__module__": library, "__call__": lambda self, x: x})
    model = type("Net", (parent,), {})()
    for each in (model, lambda x: model(x)):
        with pytest.raises(TypeError, match=message):
            attribution.saliency(each, X, 0)


def test_what_has_no_state_passes():
    """Attributes of the name of a module, callbacks, variables that are assigned later."""
    holder = ModuleType("holder")
    holder.MODULE = lambda x: x**2
    np.testing.assert_allclose(attribution.saliency(lambda x: holder.MODULE(x).sum(), X), 2 * X)

    def asked(x):  # evaluated at each call, so with the weights of that time
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda v: np.float32(MODULE(v)[0]), shape, x, vmap_method="sequential")

    assert attribution.feature_ablation(asked, X).shape == (3,)

    def later(x):
        return undefined(x)

    with pytest.raises(NameError):
        attribution.saliency(later, X, 0)

    def undefined(x):
        return x
