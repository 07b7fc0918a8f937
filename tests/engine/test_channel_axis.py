"""The axis of the channels, from the convolutions of a function."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxnn._engine.channel_axis import LOST, channel_axis, input_channel_axis

KEY = jax.random.key(0)
FIRST, LAST = jnp.ones((3, 8, 10)), jnp.ones((8, 10, 3))


def linen(module, x):
    return lambda x: module.apply(module.init(KEY, x), x), x


def convolved(x):
    return eqx.nn.Conv2d(3, 6, 3, padding=1, key=KEY)(x)


class Excited(nn.Module):
    """A squeeze and excitation."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3))(x)))
        return x * nn.sigmoid(nn.Dense(6)(nn.relu(nn.Dense(2)(x.mean((0, 1))))))


def excited(x):
    y = jax.nn.gelu(convolved(x))
    squeezed = eqx.nn.Linear(6, 6, key=jax.random.key(1))(y.mean((1, 2)))
    return y * jax.nn.sigmoid(squeezed)[:, None, None] + y


CASES = {
    "linen": (*linen(nn.Conv(6, (3, 3)), LAST), 2),
    "linen with a batch axis": (lambda x: linen(nn.Conv(6, (3, 3)), x[None])[0](x[None])[0], LAST, 2),
    "linen, excited": (*linen(Excited(), LAST), 2),
    "linen, pooled": (lambda x: nn.max_pool(linen(nn.Conv(6, (3, 3)), LAST)[0](x), (2, 2)), LAST, 2),
    "linen, mixed by a dense layer": (*linen(nn.Sequential([nn.Conv(6, (3, 3)), nn.Dense(4)]), LAST), 2),
    "equinox": (convolved, FIRST, 0),
    "equinox, excited": (excited, FIRST, 0),
    "equinox, pooled": (lambda x: eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(convolved(x))), FIRST, 0),
    "equinox, transposed": (lambda x: jnp.moveaxis(convolved(x), 0, -1), FIRST, 2),
    "equinox, as tokens": (lambda x: convolved(x).reshape(6, 80).T, FIRST, 1),
    "linen, as tokens": (lambda x: linen(nn.Conv(6, (3, 3)), LAST)[0](x).reshape(80, 6), LAST, 1),
    "cut across": (lambda x: convolved(x).reshape(12, 40), FIRST, LOST),
    "no convolution": (lambda x: jax.nn.relu(x @ jnp.ones((10, 4))), FIRST, None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_axis_is_that_of_the_convolution(name):
    function, x, expected = CASES[name]
    assert channel_axis(function, x) == expected


INPUTS = {
    "linen": (CASES["linen"][0], LAST, 2),
    "linen, one channel": (linen(nn.Conv(6, (3, 3)), LAST[..., :1])[0], LAST[..., :1], 2),
    "equinox": (convolved, FIRST, 0),
    "equinox, one channel": (eqx.nn.Conv2d(1, 6, 3, key=KEY), FIRST[:1], 0),
    "scaled and padded": (lambda x: convolved(jnp.pad((x - 0.5) / 2, ((0, 0), (1, 1), (1, 1)))), FIRST, 0),
    "moved": (lambda x: convolved(jnp.moveaxis(x, -1, 0)), LAST, 2),
    "after a product": (lambda x: convolved(x @ jnp.ones((10, 10))), FIRST, None),
    "no convolution": (lambda x: jax.nn.relu(x @ jnp.ones((3, 4))), LAST, None),
}


@pytest.mark.parametrize("name", INPUTS)
def test_the_axis_of_an_input_is_that_of_the_convolution_that_reads_it(name):
    function, x, expected = INPUTS[name]
    assert input_channel_axis(function, x) == expected
