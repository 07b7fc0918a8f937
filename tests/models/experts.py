"""Mixtures of experts, with soft and with hard routing."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.common import case, from_equinox, from_linen, from_nnx, glorot, normal

TOKENS, WIDTH, EXPERTS, HIDDEN = 6, 5, 4, 6


class SoftMoE(nn.Module):
    """Each slot of an expert is a mean of the tokens, each token a mean of the slots."""

    @nn.compact
    def __call__(self, x):
        slots = 2
        phi = self.param("phi", nn.initializers.normal(0.5), (WIDTH, EXPERTS, slots))
        up = self.param("up", nn.initializers.normal(0.5), (EXPERTS, WIDTH, HIDDEN))
        down = self.param("down", nn.initializers.normal(0.5), (EXPERTS, HIDDEN, WIDTH))
        y = nn.LayerNorm()(x)
        logits = jnp.einsum("td,dnp->tnp", y, phi)
        dispatch = jax.nn.softmax(logits, axis=0)
        combine = jax.nn.softmax(logits.reshape(len(x), -1), axis=-1).reshape(logits.shape)
        slotted = jnp.einsum("td,tnp->npd", y, dispatch)
        out = jnp.einsum("npd,ndh->nph", slotted, up)
        out = jnp.einsum("nph,nhd->npd", nn.gelu(out), down)
        x = x + jnp.einsum("npd,tnp->td", out, combine)
        return nn.Dense(3)(x.mean(0))


@case("experts", "linen", smooth=True)
def soft_moe_linen():
    return from_linen(SoftMoE(), normal(80, TOKENS, WIDTH))


class Switch(nnx.Module):
    """One expert per token, chosen by the gate, and weighted by it."""

    def __init__(self, rngs):
        self.gate = nnx.Linear(WIDTH, EXPERTS, use_bias=False, rngs=rngs)
        self.up = nnx.Param(glorot(81, EXPERTS, WIDTH, HIDDEN))
        self.down = nnx.Param(glorot(82, EXPERTS, HIDDEN, WIDTH))
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        probability = nnx.softmax(self.gate(x))
        chosen = jnp.argmax(probability, axis=-1)
        weight = jnp.take_along_axis(probability, chosen[:, None], axis=-1)
        hidden = nnx.relu(jnp.einsum("td,tdh->th", x, self.up[...][chosen]))
        y = jnp.einsum("th,thd->td", hidden, self.down[...][chosen])
        return self.head((x + weight * y).mean(0))


@case("experts", "nnx", relu=True)
def switch_nnx():
    return from_nnx(Switch(nnx.Rngs(14)), normal(83, TOKENS, WIDTH))


class TopTwo(eqx.Module):
    """The two largest gates by `top_k`, and a softmax of these."""

    gate: eqx.nn.Linear
    up: jax.Array
    down: jax.Array
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.gate = eqx.nn.Linear(WIDTH, EXPERTS, key=a)
        self.up, self.down = glorot(84, EXPERTS, WIDTH, HIDDEN), glorot(85, EXPERTS, HIDDEN, WIDTH)
        self.head = eqx.nn.Linear(WIDTH, 3, key=b)

    def route(self, x):
        gates, chosen = jax.lax.top_k(self.gate(x), 2)
        hidden = jax.nn.silu(jnp.einsum("d,kdh->kh", x, self.up[chosen]))
        return jax.nn.softmax(gates) @ jnp.einsum("kh,khd->kd", hidden, self.down[chosen])

    def __call__(self, x):
        return self.head((x + jax.vmap(self.route)(x)).mean(0))


@case("experts", "equinox")
def top_two_equinox():
    return from_equinox(TopTwo(jax.random.key(13)), normal(86, TOKENS, WIDTH))


class ExpertChoice(nn.Module):
    """Each expert takes the tokens with the largest gates, and scatters its results back."""

    @nn.compact
    def __call__(self, x):
        up = self.param("up", nn.initializers.normal(0.5), (EXPERTS, WIDTH, HIDDEN))
        down = self.param("down", nn.initializers.normal(0.5), (EXPERTS, HIDDEN, WIDTH))
        scores = nn.softmax(nn.Dense(EXPERTS, use_bias=False)(x))
        gates, chosen = jax.lax.top_k(scores.T, 2)
        hidden = nn.relu(jnp.einsum("ekd,edh->ekh", x[chosen], up))
        out = gates[..., None] * jnp.einsum("ekh,ehd->ekd", hidden, down)
        x = x + jnp.zeros_like(x).at[chosen].add(out)
        return nn.Dense(3)(x.mean(0))


@case("experts", "linen", relu=True)
def expert_choice_linen():
    return from_linen(ExpertChoice(), normal(87, TOKENS, WIDTH))


class DenseGate(nnx.Module):
    """All experts, by weights of a softmax: the experts are a loop in Python."""

    def __init__(self, rngs):
        self.gate = nnx.Linear(WIDTH, EXPERTS, rngs=rngs)
        self.experts = nnx.List([nnx.Linear(WIDTH, HIDDEN, rngs=rngs) for _ in range(EXPERTS)])
        self.head = nnx.Linear(HIDDEN, 3, rngs=rngs)

    def __call__(self, x):
        weights = nnx.softmax(self.gate(x))
        outputs = jnp.stack([jnp.tanh(expert(x)) for expert in self.experts], axis=-1)
        return self.head((outputs * weights[:, None]).sum(-1).mean(0))


@case("experts", "nnx", smooth=True)
def dense_gate_nnx():
    return from_nnx(DenseGate(nnx.Rngs(15)), normal(88, TOKENS, WIDTH))


class SharedExpert(eqx.Module):
    """A shared expert beside routed ones with sigmoid gates, normalized to sum to one."""

    gate: eqx.nn.Linear
    shared: eqx.nn.MLP
    experts: eqx.nn.MLP
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c, d = jax.random.split(key, 4)
        self.gate = eqx.nn.Linear(WIDTH, EXPERTS, key=a)
        self.shared = eqx.nn.MLP(WIDTH, WIDTH, HIDDEN, 1, activation=jax.nn.silu, key=b)
        make = eqx.filter_vmap(lambda k: eqx.nn.MLP(WIDTH, WIDTH, HIDDEN, 1, activation=jax.nn.silu, key=k))
        self.experts = make(jax.random.split(c, EXPERTS))
        self.head = eqx.nn.Linear(WIDTH, 3, key=d)

    def route(self, x):
        gates = jax.nn.sigmoid(self.gate(x))
        gates = jnp.where(gates >= jax.lax.top_k(gates, 2)[0][-1], gates, 0.0)
        outputs = eqx.filter_vmap(lambda expert: expert(x))(self.experts)
        return self.shared(x) + (gates / gates.sum()) @ outputs

    def __call__(self, x):
        return self.head(jax.vmap(self.route)(x).mean(0))


@case("experts", "equinox")
def shared_expert_equinox():
    return from_equinox(SharedExpert(jax.random.key(14)), normal(89, TOKENS, WIDTH))
