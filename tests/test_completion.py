"""What an editor completes after a dot: public names, all in the reference, and nothing else."""

import importlib
import re
import types
from pathlib import Path

import pytest

import jaxnn

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
MODULES = ("attacks", "attribution", "datasets", "dreaming", "losses", "plot", "quality", "rules", "weights")


def reference_names(module):
    """The names with an entry in the reference of one module; an entry may list several, one per line."""
    names = set()
    for page in REFERENCE.glob("*.md"):
        for current, block in re.findall(r"currentmodule:: (\S+)(.*?)```", page.read_text(), re.DOTALL):
            if current == module:
                entries = re.findall(r"^\.\. (?:auto\w+|data):: (\w+(?:\n {10}\w+)*)", block, re.MULTILINE)
                names |= {name for entry in entries for name in entry.split()}
    return names


def completions(module):
    return {name for name in dir(module) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["jaxnn", *(f"jaxnn.{module}" for module in MODULES)])
def test_completion_lists_exactly_the_names_of_the_reference(name):
    names = completions(importlib.import_module(name)) - (set(MODULES) if name == "jaxnn" else set())
    assert names == reference_names(name)


def test_completion_of_the_package_lists_every_public_module():
    assert set(MODULES) <= completions(jaxnn)
    assert all(isinstance(getattr(jaxnn, name), types.ModuleType) for name in MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_listed_name_exists(name):
    module = importlib.import_module(f"jaxnn.{name}")
    assert all(hasattr(module, entry) for entry in dir(module))
