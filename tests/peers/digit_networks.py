"""Networks trained on digits in JAX, and the same in PyTorch, with the images that attacks are tried on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import jaxnn

IMAGES = 256


@functools.cache
def both(kind):
    """A network of one image `(784,)`, the same in PyTorch, and 256 test images with their labels."""
    torch.set_num_threads(1)  # several of them wait for each other where cores are shared
    data = jaxnn.datasets.load("mnist-5k")
    train, test = (jaxnn.datasets.encode_images(part.images) for part in (data.train, data.test))
    network, torch_network = {"dense": _dense, "convolutional": _convolutional}[kind]()
    network, _ = jaxnn.train(
        network, train, jnp.asarray(data.train.labels), key=jax.random.key(1), epochs=5, batch_size=50,
        optimizer=optax.adam(2e-3), loss=jaxnn.losses.cross_entropy,
    )  # fmt: skip
    _copy(network.args[0] if kind == "convolutional" else network.layers, torch_network)
    images, labels = np.asarray(test[:IMAGES]), np.asarray(data.test.labels[:IMAGES])
    ours = np.asarray(jax.vmap(network)(images))
    theirs = torch_network(torch.from_numpy(images.copy())).detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    return network, torch_network.eval(), images, labels


def _dense():
    network = jaxnn.init(jax.random.key(0), (784, 200, 10), activation="relu", output_activation="identity")
    return network, torch.nn.Sequential(torch.nn.Linear(784, 200), torch.nn.ReLU(), torch.nn.Linear(200, 10))


def _convolutional():
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 1, 8), (3, 3, 8, 16), (784, 10)]
    weights = [
        (
            jnp.asarray(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape), jnp.float32),
            jnp.zeros(shape[-1]),
        )
        for shape in shapes
    ]
    return jax.tree_util.Partial(_answer, weights), _Convolutional()


def _answer(weights, x):
    x = x.reshape(1, 28, 28, 1)
    for kernel, bias in weights[:2]:
        numbers = ("NHWC", "HWIO", "NHWC")
        padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(padded, kernel, (2, 2), "VALID", dimension_numbers=numbers) + bias
        )
    return x.reshape(-1) @ weights[2][0] + weights[2][1]


class _Convolutional(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolutions = torch.nn.ModuleList(
            [torch.nn.Conv2d(1, 8, 3, stride=2), torch.nn.Conv2d(8, 16, 3, stride=2)]
        )
        self.last = torch.nn.Linear(784, 10)

    def forward(self, x):
        x = x.reshape(-1, 1, 28, 28)
        for convolution in self.convolutions:
            x = torch.relu(convolution(torch.nn.functional.pad(x, (0, 1, 0, 1))))
        return self.last(x.permute(0, 2, 3, 1).flatten(1))


def _copy(layers, torch_network):
    modules = [m for m in torch_network.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    for module, layer in zip(modules, layers, strict=True):
        kernel, bias = (
            np.array(a) for a in (layer if isinstance(layer, tuple) else (layer.kernel, layer.bias))
        )
        module.weight.data = torch.from_numpy(
            kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        ).contiguous()
        module.bias.data = torch.from_numpy(bias)
