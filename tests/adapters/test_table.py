"""Each adapter by each method: a network with the same weights in every framework gives the same numbers."""

import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnn
from jaxnn import attribution
from tests.helpers.methods import METHODS

X = jax.random.normal(jax.random.key(8), (8, 8, 3), jnp.float32)
GROUPS = jnp.arange(X.size).reshape(X.shape) % 4
KEYS = jax.random.split(jax.random.key(1), 4)
KERNEL = 0.3 * jax.random.normal(KEYS[0], (3, 3, 3, 4), jnp.float32)
BIAS = 0.1 * jax.random.normal(KEYS[1], (4,), jnp.float32)
DENSE = 0.2 * jax.random.normal(KEYS[2], (64, 3), jnp.float32)  # rows, columns, channels
OFFSET = 0.1 * jax.random.normal(KEYS[3], (3,), jnp.float32)


def plain():
    def model(x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        maps = jax.lax.conv_general_dilated(x[None], KERNEL, (1, 1), "SAME", dimension_numbers=dimensions)
        maps = jax.nn.relu(jaxnn.tap(maps[0] + BIAS, "conv"))
        pooled = jax.lax.reduce_window(maps, -np.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")
        return pooled.ravel() @ DENSE + OFFSET

    return model, "conv"


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def linen():
    layers = {"Conv_0": {"kernel": KERNEL, "bias": BIAS}, "Dense_0": {"kernel": DENSE, "bias": OFFSET}}
    return jaxnn.from_linen(Linen(), {"params": layers}, batched=True), "Conv_0"


class NNX(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv, self.dense = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Linear(64, 3, rngs=rngs)
        self.conv.kernel[...], self.conv.bias[...] = KERNEL, BIAS
        self.dense.kernel[...], self.dense.bias[...] = DENSE, OFFSET

    def __call__(self, x):
        return self.dense(nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), (2, 2)).reshape(x.shape[0], -1))


def from_nnx():
    return jaxnn.from_nnx(NNX(), batched=True), "conv"


def equinox():
    eqx = pytest.importorskip("equinox")

    class Module(eqx.Module):
        conv: eqx.nn.Conv2d
        pool: eqx.nn.MaxPool2d
        dense: eqx.nn.Linear

        def __call__(self, x):
            return self.dense(self.pool(jax.nn.relu(self.conv(x))).ravel())

    keys = jax.random.split(jax.random.key(0))
    conv, dense = eqx.nn.Conv2d(3, 4, 3, padding=1, key=keys[0]), eqx.nn.Linear(64, 3, key=keys[1])
    module = Module(conv, eqx.nn.MaxPool2d(2, 2), dense)
    kernel, dense = first_channels()
    places = lambda m: (m.conv.weight, m.conv.bias, m.dense.weight, m.dense.bias)  # noqa: E731
    module = eqx.tree_at(places, module, (kernel, BIAS[:, None, None], dense, OFFSET))
    return jaxnn.from_equinox(module), "conv"


def first_channels():
    """The weights for images `(channels, h, w)`."""
    return KERNEL.transpose(3, 2, 0, 1), DENSE.reshape(4, 4, 4, 3).transpose(3, 2, 0, 1).reshape(3, 64)


def haiku():
    hk = pytest.importorskip("haiku")

    def network(x):
        x = hk.max_pool(jax.nn.relu(hk.Conv2D(4, 3)(x)), (2, 2, 1), (2, 2, 1), "VALID")
        return hk.Linear(3)(hk.Flatten()(x))

    params = {"conv2_d": {"w": KERNEL, "b": BIAS}, "linear": {"w": DENSE, "b": OFFSET}}
    return jaxnn.from_haiku(hk.transform(network), params, batched=True), "conv2_d"


def keras(style):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layers = [
        keras.layers.Conv2D(4, 3, padding="same", name="conv"),
        keras.layers.ReLU(name="relu"),
        keras.layers.MaxPooling2D(name="pool"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(3, name="dense"),
    ]
    if style == "sequential":
        model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    elif style == "functional":
        inputs = outputs = keras.Input((8, 8, 3))
        for layer in layers:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs)
    else:

        class Subclass(keras.Model):
            def __init__(self):
                super().__init__()
                self.parts = layers

            def call(self, x):
                for layer in self.parts:
                    x = layer(x)
                return x

        model = Subclass()
        model(np.zeros((1, 8, 8, 3), np.float32))
    model.set_weights([np.asarray(each) for each in (KERNEL, BIAS, DENSE, OFFSET)])
    return jaxnn.from_keras(model), "conv"


def from_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is an extra that the tests do not install")
    layers = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()
    module = torch.nn.Sequential(*layers, torch.nn.Linear(64, 3))
    kernel, dense = first_channels()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), (kernel, BIAS, dense, OFFSET), strict=True):
            parameter.copy_(torch.from_numpy(np.array(value)))
    return jaxnn.from_torch(module, jnp.moveaxis(X, -1, 0)), "0"


MODELS = {
    "function": plain,
    "Linen": linen,
    "NNX": from_nnx,
    "Equinox": equinox,
    "Haiku": haiku,
    "Keras sequential": lambda: keras("sequential"),
    "Keras functional": lambda: keras("functional"),
    "Keras subclass": lambda: keras("subclass"),
    "PyTorch": from_torch,
}
CHANNELS_FIRST = {"Equinox", "PyTorch"}


def numbers(method, model, x, layer):
    """The attributions of a deterministic method; None for the others."""
    options = {
        "saliency": {},
        "integrated_gradients": {"check_completeness": False},
        "deep_lift": {},
        "lrp": {},
        "grad_cam": {"layer": layer, "shape": (8, 8)},
        "occlusion": {"window": (3, 3, 3)},
        "kernel_shap": {
            "groups": GROUPS if x.shape[0] == 8 else jnp.moveaxis(GROUPS, -1, 0), "key": jax.random.key(5)
        },
    }.get(method)  # fmt: skip
    return None if options is None else getattr(attribution, method)(model, x, 1, **options)


def cells():
    for i, adapter in enumerate(MODELS):
        for j, method in enumerate(METHODS):
            marks = () if (i + 2 * j) % 5 == 0 else pytest.mark.long
            yield pytest.param(adapter, method, marks=marks, id=f"{adapter}-{method}")


@pytest.mark.parametrize(("adapter", "method"), list(cells()))
def test_a_method_gives_the_same_in_every_framework(adapter, method):
    model, layer = MODELS[adapter]()
    first = adapter in CHANNELS_FIRST
    x = jnp.moveaxis(X, -1, 0) if first else X
    METHODS[method](model, x, layer)
    found, expected = numbers(method, model, x, layer), numbers(method, plain()[0], X, "conv")
    if found is not None:
        expected = jnp.moveaxis(expected, -1, 0) if first and expected.ndim == 3 else expected
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))
