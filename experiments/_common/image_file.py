"""Preprocessing of a picture of one handwritten digit into the format of MNIST.

MNIST's digits are light on black, fill a box of 20 x 20 pixels in their longer direction, and lie
with their center of mass at the middle of 28 x 28 (LeCun et al. 1998, "Gradient-based learning
applied to document recognition", section III-A).
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

_SIDE = 28
_BOX = 20
_MIDDLE = 14  # the pixel on which MNIST puts the center of mass
_WORKING_SIDE = 512  # larger pictures are shrunk to this first
_EVEN = 3.0  # spread of gray levels, of 255, in an evenly lit background
_LEAST_CONTRAST = 12.0  # gray levels, of 255, between ink and background

Grays = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


def read_digit(path: Path, *, invert: bool | None = None) -> Bytes:
    """Read a picture of one digit and preprocess it as MNIST does.

    The picture may be in any format that Pillow reads, of any size, gray, in color, with a palette
    or transparent (then on white), dark on light or light on dark, and unevenly lit as long as the
    light changes smoothly. The border should mostly show the background.

    Args:
        path: The file.
        invert: True for dark ink on a light background, False for light on dark; None decides by
            which of the two stands out from the border of the picture.

    Returns:
        (28, 28) uint8, the background 0 and the ink up to 255.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file is not a picture, is damaged or is unreasonably large, or no ink stands
            out from its background.
    """
    path = Path(path)
    with path.open("rb") as file:
        gray = _read_gray(file, path)
    ink = _ink(gray, invert)
    if ink is None:
        raise ValueError(f"no digit stands out from the background of {path}")
    return _center(_fit_to_box(ink))


def _read_gray(file: BinaryIO, path: Path) -> Grays:
    """Load a picture upright, in gray levels from 0 to 255, its sides at most 512."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                gray = _to_gray(ImageOps.exif_transpose(picture))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"the picture {path} is too large: {error}") from error
    except Exception as error:  # Pillow's readers raise errors of many types on a damaged file
        raise ValueError(f"{path} is not a picture, or a damaged one: {error}") from error
    gray.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX)
    return np.asarray(gray, dtype=np.float64)


def _to_gray(picture: Image.Image) -> Image.Image:
    """Convert to gray levels from 0 to 255; transparent pixels are white."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64)).clip(0.0)
        peak = values.max()
        full = next((full for full in (1.0, 255.0, 65535.0) if peak <= full), peak)
        return Image.fromarray((values * (255.0 / full)).round().astype(np.uint8))
    if picture.mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB").convert("L")


def _ink(gray: Grays, invert: bool | None) -> Image.Image | None:
    """The amount of ink of each pixel, from 0 to 255; None if there is none."""
    background, noise = _background(gray)
    stands_out = gray - background
    if invert is None:
        # The cube makes the few pixels of strong ink outweigh a slight gradient of the light.
        invert = bool((stands_out**3).sum() < 0.0)
    ink = np.maximum(-stands_out if invert else stands_out, 0.0)
    split = _otsu(ink)
    if not (ink > split).any():
        return None
    level = float(np.median(ink[ink > split]))
    if level < max(_LEAST_CONTRAST, 6.0 * noise):
        return None
    low = max(0.1 * level, 3.0 * noise)
    stretched = ((ink - low) / (level - low)).clip(0.0, 1.0)
    return _without_specks(Image.fromarray((stretched * 255.0).round().astype(np.uint8)))


def _background(gray: Grays) -> tuple[Grays, float]:
    """The gray level of the background at each pixel, and its noise level.

    The median of the border if most of the border is even. Otherwise a quadratic surface
    through the border's pixels, fit by least absolute deviations (reweighted least squares), which
    a digit that touches the border bends little.
    """
    height, width = gray.shape
    edge = max(1, min(height, width) // 50)
    border = np.ones(gray.shape, dtype=bool)
    border[edge:-edge, edge:-edge] = False
    levels = gray[border]
    noise = _spread(levels - np.median(levels))
    if noise < _EVEN:
        return np.full_like(gray, np.median(levels)), noise

    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    design, residual = terms[border], levels - np.median(levels)
    for _ in range(20):
        trusted = design.T / np.maximum(np.abs(residual), 1.0)
        surface = np.linalg.lstsq(trusted @ design, trusted @ levels, rcond=None)[0]
        residual = levels - design @ surface
    return (terms @ surface).clip(0.0, 255.0), _spread(residual)


def _spread(residual: Grays) -> float:
    """A robust standard deviation: the scaled median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(residual)))


def _otsu(values: Grays) -> float:
    """Otsu's threshold: maximize the variance between the two groups (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centers = (edges[:-1] + edges[1:]) / 2.0
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.argmax(np.nan_to_num(between)))])


def _without_specks(ink: Image.Image) -> Image.Image | None:
    """Remove specks much smaller than a stroke, such as dust and noise."""
    radius = max(ink.size) // 128
    if radius == 0:
        return ink
    dense = np.asarray(ink.filter(ImageFilter.BoxBlur(radius))) > 40
    near = Image.fromarray(np.uint8(255) * dense).filter(ImageFilter.MaxFilter(2 * radius + 1))
    clean = np.where(np.asarray(near) > 0, np.asarray(ink), np.uint8(0))
    return Image.fromarray(clean) if clean.any() else None


def _fit_to_box(ink: Image.Image) -> Bytes:
    """Crop to the bounding box, with its longer side scaled to 20 pixels and its peak to 255."""
    rows, columns = np.nonzero(np.asarray(ink) > 25)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = _BOX / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(ink.crop(box).resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    stretched: Bytes = (scaled * (255.0 / scaled.max())).round().astype(np.uint8)
    return stretched


def _center(digit: Bytes) -> Bytes:
    """Place the digit in 28 x 28, shifted by whole pixels to center its center of mass."""
    starts = []
    for axis, size in enumerate(digit.shape):
        mass = digit.sum(axis=1 - axis, dtype=np.float64)
        center = float(np.average(np.arange(size), weights=mass))
        starts.append(min(max(round(_MIDDLE - center), 0), _SIDE - size))
    top, left = starts
    image = np.zeros((_SIDE, _SIDE), dtype=np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
