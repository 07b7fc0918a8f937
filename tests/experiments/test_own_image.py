"""A picture of the reader's is classified, or refused in one line; its name may hold any bytes."""

import json
import os

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw

import jaxnn
from experiments import own_image

pytestmark = pytest.mark.optimized

NAME = os.fsdecode(b"caf\xe9 [red]$x$\n.png")
SHOWN = r"caf\udce9 [red]$x$\n"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "network.jaxnn"
    jaxnn.save(path, jaxnn.init(jax.random.key(0), (784, 10)))
    return path


def test_a_name_of_any_bytes_is_printed_and_written(tmp_path, network, capsys):
    picture = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(picture).line((30, 10, 30, 50), fill=0, width=6)
    with (tmp_path / NAME).open("wb") as file:
        picture.save(file, format="PNG")
    output = tmp_path / os.fsdecode(b"\xff")
    own_image.main(tmp_path / NAME, network=network, output=output)
    shown = "".join(capsys.readouterr().out.split())  # it is wrapped, at a space or anywhere
    name = SHOWN.replace(" ", "")
    assert f"{name}.pngisa" in shown
    assert rf"\udcff/{name}_answer.png" in shown
    stem = NAME.removesuffix(".png")
    assert json.loads((output / f"{stem}_answer.json").read_text())["image"].endswith(f"{SHOWN}.png")
    with Image.open(output / f"{stem}_answer.png") as drawn:
        assert np.asarray(drawn.convert("L")).std() > 10


@pytest.mark.parametrize(
    "content", [b"no picture", b"\x89PNG\r\n\x1a\n\0\0", None], ids=["text", "cut", "none"]
)
def test_another_file_is_refused_in_one_line(tmp_path, network, content):
    path = tmp_path / NAME
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        own_image.main(path, network=network, output=tmp_path / "output")
    assert "caf" in stopped.value.code
    assert "\n" not in stopped.value.code
    stopped.value.code.encode()
