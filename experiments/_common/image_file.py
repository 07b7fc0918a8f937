"""Preprocessing of a picture of one handwritten digit into the format of MNIST.

MNIST's digits are light on black, fill a box of 20 x 20 pixels in their longer direction, and lie
with their center of mass at the middle of 28 x 28 (LeCun et al. 1998, "Gradient-based learning
applied to document recognition", section III-A).
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps, ImageSequence, UnidentifiedImageError

from experiments._common.frame import inside_frame
from experiments._common.options import printable

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")  # Pillow decodes them itself, without other programs
_MOST_PIXELS = 50_000_000
_SIDE = 28
_BOX = 20
_MIDDLE = 14  # the pixel on which MNIST puts the center of mass
_WORKING_SIDE = 512  # larger pictures are shrunk to this first
_EVEN = 3.0  # spread of gray levels, of 255, in an evenly lit background
_LEAST_CONTRAST = 12.0  # gray levels, of 255, between ink and background
_DEPTHS = (1, 255, 1023, 4095, 16383, 65535)  # white, in 1 (or a fraction), 8, 10, 12, 14 and 16 bits

Grays = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


class Ink(NamedTuple):
    """The amount of ink of each pixel, from 0 to 255, and the contrast with the background, likewise."""

    image: Image.Image
    contrast: float


def read_digit(path: Path, *, invert: bool | None = None) -> Bytes:
    """Read a picture of one digit and preprocess it as MNIST does.

    The picture may be of any size, gray, in color, with a palette or transparent, dark on light or
    light on dark, framed, and unevenly lit as long as the light changes smoothly. The border, or
    that inside of the frame, should mostly show the background. Of several pictures in a file, such
    as those of an animation, the first with a digit is read.

    Args:
        path: The file, in one of FORMATS.
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
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow; what it warns of is no digit, or an error below
        inks = (_ink_of(picture, invert) for picture in _read(file, path))
        ink = next((ink for ink in inks if ink is not None), None)
    if ink is None:
        raise ValueError(f"no digit stands out from the background of {printable(path)}")
    return _center(_fit_to_box(ink.image))


def _read(file: BinaryIO, path: Path) -> Iterator[Image.Image]:
    """The pictures in a file, upright: gray, in color or transparent, their sides at most 512."""
    pixels = 0
    try:
        with Image.open(file, formats=FORMATS) as picture:
            for frame in ImageSequence.Iterator(picture):
                pixels += frame.width * frame.height
                if pixels > _MOST_PIXELS:  # before they are decoded
                    raise Image.DecompressionBombError(f"it has more than {_MOST_PIXELS:,} pixels")
                yield _shrink(ImageOps.exif_transpose(frame))
    except Image.DecompressionBombError as error:
        raise ValueError(f"the picture {printable(path)} is too large: {error}") from error
    except Exception as error:  # Pillow's readers raise errors of many types on a damaged file
        unknown = f"it is in none of the formats {', '.join(FORMATS)}"
        reason = unknown if isinstance(error, UnidentifiedImageError) else error
        text = f"{printable(path)} is not a picture, or a damaged one: {printable(reason)}"
        raise ValueError(text) from error


def _shrink(picture: Image.Image) -> Image.Image:
    """A picture in gray levels from 0 to 255 (of mode L), in color (RGB) or transparent (RGBA)."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.array(picture, dtype=np.float32)
        np.nan_to_num(values, copy=False).clip(0.0, out=values)
        peak = values.max()
        values *= 255.0 / next((white for white in _DEPTHS if peak <= white), peak)
        picture = Image.fromarray(values)
    elif picture.mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode != "RGB":
        picture = picture.convert("RGB")
    picture.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX)
    return Image.fromarray(np.asarray(picture).round().astype(np.uint8)) if picture.mode == "F" else picture


def _ink_of(picture: Image.Image, invert: bool | None) -> Ink | None:
    """The ink of a picture; where it is transparent, on white, or on black if it stands out more there."""
    if picture.mode != "RGBA":
        return _ink_inside_frames(picture, invert)
    backdrops = (Image.new("RGBA", picture.size, color) for color in ("white", "black"))
    on_white, on_black = (
        _ink_inside_frames(Image.alpha_composite(backdrop, picture), invert) for backdrop in backdrops
    )
    if on_white is None or (on_black is not None and on_black.contrast > 2.0 * on_white.contrast):
        return on_black
    return on_white


def _ink_inside_frames(picture: Image.Image, invert: bool | None) -> Ink | None:
    """The ink inside of the innermost frame that has some."""
    parts = [np.asarray(picture.convert("L"), dtype=np.float64)]
    while (inside := inside_frame(parts[-1])) is not None:
        parts.append(inside)
    inks = (_ink(part, invert) for part in reversed(parts))
    return next((ink for ink in inks if ink is not None), None)


def _ink(gray: Grays, invert: bool | None) -> Ink | None:
    """The ink of a picture in gray levels; None if there is none."""
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
    image = _without_specks(Image.fromarray((stretched * 255.0).round().astype(np.uint8)))
    return None if image is None else Ink(image, level)


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
