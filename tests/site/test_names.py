"""What the reference of the site must have an entry for: every public name."""

import importlib
import importlib.util
from pathlib import Path

import pytest

import jaxnn

DOCS = Path(__file__).parents[2] / "docs"
_SPEC = importlib.util.spec_from_file_location("names", DOCS / "names.py")
names = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(names)

FILES = {
    "__init__.py": "import json\nfrom typing import TYPE_CHECKING, Any\n"
    "from {0}._inside import Thing as Thing, function as function\nLIMIT = 3\n",
    "_inside.py": "def function(): pass\n"
    "class Thing:\n"
    "    size = 3\n"
    "    def method(self): pass\n"
    "    def _own(self): pass\n"
    "    @property\n    def width(self): pass\n"
    "    @classmethod\n    def of(cls): pass\n"
    "    @staticmethod\n    def at(): pass\n",
    "listed.py": "from json import loads\n__all__ = ('COLOR', 'act')\nCOLOR = 'blue'\nOTHER = 1\n"
    "def act(): pass\n",
    "family/__init__.py": "from {0}._inside import function as method\n_HIDDEN = 1\n",
}


def test_every_public_name_is_found(tmp_path, monkeypatch):
    package = "a_package_to_look_at"
    for file, text in FILES.items():
        path = tmp_path / package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(package))
    monkeypatch.syspath_prepend(tmp_path)
    found = set(names.public_names(importlib.import_module(package)))
    assert {name.removeprefix(f"{package}.") for name in found} == {
        "LIMIT", "Thing", "Thing.at", "Thing.method", "Thing.of", "Thing.width", "function", "listed.COLOR",
        "listed.act", "family.method",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["jaxnn.train", "jaxnn.plot.BLUE", "jaxnn.datasets.POINT_SETS", "jaxnn.rules.Tree.leaf"],
)
def test_functions_constants_and_methods_of_ours_count(name):
    assert name in set(names.public_names(jaxnn))


def test_no_name_of_others_counts():
    found = set(names.public_names(jaxnn))
    assert not found & {"jaxnn.Any", "jaxnn.TYPE_CHECKING", "jaxnn.importlib", "jaxnn.plot.plt"}
    assert not any(part.startswith("_") for name in found for part in name.split("."))
