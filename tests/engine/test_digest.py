"""The digest of a computation: equal for the same one, another for another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn._engine.digest import _describe, digest
from tests.conftest import that_promotes

X = jax.ShapeDtypeStruct((3,), jnp.float32)


def scaled(factor):
    return jax.jit(lambda x: jnp.tanh(factor * x))


def looped(length):
    return lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length)[0]


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (scaled, 2.0, 2.0000002),  # a literal, inside of a call
        (scaled, np.arange(3.0), np.array([0.0, 1.0, 2.5])),  # a constant
        (looped, 3, 4),  # a parameter
        (lambda power: lambda x: x**power, 2, 3),
        (lambda axis: lambda x: jnp.flip(jnp.outer(x, x), axis), 0, 1),
        (lambda order: lambda x: (x[0] - x[1]) if order else (x[1] - x[0]), True, False),  # the operands
    ],
)
def test_it_differs_where_the_computation_does(make, one, other):
    assert digest(make(one), X) == digest(make(one), X)
    assert digest(make(one), X) != digest(make(other), X)


def test_names_and_placement_do_not_count():
    def f(x):
        return jnp.sin(x)

    def g(y):
        return jnp.sin(y)

    assert digest(jax.jit(f), X) == digest(jax.jit(g), X)
    placed = jax.device_put(jnp.ones(3), jax.devices()[-1])
    assert digest(lambda x: x + placed, X) == digest(lambda x: x + np.ones(3, placed.dtype), X)


def test_sets_and_maps_have_one_order():
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)
    assert _describe({"b": 1, "a": one}) == _describe({"a": other, "b": 1})


def test_a_custom_derivative_counts():
    def clipped(slope):
        @jax.custom_vjp
        def f(x):
            return jnp.sum(x)

        f.defvjp(lambda x: (jnp.sum(x), x.shape), lambda shape, g: (jnp.full(shape, slope * g),))
        return jax.value_and_grad(f)

    assert digest(clipped(1.0), X) != digest(clipped(2.0), X)


def test_optimizers():
    @that_promotes  # as Optax's schedules do
    def update(optimizer):
        return digest(lambda g: optimizer.update(g, optimizer.init(g), g), X)

    schedules = [optax.exponential_decay(0.1, 10, rate) for rate in (0.5, 0.6)]
    optimizers = [optax.adam(0.1), optax.adam(1.0), optax.adamw(0.1), optax.nadam(0.1), optax.sgd(0.1)]
    optimizers += [optax.sgd(schedule) for schedule in schedules]
    assert len({update(optimizer) for optimizer in optimizers}) == len(optimizers)
    assert update(optax.adam(0.1)) == update(optimizers[0])
