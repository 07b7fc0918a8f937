"""Transformers: pre- and post-normalization, rotary embeddings, grouped queries, class tokens, cosines."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.common import case, from_equinox, from_linen, from_nnx, normal

TOKENS, WIDTH = 6, 8


class PreNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(WIDTH)(x) + self.param("position", nn.initializers.normal(0.5), (TOKENS, WIDTH))
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
            x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))
        return nn.Dense(3)(nn.LayerNorm()(x).mean(0))


@case("transformer", "linen", layer="Dense_0", smooth=True)
def pre_norm_linen():
    return from_linen(PreNorm(), normal(20, TOKENS, WIDTH))


class PostNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(2)(x))
            x = nn.LayerNorm()(x + nn.Dense(WIDTH)(nn.relu(nn.Dense(2 * WIDTH)(x))))
        return nn.Dense(3)(x[0])


@case("transformer", "linen", relu=True)
def post_norm_linen():
    return from_linen(PostNorm(), normal(21, TOKENS, WIDTH))


class CrossAttention(nn.Module):
    @nn.compact
    def __call__(self, x):
        queries = self.param("queries", nn.initializers.normal(1.0), (2, WIDTH))
        memory = nn.LayerNorm()(nn.Dense(WIDTH)(x["memory"]))
        y = nn.MultiHeadDotProductAttention(2)(queries + nn.Dense(WIDTH)(x["query"]), memory)
        y = nn.LayerNorm()(y)
        return nn.Dense(3)(jnp.tanh(nn.Dense(WIDTH)(y)).reshape(-1))


@case("transformer", "linen", smooth=True)
def cross_attention_linen():
    return from_linen(CrossAttention(), {"memory": normal(22, TOKENS, 5), "query": normal(23, 2, 4)})


def rotated(x):
    """Rotary embeddings of queries or keys, `(tokens, heads, width)`."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[0])[:, None] * 10.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class LlamaBlock(nnx.Module):
    """Four query heads, two key and value heads."""

    def __init__(self, rngs):
        def linear(n_in, n_out):
            return nnx.Linear(n_in, n_out, use_bias=False, rngs=rngs)

        self.norm1 = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.q, self.k, self.v = linear(WIDTH, 16), linear(WIDTH, 8), linear(WIDTH, 8)
        self.o = linear(16, WIDTH)
        self.gate, self.up, self.down = linear(WIDTH, 12), linear(WIDTH, 12), linear(12, WIDTH)

    def __call__(self, x):
        y = self.norm1(x)
        q = rotated(self.q(y).reshape(len(y), 4, 4))
        k = rotated(self.k(y).reshape(len(y), 2, 4))
        v = self.v(y).reshape(len(y), 2, 4)
        x = x + self.o(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(len(y), 16))
        y = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


class Llama(nnx.Module):
    def __init__(self, rngs):
        self.embedding = nnx.Linear(5, WIDTH, use_bias=False, rngs=rngs)
        self.blocks = nnx.List([LlamaBlock(rngs) for _ in range(2)])
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 3, use_bias=False, rngs=rngs)

    def __call__(self, x):
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[-1])


@case("transformer", "nnx", layer="embedding", smooth=True)
def llama_nnx():
    return from_nnx(Llama(nnx.Rngs(6)), normal(24, TOKENS, 5))


class GPT(nnx.Module):
    """On embedded tokens, with a causal mask."""

    def __init__(self, rngs):
        self.position = nnx.Param(normal(25, TOKENS, WIDTH))
        self.attention = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(3)])
        self.up, self.down = nnx.Linear(WIDTH, 16, rngs=rngs), nnx.Linear(16, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        x = x + self.position[...]
        x = x + self.attention(self.norms[0](x), mask=nnx.make_causal_mask(x[:, 0]))
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x)), approximate=False))
        return self.head(self.norms[2](x))[-1]


@case("transformer", "nnx", smooth=True)
def gpt_nnx():
    return from_nnx(GPT(nnx.Rngs(7)), normal(26, TOKENS, WIDTH))


class ViT(eqx.Module):
    patches: eqx.nn.Conv2d
    token: jax.Array
    position: jax.Array
    attention: eqx.nn.MultiheadAttention
    norms: list
    mlp: eqx.nn.MLP
    head: eqx.nn.Linear

    def __init__(self, key):
        k = jax.random.split(key, 4)
        self.patches = eqx.nn.Conv2d(3, WIDTH, 4, stride=4, key=k[0])
        self.token, self.position = normal(27, 1, WIDTH), normal(28, 5, WIDTH)
        biases = dict.fromkeys(("use_query_bias", "use_key_bias", "use_value_bias", "use_output_bias"), True)
        self.attention = eqx.nn.MultiheadAttention(2, WIDTH, **biases, key=k[1])
        self.norms = [eqx.nn.LayerNorm(WIDTH) for _ in range(3)]
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 16, 1, activation=jax.nn.gelu, key=k[2])
        self.head = eqx.nn.Linear(WIDTH, 3, key=k[3])

    def __call__(self, x):
        x = self.patches(x).reshape(WIDTH, -1).T
        x = jnp.concatenate([self.token, x]) + self.position
        y = jax.vmap(self.norms[0])(x)
        x = x + self.attention(y, y, y)
        x = x + jax.vmap(self.mlp)(jax.vmap(self.norms[1])(x))
        return self.head(self.norms[2](x[0]))


@case("transformer", "equinox", layer="patches", smooth=True)
def vit_equinox():
    return from_equinox(ViT(jax.random.key(5)), normal(29, 3, 8, 8))


class CosineAttention(eqx.Module):
    """Queries and keys of length one, with a learned temperature."""

    projections: list
    temperature: jax.Array
    head: eqx.nn.Linear

    def __init__(self, key):
        *keys, last = jax.random.split(key, 5)
        self.projections = [eqx.nn.Linear(WIDTH, WIDTH, key=k) for k in keys]
        self.temperature = jnp.asarray(3.0)
        self.head = eqx.nn.Linear(WIDTH, 3, key=last)

    def __call__(self, x):
        q, k, v, gate = (jax.vmap(p)(x) for p in self.projections)
        q, k = (a / jnp.linalg.norm(a, axis=-1, keepdims=True) for a in (q, k))
        y = jax.nn.softmax(self.temperature * q @ k.T) @ v
        return self.head((x + y * jax.nn.sigmoid(gate)).mean(0))


@case("transformer", "equinox", smooth=True)
def cosine_attention_equinox():
    return from_equinox(CosineAttention(jax.random.key(6)), normal(30, TOKENS, WIDTH))
