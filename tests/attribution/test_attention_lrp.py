"""LRP of two transformer blocks against the published rules (AttnLRP), written out in NumPy.

Achtibat et al., 2024, arXiv:2402.05602: epsilon in dense layers and sums (equation 8), half to each factor of
a product (proposition 3.3), the Taylor expansion of the softmax (proposition 3.1), the identity through
activations and RMS norm (proposition 3.4). Layer norm: Ali et al., 2022, arXiv:2202.07304: its standard
deviation is a constant.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import attribution
from tests.conftest import in_precision

TOKENS, WIDTH, HEADS, KEY_HEADS, PER_HEAD, HIDDEN = 5, 8, 4, 2, 4, 12
EPSILON = 1e-6
NORM_EPSILON = 1e-5


def stable(z):
    return z + EPSILON * np.where(z < 0, -1, 1)


def of_dense(r, x, w, z):
    return x * (r / stable(z) @ w.T)


def of_sum(r, a, b):
    fraction = r / stable(a + b)
    return a * fraction, b * fraction


def of_product(r, a, b):
    half = r / stable(a * b) / 2
    return a * b * half, a * b * half


def of_matrix_product(r, a, b):
    """Of `a @ b`, for each head."""
    half = r / stable(a @ b) / 2
    return a * (half @ b.swapaxes(-1, -2)), b * (a.swapaxes(-1, -2) @ half)


def of_softmax(r, x, y):
    """At masked scores `x` is not finite, and `y` is 0."""
    return np.where(y == 0, 0, np.where(y == 0, 0, x) * (r - y * r.sum(-1, keepdims=True)))


def of_rms_norm(r, y):
    return r * y / stable(y)


def of_layer_norm(r, x, scale, y):
    fraction = r / stable(y) * scale / np.sqrt(x.var(-1, keepdims=True) + NORM_EPSILON)
    return x * (fraction - fraction.mean(-1, keepdims=True))


def softmax(x):
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def heads_of(y, n):
    """`(heads, tokens, width per head)`."""
    return y.reshape(len(y), n, -1).swapaxes(0, 1)


def joined(y):
    return y.swapaxes(0, 1).reshape(y.shape[1], -1)


def random_weights(shapes, seed=0):
    random = np.random.default_rng(seed)
    weights = {name: random.normal(size=shape) * shape[0] ** -0.5 for name, shape in shapes.items()}
    scales = {name: np.exp(0.3 * random.normal(size=WIDTH)) for name in ("scale1", "scale2")}
    return weights | scales, random.normal(size=(TOKENS, WIDTH))


# A block as in LLaMA: RMS norm, rotary embeddings, grouped queries, a causal mask, SwiGLU; no biases.

LLAMA = {
    "q": (WIDTH, HEADS * PER_HEAD), "k": (WIDTH, KEY_HEADS * PER_HEAD), "v": (WIDTH, KEY_HEADS * PER_HEAD),
    "o": (HEADS * PER_HEAD, WIDTH), "gate": (WIDTH, HIDDEN), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH),
    "head": (WIDTH, 3),
}  # fmt: skip
HALF = PER_HEAD // 2
ANGLES = np.arange(TOKENS)[:, None] * 10.0 ** -np.arange(HALF)
COS, SIN = np.cos(ANGLES), np.sin(ANGLES)
CAUSAL = np.tril(np.ones((TOKENS, TOKENS), bool))
REPEATS = HEADS // KEY_HEADS


def llama(p, x):
    def rms_norm(x, scale):
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + NORM_EPSILON) * scale

    def rotated(y):
        a, b = y[..., :HALF], y[..., HALF:]
        return jnp.concatenate([a * COS - b * SIN, a * SIN + b * COS], axis=-1)

    y = rms_norm(x, p["scale1"])
    q, k = rotated(heads_of(y @ p["q"], HEADS)), rotated(heads_of(y @ p["k"], KEY_HEADS))
    k, v = (jnp.repeat(a, REPEATS, axis=0) for a in (k, heads_of(y @ p["v"], KEY_HEADS)))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(PER_HEAD)
    weights = jax.nn.softmax(jnp.where(CAUSAL, scores, -jnp.inf))
    x = x + joined(weights @ v) @ p["o"]
    y = rms_norm(x, p["scale2"])
    x = x + (jax.nn.silu(y @ p["gate"]) * (y @ p["up"])) @ p["down"]
    return x[-1] @ p["head"]


def llama_relevance(p, x, target):
    def rms_norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + NORM_EPSILON) * scale

    def rotated(y):
        a, b = y[..., :HALF], y[..., HALF:]
        return np.concatenate([a * COS - b * SIN, a * SIN + b * COS], axis=-1)

    def of_rotated(r, y):
        a, b = y[..., :HALF], y[..., HALF:]
        first = of_sum(r[..., :HALF], a * COS, -b * SIN)
        second = of_sum(r[..., HALF:], a * SIN, b * COS)
        return np.concatenate([first[0] + second[0], first[1] + second[1]], axis=-1)

    def of_repeated(r):
        return r.reshape(KEY_HEADS, REPEATS, TOKENS, PER_HEAD).sum(1)

    normed = rms_norm(x, p["scale1"])
    q, k, v = (normed @ p[name] for name in "qkv")
    q_heads, k_heads = heads_of(q, HEADS), heads_of(k, KEY_HEADS)
    q_rotated, k_rotated = rotated(q_heads), np.repeat(rotated(k_heads), REPEATS, axis=0)
    values = np.repeat(heads_of(v, KEY_HEADS), REPEATS, axis=0)
    keys = k_rotated.swapaxes(-1, -2)
    scores = np.where(CAUSAL, q_rotated @ keys / np.sqrt(PER_HEAD), -np.inf)
    weights = softmax(scores)
    mixed = joined(weights @ values)
    attended = mixed @ p["o"]
    middle = x + attended
    normed2 = rms_norm(middle, p["scale2"])
    gate, up = normed2 @ p["gate"], normed2 @ p["up"]
    activated = gate / (1 + np.exp(-gate))
    fed = (activated * up) @ p["down"]
    last = middle + fed
    logits = last[-1] @ p["head"]

    r_logits = np.zeros(3)
    r_logits[target] = logits[target]
    r = np.zeros_like(x)
    r[-1] = of_dense(r_logits, last[-1], p["head"], logits)
    r_middle, r_fed = of_sum(r, middle, fed)
    r_gate, r_up = of_product(of_dense(r_fed, activated * up, p["down"], fed), activated, up)
    r_normed = of_dense(r_gate, normed2, p["gate"], gate) + of_dense(r_up, normed2, p["up"], up)
    r_middle += of_rms_norm(r_normed, normed2)
    r_x, r_attended = of_sum(r_middle, x, attended)
    r_mixed = heads_of(of_dense(r_attended, mixed, p["o"], attended), HEADS)
    r_weights, r_values = of_matrix_product(r_mixed, weights, values)
    r_q, r_keys = of_matrix_product(of_softmax(r_weights, scores, weights), q_rotated, keys)
    r_q = joined(of_rotated(r_q, q_heads))
    r_k = joined(of_rotated(of_repeated(r_keys.swapaxes(-1, -2)), k_heads))
    r_v = joined(of_repeated(r_values))
    parts = ((r_q, "q", q), (r_k, "k", k), (r_v, "v", v))
    r_normed = sum(of_dense(r, normed, p[name], z) for r, name, z in parts)
    return r_x + of_rms_norm(r_normed, normed)


# A block as in ViT: layer norm, heads, GELU, biases everywhere; the first token is read.

VIT = {
    "q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH),
    "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH), "head": (WIDTH, 3),
}  # fmt: skip
VIT_BIASES = {f"{name}_bias": shape[1:] for name, shape in VIT.items()} | {
    "shift1": (WIDTH,),
    "shift2": (WIDTH,),
}
VIT_HEADS = 2


def vit(p, x, hold=lambda weights: weights):
    def layer_norm(x, scale, shift):
        centered = x - x.mean(-1, keepdims=True)
        return (
            centered * jax.lax.rsqrt(jnp.mean(centered**2, -1, keepdims=True) + NORM_EPSILON) * scale + shift
        )

    def dense(x, name):
        return x @ p[name] + p[f"{name}_bias"]

    y = layer_norm(x, p["scale1"], p["shift1"])
    q, k, v = (heads_of(dense(y, name), VIT_HEADS) for name in "qkv")
    weights = hold(jax.nn.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(WIDTH // VIT_HEADS)))
    x = x + dense(joined(weights @ v), "o")
    x = x + dense(jax.nn.gelu(dense(layer_norm(x, p["scale2"], p["shift2"]), "up")), "down")
    return dense(x[0], "head")


def vit_relevance(p, x, target):
    def layer_norm(x, scale, shift):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + NORM_EPSILON
        ) * scale + shift

    def dense(x, name):
        return x @ p[name] + p[f"{name}_bias"]

    normed = layer_norm(x, p["scale1"], p["shift1"])
    q, k, v = (dense(normed, name) for name in "qkv")
    queries, keys, values = (heads_of(a, VIT_HEADS) for a in (q, k, v))
    keys = keys.swapaxes(-1, -2)
    scores = queries @ keys / np.sqrt(WIDTH // VIT_HEADS)
    weights = softmax(scores)
    mixed = joined(weights @ values)
    attended = dense(mixed, "o")
    middle = x + attended
    normed2 = layer_norm(middle, p["scale2"], p["shift2"])
    hidden = dense(normed2, "up")
    activated = np.asarray(jax.nn.gelu(hidden))
    fed = dense(activated, "down")
    last = middle + fed
    logits = dense(last[0], "head")

    r_logits = np.zeros(3)
    r_logits[target] = logits[target]
    r = np.zeros_like(x)
    r[0] = of_dense(r_logits, last[0], p["head"], logits)
    r_middle, r_fed = of_sum(r, middle, fed)
    r_hidden = of_dense(r_fed, activated, p["down"], fed)
    r_normed = of_dense(r_hidden, normed2, p["up"], hidden)
    r_middle += of_layer_norm(r_normed, middle, p["scale2"], normed2)
    r_x, r_attended = of_sum(r_middle, x, attended)
    r_mixed = heads_of(of_dense(r_attended, mixed, p["o"], attended), VIT_HEADS)
    r_weights, r_values = of_matrix_product(r_mixed, weights, values)
    r_queries, r_keys = of_matrix_product(of_softmax(r_weights, scores, weights), queries, keys)
    parts = ((r_queries, "q", q), (r_keys.swapaxes(-1, -2), "k", k), (r_values, "v", v))
    r_normed = sum(of_dense(joined(r), normed, p[name], z) for r, name, z in parts)
    return r_x + of_layer_norm(r_normed, x, p["scale1"], normed)


BLOCKS = {"llama": (llama, llama_relevance, LLAMA), "vit": (vit, vit_relevance, VIT | VIT_BIASES)}


@pytest.mark.parametrize("name", BLOCKS)
def test_lrp_of_a_transformer_block_is_that_of_the_published_rules(name):
    model, relevance, shapes = BLOCKS[name]
    p, x = random_weights(shapes)
    with in_precision(np.float64):
        weights = jax.tree.map(jnp.asarray, p)
        values = attribution.lrp(jax.tree_util.Partial(model, weights), jnp.asarray(x), 1)
        expected = relevance(p, x, 1)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
