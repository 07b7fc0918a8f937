"""Attacks that ask for answers or decisions only."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attacks
from jaxnn.attacks import _square
from tests.conftest import in_precision

ORDER = {"l2": 2, "linf": np.inf}
norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def _affine(kernel, bias, x):
    return x.ravel() @ kernel + bias


@functools.cache
def _network(seed=0):
    bias = jax.nn.initializers.normal(0.3)
    return jaxnn.init(jax.random.key(seed), (16, 12, 4), activation="tanh", bias_init=bias)


def _inputs(count=8, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, 16)).astype(np.float32)


def _labels(network, x):
    return np.asarray(_answers(network, x)).argmax(axis=1)


@jax.jit
def _answers(network, x):
    return jax.vmap(network)(x)


@functools.partial(jax.jit, static_argnames=("norm", "queries"))
def _squares(network, x, labels, keys, epsilon, low, high, *, norm, queries=60):
    def one(x, label, key):
        return attacks.square(
            network, x, label, epsilon=epsilon, key=key, norm=norm, bounds=(low, high), queries=queries
        )

    return jax.vmap(one)(x, labels, keys)


def _assert_judged(found, network, inputs, labels):
    answers = np.sort(_answers(network, inputs), axis=1)
    clear = answers[:, -1] - answers[:, -2] > 1e-5  # the boundary itself is a matter of rounding
    np.testing.assert_array_equal(found.success[clear], (_labels(network, inputs) != labels)[clear])


@pytest.mark.long("all but the first")
@norms
@hypothesis.settings(max_examples=10)
@hypothesis.given(
    seed=st.integers(0, 1000), epsilon=st.floats(0, 3), low=st.floats(-2, 0), width=st.floats(1, 3)
)
def test_square_stays_in_the_ball_and_the_bounds(norm, seed, epsilon, low, width):
    low, width = np.float32(low), np.float32(width)
    network, x = _network(seed % 5), np.clip(low + width * _inputs(seed=seed), low, low + width)
    labels = _labels(network, x)
    keys = jax.random.split(jax.random.key(seed), 8)
    found = _squares(network, x, labels, keys, np.float32(epsilon), low, low + width, norm=norm)
    inputs = np.asarray(found.input)
    assert inputs.min() >= low
    assert inputs.max() <= low + width
    sizes = np.linalg.norm(inputs - x, ORDER[norm], axis=1)
    assert np.all(sizes <= epsilon + 1e-6)
    np.testing.assert_allclose(found.distance, sizes, rtol=1e-5, atol=1e-7)
    _assert_judged(found, network, inputs, labels)
    assert np.all(found.queries <= 60)


@pytest.mark.long
@norms
def test_square_gets_on(norm):
    """Beyond the nearest boundary of a linear classifier more queries succeed more often."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, (64, 3)).astype(np.float32)
    model = jax.tree_util.Partial(_affine, kernel, np.zeros(3, np.float32))
    x = rng.uniform(-1, 1, (64, 64)).astype(np.float32)
    logits = np.array(jax.vmap(model)(x))
    labels = logits.argmax(axis=1)
    dual = {"linf": 1, "l2": 2}[norm]
    exact = np.array(
        [
            min((z[i] - z[k]) / np.linalg.norm(kernel[:, i] - kernel[:, k], dual) for k in range(3) if k != i)
            for z, i in zip(logits, labels, strict=True)
        ]
    )
    keys = jax.random.split(jax.random.key(0), 64)

    def rate(share, queries):
        call = jax.vmap(
            lambda x, label, key, epsilon: attacks.square(
                model, x, label, epsilon=epsilon, key=key, norm=norm, bounds=(-9.0, 9.0), queries=queries
            )
        )
        return np.mean(call(x, labels, keys, np.float32(share * exact)).success)

    assert rate(0.99, 300) == 0  # no attack can
    assert rate(1.5, 300) > rate(1.5, 5)
    assert rate(3.0, 300) > 0.95


def test_the_bump_is_the_sum_of_equation_2():
    rows, columns = np.arange(9)[:, None], np.arange(9)[None, :]
    expected = np.zeros((9, 9))
    height, width = 7, 3
    n = height // 2
    for r in range(1, height + 1):
        for s in range(1, width + 1):
            most = n - max(abs(r - n - 1), abs(s - width // 2 - 1))
            expected[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(most + 1))
    found = _square._bump(jnp.asarray(rows), jnp.asarray(columns), jnp.asarray(height), jnp.asarray(width))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_squares_shrink_as_published():
    """Of 10,000 queries the share is halved after 10, 50, 200, 1000, ...; of a tenth, after a tenth."""
    sides = [int(_square._side(jnp.float32(0.8), q, 10_000, (28, 28, 1))) for q in (5, 11, 51, 201, 9000)]
    assert sides == [round((0.8 * 784 / 2**i) ** 0.5) for i in (0, 1, 2, 3, 8)]
    assert int(_square._side(jnp.float32(0.8), 101, 1000, (28, 28, 1))) == sides[3] - 3


def test_square_sees_the_picture():
    """The first change of a picture of two channels is one of stripes: the same down each column."""
    model = lambda x: jnp.stack([jnp.float32(1), jnp.float32(0)])  # noqa: E731
    x = jnp.full((4, 5, 2), 0.5)
    found = attacks.square(model, x, 0, epsilon=0.1, key=jax.random.key(1), queries=3)
    change = np.asarray(found.input - x)
    np.testing.assert_allclose(np.abs(change), 0.1, rtol=1e-5)
    np.testing.assert_allclose(change, np.broadcast_to(change[:1], change.shape))
    assert not found.success


@functools.partial(jax.jit, static_argnames=("norm", "queries"))
def _hops(network, x, labels, keys, low, high, *, norm, queries):
    def one(x, label, key):
        return attacks.hop_skip_jump(
            network, x, label, key=key, norm=norm, bounds=(low, high), queries=queries, batch_size=20
        )

    return jax.vmap(one)(x, labels, keys)


@pytest.mark.long
@norms
@hypothesis.settings(max_examples=10)
@hypothesis.given(seed=st.integers(0, 1000), low=st.floats(-2, 0), width=st.floats(1, 3))
def test_hop_skip_jump_stays_in_the_bounds_and_its_queries(norm, seed, low, width):
    low, width = np.float32(low), np.float32(width)
    network, x = _network(seed % 5), np.clip(low + width * _inputs(seed=seed), low, low + width)
    labels = _labels(network, x)
    found = _hops(
        network,
        x,
        labels,
        jax.random.split(jax.random.key(seed), 8),
        low,
        low + width,
        norm=norm,
        queries=200,
    )
    inputs = np.asarray(found.input)
    assert inputs.min() >= low
    assert inputs.max() <= low + width
    sizes = np.linalg.norm(inputs - x, ORDER[norm], axis=1)
    np.testing.assert_allclose(found.distance, sizes, rtol=1e-5, atol=1e-7)
    _assert_judged(found, network, inputs, labels)
    assert np.all(found.queries <= 200)


@pytest.mark.long
@norms
def test_hop_skip_jump_nears_the_hyperplane(norm):
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, (16, 2)).astype(np.float32)
    model = jax.tree_util.Partial(_affine, kernel, np.zeros(2, np.float32))
    x = rng.uniform(-1, 1, (8, 16)).astype(np.float32)
    logits = np.array(jax.vmap(model)(x))
    dual = {"linf": 1, "l2": 2}[norm]
    exact = np.abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(kernel[:, 0] - kernel[:, 1], dual)
    keys = jax.random.split(jax.random.key(0), 8)
    few, many = (
        _hops(model, x, logits.argmax(axis=1), keys, -3.0, 3.0, norm=norm, queries=queries)
        for queries in (300, 4000)
    )
    assert np.all(many.success)
    assert np.all(many.distance >= exact * (1 - 1e-5))
    assert np.median(many.distance / exact) < {"l2": 1.03, "linf": 1.25}[norm]
    assert np.mean(many.distance) < np.mean(few.distance)


@pytest.mark.long
def test_hop_skip_jump_from_a_start_towards_a_target():
    network, x = _network(), _inputs(40)
    labels = _labels(network, x)
    start = x[np.flatnonzero(labels != labels[0])[0]]
    wanted = int(_labels(network, start[None])[0])
    options = {"targeted": True, "key": jax.random.key(2), "queries": 300}
    found = attacks.hop_skip_jump(network, x[0], wanted, start=start, **options)
    assert bool(found.success)
    assert int(jnp.argmax(network(found.input))) == wanted
    assert found.distance < np.linalg.norm(start - x[0])
    fails = attacks.hop_skip_jump(network, x[0], wanted, start=x[0], **options)
    assert not fails.success


@pytest.mark.long
def test_a_start_of_a_pytree():
    network = _network()
    x = _inputs(2)
    model = lambda x: network(jnp.concatenate([x["a"], x["b"]]))  # noqa: E731
    halves = [{"a": row[:4], "b": row[4:]} for row in (x[0], 1 - x[0])]
    label = int(jnp.argmax(model(halves[0])))
    found = attacks.hop_skip_jump(model, halves[0], label, start=halves[1], key=jax.random.key(0), queries=60)
    assert found.input["a"].shape == (4,)
    assert bool(found.success) == bool(jnp.argmax(model(found.input)) != label)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("attack", ["square", "hop_skip_jump"])
def test_what_is_misclassified_stays_where_it_is(attack):
    network, x = _network(), _inputs()[0]
    wrong = (int(jnp.argmax(network(x))) + 1) % 4
    options = {"epsilon": 0.5} if attack == "square" else {}
    found = getattr(attacks, attack)(network, x, wrong, key=jax.random.key(0), queries=100, **options)
    assert bool(found.success)
    assert found.distance == 0


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_dtype_is_kept(dtype):
    with in_precision(dtype):
        network = jax.tree.map(lambda a: jnp.asarray(a, dtype), _network())
        x = jnp.asarray(_inputs()[1], dtype)
        label = int(jnp.argmax(network(x)))
        key = jax.random.key(0)
        for norm in ("l2", "linf"):
            for found in (
                attacks.square(network, x, label, epsilon=0.4, norm=norm, key=key, queries=20),
                attacks.hop_skip_jump(network, x, label, norm=norm, key=key, queries=100),
            ):
                assert found.input.dtype == dtype
                assert found.distance.dtype == dtype
                assert jnp.all((found.input >= 0) & (found.input <= 1))


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: attacks.square(m, x, 0, epsilon=0.1, key=KEY, norm="l1"), ValueError, "`norm`"),
        (lambda m, x: attacks.square(m, x, 0, epsilon=-0.1, key=KEY), ValueError, "`epsilon`"),
        (lambda m, x: attacks.square(m, x, 0, epsilon=0.1, key=None), TypeError, "`key`"),
        (lambda m, x: attacks.square(m, x, 0, epsilon=0.1, key=KEY, queries=2), ValueError, "`queries`"),
        (lambda m, x: attacks.square(m, x, 0, epsilon=0.1, key=KEY, fraction=2), ValueError, "`fraction`"),
        (
            lambda m, x: attacks.square(m, x, 0, epsilon=0.1, key=KEY, image_shape=(3, 5)),
            ValueError,
            "`image_shape`",
        ),
        (lambda m, x: attacks.hop_skip_jump(m, x, 0, key=KEY, norm="l1"), ValueError, "`norm`"),
        (lambda m, x: attacks.hop_skip_jump(m, x, 0, key=KEY, start=x + 3), ValueError, "`start`"),
        (lambda m, x: attacks.hop_skip_jump(m, x, 0, key=KEY, start=x[:3]), ValueError, "`start`"),
        (
            lambda m, x: attacks.hop_skip_jump(m, x, 0, key=KEY, bounds=(0, np.inf)),
            ValueError,
            "`start` must be given",
        ),
        (lambda m, x: attacks.hop_skip_jump(m, x, 0, key=KEY, gamma=0), ValueError, "`gamma`"),
        (lambda m, x: attacks.hop_skip_jump(m, x, 0, key=KEY, queries=5), ValueError, "`queries`"),
        (lambda m, x: attacks.hop_skip_jump(m, x * np.nan, 0, key=KEY), ValueError, "`x`"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(_network(), _inputs()[0])
