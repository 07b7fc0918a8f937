"""Long scans are walked back as loops, with the numbers of the unrolled walk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import jaxnn
from jaxnn import attribution
from jaxnn._engine import scans

RNG = np.random.default_rng(0)
W, U, V = (np.abs(RNG.normal(0.2, 0.5, shape)) for shape in ((3, 4), (4, 4), (4, 2)))
X = RNG.normal(0.4, 1, (9, 3))
GATES = RNG.normal(0.2, 0.5, (12, 4, 4))


def _vanilla(x):
    last, every = lax.scan(lambda h, row: (jax.nn.relu(h @ U + row @ W) - 0.1 * h, h), jnp.zeros(4), x)
    return (last + every.mean(0)) @ V


def _reversed(x):
    step = lambda h, row: (jnp.tanh(h @ U + row @ W), jax.nn.relu(h * h.sum()))  # noqa: E731
    return lax.scan(step, x[0] @ W, x, reverse=True)[1].sum(0) @ V


def _of_constants(x):
    """The input is a constant of the loop; the weights are its rows."""
    h = lax.scan(lambda h, w: (jax.nn.relu(h @ w + x[0] @ W) + 0.5 * h, None), x[1] @ W, GATES)[0]
    return h @ V


def _counted(x):
    """An integer in the carry, which does not depend on the input, chooses the weights and a scale."""

    def step(carry, row):
        i, h = carry
        h = jax.nn.relu(h @ jnp.asarray(GATES)[i] + row @ W) * jnp.where(i % 2 == 0, 1.0, 0.7)
        return (i + 1, h), i

    return lax.scan(step, (0, jnp.ones(4)), x)[0][1] @ V


def _attention(x):
    """A softmax over a memory and a normalization inside of the body."""

    def step(h, row):
        weights = jax.nn.softmax(x @ W @ h)
        h = h + (weights @ (x @ W)) * 0.5 + row @ W
        return (h - h.mean()) * lax.rsqrt(jnp.var(h) + 1e-2), None

    return lax.scan(step, jnp.ones(4), x)[0] @ V


def _nested(x):
    def outer(h, row):
        step = lambda h, _: (jax.nn.relu(0.3 * h @ U + 0.2 * row @ W - 0.1), None)  # noqa: E731
        h = lax.scan(step, h, None, length=8)[0]
        return jnp.tanh(h), None

    return lax.scan(outer, jnp.ones(4), x[:5])[0] @ V


def _decayed(x):
    """A carry and an output that do not depend on the input: constants of a product after the loop."""
    step = jax.jit(lambda c, row: ((jax.nn.relu(c[0] @ U + row @ W), c[1] * 0.9, c[2] + 1), (c[0], c[1])))
    (h, _, count), (every, decay) = lax.scan(step, (jnp.zeros(4), 1.0, 0), x)
    return (decay[:, None] * every).sum(0) @ V + (h / count) @ V


def _shifted(x):
    """The body begins with an affine map of its carry, as a pre-activation layer does."""
    return lax.scan(lambda h, row: (jnp.tanh(row @ W) * (0.5 * h + 1), None), jnp.zeros(4), x)[0] @ V


def _normed(x):
    """A normalizer of the whole input is a constant of the loop."""
    scale = lax.rsqrt(jnp.mean(x**2) + 1e-6)
    return lax.scan(lambda h, row: (jnp.tanh(h @ U + (row * scale) @ W), None), jnp.zeros(4), x)[0] @ V


def _complex(x):
    turn = 0.9 * jnp.exp(1j * jnp.arange(4, dtype=complex))

    def step(h, row):
        h = turn * h + (row @ W).astype(complex)
        return h, h.real

    return jax.nn.relu(lax.scan(step, jnp.zeros(4, complex), x)[1]).sum(0) @ V


_EVERY = (
    _vanilla,
    _reversed,
    _of_constants,
    _counted,
    _attention,
    _nested,
    _decayed,
    _shifted,
    _normed,
    _complex,
)
MODELS = {each.__name__[1:]: each for each in _EVERY}
METHODS = {
    "deep_lift": lambda f, x: attribution.deep_lift(f, x, 1, baseline=0.1 * x[::-1]),
    "lrp": lambda f, x: attribution.lrp(f, x, 1),
    "lrp gamma": lambda f, x: attribution.lrp(f, x, 1, rule="gamma"),
    "guided_backprop": lambda f, x: attribution.guided_backprop(f, x, 1),
    "deconvnet": lambda f, x: attribution.deconvnet(f, x, 1),
}


SHORT = {
    "deep_lift": ["counted", "normed"],
    "lrp": ["nested", "decayed", "shifted"],
    "guided_backprop": ["reversed"],
}


def _is_short(method, i, name):
    """By default every second body is walked by one of the two methods, in turn, and one body by all."""
    return name == "nested" or (method in ("deep_lift", "lrp") and i % 4 == 2 * (method == "lrp"))


CASES = [
    pytest.param(method, name, marks=() if _is_short(method, i, name) else pytest.mark.long)
    for method in METHODS
    for i, name in enumerate(MODELS)
]


@pytest.mark.parametrize(("method", "name"), CASES)
def test_they_equal_the_unrolled_walk(method, name, monkeypatch):
    """Also at the first steps, where the carry is a constant: half of a product would be given to it."""
    model, results = MODELS[name], []
    with jax.enable_x64():
        for most in (0, 10**9):
            monkeypatch.setattr(scans, "_MOST_UNROLLED", most)
            results.append(METHODS[method](lambda x: model(x), jnp.asarray(X)))
        found, expected = results
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        assert np.abs(expected).max() > 1e-3


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.RNN(nn.OptimizedLSTMCell(8))(x)[:, -1])


def _recurrent(steps):
    x = jax.random.normal(jax.random.key(0), (steps, 5), jnp.float32)
    return jaxnn.from_linen(Recurrent(), Recurrent().init(jax.random.key(1), x[None]), batched=True), x


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("method", ["guided_backprop", "deep_lift", "lrp"])
def test_the_program_does_not_grow_with_the_steps(method):
    def lines(steps):
        function = getattr(attribution, method)
        return len(jax.jit(lambda m, x: function(m, x, 2)).lower(*_recurrent(steps)).as_text().splitlines())

    assert lines(100) == lines(50) < 3000


def test_an_lstm_adds_up():
    model, x = _recurrent(60)
    found = attribution.deep_lift(model, x, 2)
    gap = attribution.completeness_gap(model, x, 2, found)
    assert abs(gap) < 1e-5 * np.abs(found).sum()
    many = jax.jit(jax.vmap(lambda x: attribution.deep_lift(model, x, 2)))(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(many[0], found, atol=1e-6)
    np.testing.assert_allclose(many[1], attribution.deep_lift(model, 2 * x, 2), atol=1e-6)


def test_the_walk_has_a_derivative():
    with jax.enable_x64():
        x, direction = jnp.asarray(np.tile(X, (8, 1))), np.tile(X[:, ::-1], (8, 1)) / 10
        total = lambda x: (attribution.deep_lift(_vanilla, x, 1, baseline=0.1)[5:9] ** 2).sum()  # noqa: E731
        found = jnp.vdot(jax.grad(total)(x), direction)
        step = 1e-6
        expected = (total(x + step * direction) - total(x - step * direction)) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_a_body_refuses_is_named():
    step = lambda h, row: (lax.cumlogsumexp(h + row), None)  # noqa: E731
    with pytest.raises(NotImplementedError, match="deep_lift has no rule for the primitive 'cumlogsumexp'"):
        attribution.deep_lift(lambda x: lax.scan(step, jnp.zeros(3), jnp.tile(x, (99, 1)))[0].sum(), X)
    branch = lambda h, row: (jnp.tanh(lax.cond(row[0] > 0, jnp.sin, jnp.cos, h)), None)  # noqa: E731
    with pytest.raises(NotImplementedError, match="'cond'"):
        attribution.deep_lift(lambda x: lax.scan(branch, 0.0, x)[0], X)
