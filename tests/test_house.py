"""Each module imports from lower floors only, as docs/house.py lists and draws them."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("house", ROOT / "docs" / "house.py")
house = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(house)


def test_each_room_imports_from_lower_floors_only():
    assert house.problems() == []


def test_there_is_no_circle_of_imports():
    assert house.circles(house.room_arrows()) == []
    assert house.circles(house.module_arrows()) == []


def test_the_picture_shows_the_imports_of_today():
    assert not house.is_stale(), "docs/images/house.svg is stale: run `python docs/house.py`"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_experiments_use_public_names_and_the_writer_of_files_only(path):
    private = [name for name in house.imports(path, house.PACKAGE) if name.startswith("_")]
    assert set(private) <= {"_files.write_atomically"}


def _package(folder, **files):
    """A package `jaxnn` of a few files; `__` in a name stands for a folder."""
    for name, code in files.items():
        path = folder / "jaxnn" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return folder / "jaxnn"


@pytest.fixture
def floors(monkeypatch):
    monkeypatch.setattr(house, "FLOORS", [("ground", {"_a": "", "_b": ""}), ("top", {"family": ""})])
    monkeypatch.setattr(house, "FLOOR_OF", {"_a": 0, "_b": 0, "family": 1})


@pytest.mark.usefixtures("floors")
def test_an_import_upwards_or_on_the_same_floor_is_named(tmp_path):
    package = _package(
        tmp_path,
        _a="import jaxnn.family\n",
        _b="def lazy():\n    from jaxnn._a import thing\n",
        family__part="from jaxnn import _b\nfrom jaxnn.family import other\n",
        family__other="",
    )
    upward, beside = house.problems(package)
    assert "jaxnn/_a.py imports jaxnn.family" in upward
    assert "_a (floor 0) may import from lower floors only, and family is on floor 1" in upward
    assert "jaxnn/_b.py imports jaxnn._a.thing" in beside
    assert house.summary(package) == "3 rooms, 3 arrows, 3 floors, 2 upward, 1 circles"


@pytest.mark.usefixtures("floors")
def test_a_new_room_is_told_where_to_go(tmp_path):
    package = _package(tmp_path, _a="", new="from jaxnn import _a\n", family__part="")
    new, gone = house.problems(package)
    assert "add `'new': 'what it holds'` to FLOORS in docs/house.py, on floor 1 (top) or higher" in new
    assert "since it imports _a; then run `python docs/house.py`" in new
    assert "lists '_b', which is not in jaxnn/" in gone


def test_circles_of_modules_within_a_package_are_found(tmp_path):
    package = _package(
        tmp_path, family__one="from jaxnn.family._two import f\n", family___two="import jaxnn.family.one\n"
    )
    assert house.circles(house.room_arrows(package)) == []
    assert house.circles(house.module_arrows(package)) == [["family._two", "family.one"]]


def test_a_relative_import_is_refused(tmp_path):
    package = _package(tmp_path, _a="from . import _b\n", _b="")
    with pytest.raises(ValueError, match="relative import"):
        house.problems(package)


def test_an_arrow_that_others_imply_is_not_drawn():
    arrows = {"top": {"middle", "ground"}, "middle": {"ground"}, "ground": set()}
    assert house.essential(arrows) == [("middle", "ground"), ("top", "middle")]


def test_the_picture_has_every_room_and_is_valid_xml():
    texts = {element.text for element in ElementTree.fromstring(house.picture()).iter()}  # noqa: S314
    assert house.FLOOR_OF.keys() - texts == {"__init__"}
