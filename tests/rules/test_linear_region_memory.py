"""linear_region without its normals: the same map and distances, in memory that does not grow with both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxnn
from jaxnn import rules
from jaxnn.rules import _region
from tests.conftest import in_precision

pytestmark = pytest.mark.optimized


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (16, 16, 16, 16):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
        return nn.Dense(10)(x.mean((0, 1)))


def convolutions(side):
    x = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
    example = jnp.ones(x.shape)
    return jaxnn.from_linen(Convolutions(), Convolutions().init(jax.random.key(0), example)), x


def without_normals(model, x):
    return rules.linear_region(model, x, normals=False)


def temporary_bytes(side):
    compiled = jax.jit(without_normals).lower(*convolutions(side)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_kinks_times_inputs():
    small, large = temporary_bytes(16), temporary_bytes(32)
    assert small < 40 * 2**20  # the normals alone take 50 MB, and at the next size 805 MB
    assert large < 60 * 2**20


def test_many_normals_are_refused_before_any_computation():
    model, x = convolutions(64)
    message = "`normals` would take 12.0 GiB, for 262,144 kinks and 12,288 inputs; `normals=False`"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(rules.linear_region, model, x)
    asked = jax.eval_shape(lambda m, x: rules.linear_region(m, x, normals=True), model, x)
    assert asked.normals.shape == (262_144, 12_288)
    left_out = jax.eval_shape(without_normals, model, x)
    assert left_out.normals is None
    assert left_out.offsets is None
    assert left_out.kernel.shape == (12_288, 10)


SHAPES = {"columns": (6, 50, 40, 3), "rows": (90, 20, 10, 3), "affine": (200, 3)}
SHORT = {("columns", 30), ("rows", 1), ("affine", 10_000)}


@pytest.mark.parametrize(
    ("shape", "values_at_once"),
    [
        pytest.param(shape, at_once, marks=() if (shape, at_once) in SHORT else pytest.mark.long)
        for shape in SHAPES
        for at_once in (1, 30, 10_000)
    ],
)
def test_chunks_do_not_change_the_region(shape, values_at_once, monkeypatch):
    sizes = SHAPES[shape]
    with in_precision("float64"):
        monkeypatch.setattr(_region, "_CHUNK", 8 * values_at_once * max(sizes))
        network = jaxnn.init(
            jax.random.key(0), sizes, activation="relu", output_activation="identity", dtype=float
        )
        x = jax.random.normal(jax.random.key(1), sizes[:1], float)
        # Other functions at each size of a chunk: it is read when they are traced.
        region, kept = (
            jax.jit(lambda m, x, n=n: _region._linear_region.__wrapped__(m, x, keep=n))(network, x)
            for n in (False, None)
        )

        def gaps(x):
            values = jaxnn.capture(network, x)[1]
            return jnp.concatenate([values[f"hidden_{i}_in"] for i in range(len(sizes) - 2)] + [x[:0]])

        normals = jax.jacobian(gaps)(x)
        nearest = jnp.abs(gaps(x)) / jnp.abs(normals).sum(axis=1)
        closest = jnp.abs(gaps(x)) / jnp.linalg.norm(normals, axis=1)
        for each in (region, kept):
            np.testing.assert_allclose(each.kernel, jax.jacobian(network)(x).T, rtol=1e-12)
            np.testing.assert_allclose(each.bias + x @ each.kernel, network(x), rtol=1e-12)
            np.testing.assert_allclose(each.radius, jnp.min(nearest, initial=jnp.inf), rtol=1e-12)
            np.testing.assert_allclose(each.distance, jnp.min(closest, initial=jnp.inf), rtol=1e-12)
        np.testing.assert_allclose(jnp.abs(kept.normals), jnp.abs(normals), atol=1e-12)
        assert bool(jnp.all(kept.normals @ x <= kept.offsets))


def test_the_gradient_of_the_radius_without_normals():
    network = jaxnn.init(jax.random.key(0), (6, 20, 3), activation="relu", output_activation="identity")
    x = jnp.linspace(-1, 1, 6)
    kept, left_out = (
        jax.grad(lambda x, n=n: rules.linear_region(network, x, normals=n).radius)(x) for n in (True, False)
    )
    assert np.abs(kept).max() > 0
    np.testing.assert_allclose(left_out, kept, rtol=1e-5)
