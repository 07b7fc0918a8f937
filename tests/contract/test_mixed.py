"""Models in mixed precision: arrays in float32, layers and a layer norm that compute in bfloat16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attacks, attribution
from tests.contract.rows import FULL, ROWS, Row
from tests.contract.test_promises import BY_DECISIONS, example


class _Module(nn.Module):
    dtype: object

    @nn.compact
    def __call__(self, x):
        hidden = nn.LayerNorm(dtype=self.dtype)(nn.Dense(20, dtype=self.dtype)(x))
        hidden = jaxnn.tap(nn.sigmoid(hidden), "hidden_0")
        return nn.sigmoid(nn.Dense(3, dtype=self.dtype)(hidden))


def _model(dtype):
    params = _Module(jnp.float32).init(jax.random.key(0), jnp.zeros(100))
    return jaxnn.from_linen(_Module(dtype), params)


# A stabilizer that matters: without one, elements near the mean have relevances that rounding changes.
LRP = {"epsilon": 0.1, "stabilizer": 0.1}
LRP_ROWS = {
    "lrp": Row(lambda n, x: attribution.lrp(n, x, 1, **LRP), (100,)),
    "lrp alpha_beta": Row(lambda n, x: attribution.lrp(n, x, 1, rule="alpha_beta", **LRP), (100,)),
}
# Of the model's dtype: what is of its output or of a layer.
OF_THE_MODEL = {"completeness_gap", "misclassified", "classified_as", "confident", "under_attack"}


def _parameters():
    for name in ROWS:
        function = name.split()[0]
        explains = hasattr(attribution, function) or hasattr(attacks, function)
        if explains and function not in BY_DECISIONS:
            marks = [] if name in FULL and name != "pgd" else [pytest.mark.long]
            yield pytest.param(name, id=name, marks=marks)


@pytest.mark.filterwarnings("ignore:the attributions of:UserWarning")  # of six steps
@pytest.mark.parametrize("name", list(_parameters()))
def test_a_model_in_mixed_precision(name):
    row = (ROWS | LRP_ROWS)[name]
    x = example(row)
    found, exact = (row.call(_model(dtype), x) for dtype in (jnp.bfloat16, jnp.float32))
    of_a_layer = name.startswith(("layer_", "neuron_", "internal_")) and name != "neuron_gradient"
    expected = jnp.bfloat16 if of_a_layer or name in OF_THE_MODEL else jnp.float32
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert a.dtype == expected
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=0.1 * max(0.1, np.abs(b).max()))
