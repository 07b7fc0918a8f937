"""Recurrent networks over 20 to 40 steps, by the frameworks' own loops and by `lax.scan`."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.common import case, from_equinox, from_linen, from_nnx, normal


class LSTM(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.RNN(nn.OptimizedLSTMCell(4))(nn.Dense(3)(x))[-1])


@case("recurrent", "linen", layer="Dense_0", smooth=True)
def lstm_linen():
    return from_linen(LSTM(), normal(40, 30, 2))


class BidirectionalGRU(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Bidirectional(nn.RNN(nn.GRUCell(3)), nn.RNN(nn.GRUCell(3)))(x)
        return nn.Dense(3)(y.mean(0))


@case("recurrent", "linen", smooth=True)
def bidirectional_gru_linen():
    return from_linen(BidirectionalGRU(), normal(41, 20, 2))


class StackedRNN(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.RNN(nnx.SimpleCell(2, 4, rngs=rngs))
        self.second = nnx.RNN(nnx.SimpleCell(4, 4, rngs=rngs))
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.second(self.first(x))[-1])


@case("recurrent", "nnx", smooth=True)
def stacked_rnn_nnx():
    return from_nnx(StackedRNN(nnx.Rngs(8)), normal(42, 25, 2))


class LSTMWithPooling(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.LSTMCell(2, 4, rngs=rngs))
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.rnn(x)).max(0))


@case("recurrent", "nnx")
def lstm_max_nnx():
    return from_nnx(LSTMWithPooling(nnx.Rngs(9)), normal(43, 20, 2))


class ScannedGRU(eqx.Module):
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(2, 4, key=a)
        self.head = eqx.nn.Linear(4, 3, key=b)

    def __call__(self, x):
        def step(h, row):
            return self.cell(row, h), None

        return self.head(jax.lax.scan(step, jnp.zeros(4), x)[0])


@case("recurrent", "equinox", smooth=True)
def gru_equinox():
    return from_equinox(ScannedGRU(jax.random.key(7)), normal(44, 40, 2))


class ReluRNN(eqx.Module):
    """An Elman network with ReLUs, without biases, read at its last step."""

    inward: eqx.nn.Linear
    inside: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.inward = eqx.nn.Linear(2, 6, use_bias=False, key=a)
        self.inside = eqx.nn.Linear(6, 6, use_bias=False, key=b)
        self.head = eqx.nn.Linear(6, 3, use_bias=False, key=c)

    def __call__(self, x):
        def step(h, row):
            return jax.nn.relu(self.inward(row) + self.inside(h)), None

        return self.head(jax.lax.scan(step, jnp.zeros(6), x)[0])


@case("recurrent", "equinox", relu=True, piecewise=True, conserves=True)
def relu_rnn_equinox():
    return from_equinox(ReluRNN(jax.random.key(8)), normal(45, 20, 2))
