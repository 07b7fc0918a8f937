"""LRP against lxt, AttnLRP by its authors: transformer blocks on equal weights, in float64.

The blocks are those of tests/attribution/test_attention_lrp.py, here built from the rules of lxt. Its epsilon
has no sign, `z + eps` for any `z`: both libraries get a small one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
lf = pytest.importorskip("lxt.explicit.functional")

from lxt.explicit import rules  # noqa: E402

from jaxnn import attribution  # noqa: E402
from tests.attribution import test_attention_lrp as blocks  # noqa: E402
from tests.conftest import in_precision  # noqa: E402

EPSILON = 1e-10
TARGET = 1


def linear(x, w, b=None):
    return lf.linear_epsilon(x, w.T, b, EPSILON)


def added(a, b):
    return lf.add2(a, b, False, EPSILON)


def matmul(a, b):
    return lf.matmul(a, b, False, EPSILON)


def layer_norm(x, scale, shift):  # `lf.layer_norm` has a fixed epsilon
    return lf.layer_norm_grad_fn.apply(x, scale, shift, blocks.NORM_EPSILON, EPSILON)


def rms_norm(x, scale):  # `lf.rms_norm_identity` computes in float32
    normalize = torch.nn.functional.rms_norm
    return rules.identity(lambda x: normalize(x, x.shape[-1:], scale, blocks.NORM_EPSILON), x)


def heads_of(y, n):
    return y.reshape(len(y), n, -1).transpose(0, 1)


def joined(y):
    return y.transpose(0, 1).reshape(y.shape[1], -1)


def llama(p, x):
    cos, sin = torch.tensor(blocks.COS), torch.tensor(blocks.SIN)

    def rotated(y):
        a, b = y[..., : blocks.HALF], y[..., blocks.HALF :]
        first = added(lf.mul2(a, cos), lf.mul2(b, -sin))
        return torch.cat([first, added(lf.mul2(a, sin), lf.mul2(b, cos))], -1)

    y = rms_norm(x, p["scale1"])
    q = rotated(heads_of(linear(y, p["q"]), blocks.HEADS))
    k = rotated(heads_of(linear(y, p["k"]), blocks.KEY_HEADS))
    v = heads_of(linear(y, p["v"]), blocks.KEY_HEADS)
    k, v = (a.repeat_interleave(blocks.REPEATS, 0) for a in (k, v))
    scores = lf.mul2(matmul(q, k.transpose(-1, -2)), blocks.PER_HEAD**-0.5)
    weights = lf.softmax(scores.masked_fill(~torch.tensor(blocks.CAUSAL), -torch.inf), -1)
    x = added(x, linear(joined(matmul(weights, v)), p["o"]))
    y = rms_norm(x, p["scale2"])
    gate = rules.identity(torch.nn.functional.silu, linear(y, p["gate"]))
    x = added(x, linear(lf.mul2(gate, linear(y, p["up"])), p["down"]))
    return linear(x[-1:], p["head"])[0]


def vit(p, x, hold):
    def dense(x, name):
        return linear(x, p[name], p[f"{name}_bias"])

    y = layer_norm(x, p["scale1"], p["shift1"])
    q, k, v = (heads_of(dense(y, name), blocks.VIT_HEADS) for name in "qkv")
    scores = lf.mul2(matmul(q, k.transpose(-1, -2)), (blocks.WIDTH // blocks.VIT_HEADS) ** -0.5)
    weights = lf.softmax(scores, -1)
    mixed = rules.epsilon_lrp(torch.matmul, EPSILON, weights.detach(), v) if hold else matmul(weights, v)
    x = added(x, dense(joined(mixed), "o"))
    gelu = functools.partial(torch.nn.functional.gelu, approximate="tanh")
    hidden = rules.identity(gelu, dense(layer_norm(x, p["scale2"], p["shift2"]), "up"))
    return dense(added(x, dense(hidden, "down"))[:1], "head")[0]


VIT = blocks.VIT | blocks.VIT_BIASES
held_vit = functools.partial(blocks.vit, hold=jax.lax.stop_gradient)
CASES = {
    "llama": (blocks.llama, llama, blocks.LLAMA),
    "vit": (blocks.vit, functools.partial(vit, hold=False), VIT),
    "vit by CP-LRP": (held_vit, functools.partial(vit, hold=True), VIT),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_lrp_of_a_transformer_block(name, seed):
    ours, theirs, shapes = CASES[name]
    p, x = blocks.random_weights(shapes, seed)
    value = torch.tensor(x, requires_grad=True)
    logit = theirs(jax.tree.map(torch.tensor, p), value)[TARGET]
    expected = torch.autograd.grad(logit, value, logit.detach())[0].numpy()
    with in_precision(np.float64):
        model = jax.tree_util.Partial(ours, jax.tree.map(jnp.asarray, p))
        np.testing.assert_allclose(model(jnp.asarray(x))[TARGET], logit.item(), rtol=1e-12)
        values = np.asarray(attribution.lrp(model, x, TARGET, epsilon=EPSILON, stabilizer=EPSILON))
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
