"""The gallery of the site is generated from the results of the experiments."""

import json

import pytest
from PIL import Image

from experiments import _gallery

pytestmark = pytest.mark.optimized

TITLE = "What [it] *sees*\n<b>in</b> an_image"
TEXTS = {"one": "What is it?\n\nThe first\nparagraph.\n\nThe second.", "own_image": "And yours?"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_gallery, "docstrings", lambda: TEXTS)
    results = tmp_path / "results" / "one"
    results.mkdir(parents=True)
    pictures = {"a.png": TITLE, "b.gif": "moves", "c.png": "C", "d.png": "one too many"}
    for file in pictures:
        Image.new("RGB", (1500, 300)).save(results / file)
    (results / "metrics.json").write_text(json.dumps({"pictures": pictures}))
    return tmp_path


def make(folder):
    _gallery.main(folder / "results", folder / "docs" / "gallery.md", folder / "docs" / "images" / "gallery")
    return (folder / "docs" / "gallery.md").read_text()


def test_two_pictures_of_each_experiment_are_shown_small(folder):
    text = make(folder)
    assert "## What is it?\n\nThe first paragraph.\n\n![" in text
    assert "The second" not in text
    assert "And yours?" not in text
    assert r"![What \[it\] \*sees\* \<b>in\</b> an\_image](images/gallery/one_a.webp)" in text
    assert "![C](images/gallery/one_c.webp)" in text
    assert {path.name for path in folder.rglob("*.webp")} == {"one_a.webp", "one_c.webp"}
    with Image.open(folder / "docs" / "images" / "gallery" / "one_a.webp") as small:
        assert small.size == (1000, 200)


def test_pictures_that_are_shown_no_more_go(folder):
    make(folder)
    found = {"pictures": {"c.png": "C"}}
    (folder / "results" / "one" / "metrics.json").write_text(json.dumps(found))
    (folder / "docs" / "images" / "gallery" / "mine.webp").write_bytes(b"")
    make(folder)
    assert {path.name for path in folder.rglob("*.webp")} == {"one_c.webp", "mine.webp"}


def test_names_of_pictures_are_quoted_and_stay_inside(folder):
    record = folder / "results" / "one" / "metrics.json"
    Image.new("RGB", (150, 30)).save(folder / "results" / "one" / "a (b) [c].png")
    record.write_text(json.dumps({"pictures": {"a (b) [c].png": "A"}}))
    assert "![A](images/gallery/one_a%20%28b%29%20%5Bc%5D.webp)" in make(folder)
    Image.new("RGB", (150, 30)).save(folder / "secret.png")
    record.write_text(json.dumps({"pictures": {"../../secret.png": "A"}}))
    with pytest.raises(ValueError, match=r"'../../secret.png' is no file in one/"):
        make(folder)


def test_without_results_it_says_what_to_run(folder):
    (folder / "results" / "one" / "metrics.json").unlink()
    with pytest.raises(SystemExit, match="experiments --all"):
        make(folder)
