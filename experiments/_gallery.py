"""Make the gallery of the site out of what `python -m experiments --all` has written.

`python -m experiments._gallery` shrinks the pictures of each experiment and writes docs/gallery.md.
"""

import json
import re
from pathlib import Path

import tyro
from PIL import Image

from experiments.__main__ import NEEDS_A_PICTURE, docstrings
from experiments._results import write_whole

_WIDTH = 1000  # pixels, at the most
_SHOWN = 2  # pictures of an experiment, at the most
_LEFT_OUT = {NEEDS_A_PICTURE, "distributed", "draw"}  # with no picture of their own to show


def main(
    results: Path = Path("results"),
    page: Path = Path("docs/gallery.md"),
    pictures: Path = Path("docs/images/gallery"),
) -> None:
    """Shrink the pictures, and write the page.

    Args:
        results: the folder of results.
        page: to write.
        pictures: the folder for the pictures, beside or below that of the page.
    """
    sections, used = [], set()
    for name, docstring in docstrings().items():
        if name in _LEFT_OUT:
            continue
        numbers = results / name / "metrics.json"
        if not numbers.is_file():
            raise SystemExit(f"{numbers} is not there: run `python -m experiments --all` first")
        found = json.loads(numbers.read_text())
        question, *rest = docstring.split("\n\n")
        shown = [(file, title) for file, title in found["pictures"].items() if file.endswith(".png")][:_SHOWN]
        lines = [f"## {question}", *(paragraph.replace("\n", " ") for paragraph in rest[:1])]
        for file, title in shown:
            small = pictures / f"{name}_{Path(file).stem}.webp"
            shrink(results / name / file, small)
            used.add(small)
            lines.append(f"![{plain(title)}]({small.relative_to(page.parent).as_posix()})")
        lines.append(f"`python -m experiments.{name}`")
        sections.append("\n\n".join(lines))
    for old in set(pictures.glob("*.webp")) - used:
        old.unlink()
    head = (
        "# Gallery\n\nOne picture or two of each experiment, on mnist-5k with its default options. "
        "[The experiments](experiments.md) says what came out; `python -m experiments --all` draws them all, "
        "and more."
    )
    write_whole(page, lambda path: path.write_text("\n\n".join([head, *sections]) + "\n", encoding="utf-8"))


def plain(text: str) -> str:
    """A text in one line, which Markdown takes for what it is."""
    return re.sub(r"([\\\[\]*_`<&])", r"\\\1", " ".join(text.split()))


def shrink(picture: Path, to: Path) -> None:
    """Write a picture for the page: no wider than it is shown, and small."""
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.LANCZOS)
    write_whole(to, lambda path: image.save(path, format="WEBP", quality=82, method=6))


if __name__ == "__main__":
    tyro.cli(main)
