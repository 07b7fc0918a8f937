"""Attributions in pandas, xarray and shap: the same numbers, with names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import attribution

TABLE = np.array([[0.5, -1.0, 0.25], [0.25, 2.0, -0.5]], np.float32)
NAMES = ["age", "dose", "size"]


def test_a_data_frame_has_names_and_an_index():
    pandas = pytest.importorskip("pandas")
    data = pandas.DataFrame(TABLE, columns=NAMES, index=["x", "y"])
    frame = attribution.to_pandas(jnp.asarray(TABLE), names=data.columns, index=data.index)
    assert frame.loc["y", "dose"] == 2.0
    assert frame.dtypes.tolist() == [np.float32] * 3
    assert attribution.to_pandas(TABLE[0]).shape == (1, 3)
    assert attribution.to_pandas(jnp.asarray(TABLE, jnp.bfloat16)).dtypes.tolist() == [np.float32] * 3


def test_a_data_array_has_dimensions_and_coordinates():
    pytest.importorskip("xarray")
    array = attribution.to_xarray(TABLE, ("patient", "feature"), coords={"feature": NAMES}, name="a")
    assert (array.name, array.dims) == ("a", ("patient", "feature"))
    np.testing.assert_array_equal(array.sel(feature="dose"), TABLE[:, 1])


def test_shap_draws_them():
    shap = pytest.importorskip("shap", reason="shap is an extra that the tests do not install")
    import matplotlib.pyplot as plt

    x = np.arange(6.0).reshape(2, 3)
    found = attribution.to_shap(TABLE, x, base_value=0.1, names=NAMES)
    np.testing.assert_array_equal(found.values, TABLE)
    np.testing.assert_array_equal(found[1].data, x[1])
    assert found.base_values.tolist() == pytest.approx([0.1, 0.1])
    assert found.feature_names == NAMES
    shap.plots.waterfall(found[0], show=False)
    shap.plots.beeswarm(found, show=False)
    plt.close("all")
    assert attribution.to_shap(TABLE[0], x[0], base_value=2).base_values == 2.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: attribution.to_pandas(np.ones((2, 2, 2))),
            ValueError,
            "`attributions` must have 1 or 2",
        ),
        (lambda: attribution.to_pandas(TABLE, names=["a"]), ValueError, "`names` must hold 3 labels"),
        (lambda: attribution.to_pandas(TABLE, index="ab"), ValueError, "`index` must hold 2 labels"),
        (
            lambda: attribution.to_xarray(TABLE, "ab"),
            ValueError,
            "`dims` must hold a name for each of 2",
        ),
        (lambda: attribution.to_pandas("text"), TypeError, "`attributions`"),
        (
            lambda: jax.jit(lambda a: attribution.to_pandas(a).shape)(TABLE),
            TypeError,
            "`attributions` must be a concrete array",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_shapes_of_shap_must_fit():
    pytest.importorskip("shap", reason="shap is an extra that the tests do not install")
    with pytest.raises(ValueError, match="`x`"):
        attribution.to_shap(TABLE, TABLE[0], base_value=0.0)
    with pytest.raises(ValueError, match="`base_value`"):
        attribution.to_shap(TABLE, TABLE, base_value=[0.0, 1.0, 2.0])
