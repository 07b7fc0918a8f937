"""One file, whole or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxnn
from tests.conftest import in_precision


@pytest.fixture
def network():
    return jaxnn.init(
        jax.random.key(0), (5, 4, 3), activation="tanh", output_activation="softmax",
        bias_init=jax.nn.initializers.normal(),
    )  # fmt: skip


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_network_comes_back_as_it_was(tmp_path, dtype, use_bias):
    network = jaxnn.init(jax.random.key(0), (5, 4, 3), dtype=dtype, use_bias=use_bias)
    jaxnn.save(tmp_path / "n.jaxnn", network)
    assert_same(jaxnn.load(tmp_path / "n.jaxnn"), network)
    assert_same(jaxnn.load(tmp_path / "n.jaxnn", like=network), network)
    assert [path.name for path in tmp_path.iterdir()] == ["n.jaxnn"]


def test_a_stack_of_networks_comes_back_too(tmp_path):
    keys = jax.random.split(jax.random.key(0), 3)
    stack = jax.vmap(lambda key: jaxnn.init(key, (5, 4, 3)))(keys)
    jaxnn.save(tmp_path / "n.jaxnn", stack)
    assert_same(jaxnn.load(tmp_path / "n.jaxnn"), stack)


@pytest.mark.long
def test_eleven_layers_keep_their_order(tmp_path):
    network = jaxnn.init(jax.random.key(0), (3,) * 12)
    jaxnn.save(tmp_path / "n.jaxnn", network)
    assert_same(jaxnn.load(tmp_path / "n.jaxnn"), network)


def test_any_pytree_of_arrays_is_saved_and_loaded_by_its_like(tmp_path):
    def apply(params, x):
        return params["w"] * x

    model = Partial(apply, {"w": jnp.arange(3.0), "steps": jnp.array(4)})
    jaxnn.save(tmp_path / "m", model)
    empty = Partial(apply, {"w": jnp.zeros(3), "steps": jnp.array(0)})
    assert_same(jaxnn.load(tmp_path / "m", like=empty), model)
    with pytest.raises(ValueError, match="not a jaxnn.Network; pass `like`"):
        jaxnn.load(tmp_path / "m")


def test_numbers_and_shapes_will_do(tmp_path):
    model = {"rate": 2.5, "count": 3, "w": jnp.ones(2)}
    jaxnn.save(tmp_path / "m", model)
    again = jaxnn.load(tmp_path / "m", like=model)
    assert (float(again["rate"]), int(again["count"])) == (2.5, 3)
    shapes = jax.eval_shape(lambda: model)
    np.testing.assert_array_equal(jaxnn.load(tmp_path / "m", like=shapes)["w"], [1, 1])


def test_the_activations_inside_a_larger_model_are_checked(tmp_path, network):
    jaxnn.save(tmp_path / "m", {"mind": network})
    assert_same(jaxnn.load(tmp_path / "m", like={"mind": network}), {"mind": network})
    other = jaxnn.init(jax.random.key(0), network.sizes)
    with pytest.raises(ValueError, match="has the activations .*softmax.*`like` has .*sigmoid"):
        jaxnn.load(tmp_path / "m", like={"mind": other})


def test_a_file_with_a_right_checksum_and_another_content_is_refused(tmp_path):
    import hashlib

    for body in (b"\x80", b"not msgpack", b""):
        path = tmp_path / "n"
        path.write_bytes(b"jaxnn model 1\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        with pytest.raises(ValueError, match=r"n holds no model"):
            jaxnn.load(path)


def test_every_cut_and_every_flipped_byte_is_refused(tmp_path, network):
    path = tmp_path / "n.jaxnn"
    jaxnn.save(path, network)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"n.jaxnn is (damaged|not a model)"):
            jaxnn.load(path)
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(ValueError, match=r"n.jaxnn is (damaged|not a model)"):
            jaxnn.load(path)
    path.write_bytes(whole)
    assert_same(jaxnn.load(path), network)


def test_other_files_are_refused_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="picture.png is not a model saved by jaxnn.save"):
        jaxnn.load(tmp_path / "picture.png")
    with pytest.raises(FileNotFoundError, match="absent"):
        jaxnn.load(tmp_path / "absent")


def test_what_does_not_fit_like_is_named(tmp_path, network):
    path = tmp_path / "n.jaxnn"
    jaxnn.save(path, network)
    options = {"activation": "tanh", "output_activation": "softmax"}
    wider = jaxnn.init(jax.random.key(0), (5, 6, 3), **options)
    with pytest.raises(ValueError, match=r"layers\[0\].kernel as float32 of shape \(5, 4\).*\(5, 6\)"):
        jaxnn.load(path, like=wider)
    half = jaxnn.init(jax.random.key(0), (5, 4, 3), dtype=jnp.bfloat16, **options)
    with pytest.raises(ValueError, match="as float32 of shape .* `like` has bfloat16"):
        jaxnn.load(path, like=half)
    bare = jaxnn.init(jax.random.key(0), (5, 4, 3), use_bias=False, **options)
    with pytest.raises(ValueError, match=r"differ in their leaves: .layers\[0\].bias"):
        jaxnn.load(path, like=bare)
    with pytest.raises(ValueError, match="has the activations .*softmax.*`like` has"):
        jaxnn.load(path, like=jaxnn.init(jax.random.key(0), (5, 4, 3)))


def test_float64_is_not_cut_in_silence(tmp_path):
    with in_precision(np.float64):
        network = jaxnn.init(jax.random.key(0), (3, 2), dtype=jnp.float64)
        jaxnn.save(tmp_path / "n", network)
        assert_same(jaxnn.load(tmp_path / "n"), network)
    with pytest.raises(ValueError, match="float64.*set `jax_enable_x64`"):
        jaxnn.load(tmp_path / "n")


def test_a_network_whose_layers_do_not_fit_is_refused(tmp_path):
    dense = jaxnn.Dense(jnp.zeros((3, 2)), None, "tanh")
    jaxnn.save(tmp_path / "n", jaxnn.Network((dense, dense)))
    with pytest.raises(ValueError, match=r"needs a kernel of shape \(2, n_out\) in layer 1; got .*\(3, 2\)"):
        jaxnn.load(tmp_path / "n")


def test_what_is_no_array_is_not_saved(tmp_path):
    for leaf in ("text", lambda x: x, jax.random.key(0)):
        with pytest.raises(TypeError, match="`model` has a leaf .* that is not an array of numbers"):
            jaxnn.save(tmp_path / "n", {"leaf": leaf})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [None, {}, (), [None], jaxnn.Network(())])
def test_a_model_without_arrays_is_not_saved(tmp_path, model):
    with pytest.raises(ValueError, match="`model` must hold at least one array; got"):
        jaxnn.save(tmp_path / "n", model)
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_file(tmp_path, network, monkeypatch):
    path = tmp_path / "n.jaxnn"
    jaxnn.save(path, network)

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        jaxnn.save(path, jax.tree.map(jnp.zeros_like, network))
    assert [p.name for p in tmp_path.iterdir()] == ["n.jaxnn"]
    assert_same(jaxnn.load(path), network)
