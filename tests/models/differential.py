"""Differential equations by fixed and by adaptive steps, and fixed points."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.ode import odeint

from tests.models.common import case, from_equinox, from_linen, from_nnx, normal

WIDTH = 4


class Field(eqx.Module):
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.inner, self.outer = eqx.nn.Linear(WIDTH, 8, key=a), eqx.nn.Linear(8, WIDTH, key=b)

    def __call__(self, y):
        return self.outer(jnp.tanh(self.inner(y)))


class Euler(nn.Module):
    """Twenty Euler steps: a residual network whose layers share their weights."""

    @nn.compact
    def __call__(self, x):
        inner, outer = nn.Dense(8, name="inner"), nn.Dense(WIDTH, name="outer")
        y = nn.Dense(WIDTH)(x)
        for module in (inner, outer):
            module(jnp.zeros(WIDTH if module is inner else 8))  # parameters, outside of the loop
        variables = [{"params": dict(module.variables["params"])} for module in (inner, outer)]

        def step(y, _):
            hidden = jnp.tanh(nn.Dense(8).apply(variables[0], y))
            return y + 0.05 * nn.Dense(WIDTH).apply(variables[1], hidden), None

        y, _ = jax.lax.scan(step, y, None, length=20)
        return nn.Dense(3)(y)


@case("ode", "linen", layer="Dense_0", smooth=True)
def euler_linen():
    return from_linen(Euler(), normal(90, 5))


class RungeKutta(eqx.Module):
    field: Field
    inward: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.field = Field(a)
        self.inward, self.head = eqx.nn.Linear(5, WIDTH, key=b), eqx.nn.Linear(WIDTH, 3, key=c)

    def __call__(self, x):
        h, f = 0.1, self.field

        def step(y, _):
            k1 = f(y)
            k2 = f(y + h / 2 * k1)
            k3 = f(y + h / 2 * k2)
            k4 = f(y + h * k3)
            return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        return self.head(jax.lax.scan(step, self.inward(x), None, length=10)[0])


@case("ode", "equinox", layer="inward", smooth=True)
def runge_kutta_equinox():
    return from_equinox(RungeKutta(jax.random.key(15)), normal(91, 5))


class AdaptiveSteps(nn.Module):
    @nn.compact
    def __call__(self, x):
        inner = self.param("inner", nn.initializers.normal(0.5), (WIDTH, WIDTH))
        outer = self.param("outer", nn.initializers.normal(0.5), (WIDTH, WIDTH))

        def field(y, t, inner, outer):
            return jnp.tanh(y @ inner + t) @ outer

        y = odeint(field, nn.Dense(WIDTH)(x), jnp.array([0.0, 1.0]), inner, outer)[-1]
        return nn.Dense(3)(y)


@case("ode", "linen", layer="Dense_0", smooth=True)
def odeint_linen():
    return from_linen(AdaptiveSteps(), normal(92, 5))


class NeuralCDE(eqx.Module):
    """A controlled differential equation, driven by a path that is linear between the observations."""

    inward: eqx.nn.Linear
    field: eqx.nn.MLP
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.inward = eqx.nn.Linear(2, WIDTH, key=a)
        self.field = eqx.nn.MLP(
            WIDTH, WIDTH * 2, 6, 1, activation=jax.nn.softplus, final_activation=jnp.tanh, key=b
        )
        self.head = eqx.nn.Linear(WIDTH, 3, key=c)

    def __call__(self, x):
        def step(y, change):
            return y + self.field(y).reshape(WIDTH, 2) @ change, None

        y, _ = jax.lax.scan(step, self.inward(x[0]), jnp.diff(x, axis=0))
        return self.head(y)


@case("ode", "equinox", smooth=True)
def neural_cde_equinox():
    return from_equinox(NeuralCDE(jax.random.key(16)), 0.5 * normal(93, 20, 2))


class FixedPoint(nnx.Module):
    """An equilibrium layer: `z = tanh(W z + x)`, by thirty iterations."""

    def __init__(self, rngs):
        self.inward = nnx.Linear(5, WIDTH, rngs=rngs)
        self.weights = nnx.Param(normal(94, WIDTH, WIDTH, scale=0.3))
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        u, w = self.inward(x), self.weights[...]
        z = jax.lax.fori_loop(0, 30, lambda _, z: jnp.tanh(z @ w + u), jnp.zeros(WIDTH))
        return self.head(z)


@case("ode", "nnx", layer="inward", smooth=True)
def fixed_point_nnx():
    return from_nnx(FixedPoint(nnx.Rngs(16)), normal(95, 5))


class Leapfrog(nnx.Module):
    """A second-order equation by leapfrog steps, positions and velocities in a pytree."""

    def __init__(self, rngs):
        self.force = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(2 * WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        kernel, bias = self.force.kernel[...], self.force.bias[...]

        def step(_, state):
            position, velocity = state
            velocity = velocity - 0.1 * jnp.sin(position @ kernel + bias)
            return position + 0.1 * velocity, velocity

        return self.head(jnp.concatenate(jax.lax.fori_loop(0, 15, step, (x["position"], x["velocity"]))))


@case("ode", "nnx", smooth=True)
def leapfrog_nnx():
    return from_nnx(Leapfrog(nnx.Rngs(17)), {"position": normal(96, WIDTH), "velocity": normal(97, WIDTH)})
