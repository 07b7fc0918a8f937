"""State-space networks and their relatives: recurrences that are linear in the state."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.common import case, from_equinox, from_linen, from_nnx, glorot, normal

STEPS, WIDTH, STATE = 24, 4, 3


class S4D(eqx.Module):
    """A diagonal state space, discretized by a zero-order hold and evaluated as a convolution."""

    log_a: jax.Array
    frequency: jax.Array
    c: jax.Array
    d: jax.Array
    inward: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.log_a, self.frequency = normal(50, WIDTH, STATE, scale=0.5), normal(51, WIDTH, STATE)
        self.c = normal(52, WIDTH, STATE, 2)
        self.d = normal(53, WIDTH)
        self.inward, self.head = eqx.nn.Linear(2, WIDTH, key=a), eqx.nn.Linear(WIDTH, 3, key=b)

    def __call__(self, x):
        u = jax.vmap(self.inward)(x)
        a = 0.1 * (-jnp.exp(self.log_a) + 1j * self.frequency)
        powers = jnp.exp(a[..., None] * jnp.arange(STEPS))
        c = (self.c[..., 0] + 1j * self.c[..., 1]) * (jnp.exp(a) - 1) / a
        kernel = 2 * jnp.einsum("hn,hnl->hl", c, powers).real
        y = jax.vmap(lambda v, k: jnp.convolve(v, k)[:STEPS], in_axes=1, out_axes=1)(u, kernel.T)
        return self.head(jax.nn.gelu(y + self.d * u).mean(0))


@case("state_space", "equinox", layer="inward", smooth=True)
def s4d_equinox():
    return from_equinox(S4D(jax.random.key(9)), normal(54, STEPS, 2))


class LRU(nn.Module):
    """A linear recurrent unit: an associative scan in complex numbers, and a gated linear unit."""

    @nn.compact
    def __call__(self, x):
        u = nn.Dense(WIDTH)(x)
        radius = jax.nn.sigmoid(self.param("radius", nn.initializers.normal(1.0), (STATE,)) + 2)
        angle = self.param("angle", nn.initializers.normal(1.0), (STATE,))
        b = self.param("b", nn.initializers.normal(0.5), (2, WIDTH, STATE))
        c = self.param("c", nn.initializers.normal(0.5), (2, STATE, WIDTH))
        decay = jnp.broadcast_to(radius * jnp.exp(1j * angle), (STEPS, STATE))
        inputs = jnp.sqrt(1 - radius**2) * (u @ (b[0] + 1j * b[1]))

        def combine(first, second):
            return first[0] * second[0], second[0] * first[1] + second[1]

        _, h = jax.lax.associative_scan(combine, (decay, inputs))
        y = nn.gelu((h @ (c[0] + 1j * c[1])).real)
        y = u + nn.Dense(WIDTH)(y) * nn.sigmoid(nn.Dense(WIDTH)(y))
        return nn.Dense(3)(nn.LayerNorm()(y).mean(0))


@case("state_space", "linen", layer="Dense_0", smooth=True)
def lru_linen():
    return from_linen(LRU(), normal(55, STEPS, 2))


class Mamba(nnx.Module):
    """A selective scan: step sizes, inputs and outputs of the state depend on the input."""

    def __init__(self, rngs):
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.inward = nnx.Linear(WIDTH, 2 * WIDTH, use_bias=False, rngs=rngs)
        self.conv = nnx.Conv(WIDTH, WIDTH, (3,), padding="CAUSAL", feature_group_count=WIDTH, rngs=rngs)
        self.select = nnx.Linear(WIDTH, WIDTH + 2 * STATE, rngs=rngs)
        self.log_a = nnx.Param(normal(56, WIDTH, STATE, scale=0.5))
        self.d = nnx.Param(normal(57, WIDTH))
        self.outward = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        u, gate = jnp.split(self.inward(self.norm(x)), 2, axis=-1)
        u = nnx.silu(self.conv(u))
        delta, b, c = jnp.split(self.select(u), (WIDTH, WIDTH + STATE), axis=-1)
        delta, a = nnx.softplus(delta), -jnp.exp(self.log_a[...])

        def step(h, row):
            v, dt, b_t, c_t = row
            h = jnp.exp(dt[:, None] * a) * h + (dt * v)[:, None] * b_t
            return h, h @ c_t

        _, y = jax.lax.scan(step, jnp.zeros((WIDTH, STATE)), (u, delta, b, c))
        y = (y + self.d[...] * u) * nnx.silu(gate)
        return self.head((x + self.outward(y)).mean(0))


@case("state_space", "nnx", smooth=True)
def mamba_nnx():
    return from_nnx(Mamba(nnx.Rngs(10)), normal(58, STEPS, WIDTH))


class Hyena(eqx.Module):
    """A long convolution by FFT between two gates."""

    projection: eqx.nn.Linear
    filters: jax.Array
    skip: jax.Array
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.projection = eqx.nn.Linear(WIDTH, 3 * WIDTH, key=a)
        self.filters = normal(59, STEPS, WIDTH) * jnp.exp(-0.2 * jnp.arange(STEPS))[:, None]
        self.skip = normal(60, WIDTH)
        self.head = eqx.nn.Linear(WIDTH, 3, key=b)

    def __call__(self, x):
        v, first, second = jnp.split(jax.vmap(self.projection)(x), 3, axis=-1)
        v = v * first
        spectrum = jnp.fft.rfft(v, 2 * STEPS, axis=0) * jnp.fft.rfft(self.filters, 2 * STEPS, axis=0)
        y = jnp.fft.irfft(spectrum, 2 * STEPS, axis=0)[:STEPS] + self.skip * v
        return self.head((y * second).mean(0))


@case("state_space", "equinox", layer="projection", smooth=True)
def hyena_equinox():
    return from_equinox(Hyena(jax.random.key(10)), normal(61, STEPS, WIDTH))


class GatedLinearAttention(nn.Module):
    @nn.compact
    def __call__(self, x):
        q, k, v = (nn.Dense(WIDTH, use_bias=False)(x) for _ in range(3))
        decay = nn.sigmoid(nn.Dense(WIDTH)(x) + 1)

        def step(state, row):
            q_t, k_t, v_t, g_t = row
            state = g_t[:, None] * state + jnp.outer(k_t, v_t)
            return state, q_t @ state

        _, y = jax.lax.scan(step, jnp.zeros((WIDTH, WIDTH)), (q, k, v, decay))
        y = nn.RMSNorm()(y) * nn.silu(nn.Dense(WIDTH)(x))
        return nn.Dense(3)(y.mean(0))


@case("state_space", "linen", smooth=True)
def gated_linear_attention_linen():
    return from_linen(GatedLinearAttention(), normal(62, STEPS, WIDTH))


class MinGRU(nnx.Module):
    """Gates that do not read the state: an associative scan of real numbers that depend on the input."""

    def __init__(self, rngs):
        self.gate, self.candidate = (nnx.Linear(2, WIDTH, rngs=rngs) for _ in range(2))
        self.head = nnx.Param(glorot(63, WIDTH, 3))

    def __call__(self, x):
        z = nnx.sigmoid(self.gate(x))

        def combine(first, second):
            return first[0] * second[0], second[0] * first[1] + second[1]

        _, h = jax.lax.associative_scan(combine, (1 - z, z * self.candidate(x)))
        return h[-1] @ self.head[...]


@case("state_space", "nnx", smooth=True)
def min_gru_nnx():
    return from_nnx(MinGRU(nnx.Rngs(11)), normal(64, STEPS, 2))
