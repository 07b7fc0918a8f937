"""The same random networks in JAX and in PyTorch, which keeps channels first."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import torch

import jaxnn

SIZES = (20, 16, 12, 5)
IMAGE = (12, 12, 2)  # PyTorch: (2, 12, 12)
CHANNELS = (2, 4, 6)


def dense(seed, activation="tanh"):
    """Three layers, in JAX with the names of `jaxnn.Network`: `hidden_0`, `hidden_1`, `output_in`."""
    bias = jax.nn.initializers.normal(0.3)
    network = jaxnn.init(jax.random.key(seed), SIZES, activation=activation, bias_init=bias)
    modules = []
    for layer in network.layers:
        linear = torch.nn.Linear(*layer.kernel.shape)
        linear.weight.data = from_jax(layer.kernel).T.contiguous()
        linear.bias.data = from_jax(layer.bias)
        modules += [linear, {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[activation]()]
    return network, torch.nn.Sequential(*modules)


def convolutional(seed):
    """Two convolutions, the first one pooled, and a dense layer: `conv_0`, `relu_0`, `conv_1`, `relu_1`.

    In PyTorch the layers of the same places are 0, 1, 3 and 4.
    """
    rng = np.random.default_rng(seed)
    kernels = [
        rng.normal(0, (9 * a) ** -0.5, (3, 3, a, b)).astype(np.float32)
        for a, b in itertools.pairwise(CHANNELS)
    ]
    biases = [rng.normal(0, 0.1, b).astype(np.float32) for b in CHANNELS[1:]]
    last = rng.normal(0, 54**-0.5, (3, 3, CHANNELS[-1], 5)).astype(np.float32)
    convolutions = []
    for kernel, bias in zip(kernels, biases, strict=True):
        module = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], 3)
        module.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        module.bias.data = torch.from_numpy(bias)
        convolutions.append(module)
    linear = torch.nn.Linear(54, 5, bias=False)
    linear.weight.data = torch.from_numpy(last.transpose(3, 2, 0, 1).reshape(5, 54).copy())
    theirs = torch.nn.Sequential(
        convolutions[0], torch.nn.ReLU(), torch.nn.MaxPool2d(2), convolutions[1], torch.nn.ReLU(),
        torch.nn.Flatten(), linear,
    )  # fmt: skip
    return jax.tree_util.Partial(_apply, (kernels, biases, last)), theirs


def _apply(weights, x):
    kernels, biases, last = weights
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        convolve = functools.partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="VALID")
        x = convolve(x[None], kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"))[0] + bias
        x = jaxnn.tap(jax.nn.relu(jaxnn.tap(x, f"conv_{i}")), f"relu_{i}")
        if i == 0:
            x = x.reshape(5, 2, 5, 2, 4).max(axis=(1, 3))
    return jnp.einsum("hwc,hwck->k", x, last)


def examples(count, shape, seed=0):
    """Random inputs for JAX, the examples along the first axis."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def to_torch(x):
    """A batch, its channels first where it holds images."""
    x = np.array(x)
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x)


def from_torch(x):
    """A batch, its channels last where it holds images."""
    x = x.detach().numpy()
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def from_jax(array):
    return torch.from_numpy(np.array(array))


def assert_near(ours, theirs, tolerance=1e-5):
    """Within `tolerance` of the largest entry."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error < tolerance, error
