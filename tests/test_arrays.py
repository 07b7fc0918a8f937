"""Data as they come: data frames, tensors, other byte orders, read-only arrays, files, and no rows at all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn
from jaxnn import _checks, attacks, attribution, datasets, losses, plot, rules

pytestmark = pytest.mark.optimized

KEY = jax.random.key(0)
NET = jaxnn.init(KEY, (4, 5, 3), activation="relu", output_activation="identity")
X = np.random.default_rng(0).uniform(0.1, 0.9, (8, 4)).astype(np.float32)
Y = np.asarray(jax.vmap(NET)(X).argmax(1), np.int64)
SGD = {"epochs": 2, "optimizer": optax.sgd(0.1)}


class Tensor:
    """An array of another library, such as PyTorch's: it has `__array__`, and a dtype of its own."""

    def __init__(self, array):
        self.array, self.dtype, self.shape, self.ndim = array, "torch.of_its_own", array.shape, array.ndim

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return Tensor(np.asarray(self.array[index]))


def _big_endian(array):
    return array.astype(array.dtype.newbyteorder(">"))


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def _pandas(array):
    pd = pytest.importorskip("pandas")
    return (
        pd.DataFrame(array, columns=list("abcd")[: array.shape[1]]) if array.ndim == 2 else pd.Series(array)
    )


def _wide(array):
    return array.astype(np.longdouble) if array.dtype == np.float32 else array


KINDS = {
    "tensor": Tensor,
    "big-endian": _big_endian,
    "read-only": _read_only,
    "pandas": _pandas,
    "long double": _wide,
}
# Entries that take one example, and those that take a set: each as a function of what to make of its arrays.
ONE = {
    "saliency": lambda f: attribution.saliency(NET, f(X[0]), f(Y)[1]),
    "integrated_gradients": lambda f: attribution.integrated_gradients(NET, f(X[0]), 1, baseline=f(X[1])),
    "deep_lift": lambda f: attribution.deep_lift(NET, f(X[0]), 1, baseline=f(X[1])),
    "feature_ablation": lambda f: attribution.feature_ablation(
        NET, f(X[0]), 1, baseline=f(X[1]), groups=f(np.array([0, 0, 1, 2]))
    ),
    "capture": lambda f: jaxnn.capture(NET, f(X[0]))[1]["hidden_0"],
    "query": lambda f: jaxnn.query(NET, f(X)),
    "fgsm": lambda f: attacks.fgsm(NET, f(X[0]), f(Y)[0], epsilon=0.1, bounds=(f(0 * X[0]), 1.0)).input,
    "linear_region": lambda f: rules.linear_region(NET, f(X[0])).kernel,
    "losses": lambda f: losses.cross_entropy(f(X[0]), f(Y)[1]) + losses.squared_error(f(X[0]), f(X[1])),
    "encode_labels": lambda f: datasets.encode_labels(f(Y), 3),
    "Rule": lambda f: rules.anchor(NET, X[0], X, key=KEY, n_samples=50).rule(f(X[0])),
    "plot": lambda f: plot.attribution(f(X)).images[0].get_array(),
}
SETS = {
    "expected_gradients": lambda f: attribution.expected_gradients(
        NET, f(X[0]), 1, baselines=f(X), key=KEY, n_samples=4
    ),
    "deep_lift_shap": lambda f: attribution.deep_lift_shap(NET, f(X[0]), 1, baselines=f(X)),
    "permutation_importance": lambda f: attribution.permutation_importance(
        NET, f(X), f(Y), loss=losses.cross_entropy, key=KEY
    ),
    "map_examples": lambda f: jaxnn.map_examples(
        lambda x, y: NET(x["x"]) + y, {"x": f(X)}, f(Y), batch_size=3
    ),
    "map_examples, traced": lambda f: jax.jit(
        lambda network: jaxnn.map_examples(network, f(X), batch_size=3)
    )(NET),
    "train": lambda f: (
        jaxnn.train(
            NET, f(X), f(Y), **SGD, batch_size=4, key=KEY, loss=losses.cross_entropy, validation=(f(X), f(Y))
        )[1].loss
    ),
    "train in batches": lambda f: jaxnn.train(NET, [(f(X), f(X[:, :3]))], **SGD)[1].loss,
    "universal": lambda f: attacks.universal(NET, f(X), f(Y), epsilon=0.1, key=KEY, batch_size=4).change,
    "robust_accuracy": lambda f: attacks.robust_accuracy(
        NET, f(X), f(Y), attacks.fgsm, f(np.array([0.0, 0.1])), batch_size=4, key=KEY
    ),
    "distill_tree": lambda f: (
        rules.distill_tree(NET, f(X), held_out=f(X), held_out_labels=f(Y), key=KEY, n_samples=50).fidelity
    ),
    "trepan": lambda f: rules.trepan(NET, f(X), held_out=f(X), key=KEY, n_samples=50).fidelity,
    "rule_list": lambda f: rules.rule_list(NET, f(X), held_out=f(X), key=KEY, n_samples=50).fidelity,
    "anchor": lambda f: rules.anchor(NET, f(X[0]), f(X), key=KEY, n_samples=50).bound,
}


@pytest.mark.parametrize("name", ONE | SETS)
def test_every_entry_takes_them(name):
    entry = (ONE | SETS)[name]
    expected = entry(lambda array: array)
    for kind, convert in KINDS.items():
        np.testing.assert_allclose(entry(convert), expected, rtol=1e-6, atol=1e-7, err_msg=kind)


def _text(array):
    return array.astype(str)


def _objects(array):
    return array.astype(object)


ADVICE = r"must be an array of numbers; got .*astype\(float\).*numpy.unique"


@pytest.mark.parametrize("name", SETS)
def test_text_and_no_rows_have_one_error_each(name):
    """Each names an argument; the set alone is empty, or not of numbers."""
    for convert in (_text, _objects):
        with pytest.raises(TypeError, match=r"`[a-z]+(\[.*\]| of batch 1)?` " + ADVICE):
            SETS[name](lambda array, convert=convert: convert(array) if array is X else array)
    with pytest.raises(
        ValueError, match=r"must hold (the same number of )?examples, at least [12], along a f"
    ):
        SETS[name](lambda array: array[:0] if array.ndim == 2 or array is Y else array)


@pytest.mark.parametrize("name", SETS)
def test_the_columns_that_are_not_numbers_are_named(name):
    pd = pytest.importorskip("pandas")

    def convert(array):
        if array is not X:
            return array
        frame = pd.DataFrame(array, columns=list("abcd"))
        return frame.assign(city="Bern", b=pd.Categorical(["u", "v"] * 4))

    message = (
        r"` must hold numbers; got the columns 'b' \(dtype category\), 'city' \(dtype \w+\)\. Drop or enc"
    )
    with pytest.raises(TypeError, match=message):
        SETS[name](convert)


def test_a_frame_of_numbers_and_booleans_is_of_their_common_dtype():
    """As `pandas.get_dummies` makes one; the order of the columns is kept where two have one name."""
    pd = pytest.importorskip("pandas")
    data = np.array([[0.5, 1, 0, 3], [1.5, 0, 1, 4]], np.float32)
    parts = [data[:, 0], data[:, 1].astype(bool), data[:, 2].astype(bool), data[:, 3].astype(int)]
    frame = pd.concat([pd.Series(part) for part in parts], axis=1)
    frame.columns = ["a", "b", "b", "a"]
    assert frame.to_numpy().dtype == object
    np.testing.assert_allclose(jaxnn.query(NET, frame), jaxnn.query(NET, data), rtol=1e-6)
    missing = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [True, False]})
    np.testing.assert_array_equal(_checks.check_array("x", missing), [[1, 1], [np.nan, 0]])


@pytest.mark.parametrize("kind", ["tensor", "big-endian", "read-only", "pandas"])
def test_integers_stay_integers(kind):
    table = jnp.arange(20.0)

    def model(x):
        assert x.dtype == jnp.int32
        return table[x].sum()

    ids = KINDS[kind](np.array([3, 1, 4]))
    found = attribution.feature_ablation(model, ids, baseline=KINDS[kind](np.array([1, 1, 1])))
    np.testing.assert_array_equal(found, [2, 0, 3])


def test_columns_are_the_names_of_the_features():
    pd = pytest.importorskip("pandas")
    model = lambda x: jnp.stack([0.5 - x[2], x[2] - 0.5])  # noqa: E731
    learn = functools.partial(rules.distill_tree, model, held_out=X, key=KEY, max_depth=1, n_samples=50)
    assert "if area <= " in learn(pd.DataFrame(X, columns=["width", "height", "area", "age"])).text
    assert "if x_2 <= " in learn(pd.DataFrame(X)).text
    assert "if given <= " in learn(pd.DataFrame(X), names=["a", "b", "given", "d"]).text


def test_a_file_in_another_byte_order_is_converted_in_batches(tmp_path):
    """It may be larger than the memory."""
    _big_endian(X).tofile(tmp_path / "x")
    lengths = []

    class File(np.memmap):
        def astype(self, *args, **kwargs):
            lengths.append(len(self))
            return super().astype(*args, **kwargs)

    file = File(tmp_path / "x", ">f4", "r", shape=X.shape)
    found = jaxnn.map_examples(NET, file, batch_size=3)
    np.testing.assert_allclose(found, jax.vmap(NET)(X), rtol=1e-6, atol=1e-7)
    assert max(lengths) == 3
    # Where all data are copied to the device anyway, the whole file is.
    np.testing.assert_allclose(
        jaxnn.train(NET, file, X[:, :3], **SGD, batch_size=4, key=KEY)[1].loss,
        jaxnn.train(NET, X, X[:, :3], **SGD, batch_size=4, key=KEY)[1].loss,
    )


def test_what_does_not_become_an_array_says_why():
    class Graph(Tensor):
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy()")

    with pytest.raises(TypeError, match=r"`x` must become an array of numbers; a Graph gave: .*detach\(\)"):
        attribution.saliency(NET, Graph(X[0]), 1)
    with pytest.raises(TypeError, match=r"`baselines` must become an array"):
        attribution.deep_lift_shap(NET, X[0], 1, baselines=Graph(X))


@pytest.mark.parametrize("values", [[Tensor(X[0]), Tensor(X[1])], [_big_endian(X[0]), X[1]]])
def test_lists_of_them(values):
    np.testing.assert_array_equal(_checks.check_array("x", values), X[:2])


def test_weights_and_keys_of_another_library_are_named():
    network = jaxnn.Network((jaxnn.Dense(Tensor(X), None, "identity"),))
    with pytest.raises(
        TypeError, match=r"`network` must be a pytree of arrays; its leaf .*kernel is a Tensor"
    ):
        jaxnn.query(network, X[0])
    with pytest.raises(TypeError, match="`key` must be one random key"):
        attribution.smooth_grad(NET, X[0], 1, key=Tensor(np.zeros(2, np.uint32)))
